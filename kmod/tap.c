// SPDX-License-Identifier: GPL-2.0
/*
 * Connections: attaching a TCP socket, and its stream into rx entries.
 *
 * An attached socket has our ULP (which keeps kTLS, sockmap and MPTCP away),
 * our three callbacks, and a connection in sk_user_data. The callbacks run with
 * the socket lock held, in softirq or in the task that owns the socket, so
 * tcp_read_sock() is called right there. Its actor turns payload that lies in a
 * chunk of our slice into an rx entry, and copies everything else.
 *
 * When there is no room (ring, quota, chunks) the actor takes less than it was
 * offered. The rest stays in the socket, TCP's window closes, and the
 * connection waits in q->stalled for the next sync.
 */
#include <linux/file.h>
#include <linux/net.h>
#include <linux/tcp.h>
#include <net/busy_poll.h>
#include <net/inet_connection_sock.h>
#include <net/tcp.h>

#include "internal.h"
#include "trace.h"

#define RCVBUF_MIN (32 << 10)

static void tap_data_ready(struct sock *sk);
static void tap_state_change(struct sock *sk);
static void tap_write_space(struct sock *sk);
static void tap_ulp_release(struct sock *sk);

/*
 * Never registered: nobody can ask for it by name, and attach needs no global
 * state to know that it is meant. Installed and removed by hand under the
 * socket lock, as MPTCP does on fallback. tcp_cleanup_ulp() calls release and
 * drops the module reference when the socket is destroyed while attached.
 */
static struct tcp_ulp_ops tap_ulp = {
	.name = "paste",
	.owner = THIS_MODULE,
	.release = tap_ulp_release,
};

/* ------------------------------------------------------------- delivery --- */

/* One call of the actor. */
struct tap_walk {
	struct paste_conn *c;
	struct paste_queue *q;
	struct paste_rx *last; /* entry of this call that a copy may extend */
	u32 last_stat;	       /* why it was copied */
};

/* May another entry be written? If not, why. */
static bool tap_may_push(struct paste_conn *c, struct paste_queue *q)
{
	if (c->epoch != q->epoch) {
		c->epoch = q->epoch;
		c->used = 0;
	}
	if (c->used >= c->quota)
		c->stop = PASTE_STAT_STALL_QUOTA;
	else if (!paste_queue_room(q))
		c->stop = PASTE_STAT_STALL_RING;
	return !c->stop;
}

static struct paste_rx *tap_push(struct tap_walk *w, u32 chunk, u32 off, u32 len, u16 flags)
{
	struct paste_rx *e = paste_queue_entry(w->q);

	e->conn = w->c->handle;
	e->chunk = chunk;
	e->off = off;
	e->len = len;
	e->flags = flags;
	e->err = 0;
	w->c->used++;
	return e;
}

/* Why must this be copied? In the order in which the reasons exclude each other. */
static u32 tap_copy_reason(struct tap_walk *w, struct sk_buff *skb, const u8 *data, u32 chunk,
			   u32 seq)
{
	u32 ours;

	if (before(seq, w->c->attach_seq))
		return PASTE_STAT_COPY_PREATTACH;
	if (chunk != PASTE_CHUNK_NONE)
		return PASTE_STAT_COPY_CROSS;
	ours = paste_rx_copy_reason(data);
	if (ours)
		return ours;
	if (!READ_ONCE(w->q->nic_ifindex))
		return PASTE_STAT_COPY_PLAIN;
	if (data >= skb->head && data < skb_end_pointer(skb))
		return PASTE_STAT_COPY_LINEAR;
	return PASTE_STAT_COPY_FOREIGN;
}

/* By reference. app is raised while the packet still refers to the page, see chunk.h. */
static u32 tap_refer(struct tap_walk *w, u32 chunk, u32 off, u32 len)
{
	struct paste_slice *slice = w->q->slice;

	if (!tap_may_push(w->c, w->q))
		return 0;
	paste_chunk_deliver(&slice->t, chunk - slice->first);
	w->last = NULL;
	trace_paste_deliver(w->q->id, tap_push(w, chunk, off, len, 0));
	paste_stat_inc(w->q, PASTE_STAT_REF_ENTRIES);
	paste_stat_add(w->q, PASTE_STAT_REF_BYTES, len);
	return len;
}

