"""Maps: one file per kernel map type, each a MapType; and Map, one created map in memory.

Analogous to `struct bpf_map_ops` and `struct bpf_map` (include/linux/bpf.h). A map is one block of
memory that starts with a header (HEADER), so that native code needs nothing but its address; the
MapType's native functions are its operations. A call site that knows its map passes the geometry
as constants, which fold away after inlining.

A module maps/NOUN.py defines `TYPE = NounType()`; `map_type(number)` finds it by scanning the
package: adding a map type touches one file.
"""

from __future__ import annotations

import errno
import importlib
import pkgutil
from abc import ABC
from collections.abc import Iterator, MutableMapping
from functools import cache

from xdpbatch.data.layout import Layout, address_of, aligned, bytes_at
from xdpbatch.errors import Diagnostic, MapError, UnsupportedError
from xdpbatch.native import Native
from xdpbatch.program import MapSpec

HEADER = Layout(
    "MapHeader",
    {
        "key_size": "u32",
        "value_size": "u32",
        "max_entries": "u32",
        "map_flags": "u32",
        "type": "u32",
        "id": "u32",  # unique in this process, from 1
        "size": "u64",  # bytes of the whole block
        **{f"own{i}": "u64" for i in range(12)},  # for the map type's own use
    },
    128,
)
KEY_SIZE, VALUE_SIZE, MAX_ENTRIES, MAP_FLAGS, MAP_TYPE, MAP_ID, MAP_SIZE = 0, 4, 8, 12, 16, 20, 24
OWN = 32  # offset of the first of the type's own 12 words
SIZEOF_HEADER = 128
GEOMETRY = {
    "key_size": KEY_SIZE,
    "value_size": VALUE_SIZE,
    "max_entries": MAX_ENTRIES,
    "map_flags": MAP_FLAGS,
}  # parameters that a native function may declare by name

CPUS = 2  # possible CPUs of this runtime: a per-CPU value has this many copies


class MapType(ABC):
    """The operations of one kernel map type. An operation that is None gives -EINVAL/-ENOTSUPP
    as the kernel does; each is a Native whose parameters are chosen BY NAME from:

    * `buff` (hidden, first), `map` (its address), `key`, `value` (addresses), `flags`,
    * `key_size`, `value_size`, `max_entries`, `map_flags`: geometry, constants where known.

    `lookup` returns the address of the value or 0, `update` and `delete` 0 or -errno,
    `next_key(map, key, next, …)` copies the key after `key` (0: the first) and returns 0 or -ENOENT.
    `redirect(buff, map, key, flags, …)` is bpf_redirect_map: XDP_REDIRECT or the flags' low bits.
    The `user_*` variants are what bpf(2) does where that differs (per-CPU values); they default
    to the program's own operations.
    """

    number: int
    name: str
    lookup: Native | None = None
    update: Native | None = None
    delete: Native | None = None
    next_key: Native | None = None
    redirect: Native | None = None
    per_cpu = False

    def check(self, spec: MapSpec) -> None:
        """Raise MapError with the errno of map_alloc_check if the kernel would refuse `spec`."""

    def size(self, spec: MapSpec) -> int:
        """Bytes of the block, header included."""
        raise NotImplementedError

    def init(self, address: int, spec: MapSpec) -> None:
        """Initialise a zeroed block whose header is filled in."""


@cache
def map_types() -> dict[int, MapType]:
    """Every map type of this runtime, by kernel number."""
    found: dict[int, MapType] = {}
    for module in pkgutil.iter_modules(__path__):
        kind: MapType | None = getattr(
            importlib.import_module(f"{__name__}.{module.name}"), "TYPE", None
        )
        if kind is not None:
            found[kind.number] = kind
    return found


def map_type(number: int, name: str = "?") -> MapType:
    """The type with a kernel number; UnsupportedError names the map that wants it."""
    try:
        return map_types()[number]
    except KeyError:
        raise UnsupportedError.of(
            "unsupported-map-type",
            f"map {name} has type {number}, which this runtime does not have",
            suggestion="`xdpbatch features` lists the map types",
        ) from None


class Map(MutableMapping[bytes, bytes]):
    """One created map. As a mapping it behaves as bpf(2) does from user space."""
