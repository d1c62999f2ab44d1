// SPDX-License-Identifier: GPL-2.0
/*
 * A connection's stream, from its TCP socket into rx entries.
 *
 * The socket's callbacks (tap.c) come here with the socket lock held, so
 * tcp_read_sock() is called right here. Its actor turns payload that lies in a
 * chunk of our slice into an rx entry, and copies everything else.
 *
 * When there is no room (ring, quota, chunks) the actor takes less than it was
 * offered. The rest stays in the socket, TCP's window closes, and the
 * connection waits in q->stalled for the next sync.
 */
#include <linux/tcp.h>
#include <net/tcp.h>

#include "internal.h"
#include "trace.h"

/* One call of the actor. */
struct stream_walk {
	struct paste_conn *c;
	struct paste_queue *q;
	struct paste_rx *last; /* entry of this call that a copy may extend */
	u32 last_stat;	       /* why it was copied */
};

/* May another entry be written? If not, why. */
static bool stream_may_push(struct paste_conn *c, struct paste_queue *q)
{
	if (c->epoch != q->epoch) {
		c->epoch = q->epoch;
		c->used = 0;
	}
	if (c->used >= c->quota)
		c->stop = PASTE_STAT_STALL_QUOTA;
	else if (!paste_queue_room(q))
		c->stop = PASTE_STAT_STALL_RING;
	return !c->stop;
}

static struct paste_rx *stream_push(struct stream_walk *w, u32 chunk, u32 off, u32 len, u16 flags)
{
	struct paste_rx *e = paste_queue_entry(w->q);

	e->conn = w->c->handle;
	e->chunk = chunk;
	e->off = off;
	e->len = len;
	e->flags = flags;
	e->err = 0;
	w->c->used++;
	return e;
}

/* Why must this be copied? In the order in which the reasons exclude each other. */
static u32 stream_copy_reason(struct stream_walk *w, struct sk_buff *skb, const u8 *data, u32 chunk,
			      u32 seq)
{
	u32 ours;

	if (before(seq, w->c->attach_seq))
		return PASTE_STAT_COPY_PREATTACH;
	if (chunk != PASTE_CHUNK_NONE)
		return PASTE_STAT_COPY_CROSS;
	ours = paste_rx_copy_reason(data);
	if (ours)
		return ours;
	if (!READ_ONCE(w->q->nic_ifindex))
		return PASTE_STAT_COPY_PLAIN;
	if (data >= skb->head && data < skb_end_pointer(skb))
		return PASTE_STAT_COPY_LINEAR;
	return PASTE_STAT_COPY_FOREIGN;
}

/* By reference. app is raised while the packet still refers to the page, see chunk.h. */
static u32 stream_refer(struct stream_walk *w, u32 chunk, u32 off, u32 len)
{
	struct paste_slice *slice = w->q->slice;

	if (!stream_may_push(w->c, w->q))
		return 0;
	paste_chunk_deliver(&slice->t, chunk - slice->first);
	w->last = NULL;
	trace_paste_deliver(w->q->id, stream_push(w, chunk, off, len, 0));
	paste_stat_inc(w->q, PASTE_STAT_REF_ENTRIES);
	paste_stat_add(w->q, PASTE_STAT_REF_BYTES, len);
	w->c->rx_bytes += len;
	return len;
}

/* By copy: behind the last piece if that is of this call, else as a new piece. */
static u32 stream_copy(struct stream_walk *w, const u8 *data, u32 len, u32 stat)
{
	struct paste_slice *slice = w->q->slice;
	u32 size = slice->pool->chunk_size, n = 0, i, off;
	struct paste_rx *e = w->last;

	if (e && w->last_stat == stat) {
		off = e->off + e->len;
		n = paste_chunk_extend(&slice->t, e->chunk - slice->first, off, len, size);
		e->len += n;
	}
	if (!n) {
		if (!stream_may_push(w->c, w->q))
			return 0;
		n = min(len, size);
		i = paste_chunk_space(&slice->t, n, size, &off);
		if (i == PASTE_CHUNK_NONE) {
			w->c->stop = PASTE_STAT_STALL_CHUNK;
			return 0;
		}
		paste_chunk_deliver(&slice->t, i);
		e = stream_push(w, slice->first + i, off, n, PASTE_RX_COPIED);
		w->last = e;
		w->last_stat = stat;
		trace_paste_deliver(w->q->id, e);
		paste_stat_inc(w->q, PASTE_STAT_COPY_ENTRIES);
		paste_stat_inc(w->q, stat);
	}
	if (slice->pool->pmem)
		memcpy_flushcache(paste_chunk_addr(slice->pool, e->chunk) + off, data, n);
	else
		memcpy(paste_chunk_addr(slice->pool, e->chunk) + off, data, n);
	paste_stat_add(w->q, PASTE_STAT_COPY_BYTES, n);
	w->c->rx_bytes += n;
	return n;
}

