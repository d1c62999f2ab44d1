// SPDX-License-Identifier: MIT
/*
 * http.c - an incremental parser of HTTP/1.x requests
 *
 * One function per state; each takes bytes from s up to end and returns where
 * it stopped. It sets the next state, or an event, which ends http_parse().
 * Strict where leniency lets two parties see two different requests: repeated
 * or mixed lengths, folded lines, blanks before a colon and bare CRs are
 * errors. Lines of a head may end in a bare LF, those of a chunked body not.
 */
#include <string.h>

#include "http.h"

enum {
	ST_START, /* empty lines before a request */
	ST_METHOD,
	ST_TARGET,
	ST_VERSION,
	ST_VERSION_LF,
	ST_LINE, /* at the start of a header line */
	ST_NAME,
	ST_BLANK, /* before a value */
	ST_VALUE,
	ST_VALUE_LF,
	ST_HEAD_LF, /* the last LF of the head */
	ST_BODY,
	ST_CHUNK, /* at the first digit of a chunk's size */
	ST_CHUNK_SIZE,
	ST_CHUNK_EXT,
	ST_CHUNK_LF,
	ST_CHUNK_DATA,
	ST_CHUNK_CR2, /* CR and LF after the data */
	ST_CHUNK_LF2,
	ST_TRAILER, /* at the start of a trailer line */
	ST_TRAILER_LINE,
	ST_TRAILER_LF,
	ST_DONE
};

enum {
	H_OTHER,
	H_CONNECTION,
	H_LENGTH,
	H_ENCODING,
	H_EXPECT,
	H_HOST
};

static const char *const header_names[] = {
	[H_CONNECTION] = "connection",
	[H_LENGTH] = "content-length",
	[H_ENCODING] = "transfer-encoding",
	[H_EXPECT] = "expect",
	[H_HOST] = "host",
};

static const char *const method_names[HTTP_METHODS] = {
	[HTTP_GET] = "GET",
	[HTTP_HEAD] = "HEAD",
	[HTTP_POST] = "POST",
};

static bool is_token(unsigned char c)
{
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
		return true;
	if ((c >= '0' && c <= '9') || c == '-')
		return true;
	return c && strchr("!#$%&'*+.^_`|~", c);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* In a value: everything but control characters. */
static bool is_text(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static const char *bad(struct http_parser *p, const char *s, int status)
{
	p->event = HTTP_EV_BAD;
	p->status = status;
	return s;
}

static const char *go(struct http_parser *p, const char *s, int state)
{
	p->state = state;
	return s;
}

/* Bytes that do not fit are counted: token_full() tells. */
static void token_add(struct http_parser *p, char c)
{
	if (p->token_len < HTTP_TOKEN_MAX - 1)
		p->token[p->token_len] = c;
	p->token_len++;
}

static bool token_full(const struct http_parser *p)
{
	return p->token_len > HTTP_TOKEN_MAX - 1;
}

static bool token_is(const struct http_parser *p, const char *word)
{
	return p->token_len == strlen(word) && !token_full(p) &&
	       !memcmp(p->token, word, p->token_len);
}

/* ------------------------------------------------------------------------- */
/* The request line */

static const char *st_start(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	if (*s == '\r' || *s == '\n')
		return s + 1;
	p->token_len = 0;
	return go(p, s, ST_METHOD);
}

static const char *method_end(struct http_parser *p, const char *s)
{
	int m;

	for (m = 0; m < HTTP_METHODS; m++) {
		if (token_is(p, method_names[m])) {
			p->method = m;
			return go(p, s + 1, ST_TARGET);
		}
	}
	return bad(p, s, p->token_len ? 501 : 400);
}

static const char *st_method(struct http_parser *p, const char *s, const char *end)
{
	for (; s < end; s++) {
		if (*s == ' ')
			return method_end(p, s);
		if (!is_token(*s))
			return bad(p, s, 400);
		token_add(p, *s);
	}
	return s;
}

static const char *st_target(struct http_parser *p, const char *s, const char *end)
{
	for (; s < end; s++) {
		if (*s == ' ')
			break;
		if (!is_text(*s) || *s == '\t')
			return bad(p, s, 400);
		if (p->target_len < HTTP_TARGET_MAX - 1)
			p->target[p->target_len] = *s;
		p->target_len++;
	}
	if (s == end)
		return s;
	if (!p->target_len)
		return bad(p, s, 400);
	p->target[p->target_len < HTTP_TARGET_MAX ? p->target_len : HTTP_TARGET_MAX - 1] = 0;
	p->token_len = 0;
	return go(p, s + 1, ST_VERSION);
}

static const char *version_end(struct http_parser *p, const char *s)
{
	if (token_is(p, "HTTP/1.1"))
		p->keep_alive = true;
	else if (token_is(p, "HTTP/1.0"))
		p->old = true;
	else
		return bad(p, s, p->token_len == 8 && !memcmp(p->token, "HTTP/", 5) ? 505 : 400);
	return go(p, s + 1, *s == '\r' ? ST_VERSION_LF : ST_LINE);
}

static const char *st_version(struct http_parser *p, const char *s, const char *end)
{
	for (; s < end; s++) {
		if (*s == '\r' || *s == '\n')
			return version_end(p, s);
		token_add(p, *s);
		if (p->token_len > 8)
			return bad(p, s, 400);
	}
	return s;
}

static const char *st_version_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? go(p, s + 1, ST_LINE) : bad(p, s, 400);
}

/* ------------------------------------------------------------------------- */
/* Headers */

static const char *head_end(struct http_parser *p, const char *s)
{
	bool length = p->seen & (1 << H_LENGTH);

	if (!p->old && !(p->seen & (1 << H_HOST)))
		return bad(p, s, 400);
	if (p->chunked && (length || p->old))
		return bad(p, s, 400);
	if (p->old)
		p->expect = false;
	p->left = p->length;
	p->event = HTTP_EV_HEADERS;
	return go(p, s + 1, p->chunked ? ST_CHUNK : ST_BODY);
}

static const char *st_line(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	if (*s == '\r')
		return go(p, s + 1, ST_HEAD_LF);
	if (*s == '\n')
		return head_end(p, s);
	p->token_len = 0;
	return go(p, s, ST_NAME);
}

static const char *st_head_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? head_end(p, s) : bad(p, s, 400);
}

