/* Balance the connections to a virtual IPv4 address over real servers, by IP-in-IP.
 * A packet to a service keeps the server of its flow (`connections`); a new flow takes the server
 * that its hash finds on the service's ring (`ring`). The packet is wrapped in an IPv4 header
 * from `source` to the server and sent back out to the gateway. Fill in, in this order:
 * `gateway`, `reals`, `ring` (service * RING_SIZE + i to server), `services`.
 */
#include "tuple.h"

enum { RING_SIZE = 4099, MAX_SERVICES = 64, MAX_REALS = 1024 };

struct vip {
	__be32 addr;
	__be16 port;
	__u16 proto;
};

struct flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u32 proto;
};

struct gateway {
	__u8 mac[6];
	__u16 zero;
	__be32 source;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct vip);
	__type(value, __u32); /* number of the service */
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RING_SIZE *MAX_SERVICES);
	__type(key, __u32);
	__type(value, __u32); /* number of the real server */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u32); /* number of the real server */
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REALS);
	__type(key, __u32);
	__type(value, __be32); /* address */
} reals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gateway);
} gateway SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_REALS);
	__type(key, __u32);
	__type(value, struct counter);
} sent SEC(".maps");

static __inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x85ebca6b;
	return hash ^ hash >> 13;
}

static __inline __u32 hash_of(struct flow *flow)
{
	__u32 hash = mix(mix(0x9747b28c, flow->saddr), flow->daddr);

	hash = mix(hash, flow->sport | (__u32)flow->dport << 16) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* The real server of a flow; a new flow is remembered. */
static __inline __u32 *choose(struct flow *flow, __u32 service)
{
	__u32 *real = bpf_map_lookup_elem(&connections, flow);
	__u32 slot = service * RING_SIZE + hash_of(flow) % RING_SIZE;

	if (real)
		return real;
	real = bpf_map_lookup_elem(&ring, &slot);
	if (real)
		bpf_map_update_elem(&connections, flow, real, BPF_ANY);
	return real;
}

static __inline __u16 checksum(struct iphdr *ip)
{
	__u16 *words = (__u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Put an Ethernet and an IPv4 header before the packet's IPv4 header; the old Ethernet header
 * is overwritten.
 */
static __inline int encapsulate(struct xdp_md *ctx, struct gateway *gw, __be32 real, __u16 length)
{
	struct ethhdr *eth, *old;
	struct iphdr *ip;
	void *end;
	__u8 mac[6];

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*ip)))
		return XDP_DROP;
	eth = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = (void *)(eth + 1);
	old = (void *)eth + sizeof(*ip);
	if ((void *)(old + 1) > end || (void *)(ip + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(mac, old->h_dest, 6);
	__builtin_memcpy(eth->h_source, mac, 6);
	__builtin_memcpy(eth->h_dest, gw->mac, 6);
	eth->h_proto = bpf_htons(ETH_P_IP);
	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(length + sizeof(*ip)),
		.ttl = 64,
		.protocol = IPPROTO_IPIP,
		.saddr = gw->source,
		.daddr = real,
	};
	ip->check = checksum(ip);
	return XDP_TX;
}

static __inline void count(__u32 real, __u64 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(&sent, &real);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tuple t = {};
	__u64 bytes = end - data;
	__u32 *service, *real, first = 0;
	__be32 *addr;
	struct gateway *gw;
	__u16 length;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	length = bpf_ntohs(ip->tot_len);
	if (parse_ipv4(ip, end, &t) != PARSED || t.fragment)
		return XDP_PASS; /* the parts of a packet would go different ways */

	struct vip vip = { t.daddr[0], t.dport, t.proto };
	struct flow flow = { t.saddr[0], t.daddr[0], t.sport, t.dport, t.proto };

	service = bpf_map_lookup_elem(&services, &vip);
	if (!service)
		return XDP_PASS;
	real = choose(&flow, *service);
	if (!real)
		return XDP_DROP;
	addr = bpf_map_lookup_elem(&reals, real);
	gw = bpf_map_lookup_elem(&gateway, &first);
	if (!addr || !gw)
		return XDP_DROP;
	count(*real, bytes);
	return encapsulate(ctx, gw, *addr, length);
}

char _license[] SEC("license") = "Apache-2.0";
