/* Read a byte of every packet and drop it: what a first look at memory costs.
 */
#include "xdp.h"

SEC("xdp")
int xdp_read(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return XDP_ABORTED;
	return eth->h_dest[0] == 0xff ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
