// SPDX-License-Identifier: GPL-2.0
/*
 * relay ADDRESS PORT MARK_PORT INTERFACE: the other end of wire.c's NIC.
 *
 * Connects to both ports. What comes from PORT are frames, each behind its length
 * (two bytes, big-endian), that are put on the interface. For an empty one a byte
 * is sent to MARK_PORT and one back: who has these has all the frames before.
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int connect_to(const char *address, const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	inet_pton(AF_INET, address, &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		err(1, "%s:%s", address, port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* Past the qdisc: what comes later through it does not overtake. */
static int open_interface(const char *name)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(name) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;

	if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&to, sizeof(to)))
		err(1, "%s", name);
	return fd;
}

static bool read_all(int fd, unsigned char *p, size_t len)
{
	ssize_t n;

	for (; len; p += n, len -= n) {
		n = read(fd, p, len);
		if (n <= 0)
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	static unsigned char b[1 << 16];
	int fd, mark, out;
	size_t len;

	if (argc != 5)
		errx(1, "usage: relay ADDRESS PORT MARK_PORT INTERFACE");
	fd = connect_to(argv[1], argv[2]);
	mark = connect_to(argv[1], argv[3]);
	out = open_interface(argv[4]);
	while (read_all(fd, b, 2)) {
		len = b[0] << 8 | b[1];
		if (!read_all(fd, b, len))
			break;
		if (len) /* it may be one that the interface does not take */
			(void)!send(out, b, len, 0);
		else if (write(mark, "", 1) != 1 || write(fd, "", 1) != 1)
			err(1, "mark");
	}
	return 0;
}
