/* Send every packet out of interface 2.
 */
#include "xdp.h"

static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) HELPER(23);

SEC("xdp")
int xdp_out(struct xdp_md *ctx)
{
	return bpf_redirect(2, 0);
}

char _license[] SEC("license") = "Apache-2.0";
