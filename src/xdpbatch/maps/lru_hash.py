"""BPF_MAP_TYPE_LRU_HASH: a hash that makes room for a new key by evicting an old one.

Analogous to htab_lru_map_ops (kernel/bpf/hashtab.c): every update first takes a free element, which
may evict, then looks for the key; a replaced element goes back to the free ones.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_CPU
from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import CPUS, MapType, round_up
from xdpbatch.maps.hash import next_key_of, refused, write
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.lru import HEAD, lru_init, lru_pop, lru_push, lru_size, set_referenced
from xdpbatch.maps.table import (
    ELEMENTS,
    LOCK,
    SEED,
    check_hash,
    find,
    insert,
    prefetch_element,
    remove,
    slot_of,
    stride_of,
    table_init,
    table_size,
    visit_element,
)
from xdpbatch.mem import load8, load32, load64, store8, store_release32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_F_NO_COMMON_LRU, MapNumber

EINVAL, ENOENT, ENOMEM = errno.EINVAL, errno.ENOENT, errno.ENOMEM


@native
def find_lru(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the element's key on CPU 0, 0 if there is none."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(HEAD, key_size, value_size)
    return find(map, key, hashed, load64(map + ELEMENTS), key_size, stride)


@native
def user_lookup(map: int, key: int, key_size: int, value_size: int) -> int:
    """A lookup from user space does not count as a use."""
    element = find_lru(map, key, key_size, value_size)
    if element == 0:
        return 0
    return element + ((key_size + 7) & -8)


@native
def lookup(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the value, 0 if there is none; marks it as used."""
    element = find_lru(map, key, key_size, value_size)
    if element == 0:
        return 0
    if load8(element - HEAD) == 0:
        store8(element - HEAD, 1)
    return element + ((key_size + 7) & -8)


@native
def prefetch(map: int, key: int, step: int, key_size: int, value_size: int) -> int:
    """The bucket, then the element."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(HEAD, key_size, value_size)
    return prefetch_element(map, hashed, step, load64(map + ELEMENTS), stride)


@native
def put(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """`update_cpu` under the lock."""
    index = lru_pop(map, cpu, key_size)
    if index < 0:
        return -ENOMEM
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(HEAD, key_size, value_size)
    elements = load64(map + ELEMENTS)
    write(elements + index * stride, key, value, key_size, value_size)
    old = find(map, key, hashed, elements, key_size, stride)
    error = refused(old, flags)
    if error != 0:
        lru_push(map, index)
        return error
    if old == 0:
        return insert(map, hashed, index)
    before = (old - elements) // stride
    set_referenced(map, index, 1)
    store_release32(slot_of(map, hashed, before), index)
    return lru_push(map, before)


@native
def update_cpu(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """`update` on a CPU; from user space it is CPU 0."""
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    if cpu < 0:
        cpu = 0
    lock(map + LOCK)
    error = put(map, key, value, flags, cpu, key_size, value_size)
    unlock(map + LOCK)
    return error


@native
def update(
    buff: int, map: int, key: int, value: int, flags: int, key_size: int, value_size: int
) -> int:
    """Insert or replace; never fails for want of room."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    return update_cpu(map, key, value, flags, cpu, key_size, value_size)


@native
def delete(map: int, key: int, key_size: int, value_size: int) -> int:
    """Remove a key; its element is free."""
    stride = stride_of(HEAD, key_size, value_size)
    lock(map + LOCK)
    element = find_lru(map, key, key_size, value_size)
    error = -ENOENT
    if element != 0:
        index = (element - load64(map + ELEMENTS)) // stride
        hashed = hash_key(key, key_size, load64(map + SEED))
        remove(map, hashed, slot_of(map, hashed, index))
        lru_push(map, index)
        error = 0
    unlock(map + LOCK)
    return error


@native
def next_key(map: int, key: int, next: int, key_size: int, value_size: int) -> int:
    """Keys in bucket order."""
    return next_key_of(map, key, next, HEAD, key_size, value_size)


@native
def visit(map: int, position: int, entry: int, key_size: int, value_size: int) -> int:
    """Elements in bucket order; does not count as a use."""
    stride = stride_of(HEAD, key_size, value_size)
    return visit_element(map, position, entry, load64(map + ELEMENTS), key_size, stride)


def element_count(spec: MapSpec) -> int:
    """max_entries; with lists for each CPU, rounded up so that all have the same number."""
    if not spec.flags & BPF_F_NO_COMMON_LRU:
        return spec.max_entries
    return (spec.max_entries + CPUS - 1) // CPUS * CPUS


class LruHash(MapType):
    number = MapNumber.LRU_HASH
    name = "lru_hash"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    visit = visit
    quiet_lookup = user_lookup
    prefetch = prefetch
    prefetch_steps = 2
    update_cpu = update_cpu
    user_lookup = user_lookup
    regions = 1

    def check(self, spec: MapSpec) -> None:
        check_hash(spec, BPF_F_NO_COMMON_LRU, self.per_cpu, preallocated=True)

    def size(self, spec: MapSpec) -> int:
        count = element_count(spec)
        table = table_size(spec, count, HEAD, self.regions)
        return round_up(table, 64) + lru_size(count)

    def init(self, address: int, spec: MapSpec) -> None:
        count = element_count(spec)
        table_init(address, spec, count, HEAD, self.regions)
        nodes = address + round_up(table_size(spec, count, HEAD, self.regions), 64)
        lru_init(address, nodes, count, bool(spec.flags & BPF_F_NO_COMMON_LRU))


TYPE = LruHash()
