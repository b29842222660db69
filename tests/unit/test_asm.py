"""The assembler and the disassembler are each other's inverse, and speak the kernel's syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpbatch import asm
from xdpbatch.errors import ObjectError
from xdpbatch.isa import (
    ATOMIC_OPS,
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
    GOTOL,
    JA,
    KFUNC_CALL,
    LD_IMM64,
    LOAD_ACQ,
    OPCODES,
    PSEUDO_BTF_ID,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    STORE_REL,
    XCHG,
    Alu,
    Class,
    Insn,
    decode,
    encode,
    slot_of,
)
from xdpbatch.uapi import MapNumber

REGS = st.integers(0, 10)
OFFS = st.integers(-(1 << 15), (1 << 15) - 1)
IMMS = st.integers(-(1 << 31), (1 << 31) - 1)
NAMES = st.from_regex(r"[A-Za-z_.][A-Za-z0-9_.]{0,10}", fullmatch=True)
ATOMICS = st.sampled_from(
    [*ATOMIC_OPS, *(op | FETCH for op in ATOMIC_OPS), XCHG, CMPXCHG, LOAD_ACQ, STORE_REL]
)


@st.composite
def programs(draw: st.DrawFn) -> list[Insn]:
    """Any instructions with any operands, reserved fields included; jumps go to any of them."""
    count = draw(st.integers(1, 8))
    return [draw(insns(count)) for _ in range(count)]


@st.composite
def insns(draw: st.DrawFn, count: int) -> Insn:
    op = draw(st.sampled_from(sorted(OPCODES)))
    if op == LD_IMM64:
        kind = draw(st.sampled_from([0, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID]))
        name = draw(NAMES) if kind else None
        imm = draw(st.integers(0, (1 << 64) - 1)) if not kind else 0
        if kind == PSEUDO_MAP_VALUE:
            imm = draw(st.integers(0, (1 << 32) - 1))
        return Insn(op, draw(REGS), kind, imm=imm, ref=name)
    insn = Insn(op, draw(REGS), draw(REGS), draw(OFFS), draw(IMMS))
    if insn.is_jump:
        insn = Insn(op, insn.dst, insn.src, imm=insn.imm, target=draw(st.integers(0, count - 1)))
    if op == CALL:
        insn = draw(
            st.sampled_from(
                [
                    Insn(op, imm=insn.imm),
                    Insn(op, src=BPF_CALL, target=0),
                    Insn(op, src=KFUNC_CALL, ref="k"),
                ]
            )
        )
    if insn.is_atomic:
        insn = Insn(op, insn.dst, insn.src, insn.off, draw(ATOMICS))
    if insn.is_alu and insn.op & 0xF0 in (Alu.DIV, Alu.MOD, Alu.MOV):
        insn = Insn(op, insn.dst, insn.src, draw(st.sampled_from([0, 1, 8, 16, 32])), insn.imm)
    return insn


@given(programs())
def test_what_is_disassembled_assembles_to_the_same(program: list[Insn]) -> None:
    text = asm.disassemble(program)
    if any(
        line.startswith("insn ") and i.target is not None
        for line, i in zip(text, program, strict=True)
    ):
        return  # a jump with reserved fields set has no target in its raw form
    assert asm.assemble("\n".join(text)) == program
    numbered = [f"{slot:>5}: {line}" for slot, line in zip(slot_of(program), text, strict=False)]
    assert asm.assemble("\n".join(numbered)) == program


@pytest.mark.parametrize(
    ("text", "insn"),
    [
        ("r0 = 1", Insn(0xB7, 0, imm=1)),
        ("w0 = -1", Insn(0xB4, 0, imm=-1)),
        ("r2 = *(u32 *)(r1 +4)", Insn(0x61, 2, 1, 4)),
        ("r2 = *(s8 *)(r10 - 0x10)", Insn(0x91, 2, 10, -16)),
        ("*(u16 *)(r1 + 0) = 7", Insn(0x6A, 1, imm=7)),
        ("*(u64 *)(r10 - 8) = r6", Insn(0x7B, 10, 6, -8)),
        ("lock *(u64 *)(r1 + 0) += r2", Insn(0xDB, 1, 2)),
        ("r2 = atomic_fetch_or((u32 *)(r1 + 4), r2)", Insn(0xC3, 1, 2, 4, 0x41)),
        ("r0 = atomic64_cmpxchg((u64 *)(r1 + 0), r0, r2)", Insn(0xDB, 1, 2, 0, CMPXCHG)),
        ("r3 s/= r4", Insn(0x3F, 3, 4, 1)),
        ("w3 s%= 5", Insn(0x94, 3, 0, 1, 5)),
        ("r3 = (s32)r4", Insn(0xBF, 3, 4, 32)),
        ("r1 = be16 r1", Insn(0xDC, 1, imm=16)),
        ("r1 = bswap64 r1", Insn(0xD7, 1, imm=64)),
        ("r1 s>>= 3", Insn(0xC7, 1, imm=3)),
        ("call bpf_map_lookup_elem#1", Insn(CALL, imm=1)),
        ("call bpf_map_lookup_elem", Insn(CALL, imm=1)),
        ("call 1", Insn(CALL, imm=1)),
        ("callx r3", Insn(CALLX, 3)),
        ("r1 = map[flows] ll", Insn(LD_IMM64, 1, PSEUDO_MAP_FD, ref="flows")),
        ("r1 = map_value[.data+8] ll", Insn(LD_IMM64, 1, PSEUDO_MAP_VALUE, imm=8, ref=".data")),
        ("r1 = 0x1122334455667788 ll", Insn(LD_IMM64, 1, imm=0x1122334455667788)),
        ("r1 = -1 ll", Insn(LD_IMM64, 1, imm=(1 << 64) - 1)),
        ("14: (b7) r0 = 1", Insn(0xB7, 0, imm=1)),
    ],
)
def test_syntax(text: str, insn: Insn) -> None:
    assert asm.assemble(text) == [insn]


def test_labels_and_distances() -> None:
    program = asm.assemble(
        """
        start:
            r1 = 0x1 ll
            if r1 > 5 goto +1     ; one slot
            goto start
            gotol end
            call helper_function
            r2 = func[helper_function] ll
        end: exit
        helper_function:
            r0 = 0
            exit
        """
    )
    assert [i.target for i in program] == [None, 3, 0, 6, 7, 7, None, None, None]
    assert [program[i].op for i in (1, 2, 3, 6)] == [Class.JMP | 0x20, JA, GOTOL, EXIT]
    assert program[5].src == PSEUDO_FUNC
    without_address = [i for i in program if i.src != PSEUDO_FUNC]
    assert without_address != program
    assert encode(program)[16:24] == bytes.fromhex("2501010005000000")


def test_encoded_and_decoded() -> None:
    program = asm.assemble("r1 = 7 ll\nl: if w1 != 3 goto l\ncall f\nexit\nf: r0 = 0\nexit")
    assert decode(encode(program)) == program


def test_program_finds_functions_and_maps() -> None:
    program = asm.program(
        """
        .map flows lru_hash 4 8 1024
        .map blob array 4 64 1 0x80     ; flags
            r1 = map[flows] ll
            call other
            exit
        other:
            r0 = 2
            exit
        """,
        name="entry",
    )
    assert [(s.name, s.start, s.end) for s in program.subprogs] == [
        ("entry", 0, 3),
        ("other", 3, 5),
    ]
    assert program.maps["flows"].type == MapNumber.LRU_HASH
    assert program.maps["blob"].flags == 0x80


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("r1 = r11", "r11 does not exist"),
        ("r1 = w2", "cannot be mixed"),
        ("goto nowhere", "no instruction at nowhere"),
        ("goto +7", "no instruction at 7"),
        ("r1 = 0x1 ll\ngoto -2", "no instruction at -2"),
        ("r1 += 0x1ffffffff", "32 bits"),
        ("*(u8 *)(r1 + 40000) = 1", "16 bits"),
        ("frobnicate r1", "no instruction has this form"),
        ("a: exit\na: exit", "defined twice"),
    ],
)
def test_errors_name_the_line(text: str, why: str) -> None:
    with pytest.raises(ObjectError, match=why) as caught:
        asm.assemble(text)
    assert "line " in str(caught.value)


@given(st.text(alphabet="rw0123456789 =+-*()u[]lgotcaexi.:;#\n", max_size=60))
def test_any_text_gives_instructions_or_one_error(text: str) -> None:
    try:
        insns = asm.assemble(text)
    except ObjectError:
        return
    assert all(insn.op in OPCODES for insn in insns)
