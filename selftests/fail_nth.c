// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation and every copy from or to user space, failing once: the
 * kernel's fault injection fails the n-th of a task (/proc/self/fail-nth), for
 * n = 1, 2, ... until an operation gets through without. Each time the
 * operation must succeed or fail with an errno that the header knows, and with
 * what is there afterwards the same operation must work, or its queue be dead.
 * In the end nothing is left. Needs a kernel with FAULT_INJECTION.
 *
 * Packets that are lost to a fault come again after a timeout, so data that
 * does not come at once is waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"
#include "kselftest_harness.h"

#define FAULTS_MAX 2000 /* an operation with more places to fail would be another one */

static int fail_fd = -1;

/* Tests are processes: what they share, and the first of them. */
static unsigned long *injected;
static pid_t first;

__attribute__((constructor)) static void count_prepare(void)
{
	first = getpid();
	injected = mmap(NULL, sizeof(*injected), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (injected == MAP_FAILED)
		abort();
}

/* The harness leaves through exit(). */
__attribute__((destructor)) static void count_print(void)
{
	if (getpid() == first)
		printf("robust: faults-injected %lu\n", *injected);
}

/* ---------------------------------------------------------------- faults --- */

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close(fd);
	return ok;
}

/* Which faults: all that fail-nth can make, also those in allocations that may sleep, without a word in the log. */
static bool faults_prepare(void)
{
	static const char *const kinds[] = { "failslab", "fail_page_alloc", "fail_usercopy" };
	char path[128];

	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose", kinds[i]);
		if (!write_file(path, "0"))
			return false;
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-wait", kinds[i]);
		write_file(path, "N");
	}
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	fail_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	return fail_fd >= 0;
}

static void fault_arm(unsigned int nth)
{
	char buf[16];
	int len = snprintf(buf, sizeof(buf), "%u", nth);

	if (pwrite(fail_fd, buf, len, 0) != len)
		abort();
}

static void fault_disarm(void)
{
	/* one that is still to come may hit this very call, but only one of them */
	if (pwrite(fail_fd, "0", 1, 0) != 1 && pwrite(fail_fd, "0", 1, 0) != 1)
		abort();
}

/* Was there an n-th? No fault will come any more. */
static bool fault_came(void)
{
	char buf[16] = {};
	bool came = pread(fail_fd, buf, sizeof(buf) - 1, 0) > 0 && !atoi(buf);

	fault_disarm();
	*injected += came;
	return came;
}

/* What an operation may say when something in it failed. */
static bool is_clean(int err)
{
	switch (err) {
	case 0:
	case -ENOMEM:
	case -EFAULT:
	case -ENOBUFS:
	case -ENFILE: /* what the kernel says of a file or a socket for which there is no memory */
		return true;
	default:
		return false;
	}
}

/* ------------------------------------------------------------- the fixture --- */

FIXTURE(fail)
{
	__u64 before[PASTE_OBJ_MAX];
	struct ctx ctx;
	struct queue q;
	struct stream s;
	struct peer peer;
	int sv[2];
};

FIXTURE_SETUP(fail)
{
	if (!faults_prepare())
		SKIP(return, "this kernel injects no faults");
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 256, 32)) TH_LOG("%s", text);
	ASSERT_EQ(0,
		  queue_make(&self->q, &self->ctx, &(struct paste_ioc_queue){ .rx_chunks = 128 }))
	TH_LOG("%s", text);
	fill_slice(&self->q);
	ASSERT_EQ(0, tcp_pair(AF_INET, self->sv));
	ASSERT_EQ(0, queue_attach(&self->q, self->sv[0], 0, &self->s.conn)) TH_LOG("%s", text);
	peer_init(&self->peer, self->sv[1]);
}

FIXTURE_TEARDOWN(fail)
{
	close(self->sv[0]);
	close(self->sv[1]);
	queue_close(&self->q);
	ctx_close(&self->ctx);
	EXPECT_TRUE(objects_wait(self->before, SOON));
}

/* The sweep: OPERATION sets err; UNDO runs if it was 0. */
#define SWEEP(operation, undo)                                               \
	do {                                                                 \
		unsigned int nth = 0;                                        \
		bool came;                                                   \
		int err;                                                     \
                                                                             \
		do {                                                         \
			fault_arm(++nth);                                    \
			err = (operation);                                   \
			came = fault_came();                                 \
			EXPECT_TRUE(came ? is_clean(err) : !err)             \
			{                                                    \
				TH_LOG("fault %u: %s", nth, strerror(-err)); \
			}                                                    \
			if (!err) {                                          \
				undo;                                        \
			}                                                    \
		} while (came && nth < FAULTS_MAX);                          \
		EXPECT_GT(FAULTS_MAX, nth);                                  \
		EXPECT_LT(1, nth)                                            \
		{                                                            \
			TH_LOG("nothing in it could fail");                  \
		}                                                            \
	} while (0)

/* The connection beside is as good as before. */
static bool still_good(struct queue *q, struct stream *s, struct peer *p)
{
	return echo(q, s, p, p->got + 30000, 4 * SOON);
}

/* ------------------------------------------------------------------ set-up --- */

