// SPDX-License-Identifier: GPL-2.0
/*
 * kmod/frame.h against the model: the same verdict for every frame, and for an
 * accepted one the same lengths and the same flow. Bytes that were not copied
 * must not matter: each frame is parsed over two different backgrounds.
 *
 * The first byte of the input says which fields are put right before, so that
 * the fuzzer need not find them: a frame that is right but for one field is
 * what matters most.
 */
#include <asm/byteorder.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/shim.h"
#include "model.h"

#define __aligned(n) __attribute__((aligned(n)))
#define htons(x)     __cpu_to_be16(x)
#define ntohs(x)     __be16_to_cpu(x)

static void ipv6_addr_set_v4mapped(__be32 addr, struct in6_addr *v6)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(v6, prefix, sizeof(prefix));
	memcpy((uint8_t *)v6 + 12, &addr, 4);
}

#include "frame.h"

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void put_right(uint8_t *f, size_t len, uint8_t which)
{
	bool v6 = which & 1;
	size_t ip = 14, tcp = ip + (v6 ? 40 : 20);

	if (len < tcp + 20)
		return;
	if (which & 2)
		memcpy(f + 12, v6 ? "\x86\xdd" : "\x08\x00", 2);
	if (which & 4)
		f[ip] = v6 ? 0x60 : 0x45;
	if (which & 8)
		f[ip + (v6 ? 6 : 9)] = 6;
	if (which & 16 && !v6) {
		f[ip + 6] &= 0xe0; /* the bits are the input's, an offset there is not */
		f[ip + 7] = 0;
	}
	if (which & 32) {
		size_t total = len - ip - (v6 ? 40 : 0);

		f[ip + (v6 ? 4 : 2)] = total >> 8;
		f[ip + (v6 ? 5 : 3)] = total;
	}
	if (which & 64)
		f[tcp + 12] |= 0x50;
}

static bool parse(struct paste_frame *h, const uint8_t *f, size_t len, int background)
{
	memset(h, background, sizeof(*h));
	memcpy(h->raw, f, len < PASTE_FRAME_HDR_MAX ? len : PASTE_FRAME_HDR_MAX);
	return paste_frame_parse(h, len);
}

static void check_address(const struct in6_addr *got, const uint8_t *want, size_t len)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (len == 4)
		MUST(!memcmp(got, mapped, 12) && !memcmp((const uint8_t *)got + 12, want, 4));
	else
		MUST(!memcmp(got, want, 16));
}

static void check(const struct paste_frame *h, const struct model *m)
{
	MUST(h->hdr_len == m->headers);
	MUST(h->len == m->total);
	MUST(h->hdr_len <= PASTE_FRAME_HDR_MAX);
	MUST(ntohs(h->flow.remote_port) == m->src_port);
	MUST(ntohs(h->flow.local_port) == m->dst_port);
	check_address(&h->flow.remote, m->src, m->addr_len);
	check_address(&h->flow.local, m->dst, m->addr_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct paste_frame a, b;
	struct model m;
	uint8_t *f;
	bool want;

	if (!size)
		return 0;
	f = malloc(size);
	MUST(f);
	memcpy(f, data + 1, --size);
	put_right(f, size, data[0]);
	want = model_segment(f, size, &m);
	MUST(parse(&a, f, size, 0) == want);
	MUST(parse(&b, f, size, 0xff) == want);
	if (want) {
		check(&a, &m);
		check(&b, &m);
	}
	free(f);
	return 0;
}
