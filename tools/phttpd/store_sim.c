// SPDX-License-Identifier: MIT
/*
 * store_sim.c - power cuts on simulated persistent memory
 *
 * The store runs in an arena of which there are two images: what the CPU sees,
 * and what is durable. A store makes lines of 64 bytes dirty, a flush schedules
 * what is in them, a drain makes what its thread has scheduled durable. At a
 * cut, every 8 bytes of what is dirty or scheduled survive or not, at random.
 * With zero copy there is a NIC too: what it receives is dirty, and a chunk that is
 * filled is overwritten at once, so that one that is given back too early is
 * noticed.
 *
 * Threads are played by one, step by step, at random. The cut is at a random
 * call of the I/O; the store runs on to the end of what it is doing, but what it does
 * counts no more. Then it is recovered from what has survived, and everything that
 * was acknowledged has to be there. Between cuts a process is killed now and then: then
 * the CPU's image survives, and its dirty lines are still dirty.
 *
 * Mutation: every copy, flush and drain in the store's code has a name. Each is
 * left out in turn (a copy: its flush), and a cut must be found after which something is
 * wrong. Then each drain is put off until its thread's next call is over: as if what
 * follows it had been done before it.
 */
#include <errno.h>
#include <time.h>

#include "store_test.h"

#define CUTS	    10000 /* per kind and mode */
#define MUTANT_CUTS 60000 /* at most, per kind and mode */
#define THREADS	    3
#define SESSIONS    3 /* puts under way per thread */
#define HOLDS	    3 /* records held by readers */
#define KEYS	    14
#define VALUE_MAX   1300
#define POOL_CHUNK  256
#define POOL_SLICE  40 /* rx chunks per thread */
#define LINE	    64
#define ARENA_MAX   (256 * 1024)
#define LINES_MAX   (ARENA_MAX / LINE)
#define PENDING_MAX 8192
#define WAL_MAX	    4096 /* records that are remembered */

extern const char *const __start_io_sites[];
extern const char *const __stop_io_sites[];
const char *const *io_site;

/* ------------------------------------------------------------------------- */
/* The memory */

static _Alignas(4096) unsigned char image[ARENA_MAX];
static _Alignas(4096) unsigned char durable[ARENA_MAX];
static _Alignas(4096) unsigned char survived[ARENA_MAX];

struct pending {
	uint32_t line;
	uint64_t time;
	unsigned char bytes[LINE];
};

static struct {
	size_t size;
	bool dirty[LINES_MAX];
	uint64_t time[LINES_MAX]; /* of the flush that made the line durable */
	uint32_t dirty_lines[LINES_MAX];
	uint32_t n_dirty;
	uint64_t clock;
	struct pending pending[THREADS][PENDING_MAX];
	uint32_t n_pending[THREADS];
	uint32_t n_late[THREADS];  /* of these: drained, but late: */
	uint32_t late_in[THREADS]; /* after so many events of the thread */
	uint64_t events;
	uint64_t cut_at;
	bool cut;
	const char *const *without; /* the call that is left out */
	const char *const *late;    /* the drain that is late */
	bool failed;
	bool quiet;
	const char *where;
} sim;

static void fault(const char *what)
{
	if (!sim.failed && !sim.quiet)
		printf("# %s: %s\n", sim.where, what);
	sim.failed = true;
}

static void make_dirty(const void *addr, size_t len)
{
	size_t line = (size_t)((const unsigned char *)addr - image) / LINE;
	size_t last = (size_t)((const unsigned char *)addr - image + len - 1) / LINE;

	for (; len && line <= last; line++) {
		if (sim.dirty[line])
			continue;
		sim.dirty[line] = true;
		sim.dirty_lines[sim.n_dirty++] = line;
	}
}

static void settle(unsigned thread, uint32_t n)
{
	struct pending *p = sim.pending[thread];
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (p[i].time < sim.time[p[i].line])
			continue;
		sim.time[p[i].line] = p[i].time;
		memcpy(durable + (size_t)p[i].line * LINE, p[i].bytes, LINE);
	}
	sim.n_pending[thread] -= n;
	sim.n_late[thread] = 0;
	memmove(p, p + n, sim.n_pending[thread] * sizeof(*p));
}

