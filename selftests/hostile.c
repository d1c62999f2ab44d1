// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile peer: the same frames to two connections, of which one is attached.
 *
 * The peer's frames are built here (frames.c) and written to a tap device, what
 * the server answers is read from it. So each frame has gone through the whole of
 * TCP when write() returns, and a step is over for both connections before the
 * next one begins. After each step both must have delivered the same bytes and
 * the same end, and have answered with the same segments. In the end TCP must
 * have counted the same.
 *
 * With a NIC the attached connections are those of a port that is bound, and the
 * frames come from outside (relay.c). What belongs to a step is over when a byte
 * has come behind it.
 *
 * What may differ, and is not compared:
 * - The advertised window. An attached socket is read at once, in softirq, the
 *   other one after the step; and paste limits the receive buffer.
 * - An ACK of what another segment of the step acknowledges, too: one of them is
 *   a window update, or came before data that TCP had to send anyway.
 * - With a NIC, SACK blocks of what is generated: TCP reports overlaps of what
 *   came out of order or not, depending on whether it could merge the packets.
 * - errno of a send after the end. recv() takes a socket's error away so that
 *   send() says EPIPE; an attached socket's error stays, and its sends after
 *   the first one that failed are cancelled.
 *
 * Nothing here ought to depend on time (wire.c). What differs all the same must
 * do so twice to be believed.
 *
 * HOSTILE_SEED (1) and HOSTILE_SEQUENCES, or HOSTILE_SECONDS (24), say what is
 * generated; with a NIC a tenth of these, or half of the time. Sequence i of seed
 * s is the first one of seed s + i. HOSTILE_VERBOSE shows each step.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pair.h"
#include "wire.h"
#include "harness.h"

#define COPIED 256 /* sends of at most so many bytes are copied (tx_copy_max) */

/* ---------------------------------------------------------------- chances --- */

static __u32 scramble(__u32 v)
{
	v = (v ^ v >> 16) * 0x7feb352d;
	v = (v ^ v >> 15) * 0x846ca68b;
	return v ^ v >> 16;
}

static __u32 rnd(struct pair *p)
{
	p->random += 0x9e3779b9;
	return scramble(p->random);
}

static __u32 below(struct pair *p, __u32 n)
{
	return rnd(p) % n;
}

static bool once_in(struct pair *p, __u32 n)
{
	return !below(p, n);
}

/* -------------------------------------------------------------- generator --- */

static __u32 any_len(struct pair *p)
{
	switch (below(p, 5)) {
	case 0:
		return 1;
	case 1:
		return 1 + below(p, 16);
	case 2:
		return p->mss;
	default:
		return 1 + below(p, p->mss);
	}
}

static struct segment in_order(struct pair *p, __u32 len)
{
	return (struct segment){
		.flags = TH_ACK | (once_in(p, 2) ? TH_PSH : 0),
		.win = p->win,
		.seq = p->next,
		.len = len,
		.tsval = p->tsval,
	};
}

static void advance(struct pair *p, const struct segment *s)
{
	__u32 end = s->seq + s->len;

	if ((__s32)(end - p->next) > 0)
		p->next = end;
}

/* Other bytes than before, if there were any. */
static __u32 any_key(struct pair *p)
{
	return once_in(p, 2) ? 0 : 1 + below(p, 255);
}

static void gen_data(struct pair *p, struct step *s)
{
	s->seg.key = any_key(p);
	advance(p, &s->seg);
}

static void gen_gap(struct pair *p, struct step *s)
{
	s->seg.seq += 1 + below(p, 3 * p->mss);
	s->seg.key = any_key(p);
}

static void gen_overlap(struct pair *p, struct step *s)
{
	s->seg.seq -= below(p, 2 * p->mss);
	s->seg.key = any_key(p);
	advance(p, &s->seg);
}

static void gen_far(struct pair *p, struct step *s)
{
	s->seg.seq += rnd(p);
}

/* With a NIC windows differ: a packet takes up a chunk. */
static void gen_edge(struct pair *p, struct step *s)
{
	if (hooked)
		return gen_far(p, s);
	s->seg.seq = below(p, 4) - 2 - (once_in(p, 2) ? s->seg.len : 0);
	s->at_edge = true;
}

