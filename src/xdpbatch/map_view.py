"""A map as Python sees it: keys and values through their BTF types, or as bytes.

    flows[{"saddr": "10.0.0.1", "sport": 80}] = {"packets": 1}      # what is left out is 0
    flows[key]["packets"]                                           # of a per-CPU map: one per CPU

Analogous to `bpftool map lookup` and `update`, with the types that the object declares. Where it
declares none, keys and values are bytes, or ints of 1, 2, 4 or 8 bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

from xdpbatch.btf import Btf, Enum, Int
from xdpbatch.btf_value import Value, from_hex, pack, unpack
from xdpbatch.errors import Diagnostic, MapError
from xdpbatch.maps import CPUS, Map, round_up
from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber

HOLDS_MAPS = (MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS)
HOLDS_PROGRAMS = (
    MapNumber.PROG_ARRAY, MapNumber.DEVMAP, MapNumber.DEVMAP_HASH, MapNumber.CPUMAP,
)  # fmt: skip
_NUMBERS = (1, 2, 4, 8)  # bytes

Number = Callable[[str], int]  # of the map or program with a name, as a map holds it


class MapView(MutableMapping[Any, Any]):
    """One map with its types. Iterating gives keys that are integers as int, others as bytes.

    `map` is the map itself, for bytes only. Raises MapError for what does not fit the types, or
    what the kernel would refuse; KeyError as any mapping does.
    """

    def __init__(self, map: Map, btf: Btf | None = None, number: Number | None = None) -> None:
        """`number` finds what entries of maps of maps and of programs may be called by name."""
        self.map, self._btf, self._number = map, btf, number

    @property
    def spec(self) -> MapSpec:
        """What the object says of it."""
        return self.map.spec

    def key(self, key: Value) -> bytes:
        """A key's bytes."""
        return self._pack("key", key)

    def value(self, value: Value) -> bytes:
        """A value's bytes as bpf(2) takes them; of a per-CPU map, a list or one for all CPUs."""
        size = self.spec.value_size
        raw = from_hex(value)
        if not self.map.kind.per_cpu:
            return self._pack("value", raw)
        if isinstance(raw, bytes) and len(raw) == round_up(size, 8) * CPUS:
            return raw
        each = isinstance(raw, Sequence) and not isinstance(raw, str | bytes) and len(raw) == CPUS
        values = raw if each and isinstance(raw, Sequence) else [raw] * CPUS
        padding = bytes(round_up(size, 8) - size)
        return b"".join(self._pack("value", one) + padding for one in values)

    def copies(self, raw: bytes) -> list[bytes]:
        """The values for each CPU of what bpf(2) gives of a per-CPU map."""
        size = self.spec.value_size
        step = round_up(size, 8)
        return [raw[i : i + size] for i in range(0, len(raw), step)]

    def records(self) -> Iterator[bytes]:
        """Take what programs have written to a ring buffer or perf event array."""
        return self.map.records()

    def __getitem__(self, key: Any) -> Any:
        raw = self.map[self.key(key)]
        if not self.map.kind.per_cpu:
            return self._unpack(raw)
        return [self._unpack(copy) for copy in self.copies(raw)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.map.put(self.key(key), self.value(value))

    def __delitem__(self, key: Any) -> None:
        del self.map[self.key(key)]

    def __iter__(self) -> Iterator[Any]:
        btf, found = self._btf, self.spec.key_type
        scalar = btf and found and isinstance(btf.resolve(found), Int | Enum)
        for key in self.map:
            yield unpack(btf, found, key) if btf and scalar else key

    def __len__(self) -> int:
        return len(self.map)

    def __repr__(self) -> str:
        return repr(self.map)

    def _unpack(self, raw: bytes) -> Value:
        found = self.spec.value_type
        return unpack(self._btf, found, raw) if self._btf and found else raw

    def _pack(self, part: str, value: Value) -> bytes:
        spec = self.spec
        type_id, size = (
            (spec.key_type, spec.key_size) if part == "key" else (spec.value_type, spec.value_size)
        )
        value = self._numbered(value) if part == "value" else value
        try:
            if self._btf and type_id:
                return pack(self._btf, type_id, value)
            return _plain(from_hex(value), size)
        except MapError as error:
            first = error.diagnostics[0]
            where = f"{part} of map {spec.name}"
            raise MapError(
                error.errno, Diagnostic(first.code, f"{where}: {first.message}")
            ) from None

    def _numbered(self, value: Value) -> Value:
        """Names of maps and programs replaced by their numbers."""
        if self._number is None or self.spec.type not in (*HOLDS_MAPS, *HOLDS_PROGRAMS):
            return value
        if isinstance(value, str):
            return self._number(value)
        if isinstance(value, dict) and isinstance(value.get("bpf_prog"), str):
            return {**value, "bpf_prog": self._number(value["bpf_prog"]).to_bytes(4, "little")}
        return value


def _plain(value: Value, size: int) -> bytes:
    """Bytes, or a number where its size is one of a number's."""
    if isinstance(value, bytes | bytearray) and len(value) == size:
        return bytes(value)
    if (
        isinstance(value, int)
        and size in _NUMBERS
        and -(1 << 8 * size - 1) <= value < 1 << 8 * size
    ):
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    wanted = f"{size} bytes" + (" or a number" if size in _NUMBERS else "")
    raise MapError(
        errno.EINVAL, Diagnostic("bad-value", f"{value!r} is not {wanted}; it has no type")
    )
