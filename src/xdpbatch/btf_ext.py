"""The .BTF.ext section: each instruction's line and function, and CO-RE relocations.

Analogous to `struct btf_ext` of libbpf; format: Documentation/bpf/btf.rst, section 3. Offsets of
instructions are bytes from the start of an ELF section, as the file has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from xdpbatch.btf import MAGIC, Btf
from xdpbatch.errors import ObjectError

_HEADER = struct.Struct("<HBBIIIII")
_PAIR = struct.Struct("<II")
_QUAD = struct.Struct("<IIII")


@dataclass(frozen=True, slots=True)
class LineInfo:
    """`file` and `text` are string offsets in the .BTF section, as the kernel wants them."""

    file: int
    text: int
    place: int

    @property
    def line(self) -> int:
        return self.place >> 10

    @property
    def col(self) -> int:
        return self.place & 0x3FF


@dataclass(frozen=True, slots=True)
class CoreRelo:
    """struct bpf_core_relo: the instruction's immediate or offset depends on the target's types."""

    type: int
    access: str
    kind: int


@dataclass(frozen=True, slots=True)
class Ext:
    """The records by name of the ELF section they are about, and by offset in it."""

    funcs: dict[str, dict[int, int]] = field(default_factory=dict)  # ids of BTF FUNCs
    lines: dict[str, dict[int, LineInfo]] = field(default_factory=dict)
    relos: dict[str, dict[int, CoreRelo]] = field(default_factory=dict)


def parse(raw: bytes, btf: Btf) -> Ext:
    """The records of a .BTF.ext section; ObjectError if it is malformed."""
    if len(raw) < _HEADER.size:
        raise _bad(f"{len(raw)} bytes are too few for a header")
    magic, version, _, header, func_at, func_size, line_at, line_size = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != 1 or not _HEADER.size <= header <= len(raw):
        raise _bad("not a header of version 1")
    has_relos = header >= _HEADER.size + _PAIR.size  # not in clang 10's
    relo_at, relo_size = _PAIR.unpack_from(raw, _HEADER.size) if has_relos else (0, 0)
    body = raw[header:]
    ext = Ext()
    for name, (offset, type_id) in _records(body, func_at, func_size, _PAIR, btf):
        ext.funcs.setdefault(name, {})[offset] = type_id
    for name, (offset, *line) in _records(body, line_at, line_size, _QUAD, btf):
        ext.lines.setdefault(name, {})[offset] = LineInfo(*line)
    for name, (offset, type_id, access, kind) in _records(body, relo_at, relo_size, _QUAD, btf):
        ext.relos.setdefault(name, {})[offset] = CoreRelo(type_id, btf.string(access), kind)
    return ext


def _records(
    body: bytes, at: int, size: int, layout: struct.Struct, btf: Btf
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(section name, fields) of each record of one of the three tables."""
    end = at + size
    if end > len(body):
        raise _bad("the header names parts that lie outside the section")
    if not size:
        return
    if size < 4:
        raise _bad("a table is cut off")
    stride = int.from_bytes(body[at : at + 4], "little")
    if stride < layout.size:
        raise _bad(f"records of {stride} bytes; at least {layout.size} are needed")
    at += 4
    while at < end:
        if at + _PAIR.size > end:
            raise _bad("a table is cut off")
        name_at, count = _PAIR.unpack_from(body, at)
        at += _PAIR.size
        if at + count * stride > end:
            raise _bad(f"{count} records lie outside their table")
        name = btf.string(name_at)
        for _ in range(count):
            yield name, layout.unpack_from(body, at)
            at += stride


def _bad(reason: str) -> ObjectError:
    return ObjectError.of(
        "bad-btf-ext", "malformed line information", where="section .BTF.ext", reason=reason
    )