/* By copy: behind the last piece if that is of this call, else as a new piece. */
static u32 tap_copy(struct tap_walk *w, const u8 *data, u32 len, u32 stat)
{
	struct paste_slice *slice = w->q->slice;
	u32 size = slice->pool->chunk_size, n = 0, i, off;
	struct paste_rx *e = w->last;

	if (e && w->last_stat == stat) {
		off = e->off + e->len;
		n = paste_chunk_extend(&slice->t, e->chunk - slice->first, off, len, size);
		e->len += n;
	}
	if (!n) {
		if (!tap_may_push(w->c, w->q))
			return 0;
		n = min(len, size);
		i = paste_chunk_space(&slice->t, n, size, &off);
		if (i == PASTE_CHUNK_NONE) {
			w->c->stop = PASTE_STAT_STALL_CHUNK;
			return 0;
		}
		paste_chunk_deliver(&slice->t, i);
		e = tap_push(w, slice->first + i, off, n, PASTE_RX_COPIED);
		w->last = e;
		w->last_stat = stat;
		trace_paste_deliver(w->q->id, e);
		paste_stat_inc(w->q, PASTE_STAT_COPY_ENTRIES);
		paste_stat_inc(w->q, stat);
	}
	memcpy(paste_chunk_addr(slice->pool, e->chunk) + off, data, n);
	paste_stat_add(w->q, PASTE_STAT_COPY_BYTES, n);
	return n;
}

/* A contiguous piece of payload; it may cross chunks. Returns how much was taken. */
static u32 tap_piece(struct tap_walk *w, struct sk_buff *skb, const u8 *data, u32 len, u32 seq)
{
	struct paste_slice *slice = w->q->slice;
	u32 done = 0, chunk, off, n, r;

	while (done < len) {
		chunk = paste_pool_chunk_of(slice->pool, data + done);
		off = offset_in_page(data + done) & (slice->pool->chunk_size - 1);
		if (chunk - slice->first < slice->t.n && !before(seq + done, w->c->attach_seq)) {
			n = min(len - done, slice->pool->chunk_size - off);
			r = tap_refer(w, chunk, off, n);
		} else {
			n = min_t(u32, len - done, PAGE_SIZE - offset_in_page(data + done));
			r = tap_copy(w, data + done, n,
				     tap_copy_reason(w, skb, data + done, chunk, seq + done));
		}
		done += r;
		if (w->c->stop)
			break;
	}
	return done;
}

/* tcp_read_sock()'s actor: socket lock held. skb_seq_read() knows frags and frag lists. */
static int tap_actor(read_descriptor_t *desc, struct sk_buff *skb, unsigned int off, size_t len)
{
	struct paste_conn *c = desc->arg.data;
	struct tap_walk w = { .c = c, .q = c->q };
	u32 seq = TCP_SKB_CB(skb)->seq + off;
	struct skb_seq_state st;
	const u8 *data;
	u32 done = 0, n;

	if (unlikely(c->skip_urgent)) {
		c->skip_urgent = false;
		return 1;
	}
	skb_prepare_seq_read(skb, off, off + len, &st);
	spin_lock_bh(&c->q->slice->lock);
	while (!c->stop && (n = skb_seq_read(done, &data, &st)))
		done += tap_piece(&w, st.cur_skb, data, n, seq + done);
	skb_abort_seq_read(&st);
	paste_queue_publish(c->q);
	spin_unlock_bh(&c->q->slice->lock);
	if (c->stop)
		desc->count = 0;
	return done;
}

/*
 * tcp_read_sock() stops before an urgent byte for ever, and the peer decides
 * whether there is one. Do what read(2) does: leave the byte out of the stream,
 * or (SO_OOBINLINE) take it as any other. True: read on.
 */