/* Each 8 bytes by chance; chance is of 4. */
static void survive(unsigned char *to, const unsigned char *from, uint32_t chance)
{
	int i;

	for (i = 0; i < LINE; i += 8)
		if (below(4) < chance)
			memcpy(to + i, from + i, 8);
}

static void freeze_model(void);

static void take_cut(void)
{
	static const uint32_t chances[] = { 0, 1, 2, 2, 3, 4 };
	uint32_t chance = chances[below(ARRAY_SIZE(chances))], i;
	const struct pending *p;
	unsigned t;

	memcpy(survived, durable, sim.size);
	for (t = 0; t < THREADS; t++)
		for (i = 0; i < sim.n_pending[t]; i++) {
			p = &sim.pending[t][i];
			if (p->time >= sim.time[p->line])
				survive(survived + (size_t)p->line * LINE, p->bytes, chance);
		}
	for (i = 0; i < sim.n_dirty; i++)
		survive(survived + (size_t)sim.dirty_lines[i] * LINE,
			image + (size_t)sim.dirty_lines[i] * LINE, chance);
	sim.cut = true;
	freeze_model();
}

static unsigned thread_of(struct store_io *io)
{
	return ((struct store_thread *)((char *)io - offsetof(struct store_thread, io)))->index;
}

static void event(struct store_io *io)
{
	unsigned t = thread_of(io);

	if (++sim.events == sim.cut_at)
		take_cut();
	if (sim.n_late[t] && !--sim.late_in[t])
		settle(t, sim.n_late[t]);
}

static void schedule(unsigned t, const void *addr, size_t len)
{
	size_t line = (size_t)((const unsigned char *)addr - image) / LINE;
	size_t last = (size_t)((const unsigned char *)addr - image + len - 1) / LINE;
	struct pending *p;

	for (; len && line <= last; line++) {
		if (!sim.dirty[line])
			continue;
		if (sim.n_pending[t] == PENDING_MAX)
			settle(t, 1);
		p = &sim.pending[t][sim.n_pending[t]++];
		p->line = line;
		p->time = ++sim.clock;
		memcpy(p->bytes, image + line * LINE, LINE);
	}
}

static void sim_copy(struct store_io *io, void *dst, const void *src, size_t len)
{
	event(io);
	memcpy(dst, src, len);
	make_dirty(dst, len);
	if (io_site != sim.without)
		schedule(thread_of(io), dst, len);
}

static void sim_store(struct store_io *io, uint64_t *dst, uint64_t value)
{
	event(io);
	*dst = value;
	make_dirty(dst, sizeof(*dst));
}

static void sim_flush(struct store_io *io, const void *addr, size_t len)
{
	event(io);
	if (io_site != sim.without)
		schedule(thread_of(io), addr, len);
}

static int sim_drain(struct store_io *io)
{
	unsigned t = thread_of(io);

	event(io);
	if (io_site == sim.late) {
		sim.n_late[t] = sim.n_pending[t];
		sim.late_in[t] = 2;
	} else if (io_site != sim.without)
		settle(t, sim.n_pending[t]);
	return 0;
}

static const struct io_ops io_sim = { sim_copy, sim_store, sim_flush, sim_drain };

/* What the CPU sees is what is durable. */
static void all_clean(void)
{
	memset(sim.dirty, 0, sizeof(sim.dirty));
	memset(sim.n_pending, 0, sizeof(sim.n_pending));
	memset(sim.n_late, 0, sizeof(sim.n_late));
	sim.n_dirty = 0;
	memcpy(durable, image, sim.size);
}