/* ACKs of what was not sent, of what was acknowledged already, windows, blocks. */
static void gen_ack(struct pair *p, struct step *s)
{
	static const __u16 windows[] = { 0, 0, 1, 100, 5000, 65535 };
	struct segment *seg = &s->seg;

	seg->len = once_in(p, 4) ? seg->len : 0;
	if (once_in(p, 2))
		p->win = seg->win = windows[below(p, ARRAY_SIZE(windows))];
	switch (below(p, 5)) {
	case 0:
		seg->ack = -below(p, 3000);
		break;
	case 1:
		seg->ack = once_in(p, 2) ? 1 + below(p, 3000) : rnd(p);
		break;
	case 2:
		seg->flags &= ~TH_ACK;
		break;
	}
	if (!once_in(p, 3))
		return;
	seg->n_sack = 1 + below(p, 3);
	for (unsigned int i = 0; i < seg->n_sack; i++) {
		seg->sack[i][0] = once_in(p, 6) ? rnd(p) : below(p, 4000) - 1000;
		seg->sack[i][1] = seg->sack[i][0] + (once_in(p, 6) ? rnd(p) : below(p, 3000));
	}
}

static void gen_urgent(struct pair *p, struct step *s)
{
	struct segment *seg = &s->seg;

	seg->flags |= TH_URG;
	seg->len = once_in(p, 4) ? 0 : seg->len;
	switch (below(p, 4)) {
	case 0:
		seg->urg = seg->len;
		break;
	case 1:
		seg->urg = below(p, seg->len + 2);
		break;
	case 2:
		seg->urg = below(p, 3 * p->mss);
		break;
	default:
		seg->urg = rnd(p);
	}
	if (once_in(p, 3))
		seg->seq += below(p, 2 * p->mss) - p->mss;
	advance(p, seg);
}

static void gen_reset(struct pair *p, struct step *s)
{
	s->seg.flags = TH_RST | (once_in(p, 2) ? TH_ACK : 0);
	s->seg.len = once_in(p, 4) ? s->seg.len : 0;
	switch (below(p, 6)) {
	case 0:
		break; /* the only one that is to be believed */
	case 1:
		s->seg.seq += 1 + below(p, 2000);
		break;
	case 2:
		s->seg.seq -= 1 + below(p, 2000);
		break;
	case 3:
		s->seg.len = 0;
		gen_edge(p, s);
		break;
	default:
		gen_far(p, s);
	}
}

static void gen_syn(struct pair *p, struct step *s)
{
	s->seg.flags = TH_SYN | (once_in(p, 2) ? TH_ACK : 0);
	s->seg.len = once_in(p, 3) ? s->seg.len : 0;
	s->seg.mss = once_in(p, 2) ? p->mss : 0;
	s->seg.seq += once_in(p, 3) ? rnd(p) : below(p, 1000) - 1;
}

static void gen_fin(struct pair *p, struct step *s)
{
	s->seg.flags |= TH_FIN;
	s->seg.len = once_in(p, 2) ? s->seg.len : 0;
	if (once_in(p, 3))
		s->seg.seq += below(p, 2000) - 500;
	else if (once_in(p, 2))
		advance(p, &s->seg);
}

static void gen_odd(struct pair *p, struct step *s)
{
	s->seg.odd = 1 + below(p, N_ODDITIES - 1);
	s->seg.arg = rnd(p);
	s->seg.key = any_key(p);
	if (once_in(p, 8))
		s->seg.flags |= TH_FIN;
	if (once_in(p, 2))
		advance(p, &s->seg);
}

static void gen_segment(struct pair *p, struct step *s)
{
	static const struct {
		unsigned int weight;
		void (*gen)(struct pair *p, struct step *s);
	} kinds[] = {
		{ 32, gen_data }, { 10, gen_gap }, { 10, gen_overlap }, { 4, gen_edge },
		{ 3, gen_far },	  { 9, gen_ack },  { 8, gen_urgent },	{ 3, gen_reset },
		{ 3, gen_syn },	  { 4, gen_fin },  { 14, gen_odd },
	};
	unsigned int at = below(p, 100), i = 0;

	s->op = OP_SEGMENT;
	s->from_seen = true;
	s->seg = in_order(p, any_len(p));
	while (at >= kinds[i].weight)
		at -= kinds[i++].weight;
	kinds[i].gen(p, s);
}

/*
 * Something for the application to do, if it makes sense now. TCP never puts what
 * is sent by reference into a packet with other bytes, so that after such a send
 * segments are others than without paste. Only the last one is large, and only
 * when neither small segments nor a small window cut it.
 */
