"""The index: where the packets of a chunk of capture are, found by compiled code.

Analogous to libpcap's sf_next_packet, but for hundreds of packets per call and without a copy.
Python reads chunks and the rare blocks (sections, interfaces); these functions read the frequent
ones, record by record, and stop with a status where they need Python:

    MORE      the chunk ends inside a record
    SPECIAL   a section header or interface block is next
    LYING     a length that cannot be true is next
"""

from __future__ import annotations

from xdpbatch.data.buff import MAX_LINEAR
from xdpbatch.data.layout import Layout
from xdpbatch.mem import load16, load32, load64, mul64, store32, store64, swap16, swap32
from xdpbatch.native import native
from xdpbatch.pcap.format import (
    ENHANCED_PACKET,
    ETHERNET,
    INTERFACE,
    MAX_BLOCK,
    MAX_PACKET,
    PACKET,
    PCAP_RECORD,
    SECTION_HEADER,
    SIMPLE_PACKET,
)

CURSOR = Layout(
    "Cursor",
    {
        "at": "u64",  # address of the first byte not looked at
        "end": "u64",  # address after the last byte of the chunk
        "skip": "u64",  # bytes to pass over before the next block
        "status": "u64",
        "is_pcap": "u64",  # 1: pcap, 0: pcapng
        "swapped": "u64",  # 1: of the other endianness
        "interfaces": "u64",  # address of INTERFACE_ENTRY[count]; a pcap has one
        "count": "u64",
        "records": "u64",  # address of RECORD[capacity]
        "filled": "u64",  # records found by the last call
        "taken": "u64",  # of these, how many the reader has used
        "too_long": "u64",  # packets skipped: longer than MAX_LINEAR
        "too_short": "u64",  # packets skipped: shorter than an Ethernet header
        "capacity": "u64",
    },
    112,
)
AT, END, SKIP, STATUS, IS_PCAP, SWAPPED, INTERFACES, COUNT = range(0, 64, 8)
RECORDS, FILLED, TAKEN, TOO_LONG, TOO_SHORT, CAPACITY = range(64, 112, 8)
MORE, SPECIAL, LYING = 1, 2, 3

INTERFACE_ENTRY = Layout(
    "Interface",
    {
        "link_type": "u64",
        "snaplen": "u64",  # 0: no limit
        "skipped": "u64",  # packets skipped because of the link type
        "multiplier": "u64",  # nanoseconds = units * multiplier // divisor, or
        "divisor": "u64",
        "bits": "u64",  # units of 2**-bits seconds, if not 0
        "offset": "u64",  # nanoseconds to add
        "reserved": "u64",
    },
    64,
)
LINK_TYPE, SNAPLEN, SKIPPED, MULTIPLIER, DIVISOR, BITS, OFFSET = range(0, 56, 8)
SIZEOF_INTERFACE = 64

RECORD = Layout(
    "Record",
    {
        "data": "u64",
        "time": "u64",
        "length": "u32",
        "missing": "u32",
        "interface": "u32",
        "pad": "u32",
    },
    32,
)
RECORD_DATA, RECORD_TIME, RECORD_LENGTH, RECORD_MISSING, RECORD_INTERFACE = 0, 8, 16, 20, 24
SIZEOF_RECORD = 32

MIN_LINEAR = 14  # an Ethernet header: BPF_PROG_TEST_RUN's rule
SECOND = 1_000_000_000
_M32 = 0xFFFFFFFF


@native
def get32(address: int, swapped: int) -> int:
    """A u32 of the capture's endianness."""
    value = load32(address)
    return swap32(value) if swapped != 0 else value


@native
def get16(address: int, swapped: int) -> int:
    """A u16 of the capture's endianness."""
    value = load16(address)
    return swap16(value) if swapped != 0 else value


@native
def admit(cursor: int, interface: int, data: int, length: int, original: int, time: int) -> int:
    """Index a packet, or count why it is skipped."""
    entry = load64(cursor + INTERFACES) + interface * SIZEOF_INTERFACE
    counter = cursor + FILLED
    if load64(entry + LINK_TYPE) != ETHERNET:
        counter = entry + SKIPPED
    elif length > MAX_LINEAR:
        counter = cursor + TOO_LONG
    elif length < MIN_LINEAR:
        counter = cursor + TOO_SHORT
    else:
        record = load64(cursor + RECORDS) + load64(cursor + FILLED) * SIZEOF_RECORD
        store64(record + RECORD_DATA, data)
        store64(record + RECORD_TIME, time)
        store32(record + RECORD_LENGTH, length)
        store32(record + RECORD_MISSING, max(original - length, 0))
        store32(record + RECORD_INTERFACE, interface)
    return store64(counter, load64(counter) + 1)


@native
def stopped(cursor: int, status: int) -> int:
    """Remember why the index stopped; 0."""
    store64(cursor + STATUS, status)
    return 0


