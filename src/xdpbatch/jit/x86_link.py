"""From instructions and labels to finished code: each jump gets its length and its distance.

Analogous to the passes over `addrs[]` of bpf_int_jit_compile (arch/x86/net/bpf_jit_comp.c).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Label = Hashable


@dataclass(frozen=True, slots=True)
class Fixed:
    """An instruction whose bytes are final."""

    code: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Branch:
    """An instruction that holds the distance to a label: `short` is its opcode with 8 bits of
    distance (empty if there is none), `near` with 32. `text` may name {target} and {distance}."""

    label: Label
    short: bytes
    near: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Here:
    """A label's place: no bytes."""

    label: Label


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of finished machine code; `offset` is from the code's first byte."""

    offset: int
    code: bytes
    text: str


Item = Fixed | Branch | Here
JMP_NEAR = b"\xe9"


def link(items: Sequence[Item]) -> list[Line]:
    """Choose each jump's length and fill in distances.

    Starts with near jumps and only ever shrinks one, so it ends: as Linux's passes do. An
    unconditional jump to the next instruction takes no bytes.
    """
    sizes = [_longest(item) for item in items]
    while True:
        places, labels = _layout(items, sizes)
        known = zip(items, places, sizes, strict=True)
        shrunk = [_fitting(item, place, size, labels) for item, place, size in known]
        if shrunk == sizes:
            break
        sizes = shrunk
    lines = []
    for item, place, size in zip(items, places, sizes, strict=True):
        if isinstance(item, Fixed):
            lines.append(Line(place, item.code, item.text))
        elif isinstance(item, Branch) and size:
            lines.append(_resolved(item, place, size, labels[item.label]))
    return lines


def little_endian(value: int, size: int) -> bytes:
    """The low `size` bytes of `value`."""
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _layout(items: Sequence[Item], sizes: Sequence[int]) -> tuple[list[int], dict[Label, int]]:
    """Where each item is if it has that size, and where each label is."""
    places: list[int] = []
    labels: dict[Label, int] = {}
    place = 0
    for item, size in zip(items, sizes, strict=True):
        places.append(place)
        if isinstance(item, Here):
            labels[item.label] = place
        place += size
    return places, labels


def _longest(item: Item) -> int:
    if isinstance(item, Fixed):
        return len(item.code)
    return len(item.near) + 4 if isinstance(item, Branch) else 0


def _fitting(item: Item, place: int, size: int, labels: dict[Label, int]) -> int:
    """The size that suffices now. What shrinks later brings no target further away."""
    if not isinstance(item, Branch) or not item.short or not size:
        return size
    distance = labels[item.label] - place - size
    if distance == 0 and item.near == JMP_NEAR:
        return 0
    return len(item.short) + 1 if -128 <= distance < 128 else size


def _resolved(item: Branch, place: int, size: int, target: int) -> Line:
    distance = target - place - size
    short = len(item.short) + 1 == size
    code = item.short if short else item.near
    code += little_endian(distance, 1 if short else 4)
    return Line(place, code, item.text.format(target=target, distance=distance))
