// SPDX-License-Identifier: GPL-2.0
/* What an application may write into its rings, and must not; sync and poll(2). */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/tcp.h>

#include "util.h"
#include "harness.h"

#define N_TX 512

/* Two queues of a context, with a connection each. */
FIXTURE(ring)
{
	struct ctx ctx;
	struct queue q;
	struct queue other;
	int sv[2];
	int other_sv[2];
	__u32 conn;
	__u32 other_conn;
	struct stream in;
	struct peer peer;
	struct peer other_peer;
};

FIXTURE_VARIANT(ring) {
	__u32 chunk_size;
};

FIXTURE_VARIANT_ADD(ring, c4096){ .chunk_size = 4096 };
FIXTURE_VARIANT_ADD(ring, c2048){ .chunk_size = 2048 };

FIXTURE_SETUP(ring)
{
	struct paste_ioc_queue opts = { .rx_chunks = 128 };

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, ctx_make(&self->ctx, variant->chunk_size, 256, N_TX)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->q, &self->ctx, &opts)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->other, &self->ctx, NULL)) TH_LOG("%s", text);
	fill_slice(&self->q);
	fill_slice(&self->other);
	ASSERT_EQ(0, tcp_pair(AF_INET, self->sv));
	ASSERT_EQ(0, tcp_pair(AF_INET, self->other_sv));
	ASSERT_EQ(0, queue_attach(&self->q, self->sv[0], 0, &self->conn)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_attach(&self->other, self->other_sv[0], 0, &self->other_conn))
	TH_LOG("%s", text);
	self->in.conn = self->conn;
	peer_init(&self->peer, self->sv[1]);
	peer_init(&self->other_peer, self->other_sv[1]);
}

FIXTURE_TEARDOWN(ring)
{
	EXPECT_EQ(0, self->q.bad);
	EXPECT_EQ(0, self->other.bad);
	EXPECT_FALSE(self->in.wrong);
	EXPECT_FALSE(self->peer.wrong);
	EXPECT_FALSE(self->other_peer.wrong);
	close(self->sv[0]);
	close(self->sv[1]);
	close(self->other_sv[0]);
	close(self->other_sv[1]);
	queue_close(&self->q);
	queue_close(&self->other);
	ctx_close(&self->ctx);
}

/* Syncs until the peer has got that much or its end is closed. */
static void peer_until(struct queue *q, struct peer *p, __u64 upto, unsigned int ms)
{
	__u64 end = now_ms() + ms;

	while (p->got < upto && !p->eof && !p->err && now_ms() < end) {
		peer_recv(p);
		queue_sync(q, 0, 1000);
	}
	peer_recv(p);
}

/* ------------------------------------------------------------------------- */

TEST_F(ring, tx__bad_entries)
{
	const __u32 size = variant->chunk_size, tx = self->ctx.first_tx;
	const __u32 end = tx + N_TX, held = self->q.first, rx = self->ctx.first_rx;
	const struct {
		__u32 conn, chunk, off, len, flags;
		int result;
	} bad[] = {
		{ 0, tx, 0, 10, 0, -ENOENT },
		{ 0xffffffff, tx, 0, 10, 0, -ENOENT },
		{ self->conn + 0x10000, tx, 0, 10, 0, -ENOENT },
		{ self->conn ^ 0x8000, tx, 0, 10, 0, -ENOENT },
		{ self->other_conn, tx, 0, 10, 0, -EXDEV },
		{ self->conn, 0, 0, 10, 0, -EINVAL },
		{ self->conn, end, 0, 10, 0, -EINVAL },
		{ self->conn, 0x80000000, 0, 10, 0, -EINVAL },
		{ self->conn, 0xffffffff, 0, 10, 0, -EINVAL },
		{ self->conn, tx, size, 1, 0, -EINVAL },
		{ self->conn, tx, 1, size, 0, -EINVAL },
		{ self->conn, tx, 0, size + 1, 0, -EINVAL },
		{ self->conn, tx, 0, 65535, 0, -EINVAL },
		{ self->conn, tx, 65535, 65535, 0, -EINVAL },
		{ self->conn, tx, 65535, 1, 0, -EINVAL },
		{ self->conn, tx, 0, 0, 0, -EINVAL },
		{ self->conn, tx, 0, 0, PASTE_TX_MORE, -EINVAL },
		{ self->conn, tx, 0, 10, 1U << 31, -EOPNOTSUPP },
		{ self->conn, tx, 0, 10, 1U << 3, -EOPNOTSUPP },
		{ self->conn, held, 0, 10, 0, -EPERM },
		{ self->conn, rx, 0, 10, 0, -EPERM },
	};
	unsigned int done[ARRAY_SIZE(bad)] = {}, good = 0, seen = 0;
	struct paste_comp c;

	/* one good one of 100 bytes before each bad one, and all in one batch */
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 100, 100);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 100, 0, 1000 + i));
		ASSERT_TRUE(tx_put(&self->q, bad[i].conn, bad[i].chunk, bad[i].off, bad[i].len,
				   bad[i].flags, i));
	}
	while (seen < 2 * ARRAY_SIZE(bad) && comp_wait(&self->q, &c, SOON)) {
		seen++;
		if (c.cookie >= 1000) {
			EXPECT_EQ(100, c.result);
			EXPECT_EQ(self->conn, c.conn);
			good++;
			continue;
		}
		ASSERT_LT(c.cookie, ARRAY_SIZE(bad));
		EXPECT_EQ(bad[c.cookie].result, c.result)
		{
			TH_LOG("bad entry %llu", c.cookie);
		}
		EXPECT_EQ(bad[c.cookie].conn, c.conn);
		done[c.cookie]++;
	}
	EXPECT_EQ(ARRAY_SIZE(bad), good);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(1, done[i])
		{
			TH_LOG("bad entry %u", i);
		}
	}
	EXPECT_EQ(ARRAY_SIZE(bad), queue_stat(&self->q, PASTE_STAT_SEND_BAD));
	EXPECT_EQ(ARRAY_SIZE(bad), queue_stat(&self->q, PASTE_STAT_SENDS));

	/* the peers got the good ones and nothing else */
	peer_until(&self->q, &self->peer, ARRAY_SIZE(bad) * 100, SOON);
	EXPECT_EQ(ARRAY_SIZE(bad) * 100, self->peer.got);
	EXPECT_EQ(-1, recv(self->other_sv[1], &c, sizeof(c), MSG_DONTWAIT));
	EXPECT_TRUE(echo(&self->q, &self->in, &self->peer, self->peer.got, SOON));
}