static int header_find(const struct http_parser *p)
{
	int h;

	for (h = H_OTHER + 1; h <= H_HOST; h++)
		if (token_is(p, header_names[h]))
			return h;
	return H_OTHER;
}

static const char *st_name(struct http_parser *p, const char *s, const char *end)
{
	for (; s < end; s++) {
		if (*s == ':') {
			if (!p->token_len)
				return bad(p, s, 400);
			p->header = header_find(p);
			p->token_len = 0;
			return go(p, s + 1, ST_BLANK);
		}
		if (!is_token(*s))
			return bad(p, s, 400);
		token_add(p, lower(*s));
	}
	return s;
}

static const char *st_blank(struct http_parser *p, const char *s, const char *end)
{
	while (s < end && is_blank(*s))
		s++;
	return s < end ? go(p, s, ST_VALUE) : s;
}

static bool length_set(struct http_parser *p)
{
	uint64_t v = 0;
	unsigned i;

	if (!p->token_len || p->token_len > 18)
		return false;
	for (i = 0; i < p->token_len; i++) {
		if (p->token[i] < '0' || p->token[i] > '9')
			return false;
		v = v * 10 + (p->token[i] - '0');
	}
	p->length = v;
	return true;
}

/* A list of words between commas. */
static void connection_set(struct http_parser *p)
{
	char *s = p->token, *word;

	p->token[p->token_len] = 0;
	while ((word = strsep(&s, ", \t"))) {
		if (!strcmp(word, "close"))
			p->keep_alive = false;
		else if (!strcmp(word, "keep-alive") && p->old)
			p->keep_alive = true;
	}
}

/* The status that the header in token deserves, or 0. */
static int header_set(struct http_parser *p)
{
	bool again = p->seen & (1 << p->header);

	p->seen |= 1 << p->header;
	switch (p->header) {
	case H_CONNECTION:
		if (token_full(p))
			return 400;
		connection_set(p);
		return 0;
	case H_LENGTH:
		return again || !length_set(p) ? 400 : 0;
	case H_ENCODING:
		p->chunked = token_is(p, "chunked");
		return again ? 400 : p->chunked ? 0 : 501;
	case H_EXPECT:
		p->expect = token_is(p, "100-continue");
		return p->expect ? 0 : 417;
	case H_HOST:
		return again ? 400 : 0;
	default:
		return 0;
	}
}

static const char *value_end(struct http_parser *p, const char *s, int next)
{
	int status;

	while (p->token_len && !token_full(p) && is_blank(p->token[p->token_len - 1]))
		p->token_len--;
	status = header_set(p);
	return status ? bad(p, s, status) : go(p, s + 1, next);
}

static const char *st_value(struct http_parser *p, const char *s, const char *end)
{
	if (p->header == H_OTHER) {
		while (s < end && is_text(*s))
			s++;
	} else {
		for (; s < end && is_text(*s); s++)
			token_add(p, lower(*s));
	}
	if (s == end)
		return s;
	if (*s == '\n')
		return value_end(p, s, ST_LINE);
	if (*s == '\r')
		return value_end(p, s, ST_VALUE_LF);
	return bad(p, s, 400);
}

static const char *st_value_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? go(p, s + 1, ST_LINE) : bad(p, s, 400);
}

/* ------------------------------------------------------------------------- */
/* Bodies */

