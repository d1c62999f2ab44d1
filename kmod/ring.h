/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Single-producer single-consumer rings in memory that user space can write to.
 * The module is one end, the application the other. No kernel object is used,
 * so that the unit tests compile this file in user space.
 *
 * The module never believes its own index in shared memory: head is private.
 * Of the peer's index it takes one copy, checks that the distance is one that
 * an honest peer can produce, and uses the copy. A peer that lies gets -EIO
 * (the queue is dead then); what it writes into entries is the reader's to
 * check.
 *
 *   producer                          consumer
 *
 *   load cons              (A)        load prod              (C)
 *   write entries                     read entries
 *   store prod             (B)        store cons             (D)
 *
 * A acquires what D released: entries are not overwritten before they were
 * read. C acquires what B released: entries are not read before they were
 * written. When the module is the producer it does A and B and the application
 * C and D, otherwise the other way round.
 */
#ifndef PASTE_RING_H
#define PASTE_RING_H

struct paste_ring {
	u32 *prod;  /* shared; ours when we produce */
	u32 *cons;  /* shared; ours when we consume */
	void *desc; /* shared; entry 0 */
	u32 mask;   /* entries - 1 */
	u32 head;   /* our own index, ahead of the shared one until published */
	u32 peer;   /* the last good copy of the peer's index */
};

static inline void paste_ring_init(struct paste_ring *r, u32 *prod, u32 *cons, void *desc,
				   u32 entries)
{
	*r = (struct paste_ring){
		.prod = prod,
		.cons = cons,
		.desc = desc,
		.mask = entries - 1,
	};
}

/* Producer: room for how many entries, or -EIO. Looks at the peer only if it must. */
static inline int paste_ring_room(struct paste_ring *r)
{
	u32 used = r->head - r->peer;

	if (used <= r->mask)
		return r->mask + 1 - used;
	used = r->head - smp_load_acquire(r->cons); /* A, pairs with D */
	if (used > r->mask + 1)
		return -EIO;
	r->peer = r->head - used;
	return r->mask + 1 - used;
}

/* Producer: entries that the peer has not consumed, or -EIO. */
static inline int paste_ring_unread(struct paste_ring *r)
{
	u32 used = r->head - smp_load_acquire(r->cons); /* A, pairs with D */

	if (used > r->mask + 1)
		return -EIO;
	r->peer = r->head - used;
	return used;
}

/* Producer: make entries up to head visible. */
static inline void paste_ring_publish(struct paste_ring *r)
{
	smp_store_release(r->prod, r->head); /* B, pairs with C */
}

/* Consumer: how many entries there are to read, or -EIO. */
static inline int paste_ring_avail(struct paste_ring *r)
{
	u32 n = smp_load_acquire(r->prod) - r->head; /* C, pairs with B */

	if (n > r->mask + 1)
		return -EIO;
	r->peer = r->head + n;
	return n;
}

/* Consumer: tell the producer that entries up to head were read. */
static inline void paste_ring_retire(struct paste_ring *r)
{
	smp_store_release(r->cons, r->head); /* D, pairs with A */
}

/* The entry at our index plus i, of the given type. */
#define paste_ring_entry(r, type, i) (&((type *)(r)->desc)[((r)->head + (i)) & (r)->mask])

#endif /* PASTE_RING_H */
