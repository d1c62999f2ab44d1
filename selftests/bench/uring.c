// SPDX-License-Identifier: GPL-2.0
/*
 * uring - phttpd's parser and answers over io_uring, to compare with
 *
 * As fast as liburing 2.3 and Linux 6.1 allow: one multishot accept, a multishot
 * recv per connection into provided buffers, completions worked off by the thread
 * itself (DEFER_TASKRUN), and one system call per round, which submits all sends
 * and waits for more. Not direct descriptors: until 6.13 their close waits for all
 * requests that are older, also for a multishot recv of another connection.
 * Answers with bodies that do not fit into a text (-l above INLINE_BODY, /bytes,
 * /echo) are not offered.
 *
 * A connection ends when its peer has sent everything or after an answer to
 * "Connection: close". The recv holds the socket, so it is cancelled first.
 */
#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"

#define BACKLOG	     4096
#define MAX_THREADS  64
#define MAX_FD	     65536
#define SQ_ENTRIES   4096
#define CQ_ENTRIES   65536
#define BUFFERS	     4096 /* a power of two */
#define BUFFER_SIZE  8192
#define BUFFER_GROUP 0

enum op {
	OP_ACCEPT,
	OP_RECV,
	OP_SEND,
	OP_END /* cancel, close: nothing to do */
};

struct text {
	struct text *next;
	size_t len;
	char data[2 * RESERVE_MAX];
};

struct conn {
	struct session s; /* first: the sink casts */
	struct loop *loop;
	unsigned fd;
	struct text *out, **tail; /* to be sent; the first one may be under way */
	bool sending;		  /* it is */
	bool receiving;
	bool cancelled; /* the recv */
	bool closing;	/* after the last text */
};

struct loop {
	pthread_t thread;
	struct io_uring ring;
	int listener;
	struct io_uring_buf_ring *buffers;
	char *memory; /* of the buffers */
	struct conn *conns[MAX_FD];
	struct text *free_texts;
	struct serve serve;
	uint64_t batches;
};

static atomic_bool stopping;

static void die(const char *what, int err)
{
	fprintf(stderr, "uring: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(EXIT_FAILURE);
}

/* ------------------------------------------------------------------------- */
/* Submissions */

static struct io_uring_sqe *get_sqe(struct loop *l)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);

	if (!sqe) {
		io_uring_submit(&l->ring);
		sqe = io_uring_get_sqe(&l->ring);
	}
	if (!sqe)
		die("no submission entry", EBUSY);
	return sqe;
}

static uint64_t tag(enum op op, unsigned fd)
{
	return (uint64_t)fd << 8 | op;
}

