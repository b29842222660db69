"""fib_lookup and check_mtu beside the kernel's, in a namespace whose snapshot this runtime has."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from helper_calls import SIDES, Ran, Script, call, stack

from xdpbatch.asm import program
from xdpbatch.errors import VerifierError
from xdpbatch.host.netlink import snapshot
from xdpbatch.host.tables import Tables
from xdpbatch.program import Object
from xdpbatch.sys import netns
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.verify import verify

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


def bound(family: int, kind: int, address: str, port: int, to: int = 0, only6: int = 0) -> Any:
    """A socket of this namespace, bound, and connected to its own host if `to` is a port."""
    one = socket.socket(family, kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
    one.bind((address, port))
    if to:
        one.connect((address, to))
    elif kind == socket.SOCK_STREAM:
        one.listen()
    return one


@pytest.fixture(scope="module")
def busy() -> Iterator[Tables]:
    """Listeners on any and one address, with both families, connections, and UDP sockets."""
    four, six, tcp, udp = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
    with netns.inside(netns.private()):
        ip(LINKS)
        settle()
        kept = [
            bound(four, tcp, "0.0.0.0", 80),
            bound(four, tcp, "10.0.0.1", 80),
            bound(six, tcp, "::", 81),
            bound(six, tcp, "::", 82, only6=1),
            bound(six, tcp, "fd00::1", 83),
            bound(four, tcp, "10.0.0.1", 4000, to=80),
            bound(six, tcp, "fd00::1", 4001, to=83),
            bound(six, tcp, "::ffff:10.0.0.1", 4002, to=80),
            bound(four, udp, "0.0.0.0", 53),
            bound(four, udp, "10.0.0.1", 53),
            bound(four, udp, "10.0.0.1", 5300, to=53),
            bound(six, udp, "::", 54),
            bound(six, udp, "fd00::1", 55),
        ]
        yield Tables(snapshot())
        for one in kept:
            one.close()


FIELDS = (0, 4, 24, 28, 40, 44, 48, 52, 56, 68, 72)  # of struct bpf_sock, in a sock_common too
PEERS = ["10.0.0.1", "10.0.1.1", "127.0.0.1", "9.9.9.9", "fd00::1", "::1", "2600::1"]


@pytest.mark.parametrize("helper", ["sk_lookup_tcp", "skc_lookup_tcp", "sk_lookup_udp"])
@pytest.mark.parametrize("port", [80, 81, 82, 83, 4000, 4001, 4002, 53, 54, 55, 5300, 999])
def test_socket_lookups(busy: Tables, helper: str, port: int) -> None:
    """Which socket is found, as far as its fields say; from a peer's port and from others."""
    script = Script()
    for to in PEERS:
        for peer in (80, 83, 4000, 53) if to in ("10.0.0.1", "fd00::1") else (80,):
            address = ip_address(to).packed
            one = address + address + struct.pack("!HH", peer, port)
            script.add(stack(one.ljust(40, b"\0"), -40))
            script.add(call(helper, "ctx", "r10-40", len(one), 2**64 - 1, 0))
            script.add(f"r7 = r0\nr8 = 0xdead\nif r7 == 0 goto done{script.count}\nr8 = 0")
            for at in FIELDS:
                script.add(f"r1 = *(u{16 if at == 48 else 32} *)(r7 + {at})\nr8 ^= r1")
            script.add(f"r1 = r7\ncall bpf_sk_release\ndone{script.count}:")
            script.keep("r8")
    run(script, busy)


@pytest.mark.parametrize("netns_id", [2**64 - 1, 2**32 - 1, 0, 5, 1 << 31, 1 << 32, 1 << 63])
@pytest.mark.parametrize("length", [12, 36, 13, 1])
def test_where_sockets_are_looked_for(busy: Tables, netns_id: int, length: int) -> None:
    script = Script()
    address = ip_address("10.0.0.1").packed
    for flags in (0, 1, 1 << 40):
        script.add(stack((address * 2 + struct.pack("!HH", 1, 80)).ljust(40, b"\0"), -40))
        script.add(call("sk_lookup_tcp", "ctx", "r10-40", length, netns_id, flags))
        script.add("r7 = 0\nif r0 == 0 goto +3\nr1 = r0\ncall bpf_sk_release\nr7 = 1")
        script.keep("r7")
    run(script, busy)


