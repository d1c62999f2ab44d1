/* SPDX-License-Identifier: MIT */
/*
 * store_int.h - what the files of the store share
 *
 *      store.c     the directory: files of logs are made, mapped, checked
 *      recover.c   reads the slots of all logs, builds everything in DRAM
 *      record.c    put, get, delete, commit
 *      slots.c     the log: header, slots, chunks, where a record's bytes are
 *      tree.c      index of a TREE              hash.c  index of a KV
 *      store_io.c  durability
 *
 * What is durable
 * ===============
 *
 * A log is a header page, slots, and chunks. Slots and chunks are used in any
 * order; a slot is empty if its sum is 0 and is valid if its sum is right.
 * A record is there if all its slots are. Of several with one key the one with the
 * highest seq counts. The rules that make this enough:
 *
 *  1. A slot or chunk is used again only after the clearing of the slots that
 *     named it was drained. So what a valid slot names is what it named.
 *  2. Slots of the record that is replaced are cleared only after the new one was
 *     drained; the key is not written again before that clearing was drained. So
 *     there are never more than two records of a key, and after the newer one is
 *     cleared there is none.
 *  3. A thread stages in its own log only, and drains before it begins the next batch.
 *     So only records of the last batch in a log can have valid slots but not all
 *     their bytes. (The last batch is that of the highest seq: batch numbers may
 *     wrap.) Recovery compares these with their data_sum, and makes them and all
 *     slots durable before it lets anybody build on them: after a mere kill
 *     of the process they may have been seen in a cache.
 *
 * Who owns what
 * =============
 *
 * A log belongs to the thread (its number mod threads), a pool chunk to the
 * thread whose slice it is in: free lists and counts have no locks. Records that
 * somebody else was the last to use are handed over by a list. The
 * index is shared: a lock per TREE, striped locks for KV. Under the lock a record's
 * state says what may be done (see enum rec_state), so that nothing is durable-waited
 * for, or written, with a lock held.
 */
#ifndef PHTTPD_STORE_INT_H
#define PHTTPD_STORE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "store.h"
#include "store_io.h"

/* ------------------------------------------------------------------------- */
/* On the medium; little endian */

#define LOG_MAGIC   "PHTTPLOG"
#define LOG_VERSION 1
#define LOG_HEADER  4096 /* bytes before the first slot */
#define LOG_CHUNK   4096 /* bytes of a log's own chunks */

struct log_header {
	char magic[8];
	uint32_t version;
	uint32_t kind;	 /* enum store_kind */
	uint64_t id;	 /* of the store: random, the same in all its logs */
	uint32_t number; /* of this log */
	uint32_t logs;	 /* of the store, when this one was made */
	uint32_t n_slots;
	uint32_t n_chunks;
	uint32_t chunk_size;
	uint32_t pool_chunk_size; /* 0: no zero copy */
	uint32_t pool_first_rx;
	uint32_t pool_n_rx;
	uint64_t sum; /* of all before */
};

#define EXT_POOL  0x80000000U /* in chunk: a chunk of the pool, not of the log */
#define SLOT_EXTS 3
#define SLOT_LAST 1 /* in flags: the last part of its record */

struct store_ext {
	uint32_t chunk;
	uint16_t off;
	uint16_t len; /* 0: unused */
};

struct slot {
	uint64_t sum; /* of the rest; 0: empty */
	uint64_t seq; /* of the record; grows over all logs */
	uint64_t key;
	uint64_t data_sum; /* part 0: of all bytes of the record */
	struct store_ext ext[SLOT_EXTS];
	uint32_t batch;
	uint16_t part;
	uint8_t klen;
	uint8_t flags;
};

_Static_assert(sizeof(struct log_header) == 64 && sizeof(struct slot) == 64, "format");

/* ------------------------------------------------------------------------- */
/* In DRAM */

#define NONE 0xffffffffU

enum rec_state {
	REC_STAGED,   /* new, not durable: everybody waits */
	REC_LIVE,     /* may be read, replaced and deleted */
	REC_CLEANING, /* may be read; the one before it is not yet durably gone */
	REC_DELETING  /* not durably gone: everybody waits */
};

/*
 * A record, 64 bytes. Constant once staged, but for next, refs, state and verified.
 * The index has a reference, and so does everybody who reads it.
 */
struct store_rec {
	uint64_t key;		/* TREE: the key; KV: its hash */
	struct store_rec *next; /* in a hash chain, in a WAL by age, or in a free list */
	_Atomic uint32_t refs;
	uint32_t bytes; /* key and value */
	uint32_t n_ext;
	uint32_t slot; /* the first; NONE: has none yet */
	uint16_t log;
	uint8_t klen;
	_Atomic uint8_t state;
	_Atomic uint8_t verified; /* the bytes are known to match data_sum */
	union {
		struct store_ext ext[SLOT_EXTS]; /* if one slot is enough */
		struct {
			struct store_ext *ext;
			uint32_t *slots; /* after the first */
			uint32_t cap;
		} many;
	};
};

_Static_assert(sizeof(struct store_rec) == 64, "a record is a cache line");

/* Of a log or of the pool; only its owner touches it. */
struct chunk {
	uint32_t extents; /* of records in it, staged and unfinished ones too */
	uint32_t next;	  /* in the list of free or of due chunks */
	uint16_t due;	  /* fills that store_take_fills() has to return */
	uint8_t held;	  /* one hold of the application is kept for extents */
	uint8_t owner;	  /* pool: thread; NO_OWNER: in nobody's slice */
};

#define NO_OWNER 255

