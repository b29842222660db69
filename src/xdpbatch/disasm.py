"""Instructions as text, in the syntax of the kernel's verifier log.

Analogous to kernel/bpf/disasm.c. Every line can be assembled again (see `asm`), except what only
rewrites make: calls of this runtime's own functions, and addresses of places in a map. An
instruction whose reserved fields are not 0 is shown raw.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdpbatch.isa import (
    ATOMIC_OPS,
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
    GOTOL,
    HELPER_CALL,
    KFUNC_CALL,
    LD_IMM64,
    LOAD_ACQ,
    PREFETCH,
    PSEUDO_BTF_ID,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    STORE_REL,
    XCHG,
    Alu,
    Class,
    Insn,
    Jmp,
    Mode,
    slot_of,
)
from xdpbatch.native import Argument, Field, Hidden, Reg
from xdpbatch.uapi import HELPER_NAMES

ALU_SIGNS: dict[int, str] = {
    Alu.ADD: "+=",
    Alu.SUB: "-=",
    Alu.MUL: "*=",
    Alu.DIV: "/=",
    Alu.OR: "|=",
    Alu.AND: "&=",
    Alu.LSH: "<<=",
    Alu.RSH: ">>=",
    Alu.MOD: "%=",
    Alu.XOR: "^=",
    Alu.MOV: "=",
    Alu.ARSH: "s>>=",
}
JMP_SIGNS: dict[int, str] = {
    Jmp.JEQ: "==",
    Jmp.JGT: ">",
    Jmp.JGE: ">=",
    Jmp.JSET: "&",
    Jmp.JNE: "!=",
    Jmp.JSGT: "s>",
    Jmp.JSGE: "s>=",
    Jmp.JLT: "<",
    Jmp.JLE: "<=",
    Jmp.JSLT: "s<",
    Jmp.JSLE: "s<=",
}
ATOMIC_SIGNS: dict[int, str] = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}


def disassemble(insns: Sequence[Insn]) -> list[str]:
    """One line per instruction, without its number. Jumps are shown as distances in slots."""
    slots = slot_of(insns)
    out = []
    for i, insn in enumerate(insns):
        distance = None if insn.target is None else slots[insn.target] - slots[i] - 1
        out.append(text_of(insn, distance))
    return out


def text_of(insn: Insn, distance: int | None = None) -> str:
    """One instruction; `distance` is where its target is, in slots from the next slot."""
    if insn.native is not None:
        arguments = ", ".join(_argument(a) for a in insn.native.arguments)
        return f"call native {insn.native.function.symbol}({arguments})"
    if insn.op == LD_IMM64:
        text = _wide(insn, distance)
    elif insn.is_alu:
        text = _alu(insn)
    elif insn.cls in (Class.JMP, Class.JMP32):
        text = _jump(insn, distance)
    else:
        text = _memory(insn)
    if text is None or not _reserved_is_zero(insn):
        return f"insn 0x{insn.op:02x} dst={insn.dst} src={insn.src} off={insn.off} imm={insn.imm}"
    return text


def _argument(argument: Argument) -> str:
    match argument:
        case Reg(number):
            return f"r{number}"
        case Field(register, offset):
            return f"*(u32 *)(r{register} + {offset})"
        case Hidden():
            return argument.name.lower()
    return str(argument)


def _reserved_is_zero(insn: Insn) -> bool:
    """Whether the fields that this form does not show are 0, so that the text is all of it."""
    match insn.cls:
        case Class.LD:
            return insn.off == 0
        case Class.LDX:
            return insn.imm == 0 and not (insn.op == PREFETCH and insn.dst)
        case Class.ST:
            return insn.src == 0
        case Class.STX:
            return insn.is_atomic or insn.imm == 0
        case Class.ALU | Class.ALU64:
            return not (insn.imm and insn.uses_reg and insn.op & 0xF0 != Alu.END) and not (
                insn.src and (not insn.uses_reg or insn.op & 0xF0 == Alu.END)
            )
    if insn.op == CALL:
        return insn.dst == insn.off == 0
    if insn.op == CALLX:
        return insn.src == insn.off == insn.imm == 0
    if not insn.is_jump or insn.op & 0xF0 == Jmp.JA:
        return insn.dst == insn.src == insn.imm == insn.off == 0
    return insn.off == 0 and (insn.imm if insn.uses_reg else insn.src) == 0


def _wide(insn: Insn, distance: int | None) -> str | None:
    dst = f"r{insn.dst}"
    if insn.src == 0 and insn.ref is None:
        return f"{dst} = 0x{insn.imm:x} ll"
    if insn.src == PSEUDO_FUNC and distance is not None:
        return f"{dst} = func[pc{distance:+d}] ll"
    if insn.ref is None:
        return None
    if insn.src == PSEUDO_MAP_VALUE:
        return f"{dst} = map_value[{insn.ref}+{insn.imm}] ll"
    if insn.src == PSEUDO_MAP_FD and insn.imm:
        return f"{dst} = map[{insn.ref}]+{insn.imm} ll"
    if insn.src in (PSEUDO_MAP_FD, PSEUDO_BTF_ID) and insn.imm == 0:
        return f"{dst} = {'map' if insn.src == PSEUDO_MAP_FD else 'ksym'}[{insn.ref}] ll"
    return None


def _alu(insn: Insn) -> str | None:
    letter = "r" if insn.cls == Class.ALU64 else "w"
    dst, src, op = f"{letter}{insn.dst}", f"{letter}{insn.src}", insn.op & 0xF0
    if op == Alu.END:
        kind = "bswap" if insn.cls == Class.ALU64 else "be" if insn.uses_reg else "le"
        known = insn.imm in (16, 32, 64) and insn.off == 0
        # the register is named r even for le/be, whose class is ALU: all its bits are written
        return f"r{insn.dst} = {kind}{insn.imm} r{insn.dst}" if known else None
    if op == Alu.NEG:
        return None if insn.off or insn.imm else f"{dst} = -{dst}"
    sign, second = ALU_SIGNS[op], src if insn.uses_reg else str(insn.imm)
    if insn.off == 0:
        return f"{dst} {sign} {second}"
    if insn.off == 1 and op in (Alu.DIV, Alu.MOD):
        return f"{dst} s{sign} {second}"
    widths = (8, 16, 32) if letter == "r" else (8, 16)
    if op == Alu.MOV and insn.uses_reg and insn.off in widths:
        return f"{dst} = (s{insn.off}){src}"
    return None


def _jump(insn: Insn, distance: int | None) -> str | None:
    if insn.op == EXIT:
        return "exit"
    if insn.op == CALLX:
        return f"callx r{insn.dst}"
    if insn.op == CALL:
        return _call(insn, distance)
    if distance is None:
        return None
    if insn.op & 0xF0 == Jmp.JA:
        return f"goto{'l' if insn.op == GOTOL else ''} {distance:+d}"
    letter = "r" if insn.cls == Class.JMP else "w"
    second = f"{letter}{insn.src}" if insn.uses_reg else str(insn.imm)
    return f"if {letter}{insn.dst} {JMP_SIGNS[insn.op & 0xF0]} {second} goto {distance:+d}"


def _call(insn: Insn, distance: int | None) -> str | None:
    match insn.src:
        case _ if insn.src == HELPER_CALL:
            known = 0 < insn.imm < len(HELPER_NAMES)
            name = f"bpf_{HELPER_NAMES[insn.imm]}" if known else "unknown"
            return f"call {name}#{insn.imm}"
        case _ if insn.src == BPF_CALL and distance is not None:
            return f"call pc{distance:+d}"
        case _ if insn.src == KFUNC_CALL and insn.ref is not None and insn.imm == 0:
            return f"call kfunc[{insn.ref}]"
    return None


def _memory(insn: Insn) -> str | None:
    bits = insn.width * 8
    base = insn.src if insn.cls == Class.LDX else insn.dst
    at = f"(r{base} {'-' if insn.off < 0 else '+'} {abs(insn.off)})"
    if insn.op == PREFETCH:
        return f"prefetch{at}"
    if insn.is_load:
        sign = "s" if insn.op & 0xE0 == Mode.MEMSX else "u"
        return f"r{insn.dst} = *({sign}{bits} *){at}"
    if insn.is_atomic:
        return _atomic(insn, bits, at)
    value = f"r{insn.src}" if insn.cls == Class.STX else str(insn.imm)
    return f"*(u{bits} *){at} = {value}"


def _atomic(insn: Insn, bits: int, at: str) -> str | None:
    where, src, wide = f"(u{bits} *){at}", f"r{insn.src}", "64" if bits == 64 else ""
    if insn.imm == LOAD_ACQ:
        where = where.replace(f"(r{insn.dst} ", f"({src} ")
        return f"r{insn.dst} = load_acquire({where})"
    if insn.imm == STORE_REL:
        return f"store_release({where}, {src})"
    if insn.imm == XCHG:
        return f"{src} = atomic{wide}_xchg({where}, {src})"
    if insn.imm == CMPXCHG:
        return f"r0 = atomic{wide}_cmpxchg({where}, r0, {src})"
    if insn.imm in ATOMIC_SIGNS:
        return f"lock *{where} {ATOMIC_SIGNS[insn.imm]} {src}"
    if insn.imm & FETCH and insn.imm & ~FETCH in ATOMIC_OPS:
        return f"{src} = atomic{wide}_fetch_{ATOMIC_OPS[insn.imm & ~FETCH]}({where}, {src})"
    return None
