// SPDX-License-Identifier: MIT
/*
 * epoll.c - the baseline: epoll, read and write
 *
 * Per request one read and one write. Edge-triggered, for reading and writing
 * at once, so that interest never changes; a read that does not fill the buffer
 * has emptied the socket, so no second one is needed to see EAGAIN (unless the
 * event says that the end of the stream is there as well). Answers are gathered
 * for one write, bodies by reference.
 *
 * Buffers belong to the thread. A connection takes them along only when its
 * answers do not fit into the socket, or the store makes it wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "phttpd.h"

#define EVENTS	     512 /* in one epoll_wait */
#define IN_SIZE	     (64 << 10)
#define TEXT_SIZE    (16 << 10)
#define IOVS	     64
#define PATTERN_SIZE (256 << 10)
#define LINGER_MAX   (1 << 20) /* bytes that are read after an error */

/* What a connection needs while it is worked on. */
struct io {
	struct io *next; /* in the list of free ones */
	size_t in_len, in_pos;
	size_t text_len;
	int n_iov, iov_pos;
	struct iovec iov[IOVS];
	char text[TEXT_SIZE];
	char in[IN_SIZE];
};

struct conn {
	struct session s; /* first: the sink casts */
	LIST_ENTRY(conn) link;
	struct loop *loop;
	struct io *io; /* kept from an earlier event, or NULL */
	int fd;
	bool ends;    /* an event said: the end is in the socket */
	bool eof;     /* it has been read */
	bool blocked; /* the session waits for room */
	bool closing; /* close when everything is written */
	bool linger;  /* the same, but read on for a while */
	size_t lingered;
	bool waits; /* in the loop's list, for the store */
	LIST_ENTRY(conn) wait_link;
};

struct loop {
	struct worker *w;
	int epfd;
	bool accepting; /* the listener is in epfd */
	LIST_HEAD(, conn) conns;
	LIST_HEAD(, conn) waiting; /* until a thread has committed */
	struct io *io;		   /* of the connection at hand */
	struct io *free;
	char *pattern[PATTERNS];
	bool committed; /* in this round */
	int err;	/* the loop has to end */
};

/* ------------------------------------------------------------------------- */
/* Buffers */

static struct io *io_get(struct loop *l)
{
	struct io *io = l->free;

	if (io)
		l->free = io->next;
	else
		io = malloc(sizeof(*io));
	if (!io)
		die("buffers", ENOMEM);
	io->in_len = io->in_pos = io->text_len = 0;
	io->n_iov = io->iov_pos = 0;
	return io;
}

static void io_put(struct loop *l, struct io *io)
{
	io->next = l->free;
	l->free = io;
}

static void io_add(struct io *io, const void *base, size_t len)
{
	struct iovec *v = &io->iov[io->n_iov];

	if (io->n_iov && (char *)v[-1].iov_base + v[-1].iov_len == base) {
		v[-1].iov_len += len;
		return;
	}
	v->iov_base = (void *)base;
	v->iov_len = len;
	io->n_iov++;
}

static struct io *sink_io(struct session *s)
{
	return ((struct conn *)s)->loop->io;
}

static char *sink_reserve(struct session *s, size_t n)
{
	struct io *io = sink_io(s);

	if (io->n_iov == IOVS || io->text_len + n > TEXT_SIZE)
		return NULL;
	return io->text + io->text_len;
}

static void sink_commit(struct session *s, size_t n)
{
	struct io *io = sink_io(s);

	io_add(io, io->text + io->text_len, n);
	io->text_len += n;
}

static size_t sink_pattern(struct session *s, enum pattern which, uint64_t off, uint64_t len)
{
	struct loop *l = ((struct conn *)s)->loop;
	size_t start = off % pattern_period(which);

	if (l->io->n_iov == IOVS)
		return 0;
	if (len > PATTERN_SIZE - start)
		len = PATTERN_SIZE - start;
	io_add(l->io, l->pattern[which] + start, len);
	return len;
}

static bool sink_echo(struct session *s, const char *data, size_t len)
{
	struct io *io = sink_io(s);

	if (io->n_iov == IOVS)
		return false;
	io_add(io, data, len);
	return true;
}

const struct sink epoll_sink = {
	.reserve = sink_reserve,
	.commit = sink_commit,
	.pattern = sink_pattern,
	.echo = sink_echo,
};

/* ------------------------------------------------------------------------- */
/* Connections */