static bool tap_urgent(struct paste_conn *c)
{
	struct tcp_sock *tp = tcp_sk(c->sk);

	if (likely(!tp->urg_data) || tp->urg_seq != tp->copied_seq ||
	    !before(tp->copied_seq, tp->rcv_nxt))
		return false;
	WRITE_ONCE(tp->urg_data, 0);
	if (sock_flag(c->sk, SOCK_URGINLINE))
		return true;
	c->skip_urgent = true;
	spin_lock_bh(&c->q->slice->lock);
	paste_stat_inc(c->q, PASTE_STAT_URGENT);
	spin_unlock_bh(&c->q->slice->lock);
	return true;
}

/* All data was taken: is the stream over? tcp_fin() tells us before its data is read. */
static void tap_end(struct paste_conn *c)
{
	struct tap_walk w = { .c = c, .q = c->q };
	struct sock *sk = c->sk;
	int err = sk->sk_err;
	struct paste_rx *e;

	if (!err && sk->sk_state == TCP_CLOSE && !(sk->sk_shutdown & RCV_SHUTDOWN))
		err = ECONNABORTED;
	if (!err && !(sk->sk_shutdown & RCV_SHUTDOWN))
		return;
	spin_lock_bh(&c->q->slice->lock);
	if (tap_may_push(c, c->q)) {
		e = tap_push(&w, 0, 0, 0, err ? PASTE_RX_ERR : PASTE_RX_FIN);
		e->err = err;
		trace_paste_deliver(c->q->id, e);
		paste_stat_inc(c->q, err ? PASTE_STAT_ERRORS : PASTE_STAT_FINS);
		paste_queue_publish(c->q);
		c->ended = true;
	}
	spin_unlock_bh(&c->q->slice->lock);
}

static void tap_stall(struct paste_conn *c)
{
	struct paste_queue *q = c->q;

	spin_lock_bh(&q->slice->lock);
	paste_stat_inc(q, c->stop);
	if (list_empty(&c->stall)) {
		list_add_tail(&c->stall, &q->stalled);
		q->n_stalled++;
		if (!READ_ONCE(q->dead))
			WRITE_ONCE(*q->flags, PASTE_Q_NEED_SYNC);
	}
	spin_unlock_bh(&q->slice->lock);
}

/* Connections came or went: each may be promised its share of half the slice. */
static void tap_share_slice(struct paste_queue *q, int change)
{
	u32 n = max(atomic_add_return(change, &q->n_conns), 1);
	u64 half = (u64)q->slice->t.n * q->slice->pool->chunk_size / 2;

	WRITE_ONCE(q->rcv_share, clamp_t(u64, div_u64(half, n), RCVBUF_MIN, INT_MAX));
}

/*
 * Keep the socket's receive buffer within the share, against auto-tuning too:
 * what waits in sockets must fit into the slice. The floor (a few packets) may
 * break that with very many connections; then rx.c copies packets out.
 */
static void tap_fit_rcvbuf(struct paste_conn *c)
{
	u32 share = READ_ONCE(c->q->rcv_share);
	struct sock *sk = c->sk;

	if (likely(sk->sk_rcvbuf <= share))
		return;
	if (!(sk->sk_userlocks & SOCK_RCVBUF_LOCK)) {
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		c->locked_rcvbuf = true;
	}
	WRITE_ONCE(sk->sk_rcvbuf, share);
	WRITE_ONCE(tcp_sk(sk)->window_clamp, tcp_win_from_space(sk, share));
}

/* Read what there is. Socket lock held, softirq or process. */
static void tap_pull(struct paste_conn *c)
{
	read_descriptor_t desc = { .arg.data = c };

	if (c->ended)
		return;
	tap_fit_rcvbuf(c);
	c->stop = 0;
	do {
		desc.count = 1;
		tcp_read_sock(c->sk, &desc, tap_actor);
	} while (!c->stop && tap_urgent(c));
	if (!c->stop)
		tap_end(c);
	if (c->stop)
		tap_stall(c);
	paste_queue_wake(c->q);
}

/* ------------------------------------------------------------ callbacks --- */

static void tap_data_ready(struct sock *sk)
{
	struct paste_conn *c;
	unsigned int id;

	rcu_read_lock();
	c = rcu_dereference_sk_user_data(sk);
	if (c) {
		id = READ_ONCE(sk->sk_napi_id);
		if (id != READ_ONCE(c->q->napi_id) && id >= MIN_NAPI_ID)
			WRITE_ONCE(c->q->napi_id, id);
		if (list_empty_careful(&c->stall))
			tap_pull(c);
	}
	rcu_read_unlock();
}

