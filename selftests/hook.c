// SPDX-License-Identifier: GPL-2.0
/*
 * A NIC binding in bad company: an XDP program that redirects what it should
 * not, and an AF_XDP socket whose rings somebody else writes to. Needs a NIC
 * with zero copy and what vm/run.sh provides.
 */
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>

#include "util.h"
#include "harness.h"

#define PORT 60000

/* Run a command at the other end of the NIC. */
static int outside(const char *format, const char *arg)
{
	char command[256], rest[200];

	snprintf(rest, sizeof(rest), format, arg);
	snprintf(command, sizeof(command), "host %s > /dev/null 2>&1", rest);
	return system(command);
}

static bool ping_until(bool works)
{
	for (__u64 end = now_ms() + 2 * SOON; now_ms() < end;) {
		if (!outside("ping -c 1 -W 1 %s", getenv("PASTE_ADDR")) == works)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------- */

FIXTURE(hook)
{
	struct ctx ctx;
	struct queue queue;
	int ifindex;
	int xsk;
	int map;
	int prog;
	int link;
};

static int bind_nic(FIXTURE_DATA(hook) * self)
{
	__u16 port = PORT;
	struct paste_ioc_nic_bind a = {
		.size = sizeof(a),
		.text = (uintptr_t)text,
		.ifindex = self->ifindex,
		.ports = (uintptr_t)&port,
		.n_ports = 1,
	};
	int err = call(self->queue.fd, PASTE_IOC_NIC_BIND, &a);

	self->xsk = a.xsk_fd;
	return err;
}

FIXTURE_SETUP(hook)
{
	const char *nic = getenv("PASTE_IF"), *driver = getenv("PASTE_NIC");

	memset(self, 0, sizeof(*self));
	self->xsk = self->map = self->prog = self->link = -1;
	if (!nic || !driver || (strcmp(driver, "ixgbe") && strcmp(driver, "i40e")))
		SKIP(return, "no NIC with zero copy");
	self->ifindex = if_nametoindex(nic);
	ASSERT_EQ(0, ctx_make(&self->ctx, 0, 512, 0)) TH_LOG("%s", text);
	ASSERT_EQ(0, queue_make(&self->queue, &self->ctx, NULL)) TH_LOG("%s", text);
	ASSERT_TRUE(ping_until(true));
}

FIXTURE_TEARDOWN(hook)
{
	if (!self->ifindex)
		return;
	if (self->link >= 0)
		close(self->link);
	close(self->prog);
	close(self->map);
	if (self->xsk >= 0)
		close(self->xsk);
	queue_close(&self->queue);
	ctx_close(&self->ctx);
	/* the NIC is everybody's again */
	EXPECT_TRUE(ping_until(true));
}

/* Redirects every frame. */
static int attach_program(FIXTURE_DATA(hook) * self)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	struct bpf_insn code[] = {
		{ BPF_LDX | BPF_MEM | BPF_W, 2, 1, offsetof(struct xdp_md, rx_queue_index), 0 },
		{ BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, 0 },
		{ 0 },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS },
		{ BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};

	self->map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "all", 4, 4, 64, NULL);
	code[1].imm = self->map;
	self->prog = bpf_prog_load(BPF_PROG_TYPE_XDP, "all", "GPL", code, ARRAY_SIZE(code), NULL);
	if (self->map < 0 || self->prog < 0)
		return -1;
	self->link = bpf_link_create(self->prog, self->ifindex, BPF_XDP, &opts);
	return self->link < 0 ? self->link : 0;
}

