// SPDX-License-Identifier: GPL-2.0
/*
 * Accepting: a listening socket whose connections a queue takes and attaches.
 *
 * A wait entry on the listener tells that connections have come, as epoll's
 * would; sync takes them, in a batch as everything else. None of the listener's
 * callbacks is replaced: a child is born with copies of these, and somebody else
 * may accept it.
 *
 * An accepted socket has no file. It is the connection's, and closed with it.
 */
#include <linux/net.h>
#include <net/tcp.h>

#include "internal.h"

#define ACCEPT_MAX 256 /* connections of one sync */

/* Connections have come. Any context, with the lock of the socket's wait queue. */
static int accept_wake(struct wait_queue_entry *entry, unsigned int mode, int sync, void *key)
{
	struct paste_listener *l = container_of(entry, struct paste_listener, entry);
	struct paste_queue *q = container_of(l, struct paste_queue, listener);

	if (key && !(key_to_poll(key) & EPOLLIN))
		return 0;
	WRITE_ONCE(l->come, true);
	paste_queue_wake(q); /* its barrier pairs with that of prepare_to_wait() */
	return 0;
}

int paste_accept_start(struct paste_queue *q, struct paste_ioc_accept *a, struct paste_text *text)
{
	struct paste_listener *l = &q->listener;
	struct socket *sock;

	lockdep_assert_held(&q->ctx->lock);
	if (l->sock)
		return paste_fail(text, -EBUSY, "the queue has a listening socket already");
	sock = paste_tap_lookup(q, a->fd, a->quota, text);
	if (IS_ERR(sock))
		return PTR_ERR(sock);
	/* one that stops to listen later has nothing to accept */
	if (inet_sk_state_load(sock->sk) != TCP_LISTEN) {
		sockfd_put(sock);
		return paste_fail(text, -EINVAL, "fd: the socket does not listen");
	}
	l->sock = sock;
	l->quota = a->quota;
	init_waitqueue_func_entry(&l->entry, accept_wake);
	add_wait_queue(&sock->wq.wait, &l->entry);
	WRITE_ONCE(l->come, true); /* there may be some already */
	paste_queue_wake(q);
	return 0;
}

/* What has not been accepted stays with the socket. */
int paste_accept_stop(struct paste_queue *q)
{
	struct paste_listener *l = &q->listener;

	lockdep_assert_held(&q->ctx->lock);
	if (!l->sock)
		return -ENXIO;
	/* takes the lock that wakes are made under: none is under way any more */
	remove_wait_queue(&l->sock->wq.wait, &l->entry);
	WRITE_ONCE(l->come, false);
	sockfd_put(l->sock);
	l->sock = NULL;
	return 0;
}

/* Later: they stay with the listening socket. */
static void accept_again(struct paste_queue *q)
{
	WRITE_ONCE(q->listener.come, true);
	paste_stat_inc(q, PASTE_STAT_ACCEPT_AGAIN);
}

static bool accept_has_room(struct paste_queue *q)
{
	bool room;

	spin_lock_bh(&q->slice->lock);
	room = paste_queue_room(q);
	spin_unlock_bh(&q->slice->lock);
	return room;
}

/* False: there is none, or none can be taken now. */
static bool accept_one(struct paste_queue *q)
{
	struct paste_listener *l = &q->listener;
	struct socket *sock;
	int err;

	err = kernel_accept(l->sock, &sock, O_NONBLOCK);
	if (err == -ENOMEM) /* for the socket; the connection is still there */
		accept_again(q);
	if (err)
		return false;
	/* one that the peer has broken off already, or too many */
	if (paste_tap_adopt(q, sock, l->quota)) {
		sock_release(sock);
		paste_stat_inc(q, PASTE_STAT_ACCEPT_LOST);
	} else {
		paste_stat_inc(q, PASTE_STAT_ACCEPTS);
	}
	return true;
}

/*
 * Take what has come. Cleared first: who comes during the loop is taken, or sets
 * it again. Statistics are those of who is in sync.
 */
void paste_accept_run(struct paste_queue *q)
{
	struct paste_listener *l = &q->listener;
	u32 n;

	if (likely(!READ_ONCE(l->come)))
		return;
	if (mutex_lock_interruptible(&q->ctx->lock))
		return;
	if (l->sock) {
		xchg(&l->come, false);
		for (n = 0; n < ACCEPT_MAX && accept_has_room(q) && accept_one(q);)
			n++;
		if (n == ACCEPT_MAX)
			WRITE_ONCE(l->come, true);
		else if (!accept_has_room(q))
			accept_again(q);
	}
	mutex_unlock(&q->ctx->lock);
}
