// SPDX-License-Identifier: GPL-2.0
/*
 * Pools on persistent memory: files on FS-DAX and device-dax, what is refused,
 * and what nobody may do to a file meanwhile. Uses /dev/pmem0 up.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"
#include "kselftest_harness.h"

#define DISK   "/dev/pmem0"
#define DIR    "/run/paste-pmem"
#define FILE_A DIR "/a"
#define FILE_B DIR "/b"
#define PAGE   4096UL
#define N_RX   256U
#define N_TX   63U
#define POOL   ((1 + N_RX + N_TX) * PAGE)
#define SYNCED (MAP_SHARED_VALIDATE | MAP_SYNC)
#define RW     (PROT_READ | PROT_WRITE)
/* The namespace with struct pages, which a fresh NVDIMM is not. */
#define HAS_PAGES  "ndctl list -n namespace0.0 2> /dev/null | grep -q fsdax"
#define MAKE_FSDAX "ndctl create-namespace -f -e namespace0.0 -m fsdax" QUIET
#define QUIET	   " > /dev/null 2>&1"

#define EXPECT_TEXT(want, word, err)                                          \
	do {                                                                  \
		EXPECT_EQ(want, err) TH_LOG("%s", text);                      \
		EXPECT_NE(NULL, strcasestr(text, word)) TH_LOG("'%s'", text); \
	} while (0)

/* A file of len bytes of zeros, with all its blocks; returns its fd. */
static int file_make(const char *path, size_t len)
{
	static const __u8 zeros[1 << 16];
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	for (size_t done = 0; fd >= 0 && done < len; done += sizeof(zeros)) {
		size_t n = len - done < sizeof(zeros) ? len - done : sizeof(zeros);

		if (write(fd, zeros, n) != (ssize_t)n)
			return -1;
	}
	fsync(fd);
	return fd;
}

static __u64 file_sum(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	__u64 sum = 1469598103934665603ULL;
	__u64 buf[512];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n / 8; i++)
			sum = (sum ^ buf[i]) * 1099511628211ULL;
	}
	close(fd);
	return sum;
}

/* The request, for what is mapped at addr. */
static int pool_try(int ctx, struct paste_ioc_pool *a)
{
	a->size = sizeof(*a);
	memset(text, 0, sizeof(text));
	a->text = (uintptr_t)text;
	return call(ctx, PASTE_IOC_POOL, a);
}

/* A context whose pool is in the file; n_rx = 0: what is in there. */
static int ctx_make_in(struct ctx *c, int fd, size_t len, __u32 n_rx, __u32 n_tx, bool *existed)
{
	struct paste_ioc_pool a = { .fd = fd, .n_rx = n_rx, .n_tx = n_tx };
	void *addr = mmap(NULL, len, RW, SYNCED, fd, 0);
	int err;

	memset(c, 0, sizeof(*c));
	c->base = MAP_FAILED;
	c->fd = ctx_open();
	if (addr == MAP_FAILED)
		return -errno;
	a.addr = (uintptr_t)addr;
	err = pool_try(c->fd, &a);
	munmap(addr, len);
	if (err)
		return err;
	*existed = a.existed;
	c->chunk_size = a.chunk_size;
	c->n_rx = a.n_rx;
	c->n_tx = a.n_tx;
	c->first_rx = a.first_rx;
	c->first_tx = a.first_tx;
	c->bytes = a.bytes;
	c->base = mmap(NULL, a.bytes, RW, MAP_SHARED, c->fd, PASTE_MMAP_POOL);
	return c->base == MAP_FAILED ? -errno : 0;
}

/* Data by loopback into the pool, delivered by copy. */
static bool receive(struct ctx *c, __u64 bytes)
{
	struct stream s = {};
	struct peer p;
	struct queue q;
	int sv[2];
	bool ok;

	if (queue_make(&q, c, NULL) || tcp_pair(AF_INET, sv) || queue_attach(&q, sv[0], 0, &s.conn))
		return false;
	fill_slice(&q);
	peer_init(&p, sv[1]);
	ok = echo(&q, &s, &p, bytes, SOON) && queue_stat(&q, PASTE_STAT_COPY_PLAIN);
	close(sv[0]);
	close(sv[1]);
	queue_close(&q);
	return ok;
}

