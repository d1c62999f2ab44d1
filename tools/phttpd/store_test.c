// SPDX-License-Identifier: MIT
/*
 * store_test.c - unit tests of the store: index, rules, files, damage
 *
 * store_test --recover N makes a log of N records of 1 KB in memory and prints how
 * long it takes to recover. store_test --pmem wants PMEM_IS_PMEM_FORCE=1: libpmem then
 * takes every file for persistent memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tree.c" /* to see its nodes */
#include "store_test.h"

#define DAMAGES 2500 /* per kind and mode */

static bool good;

#define CHECK(condition)                                                                 \
	do {                                                                             \
		if (!(condition)) {                                                      \
			if (good)                                                        \
				printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
			good = false;                                                    \
		}                                                                        \
	} while (0)

/* ------------------------------------------------------------------------- */
/* Memory that needs no flushing */

static void plain_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	(void)io;
	memcpy(dst, src, len);
}

static void plain_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	(void)io;
	*dst = value;
}

static void plain_flush(struct store_io *io, const void *addr, size_t len)
{
	(void)io;
	(void)addr;
	(void)len;
}

static int drain_error;

static int plain_drain(struct store_io *io)
{
	(void)io;
	return drain_error;
}

static const struct io_ops io_plain = { plain_copy, plain_store, plain_flush, plain_drain };

/* ------------------------------------------------------------------------- */
/* Tree */

#define TREE_KEYS 3000

static unsigned leaf_depth;
static uint32_t tree_seen;
static uint64_t tree_last;

/* Order, occupancy, and all leaves at one depth. */
static void check_node(const struct node *n, unsigned depth, uint64_t low, uint64_t high, bool root)
{
	unsigned i;

	CHECK(root || n->n >= KEYS_MIN);
	for (i = 0; i < n->n; i++) {
		CHECK(n->key[i] >= low && n->key[i] <= high);
		CHECK(!i || n->key[i] > n->key[i - 1]);
	}
	if (n->leaf) {
		CHECK(!leaf_depth || leaf_depth == depth);
		leaf_depth = depth;
		return;
	}
	for (i = 0; i <= n->n; i++)
		check_node(n->child[i], depth + 1, i ? n->key[i - 1] : low,
			   i < n->n ? n->key[i] - 1 : high, false);
}

static void check_order(struct store_rec *rec, void *arg)
{
	const bool *there = arg;

	CHECK(!tree_seen || rec->key > tree_last);
	CHECK(there[rec->key / 5]);
	tree_last = rec->key;
	tree_seen++;
}

static void check_tree(const struct tree *t, const bool *there, struct store_rec *recs)
{
	struct store_rec **at;
	uint32_t i, n = 0;

	leaf_depth = 0;
	tree_seen = 0;
	check_node(t->root, 1, 0, UINT64_MAX, true);
	for (i = 0; i < TREE_KEYS; i++) {
		at = tree_find(t, recs[i].key);
		CHECK(there[i] ? at && *at == &recs[i] : !at);
		CHECK(!tree_find(t, recs[i].key + 1));
		n += there[i];
	}
	tree_each(t, check_order, (void *)there);
	CHECK(tree_seen == n);
}

static void test_tree(void)
{
	static struct store_rec recs[TREE_KEYS];
	static bool there[TREE_KEYS];
	struct tree t = { NULL, NULL, NULL };
	uint32_t i, k, fill;

	CHECK(!tree_find(&t, 1));
	tree_remove(&t, 1);
	for (i = 0; i < TREE_KEYS; i++)
		recs[i].key = (uint64_t)i * 5;
	for (i = 0; i < 200000; i++) {
		/* Grow and shrink, down to nothing. */
		fill = i / 20000 % 2 ? 20 : 80;
		k = below(TREE_KEYS);
		if (below(100) < fill && !there[k]) {
			CHECK(!tree_insert(&t, recs[k].key, &recs[k]));
			there[k] = true;
		} else if (below(100) >= fill) {
			tree_remove(&t, recs[k].key);
			there[k] = false;
		}
		if (i % 2000 == 0)
			check_tree(&t, there, recs);
	}
	for (k = 0; k < TREE_KEYS; k++)
		tree_remove(&t, recs[k].key);
	memset(there, 0, sizeof(there));
	check_tree(&t, there, recs);
	tree_destroy(&t);
}

/* ------------------------------------------------------------------------- */
/* A store in memory */

