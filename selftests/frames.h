/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Frames of a TCP peer, built by hand: right ones, and such as no sane peer
 * sends. And what a server's TCP answered, taken apart.
 *
 * Sequence numbers count from the first byte of a stream, so that two
 * connections that were treated alike have the same ones.
 */
#ifndef SELFTESTS_FRAMES_H
#define SELFTESTS_FRAMES_H

#include <stdbool.h>
#include <linux/types.h>

#define FRAME_MAX   9216
#define FRAMES_MAX  4 /* that one segment can become */
#define SACK_MAX    4
#define CLIENTS_NET 0x0a400000 /* 10.64.0.0/10; and fd64::/16 */

#define TH_FIN	    0x01
#define TH_SYN	    0x02
#define TH_RST	    0x04
#define TH_PSH	    0x08
#define TH_ACK	    0x10
#define TH_URG	    0x20

struct frame {
	__u32 len;
	__u8 b[FRAME_MAX];
};

/* The two ends of the wire. */
struct wire_ends {
	__u8 server_mac[6], peer_mac[6];
	__u8 server4[4], server6[16];
};

/* A connection. */
struct flow {
	bool v6;
	bool ts;	 /* has timestamps */
	__u16 port;	 /* the server's */
	__u32 client;	 /* number of the peer's address */
	__u32 peer_base; /* sequence number of the peer's first byte */
	__u32 base;	 /* ... of the server's */
	__u32 ts_recent; /* the server's timestamp that the peer echoes */
};

/* What is odd about a segment, apart from its numbers. */
enum oddity {
	NORMAL,
	/* Ethernet */
	ETH_VLAN0,
	ETH_VLAN5,
	ETH_QINQ,
	ETH_8023,
	ETH_CUT,
	ETH_PAD,
	ETH_OTHER,
	ETH_BROADCAST,
	/* IPv4, and the like in IPv6 */
	IP_SUM,
	IP_VERSION,
	IP_IHL,
	IP_LONG,
	IP_CUT,
	IP_PROTO,
	IP_TTL0,
	/* options of IPv4, extension headers of IPv6 */
	IP_NOPS,
	IP_ROUTE,
	IP_OPT_BAD,
	IP_CHAIN,
	/* fragments */
	FRAG,
	FRAG_REVERSED,
	FRAG_TWICE,
	FRAG_MISSING,
	FRAG_OVERLAP,
	FRAG_TINY,
	FRAG_ALONE,
	/* TCP's header */
	TCP_SUM,
	TCP_DOFF_SMALL,
	TCP_DOFF_LONG,
	TCP_NO_FLAGS,
	TCP_ALL_FLAGS,
	TCP_RESERVED,
	TCP_ECN,
	/* TCP's options */
	TS_OLD,
	TS_FUTURE,
	TS_NONE,
	TS_ECHO,
	OPT,
	N_ODDITIES
};

/* A segment of the peer. */
struct segment {
	__u8 flags;
	__u8 wscale; /* SYN only: shift and 1, 0 for none */
	__u16 win;
	__u16 urg;
	__u16 mss;    /* SYN only */
	bool sack_ok; /* SYN only */
	__u8 n_sack;
	__u32 seq;
	__u32 ack;
	__u32 len;
	__u32 key; /* another content: 0 for the right one */
	__u32 tsval;
	__u32 sack[SACK_MAX][2]; /* in the server's stream */
	enum oddity odd;
	__u32 arg; /* of the oddity */
};

/* A segment of the server. */
struct reply {
	__u8 flags;
	__u8 n_sack;
	__u8 wscale; /* SYN only */
	bool ts;
	__u16 win;
	__u32 seq;
	__u32 ack;
	__u32 len;
	__u32 sum; /* of the payload */
	__u32 tsval;
	__u32 tsecr;
	__u32 sack[SACK_MAX][2]; /* in the peer's stream */
};

extern struct wire_ends wire_ends;

const char *oddity_name(enum oddity odd);
/* How many frames the segment became. */
unsigned int frames_build(struct frame *out, const struct flow *f, const struct segment *s);
/* The frame's client, or -1 if it is no TCP for one. Numbers are those of the frame. */
int frames_parse(const __u8 *b, __u32 len, struct reply *r);
/* Count from where the flow's streams begin. */
void frames_relate(struct reply *r, const struct flow *f);

#endif