/* ------------------------------------------------------- file systems --- */

FIXTURE(fsdax)
{
	__u64 before[PASTE_OBJ_MAX];
	int fd; /* FILE_A: zeros, as long as a pool */
};

FIXTURE_VARIANT(fsdax) {
	const char *type;
	const char *make;
	const char *check;
	bool reflink;
};

FIXTURE_VARIANT_ADD(fsdax, ext4){
	.type = "ext4",
	.make = "mkfs.ext4 -q -F -b 4096 " DISK QUIET,
	.check = "e2fsck -fn " DISK QUIET,
};

FIXTURE_VARIANT_ADD(fsdax, xfs){
	.type = "xfs",
	.make = "mkfs.xfs -q -f " DISK QUIET,
	.check = "xfs_repair -n " DISK QUIET,
	.reflink = true,
};

FIXTURE_SETUP(fsdax)
{
	if (access(DISK, F_OK))
		SKIP(return, "no " DISK);
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
	mkdir(DIR, 0700);
	umount(DIR); /* a test before this one has failed */
	ASSERT_EQ(0, system(HAS_PAGES " || " MAKE_FSDAX));
	ASSERT_EQ(0, system(variant->make));
	ASSERT_EQ(0, mount(DISK, DIR, variant->type, 0, "dax"));
	self->fd = file_make(FILE_A, POOL);
	ASSERT_LE(0, self->fd);
}

/* However a test ends: unmounted at once, and nothing wrong with the file system. */
FIXTURE_TEARDOWN(fsdax)
{
	close(self->fd);
	EXPECT_TRUE(objects_wait(self->before, 0));
	EXPECT_EQ(0, umount(DIR)) TH_LOG("umount: %s", strerror(errno));
	EXPECT_EQ(0, system(variant->check)) TH_LOG("the file system is damaged");
}

TEST_F_TIMEOUT(fsdax, pool__new_then_found, 120)
{
	struct paste_pool_header h;
	bool existed = true;
	struct ctx c;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	EXPECT_FALSE(existed);
	EXPECT_EQ(POOL, c.bytes);
	ASSERT_EQ(sizeof(h), pread(self->fd, &h, sizeof(h), 0));
	EXPECT_EQ(0, memcmp(h.magic, PASTE_POOL_MAGIC, 8));
	EXPECT_EQ(PASTE_POOL_VERSION, h.version);
	EXPECT_EQ(N_RX, h.n_rx);
	EXPECT_EQ(POOL, h.bytes);
	EXPECT_TRUE(receive(&c, 200000));
	pattern_write(chunk_at(&c, c.first_tx, 0), 77, N_TX * PAGE);
	ctx_close(&c);

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, 0, 0, &existed)) TH_LOG("%s", text);
	EXPECT_TRUE(existed);
	EXPECT_EQ(N_RX, c.n_rx);
	EXPECT_EQ(N_TX, c.n_tx);
	EXPECT_EQ(4096, c.chunk_size);
	EXPECT_TRUE(pattern_check(chunk_at(&c, c.first_tx, 0), 77, N_TX * PAGE));
	EXPECT_TRUE(receive(&c, 200000));
	ctx_close(&c);
	EXPECT_EQ(-EINVAL, ctx_make_in(&c, self->fd, POOL, N_RX - 1, N_TX, &existed));
	EXPECT_NE(NULL, strstr(text, "256, 63, 4096"));
	ctx_close(&c);
}

