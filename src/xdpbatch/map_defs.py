"""The maps that an object declares: MapSpecs of its `.maps`, `maps` and data sections.

Analogous to bpf_object__init_maps of libbpf: `.maps` is described by BTF, `maps` holds
`struct bpf_map_def`s, and each data section is an array map of one entry.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from xdpbatch.btf import Array, Btf, Composite, DataSection, Enum, Kind, Member, Type
from xdpbatch.elf_file import STT_FUNC, STT_SECTION, ElfFile, Symbol
from xdpbatch.errors import ObjectError
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber

MAPS_OF_MAPS = (MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS)
PAGE = 4096
_DATA = (".data", ".rodata", ".bss")
_WORDS = {"type", "key_size", "value_size", "max_entries", "map_flags", "pinning", "map_extra"}
_LEGACY_SIZES = (16, 20, 24, 28)  # struct bpf_map_def with 4 to 7 fields
_ELF_MAP_SIZE = 36  # struct bpf_elf_map of iproute2


@dataclass(frozen=True, slots=True)
class Placed:
    """A map and the bytes of the section that stand for it; a data section is one map."""

    spec: MapSpec
    section: int
    offset: int
    size: int
    values_at: int | None = None  # offset of the `values` member of a `.maps` definition


class MapTable:
    """The maps of one object, found by name or by what a relocation points at."""

    def __init__(self, elf: ElfFile, btf: Btf | None) -> None:
        self._placed = [*_btf_maps(elf, btf), *_legacy_maps(elf, btf), *_data_maps(elf)]
        self._placed.sort(key=lambda placed: (placed.section, placed.offset))
        self._starts = [(placed.section, placed.offset) for placed in self._placed]
        self.specs: dict[str, MapSpec] = {}
        for placed in self._placed:
            if placed.spec.name in self.specs:
                raise _bad("two maps have this name", placed.spec.name)
            self.specs[placed.spec.name] = placed.spec
        for name, values in _values(elf, self).items():
            self.specs[name] = replace(self.specs[name], values=values)

    def at(self, section: int, offset: int) -> Placed | None:
        """The map whose definition or data includes that byte.

        In a data section any offset will do: the verifier refuses what goes out of it.
        """
        index = bisect_right(self._starts, (section, max(offset, 0))) - 1
        placed = self._placed[index] if index >= 0 else None
        if placed is None or placed.section != section:
            return None
        inside = placed.offset <= offset < placed.offset + placed.size
        return placed if inside or placed.spec.contents is not None else None


def _bad(reason: str, name: str) -> ObjectError:
    return ObjectError.of(
        "bad-map", f"map {name} is not well defined", where=f"map {name}", reason=reason
    )


def _btf_maps(elf: ElfFile, btf: Btf | None) -> Iterator[Placed]:
    section = elf.find(".maps")
    if section is None or not section.data:
        return
    if btf is None:
        raise ObjectError.of(
            "no-btf",
            "the .maps section needs type information, and the object has none",
            suggestion="compile with -g",
        )
    symbols = {s.name: s for s in elf.symbols_in(section) if s.type != STT_SECTION}
    for datasec in btf.named(".maps", Kind.DATASEC):
        assert isinstance(datasec, DataSection)
        for variable in datasec.vars:
            name = btf.type(variable.type).name
            if name not in symbols:
                raise _bad("it is described in .BTF but has no symbol", name)
            yield _btf_map(btf, name, variable.type, symbols[name])


def _btf_map(btf: Btf, name: str, var: int, symbol: Symbol) -> Placed:
    shape = btf.resolve(btf.type(var).type)
    if not isinstance(shape, Composite):
        raise _bad("its type is not a struct", name)
    spec = _from_struct(btf, name, shape, inner=False)
    values_at = next((m.bit_offset // 8 for m in shape.members if m.name == "values"), None)
    return Placed(spec, symbol.section, symbol.value, max(symbol.size, shape.size), values_at)


def _from_struct(btf: Btf, name: str, shape: Composite, *, inner: bool) -> MapSpec:
    """The spec that the members of a map definition's struct describe."""
    words: dict[str, int] = {}
    nested: MapSpec | None = None
    for member in shape.members:
        where = f"{name}.{member.name}"
        if member.name in _WORDS or member.name == "numa_node":
            words[member.name] = _word(btf, member, where)
        elif member.name in ("key", "value"):
            pointee = _pointee(btf, member.type, where)
            words[f"{member.name}_type"] = pointee
            size = btf.size_of(pointee)
            if words.setdefault(f"{member.name}_size", size) != size:
                raise _bad(f"{member.name}_size is not the size of its type, {size}", name)
        elif member.name == "values" and not inner:
            nested = _values_type(btf, name, member)
            words.setdefault("value_size", 4)
        else:
            raise _bad(f"member {member.name or '(anonymous)'} is not known", name)
    if "type" not in words:
        raise _bad("it has no type", name)
    return _adjusted(
        MapSpec(
            name,
            words["type"],
            words.get("key_size", 0),
            words.get("value_size", 0),
            words.get("max_entries", 0),
            words.get("map_flags", 0),
            nested,
            pinning=words.get("pinning", 0),
            map_extra=words.get("map_extra", 0),
            key_type=words.get("key_type", 0),
            value_type=words.get("value_type", 0),
        )
    )


def _word(btf: Btf, member: Member, where: str) -> int:
    """The number N of `int (*member)[N]` (__uint) or of `enum { _ = N } *member` (__ulong)."""
    shape = btf.resolve(member.type)
    if isinstance(shape, Enum) and len(shape.values) == 1:
        return shape.values[0].value
    target = btf.resolve(_pointee(btf, member.type, where))
    if isinstance(target, Array):
        return target.count
    if isinstance(target, Enum) and len(target.values) == 1:
        return target.values[0].value
    raise _bad("want int (*)[N], as the macro __uint makes it", where)


