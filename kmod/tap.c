// SPDX-License-Identifier: GPL-2.0
/*
 * Connections: attaching and detaching a TCP socket.
 *
 * An attached socket has our ULP (which keeps kTLS, sockmap and MPTCP away),
 * our three callbacks, and a connection in sk_user_data. The callbacks run with
 * the socket lock held, in softirq or in the task that owns the socket; they
 * take the stream on (stream.c) and let sends go on (tx.c).
 */
#include <linux/file.h>
#include <linux/net.h>
#include <linux/tcp.h>
#include <net/busy_poll.h>
#include <net/inet_connection_sock.h>
#include <net/tcp.h>

#include "internal.h"

#define RCVBUF_MIN    (32 << 10)
#define RESERVE	      (2 * PAGE_SIZE)
#define RESERVE_CONNS 1024

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
			paste_stream_pull(c);
		paste_stream_fit_window(c);
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
			paste_stream_pull(c);
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

/* Connections came or went: each may be promised its share of half the slice. */
static void tap_share_slice(struct paste_queue *q, int change)
{
	u32 n = max(atomic_add_return(change, &q->n_conns), 1);
	u64 half = (u64)q->slice->t.n * q->slice->pool->chunk_size / 2;

	WRITE_ONCE(q->rcv_share, clamp_t(u64, div_u64(half, n), RCVBUF_MIN, INT_MAX));
}

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

/* A reference to the queue's first connection from index *i on, which becomes its index. */
static struct paste_conn *tap_get_next(struct paste_queue *q, unsigned long *i)
{
	struct paste_conn *c;
	bool found;

	for (;; ++*i) {
		rcu_read_lock();
		c = xa_find(&q->ctx->conns, i, PASTE_MAX_CONNS, XA_PRESENT);
		found = c && c->q == q && refcount_inc_not_zero(&c->ref);
		rcu_read_unlock();
		if (!c)
			return ERR_PTR(-ENOENT);
		if (found)
			return c;
		cond_resched();
	}
}

/* Who takes a connection out of the table undoes its attach. */
static bool tap_unlist(struct paste_conn *c)
{
	return xa_cmpxchg_bh(&c->q->ctx->conns, PASTE_CONN_INDEX(c->handle), c, NULL, GFP_ATOMIC) ==
	       c;
}

/*
 * A socket takes TCP's memory in pages, and gives back each whole one as soon as
 * a packet was read. One that fills a chunk is larger than what is left then, so
 * TCP leaves its fast path for every packet. Let the socket keep two pages, as
 * SO_RESERVE_MEM does (but that needs a memory cgroup): they are accounted for
 * when they are taken. Thousands of sockets must do without: it is the system's
 * budget. Socket lock held.
 */
static void tap_reserve(struct paste_conn *c)
{
	struct sock *sk = c->sk;

	if (sk->sk_reserved_mem || atomic_read(&c->q->n_conns) > RESERVE_CONNS)
		return;
	WRITE_ONCE(sk->sk_reserved_mem, RESERVE);
	c->reserved = true;
}

static void tap_unreserve(struct paste_conn *c)
{
	u32 reserved = c->sk->sk_reserved_mem;

	if (!c->reserved)
		return;
	WRITE_ONCE(c->sk->sk_reserved_mem, reserved - min_t(u32, reserved, RESERVE));
	sk_mem_reclaim(c->sk);
}

