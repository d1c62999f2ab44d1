// SPDX-License-Identifier: MIT
/*
 * store.c - the directory of a store: its files are made, mapped and checked
 *
 * Logs that are made are written as log.N.new, all of them, and only then get
 * their names, the highest number first. Each log's header says how many logs there
 * are when all of these have their names. So after a crash in between: if
 * a log that has its name says so, the missing ones are complete under their .new
 * names; if none does, the .new ones are of no use to anybody. And a log that is
 * missing for another reason is missed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_int.h"

#define LOGS_MAX      1024
#define LOG_BYTES_MIN 65536
#define LOG_BYTES_MAX (1ULL << 37) /* slots are numbered with 32 bits */
#define NAME_BYTES    32

/* Opening, until it is known whether that works. */
struct opening {
	const struct store_opts *o;
	char *text;
	size_t text_size;
	int dir_fd;
	struct store *s;
	unsigned n_logs; /* with their names */
	bool is_pmem;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct opening *op, int err,
							const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(op->text, op->text_size, fmt, args);
	va_end(args);
	return err;
}

/* ------------------------------------------------------------------------- */
/* In memory */

static uint32_t keep_at_most(uint32_t chunks)
{
	uint32_t reserve = chunks / 4 < 512 ? chunks / 4 : 512;

	if (reserve < chunks / 8)
		reserve = chunks / 8;
	return chunks - reserve;
}

static void init_slice(struct store *s, struct store_thread *t)
{
	uint32_t i;

	if (!s->pool.base)
		return;
	t->slice_first = s->pool.slice_first[t->index];
	t->slice_n = s->pool.slice_n[t->index];
	t->kept_max = keep_at_most(t->slice_n);
	for (i = 0; i < t->slice_n; i++)
		s->pool_chunks[t->slice_first - s->pool.first_rx + i].owner = t->index;
}

static int init_pool(struct store *s)
{
	uint32_t i;

	if (!s->opts.pool)
		return 0;
	s->pool = *s->opts.pool;
	s->pool_chunks = calloc(s->pool.n_rx, sizeof(*s->pool_chunks));
	if (!s->pool_chunks)
		return -ENOMEM;
	for (i = 0; i < s->pool.n_rx; i++)
		s->pool_chunks[i].owner = NO_OWNER;
	return 0;
}

/* Without logs yet; NULL: no memory. */
struct store *store_new(const struct store_opts *o, uint64_t id, unsigned n_logs)
{
	struct store *s = aligned_alloc(64, sizeof(*s));
	unsigned i;

	if (!s)
		return NULL;
	memset(s, 0, sizeof(*s));
	s->opts = *o;
	s->id = id;
	s->n_logs = n_logs;
	s->dir_fd = -1;
	s->seq = 1;
	pthread_rwlock_init(&s->tree_lock, NULL);
	for (i = 0; i < HASH_LOCKS; i++)
		pthread_mutex_init(&s->hash_locks[i].lock, NULL);
	s->logs = calloc(n_logs, sizeof(*s->logs));
	s->threads = aligned_alloc(64, o->threads * sizeof(*s->threads));
	if (!s->logs || !s->threads || init_pool(s)) {
		free(s->logs);
		free(s->threads);
		free(s);
		return NULL;
	}
	memset(s->threads, 0, o->threads * sizeof(*s->threads));
	for (i = 0; i < o->threads; i++) {
		s->threads[i].s = s;
		s->threads[i].index = i;
		s->threads[i].log = i < n_logs ? &s->logs[i] : NULL;
		s->threads[i].due_chunk = NONE;
		init_slice(s, &s->threads[i]);
	}
	return s;
}

static int init_log(struct log *l)
{
	l->free_slots = malloc((size_t)l->n_slots * sizeof(*l->free_slots));
	l->chunks = calloc(l->n_chunks ? l->n_chunks : 1, sizeof(*l->chunks));
	return l->free_slots && l->chunks ? 0 : -ENOMEM;
}

static int init_io(struct store *s, struct store_io *io, const struct io_ops *ops)
{
	unsigned i;

	io->ops = ops;
	io->datasync = s->opts.datasync;
	io->no_flush = s->opts.no_flush;
	io->n_files = s->n_logs;
	io->files = calloc(s->n_logs, sizeof(*io->files));
	if (!io->files)
		return -ENOMEM;
	for (i = 0; i < s->n_logs; i++)
		io->files[i] = (struct io_file){
			.base = s->logs[i].base,
			.len = s->logs[i].len,
			.fd = s->logs[i].fd,
		};
	return 0;
}