static const char *body_take(struct http_parser *p, const char *s, const char *end)
{
	size_t n = end - s;

	if (n > p->left)
		n = p->left;
	p->left -= n;
	p->body = s;
	p->body_len = n;
	p->event = HTTP_EV_BODY;
	return s + n;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *st_chunk(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	p->count = 0;
	p->left = 0;
	return hex_digit(*s) < 0 ? bad(p, s, 400) : go(p, s, ST_CHUNK_SIZE);
}

static const char *st_chunk_size(struct http_parser *p, const char *s, const char *end)
{
	int d;

	for (; s < end; s++) {
		d = hex_digit(*s);
		if (d < 0)
			break;
		if (p->left >> 56)
			return bad(p, s, 413);
		p->left = p->left << 4 | d;
	}
	if (s == end)
		return s;
	if (*s == '\r')
		return go(p, s + 1, ST_CHUNK_LF);
	if (*s == ';' || is_blank(*s))
		return go(p, s + 1, ST_CHUNK_EXT);
	return bad(p, s, 400);
}

static const char *st_chunk_ext(struct http_parser *p, const char *s, const char *end)
{
	while (s < end && is_text(*s))
		s++;
	if (s == end)
		return s;
	return *s == '\r' ? go(p, s + 1, ST_CHUNK_LF) : bad(p, s, 400);
}

static const char *st_chunk_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	if (*s != '\n')
		return bad(p, s, 400);
	return go(p, s + 1, p->left ? ST_CHUNK_DATA : ST_TRAILER);
}

static const char *st_chunk_data(struct http_parser *p, const char *s, const char *end)
{
	s = body_take(p, s, end);
	return p->left ? s : go(p, s, ST_CHUNK_CR2);
}

static const char *st_chunk_cr2(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\r' ? go(p, s + 1, ST_CHUNK_LF2) : bad(p, s, 400);
}

static const char *st_chunk_lf2(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? go(p, s + 1, ST_CHUNK) : bad(p, s, 400);
}

static const char *st_trailer(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\r' ? go(p, s + 1, ST_TRAILER_LF) : go(p, s, ST_TRAILER_LINE);
}

static const char *st_trailer_line(struct http_parser *p, const char *s, const char *end)
{
	while (s < end && (is_text(*s) || *s == '\r'))
		s++;
	if (s == end)
		return s;
	return *s == '\n' ? go(p, s + 1, ST_TRAILER) : bad(p, s, 400);
}

static const char *st_trailer_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? go(p, s + 1, ST_DONE) : bad(p, s, 400);
}

/* ------------------------------------------------------------------------- */

typedef const char *(*step_fn)(struct http_parser *p, const char *s, const char *end);

static const step_fn steps[] = {
	[ST_START] = st_start,
	[ST_METHOD] = st_method,
	[ST_TARGET] = st_target,
	[ST_VERSION] = st_version,
	[ST_VERSION_LF] = st_version_lf,
	[ST_LINE] = st_line,
	[ST_NAME] = st_name,
	[ST_BLANK] = st_blank,
	[ST_VALUE] = st_value,
	[ST_VALUE_LF] = st_value_lf,
	[ST_HEAD_LF] = st_head_lf,
	[ST_BODY] = body_take,
	[ST_CHUNK] = st_chunk,
	[ST_CHUNK_SIZE] = st_chunk_size,
	[ST_CHUNK_EXT] = st_chunk_ext,
	[ST_CHUNK_LF] = st_chunk_lf,
	[ST_CHUNK_DATA] = st_chunk_data,
	[ST_CHUNK_CR2] = st_chunk_cr2,
	[ST_CHUNK_LF2] = st_chunk_lf2,
	[ST_TRAILER] = st_trailer,
	[ST_TRAILER_LINE] = st_trailer_line,
	[ST_TRAILER_LF] = st_trailer_lf,
};

void http_next(struct http_parser *p)
{
	p->event = HTTP_EV_MORE;
	p->state = ST_START;
	p->old = false;
	p->keep_alive = false;
	p->chunked = false;
	p->expect = false;
	p->length = 0;
	p->target_len = 0;
	p->seen = 0;
	p->count = 0;
}

void http_init(struct http_parser *p)
{
	memset(p, 0, sizeof(*p));
	http_next(p);
}

bool http_idle(const struct http_parser *p)
{
	return p->state == ST_START;
}

static bool body_state(int state)
{
	return state == ST_BODY || state == ST_CHUNK_DATA;
}

enum http_event http_parse(struct http_parser *p, const char *data, size_t len, size_t *used)
{
	const char *s = data, *end = data + len, *from;
	int state;

	*used = 0;
	if (p->event == HTTP_EV_BAD)
		return p->event;
	p->event = HTTP_EV_MORE;
	while (p->event == HTTP_EV_MORE) {
		state = p->state;
		if (state == ST_DONE || (state == ST_BODY && !p->left))
			p->event = HTTP_EV_DONE;
		if (p->event == HTTP_EV_DONE || s == end)
			break;
		from = s;
		s = steps[state](p, s, end);
		if (!body_state(state)) {
			p->count += s - from;
			if (p->count > HTTP_HEAD_MAX)
				bad(p, s, 431);
		}
	}
	*used = s - data;
	return p->event;
}
