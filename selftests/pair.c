// SPDX-License-Identifier: GPL-2.0
/* Pairs of connections, see pair.h. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pair.h"
#include "wire.h"
#include "paste.skel.h"

struct ctx ctx;
struct queue queue;
struct pair pairs[PAIRS];
unsigned int n_pairs;
__u32 first_client;
bool hooked;
bool suspect[PAIRS];
unsigned int differences;
unsigned int n_attached;
bool verbose;

static int listener[2][4]; /* by family, by port */
static struct side *by_handle[1 << 16];
static __u32 marker, marks, marks_sent; /* handle of relay's connection, bytes on it */

/* ------------------------------------------------------------------- peer --- */

static struct side *side_of(int client)
{
	__u32 i = client - first_client;

	return client >= 0 && i < 2 * n_pairs ? &pairs[i / 2].side[i % 2] : NULL;
}

static void note_reply(struct side *s, struct reply *r)
{
	__u32 end;

	/* also a new connection's, when the old one is over: the peer goes on with it */
	if ((r->flags & (TH_SYN | TH_ACK)) == (TH_SYN | TH_ACK)) {
		s->flow.base = r->seq + 1;
		s->flow.ts_recent = r->tsval;
		s->seen = 0;
	}
	frames_relate(r, &s->flow);
	if (s->n_replies < REPLIES)
		s->reply[s->n_replies++] = *r;
	if (r->flags & (TH_RST | TH_SYN))
		return;
	end = r->seq + r->len + (r->flags & TH_FIN);
	if ((__s32)(end - s->seen) > 0)
		s->seen = end;
	s->acked = r->ack;
	s->edge = r->ack + (r->win << s->wscale);
}

/* All that the server has said. */
void pairs_collect(void)
{
	static __u8 b[1 << 16];
	struct side *s;
	struct reply r;
	ssize_t n;

	while ((n = wire_read(b, sizeof(b))) > 0) {
		s = side_of(frames_parse(b, n, &r));
		if (s)
			note_reply(s, &r);
	}
}

void side_send(struct side *s, const struct segment *seg)
{
	static struct frame f[FRAMES_MAX];
	unsigned int n = frames_build(f, &s->flow, seg);

	for (unsigned int i = 0; i < n; i++)
		wire_send(&f[i]);
}

/* ----------------------------------------------------------------- server --- */

static int listen_on(int family, __u16 port, bool small)
{
	struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, bytes = hooked ? 65536 : 8192;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (small)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (family == AF_INET6 ? bind(fd, (struct sockaddr *)&any6, sizeof(any6)) :
				 bind(fd, (struct sockaddr *)&any, sizeof(any)))
		return -errno;
	return listen(fd, 65535) ? -errno : fd;
}

int server_open(void)
{
	for (unsigned int i = 0; i < 8; i++) {
		int fd = listen_on(i / 4 ? AF_INET6 : AF_INET, PORT + i % 4, i % 2);

		if (fd < 0)
			return fd;
		listener[i / 4][i % 4] = fd;
	}
	return 0;
}

/* Small rings and quotas make connections wait for a sync in mid-stream. */
int paste_open(__u32 seed)
{
	__u32 chunk_size = seed & 1 ? 2048 : 4096, share = hooked ? 262144 : 65536;
	struct paste_ioc_queue opts = {};
	int err;

	if (seed & 2)
		opts.rx_entries = opts.fill_entries = 64;
	/* half of the slice is for receive buffers: enough for those of wire.c */
	err = ctx_make(&ctx, chunk_size, 2 * PAIRS * share / chunk_size, 512);
	err = err ?: queue_make(&queue, &ctx, &opts);
	if (!err)
		fill_slice(&queue);
	return err;
}

void paste_close(void)
{
	differences += queue.bad;
	queue_close(&queue);
	ctx_close(&ctx);
}