static bool gen_op(struct pair *p, struct step *s)
{
	switch (below(p, 10)) {
	case 0:
	case 1:
		s->op = p->reading ? OP_STOP : OP_START;
		return p->was_attached;
	case 2:
		s->op = OP_SHUT;
		return !p->shut && once_in(p, 2);
	case 3:
		s->op = OP_CLOSE;
		return p->was_attached && !p->shut && once_in(p, 3);
	case 4:
		s->op = OP_DETACH;
		return p->attached && once_in(p, 3);
	default:
		s->op = OP_SEND;
		s->arg = 1 + below(p, once_in(p, 3) && p->win == 65535 && p->mss >= 536 ?
					      ctx.chunk_size :
					      COPIED);
		if (p->large || p->shut || p->sends >= SENDS - 2)
			return false;
		p->large = s->arg > COPIED;
		return true;
	}
}

static struct step gen_step(struct pair *p)
{
	struct step s = { .op = OP_ATTACH };

	if (!p->was_attached && !p->closed && below(p, 4))
		return s;
	if (!p->closed && once_in(p, 6) && gen_op(p, &s))
		return s;
	memset(&s, 0, sizeof(s));
	gen_segment(p, &s);
	return s;
}

/* ---------------------------------------------------------------- batches --- */

static void pair_set_flows(struct pair *p, bool v6, bool ts, __u32 base)
{
	for (unsigned int k = 0; k < 2; k++) {
		p->side[k].flow.v6 = v6;
		p->side[k].flow.ts = ts;
		p->side[k].flow.peer_base = base;
		p->side[k].flow.port = (hooked && k ? HOOKED : PORT) + p->small;
	}
}

/* The first sequence number is often one that soon wraps. */
static void choose_options(struct pair *p)
{
	bool v6 = once_in(p, 3), ts = once_in(p, 2);

	pair_set_flows(p, v6, ts, once_in(p, 2) ? rnd(p) : -below(p, 5000));
	p->syn = (struct segment){
		.flags = TH_SYN,
		.seq = -1,
		.win = 65535,
		.mss = p->mss,
		.tsval = p->tsval,
		.sack_ok = !once_in(p, 3),
		.wscale = once_in(p, 3) ? 0 : 1 + below(p, 15),
	};
}

static void pair_init(struct pair *p, __u32 seed)
{
	__u8 *data[2] = { p->side[0].data, p->side[1].data };

	memset(p, 0, sizeof(*p));
	p->seed = seed;
	p->random = scramble(seed);
	p->first = once_in(p, 2);
	p->small = once_in(p, 3);
	p->mss = (const __u16[]){ 88, 536, 1000, 1460, 1460, 4000, 8900 }[below(p, 7)];
	if (p->mss > 1400 && (hooked || p->small))
		p->mss = 1400;
	p->win = once_in(p, 4) ? below(p, 65536) : 65535;
	p->tsval = rnd(p);
	for (unsigned int k = 0; k < 2; k++) {
		p->side[k].pair = p;
		p->side[k].fd = -1;
		p->side[k].data = data[k] ?: malloc(STREAM);
		p->side[k].flow.client = first_client + 2 * (p - pairs) + k;
	}
	choose_options(p);
}

/* One step of each pair that has one: step(p) says which. */
static void batch_step(bool (*step)(struct pair *p, struct step *s))
{
	bool done[PAIRS];
	struct step s;

	for (unsigned int i = 0; i < n_pairs; i++) {
		memset(&s, 0, sizeof(s));
		done[i] = !pairs[i].differs && step(&pairs[i], &s);
		if (done[i])
			pair_do(&pairs[i], &s);
	}
	pairs_serve();
	pairs_collect();
	for (unsigned int i = 0; i < n_pairs; i++) {
		if (done[i])
			pair_compare(&pairs[i]);
	}
}

static bool generate(struct pair *p, struct step *s)
{
	if (p->n_steps >= 6 + p->seed % 19)
		return false;
	*s = gen_step(p);
	return true;
}

static bool finish(struct pair *p, struct step *s)
{
	if (p->side[0].fd >= 0)
		pair_compare_info(p);
	s->op = OP_ABORT;
	return true;
}

