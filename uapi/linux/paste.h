/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR MIT */
/*
 * paste - packet buffers that belong to the application
 *
 * This header is the whole contract between the module and user space.
 *
 * Objects
 * =======
 *
 *   open("/dev/paste")
 *        |
 *     context ------- pool: n chunks of 4096 or 2048 bytes
 *        |              [ header | rx chunks ............. | tx chunks .... ]
 *        |                         \_ slice _/ \_ slice _/
 *        |                              |           |
 *        +-- PASTE_IOC_QUEUE -------> queue       queue       an fd each
 *                                       |           |
 *              PASTE_IOC_NIC_BIND  (NIC, RX queue)  |         at most one each
 *                                       |           |
 *              PASTE_IOC_ATTACH     connections  connections  TCP sockets
 *              PASTE_IOC_ACCEPT                               (from a listening one)
 *
 * A context is one open of the device. It owns one pool; it lives until its
 * own fd, the fds of its queues and all mappings of them are gone. A queue has
 * four rings, one slice of the pool's rx chunks and any number of connections.
 * A connection is a TCP socket of the caller, or one that the queue has accepted,
 * named by a u32 handle.
 *
 * All ioctls but PASTE_IOC_INFO, _STATS, _CONN, _SYNC and _QUOTA are set-up
 * calls. They work only in the address space that opened the context (EPERM
 * elsewhere, e.g. in the child after fork, which also has no mappings).
 *
 * Chunks
 * ======
 *
 * Chunk i is at byte i * chunk_size of the pool, for ever. Chunk 0 is the
 * pool's header (struct paste_pool_header), never received into, never sent.
 * Chunks [first_rx, first_rx + n_rx) are rx chunks: NICs and the module's copy
 * path write them. Chunks [first_tx, first_tx + n_tx) are tx chunks: only the
 * application writes them. With 2048-byte chunks the second half of the
 * header's page is unused, so that both parts start on a page.
 *
 * Each rx chunk has three counts:
 *
 *   app    how often the application holds it. 1 at the start. An rx entry
 *          adds one (a chunk with two pieces of stream in it is delivered
 *          twice), a fill entry takes one away.
 *   tx     sends from it that have not completed. A tx entry adds one, its
 *          completion takes it away.
 *   stack  packets in the kernel or the NIC that still refer to it. The
 *          application cannot see it and need not.
 *
 * The module writes to a chunk again only when all three are 0. So the life of
 * a chunk is:
 *
 *      app = 1  --fill-->  free  --lent to the NIC-->  packet in it
 *         ^                                                 |
 *         |                                         TCP puts it in order
 *         |                                                 |
 *         +------------- rx entry: app += 1 <---------------+
 *
 * All rx chunks start with app = 1: fill them, and the module may use them.
 * After a reboot on a persistent pool, fill those that no log names. What is
 * to be kept is kept by not filling it.
 *
 * rx chunks of a kernel-page pool are mapped read-only (a writable receive
 * buffer would be a way to forge packets); see PASTE_POOL_RX_WRITABLE. Those of
 * a pool in a file are writable: so is the file.
 *
 * Rings
 * =====
 *
 *   ring   producer     consumer     entry
 *   rx     module       application  struct paste_rx    data and ends of streams
 *   fill   application  module       __u32              chunks given back
 *   tx     application  module       struct paste_tx    data to send
 *   comp   module       application  struct paste_comp  sends that are over
 *
 * All are single-producer single-consumer with free-running __u32 indices
 * (entry i is at i & (entries - 1)); a producer stores its index with release
 * order after the entries, a consumer loads it with acquire order before them.
 * PASTE_IOC_QUEUE tells where everything is. What the module writes (rx and
 * comp with their producer indices, the consumer indices of fill and tx, the
 * flags word) is in one mapping, which is read-only; what the application
 * writes is in the other. An index that the application moves too far
 * (consumed more than there was, more entries than the ring has) kills the
 * queue: EIO from then on, and nothing else is harmed.
 *
 * One thread at a time may use a queue.
 *
 * Errors
 * ======
 *
 * The same meaning everywhere:
 *
 *   ENOTTY      no such ioctl on this fd
 *   EFAULT      a pointer is bad
 *   E2BIG       the struct is longer than this module knows, and its unknown
 *               tail is not zero
 *   EINVAL      a size that is too short, a reserved field that is not zero, a
 *               value out of range, a socket that does not listen; in a
 *               completion: chunk, offset or length
 *   EOPNOTSUPP  a flag or a kind of object that this module or this device
 *               does not support
 *   EPERM       a capability is missing, or not the context's address space;
 *               in a completion: a chunk that the application does not hold
 *   EACCES      a mapping with more rights than are given, a pool's file that is
 *               not open for reading and writing
 *   ENOENT      no such connection, queue or id
 *   EXDEV       a connection of another queue
 *   EBADF       not an open file descriptor
 *   ENOTSOCK, EPROTONOSUPPORT  not a socket, not a TCP socket
 *   ENOTCONN    a TCP socket that is not connected
 *   EEXIST      the context has a pool already, the socket is attached already
 *               or belongs to somebody else (kTLS, sockmap, MPTCP, ...)
 *   EBUSY       another thread is in PASTE_IOC_SYNC of this queue, the NIC
 *               queue or this queue is bound already, the queue accepts from a
 *               socket already, the NIC's settings do not allow it, another
 *               context or swapon(8) has the pool's file
 *   EBADMSG     the pool's file has something else in it than a pool that this
 *               module can use: a foreign or damaged header, another version,
 *               a length that the file does not have
 *   ENODEV      no such NIC, or no such RX queue on it
 *   ENXIO       a queue is wanted before there is a pool, there is no binding
 *               to undo, the queue accepts from no socket, or the device of the
 *               pool's file is going away
 *   ENOSPC      too many queues or connections, no chunks left for a slice
 *   ENOMEM      no memory, or RLIMIT_MEMLOCK
 *   EINTR       a signal came while waiting
 *   EIO         the queue is dead (ring corruption)
 *   ECANCELED   in a completion: an earlier send failed, or the connection was
 *               detached or closed, before this one was sent
 *   EPIPE, ECONNRESET, ETIMEDOUT, ...  in a completion or an rx entry: TCP's
 *
 * A failed call changes nothing. Set-up calls also write a sentence that says
 * which field is wrong and why to the buffer named by the member text.
 *
 * Growing
 * =======
 *
 * Every struct starts with its size, as the caller knows it; members are only
 * appended and zero means what was before. The module reads and writes at most
 * that many bytes. Bytes that it does not know must be zero (E2BIG). ioctl
 * numbers do not contain the size and never change.
 */
