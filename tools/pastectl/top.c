// SPDX-License-Identifier: MIT
/*
 * pastectl top: what each queue does now, and the busiest connections.
 *
 * A screen is written as text first. On a terminal it is then put over the one
 * before, cut to the size of the terminal; elsewhere it is printed as it is.
 */
#include <err.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <paste.h>

#include "pastectl.h"
#include "sample.h"

#define BAR	  50
#define CONNS_MAX 10

/* A queue, now and before. */
struct span {
	const struct paste_ioc_stats *q, *old;
	double seconds;
};

/* Of a counter, or of some that follow one another, per second. */
static double rate_of(const struct span *s, unsigned first, unsigned last)
{
	__u64 n = 0;
	unsigned i;

	for (i = first; i <= last; i++)
		n += s->q->v[i] - s->old->v[i];
	return (double)n / s->seconds;
}

static double rate(const struct span *s, unsigned counter)
{
	return rate_of(s, counter, counter);
}

static double each(double what, double per)
{
	return per > 0 ? what / per : 0;
}

/* A number with three digits or more, in at most 8 characters. */
static const char *human(char text[16], double n)
{
	static const char units[] = " kMGTPE";
	const char *unit = units;

	while (n >= 99999.5 && unit[1]) {
		n /= 1000;
		unit++;
	}
	snprintf(text, 16, unit == units ? "%.0f" : "%.0f%c", n, *unit);
	return text;
}

static void print_directions(FILE *out, const struct span *s)
{
	double entries = rate(s, PASTE_STAT_REF_ENTRIES) + rate(s, PASTE_STAT_COPY_ENTRIES);
	double batches = rate(s, PASTE_STAT_BATCHES), bells = rate(s, PASTE_STAT_DOORBELLS);
	char a[16], b[16], c[16];

	fprintf(out, "  in      %8s entries/s  %8s bytes/s  %8s batches/s of %.1f\n",
		human(a, entries),
		human(b, rate(s, PASTE_STAT_REF_BYTES) + rate(s, PASTE_STAT_COPY_BYTES)),
		human(c, batches), each(rate(s, PASTE_STAT_BATCH_ENTRIES), batches));
	fprintf(out, "  out     %8s sends/s    %8s bytes/s  %8s doorbells/s, %.0f late\n",
		human(a, rate(s, PASTE_STAT_SENDS)), human(b, rate(s, PASTE_STAT_SEND_BYTES)),
		human(c, bells), rate(s, PASTE_STAT_DOORBELLS_LATE));
	fprintf(out, "  syncs   %8s /s         %8s slept/s  %8s polled/s\n",
		human(a, rate(s, PASTE_STAT_SYNCS)), human(b, rate(s, PASTE_STAT_SYNC_SLEPT)),
		human(c, rate(s, PASTE_STAT_SYNC_BUSY)));
}

/* What of these counters happened: their names without the prefix. */
static void print_reasons(FILE *out, const struct span *s, unsigned first, unsigned last,
			  const char *prefix)
{
	char text[16];
	unsigned i;

	for (i = first; i <= last; i++)
		if (rate(s, i) > 0)
			fprintf(out, "  %s %s", paste_stat_name(i) + strlen(prefix),
				human(text, rate(s, i)));
}

static void print_reasons_all(FILE *out, const struct span *s)
{
	char text[16];

	fprintf(out, "  copied  %8s entries/s", human(text, rate(s, PASTE_STAT_COPY_ENTRIES)));
	print_reasons(out, s, PASTE_STAT_COPY_PREATTACH, PASTE_STAT_COPY_FOREIGN, "copy_");
	fprintf(out, "\n  stalls  %8s /s       ",
		human(text, rate_of(s, PASTE_STAT_STALL_RING, PASTE_STAT_STALL_CHUNK) +
				    rate(s, PASTE_STAT_STALL_COMP)));
	print_reasons(out, s, PASTE_STAT_STALL_RING, PASTE_STAT_STALL_CHUNK, "stall_");
	print_reasons(out, s, PASTE_STAT_STALL_COMP, PASTE_STAT_STALL_COMP, "stall_");
	fprintf(out, "\n");
}

static void print_run(FILE *out, char mark, unsigned n)
{
	while (n--)
		fputc(mark, out);
}

static unsigned part_of_bar(const struct paste_ioc_stats *q, unsigned chunks)
{
	return chunks < q->chunks ? (unsigned)((double)chunks / q->chunks * BAR + 0.5) : BAR;
}

/* Who has the chunks. */
static void print_bar(FILE *out, const struct paste_ioc_stats *q)
{
	unsigned held = part_of_bar(q, q->chunks_held);
	unsigned lent = part_of_bar(q, q->chunks_held + q->chunks_lent) - held;

	fprintf(out, "  chunks  [");
	print_run(out, '#', held);
	print_run(out, '=', lent);
	print_run(out, '.', BAR - held - lent);
	fprintf(out, "]\n          of %u: # %u held, = %u lent, . %u free\n", q->chunks,
		q->chunks_held, q->chunks_lent, q->chunks_free);
}

