// SPDX-License-Identifier: MIT
/*
 * accept.c - the acceptor of a queue
 *
 * A thread of its own accepts connections and attaches them, so that the queue
 * thread spends no system call on either. The queue thread may get a
 * connection's first bytes before it gets its mail; the handle is all it needs
 * until it closes the socket.
 *
 * Whoever reuses the index of a handle does so after the mail of the earlier
 * one was sent, so a reader that looks at the rx ring first and at the mail
 * then has the mail of all connections that it sees replaced.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "queue.h"

static bool over(void)
{
	return atomic_load_explicit(&stopping, memory_order_relaxed);
}

static void nap(void)
{
	struct timespec t = { .tv_nsec = 5 * 1000 * 1000 };

	nanosleep(&t, NULL);
}

static void mail_send(struct mail *m, uint32_t handle, int fd)
{
	uint32_t prod = atomic_load_explicit(&m->prod, memory_order_relaxed);

	while (prod - atomic_load_explicit(&m->cons, memory_order_acquire) == MAIL_SIZE) {
		if (over())
			return;
		nap();
	}
	m->msg[prod % MAIL_SIZE].handle = handle;
	m->msg[prod % MAIL_SIZE].fd = fd;
	/* pairs with mail_take() */
	atomic_store_explicit(&m->prod, prod + 1, memory_order_release);
}

void mail_take(struct queue *q)
{
	struct mail *m = &q->mail;
	uint32_t prod = atomic_load_explicit(&m->prod, memory_order_acquire);
	uint32_t cons = atomic_load_explicit(&m->cons, memory_order_relaxed);

	if (prod == cons)
		return;
	for (; cons != prod; cons++)
		conn_arrived(q, m->msg[cons % MAIL_SIZE].handle, m->msg[cons % MAIL_SIZE].fd);
	atomic_store_explicit(&m->cons, cons, memory_order_release);
}

static void attach(struct queue *q, int fd)
{
	uint32_t handle;
	int err = paste_attach(&q->pq, fd, QUOTA, &handle);

	if (!err) {
		mail_send(&q->mail, handle, fd);
		return;
	}
	close(fd);
	/* A peer that is gone already is no news. */
	if (err != -ENOTCONN && !q->complained) {
		q->complained = true;
		fprintf(stderr, "phttpd: attach: %s: %s\n", strerror(-err), paste_text(q->ctx));
	}
}

static void *acceptor_main(void *arg)
{
	struct queue *q = arg;
	cpu_set_t all;
	int fd;

	/* Not on the CPU of the queue thread alone. */
	memset(&all, 0xff, sizeof(all));
	pthread_setaffinity_np(pthread_self(), sizeof(all), &all);
	while (!over()) {
		fd = accept4(q->w->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			attach(q, fd);
		else if (errno != ECONNABORTED && errno != EINTR)
			nap();
	}
	return NULL;
}

int acceptor_start(struct queue *q)
{
	return -pthread_create(&q->acceptor, NULL, acceptor_main, q);
}

/* A listener that is shut down fails the accept that waits on it. */
void acceptor_stop(struct queue *q)
{
	shutdown(q->w->listener, SHUT_RD);
	pthread_join(q->acceptor, NULL);
	mail_take(q);
}
