/* SPDX-License-Identifier: MIT */
/*
 * What the library's files share: system calls that leave errno alone, option
 * structs that may be older or newer than the library, pools' files, and the
 * sentence that says why a set-up call failed.
 *
 * The module writes that sentence itself for what it refuses. For everything
 * else (a missing device, a mapping that fails) the library writes it, so that
 * after every failed set-up call there is one.
 */
#ifndef PASTE_INTERNAL_H
#define PASTE_INTERNAL_H

#include <stdint.h>
#include <sys/types.h>

#include "paste.h"

#define PASTE_DEVICE "/dev/paste"

/* 0 or more, or a negative errno. */
int paste_sys_ioctl(int fd, unsigned long nr, void *arg);
int paste_sys_map(void **addr, size_t len, int prot, int flags, int fd, off_t off);
void paste_sys_unmap(void *addr, size_t len);
void paste_sys_close(int *fd);

/* Copy the caller's options over *dst, which has the defaults. */
int paste_opts_copy(void *dst, size_t dst_sz, const void *src);

/* Write a sentence, or make sure that there is one. */
__attribute__((format(printf, 2, 3))) void paste_say(char *text, const char *fmt, ...);
int paste_fail(char *text, const char *what, int err);

/* A file for a pool, and the mapping of it that the module wants. */
struct paste_file {
	int fd;
	bool is_pool; /* there is a header */
	void *addr;
	size_t len;
};

int paste_file_open(struct paste_file *f, const char *path, size_t len, char *text);
void paste_file_close(struct paste_file *f);

static inline __aligned_u64 paste_ptr(const void *p)
{
	return (uintptr_t)p;
}

#endif /* PASTE_INTERNAL_H */
