// SPDX-License-Identifier: MIT
/*
 * libpaste: contexts and pools.
 *
 * A context is one open of the device, its pool is mapped as a whole for
 * reading and once more, at the same addresses, for writing where the
 * application may write: the tx chunks, and with PASTE_POOL_RX_WRITABLE or in a
 * file the rx chunks too. The pool's header (chunk 0) is never writable.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

int paste_open(struct paste *p)
{
	int saved = errno;
	int err = 0;

	memset(p, 0, sizeof(*p));
	p->fd = open(PASTE_DEVICE, O_RDWR | O_CLOEXEC);
	if (p->fd < 0)
		err = -errno;
	errno = saved;
	if (err == -ENOENT || err == -ENXIO || err == -ENODEV)
		paste_say(p->text, PASTE_DEVICE ": no such device, is the module loaded?");
	return err ? paste_fail(p->text, PASTE_DEVICE, err) : 0;
}

int paste_info(struct paste *p, struct paste_ioc_info *i)
{
	memset(i, 0, sizeof(*i));
	i->size = sizeof(*i);
	return paste_sys_ioctl(p->fd, PASTE_IOC_INFO, i);
}

/* Map n chunks from first on once more, writable. */
static int map_writable(struct paste *p, __u32 first, __u32 n)
{
	size_t off = (size_t)first * p->chunk_size;
	void *at = (char *)p->base + off;

	if (!n)
		return 0;
	return paste_sys_map(&at, (size_t)n * p->chunk_size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, p->fd, (off_t)(PASTE_MMAP_POOL + off));
}

static int map_pool(struct paste *p, bool rx_writable)
{
	void *base = NULL;
	int err;

	err = paste_sys_map(&base, p->bytes, PROT_READ, MAP_SHARED, p->fd, PASTE_MMAP_POOL);
	if (err)
		return err;
	p->base = base;
	err = map_writable(p, p->first_tx, p->n_tx);
	if (!err && rx_writable)
		err = map_writable(p, p->first_rx, p->n_rx);
	if (err) {
		paste_sys_unmap(p->base, p->bytes);
		p->base = NULL;
	}
	return err;
}

static void keep_layout(struct paste *p, const struct paste_ioc_pool *io)
{
	p->chunk_size = io->chunk_size;
	p->n_rx = io->n_rx;
	p->n_tx = io->n_tx;
	p->first_rx = io->first_rx;
	p->first_tx = io->first_tx;
	p->bytes = io->bytes;
	p->n_chunks = (__u32)(io->bytes / io->chunk_size);
	p->kind = io->kind;
	p->existed = io->existed;
}

/* Chunk 0 has a page of its own. */
static size_t new_pool_len(const struct paste_ioc_pool *io)
{
	return 4096 + ((size_t)io->n_rx + io->n_tx) * (io->chunk_size ? io->chunk_size : 4096);
}

static int make_pool(struct paste *p, struct paste_ioc_pool *io, const char *path, char *text)
{
	struct paste_file f = { .fd = -1 };
	int err;

	if (!path)
		return paste_sys_ioctl(p->fd, PASTE_IOC_POOL, io);
	err = paste_file_open(&f, path, new_pool_len(io), text);
	if (err)
		return err;
	io->fd = f.fd;
	io->addr = paste_ptr(f.addr);
	if (f.is_pool)
		io->chunk_size = io->n_rx = io->n_tx = 0; /* as the header says */
	err = paste_sys_ioctl(p->fd, PASTE_IOC_POOL, io);
	if (!err && io->kind == PASTE_POOL_FSDAX) {
		/* a file system that is about to free a block waits only if it is mapped */
		p->file = f.addr;
		p->file_len = f.len;
		f.addr = NULL;
	}
	paste_file_close(&f);
	return err;
}

int paste_pool(struct paste *p, const struct paste_pool_opts *o)
{
	struct paste_pool_opts opts = { .sz = sizeof(opts) };
	struct paste_ioc_pool io = { .size = sizeof(io), .fd = -1 };
	char text[PASTE_TEXT_MAX] = "";
	int err;

	err = paste_opts_copy(&opts, sizeof(opts), o);
	if (!err) {
		io.flags = opts.flags;
		io.text = paste_ptr(text);
		io.chunk_size = opts.chunk_size;
		io.n_rx = opts.n_rx ? opts.n_rx : 8192;
		io.n_tx = opts.n_tx ? opts.n_tx : 1024;
		if (opts.n_tx == PASTE_NO_TX)
			io.n_tx = 0;
		err = make_pool(p, &io, opts.path, text);
	}
	if (!err) {
		keep_layout(p, &io);
		err = map_pool(p, opts.path || opts.flags & PASTE_POOL_RX_WRITABLE);
	}
	if (err) {
		paste_fail(text, "pool", err);
		memcpy(p->text, text, sizeof(p->text));
	}
	return err;
}

void paste_close(struct paste *p)
{
	paste_sys_unmap(p->base, p->bytes);
	p->base = NULL;
	paste_sys_unmap(p->file, p->file_len);
	p->file = NULL;
	paste_sys_close(&p->fd);
}

const char *paste_text(const struct paste *p)
{
	return p->text;
}
