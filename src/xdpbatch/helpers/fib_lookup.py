"""bpf_fib_lookup(ctx, params, plen, flags): the next hop of a packet, by the host's routes and
neighbours (net/core/filter.c, bpf_ipv4_fib_lookup and bpf_ipv6_fib_lookup).

`params` is a struct bpf_fib_lookup. Without a host -ENODEV: no interface is known. Which of several
hops a packet takes depends on a hash, whose key Linux keeps secret.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_HOST
from xdpbatch.data.packet import signed32
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host import AF_INET, AF_INET6, MAIN, RouteType
from xdpbatch.host.devices import interface, neighbour
from xdpbatch.host.fib import (
    DESTINATION,
    DMAC,
    ERROR_TYPES,
    FAMILY,
    FIRST_ERROR,
    IFINDEX,
    LAST_ERROR,
    LOOPBACK,
    MARK,
    NOT_FWDED,
    RT_METRIC_RESULT,
    SIZEOF_FIB_LOOKUP,
    SMAC,
    SOURCE,
    TBID,
    TOT_LEN,
    VLAN_PROTO,
    hop_of,
    in_table,
    route_for,
    tos_of,
    usable,
    weighted,
)
from xdpbatch.host.layout import (
    ENCAP,
    FORWARD4,
    FORWARD6,
    HAS_SOURCE,
    HOP_FAMILY,
    HOP_FLAGS,
    HOP_GATEWAY,
    HOP_IFINDEX,
    HOP_SOURCE,
    IF_FLAGS,
    IF_MAC,
    IF_MTU,
    IF_MTU6,
    IF_TABLE,
    ONE_NEIGHBOUR,
    RT_HOPS,
    RT_METRIC,
    RT_MTU,
    RT_TYPE,
)
from xdpbatch.host.source import LINK, scope_of, source_for
from xdpbatch.maps.hashing import hash_key
from xdpbatch.mem import copy, load8, load16, load32, load64, store8, store16, store32
from xdpbatch.native import native

EINVAL, ENODEV, EAFNOSUPPORT = errno.EINVAL, errno.ENODEV, errno.EAFNOSUPPORT
INET, INET6 = AF_INET, AF_INET6
MAIN_TABLE, UNICAST = MAIN, int(RouteType.UNICAST)
DIRECT, OUTPUT, SKIP_NEIGH, BY_TABLE, SRC, MARKED = 1, 2, 4, 8, 16, 32
FWD_DISABLED, UNSUPP_LWT, NO_NEIGH, FRAG_NEEDED, NO_SRC_ADDR = 5, 6, 7, 8, 9
ALL_FLAGS = DIRECT | OUTPUT | SKIP_NEIGH | BY_TABLE | SRC | MARKED
IPV6_MIN_MTU, IP_MAX_MTU, IP6_MAX_MTU = 1280, 0xFFFF, 0xFFFF + 40


@native
def never_forwarded(address: int) -> int:
    """1 for multicast, link-local and loopback IPv6 addresses: rt6_need_strict()."""
    return int(load8(address) == 0xFF or scope_of(address) == LINK)


@native
def find_route(buff: int, params: int, size: int, flags: int, vrf: int) -> int:
    """The route, 0 or the negative code of the error that it stands for."""
    iif, oif = load32(params + IFINDEX), 0
    if flags & OUTPUT != 0:
        iif, oif = LOOPBACK, load32(params + IFINDEX)
    if flags & DIRECT == 0:
        mark = 0
        if flags & MARKED != 0:
            mark = load32(params + MARK)
        return route_for(buff, params, size, iif, oif, mark, vrf)
    table = MAIN_TABLE
    if vrf != 0:
        table = vrf
    if flags & BY_TABLE != 0:
        table = load32(params + TBID)
        store32(params + TBID, 0)
        if table == 0:
            table = MAIN_TABLE
    if size != 4 and oif == 0:
        oif = iif
    return in_table(buff, size, table, params + DESTINATION, tos_of(params), oif)


@native
def find_hop(buff: int, params: int, size: int, flags: int, route: int) -> int:
    """Which of the route's hops the packet takes."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    if load32(route + RT_HOPS) == 1:
        return hop_of(host, route, 0)
    if flags & OUTPUT != 0:
        if size == 4:
            return usable(host, route, load32(params + IFINDEX))
        hop = usable(host, route, load32(params + IFINDEX))
        if hop != 0:
            return hop
        return usable(host, route, 0)
    seed = hash_key(params + DESTINATION, size, 0)
    return weighted(host, route, hash_key(params + SOURCE, size, seed))


