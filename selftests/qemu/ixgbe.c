/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intel X540-AT2 ("ixgbe" family) 10 GbE controller, minimal model.
 *
 * The aim of this model is to let the unmodified Linux ixgbe driver probe,
 * bring the link up, pass traffic, use RSS over several queues and exercise
 * its XDP / AF_XDP zero-copy paths, with no hardware.  It is not a complete
 * model of the chip: SR-IOV, DCB, RSC (LRO), FCoE, IPsec, MACsec, packet time
 * stamping, header split, wake-up and flash are not modelled.
 *
 * Register behaviour follows the public Intel X540 datasheet and the register
 * use of the Linux driver.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qemu/log.h"
#include "qemu/error-report.h"
#include "qemu/bitops.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/crc32c.h"
#include "hw/pci/pci.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "net/net.h"
#include "net/eth.h"
#include "net/checksum.h"
#include "qapi/error.h"
#include "qom/object.h"

#define TYPE_IXGBE "ixgbe"
OBJECT_DECLARE_SIMPLE_TYPE(IxgbeState, IXGBE)

#define IX_BAR_SIZE     (512 * KiB)
#define IX_REG_SPACE    (128 * KiB)
#define IX_MSIX_BAR_SZ  (16 * KiB)
#define IX_NVEC         64
#define IX_NQ           128
#define IX_EEPROM_WORDS 4096
#define IX_MAX_FRAME    16384
#define IX_TXBUF        (256 * KiB + IX_MAX_FRAME)
#define IX_TX_BUDGET    512
#define IX_FDIR_MAX     8192

/* General */
#define R_CTRL          0x00000
#define   CTRL_GIO_DIS      (1u << 2)
#define   CTRL_LNK_RST      (1u << 3)
#define   CTRL_RST          (1u << 26)
#define R_STATUS        0x00008
#define   STATUS_LU         (1u << 7)
#define   STATUS_GIO        (1u << 19)
#define R_CTRL_EXT      0x00018
#define R_FRTIMER       0x00048
/* NVM, semaphores, firmware */
#define R_EEC           0x10010
#define R_EERD          0x10014
#define R_EEWR          0x10018
#define R_EEMNGCTL      0x10110
#define R_SWSM          0x10140
#define R_FWSM          0x10148
#define R_SWFW_SYNC     0x10160
#define R_FLEX_MNG      0x15800
#define R_HICR          0x15f00
/* Interrupts */
#define R_EICR          0x00800
#define R_EICS          0x00808
#define R_EIAC          0x00810
#define R_EIMS          0x00880
#define R_EIMC          0x00888
#define R_EIAM          0x00890
#define R_GPIE          0x00898
#define   GPIE_MSIX_MODE    (1u << 4)
#define   GPIE_EIAME        (1u << 30)
#define R_IVAR          0x00900
#define R_IVAR_MISC     0x00a00
#define R_EICS_EX       0x00a90
#define R_EIMS_EX       0x00aa0
#define R_EIMC_EX       0x00ab0
#define R_EIAM_EX       0x00ad0
#define   EICR_LSC          (1u << 20)
/* Receive */
#define R_RDRXCTL       0x02f00
#define   RDRXCTL_DMAIDONE  (1u << 3)
#define R_RXCTRL        0x03000
#define   RXCTRL_RXEN       (1u << 0)
#define R_RXPBSIZE      0x03c00
#define R_RXCSUM        0x05000
#define   RXCSUM_PCSD       (1u << 13)
#define R_FCTRL         0x05080
#define   FCTRL_MPE         (1u << 8)
#define   FCTRL_UPE         (1u << 9)
#define   FCTRL_BAM         (1u << 10)
#define R_VLNCTRL       0x05088
#define   VLNCTRL_VFE       (1u << 30)
#define R_MCSTCTRL      0x05090
#define R_MTA           0x05200
#define R_MRQC          0x05818
#define R_RETA          0x05c00
#define R_RSSRK         0x05c80
#define R_VFTA          0x0a000
#define R_RQSMR         0x02300
#define R_TQSM          0x08600
#define   RXDCTL_EN         (1u << 25)
#define   RXDCTL_SWFLSH     (1u << 26)
#define   RXDCTL_RLPML_EN   (1u << 15)
#define   RXDCTL_VME        (1u << 30)
#define   SRRCTL_DROP_EN    (1u << 28)
/* Flow director */
#define R_FDIRCTRL      0x0ee00
#define   FDIRCTRL_INIT_DONE  (1u << 3)
#define   FDIRCTRL_PERFECT    (1u << 4)
#define R_FDIRSIPV6     0x0ee0c
#define R_FDIRIPSA      0x0ee18
#define R_FDIRIPDA      0x0ee1c
#define R_FDIRPORT      0x0ee20
#define R_FDIRVLAN      0x0ee24
#define R_FDIRHASH      0x0ee28
#define R_FDIRCMD       0x0ee2c
#define R_FDIRDIP4M     0x0ee3c
#define R_FDIRSIP4M     0x0ee40
#define R_FDIRTCPM      0x0ee44
#define R_FDIRUDPM      0x0ee48
#define R_FDIRMATCH     0x0ee58
#define R_FDIRMISS      0x0ee5c
#define R_FDIRM         0x0ee70
#define R_FDIRSCTPM     0x0ee78
/* Transmit */
#define R_DMATXCTL      0x04a80
#define   DMATXCTL_TE       (1u << 0)
#define   TXDCTL_EN         (1u << 25)
#define   TXDCTL_SWFLSH     (1u << 26)
#define R_SECTXSTAT     0x08804
#define R_SECRXSTAT     0x08d04
/* MAC */
#define R_HLREG0        0x04240
#define   HLREG0_JUMBOEN    (1u << 2)
#define   HLREG0_LPBK       (1u << 15)
#define R_MSCA          0x0425c
#define R_MSRWD         0x04260
#define R_MAXFRS        0x04268
#define R_LINKS         0x042a4
#define   LINKS_UP_10G      0x70000000u
/* Time sync */
#define R_SYSTIML       0x08c0c
#define R_SYSTIMH       0x08c10
#define R_TIMINCA       0x08c14
/* Statistics */
#define R_MPC0          0x03fa0
#define R_PRC64         0x0405c
#define R_GPRC          0x04074
#define R_BPRC          0x04078
#define R_MPRC          0x0407c
#define R_GPTC          0x04080
#define R_GORCL         0x04088
#define R_GOTCL         0x04090
#define R_RUC           0x040a4
#define R_ROC           0x040ac
#define R_TORL          0x040c0
#define R_TPR           0x040d0
#define R_TPT           0x040d4
#define R_PTC64         0x040d8
#define R_MPTC          0x040f0
#define R_BPTC          0x040f4
#define R_QBTC          0x08700

/* Per-queue register offsets inside a 0x40 block */
enum { Q_BAL = 0x00, Q_BAH = 0x04, Q_LEN = 0x08, Q_DCA = 0x0c, Q_H = 0x10,
       Q_SRRCTL = 0x14, Q_T = 0x18, Q_DCTL = 0x28, Q_PKTS = 0x30,
       Q_BYTES_L = 0x34, Q_BYTES_H = 0x38 };

/* Advanced transmit descriptor */
#define TXD_DTYP_MASK   0x00f00000u
#define TXD_DTYP_CTXT   0x00200000u
#define TXD_DTYP_DATA   0x00300000u
#define TXD_EOP         (1u << 24)
#define TXD_RS          (1u << 27)
#define TXD_DEXT        (1u << 29)
#define TXD_VLE         (1u << 30)
#define TXD_TSE         (1u << 31)
#define TXD_POPTS_IXSM  (1u << 8)
#define TXD_POPTS_TXSM  (1u << 9)
#define TXD_TUCMD_IPV4  (1u << 10)
#define TXD_L4T_MASK    (3u << 11)
#define TXD_L4T_TCP     (1u << 11)
#define TXD_L4T_SCTP    (2u << 11)
/* Advanced receive descriptor write-back */
#define RXD_DD          (1u << 0)
#define RXD_EOP         (1u << 1)
#define RXD_FLM         (1u << 2)
#define RXD_VP          (1u << 3)
#define RXD_L4CS        (1u << 5)
#define RXD_IPCS        (1u << 6)
#define RXD_ERR_TCPE    (1u << 30)
#define RXD_ERR_IPE     (1u << 31)

