// SPDX-License-Identifier: GPL-2.0
/* Connections of unbound queues: attach, data, ends, back-pressure, detach. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>

#include "util.h"
#include "harness.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SO_RESERVE_MEM
#define SO_RESERVE_MEM 73
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* A context with one queue, all chunks filled, and a pair of sockets. */
struct setup {
	struct ctx ctx;
	struct queue q;
	int sv[2];
	__u32 conn;
	struct stream in; /* what the application gets */
	struct peer peer; /* what the other end sends and gets */
};

static int setup_make(struct setup *s, int family, __u32 chunk_size, __u32 n_rx,
		      const struct paste_ioc_queue *opts)
{
	int err = set_lo_up();

	memset(s, 0, sizeof(*s));
	s->sv[0] = s->sv[1] = -1;
	err = err ?: ctx_make(&s->ctx, chunk_size, n_rx, 64);
	err = err ?: queue_make(&s->q, &s->ctx, opts);
	err = err ?: tcp_pair(family, s->sv);
	if (err)
		return err;
	fill_slice(&s->q);
	peer_init(&s->peer, s->sv[1]);
	return 0;
}

static int setup_attach(struct setup *s, __u32 quota)
{
	int err = queue_attach(&s->q, s->sv[0], quota, &s->conn);

	s->in.conn = s->conn;
	return err;
}

static void setup_close(struct setup *s)
{
	if (s->sv[0] >= 0)
		close(s->sv[0]);
	if (s->sv[1] >= 0)
		close(s->sv[1]);
	queue_close(&s->q);
	ctx_close(&s->ctx);
}

/* ------------------------------------------------------------------------- */

FIXTURE(attach)
{
	struct setup s;
};

FIXTURE_SETUP(attach)
{
	struct paste_ioc_queue opts = { .rx_chunks = 128 };

	ASSERT_EQ(0, setup_make(&self->s, AF_INET, 0, 256, &opts)) TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(attach)
{
	EXPECT_EQ(0, self->s.q.bad);
	setup_close(&self->s);
}

/* The attach fails for that reason and says something. */
#define EXPECT_REFUSED(expected, fd)                                  \
	do {                                                          \
		int __result = queue_attach(&self->s.q, fd, 0, NULL); \
		EXPECT_EQ(expected, __result) TH_LOG("\"%s\"", text); \
		EXPECT_NE(0, text[0]) TH_LOG("no text");              \
	} while (0)

TEST_F(attach, fd__not_a_socket)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	EXPECT_REFUSED(-EBADF, -1);
	EXPECT_REFUSED(-EBADF, 1000000);
	EXPECT_REFUSED(-ENOTSOCK, p[0]);
	EXPECT_REFUSED(-ENOTSOCK, self->s.ctx.fd);
	EXPECT_REFUSED(-ENOTSOCK, self->s.q.fd);
}

TEST_F(attach, fd__not_tcp)
{
	int u[2];

	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_INET, SOCK_DGRAM, 0));
	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_INET, SOCK_RAW, IPPROTO_TCP));
	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 0));
	EXPECT_REFUSED(-EPROTONOSUPPORT, socket(AF_PACKET, SOCK_RAW, 0));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, u));
	EXPECT_REFUSED(-EPROTONOSUPPORT, u[0]);
}

TEST_F(attach, state__not_connected)
{
	struct sockaddr_in blackhole = { .sin_family = AF_INET, .sin_port = htons(9) };
	__u16 port;
	int fd;

	EXPECT_REFUSED(-ENOTCONN, socket(AF_INET, SOCK_STREAM, 0));
	EXPECT_REFUSED(-ENOTCONN, socket(AF_INET6, SOCK_STREAM, 0));
	EXPECT_REFUSED(-ENOTCONN, tcp_listen(AF_INET, &port));

	/* connecting, for as long as the full backlog of a listener drops SYNs */
	fd = tcp_listen(AF_INET, &port);
	ASSERT_EQ(0, listen(fd, 0));
	blackhole.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	blackhole.sin_port = htons(port);
	for (int i = 0; i < 8; i++) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fd, (struct sockaddr *)&blackhole, sizeof(blackhole));
	}
	EXPECT_REFUSED(-ENOTCONN, fd);

	/* our FIN is sent: nothing could be sent any more */
	ASSERT_EQ(0, shutdown(self->s.sv[0], SHUT_WR));
	EXPECT_REFUSED(-ENOTCONN, self->s.sv[0]);
}

TEST_F(attach, state__reset)
{
	struct linger now = { .l_onoff = 1 };

	ASSERT_EQ(0, setsockopt(self->s.sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(self->s.sv[1]);
	self->s.sv[1] = -1;
	sleep_ms(NEVER);
	EXPECT_REFUSED(-ENOTCONN, self->s.sv[0]);
}

TEST_F(attach, state__close_wait)
{
	peer_send(&self->s.peer, 1000);
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	ASSERT_TRUE(wait_readable(self->s.sv[0], 1000, SOON));
	sleep_ms(50);
	ASSERT_EQ(0, setup_attach(&self->s, 0)) TH_LOG("%s", text);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 1000, SOON));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.fins);
	EXPECT_FALSE(self->s.in.wrong);
}

TEST_F(attach, owner__attached_already)
{
	struct queue other;
	struct ctx c;

	ASSERT_EQ(0, setup_attach(&self->s, 0)) TH_LOG("%s", text);
	EXPECT_REFUSED(-EEXIST, self->s.sv[0]);

	/* nor to another queue, of this or of another context */
	ASSERT_EQ(0, queue_make(&other, &self->s.ctx, NULL)) TH_LOG("%s", text);
	EXPECT_EQ(-EEXIST, queue_attach(&other, self->s.sv[0], 0, NULL));
	queue_close(&other);
	ASSERT_EQ(0, ctx_make(&c, 0, 64, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&other, &c, NULL)) TH_LOG("%s", text);
	EXPECT_EQ(-EEXIST, queue_attach(&other, self->s.sv[0], 0, NULL));
	queue_close(&other);
	ctx_close(&c);

	/* the attempts harmed nothing */
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 10000, SOON));
}

TEST_F(attach, owner__ktls)
{
	if (setsockopt(self->s.sv[0], SOL_TCP, TCP_ULP, "tls", 3))
		SKIP(return, "no kTLS");
	EXPECT_REFUSED(-EEXIST, self->s.sv[0]);
}

static int sockmap_make(void)
{
	union bpf_attr a = {
		.map_type = BPF_MAP_TYPE_SOCKMAP,
		.key_size = 4,
		.value_size = 4,
		.max_entries = 4,
	};

	return syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a));
}

static int sockmap_add(int map, int sock)
{
	__u32 key = 0, value = sock;
	union bpf_attr a = {
		.map_fd = map,
		.key = (uintptr_t)&key,
		.value = (uintptr_t)&value,
	};

	return syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &a, sizeof(a)) ? -errno : 0;
}

TEST_F(attach, owner__sockmap)
{
	int map = sockmap_make();

	if (map < 0 || sockmap_add(map, self->s.sv[0]))
		SKIP(return, "no sockmap");
	EXPECT_REFUSED(-EEXIST, self->s.sv[0]);
}

TEST_F(attach, owner__mptcp)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	__u16 port;
	int l, fd;

	fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	if (fd < 0)
		SKIP(return, "no MPTCP");
	l = tcp_listen(AF_INET, &port);
	ASSERT_LE(0, l);
	to.sin_port = htons(port);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ASSERT_EQ(0, connect(fd, (struct sockaddr *)&to, sizeof(to)));
	/* a socket of MPTCP is no TCP socket; one of its subflows belongs to MPTCP */
	l = queue_attach(&self->s.q, fd, 0, NULL);
	EXPECT_TRUE(l == -EEXIST || l == -EPROTONOSUPPORT) TH_LOG("%d", l);
	EXPECT_NE(0, text[0]);
}

TEST_F(attach, owner__repair)
{
	int on = 1, off = 0;

	if (setsockopt(self->s.sv[0], SOL_TCP, TCP_REPAIR, &on, sizeof(on)))
		SKIP(return, "no TCP_REPAIR");
	EXPECT_GT(0, queue_attach(&self->s.q, self->s.sv[0], 0, NULL));
	setsockopt(self->s.sv[0], SOL_TCP, TCP_REPAIR, &off, sizeof(off));
}

