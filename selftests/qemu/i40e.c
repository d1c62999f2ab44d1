/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intel XL710 ("i40e" family) 40 GbE controller, minimal model.
 *
 * The aim of this model is to let the unmodified Linux i40e driver probe,
 * bring the link up, pass traffic, use RSS over several queues and exercise
 * its XDP / AF_XDP zero-copy paths, with no hardware.  It is not a complete
 * model of the chip: SR-IOV, VMDq, VEB, DCB, flow director (ATR and sideband),
 * tunnel offloads, PTP, iWARP, header split, 32-byte receive descriptors,
 * interrupt moderation, INTx/MSI, wake-up and flash update are not modelled.
 *
 * Register behaviour follows the public Intel XL710 datasheet and the register
 * and admin queue use of the Linux driver.
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
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "net/net.h"
#include "net/eth.h"
#include "net/checksum.h"
#include "qapi/error.h"
#include "qom/object.h"

#define TYPE_I40E "i40e"
OBJECT_DECLARE_SIMPLE_TYPE(I40eState, I40E)

#define XL_BAR_SIZE     (4 * MiB)
#define XL_MSIX_BAR_SZ  (32 * KiB)
#define XL_NVEC         64
#define XL_NQ           128
#define XL_NSD          4096
#define XL_NVM_WORDS    2048
#define XL_NFILT        512
#define XL_MAX_FRAME    16384
#define XL_TXBUF        (256 * KiB + XL_MAX_FRAME)
#define XL_TX_BUDGET    512
#define XL_AQ_BUF       4096

#define SEID_MAC        2
#define SEID_PF         16
#define SEID_VSI        390

/* Admin queues */
#define R_ATQBAL        0x080000
#define R_ARQBAL        0x080080
#define R_ATQBAH        0x080100
#define R_ARQBAH        0x080180
#define R_ATQLEN        0x080200
#define R_ARQLEN        0x080280
#define R_ATQH          0x080300
#define R_ARQH          0x080380
#define R_ATQT          0x080400
#define R_ARQT          0x080480
#define   AQ_ENABLE         (1u << 31)
/* Interrupts */
#define R_ITRN          0x030000
#define R_DYN_CTLN      0x034800
#define R_LNKLSTN       0x035000
#define R_DYN_CTL0      0x038480
#define   DYN_INTENA        (1u << 0)
#define   DYN_CLEARPBA      (1u << 1)
#define   DYN_SWINT         (1u << 2)
#define   DYN_INTENA_MSK    (1u << 31)
#define R_ICR0          0x038780
#define R_ICR0_ENA      0x038800
#define   ICR0_INTEVENT     (1u << 0)
#define   ICR0_GRST         (1u << 20)
#define   ICR0_ADMINQ       (1u << 30)
#define   ICR0_SWINT        (1u << 31)
#define R_QINT_RQCTL    0x03a000
#define R_QINT_TQCTL    0x03c000
#define   QINT_CAUSE_ENA    (1u << 30)
/* General, reset, NVM */
#define R_GLVFGEN_TIMER 0x0881bc
#define R_PFGEN_CTRL    0x092400
#define R_FUNC_RID      0x09c000
#define R_GLNVM_ULD     0x0b6008
#define R_GLNVM_GENS    0x0b6100
#define R_GLNVM_FLA     0x0b6108
#define R_GLNVM_SRCTL   0x0b6110
#define R_GLNVM_SRDATA  0x0b6114
#define R_PRTGEN_CNF    0x0b8120
#define R_GLGEN_RSTCTL  0x0b8180
#define R_GLGEN_RSTAT   0x0b8188
#define R_GLGEN_RTRIG   0x0b8190
#define R_GLPCI_CNF2    0x0be494
/* HMC */
#define R_SDCMD         0x0c0000
#define R_SDDATALOW     0x0c0100
#define R_SDDATAHIGH    0x0c0200
#define R_LANTXOBJSZ    0x0c2004
#define R_LANQMAX       0x0c2008
#define R_LANRXOBJSZ    0x0c200c
#define R_FCOEFMAX      0x0c20d0
#define R_LANTXBASE     0x0c6200
#define R_LANRXBASE     0x0c6400
/* LAN queues */
#define R_QTX_HEAD      0x0e4000
#define R_MSS           0x0e64dc
#define R_QTX_ENA       0x100000
#define R_QTX_TAIL      0x108000
#define R_QRX_ENA       0x120000
#define R_QRX_TAIL      0x128000
#define   Q_REQ             (1u << 0)
#define   Q_STAT            (1u << 2)
#define R_QALLOC        0x1c0400
#define R_PFQF_CTL_0    0x1c0ac0
#define   HLUT_512          (1u << 16)
#define R_SAL           0x1e2120
#define R_SAH           0x1e2140
#define R_PRTTSYN_CTL0  0x1e4200
#define R_HLUT          0x240000
#define R_HKEY          0x244800
#define R_HENA          0x245900
#define R_HASH_INSET    0x267600
/* Statistics (48 bits, never cleared by reads) */
#define R_GLPRT_GORC    0x300000
#define R_GLPRT_RUC     0x300100
#define R_GLPRT_ROC     0x300120
#define R_GLPRT_PRC64   0x300480
#define R_GLPRT_UPRC    0x3005a0
#define R_GLPRT_RDPC    0x300600
#define R_GLPRT_GOTC    0x300680
#define R_GLPRT_PTC64   0x3006a0
#define R_GLPRT_UPTC    0x3009c0
#define R_GLV_RDPC      0x310000
#define R_GLV_GOTC      0x328000
#define R_GLV_UPTC      0x33c000
#define R_GLV_GORC      0x358000
#define R_GLV_UPRC      0x36c000

/* Transmit descriptor, second quad word */
#define TXD_DTYP(q1)    ((q1) & 0xf)
#define TXD_CMD(q1)     (((q1) >> 4) & 0xfff)
#define   TXC_EOP           0x001
#define   TXC_RS            0x002
#define   TXC_IL2TAG1       0x008
#define   TXC_IIPT_IPV6     0x020
#define   TXC_IIPT_IPV4     0x040
#define   TXC_IIPT_IPV4_CS  0x060
#define   TXC_L4T_MASK      0x300
#define   TXC_L4T_TCP       0x100
#define   TXC_L4T_SCTP      0x200
#define   TXC_L4T_UDP       0x300
/* Receive descriptor write-back, second quad word */
#define RXD_DD          (1ull << 0)
#define RXD_EOF         (1ull << 1)
#define RXD_L2TAG1P     (1ull << 2)
#define RXD_L3L4P       (1ull << 3)
#define RXD_CRCP        (1ull << 4)
#define RXD_FLTSTAT_RSS (3ull << 12)
#define RXD_V6EXADD     (1ull << 15)
#define RXD_ERR_IPE     (1ull << 22)
#define RXD_ERR_L4E     (1ull << 23)

typedef struct XlTxQ {
    uint64_t base, wb_addr;
    uint32_t qlen, head;
    bool wb;
    uint64_t ctx;               /* second quad word of the context desc */
    uint32_t tunnel;
    bool has_ctx;
    uint64_t q1;                /* of the frame's first data descriptor */
    uint32_t len;
    bool in_frame, bad;
} XlTxQ;

typedef struct XlRxQ {
    uint64_t base;
    uint32_t qlen, head, dbuff, rxmax, dsize, crcstrip;
} XlRxQ;

typedef struct XlFilt {
    bool used, any_vlan;
    uint8_t mac[6];
    uint16_t vlan;
} XlFilt;

typedef struct XlPkt {
    bool ip4, ip6, ext, frag, tcp, udp, sctp, icmp;
    unsigned l3, l4;            /* offsets */
    unsigned l3len;             /* IP header + payload, from the IP header */
} XlPkt;

struct I40eState {
    PCIDevice parent_obj;
    NICState *nic;
    NICConf conf;
    MemoryRegion mmio;
    MemoryRegion msix_bar;
    QEMUBH *tx_bh;

