"""A ring of records of any size, from many writers to one reader, in one block of memory.

Analogous to struct bpf_ringbuf (kernel/bpf/ringbuf.c), with its record header: u32 length with the
BUSY and DISCARD bits, u32 number. The kernel has a page offset there, of which a record has no need
here; the number tells in which order the records of all rings were begun. Positions count bytes and
never wrap; a record starts at `position & mask` and is contiguous: one that passes the end goes on
behind it, for which the block has room once more, instead of the kernel's double mapping.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdpbatch.data.layout import Layout, address_of, aligned, bytes_at
from xdpbatch.data.lock import lock, unlock
from xdpbatch.mem import (
    copy,
    fetch_add64,
    load32,
    load64,
    load_acquire32,
    load_acquire64,
    store32,
    store64,
    store_release32,
    store_release64,
)
from xdpbatch.native import native

RECORDS = Layout(
    "Records",
    {
        "consumer": "u64",
        **{f"pad{i}": "u64" for i in range(7)},
        "producer": "u64",
        "pending": "u64",  # where the oldest record that is not committed starts
        "size": "u64",  # bytes of the ring, a power of two
        "lost": "u64",  # records that found no room
        "lock": "u32",
        "pad_lock": "u32",
        "order": "u64",  # address of the u64 that counts the records of all rings
        **{f"rest{i}": "u64" for i in range(2)},
    },
    128,
)
CONSUMER, PRODUCER, PENDING, SIZE, LOST, LOCK, ORDER = 0, 64, 72, 80, 88, 96, 104
SIZEOF_RECORDS = 128
HEADER = 8
BUSY, DISCARD = 1 << 31, 1 << 30
MAX_RECORD = 0xFFFFFFFF // 4
_order = aligned(64)  # the counter of all rings of this process


def records_size(size: int) -> int:
    """Bytes of memory that a ring of `size` bytes takes."""
    return SIZEOF_RECORDS + 2 * size


def records_init(ring: int, size: int) -> None:
    """Initialise zeroed memory as an empty ring."""
    store64(ring + SIZE, size)
    store64(ring + ORDER, address_of(_order))


@native
def space(ring: int) -> int:
    """Advance `pending` over committed records; returns it."""
    data, mask = ring + SIZEOF_RECORDS, load64(ring + SIZE) - 1
    pending = load64(ring + PENDING)
    producer = load64(ring + PRODUCER)
    going = 1
    while going != 0 and pending < producer:
        length = load_acquire32(data + (pending & mask))
        if length & BUSY:
            going = 0
        else:
            pending += ((length & ~DISCARD) + HEADER + 7) & -8
    store64(ring + PENDING, pending)
    return pending


@native
def reserve(ring: int, size: int) -> int:
    """Address of `size` bytes for a record that `commit` is to follow; 0 if there is no room."""
    total = (size + HEADER + 7) & -8
    if size < 0 or size > MAX_RECORD or total > load64(ring + SIZE):
        return 0
    mask = load64(ring + SIZE) - 1
    lock(ring + LOCK)
    producer = load64(ring + PRODUCER)
    end = producer + total
    pending = space(ring)
    if end - load_acquire64(ring + CONSUMER) > mask or end - pending > mask:
        store64(ring + LOST, load64(ring + LOST) + 1)
        unlock(ring + LOCK)
        return 0
    record = ring + SIZEOF_RECORDS + (producer & mask)
    store32(record, size | BUSY)
    store32(record + 4, fetch_add64(load64(ring + ORDER), 1) & 0xFFFFFFFF)
    store_release64(ring + PRODUCER, end)
    unlock(ring + LOCK)
    return record + HEADER


@native
def commit(sample: int, discard: int) -> int:
    """Give a reserved record to the reader, or mark it as not to be read."""
    length = load32(sample - HEADER) & ~BUSY
    if discard != 0:
        length |= DISCARD
    store_release32(sample - HEADER, length)
    return 0


@native
def append(ring: int, data: int, size: int) -> int:
    """Write one whole record: 1, or 0 if there is no room."""
    sample = reserve(ring, size)
    if sample == 0:
        return 0
    copy(sample, data, size)
    commit(sample, 0)
    return 1


def read(ring: int) -> Iterator[bytes]:
    """Take the records that are complete, oldest first, up to one that is still being written."""
    return (sample for _, sample in read_numbered(ring))


def read_numbered(ring: int) -> Iterator[tuple[int, bytes]]:
    """The same, each with its number (32 bits, so that it starts again after 4 billion)."""
    data, mask = ring + SIZEOF_RECORDS, load64(ring + SIZE) - 1
    position = load64(ring + CONSUMER)
    while position < load_acquire64(ring + PRODUCER):
        record = data + (position & mask)
        length = load_acquire32(record)
        if length & BUSY:
            return
        size = length & ~DISCARD
        number, sample = load32(record + 4), bytes_at(record + HEADER, size)
        position += (size + HEADER + 7) & -8
        store_release64(ring + CONSUMER, position)
        if not length & DISCARD:
            yield number, sample


def used(ring: int) -> int:
    """Bytes that wait for the reader."""
    return load_acquire64(ring + PRODUCER) - load64(ring + CONSUMER)


def begun() -> int:
    """How many records were begun so far in this process, 32 bits."""
    return load64(address_of(_order)) & 0xFFFFFFFF
