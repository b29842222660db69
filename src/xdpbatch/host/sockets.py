"""Sockets as native code finds them.

Analogous to inet_lookup() and udp4_lib_lookup() (net/ipv4), inet6_lookup() and udp6_lib_lookup()
(net/ipv6): a socket connected to the sender first, then one bound to the address, then any. All
sockets are looked at in turn; groups of SO_REUSEPORT are not known, the first of equals is taken.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_HOST
from xdpbatch.host import AF_INET, AF_INET6
from xdpbatch.host.layout import (
    SIZEOF_SOCKET,
    SK_CONNECTED,
    SK_DEVICE,
    SK_DST_IP4,
    SK_DST_IP6,
    SK_DST_PORT,
    SK_FAMILY,
    SK_FOUR,
    SK_PROTOCOL,
    SK_SRC_IP4,
    SK_SRC_IP6,
    SK_SRC_PORT,
    SK_STATE,
    SK_WILD,
    SOCKET_COUNT,
    SOCKETS,
)
from xdpbatch.maps.hashing import same
from xdpbatch.mem import load16, load32, load64, swap16
from xdpbatch.native import native

INET, INET6 = AF_INET, AF_INET6
TCP, UDP = 6, 17
TIME_WAIT, CLOSE, LISTEN = 6, 7, 10
CONNECTED, SPECIFIC = 1 << 10, 1 << 8  # more than all that follows can add up to


@native
def addressed(socket: int, tuple: int, size: int) -> int:
    """Whether the packet may be for the socket: its address and port, and its family."""
    if load32(socket + SK_SRC_PORT) != swap16(load16(tuple + 2 * size + 2)):
        return 0
    local = SK_SRC_IP6
    if size == 4:
        local = SK_SRC_IP4
        if load32(socket + SK_FOUR) == 0:
            return 0
    elif load32(socket + SK_FAMILY) != INET6:
        return 0
    return int(load32(socket + SK_WILD) != 0 or same(socket + local, tuple + size, size) != 0)


@native
def from_peer(socket: int, tuple: int, size: int) -> int:
    """Whether a connected socket is connected to the packet's sender."""
    remote = SK_DST_IP6
    if size == 4:
        remote = SK_DST_IP4
    port = load16(tuple + 2 * size)
    return int(same(socket + remote, tuple, size) != 0 and load16(socket + SK_DST_PORT) == port)


@native
def score(socket: int, protocol: int, tuple: int, size: int, ifindex: int) -> int:
    """How well a socket fits the packet; 0: not at all."""
    device = load32(socket + SK_DEVICE)
    if load32(socket + SK_PROTOCOL) != protocol or (device != 0 and device != ifindex):
        return 0
    if addressed(socket, tuple, size) == 0:
        return 0
    state = load32(socket + SK_STATE)
    points = 1 + int(load32(socket + SK_FAMILY) == INET)
    if device != 0:
        points += 4
    if load32(socket + SK_WILD) == 0:
        points += SPECIFIC
    if load32(socket + SK_CONNECTED) != 0:
        if from_peer(socket, tuple, size) == 0:
            return 0
        return points + CONNECTED
    if protocol == TCP and state != LISTEN:
        return 0
    return points


@native
def find_socket(buff: int, protocol: int, tuple: int, length: int, ifindex: int) -> int:
    """Address of the socket for a struct bpf_sock_tuple, or 0."""
    host = load64(load64(buff + RXQ) + RXQ_HOST)
    size = 4
    if length == 36:
        size = 16
    if host == 0 or (length != 12 and length != 36):
        return 0
    best = 0
    points = 0
    for i in range(load32(host + SOCKET_COUNT)):
        socket = load64(host + SOCKETS) + i * SIZEOF_SOCKET
        found = score(socket, protocol, tuple, size, ifindex)
        if found > points:
            best = socket
            points = found
    return best


@native
def this_namespace(netns: int, flags: int) -> int:
    """Whether a lookup is in the program's own network namespace: no other one is known."""
    return int(flags == 0 and netns & 0x80000000 != 0)
