// SPDX-License-Identifier: MIT
/*
 * op.c - what a request does to the store
 *
 * The bodies of POSTs go to a log or a tree, KV has PUT, GET and DELETE. What
 * the store has refused is not tried again: the rest of the body is dropped,
 * then the answer says why.
 */
#include <errno.h>
#include <string.h>

#include "op.h"

#define KV_PREFIX   "/kv/"
#define TREE_PREFIX "/tree/"
#define TREE_KEY    8 /* bytes */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The key that the target names after its prefix; 0 bytes: not one. */
static const char *get_key(const struct serve *sv, const struct session *s, char *tree, size_t *len)
{
	const struct http_parser *h = &s->http;
	const char *digits = h->target + sizeof(TREE_PREFIX) - 1;
	int i, hi, lo;

	*len = 0;
	if (sv->kind == STORE_KV) {
		if (h->target_len < HTTP_TARGET_MAX)
			*len = h->target_len - (sizeof(KV_PREFIX) - 1);
		return h->target + sizeof(KV_PREFIX) - 1;
	}
	if (strlen(digits) != 2 * TREE_KEY)
		return tree;
	for (i = 0; i < TREE_KEY; i++) {
		hi = hex_digit(digits[2 * i]);
		lo = hex_digit(digits[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return tree;
		tree[i] = (char)(hi << 4 | lo);
	}
	*len = TREE_KEY;
	return tree;
}

bool op_names_key(const struct serve *sv, const char *target)
{
	if (sv->kind == STORE_KV)
		return !memcmp(target, KV_PREFIX, sizeof(KV_PREFIX) - 1);
	return sv->kind == STORE_TREE && !memcmp(target, TREE_PREFIX, sizeof(TREE_PREFIX) - 1);
}

/* What a request deserves that the store has refused. */
static int status_of(int err)
{
	switch (err) {
	case -EINVAL:
		return 400;
	case -ENOENT:
		return 404;
	case -EFBIG:
		return 413;
	case -ENOSPC:
	case -ENOMEM:
		return 507;
	default:
		return 500;
	}
}

/* Nothing of the store's is kept any more. */
void session_exit(struct serve *sv, struct session *s)
{
	if (s->put.rec)
		store_put_abort(sv->store, &s->put);
	if (s->rec)
		store_rec_put(sv->store, s->rec);
	s->rec = NULL;
}

void op_begin(struct serve *sv, struct session *s)
{
	uint64_t size = s->http.chunked ? STORE_SIZE_UNKNOWN : s->http.length;
	const char *key = NULL;
	size_t len = 0;
	int err;

	if (sv->kind == STORE_KV)
		key = get_key(sv, s, NULL, &len);
	err = store_put_begin(sv->store, &s->put, key, len, size);
	s->status = err ? status_of(err) : 0;
}

void op_add(struct serve *sv, struct session *s)
{
	int err = store_put_add(sv->store, &s->put, s->http.body, s->http.body_len);

	if (!err)
		return;
	store_put_abort(sv->store, &s->put);
	s->status = status_of(err);
}

static int end_put(struct serve *sv, struct session *s)
{
	int ret = store_put_end(sv->store, &s->put);

	if (ret == -EAGAIN)
		return ret;
	if (ret < 0) {
		store_put_abort(sv->store, &s->put);
		return status_of(ret);
	}
	if (sv->kind != STORE_KV)
		return 200;
	return ret ? 204 : 201;
}

static int do_with_key(struct serve *sv, struct session *s)
{
	char tree[TREE_KEY];
	const char *key;
	size_t len;
	int err;

	key = get_key(sv, s, tree, &len);
	if (!len)
		err = -EINVAL;
	else if (s->http.method == HTTP_DELETE)
		err = store_delete(sv->store, key, len);
	else
		err = store_get(sv->store, key, len, &s->rec);
	if (err)
		return err == -EAGAIN ? err : status_of(err);
	return s->rec ? 200 : 204;
}

int op_end(struct serve *sv, struct session *s)
{
	return s->put.rec ? end_put(sv, s) : do_with_key(sv, s);
}
