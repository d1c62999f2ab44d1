/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The module's one private header: structures, locking, prototypes by file.
 *
 * Calls go one way:
 *
 *   main -> dev -> { nic -> { xsk, rx }, accept -> tap -> stream, tx } -> queue ->
 *   pool -> pmem
 *
 *   RX  nic.c (our NAPI) -> rx.c (frame to skb) -> TCP -> tap.c (callbacks) ->
 *       stream.c (skb to rx entries) -> queue.c (ring, wakeup)
 *   TX  dev.c (sync) -> tx.c (tx entries to sendmsg) -> TCP -> driver
 *       ... -> tx.c (ubuf completion, any context) -> comp entries
 *
 * Locking
 * -------
 *
 *   ctx->lock          mutex. Set-up: pool, list of queues, NIC bindings,
 *                      listeners, new connections.
 *    rtnl              inside ctx->lock (kernel_bind() takes it). Protects the
 *                      list of bindings in nic.c.
 *    socket lock       inside ctx->lock. TCP calls our callbacks with it held:
 *                      in softirq (slock, not owned) or by the task that owns
 *                      the socket. Protects a connection's reading and sending
 *                      state. Never held across something that waits for NAPI.
 *     slice->lock      spin_bh, leaf. Chunk counts, the rx ring, the lists of
 *                      stalled and sendable connections, most statistics. The
 *                      queue's lock is its slice's: whoever delivers needs both.
 *                      Never two slices at once.
 *
 * Nothing of ours is taken in the wait-queue callbacks (AF_XDP, listener) and in ubuf
 * completions (irqs off or any context): they use napi_schedule(), llist_add()
 * and wake_up().
 *
 * The fill, tx and comp rings belong to the one thread that has set
 * PASTE_Q_SYNCING in queue->state; poll(2) takes the bit if it is free.
 *
 * Lifetimes
 * ---------
 *
 *   context     its file. Queues hold that file, so it goes after all of them.
 *   pool,slices the context. Pages are freed by put_page(): those that a packet
 *               still refers to when the context goes live until the packet dies.
 *               Pages of persistent memory are given back when no packet refers
 *               to any: the context's end sees to it that this is at once, and
 *               if it is not, the pool outlives it, see pmem.c.
 *   queue       its file; and a reference per send under way (see tx.c).
 *   binding     its queue, or until the NIC goes (then it is a dead shell).
 *   connection  reference counted: one for being in ctx->conns, one per send.
 *               Who takes it out of ctx->conns (detach, CLOSE, or the socket's
 *               destruction) undoes the attach. Freed by RCU, with its hold on
 *               the struct sock. The socket's file is never held: close(2) by
 *               the application must close the connection. One that we have
 *               accepted has no file; who undoes its attach closes it.
 *   listener    its file is held until the queue no longer accepts, or closes.
 */
#ifndef PASTE_INTERNAL_H
#define PASTE_INTERNAL_H

#include <linux/kref.h>
#include <linux/llist.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/rhashtable.h>
#include <linux/skbuff.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <linux/paste.h>

#include "ring.h"
#include "chunk.h"
#include "frame.h"

#define PASTE_MAX_CHUNKS  (1U << 22)
#define PASTE_MAX_QUEUES  64
#define PASTE_MAX_CONNS	  (1U << 16)
#define PASTE_MAX_ENTRIES (1U << 16)
#define PASTE_TX_COPY_MAX 256
#define PASTE_MIN_CHUNKS  64
#define PASTE_PIECE_PAGES 64

/*
 * For memory whose size the caller chose: charged to its cgroup, and refused
 * where there is none, without the OOM killer and without a word in the log.
 */
#define PASTE_GFP_SIZED (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

struct paste_pool {
	/* set at create, then constant */
	struct page **pages;
	u32 n_pages;
	u32 n_chunks; /* n_pages * per_page */
	u32 chunk_size;
	u32 chunk_shift;
	u32 per_page; /* chunks in a page: 1 or 2 */
	u32 first_rx, n_rx, first_tx, n_tx;
	bool rx_writable;
	int page_refs;		   /* references that an idle page has, but for UMEMs' */
	struct paste_pmem *pmem;   /* whose the pages are; NULL: ours */
	struct user_struct *user;  /* charged for locked memory, or NULL */
	u32 n_charged;		   /* pages */
	struct delayed_work retry; /* see paste_pool_destroy() */
};