static void deliver(struct side *s, const void *data, __u32 len)
{
	if (s->len + len <= STREAM)
		memcpy(s->data + s->len, data, len);
	s->len += len;
}

static void note_end(struct side *s, enum end end, int err)
{
	if (s->end != OPEN) {
		printf("# seed %u: a second end\n", s->pair->seed);
		differences++;
	}
	s->end = end;
	s->err = err;
}

static void take_entry(const struct paste_rx *e)
{
	struct side *s = by_handle[(__u16)e->conn];

	if (hooked && e->conn == marker)
		marks += e->len;
	else if (!s || s->handle != e->conn || s->end != OPEN) {
		printf("# an entry of connection %#x, which is not there\n", e->conn);
		differences++;
	} else if (e->flags & PASTE_RX_FIN) {
		note_end(s, FIN, 0);
	} else if (e->flags & PASTE_RX_ERR) {
		note_end(s, BROKEN, e->err);
	} else {
		deliver(s, chunk_at(&ctx, e->chunk, e->off), e->len);
	}
	if (e->len)
		fill_put(&queue, e->chunk);
}

static void take_completion(const struct paste_comp *e)
{
	struct side *s = &pairs[e->cookie / SENDS].side[1];

	s->result[e->cookie % SENDS] = e->result;
	s->n_done++;
}

/* All that paste has for us, also what waits for a sync. */
static void paste_service(void)
{
	__u64 end = now_ms() + SOON;
	struct paste_comp c;
	struct paste_rx e;

	for (;;) {
		while (rx_take(&queue, &e))
			take_entry(&e);
		while (comp_take(&queue, &c))
			take_completion(&c);
		if (!(*queue.flags & PASTE_Q_NEED_SYNC) || now_ms() > end)
			return;
		queue_sync(&queue, 0, 0);
	}
}

static void socket_service(struct side *s)
{
	static __u8 b[1 << 16];
	ssize_t n;

	while ((n = recv(s->fd, b, sizeof(b), MSG_DONTWAIT)) > 0)
		deliver(s, b, n);
	if (!n)
		note_end(s, FIN, 0);
	else if (errno != EAGAIN)
		note_end(s, BROKEN, errno);
}

/* What was sent has arrived. */
static void settle(void)
{
	__u64 end = now_ms() + SOON;
	bool there = wire_flush();

	marks_sent += hooked;
	while (there && marks != marks_sent) {
		queue_sync(&queue, 0, 10000);
		paste_service();
		there = now_ms() < end;
	}
	if (!there) {
		printf("# no mark comes back\n");
		differences++;
	}
}

void pairs_serve(void)
{
	settle();
	paste_service();
	for (unsigned int i = 0; i < 2 * n_pairs; i++) {
		struct side *s = &pairs[i / 2].side[i % 2];

		if (s->fd >= 0 && s->pair->reading && !s->attached && s->end == OPEN)
			socket_service(s);
	}
}

/* One of which the end is known already is not to be attached, and stays as it is. */
static void attach(struct side *s)
{
	if (s == &s->pair->side[0])
		return;
	s->attached = !queue_attach(&queue, s->fd, s->pair->seed & 4 ? 2 : 0, &s->handle);
	if (!s->attached)
		return;
	by_handle[(__u16)s->handle] = s;
	n_attached++;
}

static void detach(struct side *s)
{
	if (!s->attached)
		return;
	queue_detach(&queue, s->handle);
	s->attached = false;
}

/* A send; at its end FIN (PASTE_TX_SHUT_WR), or FIN and that was it (PASTE_TX_CLOSE). */
static void send_attached(struct side *s, __u32 len, __u32 flags)
{
	static __u32 next;
	unsigned int i = s->pair->sends;
	__u32 chunk = len ? ctx.first_tx + next++ % ctx.n_tx : 0;

	if (len)
		pattern_write(chunk_at(&ctx, chunk, 0), s->sent, len);
	tx_put(&queue, s->handle, chunk, 0, len, flags, (s->pair - pairs) * SENDS + i);
	queue_sync(&queue, 0, 0);
}