static void tap_state_change(struct sock *sk)
{
	struct paste_conn *c;

	rcu_read_lock();
	c = rcu_dereference_sk_user_data(sk);
	if (c) {
		if (list_empty_careful(&c->stall))
			tap_pull(c);
		if (sk->sk_err && !list_empty(&c->txq))
			paste_tx_ready(c); /* so that waiting sends learn of it */
		c->state_change(sk);
	}
	rcu_read_unlock();
}

static void tap_write_space(struct sock *sk)
{
	struct paste_conn *c;

	rcu_read_lock();
	c = rcu_dereference_sk_user_data(sk);
	if (c) {
		if (!list_empty(&c->txq) || c->sending)
			paste_tx_ready(c);
		c->write_space(sk);
	}
	rcu_read_unlock();
}

/* ------------------------------------------------------ attach, detach --- */

static void tap_free_rcu(struct rcu_head *head)
{
	struct paste_conn *c = container_of(head, struct paste_conn, rcu);

	sock_put(c->sk);
	kfree(c);
	atomic64_inc(&paste_gone[PASTE_OBJ_CONN]);
}

void paste_tap_put(struct paste_conn *c)
{
	if (refcount_dec_and_test(&c->ref))
		call_rcu(&c->rcu, tap_free_rcu);
}

/* A reference to the connection with this handle, if it is of this queue. */
struct paste_conn *paste_tap_get(struct paste_queue *q, u32 handle)
{
	struct paste_conn *c;

	rcu_read_lock();
	c = xa_load(&q->ctx->conns, PASTE_CONN_INDEX(handle));
	if (!c || c->handle != handle)
		c = ERR_PTR(-ENOENT);
	else if (c->q != q)
		c = ERR_PTR(-EXDEV);
	else if (!refcount_inc_not_zero(&c->ref))
		c = ERR_PTR(-ENOENT);
	rcu_read_unlock();
	return c;
}

/* Who takes a connection out of the table undoes its attach. */
static bool tap_unlist(struct paste_conn *c)
{
	return xa_cmpxchg_bh(&c->q->ctx->conns, PASTE_CONN_INDEX(c->handle), c, NULL, GFP_ATOMIC) ==
	       c;
}

static void tap_install(struct paste_conn *c)
{
	struct sock *sk = c->sk;

	__module_get(THIS_MODULE);
	inet_csk(sk)->icsk_ulp_ops = &tap_ulp;
	rcu_assign_pointer(inet_csk(sk)->icsk_ulp_data, c);
	c->rcvlowat = sk->sk_rcvlowat;
	WRITE_ONCE(sk->sk_rcvlowat, 1); /* else data_ready comes late */
	write_lock_bh(&sk->sk_callback_lock);
	c->data_ready = sk->sk_data_ready;
	c->state_change = sk->sk_state_change;
	c->write_space = sk->sk_write_space;
	rcu_assign_sk_user_data(sk, c);
	sk->sk_data_ready = tap_data_ready;
	sk->sk_state_change = tap_state_change;
	sk->sk_write_space = tap_write_space;
	write_unlock_bh(&sk->sk_callback_lock);
}

