"""The slides' trampoline: the program and the listing that they show, and what it must refuse."""

from __future__ import annotations

import ctypes
import platform
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.asm import assemble, program
from xdpbatch.data.buff import ACT, SIZEOF_XDP_BUFF, XDP_BUFF
from xdpbatch.data.layout import address_of
from xdpbatch.disasm import disassemble
from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Access, Called, Region
from xdpbatch.isa import Insn
from xdpbatch.jit import x86
from xdpbatch.jit.disasm import listing
from xdpbatch.rewrite import Layout, Xlated
from xdpbatch.rewrite.frame import lower
from xdpbatch.rewrite.patch import Code
from xdpbatch.rewrite.poc import COUNT, poc, require_count

on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the x86 backend needs an x86-64 machine"
)

XDP_DROP = "r0 = 1\nexit"

# Slide "eBPF program layout after generating trampoline", with the whole counter comparison.
SLIDE_PROGRAM = """\
r2 = 0
*(u32 *)(r10 - 4) = r2
*(u64 *)(r10 - 12) = r1
r0 = 1
r1 = *(u64 *)(r10 - 12)
r2 = *(u32 *)(r10 - 4)
*(u32 *)(r1 + 48) = r0
r1 += 56
r2 += 1
*(u32 *)(r10 - 4) = r2
*(u64 *)(r10 - 12) = r1
if r2 < 64 goto -9
exit
"""

# Slide "putting it all together"; beside each line what Linux 5.3's JIT emits for it: opcode bytes
# of the Intel manual, ModRM as mod.reg.rm in octal, displacement, immediate.
SLIDE_LISTING = [
    (0x00, "push %rbp", b"\x55"),
    (0x01, "mov %rsp,%rbp", b"\x48\x89" + bytes([0o345])),
    (0x04, "sub $0x10,%rsp", b"\x48\x81" + bytes([0o354]) + struct.pack("<i", 16)),
    (0x0B, "push %rbx", b"\x53"),
    (0x0C, "push %r13", b"\x41\x55"),
    (0x0E, "push %r14", b"\x41\x56"),
    (0x10, "push %r15", b"\x41\x57"),
    (0x12, "pushq $0x0", b"\x6a\x00"),
    (0x14, "xor %esi,%esi", b"\x31" + bytes([0o366])),
    (0x16, "mov %esi,-0x4(%rbp)", b"\x89" + bytes([0o165]) + struct.pack("<b", -4)),
    (0x19, "mov %rdi,-0xc(%rbp)", b"\x48\x89" + bytes([0o175]) + struct.pack("<b", -12)),
    (0x1D, "mov $0x1,%eax", b"\xb8" + struct.pack("<i", 1)),
    (0x22, "mov -0xc(%rbp),%rdi", b"\x48\x8b" + bytes([0o175]) + struct.pack("<b", -12)),
    (0x26, "mov -0x4(%rbp),%esi", b"\x8b" + bytes([0o165]) + struct.pack("<b", -4)),
    (0x29, "mov %eax,0x30(%rdi)", b"\x89" + bytes([0o107]) + b"\x30"),
    (0x2C, "add $0x38,%rdi", b"\x48\x83" + bytes([0o307]) + b"\x38"),
    (0x30, "add $0x1,%rsi", b"\x48\x83" + bytes([0o306]) + b"\x01"),
    (0x34, "mov %esi,-0x4(%rbp)", b"\x89" + bytes([0o165]) + struct.pack("<b", -4)),
    (0x37, "mov %rdi,-0xc(%rbp)", b"\x48\x89" + bytes([0o175]) + struct.pack("<b", -12)),
    (0x3B, "cmp $0x40,%rsi", b"\x48\x83" + bytes([0o376]) + b"\x40"),
    (0x3F, "jb 0x1d", b"\x72" + struct.pack("<b", 0x1D - 0x41)),
    (0x41, "pop %rbx", b"\x5b"),
    (0x42, "pop %r15", b"\x41\x5f"),
    (0x44, "pop %r14", b"\x41\x5e"),
    (0x46, "pop %r13", b"\x41\x5d"),
    (0x48, "pop %rbx", b"\x5b"),
    (0x49, "leaveq", b"\xc9"),
    (0x4A, "retq", b"\xc3"),
]


def xlated(text: str, *depths: int) -> Xlated:
    one = program(text, "xdp_test")
    return Xlated(one, one.insns, one.subprogs, depths or (0,) * len(one.subprogs))


def test_the_program_of_the_slides() -> None:
    batched = poc(xlated(XDP_DROP))
    assert disassemble(batched.insns) == SLIDE_PROGRAM.splitlines()
    assert batched.stack_depth == (12,)
    assert (batched.layout, batched.body, batched.buff_slot) == (Layout.POC, 3, -12)


