// SPDX-License-Identifier: MIT
/*
 * pastectl: what the kernel says of a NIC, and how it is told to change it.
 *
 * Netlink wherever there is a message: it changes one value and leaves the
 * others alone, and the kernel says in words why not. The ioctl has the driver's
 * name, RSS tables and ntuple rules, which 6.1 or 6.12 have no message for.
 */
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <linux/dcbnl.h>
#include <linux/ethtool.h>
#include <linux/ethtool_netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/route/link.h>

#include "nic.h"

/* Of the generic netlink family "netdev" (since 6.3), linux/netdev.h. */
#define NETDEV_GET	    1
#define NETDEV_ATTR_IFINDEX 1
#define NETDEV_ATTR_XDP	    3

/* The header has this number in all of ethtool's messages. */
#define ETHTOOL_HEADER 1

#define ATTR_MAX       64 /* more than any message here has */

static int ioctl_ethtool(struct nic *nic, void *arg)
{
	struct ifreq ifr = { .ifr_data = arg };
	int ret;

	strncpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name) - 1);
	ret = ioctl(nic->sock, SIOCETHTOOL, &ifr) ? -errno : 0;
	if (ret)
		snprintf(nic->why, sizeof(nic->why), "%s", strerror(-ret));
	return ret;
}

/* ------------------------------------------------------------------------- */
/* Netlink */

struct answer {
	struct nic *nic;
	int (*take)(struct nlmsghdr *reply, void *arg); /* or NULL */
	void *arg;
	bool over;
	int err;
};

static int take_reply(struct nl_msg *msg, void *arg)
{
	struct answer *a = arg;

	if (a->take)
		a->take(nlmsg_hdr(msg), a->arg);
	return NL_OK;
}

static int take_ack(struct nl_msg *msg, void *arg)
{
	(void)msg;
	((struct answer *)arg)->over = true;
	return NL_STOP;
}

/* The kernel's own words follow our message, or its header alone, as an attribute. */
static int take_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	const struct nlmsghdr *h = (void *)((char *)e - NLMSG_HDRLEN);
	size_t skip = sizeof(*e);
	struct answer *a = arg;
	struct nlattr *words = NULL;

	(void)from;
	a->over = true;
	a->err = e->error;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		skip += NLMSG_ALIGN(e->msg.nlmsg_len) - sizeof(e->msg);
	if (h->nlmsg_flags & NLM_F_ACK_TLVS && h->nlmsg_len > NLMSG_HDRLEN + skip)
		words = nla_find((struct nlattr *)((char *)e + skip),
				 (int)(h->nlmsg_len - NLMSG_HDRLEN - skip), NLMSGERR_ATTR_MSG);
	snprintf(a->nic->why, sizeof(a->nic->why), "%s",
		 words ? nla_get_string(words) : strerror(-e->error));
	return NL_STOP;
}

/* Send msg, which is gone then, and wait until the kernel has answered. */
static int ask(struct nic *nic, struct nl_sock *sk, struct nl_msg *msg,
	       int (*take)(struct nlmsghdr *reply, void *arg), void *arg)
{
	struct answer a = { .nic = nic, .take = take, .arg = arg };
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);

	if (!cb)
		err(1, "netlink");
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, take_reply, &a);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, take_ack, &a);
	nl_cb_err(cb, NL_CB_CUSTOM, take_error, &a);
	if (nl_send_auto(sk, msg) < 0)
		a.err = -EIO;
	while (!a.over && !a.err)
		if (nl_recvmsgs(sk, cb) < 0 && !a.err)
			a.err = -EIO;
	if (a.err == -EIO && !a.over)
		snprintf(nic->why, sizeof(nic->why), "netlink does not work");
	nl_cb_put(cb);
	nlmsg_free(msg);
	return a.err;
}

/* libnl's put functions fail only when a message grows beyond a page. */
static void put(int ret)
{
	if (ret)
		errx(1, "netlink: %s", nl_geterror(ret));
}

static struct nl_msg *new_msg(void)
{
	struct nl_msg *msg = nlmsg_alloc();

	if (!msg)
		err(1, "netlink");
	return msg;
}

