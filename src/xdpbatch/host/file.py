"""A Host as JSON, in iproute2's words: see docs/host.md.

Analogous to the output of `ip -j address`, `ip -j route`, `ip -j rule` and `ip -j neigh` in one
object. `read` takes what `write` gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from xdpbatch.errors import XdpBatchError
from xdpbatch.host import (
    AF_INET,
    AF_INET6,
    DEFAULT,
    LOCAL,
    MAIN,
    Hop,
    Host,
    Interface,
    InterfaceAddress,
    Neighbour,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Socket,
    default_rules,
)

Json = Any
Entry = TypeVar("Entry")
TABLE_NAMES = {"local": LOCAL, "main": MAIN, "default": DEFAULT}
FAMILIES = {"inet": AF_INET, "inet6": AF_INET6}
PROTOCOLS = {"tcp": 6, "udp": 17}
SECTIONS = ("interfaces", "routes", "rules", "neighbours", "sockets")


def read(path: str) -> Host:
    """The Host of a file. Raises XdpBatchError that names the entry and what is wrong with it."""
    try:
        contents = json.loads(Path(path).read_text())
    except (OSError, UnicodeError) as error:
        raise XdpBatchError.of("unreadable", f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise XdpBatchError.of("bad-json", f"{path} is not JSON: {error}") from None
    return parse(contents, path)


def parse(contents: Json, origin: str = "") -> Host:
    """The Host that JSON describes."""
    if not isinstance(contents, dict) or not set(contents) <= {*SECTIONS, "schema"}:
        raise _bad(origin, "", f"it must be an object of {', '.join(SECTIONS)}")
    entries = {name: contents.get(name, []) for name in SECTIONS}
    interfaces = _each(entries["interfaces"], "interfaces", _interface, origin)
    by_name = {one.name: one.ifindex for one in interfaces}
    routes, neighbours, sockets = (
        _each(entries["routes"], "routes", partial(_route, names=by_name), origin),
        _each(entries["neighbours"], "neighbours", partial(_neighbour, names=by_name), origin),
        _each(entries["sockets"], "sockets", partial(_socket, names=by_name), origin),
    )
    rules = default_rules()
    if "rules" in contents:
        rules = _each(entries["rules"], "rules", partial(_rule, names=by_name), origin)
    return Host(interfaces, routes, neighbours, sockets, rules, origin)


def write(host: Host) -> Json:
    """The JSON that describes a Host."""
    names = {one.ifindex: one.name for one in host.interfaces}
    return {
        "schema": 1,
        "interfaces": [_interface_json(one) for one in host.interfaces],
        "routes": [_route_json(one, names) for one in host.routes],
        "rules": [_rule_json(one, names) for one in host.rules],
        "neighbours": [
            {"dev": names[one.ifindex], "dst": str(one.address), "lladdr": _mac(one.mac)}
            for one in host.neighbours
            if one.ifindex in names
        ],
        "sockets": [_socket_json(one, names) for one in host.sockets],
    }


def _bad(origin: str, entry: str, reason: str) -> XdpBatchError:
    return XdpBatchError.of(
        "bad-host",
        f"{origin or 'the description'} does not describe a host",
        where=entry,
        reason=reason,
        suggestion="`xdpbatch features --dump-host` writes such a file",
    )


@contextmanager
def _entry(origin: str, where: str) -> Iterator[None]:
    """What is wrong inside is said of one entry."""
    try:
        yield
    except KeyError as error:
        raise _bad(origin, where, f"{error} is missing, or not known") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _bad(origin, where, str(error)) from None


def _each(
    entries: Json, name: str, make: Callable[[Json], Entry], origin: str
) -> tuple[Entry, ...]:
    if not isinstance(entries, list):
        raise _bad(origin, name, "it must be a list")
    out = []
    for number, entry in enumerate(entries):
        with _entry(origin, f"{name}[{number}]"):
            out.append(make(entry))
    return tuple(out)


def _number(value: Json, most: int = (1 << 32) - 1) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 0 to {most}")
    return value


def _bytes_of(mac: str) -> bytes:
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{mac} is no MAC address")
    return raw


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _table(value: Json) -> int:
    return TABLE_NAMES[value] if value in TABLE_NAMES else _number(value)


def _table_json(table: int) -> Json:
    return next((name for name, number in TABLE_NAMES.items() if number == table), table)


def _interface(entry: Json) -> Interface:
    flags = entry.get("flags", [])
    return Interface(
        ifindex=_number(entry["ifindex"], (1 << 31) - 1),
        name=str(entry["ifname"]),
        mtu=_number(entry["mtu"], (1 << 31) - 1),
        mac=_bytes_of(entry["address"]) if "address" in entry else bytes(6),
        forwarding4=bool(entry.get("forwarding", True)),
        forwarding6=bool(entry.get("forwarding6", entry.get("forwarding", True))),
        mtu6=_number(entry.get("mtu6", 0), (1 << 31) - 1),
        header=_number(entry.get("header", 14), 255),
        one_neighbour=bool({"LOOPBACK", "POINTOPOINT"} & set(flags)),
        table=_number(entry.get("vrf", 0)),
        addresses=tuple(_address(one) for one in entry.get("addr_info", [])),
    )


def _interface_json(one: Interface) -> Json:
    entry = {
        "ifindex": one.ifindex,
        "ifname": one.name,
        "mtu": one.mtu,
        "address": _mac(one.mac),
        "forwarding": one.forwarding4,
        "forwarding6": one.forwarding6,
        "mtu6": one.mtu6,
        "header": one.header,
        "vrf": one.table,
        "flags": ["POINTOPOINT"] if one.one_neighbour else [],
        "addr_info": [_address_json(address) for address in one.addresses],
    }
    return _shortened(entry, {"mtu6": (0,), "header": (14,), "vrf": (0,), "flags": ([],)})


def _shortened(entry: Json, defaults: dict[str, tuple[Json, ...]]) -> Json:
    """Without what is as it is by default."""
    return {name: value for name, value in entry.items() if value not in defaults.get(name, ())}


def _address(entry: Json) -> InterfaceAddress:
    local = ip_address(entry["local"])
    prefix = _number(entry["prefixlen"], local.max_prefixlen)
    scope = _number(entry.get("scope", 0), 255)
    return InterfaceAddress(local, prefix, bool(entry.get("secondary")), scope)


def _address_json(one: InterfaceAddress) -> Json:
    entry = {"local": str(one.local), "prefixlen": one.prefix}
    entry |= {"secondary": one.secondary, "scope": one.scope}
    return _shortened(entry, {"secondary": (False,), "scope": (0,)})


def _route(entry: Json, names: dict[str, int]) -> Route:
    several = entry.get("nexthops")
    one = [entry] if "dev" in entry else []
    return Route(
        destination=_network(entry["dst"]),
        hops=tuple(_hop(hop, names) for hop in (one if several is None else several)),
        table=_table(entry.get("table", "main")),
        type=RouteType[str(entry.get("type", "unicast")).upper()],
        tos=_number(entry.get("tos", 0), 255),
        metric=_number(entry.get("metric", 0)),
        mtu=_number(entry.get("mtu", 0)),
        source=ip_address(entry["prefsrc"]) if "prefsrc" in entry else None,
        preference=("low", "medium", "high").index(entry.get("pref", "medium")) - 1,
    )


def _network(text: Json) -> IPv4Network | IPv6Network:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no prefix")
    return ip_network(text)


def _hop(entry: Json, names: dict[str, int]) -> Hop:
    gateway = ip_address(entry["gateway"]) if "gateway" in entry else None
    weight = _number(entry.get("weight", 1), 256)
    return Hop(names[entry["dev"]], gateway, weight, "encap" in entry, bool(entry.get("dead")))


def _route_json(one: Route, names: dict[int, str]) -> Json:
    hops = [_hop_json(hop, names) for hop in one.hops]
    entry = {
        "dst": str(one.destination),
        "type": one.type.name.lower(),
        "table": _table_json(one.table),
        "tos": one.tos,
        "metric": one.metric,
        "mtu": one.mtu,
        "prefsrc": str(one.source) if one.source else None,
        "pref": ("low", "medium", "high")[one.preference + 1],
        **(hops[0] if len(hops) == 1 else {"nexthops": hops} if hops else {}),
    }
    defaults = dict.fromkeys(("tos", "metric", "mtu"), (0,))
    return _shortened(
        entry,
        {
            **defaults,
            "type": ("unicast",),
            "table": ("main",),
            "prefsrc": (None,),
            "pref": ("medium",),
        },
    )


def _hop_json(hop: Hop, names: dict[int, str]) -> Json:
    entry = {
        "dev": names[hop.ifindex],
        "gateway": str(hop.gateway) if hop.gateway else None,
        "weight": hop.weight,
        "encap": "not followed" if hop.encap else None,
        "dead": hop.dead,
    }
    return _shortened(
        entry, {"gateway": (None,), "weight": (1,), "encap": (None,), "dead": (False,)}
    )


def _neighbour(entry: Json, names: dict[str, int]) -> Neighbour:
    return Neighbour(names[entry["dev"]], ip_address(entry["dst"]), _bytes_of(entry["lladdr"]))


def _socket(entry: Json, names: dict[str, int]) -> Socket:
    remote = ip_address(entry["remote"]) if "remote" in entry else None
    return Socket(
        protocol=PROTOCOLS[entry["protocol"]],
        local=ip_address(entry["local"]),
        local_port=_number(entry["local_port"], 0xFFFF),
        remote=remote,
        remote_port=_number(entry.get("remote_port", 0), 0xFFFF),
        state=_number(entry.get("state", 1 if remote else 10), 12),
        ifindex=names[entry["dev"]] if "dev" in entry else 0,
        mark=_number(entry.get("mark", 0)),
        only6=bool(entry.get("v6only")),
    )


def _socket_json(one: Socket, names: dict[int, str]) -> Json:
    entry = {
        "protocol": next(name for name, number in PROTOCOLS.items() if number == one.protocol),
        "local": str(one.local),
        "local_port": one.local_port,
        "remote": str(one.remote) if one.remote else None,
        "remote_port": one.remote_port,
        "state": one.state,
        "dev": names.get(one.ifindex),
        "mark": one.mark,
        "v6only": one.only6,
    }
    defaults = {"remote": (None,), "remote_port": (0,), "dev": (None,), "mark": (0,)}
    return _shortened(entry, {**defaults, "v6only": (False,)})


def _rule(entry: Json, names: dict[str, int]) -> Rule:
    known = {one.name: one.default for one in fields(Rule)}
    numbers = ("tos", "mark", "mask", "protocol")
    return Rule(
        priority=_number(entry["priority"]),
        family=FAMILIES[entry["family"]],
        table=_table(entry.get("table", "main")),
        action=RuleAction[str(entry.get("action", "table")).upper()],
        source=_network(entry["src"]) if "src" in entry else None,
        destination=_network(entry["dst"]) if "dst" in entry else None,
        iif=names[entry["iif"]] if "iif" in entry else 0,
        oif=names[entry["oif"]] if "oif" in entry else 0,
        sports=_range(entry.get("sports", [0, 0])),
        dports=_range(entry.get("dports", [0, 0])),
        inverted=bool(entry.get("not")),
        l3mdev=bool(entry.get("l3mdev")),
        **{name: _number(entry.get(name, known[name])) for name in numbers},
    )


def _range(ports: Json) -> tuple[int, int]:
    first, last = ports
    return _number(first, 0xFFFF), _number(last, 0xFFFF)


def _rule_json(one: Rule, names: dict[int, str]) -> Json:
    entry = {
        "family": next(name for name, number in FAMILIES.items() if number == one.family),
        "priority": one.priority,
        "action": one.action.name.lower(),
        "table": _table_json(one.table),
        "src": str(one.source) if one.source else None,
        "dst": str(one.destination) if one.destination else None,
        "iif": names.get(one.iif),
        "oif": names.get(one.oif),
        "tos": one.tos,
        "mark": one.mark,
        "mask": one.mask,
        "protocol": one.protocol,
        "sports": list(one.sports),
        "dports": list(one.dports),
        "not": one.inverted,
        "l3mdev": one.l3mdev,
    }
    numbers = dict.fromkeys(("tos", "mark", "mask", "protocol"), (0,))
    texts = dict.fromkeys(("src", "dst", "iif", "oif"), (None,))
    ports = dict.fromkeys(("sports", "dports"), ([0, 0],))
    flags = dict.fromkeys(("not", "l3mdev"), (False,))
    defaults: dict[str, tuple[Json, ...]] = {**numbers, **texts, **ports, **flags}
    return _shortened(entry, {**defaults, "action": ("table",)})
