/* Drop what comes from blocked networks or goes to blocked ports; let the rest through.
 * Maps `blocked_ipv4`, `blocked_ipv6`: source networks, longest prefix first; `blocked_ports`:
 * destination port (network byte order) and protocol. Every value counts its hits.
 */
#include "tuple.h"

struct network4 {
	__u32 prefixlen;
	__be32 addr;
};

struct network6 {
	__u32 prefixlen;
	__be32 addr[4];
};

struct port {
	__be16 port;
	__u16 proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network4);
	__type(value, __u64);
} blocked_ipv4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network6);
	__type(value, __u64);
} blocked_ipv6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct port);
	__type(value, __u64);
} blocked_ports SEC(".maps");

static __inline __u64 *blocked_network(struct tuple *t)
{
	struct network4 ipv4 = { 32, t->saddr[0] };
	struct network6 ipv6 = { 128, { t->saddr[0], t->saddr[1], t->saddr[2], t->saddr[3] } };

	if (t->version == 4)
		return bpf_map_lookup_elem(&blocked_ipv4, &ipv4);
	return bpf_map_lookup_elem(&blocked_ipv6, &ipv6);
}

SEC("xdp")
int xdp_firewall(struct xdp_md *ctx)
{
	struct tuple t;
	__u64 *hits;

	switch (parse_tuple(ctx, &t)) {
	case NOT_IP:
		return XDP_PASS;
	case MALFORMED:
		return XDP_DROP;
	case PARSED:
		break;
	}
	hits = blocked_network(&t);
	if (!hits) {
		struct port port = { t.dport, t.proto };

		hits = bpf_map_lookup_elem(&blocked_ports, &port);
	}
	if (!hits)
		return XDP_PASS;
	__sync_fetch_and_add(hits, 1);
	return XDP_DROP;
}

char _license[] SEC("license") = "Apache-2.0";
