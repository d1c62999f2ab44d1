// SPDX-License-Identifier: GPL-2.0
/* kmod/ring.h: honest peers, two threads, peers that write what they like. */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "shim.h"
#include "unit.h"
#include "ring.h"

#define ENTRIES 64

/* The shared memory, with a guard on either side of the entries. */
struct shared {
	u32 prod;
	u32 cons;
	u64 before[8];
	u64 desc[ENTRIES];
	u64 after[8];
};

static void shared_init(struct shared *s, u32 start)
{
	memset(s, 0x5a, sizeof(*s));
	s->prod = start;
	s->cons = start;
}

static void ring_at(struct paste_ring *r, struct shared *s, u32 start)
{
	paste_ring_init(r, &s->prod, &s->cons, s->desc, ENTRIES);
	r->head = start;
	r->peer = start;
}

static void test_fresh(void)
{
	struct paste_ring p, c;
	struct shared s;

	shared_init(&s, 0);
	ring_at(&p, &s, 0);
	ring_at(&c, &s, 0);
	CHECK(paste_ring_room(&p) == ENTRIES);
	CHECK(paste_ring_unread(&p) == 0);
	CHECK(paste_ring_avail(&c) == 0);
}

static void test_full_and_empty(void)
{
	struct paste_ring p, c;
	struct shared s;

	shared_init(&s, 0);
	ring_at(&p, &s, 0);
	ring_at(&c, &s, 0);
	for (u32 i = 0; i < ENTRIES; i++) {
		CHECK(paste_ring_room(&p) == (int)(ENTRIES - i));
		*paste_ring_entry(&p, u64, 0) = i;
		p.head++;
		/* nothing is seen before it is published */
		CHECK(paste_ring_avail(&c) == (int)i);
		paste_ring_publish(&p);
		CHECK(paste_ring_avail(&c) == (int)i + 1);
	}
	CHECK(paste_ring_room(&p) == 0);
	CHECK(paste_ring_unread(&p) == ENTRIES);
	for (u32 i = 0; i < ENTRIES; i++) {
		CHECK(*paste_ring_entry(&c, u64, 0) == i);
		c.head++;
		/* no room before it is said that the entries were read */
		CHECK(paste_ring_room(&p) == (int)i);
		paste_ring_retire(&c);
		CHECK(paste_ring_unread(&p) == (int)(ENTRIES - i - 1));
	}
	CHECK(paste_ring_avail(&c) == 0);
	CHECK(paste_ring_room(&p) == ENTRIES);
}

static void test_index_wraps(void)
{
	const u32 start = 0xfffffff0;
	struct paste_ring p, c;
	struct shared s;
	u64 wrote = 0, got = 0;
	unsigned int seed = 1;

	shared_init(&s, start);
	ring_at(&p, &s, start);
	ring_at(&c, &s, start);
	while (got < 10000) {
		for (int n = unit_random(&seed) % (paste_ring_room(&p) + 1); n > 0; n--) {
			*paste_ring_entry(&p, u64, 0) = wrote++;
			p.head++;
		}
		paste_ring_publish(&p);
		for (int n = unit_random(&seed) % (paste_ring_avail(&c) + 1); n > 0; n--) {
			CHECK(*paste_ring_entry(&c, u64, 0) == got++);
			c.head++;
		}
		paste_ring_retire(&c);
		CHECK(paste_ring_unread(&p) == (int)(wrote - got));
	}
}

static void test_entry_ahead(void)
{
	struct paste_ring c;
	struct shared s;

	shared_init(&s, 0xffffffff);
	ring_at(&c, &s, 0xffffffff);
	CHECK(paste_ring_entry(&c, u64, 0) == &s.desc[ENTRIES - 1]);
	CHECK(paste_ring_entry(&c, u64, 1) == &s.desc[0]);
	CHECK(paste_ring_entry(&c, u64, ENTRIES) == &s.desc[ENTRIES - 1]);
}

static void test_consumer_lies(void)
{
	struct paste_ring p;
	struct shared s;
	unsigned int seed = 7;
	u32 distance;
	int room;

	for (u32 used = 0; used <= ENTRIES; used++) {
		for (int i = 0; i < 2000; i++) {
			u32 start = unit_random(&seed);

			shared_init(&s, start);
			ring_at(&p, &s, start);
			p.head += used;
			paste_ring_publish(&p);
			s.cons = i < 200 ? start + used + i - 100 : unit_random(&seed);
			distance = p.head - s.cons;
			CHECK(paste_ring_unread(&p) == (distance > ENTRIES ? -EIO : (int)distance));

			ring_at(&p, &s, start);
			p.head += used;
			room = paste_ring_room(&p);
			/* while it knows of room it need not look */
			if (used < ENTRIES)
				CHECK(room == (int)(ENTRIES - used));
			else
				CHECK(room ==
				      (distance > ENTRIES ? -EIO : (int)(ENTRIES - distance)));
		}
	}
}

static void test_producer_lies(void)
{
	struct paste_ring c;
	struct shared s;
	unsigned int seed = 9;
	u32 distance;

	for (int i = 0; i < 100000; i++) {
		u32 start = unit_random(&seed);

		shared_init(&s, start);
		ring_at(&c, &s, start);
		s.prod = i < 400 ? start + i - 200 : unit_random(&seed);
		distance = s.prod - start;
		CHECK(paste_ring_avail(&c) == (distance > ENTRIES ? -EIO : (int)distance));
	}
}

