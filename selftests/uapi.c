// SPDX-License-Identifier: GPL-2.0
/* The contract of <linux/paste.h>: sizes, arguments, errors, mappings, rights. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "util.h"
#include "harness.h"

#define NOBODY	   65534
#define NO_IFINDEX 0x7ffffff0

/* ------------------------------------------------------------------------- */

#define SIZE(type, n)	    _Static_assert(sizeof(struct type) == (n), #type)
#define AT(type, member, n) _Static_assert(offsetof(struct type, member) == (n), #type "." #member)

SIZE(paste_ioc_info, PASTE_INFO_SIZE_VER0);
AT(paste_ioc_info, flags, 4);
AT(paste_ioc_info, features, 8);
AT(paste_ioc_info, max_chunks, 16);
AT(paste_ioc_info, max_queues, 20);
AT(paste_ioc_info, max_conns, 24);
AT(paste_ioc_info, max_entries, 28);
AT(paste_ioc_info, tx_copy_max, 32);
AT(paste_ioc_info, resv, 36);
AT(paste_ioc_info, version, 40);
AT(paste_ioc_info, made, 72);
AT(paste_ioc_info, gone, 136);

SIZE(paste_ioc_pool, PASTE_POOL_SIZE_VER1);
AT(paste_ioc_pool, flags, 4);
AT(paste_ioc_pool, text, 8);
AT(paste_ioc_pool, fd, 16);
AT(paste_ioc_pool, chunk_size, 20);
AT(paste_ioc_pool, n_rx, 24);
AT(paste_ioc_pool, n_tx, 28);
AT(paste_ioc_pool, first_rx, 32);
AT(paste_ioc_pool, first_tx, 36);
AT(paste_ioc_pool, bytes, 40);
AT(paste_ioc_pool, addr, PASTE_POOL_SIZE_VER0);
AT(paste_ioc_pool, kind, 56);
AT(paste_ioc_pool, existed, 60);

SIZE(paste_pool_header, 40);
AT(paste_pool_header, version, 8);
AT(paste_pool_header, chunk_size, 12);
AT(paste_pool_header, n_rx, 16);
AT(paste_pool_header, n_tx, 20);
AT(paste_pool_header, first_rx, 24);
AT(paste_pool_header, first_tx, 28);
AT(paste_pool_header, bytes, 32);

SIZE(paste_ring_offsets, 16);
AT(paste_ring_offsets, cons, 4);
AT(paste_ring_offsets, desc, 8);
AT(paste_ring_offsets, entries, 12);

SIZE(paste_ioc_queue, PASTE_QUEUE_SIZE_VER0);
AT(paste_ioc_queue, text, 8);
AT(paste_ioc_queue, rx_entries, 16);
AT(paste_ioc_queue, fill_entries, 20);
AT(paste_ioc_queue, tx_entries, 24);
AT(paste_ioc_queue, comp_entries, 28);
AT(paste_ioc_queue, rx_chunks, 32);
AT(paste_ioc_queue, first_chunk, 36);
AT(paste_ioc_queue, fd, 40);
AT(paste_ioc_queue, id, 44);
AT(paste_ioc_queue, kern_len, 48);
AT(paste_ioc_queue, user_len, 52);
AT(paste_ioc_queue, flags_off, 56);
AT(paste_ioc_queue, resv, 60);
AT(paste_ioc_queue, rx, 64);
AT(paste_ioc_queue, fill, 80);
AT(paste_ioc_queue, tx, 96);
AT(paste_ioc_queue, comp, 112);

SIZE(paste_rx, 16);
AT(paste_rx, chunk, 4);
AT(paste_rx, off, 8);
AT(paste_rx, len, 10);
AT(paste_rx, flags, 12);
AT(paste_rx, err, 14);

SIZE(paste_tx, 24);
AT(paste_tx, chunk, 4);
AT(paste_tx, off, 8);
AT(paste_tx, len, 10);
AT(paste_tx, flags, 12);
AT(paste_tx, cookie, 16);

SIZE(paste_comp, 16);
AT(paste_comp, conn, 8);
AT(paste_comp, result, 12);

SIZE(paste_ioc_nic_bind, PASTE_NIC_BIND_SIZE_VER0);
AT(paste_ioc_nic_bind, text, 8);
AT(paste_ioc_nic_bind, ifindex, 16);
AT(paste_ioc_nic_bind, nic_queue, 20);
AT(paste_ioc_nic_bind, ports, 24);
AT(paste_ioc_nic_bind, n_ports, 32);
AT(paste_ioc_nic_bind, entries, 36);
AT(paste_ioc_nic_bind, xsk_fd, 40);
AT(paste_ioc_nic_bind, resv, 44);

SIZE(paste_ioc_nic_unbind, PASTE_NIC_UNBIND_SIZE_VER0);

SIZE(paste_ioc_attach, PASTE_ATTACH_SIZE_VER0);
AT(paste_ioc_attach, text, 8);
AT(paste_ioc_attach, fd, 16);
AT(paste_ioc_attach, quota, 20);
AT(paste_ioc_attach, conn, 24);
AT(paste_ioc_attach, resv, 28);

SIZE(paste_ioc_detach, PASTE_DETACH_SIZE_VER0);
AT(paste_ioc_detach, conn, 8);
AT(paste_ioc_detach, resv, 12);

SIZE(paste_ioc_quota, PASTE_QUOTA_SIZE_VER0);
AT(paste_ioc_quota, conn, 8);
AT(paste_ioc_quota, quota, 12);

SIZE(paste_ioc_accept, PASTE_ACCEPT_SIZE_VER0);
AT(paste_ioc_accept, text, 8);
AT(paste_ioc_accept, fd, 16);
AT(paste_ioc_accept, quota, 20);

SIZE(paste_ioc_sync, PASTE_SYNC_SIZE_VER0);
AT(paste_ioc_sync, busy_us, 8);
AT(paste_ioc_sync, wait_us, 12);
AT(paste_ioc_sync, n_rx, 16);
AT(paste_ioc_sync, n_comp, 20);

SIZE(paste_ioc_stats, PASTE_STATS_SIZE_VER2);
AT(paste_ioc_stats, id, 8);
AT(paste_ioc_stats, pid, 12);
AT(paste_ioc_stats, ifindex, 16);
AT(paste_ioc_stats, nic_queue, 20);
AT(paste_ioc_stats, conns, 24);
AT(paste_ioc_stats, sends, 28);
AT(paste_ioc_stats, chunk_size, 32);
AT(paste_ioc_stats, chunks, 36);
AT(paste_ioc_stats, first_chunk, 40);
AT(paste_ioc_stats, chunks_free, 44);
AT(paste_ioc_stats, chunks_lent, 48);
AT(paste_ioc_stats, stalled, 52);
AT(paste_ioc_stats, chunks_held, 56);
AT(paste_ioc_stats, resv, 60);
AT(paste_ioc_stats, v, 64);

SIZE(paste_ioc_conn, PASTE_CONN_SIZE_VER0);
AT(paste_ioc_conn, id, 8);
AT(paste_ioc_conn, conn, 12);
AT(paste_ioc_conn, local, 16);
AT(paste_ioc_conn, peer, 32);
AT(paste_ioc_conn, local_port, 48);
AT(paste_ioc_conn, peer_port, 50);
AT(paste_ioc_conn, waits, 52);
AT(paste_ioc_conn, inode, 56);
AT(paste_ioc_conn, netns, 64);
AT(paste_ioc_conn, rx_bytes, 72);
AT(paste_ioc_conn, tx_bytes, 80);
AT(paste_ioc_conn, quota, 88);
AT(paste_ioc_conn, used, 92);
AT(paste_ioc_conn, sends, 96);
AT(paste_ioc_conn, resv, 100);

_Static_assert(PASTE_IOC_INFO == 0x70e0 && PASTE_IOC_CONN == 0x70ea, "numbers");

/* ------------------------------------------------------------------------- */

/* Kinds of file descriptors, and what ioctls they know. */
enum kind {
	BARE,
	POOL,
	QUEUE
};

/*
 * Each ioctl with a request that is valid, or whose fault is found only after
 * everything that the tests change.
 */