TEST_F(attach, owner__ours_afterwards)
{
	int map = sockmap_make();

	ASSERT_EQ(0, setup_attach(&self->s, 0)) TH_LOG("%s", text);
	EXPECT_EQ(-1, setsockopt(self->s.sv[0], SOL_TCP, TCP_ULP, "tls", 3));
	EXPECT_EQ(-1, setsockopt(self->s.sv[0], SOL_TCP, TCP_ULP, "paste", 5));
	if (map >= 0) {
		EXPECT_GT(0, sockmap_add(map, self->s.sv[0]));
	}
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 10000, SOON));
}

TEST_F(attach, ulp__not_by_name)
{
	EXPECT_EQ(-1, setsockopt(self->s.sv[0], SOL_TCP, TCP_ULP, "paste", 5));
	/* and the socket is as before */
	peer_send(&self->s.peer, 10);
	EXPECT_TRUE(wait_readable(self->s.sv[0], 10, SOON));
	EXPECT_EQ(0, setup_attach(&self->s, 0)) TH_LOG("%s", text);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 10, SOON));
}

TEST_F(attach, quota__range)
{
	__u32 conn;

	/* more than the ring can be asked for; it then means nothing, or it is refused */
	if (queue_attach(&self->s.q, self->s.sv[0], 0xffffffff, &conn)) {
		EXPECT_NE(NULL, strstr(text, "quota")) TH_LOG("%s", text);
		EXPECT_EQ(0, setup_attach(&self->s, 1));
	} else {
		self->s.in.conn = conn;
	}
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 100, SOON));
}

TEST_F(attach, namespace__of_the_socket_does_not_matter)
{
	int sv[2];

	ASSERT_EQ(0, unshare(CLONE_NEWNET));
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	close(self->s.sv[0]);
	close(self->s.sv[1]);
	self->s.sv[0] = sv[0];
	self->s.sv[1] = sv[1];
	peer_init(&self->s.peer, sv[1]);
	ASSERT_EQ(0, setup_attach(&self->s, 0)) TH_LOG("%s", text);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 10000, SOON));
}

TEST_F(attach, handle__differs_and_goes_stale)
{
	struct paste_comp done;
	__u32 old, tx = self->s.ctx.first_tx;
	int sv[2];

	ASSERT_EQ(0, setup_attach(&self->s, 0));
	old = self->s.conn;
	EXPECT_NE(0, old);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&self->s.q, sv[0], 0, &self->s.conn));
	EXPECT_NE(PASTE_CONN_INDEX(old), PASTE_CONN_INDEX(self->s.conn));
	ASSERT_EQ(0, queue_detach(&self->s.q, old));
	EXPECT_EQ(-ENOENT, queue_detach(&self->s.q, old));

	/* whatever comes into its place is not taken for it */
	for (int i = 0; i < 20; i++) {
		int pair[2];
		__u32 conn;

		ASSERT_EQ(0, tcp_pair(AF_INET, pair));
		ASSERT_EQ(0, queue_attach(&self->s.q, pair[0], 0, &conn));
		ASSERT_NE(old, conn);
		ASSERT_TRUE(tx_put(&self->s.q, old, tx, 0, 10, 0, i));
		ASSERT_TRUE(comp_wait(&self->s.q, &done, SOON));
		ASSERT_EQ(-ENOENT, done.result);
		ASSERT_EQ(i, done.cookie);
		ASSERT_EQ(old, done.conn);
		ASSERT_EQ(0, queue_detach(&self->s.q, conn));
		EXPECT_EQ(-1, recv(pair[1], text, sizeof(text), MSG_DONTWAIT));
		close(pair[0]);
		close(pair[1]);
	}
}

TEST_F(attach, handle__of_another_queue)
{
	struct queue other;

	ASSERT_EQ(0, queue_make(&other, &self->s.ctx, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, setup_attach(&self->s, 0));
	EXPECT_GT(0, queue_detach(&other, self->s.conn));
	EXPECT_EQ(-ENOENT, queue_detach(&self->s.q, 0));
	EXPECT_EQ(-ENOENT, queue_detach(&self->s.q, 0xffffffff));
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 1000, SOON));
	queue_close(&other);
}

/* ------------------------------------------------------------------------- */

FIXTURE(data)
{
	struct setup s;
};

FIXTURE_VARIANT(data) {
	int family;
	__u32 chunk_size;
};

FIXTURE_VARIANT_ADD(data, v4_4096){ .family = AF_INET, .chunk_size = 4096 };
FIXTURE_VARIANT_ADD(data, v6_4096){ .family = AF_INET6, .chunk_size = 4096 };
FIXTURE_VARIANT_ADD(data, v4_2048){ .family = AF_INET, .chunk_size = 2048 };
FIXTURE_VARIANT_ADD(data, v6_2048){ .family = AF_INET6, .chunk_size = 2048 };

FIXTURE_SETUP(data)
{
	ASSERT_EQ(0, setup_make(&self->s, variant->family, variant->chunk_size, 512, NULL))
	TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(data)
{
	EXPECT_EQ(0, self->s.q.bad);
	EXPECT_FALSE(self->s.in.wrong);
	EXPECT_FALSE(self->s.in.late);
	EXPECT_FALSE(self->s.peer.wrong);
	setup_close(&self->s);
}

/* What can be seen of a connection; all zero if nothing can. */
static struct paste_ioc_conn seen(struct queue *q, __u32 conn)
{
	struct paste_ioc_conn c;

	if (queue_conn(q, conn, 0, &c))
		memset(&c, 0, sizeof(c));
	return c;
}

#define ATTACH(quota) ASSERT_EQ(0, setup_attach(&self->s, quota)) TH_LOG("%s", text)

TEST_F(data, echo__one_byte)
{
	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 1, SOON));
	EXPECT_EQ(1, self->s.in.entries);
	EXPECT_EQ(1, queue_stat(&self->s.q, PASTE_STAT_COPY_ENTRIES));
	EXPECT_EQ(1, queue_stat(&self->s.q, PASTE_STAT_COPY_PLAIN));
	EXPECT_EQ(1, queue_stat(&self->s.q, PASTE_STAT_COPY_BYTES));
	EXPECT_EQ(0, queue_stat(&self->s.q, PASTE_STAT_REF_ENTRIES));
}

TEST_F(data, echo__many_small)
{
	ATTACH(0);
	for (int i = 1; i <= 200; i++) {
		ASSERT_TRUE(
			echo(&self->s.q, &self->s.in, &self->s.peer, self->s.peer.sent + i, SOON))
		{
			TH_LOG("round %d", i);
		}
	}
	EXPECT_EQ(200 * 201 / 2, self->s.in.pos);
}

TEST_F(data, echo__big)
{
	struct paste_ioc_stats st;

	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 4 << 20, 4 * SOON))
	{
		TH_LOG("sent %llu, delivered %llu, back %llu", self->s.peer.sent, self->s.in.pos,
		       self->s.peer.got);
	}
	for (__u64 end = now_ms() + SOON; now_ms() < end;) {
		struct paste_comp done;

		ASSERT_EQ(0, queue_sync(&self->s.q, 0, 1000));
		while (comp_take(&self->s.q, &done))
			;
		ASSERT_EQ(0, queue_stats(&self->s.q, &st));
		if (!st.sends)
			break;
	}
	EXPECT_EQ(0, st.sends);
	EXPECT_EQ(4 << 20, st.v[PASTE_STAT_COPY_BYTES] + st.v[PASTE_STAT_REF_BYTES]);
	EXPECT_EQ(self->s.in.entries, st.v[PASTE_STAT_COPY_ENTRIES]);
	EXPECT_EQ(4 << 20, st.v[PASTE_STAT_SEND_BYTES]);
	EXPECT_EQ(0, st.v[PASTE_STAT_FILL_BAD]);
	EXPECT_EQ(0, st.v[PASTE_STAT_SEND_BAD]);
}

