/* SPDX-License-Identifier: MIT */
/*
 * libpaste - packet buffers that belong to the application
 *
 * This header is the library's whole interface. The objects, the life of a
 * chunk, the rings and the meaning of every errno are explained in
 * <linux/paste.h>; here is only what the library adds: set-up calls that also
 * map the memory, and the inline functions that read and write the rings.
 *
 * The caller allocates the structs (their spare words let them grow). Functions
 * return 0 or more, or a negative errno; they do not touch errno, do not print,
 * start no threads, and allocate nothing on the data path.
 *
 * One thread at a time may use a queue; set-up calls of one context may run in
 * several threads. See libpaste(7).
 */
#ifndef PASTE_H
#define PASTE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <linux/paste.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A context and its pool. All members are for reading only. */
struct paste {
	int fd;		  /* the context; -1 when closed */
	__u32 chunk_size; /* bytes */
	__u32 n_rx;	  /* rx chunks ... */
	__u32 n_tx;
	__u32 first_rx; /* ... and the first of them */
	__u32 first_tx;
	__u32 n_chunks;		   /* all chunks, with the pool's header */
	__u32 kind;		   /* PASTE_POOL_KERNEL, _FSDAX or _DEVDAX */
	void *base;		   /* chunk 0; NULL before paste_pool() */
	size_t bytes;		   /* length of the pool */
	char text[PASTE_TEXT_MAX]; /* see paste_text() */
	__u32 existed;		   /* the pool was in the file before */
	__u32 resv;
	void *file; /* a mapping of the file, not for use */
	size_t file_len;
	__u64 spare[5];
};

/* One ring, as its application sees it. */
struct paste_ring {
	__u32 *ours;	     /* the index that the application writes */
	const __u32 *theirs; /* the index that the module writes */
	void *desc;	     /* entry 0 */
	__u32 mask;	     /* entries - 1 */
	__u32 next;	     /* next entry to take or to write */
	__u32 seen;	     /* *theirs as last seen (fill and tx) */
	__u32 resv;
};

/* A queue. fd is for poll(2); the other members are for reading only. */
struct pasteq {
	int fd;		   /* the queue; -1 when closed */
	__u32 id;	   /* for paste_stats() */
	__u32 first_chunk; /* the slice of the pool's rx chunks */
	__u32 n_chunks;
	struct paste *ctx;
	struct paste_ring rx;
	struct paste_ring fill;
	struct paste_ring tx;
	struct paste_ring comp;
	const __u32 *flags; /* PASTE_Q_*, written by the module */
	void *kern;	    /* the two mappings */
	void *user;
	size_t kern_len;
	size_t user_len;
	__s32 nic_queue; /* the bound RX queue or -1 */
	__u32 resv;
	__u64 spare[8];
};

/* A NIC with the library's XDP program. */
struct paste_nic {
	int ifindex;
	int link_fd; /* keeps the XDP program attached; -1: is not */
	void *xdp;   /* the loaded program; NULL when closed */
	__u32 n_ports;
	__u16 ports[PASTE_PORTS_MAX];
	char text[PASTE_TEXT_MAX]; /* see paste_nic_text() */
	__u64 spare[8];
};

/* For n_tx of struct paste_pool_opts: a pool without tx chunks. */
#define PASTE_NO_TX 0xffffffffU

/*
 * With a path the pool is in that file, on persistent memory: a file on FS-DAX,
 * which is made if there is none, or a device-dax. If there is a pool in it
 * already, the sizes are those of the pool, and these here do not matter. The
 * mapping is good for pmem_flush() and pmem_drain() of libpmem; the library
 * itself flushes nothing.
 */
struct paste_pool_opts {
	size_t sz;	  /* sizeof(struct paste_pool_opts) */
	__u32 chunk_size; /* 4096 or 2048; 0: 4096 */
	__u32 n_rx;	  /* 0: 8192 */
	__u32 n_tx;	  /* 0: 1024 */
	__u32 flags;	  /* PASTE_POOL_RX_WRITABLE; 0 with a path */
	const char *path; /* NULL: kernel pages */
};

struct paste_queue_opts {
	size_t sz;	  /* sizeof(struct paste_queue_opts) */
	__u32 rx_entries; /* powers of two; 0: the module's default */
	__u32 fill_entries;
	__u32 tx_entries;
	__u32 comp_entries;
	__u32 rx_chunks; /* size of the slice; 0: all that are left */
	__u32 resv;	 /* 0 */
};

/* Context and pool: paste_open(3) */
int paste_open(struct paste *p);
int paste_pool(struct paste *p, const struct paste_pool_opts *o);
void paste_close(struct paste *p);
const char *paste_text(const struct paste *p);
int paste_info(struct paste *p, struct paste_ioc_info *i);

/* Queues: paste_queue(3) */
int paste_queue(struct paste *p, struct pasteq *q, const struct paste_queue_opts *o);
void paste_queue_close(struct pasteq *q);
int paste_sync(struct pasteq *q, __u32 busy_us, __u32 wait_us);
int paste_fill_all(struct pasteq *q);

/* Connections: paste_attach(3) */
int paste_attach(struct pasteq *q, int sockfd, __u32 quota, __u32 *conn);
int paste_detach(struct pasteq *q, __u32 conn);
int paste_quota(struct pasteq *q, __u32 conn, __u32 quota);
int paste_accept(struct pasteq *q, int listenfd, __u32 quota);
int paste_listen(const struct sockaddr *addr, socklen_t len, int backlog, unsigned index,
		 unsigned n, int *fd);

