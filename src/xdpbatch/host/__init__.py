"""What a program can ask about the host: interfaces, routes, neighbours and sockets.

Analogous to what `ip -j address`, `ip -j rule`, `ip -j route`, `ip -j neigh` and `ss` show of one
network namespace. A Host comes from a file (host.file) or from the running kernel (host.netlink);
`tables.Tables(host)` lays it out in memory for native code (host.fib, host.sockets). What a Host
does not say is not known: helpers then return what the kernel returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOCAL, MAIN, DEFAULT = 255, 254, 253  # enum rt_class_t
AF_INET, AF_INET6 = 2, 10


class RouteType(IntEnum):
    """RTN_* of include/uapi/linux/rtnetlink.h, as iproute2 spells them."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


class RuleAction(IntEnum):
    """FR_ACT_* of include/uapi/linux/fib_rules.h."""

    TABLE = 1
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface with its prefix."""

    local: Address
    prefix: int
    secondary: bool = False
    scope: int = 0  # RT_SCOPE_*: 0 global, 253 link, 254 host

    @property
    def network(self) -> Network:
        """The prefix that it is in."""
        cls = IPv4Network if self.local.version == 4 else IPv6Network
        return cls((int(self.local), self.prefix), strict=False)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. `header` is the length of its link-layer header; `table` that of its VRF."""

    ifindex: int
    name: str
    mtu: int
    mac: bytes = bytes(6)
    forwarding4: bool = False
    forwarding6: bool = False
    mtu6: int = 0  # 0: the MTU
    header: int = 14
    one_neighbour: bool = False  # loopback or point-to-point: IPv4 does not tell neighbours apart
    table: int = 0
    addresses: tuple[InterfaceAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Hop:
    """One way that a route goes."""

    ifindex: int
    gateway: Address | None = None
    weight: int = 1
    encap: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `mtu` only if it is locked: others do not count in the kernel's lookups."""

    destination: Network
    hops: tuple[Hop, ...] = ()
    table: int = MAIN
    type: RouteType = RouteType.UNICAST
    tos: int = 0
    metric: int = 0
    mtu: int = 0
    source: Address | None = None
    preference: int = 0  # router preference: -1 low, 0 medium, 1 high


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule: what is 0 or None matches all. `l3mdev`: the table of the VRF."""

    priority: int
    family: int
    table: int = MAIN
    action: RuleAction = RuleAction.TABLE
    source: Network | None = None
    destination: Network | None = None
    iif: int = 0
    oif: int = 0
    tos: int = 0
    mark: int = 0
    mask: int = 0
    protocol: int = 0
    sports: tuple[int, int] = (0, 0)
    dports: tuple[int, int] = (0, 0)
    inverted: bool = False
    l3mdev: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour whose link-layer address is known (a NUD_VALID state)."""

    ifindex: int
    address: Address
    mac: bytes


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket; `remote` is None of one that is not connected. States are TCP_* numbers."""

    protocol: int  # 6 or 17
    local: Address
    local_port: int
    remote: Address | None = None
    remote_port: int = 0
    state: int = 1
    ifindex: int = 0
    mark: int = 0
    only6: bool = False  # IPV6_V6ONLY


def default_rules() -> tuple[Rule, ...]:
    """The rules that a namespace starts with."""
    four = ((0, LOCAL), (32766, MAIN), (32767, DEFAULT))
    return tuple(
        Rule(priority, family, table)
        for family, known in ((AF_INET, four), (AF_INET6, four[:2]))
        for priority, table in known
    )


@dataclass(frozen=True, slots=True)
class Host:
    """One network namespace; `origin` says where it is described."""

    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    sockets: tuple[Socket, ...] = ()
    rules: tuple[Rule, ...] = field(default_factory=default_rules)
    origin: str = ""

    def __str__(self) -> str:
        counts = {
            "interfaces": len(self.interfaces),
            "routes": len(self.routes),
            "neighbours": len(self.neighbours),
            "sockets": len(self.sockets),
        }
        if not any(counts.values()):
            return self.origin
        return f"{self.origin} ({', '.join(f'{n} {what}' for what, n in counts.items())})"


def v4_in(address: Address) -> Address:
    """The IPv4 address that a mapped one (::ffff:a.b.c.d) stands for; others as they are."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def family_of(thing: Address | Network) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if thing.version == 4 else AF_INET6


def any_address(family: int) -> Address:
    """0.0.0.0 or ::."""
    return ip_address("0.0.0.0" if family == AF_INET else "::")