    uint32_t *regs;             /* XL_BAR_SIZE bytes */
    unsigned long *warned;
    unsigned long aq_warned[BITS_TO_LONGS(65536)];
    uint16_t nvm[XL_NVM_WORDS];

    uint64_t vec_pend;          /* vectors 1 and up */
    uint32_t icr0;
    uint64_t sd[XL_NSD];        /* data low / high as written */

    uint8_t vsi[128];           /* properties of the only VSI */
    uint16_t promisc;
    XlFilt filt[XL_NFILT];
    uint8_t lan_mac[6];
    bool phy_down;

    unsigned rx_enabled;
    unsigned long tx_kick[BITS_TO_LONGS(XL_NQ)];
    XlTxQ txq[XL_NQ];
    XlRxQ rxq[XL_NQ];
    uint8_t *txbuf[XL_NQ];
    uint8_t *segbuf;
    uint8_t *rxbuf;
    bool in_aq;                 /* admin commands can write registers */
    bool trace_unimp;
    bool trace_aq;
};

static inline uint32_t rg(I40eState *s, uint32_t off)
{
    return s->regs[off >> 2];
}

static inline void wr(I40eState *s, uint32_t off, uint32_t v)
{
    s->regs[off >> 2] = v;
}

static void stat_add(I40eState *s, uint32_t lo, uint32_t n)
{
    uint64_t v = rg(s, lo) | ((uint64_t)rg(s, lo + 4) << 32);

    v += n;
    wr(s, lo, v);
    wr(s, lo + 4, (v >> 32) & 0xffff);
}

/* 0 unicast, 1 multicast, 2 broadcast */
static unsigned cast_type(const uint8_t *b)
{
    return is_broadcast_ether_addr(b) ? 2 : b[0] & 1;
}

static void stat_frame(I40eState *s, bool tx, const uint8_t *b, uint32_t wire)
{
    unsigned c = cast_type(b);
    unsigned i = wire <= 64 ? 0 : wire <= 127 ? 1 : wire <= 255 ? 2 :
                 wire <= 511 ? 3 : wire <= 1023 ? 4 : wire <= 1522 ? 5 : 6;

    stat_add(s, tx ? R_GLPRT_GOTC : R_GLPRT_GORC, wire);
    stat_add(s, (tx ? R_GLPRT_UPTC : R_GLPRT_UPRC) + c * 0x20, 1);
    stat_add(s, (tx ? R_GLPRT_PTC64 : R_GLPRT_PRC64) + i * 0x20, 1);
}

static void stat_vsi(I40eState *s, bool tx, const uint8_t *b, uint32_t wire)
{
    stat_add(s, tx ? R_GLV_GOTC : R_GLV_GORC, wire);
    stat_add(s, (tx ? R_GLV_UPTC : R_GLV_UPRC) + cast_type(b) * 0xc00, 1);
}

static bool xl_link_up(I40eState *s)
{
    return s->nic && !qemu_get_queue(s->nic)->link_down && !s->phy_down;
}

/* ---------------------------------------------------------------- IRQs -- */

static void xl_fire(I40eState *s)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint64_t act = s->vec_pend;

    if (!msix_enabled(d)) {
        return;
    }
    if ((s->icr0 & (rg(s, R_ICR0_ENA) | ICR0_SWINT)) &&
        (rg(s, R_DYN_CTL0) & DYN_INTENA)) {
        wr(s, R_DYN_CTL0, rg(s, R_DYN_CTL0) & ~DYN_INTENA);
        msix_notify(d, 0);
    }
    while (act) {
        unsigned v = ctz64(act);
        uint32_t r = R_DYN_CTLN + (v - 1) * 4;

        act &= act - 1;
        if (rg(s, r) & DYN_INTENA) {         /* auto-mask */
            wr(s, r, rg(s, r) & ~DYN_INTENA);
            s->vec_pend &= ~(1ull << v);
            msix_notify(d, v);
        }
    }
}

/*
 * The linked lists of queues are not walked: a queue's control register names
 * its vector, and software always links the queue to that vector.
 */
static void xl_queue_irq(I40eState *s, unsigned q, bool tx)
{
    uint32_t ctl = rg(s, (tx ? R_QINT_TQCTL : R_QINT_RQCTL) + q * 4);
    unsigned v = ctl & 0xff;

    if ((ctl & QINT_CAUSE_ENA) && v && v < XL_NVEC) {
        s->vec_pend |= 1ull << v;
        xl_fire(s);
    }
}

static void xl_raise0(I40eState *s, uint32_t bits)
{
    s->icr0 |= bits;
    xl_fire(s);
}

/* Returns the new value of a dynamic control register */
static uint32_t xl_dyn_ctl(uint32_t old, uint32_t v)
{
    if (v & DYN_INTENA_MSK) {                /* leave INTENA alone */
        v = (v & ~DYN_INTENA) | (old & DYN_INTENA);
    }
    return v & ~(DYN_CLEARPBA | DYN_SWINT | DYN_INTENA_MSK);
}

/* ----------------------------------------------------------------- HMC -- */

static uint64_t xl_bits(const uint8_t *c, unsigned lsb, unsigned width)
{
    uint64_t v = 0;
    unsigned i;

    for (i = 0; i < width; i++) {
        v |= (uint64_t)((c[(lsb + i) >> 3] >> ((lsb + i) & 7)) & 1) << i;
    }
    return v;
}

/* Reads an object of the function's private memory (never crosses a page) */
static bool xl_hmc_read(I40eState *s, uint64_t fpm, uint8_t *buf, unsigned n)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint64_t sd = s->sd[(fpm >> 21) % XL_NSD], pd;

    if (!(sd & 1)) {
        qemu_log_mask(LOG_GUEST_ERROR, "i40e: HMC: no segment for 0x%" PRIx64
                      "\n", fpm);
        return false;
    }
    if (!(sd & 2)) {                         /* paged */
        pci_dma_read(d, (sd & ~0xfffull) + ((fpm >> 12) & 511) * 8, &pd, 8);
        pd = le64_to_cpu(pd);
        if (!(pd & 1)) {
            return false;
        }
        return !pci_dma_read(d, (pd & ~0xfffull) + (fpm & 0xfff), buf, n);
    }
    return !pci_dma_read(d, (sd & ~0xfffull) + (fpm & 0x1fffff), buf, n);
}

static void xl_load_txq(I40eState *s, unsigned q)
{
    XlTxQ *t = &s->txq[q];
    uint8_t c[128];

    memset(t, 0, sizeof(*t));
    if (!xl_hmc_read(s, rg(s, R_LANTXBASE) * 512ull + q * 128, c, 128)) {
        return;
    }
    t->base = xl_bits(c, 32, 57) * 128;
    t->wb = xl_bits(c, 128 + 32, 1);
    t->qlen = xl_bits(c, 128 + 33, 13);
    t->wb_addr = xl_bits(c, 128 + 64, 64);
    t->head = rg(s, R_QTX_HEAD + q * 4) & 0x1fff;
}

static void xl_load_rxq(I40eState *s, unsigned q)
{
    XlRxQ *r = &s->rxq[q];
    uint8_t c[32];

    memset(r, 0, sizeof(*r));
    if (!xl_hmc_read(s, rg(s, R_LANRXBASE) * 512ull + q * 32, c, 32)) {
        return;
    }
    r->head = xl_bits(c, 0, 13);
    r->base = xl_bits(c, 32, 57) * 128;
    r->qlen = xl_bits(c, 89, 13);
    r->dbuff = xl_bits(c, 102, 7) * 128;
    r->dsize = xl_bits(c, 116, 1);
    r->crcstrip = xl_bits(c, 117, 1);
    r->rxmax = xl_bits(c, 174, 14);
}

/* --------------------------------------------------- headers, checksum -- */

static void xl_parse(const uint8_t *b, size_t len, XlPkt *p)
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
        p->icmp = nh == (p->ip4 ? 1 : 58);
    }
}

static bool xl_l4_csum_ok(const uint8_t *b, const XlPkt *p)
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

