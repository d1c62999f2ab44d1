// SPDX-License-Identifier: GPL-2.0
/*
 * Pools on persistent memory: a file on FS-DAX, or device-dax.
 *
 * The pages belong to a file system or to a DAX driver, and three things must
 * hold as long as a NIC, TCP or the application can reach them through us:
 *
 * - They are there: we hold the file, and the device's page map.
 * - They stay the file's, at their places. A pin alone does not do that: what
 *   truncates a DAX file looks at page references only if the file is mapped
 *   somewhere, and our mapping is not one of the file. So the inode is marked
 *   S_SWAPFILE, as swapon(8) does for a file that the kernel writes to behind
 *   the file system's back, and that everything that could move or free blocks
 *   respects. It also keeps a second context away. A fallocate(2) that was
 *   past that test when we set the mark is stopped by the pins, if the file is
 *   mapped: therefore the library keeps its mapping of it.
 * - Their reference counts can be computed, as pool.c needs: one of the driver,
 *   our pin, the UMEM's pin, packets. True for pages of order 0, which those of
 *   FS-DAX are until 6.14 and those of device-dax if it has 4 KiB alignment.
 *   Mappings of the file have no references there. (From 6.15 on they have, in
 *   device-dax: that only makes a page look busy.)
 *
 * When the context closes, packets may refer to pages still. Kernel pages would
 * be freed with the packet; these here will be the file's again, and be given
 * to another file perhaps. So
 * - what TCP has still to send, it has copied by now (tx.c);
 * - what detached sockets have received, they have copied (tap.c);
 * - the pool waits until every page has its idle count. If that takes too long
 *   (somebody keeps the AF_XDP socket's fd, or packets in a pipe), the close
 *   returns, and the file stays ours until it is over.
 */
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memremap.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/sort.h>

#include "internal.h"

#define PMEM_BATCH 512 /* pages pinned at once */

static bool fsdax_by_users;
module_param(fsdax_by_users, bool, 0644);
MODULE_PARM_DESC(
	fsdax_by_users,
	"pools in FS-DAX files without CAP_SYS_ADMIN, for users trusted with the file system (N)");

/* Pages that lie side by side in memory as in the file. */
struct pmem_extent {
	unsigned long pfn;
	u32 n;
	u32 first;		   /* page of the pool */
	struct dev_pagemap *pgmap; /* counted */
};

struct paste_pmem {
	struct file *file;   /* counted */
	struct inode *inode; /* that all files of it have in common */
	unsigned long addr;  /* the caller's mapping */
	u32 kind;	     /* PASTE_POOL_* */
	bool claimed, existed;
	struct page *head; /* page 0, pinned before there is pool->pages */
	u32 n_pinned;
	u32 n_extents;
	struct pmem_extent *extents; /* by pfn */
	u32 n_idle;		     /* at the end: pages found idle, which they then stay */
};

/* ---------------------------------------------------------- the file --- */

static int pmem_check_file(struct paste_pmem *pm, struct paste_text *text)
{
	if ((pm->file->f_mode & (FMODE_READ | FMODE_WRITE)) != (FMODE_READ | FMODE_WRITE))
		return paste_fail(text, -EACCES, "fd: not open for reading and writing");
	if (!IS_DAX(pm->inode))
		return paste_fail(
			text, -EOPNOTSUPP,
			"fd: not on FS-DAX (mount -o dax), no device-dax: such pages (cache, tmpfs, huge) can move or are counted together");
	if (S_ISCHR(pm->inode->i_mode)) {
		pm->kind = PASTE_POOL_DEVDAX;
		return 0;
	}
	pm->kind = PASTE_POOL_FSDAX;
	if (!S_ISREG(pm->inode->i_mode))
		return paste_fail(text, -EOPNOTSUPP, "fd: not a regular file");
	if (!PASTE_HAS_FSDAX)
		return paste_fail(
			text, -EOPNOTSUPP,
			"fd: no FS-DAX with Linux 6.15 or later, or without CONFIG_SWAP: use device-dax, ndctl create-namespace -m devdax --align=4k");
	if (!fsdax_by_users && !capable(CAP_SYS_ADMIN))
		return paste_fail(
			text, -EPERM,
			"fd: an FS-DAX file needs CAP_SYS_ADMIN or the parameter fsdax_by_users");
	return 0;
}