static int make_pool(int fd, __u32 n_rx)
{
	struct paste_ioc_pool a = {
		.size = sizeof(a), .text = (uintptr_t)text, .fd = -1, .n_rx = n_rx, .n_tx = 16
	};

	return call(fd, PASTE_IOC_POOL, &a);
}

TEST_F_TIMEOUT(fail, open__any_fault, 120)
{
	int fd = -1;

	SWEEP((fd = open(DEVICE, O_RDWR | O_CLOEXEC)) < 0 ? -errno : 0, close(fd));
}

/*
 * When the last step fails, which is telling the caller, a pool stays all the
 * same, and the chunks of a queue stay its own: a context for each. No fault is
 * for making that.
 */
static int pool_of_new_context(unsigned int nth)
{
	int fd, err;

	fault_disarm();
	fd = ctx_open();
	if (fd < 0)
		return -EPROTO;
	fault_arm(nth);
	err = make_pool(fd, 64);
	close(fd);
	return err;
}

TEST_F_TIMEOUT(fail, pool__any_fault, 300)
{
	SWEEP(pool_of_new_context(nth), );
}

static int queue_of_new_context(unsigned int nth)
{
	struct paste_ioc_queue a = {
		.size = sizeof(a), .rx_chunks = 64, .rx_entries = 64, .comp_entries = 64
	};
	struct ctx c;
	int err;

	fault_disarm();
	if (ctx_make(&c, 0, 64, 0))
		return -EPROTO;
	fault_arm(nth);
	err = call(c.fd, PASTE_IOC_QUEUE, &a);
	if (!err)
		close(a.fd);
	ctx_close(&c);
	return err;
}

