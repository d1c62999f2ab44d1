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
#include <strings.h>

#include "http.h"

enum {
	ST_METHOD, /* or empty lines before it */
	ST_TARGET,
	ST_VERSION,
	ST_LINE_LF,
	ST_NAME, /* or the empty line that ends the head */
	ST_VALUE,
	ST_HEAD_LF, /* the last LF of the head */
	ST_BODY,    /* or the data of a chunk */
	ST_CHUNK,   /* at the first digit of a chunk's size */
	ST_CHUNK_SIZE,
	ST_CHUNK_EXT,
	ST_CHUNK_LF,
	ST_CHUNK_CR2, /* CR and LF after the data */
	ST_CHUNK_LF2,
	ST_TRAILER, /* at the start of a trailer line */
	ST_TRAILER_LINE,
	ST_TRAILER_LF,
	ST_DONE
};

enum {
	H_OTHER,
	H_HOST,
	H_CONNECTION, /* from here on the value matters */
	H_LENGTH,
	H_ENCODING,
	H_EXPECT
};

/* What a byte may be part of. */
enum {
	TOKEN = 1, /* a method, a header's name */
	TARGET = 2,
	TEXT = 4, /* a header's value: no control characters but tabs */
	ALL = TOKEN | TARGET | TEXT
};

static const uint8_t classes[256] = {
	['\t'] = TEXT,	      [' '] = TEXT,
	['!'] = ALL,	      ['"'] = TARGET | TEXT,
	['#' ... '\''] = ALL, ['(' ... ')'] = TARGET | TEXT,
	['*' ... '+'] = ALL,  [','] = TARGET | TEXT,
	['-' ... '.'] = ALL,  ['/'] = TARGET | TEXT,
	['0' ... '9'] = ALL,  [':' ... '@'] = TARGET | TEXT,
	['A' ... 'Z'] = ALL,  ['[' ... ']'] = TARGET | TEXT,
	['^' ... 'z'] = ALL,  ['{'] = TARGET | TEXT,
	['|'] = ALL,	      ['}'] = TARGET | TEXT,
	['~'] = ALL,	      [0x80 ... 0xff] = TARGET | TEXT,
};

