"""What the running kernel says of this network namespace: a snapshot through netlink.

Analogous to `ip -j address; ip -j rule; ip -j route show table all; ip -j neigh; ss -tuan`.
Nothing is followed: what changes later is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from xdpbatch.errors import UnsupportedError
from xdpbatch.host import (
    AF_INET,
    AF_INET6,
    Address,
    Hop,
    Host,
    Interface,
    InterfaceAddress,
    Neighbour,
    Network,
    Route,
    RouteType,
    Rule,
    RuleAction,
    any_address,
)
from xdpbatch.host.diag import sockets

Message = Any
IFF_LOOPBACK, IFF_POINTOPOINT = 0x8, 0x10
ETHERNET_LIKE = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK: 14 bytes of header
NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
RTNH_F_DEAD = 1
RTM_F_CLONED = 0x200
IFA_F_SECONDARY = 1
UNUSABLE = 0x08 | 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE
FIB_RULE_INVERT = 2
PREFERENCE = {0: 0, 1: 1, 3: -1}  # ICMPV6_ROUTER_PREF_*
RTAX_MTU_LOCK = 1 << 2
NO_SUPPRESSION = 0xFFFFFFFF
ORIGIN = "netlink snapshot"


def snapshot() -> Host:
    """The Host of the calling thread's namespace. Raises UnsupportedError where netlink is shut."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as netlink:
            links = list(netlink.get_links())
            addresses = [one for one in netlink.get_addr() if not _flags(one) & UNUSABLE]
            found = [_rule(rule) for rule in netlink.get_rules() if _is_ip(rule)]
            names = {link.get_attr("IFLA_IFNAME"): link["index"] for link in links}
            return Host(
                tuple(_interface(link, addresses) for link in links),
                tuple(_routes(netlink)),
                tuple(_neighbours(netlink)),
                tuple(sockets()),
                tuple(rule for raw in found for rule in _with_indexes(raw, names)),
                ORIGIN,
            )
    except (NetlinkError, OSError) as error:
        raise UnsupportedError.of(
            "no-netlink",
            "the kernel does not say what the host is",
            reason=str(error),
            suggestion="--host FILE describes one, --host none knows nothing",
        ) from None


def _is_ip(message: Message) -> bool:
    return message["family"] in (AF_INET, AF_INET6)


def _interface(link: Message, addresses: list[Message]) -> Interface:
    spec = link.get_attr("IFLA_AF_SPEC")
    four = (spec.get_attr("AF_INET") if spec else None) or {}
    six = spec.get_attr("AF_INET6") if spec else None
    six = (six.get_attr("IFLA_INET6_CONF") if six else None) or {}
    mtu, mtu6 = link.get_attr("IFLA_MTU"), six.get("mtu", 0)
    mac = bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
    info = link.get_attr("IFLA_LINKINFO")
    vrf = info.get_attr("IFLA_INFO_DATA") if info and _kind(info) == "vrf" else None
    return Interface(
        ifindex=link["index"],
        name=link.get_attr("IFLA_IFNAME"),
        mtu=mtu,
        mac=mac if len(mac) == 6 else bytes(6),
        forwarding4=bool(four.get("forwarding")),
        forwarding6=bool(six.get("forwarding")),
        mtu6=0 if mtu6 == mtu else mtu6,
        header=14 if link["ifi_type"] in ETHERNET_LIKE else 0,
        one_neighbour=bool(link["flags"] & (IFF_LOOPBACK | IFF_POINTOPOINT)),
        table=vrf.get_attr("IFLA_VRF_TABLE") if vrf else 0,
        addresses=tuple(_address(one) for one in addresses if one["index"] == link["index"]),
    )


def _kind(info: Message) -> str:
    return str(info.get_attr("IFLA_INFO_KIND"))


def _flags(one: Message) -> int:
    """IFA_F_* of an address."""
    return int(one.get_attr("IFA_FLAGS") or one["flags"])


def _address(one: Message) -> InterfaceAddress:
    local = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
    secondary = bool(_flags(one) & IFA_F_SECONDARY) and one["family"] == AF_INET
    return InterfaceAddress(ip_address(local), one["prefixlen"], secondary, one["scope"])


def _neighbours(netlink: Any) -> Iterator[Neighbour]:
    for one in netlink.get_neighbours():
        mac = bytes.fromhex((one.get_attr("NDA_LLADDR") or "").replace(":", ""))
        if _is_ip(one) and one["state"] & NUD_VALID and one.get_attr("NDA_DST"):
            address = ip_address(one.get_attr("NDA_DST"))
            yield Neighbour(one["ifindex"], address, mac.ljust(6, b"\0")[:6])


