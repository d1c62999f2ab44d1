// SPDX-License-Identifier: GPL-2.0
/*
 * fuzz [-s SEED] [-n OPS] [-t SECONDS]: what a hostile program could do.
 *
 * In each round some processes with some threads each do random but meaningful
 * things to files, rings, mappings and sockets that all threads of the process
 * share, and then exit, kill themselves or exec. Beside them a well-behaved
 * process must always get the right data. In the end the module must have no
 * object left, and the kernel must have nothing to say.
 *
 * What each thread does follows from the seed alone (when, does not): round r
 * of seed s is round 0 of seed s + r.
 *
 * Mappings lie in an arena with a place for each, so that no thread ever unmaps
 * or writes what is not for it. Memory there may be gone at any moment: it is
 * touched in guard() only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/bpf.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "util.h"

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define WORKERS	 3
#define THREADS	 3
#define OPS	 300		/* of a thread in a round */
#define PATIENCE (60000 * slow) /* milliseconds for a round to end */
#define PLACE	 (1 << 20)	/* bytes of a place in the arena */

enum {
	N_CTX = 3,
	N_QUEUE = 5,
	N_SOCK = 10,
	N_MISC = 6,
	N_CONN = 10,
	N_PLACE = N_CTX + 2 * N_QUEUE + 4
};

/* What the threads of a process share. Every word may change at any time. */
static int ctx_fd[N_CTX], queue_fd[N_QUEUE], sock_fd[N_SOCK], peer_fd[N_SOCK], misc_fd[N_MISC];
static int unix_fd[2];
static struct paste_ioc_queue geo[N_QUEUE]; /* what the module said of the queue */
static struct paste_ioc_pool pools[N_CTX];
static __u32 conns[N_CONN];
static __u8 *arena;

/* What all processes share. */
static struct shared {
	__u64 ops;
	__u64 echoed; /* bytes of the well-behaved process */
	bool stop;
} * shared;

static unsigned int nic_ifindex;

/* ---------------------------------------------------------- small things --- */

static __thread __u32 state;

