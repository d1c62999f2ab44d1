/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the test programs share: contexts, queues and rings, pairs of TCP
 * sockets, a byte pattern that knows its position, and time.
 *
 * Only the uapi header is used here, not libpaste: a fault of the library
 * shall not hide one of the module, and the tests must also do what a library
 * never would. Functions return 0 or a negative errno unless they say
 * something else.
 */
#ifndef SELFTESTS_UTIL_H
#define SELFTESTS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/paste.h>

#define DEVICE	      "/dev/paste"
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Milliseconds that something may take that ought to happen at once. */
#define SOON (15000 * slow)
/* Milliseconds in which something would have happened if it could. */
#define NEVER 200

/* PASTE_SLOW: a factor for such limits, for kernels that look for trouble and busy hosts. */
extern unsigned int slow;

/* What the module said about the last set-up call. */
extern char text[PASTE_TEXT_MAX];

struct ctx {
	int fd;
	__u32 chunk_size;
	__u32 n_rx;
	__u32 n_tx;
	__u32 first_rx;
	__u32 first_tx;
	size_t bytes;
	__u8 *base; /* the whole pool, its tx part writable */
};

struct ring {
	__u32 *prod;
	__u32 *cons;
	void *desc;
	__u32 mask;
	__u32 own; /* our index */
};

struct queue {
	int fd;
	__u32 id;
	__u32 first; /* chunk of the slice */
	__u32 n;
	struct ctx *ctx;
	__u8 *kern;
	__u8 *user;
	size_t kern_len;
	size_t user_len;
	__u32 *flags;
	struct ring rx;
	struct ring fill;
	struct ring tx;
	struct ring comp;
	unsigned int bad; /* rx entries that break the header's rules */
};

/* Time and system calls */
__u64 now_ms(void);
void sleep_ms(unsigned int ms);
int call(int fd, unsigned long cmd, void *arg);
int set_lo_up(void);

/* Contexts */
int ctx_open(void);
int ctx_make(struct ctx *c, __u32 chunk_size, __u32 n_rx, __u32 n_tx);
void ctx_unmap(struct ctx *c);
void ctx_close(struct ctx *c);
int ctx_info(int fd, struct paste_ioc_info *info);
void *chunk_at(const struct ctx *c, __u32 chunk, __u32 off);

/* Objects of all contexts that exist now, but for the caller's own context. */
int objects_read(__u64 live[PASTE_OBJ_MAX]);
/* Waits until there are no more than these. */
bool objects_wait(const __u64 before[PASTE_OBJ_MAX], unsigned int ms);

/* Queues */
int queue_make(struct queue *q, struct ctx *c, const struct paste_ioc_queue *opts);
void queue_unmap(struct queue *q);
void queue_close(struct queue *q);
int queue_sync(struct queue *q, __u32 busy_us, __u32 wait_us);
int queue_attach(struct queue *q, int sock, __u32 quota, __u32 *conn);
int queue_accept(struct queue *q, int listener, __u32 quota);
int queue_detach(struct queue *q, __u32 conn);
int queue_quota(struct queue *q, __u32 conn, __u32 quota);
int queue_stats(struct queue *q, struct paste_ioc_stats *s);
__u64 queue_stat(struct queue *q, unsigned int which);
int queue_conn(struct queue *q, __u32 conn, __u32 flags, struct paste_ioc_conn *c);
/* Waits until the queue has that many connections. */
bool queue_conns(struct queue *q, __u32 n, unsigned int ms);

/* Rings. The *_wait calls sync until there is an entry. */
__u32 ring_ready(const struct ring *r);
bool rx_take(struct queue *q, struct paste_rx *e);
bool rx_wait(struct queue *q, struct paste_rx *e, unsigned int ms);
bool comp_take(struct queue *q, struct paste_comp *e);
bool comp_wait(struct queue *q, struct paste_comp *e, unsigned int ms);
bool tx_put(struct queue *q, __u32 conn, __u32 chunk, __u32 off, __u32 len, __u32 flags,
	    __u64 cookie);
void fill_put(struct queue *q, __u32 chunk);
void fill_slice(struct queue *q);

/* Byte pattern: what is at position pos of every stream in these tests. */
void pattern_write(void *p, __u64 pos, size_t len);
bool pattern_check(const void *p, __u64 pos, size_t len);

/* TCP over loopback: sv[0] to be attached, sv[1] the peer's end. */
int tcp_listen(int family, __u16 *port);
int tcp_connect(int family, __u16 port);
int tcp_pair(int family, int sv[2]);
bool wait_readable(int fd, unsigned int bytes, unsigned int ms);

/* The peer's end, never blocking. */
struct peer {
	int fd;
	__u64 sent;
	__u64 got;
	bool eof;
	int err;    /* positive errno of a broken connection */
	bool wrong; /* the pattern was not there */
};

void peer_init(struct peer *p, int fd);
void peer_send(struct peer *p, __u64 upto);
void peer_recv(struct peer *p);

/* One connection's stream as rx entries. */
struct stream {
	__u32 conn;
	__u64 pos;
	unsigned int entries;
	unsigned int fins;
	unsigned int errs;
	int err;    /* of the last end entry */
	bool late;  /* something came after an end entry */
	bool wrong; /* not the pattern, or not this connection */
};

void stream_take(struct stream *s, struct queue *q, const struct paste_rx *e);
/* Takes entries until the stream is at upto or at its end. */
bool stream_until(struct stream *s, struct queue *q, __u64 upto, unsigned int ms);

/* One turn of echo(): everything that can be done now. */
void echo_turn(struct queue *q, struct stream *s);

/*
 * The peer sends that many bytes, the application sends back what it gets, from
 * the chunk where it is, the peer checks them.
 */
bool echo(struct queue *q, struct stream *s, struct peer *p, __u64 bytes, unsigned int ms);

#endif
