// SPDX-License-Identifier: MIT
/*
 * paste.c - phttpd over /dev/paste: set-up and the loop of a queue
 *
 * One context for the process, one queue with its slice of the pool for each
 * thread. The tx part of the pool:
 *
 *   [ a chunk for each pattern | slots of thread 0 | slots of thread 1 | ... ]
 *
 * A pool that was there before (-x) may have been made for another number of
 * threads: they share what it has.
 *
 * The loop takes everything that is in the rings, works, and makes one system
 * call, which sends all answers, gives the chunks back and waits.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

#define RX_ENTRIES   4096
#define FILL_ENTRIES 8192
#define TX_ENTRIES   4096
#define COMP_ENTRIES 8192
#define BUSY_US	     100000 /* a busy poll ends after this, to see signals */

static struct paste server;
static struct paste_nic nic;
static bool nic_is_open;
static bool hooked; /* all queues are bound */

static void die_text(const char *what, int err)
{
	fprintf(stderr, "phttpd: %s: %s: %s\n", what, strerror(-err), paste_text(&server));
	exit(EXIT_FAILURE);
}

static uint32_t slot_chunks(const struct options *o)
{
	return SLOT_BYTES / o->chunk_size;
}

/* With -x the pool is in the store and has the size of that, less what its logs get. */
static uint32_t rx_chunks(const struct options *o)
{
	if (!o->zero_copy)
		return o->chunks * o->threads;
	return (o->store_bytes - storage_log_bytes(o)) / 4096 * (4096 / o->chunk_size);
}

static void pool_open(const struct options *o)
{
	struct paste_pool_opts po = {
		.sz = sizeof(po),
		.chunk_size = o->chunk_size,
		.n_rx = rx_chunks(o),
		.n_tx = PATTERNS + slot_chunks(o) * o->threads,
	};
	char path[PATH_MAX];
	int err, i;

	if (o->zero_copy) {
		storage_pool_path(o, path, sizeof(path));
		po.path = path;
	}
	err = paste_open(&server);
	if (err)
		die("/dev/paste", err);
	err = paste_pool(&server, &po);
	if (err)
		die_text("pool", err);
	if (server.n_tx < PATTERNS + o->threads) {
		fprintf(stderr, "phttpd: pool: %u tx chunks are not enough\n", server.n_tx);
		exit(EXIT_FAILURE);
	}
	for (i = 0; i < PATTERNS; i++)
		pattern_fill(i, paste_addr(&server, server.first_tx + i, 0), server.chunk_size);
}

static uint32_t entries(const struct paste_ioc_info *info, uint32_t wanted)
{
	return wanted < info->max_entries ? wanted : info->max_entries;
}

static struct queue *queue_open(const struct options *o, struct worker *w,
				const struct paste_ioc_info *info)
{
	struct paste_queue_opts qo = {
		.sz = sizeof(qo),
		.rx_entries = entries(info, RX_ENTRIES),
		.fill_entries = entries(info, FILL_ENTRIES),
		.tx_entries = entries(info, TX_ENTRIES),
		.comp_entries = entries(info, COMP_ENTRIES),
		.rx_chunks = server.n_rx / o->threads & ~1U,
	};
	uint32_t slots = (server.n_tx - PATTERNS) / o->threads;
	struct queue *q = calloc(1, sizeof(*q));
	int err, i;

	if (!q)
		die("queue", ENOMEM);
	q->ctx = &server;
	q->w = w;
	if (w->index + 1 == o->threads)
		qo.rx_chunks = 0; /* all that are left */
	err = paste_queue(&server, &q->pq, &qo);
	if (!err)
		err = conns_init(q, server.first_tx + PATTERNS + slots * w->index, slots);
	if (err)
		die_text("queue", err);
	for (i = 0; i < PATTERNS; i++)
		q->pattern[i] = server.first_tx + i;
	q->in_flight_max = q->pq.comp.mask + 1;
	return q;
}

void paste_server_open(const struct options *o, struct worker *w)
{
	struct paste_ioc_info info = { .size = sizeof(info) };
	unsigned i;
	int err;

	pool_open(o);
	err = paste_info(&server, &info);
	if (err)
		die("info", err);
	for (i = 0; i < o->threads; i++) {
		w[i].queue = queue_open(o, &w[i], &info);
	}
}

/* What the store has to know of the pool, NULL without -x. */
const struct store_pool *paste_server_pool(const struct options *o, const struct worker *w)
{
	static uint32_t first[MAX_THREADS], n[MAX_THREADS];
	static struct store_pool pool = { .slice_first = first, .slice_n = n };
	unsigned i;

	if (!o->zero_copy)
		return NULL;
	pool.base = server.base;
	pool.chunk_size = server.chunk_size;
	pool.first_rx = server.first_rx;
	pool.n_rx = server.n_rx;
	for (i = 0; i < o->threads; i++) {
		first[i] = w[i].queue->pq.first_chunk;
		n[i] = w[i].queue->pq.n_chunks;
	}
	return &pool;
}

/* Give the module the rx chunks, but not those that records are in. */
void paste_server_fill(const struct options *o, struct worker *w)
{
	struct queue *q;
	unsigned i;
	int err;

	for (i = 0; i < o->threads; i++) {
		q = w[i].queue;
		if (o->zero_copy)
			q->keep = w[i].serve.store;
		conns_fill_slice(q);
		err = q->err ? q->err : paste_sync(&q->pq, 0, 0);
		if (err)
			die("fill", err);
	}
}

