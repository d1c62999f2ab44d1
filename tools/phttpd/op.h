/* SPDX-License-Identifier: MIT */
/* op.h - what a request does to the store; all called by serve.c with a store only */
#ifndef PHTTPD_OP_H
#define PHTTPD_OP_H

#include "serve.h"

/* Is it a target that the store's keys are under? */
bool op_names_key(const struct serve *sv, const char *target);

/* A body comes that is to be stored: on failure s->status says why, and it is dropped. */
void op_begin(struct serve *sv, struct session *s);
void op_add(struct serve *sv, struct session *s);

/*
 * The request is complete: put what came, or get or delete what the target
 * names. The status of the answer, or -EAGAIN; s->rec is what was got.
 */
int op_end(struct serve *sv, struct session *s);

#endif /* PHTTPD_OP_H */