typedef struct IxTxCtx {
    uint32_t vlan_macip;
    uint32_t tucmd;
    uint32_t mss_l4len;
} IxTxCtx;

typedef struct IxTxQ {
    IxTxCtx ctx[2];
    uint32_t len;               /* bytes gathered of the current frame */
    uint32_t cmd;               /* first data descriptor of the frame */
    uint32_t olinfo;
    bool in_frame;
    bool bad;
} IxTxQ;

typedef struct IxFdir {
    bool used;
    uint32_t hash, sip, dip, port, vlan, cmd;
} IxFdir;

typedef struct IxPkt {
    bool ip4, ip6, ext, frag, tcp, udp, sctp;
    unsigned l3, l4;            /* offsets */
    unsigned l3len;             /* IP header + payload, from the IP header */
} IxPkt;

struct IxgbeState {
    PCIDevice parent_obj;
    NICState *nic;
    NICConf conf;
    MemoryRegion mmio;
    MemoryRegion msix_bar;
    QEMUBH *tx_bh;

    uint32_t regs[IX_REG_SPACE / 4];
    uint16_t eeprom[IX_EEPROM_WORDS];
    unsigned long warned[BITS_TO_LONGS(IX_BAR_SIZE / 4)];
    GHashTable *phy;            /* (mmd << 16 | reg) -> value + 1 */
    uint16_t phy_addr;

    uint64_t vec_pend, vec_mask, vec_eiam;
    uint32_t misc_pend, misc_mask;
    bool intx_level;

    bool rx_blocked;
    unsigned long tx_kick[BITS_TO_LONGS(IX_NQ)];
    IxTxQ txq[IX_NQ];
    uint8_t *txbuf[IX_NQ];
    uint8_t *segbuf;
    uint8_t *rxbuf;
    IxFdir *fdir;
    unsigned fdir_used;
    int64_t systim_t0;
    bool trace_unimp;
};

static inline uint32_t rg(IxgbeState *s, uint32_t off)
{
    return s->regs[off >> 2];
}

static inline void wr(IxgbeState *s, uint32_t off, uint32_t v)
{
    s->regs[off >> 2] = v;
}

static inline uint32_t rxq(unsigned q)
{
    return q < 64 ? 0x1000 + q * 0x40 : 0xd000 + (q - 64) * 0x40;
}

static inline uint32_t rx_srrctl(unsigned q)
{
    return q < 16 ? 0x2100 + q * 4 : rxq(q) + Q_SRRCTL;
}

static inline uint32_t txq(unsigned q)
{
    return 0x6000 + q * 0x40;
}

static inline uint32_t ral(unsigned i)
{
    return i < 16 ? 0x5400 + i * 8 : 0xa200 + i * 8;
}

static void stat_inc(IxgbeState *s, uint32_t off)
{
    s->regs[off >> 2]++;
}

static void stat_add64(IxgbeState *s, uint32_t lo, uint32_t n)
{
    uint64_t v = rg(s, lo) | ((uint64_t)rg(s, lo + 4) << 32);

    v += n;
    wr(s, lo, v);
    wr(s, lo + 4, (v >> 32) & 0xf);
}

static void stat_size(IxgbeState *s, uint32_t base, uint32_t wire_len)
{
    unsigned i = wire_len <= 64 ? 0 : wire_len <= 127 ? 1 :
                 wire_len <= 255 ? 2 : wire_len <= 511 ? 3 :
                 wire_len <= 1023 ? 4 : 5;

    stat_inc(s, base + i * 4);
}

static bool ix_link_up(IxgbeState *s)
{
    return s->nic && !qemu_get_queue(s->nic)->link_down;
}

/* ---------------------------------------------------------------- IRQs -- */

static bool ix_msix_mode(IxgbeState *s)
{
    return (rg(s, R_GPIE) & GPIE_MSIX_MODE) && msix_enabled(PCI_DEVICE(s));
}

static void ix_notify(IxgbeState *s, unsigned v)
{
    if (v < IX_NVEC) {
        msix_notify(PCI_DEVICE(s), v);
    }
}

static void ix_update_irq(IxgbeState *s)
{
    PCIDevice *d = PCI_DEVICE(s);

    if (ix_msix_mode(s)) {
        uint64_t act = s->vec_pend & s->vec_mask;

        while (act) {
            unsigned v = ctz64(act);
            uint64_t bit = 1ull << v;

            act &= ~bit;
            /* vectors 16 and up have no EIAC bit and always auto-clear */
            if (v >= 16 || (rg(s, R_EIAC) & bit)) {
                s->vec_pend &= ~bit;
            }
            if (rg(s, R_GPIE) & GPIE_EIAME) {
                s->vec_mask &= ~(bit & s->vec_eiam);
            }
            ix_notify(s, v);
        }
    } else {
        bool level = (s->vec_pend & s->vec_mask & 0xffff) ||
                     (s->misc_pend & s->misc_mask);

        if (msi_enabled(d)) {
            if (level && !s->intx_level) {
                msi_notify(d, 0);
            }
        } else if (level != s->intx_level) {
            pci_set_irq(d, level);
        }
        s->intx_level = level;
    }
}

static void ix_misc_notify(IxgbeState *s)
{
    uint8_t ivar = rg(s, R_IVAR_MISC) >> 8;

    if (ix_msix_mode(s) && (ivar & 0x80)) {
        ix_notify(s, ivar & 0x3f);
    }
}

static void ix_raise_misc(IxgbeState *s, uint32_t bits)
{
    s->misc_pend |= bits;
    if (bits & s->misc_mask) {
        ix_misc_notify(s);
    }
    ix_update_irq(s);
}

static void ix_unmask(IxgbeState *s, uint64_t vecs, uint32_t misc)
{
    uint32_t newly = misc & ~s->misc_mask;

    s->vec_mask |= vecs;
    s->misc_mask |= misc;
    if (newly & s->misc_pend) {
        ix_misc_notify(s);
    }
    ix_update_irq(s);
}

static void ix_queue_irq(IxgbeState *s, unsigned q, bool tx)
{
    uint8_t ivar = rg(s, R_IVAR + (q >> 1) * 4) >> (16 * (q & 1) + 8 * tx);

    if (ivar & 0x80) {
        s->vec_pend |= 1ull << (ivar & 0x3f);
        ix_update_irq(s);
    }
}

static uint32_t ix_eicr(IxgbeState *s)
{
    return (s->vec_pend & 0xffff) | (s->misc_pend & 0xffff0000u);
}

/* ----------------------------------------------------------------- PHY -- */

static uint16_t ix_phy_default(unsigned mmd, unsigned reg)
{
    switch (reg) {
    case 2:
        return 0x0154;                       /* X540 PHY id */
    case 3:
        return 0x0200;
    case 5:
        return 0x009a;                       /* PMA/PMD, PCS, PHY XS, AN */
    case 6:
        return 0xc000;                       /* vendor 1 and 2 */
    case 8:
        return mmd == 7 ? 0 : 0x8000;        /* device present */
    }
    switch (mmd << 16 | reg) {
    case 1 << 16 | 1:
    case 3 << 16 | 1:
    case 4 << 16 | 1:
        return 0x0006;                       /* link up */
    case 1 << 16 | 4:
        return 0x0031;                       /* 10G, 1G, 100M */
    case 1 << 16 | 11:
        return 0x00a4;                       /* 10GBASE-T, 1000BASE-T, 100TX */
    case 7 << 16 | 0:
        return 0x3000;
    case 7 << 16 | 1:
        return 0x002c;                       /* AN complete, link up */
    case 7 << 16 | 0x10:
        return 0x01e1;
    case 7 << 16 | 0x13:
        return 0x01e1;                       /* partner: no pause */
    case 7 << 16 | 0x20:
        return 0x1000;
    case 7 << 16 | 0x21:
        return 0x0800;                       /* partner: 10GBASE-T */
    }
    return 0;
}

