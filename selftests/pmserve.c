// SPDX-License-Identifier: GPL-2.0
/*
 * A server for net.sh whose pool is on persistent memory.
 *
 * pmserve [-i NIC] [-n N] PORT PATH     answer POST requests; keep the first N
 *         entries, and look after the end whether they are in the file
 * pmserve [-i NIC] -e PORT PATH         echo
 * pmserve [-i NIC] -o OUT -c COMMAND PORT PATH
 *         take a part of one connection's stream, close queue and context, run
 *         COMMAND, read the rest from the socket; all of it goes to OUT
 *
 * SIGTERM ends it. The last line on standard output has the figures.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <libpmem.h>
#include <paste.h>

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n"
#define CLOSE  (1ULL << 32) /* in a cookie: the rest is a socket */
#define FILL   (1ULL << 33) /* in a cookie: the rest is a chunk to fill */
#define PART   (200 << 10)  /* bytes that -o takes from the queue */
#define QUOTA  256	    /* of a connection that is not stopped */
#define STOP   1024	    /* chunks that an echo's sends hold, at which it is stopped */
#define GO     512	    /* ... and goes on: the NIC never has too few */

struct kept {
	__u32 chunk;
	__u16 off, len;
	char *copy;
};

static struct paste p;
static struct pasteq q;
static struct paste_nic nic;
static const char *nic_name, *out_name, *command, *path;
static bool echo;
static struct kept *kept;
static unsigned long n_keep, n_kept, n_posts, n_bytes;
static int socks[65536];    /* by PASTE_CONN_INDEX() */
static long missing[65536]; /* bytes of the request's body that have not come */
static __u32 holds[65536];  /* chunks of the connection's sends */
static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static void give_back(__u32 chunk)
{
	while (paste_fill(&q, chunk))
		if (paste_sync(&q, 0, 0))
			errx(1, "sync");
}

static void handle_comp(const struct paste_comp *c)
{
	if (c->cookie & FILL) {
		give_back((__u32)c->cookie);
		if (--holds[PASTE_CONN_INDEX(c->conn)] == GO)
			paste_quota(&q, c->conn, QUOTA);
	} else if (c->cookie & CLOSE && (c->result >= 0 || paste_detach(&q, c->conn) <= 0))
		close((__u32)c->cookie);
}

static void take_comps(void)
{
	for (; paste_comp_peek(&q); paste_comp_release(&q, 1))
		handle_comp(paste_comp_at(&q, 0));
}

static void send_entry(__u32 conn, __u32 chunk, __u32 off, __u32 len, __u32 flags, __u64 cookie)
{
	struct paste_tx *t;

	for (; !(t = paste_tx_reserve(&q)); take_comps())
		if (paste_sync(&q, 0, 0))
			errx(1, "sync");
	*t = (struct paste_tx){ conn, chunk, off, len, flags, cookie };
	paste_tx_submit(&q);
}

/* Keep it, or give it back. What is kept is made durable, as a store would. */
static void take_entry(const struct paste_rx *r)
{
	struct kept *k = &kept[n_kept];

	if (n_kept == n_keep) {
		give_back(r->chunk);
		return;
	}
	*k = (struct kept){ r->chunk, r->off, r->len, malloc(r->len) };
	pmem_flush(paste_addr(&p, r->chunk, r->off), r->len);
	memcpy(k->copy, paste_addr(&p, r->chunk, r->off), r->len);
	n_kept++;
}

/* The head of a request is in one entry; behind it, its body begins. */
static void serve_entry(const struct paste_rx *r)
{
	const char *data = paste_addr(&p, r->chunk, r->off), *end, *length;
	long *left = &missing[PASTE_CONN_INDEX(r->conn)];
	long body = r->len;

	if (!*left) {
		end = memmem(data, r->len, "\r\n\r\n", 4);
		length = memmem(data, r->len, "Content-Length: ", 16);
		if (!end || !length || memcmp(data, "POST ", 5))
			errx(1, "not a whole head of a POST request: '%.*s'", r->len, data);
		*left = atol(length + 16);
		body -= end + 4 - data;
	}
	*left -= body;
	n_bytes += body;
	if (!*left) {
		n_posts++;
		send_entry(r->conn, p.first_tx, 0, sizeof(ANSWER) - 1, 0, 0);
	}
	take_entry(r);
}

static void handle_rx(const struct paste_rx *r)
{
	__u32 i = PASTE_CONN_INDEX(r->conn);

	if (!r->len) { /* FIN or error: nothing comes after this */
		send_entry(r->conn, 0, 0, 0, PASTE_TX_CLOSE, CLOSE | (__u32)socks[i]);
		missing[i] = 0;
	} else if (echo) {
		n_bytes += r->len;
		if (++holds[i] == STOP)
			paste_quota(&q, r->conn, 0);
		send_entry(r->conn, r->chunk, r->off, r->len, 0, FILL | r->chunk);
	} else {
		serve_entry(r);
	}
}

static void turn(void)
{
	int ret;

	take_comps();
	for (; paste_rx_peek(&q); paste_rx_release(&q, 1))
		handle_rx(paste_rx_at(&q, 0));
	ret = paste_sync(&q, 0, 0);
	if (ret && ret != -EINTR)
		errx(1, "sync: %s", strerror(-ret));
}

static void accept_one(int listener)
{
	int fd = accept(listener, NULL, NULL);
	__u32 conn;

	if (fd >= 0 && paste_attach(&q, fd, QUOTA, &conn))
		close(fd);
	else if (fd >= 0)
		socks[PASTE_CONN_INDEX(conn)] = fd;
}