/* From here on nobody frees or moves blocks of the file, and no other context has it. */
static int pmem_claim(struct paste_pmem *pm, struct paste_text *text)
{
	inode_lock(pm->inode); /* waits for those who do so now */
	if (!IS_SWAPFILE(pm->inode)) {
		pm->inode->i_flags |= S_SWAPFILE;
		pm->claimed = true;
	}
	inode_unlock(pm->inode);
	if (!pm->claimed)
		return paste_fail(text, -EBUSY, "fd: another context or swapon has this file");
	return 0;
}

static void pmem_unclaim(struct paste_pmem *pm)
{
	if (!pm->claimed)
		return;
	inode_lock(pm->inode);
	pm->inode->i_flags &= ~S_SWAPFILE;
	inode_unlock(pm->inode);
}

/* ------------------------------------------------------------ its pages --- */

static bool pmem_maps(const struct paste_pmem *pm, const struct vm_area_struct *vma,
		      unsigned long addr, u32 first, u32 n)
{
	const unsigned long want = VM_SHARED | VM_WRITE | VM_SYNC;

	return vma && vma->vm_start <= addr && (vma->vm_end - addr) >> PAGE_SHIFT >= n &&
	       (vma->vm_flags & want) == want && vma->vm_file->f_mapping->host == pm->inode &&
	       vma->vm_pgoff + ((addr - vma->vm_start) >> PAGE_SHIFT) == first;
}

/*
 * Pin n pages through the caller's mapping, which faults them in for writing:
 * then their blocks are allocated, and that is durable (MAP_SYNC). The lock
 * keeps other threads from changing what is mapped there.
 */
static int pmem_pin_some(struct paste_pmem *pm, u32 n, struct page **pages, struct paste_text *text)
{
	unsigned long addr = pm->addr + ((unsigned long)pm->n_pinned << PAGE_SHIFT);
	bool ok;
	int got;

	mmap_read_lock(current->mm);
	ok = pmem_maps(pm, find_vma(current->mm, addr), addr, pm->n_pinned, n);
	got = ok ? paste_pin_user_pages(addr, n, FOLL_WRITE, pages) : -EFAULT;
	mmap_read_unlock(current->mm);
	if (!ok)
		return paste_fail(
			text, -EINVAL,
			"addr: not fd, mapped from its start with MAP_SYNC and for writing, that far");
	if (got > 0)
		pm->n_pinned += got;
	return got == n ? 0 :
			  paste_fail(text, got < 0 ? got : -EFAULT, "fd: cannot get page %u",
				     pm->n_pinned);
}

static int pmem_check_page(const struct paste_pmem *pm, struct page *page, struct paste_text *text)
{
	int type = pm->kind == PASTE_POOL_FSDAX ? MEMORY_DEVICE_FS_DAX : MEMORY_DEVICE_GENERIC;

	if (PageCompound(page))
		return paste_fail(
			text, -EOPNOTSUPP,
			"fd: its pages are huge: use ndctl create-namespace -m devdax --align=4k");
	if (!is_zone_device_page(page) || paste_page_pgmap(page)->type != type)
		return paste_fail(text, -EOPNOTSUPP, "fd: its pages are not those of a DAX device");
	return 0;
}

static bool pmem_same_extent(struct page **pages, u32 i)
{
	return page_to_pfn(pages[i]) == page_to_pfn(pages[i - 1]) + 1 &&
	       paste_page_pgmap(pages[i]) == paste_page_pgmap(pages[i - 1]);
}

static int pmem_cmp_extents(const void *a, const void *b)
{
	const struct pmem_extent *x = a, *y = b;

	return x->pfn < y->pfn ? -1 : x->pfn > y->pfn;
}