FIXTURE(ioctl)
{
	struct ctx ctx;
	struct queue queue;
	int bare;
	int sv[2]; /* with PASTE_IOC_CONN: attached, and its peer */
	__u16 port;
	union {
		__u32 w[256];
		__u8 b[1024];
		struct paste_ioc_info info;
		struct paste_ioc_pool pool;
		struct paste_ioc_queue queue;
		struct paste_ioc_stats stats;
		struct paste_ioc_conn conn;
		struct paste_ioc_nic_bind bind;
		struct paste_ioc_attach attach;
		struct paste_ioc_detach detach;
		struct paste_ioc_quota quota;
		struct paste_ioc_accept accept;
	} a;
};

FIXTURE_VARIANT(ioctl) {
	unsigned long cmd;
	unsigned int size;
	unsigned int shortest; /* 0: size */
	enum kind kind;
	int result;	   /* of the request as it is */
	unsigned int resv; /* offset of the reserved member, or 0 */
	bool out;	   /* something is written back */
};

FIXTURE_VARIANT_ADD(ioctl, info){
	.cmd = PASTE_IOC_INFO,
	.size = PASTE_INFO_SIZE_VER0,
	.kind = BARE,
	.resv = offsetof(struct paste_ioc_info, resv),
	.out = true,
};

FIXTURE_VARIANT_ADD(ioctl, pool){
	.cmd = PASTE_IOC_POOL,
	.size = PASTE_POOL_SIZE_VER1,
	.shortest = PASTE_POOL_SIZE_VER0,
	.kind = BARE,
	.out = true,
};

FIXTURE_VARIANT_ADD(ioctl, queue){
	.cmd = PASTE_IOC_QUEUE,
	.size = PASTE_QUEUE_SIZE_VER0,
	.kind = POOL,
	.resv = offsetof(struct paste_ioc_queue, resv),
	.out = true,
};

FIXTURE_VARIANT_ADD(ioctl, stats){
	.cmd = PASTE_IOC_STATS,
	.size = PASTE_STATS_SIZE_VER2,
	.shortest = PASTE_STATS_SIZE_VER0,
	.kind = POOL,
	.resv = offsetof(struct paste_ioc_stats, resv),
	.out = true,
};

FIXTURE_VARIANT_ADD(ioctl, conn){
	.cmd = PASTE_IOC_CONN,
	.size = PASTE_CONN_SIZE_VER0,
	.kind = POOL,
	.resv = offsetof(struct paste_ioc_conn, resv),
	.out = true,
};

FIXTURE_VARIANT_ADD(ioctl, nic_bind){
	.cmd = PASTE_IOC_NIC_BIND,
	.size = PASTE_NIC_BIND_SIZE_VER0,
	.kind = QUEUE,
	.result = -ENODEV,
	.resv = offsetof(struct paste_ioc_nic_bind, resv),
};

FIXTURE_VARIANT_ADD(ioctl, nic_unbind){
	.cmd = PASTE_IOC_NIC_UNBIND,
	.size = PASTE_NIC_UNBIND_SIZE_VER0,
	.kind = QUEUE,
	.result = -ENXIO,
};

FIXTURE_VARIANT_ADD(ioctl, attach){
	.cmd = PASTE_IOC_ATTACH,
	.size = PASTE_ATTACH_SIZE_VER0,
	.kind = QUEUE,
	.result = -EBADF,
	.resv = offsetof(struct paste_ioc_attach, resv),
};

FIXTURE_VARIANT_ADD(ioctl, detach){
	.cmd = PASTE_IOC_DETACH,
	.size = PASTE_DETACH_SIZE_VER0,
	.kind = QUEUE,
	.result = -ENOENT,
	.resv = offsetof(struct paste_ioc_detach, resv),
};

FIXTURE_VARIANT_ADD(ioctl, quota){
	.cmd = PASTE_IOC_QUOTA,
	.size = PASTE_QUOTA_SIZE_VER0,
	.kind = QUEUE,
	.result = -ENOENT,
};

FIXTURE_VARIANT_ADD(ioctl, accept){
	.cmd = PASTE_IOC_ACCEPT,
	.size = PASTE_ACCEPT_SIZE_VER0,
	.kind = QUEUE,
	.result = -ENXIO,
};

FIXTURE_VARIANT_ADD(ioctl, sync){
	.cmd = PASTE_IOC_SYNC,
	.size = PASTE_SYNC_SIZE_VER0,
	.kind = QUEUE,
	.out = true,
};

FIXTURE_SETUP(ioctl)
{
	struct paste_ioc_queue opts = { .rx_chunks = 64 };

	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 512, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->queue, &self->ctx, &opts)) TH_LOG("%s", text);
	self->bare = ctx_open();
	ASSERT_LE(0, self->bare);
	self->port = 60000;

	self->a.w[0] = variant->size;
	switch (variant->cmd) {
	case PASTE_IOC_POOL:
		self->a.pool.fd = -1;
		self->a.pool.n_rx = 64;
		break;
	case PASTE_IOC_QUEUE:
		self->a.queue.rx_chunks = 64;
		break;
	case PASTE_IOC_STATS:
		self->a.stats.id = self->queue.id;
		break;
	case PASTE_IOC_CONN:
		ASSERT_EQ(0, set_lo_up());
		ASSERT_EQ(0, tcp_pair(AF_INET, self->sv));
		ASSERT_EQ(0, queue_attach(&self->queue, self->sv[0], 0, &self->a.conn.conn));
		self->a.conn.id = self->queue.id;
		break;
	case PASTE_IOC_NIC_BIND:
		self->a.bind.ifindex = NO_IFINDEX;
		self->a.bind.ports = (uintptr_t)&self->port;
		self->a.bind.n_ports = 1;
		break;
	case PASTE_IOC_ATTACH:
		self->a.attach.fd = -1;
		break;
	case PASTE_IOC_ACCEPT:
		self->a.accept.fd = -1;
		break;
	case PASTE_IOC_DETACH:
		self->a.detach.conn = 0x10001;
		break;
	case PASTE_IOC_QUOTA:
		self->a.quota.conn = 0x10001;
		break;
	}
}

FIXTURE_TEARDOWN(ioctl)
{
	close(self->bare);
	queue_close(&self->queue);
	ctx_close(&self->ctx);
	if (variant->cmd == PASTE_IOC_CONN) {
		close(self->sv[0]);
		close(self->sv[1]);
	}
}

static int fd_of(FIXTURE_DATA(ioctl) * self, enum kind kind)
{
	switch (kind) {
	case BARE:
		return self->bare;
	case POOL:
		return self->ctx.fd;
	default:
		return self->queue.fd;
	}
}

static int request(FIXTURE_DATA(ioctl) * self, const FIXTURE_VARIANT(ioctl) * variant, void *arg)
{
	return call(fd_of(self, variant->kind), variant->cmd, arg);
}

TEST_F(ioctl, size__exact)
{
	/* the bytes behind it are not looked at, and not written to */
	memset(self->a.b + variant->size, 0xa5, sizeof(self->a) - variant->size);
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
	for (unsigned int i = variant->size; i < sizeof(self->a); i++) {
		ASSERT_EQ(0xa5, self->a.b[i]);
	}
}

TEST_F(ioctl, size__short)
{
	static const __u32 sizes[] = { 0, 1, 4, 7 };

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		self->a.w[0] = sizes[i];
		EXPECT_EQ(-EINVAL, request(self, variant, &self->a));
	}
	self->a.w[0] = (variant->shortest ?: variant->size) - 1;
	EXPECT_EQ(-EINVAL, request(self, variant, &self->a));
	self->a.w[0] = variant->size;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, size__long_zero)
{
	self->a.w[0] = sizeof(self->a);
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
	for (unsigned int i = variant->size; i < sizeof(self->a); i++) {
		ASSERT_EQ(0, self->a.b[i]);
	}
}