static __u32 rnd(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static __u32 below(__u32 n)
{
	return rnd() % n;
}

static bool once_in(__u32 n)
{
	return !below(n);
}

/* A number that is likely to be at some limit. */
static __u32 edge(void)
{
	static const __u32 edges[] = { 0,     1,	  2,	      63,	  64,
				       65,    255,	  256,	      257,	  2047,
				       2048,  4095,	  4096,	      4097,	  65535,
				       65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };

	return once_in(3) ? rnd() : edges[below(ARRAY_SIZE(edges))];
}

static int get(int *slot)
{
	return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

/* Put another fd into a slot. Nobody closes one twice. */
static void set(int *slot, int fd)
{
	int old = __atomic_exchange_n(slot, fd, __ATOMIC_RELAXED);

	if (old >= 0)
		close(old);
}

static int any_socket(void)
{
	return get(once_in(2) ? &sock_fd[below(N_SOCK)] : &peer_fd[below(N_SOCK)]);
}

static int *any_slot(void)
{
	switch (below(5)) {
	case 0:
		return &ctx_fd[below(N_CTX)];
	case 1:
		return &queue_fd[below(N_QUEUE)];
	case 2:
		return &sock_fd[below(N_SOCK)];
	case 3:
		return &peer_fd[below(N_SOCK)];
	default:
		return &misc_fd[below(N_MISC)];
	}
}

/* Places: a pool per context, two mappings per queue, and some for disorder. */
static __u8 *place(unsigned int i)
{
	return arena + (size_t)i * PLACE;
}

static __u8 *pool_at(unsigned int ctx)
{
	return place(ctx);
}

static __u8 *kern_at(unsigned int q)
{
	return place(N_CTX + 2 * q);
}

static __u8 *user_at(unsigned int q)
{
	return place(N_CTX + 2 * q + 1);
}

static __u8 *any_place(void)
{
	return place(below(N_PLACE));
}

static __thread sigjmp_buf guard_env;
static __thread volatile bool guarded;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *at = context;
	char text[200];

	if (!guarded) {
		signal(sig, SIG_DFL);
		snprintf(text, sizeof(text),
			 "# signal %d, address %p, instruction %#llx, arena %p, code %p\n", sig,
			 info->si_addr, at->uc_mcontext.gregs[REG_RIP], (void *)arena,
			 (void *)on_fault);
		_exit(write(1, text, strlen(text)) > 0 ? 99 : 97);
	}
	guarded = false;
	siglongjmp(guard_env, 1);
}

/* Do something with memory that may not be there. */
static void guard(void (*fn)(unsigned int arg), unsigned int arg)
{
	if (!sigsetjmp(guard_env, 1)) {
		guarded = true;
		fn(arg);
	}
	guarded = false;
}

/* --------------------------------------------------------------- objects --- */

static void op_open(void)
{
	set(&ctx_fd[below(N_CTX)], open(DEVICE, O_RDWR | O_CLOEXEC));
}

static void op_pool(void)
{
	static const __u32 sizes[] = { 0, 0, 2048, 4096 };
	unsigned int i = below(N_CTX);
	struct paste_ioc_pool a = {
		.size = sizeof(a),
		.fd = -1,
		.chunk_size = sizes[below(4)],
		.n_rx = 64 + 2 * below(50),
		.n_tx = 2 * below(30),
	};

	if (once_in(8))
		a.flags = PASTE_POOL_RX_WRITABLE;
	if (!call(get(&ctx_fd[i]), PASTE_IOC_POOL, &a))
		pools[i] = a;
}

static void op_queue(void)
{
	unsigned int i = below(N_QUEUE);
	struct paste_ioc_queue a = {
		.size = sizeof(a),
		.rx_entries = 64 << below(3),
		.fill_entries = 64 << below(3),
		.tx_entries = 64 << below(3),
		.comp_entries = 64 << below(3),
		.rx_chunks = once_in(2) ? 64 : 0,
	};

	if (call(get(&ctx_fd[below(N_CTX)]), PASTE_IOC_QUEUE, &a))
		return;
	geo[i] = a;
	set(&queue_fd[i], a.fd);
}

static void op_map_queue(void)
{
	unsigned int i = below(N_QUEUE);
	int fd = get(&queue_fd[i]);

	mmap(kern_at(i), geo[i].kern_len ?: 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
	     PASTE_MMAP_KERN);
	mmap(user_at(i), geo[i].user_len ?: 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	     fd, PASTE_MMAP_USER);
}

static void op_map_pool(void)
{
	unsigned int i = below(N_CTX);
	struct paste_ioc_pool p = pools[i];
	size_t tx = (size_t)p.first_tx * p.chunk_size;
	int fd = get(&ctx_fd[i]);

	if (p.bytes > PLACE || tx >= p.bytes)
		return;
	mmap(pool_at(i), p.bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, PASTE_MMAP_POOL);
	mmap(pool_at(i) + tx, p.bytes - tx, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
	     PASTE_MMAP_POOL + tx);
}

/* Mappings that should not be, or not so. */
static void op_map_wrong(void)
{
	static const off_t offsets[] = { 0,	     4096,	 PASTE_MMAP_USER,
					 1ULL << 62, 1ULL << 61, 0x7ffffffffffff000 };
	int fd = get(any_slot());
	int flags = once_in(2) ? MAP_SHARED : MAP_PRIVATE;

	if (once_in(4))
		flags |= MAP_POPULATE;
	mmap(any_place(), 4096 * (1 + below(200)), below(8), flags | MAP_FIXED, fd,
	     once_in(4) ? (off_t)below(300) * 4096 : offsets[below(ARRAY_SIZE(offsets))]);
}

static void op_close(void)
{
	set(any_slot(), -1);
}

static void op_dup(void)
{
	set(&misc_fd[below(N_MISC)], dup(get(any_slot())));
}

/* ------------------------------------------------------------ disordering --- */

static void op_unmap(void)
{
	munmap(any_place() + 4096 * below(64), 4096 * (1 + below(256)));
}

static void op_mprotect(void)
{
	mprotect(any_place() + 4096 * below(64), 4096 * (1 + below(64)), below(8));
}

static void op_mremap(void)
{
	size_t len = 4096 * (1 + below(128));

	mremap(any_place() + 4096 * below(16), len, once_in(2) ? len : 4096 * (1 + below(128)),
	       MREMAP_MAYMOVE | MREMAP_FIXED, any_place() + 4096 * below(16));
}

static void op_madvise(void)
{
	static const int advice[] = { MADV_DONTNEED,	  MADV_WILLNEED, MADV_REMOVE,
				      MADV_DOFORK,	  MADV_DONTFORK, MADV_DODUMP,
				      MADV_MERGEABLE,	  MADV_HUGEPAGE, MADV_FREE,
				      MADV_COLD,	  MADV_PAGEOUT,	 MADV_POPULATE_READ,
				      MADV_POPULATE_WRITE };

	madvise(any_place(), 4096 * (1 + below(128)), advice[below(ARRAY_SIZE(advice))]);
}

static void op_map_over(void)
{
	mmap(any_place() + 4096 * below(16), 4096 * (1 + below(128)), PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Send fds away, where only a receiver or the garbage collector of Unix sockets finds them. */
static void op_pass(void)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fd = get(any_slot());

	if (once_in(2)) {
		if (recvmsg(unix_fd[1], &msg, MSG_DONTWAIT) == 1 && (c = CMSG_FIRSTHDR(&msg)) &&
		    c->cmsg_type == SCM_RIGHTS)
			set(&misc_fd[below(N_MISC)], *(int *)CMSG_DATA(c));
		return;
	}
	*c = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	sendmsg(unix_fd[0], &msg, MSG_DONTWAIT);
}

/* --------------------------------------------------------------- sockets --- */

static void no_wait(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void op_pair(void)
{
	unsigned int i = below(N_SOCK);
	int sv[2];

	if (tcp_pair(once_in(2) ? AF_INET : AF_INET6, sv))
		return;
	no_wait(sv[0]);
	no_wait(sv[1]);
	set(&sock_fd[i], sv[0]);
	set(&peer_fd[i], sv[1]);
}

/* Sockets that are no connections, or not of TCP, or not yet. */
static void op_odd_socket(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(1 + below(65535)) };
	int fd, *slot = &sock_fd[below(N_SOCK)];

	switch (below(5)) {
	case 0:
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 262 /* MPTCP */);
		break;
	case 1:
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		break;
	case 2:
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		break;
	default:
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		break;
	}
	/* where nobody answers, or where nobody listens */
	a.sin_addr.s_addr = htonl(once_in(2) ? 0xc6336401 : INADDR_LOOPBACK);
	if (once_in(3))
		listen(fd, 5);
	else if (once_in(2))
		connect(fd, (void *)&a, sizeof(a));
	set(slot, fd);
}

static void op_attach(void)
{
	struct paste_ioc_attach a = { .size = sizeof(a), .fd = any_socket() };
	struct paste_ioc_attach *p = &a;

	if (once_in(4))
		a.quota = 1 + below(64);
	if (!call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_ATTACH, p))
		conns[below(N_CONN)] = a.conn;
}

