// SPDX-License-Identifier: MIT
/*
 * record.c - put, get, delete, commit: the life of a record
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store_int.h"

#define LINE	    64
#define PARTS_MAX   65536
#define TREE_KEY    8
#define EVICT_SHARE 8 /* --wrap keeps one of so many parts of the log free */

/* ------------------------------------------------------------------------- */
/* States */

static enum rec_state state_of(const struct store_rec *rec)
{
	return atomic_load_explicit(&rec->state, memory_order_acquire);
}

static void set_state(struct store_rec *rec, enum rec_state state)
{
	atomic_store_explicit(&rec->state, state, memory_order_release);
}

/* What those get who must wait: for ever if the store has failed. */
static int wait_error(const struct store *s)
{
	return atomic_load_explicit(&s->failed, memory_order_relaxed) ? -EIO : -EAGAIN;
}

static bool has_failed(const struct store *s)
{
	return atomic_load_explicit(&s->failed, memory_order_relaxed);
}

static bool ops_reserve(struct ops *o, uint32_t n)
{
	uint32_t cap = o->cap ? o->cap : 64;
	struct op *v;

	if (n <= o->cap)
		return true;
	while (cap < n)
		cap *= 2;
	v = realloc(o->v, cap * sizeof(*v));
	if (!v)
		return false;
	o->v = v;
	o->cap = cap;
	return true;
}

/* Room for one more in the batch, and for what may follow from it. */
static bool batch_reserve(struct store_thread *t)
{
	return ops_reserve(&t->staged, t->staged.n + 1) &&
	       ops_reserve(&t->cleaning, t->cleaning.n + t->staged.n + 1);
}

void wal_append(struct log *l, struct store_rec *rec)
{
	rec->next = NULL;
	if (l->newest)
		l->newest->next = rec;
	else
		l->oldest = rec;
	l->newest = rec;
}

/* ------------------------------------------------------------------------- */
/* Cleaning: what was replaced, deleted or evicted, until its space is free */

void store_rec_put(struct store_thread *t, struct store_rec *rec)
{
	if (atomic_fetch_sub_explicit(&rec->refs, 1, memory_order_acq_rel) == 1)
		rec_retire(t, rec);
}

void store_rec_get(struct store_rec *rec)
{
	atomic_fetch_add_explicit(&rec->refs, 1, memory_order_relaxed);
}

/* What a drain has returned: after a failure nothing more is accepted. */
static int drained(struct store_thread *t, int err)
{
	if (err)
		atomic_store(&t->s->failed, true);
	return err;
}

/* The clearing was drained. */
static void finish_cleaning(struct store_thread *t)
{
	uint32_t i;

	for (i = 0; i < t->cleaning.n; i++) {
		if (t->cleaning.v[i].stored)
			set_state(t->cleaning.v[i].stored, REC_LIVE);
		store_rec_put(t, t->cleaning.v[i].gone);
	}
	t->cleaning.n = 0;
	t->clean_slots = 0;
	t->clean_exts = 0;
	t->clean_bytes = 0;
}

static void clean(struct store_thread *t, struct store_rec *stored, struct store_rec *gone)
{
	rec_clear_slots(t, gone);
	t->cleaning.v[t->cleaning.n++] = (struct op){ stored, gone };
	t->clean_slots += rec_n_slots(gone);
	t->clean_exts += gone->n_ext;
	t->clean_bytes += gone->bytes;
}

/* Of the thread's logs, the one with the oldest record; there are others after a change of threads. */
static struct log *oldest_log(struct store_thread *t)
{
	struct store *s = t->s;
	struct log *l, *best = NULL;
	unsigned i;

	for (i = t->index; i < s->n_logs; i += s->opts.threads) {
		l = &s->logs[i];
		if (l->oldest &&
		    (!best || l->slots[l->oldest->slot].seq < best->slots[best->oldest->slot].seq))
			best = l;
	}
	return best;
}

static bool evict_one(struct store_thread *t)
{
	struct log *l = oldest_log(t);
	struct store_rec *rec;

	if (!t->s->opts.wrap || !l || !ops_reserve(&t->cleaning, t->cleaning.n + 1))
		return false;
	rec = l->oldest;
	l->oldest = rec->next;
	if (!l->oldest)
		l->newest = NULL;
	clean(t, NULL, rec);
	return true;
}

static bool room_is_low(const struct store_thread *t)
{
	const struct log *l = t->log;
	uint64_t size = (uint64_t)l->n_chunks * l->chunk_size;

	if (l->n_free_slots + t->clean_slots < l->n_slots / EVICT_SHARE)
		return true;
	if (t->s->pool.base)
		return t->kept + t->kept_max / EVICT_SHARE > t->kept_max + t->clean_exts;
	return (uint64_t)l->n_free_chunks * l->chunk_size + t->clean_bytes < size / EVICT_SHARE;
}