/* n bytes are written. */
static void advance(struct io *io, size_t n)
{
	struct iovec *v = &io->iov[io->iov_pos];

	while (io->iov_pos < io->n_iov && n >= v->iov_len) {
		n -= v->iov_len;
		io->iov_pos++;
		v++;
	}
	if (io->iov_pos < io->n_iov) {
		v->iov_base = (char *)v->iov_base + n;
		v->iov_len -= n;
	} else {
		io->iov_pos = io->n_iov = 0;
		io->text_len = 0;
	}
}

/* 0 when everything is out, else -errno. */
static int flush(struct conn *c, struct io *io)
{
	struct iovec *v;
	ssize_t n;

	while (io->iov_pos < io->n_iov) {
		v = &io->iov[io->iov_pos];
		if (io->n_iov - io->iov_pos == 1)
			n = write(c->fd, v->iov_base, v->iov_len);
		else
			n = writev(c->fd, v, io->n_iov - io->iov_pos);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			advance(io, n);
	}
	return 0;
}

/* Work on the input until it or the room for answers is used up. */
static void run_session(struct loop *l, struct conn *c, struct io *io)
{
	enum run run;
	size_t used;

	run = session_run(&l->w->serve, &c->s, io->in + io->in_pos, io->in_len - io->in_pos, &used);
	io->in_pos += used;
	c->blocked = run == RUN_BLOCKED;
	c->closing = run == RUN_CLOSE || (run == RUN_MORE && c->eof);
	c->linger = run == RUN_LINGER;
}

/* After an error reply: FIN now, RST not before the peer had time to read it. */
static int linger(struct conn *c, struct io *io)
{
	ssize_t n;

	if (!c->lingered)
		shutdown(c->fd, SHUT_WR);
	do {
		n = read(c->fd, io->in, IN_SIZE);
		c->lingered += n > 0 ? n : 0;
	} while (n > 0 && c->lingered < LINGER_MAX);
	return n < 0 && errno == EAGAIN ? -EAGAIN : -ECONNRESET;
}

/* More input: 1, or nothing for now: 0, or a negative errno. */
static int fill(struct conn *c, struct io *io)
{
	ssize_t n = read(c->fd, io->in, IN_SIZE);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	io->in_pos = 0;
	io->in_len = n;
	if (!n)
		c->eof = true;
	return 1;
}

/* What was answered is durable: 0, -EBUSY if the session has to wait for another thread, or an error. */
static int commit(struct loop *l)
{
	struct serve *sv = &l->w->serve;
	bool waiting = sv->waiting;
	int again = serve_commit(sv, waiting);

	sv->waiting = false;
	if (again < 0)
		return l->err = again;
	l->committed |= again;
	return waiting && !again ? -EBUSY : 0;
}

/*
 * Go on as far as possible: 0, or -EAGAIN or -EBUSY to be called again, with the
 * buffers as they are, with the next event or soon; else the connection is over.
 */
static int progress(struct loop *l, struct conn *c, struct io *io)
{
	int err, wait = 0;
	bool last = false;

	for (;;) {
		if (l->w->serve.store)
			wait = commit(l);
		if (wait && wait != -EBUSY)
			return wait;
		err = flush(c, io);
		if (err)
			return err;
		if (wait)
			return wait;
		if (c->closing)
			return -ECONNRESET;
		if (c->linger)
			return linger(c, io);
		if (!c->blocked) {
			if (last)
				return 0;
			err = fill(c, io);
			if (err <= 0)
				return err;
			last = io->in_len < IN_SIZE && !c->ends && !c->eof;
		}
		run_session(l, c, io);
	}
}

static int watch_listener(struct loop *l, bool on)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };

	if (l->accepting == on)
		return 0;
	l->accepting = on;
	if (epoll_ctl(l->epfd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, l->w->listener, &ev))
		return -errno;
	return 0;
}

static void conn_close(struct loop *l, struct conn *c)
{
	if (c->io)
		io_put(l, c->io);
	session_exit(&l->w->serve, &c->s);
	LIST_REMOVE(c, link);
	close(c->fd);
	free(c);
}