/* Every piece of a stream is where its entry says, in the file itself too. */
TEST_F_TIMEOUT(fsdax, rx__payload_is_in_the_file, 120)
{
	struct stream s = {};
	struct paste_rx e[64];
	unsigned int n = 0;
	bool existed;
	struct queue q;
	struct peer p;
	struct ctx c;
	int sv[2];
	__u8 *file;
	__u64 pos = 0;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, NULL));
	fill_slice(&q);
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, &s.conn));
	peer_init(&p, sv[1]);
	peer_send(&p, 100000);
	while (pos < 100000 && n < ARRAY_SIZE(e) && rx_wait(&q, &e[n], SOON))
		pos += e[n++].len;
	ASSERT_EQ(100000, pos);
	close(sv[0]);
	close(sv[1]);
	queue_close(&q);
	ctx_close(&c);
	file = mmap(NULL, POOL, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	for (unsigned int i = pos = 0; i < n; pos += e[i++].len) {
		EXPECT_EQ(PASTE_RX_COPIED, e[i].flags);
		ASSERT_TRUE(pattern_check(file + e[i].chunk * PAGE + e[i].off, pos, e[i].len));
	}
	munmap(file, POOL);
}

/* --- files that are no pool */

struct damage {
	const char *what;
	unsigned int at; /* a byte of a good header that is changed */
	__u8 xor ;
	size_t len; /* of the file */
	bool blank; /* zeros instead of the header */
	int err;
};

static const struct damage damages[] = {
	{ "magic", 0, 1, POOL, .err = -EBADMSG },
	{ "version", 8, 3, POOL, .err = -EBADMSG },
	{ "chunk_size", 13, 0x08, POOL, .err = -EBADMSG },
	{ "n_rx", 16, 1, POOL, .err = -EBADMSG },
	{ "huge n_rx", 19, 0x40, POOL, .err = -EBADMSG },
	{ "n_tx", 20, 1, POOL, .err = -EBADMSG },
	{ "first_rx", 24, 2, POOL, .err = -EBADMSG },
	{ "first_tx", 28, 2, POOL, .err = -EBADMSG },
	{ "bytes", 33, 0x10, POOL, .err = -EBADMSG },
	{ "shorter", 0, 0, POOL - PAGE, .err = -EBADMSG },
	{ "one page", 0, 0, PAGE, .err = -EBADMSG },
	{ "blank but for one byte", 4095, 1, POOL, true, .err = -EBADMSG },
	{ "blank but for one byte of the header", 17, 1, POOL, true, .err = -EBADMSG },
	{ "blank and short", 0, 0, POOL - PAGE, true, .err = -EBADMSG },
};

static int file_damage(const struct damage *d)
{
	__u8 page[PAGE], zeros[PAGE] = {};
	int src = open(FILE_A, O_RDONLY | O_CLOEXEC);
	int fd = file_make(FILE_B, d->len);

	if (pread(src, page, PAGE, 0) != (ssize_t)PAGE)
		return -1;
	if (d->blank)
		memcpy(page, zeros, PAGE);
	page[d->at] ^= d->xor ;
	if (pwrite(fd, page, PAGE, 0) != (ssize_t)PAGE || fsync(fd))
		return -1;
	close(src);
	return fd;
}

TEST_F_TIMEOUT(fsdax, refused__and_untouched, 120)
{
	const struct damage *d;
	struct paste_ioc_pool a;
	bool existed;
	struct ctx c;
	void *addr;
	__u64 sum;
	int fd;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	ctx_close(&c);
	for (d = damages; d < damages + ARRAY_SIZE(damages); d++) {
		fd = file_damage(d);
		ASSERT_LE(0, fd);
		sum = file_sum(FILE_B);
		c.fd = ctx_open();
		addr = mmap(NULL, POOL, RW, SYNCED, fd, 0);
		ASSERT_NE(MAP_FAILED, addr);
		a = (struct paste_ioc_pool){ .fd = fd, .addr = (uintptr_t)addr };
		if (d->blank) {
			a.n_rx = N_RX;
			a.n_tx = N_TX;
		}
		EXPECT_EQ(d->err, pool_try(c.fd, &a)) TH_LOG("%s: '%s'", d->what, text);
		EXPECT_NE(0, text[0]);
		munmap(addr, POOL);
		close(c.fd);
		EXPECT_EQ(sum, file_sum(FILE_B)) TH_LOG("%s: was written to", d->what);
		EXPECT_EQ(0, ftruncate(fd, 0)) TH_LOG("%s: still held", d->what);
		close(fd);
	}
}