def test_the_listing_of_the_slides() -> None:
    lines = x86.assemble(poc(xlated(XDP_DROP)), {}, {})
    shown = [f"{offset:4x}: {text}" for offset, text, _ in SLIDE_LISTING]
    assert listing(lines).splitlines() == shown
    assert [line.code for line in lines] == [code for _, _, code in SLIDE_LISTING]
    assert sum(len(line.code) for line in lines) == 75


def test_stack_accesses_of_the_slides_move_down() -> None:
    """Slide "eBPF trampoline prologue section, continued"."""
    batched = poc(
        xlated(
            """
            *(u64 *)(r10 - 12) = 5
            r2 = *(u64 *)(r10 - 12)
            lock *(u64 *)(r10 - 12) += r2
            r1 = r10
            r1 += -20
            r0 = 2
            exit
            """,
            24,
        )
    )
    assert disassemble(batched.insns)[3:8] == [
        "*(u64 *)(r10 - 24) = 5",
        "r2 = *(u64 *)(r10 - 24)",
        "lock *(u64 *)(r10 - 24) += r2",
        "r1 = r10",
        "r1 += -32",
    ]
    assert batched.stack_depth == (36,)


def lowered(text: str, by: int = 12) -> list[str]:
    one = xlated(text)
    return disassemble(lower(Code(one.insns, one.subprogs, one.stack_depth), by).insns)


def test_a_pointer_is_moved_once_however_it_is_computed() -> None:
    assert lowered("r1 = r10\nr1 += -20\nr1 += 4\nexit")[:3] == ["r1 = r10", "r1 += -32", "r1 += 4"]
    assert lowered("r1 = r10\nr2 = r1\nr2 += -8\nexit")[:4] == [
        "r1 = r10",
        "r1 += -12",
        "r2 = r1",
        "r2 += -8",
    ]
    assert lowered("r1 = -8\nr1 += r10\nexit")[1:3] == ["r1 += r10", "r1 += -12"]
    assert lowered("r1 -= r10\nexit")[:2] == ["r1 -= r10", "r1 += 12"]
    # another path reaches the addition with another pointer
    both = lowered("r3 = r10\nr3 += -8\nif r1 == 0 goto add\nr3 = r10\nadd:\nr3 += -8\nexit")
    assert both == [
        "r3 = r10",
        "r3 += -20",
        "if r1 == 0 goto +2",
        "r3 = r10",
        "r3 += -12",
        "r3 += -8",
        "exit",
    ]


def test_functions_keep_their_own_frame() -> None:
    text = "r1 = r10\ncall f\nexit\nf:\n*(u64 *)(r10 - 8) = r1\nr2 = r10\nr0 = 0\nexit"
    assert lowered(text)[-4:] == ["*(u64 *)(r10 - 8) = r1", "r2 = r10", "r0 = 0", "exit"]


def test_facts_move_with_the_stack() -> None:
    insns = assemble("r1 = *(u64 *)(r10 - 8)\ncall 1\nexit")
    stack = Access(Region.STACK, -8)
    insns[0] = Insn(insns[0].op, 1, 10, -8, fact=stack)
    insns[1] = Insn(insns[1].op, imm=1, fact=Called(args=(stack, None, None, None, None)))
    one = xlated("r0 = 0\nr0 = 0\nexit")
    moved = lower(Code(tuple(insns), one.subprogs, (8,)), 12)
    assert moved.insns[0].fact == Access(Region.STACK, -20)
    assert moved.insns[1].fact == Called(args=(Access(Region.STACK, -20), *[None] * 4))