static const char *skip(const char *s, const char *end, int class)
{
	while (s < end && classes[(unsigned char)*s] & class)
		s++;
	return s;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static const char *bad(struct http_parser *p, const char *s, int status)
{
	p->event = HTTP_EV_BAD;
	p->status = status;
	return s;
}

/* Every state begins with an empty token. */
static const char *go(struct http_parser *p, const char *s, int state)
{
	p->state = state;
	p->token_len = 0;
	return s;
}

/* Append what lies from s to end to a word of len < max bytes; what does not fit is counted. */
static inline unsigned word_add(char *word, unsigned len, unsigned max, const char *s,
				const char *end)
{
	size_t n = end - s, room = max - 1 - len;

	if (len < max)
		memcpy(word + len, s, n < room ? n : room);
	return len + n;
}

static void token_add(struct http_parser *p, const char *s, const char *end)
{
	p->token_len = word_add(p->token, p->token_len, HTTP_WORD_MAX, s, end);
}

static inline bool token_is(const struct http_parser *p, const char *word)
{
	return p->token_len == strlen(word) && !memcmp(p->token, word, strlen(word));
}

/* The same in any case. */
static inline bool token_like(const struct http_parser *p, const char *word)
{
	return p->token_len == strlen(word) && !strncasecmp(p->token, word, strlen(word));
}

/* ------------------------------------------------------------------------- */
/* The request line */

static const char *method_end(struct http_parser *p, const char *s)
{
	if (token_is(p, "GET"))
		p->method = HTTP_GET;
	else if (token_is(p, "HEAD"))
		p->method = HTTP_HEAD;
	else if (token_is(p, "POST"))
		p->method = HTTP_POST;
	else if (token_is(p, "PUT"))
		p->method = HTTP_PUT;
	else if (token_is(p, "DELETE"))
		p->method = HTTP_DELETE;
	else
		return bad(p, s, p->token_len ? 501 : 400);
	return go(p, s + 1, ST_TARGET);
}

static const char *st_method(struct http_parser *p, const char *s, const char *end)
{
	const char *from = s;

	if (!p->token_len && (*s == '\r' || *s == '\n'))
		return s + 1;
	s = skip(s, end, TOKEN);
	token_add(p, from, s);
	if (s == end)
		return s;
	return *s == ' ' ? method_end(p, s) : bad(p, s, 400);
}

static const char *st_target(struct http_parser *p, const char *s, const char *end)
{
	const char *from = s;

	s = skip(s, end, TARGET);
	p->target_len = word_add(p->target, p->target_len, HTTP_TARGET_MAX, from, s);
	if (s == end)
		return s;
	if (*s != ' ' || !p->target_len)
		return bad(p, s, 400);
	p->target[p->target_len < HTTP_TARGET_MAX ? p->target_len : HTTP_TARGET_MAX - 1] = 0;
	return go(p, s + 1, ST_VERSION);
}

/* At a CR or LF: an LF after a CR in the same range is taken with it. */
static const char *line_end(struct http_parser *p, const char *s, const char *end)
{
	if (end - s > 1 && s[0] == '\r' && s[1] == '\n')
		s++;
	return go(p, s + 1, *s == '\r' ? ST_LINE_LF : ST_NAME);
}

static const char *version_end(struct http_parser *p, const char *s, const char *end)
{
	if (token_is(p, "HTTP/1.1"))
		p->keep_alive = true;
	else if (token_is(p, "HTTP/1.0"))
		p->old = true;
	else
		return bad(p, s, p->token_len == 8 && !memcmp(p->token, "HTTP/", 5) ? 505 : 400);
	return line_end(p, s, end);
}

static const char *st_version(struct http_parser *p, const char *s, const char *end)
{
	/* What nearly always comes, at once. */
	if (!p->token_len && end - s >= 10 && !memcmp(s, "HTTP/1.1\r\n", 10)) {
		p->keep_alive = true;
		return go(p, s + 10, ST_NAME);
	}
	for (; s < end; s++) {
		if (*s == '\r' || *s == '\n')
			return version_end(p, s, end);
		token_add(p, s, s + 1);
		if (p->token_len > 8)
			return bad(p, s, 400);
	}
	return s;
}

static const char *st_line_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? go(p, s + 1, ST_NAME) : bad(p, s, 400);
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
	return go(p, s + 1, p->chunked ? ST_CHUNK : p->left ? ST_BODY : ST_DONE);
}

static const char *st_head_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	return *s == '\n' ? head_end(p, s) : bad(p, s, 400);
}

static int header_find(const struct http_parser *p)
{
	if (token_like(p, "host"))
		return H_HOST;
	if (token_like(p, "connection"))
		return H_CONNECTION;
	if (token_like(p, "content-length"))
		return H_LENGTH;
	if (token_like(p, "transfer-encoding"))
		return H_ENCODING;
	return token_like(p, "expect") ? H_EXPECT : H_OTHER;
}

static const char *name_end(struct http_parser *p, const char *s)
{
	if (!p->token_len)
		return bad(p, s, 400);
	p->header = header_find(p);
	return go(p, s + 1, ST_VALUE);
}

static const char *st_name(struct http_parser *p, const char *s, const char *end)
{
	const char *from = s;

	if (!p->token_len && *s == '\r')
		return go(p, s + 1, ST_HEAD_LF);
	if (!p->token_len && *s == '\n')
		return head_end(p, s);
	s = skip(s, end, TOKEN);
	token_add(p, from, s);
	if (s == end)
		return s;
	return *s == ':' ? name_end(p, s) : bad(p, s, 400);
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
		if (!strcasecmp(word, "close"))
			p->keep_alive = false;
		else if (!strcasecmp(word, "keep-alive") && p->old)
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
		if (p->token_len >= HTTP_WORD_MAX)
			return 400;
		connection_set(p);
		return 0;
	case H_LENGTH:
		return again || !length_set(p) ? 400 : 0;
	case H_ENCODING:
		p->chunked = token_like(p, "chunked");
		return again ? 400 : p->chunked ? 0 : 501;
	case H_EXPECT:
		p->expect = token_like(p, "100-continue");
		return p->expect ? 0 : 417;
	case H_HOST:
		return again ? 400 : 0;
	default:
		return 0;
	}
}