/* The power went while the header was being written: any words of it, without the magic. */
TEST_F_TIMEOUT(fsdax, new__half_a_header, 120)
{
	struct paste_pool_header h;
	bool existed = true;
	struct ctx c;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	ctx_close(&c);
	ASSERT_EQ(sizeof(h), pread(self->fd, &h, sizeof(h), 0));
	memset(h.magic, 0, sizeof(h.magic));
	h.n_rx = h.n_tx = 0;
	ASSERT_EQ(sizeof(h), pwrite(self->fd, &h, sizeof(h), 0));
	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	EXPECT_FALSE(existed);
	ctx_close(&c);
	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, 0, 0, &existed)) TH_LOG("%s", text);
	EXPECT_TRUE(existed);
	ctx_close(&c);
}

/* --- requests that are wrong */

TEST_F_TIMEOUT(fsdax, arguments__wrong, 120)
{
	struct paste_ioc_pool good = { .fd = self->fd, .n_rx = N_RX, .n_tx = N_TX }, a = good;
	int ctx = ctx_open(), other = file_make(FILE_B, POOL), ro, dir;
	void *p = mmap(NULL, POOL + PAGE, RW, SYNCED, self->fd, 0);

	ASSERT_NE(MAP_FAILED, p);
	good.addr = (uintptr_t)p;
	EXPECT_TEXT(-EINVAL, "addr", pool_try(ctx, &a));
#define WITH(...)                                           \
	({                                                  \
		a = good;                                   \
		a = (struct paste_ioc_pool){ __VA_ARGS__ }; \
		pool_try(ctx, &a);                          \
	})
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = good.addr + 1));
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = good.addr + PAGE));
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = -PAGE));
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = 1UL << 63));
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = other, .n_rx = N_RX, .addr = good.addr));
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = -1, .n_rx = N_RX, .addr = good.addr));
	EXPECT_TEXT(-EBADF, "fd", WITH(.fd = -2, .n_rx = N_RX, .addr = good.addr));
	EXPECT_TEXT(-EBADF, "fd", WITH(.fd = 9999, .n_rx = N_RX, .addr = good.addr));
	EXPECT_TEXT(-EINVAL, "n_rx", WITH(.fd = good.fd, .addr = good.addr));
	EXPECT_TEXT(-EINVAL, "flags",
		    WITH(.fd = good.fd, .n_rx = N_RX, .addr = good.addr,
			 .flags = PASTE_POOL_RX_WRITABLE));
	ro = open(FILE_A, O_RDONLY | O_CLOEXEC);
	EXPECT_TEXT(-EACCES, "fd", WITH(.fd = ro, .n_rx = N_RX, .addr = good.addr));
	dir = open(DIR, O_RDONLY | O_CLOEXEC);
	EXPECT_GT(0, WITH(.fd = dir, .n_rx = N_RX, .addr = good.addr));
	munmap(p, POOL + PAGE);
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = good.addr));

	/* mapped in another way than it must be */
	p = mmap(NULL, POOL, RW, MAP_SHARED, self->fd, 0);
	EXPECT_TEXT(-EINVAL, "MAP_SYNC", WITH(.fd = good.fd, .n_rx = N_RX, .addr = (uintptr_t)p));
	munmap(p, POOL);
	p = mmap(NULL, POOL, PROT_READ, SYNCED, self->fd, 0);
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = (uintptr_t)p));
	munmap(p, POOL);
	p = mmap(NULL, POOL, RW, MAP_PRIVATE, self->fd, 0);
	EXPECT_TEXT(-EINVAL, "addr", WITH(.fd = good.fd, .n_rx = N_RX, .addr = (uintptr_t)p));
	munmap(p, POOL);
	p = mmap(NULL, POOL / 2, RW, SYNCED, self->fd, 0);
	EXPECT_TEXT(-EINVAL, "addr",
		    WITH(.fd = good.fd, .n_rx = N_RX, .n_tx = N_TX, .addr = (uintptr_t)p));
	munmap(p, POOL / 2);
	/* nothing of that has left a trace */
	EXPECT_EQ(0, ftruncate(self->fd, POOL));
	EXPECT_EQ(0, ftruncate(other, 0));
	close(ro);
	close(dir);
	close(other);
	close(ctx);
}