static void send_ordinary(struct side *s, __u32 len, __u32 flags)
{
	__u8 b[4096];
	ssize_t n = 0;

	pattern_write(b, s->sent, len);
	if (len)
		n = send(s->fd, b, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (flags)
		n = shutdown(s->fd, SHUT_WR);
	s->result[s->pair->sends] = n < 0 ? -errno : n;
	s->n_done++;
}

static void server_send(struct side *s, __u32 len, __u32 flags)
{
	if (s->attached)
		send_attached(s, len, flags);
	else
		send_ordinary(s, len, flags);
	s->sent += len;
}

static void server_close(struct side *s)
{
	server_send(s, 0, PASTE_TX_CLOSE);
	s->attached = false;
	paste_service();
	close(s->fd);
	s->fd = -1;
}

static void server_abort(struct side *s)
{
	struct linger now = { .l_onoff = 1 };

	if (s->fd < 0)
		return;
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	s->attached = false;
	close(s->fd);
	s->fd = -1;
}

/* -------------------------------------------------------------------- NIC --- */

static struct paste_xdp *xdp;
static int xdp_link = -1, marker_fd = -1;

bool can_hook(void)
{
	const char *driver = getenv("PASTE_NIC");

	return getenv("PASTE_IF") && driver &&
	       (!strcmp(driver, "ixgbe") || !strcmp(driver, "i40e"));
}

/* The library's program, for both of the hooked ports. */
static int attach_program(int ifindex)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);

	xdp = paste_xdp__open();
	if (!xdp)
		return -errno;
	for (int port = HOOKED; port < HOOKED + 2; port++)
		*(__u8 *)&xdp->rodata->paste_ports[port >> 3] |= 1 << (port & 7);
	if (paste_xdp__load(xdp))
		return -EINVAL;
	xdp_link = bpf_link_create(bpf_program__fd(xdp->progs.paste_redirect), ifindex, BPF_XDP,
				   &opts);
	return xdp_link < 0 ? xdp_link : 0;
}

static int bind_nic(int ifindex)
{
	__u16 ports[] = { HOOKED, HOOKED + 1 };
	struct paste_ioc_nic_bind a = {
		.size = sizeof(a),
		.text = (uintptr_t)text,
		.ifindex = ifindex,
		.ports = (uintptr_t)ports,
		.n_ports = 2,
	};
	int err = call(queue.fd, PASTE_IOC_NIC_BIND, &a);
	__u32 key = 0;

	err = err   ?:
		      bpf_map_update_elem(bpf_map__fd(xdp->maps.paste_xsks), &key, &a.xsk_fd,
					  BPF_ANY);
	if (!err)
		close(a.xsk_fd);
	return err;
}

/* Which families' SYNs to the port are answered? A bit for each. */
static unsigned int probe(__u16 port)
{
	static const struct segment syn = { .flags = TH_SYN, .win = 1000, .mss = 536 };
	static __u32 client = FLOOD_CLIENT;
	struct side other = { .flow = { .port = port } };
	unsigned int answered = 0;
	__u32 first = client;
	__u8 b[2048];
	struct reply r;
	ssize_t n;

	for (; client < first + 2; client++) {
		other.flow.client = client;
		other.flow.v6 = client & 1;
		side_send(&other, &syn);
	}
	wire_flush();
	marks_sent++;
	sleep_ms(10);
	while ((n = wire_read(b, sizeof(b))) > 0) {
		__u32 i = frames_parse(b, n, &r) - first;

		if (i < 2 && r.flags == (TH_SYN | TH_ACK))
			answered |= 1 << i;
	}
	return answered;
}

