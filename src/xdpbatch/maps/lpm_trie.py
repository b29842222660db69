"""BPF_MAP_TYPE_LPM_TRIE: prefixes to values; a lookup finds the longest prefix of its key.

Analogous to kernel/bpf/lpm_trie.c: a binary trie whose nodes hold whole prefixes; a node without a
value (FORK) stands where two prefixes part and always has two children. A key is a u32 prefix
length in host order, then the data, most significant byte first.

    node   u32 child[2] (index + 1, 0: none) | u32 prefix length | u32 FORK | data, padded | value

An update writes a new node and puts it in the old one's place, so that a pointer to the old value
keeps showing it. Freed nodes are used again in the order in which they were freed, as late as
possible: where the kernel waits for an RCU grace period.
"""

from __future__ import annotations

import errno

from xdpbatch.data.lock import lock, unlock
from xdpbatch.maps import ACCESS_FLAGS, OWN, SIZEOF_HEADER, MapType, check_flags, refuse
from xdpbatch.mem import clz64, copy, load8, load32, load64, store32, store64, swap32, swap64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, BPF_NOEXIST, MapNumber

EINVAL, ENOENT, ENOSPC, EEXIST = errno.EINVAL, errno.ENOENT, errno.ENOSPC, errno.EEXIST

# The map header's own words
NODES, ROOT, LOCK, ENTRIES, FRESH = OWN, OWN + 8, OWN + 12, OWN + 16, OWN + 20
FREE, FREE_FIRST, FREE_COUNT = OWN + 24, OWN + 32, OWN + 36

LENGTH, FLAGS, DATA = 8, 12, 16
FORK = 1
PREFIX = 4  # bytes of the prefix length before a key's data
DATA_MAX, VALUE_MAX = 256, (4 << 20) - 256 - 40  # LPM_DATA_SIZE_MAX, LPM_VAL_SIZE_MAX


@native
def stride_of(key_size: int, value_size: int) -> int:
    """Distance of two nodes, a multiple of 16."""
    return (DATA + ((key_size - PREFIX + 7) & -8) + value_size + 15) & -16


@native
def node_at(map: int, link: int, key_size: int, value_size: int) -> int:
    """Address of the node that a link names; links count from 1."""
    return load64(map + NODES) + (link - 1) * stride_of(key_size, value_size)


@native
def bit_of(data: int, index: int) -> int:
    """Bit `index` of a key's data, the most significant first."""
    return load8(data + (index >> 3)) >> (7 - (index & 7)) & 1


@native
def common(a: int, b: int, size: int, limit: int) -> int:
    """How many leading bits two keys' data have in common, `limit` at most."""
    at = 0
    while at + 8 <= size:
        differ = swap64(load64(a + at) ^ load64(b + at))
        if differ != 0:
            return min(at * 8 + clz64(differ), limit)
        at += 8
    if at + 4 <= size:
        differ = swap32(load32(a + at) ^ load32(b + at))
        if differ != 0:
            return min(at * 8 + clz64(differ) - 32, limit)
        at += 4
    while at < size:
        differ = load8(a + at) ^ load8(b + at)
        if differ != 0:
            return min(at * 8 + clz64(differ) - 56, limit)
        at += 1
    return limit


@native
def shared(node: int, key: int, key_size: int) -> int:
    """How many bits of its prefix a node shares with a key."""
    limit = min(load32(node + LENGTH), load32(key))
    return common(node + DATA, key + PREFIX, key_size - PREFIX, limit)


