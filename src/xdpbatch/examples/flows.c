/* Count packets and bytes of every flow; let everything through.
 * Map `flows`: 5-tuple to counters, the least recently seen flow makes room for a new one.
 */
#include "tuple.h"

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct counter);
} flows SEC(".maps");

SEC("xdp")
int xdp_flows(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tuple t;
	__u64 bytes = end - data;
	struct counter first = { 1, bytes }, *counter;

	if (parse_tuple(ctx, &t) != PARSED)
		return XDP_PASS;
	counter = bpf_map_lookup_elem(&flows, &t);
	if (!counter) {
		bpf_map_update_elem(&flows, &t, &first, BPF_ANY);
		return XDP_PASS;
	}
	__sync_fetch_and_add(&counter->packets, 1);
	__sync_fetch_and_add(&counter->bytes, bytes);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