static int as_nobody(int fd)
{
	int status = 0;
	bool existed;
	struct ctx c;
	pid_t pid;

	pid = fork();
	if (!pid) {
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(100);
		_exit(-ctx_make_in(&c, fd, POOL, N_RX, N_TX, &existed));
	}
	waitpid(pid, &status, 0);
	return -WEXITSTATUS(status);
}

TEST_F_TIMEOUT(fsdax, rights__unprivileged, 120)
{
	ASSERT_EQ(0, chmod(DEVICE, 0666));
	EXPECT_EQ(-EPERM, as_nobody(self->fd));
	ASSERT_EQ(0, system("echo Y > /sys/module/paste/parameters/fsdax_by_users"));
	EXPECT_EQ(0, as_nobody(self->fd));
	ASSERT_EQ(0, system("echo N > /sys/module/paste/parameters/fsdax_by_users"));
	ASSERT_EQ(0, chmod(DEVICE, 0600));
}

/* --- what others may not do meanwhile */

static int fails(long r)
{
	return r < 0 ? -errno : 0;
}

static int clone_range(const char *to, const char *from)
{
	int dst = open(to, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int src = open(from, O_RDONLY | O_CLOEXEC);
	int err = fails(ioctl(dst, FICLONE, src));

	close(dst);
	close(src);
	return err;
}

/* Each of these must fail while the file is a pool; returns how many do not. */
static int try_everything(int fd, bool reflink)
{
	static const int modes[] = { 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE,
				     FALLOC_FL_INSERT_RANGE };
	int bad = 0;
	void *p;

#define MUST_FAIL(want, call)                                                 \
	do {                                                                  \
		int got = (call);                                             \
		if (got != (want)) {                                          \
			printf("# %s: %d instead of %d\n", #call, got, want); \
			bad++;                                                \
		}                                                             \
	} while (0)
	MUST_FAIL(-ETXTBSY, fails(ftruncate(fd, 0)));
	MUST_FAIL(-ETXTBSY, fails(truncate(FILE_A, POOL - PAGE)));
	MUST_FAIL(-ETXTBSY, fails(open(FILE_A, O_RDWR | O_TRUNC)));
	for (unsigned int i = 0; i < ARRAY_SIZE(modes); i++)
		MUST_FAIL(-ETXTBSY, fails(fallocate(fd, modes[i], 16 * PAGE, 16 * PAGE)));
	MUST_FAIL(-ETXTBSY, fails(pwrite(fd, "x", 1, 20 * PAGE)));
	MUST_FAIL(-EPERM, fails(unlink(FILE_A)));
	MUST_FAIL(-EPERM, fails(rename(FILE_A, DIR "/c")));
	MUST_FAIL(-EPERM, fails(rename(FILE_B, FILE_A)));
	p = mmap(NULL, POOL, RW, MAP_SHARED, fd, 0);
	MUST_FAIL(-ETXTBSY, p == MAP_FAILED ? -errno : 0);
	if (reflink) {
		MUST_FAIL(-ETXTBSY, clone_range(DIR "/d", FILE_A));
		MUST_FAIL(-ETXTBSY, clone_range(FILE_A, FILE_B));
	}
	return bad;
}

TEST_F_TIMEOUT(fsdax, guard__nobody_moves_blocks, 120)
{
	int b = file_make(FILE_B, POOL);
	struct ctx c, second;
	__u64 sum;
	bool existed;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	EXPECT_TRUE(receive(&c, 300000));
	sum = file_sum(FILE_A);
	/* no mapping of the file is left, only the context's */
	EXPECT_EQ(0, try_everything(self->fd, variant->reflink));
	if (!strcmp(variant->type, "ext4")) {
		EXPECT_NE(0, system("e4defrag -v " FILE_A " 2>&1 | grep -q '\\[ OK \\]'"));
	} else {
		system("xfs_fsr " FILE_A QUIET);
	}
	EXPECT_EQ(sum, file_sum(FILE_A));
	/* nor is there a second context */
	second.fd = ctx_open();
	{
		struct paste_ioc_pool a = { .fd = self->fd, .addr = (uintptr_t)c.base };

		EXPECT_TEXT(-EBUSY, "another", pool_try(second.fd, &a));
	}
	close(second.fd);
	EXPECT_EQ(EBUSY, umount(DIR) ? errno : 0);
	ctx_close(&c);
	/* and now everything works */
	EXPECT_EQ(1, pwrite(self->fd, "x", 1, 20 * PAGE));
	EXPECT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16 * PAGE,
			       16 * PAGE));
	EXPECT_EQ(0, rename(FILE_A, DIR "/c"));
	EXPECT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(0, unlink(DIR "/c"));
	close(b);
}

