/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who owns a chunk: the counts of one slice of rx chunks, and all moves.
 * No kernel object is used, so that the unit tests compile this file in user
 * space. The caller holds the slice's lock in every function.
 *
 *   state   app  tx   pages referenced   what it means
 *   FREE     0   0    no                 the module may lend it or copy into it
 *   LENT     0   0    no                 the NIC may write to it at any moment
 *   OUT     any  any  maybe              somebody may read it
 *
 *   FREE --take--> LENT --arrive--> OUT     frame received, packet in the stack
 *                  LENT --untake--> FREE    frame dropped or copied elsewhere
 *   FREE --take--> LENT --arrive--> OUT     the copy path fills it (then: open)
 *   OUT  --reclaim--> FREE                  app = tx = 0, not open, and idle()
 *
 *   deliver: app + 1     fill: app - 1     send: tx + 1     sent: tx - 1
 *
 * There is no event when the stack drops its last reference to a page, so OUT
 * chunks that nobody counts wait in a FIFO of *pages*, and the head is tested
 * when a free chunk is wanted: idle() compares the page's reference count with
 * the computed count of an idle page. A page that is still busy goes to the
 * tail. A page is put into the FIFO when one of its chunks goes out, and again
 * when a fill or a completion takes the last count; so it is in there whenever
 * one of its chunks could become free, and nothing ever scans the pool.
 *
 * Two 2048-byte chunks of one page share its reference count. When the page is
 * idle, both that nobody counts are freed at once: a chunk is never kept from
 * being free by a sibling that goes round and round, only while the sibling's
 * packet is in the stack at the moment of the test.
 *
 * Why this order is safe: deliver happens before the stack's reference is
 * dropped, and both deliver and the test are done under the lock. If the test
 * sees an idle page, the packet is gone, so its delivery came before and app is
 * not 0. idle() must load the reference count with acquire order.
 */
#ifndef PASTE_CHUNK_H
#define PASTE_CHUNK_H

enum paste_chunk_state {
	PASTE_CHUNK_OUT,
	PASTE_CHUNK_FREE,
	PASTE_CHUNK_LENT,
};

struct paste_chunk {
	u32 app;   /* fills that the application owes */
	u16 tx;	   /* sends under way; bounded by the queues' comp rings */
	u8 state;  /* enum paste_chunk_state */
	u8 queued; /* first chunk of a page: the page is in the FIFO */
};

#define PASTE_CHUNK_NONE (~0U)

/* How many busy pages a search may pass over beyond what it wants. */
#define PASTE_RECLAIM_EXTRA 32

struct paste_slice_ring {
	u32 *v;
	u32 head, tail, mask;
};

/* Chunks are counted from 0 here: chunk i of the slice is first + i of the pool. */
struct paste_slice_table {
	struct paste_chunk *chunk; /* n of them */
	u32 *free; /* stack of free chunks: the last one used is still in the cache */
	u32 n_free;
	u32 n_lent;
	u32 n_held;			   /* app > 0 */
	u32 n;				   /* chunks */
	u32 per_page;			   /* 1 or 2 */
	u32 open;			   /* the chunk that the copy path fills, or NONE */
	u32 open_end;			   /* where its last piece ends */
	struct paste_slice_ring fifo;	   /* pages to test, each at most once: never full */
	bool (*idle)(void *arg, u32 page); /* does nobody but us refer to the page? */
	void *arg;
};

/* The arrays are the caller's: chunk[n], free[n], fifo.v[roundup_pow2(n / per_page)]. */
static inline void paste_chunks_init(struct paste_slice_table *t)
{
	u32 i;

	t->open = PASTE_CHUNK_NONE;
	t->n_held = t->n;
	for (i = 0; i < t->n; i++)
		t->chunk[i] = (struct paste_chunk){ .app = 1 };
}

static inline bool paste_chunk_unheld(const struct paste_slice_table *t, u32 i)
{
	const struct paste_chunk *c = &t->chunk[i];

	return c->state == PASTE_CHUNK_OUT && !c->app && !c->tx && i != t->open;
}

/* Put the page of chunk i into the FIFO, unless it is there. */
static inline void paste_chunk_watch(struct paste_slice_table *t, u32 i)
{
	u32 page = i / t->per_page;
	struct paste_chunk *first = &t->chunk[page * t->per_page];

	if (first->queued)
		return;
	first->queued = 1;
	t->fifo.v[t->fifo.tail++ & t->fifo.mask] = page;
}

/* Free the unheld chunks of an idle page; says whether there was any. */
static inline bool paste_page_free(struct paste_slice_table *t, u32 page)
{
	u32 i = page * t->per_page, end = i + t->per_page;
	bool any = false;

	for (; i < end; i++) {
		if (!paste_chunk_unheld(t, i))
			continue;
		t->chunk[i].state = PASTE_CHUNK_FREE;
		t->free[t->n_free++] = i;
		any = true;
	}
	return any;
}

static inline bool paste_page_unheld(const struct paste_slice_table *t, u32 page)
{
	u32 i = page * t->per_page;

	return paste_chunk_unheld(t, i) || (t->per_page == 2 && paste_chunk_unheld(t, i + 1));
}

