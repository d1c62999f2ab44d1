// SPDX-License-Identifier: MIT
/*
 * pastectl: look at the paste module and at NICs, and prepare NICs, from a shell.
 *
 * This file has the command line and the command "info"; stat.c, conns.c, top.c,
 * check.c, nic.c and doctor.c have the commands of their names. Only nic prepare
 * and nic restore change anything.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include <paste.h>

#include "pastectl.h"

static const char usage_text[] =
	"usage: pastectl info\n"
	"       pastectl stat [-w SECONDS] [--json | --prom]\n"
	"       pastectl conns [-j | --json]\n"
	"       pastectl top [-n SCREENS] [-w SECONDS]\n"
	"       pastectl check NIC\n"
	"       pastectl nic show NIC\n"
	"       pastectl nic prepare NIC --queues N --port PORT [--port PORT...] [-n]\n"
	"       pastectl nic restore NIC\n"
	"       pastectl doctor\n"
	"\n"
	"info   version, features and limits of the module, objects that exist\n"
	"stat   statistics of all queues that may be seen; counters that are 0 are left out\n"
	"       -w SECONDS  again and again, with what happened per second\n"
	"       --json      one list of objects with all counters\n"
	"       --prom      all counters in the text format of Prometheus\n"
	"conns  their connections: peers, bytes, what each holds and waits for\n"
	"       --json      one list of objects, with the sockets' inodes\n"
	"top    what all queues do now, who has their chunks, and the busiest connections;\n"
	"       again and again\n"
	"       -n SCREENS  only so many times\n"
	"       -w SECONDS  between them; 1 unless said\n"
	"check  would zero copy work on this NIC, and if not, what is in the way?\n"
	"       exit status 0: yes, 1: no\n"
	"nic show     all about a NIC that matters, and what check says\n"
	"nic prepare  make it fit for a server on these ports with N threads: N queues that\n"
	"             flows are spread over, each with a CPU; the old values are saved\n"
	"       -n    only print what would be changed\n"
	"nic restore  put the old values back\n"
	"doctor       all of that and more, for a bug report\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "info", cmd_info },	{ "stat", cmd_stat }, { "conns", cmd_conns },	{ "top", cmd_top },
	{ "check", cmd_check }, { "nic", cmd_nic },   { "doctor", cmd_doctor },
};

static const char *const objects[PASTE_OBJ_MAX] = {
	[PASTE_OBJ_CONTEXT] = "contexts",
	[PASTE_OBJ_POOL_PAGE] = "pool pages",
	[PASTE_OBJ_QUEUE] = "queues",
	[PASTE_OBJ_NIC] = "NIC bindings",
	[PASTE_OBJ_NIC_PAGE] = "pinned pages",
	[PASTE_OBJ_CONN] = "connections",
	[PASTE_OBJ_SEND] = "sends",
	[PASTE_OBJ_FLOW] = "flows",
};

static void print_info(const struct paste_ioc_info *i)
{
	int n;

	printf("version      %.*s\n", (int)sizeof(i->version), (const char *)i->version);
	printf("features    %s%s%s%s\n", i->features & PASTE_FEAT_PLAIN ? " plain" : "",
	       i->features & PASTE_FEAT_HOOKED ? " hooked" : "",
	       i->features & PASTE_FEAT_DEVDAX ? " devdax" : "",
	       i->features & PASTE_FEAT_FSDAX ? " fsdax" : "");
	printf("limits       %u chunks in a pool, %u queues and %u connections in a context\n",
	       i->max_chunks, i->max_queues, i->max_conns);
	printf("             %u entries in a ring, sends of up to %u bytes are copied\n",
	       i->max_entries, i->tx_copy_max);
	printf("\n%-12s %14s %14s %14s\n", "objects", "made", "gone", "now");
	for (n = 0; n < PASTE_OBJ_MAX; n++)
		printf("%-12s %14llu %14llu %14llu\n", objects[n], i->made[n], i->gone[n],
		       i->made[n] - i->gone[n]);
}

int cmd_info(int argc, char **argv)
{
	struct paste_ioc_info info;
	struct paste p;
	int ret;

	if (argc > 1) {
		warnx("info: what is '%s'? See pastectl --help", argv[1]);
		return EXIT_USAGE;
	}
	if (paste_open(&p)) {
		warnx("%s", paste_text(&p));
		return EXIT_NO;
	}
	ret = paste_info(&p, &info);
	paste_close(&p);
	if (ret) {
		warnx("info: %s", strerror(-ret));
		return EXIT_NO;
	}
	print_info(&info);
	return EXIT_OK;
}

/* Also behind a command, where no name is one. */
static bool wants_help(int argc, char **argv)
{
	while (--argc > 0)
		if (!strcmp(argv[argc], "--help"))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	size_t i;

	if (wants_help(argc, argv) || (argc > 1 && !strcmp(argv[1], "-h"))) {
		fputs(usage_text, stdout);
		return EXIT_OK;
	}
	for (i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}