TEST_F(data, preattach__delivered_and_counted)
{
	/* more than a chunk, less than a receive buffer */
	peer_send(&self->s.peer, 30000);
	ASSERT_TRUE(wait_readable(self->s.sv[0], 30000, SOON));
	ATTACH(0);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 30000, SOON));
	EXPECT_EQ(30000, queue_stat(&self->s.q, PASTE_STAT_COPY_BYTES));
	EXPECT_EQ(self->s.in.entries, queue_stat(&self->s.q, PASTE_STAT_COPY_PREATTACH) +
					      queue_stat(&self->s.q, PASTE_STAT_COPY_PLAIN));
	EXPECT_LT(0, queue_stat(&self->s.q, PASTE_STAT_COPY_PREATTACH));

	/* and then it goes on */
	peer_send(&self->s.peer, 60000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 60000, SOON));
}

TEST_F(data, preattach__partly_read)
{
	char b[777];

	peer_send(&self->s.peer, 10000);
	ASSERT_TRUE(wait_readable(self->s.sv[0], 10000, SOON));
	ASSERT_EQ(sizeof(b), read(self->s.sv[0], b, sizeof(b)));
	EXPECT_TRUE(pattern_check(b, 0, sizeof(b)));
	ATTACH(0);
	self->s.in.pos = sizeof(b);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 10000, SOON));
}

TEST_F(data, copied__flag)
{
	struct paste_rx e;

	ATTACH(0);
	peer_send(&self->s.peer, 100);
	ASSERT_TRUE(rx_wait(&self->s.q, &e, SOON));
	EXPECT_EQ(PASTE_RX_COPIED, e.flags);
	EXPECT_EQ(self->s.conn, e.conn);
}

static void send_from_tx(struct __test_metadata *_metadata, struct setup *s, __u32 len, __u32 flags)
{
	struct paste_comp done;
	__u32 tx = s->ctx.first_tx;

	if (len)
		pattern_write(chunk_at(&s->ctx, tx, 0), 0, len);
	ASSERT_TRUE(tx_put(&s->q, s->conn, len ? tx : 0, 0, len, flags, 99));
	ASSERT_TRUE(comp_wait(&s->q, &done, SOON));
	EXPECT_EQ(len, done.result);
	EXPECT_EQ(99, done.cookie);
	EXPECT_EQ(s->conn, done.conn);
}

/* Syncs until the peer's end is closed or has got that much. */
static void peer_until(struct setup *s, __u64 upto)
{
	__u64 end = now_ms() + SOON;

	while (s->peer.got < upto && !s->peer.eof && !s->peer.err && now_ms() < end) {
		queue_sync(&s->q, 0, 1000);
		peer_recv(&s->peer);
	}
}

static void stream_nothing_more(struct __test_metadata *_metadata, struct setup *s)
{
	struct paste_rx e;

	if (rx_wait(&s->q, &e, NEVER)) {
		stream_take(&s->in, &s->q, &e);
		EXPECT_TRUE(false)
		TH_LOG("one entry too many: len %u flags %u", e.len, e.flags);
	}
}

TEST_F(data, half_close__by_peer)
{
	ATTACH(0);
	peer_send(&self->s.peer, 50000);
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(self->s.peer.sent, self->s.in.pos);
	EXPECT_EQ(1, self->s.in.fins);
	stream_nothing_more(_metadata, &self->s);

	/* the other direction is open */
	send_from_tx(_metadata, &self->s, 2000, 0);
	peer_until(&self->s, 2000);
	EXPECT_EQ(2000, self->s.peer.got);
	EXPECT_FALSE(self->s.peer.eof);
	send_from_tx(_metadata, &self->s, 0, PASTE_TX_SHUT_WR);
	peer_until(&self->s, ~0ULL);
	EXPECT_TRUE(self->s.peer.eof);
	stream_nothing_more(_metadata, &self->s);
	EXPECT_EQ(1, queue_stat(&self->s.q, PASTE_STAT_FINS));
	EXPECT_EQ(0, queue_stat(&self->s.q, PASTE_STAT_ERRORS));
}

TEST_F(data, half_close__by_application)
{
	ATTACH(0);
	send_from_tx(_metadata, &self->s, 1500, PASTE_TX_SHUT_WR);
	peer_until(&self->s, ~0ULL);
	EXPECT_EQ(1500, self->s.peer.got);
	EXPECT_TRUE(self->s.peer.eof);

	peer_send(&self->s.peer, 40000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON));
	close(self->s.sv[1]);
	self->s.sv[1] = -1;
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.fins);
	EXPECT_EQ(0, self->s.in.errs);
	stream_nothing_more(_metadata, &self->s);
}

TEST_F(data, half_close__by_shutdown_of_the_socket)
{
	ATTACH(0);
	send_from_tx(_metadata, &self->s, 1500, 0);
	ASSERT_EQ(0, shutdown(self->s.sv[0], SHUT_WR));
	peer_until(&self->s, ~0ULL);
	EXPECT_EQ(1500, self->s.peer.got);
	EXPECT_TRUE(self->s.peer.eof);
	peer_send(&self->s.peer, 1000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 1000, SOON));
}

TEST_F(data, fin__not_before_the_data)
{
	/* the ring is full of data when the FIN comes */
	ATTACH(2);
	for (int i = 1; i <= 50; i++) {
		peer_send(&self->s.peer, i * 100);
		sleep_ms(1);
	}
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	sleep_ms(50);
	EXPECT_GE(2, ring_ready(&self->s.q.rx));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(5000, self->s.in.pos);
	EXPECT_EQ(1, self->s.in.fins);
	stream_nothing_more(_metadata, &self->s);
}

static void reset_by_peer(struct setup *s)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(s->sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(s->sv[1]);
	s->sv[1] = -1;
}

TEST_F(data, reset__is_an_error_entry)
{
	struct paste_comp done;

	ATTACH(0);
	peer_send(&self->s.peer, 1000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 1000, SOON));
	reset_by_peer(&self->s);
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.errs);
	EXPECT_EQ(0, self->s.in.fins);
	EXPECT_EQ(ECONNRESET, self->s.in.err);
	stream_nothing_more(_metadata, &self->s);

	ASSERT_TRUE(tx_put(&self->s.q, self->s.conn, self->s.ctx.first_tx, 0, 10, 0, 1));
	ASSERT_TRUE(comp_wait(&self->s.q, &done, SOON));
	EXPECT_GT(0, done.result);
	EXPECT_EQ(1, queue_stat(&self->s.q, PASTE_STAT_ERRORS));
	EXPECT_EQ(0, queue_detach(&self->s.q, self->s.conn));
}

TEST_F(data, reset__with_sends_under_way)
{
	unsigned int good = 0, bad = 0;
	struct paste_comp done;

	/* the peer reads nothing, so that most of it waits */
	ATTACH(0);
	for (int i = 0; i < 1000; i++) {
		ASSERT_TRUE(tx_put(&self->s.q, self->s.conn, self->s.ctx.first_tx, 0, 2048, 0, i));
	}
	ASSERT_EQ(0, queue_sync(&self->s.q, 0, 0));
	reset_by_peer(&self->s);
	while (good + bad < 1000 && comp_wait(&self->s.q, &done, SOON)) {
		good += done.result == 2048;
		bad += done.result < 0;
	}
	EXPECT_EQ(1000, good + bad);
	EXPECT_LT(0, bad);
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.errs);
}

TEST_F(data, urgent__left_out)
{
	ATTACH(0);
	for (int i = 0; i < 5; i++) {
		peer_send(&self->s.peer, self->s.peer.sent + 100);
		ASSERT_EQ(1, send(self->s.sv[1], "!", 1, MSG_OOB));
		peer_send(&self->s.peer, self->s.peer.sent + 100);
		ASSERT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON))
		{
			TH_LOG("stalled at %llu of %llu", self->s.in.pos, self->s.peer.sent);
		}
	}
	EXPECT_LE(1, queue_stat(&self->s.q, PASTE_STAT_URGENT));
	peer_send(&self->s.peer, self->s.peer.sent + 100000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON));
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.fins);
}

