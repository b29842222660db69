"""Executable memory, never writable and executable at once.

Analogous to bpf_jit_binary_pack_alloc and set_memory_rox of the kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import os

INT3 = b"\xcc"  # what fills the rest of the last page, so that running off the end traps


class Code:
    """Machine code at `address`, `size` bytes, as long as this object lives.

    `keep` is what the code refers to and must stay alive with it.
    """

    def __init__(self, code: bytes, keep: object = None) -> None:
        self.size = len(code)
        self.keep = keep
        pages = -(-max(len(code), 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(
            -1,
            pages,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
        self._memory[:] = code.ljust(pages, INT3)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        _protect(self.address, pages)

    def __bytes__(self) -> bytes:
        return self._memory[: self.size]


def _protect(address: int, size: int) -> None:
    """mprotect(2): readable and executable, writable no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(
        ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC
    ):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