TEST_F(ioctl, size__long_nonzero)
{
	self->a.w[0] = sizeof(self->a);
	self->a.b[variant->size] = 1;
	EXPECT_EQ(-E2BIG, request(self, variant, &self->a));
	self->a.b[variant->size] = 0;
	self->a.b[sizeof(self->a) - 1] = 1;
	EXPECT_EQ(-E2BIG, request(self, variant, &self->a));
	self->a.b[sizeof(self->a) - 1] = 0;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, size__huge)
{
	int err;

	self->a.w[0] = 0xffffffff;
	err = request(self, variant, &self->a);
	EXPECT_TRUE(err == -E2BIG || err == -EFAULT || err == -EINVAL);
	self->a.w[0] = variant->size;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, flags__unknown)
{
	for (unsigned int bit = 0; bit < 32; bit++) {
		if (variant->cmd == PASTE_IOC_POOL && 1U << bit == PASTE_POOL_RX_WRITABLE)
			continue;
		if (variant->cmd == PASTE_IOC_STATS && 1U << bit == PASTE_STATS_NEXT)
			continue;
		if (variant->cmd == PASTE_IOC_CONN && 1U << bit == PASTE_CONN_NEXT)
			continue;
		self->a.w[1] = 1U << bit;
		ASSERT_EQ(-EOPNOTSUPP, request(self, variant, &self->a)) TH_LOG("bit %u", bit);
	}
	self->a.w[1] = 0;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, resv__nonzero)
{
	if (!variant->resv)
		SKIP(return, "no reserved member");
	self->a.w[variant->resv / 4] = 1;
	EXPECT_EQ(-EINVAL, request(self, variant, &self->a));
	self->a.w[variant->resv / 4] = 0x80000000;
	EXPECT_EQ(-EINVAL, request(self, variant, &self->a));
	self->a.w[variant->resv / 4] = 0;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, pointer__bad)
{
	long page = sysconf(_SC_PAGESIZE);
	__u8 *p;

	EXPECT_EQ(-EFAULT, request(self, variant, NULL));
	EXPECT_EQ(-EFAULT, request(self, variant, (void *)-4096));
	EXPECT_EQ(-EFAULT, request(self, variant, (void *)0xffff888000000000));

	/* the end of the struct is the end of the page, and beyond */
	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mprotect(p + page, page, PROT_NONE));
	memcpy(p + page - variant->size + 4, &self->a, variant->size - 4);
	EXPECT_EQ(-EFAULT, request(self, variant, p + page - variant->size + 4));
	memcpy(p + page - variant->size, &self->a, variant->size);
	EXPECT_EQ(variant->result, request(self, variant, p + page - variant->size));
}

static int count_fds(void)
{
	int n = 0;

	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

TEST_F(ioctl, pointer__readonly)
{
	long page = sysconf(_SC_PAGESIZE);
	int fds = count_fds();
	void *p;

	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	memcpy(p, &self->a, variant->size);
	ASSERT_EQ(0, mprotect(p, page, PROT_READ));
	switch (variant->cmd) {
	case PASTE_IOC_DETACH:
	case PASTE_IOC_QUOTA:
	case PASTE_IOC_ACCEPT:
	case PASTE_IOC_NIC_UNBIND: /* nothing is written back */
		EXPECT_EQ(variant->result, request(self, variant, p));
		return;
	}
	for (int i = 0; i < 10; i++) {
		EXPECT_EQ(-EFAULT, request(self, variant, p));
	}

	/* nothing is half done: 448 chunks are left, ten queues of 64 would not fit */
	EXPECT_EQ(fds, count_fds());
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, text__bad_pointer)
{
	switch (variant->cmd) {
	case PASTE_IOC_POOL:
	case PASTE_IOC_QUEUE:
	case PASTE_IOC_NIC_BIND:
	case PASTE_IOC_ATTACH:
		break;
	default:
		SKIP(return, "no text");
	}
	/* whatever is wrong, the bad pointer must not make it right */
	self->a.pool.text = 0xffff888000000000;
	self->a.w[1] = 0x80000000;
	EXPECT_GT(0, request(self, variant, &self->a));
	self->a.w[1] = 0;
	self->a.pool.text = 0;
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

TEST_F(ioctl, text__not_touched_on_success)
{
	memset(text, 0x5a, sizeof(text));
	if (variant->result || (variant->cmd != PASTE_IOC_POOL && variant->cmd != PASTE_IOC_QUEUE))
		SKIP(return, "no text");
	self->a.pool.text = (uintptr_t)text;
	EXPECT_EQ(0, request(self, variant, &self->a));
	/* empty or as it was, but not a complaint */
	EXPECT_TRUE(text[0] == 0 || text[0] == 0x5a);
}

TEST_F(ioctl, fd__wrong_kind)
{
	int efd = eventfd(0, 0);
	enum kind other = variant->kind == QUEUE ? POOL : QUEUE;

	EXPECT_EQ(-ENOTTY, call(fd_of(self, other), variant->cmd, &self->a));
	EXPECT_EQ(-ENOTTY, call(efd, variant->cmd, &self->a));
	/* the number belongs to no struct of this size */
	EXPECT_EQ(-ENOTTY,
		  call(fd_of(self, variant->kind), variant->cmd | 8U << _IOC_SIZESHIFT, &self->a));
	close(efd);
}

TEST_F(ioctl, mm__forked_child)
{
	bool set_up = variant->cmd != PASTE_IOC_INFO && variant->cmd != PASTE_IOC_STATS &&
		      variant->cmd != PASTE_IOC_SYNC && variant->cmd != PASTE_IOC_QUOTA &&
		      variant->cmd != PASTE_IOC_CONN;
	int expected = set_up ? -EPERM : variant->result;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(request(self, variant, &self->a) == expected ? 0 : 1);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(variant->result, request(self, variant, &self->a));
}

/* ------------------------------------------------------------------------- */

/* A set-up call failed for the right reason and said so. */
#define EXPECT_TEXT(expected, word, result)                                     \
	do {                                                                    \
		int __result = (result);                                        \
		EXPECT_EQ(expected, __result) TH_LOG("%s: \"%s\"", word, text); \
		EXPECT_NE(NULL, strstr(text, word))                             \
		TH_LOG("\"%s\" does not name %s", text, word);                  \
		EXPECT_NE(NULL, memchr(text, 0, sizeof(text)));                 \
	} while (0)

static int pool_try(int fd, struct paste_ioc_pool *a)
{
	memset(text, 0, sizeof(text));
	a->size = sizeof(*a);
	a->text = (uintptr_t)text;
	return call(fd, PASTE_IOC_POOL, a);
}

#define POOL_TRY(...) \
	pool_try(self->fd, &(struct paste_ioc_pool){ .fd = -1, .n_rx = 64, __VA_ARGS__ })

FIXTURE(pool)
{
	int fd;
	struct paste_ioc_info info;
};

FIXTURE_SETUP(pool)
{
	self->fd = ctx_open();
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ctx_info(self->fd, &self->info));
}

FIXTURE_TEARDOWN(pool)
{
	close(self->fd);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

TEST_F(pool, args__refused)
{
	__u32 max = self->info.max_chunks;

	EXPECT_TEXT(-EINVAL, "n_rx", POOL_TRY(.n_rx = 0));
	EXPECT_TEXT(-EINVAL, "n_rx", POOL_TRY(.n_rx = 63));
	EXPECT_TEXT(-EINVAL, "n_rx", POOL_TRY(.n_rx = 65, .chunk_size = 2048));
	EXPECT_TEXT(-EINVAL, "n_tx", POOL_TRY(.n_tx = 7, .chunk_size = 2048));
	EXPECT_TEXT(-EINVAL, "n_", POOL_TRY(.n_rx = max, .n_tx = 64));
	EXPECT_TEXT(-EINVAL, "n_rx", POOL_TRY(.n_rx = 0xffffffff));
	EXPECT_TEXT(-EINVAL, "n_", POOL_TRY(.n_tx = 0xffffffff));
	EXPECT_TEXT(-EINVAL, "n_", POOL_TRY(.n_rx = 0x80000000, .n_tx = 0x80000000));
	EXPECT_TEXT(-EINVAL, "chunk_size", POOL_TRY(.chunk_size = 1));
	EXPECT_TEXT(-EINVAL, "chunk_size", POOL_TRY(.chunk_size = 1024));
	EXPECT_TEXT(-EINVAL, "chunk_size", POOL_TRY(.chunk_size = 4095));
	EXPECT_TEXT(-EINVAL, "chunk_size", POOL_TRY(.chunk_size = 8192));
	EXPECT_TEXT(-EOPNOTSUPP, "flags", POOL_TRY(.flags = 0x80000000));
	EXPECT_GT(0, POOL_TRY(.fd = self->fd));
	EXPECT_NE(0, text[0]);
	EXPECT_GT(0, POOL_TRY(.fd = -2));

	/* nothing is half done */
	EXPECT_EQ(0, POOL_TRY(.n_rx = 64));
	EXPECT_EQ(-EEXIST, POOL_TRY(.n_rx = 64));
	EXPECT_NE(0, text[0]);
}

#pragma GCC diagnostic pop

/* As before there were files. */
TEST_F(pool, size__first_version)
{
	struct paste_ioc_pool a = { .size = PASTE_POOL_SIZE_VER0, .fd = -1, .n_rx = 64, .addr = 7 };

	EXPECT_EQ(0, call(self->fd, PASTE_IOC_POOL, &a));
	EXPECT_EQ(65 * 4096, a.bytes);
	EXPECT_EQ(7, a.addr);
}

TEST_F(pool, header__says_it_all)
{
	static const __u32 sizes[] = { 0, 4096, 2048 };
	const struct paste_pool_header *h;
	struct ctx c;

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(0, ctx_make(&c, sizes[i], 130, 6)) TH_LOG("%s", text);
		EXPECT_EQ(sizes[i] ?: 4096, c.chunk_size);
		EXPECT_EQ(c.chunk_size == 4096 ? 1U : 2U, c.first_rx);
		EXPECT_EQ(c.first_rx + 130, c.first_tx);
		EXPECT_EQ((c.first_tx + 6ULL) * c.chunk_size, c.bytes);
		h = (void *)c.base;
		EXPECT_EQ(0, memcmp(h->magic, PASTE_POOL_MAGIC, sizeof(h->magic)));
		EXPECT_EQ(PASTE_POOL_VERSION, h->version);
		EXPECT_EQ(c.chunk_size, h->chunk_size);
		EXPECT_EQ(c.n_rx, h->n_rx);
		EXPECT_EQ(c.n_tx, h->n_tx);
		EXPECT_EQ(c.first_rx, h->first_rx);
		EXPECT_EQ(c.first_tx, h->first_tx);
		EXPECT_EQ(c.bytes, h->bytes);
		for (size_t at = sizeof(*h); at < c.bytes; at++) {
			ASSERT_EQ(0, c.base[at]) TH_LOG("byte %zu is not zero", at);
		}
		ctx_close(&c);
	}
}

TEST_F(pool, rlimit_memlock__counts)
{
	struct rlimit small = { 600 << 10, 600 << 10 };

	/* 1 MB is too much, 256 KB is not */
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &small));
	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, NOBODY));
	EXPECT_TEXT(-ENOMEM, "MEMLOCK", POOL_TRY(.n_tx = 192));
	EXPECT_EQ(0, POOL_TRY(.n_tx = 0)) TH_LOG("%s", text);
}

