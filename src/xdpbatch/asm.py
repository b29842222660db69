"""BPF assembly: text of the verifier log's syntax to instructions, and back.

Analogous to kernel/bpf/disasm.c and LLVM's BPF assembler; `assemble` takes what `disassemble`
prints, and what `llvm-objdump -d` and the verifier log print of one instruction:

    .map flows hash 4 8 1024        ; only in `program`: name, type, key, value, entries [, flags]
    entry:                          ; labels; `0: (b7)` in front of an instruction is skipped
      r1 = map[flows] ll            ; map_value[.rodata+8] ll, func[label] ll, ksym[name] ll
      r2 = *(u32 *)(r10 - 4)
      if r2 s> 7 goto entry         ; or +3, pc+3: distance in slots of 8 bytes
      call bpf_map_lookup_elem#1    ; or call 1, call label, callx r3, call kfunc[name]
      r2 = atomic64_fetch_add((u64 *)(r1 + 0), r2)
      w0 = (s8)w1
      prefetch(r2 + 64)             ; this runtime's own hint, isa.PREFETCH
      exit
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from xdpbatch.disasm import ALU_SIGNS, ATOMIC_SIGNS, JMP_SIGNS, disassemble
from xdpbatch.errors import ObjectError
from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
    FP,
    GOTOL,
    JA,
    KFUNC_CALL,
    LD_IMM64,
    LOAD_ACQ,
    MASK32,
    MASK64,
    OPCODES,
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
    K,
    Mode,
    Size,
    X,
    slot_of,
)
from xdpbatch.program import MapSpec, Program, Subprog
from xdpbatch.uapi import HELPER_NAMES, MapNumber

__all__ = ["assemble", "disassemble", "program"]

Goal = str | int | None  # a label, a distance in slots, or nothing to resolve
Parsed = tuple[Insn, Goal]

_SIZES = {"8": Size.B, "16": Size.H, "32": Size.W, "64": Size.DW}
_ALU = {sign: op for op, sign in ALU_SIGNS.items()}
_JMP = {sign: op for op, sign in JMP_SIGNS.items()}
_ATOMIC = {sign: op for op, sign in ATOMIC_SIGNS.items()}
_FETCH = {"add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0}

_REG = r"(?:[rw]\d+)"
_INT = r"(?:[+-]?\s*(?:0x[0-9a-f]+|\d+))"
_NAME = r"[A-Za-z_.$][\w.$]*"
_MEM = rf"\*\s*\([us](?P<bits>8|16|32|64)\s*\*\)\s*\((?P<base>{_REG})\s*(?P<off>{_INT})?\)"
_PTR = rf"\(u(?P<bits>8|16|32|64)\s*\*\)\s*\((?P<base>{_REG})\s*(?P<off>{_INT})?\)"
_GOAL = rf"(?:pc)?(?P<goal>[+-]\d+|[+-]?0x[0-9a-f]+|{_NAME})"


def assemble(text: str) -> list[Insn]:
    """Instructions of a program text. Raises ObjectError with the line that is not understood."""
    return _assemble(text)[0]


def program(
    text: str, name: str = "prog", maps: Iterable[MapSpec] = (), section: str = "xdp"
) -> Program:
    """A Program of a text: functions start at instruction 0 and wherever a call goes."""
    declared = {spec.name: spec for spec in (*maps, *_maps(text))}
    insns, labels = _assemble(text)
    starts = {0} | {
        insn.target
        for insn in insns
        if insn.target is not None and insn.op in (CALL, LD_IMM64) and not insn.is_jump
    }
    bounds = [*sorted(starts), len(insns)]
    named = {index: label for label, index in reversed(labels.items())}
    subprogs = tuple(
        Subprog(name if start == 0 else named.get(start, f"func{start}"), start, end)
        for start, end in itertools.pairwise(bounds)
    )
    return Program(name, section, tuple(insns), subprogs, declared, license="GPL")


def _assemble(text: str) -> tuple[list[Insn], dict[str, int]]:
    labels: dict[str, int] = {}
    parsed: list[tuple[Insn, Goal, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        rest = re.sub(r"(;|//).*", "", line).strip()
        while label := re.match(rf"({_NAME}):\s*", rest):
            if label[1] in labels:
                raise _bad(number, line, f"label {label[1]} is defined twice")
            labels[label[1]] = len(parsed)
            rest = rest[label.end() :]
        rest = re.sub(r"^\d+:\s*(\([0-9a-f]{2}\)\s*)?", "", rest)
        if not rest or rest.startswith(".map "):
            continue
        try:
            insn, goal = _parse(rest)
        except ValueError as error:
            raise _bad(number, line, str(error)) from None
        parsed.append((insn, goal, number))
    return _resolve(parsed, labels), labels


def _resolve(parsed: Sequence[tuple[Insn, Goal, int]], labels: dict[str, int]) -> list[Insn]:
    insns = [insn for insn, _, _ in parsed]
    slots = slot_of(insns)
    index_of = {slot: index for index, slot in enumerate(slots[:-1])}
    for i, (insn, goal, number) in enumerate(parsed):
        if goal is None:
            continue
        target = labels.get(goal) if isinstance(goal, str) else index_of.get(slots[i] + 1 + goal)
        if target is None or target >= len(insns):
            raise _bad(number, disassemble([insn])[0], f"no instruction at {goal}")
        insns[i] = replace(insn, target=target)
    return insns


def _maps(text: str) -> Iterable[MapSpec]:
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(;|//).*", "", line).split()
        if not words or words[0] != ".map":
            continue
        try:
            name, kind, *sizes = words[1:]
            key, value, entries, flags = [int(size, 0) for size in [*sizes, "0"][:4]]
            yield MapSpec(name, MapNumber[kind.upper()], key, value, entries, flags)
        except (ValueError, KeyError):
            raise _bad(number, line, "want .map NAME TYPE KEY VALUE ENTRIES [FLAGS]") from None


def _bad(number: int, line: str, why: str) -> ObjectError:
    return ObjectError.of(
        "bad-assembly", f"cannot assemble `{line.strip()}`", where=f"line {number}", reason=why
    )


def _parse(text: str) -> Parsed:
    for pattern, build in _SYNTAX:
        if match := pattern.fullmatch(text):
            return build(match)
    raise ValueError("no instruction has this form")


def _reg(name: str) -> int:
    number = int(name[1:])
    if number > FP:
        raise ValueError(f"register {name} does not exist")
    return number


def _int(text: str) -> int:
    return int(text.replace(" ", ""), 0)


def _imm(text: str) -> int:
    value = _int(text)
    if not -(1 << 31) <= value <= MASK32:
        raise ValueError(f"{text} does not fit in 32 bits")
    return value - (1 << 32) if value > MASK32 >> 1 else value


def _off(text: str | None) -> int:
    value = _int(text) if text else 0
    if not -(1 << 15) <= value < 1 << 15:
        raise ValueError(f"offset {text} does not fit in 16 bits")
    return value


def _operand(text: str) -> tuple[int, int, int]:
    """Source bit, src register and immediate of a second operand."""
    return (X, _reg(text), 0) if text[0] in "rw" else (K, 0, _imm(text))


def _alu(match: re.Match[str]) -> Parsed:
    dst, sign, second = match["dst"], match["sign"], match["second"]
    if second[0] in "rw" and second[0] != dst[0]:
        raise ValueError("r and w registers cannot be mixed")
    source, src, imm = _operand(second)
    signed = sign in ("s/=", "s%=")
    op = _ALU[sign[1:] if signed else sign]
    return Insn(_alu_class(dst) | op | source, _reg(dst), src, int(signed), imm), None


def _alu_class(reg: str) -> int:
    return Class.ALU64 if reg[0] == "r" else Class.ALU


def _movsx(match: re.Match[str]) -> Parsed:
    dst, src, bits = match["dst"], match["src"], int(match["bits"])
    if dst[0] != src[0] or (dst[0] == "w" and bits == 32):
        raise ValueError("no such sign extension")
    return Insn(_alu_class(dst) | Alu.MOV | X, _reg(dst), _reg(src), bits), None


def _same(match: re.Match[str]) -> str:
    if match["dst"] != match["src"]:
        raise ValueError("both registers must be the same")
    return match["dst"]


def _neg(match: re.Match[str]) -> Parsed:
    dst = _same(match)
    return Insn(_alu_class(dst) | Alu.NEG, _reg(dst)), None


def _swap(match: re.Match[str]) -> Parsed:
    dst, kind = _same(match), match["kind"]
    op = {"le": Class.ALU, "be": Class.ALU | X, "bswap": Class.ALU64}[kind] | Alu.END
    return Insn(op, _reg(dst), imm=int(match["bits"])), None


def _load(match: re.Match[str]) -> Parsed:
    mode = Mode.MEMSX if match["sx"] == "s" else Mode.MEM
    size = _SIZES[match["bits"]]
    if mode == Mode.MEMSX and size == Size.DW:
        raise ValueError("no such load")
    op = Class.LDX | size | mode
    return Insn(op, _reg(match["dst"]), _reg(match["base"]), _off(match["off"])), None


def _prefetch(match: re.Match[str]) -> Parsed:
    return Insn(PREFETCH, 0, _reg(match["base"]), _off(match["off"])), None


def _store(match: re.Match[str]) -> Parsed:
    source, src, imm = _operand(match["second"])
    op = (Class.STX if source else Class.ST) | _SIZES[match["bits"]] | Mode.MEM
    return Insn(op, _reg(match["base"]), src, _off(match["off"]), imm), None


def _atomic_insn(match: re.Match[str], src: str, code: int) -> Parsed:
    op = Class.STX | Mode.ATOMIC | _SIZES[match["bits"]]
    return Insn(op, _reg(match["base"]), _reg(src), _off(match["off"]), code), None


def _lock(match: re.Match[str]) -> Parsed:
    return _atomic_insn(match, match["src"], _ATOMIC[match["sign"]])


def _fetch(match: re.Match[str]) -> Parsed:
    code = XCHG if match["what"] == "xchg" else _FETCH[match["what"].removeprefix("fetch_")] | FETCH
    return _atomic_insn(match, _same(match), code)


def _cmpxchg(match: re.Match[str]) -> Parsed:
    return _atomic_insn(match, match["src"], CMPXCHG)


def _load_acquire(match: re.Match[str]) -> Parsed:
    op = Class.STX | Mode.ATOMIC | _SIZES[match["bits"]]
    dst, base = _reg(match["dst"]), _reg(match["base"])
    return Insn(op, dst, base, _off(match["off"]), LOAD_ACQ), None


def _store_release(match: re.Match[str]) -> Parsed:
    return _atomic_insn(match, match["src"], STORE_REL)


def _wide(match: re.Match[str]) -> Parsed:
    value = _int(match["imm"])
    if not -(1 << 63) <= value <= MASK64:
        raise ValueError("does not fit in 64 bits")
    return Insn(LD_IMM64, _reg(match["dst"]), imm=value & MASK64), None


def _reference(match: re.Match[str]) -> Parsed:
    dst, kind, name = _reg(match["dst"]), match["kind"], match["name"]
    offset = _int(match["off"]) if match["off"] else 0
    if kind == "map_value":
        return Insn(LD_IMM64, dst, PSEUDO_MAP_VALUE, imm=offset & MASK32, ref=name), None
    src = {"map": PSEUDO_MAP_FD, "ksym": PSEUDO_BTF_ID}[kind]
    if offset:
        raise ValueError(f"{kind}[] takes no offset")
    return Insn(LD_IMM64, dst, src, ref=name), None


def _goal(text: str) -> Goal:
    return text if re.fullmatch(_NAME, text) else _int(text)


def _function(match: re.Match[str]) -> Parsed:
    return Insn(LD_IMM64, _reg(match["dst"]), PSEUDO_FUNC), _goal(match["goal"])


def _branch(match: re.Match[str]) -> Parsed:
    dst, second = match["dst"], match["second"]
    if second[0] in "rw" and second[0] != dst[0]:
        raise ValueError("r and w registers cannot be mixed")
    source, src, imm = _operand(second)
    cls = Class.JMP if dst[0] == "r" else Class.JMP32
    op = cls | _JMP[match["sign"]] | source
    return Insn(op, _reg(dst), src, imm=imm), _goal(match["goal"])


def _goto(match: re.Match[str]) -> Parsed:
    return Insn(GOTOL if match["long"] else JA), _goal(match["goal"])


def _helper(match: re.Match[str]) -> Parsed:
    name, number = match["name"], match["number"]
    if number is None and name.removeprefix("bpf_") in HELPER_NAMES:
        return Insn(CALL, imm=HELPER_NAMES.index(name.removeprefix("bpf_"))), None
    if number is None:
        return Insn(CALL, src=BPF_CALL), name
    return Insn(CALL, imm=_imm(number)), None


def _call_distance(match: re.Match[str]) -> Parsed:
    return Insn(CALL, src=BPF_CALL), _int(match["goal"])


def _kfunc(match: re.Match[str]) -> Parsed:
    return Insn(CALL, src=KFUNC_CALL, ref=match["name"]), None


def _callx(match: re.Match[str]) -> Parsed:
    return Insn(CALLX, _reg(match["dst"])), None


def _raw(match: re.Match[str]) -> Parsed:
    op, dst, src = (_int(match[name]) for name in ("op", "dst", "src"))
    if dst > FP or src > FP or op not in OPCODES:
        raise ValueError("no such register or opcode")
    imm = _int(match["imm"]) & MASK64 if op == LD_IMM64 else _imm(match["imm"])
    return Insn(op, dst, src, _off(match["off"]), imm), None


def _rule(pattern: str, build: Callable[[re.Match[str]], Parsed]) -> tuple[re.Pattern[str], _Build]:
    return re.compile(pattern), build


_Build = Callable[[re.Match[str]], Parsed]
_DST, _SRC = rf"(?P<dst>{_REG})", rf"(?P<src>{_REG})"
_SECOND = rf"(?P<second>{_REG}|{_INT})"
_ALU_SIGN = "(?P<sign>" + "|".join(re.escape(s) for s in [*_ALU, "s/=", "s%="]) + ")"
_JMP_SIGN = "(?P<sign>" + "|".join(re.escape(s) for s in sorted(_JMP, key=len)[::-1]) + ")"
_LOAD = _MEM.replace("[us]", "(?P<sx>[us])")

_SYNTAX: list[tuple[re.Pattern[str], _Build]] = [
    _rule(rf"{_DST}\s*{_ALU_SIGN}\s*{_SECOND}", _alu),
    _rule(rf"{_DST}\s*=\s*{_LOAD}", _load),
    _rule(rf"{_MEM}\s*=\s*{_SECOND}", _store),
    _rule(rf"prefetch\s*\((?P<base>{_REG})\s*(?P<off>{_INT})?\)", _prefetch),
    _rule(rf"if\s+{_DST}\s*{_JMP_SIGN}\s*{_SECOND}\s+goto\s+{_GOAL}", _branch),
    _rule(rf"goto(?P<long>l)?\s+{_GOAL}", _goto),
    _rule("exit", lambda match: (Insn(EXIT), None)),
    _rule(rf"call\s+pc(?P<goal>{_INT})", _call_distance),
    _rule(rf"call\s+(?:(?P<name>{_NAME})?\s*#)?(?P<number>{_INT})", _helper),
    _rule(rf"call\s+(?P<name>{_NAME})(?P<number>(?!))?", _helper),
    _rule(rf"call\s+kfunc\[(?P<name>{_NAME})\]", _kfunc),
    _rule(rf"callx\s+{_DST}", _callx),
    _rule(
        rf"{_DST}\s*=\s*(?P<kind>map|map_value|ksym)\[(?P<name>{_NAME})(?P<off>[+-]\w+)?\](\s*ll)?",
        _reference,
    ),
    _rule(rf"{_DST}\s*=\s*func\[{_GOAL}\](\s*ll)?", _function),
    _rule(rf"{_DST}\s*=\s*(?P<imm>{_INT})\s*ll", _wide),
    _rule(rf"{_DST}\s*=\s*\(s(?P<bits>8|16|32)\)\s*{_SRC}", _movsx),
    _rule(rf"{_DST}\s*=\s*-\s*{_SRC}", _neg),
    _rule(rf"{_DST}\s*=\s*(?P<kind>be|le|bswap)(?P<bits>16|32|64)\s+{_SRC}", _swap),
    _rule(rf"lock\s+{_MEM}\s*(?P<sign>\+=|\|=|&=|\^=)\s*{_SRC}", _lock),
    _rule(
        rf"{_DST}\s*=\s*atomic(64)?_(?P<what>fetch_(?:add|or|and|xor)|xchg)\({_PTR},\s*{_SRC}\)",
        _fetch,
    ),
    _rule(rf"[rw]0\s*=\s*atomic(64)?_cmpxchg\({_PTR},\s*[rw]0,\s*{_SRC}\)", _cmpxchg),
    _rule(rf"{_DST}\s*=\s*load_acquire\({_PTR}\)", _load_acquire),
    _rule(rf"store_release\({_PTR},\s*{_SRC}\)", _store_release),
    _rule(
        rf"insn\s+(?P<op>{_INT})\s+dst=(?P<dst>\d+)\s+src=(?P<src>\d+)\s+off=(?P<off>{_INT})"
        rf"\s+imm=(?P<imm>{_INT})",
        _raw,
    ),
]
