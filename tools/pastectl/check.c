// SPDX-License-Identifier: MIT
/*
 * pastectl check: would zero copy work on this NIC, and if not, which setting
 * is in the way? nic show and nic prepare ask the same.
 *
 * Every condition of the module and of the drivers' XDP that can be seen from
 * outside is one function here, which has one verdict. The module and the
 * driver still have the last word when a queue is bound.
 */
#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "nic.h"
#include "pastectl.h"
#include "refusal.h"

#define NETDEV_XDP_ZEROCOPY (1LL << 3) /* linux/netdev.h */

/* What AF_XDP and the drivers need of a chunk beside an MTU's worth of bytes. */
#define CHUNK_HEADROOM 256
#define FRAME_OVERHEAD 26 /* Ethernet header, two VLAN tags, FCS */

enum verdict {
	OK,
	UNKNOWN,
	SLOW,
	NO
};

struct finding {
	enum verdict verdict;
	char text[200];
};

__attribute__((format(printf, 3, 4))) static void say(struct finding *f, enum verdict verdict,
						      const char *fmt, ...)
{
	va_list ap;

	f->verdict = verdict;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

/* ------------------------------------------------------------------------- */
/* What a NIC is */

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

static void check_driver(struct nic *nic, struct finding *f)
{
	int64_t features = nic_xdp_features(nic);

	if (!*nic->driver)
		say(f, NO, "%s is no NIC: it has no driver", nic->name);
	else if (!strcmp(nic->driver, "fsl_dpaa2_eth"))
		say(f, NO, "%s keeps kernel pointers in the chunks", nic->driver);
	else if (features >= 0 && features & NETDEV_XDP_ZEROCOPY)
		say(f, OK, "%s has AF_XDP zero copy", nic->driver);
	else if (features >= 0)
		say(f, NO, "%s has no AF_XDP zero copy", nic->driver);
	else if (is_known_driver(nic->driver))
		say(f, OK, "%s is known to have AF_XDP zero copy", nic->driver);
	else
		say(f, NO, "%s is not known to have AF_XDP zero copy", nic->driver);
}

/* ixgbe has either virtual functions or XDP, either DCB or XDP. */
static void check_sriov(struct nic *nic, struct finding *f)
{
	int vfs = strcmp(nic->driver, "ixgbe") ? 0 : paste_count_vfs(nic->name);

	if (vfs)
		say(f, NO, "%s, try: echo 0 >/sys/class/net/%s/device/sriov_numvfs",
		    paste_refusal(-EINVAL, vfs), nic->name);
}

static void check_dcb(struct nic *nic, struct finding *f)
{
	if (!strcmp(nic->driver, "ixgbe") && nic_has_dcb(nic))
		say(f, NO, "the driver refuses XDP: switch DCB off, try: dcbtool sc %s dcb off",
		    nic->name);
}

/* AF_XDP rounds what is left of a chunk down to 128 bytes. */
static unsigned largest_mtu(unsigned chunk_size)
{
	return (chunk_size - CHUNK_HEADROOM) / 128 * 128 - FRAME_OVERHEAD;
}

static void check_mtu(struct nic *nic, struct finding *f)
{
	if (nic->mtu > largest_mtu(4096))
		say(f, NO, "%u, a chunk of 4096 bytes has room for %u, try: ip link set %s mtu %u",
		    nic->mtu, largest_mtu(4096), nic->name, largest_mtu(4096));
	else if (nic->mtu > largest_mtu(2048))
		say(f, OK, "%u, with chunks of 4096 bytes only", nic->mtu);
	else
		say(f, OK, "%u", nic->mtu);
}

static void check_link(struct nic *nic, struct finding *f)
{
	if (!nic->up)
		say(f, NO, "down, try: ip link set %s up", nic->name);
	else
		say(f, OK, nic->carrier ? "up" : "up, but no carrier");
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

static void check_xdp(struct nic *nic, struct finding *f)
{
	__u32 id = 0;

	if (bpf_xdp_query_id((int)nic->ifindex, 0, &id))
		say(f, UNKNOWN, "the kernel does not say what is attached");
	else if (!id)
		say(f, OK, "no other program");
	else if (is_our_program(id))
		say(f, OK, "program %u of libpaste: in use now", id);
	else
		say(f, NO, "program %u is attached already, try: ip link set %s xdp off", id,
		    nic->name);
}

/* ------------------------------------------------------------------------- */
/* What nic prepare changes */

static void check_queues(struct nic *nic, struct finding *f)
{
	uint32_t n;

	if (nic_queues(nic, &n) || !n)
		say(f, UNKNOWN, "the driver does not say how many");
	else if (n == 1)
		say(f, OK, "1");
	else
		say(f, OK, "%u: bind all, or ethtool -L %s combined 1", n, nic->name);
}

static void check_setting(struct nic *nic, const struct setting *s, struct finding *f)
{
	char *value = NULL, *best;
	int ret = s->get(nic, s, &value);
	uint32_t n;

	if (nic_queues(nic, &n))
		n = 0;
	best = setting_best(nic, s, n);
	if (!value && ret == -EOPNOTSUPP)
		; /* the driver has no such thing */
	else if (!value)
		say(f, UNKNOWN, "%s", nic->why);
	else if (!strcmp(value, best))
		say(f, OK, "%s", value);
	else if (s->blocks && ret)
		say(f, NO, "%s, and the driver cannot switch it", value);
	else if (s->blocks)
		say(f, NO, "%s, try: ethtool -K %s %s off, or nic prepare", value, nic->name,
		    s->feature);
	else if (ret)
		say(f, OK, "%s, and the driver cannot switch it", value);
	else
		say(f, SLOW, "%.40s%s, better %s: %s", value, strlen(value) > 40 ? "..." : "", best,
		    s->why);
	free(value);
	free(best);
}

static void check_interrupts(struct nic *nic, struct finding *f)
{
	char *cpus, *want;
	uint32_t n, i;
	int irq;

	if (nic_queues(nic, &n) || !n)
		return;
	for (i = 0; i < n; i++) {
		irq = irq_of_queue(nic, i);
		if (irq < 0 || irq_get(irq, &cpus)) {
			say(f, UNKNOWN, "cannot tell which is queue %u's", i);
			return;
		}
		want = text_of("%d", irq_best_cpu(nic, i));
		if (strcmp(cpus, want))
			say(f, SLOW, "queue %u's on CPU %s, better %s: one CPU for each queue", i,
			    cpus, want);
		free(cpus);
		free(want);
		if (f->verdict == SLOW)
			return;
	}
	say(f, OK, "one CPU for each queue");
}

/* ------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*check)(struct nic *nic, struct finding *f);
} checks[] = {
	{ "driver", check_driver },    { "SR-IOV", check_sriov },
	{ "DCB", check_dcb },	       { "MTU", check_mtu },
	{ "link", check_link },	       { "XDP", check_xdp },
	{ "RX queues", check_queues }, { "interrupts", check_interrupts },
};

/* A condition without a text does not concern this NIC. */
static void print_finding(const char *name, const struct finding *f)
{
	static const char *const words[] = { "ok", "?", "slow", "no" };

	if (*f->text)
		printf("  %-16s %-4s %s\n", name, words[f->verdict], f->text);
}

bool check_all(struct nic *nic)
{
	bool works = true;
	size_t i;

	for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		struct finding f = {};

		checks[i].check(nic, &f);
		print_finding(checks[i].name, &f);
		works = works && f.verdict != NO;
	}
	for (i = 0; i < n_settings; i++) {
		struct finding f = {};

		if (!settings[i].why && !settings[i].blocks)
			continue;
		check_setting(nic, &settings[i], &f);
		print_finding(settings[i].name, &f);
		works = works && f.verdict != NO;
	}
	printf("%s: zero copy %s\n", nic->name, works ? "should work" : "would not work");
	return works;
}

/* Of settings only those that block and cannot be changed: the others are what prepare is for. */
bool check_blocked(struct nic *nic)
{
	bool blocked = false;
	size_t i;

	for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		struct finding f = {};

		checks[i].check(nic, &f);
		if (f.verdict == NO)
			warnx("nic: %s: %s: %s", nic->name, checks[i].name, f.text);
		blocked = blocked || f.verdict == NO;
		if (blocked && checks[i].check == check_driver)
			return true; /* what is no such NIC needs no better settings */
	}
	for (i = 0; i < n_settings; i++) {
		char *value = NULL;
		int ret = settings[i].get(nic, &settings[i], &value);

		if (settings[i].blocks && ret && value && strcmp(value, settings[i].best)) {
			warnx("nic: %s: %s is on, and the driver cannot switch it", nic->name,
			      settings[i].name);
			blocked = true;
		}
		free(value);
	}
	return blocked;
}

int cmd_check(int argc, char **argv)
{
	struct nic nic;
	bool works;
	int ret;

	if (argc != 2) {
		warnx("check: name one NIC. See pastectl --help");
		return EXIT_USAGE;
	}
	ret = nic_open(&nic, argv[1]);
	if (ret == -ENODEV)
		warnx("check: there is no network interface %s", argv[1]);
	else if (ret)
		warnx("check: %s", strerror(-ret));
	if (ret)
		return EXIT_USAGE;
	printf("%s\n", nic.name);
	works = check_all(&nic);
	nic_close(&nic);
	return works ? EXIT_OK : EXIT_NO;
}