TEST_F(pool, rlimit_memlock__given_back)
{
	struct rlimit small = { 600 << 10, 600 << 10 };
	struct ctx c[4];

	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++) {
		c[i].base = MAP_FAILED;
		c[i].fd = ctx_open();
		ASSERT_LE(0, c[i].fd);
	}
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &small));
	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, NOBODY));
	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++) {
		__u64 end = now_ms() + SOON;
		int err;

		/* of the user's other contexts there may be a rest for some moments */
		do {
			err = pool_try(c[i].fd, &(struct paste_ioc_pool){ .fd = -1, .n_rx = 100 });
		} while (err == -ENOMEM && now_ms() < end);
		EXPECT_EQ(0, err) TH_LOG("pool %u: %s", i, text);
		close(c[i].fd);
	}
}

TEST_F(pool, rx_writable__needs_capability)
{
	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, NOBODY));
	EXPECT_EQ(-EPERM, POOL_TRY(.flags = PASTE_POOL_RX_WRITABLE));
	EXPECT_NE(0, text[0]);
	EXPECT_EQ(0, POOL_TRY(.flags = 0)) TH_LOG("%s", text);
}

TEST_F(pool, rx_writable__user_namespace_is_not_enough)
{
	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(-EPERM, POOL_TRY(.flags = PASTE_POOL_RX_WRITABLE));
}

TEST_F(pool, rx_writable__works)
{
	struct paste_ioc_pool a = { .flags = PASTE_POOL_RX_WRITABLE, .fd = -1, .n_rx = 64 };
	__u8 *p;

	ASSERT_EQ(0, pool_try(self->fd, &a));
	p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 4096);
	ASSERT_NE(MAP_FAILED, p);
	p[0] = 1;
	p[64 * 4096 - 1] = 1;
}

/* ------------------------------------------------------------------------- */

static int queue_try(int fd, struct paste_ioc_queue *a)
{
	memset(text, 0, sizeof(text));
	a->size = sizeof(*a);
	a->text = (uintptr_t)text;
	return call(fd, PASTE_IOC_QUEUE, a);
}

#define QUEUE_TRY(...) queue_try(self->ctx.fd, &(struct paste_ioc_queue){ __VA_ARGS__ })

FIXTURE(queue)
{
	struct ctx ctx;
	struct paste_ioc_info info;
};

FIXTURE_SETUP(queue)
{
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 256, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, ctx_info(self->ctx.fd, &self->info));
}

FIXTURE_TEARDOWN(queue)
{
	ctx_close(&self->ctx);
}

TEST_F(queue, args__refused)
{
	__u32 max = self->info.max_entries;

	EXPECT_TEXT(-EINVAL, "rx_entries", QUEUE_TRY(.rx_entries = 32));
	EXPECT_TEXT(-EINVAL, "rx_entries", QUEUE_TRY(.rx_entries = 100));
	EXPECT_TEXT(-EINVAL, "rx_entries", QUEUE_TRY(.rx_entries = 2 * max));
	EXPECT_TEXT(-EINVAL, "rx_entries", QUEUE_TRY(.rx_entries = 0x80000000));
	EXPECT_TEXT(-EINVAL, "fill_entries", QUEUE_TRY(.fill_entries = 1));
	EXPECT_TEXT(-EINVAL, "fill_entries", QUEUE_TRY(.fill_entries = 65));
	EXPECT_TEXT(-EINVAL, "fill_entries", QUEUE_TRY(.fill_entries = 0xffffffff));
	EXPECT_TEXT(-EINVAL, "tx_entries", QUEUE_TRY(.tx_entries = 63));
	EXPECT_TEXT(-EINVAL, "tx_entries", QUEUE_TRY(.tx_entries = 2 * max));
	EXPECT_TEXT(-EINVAL, "comp_entries", QUEUE_TRY(.comp_entries = 96));
	EXPECT_TEXT(-EINVAL, "comp_entries", QUEUE_TRY(.comp_entries = 2 * max));
	EXPECT_TEXT(-EINVAL, "rx_chunks", QUEUE_TRY(.rx_chunks = 63));
	EXPECT_TEXT(-ENOSPC, "rx_chunks", QUEUE_TRY(.rx_chunks = 257));
	EXPECT_TEXT(-ENOSPC, "rx_chunks", QUEUE_TRY(.rx_chunks = 0xffffffff));

	/* nothing is half done: all chunks are still there */
	EXPECT_EQ(0, QUEUE_TRY(.rx_chunks = 256));
	EXPECT_TEXT(-ENOSPC, "rx_chunks", QUEUE_TRY(.rx_chunks = 0));
}

TEST_F(queue, pool__wanted_first)
{
	struct paste_ioc_queue a = {};
	int fd = ctx_open();

	EXPECT_EQ(-ENXIO, queue_try(fd, &a));
	EXPECT_NE(0, text[0]);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, PASTE_MMAP_POOL));
	close(fd);
}

