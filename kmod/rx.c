// SPDX-License-Identifier: GPL-2.0
/*
 * From a frame in a chunk to a packet in the stack. Runs in our NAPI only.
 *
 * The NIC's owner could have lied about the frame (rings), and an application
 * with a writable mapping could change it under our hands. So the headers are
 * copied once, and only the copy is looked at. It must be a plain TCP segment
 * to a port that the binding names; everything else should have been passed to
 * the stack by the XDP program and is dropped here, with a reason.
 *
 * The packet's head holds exactly the headers, without tailroom: TCP moves
 * small payloads into tailroom (skb_condense(), skb_try_coalesce()), which
 * would copy them and lose the chunk. The payload is a page fragment.
 *
 * Payload is copied out of the pool, and the chunk used again at once, when
 * nobody may keep it: the flow is not attached to this queue (its reader might
 * never come), or too few chunks are left to keep the NIC going. Such a copy is
 * put into a page that tells stream.c the reason.
 */
#include <linux/etherdevice.h>
#include <linux/net.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>

#include "internal.h"
#include "trace.h"

/* page->private of pages with copies, and so the reason; nobody else's can have such a value. */
static const char rx_unattached, rx_lowwater;

/* A head with its struct skb_shared_info, or a copy of a small payload. */
#define RX_PIECE_SIZE	   512
#define RX_PIECES_PER_PAGE (PAGE_SIZE / RX_PIECE_SIZE)

/*
 * Of what the peer chooses. The table of flows, the packet and thereby GRO use
 * the same. Multilinear hashing: with random keys no two flows are alike more
 * often than by chance, however they are chosen (D. Lemire, O. Kaser, "Strongly
 * universal string hashing is fast", The Computer Journal 57, 2014). A quarter of
 * jhash2()'s instructions.
 */
static u32 rx_hash(const struct paste_flow *flow)
{
	static u64 keys[6] __read_mostly;
	const u32 *remote = (__force const u32 *)flow->remote.s6_addr32;
	u64 sum;

	net_get_random_once(keys, sizeof(keys));
	sum = keys[0] + keys[1] * remote[0] + keys[2] * remote[1] + keys[3] * remote[2] +
	      keys[4] * remote[3];
	sum += keys[5] * ((__force u32)flow->remote_port << 16 | (__force u32)flow->local_port);
	return sum >> 32;
}

static u32 rx_flow_hash(const void *flow, u32 len, u32 seed)
{
	return ((const struct paste_flow *)flow)->hash ^ seed;
}

/* memcmp() goes by bytes. */
static int rx_flow_differs(struct rhashtable_compare_arg *arg, const void *conn)
{
	const u64 *a = arg->key, *b = (const u64 *)&((const struct paste_conn *)conn)->flow;
	u64 bits = 0;
	u32 i;

	for (i = 0; i < sizeof(struct paste_flow) / sizeof(u64); i++)
		bits |= a[i] ^ b[i];
	return bits != 0;
}

static const struct rhashtable_params rx_flow_params = {
	.key_len = sizeof(struct paste_flow),
	.key_offset = offsetof(struct paste_conn, flow),
	.head_offset = offsetof(struct paste_conn, flow_node),
	.hashfn = rx_flow_hash,
	.obj_cmpfn = rx_flow_differs,
	.automatic_shrinking = true,
};

int paste_rx_init_flows(struct paste_queue *q)
{
	BUILD_BUG_ON(sizeof(struct paste_flow) != 48); /* hashed as a whole: no padding */
	return rhashtable_init(&q->flows, &rx_flow_params);
}

void paste_rx_flow_of(const struct sock *sk, struct paste_flow *flow)
{
	memset(flow, 0, sizeof(*flow));
	if (sk->sk_family == AF_INET6) {
		flow->remote = sk->sk_v6_daddr;
		flow->local = sk->sk_v6_rcv_saddr;
	} else {
		ipv6_addr_set_v4mapped(sk->sk_daddr, &flow->remote);
		ipv6_addr_set_v4mapped(sk->sk_rcv_saddr, &flow->local);
	}
	flow->remote_port = sk->sk_dport;
	flow->local_port = htons(sk->sk_num);
	flow->net = sock_net(sk);
	flow->hash = rx_hash(flow);
}

int paste_rx_add_flow(struct paste_conn *c)
{
	int err = rhashtable_lookup_insert_fast(&c->q->flows, &c->flow_node, rx_flow_params);

	if (!err)
		atomic64_inc(&paste_made[PASTE_OBJ_FLOW]);
	return err;
}

void paste_rx_del_flow(struct paste_conn *c)
{
	rhashtable_remove_fast(&c->q->flows, &c->flow_node, rx_flow_params);
	atomic64_inc(&paste_gone[PASTE_OBJ_FLOW]);
}

