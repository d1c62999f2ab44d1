// SPDX-License-Identifier: GPL-2.0
/*
 * Queues: ring memory, rx entries, fills, waiting, statistics.
 *
 * A queue is a file of its own. Its rx ring is written by whoever delivers
 * (softirq or process, under the slice's lock); its fill, tx and comp rings
 * belong to the one thread in sync (PASTE_Q_SYNCING).
 */
#include <linux/log2.h>
#include <linux/pid.h>
#include <linux/vmalloc.h>

#include "internal.h"
#include "trace.h"

/* All queues of the module by number, for statistics. The mutex keeps them open. */
static DEFINE_MUTEX(queues_lock);
static DEFINE_XARRAY_ALLOC1(queues);

#define RING_ALIGN 64 /* indices and rings begin on cache lines */

static int queue_check_entries(u32 *n, u32 def, const char *what, struct paste_text *text)
{
	if (!*n)
		*n = def;
	if (!is_power_of_2(*n) || *n < 64 || *n > PASTE_MAX_ENTRIES)
		return paste_fail(text, -EINVAL, "%s: %u is not a power of two from 64 to %u", what,
				  *n, PASTE_MAX_ENTRIES);
	return 0;
}

static int queue_check(struct paste_ctx *ctx, struct paste_ioc_queue *a, struct paste_text *text)
{
	u32 left, per_page;
	int err;

	if (a->flags)
		return paste_fail(text, -EOPNOTSUPP, "flags: unknown bits %#x", a->flags);
	if (a->resv)
		return paste_fail(text, -EINVAL, "resv: not zero");
	if (!ctx->pool)
		return paste_fail(text, -ENXIO, "this context has no pool yet");
	if (ctx->n_queues == PASTE_MAX_QUEUES)
		return paste_fail(text, -ENOSPC, "this context has had %u queues",
				  PASTE_MAX_QUEUES);
	err = queue_check_entries(&a->rx_entries, 4096, "rx_entries", text)		?:
		      queue_check_entries(&a->fill_entries, 4096, "fill_entries", text) ?:
		      queue_check_entries(&a->tx_entries, 1024, "tx_entries", text)	?:
		      queue_check_entries(&a->comp_entries, 2048, "comp_entries", text);
	if (err)
		return err;
	left = ctx->pool->first_tx - ctx->next_chunk;
	per_page = ctx->pool->per_page;
	if (!a->rx_chunks && left >= PASTE_MIN_CHUNKS)
		a->rx_chunks = left;
	else if (a->rx_chunks % per_page || (a->rx_chunks && a->rx_chunks < PASTE_MIN_CHUNKS))
		return paste_fail(text, -EINVAL, "rx_chunks: %u is less than %u or not whole pages",
				  a->rx_chunks, PASTE_MIN_CHUNKS);
	if (!a->rx_chunks || a->rx_chunks > left)
		return paste_fail(text, -ENOSPC, "rx_chunks: only %u chunks are left", left);
	return 0;
}

/* Lay out the two mappings: indices first, each on a line of its own, then the rings. */
static int queue_alloc_rings(struct paste_queue *q, struct paste_ioc_queue *a)
{
	u32 rx = 4 * RING_ALIGN + RING_ALIGN;
	u32 comp = rx + a->rx_entries * sizeof(struct paste_rx);
	u32 tx = 4 * RING_ALIGN;
	u32 fill = tx + ALIGN(a->tx_entries * sizeof(struct paste_tx), RING_ALIGN);

	q->kern_len = PAGE_ALIGN(comp + a->comp_entries * sizeof(struct paste_comp));
	q->user_len = PAGE_ALIGN(fill + a->fill_entries * sizeof(u32));
	q->kern = __vmalloc(q->kern_len, PASTE_GFP_SIZED | __GFP_ZERO);
	q->user = __vmalloc(q->user_len, PASTE_GFP_SIZED | __GFP_ZERO);
	if (!q->kern || !q->user)
		return -ENOMEM;

	a->kern_len = q->kern_len;
	a->user_len = q->user_len;
	a->rx = (struct paste_ring_offsets){ 0, 0, rx, a->rx_entries };
	a->comp = (struct paste_ring_offsets){ RING_ALIGN, RING_ALIGN, comp, a->comp_entries };
	a->fill = (struct paste_ring_offsets){ 2 * RING_ALIGN, 2 * RING_ALIGN, fill,
					       a->fill_entries };
	a->tx = (struct paste_ring_offsets){ 3 * RING_ALIGN, 3 * RING_ALIGN, tx, a->tx_entries };
	a->flags_off = 4 * RING_ALIGN;
	q->flags = q->kern + a->flags_off;
	paste_ring_init(&q->rx, q->kern + a->rx.prod, q->user + a->rx.cons, q->kern + rx,
			a->rx_entries);
	paste_ring_init(&q->comp, q->kern + a->comp.prod, q->user + a->comp.cons, q->kern + comp,
			a->comp_entries);
	paste_ring_init(&q->fill, q->user + a->fill.prod, q->kern + a->fill.cons, q->user + fill,
			a->fill_entries);
	paste_ring_init(&q->tx, q->user + a->tx.prod, q->kern + a->tx.cons, q->user + tx,
			a->tx_entries);
	return 0;
}