/* A hole punch that sleeps in another task until it may go on must not get in first. */
TEST_F_TIMEOUT(fsdax, guard__against_racing_fallocate, 120)
{
	int status, tries = 60;
	void *kept = mmap(NULL, POOL, RW, SYNCED, self->fd, 0); /* as paste.h wants it */
	bool existed;
	struct ctx c;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, kept);
	pid = fork();
	if (!pid) {
		for (;;) {
			fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE,
				  (N_RX - 2) * PAGE);
			fallocate(self->fd, 0, 0, POOL);
		}
	}
	for (int i = 0; i < tries; i++) {
		ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, i ? 0 : N_RX, i ? 0 : N_TX, &existed))
		TH_LOG("%s", text);
		memset(c.base + PAGE, i, POOL - PAGE);
		ctx_close(&c);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	munmap(kept, POOL);
}

/* --- the end */

/* Sends from the pool that the peer does not take, then nothing of it may be in TCP. */
TEST_F_TIMEOUT(fsdax, close__unsent_data, 120)
{
	const int little = 32768, large = 400000;
	struct peer p;
	struct queue q;
	struct ctx c;
	bool existed;
	__u32 conn;
	int sv[2];
	void *file;

	ASSERT_EQ(0, ctx_make_in(&c, self->fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&q, &c, NULL));
	ASSERT_EQ(0, tcp_pair(AF_INET, sv));
	ASSERT_EQ(0, setsockopt(sv[1], SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)));
	ASSERT_EQ(0, setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large)));
	ASSERT_EQ(0, queue_attach(&q, sv[0], 0, &conn));
	peer_init(&p, sv[1]);
	pattern_write(chunk_at(&c, c.first_tx, 0), 0, N_TX * PAGE);
	for (__u32 i = 0; i < N_TX; i++)
		ASSERT_TRUE(tx_put(&q, conn, c.first_tx + i, 0, PAGE,
				   i == N_TX - 1 ? PASTE_TX_CLOSE : 0, i));
	ASSERT_EQ(0, queue_sync(&q, 0, 0));
	sleep_ms(50);
	queue_close(&q);
	ctx_close(&c);
	/* the file is ours again: write over what TCP has still to send */
	ASSERT_EQ(0, ftruncate(self->fd, POOL));
	file = mmap(NULL, POOL, RW, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	memset(file, 0xee, POOL);
	munmap(file, POOL);
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, umount(DIR)) TH_LOG("%s", strerror(errno));
	for (__u64 end = now_ms() + SOON; !p.eof && !p.err && now_ms() < end; sleep_ms(1))
		peer_recv(&p);
	EXPECT_EQ(N_TX * PAGE, p.got);
	EXPECT_FALSE(p.wrong);
	close(sv[0]);
	close(sv[1]);
	ASSERT_EQ(0, mount(DISK, DIR, variant->type, 0, "dax"));
}