/* PASTE_STAT_COPY_* if this payload is in one of our copies, else 0. */
u32 paste_rx_copy_reason(const void *data)
{
	unsigned long private = READ_ONCE(virt_to_page(data)->private);

	if (private == (unsigned long)&rx_unattached)
		return PASTE_STAT_COPY_PREATTACH;
	if (private == (unsigned long)&rx_lowwater)
		return PASTE_STAT_COPY_LOWWATER;
	return 0;
}

/* The packet's truesize is the whole chunk: what a socket that does not read it keeps from us. */
static void rx_add_chunk(struct paste_queue *q, struct sk_buff *skb, const u8 *payload, u32 len)
{
	skb_add_rx_frag(skb, 0, virt_to_page(payload), offset_in_page(payload), len,
			q->slice->pool->chunk_size);
	/* user space may see it change: nobody may rely on its content, or decrypt in place */
	skb_shinfo(skb)->flags |= SKBFL_SHARED_FRAG;
}

/*
 * Memory for a head or a copy. A page of pieces is used again when no packet
 * refers to it any more; else it is left to those that do, and another takes its
 * place. So packets that are read soon cost no allocation (of pages that many
 * kernels clear first), and those that are not keep nobody waiting. The pages'
 * private is always the same.
 */
static void *rx_take_piece(struct paste_pieces *p, const char *private)
{
	u32 i = p->next % RX_PIECES_PER_PAGE;
	struct page **page = &p->pages[p->next / RX_PIECES_PER_PAGE % PASTE_PIECE_PAGES];
	struct page *fresh;

	/* acquire: who gave a piece back is done with it */
	if (!i && (!*page || atomic_read_acquire(&(*page)->_refcount) != 1)) {
		fresh = alloc_page(GFP_ATOMIC | __GFP_NOWARN);
		if (!fresh)
			return NULL;
		set_page_private(fresh, (unsigned long)private);
		if (*page)
			put_page(*page);
		*page = fresh;
	}
	p->next++;
	get_page(*page); /* the packet's */
	return page_address(*page) + i * RX_PIECE_SIZE;
}

static void rx_free_pages(struct paste_pieces *p)
{
	u32 i;

	for (i = 0; i < PASTE_PIECE_PAGES; i++)
		if (p->pages[i])
			put_page(p->pages[i]);
}

void paste_rx_free_pieces(struct paste_inlet *in)
{
	rx_free_pages(&in->heads);
	rx_free_pages(&in->copies);
}

/*
 * What comes before a connection is attached is often a small request: into a
 * piece. These pages tell one reason only; the other's payloads are seldom small.
 */
static bool rx_add_copy(struct paste_inlet *in, struct sk_buff *skb, const u8 *payload, u32 len,
			u32 place)
{
	const char *why = place == PASTE_STAT_RX_UNATTACHED ? &rx_unattached : &rx_lowwater;
	bool small = len <= RX_PIECE_SIZE && why == &rx_unattached;
	struct page *page;
	void *copy;

	if (small) {
		copy = rx_take_piece(&in->copies, why);
	} else {
		page = dev_alloc_page();
		if (page)
			set_page_private(page, (unsigned long)why);
		copy = page ? page_address(page) : NULL;
	}
	if (!copy)
		return false;
	memcpy(copy, payload, len);
	skb_add_rx_frag(skb, 0, virt_to_page(copy), offset_in_page(copy), len,
			small ? RX_PIECE_SIZE : PAGE_SIZE);
	return true;
}

static struct sk_buff *rx_build_head(struct paste_inlet *in, const struct paste_frame *h)
{
	void *head = rx_take_piece(&in->heads, NULL);
	struct sk_buff *skb;

	BUILD_BUG_ON(SKB_WITH_OVERHEAD(RX_PIECE_SIZE) < PASTE_FRAME_HDR_MAX);
	if (!head)
		return NULL;
	skb = napi_build_skb(head, RX_PIECE_SIZE);
	if (!skb) {
		skb_free_frag(head);
		return NULL;
	}
	skb_reserve(skb, skb_tailroom(skb) - h->hdr_len); /* see the file's head */
	memcpy(skb_put(skb, h->hdr_len), h->raw, h->hdr_len);
	skb_set_hash(skb, h->flow.hash, PKT_HASH_TYPE_L4); /* GRO has buckets by hash */
	return skb;
}

/*
 * Where the payload goes: a PASTE_STAT_RX_* that says so. When it stays in the
 * chunk, the packet's reference to the page is taken before the chunk leaves
 * LENT: from then on it may be tested for being idle.
 */
