/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which NICs, and which settings of one, are in the way of a binding, and why.
 * No kernel object is used, so that the unit tests can try what no emulated NIC
 * has. What only the driver knows (SR-IOV or DCB on ixgbe) it refuses itself,
 * when the XDP program is attached.
 */
#ifndef PASTE_NICRULE_H
#define PASTE_NICRULE_H

struct paste_nic_settings {
	bool up;
	bool rx_vlan; /* the NIC takes the tag out: a redirected frame would change its network */
	bool lro;     /* LRO or GRO in hardware: frames larger than a chunk */
	u32 mtu;
};

/* Before a frame the driver leaves XDP_PACKET_HEADROOM, and gives NICs lengths in steps of 128. */
#define PASTE_NIC_HEADROOM 256
/* Around the MTU's bytes: Ethernet, two VLAN tags, checksum (AF_XDP's own reckoning). */
#define PASTE_NIC_PAD 26

static inline bool paste_nic_mtu_fits(u32 mtu, u32 chunk_size)
{
	u32 room = (chunk_size - PASTE_NIC_HEADROOM) & ~127U;

	return mtu <= room - PASTE_NIC_PAD;
}

/*
 * dpaa2 keeps a pointer of the kernel's in the headroom of each chunk, and follows
 * what it finds there (dpaa2-eth.c, dpaa2_eth_add_bufs; dpaa2-xsk.c,
 * dpaa2_xsk_run_xdp). The application can read our chunks, and maybe write.
 */
static inline bool paste_nic_driver_is_safe(const char *driver)
{
	return strcmp(driver, "fsl_dpaa2_eth");
}

/* The first thing in the way, as a sentence after the NIC's name, or NULL. */
static inline const char *paste_nic_obstacle(const struct paste_nic_settings *s, u32 chunk_size)
{
	if (s->rx_vlan)
		return "switch its rx-vlan-offload off";
	if (s->lro)
		return "switch its LRO (rx-gro-hw) off";
	if (!s->up)
		return "it is down";
	if (!paste_nic_mtu_fits(s->mtu, chunk_size))
		return "its MTU is too large for the chunks";
	return NULL;
}

#endif /* PASTE_NICRULE_H */
