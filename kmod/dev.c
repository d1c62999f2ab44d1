// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/paste: files, ioctls, mappings, and the order in which things go away.
 *
 * Every ioctl argument is a struct that starts with its size. The table below
 * says how short it may be; it is copied once, checked, worked on, and copied
 * back as far as the caller knows it.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/idr.h>
#include <linux/miscdevice.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>
#include <net/busy_poll.h>

#include "internal.h"

#define BUSY_BUDGET  64 /* frames of one round of busy polling */
#define STALL_NAP_US 1000

static DEFINE_IDA(dev_ctx_ids);

/* ------------------------------------------------------------- contexts --- */

static int ctx_open(struct inode *inode, struct file *file)
{
	struct paste_ctx *ctx = kzalloc(sizeof(*ctx), GFP_KERNEL_ACCOUNT);
	int id;

	if (!ctx)
		return -ENOMEM;
	id = ida_alloc_max(&dev_ctx_ids, (1 << 24) - 1, GFP_KERNEL);
	if (id < 0) {
		kfree(ctx);
		return id;
	}
	mutex_init(&ctx->lock);
	xa_init_flags(&ctx->conns, XA_FLAGS_ALLOC | XA_FLAGS_LOCK_BH);
	ctx->conn_gen = 1;
	ctx->id = id;
	ctx->file = file;
	ctx->pid = get_pid(task_tgid(current));
	ctx->mm = current->mm;
	if (ctx->mm)
		mmgrab(ctx->mm);
	file->private_data = ctx;
	atomic64_inc(&paste_made[PASTE_OBJ_CONTEXT]);
	return 0;
}

/*
 * Persistent memory goes back to its file, so no packet may refer to it.
 * 1. RCU: detached sockets have been given to a work item ...
 * 2. ... which has copied what they had received.
 * 3. Packets that are waiting to be freed are.
 * What is left the pool waits for.
 */
static void ctx_settle(struct paste_ctx *ctx)
{
	if (!ctx->pool || !ctx->pool->pmem)
		return;
	rcu_barrier();
	flush_workqueue(paste_wq);
	paste_nic_free_deferred();
}

/*
 * The last one: queues and mappings hold the file, so none is left, and with the
 * queues went bindings, connections and sends.
 */
static int ctx_release(struct inode *inode, struct file *file)
{
	struct paste_ctx *ctx = file->private_data;
	u32 i;

	ctx_settle(ctx);
	for (i = 0; i < ctx->n_queues; i++)
		paste_slice_destroy(ctx->slices[i]);
	if (ctx->pool)
		paste_pool_destroy(ctx->pool);
	xa_destroy(&ctx->conns);
	if (ctx->mm)
		mmdrop(ctx->mm);
	put_pid(ctx->pid);
	ida_free(&dev_ctx_ids, ctx->id);
	kfree(ctx);
	atomic64_inc(&paste_gone[PASTE_OBJ_CONTEXT]);
	return 0;
}

static int ctx_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct paste_ctx *ctx = file->private_data;
	struct paste_pool *pool = smp_load_acquire(&ctx->pool); /* pairs with pool_create's store */

	if (current->mm != ctx->mm)
		return -EPERM;
	if (!pool)
		return -ENXIO;
	if (paste_xsk_is_window(ctx, vma))
		return paste_xsk_mmap(ctx, vma);
	return paste_pool_mmap(pool, vma);
}

/* --------------------------------------------------------------- queues --- */

static bool queue_begin(struct paste_queue *q)
{
	return !test_and_set_bit_lock(PASTE_Q_SYNCING, &q->state);
}

static void queue_end(struct paste_queue *q)
{
	clear_bit_unlock(PASTE_Q_SYNCING, &q->state);
}

static void queue_free_work(struct work_struct *work)
{
	struct paste_queue *q = container_of(work, struct paste_queue, free_work);

	paste_tx_free(q);
	paste_queue_free(q);
	module_put(THIS_MODULE); /* module exit waits for this function's return */
}