static struct memory_layout layout = { 1, 64, 64, 512 };
static struct store_opts opts;
static char *memory;
static struct store *st;
static struct store_report report;

static void open_again(void)
{
	if (st)
		store_close(st);
	st = memory_open(&layout, &opts, memory, &io_plain, &report);
	CHECK(st);
}

static void open_new(enum store_kind kind, bool wrap)
{
	opts = (struct store_opts){ .kind = kind, .threads = layout.n_logs, .wrap = wrap };
	memory = aligned_alloc(4096, layout.n_logs * memory_log_bytes(&layout) + 4096);
	memory_format(&layout, &opts, memory);
	open_again();
}

static void close_it(void)
{
	store_close(st);
	st = NULL;
	free(memory);
}

static struct store_thread *t0(void)
{
	return store_thread(st, 0);
}

/* Without commit. */
static int put(struct store_thread *t, const char *key, uint64_t id, size_t len)
{
	unsigned char bytes[40000];
	struct store_put p;
	int err;

	make_bytes(id, bytes, len);
	if (t->s->opts.kind == STORE_TREE)
		memcpy(bytes, key, 8);
	err = store_put_begin(t, &p, key, t->s->opts.kind == STORE_KV ? strlen(key) : 0, len);
	if (err)
		return err;
	err = store_put_add(t, &p, bytes, len / 3);
	if (!err)
		err = store_put_add(t, &p, bytes + len / 3, len - len / 3);
	if (!err)
		err = store_put_end(t, &p);
	if (err < 0)
		store_put_abort(t, &p);
	return err;
}

static int put_now(struct store_thread *t, const char *key, uint64_t id, size_t len)
{
	int err = put(t, key, id, len);

	if (err < 0)
		return err;
	if (store_commit(t) < 0 || store_idle(t) < 0)
		return -EIO;
	return err;
}

static bool rec_is(struct store_thread *t, struct store_rec *rec, uint64_t id, size_t len)
{
	unsigned char want[40000], got[40000];
	bool tree = t->s->opts.kind == STORE_TREE;
	struct store_pieces p;
	size_t n = 0;
	bool more;

	if (store_rec_len(rec) != len)
		return false;
	make_bytes(id, want, len);
	for (more = store_rec_first(t, rec, &p); more; more = store_rec_next(t, &p)) {
		memcpy(got + n, p.addr, p.len);
		n += p.len;
	}
	return n == len && !memcmp(want + 8 * tree, got + 8 * tree, len - 8 * tree);
}

/* 1 if key has that value, 0 if another, else the error. */
static int get_is(struct store_thread *t, const char *key, uint64_t id, size_t len)
{
	struct store_rec *rec;
	int err = store_get(t, key, strlen(key), &rec);

	if (err)
		return err;
	err = rec_is(t, rec, id, len);
	store_rec_put(t, rec);
	return err;
}

