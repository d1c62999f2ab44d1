// SPDX-License-Identifier: GPL-2.0
/*
 * Sends: tx entries into TCP, and completions back.
 *
 * Each tx entry gets one of as many struct paste_send as the comp ring has
 * entries, so a completion always finds room. Small ones are copied and
 * complete at once. The pages of larger ones are handed to TCP with a ubuf
 * (what MSG_ZEROCOPY uses), whose completion comes when the last packet that
 * refers to them is gone: acknowledged, and done by the NIC. TCP never puts two
 * ubufs into one packet, so consecutive sends of a connection share one (a
 * group): its head's ubuf has a reference per packet, per member that TCP has
 * not taken all of, and one while the group is open.
 *
 * What the socket's buffer does not take waits in conn->txq; write_space brings
 * the connection to q->sendable, and a work item or the next sync goes on.
 *
 * Completions of a ubuf come in any context. They put the sends into q->done,
 * an llist, and wake the queue; sync moves them to the comp ring.
 */
#include <linux/bvec.h>
#include <linux/moduleparam.h>
#include <net/pkt_sched.h>
#include <net/sch_generic.h>
#include <net/tcp.h>

#include "internal.h"
#include "trace.h"

#define TX_GROUP_MAX 64
#define TX_BELL_MS   5

static unsigned int doorbell_batch = 64;
module_param(doorbell_batch, uint, 0644);
MODULE_PARM_DESC(
	doorbell_batch,
	"most sends that are released to a NIC with one doorbell (64; 0 or 1: each by itself)");

static void tx_ubuf_complete(struct sk_buff *skb, struct ubuf_info *ubuf, bool success);
PASTE_UBUF_OPS(tx_ubuf_ops, tx_ubuf_complete);

/* ---------------------------------------------------------- completion --- */

/* Any context. */
static void tx_finish(struct paste_send *s)
{
	llist_add(&s->done, &s->q->done);
}

/*
 * Drop a reference of a group. The group's own reference on the queue keeps it
 * until we are done with it, even if it was closed meanwhile.
 */
static void tx_group_put(struct paste_send *head)
{
	struct paste_queue *q = head->q;
	struct paste_send *s, *next;

	if (!refcount_dec_and_test(&head->ubuf.refcnt))
		return;
	for (s = head; s; s = next) {
		next = s->group_next; /* after tx_finish() it is not ours any more */
		tx_finish(s);
	}
	paste_queue_wake(q);
	paste_queue_put(q);
}

static void tx_ubuf_complete(struct sk_buff *skb, struct ubuf_info *ubuf, bool success)
{
	tx_group_put(container_of(ubuf, struct paste_send, ubuf));
}

/* TCP has all of it, or never will. */
static void tx_handed(struct paste_send *s, int result)
{
	s->result = result;
	trace_paste_send(s->q->id, s->handle, s->chunk, s->len, result);
	if (s->group)
		tx_group_put(s->group);
	else
		tx_finish(s);
}

static struct paste_slice *tx_slice_of(struct paste_queue *q, u32 chunk)
{
	struct paste_ctx *ctx = q->ctx;
	u32 i, n = smp_load_acquire(&ctx->n_queues); /* pairs with dev.c's store */

	if (chunk - q->slice->first < q->slice->t.n)
		return q->slice;
	for (i = 0; i < n; i++)
		if (chunk - ctx->slices[i]->first < ctx->slices[i]->t.n)
			return ctx->slices[i];
	return NULL;
}

static void tx_release_chunk(struct paste_queue *q, u32 chunk)
{
	struct paste_slice *slice;

	if (!chunk || chunk >= q->slice->pool->first_tx)
		return; /* tx chunks are not counted: the application knows */
	slice = tx_slice_of(q, chunk);
	spin_lock_bh(&slice->lock);
	paste_chunk_sent(&slice->t, chunk - slice->first);
	spin_unlock_bh(&slice->lock);
}

static void tx_free_send(struct paste_queue *q, struct paste_send *s)
{
	struct paste_conn *c = s->conn;

	if (c) {
		WRITE_ONCE(c->tx_bytes, c->tx_bytes + max(s->result, 0));
		paste_tap_put(c);
	}
	s->conn = NULL;
	s->done.next = q->free_sends;
	q->free_sends = &s->done;
	WRITE_ONCE(q->n_sends, q->n_sends - 1);
}

