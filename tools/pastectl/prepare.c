// SPDX-License-Identifier: MIT
/*
 * pastectl nic prepare and restore.
 *
 * prepare first makes a plan, which is all that a dry run prints; then it saves
 * the old values, and only then it changes the first one. What fails half-way is
 * undone from the plan; what is interrupted can be undone from the file. An
 * earlier prepare's values stay in the file: restore goes back to before the
 * first.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nic.h"
#include "pastectl.h"

struct change {
	const struct setting *s; /* NULL: a queue's interrupt */
	unsigned queue;
	char *old; /* NULL: there is no such queue yet */
	char *new;
};

struct plan {
	struct nic *nic;
	unsigned queues;
	struct change *c;
	size_t n;
	struct saved before;
};

/* ------------------------------------------------------------------------- */
/* Changing and putting back */

static char *irq_key(unsigned queue)
{
	return text_of("irq-%u", queue);
}

/* An own RSS table is longer than anybody wants to read. */
#define SHOWN 40

static void print_change(const struct nic *nic, const char *what, const char *old, const char *new)
{
	old = old ? old : "new";
	printf("%s: %s: %.*s%s -> %.*s%s\n", nic->name, what, SHOWN, old,
	       strlen(old) > SHOWN ? "..." : "", SHOWN, new, strlen(new) > SHOWN ? "..." : "");
	fflush(stdout);
}

/* The name of an interrupt for people. */
static void print_irq(const struct nic *nic, unsigned queue, const char *old, const char *new)
{
	char *what = text_of("CPU for queue %u", queue);

	print_change(nic, what, old, new);
	free(what);
}

static int set_irq(struct nic *nic, unsigned queue, const char *cpus)
{
	int irq = irq_of_queue(nic, queue);
	int ret = irq < 0 ? irq : irq_set(irq, cpus);

	if (ret)
		snprintf(nic->why, sizeof(nic->why), "interrupt: %s", strerror(-ret));
	return ret;
}

static bool put_back_setting(struct nic *nic, const struct setting *s, const char *value,
			     bool complain)
{
	char *now = NULL;
	bool ok = true;

	s->get(nic, s, &now);
	if (!now || strcmp(now, value)) {
		ok = !s->set(nic, s, value);
		if (ok)
			print_change(nic, s->name, now, value);
		else if (complain)
			warnx("nic: %s: %s: cannot put back %s: %s", nic->name, s->name, value,
			      nic->why);
	}
	free(now);
	return ok;
}

static bool put_back_irq(struct nic *nic, unsigned queue, const char *cpus)
{
	int irq = irq_of_queue(nic, queue);
	bool ok = true;
	char *now;

	if (irq < 0 || irq_get(irq, &now))
		return true; /* the queue is not there, so it was put back with its driver */
	if (strcmp(now, cpus)) {
		ok = !set_irq(nic, queue, cpus);
		if (ok)
			print_irq(nic, queue, now, cpus);
		else
			warnx("nic: %s: queue %u: cannot put back CPU %s: %s", nic->name, queue,
			      cpus, nic->why);
	}
	free(now);
	return ok;
}

/*
 * As much as can be. Three times, as a driver may refuse or forget a value while
 * another is not back yet: i40e takes rx-usecs without adaptive-rx only, and has
 * its own of both with another number of channels. Interrupts last: the number of
 * channels makes them anew.
 */
static bool put_back(struct nic *nic, const struct saved *s)
{
	unsigned queue, tries;
	const char *value;
	bool ok = true;
	size_t i;

	for (tries = 3; tries--;) {
		ok = true;
		for (i = n_settings; i--;) {
			value = saved_get(s, settings[i].name);
			if (value && !put_back_setting(nic, &settings[i], value, !tries))
				ok = false;
		}
	}
	for (i = 0; i < s->n; i++)
		if (sscanf(s->v[i].key, "irq-%u", &queue) == 1 &&
		    !put_back_irq(nic, queue, s->v[i].value))
			ok = false;
	return ok;
}

/* ------------------------------------------------------------------------- */
/* The plan */

static void plan_change(struct plan *p, const struct setting *s, unsigned queue, char *old,
			char *new)
{
	p->c = reallocarray(p->c, p->n + 1, sizeof(*p->c));
	if (!p->c)
		err(EXIT_NO, "nic");
	p->c[p->n++] = (struct change){ s, queue, old, new };
}