#ifndef _UAPI_LINUX_PASTE_H
#define _UAPI_LINUX_PASTE_H

#include <linux/types.h>
#include <linux/ioctl.h>

/* Bytes that the buffer behind a struct's member text must have. */
#define PASTE_TEXT_MAX		128

/* ------------------------------------------------------------------------- */

/* Features, in struct paste_ioc_info. Test these, not the version. */
#define PASTE_FEAT_PLAIN	(1ULL << 0)	/* connections without a NIC binding */
#define PASTE_FEAT_HOOKED	(1ULL << 1)	/* NIC bindings with zero copy */
#define PASTE_FEAT_DEVDAX	(1ULL << 2)	/* pools on device-dax */
#define PASTE_FEAT_FSDAX	(1ULL << 3)	/* pools in files on FS-DAX: not from 6.15 on, nor without CONFIG_SWAP */

/* Objects that the module counts, for made[] and gone[] of struct paste_ioc_info. */
#define PASTE_OBJ_CONTEXT	0
#define PASTE_OBJ_POOL_PAGE	1	/* pages in pools */
#define PASTE_OBJ_QUEUE		2
#define PASTE_OBJ_NIC		3	/* NIC bindings */
#define PASTE_OBJ_NIC_PAGE	4	/* pages pinned for a NIC's DMA */
#define PASTE_OBJ_CONN		5	/* attached connections */
#define PASTE_OBJ_SEND		6	/* sends from acceptance to completion */
#define PASTE_OBJ_FLOW		7	/* entries of the table of attached flows */
#define PASTE_OBJ_MAX		8

/*
 * PASTE_IOC_INFO, on a context's fd: what this module is and can do. made[] and
 * gone[] count objects of all contexts since the module was loaded; made equals
 * gone when nobody uses it.
 */
struct paste_ioc_info {
	__u32 size;		/* (in) sizeof(struct paste_ioc_info) */
	__u32 flags;		/* (in) 0 */
	__u64 features;		/* (out) PASTE_FEAT_* */
	__u32 max_chunks;	/* (out) chunks in a pool */
	__u32 max_queues;	/* (out) queues of a context */
	__u32 max_conns;	/* (out) connections of a context */
	__u32 max_entries;	/* (out) entries of a ring */
	__u32 tx_copy_max;	/* (out) sends of at most so many bytes are copied, not referred to */
	__u32 resv;		/* (in) 0 */
	__u8  version[32];	/* (out) for people, zero-terminated */
	__u64 made[PASTE_OBJ_MAX];	/* (out) objects created, by PASTE_OBJ_* */
	__u64 gone[PASTE_OBJ_MAX];	/* (out) objects destroyed */
};

#define PASTE_INFO_SIZE_VER0	200

/* ------------------------------------------------------------------------- */

/*
 * Map rx chunks of a kernel-page pool writable. Needs CAP_NET_ADMIN: whoever
 * can write to the receive buffers of a NIC queue can change packets of others
 * on that queue before the kernel reads them.
 */
#define PASTE_POOL_RX_WRITABLE	(1U << 0)

/* Where a pool's memory is. */
#define PASTE_POOL_KERNEL	0	/* kernel pages */
#define PASTE_POOL_FSDAX	1	/* a file on a file system mounted with -o dax: ext4, xfs */
#define PASTE_POOL_DEVDAX	2	/* a device-dax, /dev/daxX.Y */

