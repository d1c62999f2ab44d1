// SPDX-License-Identifier: GPL-2.0
/*
 * limit - the least that a server in process context can cost with kernel TCP
 *
 * Only for benchmarks. A kernel thread gives every request on a TCP port the
 * answer that phttpd gives. It does for a request what nobody can leave out:
 * lock the socket, take the bytes, send others; and for all that are ready
 * together it rings one doorbell, as kmod/tx.c does and with the same limits.
 * While there is nothing to do it polls the NIC. There is no parser, no system
 * call, no ring, no memory of the application's: a server that has these can
 * come close, and one that comes closer than that has found a better way.
 *
 * A request ends where what has arrived ends with an empty line. Parameters:
 * port; requests, batches and doorbells say what was done so far.
 */
#include <linux/in.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <net/busy_poll.h>
#include <net/pkt_sched.h>
#include <net/sock.h>
#include <net/tcp.h>

#define BACKLOG	      4096
#define BUSY_BUDGET   64
#define DOORBELL_MAX  64 /* sends that are held for one doorbell */
#define END_OF_HEADER "\r\n\r\n"

static const char answer[] = "HTTP/1.1 200 OK\r\n"
			     "Content-Type: text/plain\r\n"
			     "Content-Length: 64\r\n"
			     "\r\n"
			     "paste: packet buffers that belong to the application. 012345678\n";

static unsigned short port = 60000;
module_param(port, ushort, 0444);
static unsigned long requests, batches, doorbells;
module_param(requests, ulong, 0444);
module_param(batches, ulong, 0444);
module_param(doorbells, ulong, 0444);

struct limit_conn {
	struct list_head all;	/* in conns; the thread only */
	struct list_head ready; /* in ready_conns, under ready_lock */
	struct socket *sock;
	bool complete; /* what was read last ends a request */
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
};

static struct socket *listener;
static struct task_struct *thread;
static LIST_HEAD(conns);
static LIST_HEAD(ready_conns);
static DEFINE_SPINLOCK(ready_lock);
static unsigned int napi_id; /* of the last connection */

/* ------------------------------------------------------------ callbacks --- */

/* Socket lock held, maybe in softirq. */
static void on_event(struct sock *sk)
{
	struct limit_conn *c = sk->sk_user_data;

	spin_lock_bh(&ready_lock);
	if (c && list_empty(&c->ready))
		list_add_tail(&c->ready, &ready_conns);
	spin_unlock_bh(&ready_lock);
}

static void set_callbacks(struct limit_conn *c)
{
	struct sock *sk = c->sock->sk;

	lock_sock(sk);
	c->data_ready = sk->sk_data_ready;
	c->state_change = sk->sk_state_change;
	sk->sk_user_data = c;
	sk->sk_data_ready = on_event;
	sk->sk_state_change = on_event;
	on_event(sk); /* what came before */
	release_sock(sk);
}

static void drop_conn(struct limit_conn *c)
{
	struct sock *sk = c->sock->sk;

	lock_sock(sk);
	sk->sk_data_ready = c->data_ready;
	sk->sk_state_change = c->state_change;
	sk->sk_user_data = NULL;
	release_sock(sk);
	spin_lock_bh(&ready_lock);
	list_del(&c->ready);
	spin_unlock_bh(&ready_lock);
	list_del(&c->all);
	sock_release(c->sock);
	kfree(c);
}

/* ------------------------------------------------------------ doorbells --- */

/* Why and when this may be done: kmod/tx.c. */
struct bell {
	struct Qdisc *held;
	int left;
};

static struct Qdisc *find_qdisc(struct sock *sk)
{
	struct dst_entry *dst;
	struct Qdisc *qdisc = NULL;
	int index;

	rcu_read_lock();
	dst = __sk_dst_get(sk);
	index = sk_tx_queue_get(sk);
	if (dst && dst->dev->real_num_tx_queues == 1)
		index = 0;
	if (dst && index >= 0 && index < dst->dev->real_num_tx_queues)
		qdisc = rcu_dereference(netdev_get_tx_queue(dst->dev, index)->qdisc);
	if (qdisc && (!qdisc->enqueue || qdisc->flags & (TCQ_F_NOLOCK | TCQ_F_BUILTIN) ||
		      !(qdisc->flags & TCQ_F_ONETXQUEUE) || !refcount_inc_not_zero(&qdisc->refcnt)))
		qdisc = NULL;
	rcu_read_unlock();
	return qdisc;
}

static void bell_hold(struct bell *bell, struct sock *sk)
{
	struct Qdisc *qdisc = find_qdisc(sk);
	bool held;

	if (!qdisc)
		return;
	spin_lock_bh(qdisc_lock(qdisc));
	held = !test_bit(__QDISC_STATE_DEACTIVATED, &qdisc->state) &&
	       !__test_and_set_bit(__QDISC_STATE2_RUNNING, &qdisc->state2);
	spin_unlock_bh(qdisc_lock(qdisc));
	if (!held)
		return qdisc_put_unlocked(qdisc);
	bell->held = qdisc;
	bell->left = DOORBELL_MAX;
}

