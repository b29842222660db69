"""Helpers that change the flow of control: what they are replaced by does what the kernel does."""

from __future__ import annotations

import ctypes
import errno
import platform
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest

from xdpbatch import asm
from xdpbatch.data.buff import RXQ_INFO, XDP_BUFF
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.errors import UnsupportedError
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.jit import Compiled
from xdpbatch.mem import load64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.rewrite import Xlated, calls
from xdpbatch.rewrite.batch import batch, tail_calls
from xdpbatch.rewrite.check import final
from xdpbatch.rewrite.control import BPF_MAX_LOOPS, control
from xdpbatch.rewrite.patch import Code
from xdpbatch.uapi import MapNumber

BACKENDS = ["llvm", "x86"] if platform.machine() == "x86_64" else ["llvm"]
U64 = ctypes.c_uint64
ANY = Arg.ANYTHING
HELPERS = {
    12: Helper(12, "tail_call", (Arg.CTX, Arg.CONST_MAP_PTR, ANY), Ret.VOID),
    181: Helper(181, "loop", (ANY, Arg.FUNC, Arg.STACK_OR_NULL, ANY), Ret.INTEGER),
}
SPECS = {"programs": MapSpec("programs", MapNumber.PROG_ARRAY, 4, 4, 3)}


@native
def target(buff: int, map: int, index: int, max_entries: int) -> int:
    if index >= max_entries:
        return 0
    return load64(map + 8 * index)


@pytest.fixture(autouse=True)
def two_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "helpers", lambda: HELPERS)
    monkeypatch.setattr(calls, "map_type", lambda number: SimpleNamespace(target=target))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"xdpbatch.jit.{request.param}")


def xlated(text: str, *depths: int) -> Xlated:
    program = asm.program(text, maps=SPECS.values())
    code = Code(program.insns, program.subprogs, depths or (0,))
    code = final(control(code, program.maps), "control")
    return Xlated(program, code.insns, code.subprogs, code.stack_depth)


def run(code: Compiled, *arguments: int) -> int:
    kind = ctypes.CFUNCTYPE(U64, *[U64] * len(arguments))
    return int(kind(code.address)(*arguments))


LOOP = """
    r6 = 600
    r7 = 7
    r8 = 8
    r9 = 9
    *(u64 *)(r10 - 8) = 0
    r2 = func[add] ll
    r3 = r10
    r3 += -8
    call bpf_loop#181
    r1 = *(u64 *)(r10 - 8)
    r1 <<= 32
    r0 += r1
    r0 += r6
    r0 += r7
    r0 += r8
    r0 += r9
    exit
    add:
    r3 = *(u64 *)(r2 + 0)
    r3 += r1
    *(u64 *)(r2 + 0) = r3
    r0 = 0
    if r1 != 4 goto on
    r0 = 1
    on: exit
"""


TOO_MANY = -errno.E2BIG & 0xFFFFFFFF  # the kernel's inlined loop sets a 32-bit register


@pytest.mark.parametrize(
    ("count", "calls", "total"),
    [(0, 0, 0), (1, 1, 0), (3, 3, 3), (5, 5, 10), (9, 5, 10), (1 << 32 | 2, TOO_MANY, 0)],
)
def test_loop(count: int, calls: int, total: int, backend: ModuleType) -> None:
    """i + 1 after a callback that returned 1, the count otherwise; r6 to r9 are kept."""
    code = backend.compile(xlated(f"r1 = {count} ll\nr4 = 0\n{LOOP}", 8, 0), {})
    assert run(code, 0) == calls + 624 + (total << 32)


def test_loop_refuses_what_the_kernel_refuses(backend: ModuleType) -> None:
    code = backend.compile(xlated(f"r4 = r1\nr1 = 1\n{LOOP}", 8, 0), {})
    assert run(code, 1) == (-errno.EINVAL + 624) & (1 << 64) - 1
    code = backend.compile(xlated(f"r4 = 0\n{LOOP}", 8, 0), {})
    assert run(code, BPF_MAX_LOOPS + 1) == TOO_MANY + 624


def test_slots_lie_below_the_frame() -> None:
    out = xlated(f"r1 = 1\nr4 = 0\n{LOOP}", 8, 0)
    assert out.stack_depth == (40, 0)
    assert xlated("r0 = 1\nexit", 16).stack_depth == (16,)


TAIL = """
    r6 = r1
    r3 = *(u64 *)(r1 + 32)       ; the index
    r2 = map[programs] ll
    call bpf_tail_call#12
    r0 = 77
    exit
"""
OTHER = "r0 = *(u64 *)(r1 + 0)\nr0 += 100\nexit"


def test_tail_call_returns_the_other_programs_verdict_for_each_packet(backend: ModuleType) -> None:
    other = backend.compile(xlated(OTHER), {})
    entries = aligned(64).view("<u8")
    entries[1] = other.address
    program = xlated(TAIL)
    assert tail_calls(program.insns)
    code = backend.compile(batch(program), {"programs": address_of(entries)})
    rxq, buffs = RXQ_INFO.array(1), XDP_BUFF.array(4)
    rxq["tail_calls"] = 5
    buffs["rxq"] = address_of(rxq)
    buffs["data"] = range(4)
    buffs["handle"] = 0, 1, 9, 1
    run(code, address_of(buffs), 4)
    assert list(buffs["act"]) == [77, 101, 77, 103]
    assert rxq["tail_calls"][0] == 0


def test_tail_call_in_a_function_returns_to_its_caller(backend: ModuleType) -> None:
    other = backend.compile(xlated(OTHER), {})
    entries = aligned(64).view("<u8")
    entries[1] = other.address
    code = backend.compile(
        xlated(f"call f\nr0 += 1000\nexit\nf:\n{TAIL}", 0, 0), {"programs": address_of(entries)}
    )
    buffs = XDP_BUFF.array(1)
    buffs["handle"] = 1
    assert run(code, address_of(buffs)) == 1100


def test_unknown_helpers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="calls helper 7"):
        xlated("call 7\nexit")
