/* Let every packet through. What a runtime or driver costs without any program's work.
 */
#include "xdp.h"

SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
