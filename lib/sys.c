// SPDX-License-Identifier: MIT
/*
 * libpaste: helpers of the other files, see internal.h.
 *
 * Everything that makes a system call goes through here or saves errno itself:
 * a library that reports by return value must not change errno behind the back
 * of a caller that is just looking at it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "internal.h"

int paste_sys_ioctl(int fd, unsigned long nr, void *arg)
{
	int saved = errno;
	int ret = ioctl(fd, nr, arg);

	if (ret < 0)
		ret = -errno;
	errno = saved;
	return ret;
}

int paste_sys_map(void **addr, size_t len, int prot, int flags, int fd, off_t off)
{
	int saved = errno;
	void *at = mmap(*addr, len, prot, flags, fd, off);
	int ret = 0;

	if (at == MAP_FAILED)
		ret = -errno;
	else
		*addr = at;
	errno = saved;
	return ret;
}

void paste_sys_unmap(void *addr, size_t len)
{
	int saved = errno;

	if (addr)
		munmap(addr, len);
	errno = saved;
}

void paste_sys_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

/*
 * A caller that was compiled with an older header has a shorter struct: the
 * rest keeps its defaults. One with a newer header has a longer struct: fine as
 * long as it does not ask for what this library does not know.
 */
int paste_opts_copy(void *dst, size_t dst_sz, const void *src)
{
	size_t sz, i;

	if (!src)
		return 0;
	memcpy(&sz, src, sizeof(sz));
	if (sz < sizeof(sz))
		return -EINVAL;
	for (i = dst_sz; i < sz; i++)
		if (((const char *)src)[i])
			return -E2BIG;
	memcpy(dst, src, sz < dst_sz ? sz : dst_sz);
	return 0;
}

void paste_say(char *text, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, PASTE_TEXT_MAX, fmt, ap);
	va_end(ap);
	errno = saved;
}

/* Returns err, so that it can be the last line of a function. */
int paste_fail(char *text, const char *what, int err)
{
	const char *why = strerrordesc_np(-err);

	if (!*text)
		paste_say(text, "%s: %s", what, why ? why : "unknown error");
	return err;
}