static int batch_begin(__u32 seed, unsigned int n)
{
	n_pairs = n;
	for (unsigned int i = 0; i < n; i++)
		pair_init(&pairs[i], seed + i);
	return hooked ? 0 : paste_open(seed / PAIRS);
}

/* Sequences of these seeds, which are of one batch. */
static int batch_run(__u32 seed, unsigned int n, bool (*step)(struct pair *p, struct step *s))
{
	int err = batch_begin(seed, n);

	if (err)
		return err;
	if (!pairs_connect())
		return -ECONNREFUSED;
	for (unsigned int i = 0; i < STEPS_MAX - 1; i++)
		batch_step(step);
	batch_step(finish);
	pairs_end();
	return 0;
}

/* Once more if there is a difference. Returns how many there were only once. */
static int batch_run_twice(__u32 seed, unsigned int n, bool (*step)(struct pair *p, struct step *s))
{
	unsigned int first = 0, before = differences;
	int err;

	memset(suspect, 0, sizeof(suspect));
	err = batch_run(seed, n, step);
	if (err)
		return err;
	for (unsigned int i = 0; i < n; i++)
		first += suspect[i] = pairs[i].differs;
	if (!first)
		return 0;
	err = batch_run(seed, n, step);
	before = differences - before;
	return err ?: (int)(first > before ? first - before : 0);
}

/* ------------------------------------------------------------------ tests --- */

FIXTURE(hostile)
{
	__u64 before[PASTE_OBJ_MAX];
};

FIXTURE_VARIANT(hostile) {
	enum wire_kind wire;
};

FIXTURE_VARIANT_ADD(hostile, plain){ .wire = WIRE_TAP };
FIXTURE_VARIANT_ADD(hostile, hooked){ .wire = WIRE_NIC };

FIXTURE_SETUP(hostile)
{
	int err;

	hooked = variant->wire == WIRE_NIC;
	if (hooked && !can_hook())
		SKIP(return, "no NIC with zero copy");
	verbose = getenv("HOSTILE_VERBOSE");
	ASSERT_EQ(0, objects_read(self->before)) TH_LOG("no " DEVICE);
	ASSERT_EQ(0, hooked ? server_open() : 0);
	ASSERT_EQ(0, wire_open(variant->wire, HOOKED));
	err = hooked ? hook() : server_open();
	if (err && hooked)
		unhook();
	if (err)
		wire_close();
	ASSERT_EQ(0, err) TH_LOG("%s", text);
}

FIXTURE_TEARDOWN(hostile)
{
	if (hooked && !can_hook())
		return;
	if (hooked)
		unhook();
	wire_close();
	EXPECT_EQ(0, differences);
	EXPECT_TRUE(objects_wait(self->before, SOON));
}

static __u32 number(const char *name, __u32 def)
{
	const char *s = getenv(name);

	return s ? strtoul(s, NULL, 0) : def;
}

/* Cookies instead of state. */
static void set_syncookies(bool always)
{
	int fd = open("/proc/sys/net/ipv4/tcp_syncookies", O_WRONLY | O_CLOEXEC);

	if (write(fd, always ? "2" : "0", 1) != 1)
		perror("# tcp_syncookies");
	close(fd);
}

TEST_F_TIMEOUT(hostile, sequences__generated, 3600)
{
	__u32 seed = number("HOSTILE_SEED", 1), n = number("HOSTILE_SEQUENCES", 0), done = 0;
	int once = 0, r;
	__u64 end = now_ms() + number("HOSTILE_SECONDS", 24) * (hooked ? 500ULL : 1000ULL);

	if (hooked)
		n = (n + 9) / 10;
	printf("# seed %u\n", seed);
	while (differences < 5 && (n ? done < n : now_ms() < end)) {
		__u32 left = PAIRS - (seed + done) % PAIRS;

		if (n && left > n - done)
			left = n - done;
		r = batch_run_twice(seed + done, left, generate);
		ASSERT_LE(0, r) TH_LOG("seed %u", seed + done);
		once += r;
		done += left;
	}
	printf("# %d of the sequences differed once, and not again\n", once);
	EXPECT_GE(1 + done / 1000, once);
	EXPECT_LE(done * 3 / 4, n_attached) TH_LOG("too few were still there to be attached");
	printf("robust: hostile-sequences%s %u\n", hooked ? "-hooked" : "", done);
	fflush(stdout);
}

#define A (&pairs[0].side[0])
#define B (&pairs[0].side[1])