/* A run of rx chunks. Outlives its queue: other queues may still send from it. */
struct paste_slice {
	spinlock_t lock;
	struct paste_slice_table t; /* lock */
	struct paste_pool *pool;    /* constant */
	u32 first;		    /* constant; chunk 0 of t is this chunk of the pool */
	u32 low;		    /* set at bind, before frames come; see rx.c */
	/*
	 * References that an idle page has: the pool's, and
	 * GUP_PIN_COUNTING_BIAS while a UMEM pins it. Computed, never sampled:
	 * nothing else can lower the count, as the application's mapping is a
	 * PFN mapping without references. lock.
	 */
	int idle_refs;
};

struct paste_ctx {
	struct mutex lock;
	struct file *file;	 /* constant, not counted */
	struct mm_struct *mm;	 /* constant; mmgrab()bed, only compared */
	struct pid *pid;	 /* constant */
	u32 n_queues;		 /* ctx->lock; slices[] is only appended to */
	struct paste_pool *pool; /* ctx->lock; set once (release), read by mmap */
	struct paste_slice *slices[PASTE_MAX_QUEUES];
	u32 next_chunk;	     /* ctx->lock; first rx chunk of no slice */
	struct xarray conns; /* index to connection; RCU */
	u32 conn_next;	     /* xa_alloc_cyclic's; ctx->lock */
	u32 conn_gen;	     /* ctx->lock; 1 to 0xffff, another each time the index wraps */
	u32 id;		     /* constant; unique among contexts, see xsk.c */
	struct task_struct *umem_task;	/* ctx->lock; the task that may map umem_slice now */
	struct paste_slice *umem_slice; /* ctx->lock */
};

/* One send, from its tx entry to its comp entry. */
struct paste_send {
	struct llist_node done;	  /* in queue->done, or free list */
	struct list_head list;	  /* in conn->txq; socket lock */
	struct paste_send *group; /* head of the group whose ubuf refers to our bytes, or NULL */
	struct paste_send *group_next; /* the group's next member */
	struct paste_send *group_tail; /* head: the last member */
	struct paste_conn *conn;       /* counted; NULL if it never had one */
	struct paste_queue *q;
	struct ubuf_info ubuf; /* of the group, in its head */
	u64 cookie;
	u32 handle;
	u32 chunk; /* of the pool; 0: none */
	u16 off, len;
	u16 sent;    /* bytes handed to TCP */
	u16 n_group; /* head: members */
	u16 flags;   /* PASTE_TX_* */
	s32 result;
};

/* A qdisc that is held back so that its NIC gets one doorbell for many packets, see tx.c. */
struct paste_bell {
	struct Qdisc *qdisc; /* counted, or NULL */
	bool held;	     /* it cannot run; cleared by us or by late, never by both at once */
	u32 limit;	     /* sends of one hold; 0: do not hold */
	u32 left;	     /* of this one */
	struct timer_list late;
};

/* The listening socket of a queue, see accept.c. */
struct paste_listener {
	struct socket *sock;	       /* its file is counted; NULL: none; ctx->lock */
	u32 quota;		       /* of its connections; ctx->lock */
	bool come;		       /* there may be connections to accept; any context */
	struct wait_queue_entry entry; /* on sock */
};

#define PASTE_Q_SYNCING 0 /* bit in queue->state: a thread is in sync */

struct paste_queue {
	/* set at create, then constant */
	struct kref ref;
	struct paste_ctx *ctx; /* alive as long as the queue's file, which holds its file */
	struct paste_slice *slice;
	u32 id;
	void *kern, *user; /* ring memory, vmalloc */
	u32 kern_len, user_len;
	u32 *flags; /* in kern */
	struct paste_send *sends;
	struct rhashtable flows; /* attached flows, see rx.c */

	unsigned long state;
	bool dead; /* ring corruption */
	wait_queue_head_t wait;
	struct llist_head done; /* finished sends; any context */

