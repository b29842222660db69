/* Look a random 5-tuple of 4 Mi up in a hash map: what hash.c does, for BPF_PROG_TEST_RUN, which runs
 * one packet again and again. Map `flows`: to be made for 4 Mi entries and filled with them.
 */
#include "headers.h"

static __u32 (*const bpf_get_prandom_u32)(void) HELPER(7);

enum { FLOWS = 1 << 22 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u64);
} flows SEC(".maps");

SEC("xdp")
int xdp_drawn(struct xdp_md *ctx)
{
	struct flow flow;
	__u64 *packets;

	if (!parse(ctx, &flow))
		return XDP_ABORTED;
	flow.saddr = bpf_get_prandom_u32() & (FLOWS - 1);
	packets = bpf_map_lookup_elem(&flows, &flow);
	if (!packets)
		return XDP_PASS;
	++*packets;
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