static int pmem_make_extents(struct paste_pmem *pm, struct page **pages, struct paste_text *text)
{
	struct pmem_extent *e = NULL;
	u32 i, n = 1;

	for (i = 1; i < pm->n_pinned; i++)
		n += !pmem_same_extent(pages, i);
	pm->extents = kvcalloc(n, sizeof(*pm->extents), PASTE_GFP_SIZED);
	if (!pm->extents)
		return -ENOMEM;
	for (i = 0; i < pm->n_pinned; i++) {
		if (!i || !pmem_same_extent(pages, i)) {
			e = &pm->extents[pm->n_extents];
			e->pfn = page_to_pfn(pages[i]);
			e->first = i;
			e->pgmap = get_dev_pagemap(e->pfn, NULL);
			if (!e->pgmap)
				return paste_fail(text, -ENXIO, "fd: its device is going away");
			pm->n_extents++;
		}
		e->n++;
	}
	sort(pm->extents, pm->n_extents, sizeof(*pm->extents), pmem_cmp_extents, NULL);
	return 0;
}

/* The pool's pages into pool->pages; the first is pinned already. */
int paste_pmem_pin(struct paste_pool *pool, u32 pages, struct paste_text *text)
{
	struct paste_pmem *pm = pool->pmem;
	u32 i, n;
	int err;

	pool->pages[0] = pm->head;
	while (pm->n_pinned < pages) {
		if (fatal_signal_pending(current))
			return -EINTR;
		i = pm->n_pinned;
		n = min_t(u32, pages - i, PMEM_BATCH);
		err = pmem_pin_some(pm, n, pool->pages + i, text);
		for (; i < pm->n_pinned && !err; i++)
			err = pmem_check_page(pm, pool->pages[i], text);
		if (err)
			return err;
		cond_resched();
	}
	pool->n_pages = pages;
	atomic64_add(pages, &paste_made[PASTE_OBJ_POOL_PAGE]);
	return pmem_make_extents(pm, pool->pages, text);
}

/* Which page of the pool is this? Files have few extents. */
u32 paste_pmem_page_of(const struct paste_pmem *pm, unsigned long pfn)
{
	const struct pmem_extent *e = pm->extents;
	u32 n = pm->n_extents, half;

	while (n > 1) {
		half = n / 2;
		if (pfn >= e[half].pfn) {
			e += half;
			n -= half;
		} else {
			n = half;
		}
	}
	return pfn - e->pfn < e->n ? e->first + (u32)(pfn - e->pfn) : PASTE_CHUNK_NONE;
}

/* --------------------------------------------------------- its header --- */

static bool pmem_has_pool(const struct paste_pool_header *h)
{
	return !memcmp(h->magic, PASTE_POOL_MAGIC, sizeof(h->magic));
}

/* The sizes that the caller does not say are the header's, the others must be. */
static int pmem_take_sizes(const struct paste_pool_header *h, struct paste_ioc_pool *a,
			   struct paste_text *text)
{
	if (!a->n_rx) {
		a->n_rx = h->n_rx;
		a->n_tx = a->n_tx ?: h->n_tx;
	}
	if (!a->chunk_size)
		a->chunk_size = h->chunk_size;
	if (a->n_rx != h->n_rx || a->n_tx != h->n_tx || a->chunk_size != h->chunk_size)
		return paste_fail(text, -EINVAL,
				  "n_rx, n_tx, chunk_size: the pool in this file has %u, %u, %u",
				  h->n_rx, h->n_tx, h->chunk_size);
	return 0;
}

/*
 * May this header be written there? If all is zero, or if it was being written
 * when the power went: some of its words, without the magic, which comes last.
 */
static bool pmem_is_blank(const void *page, const struct paste_pool_header *want)
{
	const u64 *old = page, *new = (const void *)want;
	u32 i, n = sizeof(*want) / sizeof(*new);

	for (i = 1; i < n; i++)
		if (old[i] && old[i] != new[i])
			return false;
	return !old[0] && !memchr_inv(old + n, 0, PAGE_SIZE - sizeof(*want));
}

static int pmem_no_pool(struct paste_text *text)
{
	return paste_fail(text, -EBADMSG,
			  "fd: the file is neither a pool of this version nor empty");
}

