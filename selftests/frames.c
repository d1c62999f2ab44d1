// SPDX-License-Identifier: GPL-2.0
/* A TCP peer's frames, see frames.h. */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <string.h>

#include "frames.h"
#include "util.h"

struct wire_ends wire_ends;

#define NAME(oddity) [oddity] = #oddity

const char *oddity_name(enum oddity odd)
{
	static const char *const names[] = {
		NAME(NORMAL),	      NAME(ETH_VLAN0),	   NAME(ETH_VLAN5),    NAME(ETH_QINQ),
		NAME(ETH_8023),	      NAME(ETH_CUT),	   NAME(ETH_PAD),      NAME(ETH_OTHER),
		NAME(ETH_BROADCAST),  NAME(IP_SUM),	   NAME(IP_VERSION),   NAME(IP_IHL),
		NAME(IP_LONG),	      NAME(IP_CUT),	   NAME(IP_PROTO),     NAME(IP_TTL0),
		NAME(IP_NOPS),	      NAME(IP_ROUTE),	   NAME(IP_OPT_BAD),   NAME(IP_CHAIN),
		NAME(FRAG),	      NAME(FRAG_REVERSED), NAME(FRAG_TWICE),   NAME(FRAG_MISSING),
		NAME(FRAG_OVERLAP),   NAME(FRAG_TINY),	   NAME(FRAG_ALONE),   NAME(TCP_SUM),
		NAME(TCP_DOFF_SMALL), NAME(TCP_DOFF_LONG), NAME(TCP_NO_FLAGS), NAME(TCP_ALL_FLAGS),
		NAME(TCP_RESERVED),   NAME(TCP_ECN),	   NAME(TS_OLD),       NAME(TS_FUTURE),
		NAME(TS_NONE),	      NAME(TS_ECHO),	   NAME(OPT),
	};

	return names[odd];
}

/* ------------------------------------------------------------- small things --- */

static __u8 *put8(__u8 *p, __u32 v)
{
	*p = v;
	return p + 1;
}

static __u8 *put16(__u8 *p, __u32 v)
{
	return put8(put8(p, v >> 8), v);
}

static __u8 *put32(__u8 *p, __u32 v)
{
	return put16(put16(p, v >> 16), v);
}

static __u8 *put(__u8 *p, const void *data, __u32 len)
{
	memcpy(p, data, len);
	return p + len;
}

static __u32 get16(const __u8 *p)
{
	return p[0] << 8 | p[1];
}

