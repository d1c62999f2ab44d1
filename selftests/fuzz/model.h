/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is a plain TCP segment, said once more: byte by byte from the prose of
 * the uapi header, of parse.h and of rx.c, without a look at their code.
 *
 *   Ethernet II without a VLAN tag; IPv4 without options that is no fragment,
 *   or IPv6 without extension headers; a TCP header that is complete, and all
 *   of the length that the IP header states lies in the frame. Bytes behind
 *   that are padding.
 */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model {
	const uint8_t *src, *dst;
	size_t addr_len;
	unsigned int src_port, dst_port;
	size_t headers; /* length of all headers */
	size_t total;	/* headers and payload, without padding */
};

static inline unsigned int model_u16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static inline bool model_ipv4(const uint8_t *ip, size_t have, struct model *m)
{
	if (have < 20)
		return false;
	if (ip[0] != 0x45) /* version 4, five words */
		return false;
	if ((ip[6] & 0x3f) || ip[7]) /* all but the reserved bit and DF */
		return false;
	if (ip[9] != 6)
		return false;
	m->src = ip + 12;
	m->dst = ip + 16;
	m->addr_len = 4;
	m->headers = 14 + 20;
	m->total = 14 + model_u16(ip + 2);
	return true;
}

static inline bool model_ipv6(const uint8_t *ip, size_t have, struct model *m)
{
	if (have < 40)
		return false;
	if (ip[0] >> 4 != 6)
		return false;
	if (ip[6] != 6) /* the next header is TCP's, not an extension */
		return false;
	m->src = ip + 8;
	m->dst = ip + 24;
	m->addr_len = 16;
	m->headers = 14 + 40;
	m->total = 14 + 40 + model_u16(ip + 4);
	return true;
}

static inline bool model_segment(const uint8_t *f, size_t len, struct model *m)
{
	const uint8_t *tcp;
	size_t tcp_header;
	bool ip;

	if (len < 14)
		return false;
	if (model_u16(f + 12) == 0x0800)
		ip = model_ipv4(f + 14, len - 14, m);
	else
		ip = model_u16(f + 12) == 0x86dd && model_ipv6(f + 14, len - 14, m);
	if (!ip || len < m->headers + 20)
		return false;
	tcp = f + m->headers;
	tcp_header = (tcp[12] >> 4) * 4;
	if (tcp_header < 20)
		return false;
	m->src_port = model_u16(tcp);
	m->dst_port = model_u16(tcp + 2);
	m->headers += tcp_header;
	return m->headers <= m->total && m->total <= len;
}

#endif
