"""Values of BTF types in the shape in which bpftool writes them as JSON ("formatted").

Analogous to tools/bpf/bpftool/btf_dumper.c. It differs from `btf_value`, which is for Python: an
enumerator is its name, a bit field the text of a hexadecimal number, an array of char a text, and
an anonymous member has the name "".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdpbatch.btf import Array, Btf, Composite, Enum, Int, Member
from xdpbatch.btf_value import is_text

Json = dict[str, Any] | list[Any] | str | int | bool
Formatter = Callable[[bytes], Json]  # of a value's bytes; what follows them is not looked at


def formatter(btf: Btf, type_id: int) -> Formatter:
    """How to write values of a type. The type is taken apart once: a map has many of them."""
    found, size = btf.resolve(type_id), btf.size_of(type_id)
    if isinstance(found, Composite):
        parts = [(member.name, _member(btf, member)) for member in found.members]
        return lambda data: {name: part(data) for name, part in parts}
    if isinstance(found, Array):
        return _array(btf, found)
    signed = isinstance(found, Int | Enum) and found.signed
    if isinstance(found, Enum):
        names = {value.value: value.name for value in reversed(found.values)}
        return lambda data: names.get(n := _integer(data, size, signed), n)
    if isinstance(found, Int) and found.bool:
        return lambda data: any(data[:size])
    return lambda data: _integer(data, size, signed)


def _integer(data: bytes, size: int, signed: bool) -> int:
    return int.from_bytes(data[:size], "little", signed=signed)


def _array(btf: Btf, found: Array) -> Formatter:
    element, step, count = formatter(btf, found.type), btf.size_of(found.type), found.count

    def listed(data: bytes) -> Json:
        return [element(data[i * step :]) for i in range(count)]

    def text(data: bytes) -> Json:
        shown = _printable(data[:count])
        return listed(data) if shown is None else shown

    return text if is_text(btf, found) else listed


def _member(btf: Btf, member: Member) -> Formatter:
    at, bits = member.bit_offset, member.bit_size
    if bits:
        mask = (1 << bits) - 1
        return lambda data: hex(int.from_bytes(data, "little") >> at & mask)
    inner, start = formatter(btf, member.type), at // 8
    return lambda data: inner(data[start:])


def _printable(data: bytes) -> str | None:
    """The characters before the first NUL; None if there is no NUL, or others than printable."""
    text, nul, _ = data.partition(b"\0")
    return text.decode("ascii") if nul and all(0x20 <= c < 0x7F for c in text) else None
