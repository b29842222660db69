/* Forward packets between ports by destination MAC address, as a switch with a fixed table.
 * Map `macs`: address to port; `ports`: port to interface. An address that is not in the table
 * goes to port 0, the uplink; a port without an interface leaves the packet to the stack.
 */
#include "xdp.h"

struct mac {
	__u8 addr[6];
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct mac);
	__type(value, __u32);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

SEC("xdp")
int xdp_redirect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct mac mac = {};
	__u32 *port;

	if ((void *)(eth + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(mac.addr, eth->h_dest, 6);
	port = bpf_map_lookup_elem(&macs, &mac);
	return bpf_redirect_map(&ports, port ? *port : 0, XDP_PASS);
}

char _license[] SEC("license") = "Apache-2.0";
