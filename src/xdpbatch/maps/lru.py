"""Which element an LRU hash gives up: two lists, a reference bit, and small lists for each CPU.

Analogous to struct bpf_lru (kernel/bpf/bpf_lru_list.c), step by step, so that the same elements go:

* an insertion takes from its CPU's FREE list; its element waits on that CPU's PENDING list;
* when FREE is empty, the pending elements move to the map's ACTIVE (referenced) and INACTIVE
  lists, both are rotated, and FREE is filled from the map's free elements or by evicting
  unreferenced inactive ones; if there is none, one is evicted all the same;
* a program's lookup sets the element's reference bit, a rotation clears it.

With BPF_F_NO_COMMON_LRU each CPU has lists of its own instead. Nodes are indices into one array of
16 bytes each; behind the elements' nodes are the heads of the lists, then 16 bytes for each CPU.
Every function runs under the map's lock. `owner` is the CPU whose map-wide lists are meant (0 if
common).
"""

from __future__ import annotations

import numpy as np

from xdpbatch.data.layout import view_at
from xdpbatch.maps import CPUS
from xdpbatch.maps.hashing import hash_key
from xdpbatch.maps.table import (
    ELEMENTS,
    LIMIT,
    NODES,
    OWN_LISTS,
    REGION,
    REGIONS,
    SEED,
    STRIDE,
    TARGET,
    remove,
    slot_of,
)
from xdpbatch.mem import load8, load32, load64, store8, store32, store64
from xdpbatch.native import native

NODE = 16
NEXT, PREVIOUS, KIND, CPU = 0, 4, 8, 9
ACTIVE, INACTIVE, FREE, LOCAL_FREE, PENDING = range(5)
HEAD = 8  # bytes before the key of each element: its reference bit
LOCAL_TARGET, LOCAL_SCANS = 128, 128
OWN_TARGET, OWN_SCANS = 4, 4  # PERCPU_FREE_TARGET, PERCPU_NR_SCANS
COUNTS, ROTATION, NEXT_STEAL = 0, 8, 12  # of a CPU's 16 bytes


@native
def node_at(map: int, node: int) -> int:
    """Address of a node."""
    return load64(map + NODES) + node * NODE


@native
def head_of(map: int, cpu: int, type: int) -> int:
    """The node that is the head of a CPU's list."""
    return load32(map + LIMIT) + cpu * 5 + type


@native
def next_of(map: int, node: int) -> int:
    return load32(node_at(map, node) + NEXT)


@native
def previous_of(map: int, node: int) -> int:
    return load32(node_at(map, node) + PREVIOUS)


@native
def state_of(map: int, cpu: int) -> int:
    """Address of a CPU's counts, rotation pointer and next CPU to steal from."""
    return node_at(map, load32(map + LIMIT) + CPUS * 5 + cpu)


@native
def referenced(map: int, node: int) -> int:
    """Whether a lookup on any CPU has seen the element since the bit was cleared."""
    at = load64(map + ELEMENTS) + node * load32(map + STRIDE) - HEAD
    bits = 0
    for i in range(load32(map + REGIONS)):
        bits |= load8(at + i * load64(map + REGION))
    return bits


@native
def set_referenced(map: int, node: int, value: int) -> int:
    at = load64(map + ELEMENTS) + node * load32(map + STRIDE) - HEAD
    for i in range(load32(map + REGIONS)):
        store8(at + i * load64(map + REGION), value)
    return 0


@native
def unlink(map: int, node: int) -> int:
    after, before = next_of(map, node), previous_of(map, node)
    store32(node_at(map, before) + NEXT, after)
    store32(node_at(map, after) + PREVIOUS, before)
    return 0


@native
def link(map: int, node: int, head: int) -> int:
    """Put a node first in a list."""
    first = next_of(map, head)
    store32(node_at(map, node) + NEXT, first)
    store32(node_at(map, node) + PREVIOUS, head)
    store32(node_at(map, first) + PREVIOUS, node)
    store32(node_at(map, head) + NEXT, node)
    return 0


@native
def count(map: int, owner: int, type: int, change: int) -> int:
    """Keep the lengths of ACTIVE and INACTIVE."""
    if type <= INACTIVE:
        counter = state_of(map, owner) + COUNTS + type * 4
        store32(counter, load32(counter) + change)
    return 0


@native
def move(map: int, owner: int, node: int, type: int, head: int) -> int:
    """Put a linked node first in another list, unreferenced."""
    rotation = state_of(map, owner) + ROTATION
    if load32(rotation) == node:
        store32(rotation, previous_of(map, node))
    count(map, owner, load8(node_at(map, node) + KIND), -1)
    count(map, owner, type, 1)
    store8(node_at(map, node) + KIND, type)
    set_referenced(map, node, 0)
    unlink(map, node)
    return link(map, node, head)