/* A contiguous piece of payload; it may cross chunks. Returns how much was taken. */
static u32 stream_piece(struct stream_walk *w, struct sk_buff *skb, const u8 *data, u32 len,
			u32 seq)
{
	struct paste_slice *slice = w->q->slice;
	u32 done = 0, chunk, off, n, r;

	while (done < len) {
		chunk = paste_pool_chunk_of(slice->pool, data + done);
		off = offset_in_page(data + done) & (slice->pool->chunk_size - 1);
		if (chunk - slice->first < slice->t.n && !before(seq + done, w->c->attach_seq)) {
			n = min(len - done, slice->pool->chunk_size - off);
			r = stream_refer(w, chunk, off, n);
		} else {
			n = min_t(u32, len - done, PAGE_SIZE - offset_in_page(data + done));
			r = stream_copy(w, data + done, n,
					stream_copy_reason(w, skb, data + done, chunk, seq + done));
		}
		done += r;
		if (w->c->stop)
			break;
	}
	return done;
}

/* tcp_read_sock()'s actor: socket lock held. skb_seq_read() knows frags and frag lists. */
static int stream_actor(read_descriptor_t *desc, struct sk_buff *skb, unsigned int off, size_t len)
{
	struct paste_conn *c = desc->arg.data;
	struct stream_walk w = { .c = c, .q = c->q };
	u32 seq = TCP_SKB_CB(skb)->seq + off;
	struct skb_seq_state st;
	const u8 *data;
	u32 done = 0, n;

	if (unlikely(c->skip_urgent)) {
		c->skip_urgent = false;
		return 1;
	}
	skb_prepare_seq_read(skb, off, off + len, &st);
	spin_lock_bh(&c->q->slice->lock);
	while (!c->stop && done < len && (n = skb_seq_read(done, &data, &st)))
		/* what it says is there may go beyond len, up to which we may read */
		done += stream_piece(&w, st.cur_skb, data, min_t(u32, n, len - done), seq + done);
	skb_abort_seq_read(&st);
	if (c->q->slice->pool->pmem)
		pmem_wmb(); /* a release does not order stores past the caches */
	paste_queue_publish(c->q);
	spin_unlock_bh(&c->q->slice->lock);
	if (c->stop)
		desc->count = 0;
	return done;
}

/*
 * tcp_read_sock() stops before an urgent byte for ever, and the peer decides
 * whether there is one. Do what read(2) does: leave the byte out of the stream,
 * or (SO_OOBINLINE) take it as any other. True: read on.
 */
static bool stream_urgent(struct paste_conn *c)
{
	struct tcp_sock *tp = tcp_sk(c->sk);

	if (likely(!tp->urg_data) || tp->urg_seq != tp->copied_seq ||
	    !before(tp->copied_seq, tp->rcv_nxt))
		return false;
	WRITE_ONCE(tp->urg_data, 0);
	if (sock_flag(c->sk, SOCK_URGINLINE))
		return true;
	c->skip_urgent = true;
	spin_lock_bh(&c->q->slice->lock);
	paste_stat_inc(c->q, PASTE_STAT_URGENT);
	spin_unlock_bh(&c->q->slice->lock);
	return true;
}

/*
 * All data was taken: is the stream over? tcp_fin() tells us before its data is
 * read. As with read(2), what breaks afterwards is no matter of the stream any more.
 */
static void stream_end(struct paste_conn *c)
{
	struct stream_walk w = { .c = c, .q = c->q };
	struct sock *sk = c->sk;
	int err = sock_flag(sk, SOCK_DONE) ? 0 : sk->sk_err;
	struct paste_rx *e;

	if (!err && sk->sk_state == TCP_CLOSE && !(sk->sk_shutdown & RCV_SHUTDOWN))
		err = ECONNABORTED;
	if (!err && !(sk->sk_shutdown & RCV_SHUTDOWN))
		return;
	spin_lock_bh(&c->q->slice->lock);
	if (stream_may_push(c, c->q)) {
		e = stream_push(&w, 0, 0, 0, err ? PASTE_RX_ERR : PASTE_RX_FIN);
		e->err = err;
		trace_paste_deliver(c->q->id, e);
		paste_stat_inc(c->q, err ? PASTE_STAT_ERRORS : PASTE_STAT_FINS);
		paste_queue_publish(c->q);
		c->ended = true;
	}
	spin_unlock_bh(&c->q->slice->lock);
}

static void stream_stall(struct paste_conn *c)
{
	struct paste_queue *q = c->q;

	spin_lock_bh(&q->slice->lock);
	paste_stat_inc(q, c->stop);
	if (list_empty(&c->stall)) {
		list_add_tail(&c->stall, &q->stalled);
		q->n_stalled++;
		if (!READ_ONCE(q->dead))
			WRITE_ONCE(*q->flags, PASTE_Q_NEED_SYNC);
	}
	spin_unlock_bh(&q->slice->lock);
}

/*
 * Keep the socket's receive buffer within the share, against auto-tuning too:
 * what waits in sockets must fit into the slice. The floor (a few packets) may
 * break that with very many connections; then rx.c copies packets out.
 */