/* Sockets that listen, mostly; or no more. */
static void op_accept(void)
{
	struct paste_ioc_accept a = { .size = sizeof(a), .fd = any_socket(), .quota = below(64) };

	if (once_in(3))
		a.fd = -1;
	else if (once_in(2))
		listen(a.fd, 5);
	call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_ACCEPT, &a);
}

/* To a socket of ours, which may listen. */
static void op_connect(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int fd;

	if (getsockname(any_socket(), (void *)&a, &len) || a.sin_family != AF_INET)
		return;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	connect(fd, (void *)&a, sizeof(a));
	send(fd, "hello", below(6), MSG_DONTWAIT | MSG_NOSIGNAL);
	set(&peer_fd[below(N_SOCK)], fd);
}

static __u32 any_conn(void)
{
	__u32 conn = conns[below(N_CONN)];

	if (once_in(16))
		conn += (below(3) - 1) << 16 | below(4);
	return conn;
}

static void op_detach(void)
{
	struct paste_ioc_detach a = { .size = sizeof(a), .conn = any_conn() };

	call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_DETACH, &a);
}

static void op_traffic(void)
{
	static __thread char buf[20000];
	int fd = any_socket();

	switch (below(6)) {
	case 0:
		send(fd, buf, 1, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_OOB);
		break;
	case 1:
	case 2:
		send(fd, buf, below(sizeof(buf)), MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 3:
		recv(fd, buf, sizeof(buf), MSG_DONTWAIT | (once_in(4) ? MSG_PEEK : 0));
		break;
	default:
		recv(get(&peer_fd[below(N_SOCK)]), buf, sizeof(buf), MSG_DONTWAIT);
		break;
	}
}

static void op_sockopt(void)
{
	static const struct {
		int level, name;
	} options[] = {
		{ SOL_SOCKET, SO_RCVBUF },	{ SOL_SOCKET, SO_SNDBUF },
		{ SOL_SOCKET, SO_RCVLOWAT },	{ SOL_SOCKET, SO_OOBINLINE },
		{ SOL_SOCKET, SO_KEEPALIVE },	{ SOL_SOCKET, SO_ZEROCOPY },
		{ SOL_SOCKET, SO_BUSY_POLL },	{ SOL_SOCKET, SO_MARK },
		{ SOL_TCP, TCP_NODELAY },	{ SOL_TCP, TCP_CORK },
		{ SOL_TCP, TCP_QUICKACK },	{ SOL_TCP, TCP_WINDOW_CLAMP },
		{ SOL_TCP, TCP_USER_TIMEOUT },	{ SOL_TCP, TCP_REPAIR },
		{ SOL_TCP, TCP_MAXSEG },	{ SOL_TCP, TCP_DEFER_ACCEPT },
		{ SOL_TCP, TCP_NOTSENT_LOWAT },
	};
	unsigned int i = below(ARRAY_SIZE(options));
	int value = once_in(2) ? (int)below(2) : (int)edge();
	int fd = any_socket();

	if (once_in(5))
		setsockopt(fd, SOL_TCP, TCP_ULP, once_in(3) ? "paste" : "tls", once_in(3) ? 5 : 3);
	else
		setsockopt(fd, options[i].level, options[i].name, &value, sizeof(value));
}

/* To every state that TCP has. */
static void op_end(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct linger now = { .l_onoff = 1 };
	int fd = any_socket();

	switch (below(4)) {
	case 0:
		shutdown(fd, below(3));
		break;
	case 1:
		connect(fd, &none, sizeof(none));
		break;
	case 2:
		listen(fd, 3);
		break;
	default:
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		set(once_in(2) ? &sock_fd[below(N_SOCK)] : &peer_fd[below(N_SOCK)], -1);
	}
}

/* A sockmap takes the socket's callbacks, as we do. */
static void op_sockmap(void)
{
	static const int types[] = { BPF_MAP_TYPE_SOCKMAP, BPF_MAP_TYPE_SOCKHASH };
	union bpf_attr a = {
		.map_type = types[below(2)], .key_size = 4, .value_size = 4, .max_entries = 4
	};
	__u32 key = below(4);
	int value = any_socket();
	int map = syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a));

	if (map < 0)
		return;
	memset(&a, 0, sizeof(a));
	a.map_fd = map;
	a.key = (uintptr_t)&key;
	a.value = (uintptr_t)&value;
	syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &a, sizeof(a));
	set(&misc_fd[below(N_MISC)], map);
}