static void ix_mdio(IxgbeState *s, uint32_t cmd)
{
    unsigned mmd = (cmd >> 16) & 0x1f, port = (cmd >> 21) & 0x1f;
    gpointer key, val;
    uint16_t rd = 0xffff, data = rg(s, R_MSRWD);

    if ((cmd >> 28) & 3) {                   /* clause 22: not answered */
        wr(s, R_MSRWD, data | 0xffff0000u);
        return;
    }
    switch ((cmd >> 26) & 3) {
    case 0:
        s->phy_addr = cmd;
        return;
    case 1:
        if (s->phy_addr == 0) {
            data &= ~0x8200;                 /* reset, AN restart self-clear */
        }
        if (port == 0) {
            g_hash_table_insert(s->phy,
                                GUINT_TO_POINTER(mmd << 16 | s->phy_addr),
                                GUINT_TO_POINTER(data + 1u));
        }
        return;
    default:
        key = GUINT_TO_POINTER(mmd << 16 | s->phy_addr);
        val = g_hash_table_lookup(s->phy, key);
        if (port == 0) {
            rd = val ? GPOINTER_TO_UINT(val) - 1 :
                       ix_phy_default(mmd, s->phy_addr);
        }
        wr(s, R_MSRWD, data | (uint32_t)rd << 16);
    }
}

/* -------------------------------------------------------------- EEPROM -- */

static void ix_eeprom_init(IxgbeState *s)
{
    uint16_t sum = 0;
    int i;

    memset(s->eeprom, 0xff, sizeof(s->eeprom));
    s->eeprom[0x15] = 0xa0b1;                /* PBA number */
    s->eeprom[0x16] = 0xc2d0;
    s->eeprom[0x18] = 0x0001;
    s->eeprom[0x29] = 0x0001;
    s->eeprom[0x2c] = 0x0002;                /* caps: no FCoE */
    s->eeprom[0x2d] = 0x0001;                /* image version (ETrack id) */
    s->eeprom[0x2e] = 0x8000;
    s->eeprom[0x2f] = 0x0000;
    for (i = 0; i < 0x3f; i++) {
        sum += s->eeprom[i];
    }
    s->eeprom[0x3f] = 0xbaba - sum;
}

/* --------------------------------------------------- headers, checksum -- */

static void ix_parse(const uint8_t *b, size_t len, IxPkt *p)
{
    unsigned off = 12, et, nh, hl;

    memset(p, 0, sizeof(*p));
    et = lduw_be_p(b + off);
    while ((et == ETH_P_VLAN || et == ETH_P_DVLAN) && off + 6 <= len) {
        off += 4;
        et = lduw_be_p(b + off);
    }
    p->l3 = off + 2;
    if (et == ETH_P_IP && len >= p->l3 + 20) {
        const uint8_t *ip = b + p->l3;

        hl = (ip[0] & 0xf) * 4;
        p->l3len = lduw_be_p(ip + 2);
        if ((ip[0] >> 4) != 4 || hl < 20 || p->l3len < hl ||
            p->l3 + p->l3len > len) {
            return;
        }
        p->ip4 = true;
        p->ext = hl > 20;
        p->frag = lduw_be_p(ip + 6) & 0x3fff;
        nh = ip[9];
        p->l4 = p->l3 + hl;
    } else if (et == ETH_P_IPV6 && len >= p->l3 + 40) {
        const uint8_t *ip = b + p->l3;

        p->l3len = lduw_be_p(ip + 4) + 40;
        if ((ip[0] >> 4) != 6 || p->l3 + p->l3len > len) {
            return;
        }
        p->ip6 = true;
        nh = ip[6];
        p->l4 = p->l3 + 40;
        while (nh == 0 || nh == 43 || nh == 44 || nh == 60) {
            if (p->l4 + 8 > p->l3 + p->l3len) {
                return;
            }
            p->ext = true;
            p->frag |= nh == 44;
            hl = nh == 44 ? 8 : b[p->l4 + 1] * 8 + 8;
            nh = b[p->l4];
            p->l4 += hl;
        }
    } else {
        return;
    }
    hl = p->l3 + p->l3len;                   /* end of the IP packet */
    if (!p->frag) {
        p->tcp = nh == 6 && p->l4 + 20 <= hl;
        p->udp = nh == 17 && p->l4 + 8 <= hl;
        p->sctp = nh == 132 && p->l4 + 12 <= hl;
    }
}

static bool ix_l4_csum_ok(const uint8_t *b, const IxPkt *p)
{
    unsigned len = p->l3 + p->l3len - p->l4;
    uint32_t sum = (p->tcp ? 6 : 17) + len;

    sum += net_checksum_add(len, (uint8_t *)b + p->l4);
    if (p->ip4) {
        sum += net_checksum_add(8, (uint8_t *)b + p->l3 + 12);
    } else {
        sum += net_checksum_add(32, (uint8_t *)b + p->l3 + 8);
    }
    return net_checksum_finish(sum) == 0;
}

static uint32_t ix_toeplitz(IxgbeState *s, const uint8_t *in, unsigned n)
{
    uint32_t hash = 0, win;
    uint8_t key[44] = { 0 };
    unsigned i, bit;

    for (i = 0; i < 10; i++) {
        stl_le_p(key + i * 4, rg(s, R_RSSRK + i * 4));
    }
    win = ldl_be_p(key);
    for (i = 0; i < n; i++) {
        for (bit = 0; bit < 8; bit++) {
            if (in[i] & (0x80 >> bit)) {
                hash ^= win;
            }
            win = win << 1 | ((key[i + 4] >> (7 - bit)) & 1);
        }
    }
    return hash;
}

/* Returns the RSS type of the write-back descriptor, 0 for no hash */
static unsigned ix_rss(IxgbeState *s, const uint8_t *b, const IxPkt *p,
                       uint32_t *hash)
{
    uint32_t mrqc = rg(s, R_MRQC);
    uint8_t in[36];
    unsigned n, type = 0;
    bool l4 = false;

    *hash = 0;
    switch (mrqc & 0xf) {
    case 0x1: case 0x4: case 0x5: case 0xa: case 0xb:
        break;
    default:
        return 0;
    }
    if (p->ip4) {
        memcpy(in, b + p->l3 + 12, 8);
        n = 8;
        if (p->tcp && (mrqc & (1u << 16))) {
            type = 1, l4 = true;
        } else if (p->udp && (mrqc & (1u << 22))) {
            type = 7, l4 = true;
        } else if (mrqc & (1u << 17)) {
            type = 2;
        }
    } else if (p->ip6) {
        memcpy(in, b + p->l3 + 8, 32);
        n = 32;
        if (p->tcp && (mrqc & (1u << 21))) {
            type = 3, l4 = true;
        } else if (p->udp && (mrqc & (1u << 23))) {
            type = 8, l4 = true;
        } else if (mrqc & (1u << 20)) {
            type = 5;
        }
    } else {
        return 0;
    }
    if (!type) {
        return 0;
    }
    if (l4) {
        memcpy(in + n, b + p->l4, 4);
        n += 4;
    }
    *hash = ix_toeplitz(s, in, n);
    return type;
}

/* ------------------------------------------------------- flow director -- */

/*
 * Only perfect-match filters on IPv4 source/destination address, L4 protocol
 * and ports and VLAN (ethtool -N) are matched; signature filters (ATR) are
 * accepted and ignored, so such flows stay on their RSS queue.
 */
