// SPDX-License-Identifier: MIT
/*
 * serve.c - requests in, answers out, for one connection
 *
 * A session is a small state machine of steps. A step that has to send first
 * asks the sink for room and changes nothing when there is none, so it can be
 * taken again. Paths that are not in the table below get the ordinary answer,
 * -l bytes of text:
 *
 *   POST /echo	     the body of the request
 *   POST /sum	     64-bit FNV-1a sum, in hex, and length of the body
 *   GET  /bytes/N   N bytes, byte i is i % 251
 *
 * With a store there are more, or the bodies of all other POSTs go there:
 *
 *   PUT, GET, DELETE /kv/KEY
 *   POST (any), GET /tree/HEX16
 *   POST (any)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "head.h"
#include "op.h"

enum {
	STEP_PARSE,
	STEP_CONTINUE, /* 100 (Continue) */
	STEP_ECHO_HEAD,
	STEP_ECHO_SIZE, /* the line before a chunk */
	STEP_ECHO,
	STEP_ECHO_CRLF, /* the line end after a chunk */
	STEP_ECHO_END,	/* the chunk that says there are no more */
	STEP_STORE,	/* put, get or delete */
	STEP_REPLY,
	STEP_PATTERN,
	STEP_RECORD,
	STEP_ERROR,
	STEP_OVER /* nothing more is read or sent */
};

enum {
	ROUTE_PLAIN,
	ROUTE_ECHO,
	ROUTE_SUM,
	ROUTE_BYTES,
	ROUTE_SAVE, /* POST to the store, else as ROUTE_PLAIN */
	ROUTE_KEY,  /* something with a key of the store */
	ROUTE_NONE  /* 404 */
};

enum outcome {
	OK, /* take the next step */
	BLOCKED,
	HUNGRY /* no input left */
};

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME  0x00000100000001b3ULL

static uint64_t fnv_add(uint64_t sum, const char *data, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		sum = (sum ^ (unsigned char)data[i]) * FNV_PRIME;
	return sum;
}

/* ------------------------------------------------------------------------- */
/* Steps */

static enum outcome go(struct session *s, int step)
{
	s->step = step;
	return OK;
}

/* A number from 0 to 10^18 - 1 that fills the string. */
static bool parse_bytes(const char *s, uint64_t *n)
{
	unsigned i;

	*n = 0;
	for (i = 0; s[i] >= '0' && s[i] <= '9' && i < 18; i++)
		*n = *n * 10 + (s[i] - '0');
	return i && !s[i];
}

static int choose_route(const struct serve *sv, struct session *s)
{
	const struct http_parser *h = &s->http;
	bool key = sv->store && op_names_key(sv, h->target);

	switch (h->method) {
	case HTTP_PUT:
	case HTTP_DELETE:
		return key && sv->kind == STORE_KV ? ROUTE_KEY : ROUTE_NONE;
	case HTTP_POST:
		if (!strcmp(h->target, "/echo"))
			return ROUTE_ECHO;
		if (!strcmp(h->target, "/sum"))
			return ROUTE_SUM;
		if (key)
			return ROUTE_NONE;
		return sv->store && sv->kind != STORE_KV ? ROUTE_SAVE : ROUTE_PLAIN;
	default:
		if (key)
			return ROUTE_KEY;
		if (memcmp(h->target, "/bytes/", 7))
			return ROUTE_PLAIN;
		return parse_bytes(h->target + 7, &s->left) ? ROUTE_BYTES : ROUTE_NONE;
	}
}

static enum outcome take_headers(struct serve *sv, struct session *s)
{
	s->sum = FNV_OFFSET;
	s->sum_len = 0;
	s->status = 0;
	s->route = choose_route(sv, s);
	if (s->route == ROUTE_SAVE || s->http.method == HTTP_PUT)
		op_begin(sv, s);
	if (s->http.expect && (s->http.chunked || s->http.length))
		return go(s, STEP_CONTINUE);
	return go(s, s->route == ROUTE_ECHO ? STEP_ECHO_HEAD : STEP_PARSE);
}

static enum outcome take_body(struct serve *sv, struct session *s)
{
	const struct http_parser *h = &s->http;