/* ----------------------------------------------------------------- rings --- */

static void op_sync(void)
{
	struct paste_ioc_sync a = { .size = sizeof(a),
				    .busy_us = once_in(8) ? below(200) : 0,
				    .wait_us = once_in(4) ? below(2000) : 0 };

	call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_SYNC, &a);
}

static void op_poll(void)
{
	struct pollfd p[2];

	for (int i = 0; i < 2; i++)
		p[i] = (struct pollfd){ .fd = get(&queue_fd[below(N_QUEUE)]),
					.events = below(0x4000) };
	poll(p, 2, below(2));
}

static __u32 *word(__u8 *base, __u32 off)
{
	return (__u32 *)(base + off % (PLACE - 64) / 4 * 4);
}

/* Of a queue that was never made there are no entries: then the first. */
static __u32 slot_of(__u32 index, __u32 entries)
{
	return entries ? index & (entries - 1) : 0;
}

static void put_sends(unsigned int q)
{
	struct paste_ioc_queue g = geo[q];
	struct paste_ioc_pool p = pools[below(N_CTX)];
	__u32 *prod = word(user_at(q), g.tx.prod), n = 1 + below(6), chunk;
	struct paste_tx *e;

	for (; n; n--) {
		e = (struct paste_tx *)(user_at(q) + g.tx.desc) + slot_of(*prod, g.tx.entries);
		chunk = once_in(3) ? g.first_chunk + below(64) : p.first_tx + below(p.n_tx + 1);
		*e = (struct paste_tx){ .conn = any_conn(), .chunk = once_in(30) ? edge() : chunk };
		e->off = once_in(2) ? 0 : below(4096);
		e->len = once_in(12) ? edge() : below(1400);
		e->flags = once_in(8) ? 1 << below(4) : 0;
		if (!e->len)
			e->chunk = e->off = 0;
		__atomic_store_n(prod, *prod + 1, __ATOMIC_RELEASE);
	}
}

