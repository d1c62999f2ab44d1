// SPDX-License-Identifier: MIT
/*
 * libpaste: statistics of a queue, the counters' names, and what can be seen of
 * its connections.
 *
 * A name is the PASTE_STAT_ constant in lower case, so that what a program
 * prints can be looked up in <linux/paste.h>.
 */
#include <string.h>

#include "internal.h"

static const char *const names[] = {
	[PASTE_STAT_RX_FRAMES] = "rx_frames",
	[PASTE_STAT_RX_BYREF] = "rx_byref",
	[PASTE_STAT_RX_BARE] = "rx_bare",
	[PASTE_STAT_RX_UNATTACHED] = "rx_unattached",
	[PASTE_STAT_RX_LOWWATER] = "rx_lowwater",
	[PASTE_STAT_RX_DROP_HEADER] = "rx_drop_header",
	[PASTE_STAT_RX_DROP_PORT] = "rx_drop_port",
	[PASTE_STAT_RX_DROP_DESC] = "rx_drop_desc",
	[PASTE_STAT_RX_DROP_NOMEM] = "rx_drop_nomem",
	[PASTE_STAT_RX_DROP_OFFLOAD] = "rx_drop_offload",
	[PASTE_STAT_NIC_LENT] = "nic_lent",
	[PASTE_STAT_NIC_SHORT] = "nic_short",
	[PASTE_STAT_NIC_WAKEUPS] = "nic_wakeups",
	[PASTE_STAT_NIC_WATCHDOG] = "nic_watchdog",
	[PASTE_STAT_NIC_POLLS] = "nic_polls",
	[PASTE_STAT_REF_ENTRIES] = "ref_entries",
	[PASTE_STAT_REF_BYTES] = "ref_bytes",
	[PASTE_STAT_COPY_ENTRIES] = "copy_entries",
	[PASTE_STAT_COPY_BYTES] = "copy_bytes",
	[PASTE_STAT_COPY_PREATTACH] = "copy_preattach",
	[PASTE_STAT_COPY_PLAIN] = "copy_plain",
	[PASTE_STAT_COPY_LOWWATER] = "copy_lowwater",
	[PASTE_STAT_COPY_CROSS] = "copy_cross",
	[PASTE_STAT_COPY_LINEAR] = "copy_linear",
	[PASTE_STAT_COPY_FOREIGN] = "copy_foreign",
	[PASTE_STAT_FINS] = "fins",
	[PASTE_STAT_ERRORS] = "errors",
	[PASTE_STAT_URGENT] = "urgent",
	[PASTE_STAT_STALL_RING] = "stall_ring",
	[PASTE_STAT_STALL_QUOTA] = "stall_quota",
	[PASTE_STAT_STALL_CHUNK] = "stall_chunk",
	[PASTE_STAT_RESUMES] = "resumes",
	[PASTE_STAT_FILLS] = "fills",
	[PASTE_STAT_FILL_BAD] = "fill_bad",
	[PASTE_STAT_SENDS] = "sends",
	[PASTE_STAT_SEND_BYTES] = "send_bytes",
	[PASTE_STAT_SEND_COPIED] = "send_copied",
	[PASTE_STAT_SEND_BAD] = "send_bad",
	[PASTE_STAT_SEND_AGAIN] = "send_again",
	[PASTE_STAT_SEND_ERRORS] = "send_errors",
	[PASTE_STAT_COMPS] = "comps",
	[PASTE_STAT_STALL_COMP] = "stall_comp",
	[PASTE_STAT_SYNCS] = "syncs",
	[PASTE_STAT_SYNC_BUSY] = "sync_busy",
	[PASTE_STAT_SYNC_SLEPT] = "sync_slept",
	[PASTE_STAT_BATCHES] = "batches",
	[PASTE_STAT_BATCH_ENTRIES] = "batch_entries",
	[PASTE_STAT_DOORBELLS] = "doorbells",
	[PASTE_STAT_DOORBELLS_LATE] = "doorbells_late",
	[PASTE_STAT_ACCEPTS] = "accepts",
	[PASTE_STAT_ACCEPT_LOST] = "accept_lost",
	[PASTE_STAT_ACCEPT_AGAIN] = "accept_again",
};

_Static_assert(sizeof(names) / sizeof(names[0]) == PASTE_STAT_N, "a counter has no name");

const char *paste_stat_name(unsigned i)
{
	return i < PASTE_STAT_N ? names[i] : NULL;
}

int paste_stats(struct paste *p, __u32 id, bool next, struct paste_ioc_stats *s)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	s->flags = next ? PASTE_STATS_NEXT : 0;
	s->id = id;
	return paste_sys_ioctl(p->fd, PASTE_IOC_STATS, s);
}

int paste_conn_info(struct paste *p, __u32 id, __u32 conn, bool next, struct paste_ioc_conn *c)
{
	memset(c, 0, sizeof(*c));
	c->size = sizeof(*c);
	c->flags = next ? PASTE_CONN_NEXT : 0;
	c->id = id;
	c->conn = conn;
	return paste_sys_ioctl(p->fd, PASTE_IOC_CONN, c);
}
