// SPDX-License-Identifier: GPL-2.0
/* The end: closing in every order, dying under load, data that is still to be sent. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "util.h"
#include "harness.h"

/* Two queues with two connections each, all of them busy. The last one was accepted by its queue. */
struct world {
	struct ctx ctx;
	struct queue q[2];
	int sv[4][2]; /* of the last one: the listener, and the peer's end */
	__u32 conn[4];
	struct peer peer[4];
};

static int accept_last(struct world *w)
{
	struct paste_rx e;
	__u16 port;
	int err;

	w->sv[3][0] = tcp_listen(AF_INET6, &port);
	w->sv[3][1] = tcp_connect(AF_INET6, port);
	err = queue_accept(&w->q[1], w->sv[3][0], 0);
	if (!err && (!rx_wait(&w->q[1], &e, SOON) || !(e.flags & PASTE_RX_NEW)))
		err = -ETIMEDOUT;
	w->conn[3] = e.conn;
	return err;
}

static int world_make(struct world *w, __u32 chunk_size)
{
	struct paste_ioc_queue opts = { .rx_chunks = 128 };
	int err;

	memset(w, 0, sizeof(*w));
	err = ctx_make(&w->ctx, chunk_size, 256, 64);
	for (int i = 0; i < 2 && !err; i++) {
		err = queue_make(&w->q[i], &w->ctx, &opts);
		if (!err)
			fill_slice(&w->q[i]);
	}
	for (int i = 0; i < 3 && !err; i++) {
		err = tcp_pair(i & 1 ? AF_INET6 : AF_INET, w->sv[i]);
		err = err ?: queue_attach(&w->q[i / 2], w->sv[i][0], 0, &w->conn[i]);
	}
	err = err ?: accept_last(w);
	for (int i = 0; i < 4 && !err; i++)
		peer_init(&w->peer[i], w->sv[i][1]);
	return err;
}

/* Data in both directions, at every stage of its way. */
static void world_load(struct world *w, unsigned int rounds)
{
	struct paste_comp c;
	struct paste_rx e;

	for (unsigned int r = 0; r < rounds; r++) {
		for (int i = 0; i < 4; i++)
			peer_send(&w->peer[i], w->peer[i].sent + 20000);
		for (int i = 0; i < 2; i++) {
			struct queue *q = &w->q[i];

			while (comp_take(q, &c)) {
				if (c.cookie)
					fill_put(q, c.cookie);
			}
			while (rx_take(q, &e)) {
				if (e.len && !tx_put(q, e.conn, e.chunk, e.off, e.len, 0, e.chunk))
					fill_put(q, e.chunk);
			}
			for (__u32 j = 0; j < 8; j++)
				tx_put(q, w->conn[2 * i], w->ctx.first_tx + j, 0, 2000, 0, 0);
			queue_sync(q, 0, 1000);
		}
	}
}

FIXTURE(life)
{
	__u64 before[PASTE_OBJ_MAX];
};

FIXTURE_SETUP(life)
{
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
}

FIXTURE_TEARDOWN(life)
{
	__u64 live[PASTE_OBJ_MAX];

	EXPECT_TRUE(objects_wait(self->before, SOON))
	{
		objects_read(live);
		for (int i = 0; i < PASTE_OBJ_MAX; i++)
			TH_LOG("object %d: %llu before, %llu now", i, self->before[i], live[i]);
	}
}

/* ------------------------------------------------------------------------- */

/* What can be closed by itself. */
enum part {
	CONTEXT,
	QUEUES,
	MAPS,
	SOCKETS,
	PEERS,
	NETNS, /* the process leaves it: it ends with its last socket */
	N_PARTS
};

static int home; /* the network namespace of the test */

