/* The 5-tuple of a packet: Ethernet, up to two VLAN tags, IPv4 or IPv6 with extension headers,
 * TCP or UDP. Shared by the examples that look at flows.
 */
#ifndef TUPLE_H
#define TUPLE_H

#include "xdp.h"

struct tuple { /* an IPv4 address is in the first word, the others are 0 */
	__be32 saddr[4];
	__be32 daddr[4];
	__be16 sport; /* 0 unless it is TCP or UDP, and not a later fragment */
	__be16 dport;
	__u8 proto;
	__u8 version; /* 4 or 6 */
	__u16 fragment; /* 1 for any fragment */
};

enum parsed { PARSED, NOT_IP, MALFORMED };

/* The type and place of what follows the Ethernet header and VLAN tags; 0 if it is cut off. */
static __inline __be16 parse_ethernet(void **at, void *end)
{
	struct ethhdr *eth = *at;
	__be16 proto;

	if ((void *)(eth + 1) > end)
		return 0;
	proto = eth->h_proto;
	*at = eth + 1;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan_hdr *vlan = *at;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return 0;
		proto = vlan->proto;
		*at = vlan + 1;
	}
	return proto;
}

static __inline enum parsed parse_ports(void *at, void *end, struct tuple *t)
{
	struct ports *ports = at;

	if (t->proto != IPPROTO_TCP && t->proto != IPPROTO_UDP)
		return PARSED;
	if ((void *)(ports + 1) > end)
		return MALFORMED;
	t->sport = ports->source;
	t->dport = ports->dest;
	return PARSED;
}

static __inline enum parsed parse_ipv4(void *at, void *end, struct tuple *t)
{
	struct iphdr *ip = at;
	__u32 length;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return MALFORMED;
	length = ip->ihl * 4;
	t->version = 4;
	t->proto = ip->protocol;
	t->saddr[0] = ip->saddr;
	t->daddr[0] = ip->daddr;
	t->fragment = !!(ip->frag_off & bpf_htons(0x3fff));
	if (ip->frag_off & bpf_htons(0x1fff))
		return PARSED; /* a later fragment has no ports */
	return parse_ports(at + length, end, t);
}

static __inline enum parsed parse_ipv6(void *at, void *end, struct tuple *t)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end)
		return MALFORMED;
	t->version = 6;
	t->proto = ip->nexthdr;
	__builtin_memcpy(t->saddr, ip->saddr, sizeof(t->saddr));
	__builtin_memcpy(t->daddr, ip->daddr, sizeof(t->daddr));
	at = ip + 1;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct ipv6_opt_hdr *option = at;

		if (t->proto != IPPROTO_HOPOPTS && t->proto != IPPROTO_ROUTING &&
		    t->proto != IPPROTO_DSTOPTS && t->proto != IPPROTO_FRAGMENT)
			break;
		if ((void *)(option + 1) > end)
			return MALFORMED;
		if (t->proto == IPPROTO_FRAGMENT) {
			t->fragment = 1;
			t->proto = option->nexthdr;
			if (option->offset & bpf_htons(0xfff8))
				return PARSED;
			at = option + 1;
		} else {
			t->proto = option->nexthdr;
			at += (option->hdrlen + 1) * 8;
		}
	}
	return parse_ports(at, end, t);
}

/* Fill in `t` from the packet. */
static __inline enum parsed parse_tuple(struct xdp_md *ctx, struct tuple *t)
{
	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 proto = parse_ethernet(&at, end);

	__builtin_memset(t, 0, sizeof(*t));
	if (proto == bpf_htons(ETH_P_IP))
		return parse_ipv4(at, end, t);
	if (proto == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(at, end, t);
	return proto ? NOT_IP : MALFORMED;
}

#endif
