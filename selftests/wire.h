/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The wire between frames.h's peer and the server: a tap device in a network
 * namespace of its own, or a NIC with relay at its other end.
 *
 * Frames for the tap have been received when wire_send() returns. Those for the
 * NIC are on their way when wire_flush() returns, and a byte on the connection
 * that relay has made to the server's port comes behind them.
 */
#ifndef SELFTESTS_WIRE_H
#define SELFTESTS_WIRE_H

#include <stdbool.h>
#include <sys/types.h>

#include "frames.h"

enum wire_kind {
	WIRE_TAP,	 /* nothing depends on time: see wire.c */
	WIRE_TAP_TIMERS, /* as it is by default */
	WIRE_NIC,	 /* $PASTE_IF; like the first */
};

/* 0 or a negative errno. With a NIC: the port that relay connects to. */
int wire_open(enum wire_kind kind, __u16 port);
void wire_close(void);
void wire_send(const struct frame *f);
bool wire_flush(void);
/* The next frame that the server has sent; 0 or less: there is none. */
ssize_t wire_read(void *b, size_t size);

#endif
