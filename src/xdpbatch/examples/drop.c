/* Drop every packet. The program of the slides, and the upper bound of any benchmark.
 */
#include "xdp.h"

SEC("xdp")
int xdp_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
