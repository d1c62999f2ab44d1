// SPDX-License-Identifier: MIT
/*
 * libpaste: files on persistent memory for pools.
 *
 * A new file is made without a name, filled, and named when all of it is
 * durable: after a crash there is a whole file or none. It is filled with zeros
 * by write(2), not left to be filled at page faults: each of these would wait
 * for the file system's journal (MAP_SYNC).
 *
 * The module takes the memory through a mapping of the file. It is not what the
 * application uses, see setup.c.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "internal.h"

#define HEADER_LEN 4096
#define SYNCED	   (MAP_SHARED_VALIDATE | MAP_SYNC)

static int file_write_zeros(int fd, size_t len)
{
	static const char zeros[1 << 16];
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = write(fd, zeros, len - done < sizeof(zeros) ? len - done : sizeof(zeros));
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Give the file its name, and make that durable. The directory is open as dir. */
static int file_link(int fd, int dir, const char *path)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) || fsync(dir))
		return -errno;
	return 0;
}

/* 0, if mappings of the file can be persistent memory. */
static int file_is_pm(int fd)
{
	void *addr = NULL;
	int err = paste_sys_map(&addr, HEADER_LEN, PROT_READ | PROT_WRITE, SYNCED, fd, 0);

	paste_sys_unmap(addr, HEADER_LEN);
	return err;
}

static int file_fill(int fd, int dir, const char *path, size_t len)
{
	int err = file_is_pm(fd);

	if (!err)
		err = -posix_fallocate(fd, 0, (off_t)len); /* in few pieces */
	if (!err)
		err = file_write_zeros(fd, len);
	if (!err && fsync(fd))
		err = -errno;
	return err ? err : file_link(fd, dir, path);
}

/* A new file of len bytes: its fd or a negative errno. */
static int file_make(const char *path, size_t len)
{
	char *copy = strdup(path);
	int fd = -1, dir = -1, err;

	if (!copy)
		return -ENOMEM;
	dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0)
		fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	err = fd < 0 ? -errno : file_fill(fd, dir, path, len);
	if (err && fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
	free(copy);
	return err ? err : fd;
}

static int file_map(struct paste_file *f, size_t len)
{
	f->addr = NULL;
	f->len = len;
	return paste_sys_map(&f->addr, len, PROT_READ | PROT_WRITE, SYNCED, f->fd, 0);
}

/*
 * Map as much as the pool has: the header says it, or else the options do. What
 * is no pool is for the module to refuse.
 */
static int file_map_pool(struct paste_file *f, size_t new_len)
{
	struct paste_pool_header h;
	struct stat st;
	int err;

	if (fstat(f->fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_size < HEADER_LEN)
		return -EBADMSG;
	err = file_map(f, HEADER_LEN);
	if (err)
		return err;
	memcpy(&h, f->addr, sizeof(h));
	f->is_pool = !memcmp(h.magic, PASTE_POOL_MAGIC, sizeof(h.magic));
	if (f->is_pool)
		new_len = h.bytes;
	if (S_ISREG(st.st_mode) && (__u64)st.st_size < new_len)
		return 0;
	paste_sys_unmap(f->addr, HEADER_LEN);
	return file_map(f, new_len);
}

static void file_say(char *text, const char *path, int err)
{
	if (err == -EOPNOTSUPP)
		paste_say(text, "%.80s: not on persistent memory (no MAP_SYNC)", path);
	else if (err == -EBADMSG)
		paste_say(text, "%.80s: too short for a pool", path);
	else if (err == -EBUSY)
		paste_say(text, "%.80s: another context or swapon has this file", path);
	else if (err == -EINVAL)
		paste_say(text, "%.60s: cannot map 4 KiB: a device-dax needs --align=4k", path);
	else
		paste_fail(text, path, err);
}

/* len: of a new pool. */
int paste_file_open(struct paste_file *f, const char *path, size_t len, char *text)
{
	int saved = errno;
	int err;

	f->fd = open(path, O_RDWR | O_CLOEXEC);
	if (f->fd < 0)
		f->fd = errno == ENOENT ? file_make(path, len) : -errno;
	err = f->fd < 0 ? f->fd : file_map_pool(f, len);
	if (err == -ETXTBSY) /* marked: no new mapping to write to it */
		err = -EBUSY;
	errno = saved;
	if (err) {
		file_say(text, path, err);
		paste_file_close(f);
	}
	return err;
}

void paste_file_close(struct paste_file *f)
{
	paste_sys_unmap(f->addr, f->len);
	f->addr = NULL;
	paste_sys_close(&f->fd);
}
