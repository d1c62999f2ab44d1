// SPDX-License-Identifier: MIT
/*
 * conn.c - connections of a queue: input, answers, ends
 *
 * A connection begins with the rx entry that says that the module has accepted
 * it, and is over when it is detached or closed and all its sends have
 * completed. Its index may have a new owner before that, so the table knows
 * only the newest; the older one is reached through its segments.
 *
 * What cannot go on waits in one of two lists: TODO is tried in every round,
 * for those whose segments found no room in the tx ring; STUCK after rounds
 * with completions, for those whose session found no room to answer or, in every
 * round, waits for the store.
 *
 * A peer that sends and does not take the answers would in the end have all
 * chunks of the queue. So a connection with many holds is stopped, by a quota
 * of 0, until it has half as many: its peer has to wait, the others do not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

#define BLOCK_ITEMS 64

struct block {
	struct block *next;
	_Alignas(16) char items[];
};

/* Memory that is given back all at once. */
static void *block_new(struct queue *q, size_t size)
{
	struct block *b = calloc(1, sizeof(*b) + size * BLOCK_ITEMS);

	if (!b)
		die("connections", ENOMEM);
	b->next = q->blocks;
	q->blocks = b;
	return b->items;
}

/* ------------------------------------------------------------------------- */
/* Holds */

/* Connections came or went: a quarter of the slice is for those that hold much. */
static void count_conns(struct queue *q, int change)
{
	unsigned share;

	q->n_conns += change;
	share = q->pq.n_chunks / 4 / (q->n_conns ? q->n_conns : 1);
	if (share > HOLDS_MAX)
		share = HOLDS_MAX;
	q->holds_max = share < HOLDS_MIN ? HOLDS_MIN : share;
}

/* An error means that the connection is over: an event will tell. */
static void conn_set_stopped(struct conn *c, bool stopped)
{
	c->stopped = stopped;
	paste_quota(&c->q->pq, c->handle, stopped ? 0 : QUOTA);
}

static struct hold *hold_get(struct conn *c, const struct paste_rx *rx)
{
	struct queue *q = c->q;
	struct hold *h = q->free_holds;
	int i;

	if (!h) {
		h = block_new(q, sizeof(*h));
		for (i = 0; i < BLOCK_ITEMS - 1; i++)
			h[i].next = &h[i + 1];
	}
	q->free_holds = h->next;
	h->next = NULL;
	h->conn = c;
	h->chunk = rx->chunk;
	h->off = rx->off;
	h->len = rx->len;
	h->pos = 0;
	h->refs = 1;
	if (++c->holds >= q->holds_max && !c->stopped)
		conn_set_stopped(c, true);
	return h;
}

/* Give a chunk back; a sync makes room in the ring for it. */
static void fill(struct queue *q, uint32_t chunk)
{
	int err;

	while (paste_fill(&q->pq, chunk)) {
		err = paste_sync(&q->pq, 0, 0);
		if (err && err != -EINTR) {
			q->err = err;
			break;
		}
	}
}

/* A hold on a chunk is over; the store takes it over if a record is in there. */
static void chunk_put(struct queue *q, uint32_t chunk)
{
	if (!q->keep || !store_keep(q->keep, chunk))
		fill(q, chunk);
}

static void hold_put(struct hold *h)
{
	struct conn *c = h->conn;
	struct queue *q = c->q;

	if (--h->refs)
		return;
	chunk_put(q, h->chunk);
	h->next = q->free_holds;
	q->free_holds = h;
	c->holds--;
	if (c->stopped && !c->dead && c->holds <= q->holds_max / 2)
		conn_set_stopped(c, false);
}

/* At the start everything is held. */
void conns_fill_slice(struct queue *q)
{
	uint32_t i;

	for (i = 0; i < q->pq.n_chunks; i++)
		chunk_put(q, q->pq.first_chunk + i);
}

/* Give back what the store does not need any more. */
void conns_fill(struct queue *q)
{
	uint32_t chunks[64];
	int i, n;

	while (q->keep && (n = store_take_fills(q->keep, chunks, 64)) > 0)
		for (i = 0; i < n; i++)
			fill(q, chunks[i]);
}

/* ------------------------------------------------------------------------- */
/* Segments */

static void seg_append(struct conn *c, struct seg *s)
{
	s->conn = c;
	s->next = NULL;
	s->flags = 0;
	*c->out_tail = s;
	c->out_tail = &s->next;
	c->segs++;
}