static void test_rules(void)
{
	struct store_thread *t;
	struct store_rec *rec;
	struct store_put p;

	open_new(STORE_KV, false);
	t = t0();
	CHECK(get_is(t, "a", 1, 10) == -ENOENT);
	CHECK(store_delete(t, "a", 1) == -ENOENT);
	CHECK(!store_pending(t));
	CHECK(put(t, "a", 1, 700) == 0);
	CHECK(store_pending(t));
	/* staged: everybody waits */
	CHECK(get_is(t, "a", 1, 700) == -EAGAIN);
	CHECK(store_delete(t, "a", 1) == -EAGAIN);
	CHECK(put(t, "a", 2, 5) == -EAGAIN);
	CHECK(store_commit(t) == 1);
	CHECK(get_is(t, "a", 1, 700) == 1);
	/* replaced: cleaning until the next drain */
	CHECK(put(t, "a", 2, 0) == 1);
	CHECK(store_commit(t) == 1);
	CHECK(get_is(t, "a", 2, 0) == 1);
	CHECK(put(t, "a", 3, 5) == -EAGAIN);
	CHECK(store_delete(t, "a", 1) == -EAGAIN);
	CHECK(store_commit(t) == 0);
	CHECK(store_pending(t));
	CHECK(store_idle(t) == 1);
	CHECK(!store_pending(t));
	CHECK(store_idle(t) == 0);
	/* deleted while somebody holds it */
	CHECK(store_get(t, "a", 1, &rec) == 0);
	CHECK(store_delete(t, "a", 1) == 0);
	CHECK(get_is(t, "a", 2, 0) == -EAGAIN);
	CHECK(store_commit(t) == 1);
	CHECK(get_is(t, "a", 2, 0) == -ENOENT);
	CHECK(!space_is_whole(st));
	CHECK(rec_is(t, rec, 2, 0));
	store_rec_put(t, rec);
	CHECK(space_is_whole(st));
	/* lengths */
	CHECK(store_put_begin(t, &p, "", 0, 1) == -EINVAL);
	CHECK(store_put_begin(t, &p, "a", 256, 1) == -EINVAL);
	CHECK(store_put_begin(t, &p, "a", 1, 64 * 512) == -EFBIG);
	CHECK(store_put_begin(t, &p, "a", 1, UINT64_MAX - 1) == -EFBIG);
	CHECK(store_put_begin(t, &p, "a", 1, 4) == 0);
	CHECK(store_put_add(t, &p, "12345", 5) == -EINVAL);
	CHECK(store_put_add(t, &p, "123", 3) == 0);
	CHECK(store_put_end(t, &p) == -EINVAL);
	store_put_abort(t, &p);
	CHECK(store_put_begin(t, &p, "a", 1, STORE_SIZE_UNKNOWN) == 0);
	CHECK(store_put_add(t, &p, "12345", 5) == 0);
	CHECK(store_put_end(t, &p) == 0);
	CHECK(store_commit(t) == 1);
	CHECK(store_delete(t, "a", 1) == 0 && store_commit(t) == 1);
	CHECK(space_is_whole(st));
	close_it();
}

static void test_full(void)
{
	char key[16];
	unsigned i, n;
	int err = 0;

	open_new(STORE_KV, false);
	for (n = 0; !err; n++) {
		snprintf(key, sizeof(key), "key%u", n);
		err = put_now(t0(), key, n, 1000);
	}
	CHECK(err == -ENOSPC && n > 25);
	for (i = 0; i < n - 1; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		CHECK(get_is(t0(), key, i, 1000) == 1);
	}
	/* Chunks that two records share are free when both are gone. */
	CHECK(store_delete(t0(), "key3", 4) == 0 && store_delete(t0(), "key4", 4) == 0 &&
	      store_delete(t0(), "key5", 4) == 0);
	CHECK(store_commit(t0()) == 1 && put_now(t0(), "new", 99, 1000) == 0);
	open_again();
	CHECK(report.records == n - 3 && !report.torn && space_is_whole(st));
	CHECK(get_is(t0(), "new", 99, 1000) == 1 && get_is(t0(), "key3", 3, 1000) == -ENOENT);
	close_it();
}

static void count_one(struct store_rec *rec, void *arg)
{
	(void)rec;
	++*(unsigned *)arg;
}

static void test_wal(void)
{
	unsigned i, n = 0;

	open_new(STORE_WAL, false);
	for (i = 0; i < 64; i++)
		CHECK(put_now(t0(), "", i, i % 9) == 0);
	CHECK(put_now(t0(), "", i, 5) == -ENOSPC);
	index_each(st, count_one, &n);
	CHECK(n == 64);
	opts.wrap = true;
	open_again();
	CHECK(report.records == 64);
	for (i = 0; i < 1000; i++) {
		CHECK(put(t0(), "", i, i % 700) == 0);
		if (i % 7 == 0)
			CHECK(store_commit(t0()) == 1);
	}
	CHECK(store_commit(t0()) == 1 && store_idle(t0()) >= 0);
	n = 0;
	index_each(st, count_one, &n);
	CHECK(n > 40 && space_is_whole(st));
	CHECK(put_now(t0(), "", 1, 40 * 512) == 0);
	CHECK(store_get(t0(), "a", 1, NULL) == -ENOENT);
	close_it();
}

static void test_failure(void)
{
	open_new(STORE_KV, false);
	CHECK(put(t0(), "a", 1, 10) == 0);
	drain_error = -EIO;
	CHECK(store_commit(t0()) == -EIO);
	drain_error = 0;
	CHECK(get_is(t0(), "a", 1, 10) == -EIO);
	CHECK(put(t0(), "b", 1, 10) == -EIO);
	CHECK(store_delete(t0(), "a", 1) == -EIO);
	close_it();
}