/* Move finished sends to the comp ring. There is room, unless user space lies. */
void paste_tx_complete(struct paste_queue *q)
{
	struct llist_node *node = llist_reverse_order(llist_del_all(&q->done));
	u32 n = 0, errors = 0, sends = q->n_sends;
	struct paste_send *s, *next;
	struct paste_comp *e;
	u64 bytes = 0;

	if (!node)
		return;
	llist_for_each_entry_safe(s, next, node, done)
	{
		if (s->chunk)
			tx_release_chunk(q, s->chunk);
		if (paste_ring_room(&q->comp) > 0) {
			e = paste_ring_entry(&q->comp, struct paste_comp, 0);
			e->cookie = s->cookie;
			e->conn = s->handle;
			e->result = s->result;
			q->comp.head++;
			n++;
		} else {
			paste_queue_kill(q);
		}
		bytes += max(s->result, 0);
		errors += s->conn && s->result < 0 && s->result != -ECANCELED;
		trace_paste_comp(q->id, s->handle, s->chunk, s->len, s->result);
		tx_free_send(q, s);
	}
	paste_ring_publish(&q->comp);
	atomic64_add(sends - q->n_sends,
		     &paste_gone[PASTE_OBJ_SEND]); /* once: all queues share it */
	paste_stat_add(q, PASTE_STAT_COMPS, n);
	paste_stat_add(q, PASTE_STAT_SEND_BYTES, bytes);
	paste_stat_add(q, PASTE_STAT_SEND_ERRORS, errors);
}

/* --------------------------------------------------------------- groups --- */

/* Socket lock held. Members that TCP has not taken all of keep their own reference. */
static void tx_group_close(struct paste_conn *c)
{
	struct paste_send *head = c->group;

	c->group = NULL;
	if (head)
		tx_group_put(head);
}

static void tx_group_join(struct paste_conn *c, struct paste_send *s)
{
	struct paste_send *head = c->group;

	if (head && head->n_group == TX_GROUP_MAX) {
		tx_group_close(c);
		head = NULL;
	}
	if (!head) {
		head = s;
		c->group = s;
		refcount_set(&s->ubuf.refcnt, 1);
		s->ubuf.flags = SKBFL_ZEROCOPY_FRAG | SKBFL_DONT_ORPHAN;
		paste_ubuf_set_ops(&s->ubuf, &tx_ubuf_ops);
		kref_get(&s->q->ref);
	} else {
		head->group_tail->group_next = s;
	}
	head->group_tail = s;
	head->n_group++;
	s->group = head;
	refcount_inc(&head->ubuf.refcnt);
}

/* ------------------------------------------------------------ doorbells --- */

/*
 * A driver rings its doorbell once for a list of packets, and a qdisc makes
 * such lists of what is queued when it runs. So during a batch we are the
 * qdisc's runner without running it: everybody's packets, ours and others', are
 * only queued, as they are when another CPU is the runner. At the end the qdisc
 * is scheduled and dequeues in bulk.
 *
 * Only a leaf with a lock and one TX queue: a NOLOCK qdisc's run is a spinlock
 * (sends may sleep), noqueue has nothing to hold, and others do not dequeue in
 * bulk. Under mq that is the leaf of the TX queue of the batch's first
 * connection; packets for other TX queues go out as ever. The hold ends after
 * doorbell_batch sends, or when another task wants the CPU - and after
 * TX_BELL_MS in any case: we may sleep, for a socket that another task has
 * locked, for memory, or because our cgroup has used up its time, and nobody but
 * us shall have to wait for that. The device can go down meanwhile:
 * dev_deactivate() waits for the runner.
 */

static struct Qdisc *tx_find_qdisc(struct sock *sk)
{
	struct Qdisc *qdisc = NULL;
	struct dst_entry *dst;
	int index;