TEST_F(data, urgent__last_byte)
{
	/* nothing follows that would push it out of the way */
	ATTACH(0);
	peer_send(&self->s.peer, 10);
	ASSERT_EQ(1, send(self->s.sv[1], "!", 1, MSG_OOB));
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(10, self->s.in.pos);
	EXPECT_EQ(1, self->s.in.fins);
}

/* The byte is in a segment with others, which are not to be read beyond it. */
TEST_F(data, urgent__in_mid_segment)
{
	__u8 buf[100];

	ATTACH(0);
	for (int i = 0; i < 5; i++) {
		pattern_write(buf, self->s.peer.sent, 99);
		buf[99] = '!';
		ASSERT_EQ(100, send(self->s.sv[1], buf, 100, MSG_OOB));
		self->s.peer.sent += 99;
		peer_send(&self->s.peer, self->s.peer.sent + 100);
		ASSERT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON))
		{
			TH_LOG("stalled at %llu of %llu", self->s.in.pos, self->s.peer.sent);
		}
		EXPECT_FALSE(self->s.in.wrong);
	}
}

TEST_F(data, urgent__before_attach)
{
	peer_send(&self->s.peer, 10);
	ASSERT_EQ(1, send(self->s.sv[1], "!", 1, MSG_OOB));
	peer_send(&self->s.peer, 1000);
	ASSERT_TRUE(wait_readable(self->s.sv[0], 10, SOON));
	sleep_ms(50);
	ATTACH(0);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 1000, SOON));
}

TEST_F(data, urgent__inline)
{
	__u8 want[21], got[64];
	unsigned int n = 0;
	struct paste_rx e;
	int on = 1;

	ASSERT_EQ(0, setsockopt(self->s.sv[0], SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)));
	ATTACH(0);
	memcpy(want, "aaaaaaaaaa!bbbbbbbbbb", 21);
	ASSERT_EQ(10, send(self->s.sv[1], want, 10, 0));
	ASSERT_EQ(1, send(self->s.sv[1], want + 10, 1, MSG_OOB));
	ASSERT_EQ(10, send(self->s.sv[1], want + 11, 10, 0));
	while (n < 21 && rx_wait(&self->s.q, &e, SOON)) {
		ASSERT_GE(sizeof(got), n + e.len);
		memcpy(got + n, chunk_at(&self->s.ctx, e.chunk, e.off), e.len);
		n += e.len;
	}
	ASSERT_EQ(21, n);
	EXPECT_EQ(0, memcmp(want, got, 21));
}

/* The peer sends until it can send no more. */
static bool peer_blocks(struct setup *s, __u64 limit)
{
	__u64 last;

	do {
		last = s->peer.sent;
		peer_send(&s->peer, limit);
		sleep_ms(NEVER);
	} while (s->peer.sent != last && s->peer.sent < limit);
	return s->peer.sent < limit;
}

TEST_F(data, slow_reader__window_closes)
{
	__u64 stuck;

	ATTACH(0);
	ASSERT_TRUE(peer_blocks(&self->s, 64 << 20))
	TH_LOG("64 MB accepted, and nobody takes them");
	stuck = self->s.peer.sent;
	EXPECT_LT(0, stuck);
	/* entries are never more than chunks can hold */
	EXPECT_GE(4096, ring_ready(&self->s.q.rx));
	EXPECT_TRUE(*self->s.q.flags & PASTE_Q_NEED_SYNC);

	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, stuck, 2 * SOON))
	{
		TH_LOG("%llu of %llu", self->s.in.pos, stuck);
	}
	peer_send(&self->s.peer, stuck + 100000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON));
	EXPECT_LT(0, queue_stat(&self->s.q, PASTE_STAT_RESUMES));
}

TEST_F(data, quota__bounds_a_batch)
{
	struct paste_ioc_stats st;
	struct paste_rx e;
	unsigned int n;

	ATTACH(4);
	for (int i = 1; i <= 100; i++) {
		peer_send(&self->s.peer, i * 10);
		sleep_ms(2);
	}
	EXPECT_GE(4, ring_ready(&self->s.q.rx));
	EXPECT_TRUE(*self->s.q.flags & PASTE_Q_NEED_SYNC);
	ASSERT_EQ(0, queue_stats(&self->s.q, &st));
	EXPECT_EQ(1, st.stalled);
	EXPECT_EQ(PASTE_STAT_STALL_QUOTA, seen(&self->s.q, self->s.conn).waits);
	EXPECT_EQ(4, seen(&self->s.q, self->s.conn).quota);
	EXPECT_EQ(4, seen(&self->s.q, self->s.conn).used);
	while (self->s.in.pos < 1000) {
		for (n = 0; rx_take(&self->s.q, &e); n++)
			stream_take(&self->s.in, &self->s.q, &e);
		ASSERT_GE(4, n);
		if (self->s.in.pos == 1000)
			break;
		ASSERT_EQ(0, queue_sync(&self->s.q, 0, 1000000));
		ASSERT_LT(0, ring_ready(&self->s.q.rx)) TH_LOG("stuck at %llu", self->s.in.pos);
	}
	ASSERT_EQ(0, queue_stats(&self->s.q, &st));
	EXPECT_LT(0, st.v[PASTE_STAT_STALL_QUOTA]);
	EXPECT_EQ(0, seen(&self->s.q, self->s.conn).waits);
}

TEST_F(data, quota__zero_stops_it)
{
	__u64 stuck;

	ATTACH(0);
	peer_send(&self->s.peer, 10000);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 10000, SOON));
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 0));
	ASSERT_TRUE(peer_blocks(&self->s, 64 << 20)) TH_LOG("64 MB accepted");
	stuck = self->s.peer.sent;
	ASSERT_EQ(0, shutdown(self->s.sv[1], SHUT_WR));
	stream_nothing_more(_metadata, &self->s);
	/* it waits for the application, not for room: nobody is told to sync */
	EXPECT_FALSE(*self->s.q.flags & PASTE_Q_NEED_SYNC);
	EXPECT_EQ(0, seen(&self->s.q, self->s.conn).quota);
	EXPECT_EQ(0, seen(&self->s.q, self->s.conn).waits);
	EXPECT_EQ(10000, seen(&self->s.q, self->s.conn).rx_bytes);

	/* sending goes on */
	send_from_tx(_metadata, &self->s, 1000, 0);

	/* what waited comes with the call, and the end after it */
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 16));
	EXPECT_LT(0, ring_ready(&self->s.q.rx));
	EXPECT_GE(16, ring_ready(&self->s.q.rx));
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, stuck, 2 * SOON));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.fins);
	EXPECT_FALSE(self->s.in.wrong);
}

TEST_F(data, quota__zero_while_it_waits_for_room)
{
	ATTACH(1);
	for (int i = 1; i <= 10; i++) {
		peer_send(&self->s.peer, i * 10);
		sleep_ms(2);
	}
	EXPECT_TRUE(*self->s.q.flags & PASTE_Q_NEED_SYNC);
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 0));
	stream_until(&self->s.in, &self->s.q, ~0ULL, NEVER);
	EXPECT_GT(self->s.peer.sent, self->s.in.pos);
	EXPECT_FALSE(*self->s.q.flags & PASTE_Q_NEED_SYNC);
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 1));
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON));
}

