"""BTF, the types of a BPF object: `Btf`, and one dataclass per kind of type.

Analogous to `struct btf` of libbpf's btf.c; format: Documentation/bpf/btf.rst. Types are decoded
when they are asked for, and found by name through an index, so that the 130,000 types of a
kernel's BTF cost 0.1 s.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xdpbatch.errors import ObjectError

MAGIC = 0xEB9F
MAX_DEPTH = 64  # of modifiers, typedefs and arrays in a row; libbpf resolves 32
MAX_STRING = 512  # KSYM_NAME_LEN: no name is longer; of a source line it is enough
POINTER_SIZE = 8


class Kind(IntEnum):
    """BTF_KIND_* of include/uapi/linux/btf.h."""

    VOID, INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE = range(10)
    CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(
        10, 20
    )


# bytes that follow the common 12: fixed ones, and per counted element
_TAIL = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.ENUM64: (0, 12),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.DECL_TAG: (4, 0),
}
_KINDS = [Kind(i) if 0 < i < len(Kind) else None for i in range(32)]
_FIXED = np.array([3 + _TAIL.get(k, (0, 0))[0] // 4 if k else 0 for k in _KINDS])  # words
_COUNTED = np.array([_TAIL.get(k, (0, 0))[1] // 4 if k else 0 for k in _KINDS])
_ALIASES = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}
_SIZED = {Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.FLOAT}

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_TRIPLE = struct.Struct("<III")
_PAIR = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Member:
    """Of a struct or union. `bit_size` is 0 unless it is a bit field."""

    name: str
    type: int
    bit_offset: int
    bit_size: int = 0


@dataclass(frozen=True, slots=True)
class Enumerator:
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    type: int


@dataclass(frozen=True, slots=True)
class SectionVar:
    """A variable (or extern function) of a data section: BTF id, byte offset, bytes."""

    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Type:
    """What all kinds have. `type` is the id that it refers to (pointee, element, prototype)."""

    id: int
    kind: Kind
    name: str = ""
    size: int = 0
    type: int = 0


@dataclass(frozen=True, slots=True)
class Int(Type):
    """Also bool and char. `bits` may be less than size * 8 in old bit fields."""

    signed: bool = False
    bool: bool = False
    bits: int = 0
    bit_offset: int = 0


@dataclass(frozen=True, slots=True)
class Array(Type):
    index_type: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Composite(Type):
    """A struct or union."""

    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Enum(Type):
    """Both widths of enum."""

    signed: bool = False
    values: tuple[Enumerator, ...] = ()


@dataclass(frozen=True, slots=True)
class Prototype(Type):
    """`type` is what it returns, 0 for void."""

    params: tuple[Param, ...] = ()


@dataclass(frozen=True, slots=True)
class Linked(Type):
    """A VAR or FUNC; `linkage` 0 static, 1 global, 2 extern."""

    linkage: int = 0


@dataclass(frozen=True, slots=True)
class DataSection(Type):
    vars: tuple[SectionVar, ...] = ()


@dataclass(frozen=True, slots=True)
class Tag(Type):
    """A DECL_TAG on `type`, or on its component (member or parameter) if that is not -1."""

    component: int = -1


class Btf:
    """The types of one .BTF section or of one kernel; ids count from 1, 0 is void."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._start, self._types, self._strings = _parts(raw)
        self._offsets = _scan(self._types)
        self._decoded: dict[int, Type] = {0: Type(0, Kind.VOID, "void")}

    @classmethod
    def from_bytes(cls, raw: bytes) -> Btf:
        """Of the bytes of a .BTF section or of /sys/kernel/btf/vmlinux. Raises ObjectError."""
        return cls(raw)

    def __len__(self) -> int:
        """One more than the highest type_id."""
        return len(self._offsets)

    def __iter__(self) -> Iterator[Type]:
        return map(self.type, range(1, len(self)))

    def type(self, type_id: int) -> Type:
        """The type with an id."""
        found = self._decoded.get(type_id)
        if found is None:
            if not 0 < type_id < len(self):
                raise _bad(f"type {type_id} does not exist")
            found = self._decoded[type_id] = self._decode(type_id)
        return found

    def position(self, type_id: int) -> int:
        """Where in `raw` a type starts."""
        return self._start + self._offsets[type_id]

    def string(self, offset: int) -> str:
        """The string at an offset of the string section, cut off after MAX_STRING bytes."""
        if offset >= len(self._strings):
            raise _bad(f"string offset {offset} lies outside the string section")
        end = self._strings.find(b"\0", offset, offset + MAX_STRING)
        return self._strings[offset : end if end >= 0 else offset + MAX_STRING].decode(
            "utf-8", "backslashreplace"
        )

    def named(self, name: str, *kinds: Kind) -> list[Type]:
        """All types of that name, restricted to kinds if any are given."""
        found = map(self.type, self._ids(self._names.get(name.encode(), [])))
        return [t for t in found if not kinds or t.kind in kinds]

    def flavours(self, name: str) -> list[Type]:
        """All types of that name without a flavour: `foo___old` counts as `foo`."""
        found = self._flavoured.get(name, [])
        if "___" not in name:
            found = found + self._names.get(name.encode(), [])
        return list(map(self.type, self._ids(found)))

    def resolve(self, type_id: int) -> Type:
        """The type behind typedefs, const, volatile, restrict and type tags."""
        for _ in range(MAX_DEPTH):
            found = self.type(type_id)
            if found.kind not in _ALIASES:
                return found
            type_id = found.type
        raise _bad(f"type {type_id} is a typedef or modifier of itself")

    def size_of(self, type_id: int) -> int:
        """Bytes of a type; ObjectError for void, functions and forward declarations."""
        count = 1
        for _ in range(MAX_DEPTH):
            found = self.resolve(type_id)
            if isinstance(found, Array):
                count *= found.count
                type_id = found.type
            elif found.kind == Kind.PTR:
                return count * POINTER_SIZE
            elif found.kind == Kind.VAR:
                type_id = found.type
            elif found.kind in _SIZED:
                return count * found.size
            else:
                raise _bad(f"type {type_id} ({found.kind.name.lower()} {found.name}) has no size")
        raise _bad(f"type {type_id} contains itself")

    def _ids(self, names: Iterable[int]) -> list[int]:
        """The types whose names are at these string offsets, in order."""
        names_at, order = self._by_name
        found: list[int] = []
        for offset in names:
            first, last = np.searchsorted(names_at, [offset, offset + 1])
            found += order[first:last].tolist()
        return sorted(found)

    @cached_property
    def _by_name(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.intp]]:
        """String offsets of all names, ascending, and the type ids in that order."""
        words = np.frombuffer(self._types, dtype="<u4")
        names = words[np.array(self._offsets) // 4] if len(self) > 1 else words
        names = names.astype(np.uint32)
        names[:1] = 0  # void has none
        order = np.argsort(names, kind="stable")
        return names[order], order

    @cached_property
    def _names(self) -> dict[bytes, list[int]]:
        """String offsets by what is there, of names of types."""
        found: dict[bytes, list[int]] = defaultdict(list)
        strings = self._strings
        for offset in np.unique(self._by_name[0]).tolist():
            end = strings.find(b"\0", offset, offset + MAX_STRING)
            found[strings[offset : end if end >= 0 else offset + MAX_STRING]].append(offset)
        return dict(found)

    @cached_property
    def _flavoured(self) -> dict[str, list[int]]:
        """The same by essential name, of names that may have a flavour."""
        found: dict[str, list[int]] = defaultdict(list)
        for name, offsets in self._names.items():
            if b"___" in name:
                found[essential_name(name.decode("utf-8", "backslashreplace"))] += offsets
        return dict(found)

    def _decode(self, type_id: int) -> Type:
        at = self._offsets[type_id]
        name_at, info, word = _TYPE.unpack_from(self._types, at)
        kind, count, flag = Kind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31)
        name = self.string(name_at)
        at += _TYPE.size
        size, ref = (word, 0) if kind in _SIZED else (0, word)
        match kind:
            case Kind.INT:
                (bits,) = struct.unpack_from("<I", self._types, at)
                encoding = bits >> 24 & 15
                signed, boolean = bool(encoding & 1), bool(encoding & 4)
                return Int(
                    type_id, kind, name, size, 0, signed, boolean, bits & 0xFF, bits >> 16 & 0xFF
                )
            case Kind.ARRAY:
                element, index_type, nelems = _TRIPLE.unpack_from(self._types, at)
                return Array(type_id, kind, name, 0, element, index_type, nelems)
            case Kind.STRUCT | Kind.UNION:
                members = tuple(self._members(at, count, flag))
                return Composite(type_id, kind, name, size, 0, members)
            case Kind.ENUM | Kind.ENUM64:
                values = tuple(self._enumerators(at, count, kind, flag))
                return Enum(type_id, kind, name, size, 0, flag, values)
            case Kind.FUNC_PROTO:
                pairs = _PAIR.iter_unpack(self._types[at : at + count * 8])
                return Prototype(
                    type_id, kind, name, 0, ref, tuple(Param(self.string(n), t) for n, t in pairs)
                )
            case Kind.VAR:
                (linkage,) = struct.unpack_from("<I", self._types, at)
                return Linked(type_id, kind, name, 0, ref, linkage)
            case Kind.FUNC:
                return Linked(type_id, kind, name, 0, ref, count)
            case Kind.DATASEC:
                entries = _TRIPLE.iter_unpack(self._types[at : at + count * 12])
                return DataSection(
                    type_id, kind, name, size, 0, tuple(SectionVar(*e) for e in entries)
                )
            case Kind.DECL_TAG:
                (component,) = struct.unpack_from("<i", self._types, at)
                return Tag(type_id, kind, name, 0, ref, component)
        return Type(type_id, kind, name, size, ref)

    def _members(self, at: int, count: int, bit_fields: bool) -> Iterator[Member]:
        for name, type_id, offset in _TRIPLE.iter_unpack(self._types[at : at + count * 12]):
            if bit_fields:
                yield Member(self.string(name), type_id, offset & 0xFFFFFF, offset >> 24)
            else:
                yield Member(self.string(name), type_id, offset)

    def _enumerators(self, at: int, count: int, kind: Kind, signed: bool) -> Iterator[Enumerator]:
        if kind == Kind.ENUM:
            layout = struct.Struct("<Ii" if signed else "<II")
        else:
            layout = struct.Struct("<Iq" if signed else "<IQ")
        for name, value in layout.iter_unpack(self._types[at : at + count * layout.size]):
            yield Enumerator(self.string(name), value)


