/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The only place that knows kernel versions. Force-included in every file of
 * the module (see Kbuild), so that the others read as if there were one kernel.
 *
 * Tested: 6.1 and 6.12 (Debian). Each shim says what changed, and when.
 */
#ifndef PASTE_COMPAT_H
#define PASTE_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "paste needs Linux 6.1 or newer"
#endif

#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/slab.h>

/* 6.3: vm_flags became read-only, with helpers that take the lock. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.3: drivers say what they can; before, those with zero copy were those that can be woken. */
static inline bool paste_dev_has_zerocopy(const struct net_device *dev)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
	return dev->netdev_ops->ndo_xsk_wakeup;
#else
	return dev->xdp_features & NETDEV_XDP_ACT_XSK_ZEROCOPY;
#endif
}

/* 6.10: the completion of a ubuf_info moved into an ops struct. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
#define PASTE_UBUF_OPS(name, fn) \
	static void (*const name)(struct sk_buff *, struct ubuf_info *, bool) = (fn)
#define paste_ubuf_set_ops(ubuf, o) ((ubuf)->callback = *(o))
#define paste_ubuf_is(ubuf, o)	    ((ubuf)->callback == *(o))
#else
#define PASTE_UBUF_OPS(name, fn)    static const struct ubuf_info_ops name = { .complete = (fn) }
#define paste_ubuf_set_ops(ubuf, o) ((ubuf)->ops = (o))
#define paste_ubuf_is(ubuf, o)	    ((ubuf)->ops == (o))
#endif

/* 6.10: a dummy net_device is allocated by the core; it had to be embedded before. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 10, 0)
static inline struct net_device *paste_alloc_dummy(void)
{
	struct net_device *dev = kvzalloc(sizeof(*dev), GFP_KERNEL);

	if (dev)
		init_dummy_netdev(dev);
	return dev;
}

static inline void paste_free_dummy(struct net_device *dev)
{
	kvfree(dev);
}
#else
static inline struct net_device *paste_alloc_dummy(void)
{
	return alloc_netdev_dummy(0);
}

static inline void paste_free_dummy(struct net_device *dev)
{
	free_netdev(dev);
}
#endif

/* 6.6: TCP learns how much of the receive buffer's space is payload; before, it took half. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define PASTE_TCP_ASSUMES_HALF 1
#else
#define PASTE_TCP_ASSUMES_HALF 0
#endif

/*
 * 6.2 [6.1 LTS kept the old one]: AF_XDP rings are vmalloc memory, which can be
 * pinned; before, they were one compound page in a PFN mapping, which cannot.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define PASTE_XSK_RING_IS_PFNMAP 1
#else
#define PASTE_XSK_RING_IS_PFNMAP 0
static inline int follow_pfn(struct vm_area_struct *vma, unsigned long addr, unsigned long *pfn)
{
	return -EOPNOTSUPP;
}
#endif

/* 6.5: without vmas. */
static inline long paste_pin_user_pages(unsigned long addr, unsigned long n, unsigned int flags,
					struct page **pages)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	return pin_user_pages(addr, n, flags, pages, NULL);
#else
	return pin_user_pages(addr, n, flags, pages);
#endif
}

/*
 * 6.15: FS-DAX pages are counted by their mappings, from 0, may be large, and
 * may not be pinned for long: no NIC can receive into them. The page map moved
 * from the page to the folio. Without CONFIG_SWAP nobody minds S_SWAPFILE (it can
 * be set, IS_SWAPFILE() is 0), and that is what guards the file, see pmem.c.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define PASTE_HAS_FSDAX IS_ENABLED(CONFIG_SWAP)
static inline struct dev_pagemap *paste_page_pgmap(const struct page *page)
{
	return page->pgmap;
}
#else
#define PASTE_HAS_FSDAX 0
static inline struct dev_pagemap *paste_page_pgmap(const struct page *page)
{
	return page_pgmap(page);
}
#endif

/* References of the driver to a page of FS-DAX (before 6.15) or device-dax. */
#define PASTE_DAX_PAGE_REFS 1

#endif /* PASTE_COMPAT_H */