TEST_F(ring, tx__holding_makes_it_right)
{
	struct paste_comp c;
	struct paste_rx e;

	/* an rx chunk may be sent while it is held, and not after it was given back */
	peer_send(&self->peer, 1000);
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	ASSERT_TRUE(tx_put(&self->q, self->conn, e.chunk, e.off, e.len, 0, 1));
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(1000, c.result);
	peer_until(&self->q, &self->peer, 1000, SOON);
	EXPECT_EQ(1000, self->peer.got);
	fill_put(&self->q, e.chunk);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_TRUE(tx_put(&self->q, self->conn, e.chunk, e.off, e.len, 0, 2));
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(-EPERM, c.result);
}

TEST_F(ring, tx__chunk_of_another_queue)
{
	struct paste_comp c;
	struct paste_rx e;

	/* received on one queue, sent on another, given back to the first */
	peer_send(&self->peer, 1000);
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	ASSERT_TRUE(tx_put(&self->other, self->other_conn, e.chunk, e.off, e.len, 0, 7));
	ASSERT_TRUE(comp_wait(&self->other, &c, SOON));
	EXPECT_EQ(1000, c.result);
	EXPECT_EQ(7, c.cookie);
	EXPECT_EQ(self->other_conn, c.conn);
	peer_until(&self->other, &self->other_peer, 1000, SOON);
	EXPECT_EQ(1000, self->other_peer.got);

	fill_put(&self->other, e.chunk);
	ASSERT_EQ(0, queue_sync(&self->other, 0, 0));
	EXPECT_EQ(1, queue_stat(&self->other, PASTE_STAT_FILL_BAD));
	fill_put(&self->q, e.chunk);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(0, queue_stat(&self->q, PASTE_STAT_FILL_BAD));
}

TEST_F(ring, tx__same_chunk_many_times)
{
	unsigned int seen = 0;
	struct paste_comp c;

	pattern_write(chunk_at(&self->ctx, self->ctx.first_tx, 0), 0, 2000);
	for (int i = 0; i < 20; i++) {
		ASSERT_TRUE(tx_put(&self->q, self->conn, self->ctx.first_tx, i * 100, 100, 0, i));
	}
	while (seen < 20 && comp_wait(&self->q, &c, SOON)) {
		EXPECT_EQ(100, c.result);
		seen++;
	}
	EXPECT_EQ(20, seen);
	peer_until(&self->q, &self->peer, 2000, SOON);
	EXPECT_EQ(2000, self->peer.got);
}

TEST_F(ring, tx__small_ones_are_copied)
{
	struct paste_comp c;
	struct paste_ioc_info info;

	ASSERT_EQ(0, ctx_info(self->ctx.fd, &info));
	if (!info.tx_copy_max)
		SKIP(return, "nothing is copied");
	/* so that they are over at once, though nobody acknowledges them */
	pattern_write(chunk_at(&self->ctx, self->ctx.first_tx, 0), 0, info.tx_copy_max);
	ASSERT_TRUE(tx_put(&self->q, self->conn, self->ctx.first_tx, 0, info.tx_copy_max, 0, 1));
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_TRUE(comp_take(&self->q, &c));
	EXPECT_EQ(info.tx_copy_max, c.result);
	EXPECT_EQ(1, queue_stat(&self->q, PASTE_STAT_SEND_COPIED));
	memset(chunk_at(&self->ctx, self->ctx.first_tx, 0), 0xff, info.tx_copy_max);
	peer_until(&self->q, &self->peer, info.tx_copy_max, SOON);
	EXPECT_EQ(info.tx_copy_max, self->peer.got);
}

TEST_F(ring, tx__after_shut_wr)
{
	const __u32 tx = self->ctx.first_tx;
	struct paste_comp c;
	int result[6] = {};

	for (int i = 0; i < 3; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 2000, 2000);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 2000,
				   i == 2 ? PASTE_TX_SHUT_WR : 0, i));
	}
	for (int i = 3; i < 6; i++) {
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx, 0, 2000, 0, i));
	}
	for (int i = 0; i < 6; i++) {
		ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
		ASSERT_GT(6, c.cookie);
		result[c.cookie] = c.result;
	}
	EXPECT_EQ(2000, result[0]);
	EXPECT_EQ(2000, result[1]);
	EXPECT_EQ(2000, result[2]);
	for (int i = 3; i < 6; i++) {
		EXPECT_TRUE(result[i] == -EPIPE || (i > 3 && result[i] == -ECANCELED))
		{
			TH_LOG("%d: %d", i, result[i]);
		}
	}
	peer_until(&self->q, &self->peer, ~0ULL, SOON);
	EXPECT_EQ(6000, self->peer.got);
	EXPECT_TRUE(self->peer.eof);
}

TEST_F(ring, tx__close)
{
	const __u32 tx = self->ctx.first_tx;
	struct paste_comp c;
	int result[4] = {};

	for (int i = 0; i < 3; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 2000, 2000);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 2000,
				   i == 2 ? PASTE_TX_CLOSE : 0, i));
	}
	ASSERT_TRUE(tx_put(&self->q, self->conn, tx, 0, 2000, 0, 3));
	for (int i = 0; i < 4; i++) {
		ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
		ASSERT_GT(4, c.cookie);
		result[c.cookie] = c.result;
	}
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(2000, result[i]);
	}
	EXPECT_GT(0, result[3]);
	peer_until(&self->q, &self->peer, ~0ULL, SOON);
	EXPECT_EQ(6000, self->peer.got);
	EXPECT_TRUE(self->peer.eof);

	/* the handle is gone, nothing more comes for it */
	EXPECT_TRUE(queue_conns(&self->q, 0, SOON));
	EXPECT_EQ(-ENOENT, queue_detach(&self->q, self->conn));
	ASSERT_TRUE(tx_put(&self->q, self->conn, tx, 0, 2000, 0, 9));
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(-ENOENT, c.result);
	peer_send(&self->peer, 100);
	sleep_ms(NEVER);
	EXPECT_EQ(0, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(0, ring_ready(&self->q.rx));
}