static void be_killed(int fd, int ready)
{
	struct peer p[4];
	struct stream s[4] = {};
	struct queue q;
	struct ctx c;
	bool existed;
	int sv[2];

	if (ctx_make_in(&c, fd, POOL, N_RX, N_TX, &existed) || queue_make(&q, &c, NULL))
		_exit(1);
	close(fd);
	fill_slice(&q);
	for (int i = 0; i < 4; i++) {
		if (tcp_pair(AF_INET, sv) || queue_attach(&q, sv[0], 0, &s[i].conn))
			_exit(1);
		peer_init(&p[i], sv[1]);
	}
	for (unsigned int r = 0;; r++) {
		struct paste_comp comp;
		struct paste_rx e;

		for (int i = 0; i < 4; i++)
			peer_send(&p[i], p[i].sent + 20000);
		queue_sync(&q, 0, 1000);
		while (comp_take(&q, &comp))
			fill_put(&q, comp.cookie);
		while (rx_take(&q, &e))
			if (!e.len || !tx_put(&q, e.conn, e.chunk, e.off, e.len, 0, e.chunk))
				break;
		for (int i = 0; i < 4; i++)
			if (r % 3)
				peer_recv(&p[i]);
		if (r == 20 && write(ready, "x", 1) != 1)
			_exit(1);
	}
}

TEST_F_TIMEOUT(fsdax, kill__unmount_at_once, 120)
{
	for (unsigned int k = 0; k < 5; k++) {
		int ready[2], status;
		pid_t pid;
		char b;

		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		if (!pid)
			be_killed(self->fd, ready[1]);
		close(ready[1]);
		close(self->fd);
		ASSERT_EQ(1, read(ready[0], &b, 1)) TH_LOG("the child did not start");
		close(ready[0]);
		sleep_ms(k * 7);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, umount(DIR)) TH_LOG("umount: %s", strerror(errno));
		ASSERT_EQ(0, mount(DISK, DIR, variant->type, 0, "dax"));
		self->fd = open(FILE_A, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, self->fd);
	}
}

/* ------------------------------------------------------------- others --- */

/* Not DAX: refused, and why. */
static int refused(int fd, void *addr)
{
	struct paste_ioc_pool a = { .fd = fd, .n_rx = 64, .addr = (uintptr_t)addr };
	int ctx = ctx_open();
	int err = pool_try(ctx, &a);

	close(ctx);
	return err;
}

TEST(other__tmpfs_memfd_hugetlb)
{
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
	void *p;

	ASSERT_EQ(0, ftruncate(fd, POOL));
	p = mmap(NULL, POOL, RW, MAP_SHARED, fd, 0);
	EXPECT_TEXT(-EOPNOTSUPP, "tmpfs", refused(fd, p));
	close(fd);
	fd = memfd_create("pool", 0);
	ASSERT_EQ(0, ftruncate(fd, POOL));
	p = mmap(NULL, POOL, RW, MAP_SHARED, fd, 0);
	EXPECT_TEXT(-EOPNOTSUPP, "DAX", refused(fd, p));
	close(fd);
	ASSERT_EQ(0, system("echo 2 > /proc/sys/vm/nr_hugepages"));
	fd = memfd_create("pool", MFD_HUGETLB);
	if (fd >= 0 && !ftruncate(fd, 2 << 20)) {
		p = mmap(NULL, 2 << 20, RW, MAP_SHARED, fd, 0);
		EXPECT_TEXT(-EOPNOTSUPP, "huge", refused(fd, p));
		if (p != MAP_FAILED)
			munmap(p, 2 << 20);
	}
	close(fd);
	system("echo 0 > /proc/sys/vm/nr_hugepages");
	fd = open("/dev/zero", O_RDWR);
	EXPECT_TEXT(-EOPNOTSUPP, "DAX", refused(fd, (void *)PAGE));
	close(fd);
	fd = open(DEVICE, O_RDWR);
	EXPECT_TEXT(-EOPNOTSUPP, "DAX", refused(fd, (void *)PAGE));
	close(fd);
}