/*
 * 1. Nobody is in an ioctl or poll (they hold the file); nobody can find the
 *    queue for statistics any more.
 * 2. No connection is accepted any more. The NIC gives back its chunks.
 * 3. Connections become ordinary sockets, those that it has accepted are closed;
 *    RCU: no callback knows the queue.
 * 4. Sends: TCP gets copies of what it has still to send.
 * 5. The context's file, and with it maybe the context.
 * The queue's own memory goes with its last send.
 */
static int queue_release(struct inode *inode, struct file *file)
{
	struct paste_queue *q = file->private_data;
	struct paste_ctx *ctx = q->ctx;

	queue_begin(q);
	paste_queue_unlist(q);
	mutex_lock(&ctx->lock);
	paste_accept_stop(q);
	paste_nic_unbind(q);
	mutex_unlock(&ctx->lock);
	paste_tap_detach_all(q);
	paste_tx_drain(q);
	rhashtable_destroy(&q->flows);
	paste_queue_put(q);
	fput(ctx->file);
	return 0;
}

/* remap_vmalloc_range() wants memory that was not charged to a cgroup. */
static int queue_map_rings(struct vm_area_struct *vma, void *rings)
{
	unsigned long addr = vma->vm_start;
	int err = 0;

	for (; addr < vma->vm_end && !err; addr += PAGE_SIZE, rings += PAGE_SIZE)
		err = vm_insert_page(vma, addr, vmalloc_to_page(rings));
	return err;
}

static int queue_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct paste_queue *q = file->private_data;
	unsigned long off = vma->vm_pgoff << PAGE_SHIFT, len = vma->vm_end - vma->vm_start;

	if (current->mm != q->ctx->mm)
		return -EPERM;
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* VM_IO: without it madvise(MADV_DOFORK) would undo VM_DONTCOPY */
	vm_flags_set(vma, VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vm_flags_clear(vma, VM_MAYEXEC);
	if (off == PASTE_MMAP_KERN && len == q->kern_len) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
		vm_flags_clear(vma, VM_MAYWRITE);
		return queue_map_rings(vma, q->kern);
	}
	if (off == PASTE_MMAP_USER && len == q->user_len)
		return queue_map_rings(vma, q->user);
	return -EINVAL;
}