static void print_queue(FILE *out, const struct span *s)
{
	queue_print_name(out, s->q);
	fprintf(out, "  %u connections, %u stalled, %u sends now\n", s->q->conns, s->q->stalled,
		s->q->sends);
	print_directions(out, s);
	print_reasons_all(out, s);
	print_bar(out, s->q);
	fprintf(out, "\n");
}

/* A connection, and what it had since the sample before. */
struct busy {
	const struct paste_ioc_conn *c;
	double in, out; /* bytes per second */
};

/* Most first; who waits before who has nothing to do. */
static int compare_busy(const void *va, const void *vb)
{
	const struct busy *a = va, *b = vb;
	double sum_a = a->in + a->out, sum_b = b->in + b->out;

	if (sum_a != sum_b)
		return sum_a > sum_b ? -1 : 1;
	return !!conn_waits(b->c) - !!conn_waits(a->c);
}

static struct busy *find_busy(const struct sample *before, const struct sample *s)
{
	struct busy *all = calloc(s->n_conns + 1, sizeof(*all));
	double seconds = s->when - before->when;
	const struct paste_ioc_conn *old;
	size_t i;

	if (!all)
		err(EXIT_NO, "top");
	for (i = 0; i < s->n_conns; i++) {
		old = sample_conn(before, &s->c[i]);
		all[i].c = &s->c[i];
		all[i].in = (double)(s->c[i].rx_bytes - old->rx_bytes) / seconds;
		all[i].out = (double)(s->c[i].tx_bytes - old->tx_bytes) / seconds;
	}
	qsort(all, s->n_conns, sizeof(*all), compare_busy);
	return all;
}

static void print_conns(FILE *out, const struct sample *before, const struct sample *s)
{
	struct busy *all = find_busy(before, s), *b;
	char peer[ADDRESS_MAX], in[16], sent[16];
	const char *waits;

	if (s->n_conns)
		fprintf(out, "%-5s  %-26s %8s %8s  %5s %11s  %s\n", "queue", "busiest peers",
			"in/s", "out/s", "sends", "held", "waits for");
	for (b = all; b < all + s->n_conns && b < all + CONNS_MAX; b++) {
		waits = conn_waits(b->c);
		fprintf(out, "%-5u  %-26s %8s %8s  %5u %5u/%-5u  %s\n", b->c->id,
			conn_address(peer, b->c->peer, b->c->peer_port), human(in, b->in),
			human(sent, b->out), b->c->sends, b->c->used, b->c->quota,
			waits ? waits : "-");
	}
	free(all);
}

/* Over the screen before, without a moment in which it is empty. */
static void draw(const char *text)
{
	struct winsize size = { .ws_row = 0 };
	int rows, columns, length;

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	rows = size.ws_row ? size.ws_row - 1 : 23;
	columns = size.ws_col ? size.ws_col : 80;
	printf("\033[H");
	for (; rows && *text; rows--, text += length + !!text[length]) {
		length = (int)strcspn(text, "\n");
		printf("%.*s\033[K\n", length < columns ? length : columns, text);
	}
	printf("\033[J");
}

/* The first sample is only what the second is compared with. */
static void show_screen(const struct sample *before, const struct sample *s)
{
	struct span span;
	size_t size, i;
	char *text;
	FILE *out;

	if (!before)
		return;
	out = open_memstream(&text, &size);
	if (!out)
		err(EXIT_NO, "top");
	span.seconds = s->when - before->when;
	fprintf(out, "%zu queues, %zu connections, %.2g seconds\n\n", s->n, s->n_conns,
		span.seconds);
	for (i = 0; i < s->n; i++) {
		span.q = &s->q[i];
		span.old = sample_queue(before, s->q[i].id);
		print_queue(out, &span);
	}
	print_conns(out, before, s);
	if (fclose(out))
		err(EXIT_NO, "top");
	if (isatty(STDOUT_FILENO))
		draw(text);
	else
		printf("%s\n", text);
	free(text);
}

static bool parse_screens(struct watch *w, const char *arg)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (*arg < '0' || *arg > '9' || *end || n < 1 || n > 1000000000) {
		warnx("top: -n wants a number of screens from 1 on, not '%s'", arg);
		return false;
	}
	w->n = (unsigned)n + 1;
	return true;
}

int cmd_top(int argc, char **argv)
{
	struct watch w = { .command = "top", .show = show_screen, .conns = true, .seconds = 1 };
	int c;

	while ((c = getopt(argc, argv, "n:w:")) != -1)
		if (!(c == 'w' ? watch_seconds(&w, optarg) : c == 'n' && parse_screens(&w, optarg)))
			return EXIT_USAGE;
	if (!watch_takes_no_more(&w, argc, argv))
		return EXIT_USAGE;
	if (isatty(STDOUT_FILENO))
		printf("\033[2J");
	return watch_run(&w);
}
