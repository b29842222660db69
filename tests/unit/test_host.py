"""A host from a file: what is read is what is written, and what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpbatch.asm import program
from xdpbatch.context import Context
from xdpbatch.errors import XdpBatchError
from xdpbatch.host import (
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
    file,
)
from xdpbatch.host.choice import host_for
from xdpbatch.host.tables import Tables
from xdpbatch.program import Object
from xdpbatch.runtime import SINGLE, Instance
from xdpbatch.test_run import Bench

MAC = bytes.fromhex("02aa00000001")
EVERYTHING = Host(
    (
        Interface(2, "eth0", 1500, MAC, True, False, 1400, 18, True, 10,
                  (InterfaceAddress(ip_address("10.0.0.1"), 24, True, 253),)),
        Interface(3, "eth1", 9000, MAC, False, True),
    ),
    (
        Route(ip_network("0.0.0.0/0"), (Hop(2, ip_address("10.0.0.9")),)),
        Route(ip_network("fd00::/8"),
              (Hop(2, None, 3), Hop(3, ip_address("fe80::1"), 1, True, True)), 77,
              RouteType.UNICAST, 16, 9, 1300, ip_address("fd00::1"), -1),
        Route(ip_network("10.9.0.0/16"), (), 255, RouteType.BLACKHOLE),
    ),
    (Neighbour(2, ip_address("10.0.0.9"), MAC),),
    (
        Socket(6, ip_address("0.0.0.0"), 80, state=10),
        Socket(17, ip_address("fd00::1"), 53, ip_address("fd00::2"), 999, 1, 3, 7, True),
    ),
    (
        Rule(5, 2, 77, RuleAction.TABLE, ip_network("10.0.0.0/8"), ip_network("11.0.0.0/8"), 2, 3,
             16, 1, 255, 17, (1, 2), (3, 4), True, True),
        Rule(6, 10, action=RuleAction.PROHIBIT),
    ),
    "file",
)  # fmt: skip


@pytest.mark.parametrize("host", [EVERYTHING, Host(origin="file")])
def test_what_is_written_is_read(host: Host) -> None:
    assert file.parse(json.loads(json.dumps(file.write(host))), "file") == host


BAD: list[tuple[Any, str]] = [
    ([], "it must be an object"),
    ({"routers": []}, "it must be an object"),
    ({"routes": {}}, "routes"),
    ({"interfaces": [{"ifindex": 1}]}, "interfaces[0]"),
    ({"interfaces": [{"ifindex": -1, "ifname": "a", "mtu": 5}]}, "interfaces[0]"),
    ({"interfaces": [{"ifindex": 1, "ifname": "a", "mtu": "5"}]}, "interfaces[0]"),
    ({"interfaces": [{"ifindex": 1, "ifname": "a", "mtu": 5, "address": "02:"}]}, "no MAC"),
    ({"routes": [{"dst": "10.0.0.1/8"}]}, "host bits set"),
    ({"routes": [{"dst": "10.0.0.0/8", "dev": "nowhere"}]}, "nowhere"),
    ({"routes": [{"dst": "10.0.0.0/8", "type": "magic"}]}, "MAGIC"),
    ({"neighbours": [7]}, "neighbours[0]"),
    ({"rules": [{"priority": 1, "family": "ipx"}]}, "ipx"),
    ({"sockets": [{"protocol": "sctp"}]}, "sctp"),
]


@pytest.mark.parametrize(("contents", "said"), BAD)
def test_what_is_wrong_is_named(contents: object, said: str) -> None:
    with pytest.raises(XdpBatchError) as refused:
        file.parse(contents, "x.json")
    assert said in str(refused.value)
    assert refused.value.diagnostics[0].code == "bad-host"


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
ENTRY = st.dictionaries(
    st.sampled_from(["ifindex", "ifname", "mtu", "address", "dst", "dev", "lladdr", "priority",
                     "family", "local", "local_port", "protocol", "nexthops", "addr_info",
                     "flags"]),
    VALUES | st.lists(st.dictionaries(st.just("dev"), VALUES)),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(file.SECTIONS), st.lists(ENTRY | VALUES) | VALUES))
def test_anything_is_a_host_or_an_error(contents: object) -> None:
    with suppress(XdpBatchError):
        Tables(file.parse(contents))


ASKS = """
    *(u32 *)(r10 - 4) = 0
    r2 = 7
    r3 = r10
    r3 += -4
    r4 = 0
    r5 = 0
    call bpf_check_mtu
    r0 = *(u32 *)(r10 - 4)
    exit
"""


def asking() -> Object:
    made = program(ASKS)
    return Object("asks", {made.name: made}, {}, "GPL")


@pytest.mark.parametrize("backend", ["interp", "llvm"])
@pytest.mark.parametrize(("wanted", "mtu"), [("", 0), ("none", 0), ("file", 1234)])
def test_a_program_sees_the_host_of_its_context(
    tmp_path: Path, backend: str, wanted: str, mtu: int
) -> None:
    path = tmp_path / "host.json"
    path.write_text('{"interfaces": [{"ifindex": 7, "ifname": "x", "mtu": 1234}]}')
    obj = asking()
    (made,) = obj.programs.values()
    tables = host_for(obj, str(path) if wanted == "file" else "none")
    bench = Bench(1, context=Context(host=tables))
    bench.fill([bytes(64)])
    instance = Instance(obj)
    if backend == "interp":
        assert instance.interpreter(made).run(bench.buff(0)) == mtu
        return
    import ctypes

    entry = instance.entry(made, backend, SINGLE)
    run = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(entry.address)
    assert run(bench.buff(0)) == mtu


def test_nobody_asks_nothing_is_read() -> None:
    made = program("r0 = 2\nexit")
    assert host_for(Object("quiet", {made.name: made}, {}, "GPL")) is None


def test_dump_host_is_what_host_reads() -> None:
    pytest.importorskip("pyroute2")
    words = [sys.executable, "-m", "xdpbatch", "features", "--dump-host"]
    said = subprocess.run(words, capture_output=True, check=True).stdout
    assert any(one.name == "lo" for one in file.parse(json.loads(said)).interfaces)
