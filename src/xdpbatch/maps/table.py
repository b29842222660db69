"""The hash table under every map of the HASH family: buckets of one cache line, elements apart.

Analogous to the bucket lists of kernel/bpf/hashtab.c, laid out for lookups that miss the cache: one
line for the bucket, one for the element.

    bucket (64 bytes)   u8 tags[8] | u32 slots[8] | u32 overflow | unused
    element             [8 bytes of the LRU] | key, padded to 8 | value, padded to 8

A tag is 8 bits of the key's hash, 0 in a free slot; a slot holds an element's index. A key lives
in its home bucket or, where that is full, in the nearest following one with room; `overflow` counts
the keys that passed a bucket by, so that a lookup stops where it is 0. Elements never move: a
program may hold a pointer to a value. A removed element keeps its bytes until it is used again.

Lookups take no lock: an element is complete before its tag appears (release), and a replaced one
changes by one store of its slot. Changes hold the map's lock.
"""

from __future__ import annotations

import errno

from xdpbatch.data import chance
from xdpbatch.maps import (
    ACCESS_FLAGS,
    ENOTSUPP,
    OWN,
    PCPU_MIN_UNIT_SIZE,
    SIZEOF_HEADER,
    check_flags,
    refuse,
    round_up,
)
from xdpbatch.maps.hashing import same
from xdpbatch.mem import (
    add64,
    clz64,
    ctz64,
    load8,
    load32,
    load64,
    load_acquire64,
    mul64,
    prefetch,
    shr64,
    store8,
    store32,
    store64,
    store_release32,
)
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, BPF_F_ZERO_SEED

# The map header's own words
BUCKETS, ELEMENTS, SEED, MASK, LOCK = OWN, OWN + 8, OWN + 16, OWN + 24, OWN + 28
FREE, FREE_COUNT, FRESH, SPARE = OWN + 32, OWN + 40, OWN + 44, OWN + 48
STRIDE, REGION, NODES, LIMIT = OWN + 52, OWN + 56, OWN + 64, OWN + 72
REGIONS, TARGET, OWN_LISTS = OWN + 76, OWN + 80, OWN + 84  # the last two of the LRU

BUCKET, SLOTS, OVERFLOW = 64, 8, 40
PER_BUCKET = 4  # elements for each bucket of a full map: half of its slots
LOW, LOW7 = 0x0101010101010101, 0x7F7F7F7F7F7F7F7F
KMALLOC_MAX_SIZE, SIZEOF_HTAB_ELEM = 4 << 20, 48  # what the kernel can allocate as one element
MAX_ENTRIES = 1 << 31


@native
def stride_of(head: int, key_size: int, value_size: int) -> int:
    """Distance of two elements: a power of two up to a cache line, whole lines above."""
    size = head + ((key_size + 7) & -8) + ((value_size + 7) & -8)
    if size > BUCKET:
        return (size + BUCKET - 1) & -BUCKET
    return 1 << (64 - clz64(size - 1))


@native
def tag_of(hash: int) -> int:
    """Its tag: the top byte, 1 instead of 0."""
    tag = shr64(hash, 56)
    if tag == 0:
        tag = 1
    return tag


@native
def equal_bytes(a: int, b: int) -> int:
    """The top bit of each byte that is equal in both; exactly, for the next byte up may be a free
    slot whose element still has the key's bytes."""
    differ = a ^ b
    return ~(add64(differ & LOW7, LOW7) | differ | LOW7)


@native
def find(map: int, key: int, hash: int, elements: int, key_size: int, stride: int) -> int:
    """Address of the element's key, 0 if there is none. `elements` is the base that is searched."""
    mask = load32(map + MASK)
    buckets = load64(map + BUCKETS)
    tags = mul64(tag_of(hash), LOW)
    at = hash & mask
    while True:
        bucket = buckets + at * BUCKET
        match = equal_bytes(load_acquire64(bucket), tags)
        while match != 0:
            element = elements + load32(bucket + SLOTS + (ctz64(match) >> 3) * 4) * stride
            if same(element, key, key_size) != 0:
                return element
            match &= add64(match, -1)
        at = (at + 1) & mask
        if load32(bucket + OVERFLOW) == 0 or at == hash & mask:
            return 0


@native
def prefetch_element(map: int, hash: int, step: int, elements: int, stride: int) -> int:
    """Ask for the home bucket of a hash (step 0), then for the elements that its tags name."""
    bucket = load64(map + BUCKETS) + (hash & load32(map + MASK)) * BUCKET
    if step == 0:
        return prefetch(bucket)
    match = equal_bytes(load64(bucket), mul64(tag_of(hash), LOW))
    while match != 0:
        index = load32(bucket + SLOTS + (ctz64(match) >> 3) * 4)
        element = elements + index * stride
        prefetch(element)
        if stride > BUCKET:
            prefetch(element + BUCKET)
        match &= add64(match, -1)
    return 0


@native
def slot_of(map: int, hash: int, index: int) -> int:
    """Address of the slot that holds element `index`, 0 if none does."""
    mask = load32(map + MASK)
    at = hash & mask
    while True:
        bucket = load64(map + BUCKETS) + at * BUCKET
        for i in range(8):
            if load8(bucket + i) != 0 and load32(bucket + SLOTS + i * 4) == index:
                return bucket + SLOTS + i * 4
        at = (at + 1) & mask
        if load32(bucket + OVERFLOW) == 0 or at == hash & mask:
            return 0


