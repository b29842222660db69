"""A relocatable little-endian BPF ELF file, taken apart and checked: Section, Symbol, Relocation.

Analogous to what libbpf gets from libelf. Every offset, size, index and count that the file
states is checked here once against what the file holds, so that nothing after this module can be
led out of it. Read with `struct` and not with pyelftools: names there have no bound (a hostile
file takes quadratic time), and its import alone costs 60 ms of every start.
Source: System V ABI, chapter 4, and LLVM's BPF relocations (Documentation/bpf/llvm_reloc.rst).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from xdpbatch.errors import ObjectError

EM_BPF, ET_REL = 247, 1
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 8, 9
SHF_ALLOC, SHF_EXECINSTR = 2, 4
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
STV_DEFAULT, STV_INTERNAL, STV_HIDDEN = 0, 1, 2

MAX_NAME = 512  # bytes of a section's or symbol's name: KSYM_NAME_LEN
MAX_ZEROED = 64 << 20  # bytes of a section that the file does not hold (.bss)

_NOT_HELD = (SHT_NULL, SHT_NOBITS)  # no bytes in the file
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")

_REMEDY = "compile with `clang -O2 -g -target bpf -c` or `xdpbatch compile`"


@dataclass(frozen=True, slots=True)
class Section:
    """One section; `data` are its bytes (zeros for .bss)."""

    index: int
    name: str
    type: int
    flags: int
    data: bytes
    link: int
    info: int

    @property
    def is_code(self) -> bool:
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol. `section` is 0 for an undefined one; `value` is an offset into the section."""

    name: str
    section: int
    value: int
    size: int
    bind: int
    type: int
    visibility: int

    @property
    def is_global(self) -> bool:
        return self.bind != STB_LOCAL and self.visibility not in (STV_HIDDEN, STV_INTERNAL)


@dataclass(frozen=True, slots=True)
class Relocation:
    """At `offset` of its section, something that `symbol` stands for is wanted."""

    offset: int
    symbol: Symbol
    type: int


def bad(code: str, message: str, *, where: str = "", reason: str = "") -> ObjectError:
    """An ObjectError about the file's structure."""
    return ObjectError.of(code, message, where=where, reason=reason)


class ElfFile:
    """All sections, symbols and relocations of one file's bytes; `bpf`: it must be a BPF object."""

    def __init__(self, data: bytes, bpf: bool = True) -> None:
        self._data = data
        shoff, shentsize, shnum, shstrndx = _check_header(data, bpf)
        headers = [
            _SHDR.unpack_from(data, shoff + i * shentsize)
            for i in range(_section_count(data, shoff, shentsize, shnum))
        ]
        names = self._names(headers, shstrndx)
        self._sizes_are_possible(headers)
        self.sections = [self._section(i, header, names) for i, header in enumerate(headers)]

    def find(self, name: str) -> Section | None:
        """The first section of that name."""
        return self._by_name.get(name)

    @cached_property
    def symbols(self) -> list[Symbol]:
        """The symbol table, in file order; empty if there is none."""
        tables = [s for s in self.sections if s.type == SHT_SYMTAB]
        if len(tables) > 1:
            raise bad("bad-elf", "more than one symbol table")
        return list(self._symbols(tables[0])) if tables else []

    def symbols_in(self, section: Section) -> list[Symbol]:
        """The symbols defined in a section, by offset."""
        return self._symbols_of.get(section.index, [])

    def relocations(self, section: Section) -> list[Relocation]:
        """What must be filled in into a section, by offset."""
        tables = self._tables_of.get(section.index, [])
        found = [entry for table in tables for entry in self._relocations(table, section)]
        return sorted(found, key=lambda r: r.offset)

    @cached_property
    def _by_name(self) -> dict[str, Section]:
        return {section.name: section for section in reversed(self.sections)}

    @cached_property
    def _symbols_of(self) -> dict[int, list[Symbol]]:
        found: dict[int, list[Symbol]] = defaultdict(list)
        for symbol in sorted(self.symbols, key=lambda s: s.value):
            found[symbol.section].append(symbol)
        return dict(found)

    @cached_property
    def _tables_of(self) -> dict[int, list[Section]]:
        found: dict[int, list[Section]] = defaultdict(list)
        for section in self.sections:
            if section.type == SHT_REL:
                found[section.info].append(section)
        return dict(found)

    def _sizes_are_possible(self, headers: list[tuple[int, ...]]) -> None:
        """Sections do not overlap, so that copies of them take no more memory than the file."""
        held = sum(size for _, kind, _, _, _, size, *_ in headers if kind not in _NOT_HELD)
        zeroed = sum(size for _, kind, _, _, _, size, *_ in headers if kind == SHT_NOBITS)
        if held > len(self._data):
            why = f"sizes add up to {held} bytes, the file has {len(self._data)}"
            raise bad("truncated-elf", "sections overlap or lie outside the file", reason=why)
        if zeroed > MAX_ZEROED:
            why = f"{zeroed} bytes, {MAX_ZEROED} are allowed"
            raise bad("bad-elf", "zeroed sections (.bss) too large", reason=why)

    def _names(self, headers: list[tuple[int, ...]], index: int) -> bytes:
        if not headers:
            raise bad("bad-elf", "the file has no sections")
        if index >= len(headers):
            raise bad("bad-elf", f"section {index} of the section names does not exist")
        _, kind, _, _, offset, size, *_ = headers[index]
        return b"" if kind == SHT_NULL else self._bytes(offset, size, f"section {index}")

    def _bytes(self, offset: int, size: int, where: str) -> bytes:
        if offset + size > len(self._data):
            why = f"bytes {offset} to {offset + size} of a file of {len(self._data)}"
            raise bad("truncated-elf", "a section lies outside the file", where=where, reason=why)
        return self._data[offset : offset + size]

    def _section(self, index: int, header: tuple[int, ...], names: bytes) -> Section:
        name_at, kind, flags, _, offset, size, link, info, _, _ = header
        if kind == SHT_NULL:
            return Section(index, "", kind, 0, b"", 0, 0)
        name = _string(names, name_at, f"section {index}")
        zeroed = kind == SHT_NOBITS
        data = bytes(size) if zeroed else self._bytes(offset, size, f"section {name}")
        return Section(index, name, kind, flags, data, link, info)

    def _symbols(self, table: Section) -> Iterator[Symbol]:
        if table.link >= len(self.sections) or len(table.data) % _SYM.size:
            raise bad("bad-elf", "malformed symbol table", where=f"section {table.name}")
        strings = self.sections[table.link].data
        for i, (name, info, other, shndx, value, size) in enumerate(_SYM.iter_unpack(table.data)):
            where = f"symbol {i}"
            if shndx >= SHN_LORESERVE:
                shndx = -1  # absolute, common, file: in no section
            elif shndx >= len(self.sections):
                raise bad("bad-elf", f"section {shndx} does not exist", where=where)
            label = _string(strings, name, where)
            if shndx > 0 and value + size > len(self.sections[shndx].data):
                why = f"bytes {value} to {value + size} of {len(self.sections[shndx].data)}"
                where = f"symbol {label or i}, section {self.sections[shndx].name}"
                raise bad("bad-elf", "a symbol lies outside its section", where=where, reason=why)
            yield Symbol(label, shndx, value, size, info >> 4, info & 15, other & 3)

    def _relocations(self, table: Section, section: Section) -> Iterator[Relocation]:
        where = f"section {table.name}"
        if len(table.data) % _REL.size:
            raise bad("bad-elf", "malformed relocations", where=where)
        for offset, info in _REL.iter_unpack(table.data):
            if offset >= len(section.data):
                why = f"offset {offset} of {len(section.data)}"
                raise bad(
                    "bad-elf", "a relocation lies outside its section", where=where, reason=why
                )
            if info >> 32 >= len(self.symbols):
                raise bad("bad-elf", f"symbol {info >> 32} does not exist", where=where)
            yield Relocation(offset, self.symbols[info >> 32], info & 0xFFFFFFFF)


