/* SPDX-License-Identifier: GPL-2.0 */
/* One tracepoint for each hand-off of a chunk or a batch. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM paste

#if !defined(PASTE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PASTE_TRACE_H

#include <linux/tracepoint.h>

/* NIC -> stack: how a frame was disposed of (a PASTE_STAT_RX_* number). */
TRACE_EVENT(paste_frame,
	TP_PROTO(u32 queue, u32 chunk, u32 len, u32 stat),
	TP_ARGS(queue, chunk, len, stat),
	TP_STRUCT__entry(
		__field(u32, queue)
		__field(u32, chunk)
		__field(u32, len)
		__field(u32, stat)
	),
	TP_fast_assign(
		__entry->queue = queue;
		__entry->chunk = chunk;
		__entry->len = len;
		__entry->stat = stat;
	),
	TP_printk("queue=%u chunk=%u len=%u stat=%u",
		  __entry->queue, __entry->chunk, __entry->len, __entry->stat)
);

/* stack -> application: an rx entry. */
TRACE_EVENT(paste_deliver,
	TP_PROTO(u32 queue, const struct paste_rx *e),
	TP_ARGS(queue, e),
	TP_STRUCT__entry(
		__field(u32, queue)
		__field(u32, conn)
		__field(u32, chunk)
		__field(u32, off)
		__field(u32, len)
		__field(u32, flags)
	),
	TP_fast_assign(
		__entry->queue = queue;
		__entry->conn = e->conn;
		__entry->chunk = e->chunk;
		__entry->off = e->off;
		__entry->len = e->len;
		__entry->flags = e->flags;
	),
	TP_printk("queue=%u conn=%#x chunk=%u off=%u len=%u flags=%#x",
		  __entry->queue, __entry->conn, __entry->chunk, __entry->off,
		  __entry->len, __entry->flags)
);

/* application -> module: chunks given back. */
TRACE_EVENT(paste_fill,
	TP_PROTO(u32 queue, u32 n, u32 bad),
	TP_ARGS(queue, n, bad),
	TP_STRUCT__entry(
		__field(u32, queue)
		__field(u32, n)
		__field(u32, bad)
	),
	TP_fast_assign(
		__entry->queue = queue;
		__entry->n = n;
		__entry->bad = bad;
	),
	TP_printk("queue=%u n=%u bad=%u", __entry->queue, __entry->n, __entry->bad)
);

/* module -> NIC: chunks lent. */
TRACE_EVENT(paste_lend,
	TP_PROTO(u32 queue, u32 n, u32 lent),
	TP_ARGS(queue, n, lent),
	TP_STRUCT__entry(
		__field(u32, queue)
		__field(u32, n)
		__field(u32, lent)
	),
	TP_fast_assign(
		__entry->queue = queue;
		__entry->n = n;
		__entry->lent = lent;
	),
	TP_printk("queue=%u n=%u lent=%u", __entry->queue, __entry->n, __entry->lent)
);

DECLARE_EVENT_CLASS(paste_send_class,
	TP_PROTO(u32 queue, u32 conn, u32 chunk, u32 len, s32 result),
	TP_ARGS(queue, conn, chunk, len, result),
	TP_STRUCT__entry(
		__field(u32, queue)
		__field(u32, conn)
		__field(u32, chunk)
		__field(u32, len)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->queue = queue;
		__entry->conn = conn;
		__entry->chunk = chunk;
		__entry->len = len;
		__entry->result = result;
	),
	TP_printk("queue=%u conn=%#x chunk=%u len=%u result=%d",
		  __entry->queue, __entry->conn, __entry->chunk, __entry->len, __entry->result)
);

/* module -> TCP: result is what TCP took of it, or an error. */
DEFINE_EVENT(paste_send_class, paste_send,
	TP_PROTO(u32 queue, u32 conn, u32 chunk, u32 len, s32 result),
	TP_ARGS(queue, conn, chunk, len, result));

/* TCP and NIC -> application: a comp entry. */
DEFINE_EVENT(paste_send_class, paste_comp,
	TP_PROTO(u32 queue, u32 conn, u32 chunk, u32 len, s32 result),
	TP_ARGS(queue, conn, chunk, len, result));

#endif /* PASTE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
