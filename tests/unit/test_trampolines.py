"""Every form of the trampoline, by both backends, against the interpreter packet by packet: batch
and the slides' layout, verdicts in the XdpBuff and in an array, with and without prefetch."""

from __future__ import annotations

import ctypes
import platform
import random
import struct
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from xdpbatch import elf, examples
from xdpbatch.asm import program
from xdpbatch.compare import COMPARED, Interpreted
from xdpbatch.data.layout import address_of
from xdpbatch.disasm import disassemble
from xdpbatch.errors import UnsupportedError
from xdpbatch.interp import Interpreter
from xdpbatch.jit import x86
from xdpbatch.jit.disasm import listing
from xdpbatch.rewrite import Batched, Layout, Results, Xlated, xlate
from xdpbatch.rewrite.batch import batch
from xdpbatch.rewrite.form import Form
from xdpbatch.rewrite.poc import COUNT
from xdpbatch.rewrite.results import COLLECT, PROGRAM, RESULTS
from xdpbatch.runtime import Instance
from xdpbatch.test_run import Bench, Outcome
from xdpbatch.verify import verify

CLOCK = 10**12
OBJECTS = sorted(Path(examples.__file__).parent.glob("*.o"))
XDPFILT = [  # each packet filter feature once; the objects with all of them take long to verify
    path
    for path in sorted(Path("/usr/lib").glob("*/bpf/xdpfilt_*.o"))
    if path.stem in ("xdpfilt_alw_eth", "xdpfilt_dny_ip", "xdpfilt_alw_tcp", "xdpfilt_dny_udp")
]
FORMS = [
    Form(layout, results, prefetch, fixed=layout is Layout.POC)
    for layout in (Layout.BATCH, Layout.POC)
    for results in Results
    for prefetch in (0, 4)
]
BACKENDS = ["llvm", "x86"] if platform.machine() == "x86_64" else ["llvm"]


def traffic(count: int) -> list[bytes]:
    """UDP, TCP, ICMP and others among few addresses, some cut short."""
    source = random.Random(count)
    out = []
    for _ in range(count):
        protocol = source.choice([6, 6, 17, 17, 1])
        addresses = bytes([10, 0, 0, source.randrange(4), 10, 0, 1, source.randrange(4)])
        ip = struct.pack(">BBHHHBBH8s", 0x45, 0, 60, 1, 0, 64, protocol, 0, addresses)
        ports = struct.pack(">HH", source.choice([53, 80, 4000]), source.choice([53, 443]))
        kind = source.choice([b"\x08\x00"] * 6 + [b"\x86\xdd", b"\x08\x06"])
        packet = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]) + kind + ip + ports + bytes(40)
        out.append(packet[: source.choice([13, 14, 33, 37, 54, 60, 78, 78])])
    return out


def around(form: Form, xlated: Xlated) -> Batched:
    batched = form.around(xlated)
    assert isinstance(batched, Batched)
    return batched


def run(
    xlated: Batched,
    backend: str,
    packets: list[bytes],
    maps: Mapping[str, int] | None = None,
    size: int = COUNT,
) -> list[Outcome]:
    """What each packet comes to in batches of `size`; `maps` are the maps' addresses."""
    code = import_module(f"xdpbatch.jit.{backend}").compile(xlated, maps or {})
    bench, results = Bench(size, CLOCK), np.zeros(size, np.uint32)
    array = [address_of(results)] if xlated.results is Results.ARRAY else []
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * (2 + len(array)))
    out = []
    for first in range(0, len(packets), size):
        n = bench.fill(packets[first : first + size])
        bench.buffs["act"] = 77
        kind(code.address)(bench.address, *array, n)
        out += [bench.outcome(i, int(results[i]) if array else None) for i in range(n)]
    return out


def check(path: Path, backend: str, forms: list[Form]) -> None:
    """The object's program in each form, every time with fresh maps."""
    obj = elf.load(str(path))
    one = next(iter(obj.programs.values()))
    xlated = xlate(verify(one))
    packets = traffic(4 * COUNT)
    specs = [spec for spec in obj.maps.values() if spec.type in COMPARED]
    reference = Interpreted(Instance(obj), one, CLOCK)
    wanted = reference.run(packets)
    for form in forms:
        fresh = Interpreted(Instance(obj), one, CLOCK)
        addresses = fresh.instance.addresses
        assert run(around(form, xlated), backend, packets, addresses) == wanted, form
        for spec in specs:
            assert fresh.contents(spec) == reference.contents(spec), (form, spec.name)


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", BACKENDS)
def test_examples(path: Path, backend: str) -> None:
    every = FORMS if backend == "x86" else [FORMS[0], FORMS[-1]]
    check(path, backend, every)


@pytest.mark.skipif(not XDPFILT, reason="needs the objects of Debian's xdp-tools package")
@pytest.mark.skipif("x86" not in BACKENDS, reason="the x86 backend needs an x86-64 machine")
@pytest.mark.parametrize("path", XDPFILT, ids=lambda path: path.stem)
def test_xdpfilt(path: Path) -> None:
    check(path, "x86", [FORMS[0], FORMS[-1]])


