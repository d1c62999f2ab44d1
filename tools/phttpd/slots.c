// SPDX-License-Identifier: MIT
/*
 * slots.c - a log's header, slots and chunks, and the records that they make
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_int.h"

#define CHUNK_SIZE_MAX 32768
#define REC_BLOCK      255 /* records that are allocated at once */

/* Bytes of chunks per slot: a copy of a small request, or of a key. */
#define DATA_PER_SLOT	 512
#define DATA_PER_SLOT_ZC 64
#define SLOTS_PER_PAGE	 (4096 / sizeof(struct slot))

struct rec_block {
	struct rec_block *next;
	_Alignas(64) struct store_rec recs[REC_BLOCK];
};

/* ------------------------------------------------------------------------- */
/* Header */

void log_layout(struct log_header *h, uint64_t bytes, bool zero_copy)
{
	uint64_t per_slot = sizeof(struct slot) + (zero_copy ? DATA_PER_SLOT_ZC : DATA_PER_SLOT);

	bytes -= LOG_HEADER;
	h->n_slots = bytes / per_slot / SLOTS_PER_PAGE * SLOTS_PER_PAGE;
	h->chunk_size = LOG_CHUNK;
	h->n_chunks = (bytes - h->n_slots * sizeof(struct slot)) / LOG_CHUNK;
}

uint64_t log_bytes(const struct log_header *h)
{
	return LOG_HEADER + h->n_slots * sizeof(struct slot) +
	       (uint64_t)h->n_chunks * h->chunk_size;
}

static uint64_t header_sum(const struct log_header *h)
{
	return XXH64(h, offsetof(struct log_header, sum), 0);
}

void log_seal(struct log_header *h)
{
	memcpy(h->magic, LOG_MAGIC, sizeof(h->magic));
	h->version = LOG_VERSION;
	h->sum = header_sum(h);
}

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = { "unknown", "log", "B+tree", "key-value store" };

	return names[kind <= STORE_KV ? kind : 0];
}

static bool layout_is_sane(const struct log_header *h)
{
	return h->n_slots && h->n_chunks < EXT_POOL && h->chunk_size &&
	       h->chunk_size <= CHUNK_SIZE_MAX && h->chunk_size % 64 == 0 && h->id;
}

/* Is this the header of a log of such a store? Else text says why not. */
int log_check(const struct log_header *h, uint64_t bytes, const struct store_opts *o, char *text,
	      size_t text_size)
{
	const struct store_pool *p = o->pool;

	if (bytes < LOG_HEADER)
		snprintf(text, text_size, "is too short to be a log: truncated, or another file");
	else if (memcmp(h->magic, LOG_MAGIC, sizeof(h->magic)))
		snprintf(text, text_size, "is not a log of phttpd, or its header is damaged");
	else if (h->version != LOG_VERSION)
		snprintf(text, text_size, "has version %u of the format, this is version %u",
			 h->version, LOG_VERSION);
	else if (h->sum != header_sum(h) || !layout_is_sane(h))
		snprintf(text, text_size, "has a damaged header");
	else if (bytes != log_bytes(h))
		snprintf(text, text_size, "has %llu bytes instead of %llu: truncated or damaged",
			 (unsigned long long)bytes, (unsigned long long)log_bytes(h));
	else if (h->kind != o->kind)
		snprintf(text, text_size, "is of a %s, not of a %s", kind_name(h->kind),
			 kind_name(o->kind));
	else if (!p != !h->pool_chunk_size)
		snprintf(text, text_size, "was made %s zero copy", p ? "without" : "with");
	else if (p && (h->pool_chunk_size != p->chunk_size || h->pool_first_rx != p->first_rx ||
		       h->pool_n_rx != p->n_rx))
		snprintf(
			text, text_size,
			"belongs to a pool of %u rx chunks of %u bytes from %u on, not to this one",
			h->pool_n_rx, h->pool_chunk_size, h->pool_first_rx);
	else
		return 0;
	return -EINVAL;
}