/* Room for the next batches, so that they need not drain more than once each. */
static void evict_ahead(struct store_thread *t)
{
	while (room_is_low(t) && evict_one(t))
		;
}

/* The store is full: free what can be freed now, by an extra drain. */
static int make_room(struct store_thread *t)
{
	int err;

	if (retire_handed(t))
		return 0;
	if (!t->cleaning.n && !evict_one(t))
		return -ENOSPC;
	evict_ahead(t);
	err = drained(t, io_drain(&t->io));
	if (!err)
		finish_cleaning(t);
	return err;
}

/* ------------------------------------------------------------------------- */
/* Put */

static bool is_too_big(const struct store_thread *t, uint64_t size)
{
	uint64_t room = (uint64_t)t->log->n_chunks * t->log->chunk_size;

	if (t->s->pool.base)
		room += (uint64_t)t->kept_max * t->s->pool.chunk_size;
	return size > room || size > UINT32_MAX;
}

/* The extent that rec's next bytes are to be copied to, at the open chunk's open_off. */
static int copy_extent(struct store_thread *t, struct store_rec *rec, struct store_ext **ext)
{
	struct log *l = t->log;
	struct store_ext *e = rec->n_ext ? &rec_exts(rec)[rec->n_ext - 1] : NULL;
	int err;

	if (e && e->chunk == l->open_chunk && e->off + e->len == l->open_off &&
	    l->open_off < l->chunk_size) {
		*ext = e;
		return 0;
	}
	/* Lines that are shared with another record would be flushed twice. */
	l->open_off = (l->open_off + LINE - 1) & ~(LINE - 1U);
	while (l->open_chunk == NONE || l->open_off >= l->chunk_size) {
		err = log_new_chunk(l) ? 0 : make_room(t);
		if (err)
			return err;
	}
	e = rec_add_ext(rec);
	if (!e)
		return -ENOMEM;
	*e = (struct store_ext){ .chunk = l->open_chunk, .off = l->open_off };
	l->chunks[l->open_chunk].extents++;
	*ext = e;
	return 0;
}

static int add_copy(struct store_thread *t, struct store_rec *rec, const char *data, size_t len)
{
	struct log *l = t->log;
	struct store_ext *e;
	size_t n;
	int err;

	for (; len; data += n, len -= n) {
		err = copy_extent(t, rec, &e);
		if (err)
			return err;
		n = l->chunk_size - l->open_off < len ? l->chunk_size - l->open_off : len;
		io_copy(&t->io, l->data + (uint64_t)l->open_chunk * l->chunk_size + l->open_off,
			data, n);
		e->len += n;
		l->open_off += n;
	}
	return 0;
}

/* The chunk that data is in, if it is one of the thread's slice; else NONE. */
static uint32_t chunk_of(const struct store_thread *t, const char *data)
{
	const struct store_pool *p = &t->s->pool;
	uint64_t chunk;

	if (!p->base || data < p->base)
		return NONE;
	chunk = (uint64_t)(data - p->base) / p->chunk_size;
	return chunk >= t->slice_first && chunk - t->slice_first < t->slice_n ? chunk : NONE;
}

static int add_pool(struct store_thread *t, struct store_rec *rec, uint32_t chunk, const char *data,
		    size_t len)
{
	struct store *s = t->s;
	struct chunk *c = &s->pool_chunks[chunk - s->pool.first_rx];
	size_t off = (size_t)(data - s->pool.base) % s->pool.chunk_size;
	struct store_ext *e = rec->n_ext ? &rec_exts(rec)[rec->n_ext - 1] : NULL;
	int err;

	if (off + len > s->pool.chunk_size)
		return -EINVAL;
	while (!c->extents && t->kept >= t->kept_max) {
		err = make_room(t);
		if (err)
			return err;
	}
	io_flush(&t->io, data, len);
	if (e && e->chunk == (chunk | EXT_POOL) && (size_t)e->off + e->len == off) {
		e->len += len;
		return 0;
	}
	e = rec_add_ext(rec);
	if (!e)
		return -ENOMEM;
	*e = (struct store_ext){ chunk | EXT_POOL, off, len };
	if (!c->extents++)
		t->kept++;
	return 0;
}