static uint32_t xl_toeplitz(I40eState *s, const uint8_t *in, unsigned n)
{
    uint32_t hash = 0, win;
    uint8_t key[52];
    unsigned i, bit;

    for (i = 0; i < 13; i++) {
        stl_le_p(key + i * 4, rg(s, R_HKEY + i * 128));
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

static unsigned xl_pctype(const XlPkt *p)
{
    unsigned t = p->frag ? 36 : p->tcp ? 33 : p->udp ? 31 : p->sctp ? 34 : 35;

    return p->ip4 ? t : p->ip6 ? t + 10 : 63;
}

/* Input set words: which fields of the packet enter the hash */
#define INSET_L3_SRC    (3ull << 47)
#define INSET_L3_DST    (3ull << 35)
#define INSET_V6_SRC    (0xffull << 43)
#define INSET_V6_DST    (0xffull << 35)
#define INSET_L4_SRC    (1ull << 34)
#define INSET_L4_DST    (1ull << 33)

static uint64_t xl_inset_default(unsigned pct)
{
    uint64_t l4 = INSET_L4_SRC | INSET_L4_DST;

    switch (pct) {
    case 29 ... 34:
        return INSET_L3_SRC | INSET_L3_DST | l4;
    case 35: case 36:
        return INSET_L3_SRC | INSET_L3_DST;
    case 39 ... 44:
        return INSET_V6_SRC | INSET_V6_DST | l4;
    case 45: case 46:
        return INSET_V6_SRC | INSET_V6_DST;
    }
    return 0;
}

static bool xl_rss(I40eState *s, const uint8_t *b, const XlPkt *p,
                   uint32_t *hash)
{
    unsigned pct = xl_pctype(p), al = p->ip4 ? 4 : 16, n;
    uint64_t hena = rg(s, R_HENA) | (uint64_t)rg(s, R_HENA + 128) << 32;
    uint64_t set = (uint64_t)rg(s, R_HASH_INSET + pct * 8) << 32 |
                   rg(s, R_HASH_INSET + pct * 8 + 4);
    uint8_t in[36] = { 0 };
    const uint8_t *ip = b + p->l3 + (p->ip4 ? 12 : 8);

    *hash = 0;
    if (pct == 63 || !(hena & (1ull << pct))) {
        return false;
    }
    if (set & (p->ip4 ? INSET_L3_SRC : INSET_V6_SRC)) {
        memcpy(in, ip, al);
    }
    if (set & (p->ip4 ? INSET_L3_DST : INSET_V6_DST)) {
        memcpy(in + al, ip + al, al);
    }
    n = 2 * al;
    if (p->tcp || p->udp || p->sctp) {
        if (set & INSET_L4_SRC) {
            memcpy(in + n, b + p->l4, 2);
        }
        if (set & INSET_L4_DST) {
            memcpy(in + n + 2, b + p->l4 + 2, 2);
        }
        n += 4;
    }
    *hash = xl_toeplitz(s, in, n);
    return true;
}

static unsigned xl_ptype(const uint8_t *b, const XlPkt *p)
{
    unsigned t;

    if (!p->ip4 && !p->ip6) {
        return lduw_be_p(b + p->l3 - 2) == ETH_P_ARP ? 11 : 1;
    }
    t = p->frag ? 22 : p->udp ? 24 : p->tcp ? 26 : p->sctp ? 27 :
        p->icmp ? 28 : 23;
    return p->ip4 ? t : t + 66;
}

/* ------------------------------------------------------------- receive -- */

#define VSI_VLAN_FLAGS  12
#define VSI_QMAP_FLAGS  28
#define VSI_QMAP        30
#define VSI_TCMAP       62

static bool xl_can_receive(NetClientState *nc)
{
    I40eState *s = qemu_get_nic_opaque(nc);

    return s->rx_enabled && !s->phy_down &&
           (PCI_DEVICE(s)->config[PCI_COMMAND] & PCI_COMMAND_MASTER);
}

static bool xl_filter(I40eState *s, const uint8_t *b, uint16_t vlan)
{
    unsigned i, c = cast_type(b);

    if (s->promisc & (8 | (c == 2 ? 4 : c ? 2 : 1))) {
        return true;
    }
    for (i = 0; i < XL_NFILT; i++) {
        XlFilt *f = &s->filt[i];

        if (f->used && !memcmp(f->mac, b, 6) &&
            (f->any_vlan || f->vlan == vlan)) {
            return true;
        }
    }
    return false;
}

static void xl_rx_drop(I40eState *s)
{
    stat_add(s, R_GLV_RDPC, 1);
    stat_add(s, R_GLPRT_RDPC, 1);
}

static ssize_t xl_rx_frame(I40eState *s, const uint8_t *buf, size_t size)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint8_t *b = s->rxbuf;
    size_t len = size, done;
    uint32_t n, need, avail, hash, wire;
    uint64_t st;
    uint16_t vlan = 0, tc;
    bool tagged, strip, rss;
    unsigned q = 0;
    XlRxQ *r;
    XlPkt p;

    if (size < 14 || size > XL_MAX_FRAME - 64) {
        stat_add(s, size < 14 ? R_GLPRT_RUC : R_GLPRT_ROC, 1);
        return size;
    }
    memcpy(b, buf, size);
    if (len < 60) {
        memset(b + len, 0, 60 - len);
        len = 60;
    }
    wire = len + 4;
    stat_frame(s, false, b, wire);
    tagged = lduw_be_p(b + 12) == ETH_P_VLAN;
    if (tagged) {
        vlan = lduw_be_p(b + 14);
    }
    if (!xl_filter(s, b, vlan & 0xfff)) {
        return size;
    }

    xl_parse(b, len, &p);
    rss = xl_rss(s, b, &p, &hash);
    tc = lduw_le_p(s->vsi + VSI_TCMAP);
    if (rss) {
        unsigned i = hash & (rg(s, R_PFQF_CTL_0) & HLUT_512 ? 511 : 127);

        q = (rg(s, R_HLUT + (i >> 2) * 128) >> ((i & 3) * 8)) & 0x3f;
        q &= (1u << ((tc >> 9) & 7)) - 1;
    }
    q += tc & 0x1ff;
    if (lduw_le_p(s->vsi + VSI_QMAP_FLAGS) & 1) {
        q = lduw_le_p(s->vsi + VSI_QMAP + (q & 15) * 2) & 0x7ff;
    } else {
        q += lduw_le_p(s->vsi + VSI_QMAP) & 0x7ff;
    }
    if (q >= XL_NQ || !(rg(s, R_QRX_ENA + q * 4) & Q_STAT)) {
        xl_rx_drop(s);
        return size;
    }
    r = &s->rxq[q];
    if (r->dsize) {
        qemu_log_mask(LOG_UNIMP, "i40e: 32-byte RX descriptors\n");
        return size;
    }
    strip = tagged && (s->vsi[VSI_VLAN_FLAGS] & 0x18) != 0x18;
    if (strip) {
        memmove(b + 4, b, 12);
        b += 4;
        len -= 4;
        p.l3 -= 4;
        p.l4 -= 4;
    }
    if (!r->crcstrip) {                      /* a dummy CRC */
        memset(b + len, 0, 4);
        len += 4;
    }
    if (r->rxmax && len > r->rxmax) {
        stat_add(s, R_GLPRT_ROC, 1);
        return size;
    }
    n = r->qlen;
    if (!n || !r->dbuff) {
        xl_rx_drop(s);
        return size;
    }
    r->head %= n;
    avail = ((rg(s, R_QRX_TAIL + q * 4) & 0x1fff) % n + n - r->head) % n;
    need = DIV_ROUND_UP(len, r->dbuff);
    if (avail < need) {
        xl_rx_drop(s);
        return size;
    }

    st = RXD_DD | (r->crcstrip ? 0 : RXD_CRCP) |
         (uint64_t)cast_type(b) << 9 | (uint64_t)xl_ptype(b, &p) << 30;
    if (rss) {
        st |= RXD_FLTSTAT_RSS;
    }
    if (p.ip4 || p.ip6) {
        st |= RXD_L3L4P;
        if (p.ip4 && net_raw_checksum(b + p.l3, MIN(p.l4 - p.l3, 60))) {
            st |= RXD_ERR_IPE;
        }
        if (p.ip6 && p.ext) {
            st |= RXD_V6EXADD;
        }
        if ((p.tcp || (p.udp && lduw_be_p(b + p.l4 + 6))) &&
            !xl_l4_csum_ok(b, &p)) {
            st |= RXD_ERR_L4E;
        }
    }
    if (strip) {
        st |= RXD_L2TAG1P;
    }
    for (done = 0; done < len; ) {
        uint32_t chunk = MIN(len - done, r->dbuff);
        uint8_t desc[16], wb[16];
        dma_addr_t da = r->base + r->head * 16ull;

        pci_dma_read(d, da, desc, 16);
        pci_dma_write(d, ldq_le_p(desc), b + done, chunk);
        done += chunk;
        stw_le_p(wb, 0);
        stw_le_p(wb + 2, strip ? vlan : 0);
        stl_le_p(wb + 4, hash);
        stq_le_p(wb + 8, st | (uint64_t)chunk << 38 |
                 (done == len ? RXD_EOF : 0));
        /* the driver polls the second half: it must become visible last */
        pci_dma_write(d, da, wb, 8);
        smp_wmb();
        pci_dma_write(d, da + 8, wb + 8, 8);
        r->head = (r->head + 1) % n;
    }
    stat_vsi(s, false, b, wire);
    xl_queue_irq(s, q, false);
    return size;
}

static ssize_t xl_receive(NetClientState *nc, const uint8_t *buf, size_t size)
{
    I40eState *s = qemu_get_nic_opaque(nc);

    if (!xl_can_receive(nc)) {
        return 0;
    }
    return xl_rx_frame(s, buf, size);
}

/* ------------------------------------------------------------ transmit -- */

static void xl_tx_emit(I40eState *s, uint8_t *b, uint32_t len, bool tagit,
                       uint16_t tag)
{
    if (tagit) {                             /* callers leave 4 bytes before */
        memmove(b - 4, b, 12);
        b -= 4;
        len += 4;
        stw_be_p(b + 12, ETH_P_VLAN);
        stw_be_p(b + 14, tag);
    }
    if (len < 60) {
        memset(b + len, 0, 60 - len);
        len = 60;
    }
    stat_frame(s, true, b, len + 4);
    stat_vsi(s, true, b, len + 4);
    if (xl_link_up(s)) {
        qemu_send_packet(qemu_get_queue(s->nic), b, len);
    }
}

/* One's complement sum over [start, start + len) including the seed that the
 * driver left in the checksum field, plus @extra; stored at @field. */
static void xl_tx_csum(uint8_t *start, uint32_t len, uint8_t *field,
                       uint32_t extra, bool nonzero)
{
    uint16_t c = net_checksum_finish(net_checksum_add(len, start) + extra);

    if (nonzero && !c) {
        c = 0xffff;
    }
    stw_be_p(field, c);
}

static void xl_tx_frame(I40eState *s, unsigned q)
{
    XlTxQ *t = &s->txq[q];
    uint8_t *b = s->txbuf[q] + 64, *g = s->segbuf + 64;
    uint32_t cmd = TXD_CMD(t->q1), offs = t->q1 >> 16, l4t = cmd & TXC_L4T_MASK;
    uint32_t maclen = (offs & 0x7f) * 2, iplen = ((offs >> 7) & 0x7f) * 4;
    uint32_t l4len = ((offs >> 14) & 0xf) * 4, l4 = maclen + iplen;
    uint32_t len = t->len, iipt = cmd & 0x60, mss, hdr, pay, off, i;
    uint32_t fld = l4t == TXC_L4T_TCP ? 16 : l4t == TXC_L4T_SCTP ? 8 : 6;
    bool tagit = cmd & TXC_IL2TAG1;
    uint16_t tag = t->q1 >> 48;

    if (t->has_ctx && t->tunnel &&
        !test_and_set_bit(0x20, s->warned)) {
        warn_report("i40e: tunnel offload is not modelled");
    }
    if (!t->has_ctx || !(TXD_CMD(t->ctx) & 1)) {
        if (len > XL_MAX_FRAME - 64) {
            qemu_log_mask(LOG_GUEST_ERROR, "i40e: TX frame too long\n");
            return;
        }
        if (iipt == TXC_IIPT_IPV4_CS && l4 <= len && iplen >= 20) {
            stw_be_p(b + maclen + 10, 0);
            xl_tx_csum(b + maclen, iplen, b + maclen + 10, 0, false);
        }
        if (l4t && l4 + (l4t == TXC_L4T_SCTP ? 12 : fld + 2) <= len) {
            if (l4t == TXC_L4T_SCTP) {
                stl_le_p(b + l4 + 8, 0);
                stl_le_p(b + l4 + 8, crc32c(0xffffffff, b + l4, len - l4));
            } else {
                xl_tx_csum(b + l4, len - l4, b + l4 + fld, 0,
                           l4t == TXC_L4T_UDP);
            }
        }
        xl_tx_emit(s, b, len, tagit, tag);
        return;
    }

    /* TCP / UDP segmentation */
    mss = (t->ctx >> 50) & 0x3fff;
    hdr = l4 + l4len;
    if (!mss || hdr >= len || hdr + mss > XL_MAX_FRAME || iplen < 20 ||
        l4len < 8) {
        qemu_log_mask(LOG_GUEST_ERROR, "i40e: bad TSO context\n");
        return;
    }
    pay = len - hdr;
    for (off = 0, i = 0; off < pay; off += mss, i++) {
        uint32_t n = MIN(mss, pay - off), seg = l4len + n;

        memcpy(g, b, hdr);
        memcpy(g + hdr, b + hdr + off, n);
        if (iipt & TXC_IIPT_IPV4) {
            stw_be_p(g + maclen + 2, iplen + seg);
            stw_be_p(g + maclen + 4, lduw_be_p(g + maclen + 4) + i);
            stw_be_p(g + maclen + 10, 0);
            xl_tx_csum(g + maclen, iplen, g + maclen + 10, 0, false);
        } else {
            stw_be_p(g + maclen + 4, iplen - 40 + seg);
        }
        if (l4t == TXC_L4T_TCP) {
            stl_be_p(g + l4 + 4, ldl_be_p(g + l4 + 4) + off);
            if (off + n < pay) {
                g[l4 + 13] &= ~0x09;         /* FIN, PSH on the last only */
            }
            if (i) {
                g[l4 + 13] &= ~0x80;         /* CWR on the first only */
            }
        } else {
            stw_be_p(g + l4 + 4, seg);
        }
        xl_tx_csum(g + l4, seg, g + l4 + fld, seg, l4t == TXC_L4T_UDP);
        xl_tx_emit(s, g, hdr + n, tagit, tag);
    }
}

/* Returns true when the queue has more to do */
static bool xl_tx_queue(I40eState *s, unsigned q)
{
    PCIDevice *d = PCI_DEVICE(s);
    XlTxQ *t = &s->txq[q];
    uint32_t tail, budget = XL_TX_BUDGET, n = t->qlen;
    bool irq = false;

    if (!n || !(rg(s, R_QTX_ENA + q * 4) & Q_STAT) ||
        !(d->config[PCI_COMMAND] & PCI_COMMAND_MASTER)) {
        return false;
    }
    if (!s->txbuf[q]) {
        s->txbuf[q] = g_malloc(XL_TXBUF + 128);
    }
    t->head %= n;
    tail = (rg(s, R_QTX_TAIL + q * 4) & 0x1fff) % n;
    while (t->head != tail && budget--) {
        dma_addr_t da = t->base + t->head * 16ull;
        uint8_t desc[16];
        uint64_t q1;
        uint32_t cmd, dlen;

        pci_dma_read(d, da, desc, 16);
        q1 = ldq_le_p(desc + 8);
        cmd = TXD_CMD(q1);
        switch (TXD_DTYP(q1)) {
        case 0:                              /* data */
            dlen = (q1 >> 34) & 0x3fff;
            if (!t->in_frame) {
                t->in_frame = true;
                t->bad = false;
                t->len = 0;
                t->q1 = q1;
            }
            if (t->len + dlen > XL_TXBUF) {
                t->bad = true;
            } else {
                pci_dma_read(d, ldq_le_p(desc),
                             s->txbuf[q] + 64 + t->len, dlen);
                t->len += dlen;
            }
            if (cmd & TXC_EOP) {
                if (!t->bad && t->len >= 14 && !(cmd & 0x10)) {
                    xl_tx_frame(s, q);
                }
                t->in_frame = t->has_ctx = false;
                irq = true;
            }
            break;
        case 1:                              /* context */
            t->tunnel = ldl_le_p(desc);
            t->ctx = q1;
            t->has_ctx = true;
            break;
        default:
            qemu_log_mask(LOG_UNIMP, "i40e: TX descriptor type %u\n",
                          (unsigned)TXD_DTYP(q1));
            irq = true;
            break;
        }
        if (!t->wb && TXD_DTYP(q1) != 1 && (cmd & TXC_RS)) {
            uint8_t st[8];

            stq_le_p(st, q1 | 0xf);          /* descriptor done */
            pci_dma_write(d, da + 8, st, 8);
        }
        t->head = (t->head + 1) % n;
    }
    wr(s, R_QTX_HEAD + q * 4, t->head);
    if (irq) {
        if (t->wb) {
            uint8_t h[4];

            stl_le_p(h, t->head);
            smp_wmb();
            pci_dma_write(d, t->wb_addr, h, 4);
        }
        xl_queue_irq(s, q, true);
    }
    return t->head != tail;
}

static void xl_tx_bh(void *opaque)
{
    I40eState *s = opaque;
    unsigned q;
    bool more = false;

    for (q = find_first_bit(s->tx_kick, XL_NQ); q < XL_NQ;
         q = find_next_bit(s->tx_kick, XL_NQ, q + 1)) {
        if (xl_tx_queue(s, q)) {
            more = true;
        } else {
            clear_bit(q, s->tx_kick);
        }
    }
    if (more) {
        qemu_bh_schedule(s->tx_bh);
    }
}

/* --------------------------------------------------------- admin queue -- */

enum { AQ_OK = 0, AQ_EPERM = 1, AQ_ENOENT = 2, AQ_ENOMEM = 9, AQ_EINVAL = 14,
       AQ_ENOSPC = 16, AQ_ENOSYS = 17 };

static void xl_link_params(I40eState *s, uint8_t *p)
{
    bool up = xl_link_up(s);

    memset(p, 0, 16);
    stw_le_p(p, 1);                          /* link events enabled */
    p[2] = 0x19;                             /* 40GBASE-SR4 */
    p[3] = up ? 0x10 : 0;                    /* 40 Gb/s */
    p[4] = 0xc0 | (up ? 0x21 : 0);           /* media, signal, link up */
    p[5] = 0x80 | (up ? 0x01 : 0);           /* qualified module, AN done */
    stw_le_p(p + 8, 0x2600);
    p[10] = 0x04;                            /* CRC enabled */
    stl_le_p(p + 11, 1u << 0x19);
}

static void xl_link_event(I40eState *s)
{
    PCIDevice *d = PCI_DEVICE(s);
    uint32_t n = rg(s, R_ARQLEN) & 0x3ff, head = rg(s, R_ARQH);
    uint64_t ring = rg(s, R_ARQBAL) | (uint64_t)rg(s, R_ARQBAH) << 32;
    uint8_t e[32] = { 0 };

    if (!(rg(s, R_ARQLEN) & AQ_ENABLE) || !n || head == rg(s, R_ARQT)) {
        return;
    }
    stw_le_p(e, 3);                          /* DD, completed */
    stw_le_p(e + 2, 0x0607);
    xl_link_params(s, e + 16);
    pci_dma_write(d, ring + head * 32, e, 32);
    wr(s, R_ARQH, (head + 1) % n);
    xl_raise0(s, ICR0_ADMINQ);
}

static void xl_set_phy_down(I40eState *s, bool down)
{
    if (s->phy_down != down) {
        s->phy_down = down;
        xl_link_event(s);
        if (!down) {
            qemu_flush_queued_packets(qemu_get_queue(s->nic));
        }
    }
}

static unsigned xl_caps(uint8_t *b, bool func)
{
    static const struct { uint16_t id; uint32_t num, log, phys; } caps[] = {
        { 0x0001, 0, 0, 0 },                 /* switch mode */
        { 0x0002, 0, 0, 0 },                 /* management mode */
        { 0x0005, 1, 0, 0 },                 /* valid functions */
        { 0x0017, 16, 0, 0 },                /* VSIs */
        { 0x0040, 512, 6, 0 },               /* RSS: LUT size, entry width */
        { 0x0041, XL_NQ, 0, 0 },             /* RX queues, first */
        { 0x0042, XL_NQ, 0, 0 },             /* TX queues, first */
        { 0x0043, XL_NVEC, 0, 0 },           /* MSI-X vectors */
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(caps); i++) {
        uint8_t *c = b + i * 32;

        memset(c, 0, 32);
        stw_le_p(c, caps[i].id);
        c[2] = 1;
        stl_le_p(c + 4, caps[i].num);
        stl_le_p(c + 8, caps[i].log);
        stl_le_p(c + 12, caps[i].phys);
    }
    return i;
}

static void xl_vsi_default(I40eState *s)
{
    unsigned i;

    memset(s->vsi, 0, sizeof(s->vsi));
    s->vsi[VSI_VLAN_FLAGS] = 0x1b;           /* accept all, no stripping */
    for (i = 1; i < 8; i++) {
        stw_le_p(s->vsi + 96 + i * 2, 0xffff);
    }
    s->promisc = 0;
    memset(s->filt, 0, sizeof(s->filt));
    s->filt[0] = (XlFilt) { .used = true, .any_vlan = true };
    memcpy(s->filt[0].mac, s->lan_mac, 6);
}

static void xl_vsi_update(I40eState *s, const uint8_t *v)
{
    static const struct { uint16_t bit; uint8_t lo, hi; } sec[] = {
        { 0x001, 2, 5 }, { 0x002, 6, 7 }, { 0x004, 8, 15 }, { 0x008, 24, 27 },
        { 0x010, 16, 19 }, { 0x020, 20, 23 }, { 0x040, 28, 77 },
        { 0x080, 78, 81 }, { 0x100, 84, 87 }, { 0x200, 82, 83 },
    };
    unsigned i, valid = lduw_le_p(v);

    for (i = 0; i < ARRAY_SIZE(sec); i++) {
        if (valid & sec[i].bit) {
            memcpy(s->vsi + sec[i].lo, v + sec[i].lo,
                   sec[i].hi - sec[i].lo + 1);
        }
    }
}

static XlFilt *xl_filt_find(I40eState *s, const uint8_t *mac, uint16_t vlan,
                            bool any)
{
    unsigned i;

    for (i = 0; i < XL_NFILT; i++) {
        XlFilt *f = &s->filt[i];

        if (f->used && !memcmp(f->mac, mac, 6) && f->any_vlan == any &&
            (any || f->vlan == vlan)) {
            return f;
        }
    }
    return NULL;
}

static void xl_macvlan(I40eState *s, bool add, uint8_t *e)
{
    bool any = add ? lduw_le_p(e + 8) & 4 : e[8] & 8;
    uint16_t vlan = lduw_le_p(e + 6) & 0xfff;
    XlFilt *f = xl_filt_find(s, e, vlan, any);
    unsigned i;

    e[12] = 0;
    if (!add) {
        if (f) {
            f->used = false;
        }
        return;
    }
    for (i = 0; !f && i < XL_NFILT; i++) {
        if (!s->filt[i].used) {
            f = &s->filt[i];
        }
    }
    if (f) {
        f->used = true;
        f->any_vlan = any;
        f->vlan = vlan;
        memcpy(f->mac, e, 6);
        e[12] = 1;                           /* perfect match */
    } else {
        e[12] = 0xff;                        /* no resources */
    }
}

static uint64_t xl_read(void *opaque, hwaddr a, unsigned size);
static void xl_write(void *opaque, hwaddr a, uint64_t val, unsigned size);

/*
 * @d: descriptor, @buf: data buffer (@max bytes); returns the status.
 * *wlen: bytes of the buffer to write back.
 */
static unsigned xl_aq_cmd(I40eState *s, uint8_t *d, uint8_t *buf, unsigned max,
                          unsigned *wlen)
{
    uint16_t op = lduw_le_p(d + 2);
    uint8_t *p = d + 16;
    unsigned i, n;
    uint16_t v;

    switch (op) {
    case 0x0001:                             /* get version */
        stl_le_p(p, 0x00010000);
        stl_le_p(p + 4, 12345);              /* firmware build */
        stw_le_p(p + 8, 6);
        stw_le_p(p + 10, 1);
        stw_le_p(p + 12, 1);                 /* API 1.7 */
        stw_le_p(p + 14, 7);
        return AQ_OK;
    case 0x0002: case 0x0003: case 0x0004:   /* version, shutdown, context */
    case 0x0009:                             /* release resource */
    case 0x0110:                             /* clear PXE mode */
    case 0x0205:                             /* set switch config */
    case 0x025a: case 0x025b:                /* control packet filter */
    case 0x0303:                             /* set DCB parameters */
    case 0x0400: case 0x041b: case 0x041c:   /* bandwidth limit, port TX */
    case 0x0613:                             /* PHY interrupt mask */
    case 0x0603:                             /* MAC config */
    case 0x0a05: case 0x0a06: case 0x0a08: case 0x0a09: /* LLDP */
    case 0x0b00: case 0x0b01:                /* UDP tunnel ports */
        return AQ_OK;
    case 0x0008:                             /* request resource */
        stl_le_p(p + 4, 3000);
        return AQ_OK;
    case 0x000a: case 0x000b:                /* capabilities */
        if (max < 20 * 32) {
            stw_le_p(d + 4, 20 * 32);
            return AQ_ENOMEM;
        }
        n = xl_caps(buf, op == 0x000a);
        stl_le_p(p + 4, n);
        *wlen = n * 32;
        return AQ_OK;
    case 0x0107:                             /* MAC address read */
        if (max < 24) {
            return AQ_EINVAL;
        }
        memset(buf, 0, 24);
        memcpy(buf, s->lan_mac, 6);
        memcpy(buf + 12, s->conf.macaddr.a, 6);
        stw_le_p(p, 0x50);                   /* LAN and port addresses */
        *wlen = 24;
        return AQ_OK;
    case 0x0108:                             /* MAC address write */
        stw_be_p(s->lan_mac, lduw_le_p(p + 2));
        stl_be_p(s->lan_mac + 2, ldl_le_p(p + 4));
        return AQ_OK;
    case 0x0200:                             /* get switch config */
        if (max < 32) {
            return AQ_EINVAL;
        }
        memset(buf, 0, 32);
        stw_le_p(buf, 1);
        stw_le_p(buf + 2, 1);
        buf[16] = 19;                        /* VSI */
        buf[17] = 1;
        stw_le_p(buf + 18, SEID_VSI);
        stw_le_p(buf + 20, SEID_MAC);
        stw_le_p(buf + 22, SEID_PF);
        buf[27] = 1;
        stw_le_p(p, 0);
        *wlen = 32;
        return AQ_OK;
    case 0x0206:                             /* RX control register read */
        stl_le_p(p + 12, xl_read(s, ldl_le_p(p + 4) & (XL_BAR_SIZE - 4), 4));
        return AQ_OK;
    case 0x0207:                             /* ... write */
        xl_write(s, ldl_le_p(p + 4) & (XL_BAR_SIZE - 4), ldl_le_p(p + 12), 4);
        return AQ_OK;
    case 0xff03:                             /* debug: register read */
        stl_le_p(p + 8, 0);
        stl_le_p(p + 12, xl_read(s, ldl_le_p(p + 4) & (XL_BAR_SIZE - 4), 4));
        return AQ_OK;
    case 0x0210: case 0x0220: case 0x0230:   /* add VSI, PV, VEB */
        return AQ_ENOSPC;
    case 0x0211:                             /* update VSI */
        if (max < 96) {
            return AQ_EINVAL;
        }
        xl_vsi_update(s, buf);
        /* fall through */
    case 0x0212:                             /* get VSI */
        n = MIN(max, sizeof(s->vsi));
        memcpy(buf, s->vsi, n);
        stw_le_p(p, SEID_VSI);
        stw_le_p(p + 2, 0);
        stw_le_p(p + 4, 1);
        stw_le_p(p + 6, 0);
        *wlen = n;
        return AQ_OK;
    case 0x0250: case 0x0251:                /* add, remove MAC/VLAN */
        n = lduw_le_p(p);
        for (i = 0; i < n && (i + 1) * 16 <= max; i++) {
            xl_macvlan(s, op == 0x0250, buf + i * 16);
        }
        *wlen = i * 16;
        return AQ_OK;
    case 0x0254:                             /* promiscuous modes */
        v = lduw_le_p(p + 2);
        s->promisc = (s->promisc & ~v) | (lduw_le_p(p) & v);
        return AQ_OK;
    case 0x0407:                             /* VSI TC bandwidth */
    case 0x0408: case 0x040a:                /* query VSI bandwidth */
        n = MIN(max, op == 0x0408 ? 64 : 32);
        memset(buf, 0, n);
        if (n) {
            buf[0] = 1;                      /* TC 0 only */
        }
        *wlen = n;
        return AQ_OK;
    case 0x0600:                             /* get PHY abilities */
        n = MIN(max, 536);
        if (n < 24) {
            return AQ_EINVAL;
        }
        memset(buf, 0, n);
        stl_le_p(buf, 1u << 0x19);
        buf[4] = 0x10;
        buf[5] = 0x08 | 0x10;                /* link enabled, AN */
        *wlen = n;
        return AQ_OK;
    case 0x0601:                             /* set PHY config */
        xl_set_phy_down(s, !(p[5] & 0x08));
        return AQ_OK;
    case 0x0605:                             /* link restart */
        xl_set_phy_down(s, !(p[0] & 4));
        return AQ_OK;
    case 0x0607:                             /* get link status */
        xl_link_params(s, p);
        return AQ_OK;
    case 0x0701:                             /* NVM read */
        n = MIN(lduw_le_p(p + 2), max);
        for (i = 0; i < n; i++) {
            uint32_t o = (ldl_le_p(p + 4) & 0xffffff) + i;

            buf[i] = o / 2 < XL_NVM_WORDS ? s->nvm[o / 2] >> (8 * (o & 1)) : 0;
        }
        *wlen = n;
        return AQ_OK;
    case 0x0a07:                             /* CEE DCB config: LLDP is off */
    case 0x0a00:
        return AQ_EPERM;
    }
    if (!test_and_set_bit(op, s->aq_warned) && s->trace_unimp) {
        warn_report("i40e: unmodelled admin command 0x%04x", op);
    }
    return AQ_OK;
}

static void xl_asq(I40eState *s)
{
    PCIDevice *dev = PCI_DEVICE(s);
    uint32_t n = rg(s, R_ATQLEN) & 0x3ff, head = rg(s, R_ATQH);
    uint32_t tail = rg(s, R_ATQT);
    uint64_t ring = rg(s, R_ATQBAL) | (uint64_t)rg(s, R_ATQBAH) << 32;
    g_autofree uint8_t *buf = g_malloc0(XL_AQ_BUF);

    if (s->in_aq || !(rg(s, R_ATQLEN) & AQ_ENABLE) || head >= n || tail >= n) {
        return;
    }
    s->in_aq = true;
    while (head != tail) {
        uint8_t d[32], in[32];
        unsigned len, wlen = 0, rc;
        uint64_t addr = 0;
        uint16_t fl;

        pci_dma_read(dev, ring + head * 32, d, 32);
        memcpy(in, d, 32);
        fl = lduw_le_p(d);
        len = MIN(lduw_le_p(d + 4), XL_AQ_BUF);
        if (fl & 0x1000) {                   /* has a buffer */
            addr = (uint64_t)ldl_le_p(d + 24) << 32 | ldl_le_p(d + 28);
            pci_dma_read(dev, addr, buf, len);
        } else {
            len = 0;
        }
        rc = xl_aq_cmd(s, d, buf, len, &wlen);
        if (s->trace_aq) {
            fprintf(stderr, "i40e: AQ 0x%04x len %u -> %u\n",
                    lduw_le_p(in + 2), len, rc);
        }
        if (wlen) {
            pci_dma_write(dev, addr, buf, MIN(wlen, len));
        }
        stw_le_p(d, fl | 3 | (rc ? 4 : 0));
        stw_le_p(d + 6, rc);
        pci_dma_write(dev, ring + head * 32, d, 32);
        head = (head + 1) % n;
        wr(s, R_ATQH, head);
    }
    s->in_aq = false;
}

/* ----------------------------------------------------------- registers -- */

/* Registers that simply hold what was written (side effects handled apart) */
static const struct { uint32_t lo, hi; } xl_plain[] = {
    { 0x030000, 0x0387ff }, { 0x038800, 0x038803 }, { 0x03a000, 0x03ffff },
    { 0x044000, 0x0443ff }, { 0x06b400, 0x06b403 }, { 0x080000, 0x0804ff },
    { 0x083000, 0x0830ff }, { 0x085000, 0x0851ff }, { 0x088100, 0x0882ff },
    { 0x092400, 0x0926ff }, { 0x098000, 0x09c0ff }, { 0x0a0000, 0x0affff },
    { 0x0b6000, 0x0b61ff }, { 0x0b8000, 0x0b81ff }, { 0x0be000, 0x0be4ff },
    { 0x0c0000, 0x0c6fff }, { 0x0e4000, 0x0e65ff }, { 0x100000, 0x12a5ff },
    { 0x1c0000, 0x1c0bff }, { 0x1e0000, 0x1e4fff }, { 0x200000, 0x21ffff },
    { 0x240000, 0x246fff }, { 0x250000, 0x2703ff }, { 0x122000, 0x1225ff },
    { 0x300000, 0x390007 },
};

static bool xl_known(I40eState *s, hwaddr a, bool write, uint64_t v)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(xl_plain); i++) {
        if (a >= xl_plain[i].lo && a <= xl_plain[i].hi) {
            return true;
        }
    }
    if (!test_and_set_bit(a >> 2, s->warned) && s->trace_unimp) {
        warn_report("i40e: unmodelled register 0x%06" HWADDR_PRIx " %s 0x%"
                    PRIx64, a, write ? "written" : "read", v);
    }
    return false;
}

