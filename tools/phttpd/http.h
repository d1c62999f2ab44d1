/* SPDX-License-Identifier: MIT */
/*
 * http.h - an incremental parser of HTTP/1.x requests
 *
 * A pure state machine: it is fed byte ranges cut anywhere, says what it found
 * and how far it got, and never asks for a byte twice. No I/O, no allocation,
 * no time. Of the bytes it keeps only what a server has to know; a body is
 * reported in place.
 */
#ifndef PHTTPD_HTTP_H
#define PHTTPD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX	16384 /* bytes of a request line and its headers */
#define HTTP_TARGET_MAX 260   /* of a target so many are kept, with a zero */
#define HTTP_WORD_MAX	128   /* the same of a name or a value */

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_DELETE
};

enum http_event {
	HTTP_EV_MORE,	 /* everything consumed, nothing found yet */
	HTTP_EV_HEADERS, /* request line and headers are complete */
	HTTP_EV_BODY,	 /* body_len bytes at body */
	HTTP_EV_DONE,	 /* the request is over: http_next() */
	HTTP_EV_BAD	 /* answer with status, then close; for ever */
};

struct http_parser {
	/* the request: from HTTP_EV_HEADERS to http_next() */
	enum http_method method;
	bool old; /* HTTP/1.0 */
	bool keep_alive;
	bool chunked;		      /* else length is valid */
	bool expect;		      /* the client waits for 100 (Continue) */
	uint64_t length;	      /* of the body */
	unsigned target_len;	      /* may be more than what was kept */
	char target[HTTP_TARGET_MAX]; /* zero-terminated */

	/* the event */
	const char *body; /* HTTP_EV_BODY: in the caller's buffer */
	size_t body_len;
	int status; /* HTTP_EV_BAD: 4xx or 5xx */

	/* private */
	enum http_event event;
	uint8_t state;
	uint8_t header; /* the header whose value is being read */
	uint8_t seen;	/* headers that came, one bit each */
	unsigned count; /* bytes of the framing since the last event */
	unsigned token_len;
	uint64_t left; /* bytes of this body or chunk to come */
	char token[HTTP_WORD_MAX];
};

void http_init(struct http_parser *p);

/* On to the next request of the connection, after HTTP_EV_DONE. */
void http_next(struct http_parser *p);

/*
 * Go on with len bytes at data; *used says how many were consumed. To be called
 * again with the rest until it says HTTP_EV_MORE. (The end of a request without
 * a body is reported without consuming anything.)
 */
enum http_event http_parse(struct http_parser *p, const char *data, size_t len, size_t *used);

#endif /* PHTTPD_HTTP_H */