static u32 rx_place(struct paste_queue *q, const struct paste_frame *h, const u8 *payload, u32 i)
{
	struct paste_slice *slice = q->slice;
	bool low;

	if (h->len == h->hdr_len)
		return PASTE_STAT_RX_BARE;
	if (!rhashtable_lookup(&q->flows, &h->flow, rx_flow_params))
		return PASTE_STAT_RX_UNATTACHED;
	spin_lock(&slice->lock);
	low = paste_chunks_low(&slice->t, slice->low);
	if (!low) {
		get_page(virt_to_page(payload));
		paste_chunk_arrive(&slice->t, i);
	}
	spin_unlock(&slice->lock);
	return low ? PASTE_STAT_RX_LOWWATER : PASTE_STAT_RX_BYREF;
}

void paste_rx_flush(struct paste_inlet *in)
{
	netif_receive_skb_list(&in->direct);
	INIT_LIST_HEAD(&in->direct);
}

/*
 * GRO merges full segments of a flow. A segment that ends a message, or has no
 * payload, is one that it passes on at once, with what it has of the flow: if
 * it has nothing, the whole way through it is for nothing. So such packets go
 * directly into the stack, until the first one that is for GRO; then all go
 * there, so that none overtakes another.
 */
static void rx_receive(struct paste_inlet *in, const struct paste_frame *h, struct sk_buff *skb)
{
	if (!in->in_gro && (h->len == h->hdr_len || paste_frame_tcp(h)->psh)) {
		list_add_tail(&skb->list, &in->direct);
		return;
	}
	if (!in->in_gro)
		paste_rx_flush(in);
	in->in_gro = true;
	napi_gro_receive(in->napi, skb);
}

/*
 * What NICs do, and ixgbe and i40e do not tell of frames that are redirected.
 * The stack would do it as well, but more slowly. A wrong checksum is left to
 * it to find again and count. IPv4's pseudo header has the same sum as that of
 * the v4-mapped addresses.
 */
static void rx_verify(struct sk_buff *skb, const struct paste_frame *h, const u8 *payload)
{
	const struct paste_flow *flow = &h->flow;
	__wsum sum = csum_partial(paste_frame_tcp(h), h->hdr_len - h->tcp_off, 0);

	if (h->len > h->hdr_len)
		sum = csum_partial(payload, h->len - h->hdr_len, sum);
	if (!csum_ipv6_magic(&flow->remote, &flow->local, h->len - h->tcp_off, IPPROTO_TCP, sum))
		skb->ip_summed = CHECKSUM_UNNECESSARY;
}

static u32 rx_inject(struct paste_inlet *in, const struct paste_frame *h, const u8 *data, u32 i)
{
	struct sk_buff *skb = rx_build_head(in, h);
	struct paste_queue *q = in->q;
	const u8 *payload = data + h->hdr_len;
	u32 len = h->len - h->hdr_len;
	u32 place;

	if (!skb)
		return PASTE_STAT_RX_DROP_NOMEM;
	place = rx_place(q, h, payload, i);
	if (place == PASTE_STAT_RX_BYREF) {
		rx_add_chunk(q, skb, payload, len);
	} else if (place != PASTE_STAT_RX_BARE && !rx_add_copy(in, skb, payload, len, place)) {
		kfree_skb(skb);
		return PASTE_STAT_RX_DROP_NOMEM;
	}
	skb->protocol = eth_type_trans(skb, in->dev);
	skb_record_rx_queue(skb, q->nic_queue);
	rx_verify(skb, h, payload);
	rx_receive(in, h, skb);
	return place;
}

/*
 * A frame of len bytes at off in chunk i of the slice, which is LENT and inside
 * of which it lies. It is OUT or FREE afterwards.
 */
void paste_rx_frame(struct paste_inlet *in, u32 i, u32 off, u32 len)
{
	struct paste_queue *q = in->q;
	struct paste_slice *slice = q->slice;
	const u8 *data = paste_chunk_addr(slice->pool, slice->first + i) + off;
	struct paste_frame h; /* not cleared: paste_frame_parse() looks only at what was copied */
	u32 stat;

	BUILD_BUG_ON(PASTE_FRAME_FRAGMENT != (IP_MF | IP_OFFSET));
	h.flow.net = dev_net(in->dev);
	memcpy(h.raw, data, min_t(u32, len, PASTE_FRAME_HDR_MAX));
	if (!paste_frame_parse(&h, len)) {
		stat = PASTE_STAT_RX_DROP_HEADER;
	} else if (!test_bit(ntohs(h.flow.local_port), in->ports)) {
		stat = PASTE_STAT_RX_DROP_PORT;
	} else {
		h.flow.hash = rx_hash(&h.flow);
		stat = rx_inject(in, &h, data, i);
	}
	if (stat != PASTE_STAT_RX_BYREF) {
		spin_lock(&slice->lock);
		paste_chunk_untake(&slice->t, i);
		spin_unlock(&slice->lock);
	}
	paste_stat_inc(q, stat);
	trace_paste_frame(q->id, slice->first + i, len, stat);
}