/* All logs are attached. */
int store_start(struct store *s, const struct io_ops *ops, struct store_report *r)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < s->n_logs && !err; i++)
		err = init_log(&s->logs[i]);
	for (i = 0; i < s->opts.threads && !err; i++)
		err = init_io(s, &s->threads[i].io, ops);
	return err ? err : store_recover(s, r);
}

struct store_thread *store_thread(struct store *s, unsigned i)
{
	return &s->threads[i];
}

static void close_log(struct log *l)
{
	if (l->fd >= 0) {
		pmem_unmap(l->base, l->len);
		close(l->fd);
	}
	free(l->free_slots);
	free(l->chunks);
}

void store_close(struct store *s)
{
	unsigned i;

	for (i = 0; i < s->opts.threads; i++) {
		free(s->threads[i].staged.v);
		free(s->threads[i].cleaning.v);
		free(s->threads[i].io.files);
		rec_free_blocks(&s->threads[i]);
	}
	for (i = 0; i < s->n_logs; i++)
		close_log(&s->logs[i]);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	index_destroy(s);
	pthread_rwlock_destroy(&s->tree_lock);
	for (i = 0; i < HASH_LOCKS; i++)
		pthread_mutex_destroy(&s->hash_locks[i].lock);
	free(s->pool_chunks);
	free(s->logs);
	free(s->threads);
	free(s);
}

/* ------------------------------------------------------------------------- */
/* Files */

static void log_name(char *name, unsigned i, bool fresh)
{
	snprintf(name, NAME_BYTES, "log.%u%s", i, fresh ? ".new" : "");
}

static bool file_exists(struct opening *op, const char *name)
{
	return !faccessat(op->dir_fd, name, F_OK, 0);
}

