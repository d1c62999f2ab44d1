// SPDX-License-Identifier: MIT
/*
 * pastectl nic show: what a NIC is and how it is set, then check's verdicts.
 */
#include <stdlib.h>
#include <unistd.h>
#include <linux/ethtool_netlink.h>

#include <paste.h>

#include "nic.h"
#include "pastectl.h"

static void show_number(struct nic *nic, const char *what, uint8_t cmd, uint16_t attr,
			uint16_t attr_max)
{
	uint32_t value, max;

	if (nic_get(nic, cmd, attr, &value))
		return;
	printf("  %-16s %u", what, value);
	if (!nic_get(nic, cmd, attr_max, &max))
		printf(" of at most %u", max);
	printf("\n");
}

static void show_offloads(struct nic *nic)
{
	static const char *const names[] = { "rx-checksum",
					     "rx-hashing",
					     "rx-gro",
					     "tx-checksum-ip-generic",
					     "tx-checksum-ipv4",
					     "tx-checksum-ipv6",
					     "tx-scatter-gather",
					     "tx-tcp-segmentation",
					     "tx-tcp6-segmentation" };
	size_t i;
	bool on;

	printf("  %-16s", "offloads");
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		nic_get_feature(nic, names[i], &on);
		if (on)
			printf(" %s", names[i]);
	}
	printf("\n");
}

/* How many entries name each queue: the share of flows that it gets. */
static void show_rss(struct nic *nic)
{
	uint32_t share[NIC_QUEUES_MAX] = {}, i;
	struct rss t;

	if (!nic_get_rss(nic, &t)) {
		printf("  %-16s %u entries;", "RSS table", t.n);
		for (i = 0; i < t.n; i++)
			if (t.queue[i] < NIC_QUEUES_MAX)
				share[t.queue[i]]++;
		for (i = 0; i < NIC_QUEUES_MAX; i++)
			if (share[i])
				printf(" queue %u: %u", i, share[i]);
		printf("\n");
	}
	free(t.queue);
}

static void show_rules(struct nic *nic)
{
	uint32_t n, i;
	struct rule *r = nic_rules(nic, &n);

	printf("  %-16s %u\n", "ntuple rules", n);
	for (i = 0; i < n; i++)
		if (r[i].port)
			printf("  %-16s rule %u: port %u to queue %llu\n", "", r[i].location,
			       r[i].port, (unsigned long long)r[i].queue);
	free(r);
}

static void show_interrupts(struct nic *nic)
{
	uint32_t n, i;
	char *cpus;
	int irq;

	if (nic_queues(nic, &n))
		return;
	for (i = 0; i < n; i++) {
		irq = irq_of_queue(nic, i);
		if (irq < 0 || irq_get(irq, &cpus))
			continue;
		printf("  %-16s %d on CPU %s\n", "interrupt", irq, cpus);
		free(cpus);
	}
}

/* Who may not ask the module sees in the line XDP below whether anybody is. */
static void show_bound(struct nic *nic)
{
	struct paste_ioc_stats q;
	struct paste p;
	__u32 id = 0;

	if (paste_open(&p))
		return;
	for (; !paste_stats(&p, id, true, &q); id = q.id + 1)
		if (q.ifindex == nic->ifindex)
			printf("  %-16s queue %u by process %u\n", "bound", q.nic_queue, q.pid);
	paste_close(&p);
}

int nic_show(struct nic *nic)
{
	printf("%s\n", nic->name);
	printf("  %-16s %s %s%s%s\n", "device", *nic->driver ? nic->driver : "none", nic->bus,
	       *nic->firmware ? ", firmware " : "", nic->firmware);
	show_number(nic, "queues", ETHTOOL_MSG_CHANNELS_GET, ETHTOOL_A_CHANNELS_COMBINED_COUNT,
		    ETHTOOL_A_CHANNELS_COMBINED_MAX);
	show_number(nic, "RX ring", ETHTOOL_MSG_RINGS_GET, ETHTOOL_A_RINGS_RX,
		    ETHTOOL_A_RINGS_RX_MAX);
	show_number(nic, "TX ring", ETHTOOL_MSG_RINGS_GET, ETHTOOL_A_RINGS_TX,
		    ETHTOOL_A_RINGS_TX_MAX);
	show_offloads(nic);
	show_rss(nic);
	show_rules(nic);
	show_interrupts(nic);
	show_bound(nic);
	if (!access(saved_path(nic), F_OK))
		printf("  %-16s yes, old values in %s\n", "prepared", saved_path(nic));
	printf("\n");
	return check_all(nic) ? EXIT_OK : EXIT_NO;
}