/* want: the header of the pool as it is laid out. Is it there, or is there nothing yet? */
int paste_pmem_check_header(struct paste_pool *pool, const struct paste_pool_header *want,
			    struct paste_text *text)
{
	struct paste_pmem *pm = pool->pmem;
	const void *page = page_address(pm->head);

	if (pm->existed ? memcmp(page, want, sizeof(*want)) : !pmem_is_blank(page, want))
		return pmem_no_pool(text);
	if (pm->kind == PASTE_POOL_FSDAX && i_size_read(pm->inode) < want->bytes)
		return paste_fail(text, -EBADMSG,
				  "fd: the file is shorter than the pool's %llu bytes",
				  want->bytes);
	return 0;
}

/* Durable, and the magic last: a header with it is a whole one. */
void paste_pmem_write_header(struct paste_pool *pool, const struct paste_pool_header *want)
{
	struct paste_pool_header *h = page_address(pool->pages[0]);
	const size_t magic = sizeof(h->magic);

	if (pool->pmem->existed)
		return;
	memcpy_flushcache((void *)h + magic, (void *)want + magic, sizeof(*want) - magic);
	pmem_wmb();
	memcpy_flushcache(h->magic, want->magic, magic);
	pmem_wmb();
}

/* ------------------------------------------------------- open and close --- */

/* No page is referred to by others, so that the file may have them back. */
void paste_pmem_close(struct paste_pool *pool)
{
	struct paste_pmem *pm = pool->pmem;
	u32 i;

	for (i = 0; i < pm->n_extents; i++)
		put_dev_pagemap(pm->extents[i].pgmap);
	if (pm->n_pinned)
		unpin_user_pages(pool->pages ?: &pm->head, pm->n_pinned);
	pmem_unclaim(pm);
	fput(pm->file);
	kvfree(pm->extents);
	kfree(pm);
	pool->pmem = NULL;
}

static int pmem_take_file(struct paste_pmem *pm, struct paste_ioc_pool *a, struct paste_text *text)
{
	struct paste_pool_header h;
	int err;

	err = pmem_check_file(pm, text)			    ?:
		      pmem_claim(pm, text)		    ?:
		      pmem_pin_some(pm, 1, &pm->head, text) ?:
							      pmem_check_page(pm, pm->head, text);
	if (err)
		return err;
	a->kind = pm->kind;
	memcpy(&h, page_address(pm->head), sizeof(h)); /* others may map it */
	pm->existed = pmem_has_pool(&h);
	a->existed = pm->existed;
	if (pm->existed)
		return pmem_take_sizes(&h, a, text);
	return a->n_rx || !memchr_inv(page_address(pm->head), 0, PAGE_SIZE) ? 0 :
									      pmem_no_pool(text);
}

/* The file of a pool, and what its header says, if it has one. Undone by paste_pmem_close(). */
int paste_pmem_open(struct paste_pool *pool, struct paste_ioc_pool *a, struct paste_text *text)
{
	struct paste_pmem *pm;
	int err;

	if (!a->addr || !PAGE_ALIGNED(a->addr) || a->addr >= TASK_SIZE)
		return paste_fail(text, -EINVAL, "addr: no address of a mapping");
	pm = kzalloc(sizeof(*pm), GFP_KERNEL_ACCOUNT);
	if (!pm)
		return -ENOMEM;
	pm->file = fget(a->fd);
	if (!pm->file) {
		kfree(pm);
		return paste_fail(text, -EBADF, "fd: %d is not an open file", a->fd);
	}
	pm->inode = pm->file->f_mapping->host;
	pm->addr = a->addr;
	pool->pmem = pm;
	pool->page_refs = PASTE_DAX_PAGE_REFS + GUP_PIN_COUNTING_BIAS;
	err = pmem_take_file(pm, a, text);
	if (err)
		paste_pmem_close(pool);
	return err;
}

/* Nothing gives new references to pages any more: those that were idle once stay so. */
bool paste_pmem_is_idle(struct paste_pool *pool)
{
	struct paste_pmem *pm = pool->pmem;

	while (pm->n_idle < pool->n_pages &&
	       page_ref_count(pool->pages[pm->n_idle]) <= pool->page_refs)
		pm->n_idle++;
	return pm->n_idle == pool->n_pages;
}
