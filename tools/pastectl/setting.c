// SPDX-License-Identifier: MIT
/*
 * pastectl: the settings of a NIC that matter for zero copy, as text, and the
 * value that is best. They are changed in the order of the table and put back
 * in the opposite one.
 */
#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <linux/ethtool_netlink.h>

#include "nic.h"

#define EVEN "even over "

char *text_of(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		err(1, "text");
	va_end(ap);
	return s;
}

/* ------------------------------------------------------------------------- */

static int get_number(struct nic *nic, const struct setting *s, char **value)
{
	uint32_t v;
	int ret = nic_get(nic, s->cmd_get, s->attr, &v);

	if (ret)
		return ret;
	*value = text_of("%u", v);
	return 0;
}

static int set_number(struct nic *nic, const struct setting *s, const char *value)
{
	return nic_set(nic, s->cmd_set, s->attr, s->bytes, (uint32_t)strtoul(value, NULL, 10));
}

/* There is a value also where it cannot be changed (-EOPNOTSUPP). */
static int get_feature(struct nic *nic, const struct setting *s, char **value)
{
	bool on;
	int ret = nic_get_feature(nic, s->feature, &on);

	if (!ret || ret == -EOPNOTSUPP)
		*value = text_of("%s", on ? "on" : "off");
	return ret;
}

/* The kernel calls it a success when the driver does not do what it was told. */
static int set_feature(struct nic *nic, const struct setting *s, const char *value)
{
	bool want = !strcmp(value, "on"), on;
	int ret = nic_set_feature(nic, s->feature, want);

	if (!ret)
		ret = nic_get_feature(nic, s->feature, &on);
	if (!ret && on != want) {
		snprintf(nic->why, sizeof(nic->why), "the driver does not do it");
		ret = -EIO;
	}
	return ret;
}

/* ------------------------------------------------------------------------- */
/*
 * The RSS table: entry i names queue i mod n, "even over n", as drivers make it,
 * or it is an own one and the text is its entries.
 */

/* Over how many queues the table is even; 0: it is not. */
static uint32_t even_over(const struct rss *t)
{
	uint32_t n = 0, i;

	for (i = 0; i < t->n; i++)
		if (t->queue[i] >= n)
			n = t->queue[i] + 1;
	for (i = 0; i < t->n; i++)
		if (t->queue[i] != i % n)
			return 0;
	return n;
}

static int get_rss(struct nic *nic, const struct setting *s, char **value)
{
	struct rss t;
	int ret = nic_get_rss(nic, &t);
	size_t size;
	uint32_t i;
	FILE *f;

	(void)s;
	if (!ret && even_over(&t)) {
		*value = text_of(EVEN "%u", even_over(&t));
	} else if (!ret) {
		f = open_memstream(value, &size);
		for (i = 0; f && i < t.n; i++)
			fprintf(f, i ? " %u" : "%u", t.queue[i]);
		if (!f || fclose(f))
			err(1, "RSS");
	}
	free(t.queue);
	return ret;
}

/*
 * The driver's default is what later follows the number of channels by itself,
 * but ixgbe has none while there are more channels than its table can name.
 */
static int set_even(struct nic *nic, uint32_t n)
{
	struct rss t = {};
	uint32_t i;
	int ret = nic_set_rss(nic, &t);

	if (ret != -EINVAL || nic_get_rss(nic, &t))
		return ret;
	for (i = 0; i < t.n; i++)
		t.queue[i] = i % n;
	ret = nic_set_rss(nic, &t);
	free(t.queue);
	return ret;
}

static int set_rss(struct nic *nic, const struct setting *s, const char *value)
{
	struct rss t = {};
	char *end;
	int ret;

	(void)s;
	if (!strncmp(value, EVEN, strlen(EVEN)))
		return set_even(nic, (uint32_t)strtoul(value + strlen(EVEN), NULL, 10));
	t.queue = calloc(strlen(value), sizeof(*t.queue)); /* more than there are numbers */
	if (!t.queue)
		err(1, "RSS");
	for (; *value; value = *end ? end + 1 : end)
		t.queue[t.n++] = (uint32_t)strtoul(value, &end, 10);
	ret = nic_set_rss(nic, &t);
	free(t.queue);
	return ret;
}