/* Socket lock held. Callers that hold no socket lock wait for RCU before c->q goes. */
static void tap_restore(struct paste_conn *c)
{
	struct sock *sk = c->sk;

	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_data_ready = c->data_ready;
	sk->sk_state_change = c->state_change;
	sk->sk_write_space = c->write_space;
	rcu_assign_sk_user_data(sk, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
	WRITE_ONCE(sk->sk_rcvlowat, c->rcvlowat);
	if (c->locked_rcvbuf)
		sk->sk_userlocks &= ~SOCK_RCVBUF_LOCK;
	rcu_assign_pointer(inet_csk(sk)->icsk_ulp_data, NULL);
}

/* Out of the table already; socket lock held. */
static void tap_dismantle(struct paste_conn *c)
{
	struct paste_queue *q = c->q;

	paste_rx_del_flow(c);
	paste_tx_cancel(c, -ECANCELED);
	spin_lock_bh(&q->slice->lock);
	if (!list_empty(&c->stall)) {
		list_del_init(&c->stall);
		q->n_stalled--;
	}
	list_del_init(&c->ready);
	spin_unlock_bh(&q->slice->lock);
	c->ended = true; /* a late callback delivers nothing more */
	tap_share_slice(q, -1);
}

/*
 * The socket is being destroyed while attached. RCU keeps the queue: its close
 * waits for RCU after it has found the table empty of its connections.
 */
static void tap_ulp_release(struct sock *sk)
{
	struct paste_conn *c;

	rcu_read_lock();
	c = rcu_dereference(inet_csk(sk)->icsk_ulp_data);
	if (c && tap_unlist(c)) {
		tap_restore(c);
		tap_dismantle(c);
		paste_tap_put(c);
	}
	rcu_read_unlock();
}

/* Make it an ordinary socket again, unless somebody else is doing so. */
void paste_tap_detach_conn(struct paste_conn *c)
{
	struct sock *sk = c->sk;

	if (!tap_unlist(c))
		return;
	lock_sock(sk);
	tap_restore(c);
	if (inet_csk(sk)->icsk_ulp_ops == &tap_ulp) { /* not destroyed meanwhile */
		inet_csk(sk)->icsk_ulp_ops = NULL;
		module_put(THIS_MODULE);
	}
	tap_dismantle(c);
	release_sock(sk);
	paste_tap_put(c);
}

int paste_tap_detach(struct paste_queue *q, u32 handle)
{
	struct paste_conn *c = paste_tap_get(q, handle);

	if (IS_ERR(c))
		return PTR_ERR(c);
	paste_tap_detach_conn(c);
	paste_tap_put(c);
	return 0;
}

/* The queue closes. After this no callback, on any CPU, knows it any more. */
void paste_tap_detach_all(struct paste_queue *q)
{
	struct paste_conn *c;
	unsigned long i;

	for (i = 0;; i++) {
		rcu_read_lock();
		c = xa_find(&q->ctx->conns, &i, PASTE_MAX_CONNS, XA_PRESENT);
		if (c && (c->q != q || !refcount_inc_not_zero(&c->ref))) {
			rcu_read_unlock();
			continue;
		}
		rcu_read_unlock();
		if (!c)
			break;
		paste_tap_detach_conn(c);
		paste_tap_put(c);
		cond_resched();
	}
	synchronize_rcu();
}

/* Connections that waited for room may go on. */
void paste_tap_resume(struct paste_queue *q)
{
	struct paste_conn *c;
	u32 n;

	spin_lock_bh(&q->slice->lock);
	q->epoch++;
	for (n = q->n_stalled; n && paste_queue_room(q); n--) {
		c = list_first_entry(&q->stalled, struct paste_conn, stall);
		list_del_init(&c->stall);
		if (!--q->n_stalled && !READ_ONCE(q->dead))
			WRITE_ONCE(*q->flags, 0);
		if (!refcount_inc_not_zero(&c->ref))
			continue;
		paste_stat_inc(q, PASTE_STAT_RESUMES);
		spin_unlock_bh(&q->slice->lock);
		lock_sock(c->sk);
		tap_pull(c);
		release_sock(c->sk);
		paste_tap_put(c);
		spin_lock_bh(&q->slice->lock);
	}
	spin_unlock_bh(&q->slice->lock);
}

/* May this socket be ours? Socket lock held. */
static int tap_check(struct sock *sk, struct paste_text *text)
{
	if (!((1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)))
		return paste_fail(text, -ENOTCONN, "fd: the socket is not connected");
	if (tcp_sk(sk)->repair)
		return paste_fail(text, -EINVAL, "fd: the socket is in TCP_REPAIR mode");
	if (inet_csk(sk)->icsk_ulp_ops)
		return paste_fail(text, -EEXIST, "fd: the socket has the ULP %s already",
				  inet_csk(sk)->icsk_ulp_ops->name);
	if (sk->sk_user_data || sk_is_mptcp(sk) || sk->sk_data_ready == tap_data_ready)
		return paste_fail(text, -EEXIST, "fd: the socket belongs to somebody else");
	return 0;
}

static int tap_alloc_handle(struct paste_ctx *ctx, struct paste_conn *c)
{
	u32 index;
	int err;

	lockdep_assert_held(&ctx->lock);
	err = xa_alloc_cyclic_bh(&ctx->conns, &index, NULL, XA_LIMIT(0, PASTE_MAX_CONNS - 1),
				 &ctx->conn_next, GFP_KERNEL_ACCOUNT);
	if (err < 0)
		return err == -EBUSY ? -ENOSPC : err;
	if (err == 1) /* wrapped: from now on indices are used again */
		ctx->conn_gen = ctx->conn_gen % 0xffff + 1;
	c->handle = ctx->conn_gen << 16 | index;
	return 0;
}

static struct paste_conn *tap_alloc(struct paste_queue *q, struct sock *sk, u32 quota)
{
	struct paste_conn *c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);

	BUILD_BUG_ON(sizeof(*c) > 1024);
	if (!c)
		return NULL;
	sock_hold(sk);
	c->sk = sk;
	c->q = q;
	c->quota = quota ?: max((q->rx.mask + 1) / 4, 1U);
	refcount_set(&c->ref, 1);
	INIT_LIST_HEAD(&c->txq);
	INIT_LIST_HEAD(&c->stall);
	INIT_LIST_HEAD(&c->ready);
	return c;
}