/*
 * PASTE_IOC_POOL, on a context's fd, once: make the pool.
 *
 * With fd = -1 the memory is the kernel's: zeroed, charged to the caller's
 * memory cgroup. Otherwise it is persistent memory (PM), see below. In any case
 * it is charged to RLIMIT_MEMLOCK, and the NIC's part of it once more.
 *
 * mmap(2) of the context's fd at PASTE_MMAP_POOL shows it, whatever it is:
 * MAP_SHARED only, not inherited by fork, PROT_WRITE for tx chunks only unless
 * PASTE_POOL_RX_WRITABLE or PM. Map everything with PROT_READ and then the
 * writable part once more with MAP_FIXED, or the two parts apart.
 */
struct paste_ioc_pool {
	__u32 size;		/* (in) sizeof(struct paste_ioc_pool) */
	__u32 flags;		/* (in) PASTE_POOL_RX_WRITABLE; 0 with a file */
	__aligned_u64 text;	/* (in) 0 or the address of PASTE_TEXT_MAX bytes */
	__s32 fd;		/* (in) -1: kernel pages; or the file */
	__u32 chunk_size;	/* (in) 4096 or 2048; 0: 4096, or what the file says. (out) the size */
	__u32 n_rx;		/* (in) rx chunks, at least 64, whole pages; 0: what the file says. (out) */
	__u32 n_tx;		/* (in) tx chunks, whole pages; may be 0. (out) */
	__u32 first_rx;		/* (out) first rx chunk */
	__u32 first_tx;		/* (out) first tx chunk */
	__u64 bytes;		/* (out) length of the whole pool */
	__aligned_u64 addr;	/* (in) where the caller has mapped the file; 0 without one */
	__u32 kind;		/* (out) PASTE_POOL_KERNEL, _FSDAX or _DEVDAX */
	__u32 existed;		/* (out) 1: the file had a pool in it already */
};

#define PASTE_POOL_SIZE_VER0	48	/* up to bytes: kernel pages only */
#define PASTE_POOL_SIZE_VER1	64

/* Offset for mmap(2) of a context's fd. */
#define PASTE_MMAP_POOL		0

/*
 * Pools on persistent memory
 * ==========================
 *
 * The fd is open for reading and writing, and the caller has mapped the file
 * from its start, at least as far as the pool goes, at addr: one mapping,
 * MAP_SHARED_VALIDATE | MAP_SYNC, PROT_READ | PROT_WRITE. The pool is seen
 * through the context like any other, but keep this mapping until the context
 * is closed (libpaste does): a fallocate(2) of another task that was past its
 * checks when the call came, and only waited for the inode, is stopped by the
 * pages' being in use, and file systems look at that only while the file is
 * mapped. Without it such a race frees blocks that are received into.
 * What can be such a file:
 *
 *   FS-DAX      a regular file on ext4 or xfs, mounted with -o dax. Kernels from
 *               6.15 on cannot, nor those without CONFIG_SWAP, whose mark for
 *               swap files it needs (EOPNOTSUPP): take device-dax there. Needs
 *               CAP_SYS_ADMIN, or the module's parameter fsdax_by_users, as it
 *               makes the file one that nobody else can change, see below, and
 *               as who unmaps it too early can harm the whole file system.
 *   device-dax  with 4 KiB alignment:
 *               ndctl create-namespace -m devdax --align=4k
 *               (2 MiB, the default, is refused: its pages have one count for
 *               512). Whoever may open it may use it.
 *
 * Everything else is refused (EOPNOTSUPP): page cache, tmpfs, memfd and
 * hugetlbfs can take pages away, move them or count them together.
 *
 * Chunk 0 says what is in the file (struct paste_pool_header). If the first 4096
 * bytes are all zero it is a new pool, for which n_rx must be given: the header
 * is written and made durable. If it has a pool, n_rx = 0 takes n_rx, n_tx and
 * chunk_size from the header; numbers that are given must be the header's
 * (EINVAL). Anything else is refused with EBADMSG; what is refused is never
 * written to. What a new pool's chunks contain is what the file contained.
 *
 * While a context has the file, nobody else can: another context gets EBUSY.
 * Nothing may free or move its blocks: truncate(2) to less, fallocate(2),
 * reflink, unlink(2), rename(2), defragmentation, write(2) and new writable
 * mappings fail (ETXTBSY, EPERM; the file is marked as a swap file). read(2) and mappings that
 * were there before work. When the last close(2) of the context has returned
 * (or the process is dead) it is an ordinary file, and its file system can be
 * unmounted. What sockets of the context had received but not delivered was
 * then copied elsewhere. Only if somebody else still holds packets - a bound
 * AF_XDP socket's fd that is kept open, a pipe that they were spliced into - the
 * close waits for a second, and then the file stays as it is until that is over.
 *
 * Durable is what the application makes durable: the NIC's writes may be in the
 * CPU's caches, and fsync(2) does not know of them. Flush the bytes of each rx
 * entry that matter, PASTE_RX_COPIED or not, then drain: pmem_flush() and
 * pmem_drain() of libpmem work on the pool's mapping. (The module copies with
 * stores that do not stay in the caches, which makes that flush cheap; it
 * promises nothing.) Blocks and length of the file need no fsync(2): with
 * MAP_SYNC they are durable before the call returns.
 */