/* ------------------------------------------------------------------------- */
/* The NIC */

static void nic_fail(const struct options *o, struct worker *w, unsigned bound, int err)
{
	unsigned i;

	fprintf(stderr, "phttpd: %s queue %u: %s: %s\n", o->nic, o->rxq + bound, strerror(-err),
		paste_nic_text(&nic));
	if (err != -EOPNOTSUPP || o->need_zc)
		exit(EXIT_FAILURE);
	fprintf(stderr, "phttpd: no zero copy, going on without the NIC\n");
	for (i = 0; i < bound; i++)
		paste_nic_unbind(&nic, &w[i].queue->pq);
	paste_nic_close(&nic);
	nic_is_open = false;
}

void paste_server_bind(const struct options *o, struct worker *w)
{
	unsigned i;
	int err;

	err = paste_nic_open(&nic, o->nic, &o->port, 1);
	nic_is_open = !err;
	for (i = 0; !err && i < o->threads; i++)
		err = paste_nic_bind(&nic, &w[i].queue->pq, o->rxq + i);
	if (err)
		nic_fail(o, w, i ? i - 1 : 0, err);
	else
		hooked = true;
}

const char *paste_server_placement(void)
{
	return hooked ? "paste hooked" : "paste plain";
}

/* ------------------------------------------------------------------------- */
/* The loop */

static int wait_for_more(struct queue *q)
{
	const struct options *o = q->w->opt;
	uint32_t busy_us = o->busy_us, wait_us = o->wait_ms * 1000;
	int err;

	if (!o->wait_ms)
		busy_us = BUSY_US;
	if (q->ring_full || q->hurry)
		busy_us = wait_us = 0;
	err = paste_sync(&q->pq, busy_us, wait_us);
	return err == -EINTR ? 0 : err;
}

/*
 * What was answered is durable, then it is sent. What the store has to tidy up
 * after that is left for the next batch's drain; so there is one more round
 * before a sleep, in which the store does it if there is no batch.
 */
static int end_batch(struct queue *q)
{
	struct serve *sv = &q->w->serve;
	int again = sv->store ? serve_commit(sv, true) : 0;

	if (again < 0)
		return again;
	paste_tx_submit(&q->pq);
	if (!sv->store)
		return 0;
	conns_fill(q);
	if (sv->waiting)
		conns_unstick(q);
	q->hurry = sv->waiting || store_pending(sv->store);
	sv->waiting = false;
	return 0;
}

static int loop_once(struct queue *q)
{
	uint32_t i, n_rx = paste_rx_peek(&q->pq);
	uint32_t n_comp = paste_comp_peek(&q->pq);
	int err;

	for (i = 0; i < n_comp; i++)
		conn_comp(q, paste_comp_at(&q->pq, i));
	if (n_comp) {
		paste_comp_release(&q->pq, n_comp);
		conns_unstick(q);
	}
	for (i = 0; i < n_rx; i++)
		conn_rx(q, paste_rx_at(&q->pq, i));
	if (n_rx) {
		paste_rx_release(&q->pq, n_rx);
		q->w->batches++;
	}
	conns_work(q);
	err = end_batch(q);
	if (!err)
		err = q->err;
	return err ? err : wait_for_more(q);
}

int paste_run(struct worker *w)
{
	struct queue *q = w->queue;
	int err;

	err = paste_accept(&q->pq, w->listener, QUOTA);
	if (err)
		fprintf(stderr, "phttpd: %s\n", paste_text(&server));
	while (!err && !atomic_load_explicit(&stopping, memory_order_relaxed))
		err = loop_once(q);
	if (err)
		stop_all();
	return err;
}

/* ------------------------------------------------------------------------- */
/* The end */

static void print_stats(unsigned thread, const struct paste_ioc_stats *s)
{
	unsigned i;

	for (i = 0; i < PASTE_STAT_N; i++)
		if (s->v[i])
			fprintf(stderr, "phttpd: thread %u %s %llu\n", thread, paste_stat_name(i),
				(unsigned long long)s->v[i]);
}

/* The rest of the summary line: what the module counted. */
void paste_server_summary(const struct options *o, struct worker *w)
{
	struct paste_ioc_stats s[MAX_THREADS];
	unsigned long long copied = 0, preattach = 0, batches = 0;
	unsigned i;

	memset(s, 0, sizeof(s));
	for (i = 0; i < o->threads; i++) {
		s[i].size = sizeof(s[i]);
		if (paste_stats(&server, w[i].queue->pq.id, false, &s[i]))
			continue;
		copied += s[i].v[PASTE_STAT_COPY_ENTRIES] - s[i].v[PASTE_STAT_COPY_PREATTACH];
		preattach += s[i].v[PASTE_STAT_COPY_PREATTACH];
		batches += s[i].v[PASTE_STAT_BATCHES];
	}
	fprintf(stderr, "copied %llu preattach %llu batches %llu\n", copied, preattach, batches);
	for (i = 0; o->stats && i < o->threads; i++)
		print_stats(i, &s[i]);
}

void paste_server_close(const struct options *o, struct worker *w)
{
	unsigned i;

	for (i = 0; i < o->threads; i++) {
		conns_exit(w[i].queue);
		if (hooked)
			paste_nic_unbind(&nic, &w[i].queue->pq);
		paste_queue_close(&w[i].queue->pq);
		free(w[i].queue);
	}
	if (nic_is_open)
		paste_nic_close(&nic);
	paste_close(&server);
}
