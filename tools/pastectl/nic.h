/* SPDX-License-Identifier: MIT */
/*
 * What pastectl knows of a NIC, by file:
 *
 *   kernel.c   the ways to ask the kernel and to tell it: ethtool's messages of
 *              generic netlink, rtnetlink, and SIOCETHTOOL for what has no
 *              message on 6.1 or 6.12
 *   irq.c      the interrupts of the RX queues
 *   setting.c  settings as text, and what they should be
 *   check.c    conditions, each with a verdict; the command check
 *   save.c     the file with the values from before
 *   show.c     nic show
 *   prepare.c  nic prepare and nic restore
 *   nic.c      the command line of these
 *
 * Functions return 0 or a negative errno unless they say otherwise. No memory
 * ends the program: what was changed by then is in the file.
 */
#ifndef PASTECTL_NIC_H
#define PASTECTL_NIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/paste.h>

struct nl_sock;

struct nic {
	const char *name;
	unsigned ifindex;
	int sock; /* for SIOCETHTOOL */
	struct nl_sock *genl;
	struct nl_sock *route;
	char driver[32]; /* empty: has none */
	char bus[32];
	char firmware[32];
	unsigned mtu;
	bool up;
	bool carrier;
	char why[160]; /* the last failure in the kernel's words */
};

/* --- kernel.c */

int nic_open(struct nic *nic, const char *name); /* -ENODEV: no such interface */
void nic_close(struct nic *nic);

/* A number in a message of ethtool's; -EOPNOTSUPP if the driver has none. */
int nic_get(struct nic *nic, uint8_t cmd, uint16_t attr, uint32_t *value);
int nic_set(struct nic *nic, uint8_t cmd, uint16_t attr, int bytes, uint32_t value);

/* A feature by the kernel's name for it; -EOPNOTSUPP if it cannot be changed. */
int nic_get_feature(struct nic *nic, const char *feature, bool *on);
int nic_set_feature(struct nic *nic, const char *feature, bool on);

struct rss {
	uint32_t n;
	uint32_t *queue; /* by entry; to be freed */
};

int nic_get_rss(struct nic *nic, struct rss *t);
int nic_set_rss(struct nic *nic, const struct rss *t); /* n = 0: the driver's default */

/* An ntuple rule. */
struct rule {
	uint32_t location;
	uint16_t port;	/* local TCP port; 0: any, or another protocol */
	uint64_t queue; /* or what is no queue: dropped, another function's */
};

struct rule *nic_rules(struct nic *nic, uint32_t *n); /* to be freed */

int nic_queues(struct nic *nic, uint32_t *n); /* RX queues in use */
int64_t nic_xdp_features(struct nic *nic);    /* -1: the kernel does not say */
bool nic_has_dcb(struct nic *nic);

/* --- irq.c */

/* The interrupt of an RX queue or -ENOENT. */
int irq_of_queue(const struct nic *nic, unsigned queue);
int irq_get(int irq, char **cpus);
int irq_set(int irq, const char *cpus);

/* The CPU for a queue: one each, beginning with the first near the NIC; -1: unknown. */
int irq_best_cpu(const struct nic *nic, unsigned queue);

/* --- setting.c */

struct setting {
	const char *name;
	int (*get)(struct nic *nic, const struct setting *s, char **value);
	int (*set)(struct nic *nic, const struct setting *s, const char *value);
	const char *best;    /* value for zero copy, N in it is the number of queues */
	const char *feature; /* by which of the kernel's names */
	uint8_t cmd_get, cmd_set;
	uint16_t attr, attr_max;
	uint8_t bytes;
	bool blocks;	 /* zero copy does not work with another value than best */
	const char *why; /* another value slows; NULL: it does not */
};

extern const struct setting settings[];
extern const size_t n_settings;

const struct setting *setting_named(const char *name);
char *setting_best(struct nic *nic, const struct setting *s, uint32_t queues);

/* asprintf() that does not fail. */
__attribute__((format(printf, 1, 2))) char *text_of(const char *fmt, ...);

/* --- check.c */

bool check_all(struct nic *nic);     /* print all; should zero copy work? */
bool check_blocked(struct nic *nic); /* print what nic prepare cannot change; is there any? */

/* --- show.c, prepare.c: commands; they return the exit status */

#define NIC_QUEUES_MAX 1024 /* entries of the library's XSKMAP */

struct nic_options {
	unsigned queues;
	unsigned ports[PASTE_PORTS_MAX];
	unsigned n_ports;
	bool dry; /* change nothing */
};

int nic_show(struct nic *nic);
int nic_prepare(struct nic *nic, const struct nic_options *o);
int nic_restore(struct nic *nic);

/* --- save.c */

struct saved {
	size_t n;
	struct saved_value {
		char *key;
		char *value;
	} * v;
};

const char *saved_get(const struct saved *s, const char *key);
void saved_add(struct saved *s, const char *key, const char *value); /* unless it is there */
void saved_free(struct saved *s);

int saved_lock(void); /* returns an fd: nobody else prepares or restores until it is closed */
int saved_load(const struct nic *nic, struct saved *s); /* nothing is there: 0, and s is empty */
int saved_store(const struct nic *nic, const struct saved *s);
int saved_remove(const struct nic *nic);
const char *saved_path(const struct nic *nic);

#endif /* PASTECTL_NIC_H */
