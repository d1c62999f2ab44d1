// SPDX-License-Identifier: MIT
/*
 * hash.c - the index: a hash table of keys (KV), or the tree
 *
 * The table has as many buckets as there can be records, so it never grows. Its
 * locks are striped. A TREE has one readers-writer lock for all: simple, and right until
 * a measurement says that it is what limits.
 */
#include <errno.h>
#include <stdlib.h>

#include "store_int.h"

int index_init(struct store *s)
{
	uint64_t slots = 0, n = HASH_LOCKS; /* one bucket never has two locks */
	unsigned i;

	if (s->opts.kind != STORE_KV)
		return 0;
	for (i = 0; i < s->n_logs; i++)
		slots += s->logs[i].n_slots;
	while (n < slots)
		n *= 2;
	s->hash.mask = n - 1;
	s->hash.buckets = calloc(n, sizeof(*s->hash.buckets));
	return s->hash.buckets ? 0 : -ENOMEM;
}

void index_destroy(struct store *s)
{
	free(s->hash.buckets);
	tree_destroy(&s->tree);
}

void index_lock(struct store *s, uint64_t key, bool write)
{
	if (s->opts.kind == STORE_KV)
		pthread_mutex_lock(&s->hash_locks[key % HASH_LOCKS].lock);
	else if (write)
		pthread_rwlock_wrlock(&s->tree_lock);
	else
		pthread_rwlock_rdlock(&s->tree_lock);
}

void index_unlock(struct store *s, uint64_t key)
{
	if (s->opts.kind == STORE_KV)
		pthread_mutex_unlock(&s->hash_locks[key % HASH_LOCKS].lock);
	else
		pthread_rwlock_unlock(&s->tree_lock);
}

/* The link that points to rec. */
static struct store_rec **link_of(struct store *s, const struct store_rec *rec)
{
	struct store_rec **link = &s->hash.buckets[rec->key & s->hash.mask];

	while (*link != rec)
		link = &(*link)->next;
	return link;
}

struct store_rec *index_find(struct store *s, uint64_t key, const void *bytes, size_t klen)
{
	struct store_rec *rec, **in_tree;

	if (s->opts.kind == STORE_TREE) {
		in_tree = tree_find(&s->tree, key);
		return in_tree ? *in_tree : NULL;
	}
	for (rec = s->hash.buckets[key & s->hash.mask]; rec; rec = rec->next)
		if (rec_has_key(s, rec, key, bytes, klen))
			break;
	return rec;
}

int index_insert(struct store *s, struct store_rec *rec)
{
	struct store_rec **link;

	if (s->opts.kind == STORE_TREE)
		return tree_insert(&s->tree, rec->key, rec);
	link = &s->hash.buckets[rec->key & s->hash.mask];
	rec->next = *link;
	*link = rec;
	return 0;
}

void index_replace(struct store *s, struct store_rec *old, struct store_rec *rec)
{
	if (s->opts.kind == STORE_TREE) {
		*tree_find(&s->tree, rec->key) = rec;
	} else {
		rec->next = old->next;
		*link_of(s, old) = rec;
	}
}

void index_remove(struct store *s, struct store_rec *rec)
{
	if (s->opts.kind == STORE_TREE)
		tree_remove(&s->tree, rec->key);
	else
		*link_of(s, rec) = rec->next;
}

static void wal_each(struct store *s, void (*fn)(struct store_rec *rec, void *arg), void *arg)
{
	struct store_rec *rec;
	unsigned i;

	for (i = 0; i < s->n_logs; i++)
		for (rec = s->logs[i].oldest; rec; rec = rec->next)
			fn(rec, arg);
}

void index_each(struct store *s, void (*fn)(struct store_rec *rec, void *arg), void *arg)
{
	struct store_rec *rec;
	uint64_t i;

	if (s->opts.kind == STORE_WAL)
		wal_each(s, fn, arg);
	else if (s->opts.kind == STORE_TREE)
		tree_each(&s->tree, fn, arg);
	else if (s->hash.buckets)
		for (i = 0; i <= s->hash.mask; i++)
			for (rec = s->hash.buckets[i]; rec; rec = rec->next)
				fn(rec, arg);
}
