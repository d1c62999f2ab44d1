// SPDX-License-Identifier: GPL-2.0
/*
 * Pools and slices: the memory that packets land in, and its chunk counts.
 *
 * A pool is made of order-0 pages, each with its own reference count: the
 * kernel's (allocated in large pieces where possible, then split), or those of a
 * file on persistent memory (pmem.c). Three references to such a page can exist:
 * ours, a UMEM's pin (1024 at once), and those of packets. The application's
 * mapping has none: it is a PFN mapping. So the count of an idle page can be
 * computed, and "==" of it means that no packet refers to the page. See chunk.h
 * for what follows from that.
 */
#include <linux/iopoll.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/vmalloc.h>

#include "internal.h"

/* How long a close waits for the last packets, and how often is looked for them later. */
#define POOL_WAIT_US USEC_PER_SEC
#define POOL_RETRY   (HZ / 10)

static struct page *pool_alloc_piece(u32 want, unsigned int *order)
{
	gfp_t gfp = PASTE_GFP_SIZED | __GFP_ZERO;
	struct page *page;

	for (*order = min_t(unsigned int, 9, ilog2(want)); *order; --*order) {
		page = alloc_pages(gfp | __GFP_NORETRY, *order);
		if (page) {
			split_page(page, *order);
			return page;
		}
	}
	return alloc_page(gfp);
}

/* Zeroed, as pages come from and go to other users of the machine. */
static int pool_alloc_pages(struct paste_pool *pool, u32 want)
{
	unsigned int order;
	struct page *page;
	u32 i;

	while (pool->n_pages < want) {
		if (fatal_signal_pending(current))
			return -EINTR;
		page = pool_alloc_piece(want - pool->n_pages, &order);
		if (!page)
			return -ENOMEM;
		for (i = 0; i < 1U << order; i++, page++) {
			set_page_private(page, pool->n_pages);
			pool->pages[pool->n_pages++] = page;
			atomic64_inc(&paste_made[PASTE_OBJ_POOL_PAGE]);
		}
		cond_resched();
	}
	return 0;
}

/* The same rule as for AF_XDP's UMEM and io_uring: RLIMIT_MEMLOCK per user. */
static int pool_charge(struct paste_pool *pool, u32 pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	long old, new;

	if (capable(CAP_IPC_LOCK))
		return 0;
	pool->n_charged = pages;
	pool->user = get_uid(current_user());
	old = atomic_long_read(&pool->user->locked_vm);
	do {
		new = old + pages;
		if (new > limit) {
			free_uid(pool->user);
			pool->user = NULL;
			return -ENOMEM;
		}
	} while (!atomic_long_try_cmpxchg(&pool->user->locked_vm, &old, new));
	return 0;
}

static void pool_uncharge(struct paste_pool *pool)
{
	if (!pool->user)
		return;
	atomic_long_sub(pool->n_charged, &pool->user->locked_vm);
	free_uid(pool->user);
}

static void pool_make_header(const struct paste_pool *pool, struct paste_pool_header *h)
{
	BUILD_BUG_ON(sizeof(*h) != 40); /* no padding, whole words */
	memcpy(h->magic, PASTE_POOL_MAGIC, sizeof(h->magic));
	h->version = PASTE_POOL_VERSION;
	h->chunk_size = pool->chunk_size;
	h->n_rx = pool->n_rx;
	h->n_tx = pool->n_tx;
	h->first_rx = pool->first_rx;
	h->first_tx = pool->first_tx;
	h->bytes = (u64)pool->n_chunks * pool->chunk_size;
}

static int pool_check(const struct paste_ioc_pool *a, struct paste_text *text)
{
	if (a->flags & ~PASTE_POOL_RX_WRITABLE)
		return paste_fail(text, -EOPNOTSUPP, "flags: unknown bits %#x",
				  a->flags & ~PASTE_POOL_RX_WRITABLE);
	if (a->fd < -1)
		return paste_fail(text, -EBADF, "fd: %d is neither -1 nor a file", a->fd);
	if (a->fd >= 0 && a->flags)
		return paste_fail(text, -EINVAL, "flags: a pool in a file is writable as it is");
	if (a->fd == -1 && a->addr)
		return paste_fail(text, -EINVAL, "addr: not zero, but there is no file");
	if ((a->flags & PASTE_POOL_RX_WRITABLE) && !capable(CAP_NET_ADMIN))
		return paste_fail(text, -EPERM, "flags: RX_WRITABLE needs CAP_NET_ADMIN");
	return 0;
}

