"""SYN cookies: a sequence number that says what the SYN said.

Analogous to secure_tcp_syn_cookie() and check_tcp_syn_cookie() (net/ipv4/syncookies.c,
net/ipv6/syncookies.c). A cookie holds the minute, and one of four MSS values, under two hashes with
the queue's secret, which is not the kernel's: each takes only its own cookies.
`size` is that of an address of the IP header at `ip`: 4 or 16.
"""

from __future__ import annotations

import time

from xdpbatch.data.buff import RXQ, RXQ_SCRATCH, RXQ_SECRET
from xdpbatch.data.clock import now
from xdpbatch.data.siphash import absorb, finish, start
from xdpbatch.mem import load8, load16, load32, load64, swap16, swap32
from xdpbatch.native import native

CLOCK = time.CLOCK_MONOTONIC
PERIOD = 60_000_000_000  # TCP_SYNCOOKIE_PERIOD in nanoseconds
MAX_AGE = 2  # MAX_SYNCOOKIE_AGE, in periods
MASK24, MASK32 = 0xFFFFFF, 0xFFFFFFFF
SEQ, ACK, OFFSET, HEADER = 4, 8, 12, 20  # struct tcphdr
MSS_LENGTH, END, NOP, MSS = 4, 0, 1, 2  # TCP options


@native
def mss_for(index: int, size: int) -> int:
    """The MSS values that a cookie can hold, of IPv4 and IPv6: msstab."""
    if size == 4:
        if index == 0:
            return 536
        if index == 3:
            return 1460
        return 1300 + (index - 1) * 140
    if index == 3:
        return 8940
    if index == 2:
        return 1440
    return 1220 + index * 200


@native
def hashed(buff: int, ip: int, tcp: int, size: int, count: int, which: int) -> int:
    """cookie_hash(): 32 bits of a keyed hash of addresses, ports and a count."""
    rxq = load64(buff + RXQ)
    state = rxq + RXQ_SCRATCH
    start(state, load64(rxq + RXQ_SECRET), which)
    absorb(state, load32(tcp) | count << 32)
    if size == 4:
        absorb(state, load64(ip + 12))
        return finish(state, 2) & MASK32
    for at in range(8, 40, 8):
        absorb(state, load64(ip + at))
    return finish(state, 5) & MASK32


@native
def minute(buff: int) -> int:
    """tcp_cookie_time()."""
    return now(buff, CLOCK) // PERIOD & MASK32


@native
def mss_of(tcp: int) -> int:
    """The MSS option of a TCP header, 0 if it has none: tcp_parse_mss_option()."""
    at = tcp + HEADER
    end = tcp + (load8(tcp + OFFSET) >> 4) * 4
    found = 0
    while at < end:
        kind = load8(at)
        if kind == END:
            return found
        if kind == NOP:
            at += 1
        else:
            if at + 2 > end:
                return found
            length = load8(at + 1)
            if length < 2 or at + length > end:
                return found
            if kind == MSS and length == MSS_LENGTH and load16(at + 2) != 0:
                found = swap16(load16(at + 2))
            at += length
    return found


@native
def cookie_for(buff: int, ip: int, tcp: int, size: int) -> int:
    """The cookie that answers a SYN, and above its 32 bits the MSS that it holds."""
    wanted = mss_of(tcp)
    if wanted == 0:
        wanted = mss_for(0, size)
    index = 3
    while index > 0 and wanted < mss_for(index, size):
        index -= 1
    count = minute(buff)
    cookie = hashed(buff, ip, tcp, size, 0, 0) + swap32(load32(tcp + SEQ)) + (count << 24)
    cookie += hashed(buff, ip, tcp, size, count, 1) + index & MASK24
    return cookie & MASK32 | mss_for(index, size) << 32


@native
def holds(buff: int, ip: int, tcp: int, size: int) -> int:
    """1 if an ACK acknowledges a cookie of ours that is not too old, else 0."""
    cookie = swap32(load32(tcp + ACK)) - 1
    sequence = swap32(load32(tcp + SEQ)) - 1
    count = minute(buff)
    cookie = cookie - hashed(buff, ip, tcp, size, 0, 0) - sequence & MASK32
    age = count - (cookie >> 24) & 0xFF
    if age >= MAX_AGE:
        return 0
    index = cookie - hashed(buff, ip, tcp, size, count - age & MASK32, 1) & MASK24
    return int(index < 4)