	/* slice->lock */
	struct paste_ring rx;
	struct list_head stalled;  /* connections that wait for room */
	struct list_head sendable; /* connections whose socket has room again */
	u32 n_stalled;
	u32 epoch;   /* syncs; connections' quotas start anew with each */
	u32 napi_id; /* where plain connections' packets come from */

	/* who has PASTE_Q_SYNCING */
	struct paste_ring fill, tx, comp;
	struct llist_node *free_sends;
	u32 n_sends; /* under way */
	struct paste_bell bell;

	atomic_t n_conns;
	u32 rcv_share;		     /* most that a socket's receive buffer may be */
	struct delayed_work tx_work; /* see tx.c */
	struct work_struct free_work;
	struct paste_listener listener;
	struct paste_nic __rcu *nic; /* ctx->lock, RCU */
	u32 nic_ifindex, nic_queue;  /* ctx->lock; read without it for statistics */
	u64 stat[PASTE_STAT_N];
};

struct paste_xsk_ring {
	struct paste_ring r;
	u32 *flags;
	void *kva;
	struct page **pages; /* pinned and vmapped; NULL: one compound page */
	int n_pages;
};

/* The AF_XDP socket of a NIC binding. */
struct paste_xsk {
	struct socket *sock;
	struct file *file; /* counted; owns sock */
	u32 entries;	   /* of each ring */
	struct paste_xsk_ring rx, fill;
	struct work_struct put_work;
};

/* Memory for packets, in pieces of pages that are used again and again (rx.c). */
struct paste_pieces {
	struct page *pages[PASTE_PIECE_PAGES];
	u32 next;
};

/*
 * Where the frames of a binding enter the stack, see rx.c. Our NAPI's, but for
 * what is set at bind.
 */
struct paste_inlet {
	struct paste_queue *q;	    /* set at bind */
	struct napi_struct *napi;   /* set at bind */
	const unsigned long *ports; /* set at bind; bitmap */
	struct net_device *dev;	    /* of this poll */
	struct list_head direct;    /* packets past GRO; until paste_rx_flush() */
	bool in_gro;		    /* GRO may have packets of ours */
	struct paste_pieces heads;
	struct paste_pieces copies; /* of small payloads */
};

/* What the data path needs is in three cache lines: without debugging, the 1st, 2nd and 4th. */
struct paste_conn {
	/* set at attach, then constant */
	struct sock *sk; /* sock_hold() */
	struct paste_queue *q;
	u32 handle;
	u32 attach_seq; /* bytes before it were there before us */
	struct paste_flow flow;
	struct rhash_head flow_node;	     /* q->flows */
	void (*data_ready)(struct sock *sk); /* the socket's own callbacks */
	void (*state_change)(struct sock *sk);
	void (*write_space)(struct sock *sk);

	u64 tx_bytes; /* of completed sends; who has PASTE_Q_SYNCING */
	refcount_t ref;
	int tx_err; /* the first error; later sends are cancelled; socket lock */
	struct rcu_head rcu;
	struct rcu_work leave; /* after detach, with persistent memory */

	/* socket lock */
	bool ended;		  /* the end entry is in the ring */
	bool skip_urgent;	  /* the next byte is the urgent one */
	bool sending;		  /* in tcp_sendmsg_locked() */
	bool unannounced;	  /* accepted, and the application does not know yet */
	u8 stop;		  /* why the actor stopped: PASTE_STAT_STALL_* or 0 */
	u32 quota;		  /* most entries of an epoch; 0: the application wants none */
	u32 used;		  /* entries of this epoch; slice->lock as well */
	u32 epoch;		  /* slice->lock as well */
	u64 rx_bytes;		  /* slice->lock as well */
	struct list_head txq;	  /* sends that TCP has not taken all of */
	struct paste_send *group; /* open group, see tx.c */

	/* slice->lock */
	struct list_head stall; /* in q->stalled */
	struct list_head ready; /* in q->sendable */

