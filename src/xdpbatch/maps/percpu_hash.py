"""BPF_MAP_TYPE_PERCPU_HASH: a hash whose values have one copy for each CPU.

Analogous to htab_percpu_map_ops (kernel/bpf/hashtab.c). An update of an existing key changes this
CPU's copy in place; an insertion sets the other CPUs' copies to zero.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_CPU
from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import CPUS, MapType
from xdpbatch.maps.copies import new_copies, set_copies
from xdpbatch.maps.hash import delete, next_key, refused
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.table import (
    ELEMENTS,
    LOCK,
    REGION,
    SEED,
    check_hash,
    find,
    insert,
    prefetch_element,
    stride_of,
    table_init,
    table_size,
    take_free,
    visit_element,
)
from xdpbatch.mem import load32, load64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_EXIST, MapNumber

EINVAL, E2BIG = errno.EINVAL, errno.E2BIG


@native
def lookup_cpu(map: int, key: int, cpu: int, key_size: int, value_size: int) -> int:
    """Address of one CPU's value, 0 if there is no such key or CPU."""
    cpu &= 0xFFFFFFFF
    if cpu >= CPUS:
        return 0
    hashed = hash_key(key, key_size, load64(map + SEED))
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    element = find(map, key, hashed, elements, key_size, stride_of(0, key_size, value_size))
    if element == 0:
        return 0
    return element + ((key_size + 7) & -8)


@native
def lookup(buff: int, map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of this CPU's value, 0 if there is none."""
    return lookup_cpu(map, key, load32(load64(buff + RXQ) + RXQ_CPU), key_size, value_size)


@native
def prefetch(buff: int, map: int, key: int, step: int, key_size: int, value_size: int) -> int:
    """The bucket, then this CPU's element."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    hashed = hash_key(key, key_size, load64(map + SEED))
    return prefetch_element(map, hashed, step, elements, stride_of(0, key_size, value_size))


@native
def put(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """`update_cpu` under the lock."""
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(0, key_size, value_size)
    elements = load64(map + ELEMENTS)
    element = find(map, key, hashed, elements, key_size, stride)
    error = refused(element, flags)
    if error != 0:
        return error
    if element != 0:
        return set_copies(map, element, value, cpu, key_size, value_size)
    index = take_free(map)
    if index < 0:
        return -E2BIG
    new_copies(map, elements + index * stride, key, value, cpu, key_size, value_size)
    return insert(map, hashed, index)


@native
def update_cpu(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """Set one CPU's copy, or all; -E2BIG if a new key finds the map full."""
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    lock(map + LOCK)
    error = put(map, key, value, flags, cpu, key_size, value_size)
    unlock(map + LOCK)
    return error


@native
def update(
    buff: int, map: int, key: int, value: int, flags: int, key_size: int, value_size: int
) -> int:
    """Set this CPU's copy."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    return update_cpu(map, key, value, flags, cpu, key_size, value_size)


@native
def visit(buff: int, map: int, position: int, entry: int, key_size: int, value_size: int) -> int:
    """Elements in bucket order, with this CPU's values."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    stride = stride_of(0, key_size, value_size)
    return visit_element(map, position, entry, elements, key_size, stride)


class PercpuHash(MapType):
    number = MapNumber.PERCPU_HASH
    name = "percpu_hash"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    visit = visit
    quiet_lookup = lookup
    prefetch = prefetch
    prefetch_steps = 2
    lookup_cpu = lookup_cpu
    update_cpu = update_cpu
    per_cpu = True

    def check(self, spec: MapSpec) -> None:
        check_hash(spec, per_cpu=True)

    def size(self, spec: MapSpec) -> int:
        return table_size(spec, spec.max_entries, 0, CPUS)

    def init(self, address: int, spec: MapSpec) -> None:
        table_init(address, spec, spec.max_entries, 0, CPUS)


TYPE = PercpuHash()