@native
def rotate_active(map: int, owner: int, scans: int) -> int:
    """From the tail: a referenced node goes back to the front, another becomes inactive."""
    active, inactive = head_of(map, owner, ACTIVE), head_of(map, owner, INACTIVE)
    first = next_of(map, active)
    node = previous_of(map, active)
    left = scans
    while node != active:
        before = previous_of(map, node)
        if referenced(map, node) != 0:
            move(map, owner, node, ACTIVE, active)
        else:
            move(map, owner, node, INACTIVE, inactive)
        left -= 1
        if left == 0 or node == first:
            return 0
        node = before
    return 0


@native
def rotate_inactive(map: int, owner: int, scans: int) -> int:
    """From where the last rotation ended: a referenced node becomes active."""
    inactive = head_of(map, owner, INACTIVE)
    rotation = state_of(map, owner) + ROTATION
    if next_of(map, inactive) == inactive:
        return 0
    last = next_of(map, load32(rotation))
    if last == inactive:
        last = next_of(map, last)
    node = load32(rotation)
    before = inactive
    left = scans
    while left > 0:
        if node == inactive:
            node = previous_of(map, node)
        else:
            before = previous_of(map, node)
            if referenced(map, node) != 0:
                move(map, owner, node, ACTIVE, head_of(map, owner, ACTIVE))
            if node == last:
                left = 0
            node = before
            left -= 1
    store32(rotation, before)
    return 0


@native
def rotate(map: int, owner: int, scans: int) -> int:
    counts = state_of(map, owner) + COUNTS
    if load32(counts + INACTIVE * 4) < load32(counts + ACTIVE * 4):
        rotate_active(map, owner, scans)
    return rotate_inactive(map, owner, scans)


@native
def evict(map: int, node: int, key_size: int) -> int:
    """Remove an element from the hash table: 1, or 0 if it is not there."""
    key = load64(map + ELEMENTS) + node * load32(map + STRIDE)
    hashed = hash_key(key, key_size, load64(map + SEED))
    slot = slot_of(map, hashed, node)
    if slot == 0:
        return 0
    remove(map, hashed, slot)
    return 1


@native
def shrink_inactive(
    map: int, owner: int, wanted: int, scans: int, type: int, head: int, key_size: int
) -> int:
    """Evict up to `wanted` unreferenced nodes from the tail; how many it were."""
    inactive = head_of(map, owner, INACTIVE)
    node = previous_of(map, inactive)
    found = 0
    left = scans
    while node != inactive:
        before = previous_of(map, node)
        if referenced(map, node) != 0:
            move(map, owner, node, ACTIVE, head_of(map, owner, ACTIVE))
        elif evict(map, node, key_size) != 0:
            move(map, owner, node, type, head)
            found += 1
            if found == wanted:
                return found
        left -= 1
        if left == 0:
            return found
        node = before
    return found


@native
def shrink(
    map: int, owner: int, wanted: int, scans: int, type: int, head: int, key_size: int
) -> int:
    """Evict some nodes to the list `head`; one whatever its reference bit if there is no other."""
    if shrink_inactive(map, owner, wanted, scans, type, head, key_size) != 0:
        return 0
    victims = head_of(map, owner, INACTIVE)
    if next_of(map, victims) == victims:
        victims = head_of(map, owner, ACTIVE)
    node = previous_of(map, victims)
    while node != victims:
        before = previous_of(map, node)
        if evict(map, node, key_size) != 0:
            move(map, owner, node, type, head)
            return 0
        node = before
    return 0


@native
def fill_local(map: int, cpu: int, key_size: int) -> int:
    """Flush the CPU's pending nodes, rotate, and refill its free list."""
    pending, local = head_of(map, cpu, PENDING), head_of(map, cpu, LOCAL_FREE)
    node = previous_of(map, pending)
    while node != pending:
        before = previous_of(map, node)
        if referenced(map, node) != 0:
            move(map, 0, node, ACTIVE, head_of(map, 0, ACTIVE))
        else:
            move(map, 0, node, INACTIVE, head_of(map, 0, INACTIVE))
        node = before
    rotate(map, 0, LOCAL_SCANS)
    wanted = load32(map + TARGET)
    free = head_of(map, 0, FREE)
    node = next_of(map, free)
    while node != free and wanted > 0:
        after = next_of(map, node)
        move(map, 0, node, LOCAL_FREE, local)
        wanted -= 1
        node = after
    if wanted > 0:
        shrink(map, 0, wanted, LOCAL_SCANS, LOCAL_FREE, local, key_size)
    return 0


