// SPDX-License-Identifier: MIT
/*
 * recover.c - from the slots of all logs to a store
 *
 * A function of the logs' memory: nothing in it is trusted but what has a right
 * sum, and even then every place that it names is checked.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "store_int.h"

#define USED 1 /* seq of a slot that is empty, but not unused */

struct found {
	uint64_t seq;
	uint32_t slot;
	uint32_t part;
};

struct recovery {
	struct store *s;
	struct store_report *r;
	double start;
	double next; /* when to show progress again */
	uint64_t slots;
	uint64_t slots_done;
	bool shown;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void show_progress(struct recovery *rc, uint64_t done)
{
	double t;

	rc->slots_done += done;
	t = now();
	if (t < rc->next || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\rrecovering: %3u %%", (unsigned)(100 * rc->slots_done / rc->slots));
	rc->next = t + 0.2;
	rc->shown = true;
}

/* ------------------------------------------------------------------------- */
/* Slots */

/* To be cleared, but not before what makes it superfluous is durable: see make_durable(). */
static void clear_later(struct log *l, uint32_t i)
{
	l->free_slots[l->n_free_slots++] = i;
}

static void drop_torn(struct recovery *rc, struct log *l, const struct found *f, uint32_t n)
{
	uint32_t i;

	rc->r->torn++;
	for (i = 0; i < n; i++)
		clear_later(l, f[i].slot);
}

static void drop_record(struct recovery *rc, struct store_rec *rec)
{
	struct log *l = &rc->s->logs[rec->log];
	uint32_t i, n = rec_n_slots(rec);

	for (i = 0; i < n; i++)
		clear_later(l, *rec_slot(rec, i));
	rec_free(&rc->s->threads[rec->log % rc->s->opts.threads], rec);
}

static bool was_never_used(const struct slot *slot)
{
	static const struct slot unused;

	return !memcmp(slot, &unused, sizeof(unused));
}

/*
 * All slots with a right sum; others that are not empty are torn. Slots are taken in
 * order until the first are free again, so those that were never used are the last: one before
 * a used one was of the last batch and did not come to be durable, or somebody has
 * zeroed it.
 */
static uint32_t find_slots(struct recovery *rc, struct log *l, struct found *f)
{
	const uint32_t step = 1 << 16;
	uint32_t i, n = 0, first_unused = 0;

	for (i = 0; i < l->n_slots; i++) {
		const struct slot *slot = &l->slots[i];

		if (i % step == 0)
			show_progress(rc, i ? step : 0);
		if (!slot->sum && was_never_used(slot))
			continue;
		for (; first_unused < i; first_unused++)
			drop_torn(rc, l, &(struct found){ .slot = first_unused }, 1);
		first_unused = i + 1;
		if (!slot->sum)
			continue;
		f[n] = (struct found){ slot->seq, i, slot->part };
		if (slot->sum == slot_sum(rc->s, l, i, slot))
			n++;
		else
			drop_torn(rc, l, &f[n], 1);
	}
	return n;
}

static int compare(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->part < y->part ? -1 : x->part > y->part;
}

/* By record and part. Slots are used in order until the first are freed, so often they are. */
static void sort(struct found *f, uint32_t n)
{
	uint32_t i;

	for (i = 1; i < n; i++) {
		if (compare(&f[i - 1], &f[i]) > 0) {
			qsort(f, n, sizeof(*f), compare);
			break;
		}
	}
}

/* ------------------------------------------------------------------------- */
/* Records */

static bool extent_is_sane(const struct store *s, const struct log *l, const struct store_ext *e)
{
	uint32_t chunk = e->chunk & ~EXT_POOL, end = (uint32_t)e->off + e->len;

	if (!(e->chunk & EXT_POOL))
		return chunk < l->n_chunks && end <= l->chunk_size;
	return s->pool.base && chunk - s->pool.first_rx < s->pool.n_rx && end <= s->pool.chunk_size;
}

static bool add_extents(const struct store *s, const struct log *l, struct store_rec *rec,
			const struct slot *slot)
{
	struct store_ext *e;
	int i;

	for (i = 0; i < SLOT_EXTS && slot->ext[i].len; i++) {
		if (!extent_is_sane(s, l, &slot->ext[i]) ||
		    rec->bytes > UINT32_MAX - slot->ext[i].len)
			return false;
		e = rec_add_ext(rec);
		if (!e)
			return false;
		*e = slot->ext[i];
		rec->bytes += e->len;
	}
	return true;
}

static bool keys_fit(enum store_kind kind, const struct store_rec *rec)
{
	if (kind == STORE_KV)
		return rec->klen && rec->bytes >= rec->klen;
	return !rec->klen && (kind == STORE_WAL || rec->bytes >= sizeof(uint64_t));
}

/* The slots of one record are f[0] to f[n - 1]: are they all, and do they fit together? */
static bool fill_record(struct store *s, struct log *l, const struct found *f, uint32_t n,
			struct store_rec *rec)
{
	const struct slot *first = &l->slots[f[0].slot], *slot;
	uint32_t i;

	rec->log = l->number;
	rec->key = first->key;
	rec->klen = first->klen;
	for (i = 0; i < n; i++) {
		slot = &l->slots[f[i].slot];
		if (f[i].part != i || !(slot->flags & SLOT_LAST) != (i < n - 1) ||
		    !add_extents(s, l, rec, slot))
			return false;
	}
	if (rec_n_slots(rec) != n || !keys_fit(s->opts.kind, rec))
		return false;
	if (n > 1) {
		rec->many.slots = malloc((n - 1) * sizeof(*rec->many.slots));
		if (!rec->many.slots)
			return false;
	}
	for (i = 0; i < n; i++)
		*rec_slot(rec, i) = f[i].slot;
	return true;
}

/*
 * The record in the index that has rec's key, or NULL. Keys are read only when
 * there is one with the same hash: that keeps recovery to the slots. A record whose key is
 * damaged cannot say which it had; see rec_has_key().
 */
static struct store_rec *find_same_key(struct store *s, const struct store_rec *rec)
{
	char key[STORE_KEY_MAX];
	struct store_rec *same = index_find(s, rec->key, NULL, rec->klen);

	if (!same || s->opts.kind == STORE_TREE)
		return same;
	rec_key(s, rec, key);
	if (XXH64(key, rec->klen, s->id) != rec->key)
		return same;
	return index_find(s, rec->key, key, rec->klen);
}

static int add_to_index(struct recovery *rc, struct store_rec *rec)
{
	struct store *s = rc->s;
	struct store_rec *same;

	if (s->opts.kind == STORE_WAL) {
		wal_append(&s->logs[rec->log], rec);
		return 0;
	}
	same = find_same_key(s, rec);
	if (!same)
		return index_insert(s, rec);
	rc->r->overwritten++;
	if (s->logs[same->log].slots[same->slot].seq > s->logs[rec->log].slots[rec->slot].seq) {
		drop_record(rc, rec);
	} else {
		index_replace(s, same, rec);
		drop_record(rc, same);
	}
	return 0;
}

static void flush_bytes(struct store *s, const struct store_rec *rec)
{
	const struct store_ext *e = rec_exts(rec);
	uint32_t i;

	for (i = 0; i < rec->n_ext; i++)
		io_flush(&s->threads[0].io, ext_addr(s, rec, &e[i]), e[i].len);
}

static int recover_record(struct recovery *rc, struct log *l, const struct found *f, uint32_t n,
			  bool last_batch)
{
	struct store *s = rc->s;
	struct store_thread *t = &s->threads[l->number % s->opts.threads];
	struct store_rec *rec = rec_new(t);

	if (!rec)
		return -ENOMEM;
	if (!fill_record(s, l, f, n, rec) || (last_batch && !rec_verify(s, rec))) {
		rec_free(t, rec);
		drop_torn(rc, l, f, n);
		return 0;
	}
	if (last_batch && !s->opts.check)
		flush_bytes(s, rec);
	atomic_init(&rec->refs, 1);
	atomic_init(&rec->state, REC_LIVE);
	return add_to_index(rc, rec);
}

static int recover_log(struct recovery *rc, struct log *l)
{
	struct found *f = malloc((size_t)l->n_slots * sizeof(*f));
	uint32_t i, n, used, last;
	int err = 0;

	if (!f)
		return -ENOMEM;
	used = find_slots(rc, l, f);
	sort(f, used);
	last = used ? l->slots[f[used - 1].slot].batch : 0;
	for (i = 0; i < used && !err; i += n) {
		for (n = 1; i + n < used && f[i + n].seq == f[i].seq; n++)
			;
		err = recover_record(rc, l, &f[i], n, l->slots[f[i].slot].batch == last);
	}
	if (used && f[used - 1].seq >= rc->s->seq)
		rc->s->seq = f[used - 1].seq + 1;
	l->batch = last + 1;
	free(f);
	return err;
}

/* ------------------------------------------------------------------------- */
/* What is used and what is free */

static void count_record(struct store_rec *rec, void *arg)
{
	struct recovery *rc = arg;
	struct store *s = rc->s;
	const struct store_ext *e = rec_exts(rec);
	struct chunk *c;
	uint32_t i;

	rc->r->records++;
	rc->r->bytes += rec->bytes;
	for (i = 0; i < rec->n_ext; i++, e++) {
		if (!(e->chunk & EXT_POOL)) {
			s->logs[rec->log].chunks[e->chunk].extents++;
			continue;
		}
		c = &s->pool_chunks[(e->chunk & ~EXT_POOL) - s->pool.first_rx];
		if (c->owner != NO_OWNER && !c->extents++)
			s->threads[c->owner].kept++;
	}
}

/*
 * What was seen here may have been in a cache only, and may have been flushed by a
 * process that was killed before it drained. From now on others build on it, so
 * it is made durable, the slots that are empty too. Only then may those be
 * cleared that are torn, or of records that were replaced.
 */
static int make_durable(struct store *s)
{
	struct store_io *io = &s->threads[0].io;
	struct slot *slot;
	struct log *l;
	uint32_t i;
	int err;

	for (l = s->logs; l < s->logs + s->n_logs; l++)
		io_flush(io, l->slots, l->n_slots * sizeof(struct slot));
	err = io_drain(io);
	if (err)
		return err;
	for (l = s->logs; l < s->logs + s->n_logs; l++) {
		for (i = 0; i < l->n_free_slots; i++) {
			slot = &l->slots[l->free_slots[i]];
			io_store(io, &slot->sum, 0);
			io_store(io, &slot->seq, USED); /* not to be missed again */
			io_flush(io, slot, sizeof(*slot));
		}
	}
	return io_drain(io);
}

/* Both lists give what comes first in the file first. */
static void collect_free(struct log *l)
{
	uint32_t i;

	l->n_free_slots = 0;
	for (i = l->n_slots; i-- > 0;)
		if (!l->slots[i].sum)
			l->free_slots[l->n_free_slots++] = i;
	for (i = l->n_chunks; i-- > 0;) {
		if (l->chunks[i].extents)
			continue;
		l->chunks[i].next = l->free_chunk;
		l->free_chunk = i;
		l->n_free_chunks++;
	}
}

int store_recover(struct store *s, struct store_report *r)
{
	struct recovery rc = { .s = s, .r = r, .start = now() };
	unsigned i;
	int err = index_init(s);

	memset(r, 0, sizeof(*r));
	rc.next = rc.start + 1;
	for (i = 0; i < s->n_logs; i++)
		rc.slots += s->logs[i].n_slots;
	for (i = 0; i < s->n_logs && !err; i++)
		err = recover_log(&rc, &s->logs[i]);
	if (!err && !s->opts.check)
		err = make_durable(s);
	if (!err) {
		index_each(s, count_record, &rc);
		for (i = 0; i < s->n_logs; i++)
			collect_free(&s->logs[i]);
	}
	if (rc.shown)
		fprintf(stderr, "\r%20s\r", "");
	r->seconds = now() - rc.start;
	return err;
}

/* ------------------------------------------------------------------------- */

struct verification {
	struct store *s;
	uint64_t corrupt;
};

static void verify_record(struct store_rec *rec, void *arg)
{
	struct verification *v = arg;

	v->corrupt += !rec_verify(v->s, rec);
}

void store_verify(struct store *s, struct store_report *r)
{
	struct verification v = { .s = s };
	double start = now();

	index_each(s, verify_record, &v);
	r->corrupt = v.corrupt;
	r->seconds += now() - start;
}

struct walk {
	struct store_rec **recs;
	uint64_t n, cap; /* with cap 0 only counted */
};

static void walk_record(struct store_rec *rec, void *arg)
{
	struct walk *w = arg;

	if (w->n < w->cap)
		w->recs[w->n] = rec;
	w->n++;
}

static uint64_t seq_of(const struct store *s, const struct store_rec *rec)
{
	return s->logs[rec->log].slots[rec->slot].seq;
}

static int compare_seq(const void *a, const void *b, void *s)
{
	uint64_t x = seq_of(s, *(struct store_rec *const *)a);
	uint64_t y = seq_of(s, *(struct store_rec *const *)b);

	return x < y ? -1 : x > y;
}

int store_walk(struct store *s, void (*visit)(void *arg, uint64_t seq, const struct store_rec *rec),
	       void *arg)
{
	struct walk w = { .n = 0 };
	uint64_t i;

	index_each(s, walk_record, &w);
	w.cap = w.n;
	w.n = 0;
	w.recs = malloc((w.cap + 1) * sizeof(*w.recs));
	if (!w.recs)
		return -ENOMEM;
	index_each(s, walk_record, &w);
	qsort_r(w.recs, w.n, sizeof(*w.recs), compare_seq, s);
	for (i = 0; i < w.n; i++)
		visit(arg, seq_of(s, w.recs[i]), rec_verify(s, w.recs[i]) ? w.recs[i] : NULL);
	free(w.recs);
	return 0;
}