def _string(table: bytes, offset: int, where: str) -> str:
    """The NUL-terminated string at an offset of a string table."""
    if offset == 0 and not table:
        return ""
    end = table.find(b"\0", offset, offset + MAX_NAME)
    if offset >= len(table) or end < 0:
        raise bad("bad-elf", "a name lies outside its string table", where=where)
    return table[offset:end].decode("utf-8", "backslashreplace")


def _section_count(data: bytes, shoff: int, shentsize: int, shnum: int) -> int:
    """e_shnum, which is 0 in a file with 65,280 or more sections: we take none such."""
    if shnum and shentsize != _SHDR.size:
        raise bad("bad-elf", f"section headers of {shentsize} bytes, not {_SHDR.size}")
    if shoff + shnum * shentsize > len(data):
        why = f"they end at byte {shoff + shnum * shentsize} of a file of {len(data)}"
        raise bad("truncated-elf", "the section headers lie outside the file", reason=why)
    return shnum


def _check_header(data: bytes, bpf: bool) -> tuple[int, int, int, int]:
    """e_shoff, e_shentsize, e_shnum, e_shstrndx of a file, of one that can hold BPF programs."""
    if not data:
        raise _refuse("empty-file", "the file is empty")
    if data[:4] != b"\x7fELF"[: len(data)] or len(data) < 4:
        raise _refuse("not-elf", "not an ELF file")
    if len(data) < _EHDR.size:
        raise _refuse("truncated-elf", f"the ELF header is cut off after {len(data)} bytes")
    if data[4] != 2:
        raise _refuse("not-bpf", "a 32-bit ELF file; BPF objects are 64-bit")
    if data[5] != 1:
        raise _refuse("big-endian", "a big-endian ELF file; only little-endian BPF is supported")
    _, kind, machine, _, _, _, shoff, _, _, _, _, shentsize, shnum, shstrndx = _EHDR.unpack_from(
        data
    )
    if bpf and machine != EM_BPF:
        raise _refuse("not-bpf", f"an ELF file for machine {machine}, not for BPF ({EM_BPF})")
    if bpf and kind != ET_REL:
        raise _refuse("not-relocatable", f"an ELF file of type {kind}, not relocatable (1)")
    return shoff, shentsize, shnum, shstrndx


def _refuse(code: str, message: str) -> ObjectError:
    return ObjectError.of(code, message, suggestion=_REMEDY)
