// SPDX-License-Identifier: MIT
/*
 * store_io.c - persistent memory and files
 */
#include <errno.h>
#include <libpmem.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store_io.h"

/* ------------------------------------------------------------------------- */
/* Persistent memory */

static void pmem_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	pmem_memcpy(dst, src, len, io->no_flush ? PMEM_F_MEM_NOFLUSH : PMEM_F_MEM_NODRAIN);
}

static void pmem_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	(void)io;
	__atomic_store_n(dst, value, __ATOMIC_RELAXED);
}

static void pmem_flush_range(struct store_io *io, const void *addr, size_t len)
{
	if (!io->no_flush)
		pmem_flush(addr, len);
}

static int pmem_drain_all(struct store_io *io)
{
	if (!io->no_flush)
		pmem_drain();
	return 0;
}

const struct io_ops io_pmem = {
	.copy = pmem_copy,
	.store = pmem_store,
	.flush = pmem_flush_range,
	.drain = pmem_drain_all,
};

/* ------------------------------------------------------------------------- */
/* Files: what was written is remembered until the drain */

static struct io_file *file_of(struct store_io *io, const void *addr)
{
	unsigned i;

	for (i = 0; i < io->n_files; i++)
		if ((uintptr_t)addr - (uintptr_t)io->files[i].base < io->files[i].len)
			return &io->files[i];
	return NULL;
}

static void file_flush(struct store_io *io, const void *addr, size_t len)
{
	struct io_file *f = file_of(io, addr);
	size_t from = (size_t)((const char *)addr - f->base);

	if (!f->dirty_to || from < f->dirty_from)
		f->dirty_from = from;
	if (from + len > f->dirty_to)
		f->dirty_to = from + len;
}

static int for_dirty(struct store_io *io, int (*sync)(struct store_io *io, struct io_file *f))
{
	int err = io->err;
	unsigned i;

	io->err = 0;
	for (i = 0; i < io->n_files; i++) {
		if (!io->files[i].dirty_to)
			continue;
		if (!io->no_flush && sync(io, &io->files[i]) && !err)
			err = -errno;
		io->files[i].dirty_to = 0;
	}
	return err;
}

static void mmap_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	file_flush(io, dst, len);
}

static void mmap_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	__atomic_store_n(dst, value, __ATOMIC_RELAXED);
	file_flush(io, dst, sizeof(*dst));
}

static int mmap_sync(struct store_io *io, struct io_file *f)
{
	size_t from = f->dirty_from & ~((size_t)sysconf(_SC_PAGESIZE) - 1);

	(void)io;
	return msync(f->base + from, f->dirty_to - from, MS_SYNC);
}

static int mmap_drain(struct store_io *io)
{
	return for_dirty(io, mmap_sync);
}

const struct io_ops io_msync = {
	.copy = mmap_copy,
	.store = mmap_store,
	.flush = file_flush,
	.drain = mmap_drain,
};

/* The mapping, which is there to read by, shows what pwrite(2) has written. */
static void file_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	struct io_file *f = file_of(io, dst);
	off_t off = (char *)dst - f->base;
	size_t done;
	ssize_t n;

	for (done = 0; done < len; done += (size_t)n) {
		n = pwrite(f->fd, (const char *)src + done, len - done, off + (off_t)done);
		if (n <= 0) {
			io->err = n ? -errno : -ENOSPC;
			break;
		}
	}
	file_flush(io, dst, len);
}

static void file_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	file_copy(io, dst, &value, sizeof(value));
}

static int file_sync(struct store_io *io, struct io_file *f)
{
	return io->datasync ? fdatasync(f->fd) : fsync(f->fd);
}

static int file_drain(struct store_io *io)
{
	return for_dirty(io, file_sync);
}

const struct io_ops io_fsync = {
	.copy = file_copy,
	.store = file_store,
	.flush = file_flush,
	.drain = file_drain,
};