/* A step of the only pair. What a NIC sends may be late, but not as late as TCP's first timeout. */
static void play(const struct step *step)
{
	__u64 end = now_ms() + 150;

	pair_do(&pairs[0], step);
	do {
		pairs_serve();
		pairs_collect();
	} while (hooked && A->n_replies != B->n_replies && now_ms() < end);
	pair_compare(&pairs[0]);
}

static void play_op(enum op op, __u32 arg)
{
	play(&(struct step){ .op = op, .arg = arg });
}

static void play_segment(struct segment s)
{
	struct pair *p = &pairs[0];

	s.tsval = p->tsval;
	s.win = s.win ?: p->win;
	play(&(struct step){ .op = OP_SEGMENT, .from_seen = true, .seg = s });
}

static void play_data(__u32 len)
{
	struct segment s = { .flags = TH_ACK, .seq = pairs[0].next, .len = len };

	play_segment(s);
	advance(&pairs[0], &s);
}

/* A pair that has all options, attached. */
static bool script_begin(bool v6, __u16 mss, bool small)
{
	struct pair *p = &pairs[0];

	suspect[0] = true;
	if (batch_begin(0, 1))
		return false;
	p->mss = mss;
	p->win = 65535;
	p->small = small;
	pair_set_flows(p, v6, true, 0xffffff00);
	p->syn = (struct segment){
		.flags = TH_SYN,
		.seq = -1,
		.win = 65535,
		.mss = mss,
		.tsval = p->tsval,
		.sack_ok = true,
		.wscale = 8,
	};
	return pairs_connect();
}

static void script_end(void)
{
	batch_step(finish);
	pairs_end();
}

/* What both answered: one segment. */
#define EXPECT_ANSWER(fl, at, n, acked_)            \
	do {                                        \
		ASSERT_EQ(1, B->n_replies);         \
		EXPECT_EQ(fl, B->reply[0].flags);   \
		EXPECT_EQ(at, B->reply[0].seq);     \
		EXPECT_EQ(n, B->reply[0].len);      \
		EXPECT_EQ(acked_, B->reply[0].ack); \
	} while (0)

/*
 * Each oddity again and again: first before it is attached; then where the next
 * byte is expected, followed by the right segment, and then beyond that.
 */
static bool be_odd(struct pair *p, struct step *s)
{
	unsigned int n = p->n_steps;

	if (n == STEPS_MAX - 1)
		return false;
	if (n == 1) {
		s->op = OP_ATTACH;
		return true;
	}
	*s = (struct step){ .op = OP_SEGMENT, .from_seen = true, .seg = in_order(p, 100) };
	if (n % 3 == 0) {
		advance(p, &s->seg);
		return true;
	}
	s->seg.odd = p->seed % N_ODDITIES;
	s->seg.arg = s->seg.odd == OPT ? n / 2 : rnd(p);
	s->seg.key = n;
	s->seg.seq += n % 3 == 1 ? 100 : 0;
	return true;
}

TEST_F_TIMEOUT(hostile, oddities__each, 1200)
{
	for (__u32 seed = 0; seed < 8 * PAIRS; seed += PAIRS)
		ASSERT_LE(0, batch_run_twice(seed, PAIRS, be_odd));
}

TEST_F(hostile, sack__of_the_receiver)
{
	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	play_data(100);
	EXPECT_ANSWER(TH_ACK, 0, 0, 100);
	/* two holes: the newest block comes first */
	play_segment((struct segment){ .flags = TH_ACK, .seq = 200, .len = 100 });
	EXPECT_ANSWER(TH_ACK, 0, 0, 100);
	play_segment((struct segment){ .flags = TH_ACK, .seq = 400, .len = 100 });
	EXPECT_ANSWER(TH_ACK, 0, 0, 100);
	ASSERT_EQ(2, B->reply[0].n_sack);
	EXPECT_EQ(400, B->reply[0].sack[0][0]);
	EXPECT_EQ(500, B->reply[0].sack[0][1]);
	EXPECT_EQ(200, B->reply[0].sack[1][0]);
	EXPECT_EQ(300, B->reply[0].sack[1][1]);
	/* what was there before is said to be a duplicate */
	play_segment((struct segment){ .flags = TH_ACK, .seq = 0, .len = 50 });
	ASSERT_EQ(1, B->n_replies);
	EXPECT_EQ(0, B->reply[0].sack[0][0]);
	EXPECT_EQ(50, B->reply[0].sack[0][1]);
	play_data(100);
	EXPECT_ANSWER(TH_ACK, 0, 0, 300);
	pairs[0].next = 300;
	play_data(100);
	EXPECT_ANSWER(TH_ACK, 0, 0, 500);
	EXPECT_EQ(0, B->reply[0].n_sack);
	EXPECT_EQ(500, B->len);
	script_end();
}

