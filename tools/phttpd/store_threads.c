// SPDX-License-Identifier: MIT
/*
 * store_threads.c - several threads put, get and delete the same keys: for the
 * thread sanitizer
 *
 * Values say who they are, so a reader can tell that what it holds is whole. With zero
 * copy, chunks that are filled are written to at once, as a NIC would: a
 * reader of a chunk that came back too early is a data race.
 */
#include <errno.h>

#include "store_test.h"

#define THREADS	   4
#define KEYS	   24
#define BATCHES	   1500
#define BATCH	   8
#define HOLDS	   4
#define VALUE_MAX  900
#define HEAD	   16 /* key and id, at the start of each value */
#define POOL_CHUNK 1024
#define POOL_SLICE 96

static struct store *st;
static struct store_opts opts;
static uint32_t slice_first[THREADS], slice_n[THREADS];
static unsigned char pool_memory[(1 + THREADS * POOL_SLICE) * POOL_CHUNK];
static struct store_pool pool = { (char *)pool_memory, POOL_CHUNK,  1,
				  THREADS *POOL_SLICE, slice_first, slice_n };
static atomic_uint faults, n_puts, n_gets, n_deletes, n_waits;

struct worker {
	pthread_t thread;
	struct store_thread *t;
	unsigned index;
	uint64_t seed;
	uint32_t free[POOL_SLICE];
	uint32_t n_free;
	struct store_rec *holds[HOLDS];
};

static void fault(const char *what)
{
	if (atomic_fetch_add(&faults, 1) < 5)
		printf("# %s\n", what);
}

static uint32_t choose(struct worker *w, uint32_t n)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return (w->seed >> 32) % n;
}

/* ------------------------------------------------------------------------- */
/* Memory */

static void plain_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	(void)io;
	memcpy(dst, src, len);
}

static void plain_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	(void)io;
	__atomic_store_n(dst, value, __ATOMIC_RELAXED);
}

static void plain_flush(struct store_io *io, const void *addr, size_t len)
{
	(void)io;
	(void)addr;
	(void)len;
}

static int plain_drain(struct store_io *io)
{
	(void)io;
	return 0;
}

static const struct io_ops io_plain = { plain_copy, plain_store, plain_flush, plain_drain };

static void chunk_fill(struct worker *w, uint32_t chunk)
{
	memset(pool_memory + (size_t)chunk * POOL_CHUNK, (int)chunk, POOL_CHUNK);
	w->free[w->n_free++] = chunk;
}

static void take_fills(struct worker *w)
{
	uint32_t chunks[16];
	int i, n;

	while (opts.pool && (n = store_take_fills(w->t, chunks, ARRAY_SIZE(chunks))))
		for (i = 0; i < n; i++)
			chunk_fill(w, chunks[i]);
}

/* ------------------------------------------------------------------------- */
/* Values and operations */

static size_t make_key(unsigned number, unsigned char *key)
{
	make_bytes(number, key, 8);
	return 8;
}

static void do_put(struct worker *w)
{
	unsigned char bytes[VALUE_MAX], *data = bytes;
	size_t len = HEAD + choose(w, VALUE_MAX - HEAD), klen;
	uint64_t id = w->seed;
	uint32_t chunk = NONE;
	struct store_put p;
	unsigned char key[8];
	int err;

	klen = make_key(choose(w, KEYS), key);
	if (opts.pool && w->n_free) {
		chunk = w->free[--w->n_free];
		data = pool_memory + (size_t)chunk * POOL_CHUNK;
	}
	memcpy(data, key, 8);
	memcpy(data + 8, &id, 8);
	make_bytes(id, data + HEAD, len - HEAD);
	err = store_put_begin(w->t, &p, key, opts.kind == STORE_KV ? klen : 0, len);
	if (!err)
		err = store_put_add(w->t, &p, data, len);
	if (!err)
		err = store_put_end(w->t, &p);
	if (err < 0)
		store_put_abort(w->t, &p);
	if (chunk != NONE && !store_keep(w->t, chunk))
		chunk_fill(w, chunk);
	atomic_fetch_add(err == -EAGAIN ? &n_waits : &n_puts, 1);
	if (err < 0 && err != -EAGAIN && err != -ENOSPC)
		fault("put failed");
}

