"""BPF_MAP_TYPE_BLOOM_FILTER: a set that says "certainly not" or "perhaps".

Analogous to kernel/bpf/bloom_filter.c, with its hash and its size: with BPF_F_ZERO_SEED the same
values are perhaps in it as in Linux. The low 4 bits of `map_extra` are the number of hashes.
"""

from __future__ import annotations

import errno

from xdpbatch.data import chance
from xdpbatch.maps import (
    ACCESS_FLAGS,
    ENOTSUPP,
    OWN,
    SIZEOF_HEADER,
    Map,
    MapType,
    address_in,
    check_flags,
    refuse,
)
from xdpbatch.maps.jhash import jhash
from xdpbatch.mem import compare_exchange32, load32, store32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_ANY, BPF_F_NUMA_NODE, BPF_F_ZERO_SEED, MapNumber

EINVAL, ENOENT, E2BIG, EOPNOTSUPP = errno.EINVAL, errno.ENOENT, errno.E2BIG, errno.EOPNOTSUPP
ANY = BPF_ANY
MASK, SEED, HASHES = OWN, OWN + 4, OWN + 8
VALUE_MAX = 4 << 20  # KMALLOC_MAX_SIZE
DEFAULT_HASHES = 5
U32_MAX = (1 << 32) - 1


@native
def bit_for(map: int, value: int, index: int, value_size: int) -> int:
    """The number of the bit that hash `index` of a value stands for."""
    return jhash(value, value_size, load32(map + SEED) + index) & load32(map + MASK)


@native
def push(map: int, value: int, flags: int, value_size: int) -> int:
    """Add a value."""
    if flags != ANY:
        return -EINVAL
    for i in range(load32(map + HASHES)):
        bit = bit_for(map, value, i, value_size)
        word = map + SIZEOF_HEADER + (bit >> 5) * 4
        old = load32(word)
        while compare_exchange32(word, old, old | 1 << (bit & 31)) != old:
            old = load32(word)
    return 0


@native
def peek(map: int, out: int, value_size: int) -> int:
    """0 if the value at `out` may have been added, -ENOENT if it was not. It is only read."""
    for i in range(load32(map + HASHES)):
        bit = bit_for(map, out, i, value_size)
        if load32(map + SIZEOF_HEADER + (bit >> 5) * 4) >> (bit & 31) & 1 == 0:
            return -ENOENT
    return 0


@native
def refuse_any() -> int:
    """Nothing can be deleted, and there are no keys to go through."""
    return -EOPNOTSUPP


def bits(spec: MapSpec) -> int:
    """How many bits a filter has: about entries * hashes / ln(2), a power of two."""
    wanted = spec.max_entries * (spec.map_extra or DEFAULT_HASHES)
    rounded = wanted // 5 * 7
    if wanted > U32_MAX or rounded > 1 << 31:
        return 1 << 32
    return 1 << max(rounded - 1, 63).bit_length()


class BloomFilter(MapType):
    number = MapNumber.BLOOM_FILTER
    name = "bloom_filter"
    push = push
    peek = peek
    delete = refuse_any
    next_key = refuse_any

    def check(self, spec: MapSpec) -> None:
        if spec.value_size > VALUE_MAX:
            raise refuse(E2BIG, spec, "the value is too large")
        if not spec.max_entries or spec.key_size or not spec.value_size:
            raise refuse(EINVAL, spec, "this type has values and entries, and no key")
        check_flags(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE | BPF_F_ZERO_SEED)
        if spec.map_extra & ~0xF:
            raise refuse(EINVAL, spec, "map_extra is the number of hashes, 15 at most")

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + bits(spec) // 8

    def init(self, address: int, spec: MapSpec) -> None:
        store32(address + MASK, bits(spec) - 1)
        store32(address + SEED, 0 if spec.flags & BPF_F_ZERO_SEED else chance.word())
        store32(address + HASHES, spec.map_extra or DEFAULT_HASHES)

    def read(self, m: Map, key: int) -> bytes | int:
        """A value must be given: see `holds`."""
        return -ENOTSUPP

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        return m.call(self.push, value=address_in(value), flags=flags)


def holds(filter: Map, value: bytes) -> bool:
    """BPF_MAP_LOOKUP_ELEM of a bloom filter: False if `value` was certainly never added."""
    return filter.call(peek, out=address_in(value)) == 0


TYPE = BloomFilter()
