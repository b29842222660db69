/* The 5-tuple of a TCP or UDP packet over IPv4, options and fragments allowed for. */
#ifndef HEADERS_H
#define HEADERS_H

#include "xdp.h"

struct flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u32 proto;
};

/* Fill in `flow`; 0 if the packet has no 5-tuple. */
static __inline int parse(struct xdp_md *ctx, struct flow *flow)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ports *ports;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if (ip->ihl < 5 || ip->frag_off & bpf_htons(0x1fff))
		return 0;
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP)
		return 0;
	ports = (void *)ip + ip->ihl * 4;
	if ((void *)(ports + 1) > end)
		return 0;
	*flow = (struct flow){ ip->saddr, ip->daddr, ports->source, ports->dest, ip->protocol };
	return 1;
}

#endif