LENGTH = """
    r2 = *(u64 *)(r1 + 8)
    r3 = *(u64 *)(r1 + 0)
    r2 -= r3
    r0 = r2
    if r2 > 40 goto +1
    exit
    r0 <<= 1
    exit
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("results", list(Results))
@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 256])
def test_every_batch_size_and_distance(size: int, results: Results, backend: str) -> None:
    """Also where no packet is so far ahead, and in the last batch, which is not full."""
    one = program(LENGTH)
    xlated = Xlated(one, one.insns, one.subprogs, (0,))
    packets = traffic(130)
    wanted = [len(p) * (1 + (len(p) > 40)) for p in packets]
    for prefetch in (0, 1, 5, 64, 300):
        form = batch(xlated, results=results, prefetch=prefetch)
        outcomes = run(form, backend, packets, size=size)
        assert [outcome.verdict for outcome in outcomes] == wanted


def trampoline(**options: object) -> list[str]:
    one = program("r0 = 1\nexit")
    return disassemble(batch(Xlated(one, one.insns, one.subprogs, (0,)), **options).insns)  # type: ignore[arg-type]


def test_prefetch_looks_only_at_packets_of_the_batch() -> None:
    body = trampoline(prefetch=4)[7:]
    assert body[:7] == [
        "r2 = r1",
        "r2 += 224",
        "r3 = *(u64 *)(r10 - 16)",
        "if r2 >= r3 goto +2",
        "r2 = *(u64 *)(r1 + 224)",
        "prefetch(r2 + 0)",
        "r0 = 1",
    ]
    assert body[-3] == "if r1 != r2 goto -13"  # for every packet


def test_the_array_is_the_second_argument() -> None:
    lines = trampoline(results=Results.ARRAY)
    assert lines[:2] == ["*(u64 *)(r10 - 24) = r2", "r2 = r3"]
    assert "*(u32 *)(r3 + 0) = r0" in lines
    assert "*(u32 *)(r1 + 48) = r0" not in lines


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_array_collected_into_the_buffs_is_the_first_design(backend: str) -> None:
    one = program(LENGTH)
    xlated = Xlated(one, one.insns, one.subprogs, (0,))
    compiler = import_module(f"xdpbatch.jit.{backend}")
    inner = compiler.compile(batch(xlated, results=Results.ARRAY), {})
    array = np.zeros(COUNT, np.uint32)
    outer = compiler.compile(COLLECT, {PROGRAM: inner.address, RESULTS: address_of(array)})
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    packets, bench = traffic(COUNT), Bench(COUNT)
    for n in (0, 1, 63, 64):
        bench.fill(packets[:n])
        bench.buffs["act"] = 77
        assert kind(outer.address)(bench.address, n) == 0
        wanted = [len(p) * (1 + (len(p) > 40)) for p in packets[:n]]
        assert bench.buffs["act"].tolist() == wanted + [77] * (COUNT - n)


def test_forms_that_do_not_exist_are_refused_and_all_have_a_name() -> None:
    one = program("r0 = 1\nexit")
    xlated = Xlated(one, one.insns, one.subprogs, (0,))
    assert Form(Layout.SINGLE).around(xlated) is xlated
    for form in (Form(Layout.SINGLE, prefetch=1), Form(Layout.BATCH, fixed=True)):
        with pytest.raises(UnsupportedError, match="no-such-form"):
            form.around(xlated)
    assert str(Form()) == "batch"
    assert str(Form(Layout.POC, Results.ARRAY, 4, fixed=True)) == (
        "poc results=array prefetch=4 fixed"
    )


@pytest.mark.parametrize("ahead", [-1, 513])
def test_a_distance_that_makes_no_sense_is_refused(ahead: int) -> None:
    with pytest.raises(UnsupportedError, match="prefetch-distance"):
        trampoline(prefetch=ahead)


def test_prefetch_of_any_address_changes_nothing() -> None:
    one = program(
        "r0 = 7\nr3 = 0\nprefetch(r3 + 0)\nr3 = -1\nprefetch(r3 + 8)\nprefetch(r10 - 8)\nexit"
    )
    assert Interpreter(one).call((0, 0)) == 7
    verified = verify(one)
    xlated = xlate(verified)
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
    for backend in BACKENDS:
        code = import_module(f"xdpbatch.jit.{backend}").compile(xlated, {})
        assert kind(code.address)(0) == 7


@pytest.mark.skipif("x86" not in BACKENDS, reason="the x86 backend needs an x86-64 machine")
def test_prefetch_is_an_instruction_of_the_machine() -> None:
    one = program("prefetch(r1 + 64)\nr0 = 0\nexit")
    lines = x86.assemble(Xlated(one, one.insns, one.subprogs, (0,)), {}, {})
    assert "prefetcht0 0x40(%rdi)\n" in listing(lines)
