// SPDX-License-Identifier: GPL-2.0
/* What the test programs share, see util.h. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

char text[PASTE_TEXT_MAX];
unsigned int slow = 1;

__attribute__((constructor)) static void read_slow(void)
{
	const char *s = getenv("PASTE_SLOW");

	if (s && atoi(s) > 0)
		slow = atoi(s);
}

/* ------------------------------------------------------------------------- */

__u64 now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

void sleep_ms(unsigned int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

int call(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

int set_lo_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err;

	err = call(fd, SIOCGIFFLAGS, &ifr);
	ifr.ifr_flags |= IFF_UP;
	err = err ?: call(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	return err;
}

static __u64 text_ptr(void)
{
	memset(text, 0, sizeof(text));
	return (uintptr_t)text;
}

/* ------------------------------------------------------------------------- */

int ctx_open(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int map_pool(struct ctx *c)
{
	size_t tx = (size_t)c->first_tx * c->chunk_size;

	c->base = mmap(NULL, c->bytes, PROT_READ, MAP_SHARED, c->fd, PASTE_MMAP_POOL);
	if (c->base == MAP_FAILED)
		return -errno;
	if (c->n_tx && mmap(c->base + tx, c->bytes - tx, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, c->fd, PASTE_MMAP_POOL + tx) == MAP_FAILED)
		return -errno;
	return 0;
}

int ctx_make(struct ctx *c, __u32 chunk_size, __u32 n_rx, __u32 n_tx)
{
	struct paste_ioc_pool pool = {
		.size = sizeof(pool),
		.text = text_ptr(),
		.fd = -1,
		.chunk_size = chunk_size,
		.n_rx = n_rx,
		.n_tx = n_tx,
	};
	int err;

	memset(c, 0, sizeof(*c));
	c->base = MAP_FAILED;
	c->fd = ctx_open();
	if (c->fd < 0)
		return c->fd;
	err = call(c->fd, PASTE_IOC_POOL, &pool);
	if (err)
		return err;
	c->chunk_size = pool.chunk_size;
	c->n_rx = pool.n_rx;
	c->n_tx = pool.n_tx;
	c->first_rx = pool.first_rx;
	c->first_tx = pool.first_tx;
	c->bytes = pool.bytes;
	return map_pool(c);
}

void ctx_unmap(struct ctx *c)
{
	if (c->base != MAP_FAILED)
		munmap(c->base, c->bytes);
	c->base = MAP_FAILED;
}

void ctx_close(struct ctx *c)
{
	ctx_unmap(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

int ctx_info(int fd, struct paste_ioc_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return call(fd, PASTE_IOC_INFO, info);
}

void *chunk_at(const struct ctx *c, __u32 chunk, __u32 off)
{
	return c->base + (size_t)chunk * c->chunk_size + off;
}

int objects_read(__u64 live[PASTE_OBJ_MAX])
{
	struct paste_ioc_info info;
	int fd = ctx_open();
	int err;

	if (fd < 0)
		return fd;
	err = ctx_info(fd, &info);
	close(fd);
	for (unsigned int i = 0; i < PASTE_OBJ_MAX; i++)
		live[i] = info.made[i] - info.gone[i];
	live[PASTE_OBJ_CONTEXT]--;
	return err;
}

static bool objects_within(const __u64 before[PASTE_OBJ_MAX])
{
	__u64 live[PASTE_OBJ_MAX];

	if (objects_read(live))
		return false;
	for (unsigned int i = 0; i < PASTE_OBJ_MAX; i++) {
		if ((__s64)live[i] > (__s64)before[i])
			return false;
	}
	return true;
}

bool objects_wait(const __u64 before[PASTE_OBJ_MAX], unsigned int ms)
{
	__u64 end = now_ms() + ms;

	while (!objects_within(before)) {
		if (now_ms() > end)
			return false;
		sleep_ms(20);
	}
	return true;
}

/* ------------------------------------------------------------------------- */

static void set_ring(struct ring *r, __u8 *prod, __u8 *cons, __u8 *desc,
		     const struct paste_ring_offsets *o)
{
	r->prod = (__u32 *)(prod + o->prod);
	r->cons = (__u32 *)(cons + o->cons);
	r->desc = desc + o->desc;
	r->mask = o->entries - 1;
	r->own = 0;
}

static int map_queue(struct queue *q, const struct paste_ioc_queue *a)
{
	q->kern_len = a->kern_len;
	q->user_len = a->user_len;
	q->kern = mmap(NULL, q->kern_len, PROT_READ, MAP_SHARED, q->fd, PASTE_MMAP_KERN);
	if (q->kern == MAP_FAILED)
		return -errno;
	q->user =
		mmap(NULL, q->user_len, PROT_READ | PROT_WRITE, MAP_SHARED, q->fd, PASTE_MMAP_USER);
	if (q->user == MAP_FAILED)
		return -errno;
	q->flags = (__u32 *)(q->kern + a->flags_off);
	set_ring(&q->rx, q->kern, q->user, q->kern, &a->rx);
	set_ring(&q->comp, q->kern, q->user, q->kern, &a->comp);
	set_ring(&q->fill, q->user, q->kern, q->user, &a->fill);
	set_ring(&q->tx, q->user, q->kern, q->user, &a->tx);
	return 0;
}

int queue_make(struct queue *q, struct ctx *c, const struct paste_ioc_queue *opts)
{
	struct paste_ioc_queue a = {};
	int err;

	memset(q, 0, sizeof(*q));
	q->fd = -1;
	q->kern = MAP_FAILED;
	q->user = MAP_FAILED;
	q->ctx = c;
	if (opts)
		a = *opts;
	a.size = sizeof(a);
	a.text = text_ptr();
	err = call(c->fd, PASTE_IOC_QUEUE, &a);
	if (err)
		return err;
	q->fd = a.fd;
	q->id = a.id;
	q->first = a.first_chunk;
	q->n = a.rx_chunks;
	return map_queue(q, &a);
}

void queue_unmap(struct queue *q)
{
	if (q->kern != MAP_FAILED)
		munmap(q->kern, q->kern_len);
	if (q->user != MAP_FAILED)
		munmap(q->user, q->user_len);
	q->kern = MAP_FAILED;
	q->user = MAP_FAILED;
}

void queue_close(struct queue *q)
{
	queue_unmap(q);
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
}

int queue_sync(struct queue *q, __u32 busy_us, __u32 wait_us)
{
	struct paste_ioc_sync s = { .size = sizeof(s), .busy_us = busy_us, .wait_us = wait_us };

	return call(q->fd, PASTE_IOC_SYNC, &s);
}

int queue_attach(struct queue *q, int sock, __u32 quota, __u32 *conn)
{
	struct paste_ioc_attach a = {
		.size = sizeof(a), .text = text_ptr(), .fd = sock, .quota = quota
	};
	int err = call(q->fd, PASTE_IOC_ATTACH, &a);

	if (!err && conn)
		*conn = a.conn;
	return err;
}

int queue_accept(struct queue *q, int listener, __u32 quota)
{
	struct paste_ioc_accept a = {
		.size = sizeof(a),
		.text = (uintptr_t)text,
		.fd = listener,
		.quota = quota,
	};

	text[0] = 0;
	return call(q->fd, PASTE_IOC_ACCEPT, &a);
}

int queue_detach(struct queue *q, __u32 conn)
{
	struct paste_ioc_detach d = { .size = sizeof(d), .conn = conn };

	return call(q->fd, PASTE_IOC_DETACH, &d);
}

int queue_quota(struct queue *q, __u32 conn, __u32 quota)
{
	struct paste_ioc_quota a = { .size = sizeof(a), .conn = conn, .quota = quota };

	return call(q->fd, PASTE_IOC_QUOTA, &a);
}

int queue_stats(struct queue *q, struct paste_ioc_stats *s)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	s->id = q->id;
	return call(q->ctx->fd, PASTE_IOC_STATS, s);
}

__u64 queue_stat(struct queue *q, unsigned int which)
{
	struct paste_ioc_stats s;

	return queue_stats(q, &s) ? ~0ULL : s.v[which];
}

int queue_conn(struct queue *q, __u32 conn, __u32 flags, struct paste_ioc_conn *c)
{
	memset(c, 0, sizeof(*c));
	c->size = sizeof(*c);
	c->flags = flags;
	c->id = q->id;
	c->conn = conn;
	return call(q->ctx->fd, PASTE_IOC_CONN, c);
}

bool queue_conns(struct queue *q, __u32 n, unsigned int ms)
{
	__u64 end = now_ms() + ms;
	struct paste_ioc_stats s;

	for (;;) {
		if (queue_stats(q, &s))
			return false;
		if (s.conns == n)
			return true;
		if (now_ms() > end)
			return false;
		sleep_ms(10);
	}
}

/* ------------------------------------------------------------------------- */

/* Entries that the module has put into rx or comp. */
__u32 ring_ready(const struct ring *r)
{
	return __atomic_load_n(r->prod, __ATOMIC_ACQUIRE) - r->own;
}

static bool rx_is_good(const struct queue *q, const struct paste_rx *e)
{
	if (!e->conn || e->flags & ~(PASTE_RX_COPIED | PASTE_RX_FIN | PASTE_RX_ERR | PASTE_RX_NEW))
		return false;
	if (e->flags & PASTE_RX_NEW)
		return e->flags == PASTE_RX_NEW && !e->len && !e->chunk && !e->err;
	if (e->flags & (PASTE_RX_FIN | PASTE_RX_ERR))
		return !e->len &&
		       (e->flags & PASTE_RX_FIN ? !e->err : e->err && !(e->flags & PASTE_RX_FIN));
	return e->len && !e->err && e->chunk - q->first < q->n &&
	       e->off + e->len <= (int)q->ctx->chunk_size;
}

bool rx_take(struct queue *q, struct paste_rx *e)
{
	if (!ring_ready(&q->rx))
		return false;
	*e = ((struct paste_rx *)q->rx.desc)[q->rx.own++ & q->rx.mask];
	__atomic_store_n(q->rx.cons, q->rx.own, __ATOMIC_RELEASE);
	q->bad += !rx_is_good(q, e);
	return true;
}

bool rx_wait(struct queue *q, struct paste_rx *e, unsigned int ms)
{
	__u64 end = now_ms() + ms;

	while (!rx_take(q, e)) {
		if (now_ms() > end || queue_sync(q, 0, 50000))
			return rx_take(q, e);
		if (ring_ready(&q->comp))
			sleep_ms(1);
	}
	return true;
}

bool comp_take(struct queue *q, struct paste_comp *e)
{
	if (!ring_ready(&q->comp))
		return false;
	*e = ((struct paste_comp *)q->comp.desc)[q->comp.own++ & q->comp.mask];
	__atomic_store_n(q->comp.cons, q->comp.own, __ATOMIC_RELEASE);
	return true;
}

bool comp_wait(struct queue *q, struct paste_comp *e, unsigned int ms)
{
	__u64 end = now_ms() + ms;

	while (!comp_take(q, e)) {
		if (now_ms() > end || queue_sync(q, 0, 50000))
			return comp_take(q, e);
		if (ring_ready(&q->rx))
			sleep_ms(1);
	}
	return true;
}

static bool ring_full(const struct ring *r)
{
	return r->own - __atomic_load_n(r->cons, __ATOMIC_ACQUIRE) > r->mask;
}

bool tx_put(struct queue *q, __u32 conn, __u32 chunk, __u32 off, __u32 len, __u32 flags,
	    __u64 cookie)
{
	struct paste_tx *e = (struct paste_tx *)q->tx.desc + (q->tx.own & q->tx.mask);

	if (ring_full(&q->tx))
		return false;
	*e = (struct paste_tx){
		.conn = conn,
		.chunk = chunk,
		.off = off,
		.len = len,
		.flags = flags,
		.cookie = cookie,
	};
	__atomic_store_n(q->tx.prod, ++q->tx.own, __ATOMIC_RELEASE);
	return true;
}

void fill_put(struct queue *q, __u32 chunk)
{
	if (ring_full(&q->fill))
		queue_sync(q, 0, 0);
	((__u32 *)q->fill.desc)[q->fill.own & q->fill.mask] = chunk;
	__atomic_store_n(q->fill.prod, ++q->fill.own, __ATOMIC_RELEASE);
}

void fill_slice(struct queue *q)
{
	for (__u32 i = 0; i < q->n; i++)
		fill_put(q, q->first + i);
	queue_sync(q, 0, 0);
}

/* ------------------------------------------------------------------------- */

static __u32 pattern_word(__u64 word)
{
	return (__u32)(word * 0x9e3779b97f4a7c15ULL >> 32);
}

static __u8 pattern_byte(__u64 pos)
{
	return pattern_word(pos / 4) >> pos % 4 * 8;
}

void pattern_write(void *p, __u64 pos, size_t len)
{
	__u8 *b = p;

	for (size_t i = 0; i < len; i++)
		b[i] = pattern_byte(pos + i);
}

bool pattern_check(const void *p, __u64 pos, size_t len)
{
	const __u8 *b = p;

	for (size_t i = 0; i < len; i++) {
		if (b[i] != pattern_byte(pos + i))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------- */

static socklen_t loopback(int family, __u16 port, struct sockaddr_storage *ss)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;
	struct sockaddr_in *v4 = (struct sockaddr_in *)ss;

	memset(ss, 0, sizeof(*ss));
	ss->ss_family = family;
	if (family == AF_INET6) {
		v6->sin6_addr = in6addr_loopback;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	v4->sin_port = htons(port);
	return sizeof(*v4);
}

/* A listening socket on a free port of the loopback address, or a negative errno. */
int tcp_listen(int family, __u16 *port)
{
	struct sockaddr_storage ss;
	socklen_t len = loopback(family, 0, &ss);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&ss, len) || listen(fd, 128) ||
	    getsockname(fd, (struct sockaddr *)&ss, &len)) {
		err = -errno;
		close(fd);
		return err;
	}
	/* the port is in the same place in both address families */
	*port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	return fd;
}

int tcp_connect(int family, __u16 port)
{
	struct sockaddr_storage ss;
	socklen_t len = loopback(family, port, &ss);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&ss, len)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int tcp_pair(int family, int sv[2])
{
	/* it is there when connect() returns, unless somebody else has accepted it (fuzz) */
	struct timeval limit = { .tv_sec = 5 * slow };
	__u16 port = 0;
	int one = 1;
	int l;

	l = tcp_listen(family, &port);
	if (l < 0)
		return l;
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	sv[1] = tcp_connect(family, port);
	if (sv[1] < 0) {
		close(l);
		return sv[1];
	}
	sv[0] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	close(l);
	if (sv[0] < 0)
		return -errno;
	limit.tv_sec = 0; /* which it has from the listener */
	setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(sv[1], SOL_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

bool wait_readable(int fd, unsigned int bytes, unsigned int ms)
{
	__u64 end = now_ms() + ms;
	int n;

	for (;;) {
		if (ioctl(fd, FIONREAD, &n))
			return false;
		if (n >= (int)bytes)
			return true;
		if (now_ms() > end)
			return false;
		sleep_ms(5);
	}
}

/* ------------------------------------------------------------------------- */

void peer_init(struct peer *p, int fd)
{
	memset(p, 0, sizeof(*p));
	p->fd = fd;
}

void peer_send(struct peer *p, __u64 upto)
{
	__u8 buf[16384];
	size_t len;
	ssize_t n;

	while (p->sent < upto && !p->err) {
		len = upto - p->sent < sizeof(buf) ? upto - p->sent : sizeof(buf);
		pattern_write(buf, p->sent, len);
		n = send(p->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			p->sent += n;
		else if (errno == EAGAIN)
			return;
		else
			p->err = errno;
	}
}

void peer_recv(struct peer *p)
{
	__u8 buf[16384];
	ssize_t n;

	while (!p->eof && !p->err) {
		n = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0) {
			p->wrong |= !pattern_check(buf, p->got, n);
			p->got += n;
		} else if (!n) {
			p->eof = true;
		} else if (errno == EAGAIN) {
			return;
		} else {
			p->err = errno;
		}
	}
}

/* ------------------------------------------------------------------------- */

static void stream_note(struct stream *s, struct queue *q, const struct paste_rx *e)
{
	s->late |= s->fins || s->errs;
	s->entries++;
	if (e->conn != s->conn)
		s->wrong = true;
	if (e->flags & PASTE_RX_FIN)
		s->fins++;
	if (e->flags & PASTE_RX_ERR)
		s->errs++;
	if (!e->len) {
		s->err = e->err;
		return;
	}
	s->wrong |= !pattern_check(chunk_at(q->ctx, e->chunk, e->off), s->pos, e->len);
	s->pos += e->len;
}

void stream_take(struct stream *s, struct queue *q, const struct paste_rx *e)
{
	stream_note(s, q, e);
	if (e->len)
		fill_put(q, e->chunk);
}

bool stream_until(struct stream *s, struct queue *q, __u64 upto, unsigned int ms)
{
	__u64 end = now_ms() + ms;
	struct paste_rx e;

	while (s->pos < upto && !s->fins && !s->errs) {
		if (rx_take(q, &e))
			stream_take(s, q, &e);
		else if (now_ms() > end || queue_sync(q, 0, 20000))
			return false;
	}
	return s->pos >= upto;
}

void echo_turn(struct queue *q, struct stream *s)
{
	struct paste_comp c;
	struct paste_rx e;

	while (comp_take(q, &c)) {
		s->wrong |= c.result <= 0 || c.conn != s->conn;
		fill_put(q, c.cookie);
	}
	while (!ring_full(&q->tx) && rx_take(q, &e)) {
		stream_note(s, q, &e);
		if (e.len)
			tx_put(q, e.conn, e.chunk, e.off, e.len, 0, e.chunk);
	}
}

bool echo(struct queue *q, struct stream *s, struct peer *p, __u64 bytes, unsigned int ms)
{
	__u64 end = now_ms() + ms;

	while (p->got < bytes && !p->eof && !p->err && !s->fins && !s->errs) {
		peer_send(p, bytes);
		echo_turn(q, s);
		if (queue_sync(q, 0, 2000) || now_ms() > end)
			return false;
		peer_recv(p);
	}
	return p->got == bytes && !p->wrong && !s->wrong && !q->bad;
}
