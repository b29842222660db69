/* Parse every packet down to its 5-tuple; drop a flow that talks to itself, let the others pass.
 */
#include "headers.h"

SEC("xdp")
int xdp_tuple(struct xdp_md *ctx)
{
	struct flow flow;

	if (!parse(ctx, &flow))
		return XDP_ABORTED;
	if (flow.saddr == flow.daddr && flow.sport == flow.dport)
		return XDP_DROP;
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