	rcu_read_lock();
	dst = __sk_dst_get(sk);
	index = sk_tx_queue_get(sk); /* -1 before its first packet */
	if (dst && dst->dev->real_num_tx_queues == 1)
		index = 0; /* the core does not record the only one */
	if (dst && index >= 0 && index < dst->dev->real_num_tx_queues)
		qdisc = rcu_dereference(netdev_get_tx_queue(dst->dev, index)->qdisc);
	if (qdisc && (!qdisc->enqueue || qdisc->flags & (TCQ_F_NOLOCK | TCQ_F_BUILTIN) ||
		      !(qdisc->flags & TCQ_F_ONETXQUEUE) || !refcount_inc_not_zero(&qdisc->refcnt)))
		qdisc = NULL;
	rcu_read_unlock();
	return qdisc;
}

/* Socket lock held. Hold the qdisc of this socket, if that can be. */
static void tx_bell_hold(struct paste_bell *bell, struct sock *sk)
{
	struct Qdisc *qdisc = tx_find_qdisc(sk);
	bool held;

	if (!qdisc)
		return;
	spin_lock_bh(qdisc_lock(qdisc));
	/* as qdisc_run_begin() for a qdisc with a lock */
	held = !test_bit(__QDISC_STATE_DEACTIVATED, &qdisc->state) &&
	       !__test_and_set_bit(__QDISC_STATE2_RUNNING, &qdisc->state2);
	spin_unlock_bh(qdisc_lock(qdisc));
	if (!held) {
		qdisc_put_unlocked(qdisc);
		return;
	}
	bell->qdisc = qdisc;
	bell->left = bell->limit;
	bell->held = true;
	mod_timer(&bell->late, jiffies + msecs_to_jiffies(TX_BELL_MS));
}

/* By the timer, or when that is stopped. */
static void tx_bell_release(struct paste_bell *bell)
{
	struct Qdisc *qdisc = bell->qdisc;

	bell->held = false;
	spin_lock_bh(qdisc_lock(qdisc));
	/* first: dev_deactivate() waits for SCHED and RUNNING, and then it may be freed */
	__netif_schedule(qdisc);
	__clear_bit(__QDISC_STATE2_RUNNING, &qdisc->state2); /* as qdisc_run_end() */
	spin_unlock_bh(qdisc_lock(qdisc));		     /* NET_TX runs it */
}

/* The rest of the batch goes out as other packets do, until bell->left is used up. */
static void tx_bell_late(struct timer_list *t)
{
	tx_bell_release(container_of(t, struct paste_bell, late));
}

static void tx_bell_ring(struct paste_queue *q)
{
	struct paste_bell *bell = &q->bell;

	if (!bell->qdisc)
		return;
	timer_delete_sync(&bell->late);
	if (bell->held)
		tx_bell_release(bell);
	else
		paste_stat_inc(q, PASTE_STAT_DOORBELLS_LATE);
	qdisc_put_unlocked(bell->qdisc);
	bell->qdisc = NULL;
	paste_stat_inc(q, PASTE_STAT_DOORBELLS);
}

/* -------------------------------------------------------------- sending --- */

/* Hand the rest of s to TCP. Bytes taken or a negative errno. */
static int tx_sendmsg(struct paste_conn *c, struct paste_send *s, bool more)
{
	struct paste_pool *pool = c->q->slice->pool;
	u8 *data = paste_chunk_addr(pool, s->chunk) + s->off + s->sent;
	u32 len = s->len - s->sent;
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct bio_vec bv;
	struct kvec kv;
	int r;

	if (more || s->flags & PASTE_TX_MORE)
		msg.msg_flags |= MSG_MORE;
	if (s->len <= PASTE_TX_COPY_MAX) {
		kv = (struct kvec){ .iov_base = data, .iov_len = len };
		iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &kv, 1, len);
	} else {
		if (!s->group)
			tx_group_join(c, s);
		bvec_set_page(&bv, virt_to_page(data), len, offset_in_page(data));
		iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, &bv, 1, len);
		msg.msg_flags |= MSG_ZEROCOPY;
		msg.msg_ubuf = &s->group->ubuf;
	}
	c->sending = true;
	r = tcp_sendmsg_locked(c->sk, &msg, len);
	c->sending = false;
	return r;
}

/* FIN behind what was sent. As inet_shutdown(), but with the lock held already. */
static void tx_shutdown(struct sock *sk)
{
	if (sk->sk_shutdown & SEND_SHUTDOWN)
		return;
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
	sk->sk_prot->shutdown(sk, SEND_SHUTDOWN);
}