static void stream_fit_rcvbuf(struct paste_conn *c)
{
	u32 share = READ_ONCE(c->q->rcv_share);
	struct sock *sk = c->sk;

	if (likely(sk->sk_rcvbuf <= share))
		return;
	if (!(sk->sk_userlocks & SOCK_RCVBUF_LOCK)) {
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		c->locked_rcvbuf = true;
	}
	WRITE_ONCE(sk->sk_rcvbuf, share);
	WRITE_ONCE(tcp_sk(sk)->window_clamp, tcp_win_from_space(sk, share));
}

/*
 * A packet by reference takes up a whole chunk, whatever is in it. A TCP that
 * does not learn that reckons with half of the buffer being payload. It would
 * promise the peer more than fits, and when that comes copy all that waits in
 * the socket into smaller packets. So after each packet let it promise what
 * still fits (rcv_ssthresh); it raises that by itself again, but not above the
 * clamp: packets out of order raise it, too, and nobody tells us of these.
 *
 * When less than a sixteenth of the buffer is free TCP closes the window, but
 * only (__tcp_select_window()) if that is less than half of the clamp, too. A
 * clamp as low as the rest would keep it open to the last byte and over it.
 * Socket lock held.
 */
void paste_stream_fit_window(struct paste_conn *c)
{
	u32 frame = c->q->slice->pool->chunk_size + SKB_TRUESIZE(128), window;
	struct tcp_sock *tp = tcp_sk(c->sk);
	int room;

	if (c->ended)
		return;
	if (!PASTE_TCP_ASSUMES_HALF || !READ_ONCE(c->q->nic_ifindex)) {
		paste_stream_free_window(c);
		return;
	}
	room = max(c->sk->sk_rcvbuf - atomic_read(&c->sk->sk_rmem_alloc), 0);
	window = max_t(u32, div_u64((u64)room * tp->advmss, frame), 2 * tp->advmss);
	window = min_t(u32, window, tcp_win_from_space(c->sk, c->sk->sk_rcvbuf));
	WRITE_ONCE(tp->rcv_ssthresh, min(tp->rcv_ssthresh, window));
	if (room < c->sk->sk_rcvbuf >> 4) {
		paste_stream_free_window(c);
		return;
	}
	WRITE_ONCE(tp->window_clamp, window);
	c->clamped = true;
}

/* The clamp that TCP would have. Socket lock held. */
void paste_stream_free_window(struct paste_conn *c)
{
	if (!c->clamped)
		return;
	WRITE_ONCE(tcp_sk(c->sk)->window_clamp, tcp_win_from_space(c->sk, c->sk->sk_rcvbuf));
	c->clamped = false;
}

/* An accepted connection's first entry tells the application of it. */
static void stream_announce(struct paste_conn *c)
{
	struct stream_walk w = { .c = c, .q = c->q };

	spin_lock_bh(&c->q->slice->lock);
	if (stream_may_push(c, c->q)) {
		trace_paste_deliver(c->q->id, stream_push(&w, 0, 0, 0, PASTE_RX_NEW));
		paste_queue_publish(c->q);
		c->unannounced = false;
	}
	spin_unlock_bh(&c->q->slice->lock);
}

/* Read what there is. Socket lock held, softirq or process. */
void paste_stream_pull(struct paste_conn *c)
{
	read_descriptor_t desc = { .arg.data = c };

	if (c->ended || !c->quota)
		return;
	stream_fit_rcvbuf(c);
	WRITE_ONCE(c->stop, 0);
	if (unlikely(c->unannounced))
		stream_announce(c);
	while (!c->stop) {
		desc.count = 1;
		tcp_read_sock(c->sk, &desc, stream_actor);
		if (c->stop || !stream_urgent(c))
			break;
	}
	if (!c->stop)
		stream_end(c);
	if (c->stop)
		stream_stall(c);
	paste_queue_wake(c->q);
}

/* Connections that waited for room may go on. */
void paste_stream_resume(struct paste_queue *q)
{
	struct paste_conn *c;
	u32 n;

	spin_lock_bh(&q->slice->lock);
	q->epoch++;
	for (n = q->n_stalled; n && paste_queue_room(q); n--) {
		c = list_first_entry(&q->stalled, struct paste_conn, stall);
		list_del_init(&c->stall);
		if (!--q->n_stalled && !READ_ONCE(q->dead))
			WRITE_ONCE(*q->flags, 0);
		if (!refcount_inc_not_zero(&c->ref))
			continue;
		paste_stat_inc(q, PASTE_STAT_RESUMES);
		spin_unlock_bh(&q->slice->lock);
		lock_sock(c->sk);
		paste_stream_pull(c);
		paste_stream_fit_window(c);
		release_sock(c->sk);
		paste_tap_put(c);
		spin_lock_bh(&q->slice->lock);
	}
	spin_unlock_bh(&q->slice->lock);
}
