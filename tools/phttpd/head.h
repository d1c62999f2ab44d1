/* SPDX-License-Identifier: MIT */
/*
 * head.h - heads of answers
 *
 * Inline: of what is constant where it is called, only a few moves are left.
 */
#ifndef PHTTPD_HEAD_H
#define PHTTPD_HEAD_H

#include <string.h>

#include "serve.h"

#define CHUNKED UINT64_MAX /* as the length of a body */

static inline const char *status_text(int status)
{
	switch (status) {
	case 200:
		return "200 OK";
	case 201:
		return "201 Created";
	case 204:
		return "204 No Content";
	case 404:
		return "404 Not Found";
	case 413:
		return "413 Content Too Large";
	case 417:
		return "417 Expectation Failed";
	case 431:
		return "431 Request Header Fields Too Large";
	case 500:
		return "500 Internal Server Error";
	case 501:
		return "501 Not Implemented";
	case 505:
		return "505 HTTP Version Not Supported";
	case 507:
		return "507 Insufficient Storage";
	default:
		return "400 Bad Request";
	}
}

static inline char *put(char *p, const char *s)
{
	return stpcpy(p, s);
}

static inline char *put_number(char *p, uint64_t v)
{
	char buf[20];
	int i = sizeof(buf);

	do
		buf[--i] = '0' + v % 10;
	while (v /= 10);
	memcpy(p, buf + i, sizeof(buf) - i);
	return p + sizeof(buf) - i;
}

static inline char *put_length(char *p, uint64_t len)
{
	if (len == CHUNKED)
		return put(p, "Transfer-Encoding: chunked\r\n");
	p = put(p, "Content-Length: ");
	p = put_number(p, len);
	return put(p, "\r\n");
}

static inline char *put_status(char *p, int status)
{
	p = put(p, "HTTP/1.1 ");
	p = put(p, status_text(status));
	return put(p, "\r\n");
}

static inline char *put_connection(char *p, const struct session *s)
{
	if (!s->http.keep_alive)
		p = put(p, "Connection: close\r\n");
	else if (s->http.old)
		p = put(p, "Connection: keep-alive\r\n");
	return p;
}

/* The head of an answer but for the empty line at its end, at most HEAD_SIZE bytes. */
static inline char *put_head(char *p, const struct session *s, int status, const char *type,
			     uint64_t len)
{
	p = put_status(p, status);
	p = put(p, "Content-Type: ");
	p = put(p, type);
	p = put(p, "\r\n");
	p = put_length(p, len);
	return put_connection(p, s);
}

#endif /* PHTTPD_HEAD_H */
