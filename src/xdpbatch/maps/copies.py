"""The copies of an element of a per-CPU hash: one region of elements for each CPU.

Analogous to the percpu pointer of kernel/bpf/hashtab.c, but each copy has the key beside the value,
so that a lookup on any CPU stays within its own region: one cache line for key and value.
"""

from __future__ import annotations

from xdpbatch.maps import ALL_CPUS, CPUS
from xdpbatch.maps.table import REGION
from xdpbatch.mem import copy, fill, load64
from xdpbatch.native import native


@native
def set_copies(map: int, element: int, value: int, cpu: int, key_size: int, value_size: int) -> int:
    """Write one CPU's copy, or all from `value`, which then has them side by side."""
    at = element + ((key_size + 7) & -8)
    region = load64(map + REGION)
    if cpu != ALL_CPUS:
        copy(at + cpu * region, value, value_size)
        return 0
    padded = (value_size + 7) & -8
    for i in range(CPUS):
        copy(at + i * region, value + i * padded, padded)
    return 0


@native
def new_copies(
    map: int, element: int, key: int, value: int, cpu: int, key_size: int, value_size: int
) -> int:
    """Fill a new element: the key everywhere, zeros where the value is not given."""
    region = load64(map + REGION)
    padded = (key_size + 7) & -8
    for i in range(CPUS):
        copy(element + i * region, key, key_size)
        if cpu != ALL_CPUS:
            fill(element + i * region + padded, 0, (value_size + 7) & -8)
    return set_copies(map, element, value, cpu, key_size, value_size)