/* Lines that are durable now are dirty no more. */
static void forget_clean_lines(void)
{
	uint32_t i, n = 0, line;

	for (i = 0; i < sim.n_dirty; i++) {
		line = sim.dirty_lines[i];
		if (memcmp(image + (size_t)line * LINE, durable + (size_t)line * LINE, LINE))
			sim.dirty_lines[n++] = line;
		else
			sim.dirty[line] = false;
	}
	sim.n_dirty = n;
}

/* ------------------------------------------------------------------------- */
/* What must be there */

struct value {
	bool present;
	uint64_t id;
	uint32_t len;
};

enum change {
	UNCHANGED,
	PUT,
	DELETE
};

struct key {
	size_t len;
	unsigned char bytes[STORE_KEY_MAX];
	struct value acked;
	enum change change; /* staged, not acknowledged */
	struct value changed;
	unsigned thread; /* by this one */
};

struct wal_record {
	uint64_t id;
	uint32_t len;
	unsigned thread;
	bool acked;
	bool must_be_there; /* at the cut: not evicted either */
};

struct session {
	struct store_put put;
	bool active;
	bool complete; /* waits for its key */
	unsigned key;
	uint64_t id;
	uint32_t len;
	uint32_t pos;
};

struct hold {
	struct store_rec *rec;
	const struct key *key;
	unsigned thread;
	uint64_t id;
	uint32_t len;
};

static struct {
	struct store_opts o;
	struct store_pool pool;
	struct memory_layout layout;
	uint32_t slice_first[THREADS];
	uint32_t slice_n[THREADS];
	struct store *s;
	struct key keys[KEYS];
	struct wal_record wal[WAL_MAX];
	uint32_t n_wal;
	struct session sessions[THREADS][SESSIONS];
	struct hold holds[HOLDS];
	uint64_t next_id;
	bool full; /* ENOSPC was seen */
	uint32_t gets, puts, deletes, waits, fulls;
	/* the module: counts of holds, and the chunk that is being received into */
	uint32_t app[THREADS * POOL_SLICE + 1];
	uint32_t rx_chunk[THREADS];
	uint32_t rx_off[THREADS];
} m;

static struct store_thread *thread(unsigned t)
{
	return store_thread(m.s, t);
}

static void value_bytes(const struct key *key, uint64_t id, unsigned char *p, uint32_t len)
{
	make_bytes(id, p, len);
	if (m.o.kind == STORE_TREE)
		memcpy(p, key->bytes, 8);
	else if (m.o.kind == STORE_WAL)
		memcpy(p, &id, 8);
}

static bool has_value(struct store_rec *rec, const struct key *key, uint64_t id, uint32_t len)
{
	unsigned char want[VALUE_MAX], got[VALUE_MAX];
	struct store_pieces p;
	uint32_t n = 0;
	bool more;

	if (store_rec_len(rec) != len)
		return false;
	for (more = store_rec_first(thread(0), rec, &p); more;
	     more = store_rec_next(thread(0), &p)) {
		memcpy(got + n, p.addr, p.len);
		n += p.len;
	}
	value_bytes(key, id, want, len);
	return n == len && !memcmp(got, want, len);
}

static struct wal_record *wal_find(uint64_t id)
{
	uint32_t i;

	for (i = 0; i < m.n_wal; i++)
		if (m.wal[i].id == id)
			return &m.wal[i];
	return NULL;
}

static uint64_t wal_id(struct store_rec *rec)
{
	struct store_pieces p;
	unsigned char bytes[8];
	uint32_t n = 0, i;
	bool more = store_rec_first(thread(0), rec, &p);
	uint64_t id;

	for (; more && n < 8; more = store_rec_next(thread(0), &p))
		for (i = 0; i < p.len && n < 8; i++)
			bytes[n++] = ((const unsigned char *)p.addr)[i];
	memcpy(&id, bytes, 8);
	return n == 8 ? id : 0;
}

/* At the cut: with --wrap the store may be about to drop some. */
static void mark_wal(struct store_rec *rec, void *arg)
{
	struct wal_record *w = wal_find(wal_id(rec));

	(void)arg;
	if (w)
		w->must_be_there = w->acked;
}