def essential_name(name: str) -> str:
    """A name without its flavour: what follows the last `___` that stands between other letters."""
    at = name.rfind("___")
    while at > 0:
        if name[at - 1] != "_" and name[at + 3 : at + 4] not in ("", "_"):
            return name[:at]
        at = name.rfind("___", 0, at + 2)
    return name


def _parts(raw: bytes) -> tuple[int, bytes, bytes]:
    """Where the type section starts, the type section, the string section."""
    if len(raw) < _HEADER.size:
        raise _bad(f"{len(raw)} bytes are too few for a header")
    magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise _bad(f"magic number 0x{magic:04x}, not 0x{MAGIC:04x}")
    if version != 1:
        raise _bad(f"version {version}, not 1")
    if header < _HEADER.size or max(type_off + type_len, str_off + str_len) > len(raw) - header:
        raise _bad("the header names parts that lie outside the section")
    types = raw[header + type_off : header + type_off + type_len]
    strings = raw[header + str_off : header + str_off + str_len]
    if not strings or strings[0] or strings[-1]:
        raise _bad("the string section does not start and end with NUL")
    return header + type_off, types, strings


def _scan(types: bytes) -> list[int]:
    """The offset of each type, from id 0 (which has none).

    How many words a type has follows from its second; it is computed for all words at once,
    whatever they are, because that is quicker than for each type when its turn comes.
    """
    if len(types) % 4:
        raise _bad("the last type is cut off")
    words = np.frombuffer(types, dtype="<u4")
    kinds = words >> 24 & 0x1F
    sizes = memoryview(_FIXED[kinds] + _COUNTED[kinds] * (words & 0xFFFF))
    found, at, end = [0], 0, len(words)
    while at < end:
        if at + _TYPE.size // 4 > end:
            raise _bad("the last type is cut off")
        size = sizes[at + 1]
        if not size:
            raise _bad(f"unknown kind {kinds[at + 1]} at byte {4 * at} of the types")
        found.append(4 * at)
        at += size
    if at != end:
        raise _bad("the last type is cut off")
    return found


def _bad(reason: str) -> ObjectError:
    return ObjectError.of(
        "bad-btf", "malformed type information", where="section .BTF", reason=reason
    )
