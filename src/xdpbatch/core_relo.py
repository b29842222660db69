"""CO-RE relocations: instructions that depend on how the target lays out its types.

Analogous to tools/lib/bpf/relo_core.c (enum bpf_core_relo_kind, bpf_core_calc_relo,
bpf_core_patch_insn). Without a target the program's own types are the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from xdpbatch.btf import Array, Btf, Composite, Enum, Int, Kind, Type
from xdpbatch.btf_ext import CoreRelo
from xdpbatch.core_match import (
    Accessor,
    Comparison,
    Spec,
    candidates,
    in_array,
    match_enumerator,
    match_field,
)
from xdpbatch.errors import ObjectError
from xdpbatch.isa import CALL, LD_IMM64, MASK64, WIDTH, Insn, Size

POISON = 0xBAD2310  # helper number of a call that stands for what could not be resolved
MAX_ACCESS = 64  # steps of an access string, BPF_CORE_SPEC_MAX_LEN
_SIZE_OF = {width: size for size, width in WIDTH.items()}


class Relo(IntEnum):
    """enum bpf_core_relo_kind."""

    FIELD_BYTE_OFFSET, FIELD_BYTE_SIZE, FIELD_EXISTS, FIELD_SIGNED = range(4)
    FIELD_LSHIFT_U64, FIELD_RSHIFT_U64, TYPE_ID_LOCAL, TYPE_ID_TARGET = range(4, 8)
    TYPE_EXISTS, TYPE_SIZE, ENUMVAL_EXISTS, ENUMVAL_VALUE, TYPE_MATCHES = range(8, 13)

    @property
    def of_type(self) -> bool:
        return Relo.TYPE_ID_LOCAL <= self <= Relo.TYPE_SIZE or self == Relo.TYPE_MATCHES

    @property
    def of_enum(self) -> bool:
        return self in (Relo.ENUMVAL_EXISTS, Relo.ENUMVAL_VALUE)


@dataclass(frozen=True, slots=True)
class Value:
    """What a relocation comes to in one BTF; of a field that is loaded, its type as well."""

    number: int
    field: Type | None = None
    size: int = 0
    exact: bool = True  # whether the instruction must hold this number before


def apply(insn: Insn, relo: CoreRelo, local: Btf, target: Btf | None, where: str) -> Insn:
    """The instruction with the target's value instead of the one it was compiled with.

    What the target does not have becomes a call of helper 0xbad2310, which is refused if it can
    be reached. Raises ObjectError for a malformed relocation or one that the target answers in
    two ways.
    """
    try:
        kind = Relo(relo.kind)
    except ValueError:
        raise _bad(where, f"unknown kind {relo.kind}") from None
    spec = _parse(relo, kind, local, where)
    before = _value(kind, spec, spec)
    if before is None:
        raise _bad(where, f"{kind.name} does not apply to {relo.access} of type {relo.type}")
    if target is None or kind == Relo.TYPE_ID_LOCAL:
        return _patch(insn, before, before, where)
    try:
        found = {_value(kind, spec, match) for match in _matches(kind, spec, target)}
    except RecursionError:
        raise _bad(where, "its types are nested too deeply") from None
    if not found:
        found = {_absent(kind)}
    if len(found) > 1:
        raise _bad(where, f"types named {local.type(relo.type).name} of the target disagree")
    return _patch(insn, before, found.pop(), where)


def _bad(where: str, reason: str) -> ObjectError:
    return ObjectError.of("bad-core-relo", "malformed CO-RE relocation", where=where, reason=reason)


def _parse(relo: CoreRelo, kind: Relo, btf: Btf, where: str) -> Spec:
    """The type, field or enumerator that a relocation is about, in the program's own types."""
    try:
        indices = [int(part) for part in relo.access.split(":")]
    except ValueError:
        raise _bad(where, f"access string {relo.access!r}") from None
    if len(indices) > MAX_ACCESS or min(indices) < 0:
        raise _bad(where, f"access string {relo.access!r}")
    if kind.of_type:
        return Spec(btf, relo.type)
    root, first = btf.resolve(relo.type), indices[0]
    if kind.of_enum:
        if not isinstance(root, Enum) or first >= len(root.values):
            raise _bad(where, f"type {relo.type} has no enumerator {first}")
        return Spec(btf, relo.type, (Accessor(root.id, first, root.values[first].name),))
    spec = Spec(btf, relo.type).step(Accessor(root.id, first), first * btf.size_of(root.id) * 8)
    at = root
    for index in indices[1:]:
        if isinstance(at, Composite) and index < len(at.members):
            member = at.members[index]
            step = Accessor(at.id, index, member.name)
            named = spec.step(step, member.bit_offset)
            inside = replace(spec, bit_offset=named.bit_offset)
            spec, at = named if member.name else inside, btf.resolve(member.type)
        elif isinstance(at, Array) and in_array(spec, at, index):
            at = btf.resolve(at.type)
            spec = spec.step(Accessor(at.id, index), index * btf.size_of(at.id) * 8)
        else:
            raise _bad(where, f"type {at.id} has no part {index}")
    return spec