static void put_fills(unsigned int q)
{
	struct paste_ioc_queue g = geo[q];
	__u32 *prod = word(user_at(q), g.fill.prod), n = 1 + below(64), start = below(64);

	for (; n; n--) {
		__u32 *e = (__u32 *)(user_at(q) + g.fill.desc) + slot_of(*prod, g.fill.entries);

		*e = once_in(50) ? edge() : g.first_chunk + (start + n) % 64;
		__atomic_store_n(prod, *prod + 1, __ATOMIC_RELEASE);
	}
}

static void take_entries(unsigned int q)
{
	struct paste_ioc_queue g = geo[q];

	/* one of those that there have been: maybe one that the queue has accepted */
	conns[below(N_CONN)] = *word(kern_at(q), g.rx.desc + below(16) * sizeof(struct paste_rx));
	*word(user_at(q), g.rx.cons) = *word(kern_at(q), g.rx.prod);
	*word(user_at(q), g.comp.cons) = *word(kern_at(q), g.comp.prod);
}

/* Indices that lie, little or much, and any other word of the mapping. */
static void scribble(unsigned int q)
{
	struct paste_ioc_queue g = geo[q];
	const __u32 index[] = { g.rx.cons, g.comp.cons, g.fill.prod, g.tx.prod };
	__u32 *w = word(user_at(q), index[below(4)]);

	if (once_in(3))
		*w = once_in(2) ? edge() : *w + below(70) - 3;
	else
		for (unsigned int n = below(16); n; n--)
			*word(user_at(q), 256 + below(g.user_len | 1)) = edge();
}

/* While it looks. */
static void scribble_long(unsigned int q)
{
	struct paste_ioc_queue g = geo[q];

	for (unsigned int n = below(4000); n; n--)
		*word(user_at(q), g.tx.desc + below(1024)) = rnd() &
							     (once_in(2) ? 0x7ff : 0xffffffff);
}

static void scribble_pool(unsigned int ctx)
{
	for (unsigned int n = below(200); n; n--)
		*word(pool_at(ctx), below(PLACE)) = rnd();
}

static void op_sends(void)
{
	guard(put_sends, below(N_QUEUE));
}

static void op_fills(void)
{
	guard(put_fills, below(N_QUEUE));
}

static void op_take(void)
{
	guard(take_entries, below(N_QUEUE));
}

static void op_scribble(void)
{
	if (once_in(3))
		guard(scribble_pool, below(N_CTX));
	else
		guard(once_in(4) ? scribble_long : scribble, below(N_QUEUE));
}

/* ---------------------------------------------------------------- ioctls --- */

static const unsigned long commands[] = {
	PASTE_IOC_INFO,	    PASTE_IOC_POOL,	  PASTE_IOC_QUEUE,  PASTE_IOC_STATS,
	PASTE_IOC_NIC_BIND, PASTE_IOC_NIC_UNBIND, PASTE_IOC_ATTACH, PASTE_IOC_DETACH,
	PASTE_IOC_QUOTA,    PASTE_IOC_SYNC,	  PASTE_IOC_CONN,   PASTE_IOC_ACCEPT,
};

/* Any call on any fd, with an argument that is good in some words, maybe in memory that changes meanwhile. */
static void op_ioctl(void)
{
	static const __u32 sizes[] = { 8, 16, 24, 32, 48, 56, 104, 128, 200, 448, 4096, 4104 };
	unsigned long cmd = commands[below(ARRAY_SIZE(commands))];
	__u64 pointer = (uintptr_t)any_place();
	__u32 a[1026] = {}, n;
	void *arg = a;

	a[0] = once_in(8) ? edge() : sizes[below(ARRAY_SIZE(sizes))];
	for (n = below(8); n; n--)
		a[1 + below(14)] = edge();
	if (once_in(2)) /* text, or ports */
		memcpy(&a[2], &pointer, sizeof(pointer));
	if (cmd == PASTE_IOC_SYNC) {
		a[2] %= 1000; /* busy_us, wait_us: else it could take an hour */
		a[3] %= 1000;
	} else if (once_in(4)) {
		arg = once_in(8) ? (void *)(uintptr_t)edge() : any_place() + below(PLACE);
	}
	ioctl(get(any_slot()), cmd, arg);
}

