// SPDX-License-Identifier: GPL-2.0
/*
 * NIC bindings: the driver's AF_XDP zero-copy hook, and nothing else of it.
 *
 * An AF_XDP socket inside the kernel (xsk.c) has a slice's chunks as UMEM and is
 * bound to one RX queue. The driver then DMAs into the chunks; an XDP program
 * (the library's) redirects the wanted frames to the socket's RX ring. Only
 * these two files know AF_XDP.
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
#include <linux/cpu.h>
#include <linux/if_vlan.h>
#include <linux/if_xdp.h>
#include <linux/iopoll.h>
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

struct paste_nic {
	/* set at bind, then constant */
	struct paste_queue *q;
	struct net_device *napi_dev; /* dummy, for napi */
	u32 nic_queue;

	struct paste_xsk xsk; /* the rings: NAPI only */
	struct paste_inlet in;

	struct napi_struct napi;
	wait_queue_entry_t wait; /* in the socket's wait queue */
	struct timer_list watchdog;
	bool short_of_chunks; /* written by NAPI */

	/* rtnl */
	struct list_head list;	/* in nics */
	struct net_device *dev; /* counted; NULL after it went away */
	netdevice_tracker tracker;
	bool bad_offload; /* also read by NAPI */

	DECLARE_BITMAP(ports, 65536);
};

static LIST_HEAD(nics); /* rtnl */

/* ------------------------------------------------------------ data path --- */

static void nic_kick(struct paste_nic *nic)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT };

	/*
	 * Orders the fill ring's producer before the flag: a driver that finds
	 * the ring empty sets the flag, and looks at the ring no more.
	 */
	smp_mb();
	if (!(READ_ONCE(*nic->xsk.fill.flags) & XDP_RING_NEED_WAKEUP))
		return;
	paste_stat_inc(nic->q, PASTE_STAT_NIC_WAKEUPS);
	nic->xsk.sock->ops->recvmsg(nic->xsk.sock, &msg, 0, MSG_DONTWAIT);
}

/*
 * Lend chunks up to the ring's size. If there were not enough, or the driver
 * had run dry (it may set the flag after we looked at it), look again soon.
 */
static void nic_refill(struct paste_nic *nic)
{
	struct paste_slice *slice = nic->q->slice;
	int room = paste_ring_room(&nic->xsk.fill.r);
	bool dry = paste_ring_unread(&nic->xsk.fill.r) <= 0;
	u32 n = 0, lent, i;

	spin_lock(&slice->lock);
	while (room-- > 0 && slice->t.n_lent < nic->xsk.entries) {
		i = paste_chunk_take(&slice->t, 64);
		if (i == PASTE_CHUNK_NONE)
			break;
		*paste_ring_entry(&nic->xsk.fill.r, u64, 0) = (u64)i << slice->pool->chunk_shift;
		nic->xsk.fill.r.head++;
		n++;
	}
	lent = slice->t.n_lent;
	spin_unlock(&slice->lock);

	paste_ring_publish(&nic->xsk.fill.r);
	WRITE_ONCE(nic->short_of_chunks, lent < nic->xsk.entries);
	if (lent < nic->xsk.entries)
		paste_stat_inc(nic->q, PASTE_STAT_NIC_SHORT);
	if (n) {
		paste_stat_add(nic->q, PASTE_STAT_NIC_LENT, n);
		trace_paste_lend(nic->q->id, n, lent);
	}
	nic_kick(nic);
	if (dry || lent < nic->xsk.entries)
		mod_timer(&nic->watchdog, jiffies + msecs_to_jiffies(NIC_WATCHDOG_MS));
}

/* One descriptor, copied. Drops what does not name a lent chunk and bytes in it. */
static void nic_frame(struct paste_nic *nic, u64 addr, u32 len)
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
	paste_rx_frame(&nic->in, i, off, len);
}

static int nic_poll(struct napi_struct *napi, int budget)
{
	struct paste_nic *nic = container_of(napi, struct paste_nic, napi);
	struct xdp_desc *d;
	int done = 0, n;

	rcu_read_lock();
	nic->in.dev = READ_ONCE(nic->dev); /* stays until napi_disable() */
	paste_stat_inc(nic->q, PASTE_STAT_NIC_POLLS);
	n = paste_ring_avail(&nic->xsk.rx.r);
	for (n = min(n, budget); done < n; done++) {
		d = paste_ring_entry(&nic->xsk.rx.r, struct xdp_desc, 0);
		nic_frame(nic, READ_ONCE(d->addr), READ_ONCE(d->len));
		nic->xsk.rx.r.head++;
	}
	paste_ring_retire(&nic->xsk.rx.r);
	paste_rx_flush(&nic->in);
	nic_refill(nic);
	rcu_read_unlock();

	if (done == budget)
		return done;
	/* completion flushes GRO: it would not for a busy poll, of which our NAPI has none */
	nic->in.in_gro = false;
	/* frames may have come between the look at the ring and the completion */
	if (napi_complete_done(napi, done) && paste_ring_avail(&nic->xsk.rx.r) > 0)
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
		id = READ_ONCE(nic->xsk.sock->sk->sk_napi_id);
	rcu_read_unlock();
	return id;
}

/* --------------------------------------------------------- bind, unbind --- */