static void ix_fdir_cmd(IxgbeState *s, uint32_t cmd)
{
    uint32_t hash = rg(s, R_FDIRHASH);
    IxFdir *free_f = NULL, *f = NULL;
    unsigned i;

    wr(s, R_FDIRCMD, cmd & ~3u);
    if (!(rg(s, R_FDIRCTRL) & FDIRCTRL_PERFECT)) {
        return;
    }
    for (i = 0; i < IX_FDIR_MAX; i++) {
        if (!s->fdir[i].used) {
            free_f = free_f ? free_f : &s->fdir[i];
        } else if ((s->fdir[i].hash & 0x7fff7fff) == (hash & 0x7fff7fff)) {
            f = &s->fdir[i];
            break;
        }
    }
    switch (cmd & 3) {
    case 1:                                  /* add */
        if (!f) {
            f = free_f;
            s->fdir_used++;
        }
        if (f) {
            *f = (IxFdir) { .used = true, .hash = hash, .cmd = cmd,
                            .sip = rg(s, R_FDIRIPSA), .dip = rg(s, R_FDIRIPDA),
                            .port = rg(s, R_FDIRPORT),
                            .vlan = rg(s, R_FDIRVLAN) };
        }
        break;
    case 2:                                  /* remove */
        if (f) {
            f->used = false;
            s->fdir_used--;
        }
        break;
    case 3:                                  /* query: bit 2 = valid */
        wr(s, R_FDIRCMD, (cmd & ~7u) | (f ? 4 : 0));
        break;
    }
}

static void ix_fdir_clear(IxgbeState *s)
{
    memset(s->fdir, 0, IX_FDIR_MAX * sizeof(IxFdir));
    s->fdir_used = 0;
}

static IxFdir *ix_fdir_match(IxgbeState *s, const uint8_t *b, const IxPkt *p,
                             uint16_t vlan)
{
    uint32_t fdirm = rg(s, R_FDIRM), portm = 0, pport = 0, sip, dip;
    unsigned i, left = s->fdir_used;
    unsigned l4t = p->udp ? 1 : p->tcp ? 2 : p->sctp ? 3 : 0;

    if (!left || !(rg(s, R_FDIRCTRL) & FDIRCTRL_PERFECT) || !p->ip4) {
        return NULL;
    }
    sip = ldl_le_p(b + p->l3 + 12);          /* registers: network order */
    dip = ldl_le_p(b + p->l3 + 16);
    if (l4t) {
        portm = ~rg(s, l4t == 1 ? R_FDIRUDPM : l4t == 2 ? R_FDIRTCPM :
                       R_FDIRSCTPM);
        /* mask registers hold the bits of each port in reversed order */
        portm = revbit32(portm);
        portm = (portm >> 16) | (portm << 16);
        pport = (uint32_t)lduw_be_p(b + p->l4 + 2) << 16 |
                lduw_be_p(b + p->l4);
    }
    for (i = 0; i < IX_FDIR_MAX && left; i++) {
        IxFdir *f = &s->fdir[i];

        if (!f->used) {
            continue;
        }
        left--;
        if ((sip ^ f->sip) & ~rg(s, R_FDIRSIP4M) ||
            (dip ^ f->dip) & ~rg(s, R_FDIRDIP4M)) {
            continue;
        }
        if (!(fdirm & (1u << 3)) && ((f->cmd >> 5) & 3) != l4t) {
            continue;
        }
        if (l4t && ((pport ^ f->port) & portm)) {
            continue;
        }
        if (!(fdirm & 1) && ((f->vlan ^ vlan) & 0xfff)) {
            continue;
        }
        return f;
    }
    return NULL;
}

/* ------------------------------------------------------------- receive -- */

static bool ix_can_receive(NetClientState *nc)
{
    IxgbeState *s = qemu_get_nic_opaque(nc);

    return (rg(s, R_RXCTRL) & RXCTRL_RXEN) &&
           !(rg(s, R_CTRL) & CTRL_GIO_DIS) &&
           (PCI_DEVICE(s)->config[PCI_COMMAND] & PCI_COMMAND_MASTER);
}

static void ix_rx_resume(IxgbeState *s)
{
    s->rx_blocked = false;
    if (s->nic) {
        qemu_flush_queued_packets(qemu_get_queue(s->nic));
    }
}

static bool ix_filter(IxgbeState *s, const uint8_t *b)
{
    uint32_t fctrl = rg(s, R_FCTRL), mc = rg(s, R_MCSTCTRL);
    unsigned i;

    if (is_broadcast_ether_addr(b)) {
        if (fctrl & FCTRL_BAM) {
            return true;
        }
    } else if (b[0] & 1) {
        if (fctrl & FCTRL_MPE) {
            return true;
        }
        if (mc & 4) {
            static const uint8_t shift[4] = { 4, 3, 2, 0 };
            uint16_t v = ((b[5] << 8 | b[4]) >> shift[mc & 3]) & 0xfff;

            if (rg(s, R_MTA + (v >> 5) * 4) & (1u << (v & 31))) {
                return true;
            }
        }
    } else if (fctrl & FCTRL_UPE) {
        return true;
    }
    for (i = 0; i < 128; i++) {
        uint32_t hi = rg(s, ral(i) + 4);

        if ((hi & (1u << 31)) && ldl_le_p(b) == rg(s, ral(i)) &&
            lduw_le_p(b + 4) == (hi & 0xffff)) {
            return true;
        }
    }
    return false;
}

static ssize_t ix_rx_frame(IxgbeState *s, const uint8_t *buf, size_t size)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint8_t *b = s->rxbuf;
    size_t len = size, max, done, orig = size;
    uint32_t base, srr, dctl, head, tail, n, need, avail, bsz, hash, info;
    uint32_t st, wire;
    uint16_t vlan = 0;
    bool tagged = false, strip;
    unsigned q = 0, rsst, stq;
    IxFdir *fd;
    IxPkt p;
    uint64_t ring;

    if (size < 14 || size > IX_MAX_FRAME - 64) {
        stat_inc(s, size < 14 ? R_RUC : R_ROC);
        return orig;
    }
    memcpy(b, buf, size);
    if (len < 60) {
        memset(b + len, 0, 60 - len);
        len = 60;
    }
    wire = len + 4;
    if (lduw_be_p(b + 12) == (rg(s, R_VLNCTRL) & 0xffff)) {
        tagged = true;
        vlan = lduw_be_p(b + 14);
    }
    max = rg(s, R_HLREG0) & HLREG0_JUMBOEN ? rg(s, R_MAXFRS) >> 16 : 1518;
    if (wire > max + (tagged ? 4 : 0)) {
        stat_inc(s, R_ROC);
        return orig;
    }
    if (!ix_filter(s, b)) {
        goto count;
    }
    if (tagged && (rg(s, R_VLNCTRL) & VLNCTRL_VFE) &&
        !(rg(s, R_VFTA + ((vlan & 0xfff) >> 5) * 4) & (1u << (vlan & 31)))) {
        goto count;
    }

    /* queue selection */
    ix_parse(b, len, &p);
    rsst = ix_rss(s, b, &p, &hash);
    if (rsst) {
        q = (rg(s, R_RETA + ((hash & 0x7f) >> 2) * 4) >>
             ((hash & 3) * 8)) & 0xf;
    }
    fd = ix_fdir_match(s, b, &p, vlan);
    if (fd) {
        stat_inc(s, R_FDIRMATCH);
        if (fd->cmd & (1u << 9)) {           /* drop */
            goto count;
        }
        q = (fd->cmd >> 16) & 0x7f;
    } else if (s->fdir_used) {
        stat_inc(s, R_FDIRMISS);
    }

    base = rxq(q);
    dctl = rg(s, base + Q_DCTL);
    if (!(dctl & RXDCTL_EN)) {
        stat_inc(s, R_MPC0);
        goto count;
    }
    strip = tagged && (dctl & RXDCTL_VME);
    if (strip) {
        memmove(b + 4, b, 12);
        b += 4;
        len -= 4;
        p.l3 -= 4;
        p.l4 -= 4;
    }
    if ((dctl & RXDCTL_RLPML_EN) && len > (dctl & 0x3fff)) {
        stat_inc(s, R_ROC);
        return orig;
    }

    srr = rg(s, rx_srrctl(q));
    if (((srr >> 25) & 7) != 1) {
        qemu_log_mask(LOG_UNIMP, "ixgbe: RX descriptor type %u\n",
                      (srr >> 25) & 7);
        return orig;
    }
    bsz = (srr & 0x1f) * 1024;
    n = rg(s, base + Q_LEN) / 16;
    if (!n || !bsz) {
        return orig;
    }
    head = rg(s, base + Q_H) % n;
    tail = rg(s, base + Q_T) % n;
    avail = (tail + n - head) % n;
    need = DIV_ROUND_UP(len, bsz);
    if (avail < need) {
        if (srr & SRRCTL_DROP_EN) {
            if (q < 16) {
                stat_inc(s, 0x1430 + q * 0x40);
            }
            goto count;
        }
        /* no drop: head-of-line blocking, as with flow control */
        s->rx_blocked = true;
        return 0;
    }

    info = rsst;
    st = RXD_DD;
    if (p.ip4) {
        info |= p.ext ? 0x30 : 0x10;
        st |= RXD_IPCS;
        if (net_raw_checksum(b + p.l3, p.l4 - p.l3)) {
            st |= RXD_ERR_IPE;
        }
    } else if (p.ip6) {
        info |= p.ext ? 0xc0 : 0x40;
    }
    info |= p.tcp ? 0x100 : p.udp ? 0x200 : p.sctp ? 0x400 : 0;
    if (p.tcp || (p.udp && lduw_be_p(b + p.l4 + 6))) {
        st |= RXD_L4CS;
        if (!ix_l4_csum_ok(b, &p)) {
            st |= RXD_ERR_TCPE;
        }
    }
    if (strip) {
        st |= RXD_VP;
    }
    if (fd) {
        st |= RXD_FLM;
    }

    ring = rg(s, base + Q_BAL) | ((uint64_t)rg(s, base + Q_BAH) << 32);
    for (done = 0; done < len; ) {
        uint32_t chunk = MIN(len - done, bsz);
        uint8_t desc[16], wb[16];
        dma_addr_t da = ring + head * 16ull;

        pci_dma_read(d, da, desc, 16);
        pci_dma_write(d, ldq_le_p(desc), b + done, chunk);
        done += chunk;
        stl_le_p(wb, info);
        stl_le_p(wb + 4, rg(s, R_RXCSUM) & RXCSUM_PCSD ? hash : 0);
        stl_le_p(wb + 8, st | (done == len ? RXD_EOP : 0));
        stw_le_p(wb + 12, chunk);
        stw_le_p(wb + 14, strip ? vlan : 0);
        /* the driver polls the second half: it must become visible last */
        pci_dma_write(d, da, wb, 8);
        smp_wmb();
        pci_dma_write(d, da + 8, wb + 8, 8);
        head = (head + 1) % n;
        wr(s, base + Q_H, head);
    }

    stat_inc(s, R_GPRC);
    stat_add64(s, R_GORCL, wire);
    stat_size(s, R_PRC64, wire);
    if (is_broadcast_ether_addr(b)) {
        stat_inc(s, R_BPRC);
    } else if (b[0] & 1) {
        stat_inc(s, R_MPRC);
    }
    stq = (rg(s, R_RQSMR + (q >> 2) * 4) >> ((q & 3) * 8)) & 0xf;
    stat_inc(s, rxq(stq) + Q_PKTS);
    stat_add64(s, rxq(stq) + Q_BYTES_L, wire);
    ix_queue_irq(s, q, false);
