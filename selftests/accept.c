// SPDX-License-Identifier: GPL-2.0
/* Connections that a queue accepts by itself (PASTE_IOC_ACCEPT). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"
#include "harness.h"

#define MANY 100 /* connections: more than the smallest ring has entries, less than the backlog */

FIXTURE(accept)
{
	__u64 before[PASTE_OBJ_MAX];
	struct ctx ctx;
	struct queue q;
	__u16 port;
	int listener;
	int client[MANY];
};

FIXTURE_SETUP(accept)
{
	struct paste_ioc_queue opts = { .rx_chunks = 128, .rx_entries = 64 };

	for (unsigned int i = 0; i < MANY; i++)
		self->client[i] = -1;
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 256, 16)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->q, &self->ctx, &opts)) TH_LOG("%s", text);
	fill_slice(&self->q);
	self->listener = tcp_listen(AF_INET, &self->port);
	ASSERT_LE(0, self->listener);
}

FIXTURE_TEARDOWN(accept)
{
	EXPECT_EQ(0, self->q.bad);
	for (unsigned int i = 0; i < MANY; i++) {
		if (self->client[i] >= 0)
			close(self->client[i]);
	}
	close(self->listener);
	queue_close(&self->q);
	ctx_close(&self->ctx);
	EXPECT_TRUE(objects_wait(self->before, SOON));
}

#define START() ASSERT_EQ(0, queue_accept(&self->q, self->listener, 0)) TH_LOG("%s", text)

#define CONNECT(i)                                                  \
	do {                                                        \
		self->client[i] = tcp_connect(AF_INET, self->port); \
		ASSERT_LE(0, self->client[i]);                      \
	} while (0)

/* The next entry says that a connection was accepted: its handle, or 0. */
static __u32 take_new(struct queue *q)
{
	struct paste_rx e;

	if (!rx_wait(q, &e, SOON) || e.flags != PASTE_RX_NEW || e.len || e.chunk || e.off || e.err)
		return 0;
	return e.conn;
}

/* What the other end of a connection sees: an end within time. */
static bool sees_end(int fd)
{
	struct timeval limit = { .tv_sec = SOON / 1000 };
	char b[4096];
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	while ((n = recv(fd, b, sizeof(b), 0)) > 0)
		;
	return !n || errno == ECONNRESET;
}

#define EXPECT_REFUSED(expected, fd, quota)                           \
	do {                                                          \
		int __result = queue_accept(&self->q, fd, quota);     \
		EXPECT_EQ(expected, __result) TH_LOG("\"%s\"", text); \
		EXPECT_NE(0, text[0]) TH_LOG("no text");              \
	} while (0)

TEST_F(accept, arguments__wrong)
{
	CONNECT(0);
	EXPECT_REFUSED(-EBADF, 1000000, 0);
	EXPECT_REFUSED(-ENOTSOCK, self->ctx.fd, 0);
	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_INET, SOCK_DGRAM, 0), 0);
	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_UNIX, SOCK_STREAM, 0), 0);
	EXPECT_REFUSED(-EINVAL, self->client[0], 0);
	EXPECT_REFUSED(-EINVAL, socket(AF_INET6, SOCK_STREAM, 0), 0);
	EXPECT_REFUSED(-EINVAL, self->listener, 65);
	EXPECT_REFUSED(-ENXIO, -1, 0);
	ASSERT_EQ(0, queue_accept(&self->q, self->listener, 64)) TH_LOG("%s", text);
	EXPECT_REFUSED(-EBUSY, self->listener, 0);
	EXPECT_NE(0, take_new(&self->q));
	EXPECT_EQ(0, queue_accept(&self->q, -1, 0));
	EXPECT_REFUSED(-ENXIO, -1, 0);
}

TEST_F(accept, stream__from_its_beginning)
{
	struct paste_ioc_conn info;
	struct stream in = {};
	struct peer peer;
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	/* some of it before the queue knows, the rest after */
	CONNECT(0);
	peer_init(&peer, self->client[0]);
	peer_send(&peer, 1000);
	START();
	in.conn = take_new(&self->q);
	ASSERT_NE(0, in.conn);
	EXPECT_TRUE(echo(&self->q, &in, &peer, 100000, SOON));
	EXPECT_FALSE(in.wrong);

	ASSERT_EQ(0, queue_conn(&self->q, in.conn, 0, &info));
	ASSERT_EQ(0, getsockname(self->client[0], (struct sockaddr *)&a, &len));
	EXPECT_EQ(ntohs(a.sin_port), info.peer_port);
	EXPECT_EQ(self->port, info.local_port);
	EXPECT_NE(0, info.inode);

	shutdown(self->client[0], SHUT_WR);
	stream_until(&in, &self->q, ~0ULL, SOON);
	EXPECT_EQ(1, in.fins);
	EXPECT_EQ(1, queue_stat(&self->q, PASTE_STAT_ACCEPTS));
	EXPECT_EQ(0, queue_stat(&self->q, PASTE_STAT_ACCEPT_LOST));
}

