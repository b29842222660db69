"""Matching of types between two BTFs, by name and shape: what CO-RE calls compatible.

Analogous to bpf_core_spec_match and its callees in tools/lib/bpf/relo_core.c. A type is looked up
by its essential name: `struct foo___old` stands for the target's `struct foo`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from xdpbatch.btf import MAX_DEPTH, Array, Btf, Composite, Enum, Int, Kind, Member, Prototype, Type
from xdpbatch.btf import essential_name as essential

_ENUMS = (Kind.ENUM, Kind.ENUM64)
_COMPOSITES = (Kind.STRUCT, Kind.UNION)


@dataclass(frozen=True, slots=True)
class Accessor:
    """One step of an access. `type` is the composite or enum with the member `name`, or, without
    a name, the element that `index` selects."""

    type: int
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """A type, field or enumerator of one BTF; `bit_offset` counts from the root's start."""

    btf: Btf
    root: int
    accessors: tuple[Accessor, ...] = ()
    bit_offset: int = 0

    def step(self, accessor: Accessor, bits: int) -> Spec:
        """The spec of a field further inside."""
        accessors = (*self.accessors, accessor)
        return replace(self, accessors=accessors, bit_offset=self.bit_offset + bits)


def same_kind(a: Type, b: Type) -> bool:
    """Both widths of enum are one kind."""
    return a.kind == b.kind or (a.kind in _ENUMS and b.kind in _ENUMS)


def candidates(local: Btf, type_id: int, target: Btf) -> list[int]:
    """Types of the target with the same kind and essential name."""
    wanted = local.type(type_id)
    found = target.flavours(essential(wanted.name))
    return [t.id for t in found if same_kind(t, wanted)]


def match_field(spec: Spec, target: Btf, root: int) -> Spec | None:
    """The same field in another type, which may have it elsewhere; None if it has not."""
    found, at = Spec(target, root), root
    for i, accessor in enumerate(spec.accessors):
        if accessor.name:
            step = _member(spec.btf, accessor, target, at, set())
            if step is None:
                return None
            found, at = found.step(step[0], step[1]), step[2]
            continue
        if i:
            array = target.resolve(at)
            if not isinstance(array, Array) or not in_array(found, array, accessor.index):
                return None
            at = target.resolve(array.type).id
        bits = accessor.index * target.size_of(at) * 8
        found = found.step(Accessor(at, accessor.index), bits)
    return found


def in_array(spec: Spec, array: Array, index: int) -> bool:
    """Whether an index is valid: any is, of a flexible array at a struct's end."""
    if index < array.count:
        return True
    last = spec.accessors[-1]
    if array.count or not last.name:
        return False
    parent = spec.btf.type(last.type)
    return isinstance(parent, Composite) and last.index == len(parent.members) - 1


def match_enumerator(spec: Spec, target: Btf, root: int) -> Spec | None:
    """The enumerator of the same essential name."""
    enum = target.resolve(root)
    wanted = essential(spec.accessors[0].name)
    for i, value in enumerate(enum.values if isinstance(enum, Enum) else ()):
        if essential(value.name) == wanted:
            return Spec(target, root, (Accessor(enum.id, i, value.name),))
    return None


def _member(
    local: Btf, accessor: Accessor, target: Btf, at: int, seen: set[int]
) -> tuple[Accessor, int, int] | None:
    """A member of that name and a compatible type, through anonymous structs and unions:
    (accessor, bits from the start of `at`, the member's type)."""
    composite = target.resolve(at)
    if composite.id in seen or not isinstance(composite, Composite):
        return None
    seen.add(composite.id)
    parent = local.type(accessor.type)
    assert isinstance(parent, Composite)
    wanted = parent.members[accessor.index]
    for i, member in enumerate(composite.members):
        if not member.name:
            inner = _member(local, accessor, target, member.type, seen)
            if inner is not None:
                return inner[0], inner[1] + member.bit_offset, inner[2]
        elif member.name == accessor.name:
            if not _fields_compatible(local, wanted.type, target, member.type):
                return None
            return Accessor(composite.id, i, member.name), member.bit_offset, member.type
    return None