TEST_F(ring, tx__close_without_data)
{
	struct paste_comp c;

	ASSERT_TRUE(tx_put(&self->q, self->conn, 0, 0, 0, PASTE_TX_CLOSE, 4));
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(0, c.result);
	EXPECT_EQ(4, c.cookie);
	peer_until(&self->q, &self->peer, ~0ULL, SOON);
	EXPECT_TRUE(self->peer.eof);
	EXPECT_TRUE(queue_conns(&self->q, 0, SOON));
}

TEST_F(ring, tx__close_with_much_before_it)
{
	const __u32 tx = self->ctx.first_tx;
	unsigned int seen = 0, n = N_TX;
	struct paste_comp c;
	__u64 end = now_ms() + SOON;

	/* what does not fit into the socket's buffer goes out before the FIN */
	for (unsigned int i = 0; i < n; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 2048, 2048);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 2048,
				   i == n - 1 ? PASTE_TX_CLOSE : 0, i));
	}
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	sleep_ms(50);
	while (seen < n && now_ms() < end) {
		peer_recv(&self->peer);
		ASSERT_EQ(0, queue_sync(&self->q, 0, 1000));
		while (comp_take(&self->q, &c)) {
			ASSERT_EQ(2048, c.result);
			seen++;
		}
	}
	EXPECT_EQ(n, seen);
	peer_until(&self->q, &self->peer, ~0ULL, SOON);
	EXPECT_EQ(n * 2048, self->peer.got);
	EXPECT_TRUE(self->peer.eof);
}

TEST_F(ring, tx__more)
{
	const __u32 tx = self->ctx.first_tx;
	struct tcp_info before, after;
	socklen_t len = sizeof(before);
	unsigned int seen = 0;
	struct paste_comp c;
	int on = 1;

	ASSERT_EQ(0, setsockopt(self->sv[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	ASSERT_EQ(0, getsockopt(self->sv[0], IPPROTO_TCP, TCP_INFO, &before, &len));
	for (int i = 0; i < 20; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 400, 400);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 400, i < 19 ? PASTE_TX_MORE : 0,
				   i));
	}
	while (seen < 20 && comp_wait(&self->q, &c, SOON)) {
		EXPECT_EQ(400, c.result);
		seen++;
	}
	EXPECT_EQ(20, seen);
	peer_until(&self->q, &self->peer, 8000, SOON);
	EXPECT_EQ(8000, self->peer.got);
	len = sizeof(after);
	ASSERT_EQ(0, getsockopt(self->sv[0], IPPROTO_TCP, TCP_INFO, &after, &len));
	/* 8000 bytes are one segment of loopback; some more for a timer of TCP */
	EXPECT_GE(4, after.tcpi_data_segs_out - before.tcpi_data_segs_out);
}

TEST_F(ring, tx__more_and_never_the_rest)
{
	struct paste_comp c;

	/* TCP sends it by itself after a while */
	pattern_write(chunk_at(&self->ctx, self->ctx.first_tx, 0), 0, 400);
	ASSERT_TRUE(tx_put(&self->q, self->conn, self->ctx.first_tx, 0, 400, PASTE_TX_MORE, 1));
	peer_until(&self->q, &self->peer, 400, SOON);
	EXPECT_EQ(400, self->peer.got);
	ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
	EXPECT_EQ(400, c.result);
}

TEST_F(ring, tx__errors_then_cancelled)
{
	struct linger now = { .l_onoff = 1 };
	int first = 0, later = 0;
	struct paste_comp c;

	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(self->sv[1]);
	self->sv[1] = -1;
	sleep_ms(50);
	for (int i = 0; i < 5; i++) {
		ASSERT_TRUE(tx_put(&self->q, self->conn, self->ctx.first_tx, 0, 2000, 0, i));
	}
	for (int i = 0; i < 5; i++) {
		ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
		first += c.result == -ECONNRESET || c.result == -EPIPE;
		later += c.result == -ECANCELED;
	}
	EXPECT_EQ(5, first + later);
	EXPECT_GE(1, first);
}

static void queue_in_sends(struct __test_metadata *_metadata, FIXTURE_DATA(ring) * self,
			   unsigned int n, __u32 size)
{
	const __u32 tx = self->ctx.first_tx;

	for (unsigned int i = 0; i < n; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), (__u64)i * size, size);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, size, 0, i));
	}
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
}

/* Reads slowly; says whether every send completed once with its full size. */
static bool read_slowly(FIXTURE_DATA(ring) * self, unsigned int n, __u32 size, unsigned int pause)
{
	__u8 done[2048] = {}, b[8192];
	struct peer *p = &self->peer;
	__u64 end = now_ms() + 3 * SOON;
	unsigned int seen = 0;
	struct paste_comp c;
	ssize_t got;

	while ((seen < n || p->got < (__u64)n * size) && now_ms() < end) {
		got = recv(p->fd, b, sizeof(b), MSG_DONTWAIT);
		if (got > 0) {
			p->wrong |= !pattern_check(b, p->got, got);
			p->got += got;
		}
		if (pause)
			sleep_ms(pause);
		if (queue_sync(&self->q, 0, got > 0 ? 0 : 1000))
			return false;
		while (comp_take(&self->q, &c)) {
			if (c.cookie >= n || done[c.cookie]++ || c.result != (int)size)
				return false;
			seen++;
		}
	}
	return seen == n && p->got == (__u64)n * size && !p->wrong;
}