@pytest.mark.parametrize("port", [80, 81, 82, 4000])
@pytest.mark.parametrize("helper", ["tcp_gen_syncookie", "tcp_check_syncookie"])
def test_syn_cookies_of_sockets(busy: Tables, helper: str, port: int) -> None:
    """No queue has overflowed: an error always, but not always the same."""
    script = Script()
    address = ip_address("10.0.0.1").packed
    if port == 82:
        address = ip_address("fd00::1").packed
    peer = 80 if port == 4000 else 1
    for version, ip_length, flags, words, length in itertools.product(
        (4, 6, 5), (20, 40, 8), (2, 16, 18, 4), (5, 6), (20, 19)
    ):
        one = address * 2 + struct.pack("!HH", peer, port)
        script.add(stack(one.ljust(40, b"\0"), -40))
        script.add(stack(bytes([version << 4]).ljust(40, b"\0"), -80))
        script.add(stack((bytes(12) + bytes([words << 4, flags])).ljust(24, b"\0"), -104))
        script.add(call("sk_lookup_tcp", "ctx", "r10-40", len(one), 2**64 - 1, 0))
        script.add("r7 = r0\nr8 = 77\nif r7 == 0 goto +12\nr1 = r7")
        script.add(f"r2 = r10\nr2 += -80\nr3 = {ip_length}\nr4 = r10\nr4 += -104\nr5 = {length}")
        script.add(f"call bpf_{helper}\nr8 = r0\nr1 = r7\ncall bpf_sk_release\nr0 = 0")
        script.keep("r8")
    judge = run(script, busy)
    assert len(set(judge.results)) > 1 or port == 4000  # which does not listen
    assert 77 not in judge.results


READ = """
    r6 = r1
    *(u64 *)(r10 - 16) = 0
    *(u64 *)(r10 - 8) = 0
    r2 = r10
    r2 += -16
    r3 = 12
    r4 = -1
    r5 = 0
    call bpf_{helper}
    if r0 == 0 goto out
    r6 = r0
    {use}
    r1 = r6
    call bpf_sk_release
    out: r0 = 2
    exit
"""


def accepted(text: str) -> tuple[bool, bool]:
    """Whether the kernel takes a program, and whether this runtime does."""
    made = program(text)
    answers = []
    for judge in (KernelObject(Object("sock", {made.name: made}, {}, "GPL")).program, None):
        try:
            _ = judge(made.name) if judge else verify(made)
            answers.append(True)
        except VerifierError:
            answers.append(False)
    return answers[0], answers[1]


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("helper", ["sk_lookup_tcp", "skc_lookup_tcp"])
def test_fields_of_sockets(helper: str, size: int) -> None:
    for at in range(-1, 82):
        judge, ours = accepted(READ.format(helper=helper, use=f"r1 = *(u{size} *)(r6 {at:+d})"))
        assert ours == judge, at


@pytest.mark.parametrize(
    "use",
    [
        "*(u32 *)(r6 + 0) = 1",
        "r6 += 4\nr1 = *(u32 *)(r6 + 0)\nr6 += -4",
        "r1 = r6\ncall bpf_sk_release",
        "r1 = r6\ncall bpf_sk_release\nr6 = *(u32 *)(r6 + 4)",
        "r6 = 0",
        "r7 = r6\nr6 = r7\nr1 = *(u32 *)(r7 + 4)",
        "if r6 == 0 goto out",
        "r1 = r10\nr1 += -8\n*(u64 *)(r1 + 0) = r6\nr6 = *(u64 *)(r1 + 0)",
        "r1 = 5\nr6 += r1",
        "r0 = 2\nexit",
    ],
)
@pytest.mark.parametrize("helper", ["sk_lookup_tcp", "skc_lookup_tcp", "sk_lookup_udp"])
def test_references_to_sockets(helper: str, use: str) -> None:
    """Given back once, and only as it came."""
    judge, ours = accepted(READ.format(helper=helper, use=use))
    assert ours == judge