int store_put_begin(struct store_thread *t, struct store_put *p, const void *key, size_t klen,
		    uint64_t size)
{
	enum store_kind kind = t->s->opts.kind;
	int err = 0;

	p->rec = NULL;
	if (kind == STORE_KV ? klen < 1 || klen > STORE_KEY_MAX : klen)
		return -EINVAL;
	if (kind == STORE_TREE && size < TREE_KEY)
		return -EINVAL;
	if (size != STORE_SIZE_UNKNOWN && (is_too_big(t, size) || is_too_big(t, size + klen)))
		return -EFBIG;
	p->rec = rec_new(t);
	if (!p->rec)
		return -ENOMEM;
	p->rec->log = t->log->number;
	p->rec->klen = klen;
	p->rec->key = kind == STORE_KV ? XXH64(key, klen, t->s->id) : 0;
	p->size = size == STORE_SIZE_UNKNOWN ? size : klen + size;
	p->got = klen;
	XXH64_reset(&p->sum, t->s->id);
	if (klen) {
		XXH64_update(&p->sum, key, klen);
		err = add_copy(t, p->rec, key, klen);
	}
	if (err)
		store_put_abort(t, p);
	return err;
}

/* A TREE's key is the record's first bytes, as they come. */
static void take_key(struct store_put *p, const unsigned char *data, size_t len)
{
	size_t i;

	for (i = 0; i < len && p->got + i < TREE_KEY; i++)
		p->rec->key = p->rec->key << 8 | data[i];
}

int store_put_add(struct store_thread *t, struct store_put *p, const void *data, size_t len)
{
	uint32_t chunk;
	int err;

	if (len > p->size - p->got)
		return -EINVAL;
	if (is_too_big(t, p->got + len))
		return -EFBIG;
	if (!len)
		return 0;
	chunk = chunk_of(t, data);
	if (chunk != NONE)
		err = add_pool(t, p->rec, chunk, data, len);
	else
		err = add_copy(t, p->rec, data, len);
	if (err)
		return err;
	if (t->s->opts.kind == STORE_TREE)
		take_key(p, data, len);
	XXH64_update(&p->sum, data, len);
	p->got += len;
	return 0;
}

static int take_slots(struct store_thread *t, struct store_rec *rec)
{
	struct log *l = t->log;
	uint32_t i, n = rec_n_slots(rec);
	int err;

	if (rec->slot != NONE) /* it has, and waits for its key */
		return 0;
	if (n > l->n_slots || n > PARTS_MAX)
		return -EFBIG;
	while (l->n_free_slots < n) {
		err = make_room(t);
		if (err)
			return err;
	}
	if (n > 1) {
		rec->many.slots = malloc((n - 1) * sizeof(*rec->many.slots));
		if (!rec->many.slots)
			return -ENOMEM;
	}
	for (i = 0; i < n; i++)
		*rec_slot(rec, i) = l->free_slots[--l->n_free_slots];
	return 0;
}

/* Put rec into the index in the place of what there was, which is *old then. */
static int stage(struct store_thread *t, struct store_rec *rec, struct store_rec **old)
{
	struct store *s = t->s;
	char key[STORE_KEY_MAX];
	int err = 0;

	rec_key(s, rec, key);
	index_lock(s, rec->key, true);
	*old = index_find(s, rec->key, key, rec->klen);
	if (!*old)
		err = index_insert(s, rec);
	else if (state_of(*old) != REC_LIVE)
		err = wait_error(s);
	else
		index_replace(s, *old, rec);
	index_unlock(s, rec->key);
	return err;
}

int store_put_end(struct store_thread *t, struct store_put *p)
{
	struct store_rec *rec = p->rec, *old = NULL;
	int err;

	if (p->size != STORE_SIZE_UNKNOWN && p->got != p->size)
		return -EINVAL;
	if (t->s->opts.kind == STORE_TREE && p->got < TREE_KEY)
		return -EINVAL;
	if (has_failed(t->s))
		return -EIO;
	err = take_slots(t, rec);
	if (err)
		return err;
	if (!batch_reserve(t))
		return -ENOMEM;
	rec->bytes = p->got;
	atomic_init(&rec->refs, 1);
	atomic_init(&rec->verified, 1);
	atomic_init(&rec->state, REC_STAGED);
	err = t->s->opts.kind == STORE_WAL ? 0 : stage(t, rec, &old);
	if (err)
		return err;
	rec_write_slots(t, rec, XXH64_digest(&p->sum));
	t->staged.v[t->staged.n++] = (struct op){ rec, old };
	p->rec = NULL;
	return old ? 1 : 0;
}

void store_put_abort(struct store_thread *t, struct store_put *p)
{
	if (p->rec)
		rec_retire(t, p->rec);
	p->rec = NULL;
}

/* ------------------------------------------------------------------------- */
/* Get and delete */

/* The number that the index knows a key by; false if there is no such key. */
static bool key_number(const struct store *s, const void *key, size_t klen, uint64_t *number)
{
	const unsigned char *bytes = key;
	size_t i;

	*number = 0;
	if (s->opts.kind == STORE_KV)
		*number = XXH64(key, klen, s->id);
	for (i = 0; s->opts.kind == STORE_TREE && i < TREE_KEY && i < klen; i++)
		*number = *number << 8 | bytes[i];
	return s->opts.kind == STORE_KV || (s->opts.kind == STORE_TREE && klen == TREE_KEY);
}

