// SPDX-License-Identifier: MIT
/* persist DIR: what it has answered "ok" to is printed at its next start. Port 7003; DIR on PM, -o dax. */
#include <arpa/inet.h>
#include <err.h>
#include <libpmem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <paste.h>

struct entry {
	__u32 chunk;
	__u16 off, len;	       /* 0: no entry */
} __attribute__((aligned(8))); /* and so written as one: it is there or not */
static struct entry *wal;
static size_t used;
static char kept[65536]; /* by chunk */

/* The bytes are made durable, then that they are there, then it is answered. False: the end. */
static bool keep(struct paste *p, struct pasteq *q, __u32 conn)
{
	__u32 i, n = paste_rx_peek(q);
	const struct paste_rx *r;

	for (i = 0; i < n && (r = paste_rx_at(q, i)); i++)
		pmem_flush(paste_addr(p, r->chunk, r->off), r->len);
	pmem_drain();
	for (i = 0; i < n && (r = paste_rx_at(q, i))->len && used < sizeof(kept); i++) {
		struct entry e = { r->chunk, r->off, r->len };
		__atomic_store(&wal[used], &e, __ATOMIC_RELAXED);
		pmem_flush(&wal[used++], sizeof(*wal));
	}
	pmem_drain();
	if (n)
		*paste_tx_reserve(q) = (struct paste_tx){ conn, p->first_tx, 0, 3, 0, 0 };
	paste_tx_submit(q);
	paste_rx_release(q, n);
	paste_comp_release(q, paste_comp_peek(q));
	return i == n;
}

/* What the log names stays where it is; the module may receive into all other chunks. */
static void recover(struct paste *p, struct pasteq *q)
{
	for (; used < sizeof(kept) && wal[used].len; used++) {
		kept[wal[used].chunk] = 1;
		fwrite(paste_addr(p, wal[used].chunk, wal[used].off), 1, wal[used].len, stdout);
	}
	fflush(stdout);
	for (__u32 c = p->first_rx; c < p->first_rx + p->n_rx; c++)
		if (!kept[c])
			paste_fill(q, c);
}

int main(int argc, char **argv)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(7003) };
	struct paste_pool_opts o = { .sz = sizeof(o), .n_rx = 4096, .path = "pool" };
	struct pasteq q;
	struct paste p;
	int fd, sock;
	__u32 conn = 0;

	if (argc != 2 || chdir(argv[1]))
		errx(2, "usage: persist DIR");
	wal = pmem_map_file("log", sizeof(kept) * sizeof(*wal), PMEM_FILE_CREATE, 0600, NULL, NULL);
	if (!wal || paste_open(&p) || paste_pool(&p, &o) || paste_queue(&p, &q, NULL) ||
	    paste_listen((void *)&any, sizeof(any), 1, 0, 0, &fd))
		errx(1, "cannot start: %s", wal ? paste_text(&p) : pmem_errormsg());
	recover(&p, &q);
	memcpy(paste_addr(&p, p.first_tx, 0), "ok\n", 3);
	for (; (sock = accept(fd, NULL, NULL)) >= 0; close(sock)) {
		if (!paste_attach(&q, sock, 0, &conn))
			while (!paste_sync(&q, 0, PASTE_FOREVER) && keep(&p, &q, conn))
				;
		paste_sync(&q, 0, 0); /* rings the doorbell of the last answer */
		paste_detach(&q, conn);
	}
	return 1;
}