	s->sum_len += h->body_len;
	if (s->route == ROUTE_SUM || sv->verify)
		s->sum = fnv_add(s->sum, h->body, h->body_len);
	if (s->put.rec)
		op_add(sv, s);
	if (s->route == ROUTE_ECHO)
		return go(s, h->chunked ? STEP_ECHO_SIZE : STEP_ECHO);
	return OK;
}

/* What follows the end of a request. */
static const uint8_t end_steps[] = {
	[ROUTE_PLAIN] = STEP_REPLY, [ROUTE_ECHO] = STEP_ECHO_END, [ROUTE_SUM] = STEP_REPLY,
	[ROUTE_BYTES] = STEP_REPLY, [ROUTE_SAVE] = STEP_STORE,	  [ROUTE_KEY] = STEP_STORE,
	[ROUTE_NONE] = STEP_REPLY,
};

static enum outcome step_parse(struct serve *sv, struct session *s, const char **data, size_t *len)
{
	enum http_event event;
	size_t used;

	event = http_parse(&s->http, *data, *len, &used);
	*data += used;
	*len -= used;
	sv->bytes += used;
	switch (event) {
	case HTTP_EV_HEADERS:
		return take_headers(sv, s);
	case HTTP_EV_BODY:
		return take_body(sv, s);
	case HTTP_EV_DONE:
		return go(s, end_steps[s->route]);
	case HTTP_EV_BAD:
		return go(s, STEP_ERROR);
	default:
		return HUNGRY;
	}
}

static enum outcome send_text(struct serve *sv, struct session *s, const char *buf, size_t len,
			      int next)
{
	char *p = sv->sink->reserve(s, len);

	if (!p)
		return BLOCKED;
	memcpy(p, buf, len);
	sv->sink->commit(s, len);
	return go(s, next);
}

static enum outcome step_continue(struct serve *sv, struct session *s)
{
	static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";

	return send_text(sv, s, line, sizeof(line) - 1,
			 s->route == ROUTE_ECHO ? STEP_ECHO_HEAD : STEP_PARSE);
}

static enum outcome step_echo_head(struct serve *sv, struct session *s)
{
	char *p = sv->sink->reserve(s, HEAD_SIZE), *e;

	if (!p)
		return BLOCKED;
	e = put_head(p, s, 200, "application/octet-stream",
		     s->http.chunked ? CHUNKED : s->http.length);
	e = put(e, "\r\n");
	sv->sink->commit(s, e - p);
	s->replied = true;
	return go(s, STEP_PARSE);
}

static enum outcome step_echo_size(struct serve *sv, struct session *s)
{
	char line[24];
	int n = snprintf(line, sizeof(line), "%zx\r\n", s->http.body_len);

	return send_text(sv, s, line, n, STEP_ECHO);
}

static enum outcome step_echo(struct serve *sv, struct session *s)
{
	if (!sv->sink->echo(s, s->http.body, s->http.body_len))
		return BLOCKED;
	return go(s, s->http.chunked ? STEP_ECHO_CRLF : STEP_PARSE);
}

static enum outcome finish(struct serve *sv, struct session *s)
{
	sv->requests++;
	s->replied = false;
	if (!s->http.keep_alive)
		return go(s, STEP_OVER);
	http_next(&s->http);
	return go(s, STEP_PARSE);
}

static enum outcome step_echo_end(struct serve *sv, struct session *s)
{
	static const char line[] = "0\r\n\r\n";

	if (s->http.chunked && send_text(sv, s, line, sizeof(line) - 1, STEP_PARSE) == BLOCKED)
		return BLOCKED;
	return finish(sv, s);
}

static enum outcome reply_fixed(struct serve *sv, struct session *s)
{
	char *p = sv->sink->reserve(s, sv->fixed_len);

	if (!p)
		return BLOCKED;
	memcpy(p, sv->fixed, sv->fixed_len);
	sv->sink->commit(s, sv->fixed_len);
	return finish(sv, s);
}

