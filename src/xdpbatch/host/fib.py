"""Routes: which one a destination takes, by rules, tables, prefixes and hops.

Analogous to fib_lookup() and fib_table_lookup() (net/ipv4/fib_trie.c), fib6_lookup() and
rt6_select() (net/ipv6/route.c), and fib_rules_lookup() (net/core/fib_rules.c). The tables' prefixes
of a family are in one LPM trie whose keys start with the table's number. A route is named by its
address; 0 is none, a negative number the error (bpf_fib_lookup's code) that it stands for.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_HOST, RXQ_SCRATCH
from xdpbatch.host import AF_INET, DEFAULT, LOCAL, MAIN, RouteType, RuleAction
from xdpbatch.host.layout import (
    CUSTOM4,
    CUSTOM6,
    DEAD,
    DEFAULT4,
    HOP_FLAGS,
    HOP_IFINDEX,
    HOP_UPPER,
    HOPS,
    INVERTED,
    L3MDEV,
    PREFIX_COUNT,
    PREFIX_FIRST,
    PREFIX_KEY4,
    PREFIX_KEY6,
    PREFIX_LENGTH,
    PREFIXES4,
    PREFIXES6,
    ROUTES,
    RT_FIRST_HOP,
    RT_HOPS,
    RT_METRIC,
    RT_PREFERENCE,
    RT_TOS,
    RT_TYPE,
    RT_WEIGHT,
    RULE_ACTION,
    RULE_COUNT,
    RULE_DESTINATION,
    RULE_DESTINATION_BITS,
    RULE_DPORTS,
    RULE_FAMILY,
    RULE_FLAGS,
    RULE_IIF,
    RULE_MARK,
    RULE_MASK,
    RULE_OIF,
    RULE_PROTOCOL,
    RULE_SOURCE,
    RULE_SOURCE_BITS,
    RULE_SPORTS,
    RULE_TABLE,
    RULE_TOS,
    RULES,
    SIZEOF_HOP,
    SIZEOF_PREFIX,
    SIZEOF_ROUTE,
    SIZEOF_RULE,
    TABLE_BITS,
)
from xdpbatch.maps.lpm_trie import lookup
from xdpbatch.mem import copy, load8, load16, load32, load64, store32, swap16, swap32
from xdpbatch.native import native

# struct bpf_fib_lookup (include/uapi/linux/bpf.h)
FAMILY, PROTOCOL, SPORT, DPORT, TOT_LEN, IFINDEX, TOS = 0, 1, 2, 4, 6, 8, 12
SOURCE, DESTINATION, VLAN_PROTO, VLAN_TCI, SMAC, DMAC = 16, 32, 48, 50, 52, 58
TBID, MARK, RT_METRIC_RESULT = VLAN_PROTO, SMAC, TOS
SIZEOF_FIB_LOOKUP = 64

# What bpf_fib_lookup() returns
BLACKHOLE, NOT_FWDED = 1, 4
ERROR_TYPES = int(RouteType.BLACKHOLE) - BLACKHOLE  # their types are in the same order
FIRST_ERROR, LAST_ERROR = int(RouteType.BLACKHOLE), int(RouteType.PROHIBIT)
THROW, TO_TABLE = int(RouteType.THROW), int(RuleAction.TABLE)
UNREACHABLE_RULE = int(RuleAction.UNREACHABLE)

LOOPBACK = 1  # LOOPBACK_IFINDEX
DSCP = 0xFC
MAIN_TABLE, LOCAL_TABLE, DEFAULT_TABLE = MAIN, LOCAL, DEFAULT
IPV4 = AF_INET


@native
def hop_of(host: int, route: int, index: int) -> int:
    """Address of a route's hop."""
    return load64(host + HOPS) + (load32(route + RT_FIRST_HOP) + index) * SIZEOF_HOP


@native
def usable(host: int, route: int, oif: int) -> int:
    """Address of the first hop that is not dead and, unless it is 0, goes out of `oif`; or 0."""
    for i in range(load32(route + RT_HOPS)):
        hop = hop_of(host, route, i)
        fits = oif == 0 or load32(hop + HOP_IFINDEX) == oif
        if fits and load32(hop + HOP_FLAGS) & DEAD == 0:
            return hop
    return 0


