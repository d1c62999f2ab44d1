// SPDX-License-Identifier: GPL-2.0
/*
 * The wire, see wire.h.
 *
 * TCP's timers would make what is answered depend on how fast the machine is. So
 * the routes to the peer want each segment acknowledged at once, have an RTO that
 * is longer than a test, and Reno with a large window; loss is detected by
 * counting; and there is no segmentation offload, which TCP uses to wait for more.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"
#include "wire.h"

#define RELAY_PORT 7099

static int wire_fd = -1;  /* the tap; or what the NIC sends */
static int relay_fd = -1; /* to relay */
static bool on_nic;
static __u8 relay_buf[1 << 20];
static size_t relay_len;

/* ------------------------------------------------------------------ settings --- */

#define SET_RMEM 0

/* No limits on answers, nothing remembered of peers, nothing left to the clock. */
static struct {
	const char *name, *value;
	char before[64];
} settings[] = {
	[SET_RMEM] = { .name = "ipv4/tcp_rmem", .value = "4096 65536 65536" },
	{ .name = "ipv4/tcp_invalid_ratelimit", .value = "0" },
	{ .name = "ipv4/tcp_challenge_ack_limit", .value = "2147483647" },
	{ .name = "ipv4/tcp_syncookies", .value = "0" },
	{ .name = "ipv4/tcp_max_syn_backlog", .value = "65535" },
	{ .name = "core/somaxconn", .value = "65535" },
	{ .name = "ipv4/tcp_no_metrics_save", .value = "1" },
	{ .name = "ipv4/tcp_comp_sack_nr", .value = "0" },
	{ .name = "ipv4/tcp_early_retrans", .value = "0" },
	{ .name = "ipv4/tcp_recovery", .value = "0" },
	{ .name = "ipv4/tcp_autocorking", .value = "0" },
	{ .name = "ipv4/tcp_wmem", .value = "4096 262144 262144" },
	{ .name = "ipv4/ipfrag_max_dist", .value = "0" },
	{ .name = "ipv4/ipfrag_time", .value = "1" },
	{ .name = "ipv6/ip6frag_time", .value = "1" },
};

static int open_setting(unsigned int i, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/sys/net/%s", settings[i].name);
	return open(path, flags | O_CLOEXEC);
}

static bool write_setting(unsigned int i, const char *value)
{
	int fd = open_setting(i, O_WRONLY);
	bool good = write(fd, value, strlen(value)) > 0;

	close(fd);
	return good;
}

static bool change_settings(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		int fd = open_setting(i, O_RDONLY);
		ssize_t n = read(fd, settings[i].before, sizeof(settings[i].before) - 1);

		close(fd);
		if (n <= 0 || !write_setting(i, settings[i].value)) {
			printf("# cannot set %s\n", settings[i].name);
			return false;
		}
	}
	return true;
}

static void restore_settings(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		if (*settings[i].before)
			write_setting(i, settings[i].before);
	}
}

/* With $dev, $gw4 and $gw6. */
static const char *const add_routes = "ip neigh replace $gw4 lladdr 02:00:00:09:01:02 dev $dev &&"
				      "ip neigh replace $gw6 lladdr 02:00:00:09:01:02 dev $dev &&"
				      "ip route replace 10.64.0.0/10 via $gw4 dev $dev $route &&"
				      "ip route replace fd64::/16 via $gw6 dev $dev $route";

static int set_routes(const char *dev, const char *gw4, const char *gw6, bool timers)
{
	setenv("dev", dev, 1);
	setenv("gw4", gw4, 1);
	setenv("gw6", gw6, 1);
	setenv("route", timers ? "" : "rto_min 60s quickack 1 initcwnd 1000 congctl reno", 1);
	return system(add_routes) ? -EIO : 0;
}

/* ----------------------------------------------------------------------- tap --- */

static int open_tap(bool timers)
{
	static const struct wire_ends ends = {
		.server_mac = { 2, 0, 0, 9, 1, 1 },
		.peer_mac = { 2, 0, 0, 9, 1, 2 },
		.server4 = { 10, 63, 0, 1 },
		.server6 = { 0xfd, 0x63, [15] = 1 },
	};
	struct ifreq ifr = { .ifr_name = "wire", .ifr_flags = IFF_TAP | IFF_NO_PI };

	wire_ends = ends;
	if (system("modprobe -q tun") < 0 || unshare(CLONE_NEWNET))
		return -errno;
	wire_fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (wire_fd < 0 || ioctl(wire_fd, TUNSETIFF, &ifr))
		return -errno;
	if (!timers && system("ip link set dev wire gso_max_segs 1"))
		return -EIO;
	if (system("ip link set dev wire address 02:00:00:09:01:01 mtu 9000 addrgenmode none &&"
		   "ip link set dev wire up && ip addr add 10.63.0.1/24 dev wire &&"
		   "ip addr add fd63::1/64 dev wire nodad &&"
		   /* what is sent to it is taken when a worker has come round to it */
		   "timeout 60 sh -c 'until ip -6 route show table local | grep -q fd63::1;"
		   "do sleep 0.02; done'"))
		return -EIO;
	return set_routes("wire", "10.63.0.2", "fd63::2", timers);
}

