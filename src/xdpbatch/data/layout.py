"""Memory layouts declared once: `Layout` is to this runtime what a C struct is to the kernel.

Native functions use the offsets as plain module constants; a Layout computes and checks them.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np

_TYPES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


@dataclass(frozen=True)
class Layout:
    """A struct: field name to type, in order, naturally aligned (a hole is an error)."""

    name: str
    fields: dict[str, str]
    size: int

    def __post_init__(self) -> None:
        offset = 0
        for name, kind in self.fields.items():
            width = _TYPES[kind]
            if offset % width:
                raise ValueError(f"{self.name}.{name} at {offset} is not aligned to {width}")
            offset += width
        if offset != self.size:
            raise ValueError(f"{self.name} is {offset} bytes, not {self.size}")

    def offset(self, field: str) -> int:
        """Byte offset of a field."""
        offset = 0
        for name, kind in self.fields.items():
            if name == field:
                return offset
            offset += _TYPES[kind]
        raise KeyError(field)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The same layout as a numpy structured type."""
        return np.dtype([(name, f"<u{_TYPES[kind]}") for name, kind in self.fields.items()])

    def array(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """`count` zeroed structs, aligned to a cache line (64 bytes)."""
        return aligned(count * self.size).view(self.dtype)

    def at(self, address: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The struct at an address as an array of one, to read and write; the memory must live."""
        memory = memoryview((ctypes.c_uint8 * self.size).from_address(address))
        return np.frombuffer(memory.cast("B"), dtype=np.uint8).view(self.dtype)


def aligned(size: int, alignment: int = 64) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Zeroed bytes whose address is a multiple of `alignment`."""
    raw = np.zeros(size + alignment, dtype=np.uint8)
    skip = -address_of(raw) % alignment
    return raw[skip : skip + size]


HUGE_PAGE = 2 << 20


def allocate(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Zeroed bytes for a long-lived block; OSError or MemoryError if there is no memory.

    Small ones are `aligned`; large ones are their own anonymous mapping at a multiple of 2 MiB that
    asks for transparent huge pages, and take memory only where they are touched.
    """
    if size < HUGE_PAGE:
        return aligned(size)
    mapping = mmap.mmap(-1, size + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(mapping, dtype=np.uint8)
    skip = -address_of(raw) % HUGE_PAGE
    return raw[skip : skip + size]


def address_of(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> int:
    """The address of an array's first byte. The array must outlive every use of it."""
    return int(array.ctypes.data)


def view_at(address: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """`size` bytes of memory, writable in place. Their owner must outlive the view."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def bytes_at(address: int, size: int) -> bytes:
    """A copy of `size` bytes of memory."""
    return ctypes.string_at(address, size)