/* Socket lock held. True: done with it, well or ill. False: it must wait. */
static bool tx_send(struct paste_conn *c, struct paste_send *s, bool more)
{
	int r;

	if (c->tx_err) {
		tx_handed(s, -ECANCELED);
		return true;
	}
	while (s->sent < s->len) {
		r = tx_sendmsg(c, s, more);
		if (r == -EAGAIN) {
			spin_lock_bh(&c->q->slice->lock); /* sync and tx_work both come here */
			paste_stat_inc(c->q, PASTE_STAT_SEND_AGAIN);
			spin_unlock_bh(&c->q->slice->lock);
			return false;
		}
		if (r <= 0) {
			c->tx_err = r ?: -EPIPE;
			tx_handed(s, c->tx_err);
			return true;
		}
		s->sent += r;
	}
	if (s->flags & (PASTE_TX_SHUT_WR | PASTE_TX_CLOSE))
		tx_shutdown(c->sk);
	tx_handed(s, s->len);
	return true;
}

/* more: the next send is of the same connection and follows at once. */
static void tx_submit(struct paste_queue *q, struct paste_send *s, bool more)
{
	struct paste_bell *bell = &q->bell;
	struct paste_conn *c = s->conn;
	u16 flags = s->flags;
	bool done;

	if (!bell->left || need_resched())
		tx_bell_ring(q);
	lock_sock(c->sk);
	if (!bell->qdisc && bell->limit)
		tx_bell_hold(bell, c->sk);
	if (bell->left)
		bell->left--;
	done = list_empty(&c->txq) && tx_send(c, s, more);
	if (!done)
		list_add_tail(&s->list, &c->txq);
	if (!more)
		tx_group_close(c);
	release_sock(c->sk);
	if (done && flags & PASTE_TX_CLOSE)
		paste_tap_detach_conn(c);
}

/* ---------------------------------------------------------- tx entries --- */

/* One of the sends, for the next tx entry; NULL if its completion might find no room. */
static struct paste_send *tx_take_send(struct paste_queue *q)
{
	int unread = paste_ring_unread(&q->comp);
	struct paste_send *s;

	if (unread < 0) {
		paste_queue_kill(q);
		return NULL;
	}
	if (unread + q->n_sends > q->comp.mask) {
		paste_stat_inc(q, PASTE_STAT_STALL_COMP);
		return NULL;
	}
	s = llist_entry(q->free_sends, struct paste_send, done);
	q->free_sends = s->done.next;
	WRITE_ONCE(q->n_sends, q->n_sends + 1);
	s->group = NULL;
	s->group_next = NULL;
	s->n_group = 0;
	s->sent = 0;
	return s;
}

/* Copy the next tx entry, reading each word of user memory once. Returns its flags. */
static u32 tx_read_entry(struct paste_queue *q, struct paste_send *s)
{
	const struct paste_tx *e = paste_ring_entry(&q->tx, struct paste_tx, 0);
	u32 flags = READ_ONCE(e->flags);

	s->handle = READ_ONCE(e->conn);
	s->chunk = READ_ONCE(e->chunk);
	s->off = READ_ONCE(e->off);
	s->len = READ_ONCE(e->len);
	s->cookie = READ_ONCE(e->cookie);
	s->flags = flags;
	q->tx.head++;
	return flags;
}

/* The chunk part of an entry: in range, and the application's to send. */
static int tx_hold_chunk(struct paste_queue *q, struct paste_send *s)
{
	struct paste_pool *pool = q->slice->pool;
	struct paste_slice *slice;
	int err;

	if (s->chunk < pool->first_rx || s->chunk >= pool->n_chunks || s->off > pool->chunk_size ||
	    s->len > pool->chunk_size - s->off)
		return -EINVAL;
	if (s->chunk >= pool->first_tx)
		return 0;
	slice = tx_slice_of(q, s->chunk);
	if (!slice)
		return -EPERM;
	spin_lock_bh(&slice->lock);
	err = paste_chunk_send(&slice->t, s->chunk - slice->first);
	spin_unlock_bh(&slice->lock);
	return err;
}