/* ----------------------------------------------------------------------- NIC --- */

/* What it sends, as a packet socket sees it. */
static int open_nic_output(const char *nic)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex(nic),
	};
	struct ifreq ifr = {};
	int bytes = 16 << 20;

	wire_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(wire_fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", nic);
	if (ioctl(wire_fd, SIOCGIFHWADDR, &ifr) ||
	    bind(wire_fd, (struct sockaddr *)&to, sizeof(to)))
		return -errno;
	memcpy(wire_ends.server_mac, ifr.ifr_hwaddr.sa_data, 6);
	return 0;
}

static int start_relay(__u16 port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(RELAY_PORT) };
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct pollfd p = { .fd = l, .events = POLLIN };
	char self[256] = {}, command[600];

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (struct sockaddr *)&any, sizeof(any)) || listen(l, 1) ||
	    readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return -errno;
	*strrchr(self, '/') = 0;
	snprintf(command, sizeof(command),
		 "host --timeout 100000 %s/relay %s %u %u tap0 2>&1 | sed 's/^/# /' &", self,
		 getenv("PASTE_ADDR"), RELAY_PORT, port);
	if (system(command) || poll(&p, 1, SOON) != 1)
		return -ETIMEDOUT;
	relay_fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	setsockopt(relay_fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
	close(l);
	return relay_fd < 0 ? -errno : 0;
}

static int open_nic(const char *nic, __u16 port)
{
	static const __u8 peer_mac[6] = { 2, 0, 0, 9, 1, 2 };
	char command[200];
	int err;

	on_nic = true;
	memcpy(wire_ends.peer_mac, peer_mac, 6);
	inet_pton(AF_INET, getenv("PASTE_ADDR"), wire_ends.server4);
	inet_pton(AF_INET6, getenv("PASTE_ADDR6"), wire_ends.server6);
	snprintf(command, sizeof(command),
		 "ip link set dev %s gso_max_segs 1 && ethtool -K %s gro off", nic, nic);
	if (system(command))
		return -EIO;
	err = open_nic_output(nic);
	err = err ?: set_routes(nic, "10.9.0.77", "fd09::77", false);
	return err ?: start_relay(port);
}

static void close_nic(const char *nic)
{
	char command[300];

	snprintf(command, sizeof(command),
		 "ip link set dev %s gso_max_segs 65535; ethtool -K %s gro on;"
		 "ip route del 10.64.0.0/10; ip route del fd64::/16;"
		 "ip neigh del 10.9.0.77 dev %s; ip neigh del fd09::77 dev %s",
		 nic, nic, nic, nic);
	if (system(command))
		printf("# %s is not as it was\n", nic);
}

/* ---------------------------------------------------------------------- both --- */

int wire_open(enum wire_kind kind, __u16 port)
{
	int err = kind == WIRE_NIC ? open_nic(getenv("PASTE_IF"), port) :
				     open_tap(kind == WIRE_TAP_TIMERS);

	if (kind == WIRE_NIC) /* a packet takes up a whole chunk */
		settings[SET_RMEM].value = "4096 262144 262144";
	if (!err && kind != WIRE_TAP_TIMERS && !change_settings())
		err = -EIO;
	if (err)
		wire_close();
	return err;
}

/* Also what was opened in part: the next test begins with the same NIC. */
void wire_close(void)
{
	restore_settings();
	if (relay_fd >= 0)
		close(relay_fd);
	if (on_nic)
		close_nic(getenv("PASTE_IF"));
	close(wire_fd);
}

/* A frame that the device itself refuses is as good as one that was lost. */
void wire_send(const struct frame *f)
{
	if (relay_fd < 0) {
		if (write(wire_fd, f->b, f->len) < 0 && errno != EINVAL)
			perror("# tap");
	} else if (relay_len + f->len + 4 < sizeof(relay_buf)) {
		relay_buf[relay_len++] = f->len >> 8;
		relay_buf[relay_len++] = f->len;
		memcpy(relay_buf + relay_len, f->b, f->len);
		relay_len += f->len;
	}
}

bool wire_flush(void)
{
	struct pollfd p = { .fd = relay_fd, .events = POLLIN };
	size_t done = 0;
	ssize_t n = 1;
	__u8 b;

	if (relay_fd < 0)
		return true;
	relay_buf[relay_len++] = 0; /* an empty frame: that was all */
	relay_buf[relay_len++] = 0;
	for (; done < relay_len && n > 0; done += n)
		n = write(relay_fd, relay_buf + done, relay_len - done);
	relay_len = 0;
	return n > 0 && poll(&p, 1, SOON) == 1 && read(relay_fd, &b, 1) == 1;
}

ssize_t wire_read(void *b, size_t size)
{
	struct sockaddr_ll from;
	socklen_t len;
	ssize_t n;

	if (relay_fd < 0)
		return read(wire_fd, b, size);
	do {
		len = sizeof(from);
		n = recvfrom(wire_fd, b, size, 0, (struct sockaddr *)&from, &len);
	} while (n > 0 && from.sll_pkttype != PACKET_OUTGOING);
	return n;
}
