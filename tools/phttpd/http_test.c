// SPDX-License-Identifier: MIT
/*
 * http_test.c - unit test of the parser
 *
 * Each case is a stream of bytes and what must come of it, written as a string:
 * the events with their contents. It is parsed whole, cut at every place into
 * two, and byte by byte; the result must be the same. Each range is given in a
 * buffer of exactly its size, so that the sanitizer sees a read past it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

#define HOST  "Host: h\r\n"
#define KEY51 "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO"
#define KEY   KEY51 KEY51 KEY51 KEY51 KEY51 /* 255 bytes */

static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "DELETE" };

struct test {
	const char *name, *in, *out;
};

static const struct test tests[] = {
	{ "get", "GET / HTTP/1.1\r\n" HOST "\r\n", "GET / k\n." },
	{ "bare_lf", "GET / HTTP/1.1\nHost:h\n\n", "GET / k\n." },
	{ "old", "GET /a HTTP/1.0\r\n\r\n", "GET /a\n." },
	{ "old_keep", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / k\n." },
	{ "close", "GET / HTTP/1.1\r\n" HOST "connection: foo, CLOSE \r\n\r\n", "GET /\n." },
	{ "empty_lines", "\r\n\r\nHEAD / HTTP/1.1\r\n" HOST "\r\n", "HEAD / k\n." },
	{ "pipeline", "GET /1 HTTP/1.1\r\n" HOST "\r\nGET /2 HTTP/1.1\r\n" HOST "\r\n",
	  "GET /1 k\n.GET /2 k\n." },
	{ "post",
	  "POST / HTTP/1.1\r\n" HOST "Content-Length:  3 \r\n\r\nabcGET / HTTP/1.1\r\n" HOST "\r\n",
	  "POST / k 3\nabc.GET / k\n." },
	{ "post_empty", "POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "POST / k\n." },
	{ "chunked",
	  "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n"
	  "3\r\nabc\r\n00a;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
	  "POST / k c\nabc0123456789.GET / k\n." },
	{ "put", "PUT /kv/a HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc",
	  "PUT /kv/a k 3\nabc." },
	{ "put_empty", "PUT /kv/a HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
	  "PUT /kv/a k\n." },
	{ "put_chunked",
	  "PUT /kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	  "PUT /kv/a k c\nabc." },
	{ "put_expect",
	  "PUT /kv/a HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
	  "PUT /kv/a k 1 e\nx." },
	{ "delete", "DELETE /kv/a HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
	  "DELETE /kv/a k\n.GET / k\n." },
	{ "delete_with_body", "DELETE /kv/a HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nx",
	  "DELETE /kv/a k 1\nx." },
	{ "long_target", "GET /kv/" KEY " HTTP/1.1\r\n" HOST "\r\n", "GET /kv/" KEY " k\n." },
	{ "target_too_long", "GET /kv/" KEY "x HTTP/1.1\r\n" HOST "\r\n", "GET /kv/" KEY " k\n." },
	{ "methods_are_case_sensitive", "put / HTTP/1.1\r\n", "!501" },
	{ "expect", "POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
	  "POST / k 1 e\nx." },
	{ "expect_other", "POST / HTTP/1.1\r\n" HOST "Expect: 1\r\n", "!417" },
	{ "no_host", "GET / HTTP/1.1\r\n\r\n", "!400" },
	{ "two_hosts", "GET / HTTP/1.1\r\n" HOST HOST "\r\n", "!400" },
	{ "method", "BREW / HTTP/1.1\r\n", "!501" },
	{ "no_method", " / HTTP/1.1\r\n", "!400" },
	{ "no_target", "GET  HTTP/1.1\r\n", "!400" },
	{ "simple", "GET /\r\n", "!400" },
	{ "version", "GET / HTTP/2.0\r\n", "!505" },
	{ "version_garbage", "GET / HTPP/1.1\r\n", "!400" },
	{ "binary", "\x16\x03\x01", "!400" },
	{ "folded", "GET / HTTP/1.1\r\n" HOST " more\r\n", "!400" },
	{ "blank_before_colon", "GET / HTTP/1.1\r\nHost : h\r\n", "!400" },
	{ "no_colon", "GET / HTTP/1.1\r\nHost\r\n", "!400" },
	{ "bare_cr", "GET / HTTP/1.1\r\nHost: a\rb\r\n", "!400" },
	{ "control", "GET / HTTP/1.1\r\nHost: a\001\r\n", "!400" },
	{ "length_twice", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "!400" },
	{ "length_list", "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n", "!400" },
	{ "length_sign", "POST / HTTP/1.1\r\nContent-Length: +1\r\n", "!400" },
	{ "length_huge", "POST / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n", "!400" },
	{ "length_empty", "POST / HTTP/1.1\r\nContent-Length:\r\n", "!400" },
	{ "length_and_chunked",
	  "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\n"
	  "Transfer-Encoding: chunked\r\n\r\n",
	  "!400" },
	{ "encoding", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n", "!501" },
	{ "old_chunked", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "!400" },
	{ "chunk_size", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nx",
	  "POST / k c\n!400" },
	{ "chunk_huge",
	  "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
	  "10000000000000000\r\n",
	  "POST / k c\n!413" },
	{ "chunk_end", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab",
	  "POST / k c\na!400" },
	{ "chunk_lf", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\na",
	  "POST / k c\n!400" },
};

struct result {
	struct http_parser p;
	char buf[512];
	size_t len;
};

static void add(struct result *r, const char *s, size_t n)
{
	if (r->len + n >= sizeof(r->buf))
		abort();
	memcpy(r->buf + r->len, s, n);
	r->len += n;
	r->buf[r->len] = 0;
}

static void add_headers(struct result *r)
{
	char line[300];
	int n;

	n = snprintf(line, sizeof(line), "%s %s%s", methods[r->p.method], r->p.target,
		     r->p.keep_alive ? " k" : "");
	if (r->p.length)
		n += sprintf(line + n, " %llu", (unsigned long long)r->p.length);
	n += sprintf(line + n, "%s%s\n", r->p.chunked ? " c" : "", r->p.expect ? " e" : "");
	add(r, line, n);
}

/* False when nothing more is to be fed. */
static bool add_event(struct result *r, enum http_event event)
{
	char bad[8];

	switch (event) {
	case HTTP_EV_HEADERS:
		add_headers(r);
		return true;
	case HTTP_EV_BODY:
		add(r, r->p.body, r->p.body_len);
		return true;
	case HTTP_EV_DONE:
		add(r, ".", 1);
		http_next(&r->p);
		return true;
	case HTTP_EV_BAD:
		snprintf(bad, sizeof(bad), "!%d", r->p.status);
		add(r, bad, strlen(bad));
		return false;
	default:
		return false;
	}
}

static void feed(struct result *r, const char *data, size_t len)
{
	char *copy = malloc(len + !len), *s = copy;
	enum http_event event;
	size_t used;

	memcpy(copy, data, len);
	if (r->p.status)
		len = 0;
	do {
		event = http_parse(&r->p, s, len, &used);
		s += used;
		len -= used;
	} while (!(event == HTTP_EV_BAD && r->len && strchr(r->buf, '!')) && add_event(r, event));
	free(copy);
}

static int check(const struct test *t, size_t first, size_t step)
{
	struct result r = { .len = 0 };
	size_t len = strlen(t->in), at = 0, n = first;

	http_init(&r.p);
	while (at < len) {
		if (n > len - at)
			n = len - at;
		feed(&r, t->in + at, n);
		at += n;
		n = step;
	}
	if (!strcmp(r.buf, t->out))
		return 0;
	printf("not ok %s, cut at %zu: %s\n", t->name, first, r.buf);
	return 1;
}

/* A head of exactly the limit passes, one byte more does not. */
static int check_limit(size_t size, int status)
{
	static const char start[] = "GET / HTTP/1.1\r\n" HOST "X: ";
	static char head[HTTP_HEAD_MAX + 64];
	struct http_parser p;
	enum http_event event;
	size_t used;

	memset(head, 'x', sizeof(head));
	memcpy(head, start, sizeof(start) - 1);
	memcpy(head + size - 4, "\r\n\r\n", 4);
	http_init(&p);
	event = http_parse(&p, head, size, &used);
	if (status ? event == HTTP_EV_BAD && p.status == status : event == HTTP_EV_HEADERS)
		return 0;
	printf("not ok limit, %zu bytes: event %d\n", size, event);
	return 1;
}

int main(void)
{
	size_t i, cut;
	int failed = 0;

	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		for (cut = 1; cut <= strlen(tests[i].in); cut++)
			failed += check(&tests[i], cut, 4096);
		failed += check(&tests[i], 1, 1);
	}
	failed += check_limit(HTTP_HEAD_MAX, 0);
	failed += check_limit(HTTP_HEAD_MAX + 1, 431);
	printf("http_test: %zu cases, %d failed\n", i + 2, failed);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