	/* set at attach */
	struct socket *sock; /* ours, with no file; NULL: it is the application's; constant */
	u64 netns;	     /* cookie; constant */
	int rcvlowat;	     /* the socket's own; constant */
	bool locked_rcvbuf;  /* we set SOCK_RCVBUF_LOCK; socket lock */
	bool clamped;	     /* we set TCP's window clamp; socket lock */
	bool reserved;	     /* we set sk_reserved_mem; socket lock */
};

/* Errors of set-up calls carry a sentence to the caller. */
struct paste_text {
	char s[PASTE_TEXT_MAX];
};

static inline __printf(3, 4) int paste_fail(struct paste_text *text, int err, const char *fmt, ...)
{
	va_list args;

	if (!text) /* nobody asked */
		return err;
	va_start(args, fmt);
	vscnprintf(text->s, PASTE_TEXT_MAX, fmt, args);
	va_end(args);
	return err;
}

static inline void paste_stat_add(struct paste_queue *q, u32 i, u64 n)
{
	WRITE_ONCE(q->stat[i], q->stat[i] + n);
}

static inline void paste_stat_inc(struct paste_queue *q, u32 i)
{
	paste_stat_add(q, i, 1);
}

/* main.c */
extern atomic64_t paste_made[PASTE_OBJ_MAX], paste_gone[PASTE_OBJ_MAX];
extern struct workqueue_struct *paste_wq;

/* dev.c */
int paste_dev_init(void);
void paste_dev_exit(void);

/* queue.c */
struct paste_queue *paste_queue_create(struct paste_ctx *ctx, struct paste_ioc_queue *a,
				       struct paste_text *text); /* ctx->lock */
void paste_queue_unlist(struct paste_queue *q);			 /* process context */
void paste_queue_free(struct paste_queue *q);			 /* process context */
void paste_queue_put(struct paste_queue *q);			 /* any context */
void paste_queue_kill(struct paste_queue *q);			 /* ring corruption; any lock */
void paste_queue_wake(struct paste_queue *q);			 /* any context */
int paste_queue_room(struct paste_queue *q);			 /* slice->lock */
struct paste_rx *paste_queue_entry(struct paste_queue *q);	 /* slice->lock */
void paste_queue_publish(struct paste_queue *q);		 /* slice->lock */
void paste_queue_take_fills(struct paste_queue *q);		 /* SYNCING */
u32 paste_queue_rx_unread(const struct paste_queue *q);		 /* any context */
u32 paste_queue_comp_unread(const struct paste_queue *q);
bool paste_queue_ready(struct paste_queue *q);
int paste_queue_stats(struct paste_ctx *ctx, struct paste_ioc_stats *a); /* process context */
struct paste_queue *paste_queue_pin(struct paste_ctx *ctx, u32 id);	 /* process context */
void paste_queue_unpin(void);

/* pool.c */
int paste_pool_create(struct paste_ctx *ctx, struct paste_ioc_pool *a,
		      struct paste_text *text); /* ctx->lock */
void paste_pool_destroy(struct paste_pool *pool);
struct paste_slice *paste_slice_create(struct paste_pool *pool, u32 first, u32 n);
void paste_slice_destroy(struct paste_slice *slice);
void *paste_chunk_addr(const struct paste_pool *pool, u32 chunk);
u32 paste_pool_chunk_of(const struct paste_pool *pool, const void *addr);
int paste_pool_mmap(struct paste_pool *pool, struct vm_area_struct *vma);

/* pmem.c */
int paste_pmem_open(struct paste_pool *pool, struct paste_ioc_pool *a,
		    struct paste_text *text); /* ctx->lock */
int paste_pmem_check_header(struct paste_pool *pool, const struct paste_pool_header *want,
			    struct paste_text *text);
int paste_pmem_pin(struct paste_pool *pool, u32 pages, struct paste_text *text);
void paste_pmem_write_header(struct paste_pool *pool, const struct paste_pool_header *want);
u32 paste_pmem_page_of(const struct paste_pmem *pm, unsigned long pfn); /* any context */
bool paste_pmem_is_idle(struct paste_pool *pool);			/* process context */
void paste_pmem_close(struct paste_pool *pool);				/* process context */

