"""The ring of AF_XDP: one producer, one consumer, and an array of descriptors between them.

Analogous to `struct xsk_ring_prod` and `xsk_ring_cons` of libxdp, with the same verbs. A RING
is one end of a ring: addresses of the words that both ends share, and cached copies of the two
indices. Indices count up to 2**32 and wrap; `index & mask` is a slot. rx and tx rings hold `struct
xdp_desc`, fill and completion rings hold u64 frame addresses (include/uapi/linux/if_xdp.h).

    producer:  n = room(ring, want); write n entries at `put`; reserve(ring, n); submit(ring)
    consumer:  n = available(ring, want); read n entries at `get`; peek(ring, n); release(ring)

`submit` and `release` are the only stores that the other end sees: one of each per batch.
"""

from __future__ import annotations

from xdpbatch.data.layout import Layout, address_of, aligned
from xdpbatch.mem import load32, load64, load_acquire32, store32, store_release32
from xdpbatch.native import native

RING = Layout(
    "Ring",
    {
        "producer": "u64",  # address of the u32 index
        "consumer": "u64",
        "flags": "u64",  # address of the u32 flags: XDP_RING_NEED_WAKEUP
        "descs": "u64",  # address of the first entry
        "mask": "u32",
        "size": "u32",
        "cached_producer": "u32",
        "cached_consumer": "u32",
    },
    48,
)
PRODUCER, CONSUMER, FLAGS, DESCS = 0, 8, 16, 24
MASK, SIZE, CACHED_PRODUCER, CACHED_CONSUMER = 32, 36, 40, 44
SIZEOF_RING = 48

SIZEOF_DESC, DESC_LENGTH, DESC_OPTIONS = 16, 8, 12  # struct xdp_desc; u64 addr is at 0
SIZEOF_ADDRESS = 8
XDP_RING_NEED_WAKEUP = 1
_M32 = 0xFFFFFFFF


@native
def room(ring: int, want: int) -> int:
    """How many entries the producer may write, at most `want`."""
    size = load32(ring + SIZE)
    put = load32(ring + CACHED_PRODUCER)
    free = size - ((put - load32(ring + CACHED_CONSUMER)) & _M32)
    if free < want:
        consumer = load_acquire32(load64(ring + CONSUMER))
        store32(ring + CACHED_CONSUMER, consumer)
        free = size - ((put - consumer) & _M32)
    return min(free, want)


@native
def reserve(ring: int, n: int) -> int:
    """Take `n` entries that the producer has written; the other end does not see them yet."""
    return store32(ring + CACHED_PRODUCER, load32(ring + CACHED_PRODUCER) + n)


@native
def submit(ring: int) -> int:
    """Show the consumer all entries that were reserved."""
    return store_release32(load64(ring + PRODUCER), load32(ring + CACHED_PRODUCER))


@native
def available(ring: int, want: int) -> int:
    """How many entries the consumer may read, at most `want`."""
    get = load32(ring + CACHED_CONSUMER)
    filled = (load32(ring + CACHED_PRODUCER) - get) & _M32
    if filled < want:
        producer = load_acquire32(load64(ring + PRODUCER))
        store32(ring + CACHED_PRODUCER, producer)
        filled = (producer - get) & _M32
    return min(filled, want)


@native
def peek(ring: int, n: int) -> int:
    """Take `n` entries that the consumer has read; the producer may not reuse them yet."""
    return store32(ring + CACHED_CONSUMER, load32(ring + CACHED_CONSUMER) + n)


@native
def release(ring: int) -> int:
    """Give the producer back all entries that were taken."""
    return store_release32(load64(ring + CONSUMER), load32(ring + CACHED_CONSUMER))


@native
def put_slot(ring: int, i: int, size: int) -> int:
    """Address of the i-th entry (of `size` bytes) after those the producer has reserved."""
    index = (load32(ring + CACHED_PRODUCER) + i) & load32(ring + MASK)
    return load64(ring + DESCS) + index * size


@native
def get_slot(ring: int, i: int, size: int) -> int:
    """Address of the i-th entry (of `size` bytes) after those the consumer has taken."""
    index = (load32(ring + CACHED_CONSUMER) + i) & load32(ring + MASK)
    return load64(ring + DESCS) + index * size


class RingMemory:
    """The shared words and entries of one ring in our own memory; the kernel's have its mmap.

    Producer, consumer and flags lie on cache lines of their own, as the kernel places them.
    """

    def __init__(self, size: int, entry: int) -> None:
        """`size` entries, a power of two, of `entry` bytes each."""
        if size < 1 or size & (size - 1):
            raise ValueError(f"a ring has a power of two of entries, not {size}")
        self.size = size
        self.memory = aligned(192 + size * entry)

    def describe(self, ring: int) -> None:
        """Write a RING at address `ring`: one end, with nothing cached."""
        base = address_of(self.memory)
        words = RING.at(ring)
        words["producer"], words["consumer"], words["flags"] = base, base + 64, base + 128
        words["descs"], words["mask"], words["size"] = base + 192, self.size - 1, self.size
        words["cached_producer"] = words["cached_consumer"] = 0

    def need_wakeup(self) -> None:
        """Set XDP_RING_NEED_WAKEUP for good: nothing moves on the other end until it is called."""
        self.memory[128:132].view("<u4")[0] = XDP_RING_NEED_WAKEUP