@native
def weighted(host: int, route: int, hash: int) -> int:
    """Address of the hop for a 31-bit hash: each hop has a share by its weight."""
    point = (hash & 0x7FFFFFFF) * load32(route + RT_WEIGHT) >> 31
    for i in range(load32(route + RT_HOPS)):
        hop = hop_of(host, route, i)
        if load32(hop + HOP_UPPER) > point:
            return hop
    return 0


@native
def choose4(host: int, first: int, count: int, tos: int, oif: int) -> int:
    """Of the routes of a prefix the first that fits, in the order of fib_find_alias()."""
    for i in range(count):
        route = load64(host + ROUTES) + (first + i) * SIZEOF_ROUTE
        kind = load32(route + RT_TYPE)
        wanted = load32(route + RT_TOS)
        if wanted == 0 or wanted == tos:
            if FIRST_ERROR <= kind <= LAST_ERROR:
                return ERROR_TYPES - kind
            if kind == THROW:
                return -THROW
            if usable(host, route, oif) != 0:
                return route
    return 0


@native
def choose6(host: int, first: int, count: int, oif: int) -> int:
    """Of the usable routes with the lowest metric the one that scores best: rt6_score_route().

    `oif` is a preference only. Routes that are errors need no hop.
    """
    best = 0
    score = 0
    metric = 0
    for i in range(count):
        route = load64(host + ROUTES) + (first + i) * SIZEOF_ROUTE
        candidate = best == 0 or load32(route + RT_METRIC) == metric
        if load32(route + RT_TYPE) < FIRST_ERROR:
            candidate = candidate and usable(host, route, 0) != 0
        if candidate:
            points = load32(route + RT_PREFERENCE) * 4
            if usable(host, route, oif) != 0:
                points += 2
            if points > score:
                best = route
                score = points
                metric = load32(route + RT_METRIC)
    return best


@native
def find_prefix(buff: int, size: int, table: int, address: int, limit: int) -> int:
    """The PREFIX of at most `limit` bits, those of the table included, that `address` is in."""
    rxq = load64(buff + RXQ)
    host, key = load64(rxq + RXQ_HOST), rxq + RXQ_SCRATCH
    store32(key, limit)
    store32(key + 4, swap32(table))
    copy(key + 8, address, size)
    if size == 4:
        return lookup(load64(host + PREFIXES4), key, PREFIX_KEY4, SIZEOF_PREFIX)
    return lookup(load64(host + PREFIXES6), key, PREFIX_KEY6, SIZEOF_PREFIX)


@native
def in_table(buff: int, size: int, table: int, address: int, tos: int, oif: int) -> int:
    """The route in one table: of the longest prefix that has one that fits."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    limit = TABLE_BITS + size * 8
    while limit >= TABLE_BITS:
        prefix = find_prefix(buff, size, table, address, limit)
        if prefix == 0:
            return 0
        first, count = load32(prefix + PREFIX_FIRST), load32(prefix + PREFIX_COUNT)
        route = 0
        if size == 4:
            route = choose4(host, first, count, tos, oif)
        else:
            route = choose6(host, first, count, oif)
        if route == -THROW:
            return 0
        if route != 0:
            return route
        limit = load32(prefix + PREFIX_LENGTH) - 1
    return 0


@native
def within(address: int, network: int, bits: int) -> int:
    """1 if the first `bits` of two addresses are equal, else 0."""
    whole = bits >> 3
    for i in range(whole):
        if load8(address + i) != load8(network + i):
            return 0
    rest = bits & 7
    if rest == 0:
        return 1
    return int((load8(address + whole) ^ load8(network + whole)) >> (8 - rest) == 0)


@native
def port_within(port: int, ports: int) -> int:
    """1 if a port is in a rule's range, or the rule has none."""
    return int(ports == 0 or ports & 0xFFFF <= swap16(port) <= ports >> 16)


