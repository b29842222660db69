"""Functions of an object, and programs made of them: every reference resolved.

Analogous to bpf_object__relocate of libbpf. A reference to a map keeps its name (`Insn.ref`), one
to an instruction becomes its index (`Insn.target`). A program is its entry function followed by
all functions that it reaches, from whatever section they come.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from xdpbatch import core_relo
from xdpbatch.btf import Btf
from xdpbatch.btf_ext import Ext, LineInfo
from xdpbatch.elf_file import (
    STB_LOCAL,
    STT_FUNC,
    STT_NOTYPE,
    ElfFile,
    Relocation,
    Section,
    Symbol,
)
from xdpbatch.errors import Diagnostic, ObjectError, Source
from xdpbatch.externs import Externs
from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    KFUNC_CALL,
    LD_IMM64,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    Insn,
    decode,
    slot_of,
)
from xdpbatch.map_defs import MapTable
from xdpbatch.program import Subprog

SLOT = 8
MAX_INSNS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS: no program the kernel takes is longer
MAX_LINKED = 4 * MAX_INSNS  # of all programs of an object together

Key = tuple[int, int]  # section and byte offset of a function


@dataclass
class Function:
    """One function before linking: `refs` are its calls and function addresses, by instruction."""

    name: str
    key: Key
    insns: list[Insn]
    refs: dict[int, Key] = field(default_factory=dict)
    lines: dict[int, LineInfo] = field(default_factory=dict)
    btf_id: int = 0
    is_global: bool = False  # without BTF every function is static to the kernel


@dataclass(frozen=True, slots=True)
class Linked:
    """A program's instructions, and what is known of them, in terms of the whole program."""

    insns: tuple[Insn, ...]
    subprogs: tuple[Subprog, ...]
    lines: Mapping[int, Source]
    func_info: bytes
    line_info: bytes


