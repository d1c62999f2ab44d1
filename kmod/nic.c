// SPDX-License-Identifier: GPL-2.0
/*
 * NIC bindings: the driver's AF_XDP zero-copy hook, and nothing else of it.
 *
 * We make an AF_XDP socket inside the kernel through its public interface, give
 * it a slice's chunks as UMEM, and bind it to one RX queue. The driver then
 * DMAs into the chunks; an XDP program (the library's) redirects the wanted
 * frames to the socket's RX ring. Only this file knows AF_XDP.
 *
 * How we hear of frames: the socket's sk_data_ready is never called, but its
 * wait queue is woken, at the end of the driver's poll. Our entry there runs
 * with irqs off, so it only schedules a NAPI of our own, which runs right after
 * the driver's on the same CPU and builds packets in an ordinary context.
 *
 * The rings are hostile memory: whoever holds the socket's fd can map them. So
 * our indices are private, and a descriptor must name a chunk that we lent.
 *
 * The NIC has at most as many chunks as each ring has entries, so neither ring
 * can be full. (ixgbe since 6.6 would else own a buffer twice.)
 */
#include <linux/file.h>
#include <linux/if_vlan.h>
#include <linux/if_xdp.h>
#include <linux/iopoll.h>
#include <linux/mman.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/timer.h>
#include <net/busy_poll.h>
#include <net/xdp_sock.h>

#include "internal.h"
#include "nicrule.h"
#include "trace.h"

#define NIC_MAX_ENTRIES	  4096
#define NIC_WATCHDOG_MS	  5

#define NIC_VLAN_FEATURES (NETIF_F_HW_VLAN_CTAG_RX | NETIF_F_HW_VLAN_STAG_RX)
#define NIC_LRO_FEATURES  (NETIF_F_LRO | NETIF_F_GRO_HW)

/* Where in a context's file the temporary view for UMEM registration is. */
#define NIC_WINDOW	 (1ULL << 62)
#define NIC_WINDOW_SHIFT 36 /* more than the largest pool has bytes */

struct nic_ring {
	struct paste_ring r;
	u32 *flags;
	void *kva;
	struct page **pages; /* pinned and vmapped; NULL: one compound page */
	int n_pages;
};

struct paste_nic {
	/* set at bind, then constant */
	struct paste_queue *q;
	struct socket *sock;
	struct file *file;	     /* counted; owns sock */
	struct net_device *napi_dev; /* dummy, for napi */
	u32 entries;
	u32 nic_queue;
	struct work_struct put_work;

	struct napi_struct napi;
	wait_queue_entry_t wait; /* in the socket's wait queue */
	struct timer_list watchdog;
	struct nic_ring rx, fill; /* NAPI only */
	bool short_of_chunks;	  /* written by NAPI */

	/* rtnl */
	struct list_head list;	/* in nics */
	struct net_device *dev; /* counted; NULL after it went away */
	netdevice_tracker tracker;
	bool bad_offload; /* also read by NAPI */

	DECLARE_BITMAP(ports, 65536);
};

static LIST_HEAD(nics); /* rtnl */

static struct xdp_sock *nic_xs(struct paste_nic *nic)
{
	return container_of(nic->sock->sk, struct xdp_sock, sk);
}

/* ------------------------------------------------------------ data path --- */

static void nic_kick(struct paste_nic *nic)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT };

	/*
	 * Orders the fill ring's producer before the flag: a driver that finds
	 * the ring empty sets the flag, and looks at the ring no more.
	 */
	smp_mb();
	if (!(READ_ONCE(*nic->fill.flags) & XDP_RING_NEED_WAKEUP))
		return;
	paste_stat_inc(nic->q, PASTE_STAT_NIC_WAKEUPS);
	nic->sock->ops->recvmsg(nic->sock, &msg, 0, MSG_DONTWAIT);
}