static const char *value_end(struct http_parser *p, const char *s, const char *end)
{
	int status;

	while (p->token_len && p->token_len < HTTP_WORD_MAX && is_blank(p->token[p->token_len - 1]))
		p->token_len--;
	status = header_set(p);
	return status ? bad(p, s, status) : line_end(p, s, end);
}

static const char *st_value(struct http_parser *p, const char *s, const char *end)
{
	const char *from;

	while (!p->token_len && s < end && is_blank(*s))
		s++;
	from = s;
	s = skip(s, end, TEXT);
	if (p->header >= H_CONNECTION)
		token_add(p, from, s);
	if (s == end)
		return s;
	return *s == '\r' || *s == '\n' ? value_end(p, s, end) : bad(p, s, 400);
}

/* ------------------------------------------------------------------------- */
/* Bodies */

static const char *st_body(struct http_parser *p, const char *s, const char *end)
{
	size_t n = end - s;

	if (n > p->left)
		n = p->left;
	p->left -= n;
	p->body = s;
	p->body_len = n;
	p->event = HTTP_EV_BODY;
	s += n;
	return p->left ? s : go(p, s, p->chunked ? ST_CHUNK_CR2 : ST_DONE);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *st_chunk(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
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
	s = skip(s, end, TEXT);
	if (s == end)
		return s;
	return *s == '\r' ? go(p, s + 1, ST_CHUNK_LF) : bad(p, s, 400);
}

static const char *st_chunk_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	if (*s != '\n')
		return bad(p, s, 400);
	return go(p, s + 1, p->left ? ST_BODY : ST_TRAILER);
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
	s = skip(s, end, TEXT);
	if (s == end)
		return s;
	if (*s == '\r')
		return s + 1;
	return *s == '\n' ? go(p, s + 1, ST_TRAILER) : bad(p, s, 400);
}

static const char *st_trailer_lf(struct http_parser *p, const char *s, const char *end)
{
	(void)end;
	if (*s != '\n')
		return bad(p, s, 400);
	p->event = HTTP_EV_DONE;
	return go(p, s + 1, ST_DONE);
}

/* ------------------------------------------------------------------------- */

typedef const char *(*step_fn)(struct http_parser *p, const char *s, const char *end);

static const step_fn steps[] = {
	[ST_METHOD] = st_method,
	[ST_TARGET] = st_target,
	[ST_VERSION] = st_version,
	[ST_LINE_LF] = st_line_lf,
	[ST_NAME] = st_name,
	[ST_VALUE] = st_value,
	[ST_HEAD_LF] = st_head_lf,
	[ST_BODY] = st_body,
	[ST_CHUNK] = st_chunk,
	[ST_CHUNK_SIZE] = st_chunk_size,
	[ST_CHUNK_EXT] = st_chunk_ext,
	[ST_CHUNK_LF] = st_chunk_lf,
	[ST_CHUNK_CR2] = st_chunk_cr2,
	[ST_CHUNK_LF2] = st_chunk_lf2,
	[ST_TRAILER] = st_trailer,
	[ST_TRAILER_LINE] = st_trailer_line,
	[ST_TRAILER_LF] = st_trailer_lf,
};

void http_next(struct http_parser *p)
{
	p->event = HTTP_EV_MORE;
	p->state = ST_METHOD;
	p->old = false;
	p->keep_alive = false;
	p->chunked = false;
	p->expect = false;
	p->length = 0;
	p->target_len = 0;
	p->seen = 0;
	p->token_len = 0;
}

void http_init(struct http_parser *p)
{
	memset(p, 0, sizeof(*p));
	http_next(p);
}

enum http_event http_parse(struct http_parser *p, const char *data, size_t len, size_t *used)
{
	const char *s = data, *end = data + len;

	if (p->event != HTTP_EV_BAD)
		p->event = p->state == ST_DONE ? HTTP_EV_DONE : HTTP_EV_MORE;
	while (p->event == HTTP_EV_MORE && s < end)
		s = steps[p->state](p, s, end);
	*used = s - data;
	p->count += *used - (p->event == HTTP_EV_BODY ? p->body_len : 0);
	if (p->count > HTTP_HEAD_MAX)
		bad(p, s, 431);
	if (p->event != HTTP_EV_MORE)
		p->count = 0;
	return p->event;
}