count:
    stat_inc(s, R_TPR);
    stat_add64(s, R_TORL, wire);
    return orig;
}

static ssize_t ix_receive(NetClientState *nc, const uint8_t *buf, size_t size)
{
    IxgbeState *s = qemu_get_nic_opaque(nc);

    if (!ix_can_receive(nc)) {
        return 0;
    }
    if (rg(s, R_HLREG0) & HLREG0_LPBK) {     /* MAC loopback: wire is cut off */
        return size;
    }
    return ix_rx_frame(s, buf, size);
}

/* ------------------------------------------------------------ transmit -- */

static void ix_tx_emit(IxgbeState *s, unsigned q, uint8_t *b, uint32_t len,
                       bool vle, uint16_t tag)
{
    NetClientState *nc = qemu_get_queue(s->nic);
    uint32_t wire;
    unsigned stq;

    if (vle) {                               /* callers leave 4 bytes before */
        uint16_t vt = rg(s, R_DMATXCTL) >> 16;

        memmove(b - 4, b, 12);
        b -= 4;
        len += 4;
        stw_be_p(b + 12, vt ? vt : ETH_P_VLAN);
        stw_be_p(b + 14, tag);
    }
    if (len < 60) {
        memset(b + len, 0, 60 - len);
        len = 60;
    }
    wire = len + 4;
    stat_inc(s, R_GPTC);
    stat_inc(s, R_TPT);
    stat_add64(s, R_GOTCL, wire);
    stat_size(s, R_PTC64, wire);
    if (is_broadcast_ether_addr(b)) {
        stat_inc(s, R_BPTC);
    } else if (b[0] & 1) {
        stat_inc(s, R_MPTC);
    }
    stq = (rg(s, R_TQSM + (q >> 2) * 4) >> ((q & 3) * 8)) & 0xf;
    stat_inc(s, txq(stq) + Q_PKTS);
    stat_add64(s, R_QBTC + stq * 8, wire);

    if (rg(s, R_HLREG0) & HLREG0_LPBK) {
        if (ix_can_receive(nc)) {
            ix_rx_frame(s, b, len);
        }
    } else if (ix_link_up(s)) {
        qemu_send_packet(nc, b, len);
    }
}

/* One's complement sum over [start, start + len) including the seed that the
 * driver left in the checksum field, plus @extra; stored at @field. */
static void ix_tx_csum(uint8_t *start, uint32_t len, uint8_t *field,
                       uint32_t extra, bool nonzero)
{
    uint16_t c = net_checksum_finish(net_checksum_add(len, start) + extra);

    if (nonzero && !c) {
        c = 0xffff;
    }
    stw_be_p(field, c);
}

static void ix_tx_frame(IxgbeState *s, unsigned q)
{
    IxTxQ *t = &s->txq[q];
    uint8_t *b = s->txbuf[q] + 64;
    IxTxCtx *c = &t->ctx[(t->olinfo >> 4) & 1];
    uint32_t len = t->len, maclen = (c->vlan_macip >> 9) & 0x7f;
    uint32_t iplen = c->vlan_macip & 0x1ff, l4t = c->tucmd & TXD_L4T_MASK;
    uint16_t tag = c->vlan_macip >> 16;
    bool vle = t->cmd & TXD_VLE, ipv4 = c->tucmd & TXD_TUCMD_IPV4;
    uint32_t l4 = maclen + iplen;
    uint32_t l4fld = l4t == TXD_L4T_TCP ? 16 : l4t == TXD_L4T_SCTP ? 8 : 6;

    if (!(t->cmd & TXD_TSE)) {
        if (len > IX_MAX_FRAME - 64) {
            qemu_log_mask(LOG_GUEST_ERROR, "ixgbe: TX frame too long\n");
            return;
        }
        if ((t->olinfo & TXD_POPTS_IXSM) && l4 <= len && iplen >= 20) {
            stw_be_p(b + maclen + 10, 0);
            ix_tx_csum(b + maclen, iplen, b + maclen + 10, 0, false);
        }
        if ((t->olinfo & TXD_POPTS_TXSM) &&
            l4 + (l4t == TXD_L4T_SCTP ? 12 : l4fld + 2) <= len) {
            if (l4t == TXD_L4T_SCTP) {
                stl_le_p(b + l4 + 8, 0);
                stl_le_p(b + l4 + 8, crc32c(0xffffffff, b + l4, len - l4));
            } else {
                ix_tx_csum(b + l4, len - l4, b + l4 + l4fld, 0,
                           l4t != TXD_L4T_TCP);
            }
        }
        ix_tx_emit(s, q, b, len, vle, tag);
        return;
    }

    /* TCP / UDP segmentation */
    {
        uint32_t l4len = (c->mss_l4len >> 8) & 0xff, mss = c->mss_l4len >> 16;
        uint32_t hdr = l4 + l4len, pay, off, i;
        uint8_t *g = s->segbuf + 64;

        if (!mss || hdr >= len || hdr + mss > IX_MAX_FRAME || iplen < 20) {
            qemu_log_mask(LOG_GUEST_ERROR, "ixgbe: bad TSO context\n");
            return;
        }
        pay = len - hdr;
        for (off = 0, i = 0; off < pay; off += mss, i++) {
            uint32_t n = MIN(mss, pay - off), seg = l4len + n;
            bool last = off + n >= pay;

            memcpy(g, b, hdr);
            memcpy(g + hdr, b + hdr + off, n);
            if (ipv4) {
                stw_be_p(g + maclen + 2, iplen + seg);
                stw_be_p(g + maclen + 4, lduw_be_p(g + maclen + 4) + i);
                if (t->olinfo & TXD_POPTS_IXSM) {
                    ix_tx_csum(g + maclen, iplen, g + maclen + 10, 0, false);
                }
            } else {
                stw_be_p(g + maclen + 4, iplen - 40 + seg);
            }
            if (l4t == TXD_L4T_TCP) {
                stl_be_p(g + l4 + 4, ldl_be_p(g + l4 + 4) + off);
                if (!last) {
                    g[l4 + 13] &= ~0x09;     /* FIN, PSH on the last only */
                }
                if (i) {
                    g[l4 + 13] &= ~0x80;     /* CWR on the first only */
                }
            } else {
                stw_be_p(g + l4 + 4, seg);
            }
            if (t->olinfo & TXD_POPTS_TXSM) {
                ix_tx_csum(g + l4, seg, g + l4 + l4fld, seg,
                           l4t != TXD_L4T_TCP);
            }
            ix_tx_emit(s, q, g, hdr + n, vle, tag);
        }
    }
}

