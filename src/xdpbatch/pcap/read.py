"""The reader: a capture of any kind, chunk by chunk, at a memory use that does not depend on it.

Analogous to pcap_open_offline(). It keeps the chunk filled for `pcap.index`, understands the blocks
that are rare, and counts what is skipped by name. Every packet that the input holds is delivered or
skipped, also when an error follows: the error is raised after all packets before it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from xdpbatch.data.buff import MAX_LINEAR
from xdpbatch.data.code import Code, caller
from xdpbatch.data.layout import address_of, aligned, bytes_at
from xdpbatch.errors import CaptureError
from xdpbatch.pcap import format as pcapformat
from xdpbatch.pcap.index import (
    CURSOR,
    INTERFACE_ENTRY,
    LYING,
    MIN_LINEAR,
    MORE,
    RECORD,
    SECOND,
    SPECIAL,
    index,
)
from xdpbatch.pcap.source import Source

CHUNK = 1 << 20  # bytes: two of them fit into a second-level cache
RECORDS = 512  # packets per call of the index
MAX_INTERFACES = 1 << 16
CUT_OFF = "cut off mid-packet"


class Packet(NamedTuple):
    """One packet of a capture: its bytes, its time (ns since 1970), the bytes that are missing."""

    data: bytes
    time: int
    missing: int


class Reader:
    """A capture. `cursor` is the address of its CURSOR, for native code."""

    def __init__(self, origin: str | BinaryIO, chunk: int = CHUNK) -> None:
        """Reads the file header. Raises CaptureError if there is none that is known."""
        self._source = Source(origin)
        self._chunk = aligned(max(chunk, 2 * pcapformat.MAX_BLOCK))
        self._start = address_of(self._chunk)
        self._read = 0  # bytes of the capture up to the chunk's end
        self._error: CaptureError | None = None
        self._ended = False
        self._links: Counter[int] = Counter()  # skipped in earlier sections
        self._cut_off = 0
        self._records = RECORD.array(RECORDS)
        self._state = CURSOR.array(1)
        self.cursor = address_of(self._state)
        self._state["records"], self._state["capacity"] = address_of(self._records), RECORDS
        self._state["at"] = self._state["end"] = self._start
        self._clear_interfaces()
        try:
            self._file_header()
        except CaptureError:
            self._source.close()
            raise

    @property
    def name(self) -> str:
        """What errors call the capture."""
        return self._source.name

    @property
    def skipped(self) -> Mapping[str, int]:
        """Packets that were not delivered so far, by reason."""
        links = self._links + self._links_of_section()
        found = {pcapformat.link_type_name(number): links[number] for number in sorted(links)}
        found[f"longer than {MAX_LINEAR} bytes"] = int(self._state["too_long"][0])
        found[f"shorter than {MIN_LINEAR} bytes"] = int(self._state["too_short"][0])
        found[CUT_OFF] = self._cut_off
        return {reason: count for reason, count in found.items() if count}

    def more(self) -> bool:
        """After `index` found nothing: make progress possible, or False at the end.

        Raises CaptureError once, after everything before the damage was delivered.
        """
        if self._ended:
            return False
        status = int(self._state["status"][0])
        self._state["status"] = 0
        try:
            if status == SPECIAL:
                self._special()
            elif status == LYING:
                raise self._malformed("a length that cannot be true")
            elif status == MORE:
                return self._fill() or self._end()
        except CaptureError:
            self._ended = True
            raise
        return True

    def packets(self, code: Code) -> Iterator[Packet]:
        """All packets, as Python objects."""
        find = caller(code, index)
        while True:
            for i in range(find(self.cursor)):
                record = self._records[i]
                data = bytes_at(int(record["data"]), int(record["length"]))
                yield Packet(data, int(record["time"]), int(record["missing"]))
            if not int(self._state["filled"][0]) and not self.more():
                return

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _at(self) -> int:
        """Where the cursor is: an offset in the chunk."""
        return int(self._state["at"][0]) - self._start

    def _left(self) -> bytes:
        """The bytes that were read and not looked at."""
        return self._chunk[self._at() : int(self._state["end"][0]) - self._start].tobytes()

    def _fill(self) -> bool:
        """Carry what is left to the chunk's start and read behind it; False at the end."""
        at, left = self._at(), int(self._state["end"][0] - self._state["at"][0])
        self._chunk[:left] = self._chunk[at : at + left].copy()
        self._state["at"], self._state["end"] = self._start, self._start + left
        try:
            got = 0 if self._error else self._source.read_into(self._chunk.data[left:])
        except CaptureError as error:
            self._error, got = error, 0
        self._read += got
        self._state["end"] += np.uint64(got)
        return got > 0

    def _need(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are, without passing over them."""
        while len(left := self._left()) < size and self._fill():
            pass
        return left[:size]

    def _end(self) -> bool:
        """The input has ended: count a packet that was cut off. Raises what is wrong; False."""
        self._ended = True
        left = self._left()
        if left and (self._state["is_pcap"][0] or self._is_packet(left)):
            self._cut_off += 1
        elif (left or self._state["skip"][0]) and not self._error:
            raise self._malformed("the capture is cut off inside a block that is no packet")
        if self._error:
            raise self._error
        return False

    def _is_packet(self, block: bytes) -> bool:
        kind = struct.unpack_from(f"{self._order}I", block.ljust(4, b"\0"))[0]
        return kind in pcapformat.PACKET_BLOCKS

    @property
    def _order(self) -> str:
        return ">" if self._state["swapped"][0] else "<"

    def _pass(self, size: int) -> None:
        self._state["at"] += np.uint64(size)

    def _malformed(self, what: str) -> CaptureError:
        offset = self._read - (int(self._state["end"][0]) - int(self._state["at"][0]))
        return CaptureError.of(
            "capture-malformed",
            f"{what}, at byte {offset}",
            where=self.name,
            reason="what follows cannot be told apart from packets; all before it was read",
        )

    def _file_header(self) -> None:
        head = self._need(pcapformat.PCAP_HEADER)
        if self._error:
            raise self._error
        if not head:
            raise CaptureError.of(
                "capture-empty", "the capture is empty (0 bytes)", where=self.name
            )
        magics = {order: struct.unpack(f"{order}I", head[:4].ljust(4, b"\0"))[0] for order in "<>"}
        if pcapformat.SECTION_HEADER in magics.values():
            return  # the index will stop at it
        for order, magic in magics.items():
            if magic in (pcapformat.PCAP_MICROSECONDS, pcapformat.PCAP_NANOSECONDS):
                return self._pcap_header(order, magic, head)
        raise self._unknown(head[:4], pcapformat.PCAP_MODIFIED in magics.values())

    def _unknown(self, magic: bytes, modified: bool) -> CaptureError:
        what = (
            "is a modified pcap (Kuznetzov's), which is not read"
            if modified
            else ("is neither pcap nor pcapng")
        )
        return CaptureError.of(
            "capture-format",
            f"the file {what}: it starts with {magic.hex(' ')}, at byte 0",
            where=self.name,
            suggestion="`editcap -F pcapng IN OUT` converts what Wireshark can read",
        )

    def _pcap_header(self, order: str, magic: int, head: bytes) -> None:
        if len(head) < pcapformat.PCAP_HEADER:
            raise self._malformed("the capture is cut off inside its header")
        self._state["is_pcap"], self._state["swapped"] = 1, order == ">"
        snaplen, link = struct.unpack_from(f"{order}II", head, 16)
        nanoseconds = magic == pcapformat.PCAP_NANOSECONDS
        # The high bits of the link type say whether frames end in an FCS.
        self._add_interface(link & 0xFFFF, snaplen, multiplier=1 if nanoseconds else 1000)
        self._pass(pcapformat.PCAP_HEADER)

    def _special(self) -> None:
        head = self._need(12)
        if struct.unpack_from("<I", head)[0] == pcapformat.SECTION_HEADER:
            return self._section(head)
        total = struct.unpack_from(f"{self._order}I", head, 4)[0]
        self._interface(self._need(total))
        self._pass(total)

    def _section(self, head: bytes) -> None:
        magic = {
            order: struct.unpack_from(f"{order}I", head.ljust(12, b"\0"), 8)[0] for order in "<>"
        }
        orders = [order for order in "<>" if magic[order] == pcapformat.BYTE_ORDER_MAGIC]
        if len(head) < 12 or not orders:
            raise self._malformed("a section header without byte order")
        self._state["swapped"] = orders[0] == ">"
        total = struct.unpack_from(f"{self._order}I", head, 4)[0]
        if total < 28 or total % 4 or total > pcapformat.MAX_BLOCK:
            raise self._malformed("a section header with a length that cannot be true")
        block = self._need(total)
        if len(block) < total:
            raise self._malformed("the capture is cut off inside a section header")
        if struct.unpack_from(f"{self._order}I", block, total - 4)[0] != total:
            raise self._malformed("a section header whose two lengths differ")
        self._links += self._links_of_section()
        self._clear_interfaces()
        self._pass(total)

    def _interface(self, block: bytes) -> None:
        if len(block) < 20:
            raise self._malformed("an interface block that is too short")
        link, _, snaplen = struct.unpack_from(f"{self._order}HHI", block, 8)
        options = dict(self._options(block[16:-4]))
        resolution = options.get(pcapformat.IF_TSRESOL, b"")[:1] or b"\x06"
        power = resolution[0] & 0x7F
        offset = 0
        if len(options.get(pcapformat.IF_TSOFFSET, b"")) == 8:
            offset = struct.unpack(f"{self._order}q", options[pcapformat.IF_TSOFFSET])[0]
        if resolution[0] & 0x80:
            self._add_interface(link, snaplen, bits=min(power, 62), offset=offset)
        else:
            multiplier, divisor = 10 ** max(9 - power, 0), 10 ** min(max(power - 9, 0), 18)
            self._add_interface(link, snaplen, multiplier, divisor, offset=offset)

    def _options(self, options: bytes) -> Iterator[tuple[int, bytes]]:
        """Code and value of each option, as far as they make sense."""
        while len(options) >= 4:
            code, length = struct.unpack_from(f"{self._order}HH", options)
            if code == 0:
                return
            yield code, options[4 : 4 + length]
            options = options[4 + pcapformat.round4(length) :]

    def _clear_interfaces(self) -> None:
        self._interfaces = INTERFACE_ENTRY.array(4)
        self._state["interfaces"], self._state["count"] = address_of(self._interfaces), 0

    def _add_interface(
        self,
        link: int,
        snaplen: int,
        multiplier: int = 1,
        divisor: int = 1,
        bits: int = 0,
        offset: int = 0,
    ) -> None:
        count = int(self._state["count"][0])
        if count == MAX_INTERFACES:
            raise self._malformed(f"more than {MAX_INTERFACES} interfaces")
        if count == len(self._interfaces):
            wider = INTERFACE_ENTRY.array(2 * count)
            wider[:count] = self._interfaces
            self._interfaces = wider
            self._state["interfaces"] = address_of(wider)
        nanoseconds = offset * SECOND % (1 << 64)
        self._interfaces[count] = (link, snaplen, 0, multiplier, divisor, bits, nanoseconds, 0)
        self._state["count"] = count + 1

    def _links_of_section(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for entry in self._interfaces[: int(self._state["count"][0])]:
            if entry["skipped"]:
                found[int(entry["link_type"])] += int(entry["skipped"])
        return found
