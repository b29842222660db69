/* Parse every packet and look its 5-tuple up in a hash map; drop what is there.
 * Map `flows`: 5-tuple to how many packets of it were dropped.
 */
#include "headers.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u64);
} flows SEC(".maps");

SEC("xdp")
int xdp_hash(struct xdp_md *ctx)
{
	struct flow flow;
	__u64 *packets;

	if (!parse(ctx, &flow))
		return XDP_ABORTED;
	packets = bpf_map_lookup_elem(&flows, &flow);
	if (!packets)
		return XDP_PASS;
	++*packets;
	return XDP_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