/* Other numbers of threads than there are logs: all is found, deleted, replaced. */
static void test_other_threads(void)
{
	char key[16];
	unsigned i, n;

	layout.n_logs = 3;
	open_new(STORE_KV, false);
	for (i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		CHECK(put_now(store_thread(st, i % 3), key, i, 100) == 0);
	}
	for (n = 1; n <= 3; n++) {
		opts.threads = n;
		open_again();
		CHECK(report.records == 60 && space_is_whole(st));
		for (i = 0; i < 60; i++) {
			snprintf(key, sizeof(key), "key%u", i);
			CHECK(get_is(store_thread(st, i % n), key, i + (n - 1) * 60, 100) == 1);
			CHECK(put_now(store_thread(st, (i + 1) % n), key, i + n * 60, 100) == 1);
		}
		for (i = 0; i < n; i++)
			CHECK(store_idle(store_thread(st, i)) >= 0);
		CHECK(space_is_whole(st));
	}
	close_it();
	layout.n_logs = 1;
}

/* ------------------------------------------------------------------------- */
/* Pools */

static void test_pool(void)
{
	static char pool_bytes[101 * 256];
	static uint32_t first = 1, n = 100;
	struct store_pool pool = { pool_bytes, 256, 1, 100, &first, &n };
	uint32_t chunks[10];
	struct store_put p;
	struct store_rec *rec;
	struct store_pieces pc;

	layout.n_chunks = 8;
	opts = (struct store_opts){ .kind = STORE_KV, .threads = 1, .pool = &pool };
	memory = aligned_alloc(4096, memory_log_bytes(&layout));
	memory_format(&layout, &opts, memory);
	open_again();
	make_bytes(7, (void *)(pool_bytes + 256), 512);
	CHECK(store_put_begin(t0(), &p, "k", 1, 400) == 0);
	CHECK(store_put_add(t0(), &p, pool_bytes + 256 + 100, 156) == 0);
	CHECK(store_put_add(t0(), &p, pool_bytes + 256 + 200, 100) == -EINVAL);
	CHECK(store_put_add(t0(), &p, pool_bytes + 512, 244) == 0);
	CHECK(store_put_end(t0(), &p) == 0);
	CHECK(store_commit(t0()) == 1);
	CHECK(store_keep(t0(), 1) && store_keep(t0(), 2) && !store_keep(t0(), 3));
	CHECK(!store_keep(t0(), 1)); /* one hold is enough */
	CHECK(store_get(t0(), "k", 1, &rec) == 0);
	CHECK(store_rec_first(t0(), rec, &pc) && pc.addr == pool_bytes + 356 && pc.in_pool);
	CHECK(store_rec_next(t0(), &pc) && pc.len == 244 && !store_rec_next(t0(), &pc));
	store_rec_get(rec);
	CHECK(store_delete(t0(), "k", 1) == 0 && store_commit(t0()) == 1);
	store_rec_put(t0(), rec);
	CHECK(store_take_fills(t0(), chunks, 10) == 0);
	store_rec_put(t0(), rec);
	CHECK(store_take_fills(t0(), chunks, 1) == 1 && store_take_fills(t0(), chunks + 1, 9) == 1);
	CHECK(chunks[0] + chunks[1] == 3 && space_is_whole(st));
	close_it();
	layout.n_chunks = 64;
}

/* ------------------------------------------------------------------------- */
/* Recovery */

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

#define RECOVERY_LIMIT 5 /* seconds, for a million records as well */

/* n records of 1 KB, as a server has left them: 64 in a batch. */
static void fill_and_recover(enum store_kind kind, uint32_t n, const char *name)
{
	struct memory_layout saved = layout;
	double start, taken[2];
	char key[32];
	uint32_t i;

	layout = (struct memory_layout){ 1, n + 64, n / 3 + 64, 4096 };
	opts = (struct store_opts){ .kind = kind, .threads = 1 };
	memory = mmap(NULL, memory_log_bytes(&layout), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	*(struct log_header *)memory = memory_header(&layout, &opts, 0);
	open_again();
	for (i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "key%08u", i * 7 % n);
		CHECK(put(t0(), key, i, 1024) == 0);
		if (i % 64 == 63)
			CHECK(store_commit(t0()) == 1);
	}
	CHECK(store_commit(t0()) >= 0);
	store_close(st);
	st = NULL;
	/* twice, as others may have the CPU meanwhile */
	for (i = 0; i < 2; i++) {
		start = seconds(CLOCK_MONOTONIC);
		open_again();
		taken[i] = seconds(CLOCK_MONOTONIC) - start;
		CHECK(report.records == n || kind == STORE_TREE);
		store_close(st);
		st = NULL;
	}
	CHECK(taken[0] < RECOVERY_LIMIT || taken[1] < RECOVERY_LIMIT);
	printf("# %s: %u records recovered in %.3f s, again in %.3f s\n", name, n, taken[0],
	       taken[1]);
	munmap(memory, memory_log_bytes(&layout));
	layout = saved;
}

