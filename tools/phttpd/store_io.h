/* SPDX-License-Identifier: MIT */
/*
 * store_io.h - how bytes of a store become durable
 *
 * All writes to logs go through here, and all flushes of what a NIC has written
 * to a pool. What was copied or flushed is durable after the next
 * io_drain() of the same thread, and maybe before.
 *
 * Where the memory is persistent this is libpmem's flush and drain. Elsewhere
 * writes are remembered, and io_drain() calls msync(2), or fsync(2) or
 * fdatasync(2), for the files that were written.
 *
 * With STORE_SIM every call has a name, in a list that a test can walk, and the
 * test's own operations learn by it which call to leave out.
 */
#ifndef PHTTPD_STORE_IO_H
#define PHTTPD_STORE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store.h"

struct store_io;

struct io_ops {
	void (*copy)(struct store_io *io, void *dst, const void *src, size_t len);
	void (*store)(struct store_io *io, uint64_t *dst, uint64_t value);
	void (*flush)(struct store_io *io, const void *addr, size_t len);
	int (*drain)(struct store_io *io);
};

/* A log file as one thread writes it. */
struct io_file {
	char *base;
	size_t len;
	int fd;
	size_t dirty_from; /* the part that was written since the last drain; none: to is 0 */
	size_t dirty_to;
};

/* A thread's way to write. */
struct store_io {
	const struct io_ops *ops;
	struct io_file *files;
	unsigned n_files;
	bool datasync;
	bool no_flush;
	int err; /* of a write; the next drain returns it */
};

extern const struct io_ops io_pmem;
extern const struct io_ops io_msync;
extern const struct io_ops io_fsync;

#ifdef STORE_SIM
extern const char *const *io_site; /* the call under way */
#define IO_STRING(x)  #x
#define IO_STRING2(x) IO_STRING(x)
#define IO_SITE(what)                                                                           \
	({                                                                                      \
		static const char *const site __attribute__((section("io_sites"), used)) = what \
			" " __FILE__ ":" IO_STRING2(__LINE__);                                  \
		io_site = &site;                                                                \
	})
#else
#define IO_SITE(what) ((void)0)
#endif

/* Copy to a log, flushed. */
#define io_copy(io, dst, src, len) (IO_SITE("copy"), (io)->ops->copy(io, dst, src, len))
/* Store 8 bytes that are aligned, at once. Not flushed. */
#define io_store(io, dst, value) ((io)->ops->store(io, dst, value))
#define io_flush(io, addr, len)	 (IO_SITE("flush"), (io)->ops->flush(io, addr, len))
/* 0 or -errno, if not everything is durable. */
#define io_drain(io) (IO_SITE("drain"), (io)->ops->drain(io))

#endif /* PHTTPD_STORE_IO_H */
