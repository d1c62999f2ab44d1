/* SPDX-License-Identifier: MIT */
/*
 * store.h - records that survive
 *
 * A store is a directory. Each record is named by slots of 64 bytes in a log,
 * one file per thread: {chunk, offset, length} of its bytes, and checksums.
 * The bytes are in chunks of the same file, where the store has copied them,
 * or, with zero copy, in the rx chunks of a paste pool on persistent memory,
 * where the NIC has put them. The index is in DRAM only; opening a store reads
 * the slots and builds it.
 *
 * The life of a record:
 *
 *      put_begin, put_add ...   bytes written or flushed, in no index
 *      put_end                  STAGED: slots written, in the index, but
 *            |                  everything that asks for its key waits
 *      store_commit             one drain for all that is staged: durable
 *            |                  LIVE: found, may be acknowledged
 *      put_end of another       LIVE until that one is durable, then its slots
 *       or store_delete         are cleared ...
 *            |
 *      next drain, and the      ... and only when that is durable, and nobody
 *      last store_rec_put       holds it, are its slots and chunks used again
 *
 * So at any time there is at most one finished write per key under way, and
 * -EAGAIN tells everybody else to come again after a commit.
 *
 * A server: for each batch of requests call put, get and delete, then
 * store_commit once, and only then send the answers. Before sleeping,
 * store_idle. A thread uses its own struct store_thread only; the index is
 * shared by all.
 *
 * Functions return 0 or more, or a negative errno:
 *
 *   -EAGAIN  the key is being written: try again after the next commit (of
 *            this thread, or of another one: do not sleep for long meanwhile)
 *   -ENOENT  no such key
 *   -ENOSPC  the store is full
 *   -EFBIG   it could not hold that even if it were empty
 *   -EINVAL  a length that is not allowed, or not the announced one
 *   -EIO     the record does not match its checksum: what is there is not
 *            what was stored, and is not given to anybody
 *   -ENOMEM  no memory for the index
 */
#ifndef PHTTPD_STORE_H
#define PHTTPD_STORE_H

#define XXH_STATIC_LINKING_ONLY /* a sum under way is part of struct store_put */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#define STORE_KEY_MAX	   255
#define STORE_SIZE_UNKNOWN UINT64_MAX /* for store_put_begin() */
#define STORE_THREADS_MAX  64

enum store_kind {
	STORE_WAL = 1, /* records in the order they came; no keys */
	STORE_TREE,    /* key: first 8 bytes of the record, as a big endian number; ordered */
	STORE_KV       /* key: 1 to 255 bytes */
};

/* A paste pool, for zero copy. Thread i owns chunks [slice_first[i], + slice_n[i]). */
struct store_pool {
	char *base; /* chunk 0 */
	uint32_t chunk_size;
	uint32_t first_rx;
	uint32_t n_rx;
	const uint32_t *slice_first;
	const uint32_t *slice_n;
};

struct store_opts {
	const char *dir; /* made if it is not there; its parent must be */
	enum store_kind kind;
	unsigned threads;
	uint64_t bytes; /* of all logs that are made now; those that are there keep theirs */
	const struct store_pool *pool; /* or NULL: copy */
	bool mmap;		       /* not PM: write by memory mapping and msync(2) */
	bool datasync;		       /* not PM: fdatasync(2) instead of fsync(2) */
	bool no_flush;		       /* make nothing durable, to see what that costs */
	bool wrap;		       /* WAL: full is not an error, the oldest records go */
	bool check;		       /* only read; what is not there is not made */
	uint64_t latency_ns;	       /* add to every commit of something */
};

/* What opening a store has found. */
struct store_report {
	uint64_t records; /* whole and in the index */
	uint64_t bytes;	  /* of these, keys included */
	uint64_t torn; /* records or slots of which only a part is there, or that are damaged: dropped */
	uint64_t overwritten; /* whole, but there is a newer one of the same key */
	uint64_t corrupt;     /* records that do not match their checksum */
	double seconds;
};

struct store;
struct store_thread;
struct store_rec;

/* A record being put: embed it where the request is. Private. */
struct store_put {
	struct store_rec *rec; /* NULL: none under way */
	uint64_t size;	       /* announced: key and value; or STORE_SIZE_UNKNOWN */
	uint64_t got;
	uint64_t key;
	XXH64_state_t sum;
};

