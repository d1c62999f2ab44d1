/* SPDX-License-Identifier: MIT */
/*
 * queue.h - a thread's queue of /dev/paste and its connections
 *
 *   paste.c    the loop:  comp --> conn_comp()
 *                         rx   --> conn_rx() --> holds of a connection
 *                         work --> session --> segments --> tx
 *   conn.c     all conn_*(), and the sink
 *
 * A hold is an rx entry that has not been given back: it is while its bytes
 * wait to be parsed, and while sends refer to it. Then the store gets it, if it
 * keeps records where they were received, and gives it back later. A segment is a tx entry to be:
 * it waits at its connection, is in the ring or with TCP, and ends with its
 * completion, whose cookie is its address.
 */
#ifndef PHTTPD_QUEUE_H
#define PHTTPD_QUEUE_H

#include <sys/queue.h>

#include <paste.h>

#include "phttpd.h"

#define SLOT_SIZE  1024	     /* heads and small bodies are written here */
#define SLOT_BYTES (1 << 20) /* tx memory of a thread for slots */
#define CONN_SEGS  128	     /* most segments of a connection */
#define CONN_SLOTS 16	     /* most of them in slots */
#define HOLDS_MAX  256	     /* of a connection; beyond it takes no more input */
#define HOLDS_MIN  16	     /* the same, when there are very many */
#define QUOTA	   256	     /* rx entries of a connection in one round */
#define LINGER_MAX (1 << 20) /* bytes that are read after an error */
#define TABLE_SIZE 0x10000   /* values of PASTE_CONN_INDEX() */

struct hold {
	struct hold *next;
	struct conn *conn;
	uint32_t chunk;
	uint32_t refs;
	uint16_t off, len; /* the piece */
	uint16_t pos;	   /* so much of it is parsed */
};

enum seg_kind {
	SEG_TEXT,    /* a slot, the segment's own for ever */
	SEG_PATTERN, /* a chunk that is never written again */
	SEG_ECHO,    /* a hold */
	SEG_RECORD,  /* of the store; the segment has a hold on it */
	SEG_END	     /* no bytes, only flags */
};

struct seg {
	struct seg *next;
	struct conn *conn;
	union {
		struct hold *hold;
		struct store_rec *rec;
	};
	enum seg_kind kind;
	uint32_t chunk;
	uint32_t flags; /* PASTE_TX_* */
	uint16_t off, len;
};

enum conn_list {
	LIST_NONE,
	LIST_TODO, /* has input to parse or segments to send */
	LIST_STUCK /* waits for a completion, any one */
};

struct conn {
	struct session s; /* first: the sink casts */
	TAILQ_ENTRY(conn) link;
	enum conn_list list;
	struct queue *q;
	uint32_t handle;
	struct hold *in, **in_tail;  /* to be parsed */
	struct seg *out, **out_tail; /* not in the ring yet */
	unsigned holds;
	unsigned segs;	/* from their making to their completion */
	unsigned slots; /* of these: SEG_TEXT */
	size_t lingered;
	bool stopped; /* has too many holds: the module delivers nothing */
	bool eof;     /* the peer has sent everything */
	bool linger;  /* FIN sent after an error, reading on */
	bool ending;  /* PASTE_TX_CLOSE is in a segment */
	bool dead;    /* waits for its last completion */
};

TAILQ_HEAD(conn_head, conn);

struct block;

struct queue {
	struct pasteq pq; /* first */
	struct paste *ctx;
	struct worker *w;
	uint32_t pattern[PATTERNS]; /* chunks */
	struct conn **table;	    /* by PASTE_CONN_INDEX() */
	struct conn_head todo, stuck;
	struct seg *free_slots, *free_segs;
	struct hold *free_holds;
	struct conn_head free_conns;
	struct block *blocks; /* all memory of the above */
	unsigned n_conns;
	unsigned holds_max; /* of each of them */
	uint32_t in_flight; /* tx entries without completion */
	uint32_t in_flight_max;
	bool ring_full;		   /* segments wait for the tx ring */
	bool hurry;		   /* the store has more to do: do not sleep */
	struct store_thread *keep; /* whose records are in our chunks, or NULL */
	int err;		   /* the loop has to end */
};

/* conn.c */
int conns_init(struct queue *q, uint32_t first, uint32_t n_chunks); /* for slots */
void conns_exit(struct queue *q);
void conn_rx(struct queue *q, const struct paste_rx *rx);
void conn_comp(struct queue *q, const struct paste_comp *comp);
void conns_fill_slice(struct queue *q);
void conns_fill(struct queue *q);
void conns_unstick(struct queue *q);
void conns_work(struct queue *q);

#endif /* PHTTPD_QUEUE_H */