@native
def tos_of(params: int) -> int:
    """The DSCP bits that IPv4 routes and rules by."""
    return load32(params + TOS) & DSCP


@native
def matches(rule: int, params: int, iif: int, oif: int, mark: int, vrf: int) -> int:
    """Whether a rule is for the packet that `params` describe: fib_rule_match()."""
    family = load8(params + FAMILY)
    if load32(rule + RULE_FAMILY) != family:
        return 0
    flags = load32(rule + RULE_FLAGS)
    wanted_iif, wanted_oif = load32(rule + RULE_IIF), load32(rule + RULE_OIF)
    fits = int(wanted_iif == 0 or wanted_iif == iif)
    fits &= int(wanted_oif == 0 or wanted_oif == oif)
    fits &= int((load32(rule + RULE_MARK) ^ mark) & load32(rule + RULE_MASK) == 0)
    if flags & L3MDEV != 0:
        fits &= int(vrf != 0)
    tos = tos_of(params)
    if family != IPV4:
        tos = swap32(load32(params + TOS)) >> 20 & DSCP
    fits &= int(load32(rule + RULE_TOS) == 0 or load32(rule + RULE_TOS) == tos)
    protocol = load32(rule + RULE_PROTOCOL)
    fits &= int(protocol == 0 or protocol == load8(params + PROTOCOL))
    fits &= port_within(load16(params + SPORT), load32(rule + RULE_SPORTS))
    fits &= port_within(load16(params + DPORT), load32(rule + RULE_DPORTS))
    fits &= within(params + SOURCE, rule + RULE_SOURCE, load32(rule + RULE_SOURCE_BITS))
    bits = load32(rule + RULE_DESTINATION_BITS)
    fits &= within(params + DESTINATION, rule + RULE_DESTINATION, bits)
    if flags & INVERTED != 0:
        return 1 - fits
    return fits


@native
def by_rules(buff: int, params: int, size: int, iif: int, oif: int, mark: int, vrf: int) -> int:
    """The route that the rules lead to."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    preferred = oif
    if size != 4 and oif == 0:
        preferred = iif
    for i in range(load32(host + RULE_COUNT)):
        rule = load64(host + RULES) + i * SIZEOF_RULE
        if matches(rule, params, iif, oif, mark, vrf) != 0:
            action = load32(rule + RULE_ACTION)
            if action != TO_TABLE and (size != 4 or action == UNREACHABLE_RULE):
                return -NOT_FWDED
            if action != TO_TABLE:
                return ERROR_TYPES - action
            table = load32(rule + RULE_TABLE)
            if load32(rule + RULE_FLAGS) & L3MDEV != 0:
                table = vrf
            tos = tos_of(params)
            route = in_table(buff, size, table, params + DESTINATION, tos, preferred)
            if route != 0:
                return route
    return 0


@native
def without_rules(buff: int, params: int, size: int, oif: int) -> int:
    """The route by the rules that a namespace starts with: local, main, and IPv4's default."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    tos = tos_of(params)
    at = params + DESTINATION
    if size == 4:
        route = in_table(buff, size, MAIN_TABLE, at, tos, oif)  # has the local routes, too
        if route <= 0 and load32(host + DEFAULT4) != 0:
            route = in_table(buff, size, DEFAULT_TABLE, at, tos, oif)
        return route
    route = in_table(buff, size, LOCAL_TABLE, at, tos, oif)
    if route == 0:
        route = in_table(buff, size, MAIN_TABLE, at, tos, oif)
    return route


@native
def route_for(buff: int, params: int, size: int, iif: int, oif: int, mark: int, vrf: int) -> int:
    """The route of a packet that comes in by `iif` or, unless it is 0, must go out by `oif`."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    custom = load32(host + CUSTOM6)
    preferred = oif
    if size == 4:
        custom = load32(host + CUSTOM4)
    elif oif == 0:
        preferred = iif
    if custom != 0:
        return by_rules(buff, params, size, iif, oif, mark, vrf)
    return without_rules(buff, params, size, preferred)