static struct seg *seg_new(struct conn *c, enum seg_kind kind)
{
	struct queue *q = c->q;
	struct seg *s = q->free_segs;
	int i;

	if (!s) {
		s = block_new(q, sizeof(*s));
		for (i = 0; i < BLOCK_ITEMS - 1; i++)
			s[i].next = &s[i + 1];
	}
	q->free_segs = s->next;
	s->kind = kind;
	s->chunk = s->off = s->len = 0;
	seg_append(c, s);
	return s;
}

static struct seg *slot_new(struct conn *c)
{
	struct seg *s = c->q->free_slots;

	if (!s || c->segs >= CONN_SEGS || c->slots >= CONN_SLOTS)
		return NULL;
	c->q->free_slots = s->next;
	s->len = 0;
	c->slots++;
	seg_append(c, s);
	return s;
}

static void seg_free(struct queue *q, struct seg *s)
{
	s->conn->segs--;
	if (s->kind == SEG_TEXT) {
		s->conn->slots--;
		s->next = q->free_slots;
		q->free_slots = s;
		return;
	}
	if (s->kind == SEG_ECHO)
		hold_put(s->hold);
	else if (s->kind == SEG_RECORD)
		store_rec_put(q->keep, s->rec);
	s->next = q->free_segs;
	q->free_segs = s;
}

/* The last segment of the connection if it is not in the ring yet. */
static struct seg *seg_last(struct conn *c)
{
	if (!c->out)
		return NULL;
	return (struct seg *)((char *)c->out_tail - offsetof(struct seg, next));
}

/* ------------------------------------------------------------------------- */
/* The sink */

static char *sink_reserve(struct session *session, size_t n)
{
	struct conn *c = (struct conn *)session;
	struct seg *s = seg_last(c);

	if (!s || s->kind != SEG_TEXT || s->len + n > SLOT_SIZE)
		s = slot_new(c);
	return s ? paste_addr(c->q->ctx, s->chunk, s->off + s->len) : NULL;
}

static void sink_commit(struct session *session, size_t n)
{
	seg_last((struct conn *)session)->len += n;
}

static size_t sink_pattern(struct session *session, enum pattern which, uint64_t off, uint64_t len)
{
	struct conn *c = (struct conn *)session;
	uint32_t start = off % pattern_period(which);
	uint32_t room = c->q->ctx->chunk_size - start;
	struct seg *s;

	if (c->segs >= CONN_SEGS)
		return 0;
	s = seg_new(c, SEG_PATTERN);
	s->chunk = c->q->pattern[which];
	s->off = start;
	s->len = len < room ? len : room;
	return s->len;
}

/* data lies in the connection's first hold. */
static bool sink_echo(struct session *session, const char *data, size_t len)
{
	struct conn *c = (struct conn *)session;
	struct seg *s;

	if (c->segs >= CONN_SEGS)
		return false;
	s = seg_new(c, SEG_ECHO);
	s->hold = c->in;
	s->hold->refs++;
	s->chunk = s->hold->chunk;
	s->off = data - (char *)paste_addr(c->q->ctx, s->chunk, 0);
	s->len = len;
	return true;
}

static bool sink_record(struct session *session, struct store_rec *rec, const char *data,
			size_t len)
{
	struct conn *c = (struct conn *)session;
	struct seg *s;

	if (c->segs >= CONN_SEGS)
		return false;
	store_rec_get(rec);
	s = seg_new(c, SEG_RECORD);
	s->rec = rec;
	s->chunk = paste_chunk(c->q->ctx, data);
	s->off = data - (char *)paste_addr(c->q->ctx, s->chunk, 0);
	s->len = len;
	return true;
}

const struct sink paste_sink = {
	.reserve = sink_reserve,
	.commit = sink_commit,
	.pattern = sink_pattern,
	.echo = sink_echo,
	.record = sink_record,
};

/* ------------------------------------------------------------------------- */
/* Life and lists */

static void conn_enlist(struct conn *c, enum conn_list list)
{
	struct queue *q = c->q;

	if (c->list == list)
		return;
	if (c->list == LIST_TODO)
		TAILQ_REMOVE(&q->todo, c, link);
	else if (c->list == LIST_STUCK)
		TAILQ_REMOVE(&q->stuck, c, link);
	c->list = list;
	if (list == LIST_TODO)
		TAILQ_INSERT_TAIL(&q->todo, c, link);
	else if (list == LIST_STUCK)
		TAILQ_INSERT_TAIL(&q->stuck, c, link);
}