/* What is behind an end of the application's: its peer sees it, and nothing is left. */
#define EXPECT_CLOSED(i, conn)                                    \
	do {                                                      \
		EXPECT_TRUE(sees_end(self->client[i]));           \
		EXPECT_EQ(-ENOENT, queue_detach(&self->q, conn)); \
		EXPECT_TRUE(queue_conns(&self->q, 0, SOON));      \
	} while (0)

TEST_F(accept, end__by_send)
{
	__u32 conn, chunk = self->ctx.first_tx;
	struct paste_comp c;
	char b[100];

	START();
	CONNECT(0);
	conn = take_new(&self->q);
	pattern_write(chunk_at(&self->ctx, chunk, 0), 0, 100);
	ASSERT_TRUE(tx_put(&self->q, conn, chunk, 0, 100, PASTE_TX_CLOSE, 7));
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(100, c.result);
	ASSERT_EQ(100, recv(self->client[0], b, 100, MSG_WAITALL));
	EXPECT_TRUE(pattern_check(b, 0, 100));
	EXPECT_CLOSED(0, conn);
}

/* More than TCP takes at once, by reference: it is sent although the socket is closed. */
TEST_F(accept, end__by_large_send)
{
	static char b[64 * 4096];
	struct paste_comp c;
	unsigned int i;
	__u32 conn;

	START();
	CONNECT(0);
	conn = take_new(&self->q);
	for (i = 0; i < 64; i++) {
		__u32 chunk = self->ctx.first_tx + i % 16;

		if (i < 16)
			pattern_write(chunk_at(&self->ctx, chunk, 0), i * 4096, 4096);
		ASSERT_TRUE(
			tx_put(&self->q, conn, chunk, 0, 4096, i == 63 ? PASTE_TX_CLOSE : 0, 0));
	}
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_EQ(sizeof(b), recv(self->client[0], b, sizeof(b), MSG_WAITALL));
	for (i = 0; i < 64; i++)
		EXPECT_TRUE(pattern_check(b + i * 4096, i % 16 * 4096, 4096));
	for (i = 0; i < 64; i++) {
		ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
		EXPECT_EQ(4096, c.result);
	}
	EXPECT_CLOSED(0, conn);
}

TEST_F(accept, end__by_detach)
{
	__u32 conn;

	START();
	CONNECT(0);
	conn = take_new(&self->q);
	EXPECT_EQ(0, queue_detach(&self->q, conn));
	EXPECT_CLOSED(0, conn);
}

