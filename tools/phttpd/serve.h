/* SPDX-License-Identifier: MIT */
/*
 * serve.h - requests in, answers out, for one connection
 *
 * A session takes the bytes of a connection as they come and puts the answers
 * into a sink, which is what differs between the loops: epoll.c gathers them
 * for one write, paste.c makes tx entries of them. When the sink has no room
 * the session stops (RUN_BLOCKED) and is run again when it has, so an answer
 * of any size needs no memory of its own.
 */
#ifndef PHTTPD_SERVE_H
#define PHTTPD_SERVE_H

#include "http.h"
#include "store.h"

#define HEAD_SIZE   256 /* no head of an answer is longer */
#define INLINE_BODY 512 /* bodies up to this size are sent with their head */
#define RESERVE_MAX 1024

/* Endless periodic contents: byte i is byte i % period. */
enum pattern {
	PATTERN_TEXT,  /* bodies of -l bytes */
	PATTERN_BYTES, /* /bytes/N */
	PATTERNS
};

enum run {
	RUN_MORE,    /* all input is consumed */
	RUN_BLOCKED, /* run again, with the rest, when the sink has room */
	RUN_CLOSE,   /* close once all answers are sent */
	RUN_LINGER   /* the same after an error: read on for a while */
};

struct session;

struct sink {
	/* Room for n <= RESERVE_MAX bytes of text, or NULL. */
	char *(*reserve)(struct session *s, size_t n);
	/* n bytes of the room have been written. */
	void (*commit)(struct session *s, size_t n);
	/* Send up to len bytes of a pattern from byte off on: how many, or 0. */
	size_t (*pattern)(struct session *s, enum pattern which, uint64_t off, uint64_t len);
	/* Send a part of the input by reference: false when there is no room. */
	bool (*echo)(struct session *s, const char *data, size_t len);
	/*
	 * The same with a piece of a record that lies in the pool; NULL if that
	 * cannot be. What is sent has a hold of its own on the record.
	 */
	bool (*record)(struct session *s, struct store_rec *rec, const char *data, size_t len);
};

/* One per thread. */
struct serve {
	const struct sink *sink;
	uint64_t body; /* bytes of an ordinary answer */
	bool verify;   /* sum bodies of all requests */
	struct store_thread *store;
	enum store_kind kind;
	bool waiting;	  /* a session is blocked because the store said -EAGAIN */
	size_t fixed_len; /* of the prepared answer, or 0 */
	char fixed[RESERVE_MAX];
	char small[INLINE_BODY]; /* the start of PATTERN_TEXT */
	uint64_t requests;	 /* answered */
	uint64_t bytes;		 /* of requests taken in */
};

struct session {
	struct http_parser http;
	uint8_t step;
	uint8_t route;
	bool replied; /* the head of the answer is out */
	bool failed;
	enum pattern which;
	uint64_t off, left;    /* of the pattern that is being sent */
	uint64_t sum, sum_len; /* of the request's body */
	int status; /* of the answer, once the store or its refusal says it; 0: not yet */
	struct store_put put;
	struct store_rec *rec; /* that is being sent, from this piece on */
	struct store_pieces piece;
};

void serve_init(struct serve *sv, const struct sink *sink, uint64_t body, bool fixed, bool verify);

/*
 * The end of a batch, with a store: what sessions have answered since the last
 * one may be sent if this does not fail. rest: if there was nothing, let the store
 * tidy up. 1: what it made wait may go on.
 */
int serve_commit(struct serve *sv, bool rest);

void session_init(struct session *s);
void session_exit(struct serve *sv, struct session *s);

/*
 * Go on with len bytes at data, which may be 0, e.g. after RUN_BLOCKED; *used
 * of them are consumed. The bytes given to the sink by reference and those of
 * a blocked run must stay where they are.
 */
enum run session_run(struct serve *sv, struct session *s, const char *data, size_t len,
		     size_t *used);

unsigned pattern_period(enum pattern which);
void pattern_fill(enum pattern which, char *buf, size_t len);

#endif /* PHTTPD_SERVE_H */
