"""fib_lookup and check_mtu beside the kernel's, in a namespace whose snapshot this runtime has."""

from __future__ import annotations

import itertools
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from helper_calls import SIDES, Ran, Script, stack

from xdpbatch.host.netlink import snapshot
from xdpbatch.host.tables import Tables
from xdpbatch.sys import netns

pytestmark = pytest.mark.kernel

LINKS = """
    link set lo up
    link add v0 index 10 address 02:00:00:00:00:10 type veth peer name p0 index 11
    link add v1 index 12 address 02:00:00:00:00:12 type veth peer name p1 index 13
    link add quiet index 14 type veth peer name loud index 15
    link set v0 up
    link set p0 up
    link set v1 mtu 1400 up
    link set p1 up
    link set quiet up
    link set loud up
    addr add 10.0.0.1/24 dev v0
    addr add 10.0.0.9/24 dev v0
    addr add 10.0.1.1/24 dev v1
    addr add 10.0.9.1/24 dev quiet
    addr add fd00::1/64 dev v0 nodad
    addr add fd01::1/64 dev v1 nodad
    addr add 2001:db8:1::1/64 dev v1 nodad
    neigh add 10.0.0.2 dev v0 lladdr 02:aa:00:00:00:02 nud permanent
    neigh add 10.0.1.2 dev v1 lladdr 02:aa:00:00:01:02 nud permanent
    neigh add fd00::2 dev v0 lladdr 02:aa:00:00:06:02 nud permanent
    neigh add fd01::2 dev v1 lladdr 02:aa:00:00:61:02 nud permanent
    neigh add 2001:db8:1::2 dev v1 lladdr 02:aa:00:00:62:02 nud stale
"""
ROUTES = """
    route add default via 10.0.1.2 metric 50
    route add default via 10.0.0.2 metric 60
    route add 20.0.0.0/8 via 10.0.0.2
    route add 20.1.0.0/16 via 10.0.1.2 mtu lock 1000
    route add 20.1.1.0/24 via 10.0.1.7
    route add 20.2.0.0/16 via 10.0.0.2 mtu 900 metric 7
    route add 20.2.0.0/16 tos 0x10 via 10.0.1.2
    route add 20.3.0.0/16 dev v0 src 10.0.0.9
    route add 20.4.0.0/16 via inet6 fd01::2 dev v1
    route add blackhole 30.0.0.0/16
    route add unreachable 30.1.0.0/16
    route add prohibit 30.2.0.0/16
    route add throw 30.3.0.0/16
    route add 40.0.0.0/8 via 10.0.0.2 table 100
    route add unreachable default table 100 metric 90
    route add 50.0.0.0/8 via 10.0.1.2 table 200
    route add default via fd00::2 metric 20
    route add default via fd01::2 metric 30
    route add 2001:db8:2::/48 via fd01::2 mtu lock 1300
    route add 2001:db8:3::/48 dev v1 metric 9
    route append 2001:db8:3::/48 dev v0 metric 9
    route add 2001:db8:4::/48 dev v0
    route add blackhole 2001:db8:5::/48
    route add unreachable 2001:db8:6::/48
    route add prohibit 2001:db8:7::/48
    route add 2001:db8:8::/48 via fd00::2 table 100
    route add 2001:db8:9::/48 via fd01::2 src fd01::1
"""
RULES = """
    rule add from 10.9.0.0/16 table 100 priority 100
    rule add to 77.0.0.0/8 prohibit priority 110
    rule add to 78.0.0.0/8 blackhole priority 111
    rule add to 79.0.0.0/8 unreachable priority 112
    rule add fwmark 0x10/0xf0 table 200 priority 120
    rule add iif v1 ipproto udp dport 5000-5010 table 100 priority 130
    rule add oif v1 table 200 priority 140
    rule add tos 0x10 table 100 priority 150
    rule add not to 64.0.0.0/2 table 200 priority 160
"""
RULES6 = """
    rule add to 2001:db8:8::/48 table 100 priority 100
    rule add to 2001:db8:9::/48 unreachable priority 110
"""
FORWARDING = ("ipv4/conf/v0", "ipv4/conf/v1", "ipv6/conf/v0", "ipv6/conf/v1", "ipv4/conf/lo")
V0, V1, QUIET = 10, 12, 14
DIRECT, OUTPUT, SKIP_NEIGH, TBID, SRC, MARK = 1, 2, 4, 8, 16, 32


