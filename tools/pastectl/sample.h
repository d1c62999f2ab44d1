/* SPDX-License-Identifier: MIT */
/*
 * pastectl: samples of what the module counts, which stat, conns and top show.
 *
 * A sample is all queues that may be seen, at about the same time. Rates are the
 * difference of two samples. Queues are matched by their number, which the
 * module does not use twice; connections by queue and handle.
 */
#ifndef PASTECTL_SAMPLE_H
#define PASTECTL_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <paste.h>

struct sample {
	struct paste_ioc_stats *q;
	size_t n;
	struct paste_ioc_conn *c; /* by queue, then by the handle's index */
	size_t n_conns, room_conns;
	double when; /* seconds */
};

/* --- sample.c */

/* What a command shows, and how often. */
struct watch {
	const char *command; /* its name, for error messages */
	/* once for each sample; before is NULL with the first */
	void (*show)(const struct sample *before, const struct sample *s);
	bool conns;	/* connections are wanted */
	double seconds; /* between two samples */
	unsigned n;	/* samples; 0: until it is killed */
};

int watch_run(const struct watch *w);		      /* returns the exit status */
bool watch_seconds(struct watch *w, const char *arg); /* the option -w; false: said why not */
bool watch_takes_no_more(const struct watch *w, int argc, char **argv); /* behind the options */

/* The queue, the connection, in an earlier sample; a new one began with zeros. */
const struct paste_ioc_stats *sample_queue(const struct sample *s, __u32 id);
const struct paste_ioc_conn *sample_conn(const struct sample *s, const struct paste_ioc_conn *c);

void queue_print_name(FILE *out, const struct paste_ioc_stats *q);
__u64 queue_copied(const struct paste_ioc_stats *q);

/* --- conns.c */

#define ADDRESS_MAX 56

const char *conn_address(char text[ADDRESS_MAX], const __u8 address[16], unsigned port);
const char *conn_waits(const struct paste_ioc_conn *c); /* for what; NULL: it does not */

#endif /* PASTECTL_SAMPLE_H */