static bool is_change(const struct change *c)
{
	return !c->old || strcmp(c->old, c->new);
}

/* Is it a number that the NIC can have? */
static bool plan_queues(struct plan *p)
{
	const struct setting *s = setting_named("channels");
	uint32_t max, now = 0;

	if (nic_get(p->nic, s->cmd_get, s->attr_max, &max)) {
		nic_queues(p->nic, &now);
		if (p->queues == now)
			return true;
		warnx("nic: %s has %u queues, and the driver cannot change that", p->nic->name,
		      now);
		return false;
	}
	if (p->queues <= max)
		return true;
	warnx("nic: %s can have at most %u queues (on %ld CPUs)", p->nic->name, max,
	      sysconf(_SC_NPROCESSORS_ONLN));
	return false;
}

/* An ntuple rule is before RSS: our port must not go to a queue that nobody serves. */
static bool plan_rules(struct plan *p, const unsigned *ports, unsigned n_ports)
{
	uint32_t n, i;
	struct rule *r = nic_rules(p->nic, &n);
	bool ok = true;
	unsigned j;

	for (i = 0; i < n; i++)
		for (j = 0; j < n_ports; j++)
			if (r[i].port == ports[j] && r[i].queue >= p->queues) {
				warnx("nic: %s: rule %u sends port %u elsewhere, try: "
				      "ethtool -N %s delete %u",
				      p->nic->name, r[i].location, ports[j], p->nic->name,
				      r[i].location);
				ok = false;
			}
	free(r);
	return ok;
}

static bool plan_settings(struct plan *p)
{
	char *old, *new;
	size_t i;
	int ret;

	for (i = 0; i < n_settings; i++) {
		old = NULL;
		ret = settings[i].get(p->nic, &settings[i], &old);
		if (ret && ret != -EOPNOTSUPP) {
			warnx("nic: %s: %s: %s", p->nic->name, settings[i].name, p->nic->why);
			return false;
		}
		if (ret) {
			free(old);
			continue;
		}
		new = setting_best(p->nic, &settings[i], p->queues);
		plan_change(p, &settings[i], 0, old, new);
	}
	return true;
}

/*
 * All queues', also those that are on the right CPU: other changes make the
 * driver ask for its interrupts anew.
 */
static void plan_irqs(struct plan *p)
{
	uint32_t now = 0, i;
	char *old, *key;
	int irq;

	nic_queues(p->nic, &now);
	for (i = 0; i < now || i < p->queues; i++) {
		irq = i < now ? irq_of_queue(p->nic, i) : -ENOENT;
		old = NULL;
		if (i < now && (irq < 0 || irq_get(irq, &old))) {
			warnx("nic: %s: cannot tell which interrupt is queue %u's: all stay as "
			      "they are",
			      p->nic->name, i);
			while (p->n && !p->c[p->n - 1].s)
				p->n--;
			return;
		}
		if (old) {
			key = irq_key(i);
			saved_add(&p->before, key, old);
			free(key);
		}
		if (i < p->queues)
			plan_change(p, NULL, i, old, text_of("%d", irq_best_cpu(p->nic, i)));
		else
			free(old);
	}
}

static size_t print_plan(const struct plan *p, bool print)
{
	size_t i, n = 0;

	for (i = 0; i < p->n; i++) {
		if (!is_change(&p->c[i]))
			continue;
		n++;
		if (!print)
			continue;
		if (p->c[i].s)
			print_change(p->nic, p->c[i].s->name, p->c[i].old, p->c[i].new);
		else
			print_irq(p->nic, p->c[i].queue, p->c[i].old, p->c[i].new);
	}
	return n;
}

static void free_plan(struct plan *p)
{
	while (p->n--) {
		free(p->c[p->n].old);
		free(p->c[p->n].new);
	}
	free(p->c);
	saved_free(&p->before);
}

/* ------------------------------------------------------------------------- */
/* prepare */

/* Half of the changes would be worse than none. */
static void hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGPIPE);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static int save_plan(struct plan *p, struct saved *earlier)
{
	struct saved all = {};
	size_t i;
	int ret;

	/* Also of what is to stay: see was_undone(). */
	for (i = 0; i < p->n; i++)
		if (p->c[i].s)
			saved_add(&p->before, p->c[i].s->name, p->c[i].old);
	ret = saved_load(p->nic, earlier);
	for (i = 0; i < earlier->n; i++)
		saved_add(&all, earlier->v[i].key, earlier->v[i].value);
	for (i = 0; i < p->before.n; i++)
		saved_add(&all, p->before.v[i].key, p->before.v[i].value);
	if (!ret)
		ret = saved_store(p->nic, &all);
	saved_free(&all);
	return ret;
}