@native
def pcap_records(cursor: int) -> int:
    """Look at the records of a pcap until there is no room for more, or stop with a status."""
    at, end, swapped = load64(cursor + AT), load64(cursor + END), load64(cursor + SWAPPED)
    unit = load64(load64(cursor + INTERFACES) + MULTIPLIER)
    capacity = load64(cursor + CAPACITY)
    status = 0
    while status == 0 and load64(cursor + FILLED) < capacity:
        length = get32(at + 8, swapped) if end - at >= PCAP_RECORD else 0
        following = at + PCAP_RECORD + length
        if length > MAX_PACKET:
            status = LYING
        elif end < following:
            status = MORE
        else:
            time = get32(at, swapped) * SECOND + get32(at + 4, swapped) * unit
            admit(cursor, 0, at + PCAP_RECORD, length, get32(at + 12, swapped), time)
            at = following
    store64(cursor + AT, at)
    return stopped(cursor, status)


@native
def time_of(entry: int, high: int, low: int) -> int:
    """Nanoseconds since 1970 of a pcapng timestamp, by the interface's resolution."""
    units = (high << 32) | low
    bits = load64(entry + BITS)
    if bits == 0:
        scaled = mul64(units, load64(entry + MULTIPLIER)) // max(load64(entry + DIVISOR), 1)
        return scaled + load64(entry + OFFSET)
    fraction = units & ((1 << bits) - 1)
    if bits > 32:
        fraction = fraction >> (bits - 32)
    seconds = mul64(units >> bits, SECOND)
    return seconds + ((fraction * SECOND) >> min(bits, 32)) + load64(entry + OFFSET)


@native
def simple_packet(cursor: int, at: int, total: int) -> int:
    """Look at a Simple Packet Block: no time, first interface, length from the snaplen."""
    original = get32(at + 8, load64(cursor + SWAPPED))
    length = original
    if load64(cursor + COUNT) == 0:
        return stopped(cursor, LYING)
    snaplen = load64(load64(cursor + INTERFACES) + SNAPLEN)
    if snaplen != 0 and snaplen < length:
        length = snaplen
    if length > min(total - 16, MAX_PACKET):
        return stopped(cursor, LYING)
    admit(cursor, 0, at + 12, length, original, 0)
    return 1


@native
def packet(cursor: int, kind: int, at: int, total: int) -> int:
    """Look at an Enhanced Packet Block, or the obsolete Packet Block before it."""
    swapped = load64(cursor + SWAPPED)
    if total < 32:
        return stopped(cursor, LYING)
    interface = get32(at + 8, swapped)
    if kind == PACKET:
        interface = get16(at + 8, swapped)
    length = get32(at + 20, swapped)
    if interface >= load64(cursor + COUNT) or length > min(total - 32, MAX_PACKET):
        return stopped(cursor, LYING)
    entry = load64(cursor + INTERFACES) + interface * SIZEOF_INTERFACE
    time = time_of(entry, get32(at + 12, swapped), get32(at + 16, swapped))
    admit(cursor, interface, at + 28, length, get32(at + 24, swapped), time)
    return 1


@native
def pcapng_block(cursor: int) -> int:
    """Look at one block of a pcapng: 1, or 0 with a status."""
    at = load64(cursor + AT)
    end = load64(cursor + END)
    skip = min(load64(cursor + SKIP), end - at)
    at += skip
    store64(cursor + AT, at)
    store64(cursor + SKIP, load64(cursor + SKIP) - skip)
    if end - at < 12:
        return stopped(cursor, MORE)
    swapped = load64(cursor + SWAPPED)
    kind = get32(at, swapped)
    if kind == SECTION_HEADER:
        return stopped(cursor, SPECIAL)
    total = get32(at + 4, swapped)
    if total < 12 or (total & 3) != 0:
        return stopped(cursor, LYING)
    with_time = kind in (PACKET, ENHANCED_PACKET)
    if not with_time and kind not in (SIMPLE_PACKET, INTERFACE):
        store64(cursor + SKIP, total)
        return 1
    if total > MAX_BLOCK:
        return stopped(cursor, LYING)
    if end - at < total:
        return stopped(cursor, MORE)
    if get32(at + total - 4, swapped) != total:
        return stopped(cursor, LYING)
    if kind == INTERFACE:
        return stopped(cursor, SPECIAL)
    seen = packet(cursor, kind, at, total) if with_time else simple_packet(cursor, at, total)
    store64(cursor + AT, at + seen * total)
    return seen


@native
def index(cursor: int) -> int:
    """Find up to `capacity` packets; returns how many. 0: the status says what is needed.

    The records are valid until the next call, their data until the chunk is replaced.
    """
    store64(cursor + FILLED, 0)
    store64(cursor + TAKEN, 0)
    store64(cursor + STATUS, 0)
    if load64(cursor + IS_PCAP) != 0:
        pcap_records(cursor)
    else:
        while load64(cursor + FILLED) < load64(cursor + CAPACITY) and pcapng_block(cursor) != 0:
            pass
    return load64(cursor + FILLED)