static void freeze_model(void)
{
	uint32_t i;

	for (i = 0; i < m.n_wal; i++)
		m.wal[i].must_be_there = m.wal[i].acked && !m.o.wrap;
	if (m.o.kind == STORE_WAL && m.o.wrap && m.s)
		index_each(m.s, mark_wal, NULL);
}

/* ------------------------------------------------------------------------- */
/* The NIC and the module */

static void scribble(uint32_t chunk)
{
	unsigned char *p = (unsigned char *)m.pool.base + (size_t)chunk * POOL_CHUNK;

	make_bytes(random64(), p, POOL_CHUNK);
	make_dirty(p, POOL_CHUNK);
}

static void chunk_fill(uint32_t chunk)
{
	if (!m.app[chunk]) {
		fault("a chunk was filled that the application does not hold");
		return;
	}
	if (!--m.app[chunk])
		scribble(chunk);
}

static void hold_ends(unsigned t, uint32_t chunk)
{
	if (!store_keep(thread(t), chunk))
		chunk_fill(chunk);
}

static void take_fills(unsigned t)
{
	uint32_t chunks[7];
	int i, n;

	while (m.o.pool && (n = store_take_fills(thread(t), chunks, ARRAY_SIZE(chunks))))
		for (i = 0; i < n; i++)
			chunk_fill(chunks[i]);
}

/* A chunk to receive len bytes into: the last one if it has room, sometimes. */
static uint32_t chunk_receive(unsigned t, uint32_t len, uint32_t *off)
{
	uint32_t i, chunk, start = below(m.slice_n[t]);

	chunk = m.rx_chunk[t];
	if (chunk && m.app[chunk] && m.rx_off[t] + len <= POOL_CHUNK && below(2)) {
		m.app[chunk]++;
		*off = m.rx_off[t];
		m.rx_off[t] += len;
		return chunk;
	}
	for (i = 0; i < m.slice_n[t]; i++) {
		chunk = m.slice_first[t] + (start + i) % m.slice_n[t];
		if (m.app[chunk])
			continue;
		m.app[chunk] = 1;
		*off = below(POOL_CHUNK - len + 1);
		m.rx_chunk[t] = chunk;
		m.rx_off[t] = *off + len;
		return chunk;
	}
	return NONE;
}

/* The data of a session as it comes: from the NIC, or from a buffer. */
static int receive(unsigned t, struct session *se, const unsigned char *bytes, uint32_t len)
{
	unsigned char *data;
	uint32_t chunk, off;
	int err;

	if (!m.o.pool || below(16) == 0)
		return store_put_add(thread(t), &se->put, bytes, len);
	chunk = chunk_receive(t, len, &off);
	if (chunk == NONE)
		return -ENOSPC;
	data = (unsigned char *)m.pool.base + (size_t)chunk * POOL_CHUNK + off;
	memcpy(data, bytes, len);
	make_dirty(data, len);
	err = store_put_add(thread(t), &se->put, data, len);
	hold_ends(t, chunk);
	return err;
}

/* ------------------------------------------------------------------------- */
/* Steps */

static void session_drop(unsigned t, struct session *se)
{
	store_put_abort(thread(t), &se->put);
	se->active = false;
}

static void session_begin(unsigned t, struct session *se)
{
	static const uint32_t sizes[] = { 30, 200, 600, VALUE_MAX };
	uint32_t min = m.o.kind == STORE_KV ? 0 : 8;
	struct key *key;
	int err;

	se->key = below(KEYS);
	key = &m.keys[se->key];
	se->id = m.next_id++;
	se->len = min + below(sizes[below(ARRAY_SIZE(sizes))] - min);
	se->pos = 0;
	se->complete = false;
	err = store_put_begin(thread(t), &se->put, key->bytes, m.o.kind == STORE_KV ? key->len : 0,
			      se->len);
	if (err == -ENOSPC)
		m.full = true;
	else if (err)
		fault("put_begin failed");
	se->active = !err;
}