/* An answer whose body is a pattern; small ones in one piece. */
static enum outcome reply_pattern(struct serve *sv, struct session *s, enum pattern which,
				  uint64_t len)
{
	bool here = which == PATTERN_TEXT && len <= INLINE_BODY;
	char *p = sv->sink->reserve(s, HEAD_SIZE + (here ? len : 0)), *e;

	if (!p)
		return BLOCKED;
	e = put_head(p, s, 200, which == PATTERN_TEXT ? "text/plain" : "application/octet-stream",
		     len);
	if (sv->verify && s->http.method == HTTP_POST)
		e += sprintf(e, "X-Paste-Sum: %016llx\r\n", (unsigned long long)s->sum);
	e = put(e, "\r\n");
	if (s->http.method == HTTP_HEAD)
		len = 0;
	if (here) {
		memcpy(e, sv->small, len);
		e += len;
		len = 0;
	}
	sv->sink->commit(s, e - p);
	s->replied = true;
	s->which = which;
	s->off = 0;
	s->left = len;
	return len ? go(s, STEP_PATTERN) : finish(sv, s);
}

static enum outcome reply_line(struct serve *sv, struct session *s, int status, const char *line)
{
	char *p = sv->sink->reserve(s, HEAD_SIZE + strlen(line)), *e;

	if (!p)
		return BLOCKED;
	e = put_head(p, s, status, "text/plain", strlen(line));
	e = put(e, "\r\n");
	if (s->http.method != HTTP_HEAD)
		e = put(e, line);
	sv->sink->commit(s, e - p);
	return OK;
}

static enum outcome reply_sum(struct serve *sv, struct session *s)
{
	char line[48];

	snprintf(line, sizeof(line), "%016llx %llu\n", (unsigned long long)s->sum,
		 (unsigned long long)s->sum_len);
	if (reply_line(sv, s, 200, line) == BLOCKED)
		return BLOCKED;
	return finish(sv, s);
}

static enum outcome reply_status(struct serve *sv, struct session *s, int status)
{
	char line[64];

	snprintf(line, sizeof(line), "%s\n", status_text(status));
	if (reply_line(sv, s, status, line) == BLOCKED)
		return BLOCKED;
	return finish(sv, s);
}

/* 201 or 204. */
static enum outcome reply_empty(struct serve *sv, struct session *s)
{
	char *p = sv->sink->reserve(s, HEAD_SIZE), *e;

	if (!p)
		return BLOCKED;
	e = put_status(p, s->status);
	if (s->status == 201)
		e = put_length(e, 0);
	e = put(put_connection(e, s), "\r\n");
	sv->sink->commit(s, e - p);
	return finish(sv, s);
}

static enum outcome reply_record(struct serve *sv, struct session *s)
{
	char *p = sv->sink->reserve(s, HEAD_SIZE), *e;

	if (!p)
		return BLOCKED;
	e = put_head(p, s, 200, "application/octet-stream", store_rec_len(s->rec));
	e = put(e, "\r\n");
	sv->sink->commit(s, e - p);
	s->replied = true;
	if (s->http.method != HTTP_HEAD && store_rec_first(sv->store, s->rec, &s->piece))
		return go(s, STEP_RECORD);
	session_exit(sv, s);
	return finish(sv, s);
}

/* Only once, even if the answer then has to wait for room. */
static enum outcome step_store(struct serve *sv, struct session *s)
{
	int status = s->status ? s->status : op_end(sv, s);

	if (status == -EAGAIN) {
		sv->waiting = true;
		return BLOCKED;
	}
	s->status = status;
	if (status == 200 && !s->rec)
		s->route = ROUTE_PLAIN;
	return go(s, STEP_REPLY);
}

static enum outcome reply_store(struct serve *sv, struct session *s)
{
	if (s->rec)
		return reply_record(sv, s);
	return s->status < 300 ? reply_empty(sv, s) : reply_status(sv, s, s->status);
}

static enum outcome step_reply(struct serve *sv, struct session *s)
{
	switch (s->route) {
	case ROUTE_BYTES:
		return reply_pattern(sv, s, PATTERN_BYTES, s->left);
	case ROUTE_SUM:
		return reply_sum(sv, s);
	case ROUTE_SAVE:
	case ROUTE_KEY:
		return reply_store(sv, s);
	case ROUTE_NONE:
		return reply_status(sv, s, 404);
	}
	if (sv->fixed_len && s->http.keep_alive && !s->http.old && s->http.method != HTTP_HEAD &&
	    !(sv->verify && s->http.method == HTTP_POST))
		return reply_fixed(sv, s);
	return reply_pattern(sv, s, PATTERN_TEXT, sv->body);
}

