// SPDX-License-Identifier: GPL-2.0
/*
 * The AF_XDP socket of a NIC binding: made inside the kernel, through its
 * public interface alone, with a slice's chunks as UMEM. nic.c works with its
 * rings.
 */
#include <linux/file.h>
#include <linux/if_xdp.h>
#include <linux/mman.h>
#include <linux/vmalloc.h>
#include <net/xdp_sock.h>

#include "internal.h"

/* Where in a context's file the temporary view for UMEM registration is. */
#define XSK_WINDOW	 (1ULL << 62)
#define XSK_WINDOW_SHIFT 36 /* more than the largest pool has bytes */

static struct xdp_sock *xsk_xs(struct paste_xsk *x)
{
	return container_of(x->sock->sk, struct xdp_sock, sk);
}

/* --------------------------------------------------------------- socket --- */

/* __fput_sync() is for kernel threads, and fput() would wait for our return to user space. */
static void xsk_put_work(struct work_struct *work)
{
	__fput_sync(container_of(work, struct paste_xsk, put_work)->file);
}

int paste_xsk_open(struct paste_xsk *x)
{
	int err;

	INIT_WORK(&x->put_work, xsk_put_work);
	/*
	 * Not sock_create_kern(): such a socket has no reference on its network
	 * namespace, and AF_XDP touches that when it is released.
	 */
	err = sock_create(AF_XDP, SOCK_RAW, 0, &x->sock);
	if (err)
		return err;
	x->file = sock_alloc_file(x->sock, O_CLOEXEC | O_RDWR, NULL);
	if (IS_ERR(x->file)) {
		err = PTR_ERR(x->file); /* the socket is gone already */
		x->file = NULL;
		x->sock = NULL;
		return err;
	}
	/* nic_kick() runs with BH off: it must never busy-poll (net.core.busy_read) */
	WRITE_ONCE(x->sock->sk->sk_ll_usec, 0);
	return 0;
}

/* ----------------------------------------------- UMEM registration view --- */

static u64 xsk_window(struct paste_ctx *ctx)
{
	return XSK_WINDOW | (u64)ctx->id << XSK_WINDOW_SHIFT;
}

bool paste_xsk_is_window(struct paste_ctx *ctx, struct vm_area_struct *vma)
{
	return vma->vm_pgoff >= XSK_WINDOW >> PAGE_SHIFT;
}

static vm_fault_t xsk_view_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct xsk_view_ops = {
	.fault = xsk_view_fault,
};

/*
 * AF_XDP pins a UMEM through a mapping, and refuses PFN mappings, such as the
 * application's. So for the time of the registration, and only for the task
 * that does it, there is a view with real page references. See
 * paste_xsk_register() for how it goes away.
 */