static void tap_install(struct paste_conn *c)
{
	struct sock *sk = c->sk;

	__module_get(THIS_MODULE);
	inet_csk(sk)->icsk_ulp_ops = &tap_ulp;
	rcu_assign_pointer(inet_csk(sk)->icsk_ulp_data, c);
	c->rcvlowat = sk->sk_rcvlowat;
	WRITE_ONCE(sk->sk_rcvlowat, 1); /* else data_ready comes late */
	tap_reserve(c);
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
	paste_stream_free_window(c);
	tap_unreserve(c);
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

/* Bytes that lie in the pool, in this packet of a receive queue, into pages of its own. */
static void tap_own_bytes(struct sock *sk, struct sk_buff *skb)
{
	struct sk_buff *part;

	/* with ENOMEM, or a clone elsewhere: the pool waits for this packet, see pmem.c */
	skb_copy_ubufs(skb, sk->sk_allocation);
	skb_walk_frags(skb, part) skb_copy_ubufs(part, sk->sk_allocation);
}

/*
 * A detached socket keeps what it has received (a closed one, what it has got
 * out of order), but may not keep persistent memory. After RCU: then the packets
 * have arrived that had found the flow attached.
 */
static void tap_leave_work(struct work_struct *work)
{
	struct paste_conn *c = container_of(to_rcu_work(work), struct paste_conn, leave);
	struct sock *sk = c->sk;
	struct sk_buff *skb;

	lock_sock(sk);
	skb_queue_walk(&sk->sk_receive_queue, skb) tap_own_bytes(sk, skb);
	skb_rbtree_walk(skb, &tcp_sk(sk)->out_of_order_queue) tap_own_bytes(sk, skb);
	release_sock(sk);
	paste_tap_put(c);
}

static void tap_leave_pool(struct paste_conn *c)
{
	if (!c->q->slice->pool->pmem)
		return;
	refcount_inc(&c->ref);
	INIT_RCU_WORK(&c->leave, tap_leave_work);
	queue_rcu_work(paste_wq, &c->leave);
}

/* Make it an ordinary socket again (or none, if it is ours), unless somebody else is doing so. */
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
	if (c->sock)
		sock_release(c->sock);
	tap_leave_pool(c); /* also one that is closed: TCP may keep it for a while */
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

/* What was held back while the quota was 0 comes now. */
int paste_tap_set_quota(struct paste_queue *q, u32 handle, u32 quota)
{
	struct paste_conn *c = paste_tap_get(q, handle);
	bool none;

	if (IS_ERR(c))
		return PTR_ERR(c);
	lock_sock(c->sk);
	none = !c->quota;
	WRITE_ONCE(c->quota, quota);
	if (none)
		paste_stream_pull(c);
	release_sock(c->sk);
	paste_tap_put(c);
	return 0;
}

/*
 * Without the socket's lock, which a send may hold for long. Each send has a
 * reference; so has the table, and we.
 */
static void tap_read(struct paste_conn *c, struct paste_ioc_conn *a)
{
	struct paste_queue *q = c->q;

	a->conn = c->handle;
	memcpy(a->local, &c->flow.local, sizeof(a->local));
	memcpy(a->peer, &c->flow.remote, sizeof(a->peer));
	a->local_port = ntohs(c->flow.local_port);
	a->peer_port = ntohs(c->flow.remote_port);
	a->inode = sock_i_ino(c->sk);
	a->netns = c->netns;
	a->tx_bytes = READ_ONCE(c->tx_bytes);
	a->quota = READ_ONCE(c->quota);
	a->sends = max_t(int, refcount_read(&c->ref) - 2, 0);
	spin_lock_bh(&q->slice->lock);
	a->waits = list_empty(&c->stall) ? 0 : READ_ONCE(c->stop);
	a->used = c->epoch == q->epoch ? c->used : 0;
	a->rx_bytes = c->rx_bytes;
	spin_unlock_bh(&q->slice->lock);
}

int paste_tap_info(struct paste_ctx *ctx, struct paste_ioc_conn *a)
{
	unsigned long i = a->conn ? PASTE_CONN_INDEX(a->conn) + 1 : 0;
	struct paste_queue *q;
	struct paste_conn *c;

	if (a->flags & ~PASTE_CONN_NEXT)
		return -EOPNOTSUPP;
	if (a->resv)
		return -EINVAL;
	q = paste_queue_pin(ctx, a->id);
	if (!q)
		return -ENOENT;
	c = a->flags & PASTE_CONN_NEXT ? tap_get_next(q, &i) : paste_tap_get(q, a->conn);
	if (!IS_ERR(c)) {
		tap_read(c, a);
		paste_tap_put(c);
	}
	paste_queue_unpin();
	return PTR_ERR_OR_ZERO(c);
}

/* The queue closes. After this no callback, on any CPU, knows it any more. */
void paste_tap_detach_all(struct paste_queue *q)
{
	struct paste_conn *c;
	unsigned long i;

	for (i = 0; !IS_ERR(c = tap_get_next(q, &i)); i++) {
		paste_tap_detach_conn(c);
		paste_tap_put(c);
		cond_resched();
	}
	synchronize_rcu();
}

/* May this socket be ours? Socket lock held. */
static int tap_check(struct sock *sk, struct paste_text *text)
{
	/* SYN_RECV: with TCP_FASTOPEN only, nobody sees others before they are connected */
	if (!((1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT | TCPF_SYN_RECV)))
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
	c->netns = sock_net(sk)->net_cookie;
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
	paste_stream_pull(c);
	return 0;
}

/* ours: nobody else has the socket. *handle is for the caller. */
static int tap_attach_sock(struct paste_queue *q, struct socket *sock, bool ours, u32 quota,
			   u32 *handle, struct paste_text *text)
{
	struct sock *sk = sock->sk;
	struct paste_conn *c;
	int err;

	c = tap_alloc(q, sk, quota);
	if (!c)
		return -ENOMEM;
	if (ours) {
		c->sock = sock;
		c->unannounced = true;
		/* who closes it must not have to wait: tx.c's work, say, which others need */
		if (sk->sk_lingertime)
			sock_reset_flag(sk, SOCK_LINGER);
	}
	err = tap_alloc_handle(q->ctx, c);
	if (err) {
		paste_fail(text, err, "no handle for another connection");
		goto err_free;
	}
	*handle = c->handle;
	atomic64_inc(&paste_made[PASTE_OBJ_CONN]);
	lock_sock(sk);
	err = tap_attach_locked(c, text);
	release_sock(sk); /* from here on a send with CLOSE may have detached and freed it */
	if (err)
		goto err_handle;
	return 0;

err_handle:
	atomic64_dec(&paste_made[PASTE_OBJ_CONN]);
	xa_erase_bh(&q->ctx->conns, PASTE_CONN_INDEX(c->handle));
err_free:
	sock_put(sk);
	kfree(c);
	return err;
}

/* What attach and accept are told: the TCP socket of fd, with a reference to its file; or ERR_PTR. */
struct socket *paste_tap_lookup(struct paste_queue *q, int fd, u32 quota, struct paste_text *text)
{
	struct socket *sock;
	int err;

	if (quota > q->rx.mask + 1)
		return ERR_PTR(paste_fail(text, -EINVAL,
					  "quota: %u is more than the ring's %u entries", quota,
					  q->rx.mask + 1));
	sock = sockfd_lookup(fd, &err);
	if (!sock)
		return ERR_PTR(paste_fail(text, err, "fd: %d is not a socket", fd));
	if ((sock->sk->sk_family == AF_INET || sock->sk->sk_family == AF_INET6) &&
	    sk_is_tcp(sock->sk))
		return sock;
	sockfd_put(sock);
	return ERR_PTR(paste_fail(text, -EPROTONOSUPPORT, "fd: not a TCP socket"));
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
	sock = paste_tap_lookup(q, a->fd, a->quota, text);
	if (IS_ERR(sock))
		return PTR_ERR(sock);
	err = tap_attach_sock(q, sock, false, a->quota, &a->conn, text);
	sockfd_put(sock);
	return err;
}

/* A connection that was accepted. After an error the socket is the caller's. */
int paste_tap_adopt(struct paste_queue *q, struct socket *sock, u32 quota)
{
	u32 handle;

	lockdep_assert_held(&q->ctx->lock);
	return tap_attach_sock(q, sock, true, quota, &handle, NULL);
}
