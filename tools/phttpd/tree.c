// SPDX-License-Identifier: MIT
/*
 * tree.c - a B+tree in DRAM: u64 -> record
 *
 * Nodes are four cache lines. Both insert and remove walk down once and make
 * sure before each step that the child can take what may come: a full one is
 * split, a minimal one gets a key from a sibling or is merged with it. So nothing
 * has to go up again, and a failed allocation leaves the tree as it was.
 *
 * Locking is the caller's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store_int.h"

#define KEYS	   15
#define KEYS_MIN   7
#define NODE_BLOCK 64 /* nodes that are allocated at once */

/* Child i of an inner node has the keys from key[i - 1] to below key[i]. */
struct node {
	uint32_t n; /* keys */
	uint32_t leaf;
	uint64_t key[KEYS];
	union {
		struct node *child[KEYS + 1];
		struct {
			struct store_rec *rec[KEYS];
			struct node *next; /* leaf; or, of a node that is not used, another one */
		};
	};
};

struct node_block {
	struct node_block *next;
	_Alignas(64) struct node nodes[NODE_BLOCK];
};

static struct node *node_new(struct tree *t, bool leaf)
{
	struct node_block *b;
	struct node *n;
	int i;

	if (!t->free) {
		b = aligned_alloc(64, sizeof(*b));
		if (!b)
			return NULL;
		b->next = t->blocks;
		t->blocks = b;
		for (i = 0; i < NODE_BLOCK; i++) {
			b->nodes[i].next = t->free;
			t->free = &b->nodes[i];
		}
	}
	n = t->free;
	t->free = n->next;
	n->n = 0;
	n->leaf = leaf;
	n->next = NULL;
	return n;
}

static void node_free(struct tree *t, struct node *n)
{
	n->next = t->free;
	t->free = n;
}

void tree_destroy(struct tree *t)
{
	struct node_block *b;

	while ((b = t->blocks)) {
		t->blocks = b->next;
		free(b);
	}
	memset(t, 0, sizeof(*t));
}

/* The number of keys that are at most key: the index of its child. */
static unsigned child_of(const struct node *n, uint64_t key)
{
	unsigned i = 0;

	while (i < n->n && n->key[i] <= key)
		i++;
	return i;
}

/* The first key that is not smaller. */
static unsigned place_of(const struct node *n, uint64_t key)
{
	unsigned i = 0;

	while (i < n->n && n->key[i] < key)
		i++;
	return i;
}

struct store_rec **tree_find(const struct tree *t, uint64_t key)
{
	struct node *n = t->root;
	unsigned i;

	if (!n)
		return NULL;
	while (!n->leaf)
		n = n->child[child_of(n, key)];
	i = place_of(n, key);
	return i < n->n && n->key[i] == key ? &n->rec[i] : NULL;
}

/* Move the keys from i on, and what is right of them, by one place. */
static void open_gap(struct node *n, unsigned i)
{
	memmove(&n->key[i + 1], &n->key[i], (n->n - i) * sizeof(n->key[0]));
	if (n->leaf)
		memmove(&n->rec[i + 1], &n->rec[i], (n->n - i) * sizeof(n->rec[0]));
	else
		memmove(&n->child[i + 2], &n->child[i + 1], (n->n - i) * sizeof(n->child[0]));
	n->n++;
}

static void close_gap(struct node *n, unsigned i)
{
	n->n--;
	memmove(&n->key[i], &n->key[i + 1], (n->n - i) * sizeof(n->key[0]));
	if (n->leaf)
		memmove(&n->rec[i], &n->rec[i + 1], (n->n - i) * sizeof(n->rec[0]));
	else
		memmove(&n->child[i + 1], &n->child[i + 2], (n->n - i) * sizeof(n->child[0]));
}

/* Child i is full: its upper half becomes child i + 1. */
static int split_child(struct tree *t, struct node *parent, unsigned i)
{
	struct node *left = parent->child[i], *right = node_new(t, left->leaf);
	/* A leaf keeps the key that goes up, as the first of the right one. */
	unsigned from = left->leaf ? KEYS_MIN : KEYS_MIN + 1;

	if (!right)
		return -ENOMEM;
	open_gap(parent, i);
	parent->key[i] = left->key[KEYS_MIN];
	parent->child[i + 1] = right;
	right->n = KEYS - from;
	memcpy(right->key, &left->key[from], right->n * sizeof(right->key[0]));
	if (left->leaf) {
		memcpy(right->rec, &left->rec[from], right->n * sizeof(right->rec[0]));
		right->next = left->next;
		left->next = right;
	} else {
		memcpy(right->child, &left->child[from], (right->n + 1) * sizeof(right->child[0]));
	}
	left->n = KEYS_MIN;
	return 0;
}