/* A message of ethtool's about the NIC, NULL if the kernel has no such family. */
static struct nl_msg *ethtool_msg(struct nic *nic, uint8_t cmd)
{
	int family = genl_ctrl_resolve(nic->genl, ETHTOOL_GENL_NAME);
	struct nlattr *header;
	struct nl_msg *msg;

	if (family < 0) {
		snprintf(nic->why, sizeof(nic->why), "the kernel has no ethtool netlink");
		return NULL;
	}
	msg = new_msg();
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, cmd, ETHTOOL_GENL_VERSION))
		put(-NLE_NOMEM);
	header = nla_nest_start(msg, ETHTOOL_HEADER | NLA_F_NESTED);
	put(nla_put_u32(msg, ETHTOOL_A_HEADER_DEV_INDEX, nic->ifindex));
	nla_nest_end(msg, header);
	return msg;
}

struct number {
	uint16_t attr;
	bool found;
	uint32_t value;
};

static int take_number(struct nlmsghdr *reply, void *arg)
{
	struct number *n = arg;
	struct nlattr *a = nlmsg_find_attr(reply, GENL_HDRLEN, n->attr);

	if (!a)
		return 0;
	n->found = true;
	n->value = nla_len(a) == 1 ? nla_get_u8(a) : nla_get_u32(a);
	return 0;
}

int nic_get(struct nic *nic, uint8_t cmd, uint16_t attr, uint32_t *value)
{
	struct nl_msg *msg = ethtool_msg(nic, cmd);
	struct number n = { .attr = attr };
	int ret = -EOPNOTSUPP;

	if (msg)
		ret = ask(nic, nic->genl, msg, take_number, &n);
	if (!ret && !n.found)
		return -EOPNOTSUPP;
	*value = n.value;
	return ret;
}

int nic_set(struct nic *nic, uint8_t cmd, uint16_t attr, int bytes, uint32_t value)
{
	struct nl_msg *msg = ethtool_msg(nic, cmd);

	if (!msg)
		return -EOPNOTSUPP;
	if (bytes == 1)
		put(nla_put_u8(msg, attr, (uint8_t)value));
	else
		put(nla_put_u32(msg, attr, value));
	return ask(nic, nic->genl, msg, NULL, NULL);
}

/* ------------------------------------------------------------------------- */
/* Features: bitsets whose bits have names */

struct feature {
	const char *name;
	bool changeable;
	bool active;
};

/* Is the name in the set? With values (a set with a mask), is it there and 1? */
static bool is_in_bitset(struct nlattr *set, const char *name, bool values)
{
	struct nlattr *bits, *bit, *s;
	int left;

	bits = set ? nla_find(nla_data(set), nla_len(set), ETHTOOL_A_BITSET_BITS) : NULL;
	if (!bits)
		return false;
	nla_for_each_nested(bit, bits, left)
	{
		s = nla_find(nla_data(bit), nla_len(bit), ETHTOOL_A_BITSET_BIT_NAME);
		if (s && !strcmp(nla_get_string(s), name))
			return !values ||
			       nla_find(nla_data(bit), nla_len(bit), ETHTOOL_A_BITSET_BIT_VALUE);
	}
	return false;
}

static int take_feature(struct nlmsghdr *reply, void *arg)
{
	struct feature *f = arg;

	f->changeable = is_in_bitset(nlmsg_find_attr(reply, GENL_HDRLEN, ETHTOOL_A_FEATURES_HW),
				     f->name, true);
	f->active = is_in_bitset(nlmsg_find_attr(reply, GENL_HDRLEN, ETHTOOL_A_FEATURES_ACTIVE),
				 f->name, false);
	return 0;
}

int nic_get_feature(struct nic *nic, const char *feature, bool *on)
{
	struct nl_msg *msg = ethtool_msg(nic, ETHTOOL_MSG_FEATURES_GET);
	struct feature f = { .name = feature };
	int ret = -EOPNOTSUPP;

	if (msg)
		ret = ask(nic, nic->genl, msg, take_feature, &f);
	*on = f.active;
	return !ret && !f.changeable ? -EOPNOTSUPP : ret;
}

