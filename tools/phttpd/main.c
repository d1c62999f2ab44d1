// SPDX-License-Identifier: MIT
/*
 * main.c - options, listeners and threads of phttpd
 *
 * Everything that can fail is set up before the first thread starts. The main
 * thread then waits for a signal; the others run until `stopping` is set and
 * are woken by SIGUSR1 if they sleep.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <paste.h>

#include "phttpd.h"

#define BACKLOG	    4096
#define CHUNKS	    8192
#define STORE_BYTES (64 << 20)

/* Options that have no letter. */
enum {
	OPTION_WRAP = 256,
	OPTION_RECOVER_ONLY,
	OPTION_DUMP
};

atomic_bool stopping;

static pthread_t main_thread;

static const char usage[] =
	"usage: phttpd [options]\n"
	"  -P PORT    TCP port (60000)\n"
	"  -6         listen on :: instead of 0.0.0.0: IPv6 and IPv4\n"
	"  -l BYTES   size of the body of an ordinary answer (64)\n"
	"  -c         prepare the head of ordinary answers once\n"
	"  -v         sum the bodies of POSTs, answer with X-Paste-Sum\n"
	"  -b MS      longest wait for something to do (100); 0: busy poll\n"
	"  -p N       threads (1)\n"
	"  -a CPU     first thread on this CPU, the others on the next ones\n"
	"  -i NIC     use paste, bound to this NIC's RX queues; without it and -n: epoll\n"
	"  -q QUEUE   RX queue of the first thread (0), the others the next ones\n"
	"  -Z         with -i: fail if the NIC has no zero copy (else: as -n)\n"
	"  -n         use paste without binding a NIC\n"
	"  -u US      poll the NIC so long before sleeping (0)\n"
	"  -C N       rx chunks per thread (8192)\n"
	"  -s BYTES   size of a chunk, 4096 or 2048 (4096)\n"
	"  -d DIR     keep the bodies of POSTs in this store, as a log\n"
	"  -B         as a B+tree: the key is the first 8 bytes; GET /tree/HEX16\n"
	"  -k         a key-value store instead: PUT, GET, DELETE /kv/KEY\n"
	"  -L MB      size of a store that is made now (64)\n"
	"  -x         with -i or -n: keep what arrives where it was received; DIR must be on\n"
	"             persistent memory\n"
	"  -m         write the store by memory mapping and msync\n"
	"  -D         fdatasync instead of fsync\n"
	"  -F         make nothing durable\n"
	"  -e NS      so much more latency of the medium before answers leave\n"
	"  --wrap     a full log overwrites its oldest records\n"
	"  --recover-only  check the store, say what is in it, and exit\n"
	"  --dump     with --recover-only: print all records\n"
	"  -S         print the queues' statistics at the end\n"
	"  -h, --help  this text\n";

void die(const char *what, int err)
{
	fprintf(stderr, "phttpd: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(EXIT_FAILURE);
}

void stop_all(void)
{
	atomic_store(&stopping, true);
	pthread_kill(main_thread, SIGTERM);
}

/* ------------------------------------------------------------------------- */
/* Options */

static void reject(const char *why)
{
	fprintf(stderr, "phttpd: %s\n", why);
	exit(EXIT_FAILURE);
}

static uint64_t number(char option, const char *arg, uint64_t min, uint64_t max)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(arg, &end, 0);
	if (errno || !*arg || *end || *arg == '-' || v < min || v > max) {
		fprintf(stderr, "phttpd: -%c %s: not a number from %llu to %llu\n", option, arg,
			(unsigned long long)min, (unsigned long long)max);
		exit(EXIT_FAILURE);
	}
	return v;
}

static bool set_flag(struct options *o, int option)
{
	switch (option) {
	case '6':
		return o->ipv6 = true;
	case 'c':
		return o->static_head = true;
	case 'v':
		return o->verify = true;
	case 'n':
		return o->paste = true;
	case 'Z':
		return o->need_zc = true;
	case 'S':
		return o->stats = true;
	case 'm':
		return o->mmap = true;
	case 'D':
		return o->datasync = true;
	case 'F':
		return o->no_flush = true;
	case 'x':
		return o->zero_copy = true;
	case 'B':
		return o->tree = true;
	case 'k':
		return o->kv = true;
	case OPTION_WRAP:
		return o->wrap = true;
	case OPTION_RECOVER_ONLY:
		return o->recover_only = true;
	case OPTION_DUMP:
		return o->dump = true;
	default:
		return false;
	}
}