static void close_part(struct world *w, enum part part)
{
	switch (part) {
	case CONTEXT:
		close(w->ctx.fd);
		break;
	case QUEUES:
		close(w->q[0].fd);
		close(w->q[1].fd);
		break;
	case MAPS:
		queue_unmap(&w->q[0]);
		queue_unmap(&w->q[1]);
		ctx_unmap(&w->ctx);
		break;
	case SOCKETS:
	case PEERS:
		for (int i = 0; i < 4; i++)
			close(w->sv[i][part == PEERS]);
		break;
	case NETNS:
		setns(home, CLONE_NEWNET);
		break;
	default:
		break;
	}
}

/* The k-th order of n things. */
static void permutation(unsigned int k, unsigned int n, unsigned int order[])
{
	for (unsigned int i = 0; i < n; i++)
		order[i] = i;
	for (unsigned int i = n; i > 1; k /= i, i--) {
		unsigned int j = k % i, last = order[i - 1];

		order[i - 1] = order[j];
		order[j] = last;
	}
}

TEST_F_TIMEOUT(life, close__in_every_order, 1200)
{
	unsigned int order[N_PARTS], k;

	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (k = 0; k < 720; k++) {
		struct world w;

		ASSERT_EQ(0, unshare(CLONE_NEWNET));
		ASSERT_EQ(0, set_lo_up());
		ASSERT_EQ(0, world_make(&w, k & 1 ? 2048 : 4096)) TH_LOG("%u: %s", k, text);
		world_load(&w, 1 + k % 3);
		permutation(k, N_PARTS, order);
		for (unsigned int i = 0; i < N_PARTS; i++)
			close_part(&w, order[i]);
	}
	close(home);
	printf("robust: permutations %u\n", k);
	fflush(stdout);
}

TEST_F(life, close__queue_then_another)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	struct paste_rx e;
	struct queue q[2];
	__u32 conn;
	struct ctx c;
	int sv[2];
	__u8 was;

	/* the chunks of a closed queue stay readable, and nobody else gets them */
	ASSERT_EQ(0, ctx_make(&c, 0, 128, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q[0], &c, &opts)) TH_LOG("%s", text);
	fill_slice(&q[0]);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&q[0], sv[0], 0, &conn)) TH_LOG("%s", text);
	ASSERT_EQ(5, send(sv[1], "hello", 5, 0));
	ASSERT_TRUE(rx_wait(&q[0], &e, SOON));
	queue_close(&q[0]);
	was = *(__u8 *)chunk_at(&c, e.chunk, e.off);
	EXPECT_EQ('h', was);
	ASSERT_EQ(0, queue_make(&q[1], &c, NULL)) TH_LOG("%s", text);
	EXPECT_EQ(64, q[1].n);
	EXPECT_NE(q[0].first, q[1].first);
	EXPECT_EQ('h', *(__u8 *)chunk_at(&c, e.chunk, e.off));
	close(sv[0]);
	close(sv[1]);
	queue_close(&q[1]);
	ctx_close(&c);
}

TEST_F(life, close__dup_keeps_it)
{
	struct world w;
	int fd;

	ASSERT_EQ(0, world_make(&w, 0)) TH_LOG("%s", text);
	fd = dup(w.q[0].fd);
	close(w.q[0].fd);
	w.q[0].fd = fd;
	close(w.ctx.fd);
	world_load(&w, 5);
	EXPECT_EQ(0, queue_sync(&w.q[0], 0, 0));
	for (int part = QUEUES; part < N_PARTS; part++)
		close_part(&w, part);
}

TEST_F(life, close__fork_keeps_it)
{
	struct world w;
	int status;
	pid_t pid;

	/* the child has copies of all fds, and goes away later */
	ASSERT_EQ(0, world_make(&w, 0)) TH_LOG("%s", text);
	pid = fork();
	if (!pid) {
		sleep_ms(500);
		_exit(0);
	}
	world_load(&w, 5);
	for (int part = 0; part < N_PARTS; part++)
		close_part(&w, part);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
}

struct closer {
	struct world *w;
	enum part part;
};

static void *close_now(void *arg)
{
	struct closer *c = arg;

	sleep_ms(2);
	close_part(c->w, c->part);
	return NULL;
}