static void submit_accept(struct loop *l)
{
	struct io_uring_sqe *sqe = get_sqe(l);

	io_uring_prep_multishot_accept(sqe, l->listener, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data64(sqe, tag(OP_ACCEPT, 0));
}

static void submit_recv(struct conn *c)
{
	struct io_uring_sqe *sqe = get_sqe(c->loop);

	io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
	io_uring_sqe_set_data64(sqe, tag(OP_RECV, c->fd));
	io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
	sqe->buf_group = BUFFER_GROUP;
	c->receiving = true;
}

static void submit_send(struct conn *c)
{
	struct io_uring_sqe *sqe = get_sqe(c->loop);

	io_uring_prep_send(sqe, c->fd, c->out->data, c->out->len, MSG_WAITALL | MSG_NOSIGNAL);
	io_uring_sqe_set_data64(sqe, tag(OP_SEND, c->fd));
	c->sending = true;
}

static void submit_cancel(struct conn *c)
{
	struct io_uring_sqe *sqe = get_sqe(c->loop);

	io_uring_prep_cancel64(sqe, tag(OP_RECV, c->fd), 0);
	io_uring_sqe_set_data64(sqe, tag(OP_END, c->fd));
	io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
	c->cancelled = true;
}

static void submit_close(struct conn *c)
{
	struct io_uring_sqe *sqe = get_sqe(c->loop);

	io_uring_prep_close(sqe, c->fd);
	io_uring_sqe_set_data64(sqe, tag(OP_END, c->fd));
	io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

/* ------------------------------------------------------------------------- */
/* The sink */

static struct text *text_new(struct conn *c)
{
	struct loop *l = c->loop;
	struct text *t = l->free_texts;

	if (t)
		l->free_texts = t->next;
	else
		t = malloc(sizeof(*t));
	if (!t)
		die("texts", ENOMEM);
	t->next = NULL;
	t->len = 0;
	*c->tail = t;
	c->tail = &t->next;
	return t;
}

/* The one that is gathered, or NULL. */
static struct text *text_last(struct conn *c)
{
	struct text *t;

	if (!c->out || (c->sending && !c->out->next))
		return NULL;
	t = (struct text *)((char *)c->tail - offsetof(struct text, next));
	return t;
}

static void text_done(struct conn *c)
{
	struct text *t = c->out;

	c->out = t->next;
	if (!c->out)
		c->tail = &c->out;
	t->next = c->loop->free_texts;
	c->loop->free_texts = t;
}

static char *sink_reserve(struct session *s, size_t n)
{
	struct conn *c = (struct conn *)s;
	struct text *t = text_last(c);

	if (!t || t->len + n > sizeof(t->data))
		t = text_new(c);
	return t->data + t->len;
}

static void sink_commit(struct session *s, size_t n)
{
	text_last((struct conn *)s)->len += n;
}

static size_t sink_pattern(struct session *s, enum pattern which, uint64_t off, uint64_t len)
{
	(void)s, (void)which, (void)off, (void)len;
	return 0;
}

static bool sink_echo(struct session *s, const char *data, size_t len)
{
	(void)s, (void)data, (void)len;
	return false;
}

static const struct sink uring_sink = {
	.reserve = sink_reserve,
	.commit = sink_commit,
	.pattern = sink_pattern,
	.echo = sink_echo,
};

/* ------------------------------------------------------------------------- */
/* Connections */

static void conn_new(struct loop *l, unsigned fd)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c || fd >= MAX_FD)
		die("connections", ENOMEM);
	session_init(&c->s);
	c->loop = l;
	c->fd = fd;
	c->tail = &c->out;
	l->conns[fd] = c;
	submit_recv(c);
}

/* Send what there is, or end when there is nothing any more. */
static void conn_go_on(struct conn *c)
{
	if (c->sending)
		return;
	if (c->out) {
		submit_send(c);
	} else if (c->closing && c->receiving) {
		if (!c->cancelled)
			submit_cancel(c);
	} else if (c->closing) {
		submit_close(c);
		c->loop->conns[c->fd] = NULL;
		free(c);
	}
}

static void conn_input(struct conn *c, const char *data, size_t len)
{
	size_t used;

	if (c->closing)
		return;
	if (session_run(&c->loop->serve, &c->s, data, len, &used) != RUN_MORE)
		c->closing = true;
}

static void conn_received(struct conn *c, const struct io_uring_cqe *cqe)
{
	struct loop *l = c->loop;
	int id;

	if (cqe->flags & IORING_CQE_F_BUFFER) {
		id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		conn_input(c, l->memory + (size_t)id * BUFFER_SIZE, cqe->res > 0 ? cqe->res : 0);
		io_uring_buf_ring_add(l->buffers, l->memory + (size_t)id * BUFFER_SIZE, BUFFER_SIZE,
				      id, BUFFERS - 1, 0);
		io_uring_buf_ring_advance(l->buffers, 1);
	}
	if (!(cqe->flags & IORING_CQE_F_MORE)) {
		c->receiving = false;
		if (cqe->res > 0 || cqe->res == -ENOBUFS)
			submit_recv(c);
		else
			c->closing = true;
	}
	conn_go_on(c);
}

static void conn_sent(struct conn *c, int result)
{
	bool failed = result < 0 || (size_t)result < c->out->len;

	c->sending = false;
	do {
		text_done(c);
	} while (failed && c->out);
	c->closing |= failed;
	conn_go_on(c);
}

/* ------------------------------------------------------------------------- */
/* The loop */

static bool take(struct loop *l, const struct io_uring_cqe *cqe)
{
	uint64_t data = io_uring_cqe_get_data64(cqe);
	unsigned fd = data >> 8;

	switch (data & 0xff) {
	case OP_ACCEPT:
		if (cqe->res >= 0)
			conn_new(l, cqe->res);
		if (!(cqe->flags & IORING_CQE_F_MORE))
			submit_accept(l);
		return false;
	case OP_RECV:
		conn_received(l->conns[fd], cqe);
		return true;
	case OP_SEND:
		conn_sent(l->conns[fd], cqe->res);
		return false;
	default:
		return false;
	}
}