/*
 * The flow becomes known to rx.c before attach_seq is taken: a frame that is
 * not copied from then on carries later bytes. Frames that rx.c copied before
 * say so themselves (paste_rx_copy_reason()).
 */
static int tap_attach_locked(struct paste_conn *c, struct paste_text *text)
{
	struct sock *sk = c->sk;
	int err = tap_check(sk, text);

	if (err)
		return err;
	paste_rx_flow_of(sk, &c->flow);
	err = paste_rx_add_flow(c);
	if (err)
		return err;
	c->attach_seq = tcp_sk(sk)->rcv_nxt;
	xa_store_bh(&c->q->ctx->conns, PASTE_CONN_INDEX(c->handle), c, GFP_ATOMIC);
	tap_share_slice(c->q, 1);
	tap_install(c);
	tap_pull(c);
	return 0;
}

static int tap_attach_sock(struct paste_queue *q, struct sock *sk, struct paste_ioc_attach *a,
			   struct paste_text *text)
{
	struct paste_conn *c;
	int err;

	if ((sk->sk_family != AF_INET && sk->sk_family != AF_INET6) || !sk_is_tcp(sk))
		return paste_fail(text, -EPROTONOSUPPORT, "fd: not a TCP socket");
	c = tap_alloc(q, sk, a->quota);
	if (!c)
		return -ENOMEM;
	err = tap_alloc_handle(q->ctx, c);
	if (err) {
		paste_fail(text, err, "no handle for another connection");
		goto err_free;
	}
	lock_sock(sk);
	err = tap_attach_locked(c, text);
	release_sock(sk);
	if (err)
		goto err_handle;
	atomic64_inc(&paste_made[PASTE_OBJ_CONN]);
	a->conn = c->handle;
	return 0;

err_handle:
	xa_erase_bh(&q->ctx->conns, PASTE_CONN_INDEX(c->handle));
err_free:
	sock_put(sk);
	kfree(c);
	return err;
}

int paste_tap_attach(struct paste_queue *q, struct paste_ioc_attach *a, struct paste_text *text)
{
	struct socket *sock;
	int err;

	lockdep_assert_held(&q->ctx->lock);
	if (a->flags)
		return paste_fail(text, -EOPNOTSUPP, "flags: unknown bits %#x", a->flags);
	if (a->resv)
		return paste_fail(text, -EINVAL, "resv: not zero");
	if (a->quota > q->rx.mask + 1)
		return paste_fail(text, -EINVAL, "quota: %u is more than the ring's %u entries",
				  a->quota, q->rx.mask + 1);
	sock = sockfd_lookup(a->fd, &err);
	if (!sock)
		return paste_fail(text, err, "fd: %d is not a socket", a->fd);
	err = tap_attach_sock(q, sock->sk, a, text);
	sockfd_put(sock);
	return err;
}