@pytest.mark.parametrize(
    ("text", "depth", "code"),
    [
        ("if r1 == 0 goto +2\nr0 = 1\nexit\nr0 = 2\nexit", 0, "poc-exits"),
        ("r2 = 0\nr3 = 0\ncall bpf_tail_call#12\nr0 = 1\nexit", 0, "poc-tail-call"),
        ("r1 = 1\nr2 = 0\ncall bpf_redirect#23\nexit", 0, "poc-redirect"),
        ("r2 = 0\nr3 = 0\ncall bpf_redirect_map#51\nexit", 0, "poc-redirect"),
        ("r0 = 1\nexit", 504, "poc-stack"),
        ("*(u64 *)(r10 - 8) = r10\nr0 = 1\nexit", 8, "poc-frame-pointer"),
        ("r2 = 0\nif r2 == r10 goto +0\nr0 = 1\nexit", 8, "poc-frame-pointer"),
    ],
)
def test_what_would_go_wrong_is_refused_by_name(text: str, depth: int, code: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        poc(xlated(text, depth))
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [code]
    assert "suggestion: use --layout batch" in str(caught.value)


def test_every_reason_is_said_at_once() -> None:
    text = "if r1 == 0 goto +3\nr1 = 1\ncall bpf_redirect#23\nexit\nr0 = 2\nexit"
    with pytest.raises(UnsupportedError) as caught:
        poc(xlated(text))
    assert {d.code for d in caught.value.diagnostics} == {"poc-exits", "poc-redirect"}


def test_the_number_of_packets_is_fixed() -> None:
    require_count(COUNT)
    require_count(3, fixed=True)
    for n, fixed in ((63, False), (65, False), (0, False), (65, True)):
        with pytest.raises(UnsupportedError, match=f"poc-count.*{n} packets"):
            require_count(n, fixed=fixed)


def verdicts(one: Xlated, n: int, fixed: bool = False) -> list[int]:
    """Of `n` packets in an array of COUNT + 1; act of one that is not run stays 99."""
    buffs = XDP_BUFF.array(COUNT + 1)
    buffs["handle"] = range(COUNT + 1)
    buffs["act"] = 99
    code = x86.compile(poc(one, fixed=fixed), {})
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    kind(code.address)(address_of(buffs), n)
    return [int(act) for act in buffs["act"]]


SEVERAL_EXITS = """
    r2 = *(u64 *)(r1 + 32)
    *(u64 *)(r10 - 8) = r2
    if r2 > 5 goto +3
    r0 = *(u64 *)(r10 - 8)
    r0 += 1
    exit
    r0 = 7
    if r2 > 50 goto +1
    exit
    r3 = r10
    r0 = *(u32 *)(r3 - 8)
    exit
"""


@on_x86
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64])
def test_the_form_put_right_runs_n_packets_through_every_exit(n: int) -> None:
    wanted = [i + 1 if i <= 5 else 7 if i <= 50 else i for i in range(n)]
    assert verdicts(xlated(SEVERAL_EXITS, 8), n, fixed=True) == wanted + [99] * (COUNT + 1 - n)


@on_x86
def test_the_slides_form_runs_64_packets_whatever_n_is() -> None:
    assert verdicts(xlated(XDP_DROP), 5) == [1] * COUNT + [99]


SLOTS = st.sampled_from([-8, -16, -24, -32])
STEP = st.one_of(
    st.builds("*(u64 *)(r10 {:+d}) = r6".format, SLOTS),
    st.builds("r6 = *(u64 *)(r10 {:+d})".format, SLOTS),
    st.builds("r7 = r10\nr7 += {}\n*(u64 *)(r7 + 0) = r6".format, SLOTS),
    st.builds("r7 = {}\nr7 += r10\nr6 = *(u32 *)(r7 + 4)".format, SLOTS),
    st.builds("r7 = r10\nlock *(u64 *)(r7 {:+d}) += r6".format, SLOTS),
    st.just("r7 = *(u64 *)(r10 - 40)\nr8 = *(u8 *)(r7 - 1)\nr6 += r8"),
    st.builds("r6 *= {}".format, st.integers(-9, 9)),
    st.just("r1 = r10\nr1 += -32\ncall f\nr6 += r0"),
    st.builds("if r6 s> {} goto +1\nr6 += 3".format, st.integers(-100, 100)),
)


@on_x86
@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=12))
def test_stack_programs_give_the_verdicts_of_running_alone(steps: list[str]) -> None:
    clear = [f"*(u64 *)(r10 - {at}) = 0" for at in (8, 16, 24, 32)]
    start = [*clear, "r7 = r10", "*(u64 *)(r10 - 40) = r7", "r6 = *(u64 *)(r1 + 32)"]
    functions = ["f:", "r0 = *(u32 *)(r1 + 8)", "*(u8 *)(r1 + 3) = 17", "exit"]
    if not any("call f" in step for step in steps):
        functions = []
    one = xlated(
        "\n".join([*start, "r0 = 0", *steps, "w0 = w6", "exit", *functions]),
        *((40, 0) if functions else (40,)),
    )
    single = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
    code = x86.compile(one, {})
    buffs = XDP_BUFF.array(COUNT)
    buffs["handle"] = range(COUNT)
    address = address_of(buffs)
    wanted = [
        single(code.address)(address + i * SIZEOF_XDP_BUFF) & 0xFFFFFFFF for i in range(COUNT)
    ]
    assert verdicts(one, COUNT)[:COUNT] == wanted
    assert XDP_BUFF.offset("act") == ACT