TEST_F(life, close__from_another_thread)
{
	for (unsigned int k = 0; k < 20; k++) {
		struct world w;
		struct closer c = { .w = &w, .part = k % 2 ? QUEUES : SOCKETS };
		pthread_t t;

		ASSERT_EQ(0, world_make(&w, 0)) TH_LOG("%s", text);
		ASSERT_EQ(0, pthread_create(&t, NULL, close_now, &c));
		world_load(&w, 5);
		pthread_join(t, NULL);
		for (int part = 0; part < N_PARTS; part++) {
			if (part != (int)c.part)
				close_part(&w, part);
		}
	}
}

/* ------------------------------------------------------------------------- */

static pid_t start_child(int ready[2])
{
	struct world w;
	pid_t pid;

	if (pipe(ready))
		return -1;
	pid = fork();
	if (pid)
		return pid;
	if (world_make(&w, 0))
		_exit(1);
	for (unsigned int i = 0;; i++) {
		world_load(&w, 1);
		for (int j = 0; j < 4; j++)
			peer_recv(&w.peer[j]);
		if (i == 20 && write(ready[1], "x", 1) != 1)
			_exit(1);
	}
}

TEST_F(life, kill__under_load)
{
	for (unsigned int k = 0; k < 10; k++) {
		int ready[2], status;
		pid_t pid;
		char b;

		pid = start_child(ready);
		ASSERT_LT(0, pid);
		close(ready[1]);
		ASSERT_EQ(1, read(ready[0], &b, 1)) TH_LOG("the child did not start");
		sleep_ms(k * 3);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		close(ready[0]);
	}
}

TEST_F(life, kill__while_waiting)
{
	struct world w;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		if (world_make(&w, 0))
			_exit(1);
		queue_sync(&w.q[0], 0, PASTE_FOREVER);
		_exit(0);
	}
	sleep_ms(500);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(life, kill__peer_sees_the_end)
{
	int l, fd, status;
	__u64 end;
	__u16 port;
	pid_t pid;
	char b;

	l = tcp_listen(AF_INET, &port);
	ASSERT_LE(0, l);
	pid = fork();
	if (!pid) {
		struct queue q;
		struct ctx c;

		fd = tcp_connect(AF_INET, port);
		if (fd < 0 || ctx_make(&c, 0, 64, 0) || queue_make(&q, &c, NULL) ||
		    queue_attach(&q, fd, 0, NULL) || send(fd, "x", 1, 0) != 1)
			_exit(1);
		pause();
	}
	fd = accept(l, NULL, NULL);
	ASSERT_EQ(1, recv(fd, &b, 1, 0));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	for (end = now_ms() + SOON;
	     recv(fd, &b, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN && now_ms() < end;)
		sleep_ms(5);
	EXPECT_GT(end, now_ms()) TH_LOG("no FIN and no RST");
	close(fd);
	close(l);
}

/* ------------------------------------------------------------------------- */

FIXTURE(unsent)
{
	__u64 before[PASTE_OBJ_MAX];
	struct ctx ctx;
	struct queue q;
	struct peer peer;
	int sv[2];
	__u32 conn;
	__u64 in_tcp; /* bytes that TCP has accepted */
};

FIXTURE_VARIANT(unsent) {
	bool close_socket; /* before the queue */
	bool close_by_entry;
	__u32 sndbuf;
};

FIXTURE_VARIANT_ADD(unsent, queue_closed){ .sndbuf = 400000 };
FIXTURE_VARIANT_ADD(unsent, socket_closed){ .sndbuf = 400000, .close_socket = true };
FIXTURE_VARIANT_ADD(unsent, small_buffer){ .sndbuf = 8192 };
FIXTURE_VARIANT_ADD(unsent, close_entry){ .sndbuf = 4000000, .close_by_entry = true };

#define UNSENT_CHUNKS 200
#define UNSENT_SIZE   4000

FIXTURE_SETUP(unsent)
{
	const int little = 32768;

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 64, UNSENT_CHUNKS)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->q, &self->ctx, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, tcp_pair(AF_INET, self->sv));
	/* a peer that takes little and reads nothing */
	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)));
	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &variant->sndbuf,
				sizeof(int)));
	ASSERT_EQ(0, queue_attach(&self->q, self->sv[0], 0, &self->conn)) TH_LOG("%s", text);
	peer_init(&self->peer, self->sv[1]);
	for (__u32 i = 0; i < UNSENT_CHUNKS; i++) {
		__u32 chunk = self->ctx.first_tx + i;
		__u32 flags = variant->close_by_entry && i == UNSENT_CHUNKS - 1 ? PASTE_TX_CLOSE :
										  0;

		pattern_write(chunk_at(&self->ctx, chunk, 0), (__u64)i * UNSENT_SIZE, UNSENT_SIZE);
		ASSERT_TRUE(tx_put(&self->q, self->conn, chunk, 0, UNSENT_SIZE, flags, i));
	}
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	sleep_ms(100);
}