TEST_F(data, quota__reset_while_stopped)
{
	struct linger now = { .l_onoff = 1 };

	ATTACH(0);
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 0));
	ASSERT_EQ(0, setsockopt(self->s.sv[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(self->s.sv[1]);
	self->s.sv[1] = -1;
	stream_nothing_more(_metadata, &self->s);
	ASSERT_EQ(0, queue_quota(&self->s.q, self->s.conn, 1));
	stream_until(&self->s.in, &self->s.q, ~0ULL, SOON);
	EXPECT_EQ(1, self->s.in.errs);
	EXPECT_EQ(ECONNRESET, self->s.in.err);
}

TEST_F(data, quota__bad)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	struct queue other;

	ATTACH(0);
	EXPECT_EQ(-EINVAL, queue_quota(&self->s.q, self->s.conn, self->s.q.rx.mask + 2));
	EXPECT_EQ(0, queue_quota(&self->s.q, self->s.conn, self->s.q.rx.mask + 1));
	EXPECT_EQ(-ENOENT, queue_quota(&self->s.q, self->s.conn + 1, 1));
	if (!queue_make(&other, &self->s.ctx, &opts)) {
		EXPECT_EQ(-EXDEV, queue_quota(&other, self->s.conn, 1));
		queue_close(&other);
	}
	ASSERT_EQ(0, queue_detach(&self->s.q, self->s.conn));
	EXPECT_EQ(-ENOENT, queue_quota(&self->s.q, self->s.conn, 1));
}

TEST_F(data, detach__rest_by_read)
{
	struct paste_rx e;
	__u64 end = now_ms() + SOON;
	__u8 b[4096];
	ssize_t n;

	ATTACH(2);
	for (int i = 1; i <= 20; i++) {
		peer_send(&self->s.peer, i * 1000);
		sleep_ms(2);
	}
	/* what was delivered stays valid after the detach */
	ASSERT_EQ(0, queue_detach(&self->s.q, self->s.conn));
	peer_send(&self->s.peer, 60000);
	while (rx_take(&self->s.q, &e))
		stream_take(&self->s.in, &self->s.q, &e);
	EXPECT_LT(0, self->s.in.pos);
	while (self->s.in.pos < 60000 && now_ms() < end) {
		peer_send(&self->s.peer, 60000);
		n = recv(self->s.sv[0], b, sizeof(b), MSG_DONTWAIT);
		if (n < 0) {
			sleep_ms(1);
			continue;
		}
		ASSERT_LT(0, n);
		ASSERT_TRUE(pattern_check(b, self->s.in.pos, n));
		self->s.in.pos += n;
	}
	EXPECT_EQ(60000, self->s.in.pos);

	/* an ordinary socket again, in both directions and to its end */
	ASSERT_EQ(3, send(self->s.sv[0], "abc", 3, 0));
	EXPECT_EQ(3, recv(self->s.sv[1], b, 3, MSG_WAITALL));
	close(self->s.sv[1]);
	self->s.sv[1] = -1;
	EXPECT_EQ(0, recv(self->s.sv[0], b, sizeof(b), 0));
	stream_nothing_more(_metadata, &self->s);
	EXPECT_TRUE(queue_conns(&self->s.q, 0, SOON));
}

TEST_F(data, detach__attach_elsewhere)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	struct queue q[2];
	struct ctx c;

	/* from the queue of one context to that of another, and back, under traffic */
	ATTACH(0);
	ASSERT_EQ(0, ctx_make(&c, variant->chunk_size, 128, 0)) TH_LOG("%s", text);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, queue_make(&q[i], &c, &opts)) TH_LOG("%s", text);
		fill_slice(&q[i]);
	}
	for (int i = 0; i < 12; i++) {
		struct queue *from = i % 3 ? &q[i % 3 - 1] : &self->s.q;
		struct queue *to = (i + 1) % 3 ? &q[(i + 1) % 3 - 1] : &self->s.q;
		struct paste_rx e;

		peer_send(&self->s.peer, self->s.peer.sent + 5000);
		if (i % 2)
			rx_wait(from, &e, SOON) ? stream_take(&self->s.in, from, &e) : (void)0;
		ASSERT_EQ(0, queue_detach(from, self->s.conn));
		while (rx_take(from, &e))
			stream_take(&self->s.in, from, &e);
		ASSERT_EQ(0, queue_attach(to, self->s.sv[0], 0, &self->s.conn)) TH_LOG("%s", text);
		self->s.in.conn = self->s.conn;
		ASSERT_TRUE(stream_until(&self->s.in, to, self->s.peer.sent, SOON));
		ASSERT_FALSE(self->s.in.wrong);
	}
	EXPECT_EQ(0, q[0].bad + q[1].bad);
	queue_close(&q[0]);
	queue_close(&q[1]);
	ctx_close(&c);
}

TEST_F(data, detach__pending_sends_are_cancelled)
{
	unsigned int good = 0, cancelled = 0;
	struct paste_comp done;
	__u64 end = now_ms() + SOON;

	ATTACH(0);
	for (int i = 0; i < 1000; i++) {
		ASSERT_TRUE(tx_put(&self->s.q, self->s.conn, self->s.ctx.first_tx, 0, 2000, 0, i));
	}
	ASSERT_EQ(0, queue_sync(&self->s.q, 0, 0));
	ASSERT_EQ(0, queue_detach(&self->s.q, self->s.conn));
	while (good + cancelled < 1000 && now_ms() < end) {
		char b[65536];

		recv(self->s.sv[1], b, sizeof(b), MSG_DONTWAIT);
		queue_sync(&self->s.q, 0, 0);
		while (comp_take(&self->s.q, &done)) {
			ASSERT_TRUE(done.result == 2000 || done.result == -ECANCELED)
			{
				TH_LOG("%d", done.result);
			}
			good += done.result > 0;
			cancelled += done.result < 0;
		}
	}
	EXPECT_EQ(1000, good + cancelled);
}

/* ------------------------------------------------------------------------- */

static bool is_address(const struct sockaddr_storage *sa, const __u8 address[16], __u16 port)
{
	const struct sockaddr_in *v4 = (const void *)sa;
	const struct sockaddr_in6 *v6 = (const void *)sa;
	struct in6_addr a = {};

	if (sa->ss_family == AF_INET6)
		return !memcmp(&v6->sin6_addr, address, 16) && ntohs(v6->sin6_port) == port;
	a.s6_addr[10] = a.s6_addr[11] = 0xff;
	memcpy(&a.s6_addr[12], &v4->sin_addr, 4);
	return !memcmp(&a, address, 16) && ntohs(v4->sin_port) == port;
}

TEST_F(data, info__whose_it_is)
{
	struct sockaddr_storage sa = {};
	struct paste_ioc_conn c;
	socklen_t len;
	struct stat st;
	__u64 netns;

	ATTACH(7);
	ASSERT_EQ(0, queue_conn(&self->s.q, self->s.conn, 0, &c));
	EXPECT_EQ(self->s.q.id, c.id);
	EXPECT_EQ(self->s.conn, c.conn);
	EXPECT_EQ(7, c.quota);
	len = sizeof(sa);
	ASSERT_EQ(0, getsockname(self->s.sv[0], (void *)&sa, &len));
	EXPECT_TRUE(is_address(&sa, c.local, c.local_port));
	len = sizeof(sa);
	ASSERT_EQ(0, getpeername(self->s.sv[0], (void *)&sa, &len));
	EXPECT_TRUE(is_address(&sa, c.peer, c.peer_port));
	ASSERT_EQ(0, fstat(self->s.sv[0], &st));
	EXPECT_EQ(st.st_ino, c.inode);
	len = sizeof(netns);
	ASSERT_EQ(0, getsockopt(self->s.sv[0], SOL_SOCKET, SO_NETNS_COOKIE, &netns, &len));
	EXPECT_EQ(netns, c.netns);
}

/* The same as the queue's, which has no other connection. */
TEST_F(data, info__bytes)
{
	struct paste_ioc_stats st;
	struct paste_ioc_conn c;

	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 1 << 20, 4 * SOON));
	for (__u64 end = now_ms() + SOON; now_ms() < end;) {
		echo_turn(&self->s.q, &self->s.in);
		ASSERT_EQ(0, queue_sync(&self->s.q, 0, 1000));
		ASSERT_EQ(0, queue_conn(&self->s.q, self->s.conn, 0, &c));
		ASSERT_EQ(0, queue_stats(&self->s.q, &st));
		ASSERT_EQ(st.sends, c.sends);
		if (!c.sends)
			break;
	}
	EXPECT_EQ(0, c.sends);
	EXPECT_EQ(1 << 20, c.rx_bytes);
	EXPECT_EQ(1 << 20, c.tx_bytes);
	EXPECT_EQ(0, c.waits);
	EXPECT_EQ(c.rx_bytes, st.v[PASTE_STAT_COPY_BYTES] + st.v[PASTE_STAT_REF_BYTES]);
	EXPECT_EQ(c.tx_bytes, st.v[PASTE_STAT_SEND_BYTES]);
	queue_detach(&self->s.q, self->s.conn);
	EXPECT_EQ(-ENOENT, queue_conn(&self->s.q, self->s.conn, 0, &c));
}

