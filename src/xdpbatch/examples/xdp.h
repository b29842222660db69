/* The little of the kernel's interface that the examples need, so that they compile on a machine
 * without linux/bpf.h and libbpf. Names and numbers are those of include/uapi/linux/bpf.h,
 * if_ether.h, ip.h, ipv6.h, tcp.h, udp.h and of libbpf's bpf_helpers.h.
 */
#ifndef XDP_H
#define XDP_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef __u16 __be16; /* network byte order */
typedef __u32 __be32;

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_DEVMAP = 14,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1 };

/* Declaring programs and maps. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) typeof(type) *name
#define __inline inline __attribute__((always_inline))

/* Helpers: a call of a constant address is a call of the helper with that number. */
#define HELPER(number) = (void *)number
static void *(*const bpf_map_lookup_elem)(const void *map, const void *key) HELPER(1);
static long (*const bpf_map_update_elem)(const void *map, const void *key, const void *value,
					 __u64 flags) HELPER(2);
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) HELPER(44);
static long (*const bpf_redirect_map)(const void *map, __u64 key, __u64 flags) HELPER(51);

/* Byte order: BPF objects of this runtime are little-endian. */
#define bpf_htons(x) ((__be16)__builtin_bswap16(x))
#define bpf_ntohs(x) ((__u16)__builtin_bswap16(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32(x))
#define bpf_ntohl(x) ((__u32)__builtin_bswap32(x))

/* Headers of packets. */
enum { ETH_P_IP = 0x0800, ETH_P_8021Q = 0x8100, ETH_P_IPV6 = 0x86DD, ETH_P_8021AD = 0x88A8 };
enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_IPIP = 4,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_DSTOPTS = 60,
};

struct ethhdr {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
};

struct vlan_hdr {
	__be16 tci;
	__be16 proto;
};

struct iphdr {
	__u8 ihl : 4;
	__u8 version : 4;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6hdr {
	__be32 flow;
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

struct ipv6_opt_hdr { /* hop-by-hop, routing and destination options; the fragment header too */
	__u8 nexthdr;
	__u8 hdrlen; /* in 8 bytes, not counting the first 8 */
	__be16 offset; /* of a fragment, in the upper 13 bits */
	__be32 id;
};

struct ports { /* the first four bytes of TCP and UDP */
	__be16 source;
	__be16 dest;
};

#endif