/*
 * Lend chunks up to the ring's size. If there were not enough, or the driver
 * had run dry (it may set the flag after we looked at it), look again soon.
 */
static void nic_refill(struct paste_nic *nic)
{
	struct paste_slice *slice = nic->q->slice;
	int room = paste_ring_room(&nic->fill.r);
	bool dry = paste_ring_unread(&nic->fill.r) <= 0;
	u32 n = 0, lent, i;

	spin_lock(&slice->lock);
	while (room-- > 0 && slice->t.n_lent < nic->entries) {
		i = paste_chunk_take(&slice->t, 64);
		if (i == PASTE_CHUNK_NONE)
			break;
		*paste_ring_entry(&nic->fill.r, u64, 0) = (u64)i << slice->pool->chunk_shift;
		nic->fill.r.head++;
		n++;
	}
	lent = slice->t.n_lent;
	spin_unlock(&slice->lock);

	paste_ring_publish(&nic->fill.r);
	WRITE_ONCE(nic->short_of_chunks, lent < nic->entries);
	if (lent < nic->entries)
		paste_stat_inc(nic->q, PASTE_STAT_NIC_SHORT);
	if (n) {
		paste_stat_add(nic->q, PASTE_STAT_NIC_LENT, n);
		trace_paste_lend(nic->q->id, n, lent);
	}
	nic_kick(nic);
	if (dry || lent < nic->entries)
		mod_timer(&nic->watchdog, jiffies + msecs_to_jiffies(NIC_WATCHDOG_MS));
}

/* One descriptor, copied. Drops what does not name a lent chunk and bytes in it. */
static void nic_frame(struct paste_nic *nic, struct net_device *dev, u64 addr, u32 len)
{
	struct paste_queue *q = nic->q;
	struct paste_slice *slice = q->slice;
	u32 size = slice->pool->chunk_size, off = addr & (size - 1);
	u64 i = addr >> slice->pool->chunk_shift;

	paste_stat_inc(q, PASTE_STAT_RX_FRAMES);
	if (i >= slice->t.n || !paste_chunk_is_lent(&slice->t, i) || len > size - off) {
		paste_stat_inc(q, PASTE_STAT_RX_DROP_DESC);
		return;
	}
	if (unlikely(READ_ONCE(nic->bad_offload))) {
		paste_stat_inc(q, PASTE_STAT_RX_DROP_OFFLOAD);
		spin_lock(&slice->lock);
		paste_chunk_untake(&slice->t, i);
		spin_unlock(&slice->lock);
		return;
	}
	paste_rx_frame(q, &nic->napi, dev, nic->ports, i, off, len);
}

static int nic_poll(struct napi_struct *napi, int budget)
{
	struct paste_nic *nic = container_of(napi, struct paste_nic, napi);
	struct net_device *dev = READ_ONCE(nic->dev); /* stays until napi_disable() */
	struct xdp_desc *d;
	int done = 0, n;

	rcu_read_lock();
	paste_stat_inc(nic->q, PASTE_STAT_NIC_POLLS);
	n = paste_ring_avail(&nic->rx.r);
	for (n = min(n, budget); done < n; done++) {
		d = paste_ring_entry(&nic->rx.r, struct xdp_desc, 0);
		nic_frame(nic, dev, READ_ONCE(d->addr), READ_ONCE(d->len));
		nic->rx.r.head++;
	}
	paste_ring_retire(&nic->rx.r);
	nic_refill(nic);
	rcu_read_unlock();

	/* frames may have come between the look at the ring and the completion */
	if (done < budget && napi_complete_done(napi, done) && paste_ring_avail(&nic->rx.r) > 0)
		napi_schedule(napi);
	return done;
}

/* In the driver's poll, with the wait queue locked and irqs off. */
static int nic_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct paste_nic *nic = container_of(wait, struct paste_nic, wait);

	if (!key || key_to_poll(key) & EPOLLIN)
		napi_schedule(&nic->napi);
	return 0;
}