/* The first bytes of chunk 0; the rest of its 4096 bytes is zero. */
struct paste_pool_header {
	__u8  magic[8];		/* PASTE_POOL_MAGIC, no terminating zero */
	__u32 version;		/* PASTE_POOL_VERSION */
	__u32 chunk_size;	/* bytes */
	__u32 n_rx;
	__u32 n_tx;
	__u32 first_rx;
	__u32 first_tx;
	__u64 bytes;		/* length of the whole pool */
};

#define PASTE_POOL_MAGIC	"PASTEPL1"
#define PASTE_POOL_VERSION	1

/* ------------------------------------------------------------------------- */

/* Where a ring is. Which mapping an offset counts in is said below. */
struct paste_ring_offsets {
	__u32 prod;		/* producer index */
	__u32 cons;		/* consumer index */
	__u32 desc;		/* entry 0 */
	__u32 entries;		/* number of entries, a power of two */
};

/*
 * PASTE_IOC_QUEUE, on a context's fd: make a queue. The result is an fd of its
 * own (close-on-exec) that knows PASTE_IOC_SYNC, _ATTACH, _DETACH, _QUOTA,
 * _ACCEPT, _NIC_BIND, _NIC_UNBIND, poll(2) and mmap(2).
 *
 * poll(2) says EPOLLIN when there is an rx or comp entry to take or when
 * PASTE_IOC_SYNC has something to do, EPOLLERR when the queue is dead.
 *
 * mmap(2): kern_len bytes at PASTE_MMAP_KERN, PROT_READ; user_len bytes at
 * PASTE_MMAP_USER, PROT_READ | PROT_WRITE; both MAP_SHARED. Offsets of rx.prod,
 * rx.desc, comp.prod, comp.desc, fill.cons, tx.cons and flags_off count in the
 * first, those of rx.cons, comp.cons, fill.prod, fill.desc, tx.prod and tx.desc
 * in the second.
 *
 * A closed queue detaches its connections (they are ordinary sockets again; those
 * that it has accepted are closed) and gives back its NIC queue. Its chunks stay
 * readable until the context closes; they are not used again before.
 */
struct paste_ioc_queue {
	__u32 size;		/* (in) sizeof(struct paste_ioc_queue) */
	__u32 flags;		/* (in) 0 */
	__aligned_u64 text;	/* (in) 0 or the address of PASTE_TEXT_MAX bytes */
	__u32 rx_entries;	/* (in) power of two, 64 to max_entries; 0: 4096 */
	__u32 fill_entries;	/* (in) the same; 0: 4096 */
	__u32 tx_entries;	/* (in) the same; 0: 1024 */
	__u32 comp_entries;	/* (in) the same; 0: 2048. Also the most sends under way */
	__u32 rx_chunks;	/* (in) size of the slice, whole pages, at least 64; 0: all that are left. (out) */
	__u32 first_chunk;	/* (out) the slice's first chunk */
	__s32 fd;		/* (out) the queue's fd */
	__u32 id;		/* (out) its number, for PASTE_IOC_STATS */
	__u32 kern_len;		/* (out) length of the module's mapping */
	__u32 user_len;		/* (out) length of the application's mapping */
	__u32 flags_off;	/* (out) offset of the flags word, see PASTE_Q_* */
	__u32 resv;		/* (in) 0 */
	struct paste_ring_offsets rx;	/* (out) entries are struct paste_rx */
	struct paste_ring_offsets fill;	/* (out) entries are __u32 */
	struct paste_ring_offsets tx;	/* (out) entries are struct paste_tx */
	struct paste_ring_offsets comp;	/* (out) entries are struct paste_comp */
};

#define PASTE_QUEUE_SIZE_VER0	128

/* Offsets for mmap(2) of a queue's fd. */
#define PASTE_MMAP_KERN		0
#define PASTE_MMAP_USER		0x40000000

/* In the flags word, written by the module: */
#define PASTE_Q_NEED_SYNC	(1U << 0)	/* connections wait for room: call PASTE_IOC_SYNC after taking entries */
#define PASTE_Q_DEAD		(1U << 1)	/* ring corruption: everything fails with EIO */

/*
 * An rx entry: a piece of a connection's stream, in order, or its end.
 *
 * Exactly one entry with PASTE_RX_FIN (the peer has sent everything, len is 0;
 * sending goes on) or PASTE_RX_ERR (the connection is broken, err says why) ends
 * a connection's entries. There is none when the application itself closed or
 * detached the connection. End entries have no chunk (chunk and off are 0):
 * nothing is to be filled. Neither have those with PASTE_RX_NEW.
 */
struct paste_rx {
	__u32 conn;		/* the connection's handle */
	__u32 chunk;		/* the chunk; now held once more */
	__u16 off;		/* first byte in the chunk */
	__u16 len;		/* bytes, 1 to chunk_size; 0 at an end or with PASTE_RX_NEW */
	__u16 flags;		/* PASTE_RX_* */
	__u16 err;		/* a positive errno with PASTE_RX_ERR, else 0 */
};

