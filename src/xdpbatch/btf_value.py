"""Values of BTF types as Python objects: `pack` to the bytes of a map, `unpack` back.

Analogous to what bpftool prints of a map with BTF. An integer, enum or pointer is an int, a bool a
bool, an array a list (bytes if its elements are one byte wide), a struct or union a dict by member
name; members of anonymous members belong to the outer struct.

`pack` also takes the bytes themselves, as bytes or as bpftool writes them (["0x0a", "0x00"]), the
name of an enumerator, the text of a number or of an array of char, and the text of an IPv4, IPv6
or MAC address for anything of its size, in the order in which a packet has it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from xdpbatch.btf import MAX_DEPTH, Array, Btf, Composite, Enum, Int, Kind, Type
from xdpbatch.errors import Diagnostic, MapError

Value = int | bool | str | bytes | Sequence["Value"] | Mapping[str, "Value"]


@dataclass(frozen=True, slots=True)
class Field:
    """A named part of a struct: `bit_size` is 0 unless it is a bit field."""

    name: str
    type: int
    bit_offset: int
    bit_size: int


def fields(btf: Btf, type_id: int, bit_offset: int = 0, depth: int = 0) -> Iterator[Field]:
    """The named members of a struct or union, those of anonymous members included."""
    composite = btf.resolve(type_id)
    if not isinstance(composite, Composite) or depth > MAX_DEPTH:
        return
    for member in composite.members:
        at = bit_offset + member.bit_offset
        if member.name:
            yield Field(member.name, member.type, at, member.bit_size)
        elif not member.bit_size:
            yield from fields(btf, member.type, at, depth + 1)


def pack(btf: Btf, type_id: int, value: Value) -> bytes:
    """The bytes of a value; what a dict leaves out is 0. MapError if it does not fit the type."""
    found, size = btf.resolve(type_id), btf.size_of(type_id)
    if isinstance(value, str) and not isinstance(found, Enum):
        value = _text(btf, found, size, value)
    value = from_hex(value)
    if isinstance(value, bytes | bytearray):
        if len(value) != size:
            raise _bad(f"{len(value)} bytes", f"{size} bytes for {_name(found)}")
        return bytes(value)
    if isinstance(found, Composite):
        return _pack_fields(btf, found, value)
    if isinstance(found, Array):
        if not isinstance(value, Sequence) or len(value) != found.count:
            raise _bad(repr(value), f"a sequence of {found.count}")
        return b"".join(pack(btf, found.type, item) for item in value)
    return _integer(found, value, size * 8).to_bytes(size, "little")


def unpack(btf: Btf, type_id: int, data: bytes) -> Value:
    """The value that bytes stand for. MapError if there are too few."""
    found, size = btf.resolve(type_id), btf.size_of(type_id)
    if len(data) < size:
        raise _bad(f"{len(data)} bytes", f"{size} bytes for {_name(found)}")
    if isinstance(found, Composite):
        return {f.name: _unpack_field(btf, f, data) for f in fields(btf, found.id)}
    if isinstance(found, Array):
        step = btf.size_of(found.type)
        if step == 1 and isinstance(btf.resolve(found.type), Int):
            return data[:size]
        return [unpack(btf, found.type, data[i : i + step]) for i in range(0, size, step or 1)]
    signed = isinstance(found, Int | Enum) and found.signed
    number = int.from_bytes(data[:size], "little", signed=signed)
    return bool(number) if isinstance(found, Int) and found.bool else number


def from_hex(value: Value) -> Value:
    """The bytes of a list of byte texts, as bpftool writes a key or value; others as they are."""
    if not isinstance(value, list) or not value:
        return value
    if not all(isinstance(item, str) and item.startswith("0x") for item in value):
        return value
    try:
        return bytes(int(str(item), 16) for item in value)
    except ValueError:
        raise _bad(repr(value), "a list of bytes") from None


def is_text(btf: Btf, found: Type) -> bool:
    """Whether a type is an array of char."""
    element = btf.resolve(found.type) if isinstance(found, Array) else found
    return isinstance(found, Array) and element.size == 1 and element.name == "char"


def _text(btf: Btf, found: Type, size: int, text: str) -> Value:
    """What a text stands for: characters, a number, or an address of `size` bytes."""
    if is_text(btf, found):
        return text.encode().ljust(size, b"\0")
    if isinstance(found, Int) or found.kind == Kind.PTR:
        with suppress(ValueError):
            return int(text, 0)
    with suppress(ValueError):
        address = ip_address(text).packed
        if len(address) == size:
            return address
    with suppress(ValueError):
        if text.count(":") == size - 1:
            return bytes.fromhex(text.replace(":", ""))
    raise _bad(repr(text), f"a number or address of {size} bytes for {_name(found)}")


def _pack_fields(btf: Btf, composite: Composite, value: Value) -> bytes:
    known = {field.name: field for field in fields(btf, composite.id)}
    if not isinstance(value, Mapping) or not known.keys() >= value.keys():
        raise _bad(repr(value), f"a dict with members of {_name(composite)}: {', '.join(known)}")
    total = 0
    for name, item in value.items():
        field = known[name]
        if field.bit_size:
            number = _integer(btf.resolve(field.type), item, field.bit_size)
        else:
            number = int.from_bytes(pack(btf, field.type, item), "little")
        total |= number << field.bit_offset
    try:
        return total.to_bytes(composite.size, "little")
    except OverflowError:
        raise _bad(_name(composite), "a struct that holds all its members") from None


def _unpack_field(btf: Btf, field: Field, data: bytes) -> Value:
    if not field.bit_size:
        at = field.bit_offset // 8
        return unpack(btf, field.type, data[at : at + btf.size_of(field.type)])
    found = btf.resolve(field.type)
    number = int.from_bytes(data, "little") >> field.bit_offset & (1 << field.bit_size) - 1
    negative = isinstance(found, Int) and found.signed and number >> field.bit_size - 1
    return number - (1 << field.bit_size) if negative else number


def _integer(found: Type, value: Value, bits: int) -> int:
    """A number of that many bits, unsigned; an enumerator may be given by name."""
    if isinstance(found, Enum) and isinstance(value, str):
        number = next((v.value for v in found.values if v.name == value), None)
        if number is None:
            raise _bad(repr(value), f"one of {', '.join(v.name for v in found.values)}")
        value = number
    if found.kind == Kind.FLOAT or not isinstance(value, int):
        raise _bad(repr(value), f"a number for {_name(found)}")
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise _bad(str(value), f"a number of {bits} bits for {_name(found)}")
    return value & (1 << bits) - 1


def _name(found: Type) -> str:
    return f"{found.kind.name.lower()} {found.name}".strip()


def _bad(value: str, wanted: str) -> MapError:
    return MapError(errno.EINVAL, Diagnostic("bad-value", f"{value} is not {wanted}"))
