// SPDX-License-Identifier: MIT
/*
 * storage.c - the process's store: opened before the first thread, or only looked at
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <paste.h>

#include "phttpd.h"

#define POOL_SHARE 8 /* with -x the logs get one of so many parts of the store */

static struct store *store;

uint64_t storage_log_bytes(const struct options *o)
{
	return o->zero_copy ? o->store_bytes / POOL_SHARE : o->store_bytes;
}

static bool has_logs(const struct options *o)
{
	char path[PATH_MAX];

	return (size_t)snprintf(path, sizeof(path), "%s/log.0", o->dir) < sizeof(path) &&
	       !access(path, F_OK);
}

void storage_pool_path(const struct options *o, char *path, size_t size)
{
	if (!o->recover_only && mkdir(o->dir, 0700) && errno != EEXIST)
		die(o->dir, errno);
	if ((size_t)snprintf(path, size, "%s/pool", o->dir) >= size)
		die(o->dir, ENAMETOOLONG);
	/* The pool is made before the logs. A new one would not have what they refer to. */
	if (access(path, F_OK) && has_logs(o)) {
		fprintf(stderr, "phttpd: %s is missing, but there are logs\n", path);
		exit(EXIT_FAILURE);
	}
}

static void describe(const struct options *o, struct store_opts *so)
{
	*so = (struct store_opts){
		.dir = o->dir,
		.kind = o->tree ? STORE_TREE :
			o->kv	? STORE_KV :
				  STORE_WAL,
		.threads = o->threads,
		.bytes = storage_log_bytes(o),
		.mmap = o->mmap,
		.datasync = o->datasync,
		.no_flush = o->no_flush,
		.wrap = o->wrap,
		.check = o->recover_only,
		.latency_ns = o->latency_ns,
	};
}

static void open_or_die(const struct store_opts *so, struct store_report *r)
{
	char text[512] = "";

	if (!store_open(&store, so, r, text, sizeof(text)))
		return;
	fprintf(stderr, "phttpd: %s\n", text);
	exit(EXIT_FAILURE);
}

static void say_what_is_there(FILE *f, const struct options *o, const struct store_report *r)
{
	fprintf(f, "phttpd: store %s records %llu bytes %llu torn %llu in %.3f s", o->dir,
		(unsigned long long)r->records, (unsigned long long)r->bytes,
		(unsigned long long)r->torn, r->seconds);
}

void storage_open(const struct options *o, struct worker *w)
{
	struct store_report r;
	struct store_opts so;
	unsigned i;

	describe(o, &so);
	so.pool = paste_server_pool(o, w);
	open_or_die(&so, &r);
	say_what_is_there(stderr, o, &r);
	fputc('\n', stderr);
	for (i = 0; i < o->threads; i++) {
		w[i].serve.store = store_thread(store, i);
		w[i].serve.kind = so.kind;
	}
}

void storage_close(void)
{
	store_close(store);
}

static void dump_record(void *arg, uint64_t seq, const struct store_rec *rec)
{
	struct store_thread *t = store_thread(store, 0);
	struct store_pieces piece;
	char key[STORE_KEY_MAX];
	size_t len;
	bool more;

	(void)arg;
	if (!rec) {
		printf("corrupt %llu\n", (unsigned long long)seq);
		return;
	}
	len = store_rec_key(t, rec, key);
	printf("record %llu %zu %llu\n", (unsigned long long)seq, len,
	       (unsigned long long)store_rec_len(rec));
	fwrite(key, 1, len, stdout);
	for (more = store_rec_first(t, rec, &piece); more; more = store_rec_next(t, &piece))
		fwrite(piece.addr, 1, piece.len, stdout);
	putchar('\n');
}

static bool is_pool(const struct paste_pool_header *h, off_t bytes)
{
	return bytes >= (off_t)sizeof(*h) &&
	       !memcmp(h->magic, PASTE_POOL_MAGIC, sizeof(h->magic)) &&
	       h->version == PASTE_POOL_VERSION && h->bytes <= (uint64_t)bytes &&
	       (h->chunk_size == 2048 || h->chunk_size == 4096) &&
	       (uint64_t)h->first_rx + h->n_rx <= h->bytes / h->chunk_size;
}

/* The pool as an ordinary file: to look at it, neither the module nor a NIC is needed. */
static void map_pool(const struct options *o, struct store_pool *p)
{
	const struct paste_pool_header *h;
	char path[PATH_MAX];
	struct stat st;
	int fd;

	storage_pool_path(o, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die(path, errno);
	h = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (h == MAP_FAILED || !is_pool(h, st.st_size)) {
		fprintf(stderr, "phttpd: %s is not a pool\n", path);
		exit(EXIT_FAILURE);
	}
	p->base = (char *)h;
	p->chunk_size = h->chunk_size;
	p->first_rx = h->first_rx;
	p->n_rx = h->n_rx;
	p->slice_first = &p->first_rx;
	p->slice_n = &p->n_rx;
}

int storage_check(const struct options *o)
{
	struct store_report r;
	struct store_pool pool;
	struct store_opts so;

	describe(o, &so);
	so.threads = 1;
	if (o->zero_copy) {
		map_pool(o, &pool);
		so.pool = &pool;
	}
	open_or_die(&so, &r);
	store_verify(store, &r);
	if (o->dump && store_walk(store, dump_record, NULL))
		die("dump", ENOMEM);
	say_what_is_there(stdout, o, &r);
	printf(" corrupt %llu\n", (unsigned long long)r.corrupt);
	store_close(store);
	return r.corrupt ? EXIT_FAILURE : EXIT_SUCCESS;
}