static void op_stats(void)
{
	struct paste_ioc_stats a = { .size = sizeof(a), .flags = below(2), .id = below(64) };

	call(get(&ctx_fd[below(N_CTX)]), PASTE_IOC_STATS, &a);
}

/* All connections of a queue, or one that may be there. */
static void op_conns(void)
{
	struct paste_ioc_conn a = { .size = sizeof(a), .flags = below(2), .id = below(64) };
	int fd = get(&ctx_fd[below(N_CTX)]), n = 64;

	a.conn = once_in(2) ? 0 : 1 << 16 | below(64);
	while (n-- && !call(fd, PASTE_IOC_CONN, &a) && a.flags)
		;
}

/* Other ways to read and write memory that is a pool or a ring. */
static void op_foreign_io(void)
{
	struct iovec iov = { any_place(), 4096 * (1 + below(8)) };
	int fd = any_socket();

	switch (below(5)) {
	case 0:
		send(fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_ZEROCOPY);
		break;
	case 1:
		recv(fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT);
		break;
	case 2:
		vmsplice(unix_fd[0], &iov, 1, SPLICE_F_NONBLOCK);
		break;
	case 3:
		process_vm_readv(getpid(), &iov, 1, &iov, 1, 0);
		break;
	default:
		read(get(any_slot()), iov.iov_base, 0);
	}
}

/* ------------------------------------------------------------------- NIC --- */

static void op_bind(void)
{
	__u16 ports[] = { 80, 1 + below(65535) };
	struct paste_ioc_nic_bind a = { .size = sizeof(a),
					.ifindex = nic_ifindex,
					.ports = (uintptr_t)ports,
					.n_ports = 1 + below(2) };

	if (!nic_ifindex || !once_in(4))
		return;
	if (!call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_NIC_BIND, &a))
		set(&misc_fd[below(N_MISC)], a.xsk_fd);
}

static void op_unbind(void)
{
	struct paste_ioc_nic_unbind a = { .size = sizeof(a) };

	call(get(&queue_fd[below(N_QUEUE)]), PASTE_IOC_NIC_UNBIND, &a);
}

/* The fd of the AF_XDP socket is the application's: its rings, its options. */
static void op_xsk(void)
{
	static const off_t offsets[] = { XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
					 XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING };
	int fd = get(&misc_fd[below(N_MISC)]), value = 64 << below(4);

	switch (below(4)) {
	case 0:
		setsockopt(fd, SOL_XDP, XDP_RX_RING + below(6), &value, sizeof(value));
		break;
	case 1:
		sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
		break;
	case 2:
		recvfrom(fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
		break;
	default:
		mmap(place(N_PLACE - 1), 4096 * (1 + below(4)), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, fd, offsets[below(4)]);
	}
}

static void scribble_place(unsigned int i)
{
	for (unsigned int n = below(64); n; n--)
		*word(place(i), below(4096)) = edge();
}

static void op_scribble_xsk(void)
{
	guard(scribble_place, N_PLACE - 1);
}

/* ------------------------------------------------------------- processes --- */

static void run_ops(unsigned int n);

/* A child has all fds and no mappings. It may use them, in a network namespace of its own, or exec. */
static void op_fork(void)
{
	pid_t pid;

	if (!once_in(8))
		return;
	pid = fork();
	if (pid)
		return;
	alarm(20);
	if (once_in(3)) {
		for (int i = 0; i < N_QUEUE; i++)
			fcntl(get(&queue_fd[i]), F_SETFD, 0);
		execl("/bin/true", "true", NULL);
	}
	if (once_in(3) && !unshare(CLONE_NEWNET))
		set_lo_up();
	run_ops(1 + below(60));
	_exit(0);
}

static const struct {
	void (*fn)(void);
	unsigned int weight;
} ops[] = {
	{ op_open, 2 },	    { op_pool, 4 },	 { op_queue, 5 },	 { op_map_queue, 10 },
	{ op_map_pool, 6 }, { op_map_wrong, 3 }, { op_close, 2 },	 { op_dup, 1 },
	{ op_unmap, 1 },    { op_mprotect, 1 },	 { op_mremap, 1 },	 { op_madvise, 2 },
	{ op_map_over, 1 }, { op_pass, 2 },	 { op_pair, 5 },	 { op_odd_socket, 1 },
	{ op_attach, 10 },  { op_detach, 3 },	 { op_traffic, 30 },	 { op_sockopt, 6 },
	{ op_end, 3 },	    { op_sockmap, 1 },	 { op_sync, 40 },	 { op_poll, 5 },
	{ op_sends, 25 },   { op_fills, 20 },	 { op_take, 20 },	 { op_scribble, 5 },
	{ op_ioctl, 15 },   { op_stats, 2 },	 { op_foreign_io, 4 },	 { op_bind, 3 },
	{ op_unbind, 1 },   { op_xsk, 2 },	 { op_scribble_xsk, 2 }, { op_fork, 2 },
	{ op_conns, 4 },    { op_accept, 3 },	 { op_connect, 6 },
};

static void run_op(void)
{
	static unsigned int sum;
	unsigned int i, all = 0;

	if (!sum) {
		for (i = 0; i < ARRAY_SIZE(ops); i++)
			all += ops[i].weight;
		sum = all;
	}
	all = below(sum);
	for (i = 0; all >= ops[i].weight; i++)
		all -= ops[i].weight;
	ops[i].fn();
	__atomic_add_fetch(&shared->ops, 1, __ATOMIC_RELAXED);
}

static void run_ops(unsigned int n)
{
	while (n--)
		run_op();
}

/* ---------------------------------------------------------------- worker --- */

static pthread_barrier_t all_there;

static void *thread(void *arg)
{
	state = (uintptr_t)arg;
	pthread_barrier_wait(&all_there);
	run_ops(OPS);
	return NULL;
}

static __u32 mix(__u32 a, __u32 b)
{
	return (a * 0x9e3779b1 ^ (b + 1) * 0x85ebca6b) | 1;
}

static void catch_faults(void)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_NODEFER | SA_SIGINFO };

	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
}

