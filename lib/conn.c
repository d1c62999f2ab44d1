// SPDX-License-Identifier: MIT
/*
 * libpaste: connections, and listening sockets whose connections arrive where
 * their packets do.
 *
 * The library keeps nothing about a connection: the socket is the caller's and
 * the handle is the module's.
 */
#include <string.h>
#include <unistd.h>
#include <linux/filter.h>

#include "internal.h"

/* On failure the context gets the text that the module wrote. */
static int call(struct pasteq *q, const char *what, unsigned long cmd, void *io, char *text)
{
	int err = paste_sys_ioctl(q->fd, cmd, io);

	if (err) {
		paste_fail(text, what, err);
		memcpy(q->ctx->text, text, sizeof(q->ctx->text));
	}
	return err;
}

int paste_attach(struct pasteq *q, int sockfd, __u32 quota, __u32 *conn)
{
	struct paste_ioc_attach io = { .size = sizeof(io), .fd = sockfd, .quota = quota };
	char text[PASTE_TEXT_MAX] = "";
	int err;

	io.text = paste_ptr(text);
	err = call(q, "attach", PASTE_IOC_ATTACH, &io, text);
	if (!err && conn)
		*conn = io.conn;
	return err;
}

int paste_accept(struct pasteq *q, int listenfd, __u32 quota)
{
	struct paste_ioc_accept io = { .size = sizeof(io), .fd = listenfd, .quota = quota };
	char text[PASTE_TEXT_MAX] = "";

	io.text = paste_ptr(text);
	return call(q, "accept", PASTE_IOC_ACCEPT, &io, text);
}

int paste_detach(struct pasteq *q, __u32 conn)
{
	struct paste_ioc_detach io = { .size = sizeof(io), .conn = conn };

	return paste_sys_ioctl(q->fd, PASTE_IOC_DETACH, &io);
}

int paste_quota(struct pasteq *q, __u32 conn, __u32 quota)
{
	struct paste_ioc_quota io = { .size = sizeof(io), .conn = conn, .quota = quota };

	return paste_sys_ioctl(q->fd, PASTE_IOC_QUOTA, &io);
}

/*
 * The kernel runs this for each SYN; the result is the index of the listener in
 * the order in which they began to listen. A packet's queue number is stored
 * plus one, 0 means that the driver did not say: then, with a result that no
 * listener has, the kernel falls back to spreading by hash.
 */
static int steer_by_queue(int fd, unsigned n)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (__u32)(SKF_AD_OFF + SKF_AD_QUEUE)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0),
		BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 1),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, n),
		BPF_STMT(BPF_RET | BPF_A, 0),
		BPF_STMT(BPF_RET | BPF_K, 0xffffffffU),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &prog, sizeof(prog)))
		return -errno;
	return 0;
}

static int set_on(int fd, int option)
{
	int on = 1;

	return setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on)) ? -errno : 0;
}

static int start_listening(int fd, const struct sockaddr *addr, socklen_t len, int backlog)
{
	int err;

	err = set_on(fd, SO_REUSEADDR);
	if (!err)
		err = set_on(fd, SO_REUSEPORT);
	if (!err && bind(fd, addr, len))
		err = -errno;
	if (!err && listen(fd, backlog))
		err = -errno;
	return err;
}

int paste_listen(const struct sockaddr *addr, socklen_t len, int backlog, unsigned index,
		 unsigned n, int *fd)
{
	int saved = errno;
	int sock, err;

	if (n && index >= n)
		return -EINVAL;
	sock = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0) {
		err = -errno;
		goto out;
	}
	err = start_listening(sock, addr, len, backlog);
	/* The others join the group of the first and find its program there. */
	if (!err && n > 1 && !index)
		err = steer_by_queue(sock, n);
	if (err)
		close(sock);
	else
		*fd = sock;
out:
	errno = saved;
	return err;
}