def _fields_compatible(local: Btf, a_id: int, target: Btf, b_id: int) -> bool:
    for _ in range(MAX_DEPTH):
        a, b = local.resolve(a_id), target.resolve(b_id)
        if a.kind in _COMPOSITES and b.kind in _COMPOSITES:
            return True
        if not same_kind(a, b):
            return False
        if a.kind in (Kind.PTR, Kind.FLOAT):
            return True
        if a.kind == Kind.FWD or a.kind in _ENUMS:
            names = essential(a.name), essential(b.name)
            return not all(names) or names[0] == names[1]
        if isinstance(a, Int) and isinstance(b, Int):
            return a.bit_offset == b.bit_offset == 0
        if not isinstance(a, Array):
            return False
        a_id, b_id = a.type, b.type
    return False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of types of two BTFs. A pair that is met again inside itself is taken for equal."""

    local: Btf
    target: Btf
    _known: dict[tuple[str, int, int], bool] = field(default_factory=dict)

    def compatible(self, a_id: int, b_id: int) -> bool:
        """bpf_core_types_are_compat: names beyond the root, and members, are not looked at."""
        return self._once("compatible", a_id, b_id, self._compatible)

    def matches(self, a_id: int, b_id: int) -> bool:
        """bpf_core_types_match: every local member or enumerator exists with a matching type.

        Behind a pointer a struct or union is known by its name alone.
        """
        return self._once("matches", a_id, b_id, partial(self._matches, pointed=False))

    def _pointees_match(self, a_id: int, b_id: int) -> bool:
        return self._once("pointees", a_id, b_id, partial(self._matches, pointed=True))

    def _once(self, what: str, a_id: int, b_id: int, compare: Callable[[Type, Type], bool]) -> bool:
        a, b = self.local.resolve(a_id), self.target.resolve(b_id)
        key = (what, a.id, b.id)
        if key not in self._known:
            self._known[key] = True  # while it is compared: types are recursive
            self._known[key] = compare(a, b)
        return self._known[key]

    def _compatible(self, a: Type, b: Type) -> bool:
        if not same_kind(a, b):
            return False
        if isinstance(a, Int) and isinstance(b, Int):
            return a.bit_offset == b.bit_offset == 0
        if isinstance(a, Prototype) and isinstance(b, Prototype):
            return _parameters_match(a, b, self.compatible)
        if a.kind in (Kind.PTR, Kind.ARRAY):
            return self.compatible(a.type, b.type)
        return a.kind in (Kind.VOID, Kind.FWD, *_ENUMS, *_COMPOSITES)

    def _matches(self, a: Type, b: Type, *, pointed: bool) -> bool:
        if a.name and essential(a.name) != essential(b.name):
            return False
        if pointed and {a.kind, b.kind} <= {Kind.FWD, *_COMPOSITES}:
            return a.kind == b.kind or Kind.FWD in (a.kind, b.kind)
        if not same_kind(a, b):
            return False
        match a:
            case Enum() if isinstance(b, Enum):
                there = {essential(value.name) for value in b.values}
                return a.size == b.size and all(essential(v.name) in there for v in a.values)
            case Composite() if isinstance(b, Composite):
                return all(self._has(b, member) for member in a.members)
            case Int() if isinstance(b, Int):
                return (a.size, a.signed) == (b.size, b.signed)
            case Array() if isinstance(b, Array):
                return a.count == b.count and self.matches(a.type, b.type)
            case Prototype() if isinstance(b, Prototype):
                return _parameters_match(a, b, self.matches)
        if a.kind == Kind.PTR:
            return self._pointees_match(a.type, b.type)
        return a.kind in (Kind.VOID, Kind.FWD)

    def _has(self, composite: Composite, wanted: Member) -> bool:
        name = essential(wanted.name)
        return any(
            essential(member.name) == name and self.matches(wanted.type, member.type)
            for member in composite.members
        )


def _parameters_match(a: Prototype, b: Prototype, same: Callable[[int, int], bool]) -> bool:
    return (
        len(a.params) == len(b.params)
        and all(same(p.type, q.type) for p, q in zip(a.params, b.params, strict=True))
        and same(a.type, b.type)
    )