/* Of a queue and its neighbour, with gaps: each once, by ascending index. */
TEST_F(attach, info__next)
{
	struct paste_ioc_conn c = {};
	struct queue other;
	__u32 conn[32];
	int sv[32][2], n = 0;

	ASSERT_EQ(0, queue_make(&other, &self->s.ctx, NULL)) TH_LOG("%s", text);
	for (int i = 0; i < 32; i++) {
		ASSERT_EQ(0, tcp_pair(AF_INET, sv[i]));
		ASSERT_EQ(0, queue_attach(i % 4 == 3 ? &other : &self->s.q, sv[i][0], 0, &conn[i]));
	}
	for (int i = 0; i < 32; i += 4) {
		ASSERT_EQ(0, queue_detach(&self->s.q, conn[i]));
	}
	while (!queue_conn(&self->s.q, c.conn, PASTE_CONN_NEXT, &c)) {
		while (n < 32 && n % 4 != 1 && n % 4 != 2)
			n++;
		ASSERT_GT(32, n);
		ASSERT_EQ(conn[n++], c.conn);
	}
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(31, n);

	EXPECT_EQ(-EXDEV, queue_conn(&self->s.q, conn[3], 0, &c));
	EXPECT_EQ(-ENOENT, queue_conn(&self->s.q, conn[4], 0, &c));
	EXPECT_EQ(-ENOENT, queue_conn(&self->s.q, conn[5] + 0x10000, 0, &c));
	EXPECT_EQ(-ENOENT, queue_conn(&self->s.q, 0, 0, &c));
	/* where one was that has gone is a place to go on from; the last index is one, too */
	ASSERT_EQ(0, queue_conn(&self->s.q, conn[4], PASTE_CONN_NEXT, &c));
	EXPECT_EQ(conn[5], c.conn);
	EXPECT_EQ(-ENOENT, queue_conn(&self->s.q, 0xffffffff, PASTE_CONN_NEXT, &c));
	for (int i = 0; i < 32; i++) {
		close(sv[i][0]);
		close(sv[i][1]);
	}
	queue_close(&other);
}

/* ------------------------------------------------------------------------- */

TEST_F(data, close__without_detach)
{
	struct paste_comp done;

	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 5000, SOON));
	close(self->s.sv[0]);
	self->s.sv[0] = -1;
	/* the FIN goes out at once, whatever the module holds */
	peer_until(&self->s, ~0ULL);
	EXPECT_TRUE(self->s.peer.eof);
	stream_nothing_more(_metadata, &self->s);

	ASSERT_TRUE(tx_put(&self->s.q, self->s.conn, self->s.ctx.first_tx, 0, 10, 0, ~0ULL));
	do {
		ASSERT_TRUE(comp_wait(&self->s.q, &done, SOON));
	} while (done.cookie != ~0ULL);
	EXPECT_GT(0, done.result);
	close(self->s.sv[1]);
	self->s.sv[1] = -1;
	EXPECT_TRUE(queue_conns(&self->s.q, 0, SOON));
}

TEST_F(data, close__with_unread_data)
{
	/* TCP resets the connection then, as without us */
	ATTACH(1);
	for (int i = 1; i <= 20; i++) {
		peer_send(&self->s.peer, i * 1000);
		sleep_ms(1);
	}
	close(self->s.sv[0]);
	self->s.sv[0] = -1;
	peer_until(&self->s, ~0ULL);
	EXPECT_TRUE(self->s.peer.err == ECONNRESET || self->s.peer.eof);
	EXPECT_TRUE(queue_conns(&self->s.q, 0, SOON));
}

TEST_F(data, close__of_a_dup)
{
	int fd;

	ATTACH(0);
	fd = dup(self->s.sv[0]);
	close(self->s.sv[0]);
	self->s.sv[0] = fd;
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 5000, SOON));
}

TEST_F(data, close__of_the_queue)
{
	char b[16];

	/* the connection goes on as an ordinary one */
	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 5000, SOON));
	queue_close(&self->s.q);
	ASSERT_EQ(3, send(self->s.sv[1], "abc", 3, 0));
	ASSERT_EQ(3, recv(self->s.sv[0], b, 3, MSG_WAITALL));
	ASSERT_EQ(3, send(self->s.sv[0], "def", 3, 0));
	ASSERT_EQ(3, recv(self->s.sv[1], b, 3, MSG_WAITALL));
}

TEST_F(data, fork__child_changes_nothing)
{
	int status;
	pid_t pid;

	ATTACH(0);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 5000, SOON));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		__u32 conn;
		int sv[2], err;

		err = tcp_pair(AF_INET, sv) ?: queue_attach(&self->s.q, sv[0], 0, &conn);
		if (err != -EPERM || queue_detach(&self->s.q, self->s.conn) != -EPERM)
			_exit(1);
		_exit(0);
	}
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 100000, SOON));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 200000, SOON));
}

TEST_F(data, rcvlowat__does_not_delay)
{
	int low = 10000;

	setsockopt(self->s.sv[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low));
	ATTACH(0);
	peer_send(&self->s.peer, 1);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 1, SOON));
}

static int option(int sock, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	getsockopt(sock, SOL_SOCKET, name, &value, &len);
	return value;
}

TEST_F(data, detach__gives_options_back)
{
	int low = 10000, sock = self->s.sv[0];

	setsockopt(sock, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low));
	ATTACH(0);
	EXPECT_EQ(1, option(sock, SO_RCVLOWAT));
	EXPECT_EQ(2 * sysconf(_SC_PAGESIZE), option(sock, SO_RESERVE_MEM));
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 200000, SOON));
	ASSERT_EQ(0, queue_detach(&self->s.q, self->s.conn));
	EXPECT_EQ(low, option(sock, SO_RCVLOWAT));
	EXPECT_EQ(0, option(sock, SO_RESERVE_MEM));
}

TEST_F(data, memory__what_the_stack_holds_comes_back)
{
	/* many more bytes than the pool has, one entry held at a time */
	ATTACH(0);
	for (int i = 1; i <= 16; i++) {
		while (self->s.peer.sent < i * 300000ULL) {
			peer_send(&self->s.peer, i * 300000ULL);
			stream_until(&self->s.in, &self->s.q, self->s.peer.sent, SOON);
		}
	}
	EXPECT_EQ(self->s.peer.sent, self->s.in.pos);
}

/* ------------------------------------------------------------------------- */

/* Small rings and pools, so that they get full. */
FIXTURE(full)
{
	struct setup s;
};

FIXTURE_VARIANT(full) {
	__u32 chunk_size;
};

FIXTURE_VARIANT_ADD(full, c4096){ .chunk_size = 4096 };
FIXTURE_VARIANT_ADD(full, c2048){ .chunk_size = 2048 };

FIXTURE_SETUP(full)
{
	struct paste_ioc_queue opts = {
		.rx_entries = 64,
		.fill_entries = 64,
		.tx_entries = 64,
		.comp_entries = 64,
	};

	ASSERT_EQ(0, setup_make(&self->s, AF_INET, variant->chunk_size, 64, &opts))
	TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(full)
{
	EXPECT_EQ(0, self->s.q.bad);
	EXPECT_FALSE(self->s.in.wrong);
	EXPECT_FALSE(self->s.in.late);
	setup_close(&self->s);
}

TEST_F(full, ring__stalls_and_resumes)
{
	/* without a limit of its own the connection fills the ring */
	ATTACH(64);
	for (int i = 1; i <= 200; i++) {
		peer_send(&self->s.peer, i * 10);
		sleep_ms(1);
	}
	sleep_ms(NEVER);
	EXPECT_GE(64, ring_ready(&self->s.q.rx));
	EXPECT_LE(16, ring_ready(&self->s.q.rx));
	EXPECT_TRUE(*self->s.q.flags & PASTE_Q_NEED_SYNC);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, 2000, SOON));
	EXPECT_LT(0, queue_stat(&self->s.q, PASTE_STAT_STALL_RING) +
			     queue_stat(&self->s.q, PASTE_STAT_STALL_QUOTA));
	EXPECT_FALSE(*self->s.q.flags & PASTE_Q_DEAD);
}