/* Test pages from the head of the FIFO until want more chunks are free. */
static inline void paste_chunks_reclaim(struct paste_slice_table *t, u32 want)
{
	u32 tests = t->fifo.tail - t->fifo.head, goal = t->n_free + want;
	u32 page;

	if (tests > want + PASTE_RECLAIM_EXTRA)
		tests = want + PASTE_RECLAIM_EXTRA;
	while (t->n_free < goal && tests--) {
		page = t->fifo.v[t->fifo.head++ & t->fifo.mask];
		t->chunk[page * t->per_page].queued = 0;
		if (!paste_page_unheld(t, page))
			continue; /* the last fill or completion queues it again */
		if (t->idle(t->arg, page))
			paste_page_free(t, page);
		else
			paste_chunk_watch(t, page * t->per_page);
	}
}

/*
 * Are fewer than low chunks left to go round between NIC and module? Reclaims
 * a few before it says so.
 */
static inline bool paste_chunks_low(struct paste_slice_table *t, u32 low)
{
	if (t->n_free + t->n_lent < low)
		paste_chunks_reclaim(t, 8);
	return t->n_free + t->n_lent < low;
}

/* A free chunk, now LENT, or NONE. Reclaims up to want at once if there is none. */
static inline u32 paste_chunk_take(struct paste_slice_table *t, u32 want)
{
	u32 i;

	if (!t->n_free)
		paste_chunks_reclaim(t, want);
	if (!t->n_free)
		return PASTE_CHUNK_NONE;
	i = t->free[--t->n_free];
	t->chunk[i].state = PASTE_CHUNK_LENT;
	t->n_lent++;
	return i;
}

/* LENT to FREE: nothing of it was passed on. */
static inline void paste_chunk_untake(struct paste_slice_table *t, u32 i)
{
	t->chunk[i].state = PASTE_CHUNK_FREE;
	t->n_lent--;
	t->free[t->n_free++] = i;
}

/* LENT to OUT: data is in it, and somebody has or will have a reference. */
static inline void paste_chunk_arrive(struct paste_slice_table *t, u32 i)
{
	t->chunk[i].state = PASTE_CHUNK_OUT;
	t->n_lent--;
	paste_chunk_watch(t, i);
}

static inline bool paste_chunk_is_lent(const struct paste_slice_table *t, u32 i)
{
	return i < t->n && t->chunk[i].state == PASTE_CHUNK_LENT;
}

/* An rx entry for it is written. */
static inline void paste_chunk_deliver(struct paste_slice_table *t, u32 i)
{
	if (!t->chunk[i].app++)
		t->n_held++;
}

/* The application gives it back once. */
static inline int paste_chunk_fill(struct paste_slice_table *t, u32 i)
{
	if (i >= t->n || !t->chunk[i].app)
		return -EINVAL;
	if (!--t->chunk[i].app) {
		t->n_held--;
		paste_chunk_watch(t, i);
	}
	return 0;
}

/* The application wants it sent: only what it holds, and not more than we can count. */
static inline int paste_chunk_send(struct paste_slice_table *t, u32 i)
{
	struct paste_chunk *c = &t->chunk[i];

	if (!c->app)
		return -EPERM;
	if (c->tx == 0xffff)
		return -ENOSPC;
	c->tx++;
	return 0;
}

/* TCP and the NIC have let go of one send. */
static inline void paste_chunk_sent(struct paste_slice_table *t, u32 i)
{
	struct paste_chunk *c = &t->chunk[i];

	if (!--c->tx && !c->app)
		paste_chunk_watch(t, i);
}

/* Begin a new open chunk. */
static inline u32 paste_chunk_open(struct paste_slice_table *t)
{
	u32 i = paste_chunk_take(t, 8), full = t->open;

	if (i == PASTE_CHUNK_NONE)
		return i;
	paste_chunk_arrive(t, i);
	t->open = i;
	t->open_end = 0;
	if (full != PASTE_CHUNK_NONE && paste_chunk_unheld(t, full))
		paste_chunk_watch(t, full);
	return i;
}

/*
 * Space for len bytes (at most chunk_size) that the copy path writes: in the
 * open chunk, or in a new one. Pieces start on cache lines, so that flushing
 * one never touches another. The piece is not counted until it is delivered.
 */
static inline u32 paste_chunk_space(struct paste_slice_table *t, u32 len, u32 chunk_size, u32 *off)
{
	u32 i = t->open, start = (t->open_end + 63) & ~63U;

	if (i == PASTE_CHUNK_NONE || start + len > chunk_size) {
		i = paste_chunk_open(t);
		if (i == PASTE_CHUNK_NONE)
			return i;
		start = 0;
	}
	*off = start;
	t->open_end = start + len;
	return i;
}

/* Up to len bytes more right behind what ends at end in chunk i: how many? */
static inline u32 paste_chunk_extend(struct paste_slice_table *t, u32 i, u32 end, u32 len,
				     u32 chunk_size)
{
	if (i != t->open || end != t->open_end)
		return 0;
	if (len > chunk_size - end)
		len = chunk_size - end;
	t->open_end += len;
	return len;
}

#endif /* PASTE_CHUNK_H */
