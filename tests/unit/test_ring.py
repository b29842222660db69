"""Rings: full, empty, wrapping around their size and around 2**32, seen from both ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpbatch.data.layout import address_of
from xdpbatch.data.ring import (
    RING,
    RingMemory,
    available,
    get_slot,
    peek,
    put_slot,
    release,
    reserve,
    room,
    submit,
)
from xdpbatch.mem import load64, store64


class Ends:
    """One ring of u64 with a producer's and a consumer's end, both starting at `index`."""

    def __init__(self, size: int, index: int = 0) -> None:
        self.ring = RingMemory(size, 8)
        self.ring.memory[0:4].view("<u4")[0] = index
        self.ring.memory[64:68].view("<u4")[0] = index
        self._ends = RING.array(2)
        self.producer = address_of(self._ends)
        self.consumer = self.producer + RING.size
        for end in (self.producer, self.consumer):
            self.ring.describe(end)
            words = RING.at(end)
            words["cached_producer"] = words["cached_consumer"] = index

    def put(self, values: list[int]) -> int:
        n = room(self.producer, len(values))
        for i in range(n):
            store64(put_slot(self.producer, i, 8), values[i])
        reserve(self.producer, n)
        submit(self.producer)
        return n

    def get(self, want: int) -> list[int]:
        n = available(self.consumer, want)
        values = [load64(get_slot(self.consumer, i, 8)) for i in range(n)]
        peek(self.consumer, n)
        release(self.consumer)
        return values


def test_empty_and_full() -> None:
    ends = Ends(4)
    assert ends.get(9) == []
    assert ends.put([1, 2, 3, 4, 5]) == 4
    assert ends.put([6]) == 0
    assert ends.get(3) == [1, 2, 3]
    assert ends.put([5, 6, 7, 8]) == 3
    assert ends.get(9) == [4, 5, 6, 7]
    assert ends.get(1) == []


def test_reserved_entries_are_unseen_until_submitted() -> None:
    ends = Ends(4)
    store64(put_slot(ends.producer, 0, 8), 7)
    reserve(ends.producer, 1)
    assert available(ends.consumer, 4) == 0
    submit(ends.producer)
    assert ends.get(4) == [7]


def test_peeked_entries_are_not_reused_until_released() -> None:
    ends = Ends(2)
    ends.put([1, 2])
    peek(ends.consumer, available(ends.consumer, 2))
    assert ends.put([3]) == 0
    release(ends.consumer)
    assert ends.put([3]) == 1


@given(
    st.sampled_from([1, 2, 8, 64]),
    st.sampled_from([0, 5, 2**32 - 3]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=30),
)
def test_a_ring_is_a_bounded_queue(size: int, start: int, steps: list[tuple[bool, int]]) -> None:
    ends, model, counter = Ends(size, start), list[int](), 0
    for is_put, n in steps:
        if is_put:
            taken = ends.put(list(range(counter, counter + n)))
            assert taken == min(n, size - len(model))
            model += range(counter, counter + taken)
            counter += taken
        else:
            assert ends.get(n) == model[:n]
            model = model[n:]


@pytest.mark.parametrize("size", [0, 3, 48])
def test_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        RingMemory(size, 8)