static void session_add(unsigned t, struct session *se)
{
	unsigned char bytes[VALUE_MAX];
	uint32_t n = se->len - se->pos;
	int err;

	value_bytes(&m.keys[se->key], se->id, bytes, se->len);
	if (n > POOL_CHUNK)
		n = POOL_CHUNK;
	n = 1 + below(n);
	err = receive(t, se, bytes + se->pos, n);
	se->pos += n;
	if (err == -ENOSPC) {
		m.full = true;
		session_drop(t, se);
	} else if (err) {
		fault("put_add failed");
	}
}

/* A change is known to the model before the store can have begun it. */
static void change_begin(unsigned t, struct key *key, enum change change, uint64_t id, uint32_t len)
{
	key->change = change;
	key->changed = (struct value){ change == PUT, id, len };
	key->thread = t;
}

static void session_end_wal(unsigned t, struct session *se)
{
	struct wal_record *w = &m.wal[m.n_wal++];
	int err;

	*w = (struct wal_record){ se->id, se->len, t, false, false };
	err = store_put_end(thread(t), &se->put);
	if (sim.cut)
		return;
	se->active = false;
	if (!err)
		return;
	m.n_wal--;
	m.full = true;
	if (err != -ENOSPC)
		fault("put_end failed");
	session_drop(t, se);
}

static void session_end(unsigned t, struct session *se)
{
	struct key *key = &m.keys[se->key];
	bool busy = key->change != UNCHANGED;
	int err;

	if (!busy)
		change_begin(t, key, PUT, se->id, se->len);
	err = store_put_end(thread(t), &se->put);
	if (sim.cut)
		return;
	if (err == 0 || err == 1) {
		se->active = false;
		if (busy || key->acked.present != err)
			fault("put_end was not to succeed so");
		return;
	}
	if (!busy)
		key->change = UNCHANGED;
	if (err == -EAGAIN) {
		se->complete = true;
		m.waits++;
		return;
	}
	if (err == -ENOSPC)
		m.full = true;
	else
		fault("put_end failed");
	session_drop(t, se);
}

static void step_put(unsigned t)
{
	struct session *se = &m.sessions[t][below(SESSIONS)];

	if (!se->active)
		session_begin(t, se);
	else if (se->pos < se->len)
		session_add(t, se);
	else if (below(40) == 0)
		session_drop(t, se);
	else if (m.o.kind == STORE_WAL)
		session_end_wal(t, se);
	else
		session_end(t, se);
	m.puts++;
}

static void step_delete(unsigned t)
{
	struct key *key = &m.keys[below(KEYS)];
	bool busy = key->change != UNCHANGED;
	int err;

	if (m.o.kind == STORE_WAL)
		return;
	if (!busy)
		change_begin(t, key, DELETE, 0, 0);
	err = store_delete(thread(t), key->bytes, key->len);
	if (sim.cut)
		return;
	if (err && !busy)
		key->change = UNCHANGED;
	if (err == 0	   ? busy || !key->acked.present :
	    err == -ENOENT ? busy || key->acked.present :
			     err != -EAGAIN)
		fault("delete was not to end so");
	m.deletes++;
}

static void hold_end(struct hold *h)
{
	if (!has_value(h->rec, h->key, h->id, h->len))
		fault("a record has changed while it was held");
	store_rec_put(thread(h->thread), h->rec);
	h->rec = NULL;
}

static void step_get(unsigned t)
{
	struct key *key = &m.keys[below(KEYS)];
	struct hold *h = &m.holds[below(HOLDS)];
	struct store_rec *rec;
	int err;

	if (m.o.kind == STORE_WAL)
		return;
	if (h->rec) {
		hold_end(h);
		return;
	}
	err = store_get(thread(t), key->bytes, key->len, &rec);
	m.gets++;
	if (key->change != UNCHANGED ? err != -EAGAIN : err != (key->acked.present ? 0 : -ENOENT)) {
		fault("get was not to end so");
		return;
	}
	if (err)
		return;
	if (!has_value(rec, key, key->acked.id, key->acked.len))
		fault("get has found another value");
	*h = (struct hold){ rec, key, t, key->acked.id, key->acked.len };
}