class Linker:
    """Finds, decodes and joins the functions of one object."""

    def __init__(
        self,
        elf: ElfFile,
        maps: MapTable,
        externs: Externs,
        types: tuple[Btf, Ext] | None,
        target: Btf | None,
    ) -> None:
        self._elf, self._maps, self._externs, self._types = elf, maps, externs, types
        self._target = target
        self._functions: dict[Key, Function] = {}
        self._symbols = {s.index: _functions(elf, s) for s in elf.sections if s.is_code}
        self._relocations: dict[int, dict[int, Relocation]] = {}
        self._linked = 0

    def entries(self, section: Section) -> list[Symbol]:
        """The programs of a section: its functions that are not static."""
        return [s for s in self._symbols[section.index].values() if s.bind != STB_LOCAL]

    def link(self, entry: Symbol) -> Linked:
        """The program that starts at a function."""
        order = self._reached((entry.section, entry.value))
        starts, total = {}, 0
        for function in order:
            starts[function.key] = total
            total += len(function.insns)
        self._linked += total
        if total > MAX_INSNS or self._linked > MAX_LINKED:
            raise ObjectError.of(
                "program-too-large",
                f"program {entry.name} has {total} instructions",
                reason=f"{MAX_INSNS} are allowed, and {MAX_LINKED} in all programs of an object",
            )
        insns = [i for function in order for i in _placed(function, starts)]
        subprogs = tuple(
            Subprog(f.name, starts[f.key], starts[f.key] + len(f.insns), f.btf_id, f.is_global)
            for f in order
        )
        records = {starts[f.key] + i: line for f in order for i, line in f.lines.items()}
        return self._described(tuple(insns), subprogs, records)

    def _described(
        self, insns: tuple[Insn, ...], subprogs: tuple[Subprog, ...], records: dict[int, LineInfo]
    ) -> Linked:
        """With line and function records; the kernel takes them only if no function lacks one."""
        slots = slot_of(insns)
        func_info = line_info = b""
        if all(s.btf_id for s in subprogs):
            func_info = b"".join(struct.pack("<II", slots[s.start], s.btf_id) for s in subprogs)
            if all(s.start in records for s in subprogs):
                line_info = b"".join(
                    struct.pack("<IIII", slots[i], line.file, line.text, line.place)
                    for i, line in sorted(records.items())
                )
        lines = {i: self._source(line) for i, line in sorted(records.items())}
        return Linked(insns, subprogs, lines, func_info, line_info)

    def _source(self, line: LineInfo) -> Source:
        assert self._types is not None
        btf = self._types[0]
        file = os.path.normpath(btf.string(line.file))  # clang writes ././fw.c
        return Source(file, line.line, line.col, btf.string(line.text).strip())

    def _reached(self, entry: Key) -> list[Function]:
        order, seen = [self._function(entry)], {entry}
        for function in order:
            for key in function.refs.values():
                if key not in seen:
                    seen.add(key)
                    order.append(self._function(key))
        return order

    def _function(self, key: Key) -> Function:
        if key not in self._functions:
            section = self._elf.sections[key[0]]
            symbol = self._symbols[key[0]].get(key[1])
            if symbol is None:
                raise ObjectError.of(
                    "bad-call",
                    f"no function starts at byte {key[1]} of section {section.name}",
                    where=f"section {section.name}",
                    reason="a call or a function's address goes there",
                )
            self._functions[key] = self._decode(section, symbol)
        return self._functions[key]

    def _decode(self, section: Section, symbol: Symbol) -> Function:
        """The instructions of one function, its references not yet followed."""
        where = f"function {symbol.name}, section {section.name}"
        code = bytearray(section.data[symbol.value : symbol.value + symbol.size])
        calls = _detach_calls(code)
        try:
            insns = decode(bytes(code))
        except ObjectError as error:
            raise _within(error, where) from None
        if not insns or insns[-1].falls_through:
            raise ObjectError.of(
                "bad-function",
                f"{symbol.name} does not end in exit or a jump",
                where=where,
            )
        function = Function(symbol.name, (section.index, symbol.value), insns)
        index_of = {slot: i for i, slot in enumerate(slot_of(insns)[:-1])}
        for slot, imm in calls.items():
            self._call(function, section, index_of[slot], slot, imm)
        self._addresses(function, section, index_of, where)
        if self._types:
            self._describe(function, section, symbol, index_of)
        return function

    def _relocation(self, section: Section, offset: int) -> Relocation | None:
        if section.index not in self._relocations:
            found = {r.offset: r for r in self._elf.relocations(section)}
            self._relocations[section.index] = found
        return self._relocations[section.index].get(offset)

    def _call(self, function: Function, section: Section, index: int, slot: int, imm: int) -> None:
        start = function.key[1]
        relocation = self._relocation(section, start + slot * SLOT)
        if relocation is None:
            self._refer(function, index, section.index, start + (slot + 1 + imm) * SLOT)
            return
        symbol = relocation.symbol
        if symbol.section == 0:
            function.insns[index] = Insn(CALL, src=KFUNC_CALL, ref=symbol.name)
            return
        self._refer(function, index, symbol.section, symbol.value + (imm + 1) * SLOT)

    def _refer(self, function: Function, index: int, section: int, offset: int) -> None:
        if section not in self._symbols:
            raise ObjectError.of(
                "bad-call",
                "a call or a function's address goes to a section without code",
                where=f"function {function.name}, instruction {index}",
            )
        function.refs[index] = (section, offset)

    def _addresses(
        self, function: Function, section: Section, index_of: Mapping[int, int], where: str
    ) -> None:
        """Resolve what the 64-bit immediates of a function stand for."""
        start = function.key[1]
        for slot, index in index_of.items():
            insn = function.insns[index]
            relocation = self._relocation(section, start + slot * SLOT)
            if insn.op == LD_IMM64 and relocation is not None:
                self._address(function, index, relocation.symbol, where)
            elif insn.op == LD_IMM64 and insn.src == PSEUDO_FUNC:
                distance = _signed32(insn.imm)
                self._refer(function, index, section.index, start + (slot + 1 + distance) * SLOT)
            elif relocation is not None and insn.op != CALL:
                raise ObjectError.of(
                    "bad-relocation",
                    f"instruction {index} cannot refer to {relocation.symbol.name or 'a section'}",
                    where=where,
                    reason="only 64-bit immediates and calls are relocated",
                )

    def _address(self, function: Function, index: int, symbol: Symbol, where: str) -> None:
        insn = function.insns[index]
        offset = symbol.value + _signed32(insn.imm)
        if symbol.section == 0:
            function.insns[index] = self._externs.resolve(insn, symbol, where)
        elif symbol.section in self._symbols:
            function.insns[index] = replace(insn, src=PSEUDO_FUNC, imm=0)
            self._refer(function, index, symbol.section, offset)
        elif (placed := self._maps.at(symbol.section, offset)) is None:
            raise ObjectError.of(
                "bad-relocation",
                f"instruction {index} refers to {symbol.name or 'a section'}",
                where=where,
                reason="it is no map, global variable or function of this object",
            )
        elif placed.spec.contents is None:
            function.insns[index] = replace(insn, src=PSEUDO_MAP_FD, imm=0, ref=placed.spec.name)
        else:
            value = replace(insn, src=PSEUDO_MAP_VALUE, imm=offset & 0xFFFFFFFF)
            function.insns[index] = replace(value, ref=placed.spec.name)

    def _describe(
        self, function: Function, section: Section, symbol: Symbol, index_of: Mapping[int, int]
    ) -> None:
        """CO-RE relocations, lines and BTF id of a function."""
        assert self._types is not None
        btf, ext = self._types
        relos, lines = ext.relos.get(section.name, {}), ext.lines.get(section.name, {})
        for slot, index in index_of.items():
            offset = symbol.value + slot * SLOT
            if offset in relos:
                where = f"function {function.name}, instruction {index}"
                insn, relo = function.insns[index], relos[offset]
                function.insns[index] = core_relo.apply(insn, relo, btf, self._target, where)
            if offset in lines:
                function.lines[index] = lines[offset]
        function.btf_id = ext.funcs.get(section.name, {}).get(symbol.value, 0)
        function.is_global = symbol.is_global and function.btf_id != 0


