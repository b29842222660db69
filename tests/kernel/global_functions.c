/* Global functions, verified by their types: what starts with bad_ is refused, here and by Linux. */
#define __noinline __attribute__((noinline))

struct pair {
	int a, b;
	long c;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, int);
	__type(value, struct pair);
} pairs SEC(".maps");

__noinline int sum(struct pair *x, int n)
{
	if (!x)
		return n;
	x->c = n;
	return x->a + x->b;
}

__noinline int no_check(struct pair *x)
{
	return x->a;
}

__noinline int tagged(struct pair *x __attribute__((btf_decl_tag("arg:nonnull"))))
{
	return x->a + 1;
}

__noinline int load(struct xdp_md *ctx, long otherwise)
{
	char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	return data + 14 > end ? otherwise : data[12];
}

__noinline int move(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 4);
}

__noinline int unknown_size(void *p)
{
	return *(volatile long *)&p != 0;
}

__noinline struct pair *result(struct xdp_md *ctx)
{
	return (void *)(long)ctx->rx_queue_index;
}

__noinline int beyond(struct pair *x)
{
	return x ? ((int *)x)[4] : 0;
}

__noinline int nested(struct xdp_md *ctx, struct pair *x)
{
	return sum(x, 4) + load(ctx, 1);
}

SEC("xdp") int stack(struct xdp_md *ctx)
{
	struct pair x = {ctx->data_end - ctx->data, 2, 3};

	return sum(&x, 5) + load(ctx, x.c);
}

SEC("xdp") int map_value_or_null(struct xdp_md *ctx)
{
	int key = 1;

	return sum(bpf_map_lookup_elem(&pairs, &key), 3) + sum(0, 1);
}

SEC("xdp") int packet(struct xdp_md *ctx)
{
	char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	return data + 16 > end ? 1 : sum((void *)data, 2);
}

SEC("xdp") int two_deep(struct xdp_md *ctx)
{
	struct pair x = {ctx->rx_queue_index, 2, 3};

	return nested(ctx, &x);
}

SEC("xdp") int never_null(struct xdp_md *ctx)
{
	struct pair x = {ctx->rx_queue_index, 2, 3};

	return tagged(&x);
}

SEC("xdp") int bad_no_check(struct xdp_md *ctx)
{
	struct pair x = {ctx->rx_queue_index, 2, 3};

	return no_check(&x);
}

SEC("xdp") int bad_maybe_null(struct xdp_md *ctx)
{
	int key = ctx->rx_queue_index;

	return tagged(bpf_map_lookup_elem(&pairs, &key));
}

SEC("xdp") int bad_small(struct xdp_md *ctx)
{
	int x = ctx->rx_queue_index;

	return sum((void *)&x, 1);
}

SEC("xdp") int bad_packet(struct xdp_md *ctx)
{
	char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	return data + 15 > end ? 1 : sum((void *)data, 2);
}

SEC("xdp") int bad_after_move(struct xdp_md *ctx)
{
	char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 14 > end)
		return 1;
	return move(ctx) + data[3];
}

SEC("xdp") int bad_unknown_size(struct xdp_md *ctx)
{
	int x = ctx->rx_queue_index;

	return unknown_size(&x);
}

SEC("xdp") int bad_result(struct xdp_md *ctx)
{
	return result(ctx) != 0;
}

SEC("xdp") int bad_beyond(struct xdp_md *ctx)
{
	struct pair x = {ctx->rx_queue_index, 2, 3};

	return beyond(&x);
}

SEC("xdp") int bad_number(struct xdp_md *ctx)
{
	return sum((void *)(long)ctx->rx_queue_index, 2);
}