/* One change may undo another: i40e forgets its interrupt moderation when it makes other channels. */
static bool was_undone(struct nic *nic, const struct change *c)
{
	char *now = NULL;
	bool undone;

	undone = c->s->get(nic, c->s, &now) || strcmp(now, c->new);
	free(now);
	return undone;
}

static int apply_change(struct nic *nic, const struct change *c)
{
	int ret;

	if (c->s && !is_change(c) && !was_undone(nic, c))
		return 0;
	ret = c->s ? c->s->set(nic, c->s, c->new) : set_irq(nic, c->queue, c->new);
	if (ret)
		warnx("nic: %s: %s: cannot change it to %s: %s", nic->name,
		      c->s ? c->s->name : "interrupts", c->new, nic->why);
	else if (c->s && is_change(c))
		print_change(nic, c->s->name, c->old, c->new);
	else if (is_change(c))
		print_irq(nic, c->queue, c->old, c->new);
	return ret;
}

static int apply(struct plan *p)
{
	struct saved earlier;
	int ret = save_plan(p, &earlier);
	size_t i;

	if (ret)
		warnx("nic: cannot write %s: %s", saved_path(p->nic), strerror(-ret));
	for (i = 0; i < p->n && !ret; i++)
		ret = apply_change(p->nic, &p->c[i]);
	if (ret && i) {
		warnx("nic: %s: undoing what was changed", p->nic->name);
		if (!put_back(p->nic, &p->before))
			warnx("nic: %s: not all of it; try again: pastectl nic restore %s",
			      p->nic->name, p->nic->name);
		else if (earlier.n)
			saved_store(p->nic, &earlier);
		else
			saved_remove(p->nic);
	}
	saved_free(&earlier);
	return ret;
}

static bool make_plan(struct plan *p, const struct nic_options *o)
{
	if (!plan_queues(p) || !plan_rules(p, o->ports, o->n_ports) || !plan_settings(p))
		return false;
	plan_irqs(p);
	return true;
}

static int prepare(struct plan *p, const struct nic_options *o)
{
	bool ok = !check_blocked(p->nic) && make_plan(p, o);

	if (!ok) {
		warnx("nic: %s stays as it is", p->nic->name);
	} else if (!print_plan(p, o->dry)) {
		printf("%s: nothing to change\n", p->nic->name);
	} else if (!o->dry) {
		hold_signals();
		ok = !apply(p);
	}
	return ok ? EXIT_OK : EXIT_NO;
}

int nic_prepare(struct nic *nic, const struct nic_options *o)
{
	struct plan p = { .nic = nic, .queues = o->queues };
	int lock = o->dry ? 0 : saved_lock();
	int ret;

	if (lock < 0) {
		warnx("nic: cannot write %s: %s", saved_path(nic), strerror(-lock));
		return EXIT_NO;
	}
	ret = prepare(&p, o);
	free_plan(&p);
	if (!o->dry)
		close(lock);
	return ret;
}

/* ------------------------------------------------------------------------- */
/* restore */

int nic_restore(struct nic *nic)
{
	struct saved s;
	int lock, ret;
	bool ok;

	if (access(saved_path(nic), F_OK)) {
		warnx("nic: %s is not prepared: there is no %s", nic->name, saved_path(nic));
		return EXIT_NO;
	}
	lock = saved_lock();
	ret = lock < 0 ? lock : saved_load(nic, &s);
	if (ret) {
		warnx("nic: %s: %s", saved_path(nic), strerror(-ret));
		return EXIT_NO;
	}
	hold_signals();
	if (!s.n)
		printf("%s: nothing to put back: its driver has started anew since\n", nic->name);
	ok = put_back(nic, &s);
	if (!ok)
		warnx("nic: %s: what is left to put back is in %s", nic->name, saved_path(nic));
	else if ((ret = saved_remove(nic))) {
		warnx("nic: cannot remove %s: %s", saved_path(nic), strerror(-ret));
		ok = false;
	}
	saved_free(&s);
	close(lock);
	return ok ? EXIT_OK : EXIT_NO;
}
