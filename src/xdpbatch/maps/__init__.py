"""Maps: one file per kernel map type, each a MapType; and Map, one created map in memory.

Analogous to `struct bpf_map_ops` and `struct bpf_map` (include/linux/bpf.h). A map is one block of
memory that starts with a header (HEADER), so that native code needs nothing but its address; the
MapType's native functions are its operations. A call site that knows its map passes the geometry
as constants, which fold away after inlining.

A module maps/NOUN.py defines `TYPE = NounType()`; `map_type(number)` finds it by scanning the
package: adding a map type touches one file.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import pkgutil
from abc import ABC
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from weakref import WeakValueDictionary

from xdpbatch.data.layout import Layout, address_of, aligned, allocate, bytes_at
from xdpbatch.data.records import read
from xdpbatch.errors import Diagnostic, MapError, UnsupportedError
from xdpbatch.mem import load32, signed, store32, store64
from xdpbatch.native import Native
from xdpbatch.program import Attach, MapSpec
from xdpbatch.uapi import (
    BPF_ANY,
    BPF_F_LOCK,
    BPF_F_RDONLY,
    BPF_F_RDONLY_PROG,
    BPF_F_WRONLY,
    BPF_F_WRONLY_PROG,
    MapNumber,
)

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
ALL_CPUS = -1
PCPU_MIN_UNIT_SIZE = 32 << 10  # include/linux/percpu.h: no per-CPU value is larger
INT_MAX = (1 << 31) - 1
ENOTSUPP = 524  # include/linux/errno.h; not an errno of user space
ACCESS_FLAGS = BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG

_ids = count(1)


class MapType(ABC):
    """The operations of one kernel map type. An operation that is None gives -EINVAL/-ENOTSUPP
    as the kernel does; each is a Native whose parameters are chosen BY NAME from:

    * `buff` (hidden, first), `map` (its address), `key`, `value` (addresses), `flags`,
    * `key_size`, `value_size`, `max_entries`, `map_flags`: geometry, constants where known.

    What `key` and `value` point to is only read: native callers may pass copies.

    `lookup` returns the address of the value or 0, `update` and `delete` 0 or -errno,
    `next_key(map, key, next, …)` copies the key after `key` (0: the first): 0 or -ENOENT.
    `redirect(buff, map, key, flags, …)` is bpf_redirect_map: XDP_REDIRECT or the flags' low bits;
    its key is the index itself, not an address.
    `lookup_cpu(map, key, cpu, …)` and `update_cpu(map, key, value, flags, cpu, …)` exist where
    the CPU matters; with ALL_CPUS, `value` is the copies for all CPUs of a per-CPU map.
    `visit(buff, map, position, entry, …)` is a step of bpf_for_each_map_elem(): it finds the first
    element at or after `position`, stores the addresses of its key and value at `entry` and
    `entry + 8` (there are 8 bytes more for a key that is not in memory), and returns the position
    to go on from, 0 if there was none.
    `push(map, value, flags)`, `pop(map, out)` and `peek(map, out)` belong to types
    without keys.
    `target(buff, map, index, …)` is the first half of bpf_tail_call, of PROG_ARRAY: the address of
    the program's SINGLE entry, counted in Rxq.tail_calls, or 0 where the kernel would go on.
    `quiet_lookup` is `lookup` without its side effects, and `prefetch(map, key, step, …)` asks for
    the cache lines that it will touch, `prefetch_steps` times: step i may read only what step
    i - 1 asked for. Both are for rewrite.stage, and change nothing.
    `read`, `write` and `remove` are what bpf(2) does from user space; they default to the
    program's own operations, `read` to `user_lookup` where that differs.
    """

    number: int
    name: str  # as bpftool spells it
    lookup: Native | None = None
    update: Native | None = None
    delete: Native | None = None
    next_key: Native | None = None
    redirect: Native | None = None
    lookup_cpu: Native | None = None
    update_cpu: Native | None = None
    user_lookup: Native | None = None
    push: Native | None = None
    pop: Native | None = None
    peek: Native | None = None
    target: Native | None = None
    visit: Native | None = None
    quiet_lookup: Native | None = None
    prefetch: Native | None = None
    prefetch_steps = 0
    per_cpu = False

    def check(self, spec: MapSpec) -> None:
        """Raise MapError with the errno of map_alloc_check if the kernel would refuse `spec`."""

    def size(self, spec: MapSpec) -> int:
        """Bytes of the block, header included."""
        raise NotImplementedError

    def init(self, address: int, spec: MapSpec) -> None:
        """Initialise a zeroed block whose header is filled in."""

    def user_size(self, spec: MapSpec) -> int:
        """Bytes of a value as user space reads and writes it: bpf_map_value_size()."""
        return round_up(spec.value_size, 8) * CPUS if self.per_cpu else spec.value_size

    def read(self, m: Map, key: int) -> bytes | int:
        """BPF_MAP_LOOKUP_ELEM: the value at the address `key`, or -errno."""
        op = self.user_lookup or self.lookup_cpu or self.lookup
        size = round_up(m.spec.value_size, 8) if self.per_cpu else m.spec.value_size
        copies = []
        for cpu in range(CPUS if self.per_cpu else 1):
            value = m.call(op, key=key, cpu=cpu)
            if value <= 0:
                return value or -errno.ENOENT
            copies.append(bytes_at(value, size))
        return b"".join(copies)

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        """BPF_MAP_UPDATE_ELEM: 0 or -errno."""
        source = address_in(value)
        op = self.update_cpu or self.update
        return m.call(op, key=key, value=source, flags=signed(flags), cpu=ALL_CPUS)

    def remove(self, m: Map, key: int) -> int:
        """BPF_MAP_DELETE_ELEM: 0 or -errno."""
        return m.call(self.delete, key=key)

    def rings(self, m: Map) -> list[int]:
        """Addresses of the rings of records (data.records) that programs write to."""
        return []


def round_up(n: int, multiple: int) -> int:
    """The next multiple of a power of two."""
    return (n + multiple - 1) & -multiple


def map_error(number: int, message: str, reason: str = "") -> MapError:
    """A MapError with the kernel's errno."""
    name = errno.errorcode.get(number, str(number))
    reason = reason or os.strerror(number)
    return MapError(number, Diagnostic("map", message, reason=f"-{name}: {reason}"))