static void nic_watchdog(struct timer_list *t)
{
	struct paste_nic *nic = container_of(t, struct paste_nic, watchdog);

	paste_stat_inc(nic->q, PASTE_STAT_NIC_WATCHDOG);
	napi_schedule(&nic->napi);
}

/* The application gave chunks back: the NIC may be short of them. */
void paste_nic_refill_soon(struct paste_queue *q)
{
	struct paste_nic *nic;

	rcu_read_lock();
	nic = rcu_dereference(q->nic);
	if (nic && READ_ONCE(nic->short_of_chunks)) {
		local_bh_disable();
		napi_schedule(&nic->napi);
		local_bh_enable();
	}
	rcu_read_unlock();
}

/*
 * The driver's NAPI, as AF_XDP has noted it from the first frame. Before that 0:
 * the driver may not even have set up the queue (no XDP program yet), so there
 * is nobody else to ask (xsk_pool_get_napi_id() would follow a NULL pointer).
 */
unsigned int paste_nic_napi_id(struct paste_queue *q)
{
	struct paste_nic *nic;
	unsigned int id = 0;

	rcu_read_lock();
	nic = rcu_dereference(q->nic);
	if (nic)
		id = READ_ONCE(nic->sock->sk->sk_napi_id);
	rcu_read_unlock();
	return id;
}

/* ----------------------------------------------- UMEM registration view --- */

static u64 nic_window(struct paste_ctx *ctx)
{
	return NIC_WINDOW | (u64)ctx->id << NIC_WINDOW_SHIFT;
}

bool paste_nic_is_window(struct paste_ctx *ctx, struct vm_area_struct *vma)
{
	return vma->vm_pgoff >= NIC_WINDOW >> PAGE_SHIFT;
}

static vm_fault_t nic_view_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct nic_view_ops = {
	.fault = nic_view_fault,
};

/*
 * AF_XDP pins a UMEM through a mapping, and refuses PFN mappings, such as the
 * application's. So for the time of the registration, and only for the task
 * that does it, there is a view with real page references. See
 * nic_register_umem() for how it goes away.
 */