/* The pages' idle count, see struct paste_slice. */
static void nic_set_pinned(struct paste_slice *slice, bool pinned)
{
	spin_lock_bh(&slice->lock);
	slice->idle_refs = slice->pool->page_refs + (pinned ? GUP_PIN_COUNTING_BIAS : 0);
	spin_unlock_bh(&slice->lock);
}

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
	if (dev->dev.parent && !paste_nic_driver_is_safe(dev_driver_string(dev->dev.parent)))
		return paste_fail(text, -EOPNOTSUPP,
				  "ifindex: the driver of %s keeps kernel pointers in the chunks",
				  dev->name);
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

/* Cannot fail: a binding with a device is one whose hooks are in place. rtnl held. */
static void nic_arm(struct paste_nic *nic)
{
	/* else sockets would busy-poll our NAPI, which cannot make the NIC move */
	set_bit(NAPI_STATE_NO_BUSY_POLL, &nic->napi.state);
	netif_napi_add(nic->napi_dev, &nic->napi, nic_poll);
	napi_enable(&nic->napi);
	timer_setup(&nic->watchdog, nic_watchdog, 0);
	init_waitqueue_func_entry(&nic->wait, nic_wake);
	add_wait_queue(sk_sleep(nic->xsk.sock->sk), &nic->wait);
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
	remove_wait_queue(sk_sleep(nic->xsk.sock->sk), &nic->wait);
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
 * 3. The socket's last reference. The chunks are unpinned some time after
 *    that, see paste_xsk_close(): so watch the pins.
 * 4. What the NIC had is free. If the pins did not go away (the fd is held),
 *    those chunks are lost to this context; they are never used again.
 */
static void nic_destroy(struct paste_nic *nic, u32 pinned)
{
	struct paste_slice *slice = nic->q->slice;
	struct page *last =
		virt_to_page(paste_chunk_addr(slice->pool, slice->first + slice->t.n - 1));
	int umem_refs = slice->pool->page_refs + GUP_PIN_COUNTING_BIAS, refs;
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
	paste_rx_free_pieces(&nic->in);
	nic_set_pinned(slice, false);
	paste_xsk_close(&nic->xsk);
	if (!pinned || !read_poll_timeout(page_ref_count, refs, refs < umem_refs, 500,
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
	int err;

	local_bh_disable();
	nic_refill(nic); /* drivers take buffers while they bind */
	local_bh_enable();
	err = paste_xsk_bind(&nic->xsk, a->ifindex, a->nic_queue);
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
	err = paste_xsk_open(&nic->xsk);
	if (err)
		return paste_fail(text, err, "cannot make an AF_XDP socket (%d)", err);
	err = paste_xsk_register(&nic->xsk, nic->q);
	if (err)
		return paste_fail(text, err, "cannot register the slice for DMA (%d)%s", err,
				  err == -ENOBUFS ? ": RLIMIT_MEMLOCK" : "");
	*pinned = nic->q->slice->t.n / nic->q->slice->pool->per_page;
	nic_set_pinned(nic->q->slice, true);
	err = paste_xsk_make_rings(&nic->xsk);
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
	nic->in.q = q;
	nic->in.napi = &nic->napi;
	nic->in.ports = nic->ports;
	INIT_LIST_HEAD(&nic->in.direct);
	nic->xsk.entries = a->entries;
	/* of what the NIC has when all is well at most half: chunks that were filled are found free only on demand */
	q->slice->low = min(q->slice->t.n / 8, a->entries / 2);
	nic->nic_queue = a->nic_queue;
	INIT_LIST_HEAD(&nic->list);
	err = nic_set_up(nic, a, text, &pinned);
	if (err) {
		nic_destroy(nic, pinned);
		return err;
	}
	WRITE_ONCE(q->nic_queue, a->nic_queue);
	WRITE_ONCE(q->nic_ifindex, a->ifindex);
	rcu_assign_pointer(q->nic, nic);
	atomic64_inc(&paste_made[PASTE_OBJ_NIC]);
	*file = get_file(nic->xsk.file);
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

/* ---------------------------------------------------- deferred frees --- */

static int nic_poll_nothing(struct napi_struct *napi, int budget)
{
	napi_complete_done(napi, 0);
	return 0;
}

static void nic_schedule(void *napi)
{
	napi_schedule(napi);
}

/*
 * A packet that was read on another CPU than it came in on is put on a list of
 * the latter, to be freed when that next has something to do for the network.
 * Give every CPU something to do.
 */
void paste_nic_free_deferred(void)
{
	struct net_device *dev = paste_alloc_dummy();
	struct napi_struct *napi;
	int cpu;

	napi = kzalloc(sizeof(*napi), GFP_KERNEL);
	if (dev && napi) {
		set_bit(NAPI_STATE_NO_BUSY_POLL, &napi->state);
		netif_napi_add(dev, napi, nic_poll_nothing);
		cpus_read_lock();
		for_each_online_cpu(cpu)
		{
			napi_enable(napi);
			local_bh_disable();
			smp_call_function_single(cpu, nic_schedule, napi, true);
			local_bh_enable(); /* runs it, if cpu is this one */
			napi_disable(napi);
		}
		cpus_read_unlock();
		netif_napi_del(napi);
	}
	kfree(napi);
	if (dev)
		paste_free_dummy(dev);
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