int store_get(struct store_thread *t, const void *key, size_t klen, struct store_rec **found)
{
	struct store *s = t->s;
	struct store_rec *rec;
	enum rec_state state;
	uint64_t number;
	int err = 0;

	if (!key_number(s, key, klen, &number))
		return -ENOENT;
	index_lock(s, number, false);
	rec = index_find(s, number, key, klen);
	state = rec ? state_of(rec) : REC_LIVE;
	if (!rec)
		err = -ENOENT;
	else if (state == REC_STAGED || state == REC_DELETING)
		err = wait_error(s);
	else
		store_rec_get(rec);
	index_unlock(s, number);
	if (err)
		return err;
	if (!rec_verify(s, rec)) {
		store_rec_put(t, rec);
		return -EIO;
	}
	*found = rec;
	return 0;
}

int store_delete(struct store_thread *t, const void *key, size_t klen)
{
	struct store *s = t->s;
	struct store_rec *rec;
	uint64_t number;
	int err = 0;

	if (!key_number(s, key, klen, &number))
		return -ENOENT;
	if (has_failed(s))
		return -EIO;
	if (!batch_reserve(t))
		return -ENOMEM;
	index_lock(s, number, true);
	rec = index_find(s, number, key, klen);
	if (!rec)
		err = -ENOENT;
	else if (state_of(rec) != REC_LIVE)
		err = wait_error(s);
	else
		set_state(rec, REC_DELETING);
	index_unlock(s, number);
	if (err)
		return err;
	rec_clear_slots(t, rec);
	t->staged.v[t->staged.n++] = (struct op){ NULL, rec };
	return 0;
}

size_t store_rec_key(struct store_thread *t, const struct store_rec *rec, char *key)
{
	return rec_key(t->s, rec, key);
}

uint64_t store_rec_len(const struct store_rec *rec)
{
	return rec->bytes - rec->klen;
}

bool store_rec_first(struct store_thread *t, const struct store_rec *rec, struct store_pieces *p)
{
	*p = (struct store_pieces){ .rec = rec, .skip = rec->klen };
	return store_rec_next(t, p);
}

bool store_rec_next(struct store_thread *t, struct store_pieces *p)
{
	const struct store_ext *e;

	while (p->next < p->rec->n_ext) {
		e = &rec_exts(p->rec)[p->next++];
		if (p->skip >= e->len) {
			p->skip -= e->len;
			continue;
		}
		p->addr = ext_addr(t->s, p->rec, e) + p->skip;
		p->len = e->len - p->skip;
		p->in_pool = e->chunk & EXT_POOL;
		p->skip = 0;
		return true;
	}
	return false;
}

/* ------------------------------------------------------------------------- */
/* Commit */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* A slower medium. Sleeping would take longer than what is asked for. */
static void add_latency(uint64_t ns)
{
	uint64_t start = ns ? now_ns() : 0;

	while (ns && now_ns() - start < ns)
		;
}

/* It is durable, so it is there for others; and what it replaces may go. */
static void publish(struct store_thread *t, struct op *op)
{
	struct store *s = t->s;

	if (!op->stored) {
		index_lock(s, op->gone->key, true);
		index_remove(s, op->gone);
		index_unlock(s, op->gone->key);
		store_rec_put(t, op->gone);
	} else if (op->gone) {
		set_state(op->stored, REC_CLEANING);
		clean(t, op->stored, op->gone);
	} else {
		if (s->opts.kind == STORE_WAL)
			wal_append(t->log, op->stored);
		set_state(op->stored, REC_LIVE);
	}
}

int store_commit(struct store_thread *t)
{
	int again = retire_handed(t), err;
	uint32_t i;

	if (t->staged.n) {
		err = drained(t, io_drain(&t->io));
		if (err)
			return err;
		add_latency(t->s->opts.latency_ns);
		finish_cleaning(t);
		for (i = 0; i < t->staged.n; i++)
			publish(t, &t->staged.v[i]);
		t->staged.n = 0;
		t->log->batch++;
		again = 1;
	}
	if (t->s->opts.wrap)
		evict_ahead(t);
	return again;
}

int store_idle(struct store_thread *t)
{
	int again = retire_handed(t), err;

	if (!t->cleaning.n)
		return again;
	err = drained(t, io_drain(&t->io));
	if (err)
		return err;
	finish_cleaning(t);
	return 1;
}

bool store_pending(const struct store_thread *t)
{
	return t->staged.n || t->cleaning.n ||
	       atomic_load_explicit(&t->handed, memory_order_relaxed);
}