/* Two fill the ring: one up to its quota, the other the rest of it. */
TEST_F(full, ring__who_waits_for_it)
{
	struct peer peer;
	__u32 conn;
	int sv[2];

	ATTACH(48);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&self->s.q, sv[0], 48, &conn)) TH_LOG("%s", text);
	peer_init(&peer, sv[1]);
	for (__u64 end = now_ms() + SOON;
	     now_ms() < end && !seen(&self->s.q, self->s.conn).waits;) {
		peer_send(&self->s.peer, self->s.peer.sent + 10);
		sleep_ms(1);
	}
	for (__u64 end = now_ms() + SOON; now_ms() < end && !seen(&self->s.q, conn).waits;) {
		peer_send(&peer, peer.sent + 10);
		sleep_ms(1);
	}
	EXPECT_EQ(PASTE_STAT_STALL_QUOTA, seen(&self->s.q, self->s.conn).waits);
	EXPECT_EQ(48, seen(&self->s.q, self->s.conn).used);
	EXPECT_EQ(PASTE_STAT_STALL_RING, seen(&self->s.q, conn).waits);
	EXPECT_EQ(16, seen(&self->s.q, conn).used);
	close(sv[0]);
	close(sv[1]);
}

TEST_F(full, ring__shared_by_many)
{
	struct stream in[20] = {};
	struct peer peer[20];
	int sv[20][2];
	__u64 end = now_ms() + 2 * SOON, done;
	struct paste_rx e;

	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(0, tcp_pair(AF_INET, sv[i]));
		ASSERT_EQ(0, queue_attach(&self->s.q, sv[i][0], 16, &in[i].conn))
		TH_LOG("%s", text);
		peer_init(&peer[i], sv[i][1]);
	}
	do {
		done = 0;
		for (int i = 0; i < 20; i++)
			peer_send(&peer[i], 100000);
		while (rx_take(&self->s.q, &e)) {
			for (int i = 0; i < 20; i++) {
				if (in[i].conn == e.conn)
					stream_take(&in[i], &self->s.q, &e);
			}
		}
		ASSERT_EQ(0, queue_sync(&self->s.q, 0, 1000));
		for (int i = 0; i < 20; i++) {
			done += in[i].pos == 100000;
			ASSERT_FALSE(in[i].wrong);
		}
	} while (done < 20 && now_ms() < end);
	EXPECT_EQ(20, done);
	for (int i = 0; i < 20; i++) {
		close(sv[i][0]);
		close(sv[i][1]);
	}
}

TEST_F(full, pool__exhausted_and_recovers)
{
	struct paste_rx held[4096];
	struct paste_ioc_stats st;
	unsigned int n = 0;
	__u64 stuck;

	/* take all entries, give nothing back */
	ATTACH(64);
	do {
		stuck = self->s.in.pos;
		for (int i = 0; i < 20; i++) {
			peer_send(&self->s.peer, 16 << 20);
			ASSERT_EQ(0, queue_sync(&self->s.q, 0, 10000));
			while (n < ARRAY_SIZE(held) && rx_take(&self->s.q, &held[n]))
				self->s.in.pos += held[n++].len;
		}
	} while (self->s.in.pos != stuck);
	self->s.in.pos = 0;
	EXPECT_GE(64ULL * variant->chunk_size, stuck);
	EXPECT_LE(16ULL * variant->chunk_size, stuck);
	ASSERT_GT(16 << 20, self->s.peer.sent);
	ASSERT_EQ(0, queue_stats(&self->s.q, &st));
	EXPECT_LT(0, st.v[PASTE_STAT_STALL_CHUNK]);
	EXPECT_EQ(0, st.chunks_free);
	EXPECT_EQ(PASTE_STAT_STALL_CHUNK, seen(&self->s.q, self->s.conn).waits);

	for (unsigned int i = 0; i < n; i++)
		stream_take(&self->s.in, &self->s.q, &held[i]);
	EXPECT_TRUE(stream_until(&self->s.in, &self->s.q, self->s.peer.sent, 2 * SOON))
	{
		TH_LOG("%llu of %llu", self->s.in.pos, self->s.peer.sent);
	}
}

TEST_F(full, pool__never_filled)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	__u32 conn;
	struct queue q;
	struct ctx c;
	struct paste_rx e;

	/* a queue that has no chunk at all, and then gets one */
	ASSERT_EQ(0, ctx_make(&c, variant->chunk_size, 64, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, &opts)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_attach(&q, self->s.sv[0], 0, &conn)) TH_LOG("%s", text);
	peer_send(&self->s.peer, 100);
	EXPECT_FALSE(rx_wait(&q, &e, NEVER));
	fill_put(&q, q.first);
	ASSERT_TRUE(rx_wait(&q, &e, SOON));
	EXPECT_EQ(q.first, e.chunk);
	EXPECT_EQ(100, e.len);
	queue_close(&q);
	ctx_close(&c);
}

TEST_F(full, limit__connections)
{
	struct paste_ioc_info info;
	int sv[2], err = 0;
	unsigned int n;

	ASSERT_EQ(0, ctx_info(self->s.ctx.fd, &info));
	/* some hundreds are enough: nobody may be turned away earlier than info says */
	for (n = 0; n < 300; n++) {
		err = tcp_pair(AF_INET, sv) ?: queue_attach(&self->s.q, sv[0], 0, NULL);
		if (err)
			break;
	}
	EXPECT_EQ(n < info.max_conns ? 0 : -ENOSPC, err) TH_LOG("%u: %s", n, text);
	EXPECT_EQ(300, n);
}

/* ------------------------------------------------------------------------- */

struct scribbler {
	int sock;
	volatile bool stop;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	char b[512];
	int size;

	while (!s->stop) {
		size = 4096 + rand() % 65536;
		setsockopt(s->sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		setsockopt(s->sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		recv(s->sock, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);
		sleep_ms(1);
	}
	return NULL;
}

TEST_F(data, options__changed_under_traffic)
{
	struct scribbler s = { .sock = self->s.sv[0] };
	pthread_t t;

	ATTACH(0);
	ASSERT_EQ(0, pthread_create(&t, NULL, scribble, &s));
	EXPECT_TRUE(echo(&self->s.q, &self->s.in, &self->s.peer, 1 << 20, 4 * SOON))
	{
		TH_LOG("sent %llu, delivered %llu, back %llu", self->s.peer.sent, self->s.in.pos,
		       self->s.peer.got);
	}
	s.stop = true;
	pthread_join(t, NULL);
}

static void *stealer(void *arg)
{
	struct scribbler *s = arg;
	char b[100];

	while (!s->stop) {
		recv(s->sock, b, sizeof(b), MSG_DONTWAIT);
		sched_yield();
	}
	return NULL;
}

TEST_F(data, read__steals_but_breaks_nothing)
{
	struct scribbler s = { .sock = self->s.sv[0] };
	__u64 end = now_ms() + 1000;
	struct paste_rx e;
	pthread_t t;

	ATTACH(2);
	ASSERT_EQ(0, pthread_create(&t, NULL, stealer, &s));
	while (now_ms() < end) {
		peer_send(&self->s.peer, self->s.peer.sent + 5000);
		ASSERT_EQ(0, queue_sync(&self->s.q, 0, 1000));
		while (rx_take(&self->s.q, &e))
			fill_put(&self->s.q, e.chunk);
	}
	s.stop = true;
	pthread_join(t, NULL);
}

/* ------------------------------------------------------------------------- */

/* Memory that a userfaultfd has still to provide. */
static int hole_make(void **hole)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	*hole = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range = (struct uffdio_range){ (uintptr_t)*hole, 4096 };
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		return -errno;
	return fd;
}

/* A socket that a thread has locked: it sends from a hole. */
struct locker {
	int sock;
	int uffd;
	void *hole;
	pthread_t thread;
};

static void *send_hole(void *arg)
{
	struct locker *l = arg;

	return (void *)send(l->sock, l->hole, 4096, 0);
}

static bool lock_socket(struct locker *l, int sock)
{
	struct uffd_msg event;

	l->sock = sock;
	l->uffd = hole_make(&l->hole);
	return l->uffd >= 0 && !pthread_create(&l->thread, NULL, send_hole, l) &&
	       read(l->uffd, &event, sizeof(event)) == sizeof(event);
}

static bool unlock_socket(struct locker *l)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)l->hole, 4096 } };
	void *sent;

	if (ioctl(l->uffd, UFFDIO_ZEROPAGE, &zero) || pthread_join(l->thread, &sent))
		return false;
	close(l->uffd);
	munmap(l->hole, 4096);
	return sent == (void *)4096;
}