static int pool_check_sizes(const struct paste_ioc_pool *a, struct paste_text *text)
{
	u32 per_page = a->chunk_size == 2048 ? 2 : 1;

	if (a->chunk_size && a->chunk_size != 4096 && a->chunk_size != 2048)
		return paste_fail(text, -EINVAL, "chunk_size: %u is not 4096 or 2048",
				  a->chunk_size);
	if (a->n_rx < PASTE_MIN_CHUNKS || a->n_rx > PASTE_MAX_CHUNKS || a->n_rx % per_page)
		return paste_fail(text, -EINVAL, "n_rx: %u is not %u to %u in whole pages", a->n_rx,
				  PASTE_MIN_CHUNKS, PASTE_MAX_CHUNKS);
	if (a->n_tx > PASTE_MAX_CHUNKS - a->n_rx || a->n_tx % per_page)
		return paste_fail(text, -EINVAL, "n_tx: %u is more than %u or not whole pages",
				  a->n_tx, PASTE_MAX_CHUNKS - a->n_rx);
	return 0;
}

static void pool_lay_out(struct paste_pool *pool, const struct paste_ioc_pool *a)
{
	pool->chunk_size = a->chunk_size ?: 4096;
	pool->chunk_shift = ilog2(pool->chunk_size);
	pool->per_page = PAGE_SIZE / pool->chunk_size;
	pool->first_rx = pool->per_page; /* the header has a page of its own */
	pool->n_rx = a->n_rx;
	pool->first_tx = pool->first_rx + pool->n_rx;
	pool->n_tx = a->n_tx;
	pool->n_chunks = pool->first_tx + pool->n_tx;
	pool->rx_writable = pool->pmem || a->flags & PASTE_POOL_RX_WRITABLE;
}

static void pool_tell(const struct paste_pool *pool, struct paste_ioc_pool *a)
{
	a->chunk_size = pool->chunk_size;
	a->first_rx = pool->first_rx;
	a->first_tx = pool->first_tx;
	a->bytes = (u64)pool->n_pages << PAGE_SHIFT;
}

/* The layout, from what the caller says or the file's header. */
static int pool_plan(struct paste_pool *pool, struct paste_ioc_pool *a, struct paste_pool_header *h,
		     struct paste_text *text)
{
	int err;

	a->kind = PASTE_POOL_KERNEL;
	a->existed = 0;
	if (a->fd >= 0) {
		err = paste_pmem_open(pool, a, text);
		if (err)
			return err;
	}
	err = pool_check_sizes(a, text);
	if (err && a->existed)
		return paste_fail(text, -EBADMSG, "fd: the pool's header is damaged");
	if (err)
		return err;
	pool_lay_out(pool, a);
	pool_make_header(pool, h);
	return pool->pmem ? paste_pmem_check_header(pool, h, text) : 0;
}

static int pool_get_pages(struct paste_pool *pool, struct paste_text *text)
{
	u32 pages = pool->n_chunks / pool->per_page;
	int err;

	err = pool_charge(pool, pages);
	if (err)
		return paste_fail(text, err,
				  "n_rx, n_tx: %u pages are more than RLIMIT_MEMLOCK allows",
				  pages);
	pool->pages = kvcalloc(pages, sizeof(*pool->pages), PASTE_GFP_SIZED);
	if (!pool->pages)
		return -ENOMEM;
	if (pool->pmem)
		return paste_pmem_pin(pool, pages, text);
	err = pool_alloc_pages(pool, pages);
	return err ? paste_fail(text, err, "n_rx, n_tx: no memory for %u pages", pages) : 0;
}

/* Also of half a pool. */
static void pool_free(struct paste_pool *pool)
{
	u32 i;

	if (pool->pmem) {
		paste_pmem_close(pool);
	} else {
		for (i = 0; i < pool->n_pages; i++) {
			set_page_private(pool->pages[i], 0);
			put_page(pool->pages[i]);
		}
	}
	atomic64_add(pool->n_pages, &paste_gone[PASTE_OBJ_POOL_PAGE]);
	pool_uncharge(pool);
	kvfree(pool->pages);
	kfree(pool);
}

int paste_pool_create(struct paste_ctx *ctx, struct paste_ioc_pool *a, struct paste_text *text)
{
	struct paste_pool_header h;
	struct paste_pool *pool;
	int err;

	lockdep_assert_held(&ctx->lock);
	BUILD_BUG_ON(PAGE_SIZE != 4096);
	if (ctx->pool)
		return paste_fail(text, -EEXIST, "this context has a pool already");
	err = pool_check(a, text);
	if (err)
		return err;

	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return -ENOMEM;
	pool->page_refs = 1;
	err = pool_plan(pool, a, &h, text) ?: pool_get_pages(pool, text);
	if (err) {
		pool_free(pool);
		return err;
	}
	if (pool->pmem)
		paste_pmem_write_header(pool, &h);
	else
		memcpy(page_address(pool->pages[0]), &h, sizeof(h));
	pool_tell(pool, a);
	ctx->next_chunk = pool->first_rx;
	smp_store_release(&ctx->pool, pool); /* pairs with mmap's acquire */
	return 0;
}

static void pool_retry(struct work_struct *work)
{
	struct paste_pool *pool = container_of(to_delayed_work(work), struct paste_pool, retry);

	if (!paste_pmem_is_idle(pool)) {
		queue_delayed_work(paste_wq, &pool->retry, POOL_RETRY);
		return;
	}
	pool_free(pool);
	module_put(THIS_MODULE); /* module exit waits for this function's return */
}