TEST_F(queue, slice__whole_pages)
{
	struct ctx c;

	ASSERT_EQ(0, ctx_make(&c, 2048, 256, 0));
	EXPECT_TEXT(-EINVAL, "rx_chunks",
		    queue_try(c.fd, &(struct paste_ioc_queue){ .rx_chunks = 65 }));
	EXPECT_EQ(0, queue_try(c.fd, &(struct paste_ioc_queue){ .rx_chunks = 66 }));
	ctx_close(&c);
}

TEST_F(queue, slice__all_that_are_left)
{
	struct paste_ioc_queue a = { .rx_chunks = 64 }, b = {};

	ASSERT_EQ(0, queue_try(self->ctx.fd, &a));
	ASSERT_EQ(0, queue_try(self->ctx.fd, &b));
	EXPECT_EQ(64, a.rx_chunks);
	EXPECT_EQ(192, b.rx_chunks);
	EXPECT_TRUE(a.first_chunk + 64 <= b.first_chunk || b.first_chunk + 192 <= a.first_chunk);
	EXPECT_LE(self->ctx.first_rx, a.first_chunk);
	EXPECT_LE(self->ctx.first_rx, b.first_chunk);
	EXPECT_NE(a.id, b.id);
}

TEST_F(queue, defaults__as_the_header_says)
{
	struct paste_ioc_queue a = {};

	ASSERT_EQ(0, queue_try(self->ctx.fd, &a));
	EXPECT_EQ(4096, a.rx.entries);
	EXPECT_EQ(4096, a.fill.entries);
	EXPECT_EQ(1024, a.tx.entries);
	EXPECT_EQ(2048, a.comp.entries);
	EXPECT_EQ(FD_CLOEXEC, fcntl(a.fd, F_GETFD));
}

TEST_F(queue, limit__queues)
{
	__u32 max = self->info.max_queues;
	struct paste_ioc_queue a;
	struct rlimit files = { max + 64, max + 64 };
	struct ctx c;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	if ((max + 1) * 64 > self->info.max_chunks)
		SKIP(return, "chunks end before queues");
	ASSERT_EQ(0, ctx_make(&c, 2048, (max + 1) * 64, 0)) TH_LOG("%s", text);
	for (__u32 i = 0; i < max; i++) {
		a = (struct paste_ioc_queue){
			.rx_entries = 64,
			.fill_entries = 64,
			.tx_entries = 64,
			.comp_entries = 64,
			.rx_chunks = 64,
		};
		ASSERT_EQ(0, queue_try(c.fd, &a)) TH_LOG("queue %u: %s", i, text);
	}
	a.resv = 0;
	a.flags = 0;
	EXPECT_EQ(-ENOSPC, queue_try(c.fd, &(struct paste_ioc_queue){ .rx_chunks = 64 }));
	EXPECT_NE(0, text[0]);
	ctx_close(&c);
}

TEST_F(queue, rings__do_not_overlap)
{
	struct paste_ioc_queue a = {
		.rx_entries = 64, .fill_entries = 128, .tx_entries = 256, .comp_entries = 512
	};
	struct {
		__u32 at, len;
		bool user;
	} part[13];
	unsigned int n = 0;

#define PART(offset, length, in_user) \
	(part[n].at = (offset), part[n].len = (length), part[n].user = (in_user), n++)

	ASSERT_EQ(0, queue_try(self->ctx.fd, &a));
	PART(a.rx.prod, 4, false);
	PART(a.rx.desc, 64 * sizeof(struct paste_rx), false);
	PART(a.comp.prod, 4, false);
	PART(a.comp.desc, 512 * sizeof(struct paste_comp), false);
	PART(a.fill.cons, 4, false);
	PART(a.tx.cons, 4, false);
	PART(a.flags_off, 4, false);
	PART(a.rx.cons, 4, true);
	PART(a.comp.cons, 4, true);
	PART(a.fill.prod, 4, true);
	PART(a.fill.desc, 128 * sizeof(__u32), true);
	PART(a.tx.prod, 4, true);
	PART(a.tx.desc, 256 * sizeof(struct paste_tx), true);
#undef PART
	for (unsigned int i = 0; i < n; i++) {
		EXPECT_LE(part[i].at + part[i].len, part[i].user ? a.user_len : a.kern_len);
		EXPECT_EQ(0, part[i].at % (part[i].len > 4 ? 8 : 4));
		for (unsigned int j = 0; j < i; j++) {
			EXPECT_TRUE(part[i].user != part[j].user ||
				    part[i].at + part[i].len <= part[j].at ||
				    part[j].at + part[j].len <= part[i].at);
		}
	}
}

/* ------------------------------------------------------------------------- */

#define CGROUPS "/sys/fs/cgroup"
#define CGROUP	CGROUPS "/paste-test"

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close(fd);
	return ok;
}

static size_t cgroup_charge(void)
{
	int fd = open(CGROUP "/memory.current", O_RDONLY);
	char s[32] = {};

	if (read(fd, s, sizeof(s) - 1) < 0)
		s[0] = 0;
	close(fd);
	return strtoull(s, NULL, 10);
}

/* The test in a memory cgroup of its own. */
FIXTURE(memcg)
{
	struct ctx ctx;
};

FIXTURE_SETUP(memcg)
{
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP, 0755);
	if (access(CGROUP "/memory.max", W_OK) || !write_file(CGROUP "/cgroup.procs", "0"))
		SKIP(return, "no memory cgroups");
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 512, 0)) TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(memcg)
{
	ctx_close(&self->ctx);
	write_file(CGROUPS "/cgroup.procs", "0");
	rmdir(CGROUP);
}

/* Charges are made in batches of up to 64 pages: nearly all of it is enough. */
TEST_F(memcg, rings__charged)
{
	struct paste_ioc_queue a = {
		.rx_entries = 65536, .tx_entries = 65536, .fill_entries = 65536, .comp_entries = 64
	};
	size_t before = cgroup_charge();

	ASSERT_EQ(0, queue_try(self->ctx.fd, &a)) TH_LOG("%s", text);
	EXPECT_LE((a.kern_len + a.user_len) / 4 * 3, cgroup_charge() - before);
	close(a.fd);
}

/* What does not fit is refused; nobody is killed for it. */
TEST_F(memcg, limit__enomem)
{
	struct paste_ioc_queue small = { .rx_chunks = 64 };
	int bare = ctx_open();
	char max[32];

	ASSERT_LE(0, bare);
	snprintf(max, sizeof(max), "%zu", cgroup_charge() + (2 << 20));
	ASSERT_TRUE(write_file(CGROUP "/memory.max", max));
	EXPECT_EQ(-ENOMEM, pool_try(bare, &(struct paste_ioc_pool){ .fd = -1, .n_rx = 4096 }));
	EXPECT_EQ(-ENOMEM,
		  QUEUE_TRY(.rx_entries = 65536, .tx_entries = 65536, .fill_entries = 65536));
	EXPECT_EQ(-ENOMEM, QUEUE_TRY(.comp_entries = 65536));
	EXPECT_EQ(0, pool_try(bare, &(struct paste_ioc_pool){ .fd = -1, .n_rx = 64 }));
	EXPECT_EQ(0, queue_try(self->ctx.fd, &small)) TH_LOG("%s", text);
	close(small.fd);
	close(bare);
}

/* ------------------------------------------------------------------------- */

FIXTURE(map)
{
	struct ctx ctx;
	struct queue queue;
};

FIXTURE_SETUP(map)
{
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 64, 16)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->queue, &self->ctx, NULL)) TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(map)
{
	queue_close(&self->queue);
	ctx_close(&self->ctx);
}

static int map_try(int fd, int prot, int flags, size_t off, size_t len)
{
	void *p = mmap(NULL, len, prot, flags, fd, off);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, len);
	return 0;
}

#define RW (PROT_READ | PROT_WRITE)

TEST_F(map, pool__shared_only)
{
	size_t tx = (size_t)self->ctx.first_tx * 4096;

	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_PRIVATE, 0, self->ctx.bytes));
	EXPECT_GT(0, map_try(self->ctx.fd, RW, MAP_PRIVATE, 0, self->ctx.bytes));
	EXPECT_GT(0, map_try(self->ctx.fd, RW, MAP_PRIVATE, tx, 16 * 4096));
	EXPECT_EQ(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, 0, self->ctx.bytes));
}