/* A part of the piece at hand: how many bytes, 0 if there is no room. */
static size_t send_piece(struct serve *sv, struct session *s)
{
	const struct store_pieces *piece = &s->piece;
	size_t n = piece->len < RESERVE_MAX ? piece->len : RESERVE_MAX;
	char *p;

	if (piece->in_pool && sv->sink->record)
		return sv->sink->record(s, s->rec, piece->addr, piece->len) ? piece->len : 0;
	p = sv->sink->reserve(s, n);
	if (!p)
		return 0;
	memcpy(p, piece->addr, n);
	sv->sink->commit(s, n);
	return n;
}

static enum outcome step_record(struct serve *sv, struct session *s)
{
	size_t n;

	do {
		for (; s->piece.len; s->piece.len -= n) {
			n = send_piece(sv, s);
			if (!n)
				return BLOCKED;
			s->piece.addr = (const char *)s->piece.addr + n;
		}
	} while (store_rec_next(sv->store, &s->piece));
	session_exit(sv, s);
	return finish(sv, s);
}

static enum outcome step_pattern(struct serve *sv, struct session *s)
{
	size_t n;

	while (s->left) {
		n = sv->sink->pattern(s, s->which, s->off, s->left);
		if (!n)
			return BLOCKED;
		s->off += n;
		s->left -= n;
	}
	return finish(sv, s);
}

/* What comes after a malformed request cannot be understood: close. */
static enum outcome step_error(struct serve *sv, struct session *s)
{
	char line[64];

	session_exit(sv, s);
	s->http.keep_alive = false;
	s->http.method = HTTP_GET;
	if (!s->replied) {
		snprintf(line, sizeof(line), "%s\n", status_text(s->http.status));
		if (reply_line(sv, s, s->http.status, line) == BLOCKED)
			return BLOCKED;
	}
	s->failed = true;
	return go(s, STEP_OVER);
}

static enum outcome take_step(struct serve *sv, struct session *s, const char **data, size_t *len)
{
	switch (s->step) {
	case STEP_PARSE:
		return step_parse(sv, s, data, len);
	case STEP_CONTINUE:
		return step_continue(sv, s);
	case STEP_ECHO_HEAD:
		return step_echo_head(sv, s);
	case STEP_ECHO_SIZE:
		return step_echo_size(sv, s);
	case STEP_ECHO:
		return step_echo(sv, s);
	case STEP_ECHO_CRLF:
		return send_text(sv, s, "\r\n", 2, STEP_PARSE);
	case STEP_ECHO_END:
		return step_echo_end(sv, s);
	case STEP_STORE:
		return step_store(sv, s);
	case STEP_REPLY:
		return step_reply(sv, s);
	case STEP_PATTERN:
		return step_pattern(sv, s);
	case STEP_RECORD:
		return step_record(sv, s);
	default:
		return step_error(sv, s);
	}
}

enum run session_run(struct serve *sv, struct session *s, const char *data, size_t len,
		     size_t *used)
{
	enum outcome out = OK;
	size_t all = len;

	while (out == OK && s->step != STEP_OVER)
		out = take_step(sv, s, &data, &len);
	*used = all - len;
	if (s->step == STEP_OVER)
		return s->failed ? RUN_LINGER : RUN_CLOSE;
	return out == BLOCKED ? RUN_BLOCKED : RUN_MORE;
}

void session_init(struct session *s)
{
	memset(s, 0, sizeof(*s));
	http_init(&s->http);
}

int serve_commit(struct serve *sv, bool rest)
{
	int again = store_commit(sv->store);

	if (!again && rest)
		again = store_idle(sv->store);
	return again;
}

void serve_init(struct serve *sv, const struct sink *sink, uint64_t body, bool fixed, bool verify)
{
	struct session s;
	char *p = sv->fixed;

	memset(sv, 0, sizeof(*sv));
	sv->sink = sink;
	sv->body = body;
	sv->verify = verify;
	pattern_fill(PATTERN_TEXT, sv->small, sizeof(sv->small));
	if (!fixed || body > INLINE_BODY)
		return;
	session_init(&s);
	s.http.keep_alive = true;
	p = put(put_head(p, &s, 200, "text/plain", body), "\r\n");
	memcpy(p, sv->small, body);
	sv->fixed_len = p + body - sv->fixed;
}