static void queue_free(struct paste_queue *q)
{
	vfree(q->user);
	vfree(q->kern);
	kfree(q);
}

void paste_queue_free(struct paste_queue *q)
{
	queue_free(q);
	atomic64_inc(&paste_gone[PASTE_OBJ_QUEUE]);
}

/* The last send of a closed queue may complete in any context, vfree() may not be called in any. */
static void queue_release(struct kref *ref)
{
	struct paste_queue *q = container_of(ref, struct paste_queue, ref);

	queue_work(paste_wq, &q->free_work);
}

void paste_queue_put(struct paste_queue *q)
{
	kref_put(&q->ref, queue_release);
}

struct paste_queue *paste_queue_create(struct paste_ctx *ctx, struct paste_ioc_queue *a,
				       struct paste_text *text)
{
	struct paste_queue *q;
	int err;

	lockdep_assert_held(&ctx->lock);
	err = queue_check(ctx, a, text);
	if (err)
		return ERR_PTR(err);
	err = -ENOMEM;
	q = kzalloc(sizeof(*q), GFP_KERNEL_ACCOUNT);
	if (!q)
		return ERR_PTR(err);
	kref_init(&q->ref);
	q->ctx = ctx;
	init_waitqueue_head(&q->wait);
	init_llist_head(&q->done);
	INIT_LIST_HEAD(&q->stalled);
	INIT_LIST_HEAD(&q->sendable);
	if (queue_alloc_rings(q, a))
		goto err_queue;
	q->slice = paste_slice_create(ctx->pool, ctx->next_chunk, a->rx_chunks);
	if (!q->slice)
		goto err_queue;
	mutex_lock(&queues_lock);
	err = xa_alloc(&queues, &q->id, q, xa_limit_31b, GFP_KERNEL_ACCOUNT);
	mutex_unlock(&queues_lock);
	if (err)
		goto err_slice;
	atomic64_inc(&paste_made[PASTE_OBJ_QUEUE]);
	a->first_chunk = q->slice->first;
	a->id = q->id;
	return q;

err_slice:
	paste_slice_destroy(q->slice);
err_queue:
	queue_free(q);
	return ERR_PTR(err);
}

/* The slice stays with the context: other queues may still send its chunks. */
void paste_queue_unlist(struct paste_queue *q)
{
	mutex_lock(&queues_lock);
	xa_erase(&queues, q->id);
	mutex_unlock(&queues_lock);
}

/* Ring corruption: user space broke its own queue. Everything fails from now on. */
void paste_queue_kill(struct paste_queue *q)
{
	WRITE_ONCE(q->dead, true);
	WRITE_ONCE(*q->flags, PASTE_Q_DEAD);
	wake_up_all(&q->wait); /* also who waits for errors only */
}

void paste_queue_wake(struct paste_queue *q)
{
	if (wq_has_sleeper(&q->wait))
		wake_up_poll(&q->wait, EPOLLIN | EPOLLRDNORM);
}

/* Room for how many rx entries? Kills the queue if its user lies. */
int paste_queue_room(struct paste_queue *q)
{
	int room;

	lockdep_assert_held(&q->slice->lock);
	if (READ_ONCE(q->dead))
		return 0;
	room = paste_ring_room(&q->rx);
	if (room >= 0)
		return room;
	paste_queue_kill(q);
	return 0;
}

/* The next rx entry, to be filled in; there is room. Visible after publish. */
struct paste_rx *paste_queue_entry(struct paste_queue *q)
{
	struct paste_rx *e = paste_ring_entry(&q->rx, struct paste_rx, 0);

	lockdep_assert_held(&q->slice->lock);
	q->rx.head++;
	return e;
}

void paste_queue_publish(struct paste_queue *q)
{
	lockdep_assert_held(&q->slice->lock);
	paste_ring_publish(&q->rx);
}

