// SPDX-License-Identifier: MIT
/*
 * serve.c - requests in, answers out, for one connection
 *
 * A session is a small state machine of steps. A step that has to send first
 * asks the sink for room and changes nothing when there is none, so it can be
 * taken again. Paths that are not in the table below get the ordinary answer,
 * -l bytes of text:
 *
 *   POST /echo	    the body of the request
 *   POST /sum	    64-bit FNV-1a sum, in hex, and length of the body
 *   GET  /bytes/N  N bytes, byte i is i % 251
 */
#include <stdio.h>
#include <string.h>

#include "serve.h"

enum {
	STEP_PARSE,
	STEP_CONTINUE, /* 100 (Continue) */
	STEP_ECHO_HEAD,
	STEP_ECHO_SIZE, /* the line before a chunk */
	STEP_ECHO,
	STEP_ECHO_CRLF, /* the line end after a chunk */
	STEP_ECHO_END,	/* the chunk that says there are no more */
	STEP_REPLY,
	STEP_PATTERN,
	STEP_ERROR,
	STEP_OVER /* nothing more is read or sent */
};

enum {
	ROUTE_PLAIN,
	ROUTE_ECHO,
	ROUTE_SUM,
	ROUTE_BYTES,
	ROUTE_NONE /* 404 */
};

enum outcome {
	OK, /* take the next step */
	BLOCKED,
	HUNGRY /* no input left */
};

#define CHUNKED	   UINT64_MAX /* as the length of a body */

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME  0x00000100000001b3ULL

/* ------------------------------------------------------------------------- */
/* Contents */

static const char text[] = "paste: packet buffers that belong to the application. 012345678\n";

unsigned pattern_period(enum pattern which)
{
	return which == PATTERN_TEXT ? sizeof(text) - 1 : 251;
}

void pattern_fill(enum pattern which, char *buf, size_t len)
{
	unsigned period = pattern_period(which);
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = which == PATTERN_TEXT ? text[i % period] : (char)(i % period);
}

static uint64_t fnv_add(uint64_t sum, const char *data, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		sum = (sum ^ (unsigned char)data[i]) * FNV_PRIME;
	return sum;
}

/* ------------------------------------------------------------------------- */
/* Heads of answers */

static const char *status_text(int status)
{
	switch (status) {
	case 200:
		return "200 OK";
	case 404:
		return "404 Not Found";
	case 413:
		return "413 Content Too Large";
	case 417:
		return "417 Expectation Failed";
	case 431:
		return "431 Request Header Fields Too Large";
	case 501:
		return "501 Not Implemented";
	case 505:
		return "505 HTTP Version Not Supported";
	default:
		return "400 Bad Request";
	}
}

/* Inline: a constant string becomes a few moves. */
static inline char *put(char *p, const char *s)
{
	return stpcpy(p, s);
}

static char *put_number(char *p, uint64_t v)
{
	char buf[20];
	int i = sizeof(buf);

	do
		buf[--i] = '0' + v % 10;
	while (v /= 10);
	memcpy(p, buf + i, sizeof(buf) - i);
	return p + sizeof(buf) - i;
}

static char *put_length(char *p, uint64_t len)
{
	if (len == CHUNKED)
		return put(p, "Transfer-Encoding: chunked\r\n");
	p = put(p, "Content-Length: ");
	p = put_number(p, len);
	return put(p, "\r\n");
}

/* The head of an answer, at most HEAD_SIZE bytes. */
static char *put_head(char *p, const struct session *s, int status, const char *type, uint64_t len)
{
	p = put(p, "HTTP/1.1 ");
	p = put(p, status_text(status));
	p = put(p, "\r\nContent-Type: ");
	p = put(p, type);
	p = put(p, "\r\n");
	p = put_length(p, len);
	if (!s->http.keep_alive)
		p = put(p, "Connection: close\r\n");
	else if (s->http.old)
		p = put(p, "Connection: keep-alive\r\n");
	return p;
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

static void choose_route(struct session *s)
{
	const struct http_parser *h = &s->http;

	s->route = ROUTE_PLAIN;
	if (h->method == HTTP_POST) {
		if (!strcmp(h->target, "/echo"))
			s->route = ROUTE_ECHO;
		else if (!strcmp(h->target, "/sum"))
			s->route = ROUTE_SUM;
	} else if (!memcmp(h->target, "/bytes/", 7)) {
		s->route = parse_bytes(h->target + 7, &s->left) && h->target_len < HTTP_WORD_MAX ?
				   ROUTE_BYTES :
				   ROUTE_NONE;
	}
}

static enum outcome take_headers(struct session *s)
{
	s->sum = FNV_OFFSET;
	s->sum_len = 0;
	choose_route(s);
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
	if (s->route == ROUTE_ECHO)
		return go(s, h->chunked ? STEP_ECHO_SIZE : STEP_ECHO);
	return OK;
}

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
		return take_headers(s);
	case HTTP_EV_BODY:
		return take_body(sv, s);
	case HTTP_EV_DONE:
		return go(s, s->route == ROUTE_ECHO ? STEP_ECHO_END : STEP_REPLY);
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

static enum outcome step_reply(struct serve *sv, struct session *s)
{
	switch (s->route) {
	case ROUTE_BYTES:
		return reply_pattern(sv, s, PATTERN_BYTES, s->left);
	case ROUTE_SUM:
		return reply_sum(sv, s);
	case ROUTE_NONE:
		if (reply_line(sv, s, 404, "not found\n") == BLOCKED)
			return BLOCKED;
		return finish(sv, s);
	}
	if (sv->fixed_len && s->http.keep_alive && !s->http.old && s->http.method != HTTP_HEAD &&
	    !(sv->verify && s->http.method == HTTP_POST))
		return reply_fixed(sv, s);
	return reply_pattern(sv, s, PATTERN_TEXT, sv->body);
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
	case STEP_REPLY:
		return step_reply(sv, s);
	case STEP_PATTERN:
		return step_pattern(sv, s);
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
