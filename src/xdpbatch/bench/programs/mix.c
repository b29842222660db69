/* Send TCP back where it came from and drop the rest: a mix of actions, made by the traffic.
 */
#include "xdp.h"

SEC("xdp")
int xdp_mix(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end)
		return XDP_ABORTED;
	return ip->protocol == IPPROTO_TCP ? XDP_TX : XDP_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
