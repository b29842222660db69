"""Enhanced Packet Blocks with verdicts, written by compiled code: a recorder for captures.

Analogous to xdpdump with `--rx-capture exit`. Each block carries epb_packetid, epb_queue and
epb_verdict (pcapng, section 4.3: 02 for eBPF XDP, then the verdict in 64 bits), as xdpdump writes
them and Wireshark shows them. Verdicts are the program's own, also unknown ones.
"""

from __future__ import annotations

from xdpbatch.data.buff import ACT, DATA, DATA_END, RXQ_QUEUE_INDEX, SIZEOF_XDP_BUFF
from xdpbatch.data.port import RX, SIZEOF_STAMP, STAMP_MISSING, STAMP_TIME, STAMPS
from xdpbatch.data.queue import BATCH, FIRST, PORT, RECORDER, RXQ
from xdpbatch.data.recorder import BUFFER, PACKETS, USED
from xdpbatch.data.ring import MASK
from xdpbatch.data.umem import HARD_END
from xdpbatch.mem import clock_ns, copy, load32, load64, shr64, store32, store64
from xdpbatch.native import native
from xdpbatch.pcap.format import (
    ENHANCED_PACKET,
    EPB_PACKETID,
    EPB_QUEUE,
    EPB_VERDICT,
    VERDICT_XDP,
)

# Options after the packet: packetid (4 + 8), queue (4 + 4), verdict (4 + 9 + 3), end (4).
PACKETID, QUEUE_INDEX, VERDICT, END_OF_OPTIONS, OPTIONS = 0, 12, 20, 36, 40
HEADER, TRAILER = 28, 4
LONGEST = HEADER + HARD_END + OPTIONS + TRAILER  # bytes of the longest block
_REALTIME = 0  # CLOCK_REALTIME


@native
def options(to: int, packet: int, queue_index: int, verdict: int) -> int:
    """The options of a block."""
    store32(to + PACKETID, EPB_PACKETID | 8 << 16)
    store64(to + PACKETID + 4, packet)
    store32(to + QUEUE_INDEX, EPB_QUEUE | 4 << 16)
    store32(to + QUEUE_INDEX + 4, queue_index)
    store32(to + VERDICT, EPB_VERDICT | 9 << 16)
    store64(to + VERDICT + 4, VERDICT_XDP | verdict << 8)  # the type, 7 bytes of the verdict
    store32(to + VERDICT + 12, 0)  # its last byte, padding
    return store32(to + END_OF_OPTIONS, 0)


@native
def block(to: int, buff: int, time: int, missing: int) -> int:
    """One block without its options; returns its length."""
    data = load64(buff + DATA)
    length = load64(buff + DATA_END) - data
    padded = (length + 3) & ~3
    total = HEADER + padded + OPTIONS + TRAILER
    store32(to, ENHANCED_PACKET)
    store32(to + 4, total)
    store32(to + 8, 0)  # interface
    store32(to + 12, shr64(time, 32))
    store32(to + 16, time)
    store32(to + HEADER + padded - 4, 0)  # the padding; what is not padding is written next
    store32(to + 20, length)
    store32(to + 24, length + missing)
    copy(to + HEADER, data, length)
    store32(to + total - TRAILER, total)
    return total


@native
def record_blocks(queue: int, n: int) -> int:
    """A block for each of the first `n` XdpBuffs. The recorder's limit says that there is room."""
    recorder, port = load64(queue + RECORDER), load64(queue + PORT)
    stamps, mask = load64(port + STAMPS), load32(port + RX + MASK)
    first, batch = load32(queue + FIRST), load64(queue + BATCH)
    queue_index = load32(load64(queue + RXQ) + RXQ_QUEUE_INDEX)
    packets, used = load64(recorder + PACKETS), load64(recorder + USED)
    time = clock_ns(_REALTIME) if stamps == 0 else 0
    missing = 0
    for i in range(n):
        buff = batch + i * SIZEOF_XDP_BUFF
        if stamps != 0:
            stamp = stamps + ((first + i) & mask) * SIZEOF_STAMP
            time, missing = load64(stamp + STAMP_TIME), load32(stamp + STAMP_MISSING)
        to = load64(recorder + BUFFER) + used
        total = block(to, buff, time, missing)
        options(to + total - TRAILER - OPTIONS, packets + i + 1, queue_index, load32(buff + ACT))
        used += total
    store64(recorder + PACKETS, packets + n)
    return store64(recorder + USED, used)