int paste_xsk_mmap(struct paste_ctx *ctx, struct vm_area_struct *vma)
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
	if (vma->vm_pgoff != xsk_window(ctx) >> PAGE_SHIFT || vma_pages(vma) != pages ||
	    !(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &xsk_view_ops;
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
int paste_xsk_register(struct paste_xsk *x, struct paste_queue *q)
{
	struct paste_pool *pool = q->slice->pool;
	u32 first = q->slice->first / pool->per_page, i;
	unsigned long len = (unsigned long)q->slice->t.n * pool->chunk_size, addr;
	struct xdp_umem_reg mr = { .len = len, .chunk_size = pool->chunk_size };
	struct paste_ctx *ctx = q->ctx;
	struct xdp_umem *umem;
	int err;

	ctx->umem_slice = q->slice;
	WRITE_ONCE(ctx->umem_task, current);
	addr = vm_mmap(ctx->file, 0, len, PROT_READ | PROT_WRITE, MAP_SHARED, xsk_window(ctx));
	WRITE_ONCE(ctx->umem_task, NULL);
	if (IS_ERR_VALUE(addr))
		return (int)addr;
	mr.addr = addr;
	err = x->sock->ops->setsockopt(x->sock, SOL_XDP, XDP_UMEM_REG, KERNEL_SOCKPTR(&mr),
				       sizeof(mr));
	vm_munmap(addr, len);
	unmap_mapping_range(ctx->file->f_mapping, xsk_window(ctx), len, 1);
	if (err)
		return err;
	umem = xsk_xs(x)->umem;
	if (umem->npgs != len >> PAGE_SHIFT)
		return -EFAULT;
	for (i = 0; i < umem->npgs; i++)
		if (umem->pgs[i] != pool->pages[first + i])
			return -EFAULT;
	atomic64_add(umem->npgs, &paste_made[PASTE_OBJ_NIC_PAGE]);
	return 0;
}

/* ---------------------------------------------------------------- rings --- */

static int xsk_ring_pin(struct paste_xsk_ring *ring, unsigned long addr, u32 len)
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
static int xsk_ring_get(struct paste_xsk_ring *ring, struct file *file, unsigned long addr)
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
static int xsk_ring_map(struct paste_xsk *x, struct paste_xsk_ring *ring, u64 pgoff,
			const struct xdp_ring_offset *o, size_t entry)
{
	u32 len = PAGE_ALIGN(o->desc + x->entries * entry);
	unsigned long addr;
	int err;

	addr = vm_mmap(x->file, 0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, pgoff);
	if (IS_ERR_VALUE(addr))
		return (int)addr;
	if (PASTE_XSK_RING_IS_PFNMAP)
		err = xsk_ring_get(ring, x->file, addr);
	else
		err = xsk_ring_pin(ring, addr, len);
	vm_munmap(addr, len);
	if (err)
		return err;
	ring->flags = ring->kva + o->flags;
	paste_ring_init(&ring->r, ring->kva + o->producer, ring->kva + o->consumer,
			ring->kva + o->desc, x->entries);
	return 0;
}

static void xsk_ring_unmap(struct paste_xsk_ring *ring)
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
static int xsk_ring_offsets(struct paste_xsk *x, struct xdp_mmap_offsets *off)
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
		err = x->sock->ops->getsockopt(x->sock, SOL_XDP, XDP_MMAP_OFFSETS,
					       (char __user *)&u->off, &u->len);
	if (!err && copy_from_user(off, &u->off, sizeof(*off)))
		err = -EFAULT;
	vm_munmap(addr, PAGE_SIZE);
	return err;
}

static int xsk_set_ring(struct paste_xsk *x, int opt, int n)
{
	return x->sock->ops->setsockopt(x->sock, SOL_XDP, opt, KERNEL_SOCKPTR(&n), sizeof(n));
}

int paste_xsk_make_rings(struct paste_xsk *x)
{
	struct xdp_mmap_offsets off;

	return xsk_set_ring(x, XDP_RX_RING, x->entries)		       ?:
		       xsk_set_ring(x, XDP_UMEM_FILL_RING, x->entries) ?:
		       xsk_set_ring(x, XDP_UMEM_COMPLETION_RING, 64)   ?:
		       xsk_ring_offsets(x, &off)		       ?:
		       xsk_ring_map(x, &x->rx, XDP_PGOFF_RX_RING, &off.rx, sizeof(struct xdp_desc)) ?:
		       xsk_ring_map(x, &x->fill, XDP_UMEM_PGOFF_FILL_RING, &off.fr, sizeof(u64));
}

/* -------------------------------------------------------- bind and close --- */

int paste_xsk_bind(struct paste_xsk *x, u32 ifindex, u32 nic_queue)
{
	struct sockaddr_xdp sx = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP,
		.sxdp_ifindex = ifindex,
		.sxdp_queue_id = nic_queue,
	};

	return kernel_bind(x->sock, (struct sockaddr *)&sx, sizeof(sx));
}

/*
 * From whatever was done. Drops the socket's last reference, unless the
 * application still has the fd. AF_XDP then takes the chunks from the NIC and
 * unpins them, from a work item that cannot be waited for.
 */
void paste_xsk_close(struct paste_xsk *x)
{
	xsk_ring_unmap(&x->rx);
	xsk_ring_unmap(&x->fill);
	if (!x->file)
		return;
	queue_work(paste_wq, &x->put_work);
	flush_work(&x->put_work);
	rcu_barrier(); /* the struct sock is freed by RCU, then the work item starts */
}
