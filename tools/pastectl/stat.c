// SPDX-License-Identifier: MIT
/*
 * pastectl stat: the statistics of all queues, once or again and again, for
 * people, as JSON, or for Prometheus.
 *
 * A sample is all queues at about the same time. Live rates are the difference
 * of two samples; queues are matched by their number, which the module does not
 * use twice.
 */
#include <err.h>
#include <getopt.h>
#include <math.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <paste.h>

#include "pastectl.h"

enum format {
	PEOPLE,
	JSON,
	PROM
};

struct sample {
	struct paste_ioc_stats *q;
	size_t n;
	double when; /* seconds */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 0 or a negative errno. */
static int take_sample(struct paste *p, struct sample *s)
{
	struct paste_ioc_stats one;
	__u32 id = 0;
	int ret;

	s->n = 0;
	s->when = now();
	while (!(ret = paste_stats(p, id, true, &one))) {
		s->q = reallocarray(s->q, s->n + 1, sizeof(*s->q));
		if (!s->q)
			err(EXIT_NO, "stat");
		s->q[s->n++] = one;
		id = one.id + 1;
		if (!id)
			return 0;
	}
	return ret == -ENOENT ? 0 : ret;
}

/* What the tests and the demo mean by "copied": all reasons but one. */
static __u64 copied(const struct paste_ioc_stats *q)
{
	return q->v[PASTE_STAT_COPY_ENTRIES] - q->v[PASTE_STAT_COPY_PREATTACH];
}

static void print_json_queue(const struct paste_ioc_stats *q)
{
	unsigned i;

	printf("{\"id\": %u, \"pid\": %u, \"ifindex\": %u, \"nic_queue\": %u", q->id, q->pid,
	       q->ifindex, q->nic_queue);
	printf(", \"conns\": %u, \"sends_now\": %u, \"stalled\": %u", q->conns, q->sends,
	       q->stalled);
	printf(", \"chunk_size\": %u, \"chunks\": %u, \"first_chunk\": %u", q->chunk_size,
	       q->chunks, q->first_chunk);
	printf(", \"chunks_held\": %u, \"chunks_lent\": %u, \"chunks_free\": %u", q->chunks_held,
	       q->chunks_lent, q->chunks_free);
	printf(", \"copied\": %llu", copied(q));
	for (i = 0; i < PASTE_STAT_N; i++)
		printf(", \"%s\": %llu", paste_stat_name(i), q->v[i]);
	printf("}");
}

static void print_json(const struct sample *s)
{
	size_t i;

	printf("[");
	for (i = 0; i < s->n; i++) {
		printf(i ? ",\n " : "");
		print_json_queue(&s->q[i]);
	}
	printf("]\n");
}

static void print_prom_labels(const struct paste_ioc_stats *q)
{
	char name[IF_NAMESIZE] = "";

	printf("{queue=\"%u\",pid=\"%u\"", q->id, q->pid);
	if (q->ifindex && if_indextoname(q->ifindex, name))
		printf(",nic=\"%s\",nic_queue=\"%u\"", name, q->nic_queue);
	printf("} ");
}

static void print_prom_gauge(const struct sample *s, const char *name, size_t offset)
{
	size_t i;

	printf("# TYPE paste_%s gauge\n", name);
	for (i = 0; i < s->n; i++) {
		printf("paste_%s", name);
		print_prom_labels(&s->q[i]);
		printf("%u\n", *(const __u32 *)((const char *)&s->q[i] + offset));
	}
}

/* The text format wants all lines of a metric together. */
static void print_prom(const struct sample *s)
{
	size_t i;
	unsigned c;

#define GAUGE(name, member) print_prom_gauge(s, name, offsetof(struct paste_ioc_stats, member))
	GAUGE("conns", conns);
	GAUGE("sends_now", sends);
	GAUGE("stalled", stalled);
	GAUGE("chunks", chunks);
	GAUGE("chunks_held", chunks_held);
	GAUGE("chunks_lent", chunks_lent);
	GAUGE("chunks_free", chunks_free);
#undef GAUGE
	for (c = 0; c < PASTE_STAT_N; c++) {
		printf("# TYPE paste_%s_total counter\n", paste_stat_name(c));
		for (i = 0; i < s->n; i++) {
			printf("paste_%s_total", paste_stat_name(c));
			print_prom_labels(&s->q[i]);
			printf("%llu\n", s->q[i].v[c]);
		}
	}
}

static void print_head(const struct paste_ioc_stats *q)
{
	char name[IF_NAMESIZE];

	printf("queue %u", q->id);
	if (q->pid)
		printf("  pid %u", q->pid);
	if (!q->ifindex)
		printf("  plain");
	else if (if_indextoname(q->ifindex, name))
		printf("  %s queue %u", name, q->nic_queue);
	else
		printf("  interface %u queue %u", q->ifindex, q->nic_queue);
	printf("\n  now: %u connections, %u stalled, %u sends; %u chunks of %u bytes: "
	       "%u held, %u lent, %u free\n",
	       q->conns, q->stalled, q->sends, q->chunks, q->chunk_size, q->chunks_held,
	       q->chunks_lent, q->chunks_free);
}

static void print_totals(const struct sample *s)
{
	size_t i;
	unsigned c;

	if (!s->n)
		printf("no queues\n");
	for (i = 0; i < s->n; i++) {
		print_head(&s->q[i]);
		for (c = 0; c < PASTE_STAT_N; c++)
			if (s->q[i].v[c])
				printf("  %-18s %20llu\n", paste_stat_name(c), s->q[i].v[c]);
		if (s->q[i].v[PASTE_STAT_COPY_ENTRIES])
			printf("  %-18s %20llu\n", "copied", copied(&s->q[i]));
	}
}

/* The queue in the earlier sample; a new one began with zeros. */
static const struct paste_ioc_stats *find_before(const struct sample *s, __u32 id)
{
	static const struct paste_ioc_stats zeros;
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->q[i].id == id)
			return &s->q[i];
	return &zeros;
}