TEST_F(ring, partial__slow_peer_64k)
{
	int small = 4096;

	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	queue_in_sends(_metadata, self, 32, 2048);
	sleep_ms(100);
	EXPECT_TRUE(read_slowly(self, 32, 2048, 1)) TH_LOG("%llu", self->peer.got);
}

TEST_F(ring, partial__slow_peer_1m)
{
	int small = 16384;

	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	queue_in_sends(_metadata, self, 512, 2048);
	sleep_ms(100);
	EXPECT_TRUE(read_slowly(self, 512, 2048, 0)) TH_LOG("%llu", self->peer.got);
	EXPECT_EQ(1 << 20, queue_stat(&self->q, PASTE_STAT_SEND_BYTES));
	EXPECT_LT(0, queue_stat(&self->q, PASTE_STAT_SEND_AGAIN));
}

TEST_F(ring, partial__odd_sizes)
{
	const __u32 tx = self->ctx.first_tx;
	int small = 4096, seen = 0;
	__u64 pos = 0, end = now_ms() + 3 * SOON;
	struct paste_comp c;

	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	for (int i = 0; i < 400; i++) {
		__u32 len = 1 + i * 37 % 2000, off = i * 13 % 48;

		pattern_write(chunk_at(&self->ctx, tx + i, off), pos, len);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, off, len,
				   i & 1 ? PASTE_TX_MORE : 0, len));
		pos += len;
	}
	while ((seen < 400 || self->peer.got < pos) && now_ms() < end) {
		ASSERT_EQ(0, queue_sync(&self->q, 0, 1000));
		peer_recv(&self->peer);
		while (comp_take(&self->q, &c)) {
			ASSERT_EQ((int)c.cookie, c.result);
			seen++;
		}
	}
	EXPECT_EQ(400, seen);
	EXPECT_EQ(pos, self->peer.got);
}

TEST_F(ring, partial__goes_on_without_sync)
{
	int small = 8192;
	__u64 end = now_ms() + SOON;

	/* the application sleeps; TCP asks for more by itself */
	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	queue_in_sends(_metadata, self, 128, 2048);
	while (self->peer.got < 128 * 2048 && now_ms() < end) {
		peer_recv(&self->peer);
		sleep_ms(1);
	}
	EXPECT_EQ(128 * 2048, self->peer.got);
}

TEST(partial__8m_queued_at_once)
{
	struct paste_ioc_queue opts = { .tx_entries = 2048, .comp_entries = 4096 };
	unsigned int n = 2048, seen = 0;
	__u64 end = now_ms() + 2 * SOON;
	struct paste_comp c;
	struct peer peer;
	struct queue q;
	struct ctx ctx;
	__u32 conn;
	int sv[2];

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, ctx_make(&ctx, 4096, 64, n)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &ctx, &opts)) TH_LOG("%s", text);
	fill_slice(&q);
	ASSERT_EQ(0, tcp_pair(AF_INET6, sv));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, &conn)) TH_LOG("%s", text);
	peer_init(&peer, sv[1]);
	for (unsigned int i = 0; i < n; i++) {
		pattern_write(chunk_at(&ctx, ctx.first_tx + i, 0), i * 4096ULL, 4096);
		ASSERT_TRUE(tx_put(&q, conn, ctx.first_tx + i, 0, 4096, 0, i));
	}
	while ((seen < n || peer.got < n * 4096ULL) && now_ms() < end) {
		ASSERT_EQ(0, queue_sync(&q, 0, 1000));
		peer_recv(&peer);
		while (comp_take(&q, &c)) {
			ASSERT_EQ(4096, c.result);
			seen++;
		}
	}
	EXPECT_EQ(n, seen);
	EXPECT_EQ(n * 4096ULL, peer.got);
	EXPECT_FALSE(peer.wrong);
	queue_close(&q);
	ctx_close(&ctx);
}

TEST_F(ring, comp__no_room)
{
	struct paste_ioc_queue opts = { .tx_entries = 256, .comp_entries = 64, .rx_chunks = 64 };
	unsigned int seen = 0;
	__u8 done[256] = {};
	__u64 end = now_ms() + SOON;
	struct paste_comp c;
	struct peer p;
	struct queue q;
	struct ctx ctx;
	__u32 conn;
	int sv[2];

	/* four times as many sends as completions fit; nobody looks at them */
	ASSERT_EQ(0, ctx_make(&ctx, variant->chunk_size, 64, 16)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &ctx, &opts)) TH_LOG("%s", text);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, &conn)) TH_LOG("%s", text);
	peer_init(&p, sv[1]);
	pattern_write(chunk_at(&ctx, ctx.first_tx, 0), 0, 256);
	for (int i = 0; i < 256; i++) {
		ASSERT_TRUE(tx_put(&q, conn, ctx.first_tx, i, 1, 0, i));
	}
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(0, queue_sync(&q, 0, 0));
		ASSERT_GE(64, ring_ready(&q.comp));
	}
	EXPECT_LT(0, queue_stat(&q, PASTE_STAT_STALL_COMP));
	while (seen < 256 && now_ms() < end) {
		ASSERT_EQ(0, queue_sync(&q, 0, 1000));
		ASSERT_GE(64, ring_ready(&q.comp));
		while (comp_take(&q, &c)) {
			ASSERT_EQ(1, c.result);
			ASSERT_EQ(0, done[c.cookie & 255]++);
			seen++;
		}
	}
	EXPECT_EQ(256, seen);
	peer_until(&q, &p, 256, SOON);
	EXPECT_EQ(256, p.got);
	EXPECT_FALSE(p.wrong);
	queue_close(&q);
	ctx_close(&ctx);
	close(sv[0]);
	close(sv[1]);
}

/* ------------------------------------------------------------------------- */