/* The header was checked. */
void log_attach(struct log *l, char *base, size_t bytes, int fd)
{
	const struct log_header *h = (const void *)base;

	*l = (struct log){
		.base = base,
		.len = bytes,
		.fd = fd,
		.number = h->number,
		.logs = h->logs,
		.n_slots = h->n_slots,
		.n_chunks = h->n_chunks,
		.chunk_size = h->chunk_size,
		.free_chunk = NONE,
		.open_chunk = NONE,
	};
	l->slots = (void *)(base + LOG_HEADER);
	l->data = base + LOG_HEADER + l->n_slots * sizeof(struct slot);
}

/*
 * A slot is bound to its store and place: a copy elsewhere is not valid. Never 0.
 * (XXH3 takes a quarter of XXH64's instructions for so few bytes.)
 */
uint64_t slot_sum(const struct store *s, const struct log *l, uint32_t i, const struct slot *slot)
{
	uint64_t place = (uint64_t)l->number << 32 | i;
	uint64_t sum =
		XXH3_64bits_withSeed(&slot->seq, sizeof(*slot) - sizeof(slot->sum), s->id ^ place);

	return sum ? sum : 1;
}

/* ------------------------------------------------------------------------- */
/* Chunks */

static void log_chunk_put(struct log *l, uint32_t i)
{
	struct chunk *c = &l->chunks[i];

	if (--c->extents)
		return;
	c->next = l->free_chunk;
	l->free_chunk = i;
	l->n_free_chunks++;
}

/* Fill another chunk from now on; false: none is free. While it is filled it counts as used. */
bool log_new_chunk(struct log *l)
{
	uint32_t i;

	if (l->open_chunk != NONE)
		log_chunk_put(l, l->open_chunk);
	i = l->open_chunk = l->free_chunk;
	if (i == NONE)
		return false;
	l->free_chunk = l->chunks[i].next;
	l->n_free_chunks--;
	l->chunks[i].extents = 1;
	l->open_off = 0;
	return true;
}

static struct chunk *pool_chunk(const struct store *s, uint32_t number)
{
	return &s->pool_chunks[number - s->pool.first_rx];
}

static void pool_chunk_put(struct store_thread *t, uint32_t number)
{
	struct chunk *c = pool_chunk(t->s, number);

	if (--c->extents)
		return;
	t->kept--;
	if (!c->held)
		return;
	c->held = 0;
	if (c->due++)
		return;
	c->next = t->due_chunk;
	t->due_chunk = number;
}

/*
 * One hold of the application is enough to keep a chunk, so others end as if
 * nothing was in it.
 */
bool store_keep(struct store_thread *t, uint32_t chunk)
{
	struct chunk *c = pool_chunk(t->s, chunk);

	if (!c->extents || c->held)
		return false;
	c->held = 1;
	return true;
}

int store_take_fills(struct store_thread *t, uint32_t *chunks, int n)
{
	struct chunk *c;
	int i;

	for (i = 0; i < n && t->due_chunk != NONE; i++) {
		chunks[i] = t->due_chunk;
		c = pool_chunk(t->s, t->due_chunk);
		if (!--c->due)
			t->due_chunk = c->next;
	}
	return i;
}

/* ------------------------------------------------------------------------- */
/* Records */

struct store_rec *rec_new(struct store_thread *t)
{
	struct rec_block *b;
	struct store_rec *rec;
	int i;

	if (!t->free_recs) {
		b = aligned_alloc(64, sizeof(*b));
		if (!b)
			return NULL;
		b->next = t->blocks;
		t->blocks = b;
		for (i = REC_BLOCK - 1; i >= 0; i--) {
			b->recs[i].n_ext = 0;
			b->recs[i].next = t->free_recs;
			t->free_recs = &b->recs[i];
		}
	}
	rec = t->free_recs;
	t->free_recs = rec->next;
	memset(rec, 0, sizeof(*rec));
	rec->slot = NONE;
	return rec;
}

static void free_many(struct store_rec *rec)
{
	if (rec->n_ext > SLOT_EXTS) {
		free(rec->many.ext);
		free(rec->many.slots);
	}
	rec->n_ext = 0;
}