static void test_recovery(void)
{
	fill_and_recover(STORE_WAL, 20000, "log");
	fill_and_recover(STORE_KV, 20000, "key-value");
}

/* ------------------------------------------------------------------------- */
/* Damage */

#define KEYS_N	   24
#define POOL_BYTES (65 * 256)

static char pool_memory[POOL_BYTES];
static uint32_t pool_first[] = { 1, 33 }, pool_n[] = { 32, 32 };
static struct store_pool pool = { pool_memory, 256, 1, 64, pool_first, pool_n };

static struct {
	char key[16];
	uint64_t id; /* 0: deleted */
	size_t len;
} model[KEYS_N];

static size_t damage_bytes(void)
{
	return layout.n_logs * memory_log_bytes(&layout);
}

/* With zero copy some values come from the pool. */
static int put_from_pool(struct store_thread *t, const char *key, uint64_t id, uint32_t chunk)
{
	struct store_put p;
	unsigned char *data = (unsigned char *)pool_memory + (size_t)chunk * 256;
	int err = store_put_begin(t, &p, key, opts.kind == STORE_KV ? strlen(key) : 0, 256);

	if (err)
		return err;
	make_bytes(id, data, 256);
	if (opts.kind == STORE_TREE)
		memcpy(data, key, 8);
	err = store_put_add(t, &p, data, 256);
	if (!err)
		err = store_put_end(t, &p);
	if (err < 0)
		store_put_abort(t, &p);
	else if (store_commit(t) < 0)
		err = -EIO;
	store_keep(t, chunk);
	return err;
}

/* Stored, replaced, deleted; a few slots were cleared. */
static void damage_prepare(enum store_kind kind, bool zero_copy)
{
	static const size_t lens[] = { 8, 100, 500, 2000 };
	struct store_thread *t;
	uint32_t i, k, chunk = 1;
	int err;

	layout = (struct memory_layout){ 2, 64, 40, 512 };
	opts = (struct store_opts){ .kind = kind, .threads = 2, .pool = zero_copy ? &pool : NULL };
	memory = aligned_alloc(4096, (damage_bytes() + 4095) & ~4095UL);
	memory_format(&layout, &opts, memory);
	open_again();
	memset(model, 0, sizeof(model));
	for (i = 0; i < (kind == STORE_WAL ? KEYS_N : 60); i++) {
		k = i % KEYS_N;
		t = store_thread(st, i % 2);
		snprintf(model[k].key, sizeof(model[k].key), "key%05u", k);
		model[k].id = i + 1;
		model[k].len = lens[below(4)];
		if (zero_copy && i % 3 && chunk < 20) {
			model[k].len = 256;
			/* in the thread's slice */
			err = put_from_pool(t, model[k].key, i + 1, pool_first[i % 2] + chunk++);
		} else {
			err = put_now(t, model[k].key, i + 1, model[k].len);
		}
		CHECK(err >= 0);
		CHECK(store_idle(t) >= 0);
	}
	for (k = 0; k < 4 && kind != STORE_WAL; k++) {
		CHECK(!store_delete(store_thread(st, k % 2), model[k].key, 8) &&
		      store_commit(store_thread(st, k % 2)) == 1);
		model[k].id = 0;
	}
	store_close(st);
	st = NULL;
}

