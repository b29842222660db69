"""Which of the host's IPv6 addresses a packet is sent from.

Analogous to ipv6_dev_get_saddr() (net/ipv6/addrconf.c), RFC 6724 section 5: the same address,
scope, outgoing interface, label, longest prefix. IPv4's choice does not depend on the destination:
host.tables makes it.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_HOST
from xdpbatch.host.layout import (
    ADDRESS_BYTES,
    ADDRESS_COUNT,
    ADDRESS_IFINDEX,
    ADDRESS_PREFIX,
    ADDRESSES,
    SIZEOF_ADDRESS,
)
from xdpbatch.maps.lpm_trie import common
from xdpbatch.mem import load32, load64, swap32, swap64
from xdpbatch.native import native

INVALID, LINK, SITE, GLOBAL = -1, 0x2, 0x5, 0xE  # IPV6_ADDR_SCOPE_*


@native
def scope_of(address: int) -> int:
    """The scope of a unicast or multicast address."""
    head = swap32(load32(address))
    if head >> 24 == 0xFF:
        return head >> 16 & 0xF
    if head >> 22 == 0xFE80 >> 6:
        return LINK
    if head >> 22 == 0xFEC0 >> 6:
        return SITE
    if load64(address) == 0:
        low = swap64(load64(address + 8))
        if low == 0:
            return INVALID
        if low == 1:
            return LINK
    return GLOBAL


@native
def label_of(address: int) -> int:
    """The label of RFC 6724's table as Linux has it (net/ipv6/addrlabel.c)."""
    head = swap32(load32(address))
    if load64(address) == 0:
        low = swap64(load64(address + 8))
        if low == 1:
            return 0
        if low >> 32 == 0xFFFF:
            return 4
        if low >> 32 == 0:
            return 3
    if head == 0x20010000:
        return 6
    if head >> 4 == 0x2001001:
        return 7
    if head >> 16 == 0x2002:
        return 2
    if head >> 16 == 0x3FFE:
        return 12
    if head >> 22 == 0xFEC0 >> 6:
        return 11
    if head >> 25 == 0xFC >> 1:
        return 5
    return 1


@native
def score(address: int, destination: int, ifindex: int) -> int:
    """How good an ADDRESS is: rule after rule, the earlier in the higher bits."""
    own = address + ADDRESS_BYTES
    matching = common(own, destination, 16, 128)
    scope, wanted = scope_of(own), scope_of(destination)
    near = 256 - scope
    if scope < wanted:
        near = scope + 128
    points = int(matching == 128) << 9 | near
    points = points << 1 | int(load32(address + ADDRESS_IFINDEX) == ifindex)
    points = points << 1 | int(label_of(own) == label_of(destination))
    return points << 8 | min(matching, load32(address + ADDRESS_PREFIX))


@native
def source_for(buff: int, destination: int, ifindex: int) -> int:
    """Address of the bytes of the best source for a destination out of an interface, or 0.

    For a link-local destination only that interface's addresses count.
    """
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    best = 0
    points = -1
    for i in range(load32(host + ADDRESS_COUNT)):
        address = load64(host + ADDRESSES) + i * SIZEOF_ADDRESS
        here = load32(address + ADDRESS_IFINDEX) == ifindex
        if here or scope_of(destination) > LINK:
            found = score(address, destination, ifindex)
            if found > points:
                best = address + ADDRESS_BYTES
                points = found
    return best