static bool ix_tx_active(IxgbeState *s, unsigned q)
{
    return (rg(s, R_DMATXCTL) & DMATXCTL_TE) &&
           (rg(s, txq(q) + Q_DCTL) & TXDCTL_EN) &&
           !(rg(s, R_CTRL) & CTRL_GIO_DIS) &&
           (PCI_DEVICE(s)->config[PCI_COMMAND] & PCI_COMMAND_MASTER);
}

/* Returns true when the queue has more to do */
static bool ix_tx_queue(IxgbeState *s, unsigned q)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint32_t base = txq(q), n = rg(s, base + Q_LEN) / 16, head, tail;
    uint64_t ring = rg(s, base + Q_BAL) |
                    ((uint64_t)rg(s, base + Q_BAH) << 32);
    IxTxQ *t = &s->txq[q];
    unsigned budget = IX_TX_BUDGET;
    bool irq = false;

    if (!n || !ix_tx_active(s, q)) {
        return false;
    }
    if (!s->txbuf[q]) {
        s->txbuf[q] = g_malloc(IX_TXBUF + 128);
    }
    head = rg(s, base + Q_H) % n;
    tail = rg(s, base + Q_T) % n;
    while (head != tail && budget--) {
        dma_addr_t da = ring + head * 16ull;
        uint8_t desc[16];
        uint32_t cmd, olinfo;

        pci_dma_read(d, da, desc, 16);
        cmd = ldl_le_p(desc + 8);
        olinfo = ldl_le_p(desc + 12);
        if ((cmd & TXD_DEXT) && (cmd & TXD_DTYP_MASK) == TXD_DTYP_CTXT) {
            IxTxCtx *c = &t->ctx[(olinfo >> 4) & 1];

            c->vlan_macip = ldl_le_p(desc);
            c->tucmd = cmd;
            c->mss_l4len = olinfo;
        } else {
            uint32_t dlen = cmd & 0xffff;

            if (!t->in_frame) {
                t->in_frame = true;
                t->bad = false;
                t->len = 0;
                t->cmd = cmd;
                t->olinfo = olinfo;
                if (!(cmd & TXD_DEXT)) {     /* legacy: no offloads modelled */
                    t->cmd &= ~(TXD_TSE | TXD_VLE);
                    t->olinfo = 0;
                }
            }
            if (t->len + dlen > IX_TXBUF) {
                t->bad = true;
            } else {
                pci_dma_read(d, ldq_le_p(desc),
                             s->txbuf[q] + 64 + t->len, dlen);
                t->len += dlen;
            }
            if (cmd & TXD_EOP) {
                if (!t->bad && t->len >= 14) {
                    ix_tx_frame(s, q);
                }
                t->in_frame = false;
            }
        }
        if (cmd & TXD_RS) {
            uint8_t st[4];

            stl_le_p(st, 1);                 /* DD */
            smp_wmb();
            pci_dma_write(d, da + 12, st, 4);
            irq = true;
        }
        head = (head + 1) % n;
        wr(s, base + Q_H, head);
    }
    if (irq) {
        ix_queue_irq(s, q, true);
    }
    return head != tail;
}

static void ix_tx_bh(void *opaque)
{
    IxgbeState *s = opaque;
    unsigned q;
    bool more = false;

    for (q = find_first_bit(s->tx_kick, IX_NQ); q < IX_NQ;
         q = find_next_bit(s->tx_kick, IX_NQ, q + 1)) {
        if (ix_tx_queue(s, q)) {
            more = true;
        } else {
            clear_bit(q, s->tx_kick);
        }
    }
    if (more) {
        qemu_bh_schedule(s->tx_bh);
    }
}

static void ix_tx_doorbell(IxgbeState *s, unsigned q)
{
    set_bit(q, s->tx_kick);
    qemu_bh_schedule(s->tx_bh);
}

/* ----------------------------------------------------------- registers -- */

/* Registers that simply hold what was written (side effects handled apart) */
static const struct { uint32_t lo, hi; } ix_plain[] = {
    { 0x00000, 0x0004f }, { 0x00200, 0x00203 }, { 0x00600, 0x00603 },
    { 0x00800, 0x00adf }, { 0x01000, 0x01fff }, { 0x02100, 0x023ff },
    { 0x02000, 0x02003 }, { 0x02410, 0x02433 }, { 0x02c00, 0x02c23 },
    { 0x02f00, 0x02fff }, { 0x03000, 0x0303f }, { 0x03190, 0x03193 },
    { 0x03200, 0x03303 }, { 0x03600, 0x0361f }, { 0x03c00, 0x03d07 },
    { 0x03f00, 0x0433f }, { 0x04800, 0x04a9f }, { 0x05000, 0x05d00 },
    { 0x06000, 0x0833f }, { 0x08600, 0x08fff }, { 0x09000, 0x09fff },
    { 0x0a000, 0x0a9ff }, { 0x0c300, 0x0cfff },
    { 0x0d000, 0x0dfff }, { 0x0e000, 0x0f7ff }, { 0x10010, 0x1001f },
    { 0x10110, 0x10167 }, { 0x10200, 0x1020b }, { 0x11000, 0x110ff },
    { 0x12300, 0x123ff }, { 0x13000, 0x13fff }, { 0x15800, 0x15fff },
    { 0x04b00, 0x04bff }, { 0x00700, 0x0072f },
};

static bool ix_known(IxgbeState *s, hwaddr a, bool write, uint64_t v)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ix_plain); i++) {
        if (a >= ix_plain[i].lo && a <= ix_plain[i].hi) {
            return true;
        }
    }
    if (!test_and_set_bit(a >> 2, s->warned)) {
        if (s->trace_unimp) {
            warn_report("ixgbe: unmodelled register 0x%05" HWADDR_PRIx " %s",
                        a, write ? "written" : "read");
        }
        qemu_log_mask(LOG_UNIMP, "ixgbe: unmodelled register 0x%05"
                      HWADDR_PRIx " %s 0x%" PRIx64 "\n", a,
                      write ? "write" : "read", v);
    }
    return false;
}

/* Counters that clear when read */
static bool ix_is_stat(hwaddr a)
{
    if (a >= 0x1000 && a < 0x1800) {         /* QPRC, QBRC, QPRDC */
        return (a & 0x3f) == Q_PKTS ||
               (a < 0x1400 && ((a & 0x3f) == Q_BYTES_L ||
                               (a & 0x3f) == Q_BYTES_H));
    }
    if (a >= 0x6000 && a < 0x6400) {         /* QPTC */
        return (a & 0x3f) == Q_PKTS;
    }
    return (a >= 0x3f00 && a < 0x3fe0) || (a >= 0x4000 && a < 0x41b0) ||
           (a >= 0x8700 && a < 0x8780) || (a >= 0x3240 && a < 0x3260) ||
           a == R_FDIRMATCH || a == R_FDIRMISS;
}

