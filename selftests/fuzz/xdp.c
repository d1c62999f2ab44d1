// SPDX-License-Identifier: GPL-2.0
/*
 * The library's XDP program against a model of it: frames that are nearly TCP
 * segments, and the same verdict from the program as the kernel has it loaded,
 * from parse.h in user space, and from the model.
 *
 *   xdp [-n FRAMES] [-s SEED]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "parse.h"
#include "paste.skel.h"
#include "model.h"
#include "../unit/unit.h"

#define FRAME_MAX 1600

static const unsigned int named[] = { 1, 80, 443, 8080, 60000, 65535 };

static unsigned int seed = 1;
static __u8 ports[PASTE_XDP_PORT_BYTES];

struct frame {
	size_t len;
	uint8_t b[FRAME_MAX];
};

/* ---------------------------------------------------------------- frames --- */

static unsigned int below(unsigned int n)
{
	return unit_random(&seed) % n;
}

static void put_u16(uint8_t *p, unsigned int v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void fill_random(uint8_t *p, size_t n)
{
	while (n--)
		*p++ = unit_random(&seed);
}

static bool is_v6(const struct frame *f)
{
	return f->b[12] == 0x86;
}

static size_t tcp_at(const struct frame *f)
{
	return is_v6(f) ? 54 : 34;
}

/* A segment as it should be; sometimes with an Ethernet padding. */
static void make_segment(struct frame *f)
{
	unsigned int header = 20 + 4 * (below(2) ? 0 : below(11)),
		     payload = below(4) ? below(64) : below(1400);
	bool v6 = below(2);
	size_t tcp = v6 ? 54 : 34;

	f->len = tcp + header + payload;
	fill_random(f->b, tcp + header);
	put_u16(f->b + 12, v6 ? 0x86dd : 0x0800);
	f->b[14] = v6 ? 0x60 | below(16) : 0x45;
	if (v6) {
		put_u16(f->b + 18, header + payload);
		f->b[20] = 6;
	} else {
		put_u16(f->b + 16, 20 + header + payload);
		put_u16(f->b + 20, below(2) << 14);
		f->b[23] = 6;
	}
	if (below(4))
		put_u16(f->b + tcp + 2, named[below(ARRAY_SIZE(named))]);
	f->b[tcp + 12] = header / 4 << 4 | below(16);
	if (!below(4)) {
		unsigned int pad = below(60);

		fill_random(f->b + f->len, pad);
		f->len += pad;
	}
}

static void insert(struct frame *f, size_t at, size_t n)
{
	if (at > f->len || f->len + n > FRAME_MAX)
		return;
	memmove(f->b + at + n, f->b + at, f->len - at);
	f->len += n;
	fill_random(f->b + at, n);
}

/* One tag, or two of them. */
static void add_vlan(struct frame *f)
{
	insert(f, 12, 4);
	put_u16(f->b + 12, below(2) ? 0x8100 : 0x88a8);
	if (below(2))
		add_vlan(f);
}

static void change_ethertype(struct frame *f)
{
	static const unsigned int types[] = { 0x0806, 0x8100, 0x88a8, 0x8847, 0x8863,
					      0x0800, 0x86dd, 1500,   64 };

	put_u16(f->b + 12, below(4) ? types[below(ARRAY_SIZE(types))] : below(65536));
}

static void change_version(struct frame *f)
{
	f->b[14] = below(2) ? below(256) : (is_v6(f) ? 0x40 | below(16) : 0x40 + below(16));
}

static void change_protocol(struct frame *f)
{
	static const uint8_t protocols[] = { 0, 1, 17, 41, 43, 44, 50, 51, 58, 59, 60, 132, 135 };

	f->b[is_v6(f) ? 20 : 23] = protocols[below(ARRAY_SIZE(protocols))];
}

/* An IPv6 extension header with TCP behind it; IPv4 gets options. */
static void add_extension(struct frame *f)
{
	if (is_v6(f)) {
		unsigned int words = below(3);

		insert(f, 54, 8 + 8 * words);
		f->b[54] = 6;
		f->b[55] = words;
		change_protocol(f);
	} else {
		unsigned int words = 1 + below(10);

		insert(f, 34, 4 * words);
		f->b[14] = 0x45 + words;
	}
}

static void change_fragment(struct frame *f)
{
	if (!is_v6(f))
		put_u16(f->b + 20, below(2) ? 1U << below(16) : below(65536));
}

/* A little too much, too little, or anything. */
static void change_length(struct frame *f)
{
	uint8_t *p = f->b + (is_v6(f) ? 18 : 16);

	put_u16(p, below(4) ? model_u16(p) + below(81) - 40 : below(65536));
}

static void change_tcp(struct frame *f)
{
	f->b[tcp_at(f) + 12] = below(256);
}

static void change_port(struct frame *f)
{
	put_u16(f->b + tcp_at(f) + 2, below(65536));
}

static void change_byte(struct frame *f)
{
	f->b[below(f->len ? f->len : 1)] = below(256);
}

static void truncate_frame(struct frame *f)
{
	f->len = below(f->len < 130 || below(2) ? f->len + 1 : 130);
}

static void make_random(struct frame *f)
{
	f->len = below(200);
	fill_random(f->b, f->len);
}

static void (*const changes[])(struct frame *f) = {
	add_vlan,      change_ethertype, change_version, change_protocol,
	add_extension, change_fragment,	 change_length,	 change_tcp,
	change_port,   change_byte,	 truncate_frame,
};

/* A third of the frames is right. */
static void make_frame(struct frame *f)
{
	unsigned int n = below(3);

	if (!below(64))
		return make_random(f);
	make_segment(f);
	for (n = n ? below(3) + 1 : 0; n; n--)
		changes[below(ARRAY_SIZE(changes))](f);
}

/* -------------------------------------------------------------- verdicts --- */

static bool is_named(unsigned int port)
{
	for (size_t i = 0; i < ARRAY_SIZE(named); i++)
		if (named[i] == port)
			return true;
	return false;
}

static bool model_takes(const struct frame *f)
{
	struct model m;

	return model_segment(f->b, f->len, &m) && is_named(m.dst_port);
}

/* In a buffer of its own, so that the sanitizer sees a read behind it. */
static bool parse_takes(const struct frame *f)
{
	uint8_t *b = malloc(f->len + !f->len);
	bool take;

	memcpy(b, f->b, f->len);
	take = paste_xdp_take(b, b + f->len, ports);
	free(b);
	return take;
}

/* XDP_REDIRECT or XDP_PASS; anything else is an error, as a negative number. */
static int program_takes(int prog, struct frame *f)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = f->b, .data_size_in = f->len, .repeat = 1);

	if (bpf_prog_test_run_opts(prog, &opts))
		return -errno;
	return opts.retval == XDP_REDIRECT ? 1 : opts.retval == XDP_PASS ? 0 : -EPROTO;
}

