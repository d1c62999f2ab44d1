/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pairs of connections that get the same frames from a peer that is played here
 * (see frames.h, wire.h), and that ought to do the same. Of each pair one is, at
 * some time, attached.
 *
 * A test lets pairs do a step each, then serves the applications, collects what
 * the server has answered, and compares.
 */
#ifndef SELFTESTS_PAIR_H
#define SELFTESTS_PAIR_H

#include "frames.h"
#include "util.h"

#define PAIRS	     32 /* in a batch; they share a context */
#define STEPS_MAX    32
#define REPLIES	     128
#define SENDS	     8 /* by the application, of a connection */
#define STREAM	     (96 << 10)
#define FLOOD_CLIENT 0x200000 /* the first of these; below are those of pairs */
#define PORT	     7000     /* and the next one: with a small receive buffer */
#define HOOKED	     7002     /* the same, bound to the NIC */

enum end {
	OPEN,
	FIN,
	BROKEN
};

/* One of the two connections of a pair, with both of its ends. */
struct side {
	struct flow flow;
	struct pair *pair;
	/* the server's application */
	int fd; /* -1: closed */
	bool attached;
	__u32 handle;
	__u8 *data; /* STREAM bytes: what came */
	__u32 len;
	enum end end;
	int err;
	__u32 sent;	   /* bytes given to TCP, or wanted to be */
	int result[SENDS]; /* of each send: bytes, or an errno */
	unsigned int n_done;
	/* the peer */
	__u32 seen;  /* end of what the server has sent */
	__u32 acked; /* ... has acknowledged */
	__u32 edge;  /* right edge of the window that it gives */
	__u8 wscale;
	struct reply reply[REPLIES]; /* of this step */
	unsigned int n_replies;
};

enum op {
	OP_SEGMENT,
	OP_ATTACH,
	OP_DETACH,
	OP_SEND,
	OP_SHUT,
	OP_STOP,  /* read no more */
	OP_START, /* read on */
	OP_CLOSE,
	OP_ABORT,
};

static const char *const op_names[] = { "segment", "attach", "detach", "send", "shut",
					"stop",	   "start",  "close",  "abort" };

struct step {
	enum op op;
	__u32 arg;
	bool at_edge;	/* seq counts from the window's right edge */
	bool from_seen; /* ack counts from what the server has sent */
	struct segment seg;
};

struct pair {
	struct side side[2]; /* the second one is to be attached */
	unsigned int first;  /* which of them gets each frame first */
	__u32 seed;
	__u32 random;
	/* the peer */
	struct segment syn;
	__u16 mss;
	__u16 win;
	__u32 next; /* end of what was sent in order */
	__u32 tsval;
	/* the server's application, as the script has it */
	bool small; /* receive buffer */
	bool attached;
	bool was_attached;
	bool reading;
	bool shut;
	bool closed;
	bool large; /* a send was */
	unsigned int sends;
	struct step step[STEPS_MAX];
	unsigned int n_steps;
	bool differs;
};

extern struct ctx ctx;
extern struct queue queue;
extern struct pair pairs[PAIRS];
extern unsigned int n_pairs;
extern __u32 first_client;  /* number of the first pair's */
extern bool hooked;	    /* what is attached is received through a bound NIC */
extern bool suspect[PAIRS]; /* a difference is to be believed */
extern unsigned int differences;
extern unsigned int n_attached;
extern bool verbose;

/* The server's sockets and, with a NIC, its binding. */
bool can_hook(void);
int server_open(void);
int hook(void);
void unhook(void); /* also after a hook() that failed */
/* A context with a queue for the pairs; what they are like depends on the seed. */
int paste_open(__u32 seed);
void paste_close(void);

/* Handshakes of all pairs. True: all connections are there. */
bool pairs_connect(void);
/* Forget them. */
void pairs_end(void);
void pair_do(struct pair *p, const struct step *step);
/* What was sent has arrived, and the applications have read what there is. */
void pairs_serve(void);
/* All that the server has said. */
void pairs_collect(void);
void pair_compare(struct pair *p);
void pair_compare_info(struct pair *p);

void side_send(struct side *s, const struct segment *seg);

#endif