/*
 * No mapping, queue, UMEM or send is left. Packets may still refer to pages (in
 * a socket that was detached with unread data, say): those pages go back to the
 * system with the packet. Those of a file must be idle before.
 */
void paste_pool_destroy(struct paste_pool *pool)
{
	bool idle = true;

	if (pool->pmem)
		read_poll_timeout(paste_pmem_is_idle, idle, idle, 1000, POOL_WAIT_US, false, pool);
	if (idle) {
		pool_free(pool);
		return;
	}
	__module_get(THIS_MODULE);
	INIT_DELAYED_WORK(&pool->retry, pool_retry);
	queue_delayed_work(paste_wq, &pool->retry, POOL_RETRY);
}

void *paste_chunk_addr(const struct paste_pool *pool, u32 chunk)
{
	u32 page = chunk / pool->per_page;

	return page_address(pool->pages[page]) + (chunk % pool->per_page) * pool->chunk_size;
}

/*
 * Which chunk is this address in? Any kernel address will do: private, of our
 * own pages, is only a hint, pages[] decides.
 */
u32 paste_pool_chunk_of(const struct paste_pool *pool, const void *addr)
{
	struct page *page = virt_to_page(addr);
	unsigned long i = pool->pmem ? paste_pmem_page_of(pool->pmem, page_to_pfn(page)) :
				       READ_ONCE(page->private);

	if (i >= pool->n_pages || pool->pages[i] != page)
		return PASTE_CHUNK_NONE;
	return i * pool->per_page + (offset_in_page(addr) >> pool->chunk_shift);
}

static bool slice_page_idle(void *arg, u32 page)
{
	struct paste_slice *slice = arg;
	u32 i = slice->first / slice->pool->per_page + page;

	/* acquire: see the head of chunk.h */
	return atomic_read_acquire(&slice->pool->pages[i]->_refcount) == slice->idle_refs;
}

struct paste_slice *paste_slice_create(struct paste_pool *pool, u32 first, u32 n)
{
	struct paste_slice *slice = kzalloc(sizeof(*slice), GFP_KERNEL_ACCOUNT);
	u32 pages = n / pool->per_page, fifo = roundup_pow_of_two(pages);
	struct paste_slice_table *t;

	if (!slice)
		return NULL;
	spin_lock_init(&slice->lock);
	slice->pool = pool;
	slice->first = first;
	slice->idle_refs = pool->page_refs;
	t = &slice->t;
	t->n = n;
	t->per_page = pool->per_page;
	t->idle = slice_page_idle;
	t->arg = slice;
	t->fifo.mask = fifo - 1;
	t->chunk = kvcalloc(n, sizeof(*t->chunk), PASTE_GFP_SIZED);
	t->free = kvcalloc(n, sizeof(*t->free), PASTE_GFP_SIZED);
	t->fifo.v = kvcalloc(fifo, sizeof(*t->fifo.v), PASTE_GFP_SIZED);
	if (!t->chunk || !t->free || !t->fifo.v) {
		paste_slice_destroy(slice);
		return NULL;
	}
	paste_chunks_init(t);
	return slice;
}

void paste_slice_destroy(struct paste_slice *slice)
{
	kvfree(slice->t.chunk);
	kvfree(slice->t.free);
	kvfree(slice->t.fifo.v);
	kfree(slice);
}

/*
 * All of it at once, so that the data path has no page faults. Pages that are
 * neighbours in memory too go in one piece.
 */
static int pool_map_pages(const struct paste_pool *pool, struct vm_area_struct *vma)
{
	unsigned long i = vma->vm_pgoff, left = vma_pages(vma), addr = vma->vm_start, pfn, n;
	int err = 0;

	for (; left && !err; left -= n, i += n, addr += n << PAGE_SHIFT) {
		pfn = page_to_pfn(pool->pages[i]);
		for (n = 1; n < left && page_to_pfn(pool->pages[i + n]) == pfn + n; n++)
			;
		err = remap_pfn_range(vma, addr, pfn, n << PAGE_SHIFT, vma->vm_page_prot);
	}
	return err;
}

/*
 * PFN mapping: no page references (they would break the idle test), so no GUP,
 * O_DIRECT or vmsplice from the pool either. Shared only: a private mapping
 * would get copies.
 */
int paste_pool_mmap(struct paste_pool *pool, struct vm_area_struct *vma)
{
	unsigned long first_tx = pool->first_tx / pool->per_page;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff >= pool->n_pages || vma_pages(vma) > pool->n_pages - vma->vm_pgoff)
		return -EINVAL;
	if (vma->vm_pgoff < first_tx && !pool->rx_writable) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
		vm_flags_clear(vma, VM_MAYWRITE);
	}
	vm_flags_clear(vma, VM_MAYEXEC);
	vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	return pool_map_pages(pool, vma);
}
