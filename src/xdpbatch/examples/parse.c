/* Parse every packet down to its 5-tuple and count what it is; drop what is malformed.
 * For a first look at what arrives on a link. Map `counters`: packets and bytes by enum class,
 * one copy per CPU.
 */
#include "tuple.h"

enum class {
	CLASS_MALFORMED,
	CLASS_NOT_IP,
	CLASS_IPV4_TCP,
	CLASS_IPV4_UDP,
	CLASS_IPV4_OTHER,
	CLASS_IPV6_TCP,
	CLASS_IPV6_UDP,
	CLASS_IPV6_OTHER,
	CLASS_FRAGMENT,
	CLASSES,
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLASSES);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __inline enum class classify(enum parsed parsed, struct tuple *t)
{
	enum class first = t->version == 6 ? CLASS_IPV6_TCP : CLASS_IPV4_TCP;

	if (parsed == MALFORMED)
		return CLASS_MALFORMED;
	if (parsed == NOT_IP)
		return CLASS_NOT_IP;
	if (t->fragment)
		return CLASS_FRAGMENT;
	return first + (t->proto == IPPROTO_TCP ? 0 : t->proto == IPPROTO_UDP ? 1 : 2);
}

SEC("xdp")
int xdp_parse(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tuple t;
	enum parsed parsed = parse_tuple(ctx, &t);
	__u32 key = classify(parsed, &t);
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);

	if (!counter)
		return XDP_ABORTED;
	counter->packets++;
	counter->bytes += end - data;
	return parsed == MALFORMED ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