static int tx_check(struct paste_queue *q, struct paste_send *s, u32 flags)
{
	struct paste_conn *c;
	int err = 0;

	if (flags & ~(PASTE_TX_MORE | PASTE_TX_SHUT_WR | PASTE_TX_CLOSE))
		return -EOPNOTSUPP;
	c = paste_tap_get(q, s->handle);
	if (IS_ERR(c))
		return PTR_ERR(c);
	if (s->len)
		err = tx_hold_chunk(q, s);
	else if (s->chunk || s->off || !(flags & (PASTE_TX_SHUT_WR | PASTE_TX_CLOSE)))
		err = -EINVAL;
	if (err) {
		paste_tap_put(c);
		return err;
	}
	s->conn = c;
	return 0;
}

static void tx_refuse(struct paste_queue *q, struct paste_send *s, int err)
{
	paste_stat_inc(q, PASTE_STAT_SEND_BAD);
	s->chunk = 0; /* nothing is held */
	tx_handed(s, err);
}

/*
 * Send what is in the tx ring. One entry is looked ahead, so that TCP can be
 * told when more of the same connection follows at once.
 */
void paste_tx_batch(struct paste_queue *q)
{
	int n = paste_ring_avail(&q->tx), err;
	struct paste_send *s, *prev = NULL;
	u32 batch = READ_ONCE(doorbell_batch), first = q->tx.head, flags;

	if (n < 0)
		return paste_queue_kill(q);
	q->bell.limit = n > 1 && batch > 1 ? batch : 0;
	for (; n && (s = tx_take_send(q)); n--) {
		flags = tx_read_entry(q, s);
		err = tx_check(q, s, flags);
		if (err) {
			tx_refuse(q, s, err);
			continue;
		}
		paste_stat_inc(q, PASTE_STAT_SENDS);
		if (s->len && s->len <= PASTE_TX_COPY_MAX)
			paste_stat_inc(q, PASTE_STAT_SEND_COPIED);
		if (prev)
			tx_submit(q, prev, prev->conn == s->conn);
		prev = s;
	}
	if (prev)
		tx_submit(q, prev, false);
	tx_bell_ring(q);
	atomic64_add(q->tx.head - first, &paste_made[PASTE_OBJ_SEND]);
	paste_ring_retire(&q->tx);
}

/* --------------------------------------------------------- continuation --- */

/*
 * The socket has room again, or is broken. Socket lock held, maybe in softirq.
 * TCP also says so from within a send that failed for lack of memory: then a
 * tick later, so that the retry does not spin.
 */
void paste_tx_ready(struct paste_conn *c)
{
	struct paste_queue *q = c->q;

	spin_lock_bh(&q->slice->lock);
	if (list_empty(&c->ready))
		list_add_tail(&c->ready, &q->sendable);
	spin_unlock_bh(&q->slice->lock);
	queue_delayed_work(paste_wq, &q->tx_work, c->sending ? 1 : 0);
}

static void tx_resume_conn(struct paste_conn *c)
{
	struct paste_send *s;
	bool close = false;

	lock_sock(c->sk);
	while (!close && !list_empty(&c->txq)) {
		s = list_first_entry(&c->txq, struct paste_send, list);
		list_del(&s->list);
		close = s->flags & PASTE_TX_CLOSE;
		if (!tx_send(c, s, !list_empty(&c->txq))) {
			list_add(&s->list, &c->txq);
			close = false;
			break;
		}
	}
	tx_group_close(c);
	release_sock(c->sk);
	if (close)
		paste_tap_detach_conn(c);
}

void paste_tx_resume(struct paste_queue *q)
{
	struct paste_conn *c;

	if (list_empty_careful(&q->sendable))
		return;
	spin_lock_bh(&q->slice->lock);
	while ((c = list_first_entry_or_null(&q->sendable, struct paste_conn, ready))) {
		list_del_init(&c->ready);
		if (!refcount_inc_not_zero(&c->ref))
			continue;
		spin_unlock_bh(&q->slice->lock);
		tx_resume_conn(c);
		paste_tap_put(c);
		spin_lock_bh(&q->slice->lock);
	}
	spin_unlock_bh(&q->slice->lock);
}

/*
 * Sends that TCP has not taken are over, and one that a batch has looked up and
 * not submitted yet will be: nobody would continue it. Socket lock held, maybe
 * in softirq.
 */