/* The driver begins anew when a program comes, and is not back at once. */
static bool nic_is_back(void)
{
	__u64 end = now_ms() + SOON;

	while (probe(PORT) != 3 || probe(HOOKED) != 3) {
		if (now_ms() > end)
			return false;
	}
	return true;
}

/* Bind the NIC, and attach the connection that relay has made. */
int hook(void)
{
	struct pollfd p = { .fd = listener[0][HOOKED - PORT], .events = POLLIN };
	int ifindex = if_nametoindex(getenv("PASTE_IF"));
	int err = paste_open(0);

	err = err ?: attach_program(ifindex);
	err = err ?: bind_nic(ifindex);
	if (err)
		return err;
	if (poll(&p, 1, SOON) != 1 || !nic_is_back())
		return -ETIMEDOUT;
	/* not those of the last run, which may still be in TIME_WAIT */
	first_client = getpid() % 4096 * 2 * PAIRS;
	marker_fd = accept4(p.fd, NULL, NULL, SOCK_CLOEXEC);
	return queue_attach(&queue, marker_fd, 0, &marker);
}

void unhook(void)
{
	close(marker_fd);
	close(xdp_link);
	if (xdp)
		paste_xdp__destroy(xdp);
	paste_close();
}

/* ------------------------------------------------------------------ steps --- */

/*
 * Windows may differ. So what is near the right edge lies within both of them, or
 * beyond both; at the edge itself only if they are the same.
 */
static __u32 near_edge(const struct pair *p, const struct segment *seg)
{
	__s32 more = p->side[1].edge - p->side[0].edge, off = seg->seq;

	if (off < 0)
		return p->side[more < 0].edge - (more ? seg->len + 1 : -seg->seq);
	return p->side[more > 0].edge + off + !!more;
}

/* Does a number lie within both windows, or beyond both? */
static bool same_side(const struct pair *p, __u32 seq)
{
	return ((__s32)(seq - p->side[0].edge) < 0) == ((__s32)(seq - p->side[1].edge) < 0);
}

/* What one may take and the other may not, because of its window, is lost. */
static bool is_for_both(const struct pair *p, const struct step *step)
{
	if (step->op != OP_SEGMENT || step->at_edge)
		return true;
	return same_side(p, step->seg.seq) && same_side(p, step->seg.seq + step->seg.len - 1);
}

static void do_segment(struct side *s, const struct step *step)
{
	struct segment seg = step->seg;

	if (step->at_edge)
		seg.seq = near_edge(s->pair, &seg);
	if (step->from_seen)
		seg.ack += s->seen;
	for (unsigned int i = 0; i < seg.n_sack; i++) {
		seg.sack[i][0] += seg.ack;
		seg.sack[i][1] += seg.ack;
	}
	side_send(s, &seg);
}

static void do_side(struct side *s, const struct step *step)
{
	switch (step->op) {
	case OP_SEGMENT:
		do_segment(s, step);
		break;
	case OP_ATTACH:
		attach(s);
		break;
	case OP_DETACH:
		detach(s);
		break;
	case OP_SEND:
		server_send(s, step->arg, 0);
		break;
	case OP_SHUT:
		server_send(s, 0, PASTE_TX_SHUT_WR);
		break;
	case OP_STOP:
		if (s->attached)
			queue_quota(&queue, s->handle, 0);
		break;
	case OP_START:
		if (s->attached)
			queue_quota(&queue, s->handle, 4);
		break;
	case OP_CLOSE:
		server_close(s);
		break;
	case OP_ABORT:
		server_abort(s);
		break;
	}
}

/* What the script knows of it. */
static void note_step(struct pair *p, const struct step *step)
{
	switch (step->op) {
	case OP_ATTACH:
		p->attached = p->was_attached = p->reading = true;
		break;
	case OP_DETACH:
		p->attached = false;
		break;
	case OP_STOP:
		p->reading = false;
		break;
	case OP_START:
		p->reading = true;
		break;
	case OP_CLOSE:
	case OP_ABORT:
		p->closed = true;
		p->attached = p->reading = false;
		break;
	default:
		break;
	}
	if (step->op == OP_SEND || step->op == OP_SHUT || step->op == OP_CLOSE)
		p->sends++;
	if (step->op == OP_SHUT || step->op == OP_CLOSE)
		p->shut = true;
}

