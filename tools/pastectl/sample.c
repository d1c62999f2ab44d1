// SPDX-License-Identifier: MIT
/*
 * pastectl: taking samples, again and again if wanted.
 */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pastectl.h"
#include "sample.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void wait_for(double seconds)
{
	struct timespec t = { .tv_sec = (time_t)seconds };

	t.tv_nsec = (long)((seconds - floor(seconds)) * 1e9);
	nanosleep(&t, NULL);
}

static void add_conn(struct sample *s, const struct paste_ioc_conn *c)
{
	if (s->n_conns == s->room_conns) {
		s->room_conns = s->room_conns ? 2 * s->room_conns : 64;
		s->c = reallocarray(s->c, s->room_conns, sizeof(*s->c));
		if (!s->c)
			err(EXIT_NO, "connections");
	}
	s->c[s->n_conns++] = *c;
}

/* A queue that has gone meanwhile has none. */
static int take_conns(struct paste *p, struct sample *s, __u32 id)
{
	struct paste_ioc_conn c = { .conn = 0 };
	int ret;

	while (!(ret = paste_conn_info(p, id, c.conn, true, &c)))
		add_conn(s, &c);
	return ret == -ENOENT ? 0 : ret;
}

/* 0 or a negative errno. */
static int take(struct paste *p, struct sample *s, bool conns)
{
	struct paste_ioc_stats one;
	__u32 id = 0;
	int ret;

	s->n = 0;
	s->n_conns = 0;
	s->when = now();
	while (!(ret = paste_stats(p, id, true, &one))) {
		s->q = reallocarray(s->q, s->n + 1, sizeof(*s->q));
		if (!s->q)
			err(EXIT_NO, "queues");
		s->q[s->n++] = one;
		ret = conns ? take_conns(p, s, one.id) : 0;
		id = one.id + 1;
		if (ret || !id)
			return ret;
	}
	return ret == -ENOENT ? 0 : ret;
}

/* Ends when it has shown enough, when it is killed, or when something fails. */
static int watch(struct paste *p, const struct watch *w)
{
	struct sample s[2] = { { .n = 0 }, { .n = 0 } };
	unsigned turn = 0, shown = 0;
	int ret;

	while (!(ret = take(p, &s[turn], w->conns))) {
		w->show(shown ? &s[!turn] : NULL, &s[turn]);
		if (fflush(stdout)) {
			ret = -EPIPE;
			break;
		}
		if (++shown == w->n)
			break;
		wait_for(w->seconds);
		turn = !turn;
	}
	for (turn = 0; turn < 2; turn++) {
		free(s[turn].q);
		free(s[turn].c);
	}
	return ret;
}

int watch_run(const struct watch *w)
{
	struct paste p;
	int ret;

	if (paste_open(&p)) {
		warnx("%s", paste_text(&p));
		return EXIT_NO;
	}
	ret = watch(&p, w);
	paste_close(&p);
	if (ret)
		warnx("%s: %s", w->command, strerror(-ret));
	return ret ? EXIT_NO : EXIT_OK;
}

bool watch_seconds(struct watch *w, const char *arg)
{
	char *end;

	w->seconds = strtod(arg, &end);
	if (end != arg && !*end && w->seconds >= 0.01 && w->seconds <= 86400)
		return true;
	warnx("%s: -w wants seconds, 0.01 to 86400, not '%s'", w->command, arg);
	return false;
}

bool watch_takes_no_more(const struct watch *w, int argc, char **argv)
{
	if (optind == argc)
		return true;
	warnx("%s: what is '%s'? See pastectl --help", w->command, argv[optind]);
	return false;
}

const struct paste_ioc_stats *sample_queue(const struct sample *s, __u32 id)
{
	static const struct paste_ioc_stats zeros;
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->q[i].id == id)
			return &s->q[i];
	return &zeros;
}

static int compare_conns(const void *va, const void *vb)
{
	const struct paste_ioc_conn *a = va, *b = vb;

	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return (int)PASTE_CONN_INDEX(a->conn) - (int)PASTE_CONN_INDEX(b->conn);
}

const struct paste_ioc_conn *sample_conn(const struct sample *s, const struct paste_ioc_conn *c)
{
	static const struct paste_ioc_conn zeros;
	const struct paste_ioc_conn *old = NULL;

	if (s->n_conns)
		old = bsearch(c, s->c, s->n_conns, sizeof(*c), compare_conns);
	return old && old->conn == c->conn ? old : &zeros;
}

void queue_print_name(FILE *out, const struct paste_ioc_stats *q)
{
	char name[IF_NAMESIZE];

	fprintf(out, "queue %u", q->id);
	if (q->pid)
		fprintf(out, "  pid %u", q->pid);
	if (!q->ifindex)
		fprintf(out, "  plain");
	else if (if_indextoname(q->ifindex, name))
		fprintf(out, "  %s queue %u", name, q->nic_queue);
	else
		fprintf(out, "  interface %u queue %u", q->ifindex, q->nic_queue);
}

/* What the tests and the demo mean by "copied": all reasons but one. */
__u64 queue_copied(const struct paste_ioc_stats *q)
{
	return q->v[PASTE_STAT_COPY_ENTRIES] - q->v[PASTE_STAT_COPY_PREATTACH];
}