/* nic.c */
int paste_nic_bind(struct paste_queue *q, struct paste_ioc_nic_bind *a, struct paste_text *text,
		   struct file **file);		       /* ctx->lock */
int paste_nic_unbind(struct paste_queue *q);	       /* ctx->lock */
unsigned int paste_nic_napi_id(struct paste_queue *q); /* SYNCING; 0: none */
void paste_nic_refill_soon(struct paste_queue *q);     /* SYNCING */
void paste_nic_free_deferred(void);		       /* process context */
int paste_nic_init(void);
void paste_nic_exit(void);

/* xsk.c: process context, ctx->lock */
int paste_xsk_open(struct paste_xsk *x);
int paste_xsk_register(struct paste_xsk *x, struct paste_queue *q);
int paste_xsk_make_rings(struct paste_xsk *x);
int paste_xsk_bind(struct paste_xsk *x, u32 ifindex, u32 nic_queue);
void paste_xsk_close(struct paste_xsk *x);
int paste_xsk_mmap(struct paste_ctx *ctx, struct vm_area_struct *vma);
bool paste_xsk_is_window(struct paste_ctx *ctx, struct vm_area_struct *vma);

/* rx.c */
void paste_rx_frame(struct paste_inlet *in, u32 i, u32 off, u32 len); /* our NAPI */
void paste_rx_flush(struct paste_inlet *in);			      /* our NAPI */
void paste_rx_free_pieces(struct paste_inlet *in);		      /* our NAPI is over */
void paste_rx_flow_of(const struct sock *sk, struct paste_flow *flow);
int paste_rx_add_flow(struct paste_conn *c);
void paste_rx_del_flow(struct paste_conn *c);
int paste_rx_init_flows(struct paste_queue *q);
u32 paste_rx_copy_reason(const void *data); /* any context */

/* accept.c */
int paste_accept_start(struct paste_queue *q, struct paste_ioc_accept *a,
		       struct paste_text *text); /* ctx->lock */
int paste_accept_stop(struct paste_queue *q);	 /* ctx->lock */
void paste_accept_run(struct paste_queue *q);	 /* SYNCING */

/* tap.c */
int paste_tap_attach(struct paste_queue *q, struct paste_ioc_attach *a,
		     struct paste_text *text); /* ctx->lock */
struct socket *paste_tap_lookup(struct paste_queue *q, int fd, u32 quota,
				struct paste_text *text);		    /* process context */
int paste_tap_adopt(struct paste_queue *q, struct socket *sock, u32 quota); /* ctx->lock */
int paste_tap_detach(struct paste_queue *q, u32 handle);		    /* process context */
int paste_tap_set_quota(struct paste_queue *q, u32 handle, u32 quota);	    /* process context */
int paste_tap_info(struct paste_ctx *ctx, struct paste_ioc_conn *a);	    /* process context */
void paste_tap_detach_conn(struct paste_conn *c);			    /* process context */
void paste_tap_detach_all(struct paste_queue *q); /* process context; waits for RCU */
struct paste_conn *paste_tap_get(struct paste_queue *q, u32 handle); /* ERR_PTR */
void paste_tap_put(struct paste_conn *c);			     /* any context */

/* stream.c */
void paste_stream_pull(struct paste_conn *c);	     /* socket lock, softirq or process */
void paste_stream_resume(struct paste_queue *q);     /* process context */
void paste_stream_fit_window(struct paste_conn *c);  /* socket lock */
void paste_stream_free_window(struct paste_conn *c); /* socket lock */

/* tx.c */
int paste_tx_init(struct paste_queue *q);
void paste_tx_batch(struct paste_queue *q);	     /* SYNCING */
void paste_tx_complete(struct paste_queue *q);	     /* SYNCING: done to comp */
void paste_tx_ready(struct paste_conn *c);	     /* socket lock */
void paste_tx_resume(struct paste_queue *q);	     /* process context */
void paste_tx_cancel(struct paste_conn *c, int err); /* socket lock */
void paste_tx_drain(struct paste_queue *q);	     /* SYNCING; waits */
void paste_tx_free(struct paste_queue *q);	     /* process context */

#endif /* PASTE_INTERNAL_H */
