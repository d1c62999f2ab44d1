// SPDX-License-Identifier: MIT
/*
 * pastectl conns: the connections of all queues, for people or as JSON.
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include <paste.h>

#include "pastectl.h"
#include "sample.h"

/* As ss(8) writes it. */
const char *conn_address(char text[ADDRESS_MAX], const __u8 address[16], unsigned port)
{
	char ip[INET6_ADDRSTRLEN];
	struct in6_addr a;

	memcpy(&a, address, sizeof(a));
	if (IN6_IS_ADDR_V4MAPPED(&a))
		snprintf(text, ADDRESS_MAX, "%s:%u",
			 inet_ntop(AF_INET, &a.s6_addr[12], ip, sizeof(ip)), port);
	else
		snprintf(text, ADDRESS_MAX, "[%s]:%u", inet_ntop(AF_INET6, &a, ip, sizeof(ip)),
			 port);
	return text;
}

const char *conn_waits(const struct paste_ioc_conn *c)
{
	if (!c->quota)
		return "application";
	return c->waits ? paste_stat_name(c->waits) + strlen("stall_") : NULL;
}

static void print_json_conn(const struct paste_ioc_conn *c)
{
	const char *waits = conn_waits(c), *quote = waits ? "\"" : "";
	char text[ADDRESS_MAX];

	printf("{\"queue\": %u, \"conn\": %u", c->id, c->conn);
	printf(", \"peer\": \"%s\"", conn_address(text, c->peer, c->peer_port));
	printf(", \"local\": \"%s\"", conn_address(text, c->local, c->local_port));
	printf(", \"inode\": %llu, \"netns\": %llu", c->inode, c->netns);
	printf(", \"rx_bytes\": %llu, \"tx_bytes\": %llu", c->rx_bytes, c->tx_bytes);
	printf(", \"sends_now\": %u, \"held\": %u, \"quota\": %u", c->sends, c->used, c->quota);
	printf(", \"waits\": %s%s%s}", quote, waits ? waits : "null", quote);
}

static void show_json(const struct sample *before, const struct sample *s)
{
	size_t i;

	(void)before;
	printf("[");
	for (i = 0; i < s->n_conns; i++) {
		printf(i ? ",\n " : "");
		print_json_conn(&s->c[i]);
	}
	printf("]\n");
}

static int longer(int width, const char *text)
{
	int length = (int)strlen(text);

	return length > width ? length : width;
}

static void show_table(const struct sample *before, const struct sample *s)
{
	char peer[ADDRESS_MAX], local[ADDRESS_MAX], held[32];
	const struct paste_ioc_conn *c;
	int w_peer = 4, w_local = 5;

	(void)before;
	for (c = s->c; c < s->c + s->n_conns; c++) {
		w_peer = longer(w_peer, conn_address(peer, c->peer, c->peer_port));
		w_local = longer(w_local, conn_address(local, c->local, c->local_port));
	}
	printf("%-5s  %-*s  %-*s  %14s  %14s  %5s  %11s  %s\n", "queue", w_peer, "peer", w_local,
	       "local", "received", "sent", "sends", "held", "waits for");
	for (c = s->c; c < s->c + s->n_conns; c++) {
		snprintf(held, sizeof(held), "%u/%u", c->used, c->quota);
		printf("%-5u  %-*s  %-*s  %14llu  %14llu  %5u  %11s  %s\n", c->id, w_peer,
		       conn_address(peer, c->peer, c->peer_port), w_local,
		       conn_address(local, c->local, c->local_port), c->rx_bytes, c->tx_bytes,
		       c->sends, held, conn_waits(c) ? conn_waits(c) : "-");
	}
}

int cmd_conns(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, {} };
	struct watch w = { .command = "conns", .show = show_table, .conns = true, .n = 1 };
	int c;

	while ((c = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		if (c != 'j')
			return EXIT_USAGE;
		w.show = show_json;
	}
	return watch_takes_no_more(&w, argc, argv) ? watch_run(&w) : EXIT_USAGE;
}