static void acknowledge(unsigned t)
{
	uint32_t i;

	for (i = 0; i < KEYS; i++) {
		if (m.keys[i].change == UNCHANGED || m.keys[i].thread != t)
			continue;
		m.keys[i].acked = m.keys[i].changed;
		m.keys[i].change = UNCHANGED;
	}
	for (i = 0; i < m.n_wal; i++)
		if (m.wal[i].thread == t)
			m.wal[i].acked = true;
}

static void step_commit(unsigned t)
{
	if (store_commit(thread(t)) < 0)
		fault("commit failed");
	if (sim.cut)
		return;
	acknowledge(t);
	take_fills(t);
	if (below(4) == 0)
		store_idle(thread(t));
	if (sim.cut)
		return;
	take_fills(t);
	forget_clean_lines();
}

/* ------------------------------------------------------------------------- */
/* Recovery */

static void check_key(struct key *key)
{
	struct store_rec *rec;
	struct value got = { false, 0, 0 };
	bool is_acked, is_changed;
	int err = store_get(thread(0), key->bytes, key->len, &rec);

	if (err && err != -ENOENT) {
		fault(err == -EIO ? "a record is corrupt" : "get failed after recovery");
		return;
	}
	is_acked = err ? !key->acked.present :
			 key->acked.present && has_value(rec, key, key->acked.id, key->acked.len);
	is_changed = key->change != UNCHANGED &&
		     (err ? !key->changed.present :
			    key->changed.present &&
				      has_value(rec, key, key->changed.id, key->changed.len));
	if (is_acked)
		got = key->acked;
	else if (is_changed)
		got = key->changed;
	else
		fault(err ? "an acknowledged record is lost" : "a wrong value is there");
	if (!err)
		store_rec_put(thread(0), rec);
	key->acked = got;
	key->change = UNCHANGED;
}

static uint32_t wal_seen;

static void check_wal_record(struct store_rec *rec, void *arg)
{
	struct wal_record *w = wal_find(wal_id(rec));

	(void)arg;
	if (!w || !has_value(rec, NULL, w->id, w->len)) {
		fault("a record is there that was not stored");
		return;
	}
	if (!rec_verify(m.s, rec))
		fault("a record is corrupt");
	w->must_be_there = false;
	w->acked = true;
	w->thread = THREADS; /* seen */
	wal_seen++;
}

static void check_wal(void)
{
	uint32_t i, n = 0;

	wal_seen = 0;
	for (i = 0; i < m.n_wal; i++)
		m.wal[i].thread = 0;
	index_each(m.s, check_wal_record, NULL);
	for (i = 0; i < m.n_wal; i++) {
		if (m.wal[i].must_be_there)
			fault("an acknowledged record is lost");
		if (m.wal[i].thread == THREADS)
			m.wal[n++] = m.wal[i];
	}
	if (n != wal_seen)
		fault("a record is there twice");
	m.n_wal = n;
}

/* All rx chunks are the application's, so each is kept or filled. */
static void start_nic(void)
{
	uint32_t t, i;

	memset(m.app, 0, sizeof(m.app));
	for (t = 0; m.o.pool && t < m.o.threads; t++) {
		m.rx_chunk[t] = 0;
		for (i = 0; i < m.slice_n[t]; i++) {
			m.app[m.slice_first[t] + i] = 1;
			hold_ends(t, m.slice_first[t] + i);
		}
	}
}

static void close_store(void)
{
	memset(m.sessions, 0, sizeof(m.sessions));
	memset(m.holds, 0, sizeof(m.holds));
	store_close(m.s);
	m.s = NULL;
}