void rec_free(struct store_thread *t, struct store_rec *rec)
{
	free_many(rec);
	rec->next = t->free_recs;
	t->free_recs = rec;
}

void rec_free_blocks(struct store_thread *t)
{
	struct rec_block *b;
	int i;

	while ((b = t->blocks)) {
		t->blocks = b->next;
		for (i = 0; i < REC_BLOCK; i++)
			free_many(&b->recs[i]);
		free(b);
	}
}

struct store_ext *rec_exts(const struct store_rec *rec)
{
	return rec->n_ext > SLOT_EXTS ? rec->many.ext : (struct store_ext *)rec->ext;
}

/* Room for one more extent; NULL: no memory. */
struct store_ext *rec_add_ext(struct store_rec *rec)
{
	uint32_t cap = rec->n_ext > SLOT_EXTS ? rec->many.cap : SLOT_EXTS;
	struct store_ext *v;

	if (rec->n_ext < cap)
		return &(cap > SLOT_EXTS ? rec->many.ext : rec->ext)[rec->n_ext++];
	v = realloc(cap > SLOT_EXTS ? rec->many.ext : NULL, 4 * (size_t)cap * sizeof(*v));
	if (!v)
		return NULL;
	if (cap == SLOT_EXTS) {
		memcpy(v, rec->ext, sizeof(rec->ext));
		rec->many.slots = NULL;
	}
	rec->many.ext = v;
	rec->many.cap = 4 * cap;
	return &v[rec->n_ext++];
}

uint32_t rec_n_slots(const struct store_rec *rec)
{
	return rec->n_ext ? (rec->n_ext + SLOT_EXTS - 1) / SLOT_EXTS : 1;
}

uint32_t *rec_slot(struct store_rec *rec, uint32_t i)
{
	return i ? &rec->many.slots[i - 1] : &rec->slot;
}

const char *ext_addr(const struct store *s, const struct store_rec *rec, const struct store_ext *e)
{
	const struct log *l = &s->logs[rec->log];

	if (e->chunk & EXT_POOL)
		return s->pool.base + (uint64_t)(e->chunk & ~EXT_POOL) * s->pool.chunk_size +
		       e->off;
	return l->data + (uint64_t)e->chunk * l->chunk_size + e->off;
}

uint64_t rec_sum(const struct store *s, const struct store_rec *rec)
{
	const struct store_ext *e = rec_exts(rec);
	XXH64_state_t sum;
	uint32_t i;

	XXH64_reset(&sum, s->id);
	for (i = 0; i < rec->n_ext; i++)
		XXH64_update(&sum, ext_addr(s, rec, &e[i]), e[i].len);
	return XXH64_digest(&sum);
}

bool rec_verify(struct store *s, struct store_rec *rec)
{
	if (atomic_load_explicit(&rec->verified, memory_order_relaxed))
		return true;
	if (rec_sum(s, rec) != s->logs[rec->log].slots[rec->slot].data_sum)
		return false;
	atomic_store_explicit(&rec->verified, 1, memory_order_relaxed);
	return true;
}

/* Copy a record's first klen bytes. */
size_t rec_key(const struct store *s, const struct store_rec *rec, char *key)
{
	const struct store_ext *e = rec_exts(rec);
	size_t n, done;

	for (done = 0; done < rec->klen; done += n, e++) {
		n = rec->klen - done < e->len ? rec->klen - done : e->len;
		memcpy(key + done, ext_addr(s, rec, e), n);
	}
	return done;
}

/*
 * A record whose key is damaged has every key with its hash: it is to be found and
 * reported, not to be passed over as if there were no such key. So has every record
 * for who asks without a key.
 */
bool rec_has_key(const struct store *s, const struct store_rec *rec, uint64_t hash, const void *key,
		 size_t klen)
{
	char own[STORE_KEY_MAX];

	if (rec->key != hash || rec->klen != klen)
		return false;
	if (!key)
		return true;
	rec_key(s, rec, own);
	return !memcmp(own, key, klen) || XXH64(own, klen, s->id) != hash;
}