static void print_rates(const struct sample *before, const struct sample *s)
{
	double seconds = s->when - before->when;
	const struct paste_ioc_stats *old;
	size_t i;
	unsigned c;

	if (!s->n)
		printf("no queues\n");
	for (i = 0; i < s->n; i++) {
		old = find_before(before, s->q[i].id);
		print_head(&s->q[i]);
		for (c = 0; c < PASTE_STAT_N; c++)
			if (s->q[i].v[c] != old->v[c])
				printf("  %-18s %18.0f/s\n", paste_stat_name(c),
				       (double)(s->q[i].v[c] - old->v[c]) / seconds);
	}
	printf("\n");
}

static void wait_for(double seconds)
{
	struct timespec t = { .tv_sec = (time_t)seconds };

	t.tv_nsec = (long)((seconds - floor(seconds)) * 1e9);
	nanosleep(&t, NULL);
}

/* Ends when it is killed, or when something fails. */
static int watch(struct paste *p, double seconds, enum format format)
{
	struct sample s[2] = { { .n = 0 }, { .n = 0 } };
	unsigned turn = 0;
	int ret;

	while (!(ret = take_sample(p, &s[turn]))) {
		if (format == JSON)
			print_json(&s[turn]);
		else if (s[!turn].when > 0)
			print_rates(&s[!turn], &s[turn]);
		else
			print_totals(&s[turn]);
		if (fflush(stdout))
			return -EPIPE;
		wait_for(seconds);
		turn = !turn;
	}
	return ret;
}

static int show_once(struct paste *p, enum format format)
{
	struct sample s = { .n = 0 };
	int ret = take_sample(p, &s);

	if (!ret && format == JSON)
		print_json(&s);
	else if (!ret && format == PROM)
		print_prom(&s);
	else if (!ret)
		print_totals(&s);
	free(s.q);
	return ret;
}

static int parse_seconds(const char *arg, double *seconds)
{
	char *end;

	*seconds = strtod(arg, &end);
	if (end != arg && !*end && *seconds >= 0.01 && *seconds <= 86400)
		return 0;
	warnx("stat: -w wants seconds, 0.01 to 86400, not '%s'", arg);
	return -1;
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "prom", no_argument, NULL, 'p' },
						 {} };
	double seconds = 0;
	enum format format = PEOPLE;
	struct paste p;
	int c, ret;

	while ((c = getopt_long(argc, argv, "w:", options, NULL)) != -1) {
		if (c == 'j')
			format = JSON;
		else if (c == 'p')
			format = PROM;
		else if (c != 'w' || parse_seconds(optarg, &seconds))
			return EXIT_USAGE;
	}
	if (optind < argc) {
		warnx("stat: what is '%s'? See pastectl --help", argv[optind]);
		return EXIT_USAGE;
	}
	if (format == PROM && seconds > 0) {
		warnx("stat: --prom is for being scraped, without -w");
		return EXIT_USAGE;
	}
	if (paste_open(&p)) {
		warnx("%s", paste_text(&p));
		return EXIT_NO;
	}
	ret = seconds > 0 ? watch(&p, seconds, format) : show_once(&p, format);
	paste_close(&p);
	if (ret)
		warnx("stat: %s", strerror(-ret));
	return ret ? EXIT_NO : EXIT_OK;
}