TEST_F(hostile, sack__of_the_sender)
{
	struct segment s = { .flags = TH_ACK, .ack = -4000, .n_sack = 1 };

	ASSERT_TRUE(script_begin(false, 536, false));
	play_op(OP_ATTACH, 0);
	play_data(1);
	play_op(OP_SEND, 4000);
	ASSERT_EQ(4000, B->seen);
	/* all but the first two segments have arrived: these come again */
	s.seq = 1;
	s.sack[0][0] = 2 * 524;
	s.sack[0][1] = 4000;
	play_segment(s);
	ASSERT_LE(1, B->n_replies);
	EXPECT_EQ(0, B->reply[0].seq);
	play_segment((struct segment){ .flags = TH_ACK, .seq = 1 });
	EXPECT_EQ(0, B->n_replies);
	script_end();
}

TEST_F(hostile, timestamps__old_ones)
{
	ASSERT_TRUE(script_begin(true, 1460, false));
	play_op(OP_ATTACH, 0);
	play_data(100);
	EXPECT_EQ(pairs[0].tsval - 1, B->reply[0].tsecr);
	/* PAWS: a segment from long ago is acknowledged, and dropped */
	play_segment((struct segment){
		.flags = TH_ACK, .seq = 100, .len = 100, .odd = TS_OLD, .arg = 1000 });
	EXPECT_ANSWER(TH_ACK, 0, 0, 100);
	EXPECT_EQ(100, B->len);
	EXPECT_EQ(pairs[0].tsval - 2, B->reply[0].tsecr);
	play_data(100);
	EXPECT_ANSWER(TH_ACK, 0, 0, 200);
	EXPECT_EQ(200, B->len);
	script_end();
}

TEST_F(hostile, window_scaling__both_ways)
{
	ASSERT_TRUE(script_begin(false, 1460, false));
	EXPECT_LT(0, B->wscale);
	pairs[0].win = 16; /* times 128 */
	play_op(OP_ATTACH, 0);
	play_data(1);
	play_data(1); /* the first one that may take back what the handshake has given */
	play_op(OP_SEND, 4000);
	EXPECT_LE(1448, B->seen);
	EXPECT_GE(16 * 128, B->seen);
	pairs[0].win = 65535;
	play_data(1);
	play_data(1);
	EXPECT_EQ(4000, B->seen);
	script_end();
}

/* What may be sent now, according to both. */
static __u32 room(void)
{
	__u32 a = A->edge - A->acked, b = B->edge - B->acked;

	return a < b ? a : b;
}

TEST_F(hostile, window__closes_and_opens)
{
	if (hooked)
		SKIP(return, "a packet takes up a chunk of the buffer: other windows");
	ASSERT_TRUE(script_begin(false, 536, true));
	play_op(OP_ATTACH, 0);
	play_op(OP_STOP, 0);
	for (int i = 0; i < 100 && room() && !pairs[0].differs; i++)
		play_data(room() < 536 ? room() : 536);
	EXPECT_EQ(A->edge, A->acked);
	EXPECT_EQ(B->edge, B->acked);
	EXPECT_EQ(0, B->len);
	/* a probe is answered, and its byte not taken */
	play_segment((struct segment){ .flags = TH_ACK, .seq = pairs[0].next, .len = 1 });
	EXPECT_EQ(1, B->n_replies);
	EXPECT_EQ(pairs[0].next, B->acked);
	play_op(OP_START, 0);
	EXPECT_LT(B->acked, B->edge);
	EXPECT_EQ(B->acked, B->len);
	script_end();
}

TEST_F(hostile, half_close__of_the_peer)
{
	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	play_segment((struct segment){ .flags = TH_ACK | TH_FIN, .len = 100 });
	pairs[0].next = 101;
	EXPECT_EQ(100, B->len);
	EXPECT_EQ(FIN, B->end);
	play_op(OP_SEND, 1000);
	EXPECT_EQ(1000, B->seen);
	play_data(0);
	play_op(OP_SHUT, 0);
	EXPECT_EQ(1001, B->seen);
	play_data(0);
	EXPECT_EQ(0, B->n_replies);
	script_end();
}