static void test_own_index_is_private(void)
{
	struct paste_ring p, c;
	struct shared s;

	/* the peer writes over our side's index: we neither read it nor lose ours */
	shared_init(&s, 0);
	ring_at(&p, &s, 0);
	ring_at(&c, &s, 0);
	p.head += 3;
	paste_ring_publish(&p);
	s.prod = 12345;
	CHECK(paste_ring_room(&p) == ENTRIES - 3);
	p.head += 1;
	paste_ring_publish(&p);
	CHECK(s.prod == 4);
	CHECK(paste_ring_avail(&c) == 4);
	c.head += 4;
	s.cons = 999;
	paste_ring_retire(&c);
	CHECK(s.cons == 4);
}

/* ------------------------------------------------------------------------- */

#define STRESS 300000

static struct shared stress;
static unsigned int stress_faults;

static void *stress_producer(void *arg)
{
	struct paste_ring p;
	unsigned int seed = 3;
	u64 n = 0;

	(void)arg;
	ring_at(&p, &stress, 0);
	while (n < STRESS) {
		int room = paste_ring_room(&p);

		if (room < 0)
			stress_faults++;
		if (room <= 0) {
			sched_yield();
			continue;
		}
		for (room = unit_random(&seed) % room + 1; room && n < STRESS; room--) {
			*paste_ring_entry(&p, u64, 0) = n * n;
			p.head++;
			n++;
		}
		paste_ring_publish(&p);
	}
	return NULL;
}

static void test_two_threads(void)
{
	struct paste_ring c;
	unsigned int faults = 0;
	pthread_t t;
	u64 n = 0;
	int got;

	shared_init(&stress, 0);
	ring_at(&c, &stress, 0);
	if (pthread_create(&t, NULL, stress_producer, NULL))
		abort();
	while (n < STRESS) {
		got = paste_ring_avail(&c);
		faults += got < 0;
		if (!got)
			sched_yield();
		for (; got > 0; got--) {
			faults += *paste_ring_entry(&c, u64, 0) != n * n;
			c.head++;
			n++;
		}
		paste_ring_retire(&c);
	}
	pthread_join(t, NULL);
	CHECK(!faults);
	CHECK(!stress_faults);
}

static bool stress_stop;

/* Writes both indices and all entries as it likes. */
static void *stress_hostile(void *arg)
{
	unsigned int seed = 5;

	(void)arg;
	while (!__atomic_load_n(&stress_stop, __ATOMIC_RELAXED)) {
		u32 v = unit_random(&seed);

		WRITE_ONCE(stress.prod, v & 1 ? v : READ_ONCE(stress.prod) + v % 70);
		WRITE_ONCE(stress.cons, v & 2 ? v : READ_ONCE(stress.cons) + v % 70);
		WRITE_ONCE(stress.desc[v % ENTRIES], v);
	}
	return NULL;
}

static void test_hostile_thread(void)
{
	struct paste_ring p, c;
	pthread_t t;
	int n;

	shared_init(&stress, 0);
	ring_at(&p, &stress, 0);
	ring_at(&c, &stress, 0);
	stress_stop = false;
	if (pthread_create(&t, NULL, stress_hostile, NULL))
		abort();
	for (int i = 0; i < 200000; i++) {
		n = paste_ring_room(&p);
		CHECK(n == -EIO || (n >= 0 && n <= ENTRIES));
		CHECK(p.head - p.peer <= ENTRIES);
		if (n > 0) {
			WRITE_ONCE(*paste_ring_entry(&p, u64, n - 1), i);
			p.head += n;
			paste_ring_publish(&p);
		}
		n = paste_ring_unread(&p);
		CHECK(n == -EIO || (n >= 0 && n <= ENTRIES));
		n = paste_ring_avail(&c);
		CHECK(n == -EIO || (n >= 0 && n <= ENTRIES));
		if (n > 0) {
			READ_ONCE(*paste_ring_entry(&c, u64, n - 1));
			c.head += n;
			paste_ring_retire(&c);
		}
	}
	__atomic_store_n(&stress_stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	for (unsigned int i = 0; i < 8; i++) {
		CHECK(stress.before[i] == 0x5a5a5a5a5a5a5a5a);
		CHECK(stress.after[i] == 0x5a5a5a5a5a5a5a5a);
	}
}

static const struct unit_test tests[] = {
	{ "ring__fresh", test_fresh },
	{ "ring__full_and_empty", test_full_and_empty },
	{ "ring__index_wraps", test_index_wraps },
	{ "ring__entry_ahead", test_entry_ahead },
	{ "ring__consumer_lies", test_consumer_lies },
	{ "ring__producer_lies", test_producer_lies },
	{ "ring__own_index_is_private", test_own_index_is_private },
	{ "ring__two_threads", test_two_threads },
	{ "ring__hostile_thread", test_hostile_thread },
};

int main(void)
{
	return unit_run(tests, ARRAY_SIZE(tests));
}