void pair_do(struct pair *p, const struct step *step)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct side *s = &p->side[i ^ p->first];

		s->n_replies = 0;
		if (is_for_both(p, step))
			do_side(s, step);
	}
	note_step(p, step);
	p->tsval++;
	if (p->n_steps < STEPS_MAX)
		p->step[p->n_steps++] = *step;
}

/* ------------------------------------------------------------- comparison --- */

static bool same_blocks(const struct reply *a, const struct reply *b)
{
	return hooked || (a->n_sack == b->n_sack && !memcmp(a->sack, b->sack, sizeof(a->sack)));
}

static bool same_reply(const struct reply *a, const struct reply *b)
{
	return a->flags == b->flags && a->seq == b->seq && a->ack == b->ack && a->len == b->len &&
	       a->sum == b->sum && a->ts == b->ts && a->tsecr == b->tsecr && same_blocks(a, b);
}

/* Are all blocks of a in b? */
static bool has_blocks(const struct reply *a, const struct reply *b)
{
	for (unsigned int i = 0; i < a->n_sack; i++) {
		unsigned int k = 0;

		while (k < b->n_sack && memcmp(a->sack[i], b->sack[k], sizeof(a->sack[i])))
			k++;
		if (k == b->n_sack)
			return false;
	}
	return true;
}

/*
 * An ACK beside another segment of the step that acknowledges the same. What it
 * says of duplicates is said once, so the other one may have to be told.
 */
static bool is_update(struct side *s, unsigned int i)
{
	const struct reply *a = &s->reply[i];
	struct reply *b = s->reply;

	if (a->flags != TH_ACK || a->len)
		return false;
	for (; b < s->reply + s->n_replies; b++) {
		if (b == a || !(b->flags & TH_ACK) || b->flags & (TH_RST | TH_SYN) ||
		    b->ack != a->ack)
			continue;
		if (has_blocks(a, b))
			return true;
		if (!has_blocks(b, a))
			continue;
		b->n_sack = a->n_sack;
		memcpy(b->sack, a->sack, sizeof(b->sack));
		return true;
	}
	return false;
}

static void drop_updates(struct side *s)
{
	for (unsigned int i = 0; i < s->n_replies;) {
		if (is_update(s, i))
			memmove(&s->reply[i], &s->reply[i + 1],
				(--s->n_replies - i) * sizeof(s->reply[0]));
		else
			i++;
	}
}

static const char *difference(struct pair *p)
{
	const struct side *a = &p->side[0], *b = &p->side[1];

	if (a->len != b->len)
		return "number of bytes";
	if (memcmp(a->data, b->data, a->len < STREAM ? a->len : STREAM))
		return "bytes";
	if (a->end != b->end || a->err != b->err)
		return "end";
	if (a->n_replies != b->n_replies)
		return "number of answers";
	for (unsigned int i = 0; i < a->n_replies; i++) {
		if (!same_reply(&a->reply[i], &b->reply[i]))
			return "answer";
	}
	return NULL;
}

static void show_flags(__u8 flags)
{
	static const char letters[] = "FSRPAUEW";

	for (unsigned int i = 0; i < 8; i++) {
		if (flags & 1 << i)
			putchar(letters[i]);
	}
}