def ip(commands: str, *options: str) -> None:
    """iproute2's `ip`, in the namespace of this thread."""
    words = ["ip", *options, "-batch", "-"]
    done = subprocess.run(words, input=commands, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def namespace(commands: str, commands6: str = "") -> Iterator[Tables]:
    with netns.inside(netns.private()):
        ip(commands)
        ip(commands6, "-6")
        for name in FORWARDING:
            with open(f"/proc/sys/net/{name}/forwarding", "w") as file:
                file.write("1")
        settle()
        yield Tables(snapshot())


def settle() -> None:
    """Wait until the kernel has found out that nobody else has the addresses it made."""
    words = ["ip", "-6", "address", "show", "tentative"]
    deadline = time.monotonic() + 10
    while subprocess.run(words, capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def plain() -> Iterator[Tables]:
    yield from namespace(LINKS + ROUTES)


@pytest.fixture(scope="module")
def ruled() -> Iterator[Tables]:
    yield from namespace(LINKS + ROUTES + RULES, RULES6)


def sides(script: Script, tables: Tables | None) -> list[Ran]:
    """What the script comes to on every side, the kernel's first."""

    def know(one: Any) -> None:
        one.bench.rxq["host"] = tables.address if tables else 0

    return [script.run(SIDES[0]), *(script.run(name, before=know) for name in SIDES[1:])]


def run(script: Script, tables: Tables | None) -> Ran:
    """The script on every side; all must agree with the kernel."""
    judge, *others = sides(script, tables)
    for one in others:
        pairs = enumerate(zip(one.results, judge.results, strict=True))
        assert [(i, *pair) for i, pair in pairs if len(set(pair)) > 1] == [], one.side.name
    return judge


def params(
    destination: str,
    source: str = "",
    ifindex: int = V0,
    *,
    length: int = 100,
    tos: int = 0,
    protocol: int = 17,
    ports: tuple[int, int] = (1000, 2000),
    table: int = 0,
    mark: int = 0,
    family: int = 0,
) -> bytes:
    """A struct bpf_fib_lookup."""
    to = ip_address(destination)
    six = to.version == 6
    packed = [
        ip_address(one).packed.ljust(16, b"\xee")
        for one in (source or ("fd00::77" if six else "10.0.0.77"), destination)
    ]
    head = struct.pack("=BB", family or (10 if six else 2), protocol) + struct.pack("!HH", *ports)
    middle = struct.pack("=HI", length, ifindex)
    flow = struct.pack("!I" if six else "=I", tos << 20 if six else tos)
    tail = struct.pack("=II", table, mark).ljust(16, b"\xdd")
    return head + middle + flow + b"".join(packed) + tail


def ask(script: Script, one: bytes, flags: int, plen: int = 64) -> None:
    """A lookup, whose code and whole struct are kept."""
    script.add(stack(one, -64))
    script.do("fib_lookup", "ctx", "r10-64", plen, flags)
    for at in range(-64, 0, 8):
        script.add(f"r1 = *(u64 *)(r10 {at})")
        script.keep("r1")


def codes(ran: Ran) -> list[int]:
    return [ran.results[i] for i in range(0, len(ran.results), 9)]


def dmacs(ran: Ran) -> set[bytes]:
    words = [word.to_bytes(8, "little", signed=True) for word in ran.results]
    return {b"".join(words[i + 1 : i + 9])[58:] for i in range(0, len(words), 9)}


V4 = ["10.0.0.2", "10.0.0.3", "10.0.1.2", "10.0.0.1", "10.0.0.255", "127.0.0.1", "127.9.0.1"]
V4 += ["20.0.0.1", "20.1.0.1", "20.1.1.1", "20.2.0.1", "20.3.0.1", "20.4.0.1", "30.0.0.1"]
V4 += ["30.1.0.1", "30.2.0.1", "30.3.0.1", "40.0.0.1", "50.0.0.1", "8.8.8.8", "255.255.255.255"]
V4 += ["224.0.0.1", "0.0.0.0"]
V6 = ["fd00::2", "fd00::1", "fd00::3", "fd01::2", "2001:db8:1::2", "2001:db8:2::1"]
V6 += ["2001:db8:3::1", "2001:db8:4::1", "2001:db8:5::1", "2001:db8:6::1", "2001:db8:7::1"]
V6 += ["2001:db8:8::1", "2001:db8:9::1", "2a00::1", "fe80::1", "ff02::1", "::1", "::", "fd01::1"]
FLAGS = [0, OUTPUT, DIRECT, DIRECT | OUTPUT, SKIP_NEIGH, SRC, SRC | SKIP_NEIGH, SRC | OUTPUT]


@pytest.mark.parametrize(("ifindex", "flags"), [*((V0, f) for f in FLAGS), (V1, 0), (V1, OUTPUT)])
@pytest.mark.parametrize("destinations", [V4, V6], ids=["v4", "v6"])
def test_destinations(plain: Tables, destinations: list[str], ifindex: int, flags: int) -> None:
    script = Script()
    for one in destinations:
        ask(script, params(one, ifindex=ifindex), flags)
    found = codes(run(script, plain))
    assert 0 in found
    assert 4 in found


@pytest.mark.parametrize("table", [0, 100, 200, 253, 254, 255, 7777])
def test_tables(plain: Tables, table: int) -> None:
    script = Script()
    for one in [*V4[:8], *V4[14:20], *V6[:3], "2001:db8:8::1", "2a00::1"]:
        ask(script, params(one, table=table), DIRECT | TBID)
    run(script, plain)


@pytest.mark.parametrize("mtu", [0, 900, 1000, 1300, 1400, 1500])
def test_mtu_of_routes(plain: Tables, mtu: int) -> None:
    script = Script()
    to = ("10.0.0.2", "10.0.1.2", "20.1.0.1", "20.2.0.1", "20.1.1.1", "fd00::2", "fd01::2",
          "2001:db8:2::1", "20.4.0.1", "30.0.0.1")  # fmt: skip
    for one in to:
        ask(script, params(one, length=mtu), 0)
        ask(script, params(one, length=mtu + 1), 0)
    run(script, plain)


def test_type_of_service(plain: Tables) -> None:
    script = Script()
    for tos in (0, 0x10, 0x11, 0x12, 0x1C, 0xFC, 0x110):
        ask(script, params("20.2.0.1", tos=tos), 0)
        ask(script, params("20.2.0.1", tos=tos), DIRECT)
    run(script, plain)


@pytest.mark.parametrize("family", [0, 1, 2, 7, 10, 255])
def test_wrong_arguments(plain: Tables, family: int) -> None:
    script = Script()
    for ifindex in (V0, QUIET, 1, 0, 999, 2**31):
        for flags in (0, 64, 1 << 31):
            ask(script, params("10.0.0.2", ifindex=ifindex, family=family or 99), flags)
    for flags in (1 << 32, -1):
        ask(script, params("fd00::2", family=family or 99), flags)
    for plen in (63, 1):
        ask(script, params("10.0.0.2", family=family or 99), 0, plen)
    run(script, plain)


FLOWS = [
    {"source": "10.9.0.1"},
    {"source": "10.8.0.1"},
    {"ports": (1, 5000)},
    {"ports": (1, 5000), "ifindex": V1},
    {"ports": (1, 5011), "ifindex": V1},
    {"ports": (1, 5010), "ifindex": V1, "protocol": 6},
    {"tos": 0x10},
    {"mark": 0x15},
    {"mark": 0x25},
    {"ifindex": V1},
]


@pytest.mark.parametrize("flags", [0, OUTPUT, MARK, DIRECT])
@pytest.mark.parametrize("to", ["8.8.8.8", "77.1.1.1", "50.0.0.1", "127.0.0.1"])
def test_rules(ruled: Tables, to: str, flags: int) -> None:
    script = Script()
    for flow in FLOWS:
        ask(script, params(to, **flow), flags)  # type: ignore[arg-type]
    for one in ("2001:db8:8::1", "2001:db8:9::1", "2a00::1", "78.1.1.1", "79.0.0.1"):
        ask(script, params(one), flags)
    run(script, ruled)


def test_several_hops() -> None:
    """Which one it is cannot be foreseen, but it is one of them, always the same for a flow."""
    routes = """
        route add 60.0.0.0/8 nexthop via 10.0.0.2 weight 1 nexthop via 10.0.1.2 weight 3
        route add 2600::/16 nexthop via fd00::2 nexthop via fd01::2
    """
    for tables in namespace(LINKS + routes):
        for to in ("60.0.0.1", "2600::1"):
            script = Script()
            for number in range(24):
                source = f"10.0.0.{number}" if "." in to else f"fd00::{number + 10:x}"
                ask(script, params(to, source), 0)
            judge, *ours = sides(script, tables)
            assert set(codes(judge)) == set(codes(ours[0])) == {0}
            assert ours[0].results == ours[1].results
            assert dmacs(judge) <= dmacs(ours[0])
            assert len(dmacs(ours[0])) == 2


def test_nothing_is_known() -> None:
    """As in a namespace that has no such interface."""
    with netns.inside(netns.private()):
        script = Script()
        for family, to in ((2, "10.0.0.2"), (10, "fd00::2"), (10, "ff02::1"), (3, "10.0.0.2")):
            ask(script, params(to, family=family), 0)
        for ifindex in (5, 999):
            script.add(stack(bytes(8), -8))
            script.do("check_mtu", "ctx", ifindex, "r10-8", 0, 0)
        run(script, None)


@pytest.mark.parametrize("given", [(0, 1), (1400, 1401, 1500), (65535, 65536, 2**32 - 1)])
@pytest.mark.parametrize("ifindex", [0, V0, V1, 999, V0 | 1 << 32])
def test_check_mtu(plain: Tables, ifindex: int, given: tuple[int, ...]) -> None:
    script = Script()
    differences = (0, 1, -1, 100, -100, 1336, 1350, 1351, 1451, 2**31 - 1, -(2**31))
    for length, difference in itertools.product(given, differences):
        for flags in (0, 1):
            script.add(stack(length.to_bytes(8, "little"), -8))
            script.do("check_mtu", "ctx", ifindex, "r10-8", difference, flags)
            script.add("r1 = *(u64 *)(r10 - 8)")
            script.keep("r1")
    run(script, plain)