TEST_F(ring, fill__bad_entries)
{
	struct paste_ioc_stats before, after;
	const __u32 bad[] = {
		0,
		0xffffffff,
		0x80000000,
		self->ctx.first_tx,
		self->ctx.first_tx + N_TX,
		self->other.first,
		self->other.first + self->other.n - 1,
		self->q.first, /* given back already */
		self->q.first + self->q.n - 1,
	};

	ASSERT_EQ(0, queue_stats(&self->q, &before));
	EXPECT_EQ(128, before.chunks_free);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		fill_put(&self->q, bad[i]);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	ASSERT_EQ(0, queue_stats(&self->q, &after));
	EXPECT_EQ(ARRAY_SIZE(bad), after.v[PASTE_STAT_FILL_BAD] - before.v[PASTE_STAT_FILL_BAD]);
	EXPECT_EQ(before.chunks_free, after.chunks_free);
	EXPECT_TRUE(echo(&self->q, &self->in, &self->peer, 600000, SOON));
	EXPECT_TRUE(queue_sync(&self->other, 0, 0) == 0);
}

TEST_F(ring, fill__double)
{
	struct paste_rx e;

	peer_send(&self->peer, 100);
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	for (int i = 0; i < 5; i++)
		fill_put(&self->q, e.chunk);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(4, queue_stat(&self->q, PASTE_STAT_FILL_BAD));
}

TEST_F(ring, fill__same_batch_as_the_send)
{
	unsigned int good = 0, refused = 0;
	struct paste_comp c;
	struct paste_rx e;

	/*
	 * Which of the two rings is looked at first is not said. Either the send
	 * is refused, or it is right: never half of it.
	 */
	for (int i = 0; i < 50; i++) {
		peer_send(&self->peer, self->peer.sent + 1000);
		ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
		ASSERT_TRUE(tx_put(&self->q, self->conn, e.chunk, e.off, e.len, 0, i));
		fill_put(&self->q, e.chunk);
		ASSERT_TRUE(comp_wait(&self->q, &c, SOON));
		ASSERT_TRUE(c.result == e.len || c.result == -EPERM);
		good += c.result > 0;
		refused += c.result < 0;
	}
	EXPECT_TRUE(!good || !refused);
	EXPECT_EQ(0, queue_stat(&self->q, PASTE_STAT_FILL_BAD));
}

/* Two entries with the same chunk, or false when the module does not do that. */
static bool find_twin(FIXTURE_DATA(ring) * self, struct paste_rx twin[2])
{
	struct paste_rx e[64];
	unsigned int n = 0;

	for (; n < ARRAY_SIZE(e); n++) {
		peer_send(&self->peer, self->peer.sent + 50);
		if (!rx_wait(&self->q, &e[n], SOON))
			return false;
		self->in.pos += e[n].len;
		if (n && e[n].chunk == e[n - 1].chunk) {
			twin[0] = e[n - 1];
			twin[1] = e[n];
			for (unsigned int i = 0; i + 1 < n; i++)
				fill_put(&self->q, e[i].chunk);
			return true;
		}
	}
	return false;
}

TEST_F(ring, fill__delivered_twice_given_back_once)
{
	struct paste_rx twin[2], e;
	__u64 end = now_ms() + 2 * SOON;
	__u8 was[2][64];
	bool reused = false;

	if (!find_twin(self, twin))
		SKIP(return, "no chunk has two pieces");
	for (int i = 0; i < 2; i++)
		memcpy(was[i], chunk_at(&self->ctx, twin[i].chunk, twin[i].off), twin[i].len);
	fill_put(&self->q, twin[0].chunk);

	/* five times round the slice: it is not used, and not changed */
	while (self->in.pos < 5ULL * 128 * variant->chunk_size && now_ms() < end) {
		peer_send(&self->peer, self->in.pos + 100000);
		ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
		if (e.chunk == twin[0].chunk) {
			/* behind the two pieces may be a third */
			ASSERT_LT(twin[1].off, e.off);
		}
		stream_take(&self->in, &self->q, &e);
		for (int i = 0; i < 2; i++) {
			ASSERT_EQ(0,
				  memcmp(was[i], chunk_at(&self->ctx, twin[i].chunk, twin[i].off),
					 twin[i].len));
		}
	}
	EXPECT_LE(5ULL * 128 * variant->chunk_size, self->in.pos);

	/* given back a second time it is used again */
	fill_put(&self->q, twin[0].chunk);
	end = now_ms() + 2 * SOON;
	while (!reused && now_ms() < end) {
		peer_send(&self->peer, self->in.pos + 100000);
		ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
		reused = e.chunk == twin[0].chunk;
		stream_take(&self->in, &self->q, &e);
	}
	EXPECT_TRUE(reused);
}

