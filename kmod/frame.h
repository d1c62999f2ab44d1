/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which frames are plain TCP segments, and what their headers say. No kernel
 * object is used, so that the fuzzer compiles this file in user space.
 *
 * Only the copy in raw is looked at, and of it only what was copied.
 */
#ifndef PASTE_FRAME_H
#define PASTE_FRAME_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define PASTE_FRAME_FRAGMENT 0x3fff /* of IPv4's frag_off: more fragments, or an offset */

/* Ethernet, IPv6 without extensions (IPv4 without options is shorter), TCP with all options. */
#define PASTE_FRAME_HDR_MAX (ETH_HLEN + sizeof(struct ipv6hdr) + 60)

/* A TCP flow as its frames name it. IPv4 as v4-mapped. */
struct paste_flow {
	struct in6_addr remote, local;
	__be16 remote_port, local_port;
	u32 hash; /* of these, see rx.c; so there is no padding in the table's key */
	struct net *net;
};

/* A frame's headers, copied, and what was found in them. */
struct paste_frame {
	u8 raw[PASTE_FRAME_HDR_MAX] __aligned(4);
	struct paste_flow flow;
	u32 tcp_off; /* the TCP header */
	u32 hdr_len; /* headers */
	u32 len;     /* headers and payload, without padding */
};

static inline const struct tcphdr *paste_frame_tcp(const struct paste_frame *h)
{
	return (void *)h->raw + h->tcp_off;
}

static inline bool paste_frame_parse_ipv4(struct paste_frame *h, u32 len)
{
	const struct iphdr *ip = (void *)h->raw + ETH_HLEN;

	if (len < ETH_HLEN + sizeof(*ip) + sizeof(struct tcphdr) || ip->version != 4 ||
	    ip->ihl != 5 || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & htons(PASTE_FRAME_FRAGMENT))
		return false;
	ipv6_addr_set_v4mapped(ip->saddr, &h->flow.remote);
	ipv6_addr_set_v4mapped(ip->daddr, &h->flow.local);
	h->hdr_len = ETH_HLEN + sizeof(*ip);
	h->len = ETH_HLEN + ntohs(ip->tot_len);
	return true;
}

static inline bool paste_frame_parse_ipv6(struct paste_frame *h, u32 len)
{
	const struct ipv6hdr *ip = (void *)h->raw + ETH_HLEN;

	if (len < ETH_HLEN + sizeof(*ip) + sizeof(struct tcphdr) || ip->version != 6 ||
	    ip->nexthdr != IPPROTO_TCP)
		return false;
	h->flow.remote = ip->saddr;
	h->flow.local = ip->daddr;
	h->hdr_len = ETH_HLEN + sizeof(*ip);
	h->len = h->hdr_len + ntohs(ip->payload_len);
	return true;
}

/* h->raw has the first bytes of a frame of len bytes. */
static inline bool paste_frame_parse(struct paste_frame *h, u32 len)
{
	const struct ethhdr *eth = (void *)h->raw;
	const struct tcphdr *th;

	if (len < ETH_HLEN)
		return false;
	if (eth->h_proto == htons(ETH_P_IP) ?
		    !paste_frame_parse_ipv4(h, len) :
		    eth->h_proto != htons(ETH_P_IPV6) || !paste_frame_parse_ipv6(h, len))
		return false;
	h->tcp_off = h->hdr_len;
	th = paste_frame_tcp(h);
	h->hdr_len += th->doff * 4;
	h->flow.remote_port = th->source;
	h->flow.local_port = th->dest;
	return th->doff >= 5 && h->hdr_len <= h->len && h->len <= len;
}

#endif /* PASTE_FRAME_H */