static void xl_nvm_init(I40eState *s)
{
    uint16_t sum = 0;
    int i;

    s->nvm[0x00] = 0x0040;                   /* control word: valid */
    s->nvm[0x15] = 0xfafa;
    s->nvm[0x17] = 0x0400;                   /* boot configuration pointer */
    s->nvm[0x18] = 0x6001;                   /* map version */
    s->nvm[0x19] = 0xffff;                   /* no wake-up */
    s->nvm[0x2d] = 0x0001;                   /* ETrack id */
    s->nvm[0x2e] = 0x8000;
    s->nvm[0x2f] = 0xffff;                   /* no VPD */
    s->nvm[0x3e] = 0xffff;                   /* no alternate RAM module */
    for (i = 0; i < XL_NVM_WORDS; i++) {
        sum += s->nvm[i];
    }
    s->nvm[0x3f] = 0xbaba - sum;
}

static void xl_reset_regs(I40eState *s)
{
    const uint8_t *m = s->conf.macaddr.a;
    uint32_t icr0 = s->icr0 & ICR0_GRST;
    unsigned i;

    memset(s->regs, 0, XL_BAR_SIZE);
    memset(s->txq, 0, sizeof(s->txq));
    memset(s->rxq, 0, sizeof(s->rxq));
    memset(s->sd, 0, sizeof(s->sd));
    bitmap_zero(s->tx_kick, XL_NQ);
    s->rx_enabled = 0;
    s->vec_pend = 0;
    s->icr0 = icr0;
    s->phy_down = false;
    xl_vsi_default(s);

    wr(s, R_GLNVM_ULD, 0xff);
    wr(s, R_GLNVM_GENS, 2 << 5 | 1);         /* 2k words of shadow RAM */
    wr(s, R_GLNVM_FLA, 1 << 6);              /* locked: not blank */
    for (i = 1; i < 4; i++) {
        wr(s, R_PRTGEN_CNF + i * 4, 1);      /* other ports: disabled */
    }
    wr(s, R_GLGEN_RSTCTL, 8);
    wr(s, R_GLPCI_CNF2, XL_NVEC << 2);
    wr(s, R_FUNC_RID, PCI_FUNC(PCI_DEVICE(s)->devfn));
    wr(s, R_LANTXOBJSZ, 7);                  /* 128 bytes */
    wr(s, R_LANRXOBJSZ, 5);                  /* 32 bytes */
    wr(s, R_LANQMAX, 1536);
    wr(s, R_FCOEFMAX, 8192);                 /* checked even without FCoE */
    wr(s, R_QALLOC, (XL_NQ - 1) << 16 | 1u << 31);
    wr(s, R_MSS, 0x00400000);
    wr(s, R_SAL, ldl_le_p(m));
    wr(s, R_SAH, 0x2600u << 16 | lduw_le_p(m + 4));
    wr(s, R_PRTTSYN_CTL0, 15 << 8);          /* time sync: not this function */
    for (i = 0; i < 64; i++) {
        wr(s, R_HASH_INSET + i * 8, xl_inset_default(i) >> 32);
        wr(s, R_HASH_INSET + i * 8 + 4, xl_inset_default(i));
    }
}