def _matches(kind: Relo, spec: Spec, target: Btf) -> list[Spec]:
    """What the target has under that name."""
    found: list[Spec] = []
    for root in candidates(spec.btf, spec.root, target):
        if kind.of_type:
            comparison = Comparison(spec.btf, target)
            same = comparison.matches if kind == Relo.TYPE_MATCHES else comparison.compatible
            match = Spec(target, root) if same(spec.root, root) else None
        elif kind.of_enum:
            match = match_enumerator(spec, target, root)
        else:
            match = match_field(spec, target, root)
        if match is not None:
            found.append(match)
    return found


def _absent(kind: Relo) -> Value | None:
    """What a relocation comes to if the target has no such thing; None: poison."""
    if kind.of_type or kind in (Relo.FIELD_EXISTS, Relo.ENUMVAL_EXISTS):
        return Value(0)
    return None


def _value(kind: Relo, local: Spec, spec: Spec) -> Value | None:
    """The number of one spec; None where the kind does not apply to it."""
    match kind:
        case Relo.FIELD_EXISTS | Relo.ENUMVAL_EXISTS | Relo.TYPE_EXISTS | Relo.TYPE_MATCHES:
            return Value(1)
        case Relo.TYPE_ID_LOCAL:
            return Value(local.root, exact=False)
        case Relo.TYPE_ID_TARGET:
            return Value(spec.root, exact=False)
        case Relo.TYPE_SIZE:
            return Value(spec.btf.size_of(spec.root))
        case Relo.ENUMVAL_VALUE:
            accessor = spec.accessors[0]
            enum = spec.btf.type(accessor.type)
            assert isinstance(enum, Enum)
            return Value(enum.values[accessor.index].value)
    return _field_value(kind, spec)


def _field_value(kind: Relo, spec: Spec) -> Value | None:
    accessor, btf = spec.accessors[-1], spec.btf
    holder = btf.type(accessor.type)
    if not accessor.name or not isinstance(holder, Composite):
        size = btf.size_of(accessor.type)
        if kind == Relo.FIELD_BYTE_OFFSET:
            return Value(spec.bit_offset // 8, btf.resolve(accessor.type), size)
        return Value(size) if kind == Relo.FIELD_BYTE_SIZE else None
    member = holder.members[accessor.index]
    kind_of = btf.resolve(member.type)
    size, bits = btf.size_of(member.type), member.bit_size
    offset = spec.bit_offset // 8
    if bits:
        load = _bit_field_load(spec.bit_offset, bits, size)
        if load is None:
            return None
        offset, size = load
    match kind:
        case Relo.FIELD_BYTE_OFFSET if bits:
            return Value(offset, exact=False)
        case Relo.FIELD_BYTE_OFFSET:
            return Value(offset, kind_of, size)
        case Relo.FIELD_BYTE_SIZE:
            return Value(size, exact=not bits)
        case Relo.FIELD_SIGNED:
            return Value(int(isinstance(kind_of, Int | Enum) and kind_of.signed))
        case Relo.FIELD_LSHIFT_U64:
            width = bits or size * 8
            return Value(64 - (spec.bit_offset + width - offset * 8), exact=False)
    return Value(64 - (bits or size * 8), exact=False)


def _bit_field_load(bit_offset: int, bits: int, size: int) -> tuple[int, int] | None:
    """Byte offset and size of the smallest aligned load that holds a bit field."""
    size = max(size, 1)
    while size <= 8:
        offset = bit_offset // 8 // size * size
        if bit_offset + bits - offset * 8 <= size * 8:
            return offset, size
        size *= 2
    return None


def _patch(insn: Insn, before: Value, after: Value | None, where: str) -> Insn:
    """Put a value where the instruction holds it: immediate, 64-bit immediate, or offset."""
    if after is None:
        return Insn(CALL, imm=POISON)
    if insn.op == LD_IMM64 and insn.src == 0:
        _expect(before, insn.imm, before.number & MASK64, where)
        return replace(insn, imm=after.number & MASK64)
    if insn.is_alu and not insn.uses_reg:
        _expect(before, insn.imm & 0xFFFFFFFF, before.number & 0xFFFFFFFF, where)
        if not -(1 << 31) <= after.number < 1 << 32:
            raise _bad(where, f"{after.number} does not fit in the instruction")
        number = after.number & 0xFFFFFFFF
        return replace(insn, imm=number - (1 << 32) if number >> 31 else number)
    if insn.is_load or insn.is_store:
        _expect(before, insn.off, before.number, where)
        return _resize(replace(insn, off=after.number), before, after, where)
    raise _bad(where, f"an instruction with opcode 0x{insn.op:02x} has nothing to relocate")


def _expect(before: Value, found: int, wanted: int, where: str) -> None:
    if before.exact and found != wanted:
        raise _bad(where, f"the instruction holds {found}, its type information says {wanted}")


def _resize(insn: Insn, before: Value, after: Value, where: str) -> Insn:
    """A load or store as wide as the target's field, if both are pointers or unsigned."""
    if insn.off > 0x7FFF:
        raise _bad(where, f"offset {insn.off} does not fit in the instruction")
    if before.size == after.size or not before.size or not after.size:
        return insn
    both = (before.field, after.field)
    pointers = all(t is not None and t.kind == Kind.PTR for t in both)
    unsigned = all(isinstance(t, Int) and not t.signed for t in both)
    if not (pointers or unsigned) or insn.width != before.size or after.size not in _SIZE_OF:
        return Insn(CALL, imm=POISON)
    size: Size = _SIZE_OF[after.size]
    return replace(insn, op=insn.op & ~0x18 | size)
