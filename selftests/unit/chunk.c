// SPDX-License-Identifier: GPL-2.0
/* kmod/chunk.h against a model: three counts per chunk, and nothing else. */
#include <string.h>

#include "shim.h"
#include "unit.h"
#include "chunk.h"

#define MAX_CHUNKS 1024
#define MAX_PIECES 65

/* What the model knows of a chunk. */
struct model_chunk {
	u32 app;
	u32 tx;
	u32 stack; /* packets that refer to it */
	bool lent;
	bool free;  /* was handed to the module and not yet taken */
	u32 pieces; /* of the copy path, since it was taken */
	struct {
		u32 off, len;
	} piece[MAX_PIECES];
};

static struct paste_slice_table table;
static struct paste_chunk chunks[MAX_CHUNKS];
static u32 free_stack[MAX_CHUNKS], fifo[MAX_CHUNKS];
static struct model_chunk model[MAX_CHUNKS];
static u32 chunk_size;
static unsigned long idle_calls;

/* A page is idle when no packet refers to any chunk of it. */
static bool page_is_idle(void *arg, u32 page)
{
	CHECK(arg == &table);
	CHECK(page < table.n / table.per_page);
	idle_calls++;
	for (u32 i = 0; i < table.per_page; i++) {
		if (model[page * table.per_page + i].stack)
			return false;
	}
	return true;
}

static u32 power_of_two(u32 n)
{
	u32 p = 1;

	while (p < n)
		p *= 2;
	return p;
}

static void start(u32 n, u32 per_page)
{
	memset(&table, 0, sizeof(table));
	memset(chunks, 0xa5, sizeof(chunks));
	memset(model, 0, sizeof(model));
	chunk_size = 4096 / per_page;
	idle_calls = 0;
	table.chunk = chunks;
	table.free = free_stack;
	table.n = n;
	table.per_page = per_page;
	table.fifo.v = fifo;
	table.fifo.mask = power_of_two(n / per_page) - 1;
	table.idle = page_is_idle;
	table.arg = &table;
	paste_chunks_init(&table);
	for (u32 i = 0; i < n; i++)
		model[i].app = 1;
}

static void fill(u32 i)
{
	bool held = i < table.n && model[i].app;

	CHECK(paste_chunk_fill(&table, i) == (held ? 0 : -EINVAL));
	if (held)
		model[i].app--;
}

static void fill_everything(void)
{
	for (u32 i = 0; i < table.n; i++)
		fill(i);
}

/* The one rule: nobody has it any more. */
static void check_unused(u32 i)
{
	CHECK(i < table.n);
	CHECK(!model[i].app);
	CHECK(!model[i].tx);
	CHECK(!model[i].stack);
	CHECK(!model[i].lent);
}

static u32 take(u32 want)
{
	unsigned long before = idle_calls;
	u32 i = paste_chunk_take(&table, want);

	CHECK(idle_calls - before <= want + PASTE_RECLAIM_EXTRA);
	if (i == PASTE_CHUNK_NONE)
		return i;
	check_unused(i);
	model[i].lent = true;
	model[i].pieces = 0;
	return i;
}

static void arrive(u32 i)
{
	paste_chunk_arrive(&table, i);
	model[i].lent = false;
	model[i].stack = 1;
}

static void deliver(u32 i)
{
	paste_chunk_deliver(&table, i);
	model[i].app++;
}

/* It must not lie over another that may still be read. */
static void add_piece(struct model_chunk *m, u32 off, u32 len)
{
	CHECK(off <= chunk_size && len <= chunk_size - off);
	for (u32 p = 0; p < m->pieces; p++)
		CHECK(off >= m->piece[p].off + m->piece[p].len);
	CHECK(m->pieces < MAX_PIECES);
	m->piece[m->pieces].off = off;
	m->piece[m->pieces++].len = len;
}

