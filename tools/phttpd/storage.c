// SPDX-License-Identifier: MIT
/*
 * storage.c - the process's store: opened before the first thread, or only looked at
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "phttpd.h"

static struct store *store;

static void describe(const struct options *o, struct store_opts *so)
{
	*so = (struct store_opts){
		.dir = o->dir,
		.kind = o->tree ? STORE_TREE :
			o->kv	? STORE_KV :
				  STORE_WAL,
		.threads = o->threads,
		.bytes = o->store_bytes,
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

int storage_check(const struct options *o)
{
	struct store_report r;
	struct store_opts so;

	describe(o, &so);
	open_or_die(&so, &r);
	store_verify(store, &r);
	if (o->dump && store_walk(store, dump_record, NULL))
		die("dump", ENOMEM);
	say_what_is_there(stdout, o, &r);
	printf(" corrupt %llu\n", (unsigned long long)r.corrupt);
	store_close(store);
	return r.corrupt ? EXIT_FAILURE : EXIT_SUCCESS;
}
