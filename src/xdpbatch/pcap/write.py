"""The writer: what a program did to each packet, as a capture.

Analogous to xdpdump's output file: one section, one interface with nanoseconds, one Enhanced Packet
Block per packet in packet order, all verdicts. Compiled code formats blocks into a buffer
(`pcap.epb`), Python writes the buffer between two slices of the poll loop.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import BinaryIO

from xdpbatch.data.code import Code
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.data.recorder import RECORDER_STATE
from xdpbatch.errors import CaptureError
from xdpbatch.pcap import format as pcapformat
from xdpbatch.pcap.epb import LONGEST, record_blocks
from xdpbatch.pcap.format import round4

BUFFER = 4 << 20  # bytes
SHB_USERAPPL = 4
_NANOSECONDS = b"\x09"  # if_tsresol: 10**-9 s


class CaptureWriter:
    """A pcapng being written. `address` is its RECORDER_STATE."""

    recorder = record_blocks

    def __init__(self, target: str | BinaryIO, batch_size: int, interface: str = "xdp") -> None:
        """`target`: a path, `-` for standard output, or a binary file object, which stays open.

        Raises CaptureError if it cannot be written to.
        """
        self.name = target if isinstance(target, str) else getattr(target, "name", "stream")
        self.name = "standard output" if target == "-" else str(self.name)
        self._owned = isinstance(target, str) and target != "-"
        try:
            self._file = _open(target)
        except OSError as error:
            raise self._unwritable(error) from None
        self._buffer = aligned(max(BUFFER, 2 * batch_size * LONGEST))
        self._state = RECORDER_STATE.array(1)
        self.address = address_of(self._state)
        self._state["buffer"] = address_of(self._buffer)
        self._state["limit"] = len(self._buffer) - batch_size * LONGEST
        self._write(section_header() + interface_block(interface))

    def install(self, code: Code) -> None:
        """Hand in the code of `recorder`; `code` must outlive the writer."""
        self._state["code"] = code.address(self.recorder)

    @property
    def packets(self) -> int:
        """Packets recorded so far."""
        return int(self._state["packets"][0])

    def drain(self) -> None:
        """Write out what was recorded. Raises CaptureError if that fails."""
        used = int(self._state["used"][0])
        self._state["used"] = 0
        if used:
            self._write(self._buffer[:used].data)

    def close(self) -> None:
        """Write out the rest and close what was opened here. Raises CaptureError."""
        self.drain()
        try:
            self._file.flush()
            if self._owned:
                self._file.close()
        except OSError as error:
            raise self._unwritable(error) from None

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> CaptureError:
        return CaptureError.of(
            "capture-unwritable",
            f"the capture cannot be written: {error.strerror or error}",
            where=self.name,
        )


def _open(target: str | BinaryIO) -> BinaryIO:
    if not isinstance(target, str):
        return target
    return sys.stdout.buffer if target == "-" else open(target, "wb")


def option(code: int, value: bytes) -> bytes:
    """A pcapng option, padded."""
    return struct.pack("<HH", code, len(value)) + value.ljust(round4(len(value)), b"\0")


def block(kind: int, body: bytes) -> bytes:
    """A pcapng block around a body whose length is a multiple of four."""
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def section_header() -> bytes:
    """A Section Header Block of unknown length that names us."""
    fixed = struct.pack("<IHHq", pcapformat.BYTE_ORDER_MAGIC, 1, 0, -1)
    return block(pcapformat.SECTION_HEADER, fixed + option(SHB_USERAPPL, b"xdpbatch") + bytes(4))


def interface_block(name: str) -> bytes:
    """An Interface Description Block: Ethernet, no snaplen, nanoseconds."""
    fixed = struct.pack("<HHI", pcapformat.ETHERNET, 0, 0)
    options = option(pcapformat.IF_NAME, name.encode()) + option(
        pcapformat.IF_TSRESOL, _NANOSECONDS
    )
    return block(pcapformat.INTERFACE, fixed + options + bytes(4))


def pcap(packets: Iterable[bytes | tuple[bytes, int]]) -> bytes:
    """A pcap with nanoseconds in memory, from packets or pairs of packet and time (ns)."""
    parts = [
        struct.pack(
            "<IHHiIII",
            pcapformat.PCAP_NANOSECONDS, 2, 4, 0, 0, pcapformat.MAX_PACKET, pcapformat.ETHERNET,
        )
    ]  # fmt: skip
    for packet in packets:
        data, time = packet if isinstance(packet, tuple) else (packet, 0)
        parts.append(struct.pack("<IIII", *divmod(time, 10**9), len(data), len(data)))
        parts.append(bytes(data))
    return b"".join(parts)