TEST_F(hook, frames__nobody_asked_for)
{
	const char *addr = getenv("PASTE_ADDR");
	struct paste_ioc_stats st;
	__u32 key = 0;

	fill_slice(&self->queue);
	ASSERT_EQ(0, attach_program(self));
	ASSERT_EQ(0, bind_nic(self)) TH_LOG("%s", text);
	ASSERT_EQ(0, bpf_map_update_elem(self->map, &key, &self->xsk, BPF_ANY));

	/* no TCP: lost, though it would have been answered; as it is before the NIC is up again */
	for (__u64 end = now_ms() + SOON; now_ms() < end;) {
		ASSERT_TRUE(ping_until(false));
		ASSERT_EQ(0, queue_stats(&self->queue, &st));
		if (st.v[PASTE_STAT_RX_DROP_HEADER])
			break;
	}
	/* a port that was not named; it may take the ARP cache of the other end to send it */
	for (__u64 end = now_ms() + SOON; now_ms() < end;) {
		outside("curl -s --max-time 1 http://%s:7/", addr);
		ASSERT_EQ(0, queue_stats(&self->queue, &st));
		if (st.v[PASTE_STAT_RX_DROP_PORT])
			break;
	}
	EXPECT_LT(0, st.v[PASTE_STAT_RX_DROP_HEADER]);
	EXPECT_LT(0, st.v[PASTE_STAT_RX_DROP_PORT]);
	EXPECT_EQ(st.v[PASTE_STAT_RX_FRAMES],
		  st.v[PASTE_STAT_RX_DROP_HEADER] + st.v[PASTE_STAT_RX_DROP_PORT]);
	EXPECT_EQ(0, ring_ready(&self->queue.rx));
}

/* ------------------------------------------------------------------------- */

struct xsk_ring {
	__u32 *prod;
	__u32 *cons;
	void *desc;
};

static bool map_ring(struct xsk_ring *r, int xsk, __u64 pgoff, const struct xdp_ring_offset *o)
{
	__u8 *p = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, xsk, pgoff);

	if (p == MAP_FAILED)
		p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, xsk, pgoff);
	if (p == MAP_FAILED)
		return false;
	r->prod = (__u32 *)(p + o->producer);
	r->cons = (__u32 *)(p + o->consumer);
	r->desc = p + o->desc;
	return true;
}

TEST_F(hook, rings__written_by_somebody_else)
{
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof(off);
	struct xsk_ring rx, fill;
	struct paste_ioc_stats st;
	unsigned int seed = 1;

	/* nothing was filled, so the watchdog looks at the rings again and again */
	ASSERT_EQ(0, bind_nic(self)) TH_LOG("%s", text);
	ASSERT_EQ(0, getsockopt(self->xsk, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len));
	if (!map_ring(&rx, self->xsk, XDP_PGOFF_RX_RING, &off.rx) ||
	    !map_ring(&fill, self->xsk, XDP_UMEM_PGOFF_FILL_RING, &off.fr))
		SKIP(return, "this kernel does not map the rings of a bound socket");

	/* descriptors that name no lent chunk: each is dropped */
	for (unsigned int i = 0; i < 64; i++) {
		((struct xdp_desc *)rx.desc)[i].addr = (__u64)rand_r(&seed) << (i % 33);
		((struct xdp_desc *)rx.desc)[i].len = rand_r(&seed);
	}
	__atomic_store_n(rx.prod, 64, __ATOMIC_RELEASE);
	for (__u64 end = now_ms() + SOON; now_ms() < end; sleep_ms(10)) {
		ASSERT_EQ(0, queue_stats(&self->queue, &st));
		if (st.v[PASTE_STAT_RX_DROP_DESC] == 64)
			break;
	}
	EXPECT_EQ(64, st.v[PASTE_STAT_RX_FRAMES]);
	EXPECT_EQ(64, st.v[PASTE_STAT_RX_DROP_DESC]);

	/* indices that no honest peer could have: nothing is taken, no more is lent than the ring holds */
	__atomic_store_n(rx.prod, 0x80000000, __ATOMIC_RELEASE);
	__atomic_store_n(fill.cons, 0x40000000, __ATOMIC_RELEASE);
	fill_slice(&self->queue);
	sleep_ms(NEVER);
	ASSERT_EQ(0, queue_stats(&self->queue, &st));
	EXPECT_EQ(64, st.v[PASTE_STAT_RX_FRAMES]);
	EXPECT_GE(256, st.chunks_lent);
}

TEST_HARNESS_MAIN