def _pointee(btf: Btf, type_id: int, where: str) -> int:
    pointer = btf.resolve(type_id)
    if pointer.kind != Kind.PTR:
        raise _bad("want a pointer, as the macros __uint and __type make it", where)
    return pointer.type


def _values_type(btf: Btf, name: str, member: Member) -> MapSpec | None:
    """Of `values`: the template of the inner maps, or None where it holds programs."""
    array = btf.resolve(member.type)
    if not isinstance(array, Array):
        raise _bad("want an array of pointers, as the macro __array makes it", f"{name}.values")
    target: Type = btf.resolve(_pointee(btf, array.type, f"{name}.values"))
    if target.kind == Kind.FUNC_PROTO:
        return None
    if not isinstance(target, Composite):
        raise _bad("want pointers to a map definition or to programs", f"{name}.values")
    return _from_struct(btf, f"{name}.inner", target, inner=True)


def _adjusted(spec: MapSpec) -> MapSpec:
    """What libbpf fills in before it creates a map of these types."""
    match spec.type:
        case MapNumber.PERF_EVENT_ARRAY if spec.max_entries == 0:
            return replace(spec, max_entries=os.cpu_count() or 1)
        case MapNumber.RINGBUF | MapNumber.USER_RINGBUF if spec.max_entries:
            pages = -(-spec.max_entries // PAGE)
            return replace(spec, max_entries=PAGE << (pages - 1).bit_length())
    return spec


def _legacy_maps(elf: ElfFile, btf: Btf | None) -> Iterator[Placed]:
    """struct bpf_map_def: type, key, value, entries [, flags [, inner map's index [, node]]].

    iproute2's struct bpf_elf_map goes on differently: flags, id, pinning, inner map's id, index.
    """
    section = elf.find("maps")
    if section is None:
        return
    symbols = [s for s in elf.symbols_in(section) if s.type != STT_SECTION and s.name]
    specs: list[MapSpec] = []
    ids: dict[int, MapSpec] = {}
    for symbol in symbols:
        size = symbol.size or len(section.data) // len(symbols)
        iproute2 = size == _ELF_MAP_SIZE
        if size not in (*_LEGACY_SIZES, _ELF_MAP_SIZE) or symbol.value + size > len(section.data):
            raise _bad(f"{size} bytes are not a struct bpf_map_def", symbol.name)
        words = struct.unpack_from(f"<{size // 4}I", section.data, symbol.value)
        kind, key, value, entries, flags, inner, pinning, inner_id = (*words, 0, 0, 0, 0)[:8]
        spec = _adjusted(MapSpec(symbol.name, kind, key, value, entries, flags))
        spec = _annotated(btf, spec)
        if iproute2:
            ids.setdefault(inner, spec)
            spec = replace(spec, pinning=int(pinning != 0))
        if kind in MAPS_OF_MAPS:
            template = ids.get(inner_id) if iproute2 else dict(enumerate(specs)).get(inner)
            if template is None:
                raise _bad("its inner map does not come before it", symbol.name)
            spec = replace(spec, inner=replace(template, name=f"{symbol.name}.inner"))
        specs.append(spec)
        yield Placed(spec, section.index, symbol.value, size)


def _annotated(btf: Btf | None, spec: MapSpec) -> MapSpec:
    """With the types that the macro BPF_ANNOTATE_KV_PAIR declares, in a struct of this name."""
    for found in btf.named(f"____btf_map_{spec.name}", Kind.STRUCT) if btf else ():
        assert isinstance(found, Composite)
        types = {m.name: m.type for m in found.members}
        sizes = {name: btf.size_of(type_id) for name, type_id in types.items() if btf}
        if sizes == {"key": spec.key_size, "value": spec.value_size}:
            return replace(spec, key_type=types["key"], value_type=types["value"])
    return spec


def _data_maps(elf: ElfFile) -> Iterator[Placed]:
    for section in elf.sections:
        base = "." + section.name[1:].split(".")[0]
        if base not in _DATA or not section.name.startswith(".") or not section.data:
            continue
        read_only = base == ".rodata"
        yield Placed(
            MapSpec(
                section.name,
                MapNumber.ARRAY,
                4,
                len(section.data),
                1,
                BPF_F_RDONLY_PROG if read_only else 0,
                contents=section.data,
                frozen=read_only,
            ),
            section.index,
            0,
            len(section.data),
        )


def _values(elf: ElfFile, table: MapTable) -> dict[str, Mapping[int, str]]:
    """The entries of `values` members, which relocations of `.maps` fill in."""
    section = elf.find(".maps")
    found: dict[str, dict[int, str]] = {}
    if section is None:
        return {}
    for relocation in elf.relocations(section):
        placed = table.at(section.index, relocation.offset)
        if placed is None or placed.values_at is None:
            continue
        inside = relocation.offset - placed.offset - placed.values_at
        if inside < 0 or inside % 8:
            raise _bad("a relocation points between its values", placed.spec.name)
        name, symbol = placed.spec.name, relocation.symbol
        if symbol.type == STT_FUNC:
            entry = symbol.name
        elif inner := table.at(symbol.section, symbol.value):
            entry = inner.spec.name
        else:
            raise _bad(f"its value refers to {symbol.name}: not a map or program", name)
        found.setdefault(name, {})[inside // 8] = entry
    return dict(found)