static __u32 get32(const __u8 *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static __u32 sum16(const __u8 *p, __u32 len, __u32 sum)
{
	for (; len > 1; len -= 2, p += 2)
		sum += get16(p);
	if (len)
		sum += *p << 8;
	return sum;
}

static __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __u8 *put_client(__u8 *p, const struct flow *f)
{
	static const __u8 net[12] = { 0xfd, 0x64 };

	return f->v6 ? put32(put(p, net, 12), f->client) : put32(p, CLIENTS_NET + f->client);
}

static __u8 *put_server(__u8 *p, const struct flow *f)
{
	return f->v6 ? put(p, wire_ends.server6, 16) : put(p, wire_ends.server4, 4);
}

/* --------------------------------------------------------------------- TCP --- */

/* Options that a peer might send now, though it should not, or not like this. */
static __u8 *put_odd_option(__u8 *p, __u32 which)
{
	static const struct {
		__u8 len;
		__u8 b[20];
	} odd[] = {
		{ 2, { 0x42, 0 } },			 /* no length */
		{ 2, { 0x42, 1 } },			 /* shorter than itself */
		{ 2, { 0x42, 40 } },			 /* longer than the header */
		{ 1, { 0x42 } },			 /* cut */
		{ 6, { 0xfd, 6, 0xf9, 0x89, 1, 2 } },	 /* unknown */
		{ 18, { 19, 18, 1, 2, 3, 4, 5, 6, 7 } }, /* a signature that nobody asked for */
		{ 3, { 3, 3, 14 } },			 /* these are for SYN */
		{ 4, { 2, 4, 0, 64 } },
		{ 2, { 4, 2 } },
		{ 4, { 8, 4, 1, 2 } },		      /* a short timestamp */
		{ 9, { 5, 9, 0, 0, 0, 1, 0, 0, 0 } }, /* half a block */
		{ 4, { 30, 4, 0, 1 } },		      /* MPTCP */
		{ 6, { 34, 6, 1, 2, 3, 4 } },	      /* Fast Open */
		{ 3, { 0, 0x42, 0 } },		      /* behind the end */
	};

	which %= ARRAY_SIZE(odd);
	return put(p, odd[which].b, odd[which].len);
}

static __u8 *put_timestamp(__u8 *p, const struct flow *f, const struct segment *s)
{
	__u32 tsval = s->tsval, tsecr = f->ts_recent;

	if (s->odd == TS_OLD)
		tsval -= 1 + s->arg % 0x100000;
	else if (s->odd == TS_FUTURE)
		tsval += s->arg % 0x100000;
	else if (s->odd == TS_ECHO)
		tsecr = s->arg;
	return put32(put32(put32(p, 0x0101080a), tsval), tsecr);
}

static __u8 *put_options(__u8 *p, const struct flow *f, const struct segment *s)
{
	const __u8 *begin = p;

	if (s->flags & TH_SYN && s->mss)
		p = put16(put16(p, 0x0204), s->mss);
	if (s->flags & TH_SYN && s->sack_ok)
		p = put32(p, 0x01010402);
	if (s->flags & TH_SYN && s->wscale)
		p = put32(p, 0x01030300 + s->wscale - 1);
	if (f->ts && s->odd != TS_NONE)
		p = put_timestamp(p, f, s);
	if (s->n_sack)
		p = put16(put16(p, 0x0101), 0x0502 + 8 * s->n_sack);
	for (unsigned int i = 0; i < s->n_sack; i++)
		p = put32(put32(p, f->base + s->sack[i][0]), f->base + s->sack[i][1]);
	if (s->odd == OPT)
		p = put_odd_option(p, s->arg);
	while ((p - begin) % 4)
		*p++ = 0;
	return p;
}

static void put_content(__u8 *p, const struct segment *s)
{
	pattern_write(p, s->seq, s->len);
	for (__u32 i = 0; s->key && i < s->len; i++)
		p[i] ^= s->key;
}

static __u16 tcp_sum(const struct flow *f, const __u8 *tcp, __u32 len)
{
	__u8 addresses[32];
	__u8 *end = put_server(put_client(addresses, f), f);

	return fold(sum16(tcp, len, sum16(addresses, end - addresses, len + IPPROTO_TCP)));
}

static __u32 put_tcp(__u8 *tcp, const struct flow *f, const struct segment *s)
{
	__u8 *p = put_options(tcp + 20, f, s);
	__u32 doff = (p - tcp) / 4, flags = s->flags, len = p - tcp + s->len;

	if (s->odd == TCP_DOFF_SMALL)
		doff = s->arg % 5;
	else if (s->odd == TCP_DOFF_LONG)
		doff = 15;
	else if (s->odd == TCP_NO_FLAGS)
		flags = 0;
	else if (s->odd == TCP_ALL_FLAGS)
		flags = 0xff;
	else if (s->odd == TCP_ECN)
		flags |= 0xc0;
	put_content(p, s);
	p = put16(put16(tcp, 10000 + f->client % 50000), f->port);
	p = put32(put32(p, f->peer_base + s->seq), flags & TH_ACK ? f->base + s->ack : 0);
	p = put8(p, doff << 4 | (s->odd == TCP_RESERVED ? 0xe : 0));
	p = put16(put16(put16(put8(p, flags), s->win), 0), s->urg);
	put16(tcp + 16, tcp_sum(f, tcp, len) ^ (s->odd == TCP_SUM ? s->arg % 0xffff + 1 : 0));
	return len;
}

/* ---------------------------------------------------------------------- IP --- */

/* A piece of an IP packet's payload. */
struct piece {
	const __u8 *data;
	__u32 len;
	__u32 off; /* in the packet */
	bool more;
	bool fragment;
	__u32 id;
};

static __u8 *put_ethernet(__u8 *p, const struct flow *f, enum oddity odd, __u32 arg)
{
	static const __u8 other[6] = { 2, 0, 0, 9, 9, 9 };

	p = put(p, odd == ETH_OTHER ? other : wire_ends.server_mac, 6);
	if (odd == ETH_BROADCAST)
		memset(p - 6, 0xff, 6);
	p = put(p, wire_ends.peer_mac, 6);
	if (odd == ETH_QINQ)
		p = put16(put16(p, ETH_P_8021AD), 7);
	if (odd == ETH_VLAN0 || odd == ETH_VLAN5 || odd == ETH_QINQ)
		p = put16(put16(p, ETH_P_8021Q), odd == ETH_VLAN0 ? 0 : 5);
	if (odd == ETH_8023)
		return put16(p, arg % 1500);
	return put16(p, f->v6 ? ETH_P_IPV6 : ETH_P_IP);
}

/* What the header says of the length, when that is wrong. */
static __u32 odd_length(__u32 len, enum oddity odd, __u32 arg)
{
	if (odd == IP_LONG)
		return len + 1 + arg % 2000;
	return odd == IP_CUT ? arg % len : len;
}

static __u32 ipv4_options(__u8 *p, enum oddity odd)
{
	memset(p, 1, 8);
	switch (odd) {
	case IP_ROUTE:
		put32(p, 0x07070400); /* record the route */
		return 8;
	case IP_OPT_BAD:
		put16(p, 0x0750);
		return 8;
	case IP_NOPS:
	case IP_CHAIN:
		return 8;
	default:
		return 0;
	}
}

static __u8 *put_ipv4(__u8 *ip, const struct flow *f, const struct piece *c, enum oddity odd,
		      __u32 arg)
{
	__u32 hdr = 20 + ipv4_options(ip + 20, odd);
	__u8 *p = put8(ip, (odd == IP_VERSION ? 5 : 4) << 4 | (odd == IP_IHL ? arg % 5 : hdr / 4));

	p = put16(put8(p, 0), odd_length(hdr + c->len, odd, arg));
	p = put16(put16(p, c->id), (c->more ? 0x2000 : 0) | c->off / 8);
	p = put8(put8(p, odd == IP_TTL0 ? 0 : 64), odd == IP_PROTO ? IPPROTO_UDP : IPPROTO_TCP);
	put_server(put_client(put16(p, 0), f), f);
	put16(ip + 10, fold(sum16(ip, hdr, 0)) ^ (odd == IP_SUM ? arg % 0xffff + 1 : 0));
	return put(ip + hdr, c->data, c->len);
}

/* A chain of extension headers. Returns its length; the packet's next header is in *next. */
static __u32 ipv6_extensions(__u8 *p, const struct piece *c, enum oddity odd, __u8 *next)
{
	static const __u8 pad[6] = { 0, 1, 4 };
	__u8 *begin = p;

	*next = odd == IP_PROTO ? IPPROTO_NONE : IPPROTO_TCP;
	if (odd == IP_NOPS || odd == IP_CHAIN) { /* destination options, padding only */
		p = put(put8(p, *next), pad, 6) + 1;
		p[-1] = 0;
		*next = IPPROTO_DSTOPTS;
	}
	if (odd == IP_ROUTE) { /* routing header, nothing left to visit */
		p = put32(put32(p, *next << 24), 0);
		*next = IPPROTO_ROUTING;
	}
	if (odd == IP_OPT_BAD) { /* hop by hop, with an option that says: discard */
		p = put32(put32(p, *next << 24 | 0x4204), 0);
		*next = IPPROTO_HOPOPTS;
	}
	if (c->fragment || odd == IP_CHAIN) {
		memmove(begin + 8, begin, p - begin);
		put32(put32(begin, *next << 24 | c->off | c->more), c->id);
		p += 8;
		*next = IPPROTO_FRAGMENT;
	}
	return p - begin;
}

static __u8 *put_ipv6(__u8 *ip, const struct flow *f, const struct piece *c, enum oddity odd,
		      __u32 arg)
{
	__u8 next;
	__u32 ext = ipv6_extensions(ip + 40, c, odd, &next);
	__u8 *p = put32(ip, (odd == IP_VERSION ? 5U : 6U) << 28);

	p = put8(put16(p, odd_length(ext + c->len, odd, arg)), next);
	put_server(put_client(put8(p, odd == IP_TTL0 ? 0 : 64), f), f);
	return put(ip + 40 + ext, c->data, c->len);
}

static void put_frame(struct frame *out, const struct flow *f, const struct piece *c,
		      enum oddity odd, __u32 arg)
{
	__u8 *p = put_ethernet(out->b, f, odd, arg);

	p = (f->v6 ? put_ipv6 : put_ipv4)(p, f, c, odd, arg);
	if (odd == ETH_PAD) {
		memset(p, 0x5a, 64);
		p += 1 + arg % 64;
	}
	out->len = p - out->b;
	if (odd == ETH_CUT)
		out->len = 14 + arg % (out->len - 14);
}

/* Fragments of what is at data: two, cut at a multiple of 8. */
static unsigned int put_fragments(struct frame *out, const struct flow *f, const struct segment *s,
				  const __u8 *data, __u32 len)
{
	static __u32 ids;
	__u32 cut = s->odd == FRAG_TINY || len < 24 ? 8 : 8 + s->arg % (len / 8 - 1) * 8;
	struct piece one = { data, cut, 0, true, true, ++ids }, two = one;
	bool reversed = s->odd == FRAG_REVERSED;

	two.more = false;
	two.off = s->odd == FRAG_OVERLAP ? cut - 8 : cut;
	two.data += two.off;
	two.len = len - two.off;
	put_frame(&out[reversed], f, &one, s->odd, s->arg);
	if (s->odd == FRAG_MISSING)
		return 1;
	put_frame(&out[!reversed], f, &two, s->odd, s->arg);
	if (s->odd != FRAG_TWICE)
		return 2;
	put_frame(&out[2], f, &two, s->odd, s->arg);
	return 3;
}

unsigned int frames_build(struct frame *out, const struct flow *f, const struct segment *s)
{
	__u8 tcp[FRAME_MAX];
	__u32 len = put_tcp(tcp, f, s);
	struct piece whole = { tcp, len, 0, false, s->odd == FRAG_ALONE, s->arg };

	if (s->odd >= FRAG && s->odd < FRAG_ALONE)
		return put_fragments(out, f, s, tcp, len);
	put_frame(out, f, &whole, s->odd, s->arg);
	return 1;
}

/* ----------------------------------------------------------------- replies --- */

static void parse_sack(struct reply *r, const __u8 *p, __u32 len)
{
	for (; len >= 8 && r->n_sack < SACK_MAX; len -= 8, p += 8) {
		r->sack[r->n_sack][0] = get32(p);
		r->sack[r->n_sack++][1] = get32(p + 4);
	}
}

static void parse_options(struct reply *r, const __u8 *p, const __u8 *end)
{
	for (; p + 1 < end && *p; p += *p == 1 ? 1 : p[1]) {
		if (*p == 1)
			continue;
		if (p[1] < 2 || p + p[1] > end)
			return;
		if (p[0] == 3 && p[1] == 3)
			r->wscale = p[2];
		if (p[0] == 8 && p[1] == 10) {
			r->ts = true;
			r->tsval = get32(p + 2);
			r->tsecr = get32(p + 6);
		}
		if (p[0] == 5)
			parse_sack(r, p + 2, p[1] - 2);
	}
}

static bool parse_tcp(struct reply *r, const __u8 *tcp, __u32 len)
{
	__u32 hdr;

	if (len < 20)
		return false;
	hdr = (tcp[12] >> 4) * 4;
	if (hdr < 20 || hdr > len)
		return false;
	memset(r, 0, sizeof(*r));
	r->seq = get32(tcp + 4);
	r->ack = get32(tcp + 8);
	r->flags = tcp[13];
	r->win = get16(tcp + 14);
	r->len = len - hdr;
	for (__u32 i = hdr; i < len; i++)
		r->sum = r->sum * 31 + tcp[i];
	parse_options(r, tcp + 20, tcp + hdr);
	return true;
}

int frames_parse(const __u8 *b, __u32 len, struct reply *r)
{
	const __u8 *ip = b + ETH_HLEN;
	__u32 client, hdr;

	if (len < ETH_HLEN + 40)
		return -1;
	if (get16(b + 12) == ETH_P_IP) {
		client = get32(ip + 16) - CLIENTS_NET;
		hdr = (ip[0] & 15) * 4; /* a reset has the options of what it answers */
		if (client >> 22 || ip[9] != IPPROTO_TCP || get16(ip + 2) + ETH_HLEN > len ||
		    !parse_tcp(r, ip + hdr, get16(ip + 2) - hdr))
			return -1;
	} else {
		client = get32(ip + 36);
		if (get16(b + 12) != ETH_P_IPV6 || get16(ip + 24) != 0xfd64 ||
		    ip[6] != IPPROTO_TCP || get16(ip + 4) + 40 + ETH_HLEN > len ||
		    !parse_tcp(r, ip + 40, get16(ip + 4)))
			return -1;
	}
	return client;
}

void frames_relate(struct reply *r, const struct flow *f)
{
	if (r->seq || !(r->flags & TH_RST)) /* a reset may have no number */
		r->seq -= f->base;
	if (r->flags & TH_ACK)
		r->ack -= f->peer_base;
	for (unsigned int i = 0; i < r->n_sack; i++) {
		r->sack[i][0] -= f->peer_base;
		r->sack[i][1] -= f->peer_base;
	}
}