static uint64_t xl_read(void *opaque, hwaddr a, unsigned size)
{
    I40eState *s = opaque;
    uint32_t v;

    a &= ~3ull;
    if (!xl_known(s, a, false, 0)) {
        return 0;
    }
    v = rg(s, a);
    switch (a) {
    case R_ICR0:
        v = s->icr0 | (s->icr0 ? ICR0_INTEVENT : 0);
        s->icr0 = 0;
        return v;
    case R_GLNVM_SRCTL:
        return v | 1u << 31;                 /* done */
    case R_GLVFGEN_TIMER:
        return qemu_clock_get_us(QEMU_CLOCK_VIRTUAL);
    }
    return v;
}

static void xl_write(void *opaque, hwaddr a, uint64_t val, unsigned size)
{
    I40eState *s = opaque;
    uint32_t v = val, old;
    unsigned q;

    a &= ~3ull;
    if (!xl_known(s, a, true, val)) {
        return;
    }
    old = rg(s, a);

    if (a >= R_QTX_TAIL && a < R_QTX_TAIL + XL_NQ * 4) {
        q = (a - R_QTX_TAIL) / 4;
        wr(s, a, v & 0x1fff);
        set_bit(q, s->tx_kick);
        qemu_bh_schedule(s->tx_bh);
        return;
    }
    if (a >= R_QTX_ENA && a < R_QTX_ENA + XL_NQ * 4) {
        q = (a - R_QTX_ENA) / 4;
        wr(s, a, v & Q_REQ ? Q_REQ | Q_STAT : 0);
        if (v & ~old & Q_REQ) {
            wr(s, R_QTX_TAIL + q * 4, 0);
            xl_load_txq(s, q);
        }
        return;
    }
    if (a >= R_QRX_ENA && a < R_QRX_ENA + XL_NQ * 4) {
        q = (a - R_QRX_ENA) / 4;
        wr(s, a, v & Q_REQ ? Q_REQ | Q_STAT : 0);
        if (v & ~old & Q_REQ) {
            xl_load_rxq(s, q);
            s->rx_enabled++;
            qemu_flush_queued_packets(qemu_get_queue(s->nic));
        } else if (old & ~v & Q_REQ) {
            s->rx_enabled--;
        }
        return;
    }
    if (a >= R_DYN_CTLN && a < R_DYN_CTLN + (XL_NVEC - 1) * 4) {
        q = (a - R_DYN_CTLN) / 4 + 1;
        wr(s, a, xl_dyn_ctl(old, v));
        if (v & DYN_SWINT) {
            s->vec_pend |= 1ull << q;
        }
        xl_fire(s);
        return;
    }
    if (a >= 0x300000 && a < 0x380000) {     /* statistics */
        return;
    }
    if (a >= 0x266800 && a < 0x267000) {     /* GLQF_PCNT: write to clear */
        wr(s, a, 0);
        return;
    }

    switch (a) {
    case R_DYN_CTL0:
        wr(s, a, xl_dyn_ctl(old, v));
        if (v & DYN_SWINT) {
            s->icr0 |= ICR0_SWINT;
        }
        xl_fire(s);
        return;
    case R_ICR0_ENA:
        wr(s, a, v);
        xl_fire(s);
        return;
    case R_ICR0: case R_GLNVM_ULD: case R_GLNVM_GENS: case R_GLNVM_FLA:
    case R_GLNVM_SRDATA: case R_GLGEN_RSTAT: case R_GLPCI_CNF2:
    case R_QALLOC: case R_LANQMAX: case R_LANTXOBJSZ: case R_LANRXOBJSZ:
        return;
    case R_GLNVM_SRCTL:
        wr(s, a, v & 0x3fffffff);
        if (v & (1u << 30)) {
            uint32_t o = (v >> 14) & 0x7fff;

            wr(s, R_GLNVM_SRDATA,
               o < XL_NVM_WORDS ? (uint32_t)s->nvm[o] << 16 : 0);
        }
        return;
    case R_SDCMD:
        wr(s, a, v);
        if (v & (1u << 31)) {
            s->sd[v % XL_NSD] = rg(s, R_SDDATALOW) |
                                (uint64_t)rg(s, R_SDDATAHIGH) << 32;
        }
        return;
    case R_PFGEN_CTRL:
        if (v & 1) {                         /* function reset */
            xl_reset_regs(s);
            s->icr0 = 0;
        }
        return;
    case R_GLGEN_RTRIG:
        if (v & 7) {                         /* core, global, EMP reset */
            xl_raise0(s, ICR0_GRST);
            xl_reset_regs(s);
            wr(s, R_GLGEN_RSTAT, (v & 1 ? 1 : v & 2 ? 2 : 3) << 2);
        }
        return;
    case R_ATQT:
        wr(s, a, v);
        xl_asq(s);
        return;
    }
    wr(s, a, v);
}