static int grow_root(struct tree *t)
{
	struct node *root = node_new(t, !t->root);

	if (!root)
		return -ENOMEM;
	if (t->root) {
		root->child[0] = t->root;
		if (split_child(t, root, 0)) {
			node_free(t, root);
			return -ENOMEM;
		}
	}
	t->root = root;
	return 0;
}

int tree_insert(struct tree *t, uint64_t key, struct store_rec *rec)
{
	struct node *n;
	unsigned i;

	if ((!t->root || t->root->n == KEYS) && grow_root(t))
		return -ENOMEM;
	for (n = t->root; !n->leaf; n = n->child[i]) {
		i = child_of(n, key);
		if (n->child[i]->n < KEYS)
			continue;
		if (split_child(t, n, i))
			return -ENOMEM;
		i = child_of(n, key);
	}
	i = place_of(n, key);
	open_gap(n, i);
	n->key[i] = key;
	n->rec[i] = rec;
	return 0;
}

/* The last of child i - 1 becomes the first of child i. */
static void borrow_left(struct node *parent, unsigned i)
{
	struct node *left = parent->child[i - 1], *n = parent->child[i];

	if (n->leaf) {
		open_gap(n, 0);
		n->key[0] = left->key[left->n - 1];
		n->rec[0] = left->rec[left->n - 1];
		parent->key[i - 1] = n->key[0];
	} else {
		open_gap(n, 0);
		n->child[1] = n->child[0];
		n->key[0] = parent->key[i - 1];
		n->child[0] = left->child[left->n];
		parent->key[i - 1] = left->key[left->n - 1];
	}
	left->n--;
}

/* The first of child i + 1 becomes the last of child i. */
static void borrow_right(struct node *parent, unsigned i)
{
	struct node *n = parent->child[i], *right = parent->child[i + 1];

	if (n->leaf) {
		n->key[n->n] = right->key[0];
		n->rec[n->n++] = right->rec[0];
		close_gap(right, 0);
		parent->key[i] = right->key[0];
	} else {
		n->key[n->n++] = parent->key[i];
		n->child[n->n] = right->child[0];
		parent->key[i] = right->key[0];
		right->child[0] = right->child[1];
		close_gap(right, 0);
	}
}

/* Children i and i + 1, both minimal, become one. */
static void merge(struct tree *t, struct node *parent, unsigned i)
{
	struct node *n = parent->child[i], *right = parent->child[i + 1];

	if (n->leaf) {
		memcpy(&n->rec[n->n], right->rec, right->n * sizeof(n->rec[0]));
		n->next = right->next;
	} else {
		n->key[n->n++] = parent->key[i];
		memcpy(&n->child[n->n], right->child, (right->n + 1) * sizeof(n->child[0]));
	}
	memcpy(&n->key[n->n], right->key, right->n * sizeof(n->key[0]));
	n->n += right->n;
	close_gap(parent, i);
	node_free(t, right);
}

/* Child i is minimal and is to lose a key. */
static void feed_child(struct tree *t, struct node *parent, unsigned i)
{
	if (i > 0 && parent->child[i - 1]->n > KEYS_MIN)
		borrow_left(parent, i);
	else if (i < parent->n && parent->child[i + 1]->n > KEYS_MIN)
		borrow_right(parent, i);
	else
		merge(t, parent, i > 0 ? i - 1 : i);
}

void tree_remove(struct tree *t, uint64_t key)
{
	struct node *n = t->root, *root;
	unsigned i;

	if (!n)
		return;
	while (!n->leaf) {
		i = child_of(n, key);
		if (n->child[i]->n <= KEYS_MIN) {
			feed_child(t, n, i);
			i = child_of(n, key);
		}
		root = n;
		n = n->child[i];
		if (!root->n) { /* only the root is ever so empty */
			t->root = n;
			node_free(t, root);
		}
	}
	i = place_of(n, key);
	if (i < n->n && n->key[i] == key)
		close_gap(n, i);
}

void tree_each(const struct tree *t, void (*fn)(struct store_rec *rec, void *arg), void *arg)
{
	struct node *n = t->root;
	unsigned i;

	while (n && !n->leaf)
		n = n->child[0];
	for (; n; n = n->next)
		for (i = 0; i < n->n; i++)
			fn(n->rec[i], arg);
}
