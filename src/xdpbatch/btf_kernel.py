"""BTF as the kernel takes it: data sections completed, externs made definitions.

Analogous to btf_fixup_datasec and bpf_object__sanitize_btf of libbpf: clang leaves the sizes of
sections and the offsets of variables 0, and the kernel knows no extern.
"""

from __future__ import annotations

import struct

from xdpbatch.btf import Btf, DataSection, Kind, Linked, Prototype, SectionVar
from xdpbatch.elf_file import ElfFile, Section

_GLOBAL, _EXTERN = 1, 2


def complete(btf: Btf, elf: ElfFile) -> bytes:
    """The bytes of `.BTF` for BPF_BTF_LOAD, b"" if it has no types."""
    if len(btf) == 1:
        return b""
    raw = bytearray(btf.raw)
    hidden = {s.name for s in elf.symbols if not s.is_global}
    for found in btf:
        at = btf.position(found.id)
        if isinstance(found, DataSection):
            section = elf.find(found.name)
            if section is None:
                _replace_extern_section(raw, at, btf, found)
            else:
                _complete_section(raw, at, btf, found, elf, section)
        elif isinstance(found, Linked) and found.linkage == _EXTERN:
            _define(raw, at, btf, found)
        elif isinstance(found, Linked) and found.kind == Kind.FUNC and found.name in hidden:
            _set_count(raw, at, 0)  # a hidden function is static to the kernel
    return bytes(raw)


def _set_count(raw: bytearray, at: int, count: int) -> None:
    """The low half of a type's info word: vlen, or a function's linkage."""
    struct.pack_into("<H", raw, at + 4, count)


def _complete_section(
    raw: bytearray, at: int, btf: Btf, found: DataSection, elf: ElfFile, section: Section
) -> None:
    offsets = {s.name: s.value for s in elf.symbols_in(section)}
    completed = sorted(
        (
            SectionVar(v.type, offsets.get(btf.type(v.type).name, v.offset), v.size)
            for v in found.vars
        ),
        key=lambda v: v.offset,
    )
    struct.pack_into("<I", raw, at + 8, len(section.data))
    for i, var in enumerate(completed):
        struct.pack_into("<III", raw, at + 12 + i * 12, var.type, var.offset, var.size)


def _replace_extern_section(raw: bytearray, at: int, btf: Btf, found: DataSection) -> None:
    """Before: DATASEC .ksyms, which may hold functions, at no address.
    After: an anonymous union of as many ints, which nothing refers to.
    """
    number = next((t for t in btf if t.kind == Kind.INT and t.size == 4), None)
    number_id, size = (number.id, number.size) if number else (0, 0)
    info = Kind.UNION << 24 | len(found.vars)
    struct.pack_into("<III", raw, at, 0, info, size)
    for i in range(len(found.vars)):
        struct.pack_into("<III", raw, at + 12 + i * 12, 0, number_id, 0)


def _define(raw: bytearray, at: int, btf: Btf, found: Linked) -> None:
    """An extern variable or function as a global one; a function's parameters need names."""
    if found.kind == Kind.VAR:
        struct.pack_into("<I", raw, at + 12, _GLOBAL)
        return
    _set_count(raw, at, _GLOBAL)
    prototype = btf.type(found.type)
    if isinstance(prototype, Prototype):
        (name,) = struct.unpack_from("<I", raw, at)
        for i, param in enumerate(prototype.params):
            if param.type and not param.name:
                struct.pack_into("<I", raw, btf.position(prototype.id) + 12 + i * 8, name)