static void loop_once(struct loop *l)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;
	bool received = false;
	int err;

	err = io_uring_submit_and_wait(&l->ring, 1);
	if (err < 0 && err != -EINTR && err != -EBUSY && err != -EAGAIN)
		die("submit", err);
	io_uring_for_each_cqe(&l->ring, head, cqe)
	{
		received |= take(l, cqe);
		n++;
	}
	io_uring_cq_advance(&l->ring, n);
	l->batches += received;
}

static void make_buffers(struct loop *l)
{
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = BUFFER_GROUP };
	size_t ring_size = BUFFERS * sizeof(struct io_uring_buf);
	char *memory;
	int i, err;

	memory = mmap(NULL, ring_size + BUFFERS * BUFFER_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		die("buffers", errno);
	l->buffers = (void *)memory;
	l->memory = memory + ring_size;
	reg.ring_addr = (uintptr_t)memory;
	err = io_uring_register_buf_ring(&l->ring, &reg, 0);
	if (err)
		die("register buffers", err);
	io_uring_buf_ring_init(l->buffers);
	for (i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(l->buffers, l->memory + (size_t)i * BUFFER_SIZE, BUFFER_SIZE,
				      i, BUFFERS - 1, i);
	io_uring_buf_ring_advance(l->buffers, BUFFERS);
}

/* The ring belongs to the thread that makes it. */
static void *loop_main(void *arg)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL,
		.cq_entries = CQ_ENTRIES,
	};
	struct loop *l = arg;
	int err;

	err = io_uring_queue_init_params(SQ_ENTRIES, &l->ring, &params);
	if (err)
		die("set-up", err);
	io_uring_register_ring_fd(&l->ring);
	make_buffers(l);
	submit_accept(l);
	while (!atomic_load_explicit(&stopping, memory_order_relaxed))
		loop_once(l);
	return NULL;
}

/* ------------------------------------------------------------------------- */

static int make_listener(uint16_t port, bool share)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (share)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (bind(fd, (void *)&any, sizeof(any)) || listen(fd, BACKLOG))
		die("listen", errno);
	return fd;
}

static void raise_limit(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static void on_wakeup(int sig)
{
	(void)sig;
}

/* SIGUSR1 wakes a thread; one that was just about to sleep misses it. */
static void join(struct loop *l)
{
	struct timespec t;

	do {
		pthread_kill(l->thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec++;
	} while (pthread_timedjoin_np(l->thread, NULL, &t) == ETIMEDOUT);
}

int main(int argc, char **argv)
{
	struct sigaction wake = { .sa_handler = on_wakeup };
	unsigned long long requests = 0, bytes = 0, batches = 0;
	unsigned i, threads = 1, port = 60000, body = 64;
	static struct loop *loops[MAX_THREADS];
	int option, sig;
	sigset_t set;

	while ((option = getopt(argc, argv, "P:p:l:")) >= 0) {
		if (option == 'P')
			port = atoi(optarg);
		else if (option == 'p' && atoi(optarg) <= MAX_THREADS)
			threads = atoi(optarg);
		else if (option == 'l' && atoi(optarg) <= INLINE_BODY)
			body = atoi(optarg);
		else
			die("usage: uring [-P PORT] [-p THREADS] [-l BYTES]", EINVAL);
	}
	raise_limit();
	sigaction(SIGUSR1, &wake, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < threads; i++) {
		loops[i] = calloc(1, sizeof(*loops[i]));
		if (!loops[i])
			die("threads", ENOMEM);
		serve_init(&loops[i]->serve, &uring_sink, body, false, false);
		loops[i]->listener = make_listener(port, threads > 1);
		if (pthread_create(&loops[i]->thread, NULL, loop_main, loops[i]))
			die("threads", EAGAIN);
	}
	fprintf(stderr, "uring: port %u threads %u\n", port, threads);
	sigwait(&set, &sig);
	atomic_store(&stopping, true);
	for (i = 0; i < threads; i++) {
		join(loops[i]);
		requests += loops[i]->serve.requests;
		bytes += loops[i]->serve.bytes;
		batches += loops[i]->batches;
	}
	fprintf(stderr, "uring: requests %llu bytes %llu batches %llu\n", requests, bytes, batches);
	return EXIT_SUCCESS;
}