/*
 * A table that has been set before, even or not, is kept by some drivers, which
 * leaves queues that are new without flows. A driver whose table cannot name so
 * many queues leaves it as it is.
 */
static int set_channels(struct nic *nic, const struct setting *s, const char *value)
{
	struct rss t;
	int ret = set_number(nic, s, value);

	if (ret || nic_get_rss(nic, &t))
		return ret;
	if (even_over(&t) != strtoul(value, NULL, 10))
		nic_set_rss(nic, &(struct rss){});
	free(t.queue);
	return 0;
}

/* ------------------------------------------------------------------------- */

#define NUMBER(group, which)                                                        \
	.cmd_get = ETHTOOL_MSG_##group##_GET, .cmd_set = ETHTOOL_MSG_##group##_SET, \
	.attr = ETHTOOL_A_##group##_##which
#define FEATURE(word) .get = get_feature, .set = set_feature, .feature = (word)

const struct setting settings[] = {
	/* First, as the kernel refuses fewer queues than an own table names. */
	{ .name = "rss",
	  .get = get_rss,
	  .set = set_rss,
	  .best = EVEN "N",
	  .why = "an own table spreads flows unevenly, and goes when XDP comes" },
	/* ixgbe moves flows to the queue of the CPU that sends while this is off. */
	{ .name = "ntuple",
	  FEATURE("rx-ntuple-filter"),
	  .best = "on",
	  .why = "without it drivers may move flows from queue to queue" },
	{ .name = "rx-vlan-offload", FEATURE("rx-vlan-hw-parse"), .best = "off", .blocks = true },
	{ .name = "LRO", FEATURE("rx-lro"), .best = "off", .blocks = true },
	{ .name = "channels",
	  .get = get_number,
	  .set = set_channels,
	  NUMBER(CHANNELS, COMBINED_COUNT),
	  .attr_max = ETHTOOL_A_CHANNELS_COMBINED_MAX,
	  .bytes = 4,
	  .best = "N" },
	/*
	 * What arrives while a batch is worked on must find room; but a ring
	 * that is longer than what a queue lends (half of its chunks) is always
	 * short of chunks.
	 */
	{ .name = "rx-ring",
	  .get = get_number,
	  .set = set_number,
	  NUMBER(RINGS, RX),
	  .attr_max = ETHTOOL_A_RINGS_RX_MAX,
	  .bytes = 4,
	  .best = "1024",
	  .why = "shorter loses bursts, longer may want more chunks than there are" },
	/* Before rx-usecs, which i40e does not take while this is on. */
	{ .name = "adaptive-rx",
	  .get = get_number,
	  .set = set_number,
	  NUMBER(COALESCE, USE_ADAPTIVE_RX),
	  .bytes = 1,
	  .best = "0",
	  .why = "latency changes with the load" },
	/* Long enough to make batches; polling servers do not wait for interrupts. */
	{ .name = "rx-usecs",
	  .get = get_number,
	  .set = set_number,
	  NUMBER(COALESCE, RX_USECS),
	  .bytes = 4,
	  .best = "20",
	  .why = "shorter makes small batches, longer latency" },
};

const size_t n_settings = sizeof(settings) / sizeof(settings[0]);

const struct setting *setting_named(const char *name)
{
	size_t i;

	for (i = 0; i < n_settings; i++)
		if (!strcmp(settings[i].name, name))
			return &settings[i];
	return NULL;
}

char *setting_best(struct nic *nic, const struct setting *s, uint32_t queues)
{
	size_t word = strcspn(s->best, "N");
	uint32_t max;

	if (s->best[word])
		return text_of("%.*s%u", (int)word, s->best, queues);
	if (s->attr_max && !nic_get(nic, s->cmd_get, s->attr_max, &max) &&
	    max < strtoul(s->best, NULL, 10))
		return text_of("%u", max);
	return text_of("%s", s->best);
}