static void ix_reset_regs(IxgbeState *s)
{
    const uint8_t *m = s->conf.macaddr.a;
    uint32_t swsm = rg(s, R_SWSM), sync = rg(s, R_SWFW_SYNC);
    unsigned q;

    memset(s->regs, 0, sizeof(s->regs));
    wr(s, R_SWSM, swsm);
    wr(s, R_SWFW_SYNC, sync);
    for (q = 0; q < IX_NQ; q++) {
        memset(&s->txq[q], 0, sizeof(s->txq[q]));
        wr(s, rx_srrctl(q), 2 | 4 << 8);
    }
    bitmap_zero(s->tx_kick, IX_NQ);
    ix_fdir_clear(s);
    s->vec_pend = s->vec_mask = s->vec_eiam = 0;
    s->misc_pend = s->misc_mask = 0;
    if (s->intx_level && !msi_enabled(PCI_DEVICE(s))) {
        pci_set_irq(PCI_DEVICE(s), 0);
    }
    s->intx_level = false;
    s->rx_blocked = false;

    wr(s, 0x5400, ldl_le_p(m));
    wr(s, 0x5404, lduw_le_p(m + 4) | 1u << 31);
    wr(s, R_RXPBSIZE, 384u << 10);
    wr(s, R_MAXFRS, 1518u << 16);
    wr(s, R_VLNCTRL, ETH_P_VLAN);
    wr(s, R_DMATXCTL, (uint32_t)ETH_P_VLAN << 16);
    wr(s, R_HLREG0, 0x0001ac2f & ~HLREG0_LPBK & ~HLREG0_JUMBOEN);
}

static uint64_t ix_systim(IxgbeState *s)
{
    int64_t ns = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) - s->systim_t0;

    /* TIMINCA is added once per 6.4 ns DMA clock at 10 Gb/s */
    return muldiv64(ns * 10, rg(s, R_TIMINCA), 64);
}

static uint64_t ix_read(void *opaque, hwaddr a, unsigned size)
{
    IxgbeState *s = opaque;
    uint32_t v;

    a &= ~3ull;
    if (!ix_known(s, a, false, 0)) {
        return 0;
    }
    v = rg(s, a);
    if (ix_is_stat(a)) {
        wr(s, a, 0);
        return v;
    }
    switch (a) {
    case R_STATUS:
        return (rg(s, R_CTRL) & CTRL_GIO_DIS ? 0 : STATUS_GIO) |
               (ix_link_up(s) ? STATUS_LU : 0);
    case R_FRTIMER:
        return qemu_clock_get_us(QEMU_CLOCK_VIRTUAL);
    case R_EEC:                              /* present, read done, 4k words */
        return 0x04000300 | 6 << 11;
    case R_EERD:
        return (v & 0xfffc) | 2 |
               (uint32_t)s->eeprom[((v >> 2) & 0x3fff) % IX_EEPROM_WORDS] << 16;
    case R_EEWR:
        return v | 2;
    case R_EEMNGCTL:
        return 0x000c0000;                   /* configuration done */
    case R_FWSM:
        return 0x8000;                       /* firmware valid, no pass-thru */
    case R_SWSM:                             /* reading takes the semaphore */
        wr(s, a, v | 1);
        return v;
    case R_SWFW_SYNC:
        wr(s, a, v | 1u << 31);
        return v;
    case R_HICR:
        return 5;                            /* enabled, status valid */
    case R_EICR:
        v = ix_eicr(s);
        if (!ix_msix_mode(s)) {
            s->vec_mask &= ~(uint64_t)(rg(s, R_EIAM) & 0xffff);
        }
        s->vec_pend &= ~0xffffull;
        s->misc_pend = 0;
        ix_update_irq(s);
        return v;
    case R_EICS:
        return ix_eicr(s);
    case R_EIMS:
    case R_EIMC:
        return (s->vec_mask & 0xffff) | (s->misc_mask & 0xffff0000u);
    case R_EIMS_EX:
    case R_EIMC_EX:
        return (uint32_t)s->vec_mask;
    case R_EIMS_EX + 4:
    case R_EIMC_EX + 4:
        return s->vec_mask >> 32;
    case R_RDRXCTL:
        return v | RDRXCTL_DMAIDONE;
    case R_SECTXSTAT:
    case R_SECRXSTAT:
        return 1;
    case R_LINKS:
        return ix_link_up(s) ? LINKS_UP_10G : 0;
    case R_SYSTIML:
        return (uint32_t)ix_systim(s);
    case R_SYSTIMH:
        return ix_systim(s) >> 32;
    }
    return v;
}

static void ix_write(void *opaque, hwaddr a, uint64_t val, unsigned size)
{
    IxgbeState *s = opaque;
    uint32_t v = val, old;

    a &= ~3ull;
    if (!ix_known(s, a, true, val)) {
        return;
    }
    old = rg(s, a);

    /* per-queue blocks */
    if ((a >= 0x1000 && a < 0x2000) || (a >= 0xd000 && a < 0xe000)) {
        switch (a & 0x3f) {
        case Q_BAL:
            wr(s, a, v & ~0x7fu);
            return;
        case Q_LEN:
            wr(s, a, v & 0xfff80);
            return;
        case Q_DCTL:
            wr(s, a, v & ~RXDCTL_SWFLSH);
            if (v & ~old & RXDCTL_EN) {
                ix_rx_resume(s);
            }
            return;
        case Q_T:
            wr(s, a, v & 0xffff);
            if (s->rx_blocked) {
                ix_rx_resume(s);
            }
            return;
        case Q_PKTS: case Q_BYTES_L: case Q_BYTES_H:
            return;
        }
        wr(s, a, v);
        return;
    }
    if (a >= 0x6000 && a < 0x8000) {
        unsigned q = (a - 0x6000) / 0x40;

        switch (a & 0x3f) {
        case Q_BAL:
            wr(s, a, v & ~0x7fu);
            return;
        case Q_LEN:
            wr(s, a, v & 0xfff80);
            return;
        case Q_DCTL:
            wr(s, a, v & ~TXDCTL_SWFLSH);
            if (v & ~old & TXDCTL_EN) {
                s->txq[q].in_frame = false;
                ix_tx_doorbell(s, q);
            }
            return;
        case Q_T:
            wr(s, a, v & 0xffff);
            ix_tx_doorbell(s, q);
            return;
        case Q_PKTS:
            return;
        }
        wr(s, a, v);
        return;
    }
    if (ix_is_stat(a)) {
        return;
    }
    if (((a >= 0x5400 && a < 0x5480) || (a >= 0xa280 && a < 0xa600)) &&
        (a & 4)) {                           /* RAH */
        wr(s, a, v & 0x8001ffff);
        return;
    }

    switch (a) {
    case R_CTRL:
        if (v & (CTRL_RST | CTRL_LNK_RST)) {
            ix_reset_regs(s);
            v &= ~(CTRL_RST | CTRL_LNK_RST | CTRL_GIO_DIS);
        }
        wr(s, a, v);
        return;
    case R_STATUS: case R_LINKS: case R_FWSM: case R_EEC: case R_FRTIMER:
        return;
    case R_EEWR:
        if (v & 1) {
            s->eeprom[((v >> 2) & 0x3fff) % IX_EEPROM_WORDS] = v >> 16;
        }
        break;
    case R_HICR:
        if (v & 2) {                         /* command done, status success */
            wr(s, R_FLEX_MNG, (rg(s, R_FLEX_MNG) & 0xff0000ff) | 0x00010000);
        }
        return;
    case R_EICR:                             /* write one to clear */
        s->vec_pend &= ~(uint64_t)(v & 0xffff);
        s->misc_pend &= ~(v & 0xffff0000u);
        ix_update_irq(s);
        return;
    case R_EICS:
        s->vec_pend |= v & 0xffff;
        ix_raise_misc(s, v & 0xffff0000u);
        return;
    case R_EIMS:
        ix_unmask(s, v & 0xffff, v & 0xffff0000u);
        return;
    case R_EIMC:
        s->vec_mask &= ~(uint64_t)(v & 0xffff);
        s->misc_mask &= ~(v & 0xffff0000u);
        ix_update_irq(s);
        return;
    case R_EICS_EX:
    case R_EICS_EX + 4:
        s->vec_pend |= (uint64_t)v << (a == R_EICS_EX ? 0 : 32);
        ix_update_irq(s);
        return;
    case R_EIMS_EX:
    case R_EIMS_EX + 4:
        ix_unmask(s, (uint64_t)v << (a == R_EIMS_EX ? 0 : 32), 0);
        return;
    case R_EIMC_EX:
    case R_EIMC_EX + 4:
        s->vec_mask &= ~((uint64_t)v << (a == R_EIMC_EX ? 0 : 32));
        ix_update_irq(s);
        return;
    case R_EIAM:
        s->vec_eiam = (s->vec_eiam & ~0xffffull) | (v & 0xffff);
        break;
    case R_EIAM_EX:
        s->vec_eiam = (s->vec_eiam & ~0xffffffffull) | v;
        break;
    case R_EIAM_EX + 4:
        s->vec_eiam = (uint32_t)s->vec_eiam | (uint64_t)v << 32;
        break;
    case R_RXCTRL:
        wr(s, a, v);
        if (v & RXCTRL_RXEN) {
            ix_rx_resume(s);
        }
        return;
    case R_DMATXCTL:
        wr(s, a, v);
        if (v & ~old & DMATXCTL_TE) {
            unsigned q;

            for (q = 0; q < IX_NQ; q++) {
                if (rg(s, txq(q) + Q_H) != rg(s, txq(q) + Q_T)) {
                    ix_tx_doorbell(s, q);
                }
            }
        }
        return;
    case R_MSCA:
        if (v & (1u << 30)) {
            ix_mdio(s, v);
            v &= ~(1u << 30);
        }
        break;
    case 0x3220: case 0x3260:                /* FCRTL0, FCRTH0 */
        v &= 0x8007fff0;
        break;
    case R_MSRWD:
        v = (old & 0xffff0000u) | (v & 0xffff);
        break;
    case R_FDIRCTRL:
        ix_fdir_clear(s);
        v |= FDIRCTRL_INIT_DONE;
        break;
    case R_FDIRCMD:
        ix_fdir_cmd(s, v);
        return;
    case R_SYSTIML:
        s->systim_t0 = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        break;
    }
    wr(s, a, v);
}