static void show_step(const struct step *s)
{
	printf("#   %s", op_names[s->op]);
	if (s->op == OP_SEGMENT) {
		putchar(' ');
		show_flags(s->seg.flags);
		printf(" %s%d+%u ack %s%d win %u", s->at_edge ? "edge " : "", s->seg.seq,
		       s->seg.len, s->from_seen ? "seen " : "", s->seg.ack, s->seg.win);
		if (s->seg.flags & TH_URG)
			printf(" urg %u", s->seg.urg);
		if (s->seg.key)
			printf(" key %#x", s->seg.key);
		if (s->seg.n_sack)
			printf(" sack %d-%d", s->seg.sack[0][0], s->seg.sack[0][1]);
		if (s->seg.odd)
			printf(" %s %u", oddity_name(s->seg.odd), s->seg.arg);
	} else if (s->arg) {
		printf(" %u", s->arg);
	}
	putchar('\n');
}

static void show_side(const struct side *s)
{
	printf("# %s: %u bytes, end %d errno %d; answers:\n",
	       s == &s->pair->side[0] ? "ordinary" : "attached", s->len, s->end, s->err);
	for (unsigned int i = 0; i < s->n_replies; i++) {
		const struct reply *r = &s->reply[i];

		printf("#   ");
		show_flags(r->flags);
		printf(" %d+%u ack %d win %u tsecr %u", r->seq, r->len, r->ack, r->win, r->tsecr);
		for (unsigned int k = 0; k < r->n_sack; k++)
			printf(" sack %d-%d", r->sack[k][0], r->sack[k][1]);
		putchar('\n');
	}
}

static void show_pair(const struct pair *p, const char *what)
{
	printf("# seed %u differs: %s. IPv%d mss %u ts %d small %d; the first is %s\n", p->seed,
	       what, p->side[0].flow.v6 ? 6 : 4, p->mss, p->side[0].flow.ts, p->small,
	       p->first ? "attached" : "ordinary");
	for (unsigned int i = 0; i < p->n_steps; i++)
		show_step(&p->step[i]);
	show_side(&p->side[0]);
	show_side(&p->side[1]);
	fflush(stdout);
}

static void differ(struct pair *p, const char *what)
{
	if (!p->differs && suspect[p - pairs] && differences++ < 5)
		show_pair(p, what);
	p->differs = true;
}

void pair_compare(struct pair *p)
{
	const char *what;

	drop_updates(&p->side[0]);
	drop_updates(&p->side[1]);
	what = difference(p);
	if (what)
		differ(p, what);
	else if (verbose)
		show_pair(p, "nothing");
}

/* What TCP has counted. */
void pair_compare_info(struct pair *p)
{
	struct tcp_info info[2] = {};
	socklen_t len = sizeof(info[0]), len2 = len;
	const struct tcp_info *a = &info[0], *b = &info[1];

	if (getsockopt(p->side[0].fd, IPPROTO_TCP, TCP_INFO, &info[0], &len) ||
	    getsockopt(p->side[1].fd, IPPROTO_TCP, TCP_INFO, &info[1], &len2))
		return differ(p, "TCP_INFO");
	if (a->tcpi_state != b->tcpi_state)
		differ(p, "state");
	else if (a->tcpi_bytes_received != b->tcpi_bytes_received ||
		 a->tcpi_segs_in != b->tcpi_segs_in ||
		 a->tcpi_data_segs_in != b->tcpi_data_segs_in ||
		 a->tcpi_rcv_ooopack != b->tcpi_rcv_ooopack)
		differ(p, "what was received");
	else if (a->tcpi_bytes_acked != b->tcpi_bytes_acked || a->tcpi_unacked != b->tcpi_unacked ||
		 a->tcpi_sacked != b->tcpi_sacked || a->tcpi_dsack_dups != b->tcpi_dsack_dups)
		differ(p, "what was acknowledged");
}

static void compare_sends(struct pair *p)
{
	for (unsigned int i = 0; i < p->sends; i++) {
		int a = p->side[0].result[i], b = p->side[1].result[i];

		if ((a > 0 ? a : 0) != (b > 0 ? b : 0))
			differ(p, "a send");
	}
}