static void clear_slots(void)
{
	memset(ctx_fd, -1, sizeof(ctx_fd));
	memset(queue_fd, -1, sizeof(queue_fd));
	memset(sock_fd, -1, sizeof(sock_fd));
	memset(peer_fd, -1, sizeof(peer_fd));
	memset(misc_fd, -1, sizeof(misc_fd));
}

static void run_worker(__u32 seed)
{
	pthread_t t[THREADS];

	clear_slots();
	catch_faults();
	arena = mmap(NULL, (size_t)(N_PLACE + 2) * PLACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (arena == MAP_FAILED || pthread_barrier_init(&all_there, NULL, THREADS) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, unix_fd))
		_exit(98);
	/* No hole in the places is ever part of the free space around, where a thread's stack may come to lie. */
	arena += PLACE;
	state = seed;
	/* something to begin with */
	for (int i = 0; i < 40; i++) {
		op_open();
		op_pool();
		op_queue();
		op_map_queue();
		op_map_pool();
		if (i % 4 == 0)
			op_pair();
	}
	for (__u32 i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, thread, (void *)(uintptr_t)mix(seed, i));
	if (once_in(8)) {
		sleep_ms(below(200));
		kill(getpid(), SIGKILL);
	}
	if (once_in(8)) {
		sleep_ms(below(200));
		execl("/bin/true", "true", NULL);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	_exit(0);
}

/* --------------------------------------------------------------- witness --- */

static pid_t start_witness(void)
{
	struct stream s = {};
	struct queue q;
	struct peer p;
	struct ctx c;
	pid_t pid = fork();
	int sv[2];

	if (pid)
		return pid;
	if (ctx_make(&c, 0, 128, 32) || queue_make(&q, &c, NULL) || tcp_pair(AF_INET, sv) ||
	    queue_attach(&q, sv[0], 0, &s.conn))
		_exit(1);
	fill_slice(&q);
	peer_init(&p, sv[1]);
	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		if (!echo(&q, &s, &p, p.got + 20000, PATIENCE))
			_exit(2);
		__atomic_store_n(&shared->echoed, p.got, __ATOMIC_RELAXED);
		sleep_ms(10);
	}
	_exit(0);
}

/* ---------------------------------------------------------------- rounds --- */

static int failures;

static void fail(const char *what, __u32 seed)
{
	printf("# %s; again with: fuzz -s %u -n 1\n", what, seed);
	failures++;
}