static const MemoryRegionOps xl_ops = {
    .read = xl_read,
    .write = xl_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

/* -------------------------------------------------------------- device -- */

static void xl_link_changed(NetClientState *nc)
{
    xl_link_event(qemu_get_nic_opaque(nc));
}

static NetClientInfo xl_net_info = {
    .type = NET_CLIENT_DRIVER_NIC,
    .size = sizeof(NICState),
    .can_receive = xl_can_receive,
    .receive = xl_receive,
    .link_status_changed = xl_link_changed,
};

static void xl_realize(PCIDevice *d, Error **errp)
{
    I40eState *s = I40E(d);
    int i;

    pci_set_word(d->config + PCI_STATUS, PCI_STATUS_CAP_LIST);
    memory_region_init_io(&s->mmio, OBJECT(s), &xl_ops, s, "i40e-mmio",
                          XL_BAR_SIZE);
    pci_register_bar(d, 0, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64 |
                     PCI_BASE_ADDRESS_MEM_PREFETCH, &s->mmio);
    memory_region_init(&s->msix_bar, OBJECT(s), "i40e-msix", XL_MSIX_BAR_SZ);
    pci_register_bar(d, 3, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64 |
                     PCI_BASE_ADDRESS_MEM_PREFETCH, &s->msix_bar);
    if (pci_add_capability(d, PCI_CAP_ID_PM, 0x40, PCI_PM_SIZEOF, errp) < 0) {
        return;
    }
    pci_set_word(d->config + 0x42, 3);
    pci_set_word(d->wmask + 0x44, PCI_PM_CTRL_STATE_MASK);
    if (msix_init(d, XL_NVEC, &s->msix_bar, 3, 0, &s->msix_bar, 3, 0x1000,
                  0x70, errp) < 0) {
        return;
    }
    for (i = 0; i < XL_NVEC; i++) {
        msix_vector_use(d, i);
    }
    if (pcie_endpoint_cap_init(d, 0xa0) < 0) {
        error_setg(errp, "i40e: cannot add the PCIe capability");
        return;
    }

    s->regs = g_malloc0(XL_BAR_SIZE);
    s->warned = bitmap_new(XL_BAR_SIZE / 4);
    s->rxbuf = g_malloc0(XL_MAX_FRAME + 64);
    s->segbuf = g_malloc0(XL_MAX_FRAME + 256);
    s->tx_bh = qemu_bh_new_guarded(xl_tx_bh, s,
                                   &d->qdev.mem_reentrancy_guard);
    qemu_macaddr_default_if_unset(&s->conf.macaddr);
    xl_nvm_init(s);
    s->nic = qemu_new_nic(&xl_net_info, &s->conf,
                          object_get_typename(OBJECT(d)), d->qdev.id,
                          &d->qdev.mem_reentrancy_guard, s);
    qemu_format_nic_info_str(qemu_get_queue(s->nic), s->conf.macaddr.a);
}

static void xl_exit(PCIDevice *d)
{
    I40eState *s = I40E(d);
    int i;

    qemu_bh_delete(s->tx_bh);
    qemu_del_nic(s->nic);
    for (i = 0; i < XL_NQ; i++) {
        g_free(s->txbuf[i]);
    }
    g_free(s->rxbuf);
    g_free(s->segbuf);
    g_free(s->regs);
    g_free(s->warned);
    pcie_cap_exit(d);
    msix_unuse_all_vectors(d);
    msix_uninit(d, &s->msix_bar, &s->msix_bar);
}

static void xl_reset(DeviceState *dev)
{
    I40eState *s = I40E(dev);

    memcpy(s->lan_mac, s->conf.macaddr.a, 6);
    s->icr0 = 0;
    xl_reset_regs(s);
}

static Property xl_properties[] = {
    DEFINE_NIC_PROPERTIES(I40eState, conf),
    DEFINE_PROP_BOOL("trace-unimp", I40eState, trace_unimp, true),
    DEFINE_PROP_BOOL("trace-aq", I40eState, trace_aq, false),
    DEFINE_PROP_END_OF_LIST(),
};

static const VMStateDescription xl_vmstate = {
    .name = "i40e",
    .unmigratable = 1,
};

static void xl_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = xl_realize;
    k->exit = xl_exit;
    k->vendor_id = PCI_VENDOR_ID_INTEL;
    k->device_id = 0x1574;                   /* XL710 emulation */
    k->subsystem_vendor_id = PCI_VENDOR_ID_INTEL;
    k->subsystem_id = 0x0001;
    k->revision = 1;
    k->class_id = PCI_CLASS_NETWORK_ETHERNET;
    dc->reset = xl_reset;
    dc->vmsd = &xl_vmstate;
    dc->desc = "Intel XL710 40 GbE controller (minimal)";
    device_class_set_props(dc, xl_properties);
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
}

static const TypeInfo xl_type = {
    .name = TYPE_I40E,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(I40eState),
    .class_init = xl_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void xl_register(void)
{
    type_register_static(&xl_type);
}

type_init(xl_register)