/* A piece may be used for nothing after all, or be continued by more data. */
static void copy_piece(u32 len, bool used, u32 more)
{
	u32 open = table.open, off = ~0U, got;
	u32 i = paste_chunk_space(&table, len, chunk_size, &off);

	if (i == PASTE_CHUNK_NONE)
		return;
	CHECK(i == table.open);
	if (i != open) {
		check_unused(i);
		model[i].pieces = 0;
	}
	CHECK(off % 64 == 0);
	add_piece(&model[i], off, len);
	if (!used)
		return;
	deliver(i);
	CHECK(!paste_chunk_extend(&table, i, off + len - 1, more, chunk_size));
	CHECK(!paste_chunk_extend(&table, (i + 1) % table.n, off + len, more, chunk_size));
	got = paste_chunk_extend(&table, i, off + len, more, chunk_size);
	CHECK(got == (more < chunk_size - off - len ? more : chunk_size - off - len));
	model[i].piece[model[i].pieces - 1].len += got;
}

static void check_table(void)
{
	u32 n_free = 0, n_lent = 0, queued = 0;

	for (u32 i = 0; i < table.n; i++) {
		const struct paste_chunk *c = &table.chunk[i];

		n_free += c->state == PASTE_CHUNK_FREE;
		n_lent += c->state == PASTE_CHUNK_LENT;
		queued += i % table.per_page ? 0 : c->queued;
		CHECK(c->app == model[i].app);
		CHECK(c->tx == model[i].tx);
		CHECK((c->state == PASTE_CHUNK_LENT) == model[i].lent);
		CHECK(paste_chunk_is_lent(&table, i) == model[i].lent);
		CHECK(c->state == PASTE_CHUNK_OUT || (!c->app && !c->tx));
	}
	CHECK(n_free == table.n_free);
	CHECK(n_lent == table.n_lent);
	CHECK(queued == table.fifo.tail - table.fifo.head);
	CHECK(queued <= table.n / table.per_page);
	CHECK(!paste_chunk_is_lent(&table, table.n));
	CHECK(!paste_chunk_is_lent(&table, ~0U));
}

/* ------------------------------------------------------------------------- */

static void test_start(void)
{
	for (u32 per_page = 1; per_page <= 2; per_page++) {
		start(64, per_page);
		check_table();
		CHECK(take(1) == PASTE_CHUNK_NONE);
		fill(5);
		CHECK(take(64) == 5);
		CHECK(take(64) == PASTE_CHUNK_NONE);
	}
}

static void test_fill_errors(void)
{
	start(64, 1);
	fill(64);
	fill(~0U);
	fill(0x80000000);
	fill(3);
	fill(3);
	fill(3);
	check_table();
	CHECK(take(1) == 3);
	fill(3);
	CHECK(take(1) == PASTE_CHUNK_NONE);
}

static void test_delivered_twice(void)
{
	u32 i, other;

	start(64, 1);
	fill(0);
	i = take(1);
	arrive(i);
	deliver(i);
	deliver(i);
	model[i].stack = 0;
	fill(i);
	CHECK(take(1) == PASTE_CHUNK_NONE);
	fill(1);
	other = take(8);
	CHECK(other == 1);
	fill(i);
	fill(i);
	CHECK(take(1) == i);
}

static void test_send_counts(void)
{
	start(64, 1);
	CHECK(paste_chunk_send(&table, 7) == 0);
	model[7].tx++;
	fill(7);
	CHECK(take(8) == PASTE_CHUNK_NONE);
	/* not held any more */
	CHECK(paste_chunk_send(&table, 7) == -EPERM);
	paste_chunk_sent(&table, 7);
	model[7].tx--;
	CHECK(take(8) == 7);
	CHECK(paste_chunk_send(&table, 7) == -EPERM);
}

static void test_send_limit(void)
{
	start(64, 1);
	for (u32 i = 0; i < 0xffff; i++)
		CHECK(paste_chunk_send(&table, 0) == 0);
	CHECK(paste_chunk_send(&table, 0) == -ENOSPC);
	model[0].tx = 0xffff;
	check_table();
	for (; model[0].tx; model[0].tx--)
		paste_chunk_sent(&table, 0);
	fill(0);
	CHECK(take(1) == 0);
}

static void test_all_come_back(void)
{
	u32 n, i;

	for (u32 per_page = 1; per_page <= 2; per_page++) {
		start(512, per_page);
		fill_everything();
		for (int round = 0; round < 5; round++) {
			for (n = 0; (i = take(16)) != PASTE_CHUNK_NONE; n++)
				arrive(i);
			CHECK(n == 512);
			for (i = 0; i < 512; i++) {
				deliver(i);
				model[i].stack = 0;
			}
			CHECK(take(16) == PASTE_CHUNK_NONE);
			fill_everything();
			check_table();
		}
	}
}

