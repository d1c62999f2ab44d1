// SPDX-License-Identifier: MIT
/*
 * libpaste: queues and the one system call of the data path.
 *
 * A queue's memory is two mappings: what the module writes, which is read-only
 * here, and what the application writes. The module says at which offset of
 * which mapping everything is; nothing about the layout is known here.
 */
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

/* Rings that the module fills: entries and producer index are the module's. */
static void init_incoming(struct paste_ring *r, char *kern, char *user,
			  const struct paste_ring_offsets *off)
{
	r->ours = (void *)(user + off->cons);
	r->theirs = (void *)(kern + off->prod);
	r->desc = kern + off->desc;
	r->mask = off->entries - 1;
	r->next = *r->ours;
	r->seen = *r->theirs;
}

/* Rings that the application fills. */
static void init_outgoing(struct paste_ring *r, char *kern, char *user,
			  const struct paste_ring_offsets *off)
{
	r->ours = (void *)(user + off->prod);
	r->theirs = (void *)(kern + off->cons);
	r->desc = user + off->desc;
	r->mask = off->entries - 1;
	r->next = *r->ours;
	r->seen = *r->theirs;
}

static void keep_queue(struct pasteq *q, const struct paste_ioc_queue *io)
{
	q->fd = io->fd;
	q->id = io->id;
	q->first_chunk = io->first_chunk;
	q->n_chunks = io->rx_chunks;
	q->kern_len = io->kern_len;
	q->user_len = io->user_len;
}

static int map_rings(struct pasteq *q, const struct paste_ioc_queue *io)
{
	int err;

	err = paste_sys_map(&q->kern, q->kern_len, PROT_READ, MAP_SHARED, q->fd, PASTE_MMAP_KERN);
	if (err)
		return err;
	err = paste_sys_map(&q->user, q->user_len, PROT_READ | PROT_WRITE, MAP_SHARED, q->fd,
			    PASTE_MMAP_USER);
	if (err)
		return err;
	init_incoming(&q->rx, q->kern, q->user, &io->rx);
	init_incoming(&q->comp, q->kern, q->user, &io->comp);
	init_outgoing(&q->fill, q->kern, q->user, &io->fill);
	init_outgoing(&q->tx, q->kern, q->user, &io->tx);
	q->flags = (const void *)((char *)q->kern + io->flags_off);
	return 0;
}

int paste_queue(struct paste *p, struct pasteq *q, const struct paste_queue_opts *o)
{
	struct paste_queue_opts opts = { .sz = sizeof(opts) };
	struct paste_ioc_queue io = { .size = sizeof(io) };
	char text[PASTE_TEXT_MAX] = "";
	int err;

	memset(q, 0, sizeof(*q));
	q->fd = -1;
	q->nic_queue = -1;
	q->ctx = p;
	err = paste_opts_copy(&opts, sizeof(opts), o);
	if (!err && opts.resv)
		err = -EINVAL;
	if (!err) {
		io.text = paste_ptr(text);
		io.rx_entries = opts.rx_entries;
		io.fill_entries = opts.fill_entries;
		io.tx_entries = opts.tx_entries;
		io.comp_entries = opts.comp_entries;
		io.rx_chunks = opts.rx_chunks;
		err = paste_sys_ioctl(p->fd, PASTE_IOC_QUEUE, &io);
	}
	if (!err) {
		keep_queue(q, &io);
		err = map_rings(q, &io);
	}
	if (err) {
		paste_queue_close(q);
		paste_fail(text, "queue", err);
		memcpy(p->text, text, sizeof(p->text));
	}
	return err;
}

void paste_queue_close(struct pasteq *q)
{
	paste_sys_unmap(q->user, q->user_len);
	paste_sys_unmap(q->kern, q->kern_len);
	q->user = NULL;
	q->kern = NULL;
	paste_sys_close(&q->fd);
	q->nic_queue = -1;
}

int paste_sync(struct pasteq *q, __u32 busy_us, __u32 wait_us)
{
	struct paste_ioc_sync io = {
		.size = sizeof(io),
		.busy_us = busy_us,
		.wait_us = wait_us,
	};

	return paste_sys_ioctl(q->fd, PASTE_IOC_SYNC, &io);
}

int paste_fill_all(struct pasteq *q)
{
	__u32 end = q->first_chunk + q->n_chunks;
	__u32 chunk = q->first_chunk;
	int err = 0;

	while (!err && chunk < end) {
		while (chunk < end && !paste_fill(q, chunk))
			chunk++;
		err = paste_sync(q, 0, 0);
		/* After every sync the ring is empty, that is what the module promises. */
		if (!err && !paste_fill_room(q))
			err = -EIO;
	}
	if (err) {
		q->ctx->text[0] = 0;
		paste_fail(q->ctx->text, "fill", err);
	}
	return err;
}