static struct conn *conn_new(struct queue *q, uint32_t handle)
{
	struct conn *c = TAILQ_FIRST(&q->free_conns);
	int i;

	if (!c) {
		c = block_new(q, sizeof(*c));
		for (i = 0; i < BLOCK_ITEMS; i++)
			TAILQ_INSERT_TAIL(&q->free_conns, c + i, link);
	}
	TAILQ_REMOVE(&q->free_conns, c, link);
	memset(c, 0, sizeof(*c));
	session_init(&c->s);
	c->q = q;
	c->handle = handle;
	c->in_tail = &c->in;
	c->out_tail = &c->out;
	count_conns(q, 1);
	return c;
}

/* NULL if that connection is over. */
static struct conn *conn_find(struct queue *q, uint32_t handle)
{
	struct conn *c = q->table[PASTE_CONN_INDEX(handle)];

	return c && c->handle == handle ? c : NULL;
}

/* Forget a dead connection when nothing refers to it any more. */
static void conn_put(struct conn *c)
{
	struct conn **entry = &c->q->table[PASTE_CONN_INDEX(c->handle)];

	if (!c->dead || c->segs)
		return;
	conn_enlist(c, LIST_NONE);
	if (*entry == c) /* else the index is another one's by now */
		*entry = NULL;
	count_conns(c->q, -1);
	TAILQ_INSERT_HEAD(&c->q->free_conns, c, link);
}

static void drop_input(struct conn *c)
{
	struct hold *h;

	while ((h = c->in)) {
		c->in = h->next;
		c->lingered += h->len;
		hold_put(h);
	}
	c->in_tail = &c->in;
}

static void drop_output(struct conn *c)
{
	struct seg *s;

	while ((s = c->out)) {
		c->out = s->next;
		seg_free(c->q, s);
	}
	c->out_tail = &c->out;
}

/* From here on only completions come. */
static void conn_die(struct conn *c)
{
	c->dead = true;
	session_exit(&c->q->w->serve, &c->s);
	drop_input(c);
	drop_output(c);
	conn_enlist(c, LIST_NONE);
}

/* The connection is broken. */
static void conn_kill(struct conn *c)
{
	if (c->dead)
		return;
	paste_detach(&c->q->pq, c->handle);
	conn_die(c);
}

/* Send a flag after everything that is to be sent. */
static void send_flag(struct conn *c, uint32_t flag)
{
	struct seg *s = seg_last(c);

	if (!s)
		s = seg_new(c, SEG_END);
	s->flags |= flag;
}

static void conn_end(struct conn *c)
{
	drop_input(c);
	send_flag(c, PASTE_TX_CLOSE);
	c->ending = true;
}

/* ------------------------------------------------------------------------- */
/* Events */

/* This is what keeps the module honest: nothing but its slice may come. */
static void check_rx(struct queue *q, const struct paste_rx *rx)
{
	uint32_t i = rx->chunk - q->pq.first_chunk;

	if (i < q->pq.n_chunks && rx->len && (uint32_t)rx->off + rx->len <= q->ctx->chunk_size)
		return;
	fprintf(stderr,
		"phttpd: rx entry outside the queue's slice [%u, %u): conn %#x chunk %u off %u len %u flags %#x\n",
		q->pq.first_chunk, q->pq.first_chunk + q->pq.n_chunks, rx->conn, rx->chunk, rx->off,
		rx->len, rx->flags);
	abort();
}

void conn_rx(struct queue *q, const struct paste_rx *rx)
{
	struct conn *c = conn_find(q, rx->conn);
	struct hold *h;

	if (rx->flags & PASTE_RX_NEW) {
		q->table[PASTE_CONN_INDEX(rx->conn)] = conn_new(q, rx->conn);
		return;
	}
	if (rx->flags & PASTE_RX_ERR) {
		if (c) {
			conn_kill(c);
			conn_put(c);
		}
		return;
	}
	if (rx->flags & PASTE_RX_FIN) {
		if (c && !c->dead) {
			c->eof = true;
			conn_enlist(c, LIST_TODO);
		}
		return;
	}
	check_rx(q, rx);
	if (!c || c->dead || c->ending) {
		fill(q, rx->chunk);
		return;
	}
	h = hold_get(c, rx);
	*c->in_tail = h;
	c->in_tail = &h->next;
	if (c->list != LIST_STUCK)
		conn_enlist(c, LIST_TODO);
}

