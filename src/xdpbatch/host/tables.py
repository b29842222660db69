"""A Host in memory, where native code finds it: `Tables(host).address` is what Rxq.host holds.

Analogous to the kernel's own tables behind netlink. Prefixes, interfaces and neighbours are maps
of this runtime (LPM_TRIE, HASH); the rest are arrays. What is built does not change: a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from xdpbatch.data.layout import Layout, address_of, bytes_at
from xdpbatch.host import (
    AF_INET,
    AF_INET6,
    DEFAULT,
    LOCAL,
    MAIN,
    Address,
    Host,
    Interface,
    Network,
    Route,
    Rule,
    Socket,
    default_rules,
    family_of,
    v4_in,
)
from xdpbatch.host import layout as at
from xdpbatch.maps import Map
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_NO_PREALLOC, MapNumber

UNIVERSE, LINK_SCOPE = 0, 253  # RT_SCOPE_*
STREAM, DATAGRAM = 1, 2  # SOCK_*
TCP = 6
NO_QUEUE = 0xFFFFFFFF
LOOPBACK4_IPV6 = int.from_bytes(bytes((127, 0, 0, 6)), "little")  # include/net/ipv6.h
Record = dict[str, int]


class Tables:
    """The memory of a Host; it must outlive every use of `address`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._devices = {one.ifindex: one for one in host.interfaces}
        self._routes: list[Record] = []
        self._hops: list[Record] = []
        custom = {family: _custom(host.rules, family) for family in (AF_INET, AF_INET6)}
        self._maps = {
            "interfaces": self._interfaces(host.interfaces),
            "neighbours": self._neighbours(host),
            "prefixes4": self._prefixes(AF_INET, host.routes, merged=not custom[AF_INET]),
            "prefixes6": self._prefixes(AF_INET6, host.routes, merged=False),
        }
        addresses = [
            {"ifindex": one.ifindex, "prefix": each.prefix, **_words("address", each.local)}
            for one in host.interfaces
            for each in one.addresses
            if family_of(each.local) == AF_INET6
        ]
        rules = [_rule(one) for one in sorted(host.rules, key=lambda rule: rule.priority)]
        sockets = [_socket(one) for one in host.sockets]
        self._arrays = {
            "routes": _array(at.ROUTE, self._routes),
            "hops": _array(at.HOP, self._hops),
            "rules": _array(at.RULE, rules),
            "addresses": _array(at.ADDRESS, addresses),
            "sockets": _array(at.SOCKET, sockets),
        }
        self._block = at.TABLES.array(1)
        self._set({name: one.address for name, one in self._maps.items()})
        self._set({name: address_of(one) for name, one in self._arrays.items()})
        self._set({"rule_count": len(rules), "address_count": len(addresses)})
        self._set({"socket_count": len(sockets)})
        self._set({"custom4": int(custom[AF_INET]), "custom6": int(custom[AF_INET6])})
        self._set({"default4": int(any(_is_default4(route) for route in host.routes))})
        self.address = address_of(self._block)

    def __str__(self) -> str:
        return str(self.host)

    def _set(self, fields: Record) -> None:
        for name, value in fields.items():
            self._block[name] = value

    def _interfaces(self, interfaces: Sequence[Interface]) -> Map:
        entries = {}
        for one in interfaces:
            flags = at.FORWARD4 * one.forwarding4 | at.FORWARD6 * one.forwarding6
            record = {
                "mtu": one.mtu,
                "mtu6": one.mtu6 or one.mtu,
                "flags": flags | at.ONE_NEIGHBOUR * one.one_neighbour,
                "header": one.header,
                "mac": int.from_bytes(one.mac, "little"),
                "table": one.table,
            }
            entries[one.ifindex.to_bytes(4, "little")] = _bytes(at.INTERFACE, record)
        return _map("interfaces", MapNumber.HASH, 4, at.SIZEOF_INTERFACE, entries)

    def _neighbours(self, host: Host) -> Map:
        entries = {}
        for one in host.neighbours:
            key = family_of(one.address).to_bytes(4, "little") + one.ifindex.to_bytes(4, "little")
            entries[key + one.address.packed.ljust(16, b"\0")] = one.mac.ljust(8, b"\0")
        return _map("neighbours", MapNumber.HASH, at.NEIGHBOUR_KEY, 8, entries)

    def _prefixes(self, family: int, routes: Iterable[Route], merged: bool) -> Map:
        """Prefixes of all tables. `merged`: local and main routes are one table, as IPv4's are
        until there are other rules."""
        found: dict[tuple[int, Network], list[Route]] = {}
        for route in routes:
            if family_of(route.destination) == family:
                one_of_two = merged and route.table in (LOCAL, MAIN)
                for table in (LOCAL, MAIN) if one_of_two else (route.table,):
                    found.setdefault((table, route.destination), []).append(route)
        entries = {}
        for (table, network), group in found.items():
            group.sort(key=_order4 if family == AF_INET else lambda route: route.metric)
            length = at.TABLE_BITS + network.prefixlen
            key = length.to_bytes(4, "little") + table.to_bytes(4, "big")
            record = {"first": len(self._routes), "count": len(group), "length": length}
            entries[key + network.network_address.packed] = _bytes(at.PREFIX, record)
            for route in group:
                self._add(route)
        size = at.PREFIX_KEY4 if family == AF_INET else at.PREFIX_KEY6
        return _map("prefixes", MapNumber.LPM_TRIE, size, at.SIZEOF_PREFIX, entries)

    def _add(self, route: Route) -> None:
        uppers = list(accumulate(0 if hop.dead else hop.weight for hop in route.hops))
        self._routes.append(
            {
                "type": route.type,
                "tos": route.tos,
                "metric": route.metric,
                "mtu": route.mtu,
                "first_hop": len(self._hops),
                "hops": len(route.hops),
                "weight": uppers[-1] if uppers else 0,
                "preference": 2 + route.preference,
            }
        )
        for hop, upper in zip(route.hops, uppers, strict=True):
            source = route.source or self._source4(route, hop.ifindex, hop.gateway)
            flags = at.DEAD * hop.dead | at.ENCAP * hop.encap
            self._hops.append(
                {
                    "ifindex": hop.ifindex,
                    "flags": flags | at.HAS_SOURCE * (source is not None),
                    "upper": upper,
                    "family": family_of(hop.gateway) if hop.gateway else 0,
                    **_words("gateway", hop.gateway),
                    **_words("source", source),
                }
            )

    def _source4(self, route: Route, ifindex: int, gateway: Address | None) -> Address | None:
        """What inet_select_addr() picks; None for IPv6, whose choice is made at the lookup."""
        device = self._devices.get(ifindex)
        if route.destination.version == 6 or device is None:
            return None
        scope = UNIVERSE if gateway else LINK_SCOPE
        here = [one for one in device.addresses if one.local.version == 4 and one.scope <= scope]
        first = [one for one in here if not one.secondary]
        if gateway is not None:
            first.sort(key=lambda one: gateway not in one.network)
        elsewhere = [
            one
            for other in self._devices.values()
            for one in other.addresses
            if one.local.version == 4 and one.scope <= scope and one.scope != LINK_SCOPE
        ]
        return next((one.local for one in [*first, *elsewhere]), None)


