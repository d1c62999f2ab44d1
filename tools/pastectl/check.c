// SPDX-License-Identifier: MIT
/*
 * pastectl check: would zero copy work on this NIC, and if not, which setting
 * is in the way?
 *
 * Every condition of the module and of the drivers' XDP that can be seen from
 * outside is one function here, which prints one line. The module and the
 * driver still have the last word when a queue is bound.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <net/if.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>

#include <paste.h>

#include "pastectl.h"

/* Of the generic netlink family "netdev" (since 6.3), linux/netdev.h. */
#define NETDEV_GET	    1
#define NETDEV_ATTR_IFINDEX 1
#define NETDEV_ATTR_XDP	    3
#define NETDEV_ATTR_MAX	    3
#define NETDEV_XDP_ZEROCOPY (1ULL << 3)

/* What AF_XDP and the drivers need of a chunk beside an MTU's worth of bytes. */
#define CHUNK_HEADROOM 256
#define FRAME_OVERHEAD 26 /* Ethernet header, two VLAN tags, FCS */

struct nic {
	const char *name;
	unsigned ifindex;
	int sock;
	char driver[sizeof(((struct ethtool_drvinfo *)0)->driver)];
	bool bad; /* something is in the way */
};

__attribute__((format(printf, 4, 5))) static void report(struct nic *nic, const char *what,
							 const char *verdict, const char *fmt, ...)
{
	va_list ap;

	printf("  %-16s %-4s ", what, verdict);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!strcmp(verdict, "no"))
		nic->bad = true;
}

static int ethtool(const struct nic *nic, void *arg)
{
	struct ifreq ifr = { .ifr_data = arg };

	strncpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name) - 1);
	return ioctl(nic->sock, SIOCETHTOOL, &ifr) ? -errno : 0;
}

/* ------------------------------------------------------------------------- */
/* Does the driver have AF_XDP zero copy? */

static int take_features(struct nl_msg *msg, void *arg)
{
	struct nlattr *attrs[NETDEV_ATTR_MAX + 1];
	int64_t *features = arg;

	if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, NETDEV_ATTR_MAX, NULL) < 0)
		return NL_SKIP;
	if (attrs[NETDEV_ATTR_XDP])
		*features = (int64_t)nla_get_u64(attrs[NETDEV_ATTR_XDP]);
	return NL_OK;
}

static int ask_features(struct nl_sock *nl, int family, unsigned ifindex)
{
	struct nl_msg *msg = nlmsg_alloc();
	int ret;

	if (!msg)
		return -NLE_NOMEM;
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, NETDEV_GET, 1) ||
	    nla_put_u32(msg, NETDEV_ATTR_IFINDEX, ifindex)) {
		nlmsg_free(msg);
		return -NLE_NOMEM;
	}
	ret = nl_send_auto(nl, msg);
	nlmsg_free(msg);
	return ret < 0 ? ret : nl_recvmsgs_default(nl);
}

/* The kernel's word on what the driver can do, or -1: it does not say. */
static int64_t xdp_features(unsigned ifindex)
{
	struct nl_sock *nl = nl_socket_alloc();
	int64_t features = -1;
	int family;

	if (!nl)
		return -1;
	nl_socket_modify_cb(nl, NL_CB_VALID, NL_CB_CUSTOM, take_features, &features);
	if (!genl_connect(nl)) {
		family = genl_ctrl_resolve(nl, "netdev");
		if (family >= 0)
			ask_features(nl, family, ifindex);
	}
	nl_socket_free(nl);
	return features;
}

/* Those of 6.1; later kernels say it themselves. */
static bool is_known_driver(const char *driver)
{
	static const char *const known[] = { "ixgbe",	  "i40e", "ice",    "igc",
					     "mlx5_core", "nfp",  "st_gmac" };
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(driver, known[i]))
			return true;
	return false;
}

static void check_driver(struct nic *nic)
{
	int64_t features = xdp_features(nic->ifindex);
	const char *driver = *nic->driver ? nic->driver : "without a name";

	if (features >= 0 && ((uint64_t)features & NETDEV_XDP_ZEROCOPY))
		report(nic, "driver", "ok", "%s has AF_XDP zero copy", driver);
	else if (features >= 0)
		report(nic, "driver", "no", "%s has no AF_XDP zero copy", driver);
	else if (is_known_driver(nic->driver))
		report(nic, "driver", "ok", "%s is known to have AF_XDP zero copy", driver);
	else
		report(nic, "driver", "no", "%s is not known to have AF_XDP zero copy", driver);
}

/* ------------------------------------------------------------------------- */
/* Settings */

static void check_offloads(struct nic *nic)
{
	struct ethtool_value flags = { .cmd = ETHTOOL_GFLAGS };

	if (ethtool(nic, &flags)) {
		report(nic, "offloads", "?", "the driver does not say");
		return;
	}
	if (flags.data & ETH_FLAG_RXVLAN)
		report(nic, "rx-vlan-offload", "no", "on, try: ethtool -K %s rxvlan off",
		       nic->name);
	else
		report(nic, "rx-vlan-offload", "ok", "off");
	if (flags.data & ETH_FLAG_LRO)
		report(nic, "LRO", "no", "on, try: ethtool -K %s lro off", nic->name);
	else
		report(nic, "LRO", "ok", "off");
}

