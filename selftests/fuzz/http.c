// SPDX-License-Identifier: MIT
/*
 * phttpd's parser: however a stream is cut into pieces, the same comes of it.
 * The input is parsed whole and in pieces of random length, each in a buffer of
 * exactly its size; what was found is written down in a form that does not know
 * of pieces, and compared. Between, what http.h promises of every call.
 *
 * The first two bytes of the input are the seed of the cuts. One input in 128 is
 * made longer than the longest head by repeating a byte of it.
 */
#include <stdlib.h>
#include <string.h>

#include "http.h"

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

#define LONG (HTTP_HEAD_MAX + 200)

struct log {
	char *text;
	size_t len, room;
};

static void note(struct log *l, const void *what, size_t len)
{
	if (l->room - l->len < len) {
		l->room = 2 * l->room + len;
		l->text = realloc(l->text, l->room);
		MUST(l->text);
	}
	memcpy(l->text + l->len, what, len);
	l->len += len;
}

static void note_number(struct log *l, char kind, uint64_t number)
{
	note(l, &kind, 1);
	note(l, &number, sizeof(number));
}

static void note_headers(struct log *l, const struct http_parser *p)
{
	size_t kept = p->target_len < HTTP_WORD_MAX ? p->target_len : HTTP_WORD_MAX - 1;

	MUST(p->target_len && strlen(p->target) <= kept);
	note_number(l, 'h',
		    p->method | p->old << 4 | p->keep_alive << 5 | p->chunked << 6 |
			    p->expect << 7);
	note_number(l, 'l', p->chunked ? 0 : p->length);
	note_number(l, 't', p->target_len);
	note(l, p->target, kept);
}

/* Parse one piece to its end. False: nothing more will come of this stream. */
static bool feed(struct http_parser *p, const char *data, size_t len, struct log *l)
{
	enum http_event event;
	size_t used;

	for (;;) {
		event = http_parse(p, data, len, &used);
		MUST(used <= len);
		switch (event) {
		case HTTP_EV_MORE:
			MUST(used == len);
			return true;
		case HTTP_EV_HEADERS:
			MUST(used);
			note_headers(l, p);
			break;
		case HTTP_EV_BODY:
			MUST(p->body_len && p->body >= data &&
			     p->body + p->body_len <= data + used);
			for (size_t i = 0; i < p->body_len; i++)
				note(l, (char[]){ 'b', p->body[i] }, 2);
			break;
		case HTTP_EV_DONE:
			note(l, "d", 1);
			http_next(p);
			break;
		case HTTP_EV_BAD:
			MUST(p->status >= 400 && p->status < 600);
			note_number(l, '!', p->status);
			MUST(http_parse(p, data, len, &used) == HTTP_EV_BAD);
			return false;
		}
		data += used;
		len -= used;
	}
}

static void parse_pieces(const char *text, size_t len, unsigned int seed, struct log *l)
{
	struct http_parser p;
	bool more = true;

	http_init(&p);
	while (more && len) {
		size_t n;
		char *piece;

		seed = seed * 1103515245 + 12345;
		n = 1 + (seed >> 16) % (seed & 0x8000 ? 4 : 1500);
		n = n < len ? n : len;
		piece = malloc(n);
		MUST(piece);
		memcpy(piece, text, n);
		more = feed(&p, piece, n, l);
		free(piece);
		text += n;
		len -= n;
	}
}

/* What must end up in the same place: a parser that waits for more has said all of what is over. */
static void compare(const char *text, size_t len, unsigned int seed)
{
	struct log whole = {}, pieces = {};
	struct http_parser p;

	http_init(&p);
	feed(&p, text, len, &whole);
	parse_pieces(text, len, seed, &pieces);
	MUST(whole.len == pieces.len);
	MUST(!whole.len || !memcmp(whole.text, pieces.text, whole.len));
	free(whole.text);
	free(pieces.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int seed;
	size_t at;
	char *text;

	if (size < 4)
		return 0;
	seed = data[0] | data[1] << 8;
	data += 2;
	size -= 2;
	if (seed % 128) {
		compare((const char *)data, size, seed);
		return 0;
	}
	at = data[0] * size / 256;
	text = malloc(size + LONG);
	MUST(text);
	memcpy(text, data, at);
	memset(text + at, data[at], LONG);
	memcpy(text + at + LONG, data + at, size - at);
	compare(text, size + LONG, seed);
	free(text);
	return 0;
}