int nic_set_feature(struct nic *nic, const char *feature, bool on)
{
	struct nl_msg *msg = ethtool_msg(nic, ETHTOOL_MSG_FEATURES_SET);
	struct nlattr *set, *bits, *bit;

	if (!msg)
		return -EOPNOTSUPP;
	set = nla_nest_start(msg, ETHTOOL_A_FEATURES_WANTED | NLA_F_NESTED);
	bits = nla_nest_start(msg, ETHTOOL_A_BITSET_BITS | NLA_F_NESTED);
	bit = nla_nest_start(msg, ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED);
	put(nla_put_string(msg, ETHTOOL_A_BITSET_BIT_NAME, feature));
	if (on)
		put(nla_put_flag(msg, ETHTOOL_A_BITSET_BIT_VALUE));
	nla_nest_end(msg, bit);
	nla_nest_end(msg, bits);
	nla_nest_end(msg, set);
	return ask(nic, nic->genl, msg, NULL, NULL);
}

/* ------------------------------------------------------------------------- */
/* RSS, rules, queues */

int nic_get_rss(struct nic *nic, struct rss *t)
{
	struct ethtool_rxfh_indir ask_size = { .cmd = ETHTOOL_GRXFHINDIR }, *all;
	int ret = ioctl_ethtool(nic, &ask_size);

	*t = (struct rss){};
	if (ret)
		return ret;
	if (!ask_size.size)
		return -EOPNOTSUPP;
	all = calloc(1, sizeof(*all) + ask_size.size * sizeof(all->ring_index[0]));
	t->queue = calloc(ask_size.size, sizeof(*t->queue));
	if (!all || !t->queue)
		err(1, "RSS");
	all->cmd = ETHTOOL_GRXFHINDIR;
	all->size = ask_size.size;
	ret = ioctl_ethtool(nic, all);
	if (!ret) {
		t->n = all->size;
		memcpy(t->queue, all->ring_index, t->n * sizeof(*t->queue));
	}
	free(all);
	return ret;
}

int nic_set_rss(struct nic *nic, const struct rss *t)
{
	struct ethtool_rxfh_indir *all;
	int ret;

	all = calloc(1, sizeof(*all) + t->n * sizeof(all->ring_index[0]));
	if (!all)
		err(1, "RSS");
	all->cmd = ETHTOOL_SRXFHINDIR;
	all->size = t->n;
	if (t->n)
		memcpy(all->ring_index, t->queue, t->n * sizeof(*t->queue));
	ret = ioctl_ethtool(nic, all);
	free(all);
	return ret;
}

static int read_rule(struct nic *nic, uint32_t location, struct rule *r)
{
	struct ethtool_rxnfc io = { .cmd = ETHTOOL_GRXCLSRULE, .fs.location = location };
	int ret = ioctl_ethtool(nic, &io);
	uint32_t type = io.fs.flow_type & ~(uint32_t)(FLOW_EXT | FLOW_MAC_EXT | FLOW_RSS);

	*r = (struct rule){ .location = location, .queue = io.fs.ring_cookie };
	if (type == TCP_V4_FLOW)
		r->port = ntohs(io.fs.h_u.tcp_ip4_spec.pdst);
	else if (type == TCP_V6_FLOW)
		r->port = ntohs(io.fs.h_u.tcp_ip6_spec.pdst);
	return ret;
}

/* Drivers without rules say so in different ways: all of them mean none. */
struct rule *nic_rules(struct nic *nic, uint32_t *n)
{
	struct ethtool_rxnfc count = { .cmd = ETHTOOL_GRXCLSRLCNT }, *all;
	struct rule *rules;
	uint32_t i;

	*n = 0;
	if (ioctl_ethtool(nic, &count) || !count.rule_cnt)
		return NULL;
	all = calloc(1, sizeof(*all) + count.rule_cnt * sizeof(all->rule_locs[0]));
	rules = calloc(count.rule_cnt, sizeof(*rules));
	if (!all || !rules)
		err(1, "rules");
	all->cmd = ETHTOOL_GRXCLSRLALL;
	all->rule_cnt = count.rule_cnt;
	if (ioctl_ethtool(nic, all))
		all->rule_cnt = 0;
	for (i = 0; i < all->rule_cnt && i < count.rule_cnt; i++)
		if (!read_rule(nic, all->rule_locs[i], &rules[*n]))
			++*n;
	free(all);
	return rules;
}