/* AF_XDP rounds what is left of a chunk down to 128 bytes. */
static int largest_mtu(int chunk_size)
{
	return (chunk_size - CHUNK_HEADROOM) / 128 * 128 - FRAME_OVERHEAD;
}

static void check_mtu(struct nic *nic)
{
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name) - 1);
	if (ioctl(nic->sock, SIOCGIFMTU, &ifr)) {
		report(nic, "MTU", "?", "%s", strerror(errno));
		return;
	}
	if (ifr.ifr_mtu > largest_mtu(4096))
		report(nic, "MTU", "no", "%d, a chunk of 4096 bytes has room for %d", ifr.ifr_mtu,
		       largest_mtu(4096));
	else if (ifr.ifr_mtu > largest_mtu(2048))
		report(nic, "MTU", "ok", "%d, with chunks of 4096 bytes only", ifr.ifr_mtu);
	else
		report(nic, "MTU", "ok", "%d", ifr.ifr_mtu);
}

static void check_queues(struct nic *nic)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
	struct ethtool_value rings = { .cmd = ETHTOOL_GRXRINGS };
	unsigned n;

	if (!ethtool(nic, &channels))
		n = channels.combined_count + channels.rx_count;
	else if (!ethtool(nic, &rings))
		n = rings.data;
	else
		n = 0;
	if (!n)
		report(nic, "RX queues", "?", "the driver does not say how many");
	else if (n == 1)
		report(nic, "RX queues", "ok", "1");
	else
		report(nic, "RX queues", "ok", "%u: bind all, or ethtool -L %s combined 1", n,
		       nic->name);
}

static void check_link(struct nic *nic)
{
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name) - 1);
	if (ioctl(nic->sock, SIOCGIFFLAGS, &ifr))
		report(nic, "link", "?", "%s", strerror(errno));
	else if (!(ifr.ifr_flags & IFF_UP))
		report(nic, "link", "no", "down, try: ip link set %s up", nic->name);
	else if (!(ifr.ifr_flags & IFF_RUNNING))
		report(nic, "link", "ok", "up, but no carrier");
	else
		report(nic, "link", "ok", "up");
}

/* Needs privilege to look at the program; without it any program is a foreign one. */
static bool is_our_program(__u32 id)
{
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);
	bool ours;

	if (fd < 0)
		return false;
	ours = !bpf_obj_get_info_by_fd(fd, &info, &len) && !strcmp(info.name, "paste_redirect");
	close(fd);
	return ours;
}

static void check_xdp(struct nic *nic)
{
	__u32 id = 0;

	if (bpf_xdp_query_id((int)nic->ifindex, 0, &id))
		report(nic, "XDP", "?", "the kernel does not say what is attached");
	else if (!id)
		report(nic, "XDP", "ok", "no other program");
	else if (is_our_program(id))
		report(nic, "XDP", "ok", "program %u of libpaste: in use now", id);
	else
		report(nic, "XDP", "no", "program %u is attached already", id);
}

/* ixgbe has either virtual functions or XDP. */
static void check_sriov(struct nic *nic)
{
	char path[128];
	int vfs = 0;
	FILE *f;

	if (strcmp(nic->driver, "ixgbe"))
		return;
	snprintf(path, sizeof(path), "/sys/class/net/%s/device/sriov_numvfs", nic->name);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fscanf(f, "%d", &vfs) == 1 && vfs)
		report(nic, "SR-IOV", "no", "%d virtual functions, try: echo 0 >%s", vfs, path);
	fclose(f);
}

static int open_nic(struct nic *nic)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };

	nic->ifindex = if_nametoindex(nic->name);
	if (!nic->ifindex) {
		warnx("check: there is no network interface %s", nic->name);
		return -1;
	}
	nic->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (nic->sock < 0) {
		warn("check");
		return -1;
	}
	if (!ethtool(nic, &info))
		memcpy(nic->driver, info.driver, sizeof(nic->driver) - 1);
	return 0;
}

int cmd_check(int argc, char **argv)
{
	static void (*const checks[])(struct nic *) = {
		check_driver, check_offloads, check_mtu, check_queues,
		check_link,   check_sriov,    check_xdp,
	};
	struct nic nic = {};
	size_t i;

	if (argc != 2) {
		warnx("check: name one NIC. See pastectl --help");
		return EXIT_USAGE;
	}
	nic.name = argv[1];
	if (open_nic(&nic))
		return EXIT_USAGE;
	printf("%s\n", nic.name);
	for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		checks[i](&nic);
	close(nic.sock);
	printf("%s: zero copy %s\n", nic.name, nic.bad ? "would not work" : "should work");
	return nic.bad ? EXIT_NO : EXIT_OK;
}
