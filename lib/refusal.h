/* SPDX-License-Identifier: MIT */
/*
 * Why an XDP program could not be attached. BPF links do not pass on the
 * driver's own explanation, only an errno, and EINVAL is what drivers say of
 * settings that XDP cannot work with. A pure function, so that the unit tests
 * can try what no emulated NIC has.
 */
#ifndef PASTE_REFUSAL_H
#define PASTE_REFUSAL_H

#include <errno.h>
#include <stddef.h>

/* A sentence for that error of a NIC with so many SR-IOV functions, or NULL. */
static inline const char *paste_refusal(int err, int vfs)
{
	switch (err) {
	case -EBUSY:
	case -EEXIST:
		return "the NIC has another XDP program";
	case -EOPNOTSUPP:
		return "the NIC's driver has no XDP";
	case -EINVAL:
		return vfs > 0 ? "the driver refuses XDP: switch SR-IOV off" :
				 "the driver refuses XDP: look at MTU, LRO and DCB";
	}
	return NULL;
}

#endif /* PASTE_REFUSAL_H */