static void show(const struct frame *f, bool model, bool parse, int program)
{
	printf("# seed %u, %zu bytes: model %d, parse.h %d, program %d\n# ", seed, f->len, model,
	       parse, program);
	for (size_t i = 0; i < f->len && i < 130; i++)
		printf("%02x", f->b[i]);
	printf("\n");
}

/* ------------------------------------------------------------------ main --- */

/* The program with our ports, and a socket for it to redirect to. */
static int load(struct paste_xdp **xdp)
{
	int key = 0, fd, err;

	libbpf_set_print(NULL);
	*xdp = paste_xdp__open();
	if (!*xdp)
		return -errno;
	memcpy((void *)(*xdp)->rodata->paste_ports, ports, sizeof(ports));
	err = paste_xdp__load(*xdp);
	if (err)
		return err;
	fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	return bpf_map_update_elem(bpf_map__fd((*xdp)->maps.paste_xsks), &key, &fd, 0);
}

/* How many frames the kernel saw; negative after a difference. */
static long run(int prog, unsigned long n, unsigned long *taken)
{
	unsigned long seen = 0;
	struct frame f = {};

	while (seen < n) {
		bool model, parse;
		int program;

		make_frame(&f);
		model = model_takes(&f);
		parse = parse_takes(&f);
		/* the kernel runs no program on what has no whole Ethernet header */
		program = f.len < 14 ? 0 : program_takes(prog, &f);
		if (parse != model || program != model) {
			show(&f, model, parse, program);
			return -1;
		}
		seen += f.len >= 14;
		*taken += model;
	}
	return seen;
}

int main(int argc, char **argv)
{
	unsigned long n = 1000000, taken = 0;
	struct paste_xdp *xdp;
	long seen;
	int opt, err;

	while ((opt = getopt(argc, argv, "n:s:")) != -1) {
		if (opt == 'n')
			n = strtoul(optarg, NULL, 0);
		else if (opt == 's')
			seed = strtoul(optarg, NULL, 0) ?: 1;
		else
			return EXIT_FAILURE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(named); i++)
		ports[named[i] >> 3] |= 1 << (named[i] & 7);
	err = load(&xdp);
	if (err == -EPERM || err == -ENOSYS || err == -EAFNOSUPPORT) {
		printf("ok 3 fuzz__xdp # SKIP this kernel gives us no bpf(2) or no AF_XDP: %s\n",
		       strerror(-err));
		return EXIT_SUCCESS;
	}
	seen = err ? -1 : run(bpf_program__fd(xdp->progs.paste_redirect), n, &taken);
	if (err)
		printf("# cannot load the program: %s\n", strerror(-err));
	paste_xdp__destroy(xdp);
	printf("%sok 3 fuzz__xdp\n", seen < 0 ? "not " : "");
	if (seen < 0)
		return EXIT_FAILURE;
	printf("# %lu of them were for the module\nrobust: xdp-frames %ld\n", taken, seen);
	return EXIT_SUCCESS;
}