/* NICs: paste_nic_open(3) */
int paste_nic_open(struct paste_nic *n, const char *ifname, const __u16 *ports, unsigned n_ports);
int paste_nic_bind(struct paste_nic *n, struct pasteq *q, __u32 rx_queue);
int paste_nic_unbind(struct paste_nic *n, struct pasteq *q);
void paste_nic_close(struct paste_nic *n);
const char *paste_nic_text(const struct paste_nic *n);

/* Statistics: paste_stats(3) */
int paste_stats(struct paste *p, __u32 id, bool next, struct paste_ioc_stats *s);
const char *paste_stat_name(unsigned i);
int paste_conn_info(struct paste *p, __u32 id, __u32 conn, bool next, struct paste_ioc_conn *c);

/* ------------------------------------------------------------------------- */
/* Chunks and addresses */

static inline void *paste_addr(const struct paste *p, __u32 chunk, __u32 off)
{
	return (char *)p->base + (size_t)chunk * p->chunk_size + off;
}

static inline __u32 paste_chunk(const struct paste *p, const void *addr)
{
	size_t byte = (size_t)((const char *)addr - (const char *)p->base);

	return (__u32)(byte >> __builtin_ctz(p->chunk_size));
}

/* ------------------------------------------------------------------------- */
/*
 * Rings. All indices run freely; the differences below are right when they
 * wrap. Orders:
 *
 *      application                           module
 *
 *   A  acquire theirs  (rx, comp)  pairs with  release of its producer index
 *   B  release ours    (rx, comp)  pairs with  acquire of our consumer index
 *   C  acquire theirs  (fill, tx)  pairs with  release of its consumer index
 *   D  release ours    (fill, tx)  pairs with  acquire of our producer index
 *
 * A: entries are read after the index that says they are there. B: they are not
 * read after they were given back. C: an entry is written after the module has
 * read what was in it. D: it is written before the module is told of it.
 */

/* How many entries of a ring that the module fills are there to take (A). */
static inline __u32 paste_ring_ready(const struct paste_ring *r)
{
	return __atomic_load_n(r->theirs, __ATOMIC_ACQUIRE) - r->next;
}

/* n entries are taken, the module may write there again (B). */
static inline void paste_ring_release(struct paste_ring *r, __u32 n)
{
	r->next += n;
	__atomic_store_n(r->ours, r->next, __ATOMIC_RELEASE);
}

/* Room in a ring that the application fills, as last seen or as it is now (C). */
static inline __u32 paste_ring_room(struct paste_ring *r, bool now)
{
	if (now)
		r->seen = __atomic_load_n(r->theirs, __ATOMIC_ACQUIRE);
	return r->mask + 1 - (r->next - r->seen);
}

/* The module may read everything before next (D). */
static inline void paste_ring_submit(struct paste_ring *r)
{
	__atomic_store_n(r->ours, r->next, __ATOMIC_RELEASE);
}

/* rx: number of entries to take. */
static inline __u32 paste_rx_peek(struct pasteq *q)
{
	return paste_ring_ready(&q->rx);
}

/* The i-th of them; valid until it is released. */
static inline const struct paste_rx *paste_rx_at(const struct pasteq *q, __u32 i)
{
	return (const struct paste_rx *)q->rx.desc + ((q->rx.next + i) & q->rx.mask);
}

/* The first n of them are taken. Their chunks stay held until filled. */
static inline void paste_rx_release(struct pasteq *q, __u32 n)
{
	paste_ring_release(&q->rx, n);
}

/* fill: number of chunks that can be given back before the next sync. */
static inline __u32 paste_fill_room(struct pasteq *q)
{
	return paste_ring_room(&q->fill, true);
}

/*
 * Give one hold of a chunk back; nothing happens with 0, which is in entries
 * that have no chunk. -ENOSPC: the ring is full, sync first.
 */
static inline int paste_fill(struct pasteq *q, __u32 chunk)
{
	struct paste_ring *r = &q->fill;

	if (!chunk)
		return 0;
	if (!paste_ring_room(r, false) && !paste_ring_room(r, true))
		return -ENOSPC;
	((__u32 *)r->desc)[r->next++ & r->mask] = chunk;
	paste_ring_submit(r);
	return 0;
}

/* tx: number of entries that can be reserved. */
static inline __u32 paste_tx_room(struct pasteq *q)
{
	return paste_ring_room(&q->tx, true);
}

/*
 * The next entry to write, NULL when the ring is full. It holds old bytes: set
 * every member. Several may be reserved before they are submitted together.
 */
static inline struct paste_tx *paste_tx_reserve(struct pasteq *q)
{
	struct paste_ring *r = &q->tx;

	if (!paste_ring_room(r, false) && !paste_ring_room(r, true))
		return NULL;
	return (struct paste_tx *)r->desc + (r->next++ & r->mask);
}

/* All reserved entries are written; the next sync sends them. */
static inline void paste_tx_submit(struct pasteq *q)
{
	paste_ring_submit(&q->tx);
}

/* Forget all entries that were reserved since the last submit. */
static inline void paste_tx_cancel(struct pasteq *q)
{
	q->tx.next = *q->tx.ours;
}

/* comp: number of completions to take. */
static inline __u32 paste_comp_peek(struct pasteq *q)
{
	return paste_ring_ready(&q->comp);
}

static inline const struct paste_comp *paste_comp_at(const struct pasteq *q, __u32 i)
{
	return (const struct paste_comp *)q->comp.desc + ((q->comp.next + i) & q->comp.mask);
}

static inline void paste_comp_release(struct pasteq *q, __u32 n)
{
	paste_ring_release(&q->comp, n);
}

/* Connections wait for room in the rings: sync after taking entries. */
static inline bool paste_need_sync(const struct pasteq *q)
{
	return __atomic_load_n(q->flags, __ATOMIC_RELAXED) & PASTE_Q_NEED_SYNC;
}

#ifdef __cplusplus
}
#endif

#endif /* PASTE_H */