TEST_F(map, pool__rx_read_only)
{
	size_t tx = (size_t)self->ctx.first_tx * 4096;
	__u8 *p;

	EXPECT_EQ(-EACCES, map_try(self->ctx.fd, RW, MAP_SHARED, 0, self->ctx.bytes));
	EXPECT_EQ(-EACCES, map_try(self->ctx.fd, RW, MAP_SHARED, 4096, 4096));
	EXPECT_EQ(-EACCES, map_try(self->ctx.fd, PROT_WRITE, MAP_SHARED, 4096, 4096));
	EXPECT_EQ(-EACCES, map_try(self->ctx.fd, RW, MAP_SHARED, 0, 4096));
	EXPECT_EQ(-EACCES, map_try(self->ctx.fd, RW, MAP_SHARED, tx - 4096, 8192));
	EXPECT_EQ(0, map_try(self->ctx.fd, RW, MAP_SHARED, tx, 16 * 4096));

	p = mmap(NULL, self->ctx.bytes, PROT_READ, MAP_SHARED, self->ctx.fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-1, mprotect(p, 4096, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(p + 4096, 64 * 4096, PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(0, mprotect(p, self->ctx.bytes, PROT_NONE));
	EXPECT_EQ(0, mprotect(p, self->ctx.bytes, PROT_READ));
}

TEST_F(map, pool__no_way_round_read_only)
{
	struct iovec from = { "x", 1 }, to = { chunk_at(&self->ctx, self->ctx.first_rx, 0), 1 };
	char path[64];
	int fd;

	/* force-writing as a debugger does must not work on it either */
	EXPECT_EQ(-1, process_vm_writev(getpid(), &from, 1, &to, 1, 0));
	snprintf(path, sizeof(path), "/proc/%d/mem", getpid());
	fd = open(path, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, pwrite(fd, "x", 1, (uintptr_t)to.iov_base));
	EXPECT_EQ(0, *(char *)to.iov_base);
	close(fd);

	/* and the device opened for reading gives no more */
	fd = open(DEVICE, O_RDONLY);
	if (fd >= 0)
		close(fd);
}

TEST_F(map, pool__range)
{
	size_t end = self->ctx.bytes;

	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, 0, end + 4096));
	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, end, 4096));
	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, end - 4096, 8192));
	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, 0x40000000, 4096));
	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, 1UL << 46, 4096));
	EXPECT_GT(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, -8192UL, 4096));
	EXPECT_EQ(0, map_try(self->ctx.fd, PROT_READ, MAP_SHARED, end - 4096, 4096));
}

TEST_F(map, pool__same_everywhere)
{
	__u8 *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, self->ctx.fd, self->ctx.bytes - 4096);

	ASSERT_NE(MAP_FAILED, p);
	self->ctx.base[self->ctx.bytes - 1] = 0x77;
	EXPECT_EQ(0x77, p[4095]);
}

TEST_F(map, rings__rights)
{
	struct queue *q = &self->queue;
	void *p;

	EXPECT_EQ(-EACCES, map_try(q->fd, RW, MAP_SHARED, PASTE_MMAP_KERN, q->kern_len));
	EXPECT_GT(0, map_try(q->fd, PROT_READ, MAP_PRIVATE, PASTE_MMAP_KERN, q->kern_len));
	EXPECT_GT(0, map_try(q->fd, RW, MAP_PRIVATE, PASTE_MMAP_USER, q->user_len));
	EXPECT_GT(0, map_try(q->fd, PROT_READ, MAP_SHARED, PASTE_MMAP_KERN, q->kern_len + 4096));
	EXPECT_GT(0, map_try(q->fd, RW, MAP_SHARED, PASTE_MMAP_USER, q->user_len + 4096));
	EXPECT_GT(0, map_try(q->fd, PROT_READ, MAP_SHARED, PASTE_MMAP_KERN + q->kern_len, 4096));
	EXPECT_GT(0, map_try(q->fd, PROT_READ, MAP_SHARED, PASTE_MMAP_USER + q->user_len, 4096));
	EXPECT_GT(0, map_try(q->fd, PROT_READ, MAP_SHARED, 0x70000000, 4096));

	p = mmap(NULL, q->kern_len, PROT_READ, MAP_SHARED, q->fd, PASTE_MMAP_KERN);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-1, mprotect(p, q->kern_len, RW));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(map, mremap__does_not_grow)
{
	struct queue *q = &self->queue;
	void *p;

	p = mmap(NULL, 8 * 4096, PROT_READ, MAP_SHARED, self->ctx.fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(MAP_FAILED, mremap(p, 8 * 4096, 16 * 4096, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(p, 0, 4096, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(q->kern, q->kern_len, q->kern_len + 4096, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(q->user, q->user_len, q->user_len + 4096, MREMAP_MAYMOVE));

	/* smaller, and elsewhere, is fine */
	p = mremap(p, 8 * 4096, 4096, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, memcmp(p, PASTE_POOL_MAGIC, 8));
}

static bool is_mapped(void *p)
{
	return !msync(p, 4096, MS_ASYNC);
}

TEST_F(map, fork__not_inherited)
{
	int status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(is_mapped(self->ctx.base) +
		      is_mapped(chunk_at(&self->ctx, self->ctx.first_tx, 0)) +
		      is_mapped(self->queue.kern) + is_mapped(self->queue.user));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(is_mapped(self->ctx.base));
	EXPECT_EQ(0, memcmp(self->ctx.base, PASTE_POOL_MAGIC, 8));

	/* nor can it be made so */
	EXPECT_EQ(-1, madvise(self->ctx.base, 4096, MADV_DOFORK));
	EXPECT_EQ(-1, madvise(self->queue.kern, 4096, MADV_DOFORK));
	EXPECT_EQ(-1, madvise(self->queue.user, 4096, MADV_DOFORK));
}

TEST_F(map, fork__child_gets_no_mapping)
{
	int status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		bool pool = !map_try(self->ctx.fd, PROT_READ, MAP_SHARED, 0, 4096);
		bool ring = !map_try(self->queue.fd, PROT_READ, MAP_SHARED, PASTE_MMAP_KERN, 4096);

		_exit(pool * 2 + ring);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (status)
		ksft_print_msg("the child of fork may map what the fd shows\n");
	EXPECT_EQ(0, memcmp(self->ctx.base, PASTE_POOL_MAGIC, 8));
}

TEST_F(map, pages__cannot_be_taken)
{
	struct iovec iov = { chunk_at(&self->ctx, self->ctx.first_rx, 0), 4096 };
	int fd[2];

	ASSERT_EQ(0, pipe(fd));
	/* a reference to a page of the pool that the module does not know of */
	EXPECT_EQ(-1, vmsplice(fd[1], &iov, 1, 0));
	/* reading it with a copy is fine */
	EXPECT_EQ(4096, write(fd[1], iov.iov_base, 4096));
}

TEST_F(map, closed__stays_readable)
{
	__u64 live[PASTE_OBJ_MAX];

	queue_close(&self->queue);
	close(self->ctx.fd);
	self->ctx.fd = -1;
	EXPECT_EQ(0, memcmp(self->ctx.base, PASTE_POOL_MAGIC, 8));
	self->ctx.base[self->ctx.bytes - 1] = 1;
	ASSERT_EQ(0, objects_read(live));
	EXPECT_LE(1, live[PASTE_OBJ_CONTEXT]);
	EXPECT_LE(81, live[PASTE_OBJ_POOL_PAGE]);
}

/* ------------------------------------------------------------------------- */

FIXTURE(bind)
{
	struct ctx ctx;
	struct queue queue;
	__u16 port[PASTE_PORTS_MAX + 1];
	struct paste_ioc_nic_bind a;
};

FIXTURE_SETUP(bind)
{
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 256, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->queue, &self->ctx, NULL)) TH_LOG("%s", text);
	for (unsigned int i = 0; i <= PASTE_PORTS_MAX; i++)
		self->port[i] = 60000 + i;
	self->a = (struct paste_ioc_nic_bind){
		.size = sizeof(self->a),
		.text = (uintptr_t)text,
		.ifindex = if_nametoindex("lo"),
		.ports = (uintptr_t)self->port,
		.n_ports = 1,
	};
}

FIXTURE_TEARDOWN(bind)
{
	queue_close(&self->queue);
	ctx_close(&self->ctx);
}

static int bind_try(FIXTURE_DATA(bind) * self)
{
	memset(text, 0, sizeof(text));
	return call(self->queue.fd, PASTE_IOC_NIC_BIND, &self->a);
}

static int drop_cap(int cap)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d))
		return -errno;
	for (int i = 0; i < 2; i++) {
		if (cap / 32 != i)
			continue;
		d[i].effective &= ~(1U << cap % 32);
		d[i].permitted &= ~(1U << cap % 32);
		d[i].inheritable &= ~(1U << cap % 32);
	}
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

