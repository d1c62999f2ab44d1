// SPDX-License-Identifier: MIT
/*
 * pastectl stat: the statistics of all queues, once or again and again, for
 * people, as JSON, or for Prometheus.
 */
#include <err.h>
#include <getopt.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>

#include <paste.h>

#include "pastectl.h"
#include "sample.h"

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
	printf(", \"copied\": %llu", queue_copied(q));
	for (i = 0; i < PASTE_STAT_N; i++)
		printf(", \"%s\": %llu", paste_stat_name(i), q->v[i]);
	printf("}");
}

/* Totals, always. */
static void show_json(const struct sample *before, const struct sample *s)
{
	size_t i;

	(void)before;
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
static void show_prom(const struct sample *before, const struct sample *s)
{
	size_t i;
	unsigned c;

	(void)before;
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
	queue_print_name(stdout, q);
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
			printf("  %-18s %20llu\n", "copied", queue_copied(&s->q[i]));
	}
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
		old = sample_queue(before, s->q[i].id);
		print_head(&s->q[i]);
		for (c = 0; c < PASTE_STAT_N; c++)
			if (s->q[i].v[c] != old->v[c])
				printf("  %-18s %18.0f/s\n", paste_stat_name(c),
				       (double)(s->q[i].v[c] - old->v[c]) / seconds);
	}
	printf("\n");
}

static void show_people(const struct sample *before, const struct sample *s)
{
	if (before)
		print_rates(before, s);
	else
		print_totals(s);
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "prom", no_argument, NULL, 'p' },
						 {} };
	struct watch w = { .command = "stat", .show = show_people };
	int c;

	while ((c = getopt_long(argc, argv, "w:", options, NULL)) != -1) {
		if (c == 'j')
			w.show = show_json;
		else if (c == 'p')
			w.show = show_prom;
		else if (c != 'w' || !watch_seconds(&w, optarg))
			return EXIT_USAGE;
	}
	if (!watch_takes_no_more(&w, argc, argv))
		return EXIT_USAGE;
	if (w.show == show_prom && w.seconds > 0) {
		warnx("stat: --prom is for being scraped, without -w");
		return EXIT_USAGE;
	}
	w.n = w.seconds > 0 ? 0 : 1;
	return watch_run(&w);
}