int nic_queues(struct nic *nic, uint32_t *n)
{
	struct ethtool_rxnfc io = { .cmd = ETHTOOL_GRXRINGS };
	uint32_t combined = 0, rx = 0;
	int ret;

	nic_get(nic, ETHTOOL_MSG_CHANNELS_GET, ETHTOOL_A_CHANNELS_COMBINED_COUNT, &combined);
	nic_get(nic, ETHTOOL_MSG_CHANNELS_GET, ETHTOOL_A_CHANNELS_RX_COUNT, &rx);
	*n = combined + rx;
	if (*n)
		return 0;
	ret = ioctl_ethtool(nic, &io);
	*n = (uint32_t)io.data;
	return ret;
}

/* ------------------------------------------------------------------------- */
/* What else there is to know */

static int take_xdp(struct nlmsghdr *reply, void *arg)
{
	struct nlattr *a = nlmsg_find_attr(reply, GENL_HDRLEN, NETDEV_ATTR_XDP);

	if (a)
		*(int64_t *)arg = (int64_t)nla_get_u64(a);
	return 0;
}

int64_t nic_xdp_features(struct nic *nic)
{
	int family = genl_ctrl_resolve(nic->genl, "netdev");
	int64_t features = -1;
	struct nl_msg *msg;

	if (family < 0)
		return -1;
	msg = new_msg();
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, NETDEV_GET, 1))
		put(-NLE_NOMEM);
	put(nla_put_u32(msg, NETDEV_ATTR_IFINDEX, nic->ifindex));
	ask(nic, nic->genl, msg, take_xdp, &features);
	return features;
}

static int take_dcb(struct nlmsghdr *reply, void *arg)
{
	struct nlattr *a = nlmsg_find_attr(reply, sizeof(struct dcbmsg), DCB_ATTR_STATE);

	*(bool *)arg = a && nla_get_u8(a);
	return 0;
}

bool nic_has_dcb(struct nic *nic)
{
	struct dcbmsg dcb = { .dcb_family = AF_UNSPEC, .cmd = DCB_CMD_GSTATE };
	struct nl_msg *msg = new_msg();
	bool on = false;

	if (!nlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, RTM_GETDCB, 0, 0))
		put(-NLE_NOMEM);
	put(nlmsg_append(msg, &dcb, sizeof(dcb), NLMSG_ALIGNTO));
	put(nla_put_string(msg, DCB_ATTR_IFNAME, nic->name));
	ask(nic, nic->route, msg, take_dcb, &on);
	return on;
}

/* ------------------------------------------------------------------------- */

static int connect_netlink(struct nic *nic)
{
	int on = 1;

	nic->genl = nl_socket_alloc();
	nic->route = nl_socket_alloc();
	if (!nic->genl || !nic->route)
		return -ENOMEM;
	if (genl_connect(nic->genl) || nl_connect(nic->route, NETLINK_ROUTE))
		return -EIO;
	setsockopt(nl_socket_get_fd(nic->genl), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	return 0;
}

static int read_link(struct nic *nic)
{
	struct rtnl_link *link;

	if (rtnl_link_get_kernel(nic->route, 0, nic->name, &link))
		return -ENODEV;
	nic->ifindex = (unsigned)rtnl_link_get_ifindex(link);
	nic->mtu = rtnl_link_get_mtu(link);
	nic->up = rtnl_link_get_flags(link) & IFF_UP;
	nic->carrier = rtnl_link_get_carrier(link);
	rtnl_link_put(link);
	return 0;
}

int nic_open(struct nic *nic, const char *name)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	int ret;

	*nic = (struct nic){ .name = name };
	nic->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ret = nic->sock < 0 ? -errno : connect_netlink(nic);
	if (!ret)
		ret = strlen(name) < IFNAMSIZ ? read_link(nic) : -ENODEV;
	if (ret) {
		nic_close(nic);
		return ret;
	}
	if (!ioctl_ethtool(nic, &info)) {
		snprintf(nic->driver, sizeof(nic->driver), "%s", info.driver);
		snprintf(nic->bus, sizeof(nic->bus), "%s", info.bus_info);
		snprintf(nic->firmware, sizeof(nic->firmware), "%s", info.fw_version);
	}
	return 0;
}

void nic_close(struct nic *nic)
{
	nl_socket_free(nic->genl);
	nl_socket_free(nic->route);
	if (nic->sock >= 0)
		close(nic->sock);
}
