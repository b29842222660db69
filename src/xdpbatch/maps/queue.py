"""BPF_MAP_TYPE_QUEUE: values without keys, first in, first out.

Analogous to queue_map_ops (kernel/bpf/queue_stack_maps.c): a ring with one place more than entries.
"""

from __future__ import annotations

import errno

from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import (
    ACCESS_FLAGS,
    OWN,
    SIZEOF_HEADER,
    Map,
    MapType,
    address_in,
    check_flags,
    refuse,
)
from xdpbatch.mem import copy, fill, load32, store32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_F_NUMA_NODE, BPF_NOEXIST, MapNumber

EINVAL, ENOENT, E2BIG = errno.EINVAL, errno.ENOENT, errno.E2BIG
HEAD, TAIL, LOCK = OWN, OWN + 4, OWN + 8
VALUE_MAX = 4 << 20  # KMALLOC_MAX_SIZE


@native
def step(place: int, by: int, max_entries: int) -> int:
    """A place in the ring further on or back."""
    return (place + by + max_entries + 1) % (max_entries + 1)


@native
def push(map: int, value: int, flags: int, value_size: int, max_entries: int) -> int:
    """Append; into a full one -E2BIG, or with BPF_EXIST in the place of the oldest."""
    if flags < 0 or flags & BPF_NOEXIST != 0 or flags > BPF_EXIST:
        return -EINVAL
    lock(map + LOCK)
    head = load32(map + HEAD)
    after = step(head, 1, max_entries)
    error = 0
    if after == load32(map + TAIL):
        if flags & BPF_EXIST != 0:
            store32(map + TAIL, step(after, 1, max_entries))
        else:
            error = -E2BIG
    if error == 0:
        copy(map + SIZEOF_HEADER + head * value_size, value, value_size)
        store32(map + HEAD, after)
    unlock(map + LOCK)
    return error


@native
def take(map: int, out: int, keep: int, value_size: int, max_entries: int) -> int:
    """Copy the oldest value and, unless `keep`, remove it; zeros and -ENOENT if there is none."""
    lock(map + LOCK)
    tail = load32(map + TAIL)
    error = 0
    if tail == load32(map + HEAD):
        fill(out, 0, value_size)
        error = -ENOENT
    else:
        copy(out, map + SIZEOF_HEADER + tail * value_size, value_size)
        if keep == 0:
            store32(map + TAIL, step(tail, 1, max_entries))
    unlock(map + LOCK)
    return error


@native
def pop(map: int, out: int, value_size: int, max_entries: int) -> int:
    """Take the oldest value."""
    return take(map, out, 0, value_size, max_entries)


@native
def peek(map: int, out: int, value_size: int, max_entries: int) -> int:
    """Copy the oldest value."""
    return take(map, out, 1, value_size, max_entries)


@native
def refuse_key() -> int:
    """There are no keys to delete or to go through."""
    return -EINVAL


class Queue(MapType):
    number = MapNumber.QUEUE
    name = "queue"
    push = push
    pop = pop
    peek = peek
    delete = refuse_key
    next_key = refuse_key

    def check(self, spec: MapSpec) -> None:
        if not spec.max_entries or spec.key_size or not spec.value_size:
            raise refuse(EINVAL, spec, "this type has values and entries, and no key")
        check_flags(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE)
        if spec.value_size > VALUE_MAX:
            raise refuse(E2BIG, spec, "the value is too large")

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + (spec.max_entries + 1) * spec.value_size

    def read(self, m: Map, key: int) -> bytes | int:
        value = bytes(m.spec.value_size)
        return m.call(self.peek, out=address_in(value)) or value

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        return m.call(self.push, value=address_in(value), flags=flags)


TYPE = Queue()