static void check_record(struct worker *w, struct store_rec *rec)
{
	unsigned char got[VALUE_MAX], want[VALUE_MAX];
	size_t len = store_rec_len(rec), n = 0;
	struct store_pieces p;
	uint64_t id;
	bool more;

	for (more = store_rec_first(w->t, rec, &p); more; more = store_rec_next(w->t, &p)) {
		memcpy(got + n, p.addr, p.len);
		n += p.len;
	}
	if (n != len || len < HEAD) {
		fault("a wrong length");
		return;
	}
	memcpy(&id, got + 8, 8);
	make_bytes(id, want, len - HEAD);
	if (memcmp(got + HEAD, want, len - HEAD))
		fault("a record that is not whole");
}

static void do_get(struct worker *w)
{
	struct store_rec **hold = &w->holds[choose(w, HOLDS)];
	unsigned char key[8];
	size_t klen;
	int err;

	if (*hold) {
		check_record(w, *hold);
		store_rec_put(w->t, *hold);
		*hold = NULL;
	}
	klen = make_key(choose(w, KEYS), key);
	err = store_get(w->t, key, klen, hold);
	if (!err)
		check_record(w, *hold);
	else if (err != -ENOENT && err != -EAGAIN)
		fault("get failed");
	atomic_fetch_add(err == -EAGAIN ? &n_waits : &n_gets, 1);
}

static void do_delete(struct worker *w)
{
	unsigned char key[8];
	size_t klen = make_key(choose(w, KEYS), key);
	int err = store_delete(w->t, key, klen);

	if (err && err != -ENOENT && err != -EAGAIN)
		fault("delete failed");
	atomic_fetch_add(err == -EAGAIN ? &n_waits : &n_deletes, 1);
}

static void end_batch(struct worker *w)
{
	if (store_commit(w->t) < 0 || (choose(w, 4) == 0 && store_idle(w->t) < 0))
		fault("commit failed");
	take_fills(w);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned i, j, what;

	for (i = 0; i < BATCHES; i++) {
		for (j = choose(w, BATCH); j > 0; j--) {
			what = choose(w, 10);
			if (what < 5 || opts.kind == STORE_WAL)
				do_put(w);
			else if (what < 8)
				do_get(w);
			else
				do_delete(w);
		}
		end_batch(w);
	}
	for (i = 0; i < HOLDS; i++)
		if (w->holds[i])
			store_rec_put(w->t, w->holds[i]);
	return NULL;
}

static void run(enum store_kind kind, bool zero_copy, const char *name)
{
	static struct worker workers[THREADS];
	struct memory_layout layout = { THREADS, 64, 64, 1024 };
	struct store_report report;
	char *memory = aligned_alloc(4096, THREADS * (memory_log_bytes(&layout) + 4096));
	unsigned i, j;

	atomic_store(&faults, 0);
	opts = (struct store_opts){ .kind = kind, .threads = THREADS, .wrap = kind == STORE_WAL };
	opts.pool = zero_copy ? &pool : NULL;
	memory_format(&layout, &opts, memory);
	memset(workers, 0, sizeof(workers));
	for (i = 0; i < THREADS; i++) {
		slice_first[i] = 1 + i * POOL_SLICE;
		slice_n[i] = POOL_SLICE;
	}
	st = memory_open(&layout, &opts, memory, &io_plain, &report);
	for (i = 0; i < THREADS; i++) {
		workers[i].t = store_thread(st, i);
		workers[i].index = i;
		workers[i].seed = 12345 + i * 777;
		for (j = 0; j < POOL_SLICE; j++)
			workers[i].free[workers[i].n_free++] = slice_first[i] + j;
	}
	for (i = 0; i < THREADS; i++)
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	for (i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < 3 * THREADS; i++) {
		if (store_idle(workers[i % THREADS].t) < 0)
			fault("idle failed");
		take_fills(&workers[i % THREADS]);
	}
	if (!space_is_whole(st))
		fault("slots or chunks are lost or used twice");
	store_close(st);
	free(memory);
	result(!faults, "%u threads, %s", THREADS, name);
}

int main(void)
{
	run(STORE_KV, false, "key-value, copy");
	run(STORE_KV, true, "key-value, zero copy");
	run(STORE_TREE, false, "B+tree, copy");
	run(STORE_TREE, true, "B+tree, zero copy");
	run(STORE_WAL, false, "log, copy");
	run(STORE_WAL, true, "log, zero copy");
	printf("# %u puts, %u gets, %u deletes, %u had to wait\n", n_puts, n_gets, n_deletes,
	       n_waits);
	return results();
}