static bool set_number(struct options *o, int option, const char *arg)
{
	switch (option) {
	case 'P':
		o->port = number(option, arg, 1, 65535);
		return true;
	case 'l':
		o->body = number(option, arg, 0, 1ULL << 40);
		return true;
	case 'b':
		o->wait_ms = number(option, arg, 0, 3600000);
		return true;
	case 'u':
		o->busy_us = number(option, arg, 0, 1000000);
		return true;
	case 'p':
		o->threads = number(option, arg, 1, MAX_THREADS);
		return true;
	case 'a':
		o->cpu = number(option, arg, 0, CPU_SETSIZE - MAX_THREADS);
		return true;
	case 'q':
		o->rxq = number(option, arg, 0, 65535);
		return true;
	case 'C':
		o->chunks = number(option, arg, 64, 1 << 24);
		return true;
	case 's':
		o->chunk_size = number(option, arg, 2048, 4096);
		return true;
	case 'L':
		o->store_bytes = number(option, arg, 1, 1 << 24) << 20;
		return true;
	case 'e':
		o->latency_ns = number(option, arg, 0, 1000000000);
		return true;
	default:
		return false;
	}
}

static void set_option(struct options *o, int option)
{
	if (option == 'i') {
		o->paste = true;
		o->nic = optarg;
	} else if (option == 'd') {
		o->dir = optarg;
	} else if (option == 'h') {
		fputs(usage, stdout);
		exit(EXIT_SUCCESS);
	} else if (!set_flag(o, option) && !set_number(o, option, optarg)) {
		fputs(usage, stderr);
		exit(EXIT_FAILURE);
	}
}

/* What cannot go together, in the order in which it is asked. */
static void check_options(const struct options *o)
{
	const struct {
		bool wrong;
		const char *why;
	} rules[] = {
		{ o->need_zc && !o->nic, "-Z needs -i" },
		{ o->chunk_size != 2048 && o->chunk_size != 4096,
		  "-s: a chunk has 2048 or 4096 bytes" },
		{ o->chunk_size == 2048 && o->chunks % 2,
		  "-C: two chunks of 2048 bytes are a page, make it even" },
		{ !o->dir &&
			  (o->mmap || o->datasync || o->no_flush || o->zero_copy || o->tree ||
			   o->kv || o->wrap || o->recover_only || o->store_bytes || o->latency_ns),
		  "-B, -k, -L, -x, -m, -D, -F, -e, --wrap and --recover-only need -d" },
		{ o->dump && !o->recover_only, "--dump needs --recover-only" },
		{ o->tree && o->kv, "-B and -k: a store is a tree or has keys, not both" },
		{ o->wrap && (o->tree || o->kv), "--wrap: only a log has oldest records" },
		{ o->mmap && o->datasync, "-m uses msync, so -D has no meaning" },
		{ o->no_flush && o->datasync, "-F flushes nothing, so -D has no meaning" },
		{ o->zero_copy && (o->mmap || o->datasync),
		  "-x: persistent memory needs neither -m nor -D" },
		{ o->zero_copy && o->chunks, "-x: -L says how large the pool is, not -C" },
		{ o->zero_copy && !o->paste && !o->recover_only, "-x needs -i or -n" },
	};
	unsigned i;

	for (i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].wrong)
			reject(rules[i].why);
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option names[] = {
		{ "wrap", no_argument, NULL, OPTION_WRAP },
		{ "recover-only", no_argument, NULL, OPTION_RECOVER_ONLY },
		{ "dump", no_argument, NULL, OPTION_DUMP },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static const char letters[] = "P:6l:cvb:p:a:i:q:Znu:C:s:d:BkL:xmDFe:Sh";
	int option;

	*o = (struct options){
		.port = 60000,
		.body = 64,
		.wait_ms = 100,
		.cpu = -1,
		.threads = 1,
		.chunk_size = 4096,
	};
	while ((option = getopt_long(argc, argv, letters, names, NULL)) >= 0)
		set_option(o, option);
	if (optind < argc) {
		fprintf(stderr, "phttpd: what is %s?\n%s", argv[optind], usage);
		exit(EXIT_FAILURE);
	}
	check_options(o);
	if (!o->store_bytes)
		o->store_bytes = STORE_BYTES;
	if (!o->chunks)
		o->chunks = CHUNKS;
}

/* ------------------------------------------------------------------------- */
/* Listeners */

static socklen_t any_address(const struct options *o, struct sockaddr_storage *ss)
{
	struct sockaddr_in6 *in6 = (void *)ss;
	struct sockaddr_in *in = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (o->ipv6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(o->port);
		return sizeof(*in6);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(o->port);
	return sizeof(*in);
}

/* One of a group among which the kernel spreads connections by hash. */
static int listen_plain(const struct options *o)
{
	struct sockaddr_storage ss;
	socklen_t len = any_address(o, &ss);
	int fd, on = 1, off = 0;

	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (o->threads > 1)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	if (o->ipv6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (void *)&ss, len) || listen(fd, BACKLOG)) {
		on = -errno;
		close(fd);
		return on;
	}
	return fd;
}

