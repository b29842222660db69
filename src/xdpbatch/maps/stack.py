"""BPF_MAP_TYPE_STACK: values without keys, last in, first out.

Analogous to stack_map_ops (kernel/bpf/queue_stack_maps.c), in a queue's ring.
"""

from __future__ import annotations

import errno

from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import SIZEOF_HEADER
from xdpbatch.maps.queue import HEAD, LOCK, TAIL, Queue, push, step
from xdpbatch.mem import copy, fill, load32, store32
from xdpbatch.native import native
from xdpbatch.uapi import MapNumber

ENOENT = errno.ENOENT


@native
def take(map: int, out: int, keep: int, value_size: int, max_entries: int) -> int:
    """Copy the newest value and, unless `keep`, remove it; zeros and -ENOENT if there is none."""
    lock(map + LOCK)
    head = load32(map + HEAD)
    error = 0
    if head == load32(map + TAIL):
        fill(out, 0, value_size)
        error = -ENOENT
    else:
        newest = step(head, -1, max_entries)
        copy(out, map + SIZEOF_HEADER + newest * value_size, value_size)
        if keep == 0:
            store32(map + HEAD, newest)
    unlock(map + LOCK)
    return error


@native
def pop(map: int, out: int, value_size: int, max_entries: int) -> int:
    """Take the newest value."""
    return take(map, out, 0, value_size, max_entries)


@native
def peek(map: int, out: int, value_size: int, max_entries: int) -> int:
    """Copy the newest value."""
    return take(map, out, 1, value_size, max_entries)


class Stack(Queue):
    number = MapNumber.STACK
    name = "stack"
    push = push
    pop = pop
    peek = peek


TYPE = Stack()
