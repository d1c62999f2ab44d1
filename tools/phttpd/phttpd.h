/* SPDX-License-Identifier: MIT */
/*
 * phttpd.h - what the files of phttpd share: options and threads
 *
 * main.c reads the options, has the store opened (storage.c) and makes the
 * listeners and threads. Each thread runs one of two loops, over epoll (epoll.c)
 * or over a queue of /dev/paste (paste.c), and both give what arrives to
 * serve.c, which parses it (http.c), keeps it or gets it (op.c, store.h), and
 * answers.
 */
#ifndef PHTTPD_PHTTPD_H
#define PHTTPD_PHTTPD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "serve.h"

#define MAX_THREADS 64

struct options {
	const char *nic;     /* -i, or NULL */
	bool paste;	     /* -i or -n: paste, else epoll */
	bool need_zc;	     /* -Z: no falling back */
	bool static_head;    /* -c */
	bool verify;	     /* -v */
	bool ipv6;	     /* -6 */
	bool stats;	     /* -S */
	uint16_t port;	     /* -P */
	uint64_t body;	     /* -l, bytes */
	unsigned wait_ms;    /* -b; 0: busy poll */
	unsigned busy_us;    /* -u: poll so long before sleeping */
	int cpu;	     /* -a, or -1 */
	unsigned threads;    /* -p */
	unsigned rxq;	     /* -q: RX queue of thread 0 */
	unsigned chunks;     /* -C: rx chunks of a thread */
	unsigned chunk_size; /* -s */

	const char *dir;      /* -d, or NULL: no store */
	uint64_t store_bytes; /* -L */
	uint64_t latency_ns;  /* -e */
	bool mmap;	      /* -m */
	bool datasync;	      /* -D */
	bool no_flush;	      /* -F */
	bool zero_copy;	      /* -x: the pool is in the store */
	bool tree;	      /* -B */
	bool kv;	      /* -k; neither: a log */
	bool wrap;
	bool recover_only;
	bool dump;
};

struct queue; /* queue.h */

struct worker {
	const struct options *opt;
	unsigned index;
	int listener;
	pthread_t thread;
	struct serve serve;
	struct queue *queue; /* NULL with epoll */
	uint64_t batches;    /* waits that ended with something to do */
	int err;	     /* why the loop ended: 0 or -errno */
};

/* Set by a signal or by a thread that cannot go on; all loops end. */
extern atomic_bool stopping;

/* main.c */
void stop_all(void);
void die(const char *what, int err) __attribute__((noreturn));

/* storage.c: all exit when there is something wrong, check returns the exit status. */
void storage_open(const struct options *o, struct worker *w);
void storage_close(void);
int storage_check(const struct options *o);
uint64_t storage_log_bytes(const struct options *o);
void storage_pool_path(const struct options *o, char *path, size_t size); /* makes DIR */

/* epoll.c */
extern const struct sink epoll_sink;
int epoll_run(struct worker *w);

/* conn.c */
extern const struct sink paste_sink;

/* paste.c: open makes pool and queues, fill gives them their chunks, bind lends them to the NIC. */
void paste_server_open(const struct options *opt, struct worker *w);
const struct store_pool *paste_server_pool(const struct options *opt, const struct worker *w);
void paste_server_fill(const struct options *opt, struct worker *w);
void paste_server_bind(const struct options *opt, struct worker *w);
const char *paste_server_placement(void);
int paste_run(struct worker *w);
void paste_server_summary(const struct options *opt, struct worker *w);
void paste_server_close(const struct options *opt, struct worker *w);

#endif /* PHTTPD_PHTTPD_H */