/* As many threads as there are logs, or fewer; all of the pool is theirs, or not. */
static void choose_threads(void)
{
	uint32_t n = THREADS * POOL_SLICE, t;

	m.o.threads = below(2) ? THREADS : 1 + below(THREADS);
	for (t = 0; t < m.o.threads; t++) {
		m.slice_n[t] = below(4) ? n / m.o.threads : POOL_SLICE;
		m.slice_first[t] = 1 + t * (n / m.o.threads);
	}
}

static void recover(void)
{
	struct store_report r;
	uint32_t i;

	choose_threads();
	m.s = memory_open(&m.layout, &m.o, (char *)image, &io_sim, &r);
	if (!m.s) {
		fault("recovery failed");
		return;
	}
	if (sim.cut)
		return;
	if (!space_is_whole(m.s))
		fault("slots or chunks are lost or used twice");
	for (i = 0; i < KEYS && m.o.kind != STORE_WAL; i++)
		check_key(&m.keys[i]);
	if (m.o.kind == STORE_WAL)
		check_wal();
	start_nic();
}

static void power_cut(void)
{
	do {
		close_store();
		memcpy(image, survived, sim.size);
		all_clean();
		sim.cut = false;
		/* Recovery itself is cut now and then. */
		sim.cut_at = below(4) ? 0 : sim.events + 1 + below(12);
		recover();
	} while (sim.cut && !sim.failed);
}

/* The process is killed: caches survive, but nobody drains what it has flushed. */
static void process_kill(void)
{
	freeze_model();
	close_store();
	memset(sim.n_pending, 0, sizeof(sim.n_pending));
	memset(sim.n_late, 0, sizeof(sim.n_late));
	recover();
}

static void step(void)
{
	unsigned t = below(m.o.threads), what = below(100);

	if (below(150) == 0)
		process_kill();
	else if (what < 60)
		step_put(t);
	else if (what < 70)
		step_delete(t);
	else if (what < 82)
		step_get(t);
	else
		step_commit(t);
}

/* Everything ends in an orderly way: then nothing may be missing. */
static void quiesce(void)
{
	unsigned t, i;

	for (t = 0; t < THREADS; t++)
		for (i = 0; i < SESSIONS; i++)
			if (m.sessions[t][i].active)
				session_drop(t, &m.sessions[t][i]);
	for (i = 0; i < HOLDS; i++)
		if (m.holds[i].rec)
			hold_end(&m.holds[i]);
	/* More than once: a record may go from owner to owner. */
	for (i = 0; i < 8 * m.o.threads && !sim.cut; i++) {
		t = i % m.o.threads;
		if (i < m.o.threads)
			step_commit(t);
		if (!sim.cut)
			store_idle(thread(t));
		take_fills(t);
	}
	if (!sim.cut && !space_is_whole(m.s))
		fault("slots or chunks are lost or used twice at the end");
	for (i = 0; !sim.cut && i < m.pool.n_rx; i++)
		if (m.app[m.pool.first_rx + i] != m.s->pool_chunks[i].held)
			fault("a hold of a chunk is lost");
}

/* ------------------------------------------------------------------------- */
/* Runs */

static void make_keys(void)
{
	uint32_t i;

	memset(m.keys, 0, sizeof(m.keys));
	for (i = 0; i < KEYS; i++) {
		m.keys[i].len = m.o.kind == STORE_TREE ? 8 : i == 0 ? 255 : 1 + below(40);
		make_bytes(1000 + i, m.keys[i].bytes, m.keys[i].len);
		m.keys[i].bytes[0] = i;
	}
}

/* A new, empty store. */
static void format(enum store_kind kind, bool zero_copy, bool wrap)
{
	if (m.s)
		close_store();
	memset(&m, 0, sizeof(m));
	m.next_id = 1;
	m.layout = (struct memory_layout){ THREADS, 48, zero_copy ? 12 : 40, 512 };
	m.o = (struct store_opts){ .kind = kind, .threads = THREADS, .wrap = wrap };
	sim.size = THREADS * memory_log_bytes(&m.layout);
	if (zero_copy) {
		m.pool = (struct store_pool){ (char *)image + sim.size, POOL_CHUNK,    1,
					      THREADS * POOL_SLICE,	m.slice_first, m.slice_n };
		m.o.pool = &m.pool;
		sim.size += (1 + THREADS * POOL_SLICE) * POOL_CHUNK;
	}
	make_keys();
	memory_format(&m.layout, &m.o, (char *)image);
	all_clean();
	sim.cut = false;
	sim.cut_at = 0;
	recover();
}