TEST_F(accept, end__by_the_peer)
{
	struct linger now = { .l_onoff = 1 };
	struct paste_rx e;
	__u32 conn;

	START();
	CONNECT(0);
	conn = take_new(&self->q);
	setsockopt(self->client[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(self->client[0]);
	self->client[0] = -1;
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	EXPECT_EQ(conn, e.conn);
	EXPECT_EQ(PASTE_RX_ERR, e.flags);
	EXPECT_EQ(ECONNRESET, e.err);
	/* it is there until it is detached */
	EXPECT_EQ(0, queue_detach(&self->q, conn));
	EXPECT_TRUE(queue_conns(&self->q, 0, SOON));
}

/* With the queue go the connections that it has accepted, not those that wait. */
TEST_F(accept, end__by_queue_close)
{
	int fd;

	START();
	CONNECT(0);
	CONNECT(1);
	ASSERT_NE(0, take_new(&self->q));
	ASSERT_NE(0, take_new(&self->q));
	CONNECT(2);
	queue_close(&self->q);
	EXPECT_TRUE(sees_end(self->client[0]));
	EXPECT_TRUE(sees_end(self->client[1]));
	fd = accept(self->listener, NULL, NULL);
	ASSERT_LE(0, fd);
	ASSERT_EQ(1, send(self->client[2], "x", 1, 0));
	EXPECT_TRUE(wait_readable(fd, 1, SOON));
	close(fd);
}

/* A socket option of the listener's that its children have: nobody may have to wait for it. */
TEST_F(accept, end__does_not_linger)
{
	struct linger long_ = { .l_onoff = 1, .l_linger = 3600 };
	__u64 begin;
	__u32 conn;
	int small = 4096;

	ASSERT_EQ(0, setsockopt(self->listener, SOL_SOCKET, SO_LINGER, &long_, sizeof(long_)));
	START();
	CONNECT(0);
	setsockopt(self->client[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	conn = take_new(&self->q);
	for (unsigned int i = 0; i < 16; i++)
		ASSERT_TRUE(tx_put(&self->q, conn, self->ctx.first_tx, 0, 4096, 0, 0));
	begin = now_ms();
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(0, queue_detach(&self->q, conn));
	EXPECT_GT(SOON, now_ms() - begin);
}

TEST_F(accept, stop__others_may_accept)
{
	int fd;

	START();
	CONNECT(0);
	ASSERT_NE(0, take_new(&self->q));
	ASSERT_EQ(0, queue_accept(&self->q, -1, 0));
	CONNECT(1);
	ASSERT_EQ(0, queue_sync(&self->q, 0, NEVER * 1000));
	EXPECT_EQ(1, queue_stat(&self->q, PASTE_STAT_ACCEPTS));
	fd = accept(self->listener, NULL, NULL);
	EXPECT_LE(0, fd);
	close(fd);
	/* and it goes on with it, or with another */
	START();
	CONNECT(2);
	EXPECT_NE(0, take_new(&self->q));
}

/* The queue keeps the socket open, until it accepts no more. */
TEST_F(accept, listener__closed)
{
	START();
	close(self->listener);
	self->listener = -1;
	CONNECT(0);
	EXPECT_NE(0, take_new(&self->q));
	ASSERT_EQ(0, queue_accept(&self->q, -1, 0));
	EXPECT_EQ(-ECONNREFUSED, tcp_connect(AF_INET, self->port));
}

TEST_F(accept, listener__shut_down)
{
	struct pollfd p = { .fd = self->q.fd, .events = POLLIN };

	START();
	ASSERT_EQ(0, shutdown(self->listener, SHUT_RD));
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(0, poll(&p, 1, NEVER)); /* nothing to do */
}

static void *connect_later(void *arg)
{
	sleep_ms(NEVER);
	return (void *)(intptr_t)tcp_connect(AF_INET, *(__u16 *)arg);
}

/* Who waits is told, by either way. */
TEST_F(accept, wait__sync_and_poll)
{
	struct pollfd p = { .fd = self->q.fd, .events = POLLIN };
	struct paste_rx e;
	pthread_t thread;
	void *fd;

	START();
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, connect_later, &self->port));
	EXPECT_EQ(0, queue_sync(&self->q, 0, SOON * 1000));
	EXPECT_TRUE(rx_take(&self->q, &e)); /* without another sync */
	EXPECT_EQ(PASTE_RX_NEW, e.flags);
	pthread_join(thread, &fd);
	self->client[0] = (intptr_t)fd;

	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, connect_later, &self->port));
	EXPECT_EQ(1, poll(&p, 1, SOON));
	EXPECT_NE(0, take_new(&self->q));
	pthread_join(thread, &fd);
	self->client[1] = (intptr_t)fd;

	ASSERT_EQ(0, pthread_create(&thread, NULL, connect_later, &self->port));
	EXPECT_EQ(0, queue_sync(&self->q, SOON * 1000, 0));
	EXPECT_TRUE(rx_take(&self->q, &e));
	pthread_join(thread, &fd);
	self->client[2] = (intptr_t)fd;
}