TEST_F(ring, fill__not_reused_while_sent)
{
	int small = 4096, quiet = 0;
	struct paste_rx e;
	__u8 was[4096];

	/* a received chunk waits in the send queue of a connection whose peer is slow */
	ASSERT_EQ(0, setsockopt(self->other_sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	peer_send(&self->peer, 1000);
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	memcpy(was, chunk_at(&self->ctx, e.chunk, e.off), e.len);
	for (int i = 0; i < 1000; i++) {
		ASSERT_TRUE(tx_put(&self->other, self->other_conn, e.chunk, e.off, e.len, 0, i));
	}
	ASSERT_EQ(0, queue_sync(&self->other, 0, 0));
	self->in.pos = e.len;
	fill_put(&self->q, e.chunk);

	for (int i = 0; i < 400 && !quiet; i++) {
		struct paste_rx next;

		peer_send(&self->peer, self->in.pos + 20000);
		ASSERT_TRUE(rx_wait(&self->q, &next, SOON));
		if (next.chunk == e.chunk) {
			ASSERT_LE(e.off + e.len, next.off);
		}
		stream_take(&self->in, &self->q, &next);
		ASSERT_EQ(0, memcmp(was, chunk_at(&self->ctx, e.chunk, e.off), e.len));
	}
}

/* ------------------------------------------------------------------------- */

enum which {
	RX_CONS,
	COMP_CONS,
	FILL_PROD,
	TX_PROD
};

FIXTURE(hostile)
{
	struct ctx ctx;
	struct queue q;
	struct queue other;
	int sv[2];
	int other_sv[2];
	struct stream in;
	struct peer peer;
	__u32 conn;
};

FIXTURE_VARIANT(hostile) {
	enum which which;
	__u32 by;
};

FIXTURE_VARIANT_ADD(hostile, rx_cons_one){ .which = RX_CONS, .by = 1 };
FIXTURE_VARIANT_ADD(hostile, rx_cons_far){ .which = RX_CONS, .by = 0x80000000 };
FIXTURE_VARIANT_ADD(hostile, comp_cons_one){ .which = COMP_CONS, .by = 1 };
FIXTURE_VARIANT_ADD(hostile, comp_cons_far){ .which = COMP_CONS, .by = 0x7fffffff };
FIXTURE_VARIANT_ADD(hostile, fill_prod_one){ .which = FILL_PROD, .by = 64 + 1 };
FIXTURE_VARIANT_ADD(hostile, fill_prod_back){ .which = FILL_PROD, .by = 0xffffffff };
FIXTURE_VARIANT_ADD(hostile, tx_prod_one){ .which = TX_PROD, .by = 64 + 1 };
FIXTURE_VARIANT_ADD(hostile, tx_prod_back){ .which = TX_PROD, .by = 0xffffffff };

FIXTURE_SETUP(hostile)
{
	struct paste_ioc_queue opts = {
		.rx_entries = 64,
		.fill_entries = 64,
		.tx_entries = 64,
		.comp_entries = 64,
		.rx_chunks = 64,
	};

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 128, 16)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->q, &self->ctx, &opts)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->other, &self->ctx, &opts)) TH_LOG("%s", text);
	fill_slice(&self->q);
	fill_slice(&self->other);
	ASSERT_EQ(0, tcp_pair(AF_INET, self->sv));
	ASSERT_EQ(0, tcp_pair(AF_INET, self->other_sv));
	ASSERT_EQ(0, queue_attach(&self->q, self->sv[0], 0, &self->conn)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_attach(&self->other, self->other_sv[0], 0, &self->in.conn))
	TH_LOG("%s", text);
	peer_init(&self->peer, self->other_sv[1]);
}

FIXTURE_TEARDOWN(hostile)
{
	close(self->sv[0]);
	close(self->sv[1]);
	close(self->other_sv[0]);
	close(self->other_sv[1]);
	queue_close(&self->q);
	queue_close(&self->other);
	ctx_close(&self->ctx);
}

static __u32 *hostile_index(struct queue *q, enum which which)
{
	switch (which) {
	case RX_CONS:
		return q->rx.cons;
	case COMP_CONS:
		return q->comp.cons;
	case FILL_PROD:
		return q->fill.prod;
	default:
		return q->tx.prod;
	}
}