static u32 queue_fill_some(struct paste_queue *q, u32 n)
{
	struct paste_slice *slice = q->slice;
	u32 i, chunk, bad = 0;

	spin_lock_bh(&slice->lock);
	for (i = 0; i < n; i++) {
		chunk = READ_ONCE(*paste_ring_entry(&q->fill, u32, i)); /* once */
		if (paste_chunk_fill(&slice->t, chunk - slice->first))
			bad++;
	}
	spin_unlock_bh(&slice->lock);
	q->fill.head += n;
	return bad;
}

/* Take chunks back that the application gave; softirqs may run in between. */
void paste_queue_take_fills(struct paste_queue *q)
{
	int n = paste_ring_avail(&q->fill);
	u32 some, left, bad = 0;

	if (n < 0)
		return paste_queue_kill(q);
	if (!n)
		return;
	for (left = n; left; left -= some) {
		some = min(left, 256U);
		bad += queue_fill_some(q, some);
	}
	paste_ring_retire(&q->fill);
	paste_stat_add(q, PASTE_STAT_FILLS, n - bad);
	paste_stat_add(q, PASTE_STAT_FILL_BAD, bad);
	trace_paste_fill(q->id, n, bad);
}

/* rx entries that the application has not taken; any context, only a hint. */
u32 paste_queue_rx_unread(const struct paste_queue *q)
{
	return min(READ_ONCE(*q->rx.prod) - READ_ONCE(*q->rx.cons), q->rx.mask + 1);
}

u32 paste_queue_comp_unread(const struct paste_queue *q)
{
	return min(READ_ONCE(*q->comp.prod) - READ_ONCE(*q->comp.cons), q->comp.mask + 1);
}

/* Something to take, or something that sync must move to where it can be taken. */
bool paste_queue_ready(struct paste_queue *q)
{
	return paste_queue_rx_unread(q) || paste_queue_comp_unread(q) || !llist_empty(&q->done) ||
	       READ_ONCE(q->listener.come) || READ_ONCE(q->dead);
}

static bool queue_visible(struct paste_ctx *ctx, struct paste_queue *q)
{
	return q->ctx == ctx || capable(CAP_NET_ADMIN);
}

static void queue_read_stats(struct paste_queue *q, struct paste_ioc_stats *a)
{
	struct paste_slice *slice = q->slice;
	int i;

	a->id = q->id;
	a->pid = pid_vnr(q->ctx->pid);
	a->ifindex = READ_ONCE(q->nic_ifindex);
	a->nic_queue = READ_ONCE(q->nic_queue);
	a->conns = atomic_read(&q->n_conns);
	a->sends = READ_ONCE(q->n_sends);
	a->chunk_size = slice->pool->chunk_size;
	a->chunks = slice->t.n;
	a->first_chunk = slice->first;
	spin_lock_bh(&slice->lock);
	a->chunks_held = slice->t.n_held;
	a->chunks_free = slice->t.n - slice->t.n_lent - slice->t.n_held;
	a->chunks_lent = slice->t.n_lent;
	a->stalled = q->n_stalled;
	spin_unlock_bh(&slice->lock);
	for (i = 0; i < PASTE_STAT_N; i++)
		a->v[i] = READ_ONCE(q->stat[i]);
}

int paste_queue_stats(struct paste_ctx *ctx, struct paste_ioc_stats *a)
{
	unsigned long id = a->id;
	struct paste_queue *q;
	int err = -ENOENT;

	if (a->flags & ~PASTE_STATS_NEXT)
		return -EOPNOTSUPP;
	if (a->resv)
		return -EINVAL;
	mutex_lock(&queues_lock);
	q = xa_find(&queues, &id, a->flags & PASTE_STATS_NEXT ? ULONG_MAX : id, XA_PRESENT);
	while (q && !queue_visible(ctx, q) && a->flags & PASTE_STATS_NEXT)
		q = xa_find_after(&queues, &id, ULONG_MAX, XA_PRESENT);
	if (q && queue_visible(ctx, q)) {
		queue_read_stats(q, a);
		err = 0;
	}
	mutex_unlock(&queues_lock);
	return err;
}

/* The queue with this number: it stays open until it is unpinned. NULL: there is none to see. */
struct paste_queue *paste_queue_pin(struct paste_ctx *ctx, u32 id)
{
	struct paste_queue *q;

	mutex_lock(&queues_lock);
	q = xa_load(&queues, id);
	if (q && queue_visible(ctx, q))
		return q;
	mutex_unlock(&queues_lock);
	return NULL;
}

void paste_queue_unpin(void)
{
	mutex_unlock(&queues_lock);
}