def _functions(elf: ElfFile, section: Section) -> dict[int, Symbol]:
    """The functions of a section by offset, each with its size; aliases come once."""
    symbols = [
        s
        for s in elf.symbols_in(section)
        if s.type == STT_FUNC or (s.type == STT_NOTYPE and s.bind != STB_LOCAL)
    ]
    found: list[Symbol] = []
    end = len(section.data)
    for symbol in reversed(symbols):
        where = f"symbol {symbol.name}, section {section.name}"
        size = symbol.size or end - symbol.value
        if found and found[-1].value == symbol.value:
            continue
        if symbol.value + size > end:
            reason = (
                f"it takes bytes {symbol.value} to {symbol.value + size}, the next starts at {end}"
            )
            raise ObjectError.of("bad-function", "functions overlap", where=where, reason=reason)
        if symbol.value % SLOT or size % SLOT or not size:
            reason = f"bytes {symbol.value} to {symbol.value + size}"
            raise ObjectError.of(
                "bad-function", "a function is not whole instructions", where=where, reason=reason
            )
        found.append(replace(symbol, size=size))
        end = symbol.value
    return {symbol.value: symbol for symbol in reversed(found)}


def _detach_calls(code: bytearray) -> dict[int, int]:
    """The immediates of bpf-to-bpf calls by slot. In `code` each is made to call slot 0, because
    functions are decoded one by one, and a call leaves its own.
    """
    found = {}
    for slot in range(len(code) // SLOT):
        op, regs = code[slot * SLOT], code[slot * SLOT + 1]
        if op == CALL and regs >> 4 == BPF_CALL:
            (found[slot],) = struct.unpack_from("<i", code, slot * SLOT + 4)
            struct.pack_into("<i", code, slot * SLOT + 4, -slot - 1)
    return found


def _placed(function: Function, starts: Mapping[Key, int]) -> Iterator[Insn]:
    """A function's instructions with their targets in the whole program."""
    base = starts[function.key]
    for i, insn in enumerate(function.insns):
        if i in function.refs:
            yield replace(insn, target=starts[function.refs[i]], imm=0)
        elif base and insn.target is not None:
            yield replace(insn, target=insn.target + base)
        else:
            yield insn


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _within(error: ObjectError, where: str) -> ObjectError:
    """The same error, with the place that the decoder does not know."""
    diagnostic: Diagnostic = error.diagnostics[0]
    return ObjectError(replace(diagnostic, where=f"{where}, {diagnostic.where}"))