static void bell_ring(struct bell *bell)
{
	struct Qdisc *qdisc = bell->held;

	if (!qdisc)
		return;
	bell->held = NULL;
	spin_lock_bh(qdisc_lock(qdisc));
	__clear_bit(__QDISC_STATE2_RUNNING, &qdisc->state2);
	spin_unlock_bh(qdisc_lock(qdisc));
	local_bh_disable();
	__netif_schedule(qdisc);
	local_bh_enable();
	qdisc_put_unlocked(qdisc);
	doorbells++;
}

/* -------------------------------------------------------------- serving --- */

static int take_bytes(read_descriptor_t *desc, struct sk_buff *skb, unsigned int off, size_t len)
{
	struct limit_conn *c = desc->arg.data;
	const int n = sizeof(END_OF_HEADER) - 1;
	char end[sizeof(END_OF_HEADER)];

	c->complete = len >= n && !skb_copy_bits(skb, off + len - n, end, n) &&
		      !memcmp(end, END_OF_HEADER, n);
	return len;
}

static void send_answer(struct sock *sk)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct kvec kv = { .iov_base = (void *)answer, .iov_len = sizeof(answer) - 1 };

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &kv, 1, kv.iov_len);
	tcp_sendmsg_locked(sk, &msg, kv.iov_len);
	requests++;
}

static void serve(struct bell *bell, struct limit_conn *c)
{
	read_descriptor_t desc = { .arg.data = c, .count = 1 };
	struct sock *sk = c->sock->sk;
	bool over;

	if (!bell->left || need_resched())
		bell_ring(bell);
	lock_sock(sk);
	napi_id = READ_ONCE(sk->sk_napi_id);
	c->complete = false;
	tcp_read_sock(sk, &desc, take_bytes);
	if (c->complete) {
		if (!bell->held)
			bell_hold(bell, sk);
		bell->left--;
		send_answer(sk);
	}
	over = sk->sk_state != TCP_ESTABLISHED;
	release_sock(sk);
	if (over)
		drop_conn(c);
}

static struct limit_conn *next_ready(void)
{
	struct limit_conn *c;

	spin_lock_bh(&ready_lock);
	c = list_first_entry_or_null(&ready_conns, struct limit_conn, ready);
	if (c)
		list_del_init(&c->ready);
	spin_unlock_bh(&ready_lock);
	return c;
}

/* What becomes ready meanwhile belongs to the next batch: else there might be no end. */
static void serve_ready(void)
{
	struct bell bell = {};
	struct limit_conn *c, *last;
	bool served = false;

	spin_lock_bh(&ready_lock);
	last = list_empty(&ready_conns) ? NULL :
					  list_last_entry(&ready_conns, typeof(*last), ready);
	spin_unlock_bh(&ready_lock);
	while (last && (c = next_ready())) {
		served = true;
		serve(&bell, c);
		if (c == last)
			break;
	}
	bell_ring(&bell);
	batches += served;
}

static void accept_all(void)
{
	struct limit_conn *c;
	struct socket *sock;

	while (!kernel_accept(listener, &sock, O_NONBLOCK)) {
		c = kzalloc(sizeof(*c), GFP_KERNEL);
		if (!c) {
			sock_release(sock);
			continue;
		}
		c->sock = sock;
		INIT_LIST_HEAD(&c->ready);
		list_add(&c->all, &conns);
		tcp_sock_set_nodelay(sock->sk);
		set_callbacks(c);
	}
}

static bool accept_pending(void)
{
	return !reqsk_queue_empty(&inet_csk(listener->sk)->icsk_accept_queue);
}

static bool poll_is_over(void *arg, unsigned long start)
{
	return !list_empty_careful(&ready_conns) || accept_pending() || kthread_should_stop();
}

static int limit_main(void *arg)
{
	struct limit_conn *c, *next;

	while (!kthread_should_stop()) {
		if (accept_pending())
			accept_all();
		serve_ready();
		if (napi_id >= MIN_NAPI_ID && !list_empty(&conns))
			napi_busy_loop(napi_id, poll_is_over, NULL, false, BUSY_BUDGET);
		else if (!poll_is_over(NULL, 0))
			schedule_timeout_interruptible(1);
		cond_resched();
	}
	list_for_each_entry_safe(c, next, &conns, all) drop_conn(c);
	return 0;
}

/* ---------------------------------------------------------------- module --- */

static int make_listener(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int err;

	err = sock_create_kern(&init_net, AF_INET, SOCK_STREAM, IPPROTO_TCP, &listener);
	if (err)
		return err;
	sock_set_reuseaddr(listener->sk);
	err = kernel_bind(listener, (struct sockaddr *)&any, sizeof(any));
	if (!err)
		err = kernel_listen(listener, BACKLOG);
	if (err)
		sock_release(listener);
	return err;
}

static int __init limit_init(void)
{
	int err = make_listener();

	if (err)
		return err;
	thread = kthread_run(limit_main, NULL, "limit");
	if (IS_ERR(thread)) {
		sock_release(listener);
		return PTR_ERR(thread);
	}
	return 0;
}

static void __exit limit_exit(void)
{
	kthread_stop(thread);
	sock_release(listener);
}

module_init(limit_init);
module_exit(limit_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("paste: the limit for servers in process context (benchmarks only)");
