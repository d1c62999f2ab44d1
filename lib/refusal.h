/* SPDX-License-Identifier: MIT */
/*
 * Why an XDP program could not be attached. BPF links do not pass on the
 * driver's own explanation, only an errno, and EINVAL is what drivers say of
 * settings that XDP cannot work with. paste_refusal() looks at nothing itself,
 * so that the unit tests can try what no emulated NIC has.
 */
#ifndef PASTE_REFUSAL_H
#define PASTE_REFUSAL_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

/* SR-IOV functions of a NIC; 0 if nobody says. */
static inline int paste_count_vfs(const char *name)
{
	char path[128];
	int vfs = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/sriov_numvfs", name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%d", &vfs) != 1)
		vfs = 0;
	fclose(f);
	return vfs;
}

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