/* Stalled connections go on only in sync: say so when nothing else is there to take. */
static __poll_t queue_poll(struct file *file, poll_table *wait)
{
	struct paste_queue *q = file->private_data;

	poll_wait(file, &q->wait, wait);
	if (READ_ONCE(q->dead))
		return EPOLLERR;
	if (!llist_empty(&q->done) && queue_begin(q)) {
		paste_tx_complete(q);
		queue_end(q);
	}
	return paste_queue_ready(q) || READ_ONCE(q->n_stalled) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* ----------------------------------------------------------------- sync --- */

struct busy_arg {
	struct paste_queue *q;
	u64 end; /* local clock, ns */
};

static bool sync_busy_end(void *p, unsigned long start)
{
	struct busy_arg *arg = p;

	return paste_queue_ready(arg->q) || signal_pending(current) || ktime_get_ns() >= arg->end;
}

/*
 * Poll the NIC from here: driver, our NAPI, TCP and delivery run in this task.
 * Without a NAPI to poll (loopback, or no packet yet) wait for softirqs.
 */
static void sync_busy(struct paste_queue *q, u32 us)
{
	struct busy_arg arg = { .q = q, .end = ktime_get_ns() + (u64)us * NSEC_PER_USEC };
	unsigned int id;

	paste_stat_inc(q, PASTE_STAT_SYNC_BUSY);
	while (!sync_busy_end(&arg, 0)) {
		id = paste_nic_napi_id(q) ?: READ_ONCE(q->napi_id);
		if (id >= MIN_NAPI_ID)
			napi_busy_loop(id, sync_busy_end, &arg, false, BUSY_BUDGET);
		cond_resched();
		cpu_relax();
	}
}

static int sync_sleep(struct paste_queue *q, u64 us)
{
	int err;

	paste_stat_inc(q, PASTE_STAT_SYNC_SLEPT);
	err = wait_event_interruptible_hrtimeout(
		q->wait, paste_queue_ready(q),
		us == PASTE_FOREVER ? KTIME_MAX : ns_to_ktime(us * NSEC_PER_USEC));
	return err == -ERESTARTSYS ? -EINTR : 0;
}

/*
 * While connections are stalled, sleep in naps: a chunk that the stack lets go
 * of makes no event.
 */
static int sync_wait(struct paste_queue *q, u64 us)
{
	u64 nap;
	int err;

	while (us && !paste_queue_ready(q)) {
		nap = READ_ONCE(q->n_stalled) ? min_t(u64, us, STALL_NAP_US) : us;
		err = sync_sleep(q, nap);
		if (err)
			return err;
		if (us != PASTE_FOREVER)
			us -= nap;
		if (READ_ONCE(q->n_stalled))
			paste_stream_resume(q);
	}
	return 0;
}

/* Indices that only we read when a ring is full may have been wrong for long: look now. */
static void sync_check(struct paste_queue *q)
{
	bool bad = paste_ring_unread(&q->comp) < 0;

	spin_lock_bh(&q->slice->lock);
	bad |= paste_ring_unread(&q->rx) < 0;
	spin_unlock_bh(&q->slice->lock);
	if (bad)
		paste_queue_kill(q);
}

static void sync_batch(struct paste_queue *q)
{
	paste_queue_take_fills(q);
	paste_tx_complete(q); /* makes room in comp, and frees chunks */
	paste_tx_resume(q);
	paste_tx_batch(q);
	paste_accept_run(q);
	paste_stream_resume(q);
	paste_nic_refill_soon(q);
}

static int queue_do_sync(struct paste_queue *q, struct paste_ioc_sync *a)
{
	int err = 0;

	paste_stat_inc(q, PASTE_STAT_SYNCS);
	sync_check(q);
	if (READ_ONCE(q->dead))
		return -EIO;
	sync_batch(q);
	if (a->busy_us && !paste_queue_ready(q))
		sync_busy(q, a->busy_us);
	if (a->wait_us && !paste_queue_ready(q))
		err = sync_wait(q, a->wait_us);
	paste_accept_run(q);
	paste_tx_complete(q);
	if (READ_ONCE(q->dead))
		return -EIO;
	a->n_rx = paste_queue_rx_unread(q);
	a->n_comp = paste_queue_comp_unread(q);
	if (a->n_rx) {
		paste_stat_inc(q, PASTE_STAT_BATCHES);
		paste_stat_add(q, PASTE_STAT_BATCH_ENTRIES, a->n_rx);
	}
	return err;
}

/* --------------------------------------------------------------- ioctls --- */

/* One call. install: a file to become fd when nothing can fail any more. */
struct dev_call {
	struct paste_ctx *ctx;
	struct paste_queue *q; /* NULL on a context's file */
	struct paste_text text;
	struct file *install;
	int fd;
	union {
		struct {
			__u32 size, flags;
			__aligned_u64 text;
		} head;
		struct paste_ioc_info info;
		struct paste_ioc_pool pool;
		struct paste_ioc_queue queue;
		struct paste_ioc_nic_bind bind;
		struct paste_ioc_nic_unbind unbind;
		struct paste_ioc_attach attach;
		struct paste_ioc_detach detach;
		struct paste_ioc_quota quota;
		struct paste_ioc_accept accept;
		struct paste_ioc_sync sync;
		struct paste_ioc_stats stats;
		struct paste_ioc_conn conn;
	} a;
};

static int call_info(struct dev_call *c)
{
	struct paste_ioc_info *a = &c->a.info;
	int i;

	if (a->flags)
		return -EOPNOTSUPP;
	if (a->resv)
		return -EINVAL;
	a->features = PASTE_FEAT_PLAIN | PASTE_FEAT_HOOKED | PASTE_FEAT_DEVDAX;
	if (PASTE_HAS_FSDAX)
		a->features |= PASTE_FEAT_FSDAX;
	a->max_chunks = PASTE_MAX_CHUNKS;
	a->max_queues = PASTE_MAX_QUEUES;
	a->max_conns = PASTE_MAX_CONNS;
	a->max_entries = PASTE_MAX_ENTRIES;
	a->tx_copy_max = PASTE_TX_COPY_MAX;
	strscpy_pad((char *)a->version, PASTE_VERSION, sizeof(a->version));
	for (i = 0; i < PASTE_OBJ_MAX; i++) {
		a->gone[i] = atomic64_read(&paste_gone[i]);
		a->made[i] = atomic64_read(&paste_made[i]);
	}
	return 0;
}

static int call_pool(struct dev_call *c)
{
	return paste_pool_create(c->ctx, &c->a.pool, &c->text);
}

static const struct file_operations queue_fops;

static int call_queue(struct dev_call *c)
{
	struct paste_ctx *ctx = c->ctx;
	struct paste_queue *q;
	int err;

	c->fd = get_unused_fd_flags(O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		return c->fd;
	q = paste_queue_create(ctx, &c->a.queue, &c->text);
	if (IS_ERR(q)) {
		err = PTR_ERR(q);
		goto err_fd;
	}
	INIT_WORK(&q->free_work, queue_free_work);
	err = paste_tx_init(q);
	if (err)
		goto err_queue;
	err = paste_rx_init_flows(q);
	if (err)
		goto err_tx;
	c->install = anon_inode_getfile("[paste-queue]", &queue_fops, q, O_RDWR | O_CLOEXEC);
	if (IS_ERR(c->install)) {
		err = PTR_ERR(c->install);
		c->install = NULL;
		goto err_flows;
	}
	__module_get(THIS_MODULE); /* until queue_free_work() */
	get_file(ctx->file);
	ctx->slices[ctx->n_queues] = q->slice;
	ctx->next_chunk += q->slice->t.n;
	smp_store_release(&ctx->n_queues, ctx->n_queues + 1); /* pairs with tx_slice_of() */
	c->a.queue.fd = c->fd;
	return 0;

err_flows:
	rhashtable_destroy(&q->flows);
err_tx:
	paste_tx_free(q);
err_queue:
	paste_queue_unlist(q);
	paste_slice_destroy(q->slice);
	paste_queue_free(q);
err_fd:
	put_unused_fd(c->fd);
	return err;
}

static int call_stats(struct dev_call *c)
{
	return paste_queue_stats(c->ctx, &c->a.stats);
}

static int call_conn(struct dev_call *c)
{
	return paste_tap_info(c->ctx, &c->a.conn);
}

static int call_nic_bind(struct dev_call *c)
{
	int err;

	if (READ_ONCE(c->q->dead))
		return -EIO;
	c->fd = get_unused_fd_flags(O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		return c->fd;
	err = paste_nic_bind(c->q, &c->a.bind, &c->text, &c->install);
	if (err)
		put_unused_fd(c->fd);
	c->a.bind.xsk_fd = c->fd;
	return err;
}

static int call_nic_unbind(struct dev_call *c)
{
	return c->a.unbind.flags ? -EOPNOTSUPP : paste_nic_unbind(c->q);
}

static int call_attach(struct dev_call *c)
{
	if (READ_ONCE(c->q->dead))
		return -EIO;
	return paste_tap_attach(c->q, &c->a.attach, &c->text);
}

static int call_detach(struct dev_call *c)
{
	if (c->a.detach.flags)
		return -EOPNOTSUPP;
	if (c->a.detach.resv)
		return -EINVAL;
	return paste_tap_detach(c->q, c->a.detach.conn);
}

static int call_quota(struct dev_call *c)
{
	if (c->a.quota.flags)
		return -EOPNOTSUPP;
	if (c->a.quota.quota > c->q->rx.mask + 1)
		return -EINVAL;
	return paste_tap_set_quota(c->q, c->a.quota.conn, c->a.quota.quota);
}

static int call_accept(struct dev_call *c)
{
	struct paste_ioc_accept *a = &c->a.accept;

	if (READ_ONCE(c->q->dead))
		return -EIO;
	if (a->flags)
		return paste_fail(&c->text, -EOPNOTSUPP, "flags: unknown bits %#x", a->flags);
	if (a->fd != -1)
		return paste_accept_start(c->q, a, &c->text);
	return paste_accept_stop(c->q) ?
		       paste_fail(&c->text, -ENXIO, "the queue has no listening socket") :
		       0;
}

static int call_sync(struct dev_call *c)
{
	int err;

	if (c->a.sync.flags)
		return -EOPNOTSUPP;
	if (!queue_begin(c->q))
		return -EBUSY;
	err = queue_do_sync(c->q, &c->a.sync);
	queue_end(c->q);
	return err;
}

/* What was made, when the caller cannot be told of it. A pool stays: others may have mapped it. */
static void undo_attach(struct dev_call *c)
{
	paste_tap_detach(c->q, c->a.attach.conn);
}

/* The socket's file alone does not hold the binding. */
static void undo_nic_bind(struct dev_call *c)
{
	paste_nic_unbind(c->q);
}

#define DEV_SETUP (1 << 0) /* only from the context's address space; under ctx->lock */
#define DEV_TEXT  (1 << 1) /* the struct has a member text */
#define DEV_IN	  (1 << 2) /* nothing is written back */

struct dev_ioctl {
	unsigned int cmd;
	u16 size, min_size;
	u16 flags;
	int (*fn)(struct dev_call *c);
	void (*undo)(struct dev_call
			     *c); /* if closing c->install is not enough; under ctx->lock, as fn */
};

#define DEV_IOCTL(name, type, ...)                                                           \
	{                                                                                    \
		PASTE_IOC_##name, sizeof(struct type), PASTE_##name##_SIZE_VER0, __VA_ARGS__ \
	}

static const struct dev_ioctl ctx_ioctls[] = {
	DEV_IOCTL(INFO, paste_ioc_info, 0, call_info),
	DEV_IOCTL(POOL, paste_ioc_pool, DEV_SETUP | DEV_TEXT, call_pool),
	DEV_IOCTL(QUEUE, paste_ioc_queue, DEV_SETUP | DEV_TEXT, call_queue),
	DEV_IOCTL(STATS, paste_ioc_stats, 0, call_stats),
	DEV_IOCTL(CONN, paste_ioc_conn, 0, call_conn),
	{}
};

static const struct dev_ioctl queue_ioctls[] = {
	DEV_IOCTL(SYNC, paste_ioc_sync, 0, call_sync),
	DEV_IOCTL(ATTACH, paste_ioc_attach, DEV_SETUP | DEV_TEXT, call_attach, undo_attach),
	DEV_IOCTL(DETACH, paste_ioc_detach, DEV_SETUP | DEV_IN, call_detach),
	DEV_IOCTL(QUOTA, paste_ioc_quota, DEV_IN, call_quota),
	DEV_IOCTL(ACCEPT, paste_ioc_accept, DEV_SETUP | DEV_TEXT | DEV_IN, call_accept),
	DEV_IOCTL(NIC_BIND, paste_ioc_nic_bind, DEV_SETUP | DEV_TEXT, call_nic_bind, undo_nic_bind),
	DEV_IOCTL(NIC_UNBIND, paste_ioc_nic_unbind, DEV_SETUP | DEV_IN, call_nic_unbind),
	{}
};

static int dev_run(struct dev_call *c, const struct dev_ioctl *i, void __user *arg, size_t size)
{
	int err;

	if (!(i->flags & DEV_SETUP))
		return i->fn(c);
	/* what cannot be written back later must fail before anything is done */
	if (!(i->flags & DEV_IN) && copy_to_user(arg, &c->a, size))
		return -EFAULT;
	if (current->mm != c->ctx->mm)
		return paste_fail(&c->text, -EPERM,
				  "not the address space that opened the context");
	if (mutex_lock_interruptible(&c->ctx->lock))
		return -EINTR;
	err = i->fn(c);
	mutex_unlock(&c->ctx->lock);
	return err;
}

/* The result to the caller. Should that fail after all, what was made is undone. */
static int dev_finish(struct dev_call *c, const struct dev_ioctl *i, void __user *arg, size_t size)
{
	if (i->flags & DEV_IN || !copy_to_user(arg, &c->a, size)) {
		if (c->install)
			fd_install(c->fd, c->install);
		return 0;
	}
	if (c->install) {
		put_unused_fd(c->fd);
		fput(c->install);
	}
	if (i->undo) {
		mutex_lock(&c->ctx->lock);
		i->undo(c);
		mutex_unlock(&c->ctx->lock);
	}
	return -EFAULT;
}

static int dev_tell(struct dev_call *c, u64 text)
{
	return text && copy_to_user(u64_to_user_ptr(text), &c->text, sizeof(c->text)) ? -EFAULT : 0;
}

static long dev_do_ioctl(struct dev_call *c, const struct dev_ioctl *table, unsigned int cmd,
			 void __user *arg)
{
	const struct dev_ioctl *i;
	u32 size;
	u64 text;
	int err;

	for (i = table; i->fn && i->cmd != cmd; i++)
		;
	if (!i->fn)
		return -ENOTTY;
	if (get_user(size, (u32 __user *)arg))
		return -EFAULT;
	if (size < i->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(&c->a, i->size, arg, size);
	if (err)
		return err;
	text = i->flags & DEV_TEXT ? c->a.head.text : 0;
	c->a.head.size = size; /* as it was checked; memory may have changed */
	size = min_t(u32, size, i->size);
	err = dev_run(c, i, arg, size);
	if (err)
		return dev_tell(c, text) ?: err;
	return dev_finish(c, i, arg, size);
}

static long ctx_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dev_call c = { .ctx = file->private_data };

	return dev_do_ioctl(&c, ctx_ioctls, cmd, (void __user *)arg);
}

static long queue_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct paste_queue *q = file->private_data;
	struct dev_call c = { .ctx = q->ctx, .q = q };

	return dev_do_ioctl(&c, queue_ioctls, cmd, (void __user *)arg);
}

static const struct file_operations queue_fops = {
	.owner = THIS_MODULE,
	.release = queue_release,
	.unlocked_ioctl = queue_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = queue_mmap,
	.poll = queue_poll,
	.llseek = noop_llseek,
};

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = ctx_open,
	.release = ctx_release,
	.unlocked_ioctl = ctx_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = ctx_mmap,
	.llseek = noop_llseek,
};

static struct miscdevice dev_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "paste",
	.fops = &dev_fops,
	.mode = 0600,
};

int paste_dev_init(void)
{
	BUILD_BUG_ON(sizeof(struct paste_ioc_info) != PASTE_INFO_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_pool) != PASTE_POOL_SIZE_VER1);
	BUILD_BUG_ON(sizeof(struct paste_ioc_queue) != PASTE_QUEUE_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_nic_bind) != PASTE_NIC_BIND_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_nic_unbind) != PASTE_NIC_UNBIND_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_attach) != PASTE_ATTACH_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_detach) != PASTE_DETACH_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_quota) != PASTE_QUOTA_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_accept) != PASTE_ACCEPT_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_sync) != PASTE_SYNC_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_ioc_stats) != PASTE_STATS_SIZE_VER2);
	BUILD_BUG_ON(sizeof(struct paste_ioc_conn) != PASTE_CONN_SIZE_VER0);
	BUILD_BUG_ON(sizeof(struct paste_rx) != 16);
	BUILD_BUG_ON(sizeof(struct paste_tx) != 24);
	BUILD_BUG_ON(sizeof(struct paste_comp) != 16);
	return misc_register(&dev_misc);
}

void paste_dev_exit(void)
{
	misc_deregister(&dev_misc);
	ida_destroy(&dev_ctx_ids);
}