def refuse(number: int, spec: MapSpec, why: str) -> MapError:
    """The error for a map that the kernel would not create."""
    return map_error(number, f"map {spec.name} cannot be created", why)


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


def check_flags(spec: MapSpec, allowed: int) -> None:
    """Refuse (EINVAL) flags outside of `allowed` and contradictory access flags.

    Analogous to bpf_map_flags_access_ok() and bpf_get_file_flag().
    """
    if spec.flags & ~allowed:
        raise refuse(errno.EINVAL, spec, f"flags {spec.flags & ~allowed:#x} are not for this type")
    for both in (BPF_F_RDONLY | BPF_F_WRONLY, BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        if spec.flags & both == both:
            raise refuse(errno.EINVAL, spec, "read-only and write-only exclude each other")


def address_in(data: bytes) -> int:
    """The address of a bytes object's first byte, which must outlive its use."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


@dataclass(frozen=True, slots=True)
class ProgramEntry:
    """A program that entries of maps can name by its id: what a program's fd is to bpf(2)."""

    id: int
    address: int  # of its native SINGLE layout; must stay valid as long as any map has the entry
    attach: Attach


programs: dict[int, ProgramEntry] = {}


def add_program(address: int, attach: Attach = Attach.XDP) -> ProgramEntry:
    """Give a compiled program an id, to be put into prog arrays, devmaps and cpumaps."""
    entry = ProgramEntry(next(_ids), address, attach)
    programs[entry.id] = entry
    return entry


by_id: WeakValueDictionary[int, Map] = WeakValueDictionary()


def as_it_stands(op: Native) -> Callable[..., int]:
    """The operation as a Python function."""
    return op


# How operations are run for user space; jit.operations makes machine code of busy ones.
runner: Callable[[Native], Callable[..., int]] = as_it_stands


def run_with(chosen: Callable[[Native], Callable[..., int]]) -> None:
    """Run the operations of all maps through `chosen(op)` from now on."""
    global runner
    runner = chosen


class Map(MutableMapping[bytes, bytes]):
    """One created map. As a mapping it behaves as bpf(2) does from user space.

    Keys and values are bytes of exactly the map's sizes; a value of a per-CPU map is one copy for
    each CPU, each padded to 8 bytes. Raises KeyError where the kernel says ENOENT to a lookup or
    delete, MapError with the kernel's errno otherwise. The memory is freed with the object.
    """

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        self.kind = map_type(spec.type, spec.name)
        if spec.map_extra and spec.type != MapNumber.BLOOM_FILTER:
            raise refuse(errno.EINVAL, spec, "map_extra is for bloom filters only")
        self.kind.check(spec)
        size = self.kind.size(spec)
        try:
            self._block = allocate(size)
        except (OSError, MemoryError, OverflowError):
            raise refuse(errno.ENOMEM, spec, f"no memory for {size} bytes") from None

        self.address = address_of(self._block)
        self.id = next(_ids)
        self.frozen = False
        self._held: dict[bytes, Map] = {}  # inner maps by key
        self._retired: list[Map] = []
        fields = (spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.type, self.id)
        for i, field in enumerate(fields):
            store32(self.address + 4 * i, field)
        store64(self.address + MAP_SIZE, size)
        self._known = {"map": self.address}
        for name, offset in GEOMETRY.items():
            self._known[name] = load32(self.address + offset)
        self.kind.init(self.address, spec)
        if spec.contents is not None:
            self.put(bytes(spec.key_size), spec.contents)
        by_id[self.id] = self

    def call(self, op: Native | None, **arguments: int) -> int:
        """Call an operation of this map's type with arguments by name; -524 if it has none."""
        if op is None:
            return -ENOTSUPP
        known = {**self._known, **arguments}
        return runner(op)(*[known[name] for name in op.params])

    def put(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """bpf_map_update_elem(): `flags` are BPF_ANY, BPF_NOEXIST, BPF_EXIST."""
        if self.frozen or self.spec.flags & BPF_F_RDONLY:
            raise self.error(errno.EPERM, "update")
        self._sized("key", key, self.spec.key_size)
        self._sized("value", value, self.kind.user_size(self.spec))
        if flags & BPF_F_LOCK:
            raise self.error(errno.EINVAL, "update with BPF_F_LOCK")  # no value holds a lock
        self._checked("update", self.kind.write(self, address_in(key), value, flags))

    def take(self, key: bytes = b"") -> bytes:
        """BPF_MAP_LOOKUP_AND_DELETE_ELEM; of a queue or stack the next one. KeyError if none."""
        if self.frozen or self.spec.flags & (BPF_F_RDONLY | BPF_F_WRONLY):
            raise self.error(errno.EPERM, "lookup_and_delete")
        if self.kind.pop is None:
            value = self[key]
            del self[key]
            return value
        value = bytes(self.spec.value_size)
        if self.call(self.kind.pop, out=address_in(value)):
            raise KeyError(key)
        return value

    def records(self) -> Iterator[bytes]:
        """Take the records that programs have written so far: of a ring buffer or perf array."""
        rings = self.kind.rings(self)
        if not rings:
            raise self.error(ENOTSUPP, "reading records")
        return chain.from_iterable(map(read, rings))

    def hold(self, key: bytes, inner: Map) -> None:
        """Keep an inner map alive. One that it replaces lives until `reclaim`, for a program that
        is running may use it."""
        if key in self._held:
            self._retired.append(self._held[key])
        self._held[key] = inner

    def reclaim(self) -> None:
        """Let go of inner maps that were replaced; no program may be running."""
        self._retired.clear()

    def freeze(self) -> None:
        """BPF_MAP_FREEZE: no more changes from user space."""
        self.frozen = True

    def __getitem__(self, key: bytes) -> bytes:
        if self.spec.flags & BPF_F_WRONLY:
            raise self.error(errno.EPERM, "lookup")
        self._sized("key", key, self.spec.key_size)
        value = self.kind.read(self, address_in(key))
        if isinstance(value, bytes):
            return value
        if value == -errno.ENOENT:
            raise KeyError(key)
        raise self.error(-value, "lookup")

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __delitem__(self, key: bytes) -> None:
        if self.frozen or self.spec.flags & BPF_F_RDONLY:
            raise self.error(errno.EPERM, "delete")
        self._sized("key", key, self.spec.key_size)
        error = self.kind.remove(self, address_in(key))
        if error == -errno.ENOENT:
            raise KeyError(key)
        self._checked("delete", error)

    def __iter__(self) -> Iterator[bytes]:
        """Keys in the order of BPF_MAP_GET_NEXT_KEY, as it is at each step."""
        if self.spec.flags & BPF_F_WRONLY:
            raise self.error(errno.EPERM, "get_next_key")
        found = aligned(max(self.spec.key_size, 8))
        key = 0
        while True:
            error = self.call(self.kind.next_key, key=key, next=address_of(found))
            if error == -errno.ENOENT:
                return
            self._checked("get_next_key", error)
            last = found[: self.spec.key_size].tobytes()
            yield last
            key = address_in(last)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<map {self.spec.name}: {self.kind.name}, id {self.id}>"

    def error(self, number: int, what: str) -> MapError:
        """The MapError for an operation that the kernel refuses with `number`."""
        return map_error(number, f"{what} of map {self.spec.name} ({self.kind.name}) is refused")

    def _checked(self, what: str, result: int) -> None:
        if result < 0:
            raise self.error(-result, what)

    def _sized(self, what: str, value: bytes, size: int) -> None:
        if len(value) != size:
            raise map_error(
                errno.EINVAL,
                f"{what} of map {self.spec.name} has {len(value)} bytes",
                f"a {what} of this map has {size} bytes",
            )