int paste_nic_mmap(struct paste_ctx *ctx, struct vm_area_struct *vma)
{
	struct paste_slice *slice;
	struct paste_pool *pool;
	unsigned long addr;
	u32 i, pages;
	int err;

	if (READ_ONCE(ctx->umem_task) != current)
		return -EINVAL;
	slice = ctx->umem_slice; /* ours: we hold ctx->lock, in the ioctl */
	pool = slice->pool;
	pages = slice->t.n / pool->per_page;
	if (vma->vm_pgoff != nic_window(ctx) >> PAGE_SHIFT || vma_pages(vma) != pages ||
	    !(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &nic_view_ops;
	for (i = 0, addr = vma->vm_start; i < pages; i++, addr += PAGE_SIZE) {
		err = vm_insert_page(vma, addr, pool->pages[slice->first / pool->per_page + i]);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Another thread of the process could move the view (mremap) or replace it
 * (MAP_FIXED) while we register it. So
 * - after the registration, the window is zapped wherever it may be mapped;
 *   faults on it give SIGBUS;
 * - the UMEM must have pinned exactly our pages.
 */
static int nic_register_umem(struct paste_nic *nic)
{
	struct paste_queue *q = nic->q;
	struct paste_pool *pool = q->slice->pool;
	u32 first = q->slice->first / pool->per_page, i;
	unsigned long len = (unsigned long)q->slice->t.n * pool->chunk_size, addr;
	struct xdp_umem_reg mr = { .len = len, .chunk_size = pool->chunk_size };
	struct paste_ctx *ctx = q->ctx;
	struct xdp_umem *umem;
	int err;

	ctx->umem_slice = q->slice;
	WRITE_ONCE(ctx->umem_task, current);
	addr = vm_mmap(ctx->file, 0, len, PROT_READ | PROT_WRITE, MAP_SHARED, nic_window(ctx));
	WRITE_ONCE(ctx->umem_task, NULL);
	if (IS_ERR_VALUE(addr))
		return (int)addr;
	mr.addr = addr;
	err = nic->sock->ops->setsockopt(nic->sock, SOL_XDP, XDP_UMEM_REG, KERNEL_SOCKPTR(&mr),
					 sizeof(mr));
	vm_munmap(addr, len);
	unmap_mapping_range(ctx->file->f_mapping, nic_window(ctx), len, 1);
	if (err)
		return err;
	umem = nic_xs(nic)->umem;
	if (umem->npgs != len >> PAGE_SHIFT)
		return -EFAULT;
	for (i = 0; i < umem->npgs; i++)
		if (umem->pgs[i] != pool->pages[first + i])
			return -EFAULT;
	atomic64_add(umem->npgs, &paste_made[PASTE_OBJ_NIC_PAGE]);
	return 0;
}

/* The pages' idle count, see struct paste_slice. */
static void nic_set_pinned(struct paste_slice *slice, bool pinned)
{
	spin_lock_bh(&slice->lock);
	slice->idle_refs = pinned ? 1 + GUP_PIN_COUNTING_BIAS : 1;
	spin_unlock_bh(&slice->lock);
}

/* ---------------------------------------------------------------- rings --- */

static int nic_ring_pin(struct nic_ring *ring, struct file *file, unsigned long addr, u32 len)
{
	int n = len >> PAGE_SHIFT, got;

	ring->pages = kcalloc(n, sizeof(*ring->pages), GFP_KERNEL);
	if (!ring->pages)
		return -ENOMEM;
	got = pin_user_pages_fast(addr, n, FOLL_WRITE | FOLL_LONGTERM, ring->pages);
	ring->n_pages = max(got, 0);
	if (got != n)
		return got < 0 ? got : -EFAULT;
	ring->kva = vmap(ring->pages, n, VM_MAP, PAGE_KERNEL);
	return ring->kva ? 0 : -ENOMEM;
}

/* Before 6.2 a ring is one compound page, which cannot be pinned: take a reference by hand. */
static int nic_ring_get(struct nic_ring *ring, struct file *file, unsigned long addr)
{
	struct vm_area_struct *vma;
	unsigned long pfn;
	int err = -EFAULT;

	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, addr);
	if (vma && vma->vm_start <= addr && vma->vm_file == file)
		err = follow_pfn(vma, addr, &pfn);
	if (!err) {
		get_page(compound_head(pfn_to_page(pfn)));
		ring->kva = pfn_to_kaddr(pfn);
	}
	mmap_read_unlock(current->mm);
	return err;
}

/* Reach a ring of the socket the way user space does. Its memory then outlives the socket. */
static int nic_ring_map(struct paste_nic *nic, struct nic_ring *ring, u64 pgoff,
			const struct xdp_ring_offset *o, size_t entry)
{
	u32 len = PAGE_ALIGN(o->desc + nic->entries * entry);
	unsigned long addr;
	int err;

	addr = vm_mmap(nic->file, 0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, pgoff);
	if (IS_ERR_VALUE(addr))
		return (int)addr;
	if (PASTE_XSK_RING_IS_PFNMAP)
		err = nic_ring_get(ring, nic->file, addr);
	else
		err = nic_ring_pin(ring, nic->file, addr, len);
	vm_munmap(addr, len);
	if (err)
		return err;
	ring->flags = ring->kva + o->flags;
	paste_ring_init(&ring->r, ring->kva + o->producer, ring->kva + o->consumer,
			ring->kva + o->desc, nic->entries);
	return 0;
}

static void nic_ring_unmap(struct nic_ring *ring)
{
	if (!ring->pages) {
		if (ring->kva)
			put_page(virt_to_head_page(ring->kva));
		return;
	}
	vunmap(ring->kva);
	unpin_user_pages(ring->pages, ring->n_pages);
	kfree(ring->pages);
}

/* The option is only given to user memory: lend it a page. */
static int nic_ring_offsets(struct paste_nic *nic, struct xdp_mmap_offsets *off)
{
	struct {
		struct xdp_mmap_offsets off;
		int len;
	} __user *u;
	unsigned long addr;
	int err = -EFAULT;

	addr = vm_mmap(NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (IS_ERR_VALUE(addr))
		return (int)addr;
	u = (void __user *)addr;
	if (!put_user((int)sizeof(*off), &u->len))
		err = nic->sock->ops->getsockopt(nic->sock, SOL_XDP, XDP_MMAP_OFFSETS,
						 (char __user *)&u->off, &u->len);
	if (!err && copy_from_user(off, &u->off, sizeof(*off)))
		err = -EFAULT;
	vm_munmap(addr, PAGE_SIZE);
	return err;
}

static int nic_set_ring(struct paste_nic *nic, int opt, int n)
{
	return nic->sock->ops->setsockopt(nic->sock, SOL_XDP, opt, KERNEL_SOCKPTR(&n), sizeof(n));
}

static int nic_make_rings(struct paste_nic *nic)
{
	struct xdp_mmap_offsets off;

	return nic_set_ring(nic, XDP_RX_RING, nic->entries)		   ?:
		       nic_set_ring(nic, XDP_UMEM_FILL_RING, nic->entries) ?:
		       nic_set_ring(nic, XDP_UMEM_COMPLETION_RING, 64)	   ?:
		       nic_ring_offsets(nic, &off)			   ?:
		       nic_ring_map(nic, &nic->rx, XDP_PGOFF_RX_RING, &off.rx, sizeof(struct xdp_desc)) ?:
		       nic_ring_map(nic, &nic->fill, XDP_UMEM_PGOFF_FILL_RING, &off.fr,
				    sizeof(u64));
}

/* --------------------------------------------------------- bind, unbind --- */

static int nic_check_dev(struct paste_nic *nic, struct net_device *dev, struct paste_text *text)
{
	const struct paste_nic_settings settings = {
		.up = dev->flags & IFF_UP,
		.rx_vlan = dev->features & NIC_VLAN_FEATURES,
		.lro = dev->features & NIC_LRO_FEATURES,
		.mtu = dev->mtu,
	};
	const char *obstacle;

	ASSERT_RTNL();
	BUILD_BUG_ON(PASTE_NIC_HEADROOM != XDP_PACKET_HEADROOM);
	BUILD_BUG_ON(PASTE_NIC_PAD != ETH_HLEN + 2 * VLAN_HLEN + ETH_FCS_LEN);
	if (!paste_dev_has_zerocopy(dev))
		return paste_fail(text, -EOPNOTSUPP,
				  "ifindex: the driver of %s has no AF_XDP zero copy", dev->name);
	if (nic->nic_queue >= dev->real_num_rx_queues)
		return paste_fail(text, -ENODEV, "nic_queue: %s has %u RX queues", dev->name,
				  dev->real_num_rx_queues);
	obstacle = paste_nic_obstacle(&settings, nic->q->slice->pool->chunk_size);
	return obstacle ? paste_fail(text, -EBUSY, "ifindex: %s: %s", dev->name, obstacle) : 0;
}

static int nic_check(struct paste_queue *q, struct paste_ioc_nic_bind *a, struct paste_text *text)
{
	u32 most = rounddown_pow_of_two(q->slice->t.n / 2);

	if (a->flags)
		return paste_fail(text, -EOPNOTSUPP, "flags: unknown bits %#x", a->flags);
	if (a->resv)
		return paste_fail(text, -EINVAL, "resv: not zero");
	if (!capable(CAP_NET_ADMIN) || !capable(CAP_NET_RAW))
		return paste_fail(text, -EPERM,
				  "binding a NIC needs CAP_NET_ADMIN and CAP_NET_RAW");
	if (rcu_access_pointer(q->nic))
		return paste_fail(text, -EBUSY, "this queue is bound already");
	if (!a->n_ports || a->n_ports > PASTE_PORTS_MAX)
		return paste_fail(text, -EINVAL, "n_ports: %u is not 1 to %u", a->n_ports,
				  PASTE_PORTS_MAX);
	most = min_t(u32, most, NIC_MAX_ENTRIES);
	if (!a->entries)
		a->entries = most;
	else if (!is_power_of_2(a->entries) || a->entries < 32 || a->entries > most)
		return paste_fail(text, -EINVAL, "entries: %u is not a power of two from 32 to %u",
				  a->entries, most);
	return 0;
}

static int nic_copy_ports(struct paste_nic *nic, const struct paste_ioc_nic_bind *a,
			  struct paste_text *text)
{
	u16 ports[PASTE_PORTS_MAX];
	u32 i;

	if (copy_from_user(ports, u64_to_user_ptr(a->ports), a->n_ports * sizeof(*ports)))
		return paste_fail(text, -EFAULT, "ports: cannot read %u ports there", a->n_ports);
	for (i = 0; i < a->n_ports; i++) {
		if (!ports[i])
			return paste_fail(text, -EINVAL, "ports: port 0");
		__set_bit(ports[i], nic->ports);
	}
	return 0;
}

/* __fput_sync() is for kernel threads, and fput() would wait for our return to user space. */
static void nic_put_work(struct work_struct *work)
{
	__fput_sync(container_of(work, struct paste_nic, put_work)->file);
}

static int nic_make_socket(struct paste_nic *nic)
{
	int err;

	/*
	 * Not sock_create_kern(): such a socket has no reference on its network
	 * namespace, and AF_XDP touches that when it is released.
	 */
	err = sock_create(AF_XDP, SOCK_RAW, 0, &nic->sock);
	if (err)
		return err;
	nic->file = sock_alloc_file(nic->sock, O_CLOEXEC | O_RDWR, NULL);
	if (IS_ERR(nic->file)) {
		err = PTR_ERR(nic->file); /* the socket is gone already */
		nic->file = NULL;
		nic->sock = NULL;
		return err;
	}
	/* nic_kick() runs with BH off: it must never busy-poll (net.core.busy_read) */
	WRITE_ONCE(nic->sock->sk->sk_ll_usec, 0);
	return 0;
}

/* Cannot fail: a binding with a device is one whose hooks are in place. rtnl held. */
static void nic_arm(struct paste_nic *nic)
{
	/* else sockets would busy-poll our NAPI, which cannot make the NIC move */
	set_bit(NAPI_STATE_NO_BUSY_POLL, &nic->napi.state);
	netif_napi_add(nic->napi_dev, &nic->napi, nic_poll);
	napi_enable(&nic->napi);
	timer_setup(&nic->watchdog, nic_watchdog, 0);
	init_waitqueue_func_entry(&nic->wait, nic_wake);
	add_wait_queue(sk_sleep(nic->sock->sk), &nic->wait);
}

/*
 * Nothing of ours runs any more, and the device is not referred to. rtnl held;
 * by unbind, or before it because the device goes away.
 * 1. Out of the wait queue: its lock waits for a callback that is running.
 * 2. The watchdog is stopped and waited for.
 * 3. napi_disable() waits for the poll, and keeps it from being scheduled.
 */
static void nic_quiesce(struct paste_nic *nic)
{
	ASSERT_RTNL();
	if (!nic->dev)
		return;
	remove_wait_queue(sk_sleep(nic->sock->sk), &nic->wait);
	timer_shutdown_sync(&nic->watchdog);
	napi_disable(&nic->napi);
	WRITE_ONCE(nic->q->nic_ifindex, 0);
	netdev_put(nic->dev, &nic->tracker);
	nic->dev = NULL;
}

static int nic_take_dev(struct paste_nic *nic, u32 ifindex, struct paste_text *text)
{
	struct net_device *dev;
	int err;

	rtnl_lock();
	dev = __dev_get_by_index(current->nsproxy->net_ns, ifindex);
	err = dev ? nic_check_dev(nic, dev, text) :
		    paste_fail(text, -ENODEV, "ifindex: there is no interface %u", ifindex);
	if (!err) {
		netdev_hold(dev, &nic->tracker, GFP_KERNEL);
		nic->dev = dev;
		list_add(&nic->list, &nics);
		nic_arm(nic);
	}
	rtnl_unlock();
	return err;
}

/*
 * From binding to nothing, also from half a binding. Process context, without
 * rtnl.
 * 1. Quiesce: no more frames, no more lending.
 * 2. RCU: nobody in sync sees the binding any more (synchronize_net() is part
 *    of netif_napi_del()).
 * 3. The socket's last reference, unless the application still has the fd.
 *    AF_XDP then takes the chunks from the NIC and unpins them, from a work
 *    item that cannot be waited for: so watch the pins.
 * 4. What the NIC had is free. If the pins did not go away (the fd is held),
 *    those chunks are lost to this context; they are never used again.
 */
static void nic_destroy(struct paste_nic *nic, u32 pinned)
{
	struct paste_slice *slice = nic->q->slice;
	struct page *last =
		virt_to_page(paste_chunk_addr(slice->pool, slice->first + slice->t.n - 1));
	int refs;
	u32 i;

	rtnl_lock();
	if (!list_empty(&nic->list))
		list_del(&nic->list);
	nic_quiesce(nic);
	rtnl_unlock();
	rcu_assign_pointer(nic->q->nic, NULL);
	if (nic->napi_dev) {
		netif_napi_del(&nic->napi);
		synchronize_net();
		paste_free_dummy(nic->napi_dev);
	}
	nic_set_pinned(slice, false);
	nic_ring_unmap(&nic->rx);
	nic_ring_unmap(&nic->fill);
	if (nic->file) {
		queue_work(paste_wq, &nic->put_work);
		flush_work(&nic->put_work);
		rcu_barrier(); /* the struct sock is freed by RCU, then the work item starts */
	}
	if (!pinned || !read_poll_timeout(page_ref_count, refs, refs < GUP_PIN_COUNTING_BIAS, 500,
					  2 * USEC_PER_SEC, false, last)) {
		spin_lock_bh(&slice->lock);
		for (i = 0; i < slice->t.n; i++)
			if (paste_chunk_is_lent(&slice->t, i))
				paste_chunk_untake(&slice->t, i);
		spin_unlock_bh(&slice->lock);
	}
	atomic64_add(pinned, &paste_gone[PASTE_OBJ_NIC_PAGE]);
	kvfree(nic);
}

static int nic_bind_socket(struct paste_nic *nic, struct paste_ioc_nic_bind *a,
			   struct paste_text *text)
{
	struct sockaddr_xdp sx = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP,
		.sxdp_ifindex = a->ifindex,
		.sxdp_queue_id = a->nic_queue,
	};
	int err;

	local_bh_disable();
	nic_refill(nic); /* drivers take buffers while they bind */
	local_bh_enable();
	err = kernel_bind(nic->sock, (struct sockaddr *)&sx, sizeof(sx));
	if (err == -EOPNOTSUPP)
		return paste_fail(text, err, "ifindex: its driver has no AF_XDP zero copy");
	if (err == -EBUSY)
		return paste_fail(text, err, "nic_queue: RX queue %u has another AF_XDP socket",
				  a->nic_queue);
	if (err)
		return paste_fail(text, err, "ifindex: its driver refuses AF_XDP zero copy (%d)",
				  err);
	return 0;
}

/* The steps of bind that nic_destroy() undoes, whichever were done. */
static int nic_set_up(struct paste_nic *nic, struct paste_ioc_nic_bind *a, struct paste_text *text,
		      u32 *pinned)
{
	int err;

	err = nic_copy_ports(nic, a, text);
	if (err)
		return err;
	err = nic_make_socket(nic);
	if (err)
		return paste_fail(text, err, "cannot make an AF_XDP socket (%d)", err);
	err = nic_register_umem(nic);
	if (err)
		return paste_fail(text, err, "cannot register the slice for DMA (%d)%s", err,
				  err == -ENOBUFS ? ": RLIMIT_MEMLOCK" : "");
	*pinned = nic->q->slice->t.n / nic->q->slice->pool->per_page;
	nic_set_pinned(nic->q->slice, true);
	err = nic_make_rings(nic);
	if (err)
		return paste_fail(text, err, "cannot make the AF_XDP rings (%d)", err);
	nic->napi_dev = paste_alloc_dummy();
	if (!nic->napi_dev)
		return -ENOMEM;
	err = nic_take_dev(nic, a->ifindex, text);
	if (err)
		return err;
	return nic_bind_socket(nic, a, text);
}

int paste_nic_bind(struct paste_queue *q, struct paste_ioc_nic_bind *a, struct paste_text *text,
		   struct file **file)
{
	struct paste_nic *nic;
	u32 pinned = 0;
	int err;

	lockdep_assert_held(&q->ctx->lock);
	err = nic_check(q, a, text);
	if (err)
		return err;
	nic = kvzalloc(sizeof(*nic), GFP_KERNEL_ACCOUNT);
	if (!nic)
		return -ENOMEM;
	nic->q = q;
	nic->entries = a->entries;
	nic->nic_queue = a->nic_queue;
	INIT_LIST_HEAD(&nic->list);
	INIT_WORK(&nic->put_work, nic_put_work);
	err = nic_set_up(nic, a, text, &pinned);
	if (err) {
		nic_destroy(nic, pinned);
		return err;
	}
	WRITE_ONCE(q->nic_queue, a->nic_queue);
	WRITE_ONCE(q->nic_ifindex, a->ifindex);
	rcu_assign_pointer(q->nic, nic);
	atomic64_inc(&paste_made[PASTE_OBJ_NIC]);
	*file = get_file(nic->file);
	return 0;
}

int paste_nic_unbind(struct paste_queue *q)
{
	struct paste_nic *nic = rcu_dereference_protected(q->nic, lockdep_is_held(&q->ctx->lock));

	if (!nic)
		return -ENXIO;
	nic_destroy(nic, q->slice->t.n / q->slice->pool->per_page);
	atomic64_inc(&paste_gone[PASTE_OBJ_NIC]);
	return 0;
}

/* --------------------------------------------------------- device events --- */

static int nic_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct netdev_notifier_info_ext *ext = ptr;
	struct paste_nic *nic;

	list_for_each_entry(nic, &nics, list)
	{
		if (nic->dev != dev)
			continue;
		if (event == NETDEV_UNREGISTER)
			nic_quiesce(nic); /* AF_XDP has let go of it before us */
		else if (event == NETDEV_FEAT_CHANGE)
			WRITE_ONCE(nic->bad_offload,
				   dev->features & (NIC_VLAN_FEATURES | NIC_LRO_FEATURES));
		else if (event == NETDEV_PRECHANGEMTU &&
			 !paste_nic_mtu_fits(ext->ext.mtu, nic->q->slice->pool->chunk_size))
			return notifier_from_errno(-EBUSY);
	}
	return NOTIFY_DONE;
}

static struct notifier_block nic_notifier = { .notifier_call = nic_event };

int paste_nic_init(void)
{
	return register_netdevice_notifier(&nic_notifier);
}

void paste_nic_exit(void)
{
	unregister_netdevice_notifier(&nic_notifier);
}