void conn_comp(struct queue *q, const struct paste_comp *comp)
{
	struct seg *s = (struct seg *)(uintptr_t)comp->cookie;
	struct conn *c = s->conn;
	bool closed = s->flags & PASTE_TX_CLOSE;

	q->in_flight--;
	seg_free(q, s);
	if (comp->result < 0)
		conn_kill(c);
	else if (closed && !c->dead)
		conn_die(c);
	conn_put(c);
}

void conns_unstick(struct queue *q)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(&q->stuck)))
		conn_enlist(c, LIST_TODO);
}

/* ------------------------------------------------------------------------- */
/* Work */

/* Segments into the ring: false if there are more than it takes. */
static bool conn_send(struct conn *c)
{
	struct queue *q = c->q;
	struct paste_tx *tx, *before = NULL;
	struct seg *s;

	while ((s = c->out)) {
		if (q->in_flight == q->in_flight_max)
			return false;
		tx = paste_tx_reserve(&q->pq);
		if (!tx) {
			q->ring_full = true;
			return false;
		}
		if (before)
			before->flags |= PASTE_TX_MORE;
		before = tx;
		tx->conn = c->handle;
		tx->chunk = s->chunk;
		tx->off = s->len ? s->off : 0;
		tx->len = s->len;
		tx->flags = s->flags;
		tx->cookie = (uintptr_t)s;
		q->in_flight++;
		c->out = s->next;
	}
	c->out_tail = &c->out;
	return true;
}

static void conn_linger(struct conn *c)
{
	drop_input(c);
	if (c->eof || c->lingered > LINGER_MAX)
		conn_end(c);
}

/* Take one step with the first hold: false if that was the last for now. */
static bool conn_step(struct conn *c)
{
	struct hold *h = c->in;
	const char *data = NULL;
	size_t len = 0, used;
	enum run run;

	if (h) {
		data = paste_addr(c->q->ctx, h->chunk, h->off + h->pos);
		len = h->len - h->pos;
	}
	run = session_run(&c->q->w->serve, &c->s, data, len, &used);
	if (h)
		h->pos += used;
	if (run == RUN_BLOCKED) {
		conn_enlist(c, LIST_STUCK);
		return false;
	}
	if (run == RUN_CLOSE) {
		conn_end(c);
		return false;
	}
	if (run == RUN_LINGER) {
		send_flag(c, PASTE_TX_SHUT_WR);
		c->linger = true;
		conn_linger(c);
		return false;
	}
	if (h) {
		c->in = h->next;
		if (!c->in)
			c->in_tail = &c->in;
		hold_put(h);
	}
	if (!c->in && c->eof)
		conn_end(c);
	return c->in;
}

static void conn_work(struct conn *c)
{
	conn_enlist(c, LIST_NONE);
	if (c->linger && !c->ending)
		conn_linger(c);
	else if (!c->ending)
		while (conn_step(c))
			;
	if (!conn_send(c))
		conn_enlist(c, LIST_TODO);
}

/*
 * One round. Those that come back to the list are left for the next one; the
 * stuck ones among them are tried again as well, which does no harm.
 */
void conns_work(struct queue *q)
{
	struct conn *c, *last = TAILQ_LAST(&q->todo, conn_head);

	q->ring_full = false;
	while (last && (c = TAILQ_FIRST(&q->todo))) {
		conn_work(c);
		if (c == last)
			break;
	}
}

/* ------------------------------------------------------------------------- */

static void make_slots(struct queue *q, uint32_t first, uint32_t n_chunks)
{
	unsigned per_chunk = q->ctx->chunk_size / SLOT_SIZE;
	unsigned i, n = n_chunks * per_chunk;
	struct seg *s = NULL;

	for (i = 0; i < n; i++) {
		if (i % BLOCK_ITEMS == 0)
			s = block_new(q, sizeof(*s));
		s->kind = SEG_TEXT;
		s->chunk = first + i / per_chunk;
		s->off = i % per_chunk * SLOT_SIZE;
		s->next = q->free_slots;
		q->free_slots = s++;
	}
}

int conns_init(struct queue *q, uint32_t first, uint32_t n_chunks)
{
	q->table = calloc(TABLE_SIZE, sizeof(*q->table));
	if (!q->table)
		return -ENOMEM;
	TAILQ_INIT(&q->todo);
	TAILQ_INIT(&q->stuck);
	TAILQ_INIT(&q->free_conns);
	make_slots(q, first, n_chunks);
	return 0;
}

void conns_exit(struct queue *q)
{
	struct block *b;

	free(q->table);
	while ((b = q->blocks)) {
		q->blocks = b->next;
		free(b);
	}
}