def _routes(netlink: Any) -> Iterator[Route]:
    for family in (AF_INET, AF_INET6):
        for one in netlink.get_routes(family=family):
            kind = one["type"]
            if kind in set(RouteType) and not one["flags"] & RTM_F_CLONED and not one["src_len"]:
                yield _route(one, family)


def _route(one: Message, family: int) -> Route:
    source = one.get_attr("RTA_PREFSRC")
    return Route(
        destination=_network(one.get_attr("RTA_DST"), one["dst_len"], family),
        hops=tuple(_hops(one)),
        table=one.get_attr("RTA_TABLE") or one["table"],
        type=RouteType(one["type"]),
        tos=one["tos"],
        metric=one.get_attr("RTA_PRIORITY") or 0,
        mtu=_locked_mtu(one.get_attr("RTA_METRICS")),
        source=ip_address(source) if source else None,
        preference=PREFERENCE.get(one.get_attr("RTA_PREF") or 0, 0),
    )


def _network(address: str | None, length: int, family: int) -> Network:
    return ip_network(f"{address or any_address(family)}/{length}", strict=False)


def _hops(route: Message) -> Iterator[Hop]:
    several = route.get_attr("RTA_MULTIPATH")
    for one in several or [route]:
        ifindex = one["oif"] if several else one.get_attr("RTA_OIF")
        flags = one["flags"]
        if ifindex:
            weight = one["hops"] + 1 if several else 1
            encap = one.get_attr("RTA_ENCAP_TYPE") is not None
            yield Hop(ifindex, _gateway(one), weight, encap, bool(flags & RTNH_F_DEAD))


def _gateway(one: Message) -> Address | None:
    via = one.get_attr("RTA_VIA")
    text = via["addr"] if via else one.get_attr("RTA_GATEWAY")
    return ip_address(text) if text else None


def _locked_mtu(metrics: Message) -> int:
    """A route's MTU, if it is locked: `ip route add … mtu lock 1400`."""
    if metrics is None or not (metrics.get_attr("RTAX_LOCK") or 0) & RTAX_MTU_LOCK:
        return 0
    return metrics.get_attr("RTAX_MTU") or 0


def _rule(one: Message) -> Message:
    suppressed = one.get_attr("FRA_SUPPRESS_PREFIXLEN")
    if suppressed not in (None, NO_SUPPRESSION):
        raise UnsupportedError.of(
            "host-rule",
            f"a rule of this host suppresses prefixes of up to {suppressed} bits",
            reason="this runtime does not know such rules",
            suggestion="--host FILE or --host none",
        )
    return one


def _with_indexes(one: Message, names: dict[str, int]) -> Iterator[Rule]:
    """The rule, unless it is for an interface that is not there."""
    iif, oif = one.get_attr("FRA_IIFNAME"), one.get_attr("FRA_OIFNAME")
    if all(name is None or name in names for name in (iif, oif)) and one["action"] in set(
        RuleAction
    ):
        family = one["family"]
        source, destination = (
            _network(one.get_attr(name), one[length], family) if one[length] else None
            for name, length in (("FRA_SRC", "src_len"), ("FRA_DST", "dst_len"))
        )
        yield Rule(
            priority=one.get_attr("FRA_PRIORITY") or 0,
            family=family,
            table=one.get_attr("FRA_TABLE") or one["table"],
            action=RuleAction(one["action"]),
            source=source,
            destination=destination,
            iif=names[iif] if iif else 0,
            oif=names[oif] if oif else 0,
            tos=one["tos"],
            mark=one.get_attr("FRA_FWMARK") or 0,
            mask=one.get_attr("FRA_FWMASK") or 0,
            protocol=one.get_attr("FRA_IP_PROTO") or 0,
            sports=_ports(one.get_attr("FRA_SPORT_RANGE")),
            dports=_ports(one.get_attr("FRA_DPORT_RANGE")),
            inverted=bool(one["flags"] & FIB_RULE_INVERT),
            l3mdev=bool(one.get_attr("FRA_L3MDEV")),
        )


def _ports(text: str | None) -> tuple[int, int]:
    """A range of ports as pyroute2 shows it: `5000:5010`."""
    first, _, last = (text or "0:0").partition(":")
    return int(first), int(last)