@native
def pop_local(map: int, cpu: int) -> int:
    """Take the first of the CPU's free nodes, -1 if there is none."""
    head = head_of(map, cpu, LOCAL_FREE)
    node = next_of(map, head)
    if node == head:
        return -1
    unlink(map, node)
    return node


@native
def pop_pending(map: int, cpu: int, key_size: int) -> int:
    """Evict the CPU's oldest pending node, an unreferenced one if possible; -1 if it has none."""
    head = head_of(map, cpu, PENDING)
    for force in range(2):
        node = previous_of(map, head)
        while node != head:
            if (force != 0 or referenced(map, node) == 0) and evict(map, node, key_size) != 0:
                unlink(map, node)
                return node
            node = previous_of(map, node)
    return -1


@native
def steal(map: int, cpu: int, key_size: int) -> int:
    """Take a free or pending node of any CPU, in turn; -1 if no CPU has one."""
    turn = state_of(map, cpu) + NEXT_STEAL
    first = load32(turn)
    victim = first
    node = -1
    for _ in range(CPUS):
        if node < 0:
            node = pop_local(map, victim)
            if node < 0:
                node = pop_pending(map, victim, key_size)
            victim = (victim + 1) % CPUS
    store32(turn, victim)
    return node


@native
def pop_own(map: int, cpu: int, key_size: int) -> int:
    """Take a node where each CPU has lists of its own."""
    rotate(map, cpu, OWN_SCANS)
    free = head_of(map, cpu, FREE)
    if next_of(map, free) == free:
        shrink(map, cpu, OWN_TARGET, OWN_SCANS, FREE, free, key_size)
    node = next_of(map, free)
    if node == free:
        return -1
    move(map, cpu, node, INACTIVE, head_of(map, cpu, INACTIVE))
    return node


@native
def lru_pop(map: int, cpu: int, key_size: int) -> int:
    """An element for a new key, evicting others if need be; -1 only if none can be had."""
    if load32(map + OWN_LISTS) != 0:
        return pop_own(map, cpu, key_size)
    node = pop_local(map, cpu)
    if node < 0:
        fill_local(map, cpu, key_size)
        node = pop_local(map, cpu)
    if node < 0:
        node = steal(map, cpu, key_size)
    if node < 0:
        return -1
    store8(node_at(map, node) + KIND, PENDING)
    store8(node_at(map, node) + CPU, cpu)
    set_referenced(map, node, 0)
    link(map, node, head_of(map, cpu, PENDING))
    return node


@native
def lru_push(map: int, node: int) -> int:
    """Give an element back that is in no bucket any more."""
    cpu = load8(node_at(map, node) + CPU)
    if load32(map + OWN_LISTS) != 0:
        return move(map, cpu, node, FREE, head_of(map, cpu, FREE))
    if load8(node_at(map, node) + KIND) == PENDING:
        return move(map, 0, node, LOCAL_FREE, head_of(map, cpu, LOCAL_FREE))
    return move(map, 0, node, FREE, head_of(map, 0, FREE))


def lru_size(elements: int) -> int:
    """Bytes of nodes, heads and state."""
    return (elements + CPUS * 6) * NODE


def lru_init(address: int, nodes: int, elements: int, own_lists: bool) -> None:
    """All elements free: each list starts with its last element, as in bpf_lru_populate()."""
    store64(address + NODES, nodes)
    store32(address + OWN_LISTS, int(own_lists))
    store32(address + TARGET, min(max(elements // CPUS // 2, 1), LOCAL_TARGET))
    table = view_at(nodes, lru_size(elements)).view("<u4").reshape(-1, 4)
    indices = np.arange(elements + CPUS * 6, dtype=np.uint32)
    table[:, 0], table[:, 1] = indices, indices  # every head is an empty list
    share = elements // CPUS if own_lists else elements
    for cpu in range(CPUS if own_lists else 1):
        first, end, head = cpu * share, cpu * share + share, elements + cpu * 5 + FREE
        table[first:end, 0], table[first:end, 1] = indices[first:end] - 1, indices[first:end] + 1
        table[first:end, 2] = FREE | cpu << 8
        table[first, 0] = table[end - 1, 1] = head
        table[head, :2] = end - 1, first
    for cpu in range(CPUS):
        state = state_of(address, cpu)
        store64(state + COUNTS, 0)
        store32(state + ROTATION, head_of(address, cpu, INACTIVE))
        store32(state + NEXT_STEAL, cpu)