void paste_tx_cancel(struct paste_conn *c, int err)
{
	struct paste_send *s, *next;

	c->tx_err = err;
	tx_group_close(c);
	list_for_each_entry_safe(s, next, &c->txq, list)
	{
		list_del(&s->list);
		tx_handed(s, err);
	}
	paste_queue_wake(c->q);
}

/* -------------------------------------------------------------- closing --- */

static bool tx_is_ours(struct sk_buff *skb)
{
	struct ubuf_info *ubuf = skb_zcopy(skb);

	return ubuf && paste_ubuf_is(ubuf, &tx_ubuf_ops);
}

/*
 * Give this packet bytes of its own. TCP charges a packet that is all zero
 * copy for its head only; copied, it must be charged in full, as
 * tcp_downgrade_zcopy_pure() does before it adds copied bytes. The head is made
 * private first (a clone may be with the NIC) and keeps its truesize, as
 * skb_unclone_keeptruesize() would, which is not exported.
 */
static void tx_own_bytes(struct sock *sk, struct sk_buff *skb)
{
	unsigned int truesize = skb->truesize;
	u32 extra;

	if (skb_zcopy_pure(skb)) {
		extra = truesize - SKB_TRUESIZE(skb_end_offset(skb));
		if (!sk_wmem_schedule(sk, extra))
			return;
		sk_mem_charge(sk, extra);
		skb_shinfo(skb)->flags &= ~SKBFL_PURE_ZEROCOPY;
	}
	if (skb_unclone(skb, sk->sk_allocation))
		return;
	skb_copy_ubufs(skb, sk->sk_allocation);
	skb->truesize = truesize;
}

/* What TCP still has to send from our chunks, it sends from memory of its own. */
static void tx_disown(struct sock *sk)
{
	struct sk_buff *skb;

	lock_sock(sk);
	skb_rbtree_walk(skb, &sk->tcp_rtx_queue) if (tx_is_ours(skb)) tx_own_bytes(sk, skb);
	skb_queue_walk(&sk->sk_write_queue, skb) if (tx_is_ours(skb)) tx_own_bytes(sk, skb);
	release_sock(sk);
}

/*
 * The queue closes; its connections are detached, so no send is added and none
 * waits in a txq. We are the only one in SYNCING, for ever.
 * 1. tx_work ends.
 * 2. Bytes that TCP has still to send (or to send again) are copied.
 * 3. Wait for the ubufs: packets that a NIC or a qdisc is working on. That is
 *    soon, but up to them; whoever is later than a second keeps the queue's
 *    memory and the module, not the context, until it is done.
 */
void paste_tx_drain(struct paste_queue *q)
{
	u32 i;

	cancel_delayed_work_sync(&q->tx_work);
	paste_tx_complete(q);
	for (i = 0; q->n_sends && i <= q->comp.mask; i++)
		if (q->sends[i].conn)
			tx_disown(q->sends[i].conn->sk);
	wait_event_timeout(q->wait, (paste_tx_complete(q), !q->n_sends), HZ);
}

/* No group is left: what q->done has now was too late for paste_tx_drain(). */
void paste_tx_free(struct paste_queue *q)
{
	u32 i;

	for (i = 0; i <= q->comp.mask; i++)
		if (q->sends[i].conn)
			paste_tap_put(q->sends[i].conn);
	atomic64_add(q->n_sends, &paste_gone[PASTE_OBJ_SEND]);
	kvfree(q->sends);
}

static void tx_work(struct work_struct *work)
{
	struct paste_queue *q = container_of(to_delayed_work(work), struct paste_queue, tx_work);

	paste_tx_resume(q);
	paste_queue_wake(q);
}

int paste_tx_init(struct paste_queue *q)
{
	u32 i;

	INIT_DELAYED_WORK(&q->tx_work, tx_work);
	timer_setup(&q->bell.late, tx_bell_late, 0);
	q->sends = kvcalloc(q->comp.mask + 1, sizeof(*q->sends), PASTE_GFP_SIZED);
	if (!q->sends)
		return -ENOMEM;
	for (i = 0; i <= q->comp.mask; i++) {
		q->sends[i].q = q;
		q->sends[i].done.next = q->free_sends;
		q->free_sends = &q->sends[i].done;
	}
	return 0;
}
