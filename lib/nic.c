// SPDX-License-Identifier: MIT
/*
 * libpaste: binding queues to a NIC's RX queues.
 *
 * The XDP program is attached before the first queue is bound and stays until
 * paste_nic_close(): attaching resets the RX queues of most NICs, binding only
 * the one queue. It is attached in native mode (in generic mode nothing would
 * ever reach a zero-copy socket) through a BPF link, which goes away with the
 * process however it ends; the traffic is then the kernel's again.
 */
#include <stdio.h>
#include <string.h>
#include <net/if.h>
#include <linux/if_link.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "internal.h"
#include "refusal.h"
#include "xdp/parse.h"
#include "paste.skel.h"

static int print_nothing(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static int set_ports(struct paste_nic *n, const __u16 *ports, unsigned n_ports)
{
	unsigned i;

	if (!n_ports || n_ports > PASTE_PORTS_MAX) {
		paste_say(n->text, "n_ports: 1 to %d ports can be named, not %u", PASTE_PORTS_MAX,
			  n_ports);
		return -EINVAL;
	}
	for (i = 0; i < n_ports; i++) {
		if (!ports[i]) {
			paste_say(n->text, "ports: 0 is no TCP port");
			return -EINVAL;
		}
		n->ports[i] = ports[i];
	}
	n->n_ports = n_ports;
	return 0;
}

/* The ports become constants of the program, so they are set before it loads. */
static int load_program(struct paste_nic *n)
{
	struct paste_xdp *skel = paste_xdp__open();
	unsigned i;
	int err;

	if (!skel)
		return -errno;
	for (i = 0; i < n->n_ports; i++)
		*(__u8 *)&skel->rodata->paste_ports[n->ports[i] >> 3] |= 1U << (n->ports[i] & 7);
	err = paste_xdp__load(skel);
	if (err) {
		paste_xdp__destroy(skel);
		return err;
	}
	n->xdp = skel;
	return 0;
}

int paste_nic_open(struct paste_nic *n, const char *ifname, const __u16 *ports, unsigned n_ports)
{
	libbpf_print_fn_t print;
	int saved = errno;
	int err;

	memset(n, 0, sizeof(*n));
	n->link_fd = -1;
	err = set_ports(n, ports, n_ports);
	if (err)
		return err;
	n->ifindex = (int)if_nametoindex(ifname);
	if (!n->ifindex) {
		paste_say(n->text, "there is no network interface %s", ifname);
		errno = saved;
		return -ENODEV;
	}
	print = libbpf_set_print(print_nothing);
	err = load_program(n);
	libbpf_set_print(print);
	errno = saved;
	return err ? paste_fail(n->text, "loading the XDP program", err) : 0;
}

static int explain_attach(struct paste_nic *n, int err)
{
	int saved = errno;
	char name[IF_NAMESIZE];
	int vfs = if_indextoname((unsigned)n->ifindex, name) ? paste_count_vfs(name) : 0;
	const char *why = paste_refusal(err, vfs);

	errno = saved;
	if (why)
		paste_say(n->text, "%s", why);
	return err == -EINVAL ? -EBUSY : paste_fail(n->text, "attaching the XDP program", err);
}

static int attach_program(struct paste_nic *n)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	struct paste_xdp *skel = n->xdp;
	int saved = errno;
	int fd;

	fd = bpf_link_create(bpf_program__fd(skel->progs.paste_redirect), n->ifindex, BPF_XDP,
			     &opts);
	errno = saved;
	if (fd < 0)
		return fd;
	n->link_fd = fd;
	return 0;
}

static int nic_unbind(struct pasteq *q)
{
	struct paste_ioc_nic_unbind io = { .size = sizeof(io) };

	return paste_sys_ioctl(q->fd, PASTE_IOC_NIC_UNBIND, &io);
}

/* The module's part; the AF_XDP socket lives on in the module and in the map. */
static int bind_queue(struct paste_nic *n, struct pasteq *q, __u32 rx_queue)
{
	struct paste_ioc_nic_bind io = {
		.size = sizeof(io),
		.text = paste_ptr(n->text),
		.ifindex = (__u32)n->ifindex,
		.nic_queue = rx_queue,
		.ports = paste_ptr(n->ports),
		.n_ports = n->n_ports,
	};
	struct paste_xdp *skel = n->xdp;
	int saved = errno;
	int err;

	err = paste_sys_ioctl(q->fd, PASTE_IOC_NIC_BIND, &io);
	if (err)
		return paste_fail(n->text, "bind", err);
	err = bpf_map_update_elem(bpf_map__fd(skel->maps.paste_xsks), &rx_queue, &io.xsk_fd,
				  BPF_ANY);
	errno = saved;
	paste_sys_close(&io.xsk_fd);
	if (err) {
		nic_unbind(q);
		return paste_fail(n->text, "entering the queue into the XSKMAP", err);
	}
	q->nic_queue = (__s32)rx_queue;
	return 0;
}

/*
 * When the program cannot be attached the module is asked all the same: it
 * knows the reasons better than the errno of an attach can tell.
 */
int paste_nic_bind(struct paste_nic *n, struct pasteq *q, __u32 rx_queue)
{
	bool first = n->link_fd < 0;
	int attach_err = 0;
	int err;

	n->text[0] = 0;
	if (first)
		attach_err = attach_program(n);
	err = bind_queue(n, q, rx_queue);
	if (!err && attach_err) {
		paste_nic_unbind(n, q);
		err = explain_attach(n, attach_err);
	}
	if (err) {
		if (first)
			paste_sys_close(&n->link_fd);
		memcpy(q->ctx->text, n->text, sizeof(q->ctx->text));
	}
	return err;
}

int paste_nic_unbind(struct paste_nic *n, struct pasteq *q)
{
	struct paste_xdp *skel = n->xdp;
	__u32 key = (__u32)q->nic_queue;
	int saved = errno;

	if (q->nic_queue < 0)
		return -ENXIO;
	/* First no frames any more, then nobody to take them. */
	bpf_map_delete_elem(bpf_map__fd(skel->maps.paste_xsks), &key);
	errno = saved;
	q->nic_queue = -1;
	return nic_unbind(q);
}

void paste_nic_close(struct paste_nic *n)
{
	int saved = errno;

	paste_sys_close(&n->link_fd);
	if (n->xdp)
		paste_xdp__destroy(n->xdp);
	n->xdp = NULL;
	errno = saved;
}

const char *paste_nic_text(const struct paste_nic *n)
{
	return n->text;
}