static void test_dropped_packets_come_back(void)
{
	u32 n, i;

	/* nobody tells when a packet that was never delivered is gone */
	for (u32 per_page = 1; per_page <= 2; per_page++) {
		start(512, per_page);
		fill_everything();
		for (n = 0; (i = take(1)) != PASTE_CHUNK_NONE; n++)
			arrive(i);
		CHECK(n == 512);
		for (int tries = 0; tries < 1000; tries++)
			CHECK(take(16) == PASTE_CHUNK_NONE);
		for (i = 0; i < 512; i++)
			model[i].stack = 0;
		for (n = 0; take(16) != PASTE_CHUNK_NONE; n++)
			;
		CHECK(n == 512);
	}
}

static void test_sibling_does_not_starve(void)
{
	u32 i, rounds;

	/*
	 * Chunk 0 goes round and round: it is always with the NIC, in the stack or
	 * with the application, while chunk 1 of its page waits to be free.
	 */
	start(64, 2);
	fill(0);
	i = take(1);
	CHECK(i == 0);
	arrive(i);
	deliver(i);
	fill(1);
	for (rounds = 0; rounds < 100 && table.chunk[1].state != PASTE_CHUNK_FREE; rounds++) {
		model[0].stack = 0;
		fill(0);
		i = take(1);
		if (i != 0)
			break;
		arrive(0);
		deliver(0);
	}
	CHECK(rounds < 3);
}

static void test_pages_half_held(void)
{
	u32 n = 0;

	/* one half of each page is kept for ever: the other halves must go round */
	start(512, 2);
	for (u32 i = 0; i < 512; i += 2)
		fill(i);
	for (u32 i = 0; i < 512; i++)
		n += (take(16) != PASTE_CHUNK_NONE);
	CHECK(n == 256);
	for (u32 i = 0; i < 512; i += 2) {
		arrive(i);
		deliver(i);
		model[i].stack = 0;
		fill(i);
	}
	for (n = 0; take(16) != PASTE_CHUNK_NONE; n++)
		;
	CHECK(n == 256);
}

static void test_never_scans(void)
{
	unsigned long takes = 0;
	u32 i, got = 0;

	/* half of the packets stay in the stack for ever */
	start(1024, 1);
	fill_everything();
	for (u32 j = 0; j < 1024; j++) {
		i = take(1);
		arrive(i);
		if (i % 2)
			model[i].stack = 0;
	}
	idle_calls = 0;
	for (; takes < 10000; takes++) {
		i = take(64);
		if (i == PASTE_CHUNK_NONE)
			continue;
		got++;
		arrive(i);
		model[i].stack = 0;
	}
	CHECK(got > takes * 9 / 10);
	/* a few tests for each chunk that is found, though 512 busy ones lie between */
	CHECK(idle_calls < 8 * takes);
}

static void test_copy_path(void)
{
	u32 first, off;

	start(64, 1);
	CHECK(paste_chunk_space(&table, 10, chunk_size, &off) == PASTE_CHUNK_NONE);
	fill(1);
	fill(2);
	copy_piece(10, true, 0);
	first = table.open;
	copy_piece(100, true, 50);
	CHECK(table.open == first && model[first].app == 2);
	/* what lies in the open chunk can be given back, the chunk stays open */
	fill(first);
	fill(first);
	CHECK(take(8) != first);
	fill(3);
	copy_piece(4000, true, 1000);
	CHECK(table.open != first);
	/* once it is not open any more it is free */
	CHECK(take(8) == first || take(8) == first || take(8) == first);
	check_table();
}

static void test_copy_exact_sizes(void)
{
	for (u32 per_page = 1; per_page <= 2; per_page++) {
		for (u32 len = 1; len <= 4096 / per_page; len += 31) {
			start(64, per_page);
			fill_everything();
			for (u32 i = 0; i < 200; i++)
				copy_piece(i % 3 ? len : 4096 / per_page, i < 40, i % 2 ? len : 0);
			check_table();
		}
	}
}