#define PASTE_RX_COPIED		(1U << 0)	/* the module copied it here; the statistics say why */
#define PASTE_RX_FIN		(1U << 1)
#define PASTE_RX_ERR		(1U << 2)
#define PASTE_RX_NEW		(1U << 3)	/* the connection has been accepted, see PASTE_IOC_ACCEPT */

/*
 * A tx entry: send len bytes of a chunk that the application holds, or of a tx
 * chunk. The bytes must not change before the completion. Sends of a connection
 * go out in ring order; what does not fit into the socket's buffer now goes on
 * by itself later. After an error later sends of the connection complete with
 * ECANCELED.
 */
struct paste_tx {
	__u32 conn;		/* the connection's handle */
	__u32 chunk;		/* 0 when len is 0 */
	__u16 off;		/* first byte in the chunk */
	__u16 len;		/* bytes; may be 0 with PASTE_TX_SHUT_WR or _CLOSE */
	__u32 flags;		/* PASTE_TX_* */
	__u64 cookie;		/* comes back in the completion */
};

#define PASTE_TX_MORE		(1U << 0)	/* more follows at once: as MSG_MORE of send(2) */
#define PASTE_TX_SHUT_WR	(1U << 1)	/* after this, FIN: as shutdown(SHUT_WR) */
#define PASTE_TX_CLOSE		(1U << 2)	/* after this, FIN; then detached, see below */

/*
 * A send with PASTE_TX_CLOSE that was accepted ends the connection whatever its
 * result: when its completion comes, the handle is gone and the socket is an
 * ordinary one that has sent FIN (if it could); close(2) it at leisure. Only if
 * the entry itself was refused (EINVAL, EPERM, ENOENT, EXDEV, EOPNOTSUPP,
 * ENOSPC) nothing has happened.
 */

/*
 * A comp entry: neither TCP nor a NIC refers to the bytes of this send any
 * more (or the bytes were copied, as at most tx_copy_max are). Completions are
 * moved into the ring by PASTE_IOC_SYNC and poll(2).
 */
struct paste_comp {
	__u64 cookie;		/* of the tx entry */
	__u32 conn;		/* of the tx entry */
	__s32 result;		/* bytes sent, or a negative errno */
};

/* ------------------------------------------------------------------------- */

/*
 * PASTE_IOC_NIC_BIND, on a queue's fd: lend the slice's chunks to one RX queue
 * of a NIC whose driver has AF_XDP zero copy. Without zero copy: EOPNOTSUPP
 * (there is no copying mode; unbound queues work with every NIC).
 *
 * Needs CAP_NET_ADMIN and CAP_NET_RAW in the initial user namespace: the owner
 * sees every frame of that RX queue. Refused with EBUSY while rx-vlan-offload
 * or LRO is on or the MTU is too large for the chunk.
 *
 * The result is the fd of the AF_XDP socket, to be put into the XSKMAP of an
 * XDP program that redirects only TCP segments to the named ports, and then
 * closed. Frames for other ports that are redirected are dropped (counted).
 * Connections of this queue whose packets come another way go on, copied.
 */
struct paste_ioc_nic_bind {
	__u32 size;		/* (in) sizeof(struct paste_ioc_nic_bind) */
	__u32 flags;		/* (in) 0 */
	__aligned_u64 text;	/* (in) 0 or the address of PASTE_TEXT_MAX bytes */
	__u32 ifindex;		/* (in) the NIC, in the caller's network namespace */
	__u32 nic_queue;	/* (in) its RX queue */
	__aligned_u64 ports;	/* (in) address of n_ports local TCP ports, __u16, host order */
	__u32 n_ports;		/* (in) 1 to PASTE_PORTS_MAX */
	__u32 entries;		/* (in) most chunks that the NIC has at once: power of two, 32 to half of the slice, at most 4096; 0: the largest. (out) */
	__s32 xsk_fd;		/* (out) the AF_XDP socket */
	__u32 resv;		/* (in) 0 */
};

#define PASTE_NIC_BIND_SIZE_VER0	48
#define PASTE_PORTS_MAX		64

/* PASTE_IOC_NIC_UNBIND, on a queue's fd: give the RX queue back. */
struct paste_ioc_nic_unbind {
	__u32 size;		/* (in) sizeof(struct paste_ioc_nic_unbind) */
	__u32 flags;		/* (in) 0 */
};

#define PASTE_NIC_UNBIND_SIZE_VER0 8

/* ------------------------------------------------------------------------- */

/*
 * PASTE_IOC_ATTACH, on a queue's fd: from now on this TCP connection's stream
 * comes as rx entries. The socket must be connected (ESTABLISHED, CLOSE_WAIT, or
 * accepted early by TCP_FASTOPEN). Data that it had received before is delivered
 * by copy. The socket stays the caller's: options, getpeername, shutdown work,
 * close(2) closes the connection. read(2) on it would steal bytes from the stream.
 */
struct paste_ioc_attach {
	__u32 size;		/* (in) sizeof(struct paste_ioc_attach) */
	__u32 flags;		/* (in) 0 */
	__aligned_u64 text;	/* (in) 0 or the address of PASTE_TEXT_MAX bytes */
	__s32 fd;		/* (in) the socket */
	__u32 quota;		/* (in) most rx entries of it between two syncs; 0: a quarter of the ring */
	__u32 conn;		/* (out) the handle, never 0 */
	__u32 resv;		/* (in) 0 */
};