FIXTURE_TEARDOWN(unsent)
{
	close(self->sv[1]);
	EXPECT_TRUE(objects_wait(self->before, SOON));
}

/* Takes the pages that the pool had, and writes over them. */
static void reuse_memory(void)
{
	struct ctx c[4];
	void *p;

	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++) {
		if (!ctx_make(&c[i], 0, 64, 256))
			memset(chunk_at(&c[i], c[i].first_tx, 0), 0xee, 256 * 4096);
	}
	p = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED) {
		memset(p, 0xdd, 16 << 20);
		munmap(p, 16 << 20);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++)
		ctx_close(&c[i]);
}

TEST_F(unsent, close__data_still_arrives)
{
	__u64 end = now_ms() + SOON, unacked = 0, least;
	int outq = 0;

	/* what the peer has, and what TCP took: so much must arrive, and all of it right */
	peer_recv(&self->peer);
	do { /* with a small buffer all of it may have gone, and the next send be on its way */
		ASSERT_EQ(0, ioctl(self->sv[0], SIOCOUTQ, &outq));
	} while (!outq && now_ms() < end);
	unacked = outq;
	least = self->peer.got + unacked;
	ASSERT_LT(0, unacked);

	if (variant->close_socket)
		close(self->sv[0]);
	queue_close(&self->q);
	/* written after the send and before the end: must not be seen by the peer */
	ctx_close(&self->ctx);
	reuse_memory();
	if (!variant->close_socket)
		close(self->sv[0]);

	while (!self->peer.eof && !self->peer.err && now_ms() < end) {
		peer_recv(&self->peer);
		sleep_ms(1);
	}
	EXPECT_TRUE(self->peer.eof);
	EXPECT_EQ(0, self->peer.err);
	EXPECT_FALSE(self->peer.wrong);
	/* bytes that arrived between the two looks count twice in least */
	EXPECT_LE(unacked, self->peer.got);
	if (variant->close_by_entry || variant->sndbuf > 200000) {
		EXPECT_LE(least - 65536, self->peer.got);
	}
	if (variant->close_by_entry) {
		EXPECT_EQ(UNSENT_CHUNKS * UNSENT_SIZE, self->peer.got);
	}
}

TEST_F(unsent, peer__never_reads_and_goes)
{
	struct linger now = { .l_onoff = 1 };

	/* data that nobody will ever take must not hold anything for long */
	close(self->sv[0]);
	queue_close(&self->q);
	ctx_close(&self->ctx);
	sleep_ms(50);
	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
}

TEST_F(unsent, pages__back_before_the_peer_reads)
{
	/* the last close has returned: the pool is the system's, though TCP still has data */
	close(self->sv[0]);
	queue_close(&self->q);
	ctx_close(&self->ctx);
	EXPECT_TRUE(objects_wait(self->before, SOON)) TH_LOG("held by data that nobody reads");
}

TEST_HARNESS_MAIN