static void serve(int listener)
{
	struct pollfd fds[2] = { { .fd = listener, .events = POLLIN },
				 { .fd = q.fd, .events = POLLIN } };

	while (!stop) {
		if (poll(fds, 2, 200) > 0 && fds[0].revents)
			accept_one(listener);
		turn();
	}
}

/* By reference, by copy, and by copy because it was there before the connection was attached. */
static void print_figures(void)
{
	struct paste_ioc_stats s;

	if (paste_stats(&p, q.id, false, &s))
		errx(1, "no statistics");
	printf("posts %lu bytes %lu byref %llu copied %llu preattach %llu plain %llu existed %u ",
	       n_posts, n_bytes, s.v[PASTE_STAT_REF_ENTRIES],
	       s.v[PASTE_STAT_COPY_ENTRIES] - s.v[PASTE_STAT_COPY_PREATTACH],
	       s.v[PASTE_STAT_COPY_PREATTACH], s.v[PASTE_STAT_COPY_PLAIN], p.existed);
}

/* The context is closed: what does the file say? */
static unsigned long compare_with_file(size_t bytes, __u32 chunk_size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *file = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	unsigned long same = 0;

	if (file == MAP_FAILED)
		err(1, "%s", path);
	for (struct kept *k = kept; k < kept + n_kept; k++)
		same += !memcmp(k->copy, file + (size_t)k->chunk * chunk_size + k->off, k->len);
	munmap(file, bytes);
	close(fd);
	return same;
}

static void write_out(int out, const void *data, size_t len)
{
	if (write(out, data, len) != (ssize_t)len)
		err(1, "%s", out_name);
}

/* A part from the queue; nothing is given back, so that the rest waits in the socket. */
static void take_part(int out, __u64 *taken)
{
	const struct paste_rx *r;

	while (*taken < PART) {
		paste_sync(&q, 0, 100000);
		for (; paste_rx_peek(&q) && *taken < PART; paste_rx_release(&q, 1)) {
			r = paste_rx_at(&q, 0);
			write_out(out, paste_addr(&p, r->chunk, r->off), r->len);
			*taken += r->len;
		}
	}
	usleep(500000); /* more comes in */
	for (; paste_rx_peek(&q); paste_rx_release(&q, 1)) {
		r = paste_rx_at(&q, 0);
		write_out(out, paste_addr(&p, r->chunk, r->off), r->len);
		*taken += r->len;
	}
}

static void close_pool(void)
{
	if (nic_name)
		paste_nic_unbind(&nic, &q);
	paste_queue_close(&q);
	paste_close(&p);
	if (nic_name)
		paste_nic_close(&nic);
}

static void leave(int listener)
{
	int fd = accept(listener, NULL, NULL), status;
	int out = open(out_name, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	__u64 taken = 0, rest = 0;
	char buf[65536];
	__u32 conn;
	ssize_t n;

	if (paste_attach(&q, fd, 64, &conn))
		errx(1, "attach");
	take_part(out, &taken);
	print_figures();
	close_pool();
	status = system(command);
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		write_out(out, buf, n);
		rest += n;
	}
	printf("taken %llu rest %llu command %d\n", taken, rest, status);
}

static int usage(void)
{
	fprintf(stderr, "usage: pmserve [-i NIC] [-n N | -e | -o OUT -c COMMAND] PORT PATH\n");
	return 2;
}

static void set_up(__u16 port)
{
	struct paste_pool_opts po = { .sz = sizeof(po), .n_rx = 4096, .n_tx = 256, .path = path };
	/* rings so small that a stream cannot all be in them */
	struct paste_queue_opts qo = { .sz = sizeof(qo), .rx_entries = out_name ? 256 : 0 };

	if (paste_open(&p) || paste_pool(&p, &po) || paste_queue(&p, &q, &qo) || paste_fill_all(&q))
		errx(1, "%s", paste_text(&p));
	if (nic_name && (paste_nic_open(&nic, nic_name, &port, 1) || paste_nic_bind(&nic, &q, 0)))
		errx(1, "%s: %s", nic_name, paste_nic_text(&nic));
	memcpy(paste_addr(&p, p.first_tx, 0), ANSWER, sizeof(ANSWER));
	pmem_persist(paste_addr(&p, p.first_tx, 0), sizeof(ANSWER));
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	__u32 chunk_size;
	size_t bytes;
	int o, fd;

	while ((o = getopt(argc, argv, "i:n:eo:c:")) != -1) {
		switch (o) {
		case 'i':
			nic_name = optarg;
			break;
		case 'n':
			n_keep = atol(optarg);
			break;
		case 'e':
			echo = true;
			break;
		case 'o':
			out_name = optarg;
			break;
		case 'c':
			command = optarg;
			break;
		default:
			return usage();
		}
	}
	if (argc - optind != 2 || !out_name != !command)
		return usage();
	path = argv[optind + 1];
	kept = calloc(n_keep + 1, sizeof(*kept));
	signal(SIGTERM, on_term);
	set_up((__u16)atoi(argv[optind]));
	any.sin6_port = htons((__u16)atoi(argv[optind]));
	if (paste_listen((void *)&any, sizeof(any), 1024, 0, 0, &fd))
		errx(1, "listen");
	fprintf(stderr, "pmserve: ready\n");
	if (out_name) {
		leave(fd);
		return 0;
	}
	serve(fd);
	print_figures();
	chunk_size = p.chunk_size;
	bytes = p.bytes;
	close_pool();
	printf("kept %lu same %lu\n", n_kept, compare_with_file(bytes, chunk_size));
	return 0;
}