struct log {
	char *base;
	size_t len;
	int fd;
	struct slot *slots;
	char *data;
	uint32_t number;
	uint32_t logs; /* from its header */
	uint32_t n_slots;
	uint32_t n_chunks;
	uint32_t chunk_size;
	uint32_t batch; /* the one that is being staged */
	uint32_t n_free_slots;
	uint32_t *free_slots; /* a stack */
	struct chunk *chunks;
	uint32_t free_chunk;
	uint32_t n_free_chunks;
	uint32_t open_chunk; /* the one that is being filled, or NONE */
	uint32_t open_off;
	struct store_rec *oldest; /* WAL: all records by age */
	struct store_rec *newest;
};

struct tree {
	struct node *root;
	struct node *free;
	struct node_block *blocks;
};

#define HASH_LOCKS 256

struct hash {
	struct store_rec **buckets;
	uint64_t mask;
};

/* A write under way: stored is new, gone is old; either may be NULL. */
struct op {
	struct store_rec *stored;
	struct store_rec *gone;
};

struct ops {
	struct op *v;
	uint32_t n;
	uint32_t cap;
};

struct store_thread {
	struct store *s;
	unsigned index;
	struct log *log; /* appends here */
	struct store_io io;
	struct ops staged;    /* slots are written; not drained */
	struct ops cleaning;  /* slots of the gone are cleared; not drained */
	uint32_t clean_slots; /* what will be free when that is drained */
	uint32_t clean_exts;
	uint64_t clean_bytes;
	uint32_t kept; /* pool chunks of the slice with extents */
	uint32_t kept_max;
	uint32_t slice_first;
	uint32_t slice_n;
	uint32_t due_chunk; /* list of pool chunks with fills due */
	struct store_rec *free_recs;
	struct rec_block *blocks;
	_Alignas(64) _Atomic(struct store_rec *) handed; /* records to retire, from other threads */
};

struct store {
	struct store_opts opts;
	struct store_pool pool; /* base NULL: none */
	uint64_t id;
	unsigned n_logs;
	struct log *logs;
	struct store_thread *threads;
	struct chunk *pool_chunks; /* from first_rx on */
	_Atomic uint64_t seq;	   /* of the next record */
	atomic_bool failed;	   /* something could not be made durable */
	int dir_fd;		   /* locked against other processes; -1: in memory */
	struct tree tree;
	struct hash hash;
	pthread_rwlock_t tree_lock;
	struct {
		_Alignas(64) pthread_mutex_t lock;
	} hash_locks[HASH_LOCKS];
};

/* store.c: a store without files */
struct store *store_new(const struct store_opts *o, uint64_t id, unsigned n_logs);
int store_start(struct store *s, const struct io_ops *ops, struct store_report *r);

/* slots.c: the log */
void log_layout(struct log_header *h, uint64_t bytes, bool zero_copy);
uint64_t log_bytes(const struct log_header *h);
void log_seal(struct log_header *h);
int log_check(const struct log_header *h, uint64_t bytes, const struct store_opts *o, char *text,
	      size_t text_size);
void log_attach(struct log *l, char *base, size_t bytes, int fd);
uint64_t slot_sum(const struct store *s, const struct log *l, uint32_t i, const struct slot *slot);
bool log_new_chunk(struct log *l);

/* slots.c: records and their bytes */
struct store_rec *rec_new(struct store_thread *t);
void rec_free(struct store_thread *t, struct store_rec *rec);
void rec_free_blocks(struct store_thread *t);
struct store_ext *rec_exts(const struct store_rec *rec);
struct store_ext *rec_add_ext(struct store_rec *rec);
uint32_t rec_n_slots(const struct store_rec *rec);
uint32_t *rec_slot(struct store_rec *rec, uint32_t i);
const char *ext_addr(const struct store *s, const struct store_rec *rec, const struct store_ext *e);
uint64_t rec_sum(const struct store *s, const struct store_rec *rec);
bool rec_verify(struct store *s, struct store_rec *rec);
bool rec_has_key(const struct store *s, const struct store_rec *rec, uint64_t hash, const void *key,
		 size_t klen);
size_t rec_key(const struct store *s, const struct store_rec *rec, char *key);
void rec_write_slots(struct store_thread *t, struct store_rec *rec, uint64_t data_sum);
void rec_clear_slots(struct store_thread *t, struct store_rec *rec);
void rec_retire(struct store_thread *t, struct store_rec *rec);
bool retire_handed(struct store_thread *t);

/* record.c */
void wal_append(struct log *l, struct store_rec *rec);

/* recover.c: what is in the logs becomes the store; a function of their memory */
int store_recover(struct store *s, struct store_report *r);

/* hash.c: the index of either kind; the caller has its lock */
int index_init(struct store *s);
void index_destroy(struct store *s);
void index_lock(struct store *s, uint64_t key, bool write);
void index_unlock(struct store *s, uint64_t key);
struct store_rec *index_find(struct store *s, uint64_t key, const void *bytes, size_t klen);
int index_insert(struct store *s, struct store_rec *rec);
void index_replace(struct store *s, struct store_rec *old, struct store_rec *rec);
void index_remove(struct store *s, struct store_rec *rec);
/* All records of the store, a WAL's too; nobody else may use it meanwhile. */
void index_each(struct store *s, void (*fn)(struct store_rec *rec, void *arg), void *arg);

/* tree.c: the key must be there for find to be not NULL, must not be for insert */
struct store_rec **tree_find(const struct tree *t, uint64_t key);
int tree_insert(struct tree *t, uint64_t key, struct store_rec *rec);
void tree_remove(struct tree *t, uint64_t key);
void tree_each(const struct tree *t, void (*fn)(struct store_rec *rec, void *arg), void *arg);
void tree_destroy(struct tree *t);

#endif /* PHTTPD_STORE_INT_H */
