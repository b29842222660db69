"""BPF_MAP_TYPE_HASH: any key to a value, at most max_entries of them.

Analogous to htab_map_ops (kernel/bpf/hashtab.c). As there, an update of an existing key writes a
spare element and puts it in the old one's place: a pointer to the old value keeps showing the old
value until the spare is used by the next such update. An element that was deleted is the next one
that an insertion takes. With BPF_F_NO_PREALLOC a replaced element is freed like a deleted one.
"""

from __future__ import annotations

import errno

from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import MapType
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.table import (
    ELEMENTS,
    LIMIT,
    LOCK,
    SEED,
    SPARE,
    check_hash,
    find,
    give_free,
    insert,
    position_after,
    prefetch_element,
    remove,
    slot_from,
    slot_of,
    stride_of,
    table_init,
    table_size,
    take_free,
    used,
    visit_element,
)
from xdpbatch.mem import copy, load32, load64, store32, store_release32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_F_NO_PREALLOC, BPF_NOEXIST, MapNumber

EINVAL, ENOENT, E2BIG, EEXIST = errno.EINVAL, errno.ENOENT, errno.E2BIG, errno.EEXIST


@native
def lookup(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the value, 0 if there is none."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(0, key_size, value_size)
    element = find(map, key, hashed, load64(map + ELEMENTS), key_size, stride)
    if element == 0:
        return 0
    return element + ((key_size + 7) & -8)


@native
def prefetch(map: int, key: int, step: int, key_size: int, value_size: int) -> int:
    """The bucket, then the element."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(0, key_size, value_size)
    return prefetch_element(map, hashed, step, load64(map + ELEMENTS), stride)


@native
def refused(element: int, flags: int) -> int:
    """Whether the element's presence contradicts the flags: 0 or -errno."""
    if element != 0 and flags == BPF_NOEXIST:
        return -EEXIST
    if element == 0 and flags == BPF_EXIST:
        return -ENOENT
    return 0


@native
def write(element: int, key: int, value: int, key_size: int, value_size: int) -> int:
    """Fill an element that no lookup can see."""
    copy(element, key, key_size)
    copy(element + ((key_size + 7) & -8), value, value_size)
    return 0


@native
def replace(map: int, hash: int, old: int, new: int, map_flags: int) -> int:
    """Put element `new` in the place of `old`, which is the next spare or free one."""
    store_release32(slot_of(map, hash, old), new)
    if map_flags & BPF_F_NO_PREALLOC != 0:
        return give_free(map, old)
    return store32(map + SPARE, old)


@native
def put(
    map: int, key: int, value: int, flags: int, key_size: int, value_size: int, map_flags: int
) -> int:
    """`update` under the lock."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(0, key_size, value_size)
    elements = load64(map + ELEMENTS)
    old = find(map, key, hashed, elements, key_size, stride)
    error = refused(old, flags)
    if error != 0:
        return error
    loose = map_flags & BPF_F_NO_PREALLOC
    if old == 0 and loose != 0 and used(map) == load32(map + LIMIT) - 1:
        return -E2BIG
    index = load32(map + SPARE)
    if old == 0 or loose != 0:
        index = take_free(map)
        if index < 0:
            return -E2BIG
    write(elements + index * stride, key, value, key_size, value_size)
    if old != 0:
        return replace(map, hashed, (old - elements) // stride, index, map_flags)
    return insert(map, hashed, index)


@native
def update(
    map: int, key: int, value: int, flags: int, key_size: int, value_size: int, map_flags: int
) -> int:
    """Insert or replace; -E2BIG if a new key finds the map full."""
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    lock(map + LOCK)
    error = put(map, key, value, flags, key_size, value_size, map_flags)
    unlock(map + LOCK)
    return error


@native
def delete(map: int, key: int, key_size: int, value_size: int) -> int:
    """Remove a key. Its value keeps its bytes until the element is used again."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(0, key_size, value_size)
    elements = load64(map + ELEMENTS)
    lock(map + LOCK)
    element = find(map, key, hashed, elements, key_size, stride)
    error = -ENOENT
    if element != 0:
        index = (element - elements) // stride
        remove(map, hashed, slot_of(map, hashed, index))
        give_free(map, index)
        error = 0
    unlock(map + LOCK)
    return error


@native
def next_key_of(map: int, key: int, next: int, head: int, key_size: int, value_size: int) -> int:
    """Copy the key after `key` in bucket order; the first if `key` is 0 or not in the map."""
    stride = stride_of(head, key_size, value_size)
    elements = load64(map + ELEMENTS)
    position = 0
    if key != 0:
        hashed = hash_key(key, key_size, load64(map + SEED))
        element = find(map, key, hashed, elements, key_size, stride)
        if element != 0:
            slot = slot_of(map, hashed, (element - elements) // stride)
            position = position_after(map, slot)
    slot = slot_from(map, position)
    if slot == 0:
        return -ENOENT
    copy(next, elements + load32(slot) * stride, key_size)
    return 0


@native
def next_key(map: int, key: int, next: int, key_size: int, value_size: int) -> int:
    """Keys in bucket order."""
    return next_key_of(map, key, next, 0, key_size, value_size)


@native
def visit(map: int, position: int, entry: int, key_size: int, value_size: int) -> int:
    """Elements in bucket order."""
    stride = stride_of(0, key_size, value_size)
    return visit_element(map, position, entry, load64(map + ELEMENTS), key_size, stride)


def init_spare(address: int, spec: MapSpec) -> None:
    """Set one element aside for updates, unless those take it from the free ones."""
    if not spec.flags & BPF_F_NO_PREALLOC:
        store32(address + SPARE, take_free(address))


class Hash(MapType):
    number = MapNumber.HASH
    name = "hash"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    visit = visit
    quiet_lookup = lookup
    prefetch = prefetch
    prefetch_steps = 2

    def check(self, spec: MapSpec) -> None:
        check_hash(spec)

    def size(self, spec: MapSpec) -> int:
        return table_size(spec, spec.max_entries + 1, 0, 1)

    def init(self, address: int, spec: MapSpec) -> None:
        table_init(address, spec, spec.max_entries + 1, 0, 1)
        init_spare(address, spec)


TYPE = Hash()
