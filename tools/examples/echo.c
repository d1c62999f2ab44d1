// SPDX-License-Identifier: MIT
/* echo PORT [NIC]: an echo server, with zero copy from RX queue 0 of NIC if one is given. */
#include <arpa/inet.h>
#include <err.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <paste.h>

#define CLOSE (1ULL << 32) /* in a cookie: the rest is a socket, not a chunk */

static int socks[65536]; /* by PASTE_CONN_INDEX() */

static void accept_one(struct pasteq *q, int fd)
{
	__u32 conn;

	if (fd >= 0 && paste_attach(q, fd, 0, &conn))
		close(fd); /* it may be over already */
	else if (fd >= 0)
		socks[PASTE_CONN_INDEX(conn)] = fd;
}

static void take_comp(struct pasteq *q, const struct paste_comp *c)
{
	if (!(c->cookie & CLOSE))
		paste_fill(q, (__u32)c->cookie);
	else if (c->result >= 0 || paste_detach(q, c->conn) <= 0)
		close((int)(c->cookie & ~CLOSE));
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	__u16 port = argc > 1 ? (__u16)atoi(argv[1]) : 0;
	struct pollfd fds[2] = { { .events = POLLIN }, { .events = POLLIN } };
	struct paste_nic nic;
	struct paste_tx *t;
	struct paste p;
	struct pasteq q;
	int ret;

	any.sin6_port = htons(port);
	if (!port || argc > 3)
		errx(2, "usage: echo PORT [NIC]");
	if (paste_open(&p) || paste_pool(&p, NULL) || paste_queue(&p, &q, NULL) ||
	    paste_fill_all(&q))
		errx(1, "%s", paste_text(&p));
	if (argc > 2 && (paste_nic_open(&nic, argv[2], &port, 1) || paste_nic_bind(&nic, &q, 0)))
		errx(1, "%s: %s", argv[2], paste_nic_text(&nic));
	ret = paste_listen((void *)&any, sizeof(any), 1024, 0, 0, &fds[0].fd);
	for (fds[1].fd = q.fd; !ret || ret == -EINTR; ret = paste_sync(&q, 0, 0)) {
		if (poll(fds, 2, -1) > 0 && fds[0].revents)
			accept_one(&q, accept(fds[0].fd, NULL, NULL));
		for (; paste_comp_peek(&q); paste_comp_release(&q, 1))
			take_comp(&q, paste_comp_at(&q, 0));
		for (; paste_rx_peek(&q) && (t = paste_tx_reserve(&q)); paste_rx_release(&q, 1)) {
			const struct paste_rx *r = paste_rx_at(&q, 0);

			*t = (struct paste_tx){ r->conn, r->chunk, r->off, r->len, 0, r->chunk };
			if (!r->len) { /* FIN or error: nothing comes after this */
				t->flags = PASTE_TX_CLOSE;
				t->cookie = CLOSE | (__u32)socks[PASTE_CONN_INDEX(r->conn)];
			}
			paste_tx_submit(&q);
		}
	}
	errx(1, "%s", strerror(-ret));
}