/* The same, but thread k gets those whose packets arrive on its RX queue. */
static int listen_steered(const struct options *o, unsigned index)
{
	struct sockaddr_storage ss;
	socklen_t len = any_address(o, &ss);
	int err, fd;

	err = paste_listen((void *)&ss, len, BACKLOG, index, o->threads, &fd);
	return err ? err : fd;
}

/* Steering counts listeners in the order in which they are made. */
static void listen_all(const struct options *o, struct worker *w)
{
	unsigned i, k, n = o->threads;
	int fd, on = 1;

	for (i = 0; i < n; i++) {
		k = (i + n - o->rxq % n) % n;
		fd = o->nic ? listen_steered(o, i) : listen_plain(o);
		if (fd < 0)
			die("listen", fd);
		/* Accepted sockets inherit it. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		w[k].listener = fd;
	}
}

/* ------------------------------------------------------------------------- */
/* Threads */

static void pin(const struct worker *w)
{
	cpu_set_t set;
	int err;

	if (w->opt->cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(w->opt->cpu + w->index, &set);
	err = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	if (err)
		fprintf(stderr, "phttpd: thread %u: CPU %u: %s\n", w->index, w->opt->cpu + w->index,
			strerror(err));
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;

	pin(w);
	w->err = w->opt->paste ? paste_run(w) : epoll_run(w);
	if (w->err) {
		fprintf(stderr, "phttpd: thread %u: %s\n", w->index, strerror(-w->err));
		stop_all();
	}
	return NULL;
}

static void on_wakeup(int sig)
{
	(void)sig;
}

/* SIGINT and SIGTERM are for sigwait(), SIGUSR1 only interrupts sleeps. */
static void setup_signals(sigset_t *set)
{
	struct sigaction wake = { .sa_handler = on_wakeup };

	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGUSR1, &wake, NULL);
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* A thread that was just about to sleep misses a signal: send it again. */
static void join(struct worker *w)
{
	struct timespec t;

	do {
		pthread_kill(w->thread, SIGUSR1);
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += 20 * 1000 * 1000;
		if (t.tv_nsec >= 1000 * 1000 * 1000) {
			t.tv_nsec -= 1000 * 1000 * 1000;
			t.tv_sec++;
		}
	} while (pthread_timedjoin_np(w->thread, NULL, &t) == ETIMEDOUT);
}

static void raise_limit(int which)
{
	struct rlimit r;

	if (getrlimit(which, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(which, &r);
}

static void say_ready(const struct options *o)
{
	fprintf(stderr, "phttpd: port %u threads %u %s\n", o->port, o->threads,
		o->paste ? paste_server_placement() : "epoll");
}

static void say_summary(const struct options *o, struct worker *w)
{
	uint64_t requests = 0, bytes = 0, batches = 0;
	unsigned i;

	for (i = 0; i < o->threads; i++) {
		requests += w[i].serve.requests;
		bytes += w[i].serve.bytes;
		batches += w[i].batches;
	}
	fprintf(stderr, "phttpd: requests %llu bytes %llu ", (unsigned long long)requests,
		(unsigned long long)bytes);
	if (o->paste)
		paste_server_summary(o, w);
	else
		fprintf(stderr, "copied 0 preattach 0 batches %llu\n", (unsigned long long)batches);
}

static int run(const struct options *o, struct worker *w)
{
	int err, sig, failed = 0;
	sigset_t set;
	unsigned i;

	setup_signals(&set);
	for (i = 0; i < o->threads; i++) {
		err = pthread_create(&w[i].thread, NULL, thread_main, &w[i]);
		if (err)
			die("thread", err);
	}
	say_ready(o);
	sigwait(&set, &sig);
	atomic_store(&stopping, true);
	for (i = 0; i < o->threads; i++) {
		join(&w[i]);
		close(w[i].listener);
		failed |= w[i].err;
	}
	return failed;
}

int main(int argc, char **argv)
{
	static struct worker workers[MAX_THREADS];
	struct options o;
	unsigned i;
	int err;

	parse_options(&o, argc, argv);
	main_thread = pthread_self();
	raise_limit(RLIMIT_NOFILE);
	raise_limit(RLIMIT_MEMLOCK);
	if (o.recover_only)
		return storage_check(&o);
	for (i = 0; i < o.threads; i++) {
		workers[i] = (struct worker){ .opt = &o, .index = i };
		serve_init(&workers[i].serve, o.paste ? &paste_sink : &epoll_sink, o.body,
			   o.static_head, o.verify);
	}
	if (o.paste)
		paste_server_open(&o, workers);
	if (o.dir)
		storage_open(&o, workers);
	if (o.paste)
		paste_server_fill(&o, workers);
	listen_all(&o, workers);
	if (o.nic)
		paste_server_bind(&o, workers);
	err = run(&o, workers);
	say_summary(&o, workers);
	if (o.paste)
		paste_server_close(&o, workers);
	if (o.dir)
		storage_close();
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
