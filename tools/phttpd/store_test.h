/* SPDX-License-Identifier: MIT */
/*
 * store_test.h - what the tests of the store share: TAP, random numbers, and
 * stores in memory
 */
#ifndef PHTTPD_STORE_TEST_H
#define PHTTPD_STORE_TEST_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_int.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static unsigned test_number, test_failures;

__attribute__((format(printf, 2, 3))) static inline void result(bool passed, const char *fmt, ...)
{
	va_list args;

	printf("%sok %u store: ", passed ? "" : "not ", ++test_number);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	test_failures += !passed;
}

static inline int results(void)
{
	printf("1..%u\n", test_number);
	return test_failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The same numbers in every run (xorshift). */
static uint64_t random_state = 88172645463325252ULL;

static inline uint64_t random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* From 0 to below n. */
static inline uint32_t below(uint32_t n)
{
	return (random64() >> 32) % n;
}

/* The bytes of value number id. */
static inline void make_bytes(uint64_t id, unsigned char *p, size_t len)
{
	uint64_t x = (id + 1) * 0x9e3779b97f4a7c15ULL;
	size_t i;

	for (i = 0; i < len; i++) {
		if (i % 8 == 0)
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		p[i] = x >> i % 8 * 8;
	}
}

struct memory_layout {
	unsigned n_logs;
	uint32_t n_slots;
	uint32_t n_chunks;
	uint32_t chunk_size;
};

static inline struct log_header memory_header(const struct memory_layout *m,
					      const struct store_opts *o, unsigned number)
{
	struct log_header h = {
		.kind = o->kind,
		.id = 0x1234567890abcdefULL,
		.number = number,
		.logs = m->n_logs,
		.n_slots = m->n_slots,
		.n_chunks = m->n_chunks,
		.chunk_size = m->chunk_size,
	};

	if (o->pool) {
		h.pool_chunk_size = o->pool->chunk_size;
		h.pool_first_rx = o->pool->first_rx;
		h.pool_n_rx = o->pool->n_rx;
	}
	log_seal(&h);
	return h;
}

static inline size_t memory_log_bytes(const struct memory_layout *m)
{
	return LOG_HEADER + m->n_slots * sizeof(struct slot) + (size_t)m->n_chunks * m->chunk_size;
}

/* Empty logs, one behind the other. */
static inline void memory_format(const struct memory_layout *m, const struct store_opts *o,
				 char *base)
{
	struct log_header h;
	unsigned i;

	for (i = 0; i < m->n_logs; i++, base += memory_log_bytes(m)) {
		h = memory_header(m, o, i);
		memset(base, 0, memory_log_bytes(m));
		memcpy(base, &h, sizeof(h));
	}
}

/* Recover from them; NULL: one was refused, or no memory. */
static inline struct store *memory_open(const struct memory_layout *m, const struct store_opts *o,
					char *base, const struct io_ops *ops,
					struct store_report *r)
{
	const struct log_header *h = (const void *)base;
	struct store *s = store_new(o, h->id, m->n_logs);
	char text[200];
	unsigned i;

	for (i = 0; i < m->n_logs; i++) {
		h = (const void *)(base + i * memory_log_bytes(m));
		s->logs[i].fd = -1;
		if (log_check(h, memory_log_bytes(m), o, text, sizeof(text)) || h->id != s->id) {
			store_close(s);
			return NULL;
		}
		log_attach(&s->logs[i], (char *)h, memory_log_bytes(m), -1);
	}
	if (store_start(s, ops, r)) {
		store_close(s);
		return NULL;
	}
	return s;
}

/* Every slot, chunk and byte of a store in which nothing is under way: used once, or free. */
struct space {
	struct store *s;
	unsigned char **used; /* per log: bytes of its chunks; then of the pool */
	uint32_t **extents;
	uint32_t *slots;
	bool ok;
};

static inline void space_record(struct store_rec *rec, void *arg)
{
	struct space *sp = arg;
	struct store *s = sp->s;
	const struct store_ext *e = rec_exts(rec);
	uint32_t i, j, at, where, size;

	sp->slots[rec->log] += rec_n_slots(rec);
	for (i = 0; i < rec->n_ext; i++, e++) {
		where = e->chunk & EXT_POOL ? s->n_logs : rec->log;
		at = e->chunk & EXT_POOL ? (e->chunk & ~EXT_POOL) - s->pool.first_rx : e->chunk;
		size = e->chunk & EXT_POOL ? s->pool.chunk_size : s->logs[rec->log].chunk_size;
		sp->extents[where][at]++;
		for (j = e->off; j < (uint32_t)e->off + e->len; j++)
			if (sp->used[where][(size_t)at * size + j]++)
				sp->ok = false;
	}
}

static inline bool space_log_is_whole(struct space *sp, const struct log *l)
{
	uint32_t i, n_free = 0, chunk;

	for (i = 0; i < l->n_chunks; i++)
		if (l->chunks[i].extents != sp->extents[l->number][i] + (i == l->open_chunk))
			return false;
	for (chunk = l->free_chunk; chunk != NONE && n_free <= l->n_chunks; n_free++) {
		if (l->chunks[chunk].extents)
			return false;
		chunk = l->chunks[chunk].next;
	}
	for (i = 0; i < l->n_chunks; i++)
		n_free += !!l->chunks[i].extents;
	for (i = 0; i < l->n_free_slots; i++)
		if (l->slots[l->free_slots[i]].sum)
			return false;
	return n_free == l->n_chunks && l->n_free_slots + sp->slots[l->number] == l->n_slots;
}

static inline bool space_is_whole(struct store *s)
{
	struct space sp = { .s = s, .ok = true };
	uint32_t i, n = s->n_logs;

	sp.used = calloc(n + 1, sizeof(*sp.used));
	sp.extents = calloc(n + 1, sizeof(*sp.extents));
	sp.slots = calloc(n, sizeof(*sp.slots));
	for (i = 0; i < n; i++) {
		sp.used[i] = calloc(s->logs[i].n_chunks + 1, s->logs[i].chunk_size);
		sp.extents[i] = calloc(s->logs[i].n_chunks + 1, sizeof(uint32_t));
	}
	sp.used[n] = calloc(s->pool.n_rx + 1, s->pool.chunk_size + 1);
	sp.extents[n] = calloc(s->pool.n_rx + 1, sizeof(uint32_t));
	index_each(s, space_record, &sp);
	for (i = 0; i < n; i++)
		sp.ok &= space_log_is_whole(&sp, &s->logs[i]);
	for (i = 0; i < s->pool.n_rx; i++)
		sp.ok &= s->pool_chunks[i].owner == NO_OWNER ||
			 s->pool_chunks[i].extents == sp.extents[n][i];
	for (i = 0; i <= n; i++) {
		free(sp.used[i]);
		free(sp.extents[i]);
	}
	free(sp.used);
	free(sp.extents);
	free(sp.slots);
	return sp.ok;
}

#endif /* PHTTPD_STORE_TEST_H */