static void conn_event(struct loop *l, struct conn *c, uint32_t events)
{
	struct io *mine = l->io;
	int err;

	if (c->waits)
		LIST_REMOVE(c, wait_link);
	c->waits = false;
	if (c->io)
		l->io = c->io;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->ends = true;
	err = progress(l, c, l->io);
	if (err == -EBUSY) {
		c->waits = true;
		LIST_INSERT_HEAD(&l->waiting, c, wait_link);
		err = -EAGAIN;
	}
	if (err == -EAGAIN && !c->io) {
		c->io = l->io;
		mine = io_get(l);
	} else if (!err && c->io) {
		io_put(l, c->io);
		c->io = NULL;
	} else if (!c->io) {
		mine->in_len = mine->in_pos = mine->text_len = 0;
		mine->n_iov = mine->iov_pos = 0;
	}
	l->io = mine;
	if (err && err != -EAGAIN) {
		conn_close(l, c);
		watch_listener(l, true);
	}
}

/* ------------------------------------------------------------------------- */
/* The loop */

static bool conn_open(struct loop *l, int fd)
{
	struct epoll_event ev;
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return false;
	c->loop = l;
	c->fd = fd;
	session_init(&c->s);
	ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	ev.data.ptr = c;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev)) {
		free(c);
		return false;
	}
	LIST_INSERT_HEAD(&l->conns, c, link);
	return true;
}

/* Out of files or memory: no more connections until the next pause. */
static void accept_all(struct loop *l)
{
	int fd;

	for (;;) {
		fd = accept4(l->w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (conn_open(l, fd))
				continue;
			close(fd);
		} else if (errno == ECONNABORTED || errno == EINTR) {
			continue;
		} else if (errno == EAGAIN) {
			return;
		}
		watch_listener(l, false);
		return;
	}
}

/* What waits for the store comes back to the head of the list, if it does. */
static void wake_waiting(struct loop *l)
{
	struct conn *c, *next;

	for (c = LIST_FIRST(&l->waiting); c; c = next) {
		next = LIST_NEXT(c, wait_link);
		conn_event(l, c, 0);
	}
}

/*
 * Sleeps only when nothing is left to do. What the store has to tidy up is left
 * for the next commit, but not for more than a round.
 */
static int wait_for_events(struct loop *l, struct epoll_event *events)
{
	struct store_thread *store = l->w->serve.store;
	bool busy = !LIST_EMPTY(&l->waiting) || (store && store_pending(store));
	int n, err;

	n = epoll_wait(l->epfd, events, EVENTS, busy ? 0 : (int)l->w->opt->wait_ms);
	if (busy && (!n || !l->committed)) {
		err = serve_commit(&l->w->serve, true);
		if (err < 0)
			l->err = err;
	}
	l->committed = false;
	return n;
}

static int loop_once(struct loop *l, struct epoll_event *events)
{
	int i, n;

	n = wait_for_events(l, events);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n)
		l->w->batches++;
	else if (watch_listener(l, true))
		return -errno;
	for (i = 0; i < n; i++) {
		if (events[i].data.ptr)
			conn_event(l, events[i].data.ptr, events[i].events);
		else
			accept_all(l);
	}
	wake_waiting(l);
	return l->err;
}

static int loop_init(struct loop *l, struct worker *w)
{
	int i;

	memset(l, 0, sizeof(*l));
	l->w = w;
	for (i = 0; i < PATTERNS; i++) {
		l->pattern[i] = malloc(PATTERN_SIZE);
		if (!l->pattern[i])
			die("buffers", ENOMEM);
		pattern_fill(i, l->pattern[i], PATTERN_SIZE);
	}
	LIST_INIT(&l->conns);
	LIST_INIT(&l->waiting);
	l->io = io_get(l);
	fcntl(w->listener, F_SETFL, O_NONBLOCK);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	return l->epfd < 0 ? -errno : watch_listener(l, true);
}

static void loop_exit(struct loop *l)
{
	struct io *io;
	int i;

	while (!LIST_EMPTY(&l->conns))
		conn_close(l, LIST_FIRST(&l->conns));
	io_put(l, l->io);
	while ((io = l->free)) {
		l->free = io->next;
		free(io);
	}
	for (i = 0; i < PATTERNS; i++)
		free(l->pattern[i]);
	close(l->epfd);
}

int epoll_run(struct worker *w)
{
	struct epoll_event events[EVENTS];
	struct loop l;
	int err;

	err = loop_init(&l, w);
	while (!err && !atomic_load_explicit(&stopping, memory_order_relaxed))
		err = loop_once(&l, events);
	loop_exit(&l);
	return err;
}