#define PASTE_ATTACH_SIZE_VER0	32

/* Handles of a context's live connections differ in this part; it is below max_conns. */
#define PASTE_CONN_INDEX(conn)	((conn) & 0xffffU)

/*
 * PASTE_IOC_DETACH, on the queue's fd: make it an ordinary socket again. What
 * is in the rx ring stays valid, what is still in the socket is for read(2).
 * Sends not yet handed to TCP complete with ECANCELED.
 */
struct paste_ioc_detach {
	__u32 size;		/* (in) sizeof(struct paste_ioc_detach) */
	__u32 flags;		/* (in) 0 */
	__u32 conn;		/* (in) the handle; invalid afterwards */
	__u32 resv;		/* (in) 0 */
};

#define PASTE_DETACH_SIZE_VER0	16

/*
 * PASTE_IOC_QUOTA, on the queue's fd: change a connection's quota. With 0 no rx
 * entries of it come, not even its end, until the next call: its data waits in
 * the socket, TCP's window closes, and the peer has to wait. So an application
 * that holds many chunks of one connection (its answers are not taken, say)
 * keeps it from using up the slice for the others. Entries that are in the rx
 * ring already stay there; sending goes on.
 */
struct paste_ioc_quota {
	__u32 size;		/* (in) sizeof(struct paste_ioc_quota) */
	__u32 flags;		/* (in) 0 */
	__u32 conn;		/* (in) the handle */
	__u32 quota;		/* (in) most rx entries of it between two syncs, at most the ring's; 0: none */
};

#define PASTE_QUOTA_SIZE_VER0	16

/*
 * PASTE_IOC_ACCEPT, on the queue's fd: from now on the queue takes this
 * listening socket's connections. PASTE_IOC_SYNC accepts them and attaches each
 * as PASTE_IOC_ATTACH would; poll(2) and a waiting PASTE_IOC_SYNC are told of
 * them. The first entry of such a connection has PASTE_RX_NEW. It has no fd: it
 * is closed when a send with PASTE_TX_CLOSE has been handed to TCP, when it is
 * detached and when the queue closes, as by close(2) at that moment. What it is
 * PASTE_IOC_CONN tells.
 *
 * A queue accepts for one socket, which stays open until it no longer does: with
 * fd -1, or when it closes. Others may accept from the same socket.
 */
struct paste_ioc_accept {
	__u32 size;		/* (in) sizeof(struct paste_ioc_accept) */
	__u32 flags;		/* (in) 0 */
	__aligned_u64 text;	/* (in) 0 or the address of PASTE_TEXT_MAX bytes */
	__s32 fd;		/* (in) the listening socket; -1: accept no more */
	__u32 quota;		/* (in) of each connection, as in struct paste_ioc_attach */
};

#define PASTE_ACCEPT_SIZE_VER0	24

/* ------------------------------------------------------------------------- */

/*
 * PASTE_IOC_SYNC, on a queue's fd: do a batch. Takes what is in fill and tx,
 * lets connections go on that waited for room, moves completions to comp.
 * Then, while there is no rx and no comp entry to take: polls the NIC for at
 * most busy_us microseconds, after that sleeps for at most wait_us.
 *
 * fill is taken before tx: a chunk that is filled for the last time and sent in
 * the same batch is not held any more when it is to be sent (EPERM). Fill it in
 * a later batch.
 *
 * Bad fill entries (not of this slice, or not held) are counted and change
 * nothing. Bad tx entries complete with an error. When comp has no room, tx
 * entries stay in their ring.
 */
struct paste_ioc_sync {
	__u32 size;		/* (in) sizeof(struct paste_ioc_sync) */
	__u32 flags;		/* (in) 0 */
	__u32 busy_us;		/* (in) microseconds; 0: do not poll */
	__u32 wait_us;		/* (in) microseconds; 0: do not sleep, PASTE_FOREVER: no limit */
	__u32 n_rx;		/* (out) rx entries to take */
	__u32 n_comp;		/* (out) comp entries to take */
};

#define PASTE_SYNC_SIZE_VER0	24
#define PASTE_FOREVER		0xffffffffU

/* ------------------------------------------------------------------------- */

/*
 * Statistics of a queue, counted since it was made. "Frames" are what the NIC
 * delivered, "entries" are rx entries.
 */