TEST_F(hostile, index__kills_the_queue_only)
{
	struct pollfd p = { .fd = self->q.fd, .events = POLLIN };
	__u32 *index = hostile_index(&self->q, variant->which);
	char b[16];
	int sv[2];

	/* with a send and some data under way */
	tx_put(&self->q, self->conn, self->ctx.first_tx, 0, 1000, 0, 0);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	if (variant->which == RX_CONS || variant->which == COMP_CONS)
		*index = *(variant->which == RX_CONS ? self->q.rx.prod : self->q.comp.prod);
	__atomic_store_n(index, *index + variant->by, __ATOMIC_RELEASE);
	EXPECT_EQ(-EIO, queue_sync(&self->q, 0, 0));
	ASSERT_EQ(10, send(self->sv[1], "0123456789", 10, 0));
	EXPECT_EQ(-EIO, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(-EIO, queue_sync(&self->q, 1000, 1000));
	EXPECT_TRUE(*self->q.flags & PASTE_Q_DEAD);
	EXPECT_EQ(1, poll(&p, 1, SOON));
	EXPECT_TRUE(p.revents & POLLERR);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	EXPECT_EQ(-EIO, queue_attach(&self->q, sv[0], 0, NULL));

	/* repentance does not help */
	__atomic_store_n(index, *index - variant->by, __ATOMIC_RELEASE);
	EXPECT_EQ(-EIO, queue_sync(&self->q, 0, 0));

	/* the other queue does not notice */
	EXPECT_TRUE(echo(&self->other, &self->in, &self->peer, 100000, SOON));

	/* the socket of the dead one is an ordinary one after the queue is closed */
	queue_close(&self->q);
	ASSERT_EQ(1, send(self->sv[1], "x", 1, 0));
	EXPECT_LT(0, recv(self->sv[0], b, sizeof(b), 0));
	EXPECT_EQ(1, send(self->sv[0], "y", 1, MSG_NOSIGNAL));
}

TEST_F(hostile, random__everything)
{
	__u64 end = now_ms() + 600;
	unsigned int seed = variant->by + variant->which;
	struct paste_rx e;
	struct paste_comp c;

	/* all that can be written is garbage for a while, the indices stay within bounds */
	while (now_ms() < end) {
		for (unsigned int i = 0; i < 64; i++) {
			struct paste_tx *tx = (struct paste_tx *)self->q.tx.desc + i;
			__u8 *p = (__u8 *)tx;

			for (unsigned int j = 0; j < sizeof(*tx); j++)
				p[j] = rand_r(&seed);
			if (rand_r(&seed) & 1)
				tx->conn = self->conn;
			if (rand_r(&seed) & 1)
				tx->chunk = rand_r(&seed) % 160;
			tx->flags &= rand_r(&seed) & 1 ? PASTE_TX_MORE : 0x10000;
			((__u32 *)self->q.fill.desc)[i] = rand_r(&seed) % 160;
		}
		send(self->sv[1], text, sizeof(text), MSG_DONTWAIT);
		recv(self->sv[1], text, sizeof(text), MSG_DONTWAIT);
		self->q.tx.own += rand_r(&seed) % 32;
		self->q.fill.own += rand_r(&seed) % 64;
		__atomic_store_n(self->q.tx.prod, self->q.tx.own, __ATOMIC_RELEASE);
		__atomic_store_n(self->q.fill.prod, self->q.fill.own, __ATOMIC_RELEASE);
		do {
			ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
			while (comp_take(&self->q, &c))
				;
		} while (*self->q.tx.cons != self->q.tx.own && now_ms() < end + SOON);
		while (rx_take(&self->q, &e))
			;
	}
	EXPECT_TRUE(echo(&self->other, &self->in, &self->peer, 100000, SOON));
}

struct scribbler {
	struct queue *q;
	volatile bool stop;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	unsigned int seed = 1;

	while (!s->stop) {
		for (unsigned int i = 0; i < 64; i++) {
			struct paste_tx *tx = (struct paste_tx *)s->q->tx.desc + i;

			tx->conn ^= rand_r(&seed) & 3;
			tx->chunk = rand_r(&seed) % 160;
			tx->off = rand_r(&seed);
			tx->len = rand_r(&seed);
			tx->flags = rand_r(&seed) & 0x80000001;
			((__u32 *)s->q->fill.desc)[i] = rand_r(&seed) % 160;
		}
	}
	return NULL;
}

TEST_F(hostile, race__entries_change_while_read)
{
	struct scribbler s = { .q = &self->q };
	__u64 end = now_ms() + 600;
	struct paste_comp c;
	struct paste_rx e;
	pthread_t t;
	int err;

	ASSERT_EQ(0, pthread_create(&t, NULL, scribble, &s));
	while (now_ms() < end) {
		for (int i = 0; i < 32; i++)
			tx_put(&self->q, self->conn, self->ctx.first_tx, 0, 1000, 0, 0);
		self->q.fill.own = *self->q.fill.cons + 32;
		__atomic_store_n(self->q.fill.prod, self->q.fill.own, __ATOMIC_RELEASE);
		err = queue_sync(&self->q, 0, 0);
		ASSERT_EQ(0, err);
		while (comp_take(&self->q, &c))
			;
		while (rx_take(&self->q, &e))
			;
		while (recv(self->sv[1], text, sizeof(text), MSG_DONTWAIT) > 0)
			;
		send(self->sv[1], text, sizeof(text), MSG_DONTWAIT);
	}
	s.stop = true;
	pthread_join(t, NULL);
	EXPECT_TRUE(echo(&self->other, &self->in, &self->peer, 100000, SOON));
}

/* ------------------------------------------------------------------------- */

static void *sync_forever(void *arg)
{
	return (void *)(intptr_t)queue_sync(arg, 0, PASTE_FOREVER);
}

TEST_F(ring, sync__one_thread_at_a_time)
{
	void *result = (void *)1;
	pthread_t t;

	ASSERT_EQ(0, pthread_create(&t, NULL, sync_forever, &self->q));
	sleep_ms(NEVER);
	EXPECT_EQ(-EBUSY, queue_sync(&self->q, 0, 0));
	EXPECT_EQ(-EBUSY, queue_sync(&self->q, 0, 1000));
	/* the other queue is free */
	EXPECT_EQ(0, queue_sync(&self->other, 0, 0));
	/* data ends the wait */
	peer_send(&self->peer, 10);
	ASSERT_EQ(0, pthread_join(t, &result));
	EXPECT_EQ(NULL, result);
	EXPECT_EQ(1, ring_ready(&self->q.rx));
	EXPECT_EQ(0, queue_sync(&self->q, 0, 0));
}

TEST_F(ring, sync__returns_at_once_when_there_is_something)
{
	struct paste_ioc_sync s = { .size = sizeof(s), .wait_us = PASTE_FOREVER };
	struct paste_comp c;

	peer_send(&self->peer, 10);
	ASSERT_EQ(0, call(self->q.fd, PASTE_IOC_SYNC, &s));
	EXPECT_EQ(1, s.n_rx);
	ASSERT_EQ(0, call(self->q.fd, PASTE_IOC_SYNC, &s));
	EXPECT_EQ(1, s.n_rx);
	/* a completion is something, too */
	ASSERT_TRUE(tx_put(&self->other, self->other_conn, self->ctx.first_tx, 0, 10, 0, 3));
	ASSERT_EQ(0, call(self->other.fd, PASTE_IOC_SYNC, &s));
	EXPECT_EQ(0, s.n_rx);
	EXPECT_EQ(1, s.n_comp);
	EXPECT_TRUE(comp_take(&self->other, &c));
}

TEST_F(ring, sync__a_completion_ends_the_wait)
{
	const __u32 tx = self->ctx.first_tx;
	struct paste_comp c;
	void *result = (void *)1;
	pthread_t t;
	int small = 4096;

	/* by reference, and the peer's window is closed: completes when it opens */
	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	for (int i = 0; i < 200; i++) {
		pattern_write(chunk_at(&self->ctx, tx + i, 0), i * 2048, 2048);
		ASSERT_TRUE(tx_put(&self->q, self->conn, tx + i, 0, 2048, 0, i));
	}
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(0, queue_sync(&self->q, 0, 20000));
		while (comp_take(&self->q, &c))
			;
	}
	ASSERT_EQ(0, pthread_create(&t, NULL, sync_forever, &self->q));
	sleep_ms(100);
	for (__u64 end = now_ms() + SOON; now_ms() < end && self->peer.got < 200 * 2048;) {
		peer_recv(&self->peer);
		sleep_ms(1);
		if (!pthread_tryjoin_np(t, &result))
			break;
	}
	if (result) {
		ASSERT_EQ(0, pthread_join(t, &result));
	}
	EXPECT_EQ(NULL, result);
	EXPECT_LT(0, ring_ready(&self->q.comp));
}

TEST_F(ring, sync__timeouts)
{
	static const struct {
		__u32 busy, wait, least, most;
	} t[] = {
		{ 0, 0, 0, 1000 },	    { 0, 100000, 95, 5000 }, { 20000, 0, 0, 5000 },
		{ 20000, 50000, 45, 5000 }, { 0, 1, 0, 1000 },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++) {
		__u64 begin = now_ms();

		EXPECT_EQ(0, queue_sync(&self->q, t[i].busy, t[i].wait));
		EXPECT_LE(t[i].least, now_ms() - begin)
		{
			TH_LOG("busy %u wait %u", t[i].busy, t[i].wait);
		}
		EXPECT_GE(t[i].most * slow, now_ms() - begin)
		{
			TH_LOG("busy %u wait %u", t[i].busy, t[i].wait);
		}
	}
}