static void *sync_once(void *arg)
{
	return (void *)(intptr_t)queue_sync(arg, 0, 0);
}

struct attach_call {
	struct paste_ioc_attach *a;
	int queue;
	int result;
};

static void *attach_once(void *arg)
{
	struct attach_call *c = arg;

	c->result = call(c->queue, PASTE_IOC_ATTACH, c->a);
	return NULL;
}

/* The handle cannot be written back any more when the attach is done: then it was none. */
TEST(attach__argument_gone_meanwhile)
{
	struct attach_call c;
	struct locker locker;
	struct setup s;
	pthread_t t;

	ASSERT_EQ(0, setup_make(&s, AF_INET, 0, 256, NULL)) TH_LOG("%s", text);
	c.queue = s.q.fd;
	c.a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, c.a);
	*c.a = (struct paste_ioc_attach){ .size = sizeof(*c.a), .fd = s.sv[0] };
	ASSERT_TRUE(lock_socket(&locker, s.sv[0]));
	ASSERT_EQ(0, pthread_create(&t, NULL, attach_once, &c));
	sleep_ms(NEVER);
	ASSERT_EQ(0, mprotect(c.a, 4096, PROT_READ));
	EXPECT_TRUE(unlock_socket(&locker));
	pthread_join(t, NULL);
	EXPECT_EQ(-EFAULT, c.result);
	EXPECT_EQ(0, setup_attach(&s, 0)) TH_LOG("%s", text);
	setup_close(&s);
}

/* To look at a connection waits for nobody. */
TEST(info__of_a_locked_socket)
{
	struct paste_ioc_conn c;
	struct locker locker;
	struct setup s;
	struct stat st;

	ASSERT_EQ(0, setup_make(&s, AF_INET, 0, 256, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, setup_attach(&s, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, fstat(s.sv[0], &st));
	ASSERT_TRUE(lock_socket(&locker, s.sv[0]));
	EXPECT_EQ(0, queue_conn(&s.q, s.conn, 0, &c));
	EXPECT_EQ(st.st_ino, c.inode);
	EXPECT_TRUE(unlock_socket(&locker));
	setup_close(&s);
}

struct looker {
	int ctx;
	volatile bool stop;
	unsigned long found;
};

/* All connections of all queues, again and again. */
static void *look(void *arg)
{
	struct looker *l = arg;
	struct paste_ioc_stats q = { .size = sizeof(q), .flags = PASTE_STATS_NEXT };
	struct paste_ioc_conn c = { .size = sizeof(c), .flags = PASTE_CONN_NEXT };

	while (!l->stop) {
		for (q.id = 0; !call(l->ctx, PASTE_IOC_STATS, &q); q.id++) {
			c.id = q.id;
			for (c.conn = 0; !call(l->ctx, PASTE_IOC_CONN, &c); l->found++)
				;
		}
	}
	return NULL;
}

/* A queue with five connections; one is detached, one closed, one's peer closed, before the queue is. */
static void come_and_go(struct __test_metadata *_metadata)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	struct setup s;
	__u32 conn;
	int sv[4][2];

	ASSERT_EQ(0, setup_make(&s, AF_INET, 0, 64, &opts)) TH_LOG("%s", text);
	ASSERT_EQ(0, setup_attach(&s, 0)) TH_LOG("%s", text);
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, tcp_pair(AF_INET, sv[i]));
		ASSERT_EQ(0, queue_attach(&s.q, sv[i][0], 0, &conn));
	}
	EXPECT_TRUE(echo(&s.q, &s.in, &s.peer, 5000, SOON));
	EXPECT_EQ(0, queue_detach(&s.q, conn));
	close(sv[1][0]);
	close(sv[2][1]);
	setup_close(&s);
	for (int i = 0; i < 4; i++) {
		if (i != 1)
			close(sv[i][0]);
		if (i != 2)
			close(sv[i][1]);
	}
}

TEST(info__while_they_come_and_go)
{
	__u64 before[PASTE_OBJ_MAX];
	struct looker l = {};
	pthread_t t[2];

	ASSERT_EQ(0, objects_read(before));
	l.ctx = ctx_open();
	ASSERT_LE(0, l.ctx);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&t[i], NULL, look, &l));
	}
	for (int i = 0; i < 50; i++)
		come_and_go(_metadata);
	l.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	EXPECT_LT(0, l.found);
	close(l.ctx);
	EXPECT_TRUE(objects_wait(before, SOON));
}

/*
 * A batch holds back the qdisc of its packets. Another task may hold the lock of
 * one of its sockets for as long as it likes: then the batch waits, but nobody
 * else who sends through the same interface.
 */
TEST(send__locked_socket_delays_nobody_else)
{
	struct paste_ioc_stats stats;
	struct locker locker;
	struct setup s;
	pthread_t t;
	int sv[2];
	__u32 conn;

	ASSERT_EQ(0, unshare(CLONE_NEWNET));
	if (system("tc qdisc replace dev lo root fq_codel"))
		SKIP(return, "no fq_codel");
	ASSERT_EQ(0, setup_make(&s, AF_INET, 0, 256, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, setup_attach(&s, 0));
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&s.q, sv[0], 0, &conn));
	ASSERT_TRUE(lock_socket(&locker, sv[0]));

	tx_put(&s.q, s.conn, s.ctx.first_tx, 0, 1000, 0, 1);
	tx_put(&s.q, conn, s.ctx.first_tx, 0, 1000, 0, 2);
	ASSERT_EQ(0, pthread_create(&t, NULL, sync_once, &s.q));
	EXPECT_TRUE(wait_readable(s.sv[1], 1000, SOON));

	EXPECT_TRUE(unlock_socket(&locker));
	pthread_join(t, NULL);
	EXPECT_TRUE(wait_readable(sv[1], 5096, SOON));
	ASSERT_EQ(0, queue_stats(&s.q, &stats));
	EXPECT_EQ(1, stats.v[PASTE_STAT_DOORBELLS_LATE]);
	close(sv[0]);
	close(sv[1]);
	setup_close(&s);
}

/*
 * A batch has looked up the connections of two sends and waits for the socket of
 * the first when the second one's is detached - with a full buffer, so that the
 * send cannot end by itself.
 */
TEST(send__detached_under_way)
{
	__u64 before[PASTE_OBJ_MAX];
	struct paste_comp c[2];
	struct locker locker;
	struct setup s;
	pthread_t t;
	int sv[2];
	__u32 conn;

	ASSERT_EQ(0, objects_read(before));
	ASSERT_EQ(0, setup_make(&s, AF_INET, 0, 256, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, setup_attach(&s, 0));
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&s.q, sv[0], 0, &conn));
	while (send(sv[0], text, sizeof(text), MSG_DONTWAIT) > 0)
		;
	ASSERT_TRUE(lock_socket(&locker, s.sv[0]));

	tx_put(&s.q, s.conn, s.ctx.first_tx, 0, 1000, 0, 1);
	tx_put(&s.q, conn, s.ctx.first_tx, 0, 1000, 0, 2);
	ASSERT_EQ(0, pthread_create(&t, NULL, sync_once, &s.q));
	sleep_ms(NEVER);
	EXPECT_EQ(0, queue_detach(&s.q, conn));

	EXPECT_TRUE(unlock_socket(&locker));
	pthread_join(t, NULL);
	for (int i = 0; i < 2; i++)
		ASSERT_TRUE(comp_wait(&s.q, &c[i], SOON));
	EXPECT_EQ(-ECANCELED, c[c[0].cookie == 1].result);
	close(sv[0]);
	close(sv[1]);
	setup_close(&s);
	EXPECT_TRUE(objects_wait(before, SOON));
}

TEST_HARNESS_MAIN