/* from the NIC's ring into the stack (bound queues) */
#define PASTE_STAT_RX_FRAMES		0	/* frames taken from the AF_XDP ring */
#define PASTE_STAT_RX_BYREF		1	/* of these: into the stack with their payload by reference */
#define PASTE_STAT_RX_BARE		2	/* without payload */
#define PASTE_STAT_RX_UNATTACHED	3	/* payload copied out: flow not attached to this queue */
#define PASTE_STAT_RX_LOWWATER		4	/* payload copied out: few chunks left */
#define PASTE_STAT_RX_DROP_HEADER	5	/* dropped: not a plain IPv4/IPv6 TCP segment */
#define PASTE_STAT_RX_DROP_PORT		6	/* dropped: a port that was not named */
#define PASTE_STAT_RX_DROP_DESC		7	/* dropped: descriptor names no lent chunk */
#define PASTE_STAT_RX_DROP_NOMEM	8	/* dropped: no memory for a packet, or for the copy of its payload */
#define PASTE_STAT_RX_DROP_OFFLOAD	9	/* dropped: rx-vlan-offload or LRO was switched on */
/* chunks to the NIC */
#define PASTE_STAT_NIC_LENT		10	/* chunks lent */
#define PASTE_STAT_NIC_SHORT		11	/* times that there was no free chunk to lend */
#define PASTE_STAT_NIC_WAKEUPS		12	/* times that the driver had to be told of new chunks */
#define PASTE_STAT_NIC_WATCHDOG		13	/* times that the watchdog looked after a short NIC */
#define PASTE_STAT_NIC_POLLS		14	/* runs of the module's NAPI */
/* from the sockets into the rx ring */
#define PASTE_STAT_REF_ENTRIES		15	/* delivered by reference */
#define PASTE_STAT_REF_BYTES		16
#define PASTE_STAT_COPY_ENTRIES		17	/* delivered by copy, for any reason */
#define PASTE_STAT_COPY_BYTES		18
#define PASTE_STAT_COPY_PREATTACH	19	/* entries, reason: received before the attach was known to the NIC path */
#define PASTE_STAT_COPY_PLAIN		20	/* entries, reason: queue not bound to a NIC */
#define PASTE_STAT_COPY_LOWWATER	21	/* entries, reason: few chunks left when it was received */
#define PASTE_STAT_COPY_CROSS		22	/* entries, reason: in a chunk of another queue or context */
#define PASTE_STAT_COPY_LINEAR		23	/* entries, reason: in a packet's head: copied by TCP (memory pressure), or small and past the bound NIC queue */
#define PASTE_STAT_COPY_FOREIGN		24	/* entries, reason: came past the bound NIC queue */
#define PASTE_STAT_FINS			25	/* end entries: FIN */
#define PASTE_STAT_ERRORS		26	/* end entries: error */
#define PASTE_STAT_URGENT		27	/* urgent bytes left out of the stream, as read(2) does */
#define PASTE_STAT_STALL_RING		28	/* a connection had to wait: rx ring full */
#define PASTE_STAT_STALL_QUOTA		29	/* its quota used up */
#define PASTE_STAT_STALL_CHUNK		30	/* no free chunk for a copy */
#define PASTE_STAT_RESUMES		31	/* waiting connections taken up again */
/* fill, tx, comp */
#define PASTE_STAT_FILLS		32	/* fill entries taken */
#define PASTE_STAT_FILL_BAD		33	/* fill entries not of this slice or not held */
#define PASTE_STAT_SENDS		34	/* tx entries accepted */
#define PASTE_STAT_SEND_BYTES		35	/* bytes of completed sends */
#define PASTE_STAT_SEND_COPIED		36	/* sends copied (at most tx_copy_max bytes) */
#define PASTE_STAT_SEND_BAD		37	/* tx entries refused */
#define PASTE_STAT_SEND_AGAIN		38	/* times a connection's sends had to wait for buffer space */
#define PASTE_STAT_SEND_ERRORS		39	/* sends that ended with an error of TCP */
#define PASTE_STAT_COMPS		40	/* comp entries written */
#define PASTE_STAT_STALL_COMP		41	/* times tx entries stayed in their ring: no room in comp */
/* system calls */
#define PASTE_STAT_SYNCS		42	/* PASTE_IOC_SYNC */
#define PASTE_STAT_SYNC_BUSY		43	/* of these: polled the NIC */
#define PASTE_STAT_SYNC_SLEPT		44	/* of these: slept */
#define PASTE_STAT_BATCHES		45	/* of these: ended with rx entries to take */
#define PASTE_STAT_BATCH_ENTRIES	46	/* the sum of these entries */
#define PASTE_STAT_DOORBELLS		47	/* batches of sends released to the NIC at once */
#define PASTE_STAT_DOORBELLS_LATE	48	/* of these: released by a timer, since the task slept for 5 ms */
#define PASTE_STAT_ACCEPTS		49	/* connections accepted, see PASTE_IOC_ACCEPT */
#define PASTE_STAT_ACCEPT_LOST		50	/* not attached, and closed: the peer had broken it off, no handle or no memory */
#define PASTE_STAT_ACCEPT_AGAIN		51	/* times that connections had to wait with the listening socket: rx ring full, or no memory */
#define PASTE_STAT_N			52

/* With this flag, id may be the number of no queue: the next larger one is taken. */
#define PASTE_STATS_NEXT	(1U << 0)

/*
 * PASTE_IOC_STATS, on any context's fd: statistics of a queue. Queues of other
 * contexts need CAP_NET_ADMIN (without it they do not exist: ENOENT).
 */