TEST_F(bind, capabilities__none)
{
	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, NOBODY));
	EXPECT_EQ(-EPERM, bind_try(self));
	EXPECT_NE(0, text[0]);
}

TEST_F(bind, capabilities__no_net_raw)
{
	ASSERT_EQ(0, drop_cap(CAP_NET_RAW));
	EXPECT_EQ(-EPERM, bind_try(self));
}

TEST_F(bind, capabilities__no_net_admin)
{
	ASSERT_EQ(0, drop_cap(CAP_NET_ADMIN));
	EXPECT_EQ(-EPERM, bind_try(self));
}

TEST_F(bind, capabilities__user_namespace_is_not_enough)
{
	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(-EPERM, bind_try(self));
}

TEST_F(bind, nic__without_zero_copy)
{
	EXPECT_TEXT(-EOPNOTSUPP, "zero", bind_try(self));
	EXPECT_EQ(-ENXIO, call(self->queue.fd, PASTE_IOC_NIC_UNBIND,
			       &(struct paste_ioc_nic_unbind){ .size = 8 }));
}

TEST_F(bind, nic__veth)
{
	/* in a namespace of its own, so that nobody sees it */
	ASSERT_EQ(0, unshare(CLONE_NEWNET));
	if (system("ip link add pv0 type veth peer name pv1 && ip link set pv0 up"))
		SKIP(return, "no veth");
	self->a.ifindex = if_nametoindex("pv0");
	EXPECT_TEXT(-EOPNOTSUPP, "zero", bind_try(self));
	/* the failed attempt holds nothing: else this would wait for ever */
	EXPECT_EQ(0, system("ip link del pv0"));
}

TEST_F(bind, nic__virtio)
{
	char path[64], link[256];
	struct if_nameindex *all = if_nameindex();
	ssize_t n;

	for (struct if_nameindex *i = all; i && i->if_index; i++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/device/driver", i->if_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 10 || strncmp(link + n - 10, "virtio_net", 10))
			continue;
		self->a.ifindex = i->if_index;
		EXPECT_TEXT(-EOPNOTSUPP, "zero", bind_try(self));
		return;
	}
	SKIP(return, "no virtio_net device");
}

TEST_F(bind, args__refused)
{
	int err;

	self->a.ifindex = 0;
	EXPECT_TEXT(-ENODEV, "ifindex", bind_try(self));
	self->a.ifindex = NO_IFINDEX;
	EXPECT_TEXT(-ENODEV, "ifindex", bind_try(self));
	self->a.ifindex = if_nametoindex("lo");

	self->a.n_ports = 0;
	EXPECT_TEXT(-EINVAL, "n_ports", bind_try(self));
	self->a.n_ports = PASTE_PORTS_MAX + 1;
	EXPECT_TEXT(-EINVAL, "n_ports", bind_try(self));
	self->a.n_ports = 0xffffffff;
	EXPECT_TEXT(-EINVAL, "n_ports", bind_try(self));
	self->a.n_ports = 1;
	self->a.ports = 0;
	EXPECT_EQ(-EFAULT, bind_try(self));
	self->a.ports = 0xffff888000000000;
	EXPECT_EQ(-EFAULT, bind_try(self));
	self->port[0] = 0;
	self->a.ports = (uintptr_t)self->port;
	EXPECT_TEXT(-EINVAL, "ports", bind_try(self));
	self->port[0] = 60000;

	self->a.nic_queue = 0xffffffff;
	err = bind_try(self);
	EXPECT_TRUE(err == -ENODEV || err == -EOPNOTSUPP) TH_LOG("%d", err);
	EXPECT_NE(0, text[0]);
}

/* The rest needs a NIC that has zero copy. */
static __u32 hooked_nic(void)
{
	const char *nic = getenv("PASTE_IF"), *driver = getenv("PASTE_NIC");

	if (!nic || !driver || (strcmp(driver, "ixgbe") && strcmp(driver, "i40e")))
		return 0;
	return if_nametoindex(nic);
}

TEST_F(bind, args__refused_with_zero_copy)
{
	self->a.ifindex = hooked_nic();
	if (!self->a.ifindex)
		SKIP(return, "no NIC with zero copy");
	self->a.entries = 100;
	EXPECT_TEXT(-EINVAL, "entries", bind_try(self));
	self->a.entries = 8192;
	EXPECT_TEXT(-EINVAL, "entries", bind_try(self));
	self->a.entries = 0;
	self->a.nic_queue = 1000;
	EXPECT_TEXT(-ENODEV, "nic_queue", bind_try(self));
	self->a.nic_queue = 0xffffffff;
	EXPECT_TEXT(-ENODEV, "nic_queue", bind_try(self));
}

TEST_F(bind, args__too_few_entries)
{
	self->a.ifindex = hooked_nic();
	if (!self->a.ifindex)
		SKIP(return, "no NIC with zero copy");
	self->a.entries = 16;
	EXPECT_TEXT(-EINVAL, "entries", bind_try(self));
}

TEST_F(bind, nic__bound_without_program)
{
	self->a.ifindex = hooked_nic();
	if (!self->a.ifindex)
		SKIP(return, "no NIC with zero copy");

	/* a socket's fd comes back; without an XDP program nothing reaches it */
	ASSERT_EQ(0, bind_try(self))
	{
		TH_LOG("%s", text);
	}
	EXPECT_LE(0, self->a.xsk_fd);
	EXPECT_LT(0, self->a.entries);
	EXPECT_EQ(FD_CLOEXEC, fcntl(self->a.xsk_fd, F_GETFD));
	EXPECT_EQ(0, queue_sync(&self->queue, 1000, 1000));
	EXPECT_TEXT(-EBUSY, "bound", bind_try(self));

	/* nobody else has the socket: the RX queue is free again at once */
	close(self->a.xsk_fd);
	EXPECT_EQ(0, call(self->queue.fd, PASTE_IOC_NIC_UNBIND,
			  &(struct paste_ioc_nic_unbind){ .size = 8 }));
	EXPECT_EQ(-ENXIO, call(self->queue.fd, PASTE_IOC_NIC_UNBIND,
			       &(struct paste_ioc_nic_unbind){ .size = 8 }));
	EXPECT_EQ(0, bind_try(self))
	{
		TH_LOG("%s", text);
	}
}

TEST_F(bind, nic__of_another_namespace)
{
	/* the new namespace has only lo; ours is not visible in it */
	struct if_nameindex *all = if_nameindex();
	__u32 ifindex = 0;

	for (struct if_nameindex *i = all; i && i->if_index; i++) {
		if (strcmp(i->if_name, "lo"))
			ifindex = i->if_index;
	}
	if (!ifindex)
		SKIP(return, "no other NIC");
	ASSERT_EQ(0, unshare(CLONE_NEWNET));
	if (ifindex == if_nametoindex("lo"))
		SKIP(return, "same number");
	self->a.ifindex = ifindex;
	EXPECT_TEXT(-ENODEV, "ifindex", bind_try(self));
}

/* ------------------------------------------------------------------------- */