/* Makes the namespace anew; its name. */
static const char *devdax_make(const char *align)
{
	static char path[64];
	char cmd[256];
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "ndctl create-namespace -f -e namespace0.0 -m devdax --align=%s" QUIET
		 "; ls /dev/dax* 2> /dev/null",
		 align);
	f = popen(cmd, "r");
	if (!f || !fgets(path, sizeof(path), f))
		path[0] = 0;
	if (f)
		pclose(f);
	path[strcspn(path, "\n")] = 0;
	return path;
}

FIXTURE(devdax)
{
	__u64 before[PASTE_OBJ_MAX];
	bool is_mine;
};

FIXTURE_SETUP(devdax)
{
	if (access(DISK, F_OK))
		SKIP(return, "no " DISK);
	self->is_mine = true;
	ASSERT_EQ(0, set_lo_up());
	ASSERT_EQ(0, objects_read(self->before));
}

FIXTURE_TEARDOWN(devdax)
{
	if (!self->is_mine)
		return;
	EXPECT_TRUE(objects_wait(self->before, 0));
	EXPECT_EQ(0, system(MAKE_FSDAX))
	TH_LOG("the device is still used");
}

TEST_F_TIMEOUT(devdax, align__4k, 120)
{
	struct ctx c, second;
	bool existed = true;
	void *p;
	int fd;

	fd = open(devdax_make("4k"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	/* the file system that was there is foreign to us */
	p = mmap(NULL, POOL, RW, SYNCED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 0xa5, POOL);
	EXPECT_EQ(-EBADMSG, ctx_make_in(&c, fd, POOL, N_RX, N_TX, &existed));
	ctx_close(&c);
	EXPECT_EQ(0xa5, *(__u8 *)p);
	memset(p, 0, POOL);
	ASSERT_EQ(0, ctx_make_in(&c, fd, POOL, N_RX, N_TX, &existed)) TH_LOG("%s", text);
	EXPECT_FALSE(existed);
	EXPECT_EQ(0, memcmp(p, PASTE_POOL_MAGIC, 8));
	EXPECT_TRUE(receive(&c, 400000));
	EXPECT_EQ(0, memcmp(p, c.base, POOL));
	{
		struct paste_ioc_pool a = { .fd = fd, .addr = (uintptr_t)p };

		second.fd = ctx_open();
		EXPECT_TEXT(-EBUSY, "another", pool_try(second.fd, &a));
		close(second.fd);
	}
	ctx_close(&c);
	ASSERT_EQ(0, ctx_make_in(&c, fd, POOL, 0, 0, &existed)) TH_LOG("%s", text);
	EXPECT_TRUE(existed);
	EXPECT_TRUE(receive(&c, 400000));
	ctx_close(&c);
	munmap(p, POOL);
	close(fd);
}

TEST_F_TIMEOUT(devdax, align__2m, 120)
{
	size_t len = (POOL | ((2 << 20) - 1)) + 1;
	struct ctx c;
	bool existed;
	int fd;

	fd = open(devdax_make("2m"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_TEXT(-EOPNOTSUPP, "--align=4k", ctx_make_in(&c, fd, len, N_RX, N_TX, &existed));
	ctx_close(&c);
	close(fd);
}

TEST_HARNESS_MAIN