struct paste_ioc_stats {
	__u32 size;		/* (in) sizeof(struct paste_ioc_stats) */
	__u32 flags;		/* (in) PASTE_STATS_* */
	__u32 id;		/* (in) the queue's number; (out) the one found */
	__u32 pid;		/* (out) process that opened the context, in the caller's pid namespace or 0 */
	__u32 ifindex;		/* (out) bound NIC or 0 */
	__u32 nic_queue;	/* (out) its RX queue */
	__u32 conns;		/* (out) connections now */
	__u32 sends;		/* (out) sends under way now */
	__u32 chunk_size;	/* (out) bytes */
	__u32 chunks;		/* (out) size of the slice */
	__u32 first_chunk;	/* (out) its first chunk */
	__u32 chunks_free;	/* (out) chunks neither held nor lent now: free, in the stack, or being sent */
	__u32 chunks_lent;	/* (out) chunks with the NIC now */
	__u32 stalled;		/* (out) connections that wait for room now */
	__u32 chunks_held;	/* (out) chunks with the application now */
	__u32 resv;		/* (in) 0 */
	__u64 v[PASTE_STAT_N];	/* (out) counters by PASTE_STAT_* */
};

#define PASTE_STATS_SIZE_VER0	448	/* up to PASTE_STAT_DOORBELLS */
#define PASTE_STATS_SIZE_VER1	456	/* up to PASTE_STAT_DOORBELLS_LATE */
#define PASTE_STATS_SIZE_VER2	480

/* With this flag, conn is 0 or a handle, maybe an old one: the next connection is taken. */
#define PASTE_CONN_NEXT		(1U << 0)

/*
 * PASTE_IOC_CONN, on any context's fd: a connection of a queue. Queues of other
 * contexts need CAP_NET_ADMIN here, too. With PASTE_CONN_NEXT and what the call
 * before found (0 at first) all of them come, each once, and then ENOENT; those
 * that are attached or go meanwhile may be missed.
 *
 * The bytes are counted since the attach. With quota 0 what there is to receive
 * waits for the application, else waits says for what.
 */
struct paste_ioc_conn {
	__u32 size;		/* (in) sizeof(struct paste_ioc_conn) */
	__u32 flags;		/* (in) PASTE_CONN_* */
	__u32 id;		/* (in) the queue's number */
	__u32 conn;		/* (in) the handle; (out) the one found */
	__u8  local[16];	/* (out) IPv6 address, or IPv4 as v4-mapped (::ffff:a.b.c.d) */
	__u8  peer[16];		/* (out) the same of the other end */
	__u16 local_port;	/* (out) host order */
	__u16 peer_port;	/* (out) host order */
	__u32 waits;		/* (out) PASTE_STAT_STALL_RING, _QUOTA or _CHUNK while data waits for that; 0: none does */
	__u64 inode;		/* (out) of the socket, as in /proc/PID/fd and ss -e; 0 when its last fd is closed */
	__u64 netns;		/* (out) the socket's network namespace, as SO_NETNS_COOKIE names it */
	__u64 rx_bytes;		/* (out) bytes in rx entries */
	__u64 tx_bytes;		/* (out) bytes of completed sends */
	__u32 quota;		/* (out) most rx entries between two syncs */
	__u32 used;		/* (out) rx entries since the last one */
	__u32 sends;		/* (out) sends under way now; one too many while the module works on the connection */
	__u32 resv;		/* (in) 0 */
};

#define PASTE_CONN_SIZE_VER0	104

/* ------------------------------------------------------------------------- */

#define PASTE_IOC_TYPE		'p'

#define PASTE_IOC_INFO		_IO(PASTE_IOC_TYPE, 0xe0)	/* struct paste_ioc_info */
#define PASTE_IOC_POOL		_IO(PASTE_IOC_TYPE, 0xe1)	/* struct paste_ioc_pool */
#define PASTE_IOC_QUEUE		_IO(PASTE_IOC_TYPE, 0xe2)	/* struct paste_ioc_queue */
#define PASTE_IOC_STATS		_IO(PASTE_IOC_TYPE, 0xe3)	/* struct paste_ioc_stats */
#define PASTE_IOC_NIC_BIND	_IO(PASTE_IOC_TYPE, 0xe4)	/* struct paste_ioc_nic_bind */
#define PASTE_IOC_NIC_UNBIND	_IO(PASTE_IOC_TYPE, 0xe5)	/* struct paste_ioc_nic_unbind */
#define PASTE_IOC_ATTACH	_IO(PASTE_IOC_TYPE, 0xe6)	/* struct paste_ioc_attach */
#define PASTE_IOC_DETACH	_IO(PASTE_IOC_TYPE, 0xe7)	/* struct paste_ioc_detach */
#define PASTE_IOC_SYNC		_IO(PASTE_IOC_TYPE, 0xe8)	/* struct paste_ioc_sync */
#define PASTE_IOC_QUOTA		_IO(PASTE_IOC_TYPE, 0xe9)	/* struct paste_ioc_quota */
#define PASTE_IOC_CONN		_IO(PASTE_IOC_TYPE, 0xea)	/* struct paste_ioc_conn */
#define PASTE_IOC_ACCEPT	_IO(PASTE_IOC_TYPE, 0xeb)	/* struct paste_ioc_accept */

#endif /* _UAPI_LINUX_PASTE_H */
