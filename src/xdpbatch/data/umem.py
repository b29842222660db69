"""The Umem: the memory that all packets of one or more ports live in, cut into frames.

Analogous to `struct xsk_umem` (net/xdp/xdp_umem.c) plus the frame allocator that every AF_XDP
program brings along. Frames that are in no ring lie on a stack: the frame used last is the warmest,
so it is handed out first.

    frame   | 256 headroom | up to 3520 packet bytes | guard | next frame
            ^ address      ^ address + offset        ^ hard end

An xdp_desc names a frame and where in it the packet starts. `mask` and `shift` say how, and one
formula serves both kinds of chunks that the kernel knows (`decode` and `encode` below):
* unaligned chunks, which our own ports use: frame in the low 48 bits, offset in the high 16;
* aligned chunks: the sum, and the frame is what remains without the low bits.

Why frames are 61 cache lines apart: at a power of two every packet would fall into the same few
sets of the L1 cache. 59 lines hold headroom and packet, two are the guard, and 61 is odd, so the
packets of neighbouring frames go to different sets (docs/data-plane.md has the measurement).
"""

from __future__ import annotations

import numpy as np

from xdpbatch.data.buff import PAGE_FRAME, SKB_SHARED_INFO
from xdpbatch.data.layout import HUGE_PAGE, Layout, address_of, aligned, allocate
from xdpbatch.mem import load64, shr64, store64
from xdpbatch.native import native

UMEM = Layout(
    "Umem",
    {
        "area": "u64",  # address of frame 0
        "size": "u64",  # bytes of all frames
        "mask": "u64",  # the bits of a descriptor's address that name the frame
        "shift": "u64",  # how far the offset in the frame is shifted left
        "stack": "u64",  # address of u64[frames]: addresses (relative to area) of free frames
        "free": "u64",  # how many of them are on the stack
        "frames": "u64",
        "copies": "u64",  # packets that were copied into this Umem
    },
    64,
)
AREA, SIZE_OF_AREA, ADDRESS_MASK, OFFSET_SHIFT, STACK, FREE, FRAMES, COPIES = range(0, 64, 8)
SIZEOF_UMEM = 64

HARD_END = PAGE_FRAME - SKB_SHARED_INFO  # bytes of a frame that a packet may use
STRIDE = 61 * 64  # bytes from frame to frame
UNALIGNED_MASK, UNALIGNED_SHIFT = (1 << 48) - 1, 48  # XSK_UNALIGNED_BUF_OFFSET_SHIFT
_GUARD = 0xA5


@native
def decode(umem: int, address: int) -> int:
    """Where the packet of a descriptor starts: an address in memory."""
    frame = address & load64(umem + ADDRESS_MASK)
    return load64(umem + AREA) + frame + shr64(address - frame, load64(umem + OFFSET_SHIFT))


@native
def encode(umem: int, frame: int, data: int) -> int:
    """The descriptor's address for a packet that starts at `data` in memory, in `frame`."""
    offset = data - load64(umem + AREA) - frame
    return frame + (offset << load64(umem + OFFSET_SHIFT))


@native
def give(umem: int, frame: int) -> int:
    """Put a frame on the stack of free ones."""
    free = load64(umem + FREE)
    store64(load64(umem + STACK) + 8 * free, frame)
    return store64(umem + FREE, free + 1)


@native
def take(umem: int) -> int:
    """A free frame, or -1."""
    free = load64(umem + FREE) - 1
    if free < 0:
        return -1
    store64(umem + FREE, free)
    return load64(load64(umem + STACK) + 8 * free)


class Umem:
    """Frames for ports: `address` is its UMEM. Ports of one thread share one Umem.

    `aligned_chunks`: one frame per page and aligned chunks, which zero-copy drivers want.
    """

    def __init__(self, frames: int, aligned_chunks: bool = False) -> None:
        self.frames = frames
        stride = PAGE_FRAME if aligned_chunks else STRIDE
        size = frames * stride
        self.area = allocate(max(size, HUGE_PAGE))[:size].reshape(frames, stride)
        self.area[:, HARD_END:] = _GUARD
        self.stack = aligned(8 * frames).view("<u8")
        self.stack[:] = np.arange(frames, dtype="<u8")[::-1] * np.uint64(stride)
        self._memory = aligned(SIZEOF_UMEM)
        self.address = address_of(self._memory)
        words = UMEM.at(self.address)
        words["area"], words["size"] = address_of(self.area), size
        self.unaligned = not aligned_chunks
        words["mask"] = UNALIGNED_MASK if self.unaligned else (1 << 64) - PAGE_FRAME
        words["shift"] = UNALIGNED_SHIFT if self.unaligned else 0
        words["stack"], words["free"], words["frames"] = address_of(self.stack), frames, frames

    @property
    def free(self) -> int:
        """How many frames are in no ring."""
        return load64(self.address + FREE)

    @property
    def copies(self) -> int:
        """Packets that were copied into this Umem."""
        return load64(self.address + COPIES)

    def take(self) -> int:
        """Take a free frame for good: its address relative to the area, or -1."""
        return take(self.address)

    def intact(self) -> bool:
        """Whether nothing was ever written beyond a frame's hard end."""
        return bool((self.area[:, HARD_END:] == _GUARD).all())