TEST_F(accept, lost__broken_off_before)
{
	struct linger now = { .l_onoff = 1 };

	CONNECT(0);
	CONNECT(1);
	setsockopt(self->client[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(self->client[0]);
	self->client[0] = -1;
	sleep_ms(NEVER);
	START();
	EXPECT_NE(0, take_new(&self->q));
	EXPECT_EQ(1, queue_stat(&self->q, PASTE_STAT_ACCEPTS));
	EXPECT_EQ(1, queue_stat(&self->q, PASTE_STAT_ACCEPT_LOST));
}

/* More of them than the ring has entries, with data each: each begins with its announcement. */
static unsigned int take_all(struct queue *q, unsigned int wanted, unsigned int *bytes)
{
	static bool known[1 << 16];
	__u64 end = now_ms() + SOON;
	unsigned int n = 0;
	struct paste_rx e;

	memset(known, 0, sizeof(known));
	while ((n < wanted || *bytes < wanted) && now_ms() < end) {
		if (!rx_take(q, &e)) {
			queue_sync(q, 0, 10000);
			continue;
		}
		if (known[PASTE_CONN_INDEX(e.conn)] == !!(e.flags & PASTE_RX_NEW))
			return 0;
		known[PASTE_CONN_INDEX(e.conn)] = true;
		n += !!(e.flags & PASTE_RX_NEW);
		*bytes += e.len;
		if (e.len)
			fill_put(q, e.chunk);
	}
	return n;
}

TEST_F(accept, many__more_than_the_ring_has)
{
	unsigned int bytes = 0;

	for (unsigned int i = 0; i < MANY; i++) {
		CONNECT(i);
		ASSERT_EQ(1, send(self->client[i], "x", 1, 0));
	}
	START();
	EXPECT_EQ(MANY, take_all(&self->q, MANY, &bytes));
	EXPECT_EQ(MANY, bytes);
	EXPECT_EQ(MANY, queue_stat(&self->q, PASTE_STAT_ACCEPTS));
	EXPECT_LT(0, queue_stat(&self->q, PASTE_STAT_ACCEPT_AGAIN));
}

/* The announcement counts, so that a quota of one delays the data to the next sync. */
TEST_F(accept, many__quota_of_one)
{
	unsigned int bytes = 0;

	for (unsigned int i = 0; i < 10; i++) {
		CONNECT(i);
		ASSERT_EQ(1, send(self->client[i], "x", 1, 0));
	}
	ASSERT_EQ(0, queue_accept(&self->q, self->listener, 1)) TH_LOG("%s", text);
	EXPECT_EQ(10, take_all(&self->q, 10, &bytes));
	EXPECT_EQ(10, bytes);
}

/* Two queues share a listener: each connection is one's. */
TEST_F(accept, many__two_queues)
{
	unsigned int n = 0;
	struct paste_rx e;
	struct queue other;

	ASSERT_EQ(0, queue_make(&other, &self->ctx, NULL)) TH_LOG("%s", text);
	START();
	ASSERT_EQ(0, queue_accept(&other, self->listener, 0)) TH_LOG("%s", text);
	for (unsigned int i = 0; i < 20; i++) {
		CONNECT(i);
		ASSERT_EQ(0, queue_sync(i % 2 ? &other : &self->q, 0, 0));
	}
	while (rx_take(&self->q, &e) || rx_take(&other, &e))
		n += e.flags == PASTE_RX_NEW;
	EXPECT_EQ(20, n);
	EXPECT_EQ(20, queue_stat(&self->q, PASTE_STAT_ACCEPTS) +
			      queue_stat(&other, PASTE_STAT_ACCEPTS));
	queue_close(&other);
}

/* TCP_FASTOPEN: data in the SYN, and accepted before the handshake is over. */
TEST_F(accept, fastopen__data_in_the_syn)
{
	static const char both[] = "1539"; /* client, server, without cookies on either side */
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_RDWR), n = 16;
	struct stream in = {};
	char before[16] = "";
	__u8 b[1000];

	ASSERT_LT(0, read(fd, before, sizeof(before)));
	ASSERT_LT(0, pwrite(fd, both, strlen(both), 0));
	ASSERT_EQ(0, setsockopt(self->listener, IPPROTO_TCP, TCP_FASTOPEN, &n, sizeof(n)));
	START();
	pattern_write(b, 0, sizeof(b));
	to.sin_port = htons(self->port);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	self->client[0] = socket(AF_INET, SOCK_STREAM, 0);
	EXPECT_EQ(sizeof(b), sendto(self->client[0], b, sizeof(b), MSG_FASTOPEN,
				    (struct sockaddr *)&to, sizeof(to)));
	in.conn = take_new(&self->q);
	EXPECT_NE(0, in.conn);
	EXPECT_TRUE(stream_until(&in, &self->q, sizeof(b), SOON));
	EXPECT_FALSE(in.wrong);
	EXPECT_LT(0, pwrite(fd, before, strlen(before), 0));
	close(fd);
}

TEST_HARNESS_MAIN