TEST(info__says_what_it_can)
{
	struct paste_ioc_info info;
	int fd = ctx_open();

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ctx_info(fd, &info));
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(PASTE_FEAT_PLAIN | PASTE_FEAT_HOOKED | PASTE_FEAT_DEVDAX,
		  info.features & ~PASTE_FEAT_FSDAX);
	EXPECT_LE(8192, info.max_chunks);
	EXPECT_LE(8, info.max_queues);
	EXPECT_LE(1024, info.max_conns);
	EXPECT_GE(65536, info.max_conns);
	EXPECT_LE(4096, info.max_entries);
	EXPECT_EQ(0, info.max_entries & (info.max_entries - 1));
	EXPECT_GE(4096, info.tx_copy_max);
	EXPECT_NE(0, info.version[0]);
	EXPECT_NE(NULL, memchr(info.version, 0, sizeof(info.version)));
	close(fd);
}

TEST(info__made_and_gone_balance)
{
	__u64 before[PASTE_OBJ_MAX], during[PASTE_OBJ_MAX];
	struct ctx c;
	struct queue q;
	int sv[2];

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(before));
	ASSERT_EQ(0, ctx_make(&c, 0, 64, 16)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, NULL)) TH_LOG("%s", text);

	ASSERT_EQ(0, objects_read(during));
	EXPECT_EQ(before[PASTE_OBJ_CONTEXT] + 1, during[PASTE_OBJ_CONTEXT]);
	EXPECT_EQ(before[PASTE_OBJ_POOL_PAGE] + 81, during[PASTE_OBJ_POOL_PAGE]);
	EXPECT_EQ(before[PASTE_OBJ_QUEUE] + 1, during[PASTE_OBJ_QUEUE]);
	EXPECT_EQ(before[PASTE_OBJ_CONN] + 1, during[PASTE_OBJ_CONN]);
	EXPECT_EQ(before[PASTE_OBJ_NIC], during[PASTE_OBJ_NIC]);

	close(sv[0]);
	close(sv[1]);
	queue_close(&q);
	ctx_close(&c);
	EXPECT_TRUE(objects_wait(before, SOON));
}

TEST(stats__of_others_need_capability)
{
	struct paste_ioc_stats s = { .size = sizeof(s) };
	struct queue q;
	struct ctx c;
	int fd;

	ASSERT_EQ(0, ctx_make(&c, 0, 64, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, NULL)) TH_LOG("%s", text);
	fd = ctx_open();
	ASSERT_LE(0, fd);

	s.id = q.id;
	EXPECT_EQ(0, call(fd, PASTE_IOC_STATS, &s));
	EXPECT_EQ(getpid(), s.pid);
	EXPECT_EQ(q.n, s.chunks);
	EXPECT_EQ(q.first, s.first_chunk);
	EXPECT_EQ(4096, s.chunk_size);
	EXPECT_EQ(0, s.conns);
	ASSERT_EQ(0, drop_cap(CAP_NET_ADMIN));
	EXPECT_EQ(-ENOENT, call(fd, PASTE_IOC_STATS, &s));
	EXPECT_EQ(0, call(c.fd, PASTE_IOC_STATS, &s));
}

TEST(stats__next)
{
	struct paste_ioc_stats s = { .size = sizeof(s) };
	struct paste_ioc_queue opts = { .rx_chunks = 64 };
	struct queue q[3];
	struct ctx c;
	int found = 0;
	__u32 last = 0;

	ASSERT_EQ(0, ctx_make(&c, 0, 192, 0)) TH_LOG("%s", text);
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, queue_make(&q[i], &c, &opts)) TH_LOG("%s", text);
	}
	s.id = 0xfffffff0;
	EXPECT_EQ(-ENOENT, call(c.fd, PASTE_IOC_STATS, &s));
	s.id = 0;
	s.flags = PASTE_STATS_NEXT;
	while (!call(c.fd, PASTE_IOC_STATS, &s)) {
		for (int i = 0; i < 3; i++)
			found += s.id == q[i].id;
		ASSERT_TRUE(s.id > last || !last);
		last = s.id++;
	}
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(3, found);
}

TEST(conn__of_others_need_capability)
{
	struct paste_ioc_conn a = { .size = sizeof(a) };
	struct queue q;
	struct ctx c;
	int fd, sv[2];
	__u32 conn;

	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, ctx_make(&c, 0, 64, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, NULL)) TH_LOG("%s", text);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, &conn)) TH_LOG("%s", text);
	fd = ctx_open();
	ASSERT_LE(0, fd);

	a.id = q.id;
	a.flags = PASTE_CONN_NEXT;
	EXPECT_EQ(0, call(fd, PASTE_IOC_CONN, &a));
	EXPECT_EQ(conn, a.conn);
	ASSERT_EQ(0, drop_cap(CAP_NET_ADMIN));
	a.flags = 0;
	EXPECT_EQ(-ENOENT, call(fd, PASTE_IOC_CONN, &a));
	EXPECT_EQ(0, call(c.fd, PASTE_IOC_CONN, &a));
	a.conn = 0;
	a.flags = PASTE_CONN_NEXT;
	EXPECT_EQ(-ENOENT, call(fd, PASTE_IOC_CONN, &a));
	EXPECT_EQ(0, call(c.fd, PASTE_IOC_CONN, &a));
	a.id = 0x7fffffff;
	EXPECT_EQ(-ENOENT, call(c.fd, PASTE_IOC_CONN, &a));
	close(sv[0]);
	close(sv[1]);
}

TEST(context__two_are_independent)
{
	struct queue q[2];
	struct ctx c[2];

	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, ctx_make(&c[i], 0, 64, 16)) TH_LOG("%s", text);
		ASSERT_EQ(0, queue_make(&q[i], &c[i], NULL)) TH_LOG("%s", text);
		memset(chunk_at(&c[i], c[i].first_tx, 0), i + 1, 4096);
	}
	EXPECT_NE(q[0].id, q[1].id);
	EXPECT_EQ(1, *(__u8 *)chunk_at(&c[0], c[0].first_tx, 0));
	EXPECT_EQ(2, *(__u8 *)chunk_at(&c[1], c[1].first_tx, 4095));
	queue_close(&q[0]);
	ctx_close(&c[0]);
	EXPECT_EQ(0, queue_sync(&q[1], 0, 0));
	EXPECT_EQ(2, *(__u8 *)chunk_at(&c[1], c[1].first_tx, 0));
}

static bool is_zero(const __u8 *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

/*
 * What one context has left in its pages no other one sees. Kernels that clear all
 * pages would hide a mistake: boot with init_on_alloc=0 to see that this can fail.
 */
TEST(context__sees_nothing_of_earlier_ones)
{
	struct queue q;
	struct ctx c;

	for (int round = 0; round < 4; round++) {
		ASSERT_EQ(0, ctx_make(&c, 0, 64, 2048)) TH_LOG("%s", text);
		ASSERT_EQ(0, queue_make(&q, &c, NULL)) TH_LOG("%s", text);
		memset(chunk_at(&c, c.first_tx, 0), 0x5a, 2048 * 4096);
		memset(q.user, 0x5a, q.user_len);
		queue_close(&q);
		ctx_close(&c);

		ASSERT_EQ(0, ctx_make(&c, 0, 2048, 64)) TH_LOG("%s", text);
		ASSERT_EQ(0, queue_make(&q, &c, NULL)) TH_LOG("%s", text);
		EXPECT_TRUE(is_zero(chunk_at(&c, c.first_rx, 0), 2048 * 4096));
		EXPECT_TRUE(is_zero(chunk_at(&c, c.first_tx, 0), 64 * 4096));
		EXPECT_TRUE(is_zero(q.user, q.user_len));
		queue_close(&q);
		ctx_close(&c);
	}
}

TEST(device__permissions)
{
	int fd;

	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, NOBODY));
	fd = ctx_open();
	EXPECT_EQ(-EACCES, fd);
}

TEST(device__no_read_no_write)
{
	char b[8];
	int fd = ctx_open();

	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, read(fd, b, sizeof(b)));
	EXPECT_EQ(-1, write(fd, b, sizeof(b)));
	close(fd);
}

TEST_HARNESS_MAIN
