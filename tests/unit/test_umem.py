"""Frames: the allocator is a stack, and a descriptor names a frame and a place in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpbatch.data.buff import MAX_LINEAR, XDP_PACKET_HEADROOM
from xdpbatch.data.layout import address_of
from xdpbatch.data.umem import (
    HARD_END,
    STRIDE,
    UMEM,
    Umem,
    decode,
    encode,
    give,
)


def test_the_frame_used_last_is_the_first_to_be_used_again() -> None:
    umem = Umem(3)
    taken = [umem.take() for _ in range(4)]
    assert taken == [0, STRIDE, 2 * STRIDE, -1]
    for frame in (STRIDE, 0):
        give(umem.address, frame)
    assert (umem.free, umem.take(), umem.take()) == (2, 0, STRIDE)


def test_the_longest_packet_ends_before_the_guard() -> None:
    assert XDP_PACKET_HEADROOM + MAX_LINEAR == HARD_END < STRIDE
    umem = Umem(2)
    umem.area[0, :HARD_END] = 1
    assert umem.intact()
    umem.area[0, HARD_END] = 1
    assert not umem.intact()


def test_neighbouring_packets_fall_into_different_cache_sets() -> None:
    """64 lines with one packet each use all 64 sets of a first-level cache."""
    sets = {(frame * STRIDE + XDP_PACKET_HEADROOM) // 64 % 64 for frame in range(64)}
    assert len(sets) == 64


@pytest.mark.parametrize("chunk", [0, 2048, 4096])
@given(st.integers(0, 500), st.integers(0, 2047))
def test_a_descriptor_names_frame_and_offset(chunk: int, number: int, offset: int) -> None:
    """Unaligned chunks (0) and the kernel's aligned ones."""
    umem = Umem(1)
    frame = number * (chunk or STRIDE)
    if chunk:
        words = UMEM.at(umem.address)
        words["mask"], words["shift"] = -chunk & (1 << 64) - 1, 0
    data = address_of(umem.area) + frame + offset
    address = encode(umem.address, frame, data)
    assert decode(umem.address, address) == data
    assert address == (frame + offset if chunk else frame | offset << 48)
