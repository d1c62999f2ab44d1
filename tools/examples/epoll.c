// SPDX-License-Identifier: MIT
/* epoll PORT: what echo.c was before it was ported to paste; libpaste(7), PORTING, compares them. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct conn {
	int fd;
	size_t pos, len; /* of buf: what is still to be sent */
	char buf[65536];
};

/* Interested in data, or, while some waits to be sent, in room for it. */
static int watch(int ep, int op, struct conn *c)
{
	struct epoll_event e = { .events = c->pos < c->len ? EPOLLOUT : EPOLLIN, .data.ptr = c };

	return epoll_ctl(ep, op, c->fd, &e);
}

static void close_conn(struct conn *c)
{
	close(c->fd);
	free(c);
}

static void accept_one(int ep, int fd)
{
	struct conn *c = fd >= 0 ? malloc(sizeof(*c)) : NULL;

	if (c) {
		c->fd = fd;
		c->pos = c->len = 0;
		if (watch(ep, EPOLL_CTL_ADD, c))
			close_conn(c);
	} else if (fd >= 0) {
		close(fd);
	}
}

/* One read and one write. False: the connection is over. */
static bool serve(struct conn *c)
{
	ssize_t n;

	if (c->pos == c->len) {
		n = read(c->fd, c->buf, sizeof(c->buf));
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		c->pos = 0;
		c->len = (size_t)n;
	}
	n = send(c->fd, c->buf + c->pos, c->len - c->pos, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN;
	c->pos += (size_t)n;
	return true;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	int fd = socket(AF_INET6, SOCK_STREAM, 0), ep = epoll_create1(0), on = 1, n, i;
	struct epoll_event events[64] = { { .events = EPOLLIN } }; /* data.ptr NULL: the listener */

	any.sin6_port = htons(argc == 2 ? (uint16_t)atoi(argv[1]) : 0);
	if (!any.sin6_port)
		errx(2, "usage: epoll PORT");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, (void *)&any, sizeof(any)) || listen(fd, 1024) ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, fd, events))
		err(1, "cannot start");
	while ((n = epoll_wait(ep, events, 64, -1)) >= 0 || errno == EINTR)
		for (i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c)
				accept_one(ep, accept4(fd, NULL, NULL, SOCK_NONBLOCK));
			else if (!serve(c) || watch(ep, EPOLL_CTL_MOD, c))
				close_conn(c);
		}
	err(1, "epoll_wait");
}