static void on_alarm(int signal)
{
	(void)signal;
}

TEST_F(ring, sync__interrupted)
{
	struct sigaction a = { .sa_handler = on_alarm };
	struct itimerval t = { .it_value.tv_usec = 100000 };

	ASSERT_EQ(0, sigaction(SIGALRM, &a, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &t, NULL));
	EXPECT_EQ(-EINTR, queue_sync(&self->q, 0, PASTE_FOREVER));
	t.it_value.tv_usec = 100000;
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &t, NULL));
	EXPECT_EQ(-EINTR, queue_sync(&self->q, 10000000, PASTE_FOREVER));
	EXPECT_TRUE(echo(&self->q, &self->in, &self->peer, 1000, SOON));
}

static void *close_later(void *arg)
{
	sleep_ms(200);
	close(*(int *)arg);
	return NULL;
}

TEST_F(ring, sync__queue_closed_meanwhile)
{
	pthread_t t;

	/* the file lives as long as somebody is in it; nothing hangs, nothing crashes */
	ASSERT_EQ(0, pthread_create(&t, NULL, close_later, &self->q.fd));
	EXPECT_EQ(0, queue_sync(&self->q, 0, 500000));
	pthread_join(t, NULL);
	EXPECT_EQ(-EBADF, queue_sync(&self->q, 0, 0));
	self->q.fd = -1;
}

static int polled(struct queue *q, int ms)
{
	struct pollfd p = { .fd = q->fd, .events = POLLIN };
	int n = poll(&p, 1, ms);

	return n > 0 ? p.revents : n;
}

TEST_F(ring, poll__rx)
{
	struct paste_rx e;

	EXPECT_EQ(0, polled(&self->q, 0));
	peer_send(&self->peer, 100);
	EXPECT_EQ(POLLIN, polled(&self->q, SOON));
	EXPECT_EQ(POLLIN, polled(&self->q, SOON));
	ASSERT_TRUE(rx_wait(&self->q, &e, SOON));
	EXPECT_EQ(0, polled(&self->q, 0));
}

TEST_F(ring, poll__comp)
{
	struct paste_comp c;

	ASSERT_TRUE(tx_put(&self->q, self->conn, self->ctx.first_tx, 0, 2000, 0, 1));
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	peer_recv(&self->peer);
	/* poll(2) moves completions into the ring */
	EXPECT_EQ(POLLIN, polled(&self->q, SOON));
	EXPECT_TRUE(comp_take(&self->q, &c));
	EXPECT_EQ(2000, c.result);
	self->peer.wrong = false;
}

TEST_F(ring, poll__stalled_connection)
{
	struct paste_rx e;
	int sv[2];
	__u32 conn;

	/* everything was taken from the ring, but a connection waits for a sync */
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&self->q, sv[0], 2, &conn)) TH_LOG("%s", text);
	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(10, send(sv[1], "0123456789", 10, MSG_DONTWAIT));
		sleep_ms(2);
	}
	for (int i = 0, got = 0; got < 200; i++) {
		while (rx_take(&self->q, &e))
			got += e.len;
		if (got == 200)
			break;
		ASSERT_GT(100, i);
		ASSERT_EQ(POLLIN, polled(&self->q, SOON)) TH_LOG("%d bytes", got);
		ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	}
	close(sv[0]);
	close(sv[1]);
}

TEST_F(ring, poll__epoll)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	struct paste_rx e;
	int ep = epoll_create1(0);

	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->q.fd, &ev));
	for (int i = 1; i <= 20; i++) {
		peer_send(&self->peer, i);
		ASSERT_EQ(1, epoll_wait(ep, &ev, 1, SOON)) TH_LOG("round %d", i);
		EXPECT_EQ(EPOLLIN, ev.events);
		while (rx_take(&self->q, &e))
			stream_take(&self->in, &self->q, &e);
	}
	EXPECT_EQ(20, self->in.pos);
}

static void *echo_peer(void *arg)
{
	struct peer *p = arg;

	/* one byte there, one byte back, as fast as it goes */
	for (int i = 0; i < 3000 && !p->err; i++) {
		char b = i;

		if (send(p->fd, &b, 1, MSG_NOSIGNAL) != 1 || recv(p->fd, &b, 1, 0) != 1 ||
		    b != (char)i)
			p->err = EIO;
	}
	return NULL;
}

/* No wakeup is lost: each round would hang for ever. */
static void ping_pong(struct __test_metadata *_metadata, FIXTURE_DATA(ring) * self, bool use_poll)
{
	__u64 end = now_ms() + 2 * SOON;
	struct paste_comp c;
	struct paste_rx e;
	pthread_t t;
	int n = 0;

	ASSERT_EQ(0, pthread_create(&t, NULL, echo_peer, &self->peer));
	while (n < 3000 && now_ms() < end) {
		while (comp_take(&self->q, &c))
			fill_put(&self->q, c.cookie);
		while (rx_take(&self->q, &e)) {
			ASSERT_EQ(1, e.len);
			tx_put(&self->q, e.conn, e.chunk, e.off, e.len, 0, e.chunk);
			n++;
		}
		ASSERT_EQ(0, queue_sync(&self->q, 0, use_poll ? 0 : PASTE_FOREVER));
		if (use_poll && !ring_ready(&self->q.rx) && !ring_ready(&self->q.comp)) {
			ASSERT_EQ(POLLIN, polled(&self->q, SOON));
		}
	}
	EXPECT_EQ(3000, n);
	ASSERT_EQ(0, queue_sync(&self->q, 0, 0));
	pthread_join(t, NULL);
	EXPECT_EQ(0, self->peer.err);
}

TEST_F(ring, wakeup__none_is_lost_in_sync)
{
	ping_pong(_metadata, self, false);
}

TEST_F(ring, wakeup__none_is_lost_in_poll)
{
	ping_pong(_metadata, self, true);
}

TEST_HARNESS_MAIN