/* Something happens to a few bytes; true if the last slots may be gone without a trace. */
static bool damage(char *image, char *pool_image)
{
	bool in_pool = opts.pool && below(4) == 0;
	char *base = in_pool ? pool_image : image;
	size_t size = in_pool ? POOL_BYTES : damage_bytes(), at, len;
	unsigned what = below(8);

	/* More often where the slots and headers are. */
	at = below(2) ? below(size) :
			below(2) * memory_log_bytes(&layout) + below(LOG_HEADER + 4096);
	if (at >= size)
		at = below(size);
	len = 1 + below(1 << below(12));
	if (len > size - at)
		len = size - at;
	switch (what) {
	case 0:
		memset(base + at, 0, len);
		return true;
	case 1:
		memset(base + at, 0xff, len);
		break;
	case 2:
		make_bytes(random64(), (unsigned char *)base + at, len);
		break;
	case 3: /* a slot that is in the wrong place */
		at = LOG_HEADER + below(64) * 64;
		memcpy(image + at, image + LOG_HEADER + below(64) * 64, 64);
		return true;
	case 4: /* a block that was written to the wrong place */
		if (size >= 1024)
			memmove(base + below(size - 512), base + below(size - 512), 512);
		return true;
	default:
		base[at] ^= 1 << below(8);
	}
	return false;
}

static void wal_check(struct store_rec *rec, void *arg)
{
	uint32_t k;

	if (!rec_verify(st, rec)) {
		++*(unsigned *)arg;
		return;
	}
	for (k = 0; k < KEYS_N; k++)
		if (rec_is(t0(), rec, model[k].id, model[k].len))
			return;
	CHECK(!"a record is there that was not stored");
}

/* Each value is what it was, or an error, or missing: and then that was said. */
static void damage_check(bool may_be_silent)
{
	unsigned lost = 0, corrupt = 0, k;
	int got;

	if (opts.kind == STORE_WAL) {
		index_each(st, wal_check, &corrupt);
		lost = KEYS_N - report.records;
	}
	for (k = 0; k < KEYS_N && opts.kind != STORE_WAL; k++) {
		got = get_is(t0(), model[k].key, model[k].id, model[k].len);
		CHECK(model[k].id ? got == 1 || got == -ENOENT || got == -EIO : got == -ENOENT);
		lost += model[k].id && got == -ENOENT;
		corrupt += got == -EIO;
	}
	CHECK(!lost || report.torn || may_be_silent);
	store_verify(st, &report);
	CHECK(report.corrupt == corrupt);
	for (k = 0; k < KEYS_N; k++) {
		got = put_now(store_thread(st, k % 2), model[k].key, 900 + k, 50);
		CHECK(got >= 0 || got == -ENOSPC);
		CHECK(got < 0 || opts.kind == STORE_WAL ||
		      get_is(t0(), model[k].key, 900 + k, 50) == 1);
	}
}

static void test_damage(enum store_kind kind, bool zero_copy)
{
	unsigned i, n, refused = 0;
	char *whole, *whole_pool = malloc(POOL_BYTES);
	bool silent;

	damage_prepare(kind, zero_copy);
	whole = malloc(damage_bytes());
	memcpy(whole, memory, damage_bytes());
	memcpy(whole_pool, pool_memory, POOL_BYTES);
	for (i = 0; i < DAMAGES; i++) {
		memcpy(memory, whole, damage_bytes());
		memcpy(pool_memory, whole_pool, POOL_BYTES);
		silent = false;
		for (n = 1 + below(3); n > 0; n--)
			silent |= damage(memory, pool_memory);
		st = memory_open(&layout, &opts, memory, &io_plain, &report);
		if (st) {
			damage_check(silent);
			store_close(st);
		} else {
			refused++;
		}
		st = NULL;
	}
	CHECK(refused && refused < DAMAGES / 2);
	free(memory);
	free(whole);
	free(whole_pool);
	layout = (struct memory_layout){ 1, 64, 64, 512 };
}

/* ------------------------------------------------------------------------- */
/* Files */

static char dir[64];
static char text[256];

static int file_open(unsigned threads, bool check)
{
	opts = (struct store_opts){ .dir = dir,
				    .kind = STORE_KV,
				    .threads = threads,
				    .bytes = threads * 131072ULL,
				    .check = check };
	st = NULL;
	text[0] = 0;
	return store_open(&st, &opts, &report, text, sizeof(text));
}

static void file_close(void)
{
	store_close(st);
	st = NULL;
}

static void path_of(char *path, const char *name)
{
	snprintf(path, 128, "%s/%s", dir, name);
}

static void file_write(const char *name, off_t off, const void *bytes, size_t len)
{
	char path[128];
	int fd;

	path_of(path, name);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && pwrite(fd, bytes, len, off) == (ssize_t)len);
	close(fd);
}

static void file_read(const char *name, void *bytes, size_t len)
{
	char path[128];
	int fd;

	path_of(path, name);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && pread(fd, bytes, len, 0) == (ssize_t)len);
	close(fd);
}

