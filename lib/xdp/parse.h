/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Which frames go to the module: a pure function of the frame's bytes and the
 * set of ports, shared by the BPF program and by tests in user space.
 *
 * Only what the module can place is taken, everything else lives its normal
 * life in the kernel: Ethernet II without a VLAN tag, IPv4 without options that
 * is no fragment or IPv6 without extension headers, and a TCP header that is
 * complete in the frame and in the length that the IP header states. The
 * module checks all of it again; a frame that it must refuse is lost, so in
 * doubt a frame is not taken here.
 */
#ifndef PASTE_XDP_PARSE_H
#define PASTE_XDP_PARSE_H

#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>

#define PASTE_XDP_PORT_BYTES 8192   /* a bit for each TCP port */
#define PASTE_XDP_FRAGMENT   0x3fff /* more fragments, or an offset */

/* The end of the IPv4 packet's TCP header, as offsets: 0 if it is not for us. */
static __always_inline __u32 paste_xdp_ipv4_len(const struct iphdr *ip)
{
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
		return 0;
	if (ip->frag_off & bpf_htons(PASTE_XDP_FRAGMENT))
		return 0;
	return bpf_ntohs(ip->tot_len);
}

static __always_inline __u32 paste_xdp_ipv6_len(const struct ipv6hdr *ip)
{
	if (ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
		return 0;
	return bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip);
}

/*
 * tcp follows an IP header of ip_hdr bytes; ip_len is what that header says of
 * the packet's length. Is its destination one of the ports?
 */
static __always_inline bool paste_xdp_tcp(const struct tcphdr *tcp, const void *end, __u32 ip_hdr,
					  __u32 ip_len, const volatile __u8 *ports)
{
	__u32 hdr, port;

	if ((const void *)(tcp + 1) > end)
		return false;
	hdr = tcp->doff * 4U;
	if (hdr < sizeof(*tcp) || (const char *)tcp + hdr > (const char *)end)
		return false;
	if (ip_len < ip_hdr + hdr || (const char *)tcp + (ip_len - ip_hdr) > (const char *)end)
		return false;
	port = bpf_ntohs(tcp->dest);
	return ports[port >> 3] & (1U << (port & 7));
}

/* Is the frame between data and end a TCP segment to one of the ports? */
static __always_inline bool paste_xdp_take(const void *data, const void *end,
					   const volatile __u8 *ports)
{
	const struct ethhdr *eth = data;
	const struct ipv6hdr *ip6 = (const void *)(eth + 1);
	const struct iphdr *ip4 = (const void *)(eth + 1);

	if ((const void *)(eth + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if ((const void *)(ip4 + 1) > end)
			return false;
		return paste_xdp_tcp((const void *)(ip4 + 1), end, sizeof(*ip4),
				     paste_xdp_ipv4_len(ip4), ports);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if ((const void *)(ip6 + 1) > end)
			return false;
		return paste_xdp_tcp((const void *)(ip6 + 1), end, sizeof(*ip6),
				     paste_xdp_ipv6_len(ip6), ports);
	}
	return false;
}

#endif /* PASTE_XDP_PARSE_H */
