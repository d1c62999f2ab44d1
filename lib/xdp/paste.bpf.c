// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The XDP program of libpaste. It hands TCP segments to the application's ports
 * to the AF_XDP socket of the RX queue that they came in on. All other frames,
 * and all frames of queues that are not bound, go on into the kernel as if
 * there were no program.
 *
 * The ports are constants of the loaded program: nobody can widen the set while
 * it runs. What is taken is decided in parse.h.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"

const volatile __u8 paste_ports[PASTE_XDP_PORT_BYTES] = {};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} paste_xsks SEC(".maps");

SEC("xdp")
int paste_redirect(struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;

	if (!paste_xdp_take(data, end, paste_ports))
		return XDP_PASS;
	/* XDP_PASS, too, when no socket is there for this queue. */
	return bpf_redirect_map(&paste_xsks, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
