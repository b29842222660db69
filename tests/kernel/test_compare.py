"""Real objects on real and generated packets: no side and no batch size differs from the kernel.

The objects are those that nobody here wrote (Debian's xdp-tools) and our examples. Captures are
taken from the folder that XDPBATCH_PCAPS names, by default `shared/pcaps` beside the checkout.
"""

from __future__ import annotations

import glob
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from xdpbatch import elf, examples
from xdpbatch.compare import BATCH_SIZES, compare, side
from xdpbatch.packets import Capture
from xdpbatch.program import Object
from xdpbatch.runtime import Stages
from xdpbatch.testing import deep
from xdpbatch.uapi import Action

pytestmark = pytest.mark.kernel

SIDES = ("interp", "single", "x86", "kernel")
REPOSITORY = Path(__file__).parents[2]
PCAPS = Path(os.environ.get("XDPBATCH_PCAPS", REPOSITORY.parent / "shared" / "pcaps"))
FILTERS = sorted(
    (p for where in ("/usr/lib/*/bpf", "/usr/lib/bpf") for p in glob.glob(f"{where}/xdpfilt_*.o")),
)
EXAMPLES = sorted(map(str, Path(examples.__file__).parent.glob("*.o")))

Entries = dict[bytes, bytes]


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def filters() -> dict[str, Entries]:
    """Of xdp-filter: low bits of a value say what to match (source, destination, TCP, UDP)."""
    ports = {struct.pack("<I", socket_order(port)): u64(15) for port in deep.PORTS[:3]}
    return {
        "filter_ports": ports | {struct.pack("<I", socket_order(8080)): u64(5)},
        "filter_ipv4": {deep.IPV4[0]: u64(3), deep.IPV4[1]: u64(1), deep.IPV4[2]: u64(2)},
        "filter_ipv6": {deep.IPV6[0]: u64(3), deep.IPV6[1]: u64(2)},
        "filter_ethernet": {deep.MACS[0]: u64(3), deep.MACS[1]: u64(1)},
    }


def socket_order(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def example_entries() -> dict[str, Entries]:
    """Elements by map name for the example programs."""
    macs = {mac + bytes(2): struct.pack("<I", i % 2) for i, mac in enumerate(deep.MACS[:3])}
    port = {struct.pack(">H", p) + struct.pack("<H", proto): u64(0)
            for p in deep.PORTS[:2] for proto in (6, 17)}  # fmt: skip
    vips = {addr + struct.pack(">H", p) + struct.pack("<H", proto): struct.pack("<I", 0)
            for addr in deep.IPV4[:2] for p in deep.PORTS[:3] for proto in (6, 17)}  # fmt: skip
    ring = {struct.pack("<I", i): struct.pack("<I", i % 3) for i in range(4099)}
    return {
        "blocked_ipv4": {struct.pack("<I", 24) + deep.IPV4[0]: u64(0)},
        "blocked_ipv6": {struct.pack("<I", 127) + deep.IPV6[1]: u64(0)},
        "blocked_ports": port,
        "macs": macs,
        "ports": {struct.pack("<I", 0): struct.pack("<I", 1)},  # the loopback
        "gateway": {bytes(4): deep.MACS[2] + bytes(2) + deep.IPV4[6]},
        "reals": {struct.pack("<I", i): deep.IPV4[i + 2] for i in range(3)},
        "ring": ring,
        "services": vips,
    }


def known(obj: Object, entries: Mapping[str, Entries]) -> dict[str, Entries]:
    """The entries for maps that this object has."""
    return {name: elements for name, elements in entries.items() if name in obj.maps}


def captures() -> Iterator[bytes]:
    """Every packet of every capture, one capture after the other."""
    for path in sorted(PCAPS.glob("*.pcap*")):
        yield from Capture(str(path))


@cache
def loaded(path: str) -> tuple[Object, dict[str, Stages]]:
    """An object, and its programs once they are verified: that takes longer than the packets."""
    return elf.load(path), {}


def check(path: str, packets: Sequence[bytes], entries: Mapping[str, Entries]) -> None:
    obj, stages = loaded(path)
    for name in obj.programs:
        report = compare(
            obj,
            packets,
            name=name,
            against=SIDES,
            batch_sizes=BATCH_SIZES,
            entries=known(obj, entries),
            stages=stages,
        )
        assert report.difference is None, f"{name}: {report.difference}"
        assert report.packets + sum(report.skipped.values()) == len(packets)


@pytest.fixture(scope="module")
def real() -> list[bytes]:
    if not PCAPS.is_dir():
        pytest.skip(f"no captures: {PCAPS.name} is not there (set XDPBATCH_PCAPS)")
    return list(captures())


@pytest.fixture(scope="module")
def generated() -> list[bytes]:
    return list(deep.packets(700))


@pytest.fixture(params=FILTERS or [""], ids=lambda path: Path(path).stem or "absent")
def xdp_filter(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.skip("no xdpfilt_*.o: Debian's package xdp-tools is not installed")
    return str(request.param)


@pytest.mark.parametrize("with_entries", [False, True], ids=["empty", "filled"])
def test_xdp_filter_on_captures(xdp_filter: str, real: list[bytes], with_entries: bool) -> None:
    check(xdp_filter, real, filters() if with_entries else {})


@pytest.mark.parametrize("with_entries", [False, True], ids=["empty", "filled"])
def test_xdp_filter_on_generated(
    xdp_filter: str, generated: list[bytes], with_entries: bool
) -> None:
    check(xdp_filter, generated, filters() if with_entries else {})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: Path(path).stem)
def test_example_on_captures(path: str, real: list[bytes]) -> None:
    check(path, real, example_entries())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: Path(path).stem)
def test_example_on_generated(path: str, generated: list[bytes]) -> None:
    check(path, generated, example_entries())


def test_generated_packets_reach_the_filters(generated: list[bytes]) -> None:
    """The comparison above is worth something: filled filters decide both ways."""
    for path in FILTERS:
        obj, _ = loaded(path)
        program = next(iter(obj.programs.values()))
        one = side("kernel", obj, program)
        for name, elements in known(obj, filters()).items():
            for key, value in elements.items():
                one.put(obj.maps[name], key, value)
        verdicts = Counter(outcome.verdict for outcome in one.run(generated))
        assert verdicts[Action.XDP_PASS] > 50, path
        assert verdicts[Action.XDP_DROP] > 50, path