@native
def lookup(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the value of the longest prefix of `key`, 0 if there is none."""
    longest = (key_size - PREFIX) * 8
    if load32(key) > longest:
        return 0
    found = 0
    link = load32(map + ROOT)
    while link != 0:
        node = node_at(map, link, key_size, value_size)
        length = load32(node + LENGTH)
        if shared(node, key, key_size) < length:
            link = 0
        else:
            if load32(node + FLAGS) != FORK:
                found = node
            link = 0
            if length < longest:
                link = load32(node + bit_of(key + PREFIX, length) * 4)
    if found == 0:
        return 0
    return found + DATA + ((key_size - PREFIX + 7) & -8)


@native
def take(map: int, max_entries: int) -> int:
    """A link to a node nothing refers to; 0 if there is none."""
    fresh = load32(map + FRESH)
    capacity = 2 * max_entries
    if fresh < capacity:
        store32(map + FRESH, fresh + 1)
        return fresh + 1
    count = load32(map + FREE_COUNT)
    if count == 0:
        return 0
    first = load32(map + FREE_FIRST)
    store32(map + FREE_FIRST, (first + 1) % capacity)
    store32(map + FREE_COUNT, count - 1)
    return load32(load64(map + FREE) + first * 4)


@native
def give(map: int, link: int, max_entries: int) -> int:
    """Put a node at the end of the free ones."""
    count = load32(map + FREE_COUNT)
    last = (load32(map + FREE_FIRST) + count) % (2 * max_entries)
    store32(load64(map + FREE) + last * 4, link)
    store32(map + FREE_COUNT, count + 1)
    return 0


@native
def seek(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the link to follow to where `key` is or belongs."""
    slot = map + ROOT
    while load32(slot) != 0:
        node = node_at(map, load32(slot), key_size, value_size)
        length = load32(node + LENGTH)
        if shared(node, key, key_size) != length or length == load32(key):
            return slot
        slot = node + bit_of(key + PREFIX, length) * 4
    return slot


@native
def make(map: int, key: int, length: int, key_size: int, value_size: int, max_entries: int) -> int:
    """A link to a new node without children for the first `length` bits of a key's data."""
    link = take(map, max_entries)
    if link != 0:
        node = node_at(map, link, key_size, value_size)
        store64(node, 0)
        store32(node + LENGTH, length)
        store32(node + FLAGS, 0)
        copy(node + DATA, key, key_size - PREFIX)
    return link


@native
def refused(map: int, exists: int, flags: int, max_entries: int) -> int:
    """Whether an update may go on: 0 or -errno."""
    if exists != 0:
        if flags == BPF_NOEXIST:
            return -EEXIST
        return 0
    if flags == BPF_EXIST:
        return -ENOENT
    if load32(map + ENTRIES) == max_entries:
        return -ENOSPC
    store32(map + ENTRIES, load32(map + ENTRIES) + 1)
    return 0


@native
def place(map: int, slot: int, new: int, key_size: int, value_size: int, max_entries: int) -> int:
    """Put the new node where `seek` found that it belongs: replacing, above, or beside."""
    fresh = node_at(map, new, key_size, value_size)
    link = load32(slot)
    if link == 0:
        store32(slot, new)
        return 0
    node = node_at(map, link, key_size, value_size)
    length, wanted = load32(node + LENGTH), load32(fresh + LENGTH)
    match = common(node + DATA, fresh + DATA, key_size - PREFIX, min(length, wanted))
    if match == length:
        store64(fresh, load64(node))
        store32(slot, new)
        give(map, link, max_entries)
        return 0
    if match == wanted:
        store32(fresh + bit_of(node + DATA, match) * 4, link)
        store32(slot, new)
        return 0
    fork = make(map, node + DATA, match, key_size, value_size, max_entries)
    parent = node_at(map, fork, key_size, value_size)
    store32(parent + FLAGS, FORK)
    side = bit_of(fresh + DATA, match)
    store32(parent + side * 4, new)
    store32(parent + (1 - side) * 4, link)
    store32(slot, fork)
    return 0


@native
def put(
    map: int, key: int, value: int, flags: int, key_size: int, value_size: int, max_entries: int
) -> int:
    """`update` under the lock."""
    slot = seek(map, key, key_size, value_size)
    exists = 0
    if load32(slot) != 0:
        node = node_at(map, load32(slot), key_size, value_size)
        length = load32(node + LENGTH)
        if length == load32(key) and shared(node, key, key_size) == length:
            exists = int(load32(node + FLAGS) != FORK)
    error = refused(map, exists, flags, max_entries)
    if error != 0:
        return error
    new = make(map, key + PREFIX, load32(key), key_size, value_size, max_entries)
    node = node_at(map, new, key_size, value_size)
    copy(node + DATA + ((key_size - PREFIX + 7) & -8), value, value_size)
    return place(map, slot, new, key_size, value_size, max_entries)


@native
def update(
    map: int, key: int, value: int, flags: int, key_size: int, value_size: int, max_entries: int
) -> int:
    """Insert or replace a prefix; -ENOSPC if a new one finds the map full."""
    if flags < 0 or flags > BPF_EXIST or load32(key) > (key_size - PREFIX) * 8:
        return -EINVAL
    lock(map + LOCK)
    error = put(map, key, value, flags, key_size, value_size, max_entries)
    unlock(map + LOCK)
    return error


@native
def cut(map: int, key: int, key_size: int, value_size: int, max_entries: int) -> int:
    """`delete` under the lock."""
    above = 0  # the slot of the parent, 0 at the root
    slot = map + ROOT
    node = 0
    found = 0
    while load32(slot) != 0 and found == 0:
        node = node_at(map, load32(slot), key_size, value_size)
        length = load32(node + LENGTH)
        if shared(node, key, key_size) != length:
            return -ENOENT
        if length == load32(key):
            found = 1
        else:
            above = slot
            slot = node + bit_of(key + PREFIX, length) * 4
    if found == 0 or load32(node + FLAGS) == FORK:
        return -ENOENT
    store32(map + ENTRIES, load32(map + ENTRIES) - 1)
    left, right = load32(node), load32(node + 4)
    if left != 0 and right != 0:
        store32(node + FLAGS, FORK)
        return 0
    give(map, load32(slot), max_entries)
    if above != 0 and left == 0 and right == 0:
        parent = node_at(map, load32(above), key_size, value_size)
        if load32(parent + FLAGS) == FORK:
            other = parent + parent + 4 - slot  # the slot beside this one
            give(map, load32(above), max_entries)
            store32(above, load32(other))
            return 0
    store32(slot, left | right)
    return 0


@native
def delete(map: int, key: int, key_size: int, value_size: int, max_entries: int) -> int:
    """Remove exactly this prefix."""
    if load32(key) > (key_size - PREFIX) * 8:
        return -EINVAL
    lock(map + LOCK)
    error = cut(map, key, key_size, value_size, max_entries)
    unlock(map + LOCK)
    return error


@native
def leftmost(map: int, link: int, key_size: int, value_size: int) -> int:
    """Address of the first node in postorder below and including a link's node."""
    found = 0
    while link != 0:
        node = node_at(map, link, key_size, value_size)
        link = load32(node)
        if load32(node + FLAGS) != FORK:
            found = node
            if link == 0:
                link = load32(node + 4)
    return found


@native
def after(map: int, key: int, key_size: int, value_size: int) -> int:
    """Address of the node after `key` in postorder, of the first for a key that is not there."""
    root = load32(map + ROOT)
    link = root
    answer = 0
    while link != 0:
        node = node_at(map, link, key_size, value_size)
        length = load32(node + LENGTH)
        if shared(node, key, key_size) != length:
            return leftmost(map, root, key_size, value_size)
        if length == load32(key):
            if load32(node + FLAGS) == FORK:
                return leftmost(map, root, key_size, value_size)
            return answer
        side = bit_of(key + PREFIX, length)
        if side == 0 and load32(node + 4) != 0:
            answer = leftmost(map, load32(node + 4), key_size, value_size)
        elif load32(node + FLAGS) != FORK:
            answer = node
        link = load32(node + side * 4)
    return leftmost(map, root, key_size, value_size)


@native
def next_key(map: int, key: int, next: int, key_size: int, value_size: int) -> int:
    """Keys in postorder: more specific prefixes before those that contain them."""
    if load32(map + ROOT) == 0:
        return -ENOENT
    node = 0
    if key == 0 or load32(key) > (key_size - PREFIX) * 8:
        node = leftmost(map, load32(map + ROOT), key_size, value_size)
    else:
        node = after(map, key, key_size, value_size)
    if node == 0:
        return -ENOENT
    store32(next, load32(node + LENGTH))
    copy(next + PREFIX, node + DATA, key_size - PREFIX)
    return 0


class LpmTrie(MapType):
    number = MapNumber.LPM_TRIE
    name = "lpm_trie"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    quiet_lookup = lookup

    def check(self, spec: MapSpec) -> None:
        check_flags(spec, ACCESS_FLAGS | BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE)
        if not spec.flags & BPF_F_NO_PREALLOC:
            raise refuse(EINVAL, spec, "a trie must have the flag BPF_F_NO_PREALLOC")
        sizes = PREFIX < spec.key_size <= PREFIX + DATA_MAX and 0 < spec.value_size <= VALUE_MAX
        if not spec.max_entries or not sizes:
            raise refuse(EINVAL, spec, "keys have 5 to 260 bytes; values and entries are needed")

    def size(self, spec: MapSpec) -> int:
        # every prefix but one may need a fork, and an update one more node
        nodes = 2 * spec.max_entries
        return SIZEOF_HEADER + nodes * (stride_of(spec.key_size, spec.value_size) + 4)

    def init(self, address: int, spec: MapSpec) -> None:
        nodes = 2 * spec.max_entries * stride_of(spec.key_size, spec.value_size)
        store64(address + NODES, address + SIZEOF_HEADER)
        store64(address + FREE, address + SIZEOF_HEADER + nodes)


TYPE = LpmTrie()
