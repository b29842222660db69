"""A spin lock in one 32-bit word, 0 when free.

Analogous to the kernel's raw_spinlock_t. Held only for the few instructions of one map operation.
"""

from __future__ import annotations

from xdpbatch.mem import compare_exchange32, load32, relax, store_release32
from xdpbatch.native import native


@native
def lock(word: int) -> int:
    """Take the lock, waiting for it."""
    while compare_exchange32(word, 0, 1) != 0:
        while load32(word) != 0:
            relax()
    return 0


@native
def unlock(word: int) -> int:
    """Give the lock back."""
    store_release32(word, 0)
    return 0