def _is_default4(route: Route) -> bool:
    return route.table == DEFAULT and route.destination.version == 4


def _order4(route: Route) -> tuple[int, int, int]:
    """The order of fib_find_alias(): table and TOS descending, then the metric."""
    return (-route.table, -route.tos, route.metric)


def _custom(rules: Iterable[Rule], family: int) -> bool:
    """Whether a family has other rules than a namespace starts with."""
    mine, first = (
        {rule for rule in some if rule.family == family} for some in (rules, default_rules())
    )
    return mine != first


def _rule(rule: Rule) -> Record:
    return {
        "family": rule.family,
        "table": rule.table,
        "action": rule.action,
        "flags": at.INVERTED * rule.inverted | at.L3MDEV * rule.l3mdev,
        "iif": rule.iif,
        "oif": rule.oif,
        "tos": rule.tos,
        "mark": rule.mark,
        "mask": rule.mask,
        "protocol": rule.protocol,
        "sports": rule.sports[0] | rule.sports[1] << 16,
        "dports": rule.dports[0] | rule.dports[1] << 16,
        "source_bits": rule.source.prefixlen if rule.source else 0,
        "destination_bits": rule.destination.prefixlen if rule.destination else 0,
        **_words("source", rule.source.network_address if rule.source else None),
        **_words("destination", rule.destination.network_address if rule.destination else None),
    }


def _socket(one: Socket) -> Record:
    family = family_of(one.local)
    record: Record = {
        "bound_dev_if": one.ifindex,
        "family": family,
        "type": STREAM if one.protocol == TCP else DATAGRAM,
        "protocol": one.protocol,
        "mark": one.mark,
        "src_port": one.local_port,
        "dst_port": int.from_bytes(one.remote_port.to_bytes(2, "big"), "little"),
        "state": one.state,
        "rx_queue_mapping": NO_QUEUE,
        "only6": one.only6,
        "wild": one.local.is_unspecified,
        "connected": one.remote is not None,
    }
    takes4 = one.local.is_unspecified and not one.only6 and (one.remote is None)
    record["four"] = takes4 or v4_in(one.local).version == 4
    if family == AF_INET6 and not one.local.is_unspecified:
        record["src_ip4"] = LOOPBACK4_IPV6
    for side, address in (("src", one.local), ("dst", one.remote)):
        if address is not None and v4_in(address).version == 4:
            record[f"{side}_ip4"] = int.from_bytes(v4_in(address).packed, "little")
        if address is not None and family == AF_INET6:
            words = [address.packed[i : i + 4] for i in range(0, 16, 4)]
            record |= {f"{side}_ip6{i}": int.from_bytes(w, "little") for i, w in enumerate(words)}
    return record


def _words(name: str, address: Address | None) -> Record:
    """An address as the two words NAME0 and NAME1 of a record."""
    packed = address.packed.ljust(16, b"\0") if address is not None else bytes(16)
    return {f"{name}{i}": int.from_bytes(packed[8 * i : 8 * i + 8], "little") for i in (0, 1)}


def _array(layout: Layout, records: Sequence[Record]) -> Any:
    """An array of at least one struct."""
    out = layout.array(max(len(records), 1))
    for i, record in enumerate(records):
        for name, value in record.items():
            out[i][name] = value
    return out


def _bytes(layout: Layout, record: Record) -> bytes:
    return bytes_at(address_of(made := _array(layout, [record])), made.nbytes)


def _map(name: str, kind: int, key: int, value: int, entries: dict[bytes, bytes]) -> Map:
    flags = BPF_F_NO_PREALLOC if kind == MapNumber.LPM_TRIE else 0
    made = Map(MapSpec(name, kind, key, value, max(len(entries), 1), flags))
    made.update(entries)
    return made