static void file_rename(const char *from, const char *to)
{
	char a[128], b[128];

	path_of(a, from);
	path_of(b, to);
	CHECK(!rename(a, b));
}

static void dir_make(void)
{
	snprintf(dir, sizeof(dir), "/tmp/store_test.XXXXXX");
	CHECK(mkdtemp(dir));
}

static void dir_remove(void)
{
	char path[128];
	unsigned i;

	for (i = 0; i < 16; i++) {
		snprintf(path, sizeof(path), "%s/log.%u%s", dir, i / 2, i % 2 ? ".new" : "");
		unlink(path);
	}
	CHECK(!rmdir(dir));
}

/* Stored by one number of threads, found by another, by each way to write. */
static void test_files(void)
{
	static const struct {
		bool mmap, datasync, no_flush;
	} ways[] = { { 0, 0, 0 }, { 0, 1, 0 }, { 1, 0, 0 }, { 0, 0, 1 }, { 1, 0, 1 } };
	static const unsigned threads[] = { 2, 1, 3, 2 };
	char key[16];
	unsigned i, k;

	dir_make();
	CHECK(!rmdir(dir)); /* it is made */
	CHECK(file_open(2, true) == -ENOENT && !file_open(2, false));
	file_close();
	dir_remove();
	dir_make();
	CHECK(file_open(2, true) == -ENOENT && strstr(text, "no store"));
	for (i = 0; i < ARRAY_SIZE(ways) * ARRAY_SIZE(threads); i++) {
		opts = (struct store_opts){ .dir = dir, .kind = STORE_KV };
		opts.threads = threads[i % ARRAY_SIZE(threads)];
		opts.bytes = opts.threads * 131072ULL;
		opts.mmap = ways[i / ARRAY_SIZE(threads)].mmap;
		opts.datasync = ways[i / ARRAY_SIZE(threads)].datasync;
		opts.no_flush = ways[i / ARRAY_SIZE(threads)].no_flush;
		CHECK(!store_open(&st, &opts, &report, text, sizeof(text)));
		if (!st)
			break;
		CHECK(report.records == (i ? 20 : 0) && !report.torn && space_is_whole(st));
		for (k = 0; k < 20; k++) {
			struct store_thread *t = store_thread(st, k % opts.threads);

			snprintf(key, sizeof(key), "key%u", k);
			CHECK(!i || get_is(t, key, i - 1, 100 * k) == 1);
			CHECK(put_now(t, key, i, 100 * k) == !!i);
		}
		file_close();
	}
	CHECK(file_open(3, true) == 0 && report.records == 20);
	store_verify(st, &report);
	CHECK(!report.corrupt);
	file_close();
	dir_remove();
}

/* With zero copy, on what is said to be persistent memory. */
static void test_pool_files(void)
{
	static uint32_t first = 1, n = 64;
	char key[16];
	unsigned i;

	dir_make();
	pool.slice_first = &first;
	pool.slice_n = &n;
	for (i = 0; i < 3; i++) {
		opts = (struct store_opts){ .dir = dir, .kind = STORE_KV, .threads = 1 };
		opts.bytes = 131072;
		opts.pool = &pool;
		CHECK(!store_open(&st, &opts, &report, text, sizeof(text)));
		if (!st)
			break;
		CHECK(report.records == i && !report.torn && space_is_whole(st));
		snprintf(key, sizeof(key), "key%u", i);
		CHECK(put_from_pool(t0(), key, i, 1 + i) == 0 && get_is(t0(), key, i, 256) == 1);
		CHECK(get_is(t0(), "key0", 0, 256) == 1);
		file_close();
	}
	opts.pool = NULL;
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EINVAL &&
	      strstr(text, "with zero copy"));
	opts.pool = &pool;
	pool.n_rx = 65;
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EINVAL &&
	      strstr(text, "belongs to a pool"));
	pool.n_rx = 64;
	dir_remove();
}

