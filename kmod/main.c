// SPDX-License-Identifier: GPL-2.0
/*
 * paste: packet buffers that belong to the application.
 * Load and unload. Start reading at internal.h.
 */
#include "internal.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

atomic64_t paste_made[PASTE_OBJ_MAX], paste_gone[PASTE_OBJ_MAX];
struct workqueue_struct *paste_wq;

static int __init paste_init(void)
{
	int err;

	paste_wq = alloc_workqueue("paste", WQ_UNBOUND, 0);
	if (!paste_wq)
		return -ENOMEM;
	err = paste_nic_init();
	if (err)
		goto err_wq;
	err = paste_dev_init();
	if (err)
		goto err_nic;
	pr_info("paste %s loaded\n", PASTE_VERSION);
	return 0;

err_nic:
	paste_nic_exit();
err_wq:
	destroy_workqueue(paste_wq);
	return err;
}

/*
 * No file is open, so there is no context, queue, binding or connection, and
 * no socket has our ULP or callbacks. What can be left:
 * 1. RCU callbacks that free connections: rcu_barrier().
 * 2. Work that frees queues and has just dropped the last module reference:
 *    destroy_workqueue() waits until it has returned.
 */
static void __exit paste_exit(void)
{
	paste_dev_exit();
	paste_nic_exit();
	rcu_barrier();
	destroy_workqueue(paste_wq);
}

module_init(paste_init);
module_exit(paste_exit);
MODULE_DESCRIPTION("Packet buffers that belong to the application");
MODULE_VERSION(PASTE_VERSION);
MODULE_LICENSE("GPL");