TEST_F(hostile, half_close__of_the_server)
{
	ASSERT_TRUE(script_begin(true, 1460, false));
	play_op(OP_ATTACH, 0);
	play_data(10);
	play_op(OP_SEND, 1000);
	play_op(OP_SHUT, 0);
	EXPECT_EQ(1001, B->seen);
	play_data(1000);
	play_data(1000);
	EXPECT_EQ(2010, B->len);
	EXPECT_EQ(OPEN, B->end);
	play_segment((struct segment){ .flags = TH_ACK | TH_FIN, .seq = 2010 });
	EXPECT_EQ(FIN, B->end);
	EXPECT_ANSWER(TH_ACK, 1001, 0, 2011);
	script_end();
}

/* What breaks after the end of the stream does not change how it ended. */
TEST_F(hostile, end__fin_before_reset)
{
	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	play_op(OP_STOP, 0);
	play_segment((struct segment){ .flags = TH_ACK | TH_FIN, .len = 100 });
	EXPECT_EQ(OPEN, B->end);
	play_segment((struct segment){ .flags = TH_RST, .seq = 101 });
	play_op(OP_START, 0);
	EXPECT_EQ(100, B->len);
	EXPECT_EQ(FIN, B->end);
	script_end();
}

TEST_F(hostile, urgent__bytes_are_left_out)
{
	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	play_segment((struct segment){ .flags = TH_ACK | TH_URG, .len = 100, .urg = 50 });
	pairs[0].next = 100;
	EXPECT_EQ(99, B->len);
	/* one that is still to come */
	play_segment(
		(struct segment){ .flags = TH_ACK | TH_URG, .seq = 100, .len = 10, .urg = 200 });
	pairs[0].next = 110;
	play_data(100);
	play_data(100);
	EXPECT_EQ(308, B->len);
	script_end();
}

/* A flood of SYNs beside them harms neither those that are there nor those that come. */
TEST_F(hostile, syn__flood)
{
	struct segment syn = { .flags = TH_SYN, .win = 1000, .mss = 1460 };
	struct side other = { .flow = { .port = PORT } };

	set_syncookies(true);
	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	for (__u32 i = 0; i < 3000; i++) {
		other.flow.client = FLOOD_CLIENT + i;
		other.flow.v6 = i % 2;
		side_send(&other, &syn);
		if (i % 100 == 0)
			play_data(10);
	}
	EXPECT_EQ(300, B->len);
	script_end();
	ASSERT_TRUE(script_begin(true, 1460, false));
	play_op(OP_ATTACH, 0);
	play_data(10);
	EXPECT_EQ(10, B->len);
	script_end();
}

/* Has each side sent this again? */
static bool resent(__u32 len, unsigned int times, unsigned int n[2])
{
	pairs_collect();
	for (unsigned int k = 0; k < 2; k++) {
		struct side *s = &pairs[0].side[k];

		for (unsigned int i = 0; i < s->n_replies; i++)
			n[k] += !s->reply[i].seq && s->reply[i].len == len;
		s->n_replies = 0;
	}
	return n[0] >= times && n[1] >= times;
}

/* As it is by default. */
FIXTURE(timers)
{
	__u64 before[PASTE_OBJ_MAX];
};

FIXTURE_SETUP(timers)
{
	ASSERT_EQ(0, objects_read(self->before)) TH_LOG("no " DEVICE);
	ASSERT_EQ(0, wire_open(WIRE_TAP_TIMERS, 0));
	ASSERT_EQ(0, server_open());
}

FIXTURE_TEARDOWN(timers)
{
	EXPECT_EQ(0, differences);
	EXPECT_TRUE(objects_wait(self->before, SOON));
}

TEST_F(timers, rto__data_is_sent_again)
{
	unsigned int n[2] = {};

	ASSERT_TRUE(script_begin(false, 1460, false));
	play_op(OP_ATTACH, 0);
	play_op(OP_SEND, 1000);
	for (__u64 end = now_ms() + SOON; !resent(1000, 2, n) && now_ms() < end;)
		sleep_ms(10);
	EXPECT_LE(2, n[0]);
	EXPECT_LE(2, n[1]);
	script_end();
}

TEST_HARNESS_MAIN