void rec_write_slots(struct store_thread *t, struct store_rec *rec, uint64_t data_sum)
{
	uint32_t part, n = rec_n_slots(rec), i;
	const struct store_ext *e = rec_exts(rec);
	uint64_t seq = atomic_fetch_add_explicit(&t->s->seq, 1, memory_order_relaxed);

	for (part = 0; part < n; part++) {
		struct slot slot = {
			.seq = seq,
			.key = rec->key,
			.data_sum = part ? 0 : data_sum,
			.batch = t->log->batch,
			.part = part,
			.klen = rec->klen,
			.flags = part == n - 1 ? SLOT_LAST : 0,
		};

		for (i = 0; i < SLOT_EXTS && part * SLOT_EXTS + i < rec->n_ext; i++)
			slot.ext[i] = e[part * SLOT_EXTS + i];
		i = *rec_slot(rec, part);
		slot.sum = slot_sum(t->s, t->log, i, &slot);
		io_copy(&t->io, &t->log->slots[i], &slot, sizeof(slot));
	}
}

void rec_clear_slots(struct store_thread *t, struct store_rec *rec)
{
	struct slot *slots = t->s->logs[rec->log].slots;
	uint32_t part, n = rec_n_slots(rec);

	for (part = 0; part < n; part++) {
		struct slot *slot = &slots[*rec_slot(rec, part)];

		io_store(&t->io, &slot->sum, 0);
		io_flush(&t->io, &slot->sum, sizeof(slot->sum));
	}
}

/* ------------------------------------------------------------------------- */
/* The end of a record */

static void hand_over(struct store_thread *t, struct store_rec *rec)
{
	rec->next = atomic_load_explicit(&t->handed, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&t->handed, &rec->next, rec,
						      memory_order_release, memory_order_relaxed))
		;
}

/* Give back the extents that are t's; the thread that has some of the others, or NULL. */
static struct store_thread *put_extents(struct store_thread *t, struct store_rec *rec)
{
	struct store *s = t->s;
	struct store_thread *other = NULL;
	struct store_ext *e = rec_exts(rec);
	uint32_t i;
	unsigned owner;

	for (i = 0; i < rec->n_ext; i++, e++) {
		if (!e->len)
			continue;
		if (e->chunk & EXT_POOL)
			owner = pool_chunk(s, e->chunk & ~EXT_POOL)->owner;
		else
			owner = rec->log % s->opts.threads;
		if (owner != t->index && owner != NO_OWNER) {
			other = &s->threads[owner];
			continue;
		}
		if (!(e->chunk & EXT_POOL))
			log_chunk_put(&s->logs[rec->log], e->chunk);
		else if (owner != NO_OWNER)
			pool_chunk_put(t, e->chunk & ~EXT_POOL);
		e->len = 0;
	}
	return other;
}

/*
 * Nobody has it, and no valid slot names it: chunks, slots and the record are
 * free. Each owner gives back what is its own, the log's owner last.
 */
void rec_retire(struct store_thread *t, struct store_rec *rec)
{
	struct store_thread *other = put_extents(t, rec);
	struct store_thread *last = &t->s->threads[rec->log % t->s->opts.threads];
	struct log *l = &t->s->logs[rec->log];
	uint32_t i, n = rec_n_slots(rec);

	if (!other && last != t)
		other = last;
	if (other) {
		hand_over(other, rec);
		return;
	}
	for (i = 0; i < n && rec->slot != NONE; i++)
		l->free_slots[l->n_free_slots++] = *rec_slot(rec, i);
	rec_free(t, rec);
}

bool retire_handed(struct store_thread *t)
{
	struct store_rec *rec, *next;

	if (!atomic_load_explicit(&t->handed, memory_order_relaxed))
		return false;
	rec = atomic_exchange_explicit(&t->handed, NULL, memory_order_acquire);
	for (; rec; rec = next) {
		next = rec->next;
		rec_retire(t, rec);
	}
	return true;
}
