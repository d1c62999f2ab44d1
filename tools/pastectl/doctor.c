// SPDX-License-Identifier: MIT
/*
 * pastectl doctor: what somebody who gets a bug report would ask for.
 *
 * It asks what the other commands ask, one after the other, and goes on when
 * one of them fails: why it does is a part of the report.
 */
#include <err.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "nic.h"
#include "pastectl.h"

#define LOG_READ_ALL 3 /* klogctl(2) */
#define LOG_SIZE     10
#define LOG_LINES    200

static void heading(const char *text)
{
	printf("\n=== %s\n", text);
	fflush(stdout);
}

/* The first line of a file that begins with a word, without it. */
static void print_file(const char *what, const char *path, const char *word)
{
	char line[512], *text;
	FILE *f = fopen(path, "re");

	if (!f) {
		printf("%-16s cannot read %s: %s\n", what, path, strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, word, strlen(word)))
			continue;
		text = line + strlen(word);
		printf("%-16s %s\n", what, text + strspn(text, " \t:="));
		break;
	}
	fclose(f);
}

static void print_system(void)
{
	struct sysinfo memory;
	struct utsname u;

	if (!uname(&u))
		printf("%-16s %s %s %s\n", "kernel", u.release, u.version, u.machine);
	print_file("system", "/etc/os-release", "PRETTY_NAME");
	print_file("command line", "/proc/cmdline", "");
	print_file("tainted", "/proc/sys/kernel/tainted", "");
	print_file("CPU", "/proc/cpuinfo", "model name");
	printf("%-16s %ld of %ld\n", "CPUs", sysconf(_SC_NPROCESSORS_ONLN),
	       sysconf(_SC_NPROCESSORS_CONF));
	if (!sysinfo(&memory))
		printf("%-16s %llu MB, %llu MB free\n", "memory",
		       (unsigned long long)memory.totalram * memory.mem_unit >> 20,
		       (unsigned long long)memory.freeram * memory.mem_unit >> 20);
	print_file("locked memory", "/proc/self/limits", "Max locked memory");
}

static void print_module(void)
{
	static const char *const files[] = { "srcversion", "refcnt", "parameters/doorbell_batch",
					     "parameters/fsdax_by_users" };
	char path[64];
	struct stat st;
	size_t i;

	if (access("/sys/module/paste", F_OK))
		printf("%-16s no\n", "loaded");
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "/sys/module/paste/%s", files[i]);
		if (!access(path, F_OK))
			print_file(basename(path), path, "");
	}
	if (stat("/dev/paste", &st))
		printf("%-16s %s\n", "/dev/paste", strerror(errno));
	else
		printf("%-16s mode %04o, user %u, group %u\n", "/dev/paste", st.st_mode & 07777,
		       st.st_uid, st.st_gid);
	printf("%-16s user %u\n", "pastectl", geteuid());
}

static void print_nics(void)
{
	struct if_nameindex *all = if_nameindex(), *i;
	char path[64 + IF_NAMESIZE];
	struct nic nic;

	for (i = all; i && i->if_index; i++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/device", i->if_name);
		if (access(path, F_OK) || nic_open(&nic, i->if_name))
			continue;
		heading(i->if_name);
		nic_show(&nic);
		nic_close(&nic);
	}
	if_freenameindex(all);
}

/* Frames of a trace have the module's name in them, too. */
static bool is_of_interest(const char *line)
{
	static const char *const words[] = { "paste", "BUG: ",	    "WARNING: ",    "Oops",
					     "RIP: ", "Call Trace", "Hardware name" };
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strstr(line, words[i]))
			return true;
	return false;
}

static void print_log_lines(char *log)
{
	const char *kept[LOG_LINES] = {};
	unsigned n = 0, i;
	char *line;

	for (line = strtok(log, "\n"); line; line = strtok(NULL, "\n"))
		if (is_of_interest(line))
			kept[n++ % LOG_LINES] = line;
	for (i = n > LOG_LINES ? n - LOG_LINES : 0; i < n; i++)
		printf("%s\n", kept[i % LOG_LINES]);
	printf("(%u lines)\n", n);
}

static void print_log(void)
{
	int size = klogctl(LOG_SIZE, NULL, 0), got;
	char *log = size > 0 ? malloc((size_t)size + 1) : NULL;

	got = log ? klogctl(LOG_READ_ALL, log, size) : -1;
	if (got < 0) {
		printf("cannot be read: %s\n", strerror(errno));
	} else {
		log[got] = 0;
		print_log_lines(log);
	}
	free(log);
}

/* What a command cannot do it says in the report. */
static void run(const char *title, int (*command)(int argc, char **argv))
{
	char name[] = "doctor", *argv[] = { name, NULL };

	heading(title);
	command(1, argv);
	fflush(stdout);
}

int cmd_doctor(int argc, char **argv)
{
	if (argc > 1) {
		warnx("doctor: what is '%s'? See pastectl --help", argv[1]);
		return EXIT_USAGE;
	}
	if (dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		err(EXIT_NO, "doctor");
	printf("A report of pastectl doctor. It has names and addresses of this machine in it:\n"
	       "look it through before it is sent. As root it says more.\n");
	heading("system");
	print_system();
	heading("module");
	print_module();
	run("info", cmd_info);
	print_nics();
	run("queues", cmd_stat);
	run("connections", cmd_conns);
	heading("kernel log: what has to do with it");
	print_log();
	return fflush(stdout) ? EXIT_NO : EXIT_OK;
}