/* Of all threads. */
static void show_stacks(pid_t pid)
{
	char path[64], line[200];
	glob_t found;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/*/stack", pid);
	if (glob(path, 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		printf("# %s\n", found.gl_pathv[i]);
		f = fopen(found.gl_pathv[i], "r");
		while (f && fgets(line, sizeof(line), f))
			printf("# %s", line);
		if (f)
			fclose(f);
	}
	globfree(&found);
}

/* How the worker ended: its wait status, or -1 if it does not end. */
static int wait_for(pid_t pid, __u64 end)
{
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ms() > end) {
			show_stacks(pid);
			kill(pid, SIGKILL);
			return -1;
		}
		sleep_ms(2);
	}
	return status;
}

static void run_round(__u32 seed)
{
	pid_t pid[WORKERS];
	__u64 end = now_ms() + PATIENCE;

	for (__u32 i = 0; i < WORKERS; i++) {
		pid[i] = fork();
		if (!pid[i])
			run_worker(mix(seed, i));
	}
	for (int i = 0; i < WORKERS; i++) {
		int status = wait_for(pid[i], end);

		if (status == -1) {
			fail("a process does not end", seed);
		} else if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL) {
			printf("# wait status of process %d: %#x\n", i, status);
			fail("a process broke in a place where it should not", seed);
		}
	}
}

/* What came since the log was opened, and sounds bad (";BUG": each record begins with ";"). */
static void check_log(int fd, __u32 seed)
{
	static const char *const words[] = { "WARNING:",
					     ";BUG",
					     "Oops",
					     "KASAN",
					     "KCSAN",
					     "UBSAN",
					     "general protection",
					     "refcount_t:",
					     "possible circular",
					     "suspicious RCU",
					     "Bad page",
					     "Call Trace:" };
	char line[8192];
	ssize_t n;

	while ((n = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		if (n < 0)
			continue;
		line[n] = 0;
		for (unsigned int i = 0; i < ARRAY_SIZE(words); i++)
			if (strstr(line, words[i]))
				fail(line, seed);
	}
}

static void check_objects(const __u64 before[PASTE_OBJ_MAX], __u32 seed)
{
	__u64 live[PASTE_OBJ_MAX];

	if (objects_wait(before, PATIENCE))
		return;
	objects_read(live);
	for (int i = 0; i < PASTE_OBJ_MAX; i++)
		if (live[i] > before[i])
			printf("# object %d: %llu before, %llu now\n", i, before[i], live[i]);
	fail("objects are left", seed);
}

static void run(__u32 seed, __u64 n, __u64 seconds)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	__u64 end = now_ms() + seconds * 1000, before[PASTE_OBJ_MAX];
	pid_t witness;
	int status;

	lseek(log, 0, SEEK_END);
	if (objects_read(before))
		return fail("no " DEVICE, seed);
	witness = start_witness();
	do {
		run_round(seed);
		check_log(log, seed);
		seed++;
	} while (!failures && shared->ops < n && now_ms() < end);
	shared->stop = true;
	status = wait_for(witness, now_ms() + PATIENCE);
	if (status)
		fail("the well-behaved process did not get what it should", seed - 1);
	if (!shared->echoed)
		fail("the well-behaved process got nothing", seed - 1);
	check_objects(before, seed - 1);
	check_log(log, seed - 1);
	close(log);
}

int main(int argc, char **argv)
{
	__u64 n = ~0ULL, seconds = 15;
	const char *nic = getenv("PASTE_IF");
	__u32 seed = 1;
	int opt;

	while ((opt = getopt(argc, argv, "s:n:t:")) != -1) {
		if (opt == 's')
			seed = strtoul(optarg, NULL, 0);
		else if (opt == 'n')
			n = strtoull(optarg, NULL, 0);
		else if (opt == 't')
			seconds = strtoull(optarg, NULL, 0);
		else
			return EXIT_FAILURE;
	}
	if (n != ~0ULL && seconds == 15)
		seconds = 1 << 30;
	nic_ifindex = nic ? if_nametoindex(nic) : 0;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED || set_lo_up())
		return EXIT_FAILURE;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..1\n# seed %u\n", seed);
	run(seed, n, seconds);
	printf("%sok 1 hostile__ioctls_rings_and_maps\n", failures ? "not " : "");
	printf("# the well-behaved process got %llu bytes\n", shared->echoed);
	printf("robust: fuzz-ops %llu\n", shared->ops);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
