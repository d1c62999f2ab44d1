// SPDX-License-Identifier: MIT
/*
 * pastectl nic: the command line of show, prepare and restore.
 */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"
#include "pastectl.h"

static bool parse_number(const char *word, const char *what, unsigned max, unsigned *value)
{
	char *end;
	unsigned long v = strtoul(word, &end, 10);

	if (*word < '0' || *word > '9' || *end || v < 1 || v > max) {
		warnx("nic: %s is a number from 1 to %u, not '%s'", what, max, word);
		return false;
	}
	*value = (unsigned)v;
	return true;
}

static bool parse_options(int argc, char **argv, struct nic_options *o)
{
	static const struct option options[] = { { "queues", required_argument, NULL, 'q' },
						 { "port", required_argument, NULL, 'p' },
						 {} };
	int c;

	while ((c = getopt_long(argc, argv, "n", options, NULL)) != -1) {
		if (c == 'n') {
			o->dry = true;
		} else if (c == 'q') {
			if (!parse_number(optarg, "--queues", NIC_QUEUES_MAX, &o->queues))
				return false;
		} else if (c == 'p' && o->n_ports == PASTE_PORTS_MAX) {
			warnx("nic: at most %d ports", PASTE_PORTS_MAX);
			return false;
		} else if (c != 'p' ||
			   !parse_number(optarg, "--port", 65535, &o->ports[o->n_ports++])) {
			return false;
		}
	}
	return true;
}

static int run(const char *command, struct nic *nic, const struct nic_options *o)
{
	if (!strcmp(command, "show"))
		return nic_show(nic);
	if (!o->dry && geteuid()) {
		warnx("nic: %s needs root, to change %s, /proc/irq and /run/paste", command,
		      nic->name);
		return EXIT_NO;
	}
	return strcmp(command, "prepare") ? nic_restore(nic) : nic_prepare(nic, o);
}

int cmd_nic(int argc, char **argv)
{
	struct nic_options o = {};
	const char *command;
	struct nic nic;
	int ret;

	if (!parse_options(argc, argv, &o))
		return EXIT_USAGE;
	command = optind < argc ? argv[optind] : "";
	if (argc - optind != 2 ||
	    (strcmp(command, "show") && strcmp(command, "prepare") && strcmp(command, "restore"))) {
		warnx("nic: show, prepare or restore, and one NIC. See pastectl --help");
		return EXIT_USAGE;
	}
	if (!strcmp(command, "prepare") != (o.queues && o.n_ports) ||
	    (o.dry && strcmp(command, "prepare"))) {
		warnx("nic: prepare, and only it, wants --queues and --port. See pastectl --help");
		return EXIT_USAGE;
	}
	ret = nic_open(&nic, argv[optind + 1]);
	if (ret == -ENODEV)
		warnx("nic: there is no network interface %s", argv[optind + 1]);
	else if (ret)
		warnx("nic: %s", strerror(-ret));
	if (ret)
		return EXIT_USAGE;
	ret = run(command, &nic, &o);
	nic_close(&nic);
	return ret;
}