/* ------------------------------------------------------------------------- */

static u32 lent[MAX_CHUNKS], n_lent;

static void random_step(unsigned int *seed)
{
	u32 i = unit_random(seed) % table.n, at;
	struct model_chunk *m = &model[i];

	switch (unit_random(seed) % 12) {
	case 0:
	case 1:
		i = take(1 + unit_random(seed) % 64);
		if (i != PASTE_CHUNK_NONE)
			lent[n_lent++] = i;
		break;
	case 2:
	case 3:
		if (!n_lent)
			break;
		at = unit_random(seed) % n_lent;
		arrive(lent[at]);
		lent[at] = lent[--n_lent];
		break;
	case 4:
		if (!n_lent)
			break;
		at = unit_random(seed) % n_lent;
		paste_chunk_untake(&table, lent[at]);
		model[lent[at]].lent = false;
		lent[at] = lent[--n_lent];
		break;
	case 5:
	case 6:
		/* TCP delivers (a part of) a packet, and may then let go of it */
		if (m->stack)
			deliver(i);
		if (m->stack && unit_random(seed) % 2)
			m->stack--;
		break;
	case 7:
		/* a clone, for tcpdump or for GRO */
		if (m->stack)
			m->stack += unit_random(seed) % 2 ? 1 : -1;
		break;
	case 8:
	case 9:
		fill(unit_random(seed) % 50 ? i : unit_random(seed));
		break;
	case 10:
		if (unit_random(seed) % 2) {
			CHECK(paste_chunk_send(&table, i) == (m->app ? 0 : -EPERM));
			m->tx += !!m->app;
		} else if (m->tx) {
			paste_chunk_sent(&table, i);
			m->tx--;
		}
		break;
	default:
		copy_piece(1 + unit_random(seed) % chunk_size, unit_random(seed) % 8,
			   unit_random(seed) % chunk_size);
	}
}

static void test_random_walk(void)
{
	unsigned int seed = 1;
	u32 found;

	for (u32 round = 0; round < 24; round++) {
		start(round % 3 == 0 ? 64 : round % 3 == 1 ? 70 : 512, 1 + round % 2);
		n_lent = 0;
		for (u32 step = 0; step < 20000; step++) {
			random_step(&seed);
			if (step % 500 == 0)
				check_table();
		}

		/* everybody gives back what he has: all but the open chunk is found again */
		while (n_lent)
			arrive(lent[--n_lent]);
		for (u32 i = 0; i < table.n; i++) {
			model[i].stack = 0;
			for (; model[i].tx; model[i].tx--)
				paste_chunk_sent(&table, i);
			while (model[i].app)
				fill(i);
		}
		check_table();
		for (found = 0; take(64) != PASTE_CHUNK_NONE; found++)
			;
		CHECK(found + (table.open != PASTE_CHUNK_NONE) == table.n);
	}
}

/* Of the module's own memory, beside the pool: a chunk's share of everything, with the page's pointer. */
static void test_memory(void)
{
	size_t free_stack = sizeof(u32), fifo = 2 * sizeof(u32), page = sizeof(void *);

	CHECK(sizeof(struct paste_chunk) + free_stack + fifo + page <= 64);
}

static const struct unit_test tests[] = {
	{ "chunk__start", test_start },
	{ "chunk__fill_errors", test_fill_errors },
	{ "chunk__delivered_twice", test_delivered_twice },
	{ "chunk__send_counts", test_send_counts },
	{ "chunk__send_limit", test_send_limit },
	{ "chunk__all_come_back", test_all_come_back },
	{ "chunk__dropped_packets_come_back", test_dropped_packets_come_back },
	{ "chunk__sibling_does_not_starve", test_sibling_does_not_starve },
	{ "chunk__pages_half_held", test_pages_half_held },
	{ "chunk__never_scans", test_never_scans },
	{ "chunk__copy_path", test_copy_path },
	{ "chunk__copy_exact_sizes", test_copy_exact_sizes },
	{ "chunk__random_walk", test_random_walk },
	{ "chunk__memory", test_memory },
};

int main(void)
{
	return unit_run(tests, ARRAY_SIZE(tests));
}
