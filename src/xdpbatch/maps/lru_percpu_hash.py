"""BPF_MAP_TYPE_LRU_PERCPU_HASH: an LRU hash whose values have one copy for each CPU.

Analogous to htab_lru_percpu_map_ops (kernel/bpf/hashtab.c): an existing key's copy is changed in
place, but the element that a new key would need is taken before that is known.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_CPU
from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import CPUS
from xdpbatch.maps.copies import new_copies, set_copies
from xdpbatch.maps.hash import refused
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.lru import HEAD, lru_pop, lru_push, set_referenced
from xdpbatch.maps.lru_hash import LruHash
from xdpbatch.maps.table import (
    ELEMENTS,
    LOCK,
    REGION,
    SEED,
    find,
    insert,
    prefetch_element,
    stride_of,
    visit_element,
)
from xdpbatch.mem import load8, load32, load64, store8
from xdpbatch.native import native
from xdpbatch.uapi import BPF_EXIST, MapNumber

EINVAL, ENOMEM = errno.EINVAL, errno.ENOMEM


@native
def user_lookup(map: int, key: int, cpu: int, key_size: int, value_size: int) -> int:
    """Address of one CPU's value, 0 if there is no such key or CPU; does not count as a use."""
    cpu &= 0xFFFFFFFF
    if cpu >= CPUS:
        return 0
    hashed = hash_key(key, key_size, load64(map + SEED))
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    element = find(map, key, hashed, elements, key_size, stride_of(HEAD, key_size, value_size))
    if element == 0:
        return 0
    return element + ((key_size + 7) & -8)


@native
def lookup_cpu(map: int, key: int, cpu: int, key_size: int, value_size: int) -> int:
    """The same from a program: marks the element as used."""
    value = user_lookup(map, key, cpu, key_size, value_size)
    if value == 0:
        return 0
    used = value - ((key_size + 7) & -8) - HEAD
    if load8(used) == 0:
        store8(used, 1)
    return value


@native
def lookup(buff: int, map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of this CPU's value, 0 if there is none; marks it as used."""
    return lookup_cpu(map, key, load32(load64(buff + RXQ) + RXQ_CPU), key_size, value_size)


@native
def quiet_lookup(buff: int, map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of this CPU's value, 0 if there is none; does not count as a use."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    return user_lookup(map, key, cpu, key_size, value_size)


@native
def prefetch(buff: int, map: int, key: int, step: int, key_size: int, value_size: int) -> int:
    """The bucket, then this CPU's element."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    hashed = hash_key(key, key_size, load64(map + SEED))
    return prefetch_element(map, hashed, step, elements, stride_of(HEAD, key_size, value_size))


@native
def put(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """`update_cpu` under the lock."""
    index = -1
    if flags != BPF_EXIST:
        index = lru_pop(map, max(cpu, 0), key_size)
        if index < 0:
            return -ENOMEM
    hashed = hash_key(key, key_size, load64(map + SEED))
    stride = stride_of(HEAD, key_size, value_size)
    elements = load64(map + ELEMENTS)
    old = find(map, key, hashed, elements, key_size, stride)
    error = refused(old, flags)
    if error == 0 and old == 0:
        new_copies(map, elements + index * stride, key, value, cpu, key_size, value_size)
        return insert(map, hashed, index)
    if error == 0:
        set_referenced(map, (old - elements) // stride, 1)
        set_copies(map, old, value, cpu, key_size, value_size)
    if index >= 0:
        lru_push(map, index)
    return error


@native
def update_cpu(
    map: int, key: int, value: int, flags: int, cpu: int, key_size: int, value_size: int
) -> int:
    """Set one CPU's copy, or all; from user space the element comes from CPU 0's lists."""
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
    """Elements in bucket order, with this CPU's values; does not count as a use."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    elements = load64(map + ELEMENTS) + cpu * load64(map + REGION)
    stride = stride_of(HEAD, key_size, value_size)
    return visit_element(map, position, entry, elements, key_size, stride)


class LruPercpuHash(LruHash):
    number = MapNumber.LRU_PERCPU_HASH
    name = "lru_percpu_hash"
    lookup = lookup
    update = update
    visit = visit
    quiet_lookup = quiet_lookup
    prefetch = prefetch
    prefetch_steps = 2
    lookup_cpu = lookup_cpu
    update_cpu = update_cpu
    user_lookup = user_lookup
    per_cpu = True
    regions = CPUS


TYPE = LruPercpuHash()
