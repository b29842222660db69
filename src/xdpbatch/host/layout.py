"""How a Host lies in memory: the structs that host.tables fills and native functions read.

Analogous to struct fib_info, fib_nh_common, neighbour, net_device and fib_rule, as far as lookups
need them. Addresses are in network order, IPv4 ones in the first 4 of 16 bytes.
"""

from __future__ import annotations

from xdpbatch.data.layout import Layout

TABLES = Layout(
    "HostTables",
    {
        "interfaces": "u64",  # maps: ifindex to INTERFACE,
        "neighbours": "u64",  # NEIGHBOUR_KEY to MAC,
        "prefixes4": "u64",  # PREFIX_KEY of 12 and of 24 bytes to PREFIX
        "prefixes6": "u64",
        "routes": "u64",  # arrays of ROUTE, HOP, RULE, ADDRESS, SOCKET
        "hops": "u64",
        "rules": "u64",
        "addresses": "u64",
        "sockets": "u64",
        "rule_count": "u32",
        "address_count": "u32",
        "socket_count": "u32",
        "custom4": "u32",  # whether there are other rules than those a namespace starts with
        "custom6": "u32",
        "default4": "u32",  # whether table 253 has routes
        "pad": "u64",
    },
    104,
)
INTERFACES, NEIGHBOURS, PREFIXES4, PREFIXES6 = 0, 8, 16, 24
ROUTES, HOPS, RULES, ADDRESSES, SOCKETS = 32, 40, 48, 56, 64
RULE_COUNT, ADDRESS_COUNT, SOCKET_COUNT, CUSTOM4, CUSTOM6, DEFAULT4 = 72, 76, 80, 84, 88, 92

INTERFACE = Layout(
    "HostInterface",
    {
        "mtu": "u32",
        "mtu6": "u32",
        "flags": "u32",
        "header": "u32",
        "mac": "u64",
        "table": "u32",
        "pad": "u32",
    },
    32,
)
IF_MTU, IF_MTU6, IF_FLAGS, IF_HEADER, IF_MAC, IF_TABLE = 0, 4, 8, 12, 16, 24
FORWARD4, FORWARD6, ONE_NEIGHBOUR = 1, 2, 4
SIZEOF_INTERFACE = 32

NEIGHBOUR_KEY = 24  # u32 family, u32 ifindex, address
PREFIX_KEY4, PREFIX_KEY6 = 12, 24  # u32 length, table in network order, address
TABLE_BITS = 32

PREFIX = Layout("HostPrefix", {"first": "u32", "count": "u32", "length": "u32", "pad": "u32"}, 16)
PREFIX_FIRST, PREFIX_COUNT, PREFIX_LENGTH = 0, 4, 8
SIZEOF_PREFIX = 16

ROUTE = Layout(
    "HostRoute",
    {
        "type": "u32",
        "tos": "u32",
        "metric": "u32",
        "mtu": "u32",
        "first_hop": "u32",
        "hops": "u32",
        "weight": "u32",
        "preference": "u32",  # 1 low, 2 medium, 3 high
    },
    32,
)
RT_TYPE, RT_TOS, RT_METRIC, RT_MTU, RT_FIRST_HOP, RT_HOPS, RT_WEIGHT = 0, 4, 8, 12, 16, 20, 24
RT_PREFERENCE = 28
SIZEOF_ROUTE = 32

HOP = Layout(
    "HostHop",
    {
        "ifindex": "u32",
        "flags": "u32",
        "upper": "u32",  # sum of the weights up to this one; a dead one adds none
        "family": "u32",  # of the gateway, 0: none
        "gateway0": "u64",
        "gateway1": "u64",
        "source0": "u64",  # for BPF_FIB_LOOKUP_SRC
        "source1": "u64",
    },
    48,
)
HOP_IFINDEX, HOP_FLAGS, HOP_UPPER, HOP_FAMILY, HOP_GATEWAY, HOP_SOURCE = 0, 4, 8, 12, 16, 32
DEAD, ENCAP, HAS_SOURCE = 1, 2, 4
SIZEOF_HOP = 48

RULE = Layout(
    "HostRule",
    {
        "family": "u32",
        "table": "u32",
        "action": "u32",
        "flags": "u32",
        "iif": "u32",
        "oif": "u32",
        "tos": "u32",
        "mark": "u32",
        "mask": "u32",
        "protocol": "u32",
        "sports": "u32",  # first | last << 16, 0: all
        "dports": "u32",
        "source_bits": "u32",
        "destination_bits": "u32",
        "source0": "u64",
        "source1": "u64",
        "destination0": "u64",
        "destination1": "u64",
        "pad": "u64",
    },
    96,
)
RULE_FAMILY, RULE_TABLE, RULE_ACTION, RULE_FLAGS, RULE_IIF, RULE_OIF = 0, 4, 8, 12, 16, 20
RULE_TOS, RULE_MARK, RULE_MASK, RULE_PROTOCOL, RULE_SPORTS, RULE_DPORTS = 24, 28, 32, 36, 40, 44
RULE_SOURCE_BITS, RULE_DESTINATION_BITS, RULE_SOURCE, RULE_DESTINATION = 48, 52, 56, 72
INVERTED, L3MDEV = 1, 2
SIZEOF_RULE = 96

ADDRESS = Layout(
    "HostAddress", {"ifindex": "u32", "prefix": "u32", "address0": "u64", "address1": "u64"}, 24
)
ADDRESS_IFINDEX, ADDRESS_PREFIX, ADDRESS_BYTES = 0, 4, 8
SIZEOF_ADDRESS = 24

# struct bpf_sock (include/uapi/linux/bpf.h) as a program reads it, then what lookups need
SOCKET = Layout(
    "HostSocket",
    {
        "bound_dev_if": "u32",
        "family": "u32",
        "type": "u32",
        "protocol": "u32",
        "mark": "u32",
        "priority": "u32",
        "src_ip4": "u32",
        **{f"src_ip6{i}": "u32" for i in range(4)},
        "src_port": "u32",  # host order
        "dst_port": "u16",  # network order
        "pad": "u16",
        "dst_ip4": "u32",
        **{f"dst_ip6{i}": "u32" for i in range(4)},
        "state": "u32",
        "rx_queue_mapping": "u32",
        "only6": "u32",
        "wild": "u32",  # not bound to an address
        "four": "u32",  # takes IPv4 packets
        "connected": "u32",
    },
    96,
)
SK_DEVICE, SK_FAMILY, SK_PROTOCOL, SK_SRC_IP4, SK_SRC_IP6, SK_SRC_PORT = 0, 4, 12, 24, 28, 44
SK_DST_PORT, SK_DST_IP4, SK_DST_IP6, SK_STATE = 48, 52, 56, 72
SK_ONLY6, SK_WILD, SK_FOUR, SK_CONNECTED = 80, 84, 88, 92
SIZEOF_BPF_SOCK, SIZEOF_SOCKET = 80, 96