static const MemoryRegionOps ix_ops = {
    .read = ix_read,
    .write = ix_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

/* -------------------------------------------------------------- device -- */

static void ix_link_changed(NetClientState *nc)
{
    IxgbeState *s = qemu_get_nic_opaque(nc);

    ix_raise_misc(s, EICR_LSC);
}

static NetClientInfo ix_net_info = {
    .type = NET_CLIENT_DRIVER_NIC,
    .size = sizeof(NICState),
    .can_receive = ix_can_receive,
    .receive = ix_receive,
    .link_status_changed = ix_link_changed,
};

static void ix_realize(PCIDevice *d, Error **errp)
{
    IxgbeState *s = IXGBE(d);
    int i;

    d->config[PCI_INTERRUPT_PIN] = 1;
    pci_set_word(d->config + PCI_STATUS, PCI_STATUS_CAP_LIST);

    memory_region_init_io(&s->mmio, OBJECT(s), &ix_ops, s, "ixgbe-mmio",
                          IX_BAR_SIZE);
    pci_register_bar(d, 0, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64 |
                     PCI_BASE_ADDRESS_MEM_PREFETCH, &s->mmio);
    memory_region_init(&s->msix_bar, OBJECT(s), "ixgbe-msix", IX_MSIX_BAR_SZ);
    pci_register_bar(d, 4, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64 |
                     PCI_BASE_ADDRESS_MEM_PREFETCH, &s->msix_bar);

    /* the driver reads some of these at fixed offsets */
    if (pci_add_capability(d, PCI_CAP_ID_PM, 0x40, PCI_PM_SIZEOF, errp) < 0) {
        return;
    }
    pci_set_word(d->config + 0x42, 3);
    pci_set_word(d->wmask + 0x44, PCI_PM_CTRL_STATE_MASK);
    if (msi_init(d, 0x50, 1, true, false, errp) < 0) {
        return;
    }
    if (msix_init(d, IX_NVEC, &s->msix_bar, 4, 0, &s->msix_bar, 4, 0x2000,
                  0x70, errp) < 0) {
        return;
    }
    for (i = 0; i < IX_NVEC; i++) {
        msix_vector_use(d, i);
    }
    if (pcie_endpoint_cap_init(d, 0xa0) < 0) {
        error_setg(errp, "ixgbe: cannot add the PCIe capability");
        return;
    }

    s->phy = g_hash_table_new(NULL, NULL);
    s->rxbuf = g_malloc0(IX_MAX_FRAME + 64);
    s->segbuf = g_malloc0(IX_MAX_FRAME + 256);
    s->fdir = g_new0(IxFdir, IX_FDIR_MAX);
    s->tx_bh = qemu_bh_new_guarded(ix_tx_bh, s,
                                   &d->qdev.mem_reentrancy_guard);

    qemu_macaddr_default_if_unset(&s->conf.macaddr);
    ix_eeprom_init(s);
    s->nic = qemu_new_nic(&ix_net_info, &s->conf,
                          object_get_typename(OBJECT(d)), d->qdev.id,
                          &d->qdev.mem_reentrancy_guard, s);
    qemu_format_nic_info_str(qemu_get_queue(s->nic), s->conf.macaddr.a);
}

static void ix_exit(PCIDevice *d)
{
    IxgbeState *s = IXGBE(d);
    int i;

    qemu_bh_delete(s->tx_bh);
    qemu_del_nic(s->nic);
    for (i = 0; i < IX_NQ; i++) {
        g_free(s->txbuf[i]);
    }
    g_free(s->rxbuf);
    g_free(s->segbuf);
    g_free(s->fdir);
    g_hash_table_destroy(s->phy);
    pcie_cap_exit(d);
    msix_unuse_all_vectors(d);
    msix_uninit(d, &s->msix_bar, &s->msix_bar);
    msi_uninit(d);
}

static void ix_reset(DeviceState *dev)
{
    IxgbeState *s = IXGBE(dev);

    wr(s, R_SWSM, 0);
    wr(s, R_SWFW_SYNC, 0);
    g_hash_table_remove_all(s->phy);
    ix_reset_regs(s);
}

static Property ix_properties[] = {
    DEFINE_NIC_PROPERTIES(IxgbeState, conf),
    DEFINE_PROP_BOOL("trace-unimp", IxgbeState, trace_unimp, true),
    DEFINE_PROP_END_OF_LIST(),
};

static const VMStateDescription ix_vmstate = {
    .name = "ixgbe",
    .unmigratable = 1,
};

static void ix_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = ix_realize;
    k->exit = ix_exit;
    k->vendor_id = PCI_VENDOR_ID_INTEL;
    k->device_id = 0x1528;                   /* X540-AT2 */
    k->subsystem_vendor_id = PCI_VENDOR_ID_INTEL;
    k->subsystem_id = 0x0001;
    k->revision = 1;
    k->class_id = PCI_CLASS_NETWORK_ETHERNET;
    dc->reset = ix_reset;
    dc->vmsd = &ix_vmstate;
    dc->desc = "Intel X540 10 GbE controller (minimal)";
    device_class_set_props(dc, ix_properties);
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
}

static const TypeInfo ix_type = {
    .name = TYPE_IXGBE,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(IxgbeState),
    .class_init = ix_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void ix_register(void)
{
    type_register_static(&ix_type);
}

type_init(ix_register)