@native
def insert(map: int, hash: int, index: int) -> int:
    """Make element `index`, complete in memory, visible."""
    mask = load32(map + MASK)
    at = hash & mask
    while True:
        bucket = load64(map + BUCKETS) + at * BUCKET
        for i in range(8):
            if load8(bucket + i) == 0:
                store_release32(bucket + SLOTS + i * 4, index)
                store8(bucket + i, tag_of(hash))
                return 0
        store32(bucket + OVERFLOW, load32(bucket + OVERFLOW) + 1)
        at = (at + 1) & mask


@native
def remove(map: int, hash: int, slot: int) -> int:
    """Make the element in `slot` invisible."""
    mask = load32(map + MASK)
    buckets = load64(map + BUCKETS)
    home = (slot - buckets) // BUCKET
    store8(buckets + home * BUCKET + (slot - buckets - home * BUCKET - SLOTS) // 4, 0)
    at = hash & mask
    while at != home:
        overflow = buckets + at * BUCKET + OVERFLOW
        store32(overflow, load32(overflow) - 1)
        at = (at + 1) & mask
    return 0


@native
def slot_from(map: int, position: int) -> int:
    """Address of the first used slot in bucket order at or after a position, 0 if there is none.

    A slot's position is its bucket's number * 8 + its own number.
    """
    buckets = load64(map + BUCKETS)
    end = (load32(map + MASK) + 1) * 8
    while position < end:
        bucket = buckets + (position >> 3) * BUCKET
        tags = load64(bucket)
        if tags == 0:
            position = (position & -8) + 8
        elif load8(bucket + (position & 7)) != 0:
            return bucket + SLOTS + (position & 7) * 4
        else:
            position += 1
    return 0


@native
def position_after(map: int, slot: int) -> int:
    """The position after a slot's."""
    at = slot - load64(map + BUCKETS)
    return at // BUCKET * 8 + (at % BUCKET - SLOTS) // 4 + 1


@native
def visit_element(
    map: int, position: int, entry: int, elements: int, key_size: int, stride: int
) -> int:
    """`visit` of every hash; `elements` is the base that is looked at."""
    slot = slot_from(map, position)
    if slot == 0:
        return 0
    element = elements + load32(slot) * stride
    store64(entry, element)
    store64(entry + 8, element + ((key_size + 7) & -8))
    return position_after(map, slot)


@native
def take_free(map: int) -> int:
    """An element's index from the pool, the last given back first; -1 if none is left."""
    count = load32(map + FREE_COUNT)
    if count != 0:
        store32(map + FREE_COUNT, count - 1)
        return load32(load64(map + FREE) + (count - 1) * 4)
    fresh = load32(map + FRESH)
    if fresh == load32(map + LIMIT):
        return -1
    store32(map + FRESH, fresh + 1)
    return fresh


@native
def give_free(map: int, index: int) -> int:
    """Put an element back in the pool. Its bytes stay as they are until it is taken again."""
    count = load32(map + FREE_COUNT)
    store32(load64(map + FREE) + count * 4, index)
    store32(map + FREE_COUNT, count + 1)
    return 0


@native
def used(map: int) -> int:
    """How many elements are not in the pool."""
    return load32(map + FRESH) - load32(map + FREE_COUNT)


def bucket_count(entries: int) -> int:
    """A power of two of buckets that are half full when the map is."""
    return 1 << ((entries + PER_BUCKET - 1) // PER_BUCKET - 1).bit_length()


def table_size(spec: MapSpec, elements: int, head: int, regions: int) -> int:
    """Bytes of header, buckets, `regions` copies of the elements, and 4 bytes for each element."""
    region = elements * stride_of(head, spec.key_size, spec.value_size)
    buckets = bucket_count(spec.max_entries) * BUCKET
    return SIZEOF_HEADER + buckets + regions * round_up(region, BUCKET) + elements * 4


def table_init(address: int, spec: MapSpec, elements: int, head: int, regions: int) -> None:
    """Fill the header's own words for that layout."""
    stride = stride_of(head, spec.key_size, spec.value_size)
    buckets, region = bucket_count(spec.max_entries), round_up(elements * stride, BUCKET)
    first = address + SIZEOF_HEADER + buckets * BUCKET
    seed = 0 if spec.flags & BPF_F_ZERO_SEED else chance.word()
    store64(address + BUCKETS, address + SIZEOF_HEADER)
    store64(address + ELEMENTS, first + head)
    store64(address + SEED, seed)
    store32(address + MASK, buckets - 1)
    store64(address + FREE, first + regions * region)
    store32(address + STRIDE, stride)
    store64(address + REGION, region)
    store32(address + REGIONS, regions)
    store32(address + LIMIT, elements)


def check_hash(
    spec: MapSpec, flags: int = 0, per_cpu: bool = False, preallocated: bool = False
) -> None:
    """htab_map_alloc_check(); `flags` are allowed beside those of every hash."""
    every = ACCESS_FLAGS | BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ZERO_SEED
    check_flags(spec, every | flags)
    if preallocated and spec.flags & BPF_F_NO_PREALLOC:
        raise refuse(ENOTSUPP, spec, "a map of this type is always preallocated")
    if not (spec.max_entries and spec.key_size and spec.value_size):
        raise refuse(errno.EINVAL, spec, "a hash has keys, values and entries")
    if spec.key_size + spec.value_size >= KMALLOC_MAX_SIZE - SIZEOF_HTAB_ELEM:
        raise refuse(errno.E2BIG, spec, "key and value are too large")
    if per_cpu and round_up(spec.value_size, 8) > PCPU_MIN_UNIT_SIZE:
        raise refuse(errno.E2BIG, spec, f"a per-CPU value is at most {PCPU_MIN_UNIT_SIZE} bytes")
    if spec.max_entries > MAX_ENTRIES:
        raise refuse(errno.E2BIG, spec, f"a hash has at most {MAX_ENTRIES} entries")