/* The header of a file, zeroes where there is none, and its length; 0 or an errno. */
static int read_header(struct opening *op, const char *name, struct log_header *h, uint64_t *bytes)
{
	int fd = openat(op->dir_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;
	int err;

	memset(h, 0, sizeof(*h));
	*bytes = 0;
	if (fd < 0)
		return errno;
	n = fstat(fd, &st) ? -1 : pread(fd, h, sizeof(*h), 0);
	err = n < 0 ? errno : 0;
	if (!err)
		*bytes = (uint64_t)st.st_size;
	close(fd);
	return err;
}

static int check_file(struct opening *op, const char *name, struct log_header *h)
{
	char why[200];
	uint64_t bytes;
	int err = read_header(op, name, h, &bytes);

	if (err)
		return refuse(op, -err, "%s/%s: %s", op->o->dir, name, strerror(err));
	if (log_check(h, bytes, op->o, why, sizeof(why)))
		return refuse(op, -EINVAL, "%s/%s %s", op->o->dir, name, why);
	return 0;
}

/* The highest number of a log.N, plus 1. */
static int count_logs(struct opening *op)
{
	int fd = openat(op->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char name[NAME_BYTES];
	struct dirent *d;
	unsigned i;

	if (!dir)
		return refuse(op, -errno, "%s: %s", op->o->dir, strerror(errno));
	while ((d = readdir(dir))) {
		if (sscanf(d->d_name, "log.%u", &i) != 1 || i >= LOGS_MAX)
			continue;
		log_name(name, i, false);
		if (!strcmp(name, d->d_name) && i >= op->n_logs)
			op->n_logs = i + 1;
	}
	closedir(dir);
	return 0;
}

/* How many logs there must be, as those say that have their names. */
static int count_promised(struct opening *op, unsigned *promised)
{
	char name[NAME_BYTES];
	struct log_header h;
	unsigned i;
	int err;

	*promised = op->n_logs;
	for (i = 0; i < op->n_logs; i++) {
		log_name(name, i, false);
		if (!file_exists(op, name))
			continue;
		err = check_file(op, name, &h);
		if (err)
			return err;
		if (h.logs > *promised && h.logs <= LOGS_MAX)
			*promised = h.logs;
	}
	return 0;
}

static int rename_logs(struct opening *op, unsigned from, unsigned to)
{
	char name[NAME_BYTES], fresh[NAME_BYTES];
	unsigned i;

	for (i = to; i-- > from;) {
		log_name(name, i, false);
		log_name(fresh, i, true);
		if (!file_exists(op, name) && renameat(op->dir_fd, fresh, op->dir_fd, name))
			return refuse(op, -errno, "%s/%s is missing: %s", op->o->dir, name,
				      strerror(errno));
	}
	if (fsync(op->dir_fd))
		return refuse(op, -errno, "%s: %s", op->o->dir, strerror(errno));
	op->n_logs = to;
	return 0;
}

/* Go on with what a crash has interrupted while logs were made. */
static int finish_making(struct opening *op)
{
	char name[NAME_BYTES];
	unsigned promised, i;
	int err = count_promised(op, &promised);

	if (err)
		return err;
	if (op->o->check) {
		for (i = 0; i < promised; i++) {
			log_name(name, i, false);
			if (!file_exists(op, name))
				return refuse(op, -ENOENT, "%s/%s is missing", op->o->dir, name);
		}
		return 0;
	}
	for (i = promised; i < STORE_THREADS_MAX; i++) {
		log_name(name, i, true);
		unlinkat(op->dir_fd, name, 0);
	}
	return promised ? rename_logs(op, 0, promised) : 0;
}

/*
 * What is written once cannot fail for want of space later, and writing it again
 * changes no metadata that would have to be durable, too.
 */
static int write_zeroes(int fd, uint64_t bytes)
{
	static const char zeroes[1 << 16];
	uint64_t done;
	ssize_t n;

	for (done = 0; done < bytes; done += (uint64_t)n) {
		n = pwrite(fd, zeroes,
			   bytes - done < sizeof(zeroes) ? bytes - done : sizeof(zeroes),
			   (off_t)done);
		if (n <= 0)
			return n ? errno : ENOSPC;
	}
	return 0;
}

static int make_log(struct opening *op, const char *name, struct log_header *h)
{
	int fd = openat(op->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int err = fd < 0 ? errno : 0;

	/* In one piece if that can be had, and full disks are known at once. */
	if (!err)
		err = posix_fallocate(fd, 0, (off_t)log_bytes(h));
	if (!err)
		err = write_zeroes(fd, log_bytes(h));
	if (!err && pwrite(fd, h, sizeof(*h), 0) != sizeof(*h))
		err = errno;
	if (!err && fsync(fd))
		err = errno;
	if (fd >= 0)
		close(fd);
	if (err && fd >= 0)
		unlinkat(op->dir_fd, name, 0);
	return err ? refuse(op, -err, "cannot make %s/%s: %s", op->o->dir, name, strerror(err)) : 0;
}

/* The id of the logs that are there, or a new one. */
static int choose_id(struct opening *op, uint64_t *id)
{
	struct log_header h;
	int err;

	if (!op->n_logs) {
		do {
			if (getrandom(id, sizeof(*id), 0) != sizeof(*id))
				return refuse(op, -errno, "no random numbers");
		} while (!*id);
		return 0;
	}
	err = check_file(op, "log.0", &h);
	*id = h.id;
	return err;
}

static int make_logs(struct opening *op)
{
	const struct store_opts *o = op->o;
	struct log_header h = { .kind = o->kind, .logs = o->threads };
	uint64_t bytes = o->bytes / o->threads;
	unsigned first = op->n_logs, i;
	char name[NAME_BYTES];
	int err;

	if (first >= o->threads)
		return 0;
	if (o->check)
		return first ? 0 : refuse(op, -ENOENT, "%s: there is no store", o->dir);
	if (bytes < LOG_BYTES_MIN || bytes > LOG_BYTES_MAX)
		return refuse(op, -EINVAL, "a log needs %u KiB to 128 GiB for each thread",
			      LOG_BYTES_MIN >> 10);
	err = choose_id(op, &h.id);
	if (o->pool) {
		h.pool_chunk_size = o->pool->chunk_size;
		h.pool_first_rx = o->pool->first_rx;
		h.pool_n_rx = o->pool->n_rx;
	}
	log_layout(&h, bytes, o->pool);
	for (i = first; i < o->threads && !err; i++) {
		h.number = i;
		log_seal(&h);
		log_name(name, i, true);
		err = make_log(op, name, &h);
	}
	return err ? err : rename_logs(op, first, o->threads);
}

/* ------------------------------------------------------------------------- */
/* Opening */

/* A directory that was just made is to be found again, too. */
static int sync_parent(struct opening *op)
{
	int fd = openat(op->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || fsync(fd) ? errno : 0;

	if (fd >= 0)
		close(fd);
	return err ? refuse(op, -err, "%s/..: %s", op->o->dir, strerror(err)) : 0;
}

static int open_dir(struct opening *op)
{
	const char *dir = op->o->dir;
	bool made = !op->o->check && !mkdir(dir, 0700);

	if (!made && !op->o->check && errno != EEXIST)
		return refuse(op, -errno, "cannot make %s: %s", dir, strerror(errno));
	op->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (op->dir_fd < 0)
		return refuse(op, -errno, "%s: %s", dir, strerror(errno));
	if (flock(op->dir_fd, LOCK_EX | LOCK_NB))
		return refuse(op, -EBUSY, "%s is in use by another process", dir);
	return made ? sync_parent(op) : 0;
}

static int map_log(struct opening *op, unsigned i)
{
	struct store *s = op->s;
	char name[NAME_BYTES], path[4096];
	struct log_header h;
	int err, is_pmem = 0, fd;
	size_t bytes = 0;
	char *base;

	log_name(name, i, false);
	err = check_file(op, name, &h);
	if (err)
		return err;
	if (h.number != i)
		return refuse(op, -EINVAL, "%s/%s is log %u", op->o->dir, name, h.number);
	if (s->id && s->id != h.id)
		return refuse(op, -EINVAL, "%s/%s is of another store than log.0", op->o->dir,
			      name);
	s->id = h.id;
	snprintf(path, sizeof(path), "%s/%s", op->o->dir, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	base = fd < 0 ? NULL : pmem_map_file(path, 0, 0, 0, &bytes, &is_pmem);
	if (!base || bytes != log_bytes(&h)) {
		err = errno;
		if (fd >= 0)
			close(fd);
		return refuse(op, -err, "cannot map %s: %s", path, strerror(err));
	}
	log_attach(&s->logs[i], base, bytes, fd);
	op->is_pmem = is_pmem && (i == 0 || op->is_pmem);
	return 0;
}

static int map_logs(struct opening *op)
{
	unsigned i;
	int err = 0;

	op->s = store_new(op->o, 0, op->n_logs);
	if (!op->s)
		return refuse(op, -ENOMEM, "no memory");
	for (i = 0; i < op->n_logs; i++)
		op->s->logs[i].fd = -1;
	for (i = 0; i < op->n_logs && !err; i++)
		err = map_log(op, i);
	return err;
}

/* The pool is where the caller says; that its memory is persistent is for paste_pool() to know. */
static int check_medium(struct opening *op)
{
	if (!op->o->pool || op->is_pmem || op->o->check)
		return 0;
	return refuse(op, -EOPNOTSUPP,
		      "zero copy needs persistent memory, and %s is not on a file system with DAX",
		      op->o->dir);
}

static int start(struct opening *op, struct store_report *r)
{
	const struct io_ops *ops = &io_fsync;
	int err;

	if (op->is_pmem)
		ops = &io_pmem;
	else if (op->o->mmap)
		ops = &io_msync;
	err = store_start(op->s, ops, r);
	return err ? refuse(op, err, "cannot recover %s: %s", op->o->dir, strerror(-err)) : 0;
}

int store_open(struct store **s, const struct store_opts *o, struct store_report *r, char *text,
	       size_t text_size)
{
	struct opening op = { .o = o, .text = text, .text_size = text_size, .dir_fd = -1 };
	int err;

	*s = NULL;
	if (o->threads < 1 || o->threads > STORE_THREADS_MAX)
		return refuse(&op, -EINVAL, "1 to %u threads", STORE_THREADS_MAX);
	err = open_dir(&op);
	if (!err)
		err = count_logs(&op);
	if (!err)
		err = finish_making(&op);
	if (!err)
		err = make_logs(&op);
	if (!err)
		err = map_logs(&op);
	if (!err)
		err = check_medium(&op);
	if (!err)
		err = start(&op, r);
	if (err) {
		if (op.s)
			store_close(op.s);
		if (op.dir_fd >= 0)
			close(op.dir_fd);
		return err;
	}
	op.s->dir_fd = op.dir_fd;
	*s = op.s;
	return 0;
}