/* ---------------------------------------------------------------- batches --- */
static bool take_syn_ack(struct side *s)
{
	const struct reply *r = &s->reply[0];

	if (s->n_replies != 1 || r->flags != (TH_SYN | TH_ACK)) {
		printf("# no SYN-ACK:\n");
		show_side(s);
		return false;
	}
	s->wscale = s->pair->syn.wscale ? r->wscale : 0;
	s->edge = r->win;
	s->n_replies = 0;
	return true;
}

/* Whose is the socket that was accepted? By the peer's address. */
static void take_accepted(int fd, const struct sockaddr_in6 *from)
{
	const struct sockaddr_in *from4 = (const void *)from;
	__u32 word;
	struct side *s;

	memcpy(&word, &from->sin6_addr.s6_addr[12], 4);
	s = side_of(from->sin6_family == AF_INET6 ? ntohl(word) :
						    ntohl(from4->sin_addr.s_addr) - CLIENTS_NET);
	if (s && s->fd < 0)
		s->fd = fd;
	else
		close(fd);
}

static void accept_all(void)
{
	struct sockaddr_in6 from;
	socklen_t len;
	int fd;

	for (unsigned int i = 0; i < 8; i++) {
		len = sizeof(from);
		while ((fd = accept4(listener[i / 4][i % 4], (struct sockaddr *)&from, &len,
				     SOCK_CLOEXEC)) >= 0) {
			take_accepted(fd, &from);
			len = sizeof(from);
		}
	}
}

static bool all_answered(void)
{
	bool all = true;

	pairs_collect();
	for (unsigned int i = 0; i < 2 * n_pairs; i++)
		all &= pairs[i / 2].side[i % 2].n_replies > 0;
	return all;
}

static bool all_accepted(void)
{
	bool all = true;

	accept_all();
	for (unsigned int i = 0; i < 2 * n_pairs; i++)
		all &= pairs[i / 2].side[i % 2].fd >= 0;
	return all;
}

/* What a NIC brings may be under way on another CPU still when the mark is here. */
static bool soon(bool (*there)(void))
{
	__u64 end = now_ms() + (hooked ? SOON : 0);

	settle();
	while (!there()) {
		if (now_ms() >= end)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* Handshakes. True: all connections are there. */
bool pairs_connect(void)
{
	bool good = true;

	for (unsigned int i = 0; i < n_pairs; i++) {
		for (unsigned int k = 0; k < 2; k++)
			side_send(&pairs[i].side[k ^ pairs[i].first], &pairs[i].syn);
	}
	soon(all_answered);
	for (unsigned int i = 0; i < n_pairs; i++) {
		for (unsigned int k = 0; k < 2; k++) {
			struct side *s = &pairs[i].side[k ^ pairs[i].first];
			struct segment ack = { .flags = TH_ACK,
					       .win = pairs[i].win,
					       .tsval = pairs[i].tsval };

			good &= take_syn_ack(s);
			side_send(s, &ack);
		}
	}
	good &= soon(all_accepted);
	pairs_collect();
	return good;
}

/* Nothing is left of the connections, whatever became of them. */
void pairs_end(void)
{
	__u64 end = now_ms() + SOON;

	for (unsigned int i = 0; i < 2 * n_pairs; i++) {
		struct side *s = &pairs[i / 2].side[i % 2];
		struct segment reset = { .flags = TH_RST, .seq = s->acked };

		server_abort(s);
		side_send(s, &reset);
	}
	settle();
	pairs_collect();
	for (unsigned int i = 0; i < n_pairs; i++) {
		while (pairs[i].side[1].n_done < pairs[i].sends && now_ms() < end) {
			queue_sync(&queue, 0, 0);
			paste_service();
		}
		compare_sends(&pairs[i]);
	}
	memset(by_handle, 0, sizeof(by_handle));
	if (!hooked)
		paste_close();
	first_client = (first_client + 2 * n_pairs) % FLOOD_CLIENT;
}
