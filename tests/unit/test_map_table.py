"""The hash table under the maps: what is free is never found."""

from __future__ import annotations

from xdpbatch.maps import Map, address_in
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.table import MASK, tag_of
from xdpbatch.mem import load32
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_ZERO_SEED, MapNumber


def test_a_deleted_key_beside_one_of_its_tag_is_not_found() -> None:
    """A free slot keeps its element's number and bytes: only the tag, exactly, says it is free."""
    spec = MapSpec("m", MapNumber.HASH, 4, 8, 64, flags=BPF_F_ZERO_SEED)
    one = Map(spec)
    mask = load32(one.address + MASK)
    homes: dict[int, list[bytes]] = {}
    for number in range(1 << 14):
        key = number.to_bytes(4, "little")
        hashed = hash_key(address_in(key), 4, 0)
        if tag_of(hashed) == 1:
            homes.setdefault(hashed & mask, []).append(key)
    pairs = [keys[:2] for keys in homes.values() if len(keys) > 1]
    assert pairs
    for kept, gone in pairs:
        one[kept], one[gone] = bytes(8), bytes(8)
        del one[gone]
        assert kept in one
        assert gone not in one
        del one[kept]