TEST_F_TIMEOUT(fail, queue__any_fault, 300)
{
	SWEEP(queue_of_new_context(nth), );
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

static int map_and_touch(struct ctx *c)
{
	volatile __u8 *p = mmap(NULL, c->bytes, PROT_READ, MAP_SHARED, c->fd, PASTE_MMAP_POOL);

	if (p == MAP_FAILED)
		return -errno;
	munmap((void *)p, c->bytes);
	return 0;
}

TEST_F_TIMEOUT(fail, mmap__any_fault, 120)
{
	SWEEP(map_and_touch(&self->ctx), );
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

TEST_F_TIMEOUT(fail, attach__any_fault, 300)
{
	__u32 conn;
	int sv[2];

	ASSERT_EQ(0, tcp_pair(AF_INET6, sv));
	/* with data that is delivered from within the attach */
	ASSERT_EQ(5, send(sv[1], "hello", 5, 0));
	SWEEP(queue_attach(&self->q, sv[0], 0, &conn), {
		struct paste_rx e;

		ASSERT_EQ(0, queue_detach(&self->q, conn));
		while (rx_take(&self->q, &e))
			if (e.len)
				fill_put(&self->q, e.chunk);
	});
	close(sv[0]);
	close(sv[1]);
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

TEST_F_TIMEOUT(fail, detach__any_fault, 300)
{
	struct paste_ioc_detach d = { .size = sizeof(d) };
	int sv[2];

	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&self->q, sv[0], 0, &d.conn));
	SWEEP(call(self->q.fd, PASTE_IOC_DETACH, &d),
	      ASSERT_EQ(0, queue_attach(&self->q, sv[0], 0, &d.conn)));
	close(sv[0]);
	close(sv[1]);
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

/* What there is now: detached and forgotten, and another connection with data waits to be accepted. */
static void accept_again(struct queue *q, __u16 port, int *client)
{
	struct paste_rx e;

	queue_sync(q, 0, 0);
	while (rx_take(q, &e)) {
		if (e.flags & PASTE_RX_NEW)
			queue_detach(q, e.conn);
		else if (e.len)
			fill_put(q, e.chunk);
	}
	close(*client);
	*client = tcp_connect(AF_INET6, port);
	if (send(*client, "hello", 5, 0) != 5)
		perror("# send");
}

TEST_F_TIMEOUT(fail, accept__any_fault, 300)
{
	int l, client = -1;
	__u16 port;

	l = tcp_listen(AF_INET6, &port);
	SWEEP(queue_accept(&self->q, l, 0), ASSERT_EQ(0, queue_accept(&self->q, -1, 0)));
	ASSERT_EQ(0, queue_accept(&self->q, l, 0));
	accept_again(&self->q, port, &client);
	SWEEP(queue_sync(&self->q, 0, 0), accept_again(&self->q, port, &client));
	accept_again(&self->q, port, &client);
	close(client);
	ASSERT_EQ(0, queue_accept(&self->q, -1, 0));
	close(l);
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

TEST_F_TIMEOUT(fail, info_and_stats__any_fault, 120)
{
	struct paste_ioc_info info;
	struct paste_ioc_stats stats;
	struct paste_ioc_conn conn;

	SWEEP(ctx_info(self->ctx.fd, &info), );
	SWEEP(queue_stats(&self->q, &stats), );
	SWEEP(queue_conn(&self->q, self->s.conn, 0, &conn), );
	SWEEP(queue_conn(&self->q, 0, PASTE_CONN_NEXT, &conn), );
}

/* A NIC's binding, where there is one that can be bound. */
TEST_F_TIMEOUT(fail, bind__any_fault, 900)
{
	const char *nic = getenv("PASTE_IF");
	__u16 port = 60000;
	struct paste_ioc_nic_bind b = {
		.size = sizeof(b),
		.text = (uintptr_t)text,
		.ifindex = nic ? if_nametoindex(nic) : 0,
		.ports = (uintptr_t)&port,
		.n_ports = 1,
		.entries = 32,
	};
	struct paste_ioc_nic_unbind u = { .size = sizeof(u) };
	int err;

	err = call(self->q.fd, PASTE_IOC_NIC_BIND, &b);
	if (err)
		SKIP(return, "no NIC with zero copy here");
	close(b.xsk_fd);
	ASSERT_EQ(0, call(self->q.fd, PASTE_IOC_NIC_UNBIND, &u));
	SWEEP(call(self->q.fd, PASTE_IOC_NIC_BIND, &b), {
		close(b.xsk_fd);
		ASSERT_EQ(0, call(self->q.fd, PASTE_IOC_NIC_UNBIND, &u));
	});
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

/* --------------------------------------------------------------- data path --- */

/*
 * A sync that sends size bytes; loopback carries them to the peer, TCP's answer
 * comes back, all in this task. What a fault takes, TCP sends again: nothing of
 * the stream may be missing.
 */
static int send_one(struct queue *q, __u32 conn, __u32 chunk, __u32 size)
{
	tx_put(q, conn, chunk, 0, size, 0, 1);
	return queue_sync(q, 0, 0);
}

static void take_all(struct queue *q, unsigned int *comps, int *worst)
{
	struct paste_comp e;

	while (comp_take(q, &e)) {
		++*comps;
		if (e.result < *worst)
			*worst = e.result;
	}
}

static void sweep_sends(struct __test_metadata *_metadata, FIXTURE_DATA(fail) * self, __u32 size)
{
	__u32 chunk = self->ctx.first_tx;
	__u64 pos = self->peer.got;
	unsigned int sent = 0, comps = 0;
	int worst = 0;

	SWEEP((pattern_write(chunk_at(&self->ctx, chunk + sent % 16, 0), pos + (__u64)sent * size,
			     size),
	       send_one(&self->q, self->s.conn, chunk + sent++ % 16, size)), );
	for (__u64 end = now_ms() + 4 * SOON; comps < sent && now_ms() < end;) {
		queue_sync(&self->q, 0, 10000);
		take_all(&self->q, &comps, &worst);
		peer_recv(&self->peer);
	}
	EXPECT_EQ(sent, comps);
	EXPECT_EQ(0, worst);
	EXPECT_FALSE(self->peer.wrong);
}

TEST_F_TIMEOUT(fail, send__small_any_fault, 600)
{
	sweep_sends(_metadata, self, 100);
}

TEST_F_TIMEOUT(fail, send__large_any_fault, 600)
{
	sweep_sends(_metadata, self, 4000);
}

static int peer_sends(struct peer *p, __u64 upto)
{
	peer_send(p, upto);
	return p->err == ENOMEM || p->err == ENOBUFS ? -p->err : 0;
}

/* Delivery happens in softirq, in the sender's task: faults there are faults of the receiving side. */
TEST_F_TIMEOUT(fail, receive__any_fault, 600)
{
	SWEEP(peer_sends(&self->peer, self->peer.sent + 3000), );
	self->peer.err = 0;
	EXPECT_TRUE(stream_until(&self->s, &self->q, self->peer.sent, 4 * SOON));
	EXPECT_FALSE(self->s.wrong);
}

/* Closing has no result: it must do all of it. */
static int make_and_close(__u32 *closed, bool queue_first, unsigned int nth)
{
	struct queue q;
	struct ctx c;
	__u32 conn;
	int sv[2];

	if (ctx_make(&c, 2048, 64, 16) || queue_make(&q, &c, NULL) || tcp_pair(AF_INET, sv) ||
	    queue_attach(&q, sv[0], 0, &conn))
		return -EPROTO;
	fill_slice(&q);
	tx_put(&q, conn, c.first_tx, 0, 1500, 0, 1);
	queue_sync(&q, 0, 0);
	send(sv[1], "hello", 5, 0);
	fault_arm(nth);
	if (queue_first) {
		queue_close(&q);
		close(sv[0]);
	} else {
		close(sv[0]);
		queue_close(&q);
	}
	ctx_close(&c);
	++*closed;
	close(sv[1]);
	return 0;
}

TEST_F_TIMEOUT(fail, close__any_fault, 900)
{
	__u32 closed = 0;
	unsigned int nth;

	for (int first = 0; first < 2; first++) {
		bool came = true;

		for (nth = 1; came && nth < FAULTS_MAX; nth++) {
			ASSERT_EQ(0, make_and_close(&closed, first, nth)) TH_LOG("%s", text);
			came = fault_came();
		}
	}
	EXPECT_TRUE(still_good(&self->q, &self->s, &self->peer));
}

TEST_HARNESS_MAIN