/* Where the pieces of a record's value are: store_rec_first(), store_rec_next(). */
struct store_pieces {
	const void *addr; /* the piece; in the pool or in a log */
	uint32_t len;
	bool in_pool;

	/* private */
	const struct store_rec *rec;
	uint32_t next;
	uint32_t skip;
};

/*
 * Make a store or recover the one that is there. On failure *s is NULL and text
 * has a sentence that says why; nothing was written to files that were refused.
 * Prints a progress line when it takes more than a second and stderr is a terminal.
 */
int store_open(struct store **s, const struct store_opts *o, struct store_report *r, char *text,
	       size_t text_size);
struct store_thread *store_thread(struct store *s, unsigned i);
void store_close(struct store *s);

/* Compare all records with their checksums; r->corrupt is how many do not match. */
void store_verify(struct store *s, struct store_report *r);

/*
 * Visit all records by age, before threads work with the store. A NULL for rec: it
 * does not match its checksum. Returns 0 or -ENOMEM.
 */
int store_walk(struct store *s, void (*visit)(void *arg, uint64_t seq, const struct store_rec *rec),
	       void *arg);

/*
 * A record of klen bytes of key (KV, else 0) and size bytes of value. The key is
 * copied. If begin fails there is nothing to abort. Data of add that lies in the
 * pool stays there and is referred to (it must be in one chunk, and the caller
 * must hold the chunk until store_keep()); other data is copied. After end has
 * returned 0 (a new key) or 1 (replaces one) the record is committed by the next
 * store_commit(); after -EAGAIN call end again; after any other error only abort.
 */
int store_put_begin(struct store_thread *t, struct store_put *p, const void *key, size_t klen,
		    uint64_t size);
int store_put_add(struct store_thread *t, struct store_put *p, const void *data, size_t len);
int store_put_end(struct store_thread *t, struct store_put *p);
void store_put_abort(struct store_thread *t, struct store_put *p);

/*
 * A TREE's key is 8 bytes, big endian. What get returns is held until
 * store_rec_put(), whatever happens to its key. Any thread may do that.
 */
int store_get(struct store_thread *t, const void *key, size_t klen, struct store_rec **rec);
int store_delete(struct store_thread *t, const void *key, size_t klen);
void store_rec_put(struct store_thread *t, struct store_rec *rec);
/* Who holds a record may hold it once more, for another store_rec_put(). */
void store_rec_get(struct store_rec *rec);

/* A KV's key, into a buffer of STORE_KEY_MAX bytes; its length, for other kinds 0. */
size_t store_rec_key(struct store_thread *t, const struct store_rec *rec, char *key);

/* The value: how long, and piece by piece; false after the last. */
uint64_t store_rec_len(const struct store_rec *rec);
bool store_rec_first(struct store_thread *t, const struct store_rec *rec, struct store_pieces *p);
bool store_rec_next(struct store_thread *t, struct store_pieces *p);

/*
 * The end of a batch: what was staged is durable and may be acknowledged. 1 if
 * something that got -EAGAIN may go on now, 0 if not. -errno if it could not be
 * made durable: nothing of it may be acknowledged, and the store accepts nothing more.
 */
int store_commit(struct store_thread *t);
/* To be called before sleeping, after store_commit(): the rest of the cleaning. Results as above. */
int store_idle(struct store_thread *t);

/* Whether store_commit() or store_idle() would have something to do. */
bool store_pending(const struct store_thread *t);

/*
 * A hold of the application on a chunk of its slice ends (all its bytes were
 * added or are not wanted, and no send refers to them). False: fill the chunk. True: a
 * record needs it, the store keeps the hold; store_take_fills() returns it when
 * it is due. At the start the kernel counts one hold of every rx chunk: call
 * store_keep() for each after opening, too.
 */
bool store_keep(struct store_thread *t, uint32_t chunk);
/* Up to n chunks to be filled now, once each; how many. After store_commit() and store_idle(). */
int store_take_fills(struct store_thread *t, uint32_t *chunks, int n);

#endif /* PHTTPD_STORE_H */