/* Until the cut, or until the store is full, or something is wrong. */
static void run_to_cut(void)
{
	sim.cut_at = sim.events + 1 + below(200);
	while (!sim.cut && !sim.failed) {
		step();
		if (m.full) {
			m.fulls++;
			m.full = false;
			if (m.o.kind == STORE_WAL)
				sim.cut_at = sim.events + 1;
			step_commit(below(m.o.threads));
		}
	}
}

static bool run_cuts(enum store_kind kind, bool zero_copy, bool wrap, uint32_t cuts)
{
	uint32_t i;

	sim.failed = false;
	format(kind, zero_copy, wrap);
	for (i = 0; i < cuts && !sim.failed; i++) {
		if (below(8) == 0)
			quiesce();
		run_to_cut();
		if (!sim.failed)
			power_cut();
		/* A log that is full stays so. */
		if (!sim.failed && kind == STORE_WAL && !wrap && below(2))
			format(kind, zero_copy, wrap);
	}
	if (m.s)
		close_store();
	return !sim.failed;
}

struct mode {
	enum store_kind kind;
	bool zero_copy;
	bool wrap;
	const char *name;
};

static const struct mode modes[] = {
	{ STORE_WAL, false, false, "log, copy" },
	{ STORE_WAL, true, false, "log, zero copy" },
	{ STORE_WAL, false, true, "log, copy, wrap" },
	{ STORE_WAL, true, true, "log, zero copy, wrap" },
	{ STORE_TREE, false, false, "B+tree, copy" },
	{ STORE_TREE, true, false, "B+tree, zero copy" },
	{ STORE_KV, false, false, "key-value, copy" },
	{ STORE_KV, true, false, "key-value, zero copy" },
};

static void test_cuts(uint32_t cuts)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		sim.where = modes[i].name;
		result(run_cuts(modes[i].kind, modes[i].zero_copy, modes[i].wrap, cuts),
		       "%u power cuts, %s", cuts, modes[i].name);
	}
}

/* Is there a cut that shows the mutation? A few in each mode first, then more. */
static bool mutation_is_caught(void)
{
	uint32_t cuts, i;

	for (cuts = 100; cuts <= MUTANT_CUTS; cuts *= 10)
		for (i = ARRAY_SIZE(modes); i-- > 0;)
			if (!run_cuts(modes[i].kind, modes[i].zero_copy, modes[i].wrap, cuts))
				return true;
	return false;
}

static void test_mutations(void)
{
	const char *const *site;
	unsigned caught = 0, n = 0, late = 0, n_late = 0;

	sim.quiet = true;
	for (site = __start_io_sites; site < __stop_io_sites; site++, n++) {
		sim.without = site;
		if (mutation_is_caught())
			caught++;
		else
			printf("# not caught without: %s\n", *site);
	}
	sim.without = NULL;
	for (site = __start_io_sites; site < __stop_io_sites; site++) {
		if (strncmp(*site, "drain", 5))
			continue;
		n_late++;
		sim.late = site;
		if (mutation_is_caught())
			late++;
		else
			printf("# not caught when late: %s\n", *site);
	}
	sim.late = NULL;
	sim.quiet = false;
	result(caught == n && n, "%u flushes and drains, %s caught when removed", n,
	       caught == n ? "each" : "not each");
	result(late == n_late, "%u drains, %s caught when late", n_late,
	       late == n_late ? "each" : "not each");
}

int main(int argc, char **argv)
{
	test_cuts(argc > 1 ? (uint32_t)atoi(argv[1]) : CUTS);
	test_mutations();
	return results();
}