static void test_refusals(void)
{
	struct log_header h;
	char saved[64], zero[64] = "";
	struct store *other;
	char path[128];

	dir_make();
	CHECK(file_open(3, false) == 0);
	CHECK(put_now(t0(), "a", 1, 10) == 0);
	opts.dir = dir;
	CHECK(store_open(&other, &opts, &report, text, sizeof(text)) == -EBUSY && !other);
	file_close();

	opts.kind = STORE_TREE;
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EINVAL &&
	      strstr(text, "key-value"));
	opts.kind = STORE_KV;
	opts.pool = &pool;
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EINVAL &&
	      strstr(text, "without zero copy"));

	file_rename("log.2", "away");
	CHECK(file_open(3, false) == -ENOENT && strstr(text, "log.2 is missing"));
	CHECK(file_open(3, true) == -ENOENT && strstr(text, "log.2 is missing"));
	file_rename("away", "log.2");
	file_rename("log.0", "away");
	CHECK(file_open(1, false) == -ENOENT && strstr(text, "log.0 is missing"));
	file_rename("away", "log.0");
	file_rename("log.2", "log.2.new"); /* as a crash while making them leaves it */
	file_rename("log.0", "log.0.new");
	path_of(path, "log.7.new");
	file_write("log.7.new", 0, zero, 1); /* or this, of no use */
	CHECK(file_open(3, false) == 0 && report.records == 1 && access(path, F_OK));
	file_close();

	file_read("log.1", saved, 64);
	file_write("log.1", 0, zero, 64);
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "not a log"));
	memcpy(&h, saved, 64);
	h.version = 2;
	file_write("log.1", 0, &h, 64);
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "version 2"));
	memcpy(&h, saved, 64);
	h.n_slots ^= 64;
	file_write("log.1", 0, &h, 64);
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "damaged header"));
	memcpy(&h, saved, 64);
	h.id++;
	log_seal(&h);
	file_write("log.1", 0, &h, 64);
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "another store"));
	memcpy(&h, saved, 64);
	h.number = 0;
	log_seal(&h);
	file_write("log.1", 0, &h, 64);
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "is log 0"));
	file_read("log.1", zero, 64);
	CHECK(!memcmp(zero, &h, 64)); /* a refused file is not written to */
	file_write("log.1", 0, saved, 64);
	path_of(path, "log.1");
	CHECK(!truncate(path, 50000));
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "truncated"));
	CHECK(!truncate(path, 50));
	CHECK(file_open(3, false) == -EINVAL && strstr(text, "too short"));
	dir_remove();
	snprintf(dir, sizeof(dir), "/nowhere/store");
	CHECK(file_open(1, false) == -ENOENT && strstr(text, "/nowhere/store"));
	opts.bytes = 1000;
	dir_make();
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EINVAL);
	opts.bytes = 131072;
	opts.pool = &pool;
	CHECK(store_open(&st, &opts, &report, text, sizeof(text)) == -EOPNOTSUPP &&
	      strstr(text, "needs persistent memory"));
	dir_remove();
}

/* ------------------------------------------------------------------------- */

static void run(void (*test)(void), const char *name)
{
	good = true;
	test();
	result(good, "%s", name);
}

static void run_damage(enum store_kind kind, bool zero_copy, const char *name)
{
	good = true;
	test_damage(kind, zero_copy);
	result(good, "%u damages, %s", DAMAGES, name);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--recover")) {
		good = true;
		fill_and_recover(STORE_WAL, atoi(argv[2]), "log");
		fill_and_recover(STORE_KV, atoi(argv[2]), "key-value");
		result(good, "%s records recovered in less than %d s", argv[2], RECOVERY_LIMIT);
		return results();
	}
	if (argc == 2 && !strcmp(argv[1], "--pmem")) {
		run(test_files, "files, through libpmem");
		run(test_pool_files, "files, through libpmem, zero copy");
		return results();
	}
	run(test_tree, "B+tree as a sorted array");
	run(test_rules, "one write to a key at a time");
	run(test_full, "full: an error, nothing lost, room after deletes");
	run(test_wal, "log: full, and with --wrap");
	run(test_failure, "nothing is accepted after a drain that failed");
	run(test_other_threads, "other numbers of threads than of logs");
	run(test_pool, "chunks of a pool are kept and given back");
	run(test_recovery, "20000 records recovered");
	run(test_files, "files, by each way to write");
	run(test_refusals, "refused with a reason");
	run_damage(STORE_WAL, false, "log, copy");
	run_damage(STORE_WAL, true, "log, zero copy");
	run_damage(STORE_TREE, false, "B+tree, copy");
	run_damage(STORE_TREE, true, "B+tree, zero copy");
	run_damage(STORE_KV, false, "key-value, copy");
	run_damage(STORE_KV, true, "key-value, zero copy");
	return results();
}