@native
def mtu_of(route: int, device: int, size: int) -> int:
    """The MTU that counts: the route's if it is locked, else the interface's."""
    if load32(route + RT_MTU) != 0:
        return load32(route + RT_MTU)
    if size == 4:
        return min(load32(device + IF_MTU), IP_MAX_MTU)
    return max(min(load32(device + IF_MTU6), IP6_MAX_MTU), IPV6_MIN_MTU)


@native
def set_source(buff: int, params: int, size: int, hop: int, destination: int) -> int:
    """BPF_FIB_LOOKUP_SRC: 0, or the code for want of an address."""
    if load32(hop + HOP_FLAGS) & HAS_SOURCE != 0 or size == 4:
        copy(params + SOURCE, hop + HOP_SOURCE, size)
        return 0
    found = source_for(buff, destination, load32(hop + HOP_IFINDEX))
    if found == 0:
        return NO_SRC_ADDR
    copy(params + SOURCE, found, size)
    return 0


@native
def set_macs(buff: int, params: int, size: int, family: int, device: int) -> int:
    """Both MACs, or NO_NEIGH. The next hop is at DESTINATION by now."""
    address = params + DESTINATION
    if family == INET and load32(device + IF_FLAGS) & ONE_NEIGHBOUR != 0:
        address = 0
    mac = neighbour(buff, family, load32(params + IFINDEX), address, size)
    if mac == 0:
        return NO_NEIGH
    copy(params + DMAC, mac, 6)
    copy(params + SMAC, device + IF_MAC, 6)
    return 0


@native
def follow(buff: int, params: int, size: int, flags: int, route: int) -> int:
    """Fill `params` from a unicast route."""
    hop = find_hop(buff, params, size, flags, route)
    device = interface(buff, load32(hop + HOP_IFINDEX))
    if device == 0:
        return NOT_FWDED
    mtu = mtu_of(route, device, size)
    if load16(params + TOT_LEN) > mtu:
        store16(params + TOT_LEN, mtu)
        return FRAG_NEEDED
    if load32(hop + HOP_FLAGS) & ENCAP != 0:
        return UNSUPP_LWT
    store32(params + RT_METRIC_RESULT, load32(route + RT_METRIC))
    store32(params + IFINDEX, load32(hop + HOP_IFINDEX))
    family = load32(hop + HOP_FAMILY)
    if size == 4 and flags & SRC != 0:
        set_source(buff, params, size, hop, params + DESTINATION)
    code = 0
    if size == 16 and flags & SRC != 0:
        code = set_source(buff, params, size, hop, params + DESTINATION)
    if family == INET:
        copy(params + DESTINATION, hop + HOP_GATEWAY, 4)
    elif family == INET6:
        store8(params + FAMILY, INET6)
        copy(params + DESTINATION, hop + HOP_GATEWAY, 16)
        size = 16
    if code == 0 and flags & SKIP_NEIGH == 0:
        code = set_macs(buff, params, size, load8(params + FAMILY), device)
    if code != 0:
        return code
    store32(params + VLAN_PROTO, 0)
    if mtu != 0:
        store16(params + TOT_LEN, mtu)
    return 0


@native
def lookup(buff: int, params: int, size: int, flags: int) -> int:
    """The same for both families: `size` bytes of address."""
    if size == 16 and never_forwarded(params + DESTINATION) + never_forwarded(params + SOURCE) > 0:
        return NOT_FWDED
    device = interface(buff, load32(params + IFINDEX))
    if device == 0:
        return -ENODEV
    forwarding = FORWARD4
    if size == 16:
        forwarding = FORWARD6
    if load32(device + IF_FLAGS) & forwarding == 0:
        return FWD_DISABLED
    route = find_route(buff, params, size, flags, load32(device + IF_TABLE))
    if route < 0:
        return -route
    if route == 0:
        return NOT_FWDED
    kind = load32(route + RT_TYPE)
    if kind != UNICAST:
        if size == 16 and FIRST_ERROR <= kind <= LAST_ERROR:
            return kind - ERROR_TYPES
        return NOT_FWDED
    return follow(buff, params, size, flags, route)


@native
def fib_lookup(buff: int, ctx: int, params: int, plen: int, flags: int) -> int:
    """BPF_FIB_LKUP_RET_* or -errno."""
    flags &= 0xFFFFFFFF
    if signed32(plen) < SIZEOF_FIB_LOOKUP or flags > ALL_FLAGS:
        return -EINVAL
    family = load8(params + FAMILY)
    if family == INET:
        return lookup(buff, params, 4, flags)
    if family == INET6:
        return lookup(buff, params, 16, flags)
    return -EAFNOSUPPORT


HELPER = Helper(
    69,
    "fib_lookup",
    (Arg.CTX, Arg.INOUT_MEM, Arg.CONST_SIZE, Arg.ANYTHING),
    Ret.INTEGER,
    fib_lookup,
    gpl=True,
)
