// SPDX-License-Identifier: MIT
/*
 * pastectl: the interrupts of a NIC's RX queues, and the CPUs that take them.
 *
 * The kernel does not say which interrupt is which queue's (later kernels do
 * for some drivers). But drivers name them, and all names of interrupts for
 * reception end in the queue's number: eth0-TxRx-3, i40e-eth0-TxRx-3,
 * mlx5_comp3@pci:0000:03:00.0, virtio0-input.3.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"

/* One line of a small file, without its end; NULL if there is none. */
static char *read_line(const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return NULL;
	if (getline(&line, &size, f) < 0) {
		free(line);
		line = NULL;
	} else {
		line[strcspn(line, "\n")] = 0;
	}
	fclose(f);
	return line;
}

/* The queue in an interrupt's name, or -1. */
static int queue_of_name(const char *name)
{
	size_t end = strcspn(name, "@"), begin = end;
	char *word = strndupa(name, end);

	while (begin && isdigit((unsigned char)word[begin - 1]))
		begin--;
	if (begin == end ||
	    !(strcasestr(word, "rx") || strstr(word, "comp") || strstr(word, "input")))
		return -1;
	return atoi(word + begin);
}

/* An interrupt has a directory with a directory for each handler in it. */
static bool is_irq_of_queue(int irq, unsigned queue)
{
	struct dirent *e;
	bool found = false;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/irq/%d", irq);
	d = opendir(path);
	while (d && !found && (e = readdir(d)))
		found = e->d_type == DT_DIR && queue_of_name(e->d_name) == (int)queue;
	if (d)
		closedir(d);
	return found;
}

/* virtio_net's device is the one of its bus, with the PCI device above it. */
static DIR *open_irqs(const struct nic *nic)
{
	static const char *const places[] = { "device", "device/.." };
	char path[128];
	DIR *d = NULL;
	size_t i;

	for (i = 0; i < 2 && !d; i++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/%s/msi_irqs", nic->name, places[i]);
		d = opendir(path);
	}
	return d;
}

int irq_of_queue(const struct nic *nic, unsigned queue)
{
	DIR *d = open_irqs(nic);
	struct dirent *e;
	int found = -ENOENT;

	while (d && found < 0 && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]) && is_irq_of_queue(atoi(e->d_name), queue))
			found = atoi(e->d_name);
	if (d)
		closedir(d);
	return found;
}

int irq_get(int irq, char **cpus)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/irq/%d/smp_affinity_list", irq);
	*cpus = read_line(path);
	return *cpus ? 0 : -ENOENT;
}

int irq_set(int irq, const char *cpus)
{
	char path[64];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/proc/irq/%d/smp_affinity_list", irq);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, cpus, strlen(cpus)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* A list such as 0-3,8,10-11. */
static void parse_cpus(const char *list, cpu_set_t *set)
{
	unsigned long first, last;
	char *end;

	CPU_ZERO(set);
	while (isdigit((unsigned char)*list)) {
		first = last = strtoul(list, &end, 10);
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (; first <= last && first < CPU_SETSIZE; first++)
			CPU_SET(first, set);
		list = *end == ',' ? end + 1 : end;
	}
}

int irq_best_cpu(const struct nic *nic, unsigned queue)
{
	cpu_set_t set;
	char path[128], *list;
	int cpu, n;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/local_cpulist", nic->name);
	list = read_line(path);
	if (!list)
		list = read_line("/sys/devices/system/cpu/online");
	if (!list)
		return -1;
	parse_cpus(list, &set);
	free(list);
	n = CPU_COUNT(&set);
	if (!n)
		return -1;
	queue %= (unsigned)n;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set) && !queue--)
			return cpu;
	return -1;
}
