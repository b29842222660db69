"""Damaged captures: never a traceback, a hang or a wrong count, whatever the bytes are."""

from __future__ import annotations

import gzip
import io
import struct
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.data.code import Code
from xdpbatch.errors import CaptureError
from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import Reader
from xdpbatch.pcap.write import block, interface_block, pcap, section_header

PACKETS = [bytes([i]) * (10 + 7 * i) for i in range(12)]


@cache
def code() -> Code:
    return compile_native(index)


def enhanced(data: bytes) -> bytes:
    fixed = struct.pack("<IIIII", 0, 1, 2, len(data), len(data))
    return block(6, fixed + data + bytes(-len(data) % 4))


BLOCKS = [section_header(), interface_block("a"), *map(enhanced, PACKETS), block(7, b"1234")]
CAPTURES = [pcap(PACKETS), b"".join(BLOCKS), b"".join(BLOCKS * 2)]
CAPTURES.append(struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 99, 1) + bytes(200))


def in_house_format(error: CaptureError) -> None:
    assert str(error).startswith("error[capture-")


def read(data: bytes) -> tuple[int, int, bool]:
    """How many packets are delivered and skipped, and whether an error follows."""
    delivered = 0
    try:
        reader = Reader(io.BytesIO(data))
    except CaptureError as error:
        in_house_format(error)
        return 0, 0, True
    try:
        for packet in reader.packets(code()):
            assert 14 <= len(packet.data) <= 3520
            delivered += 1
    except CaptureError as error:
        in_house_format(error)
        return delivered, sum(reader.skipped.values()), True
    return delivered, sum(reader.skipped.values()), False


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A capture with some bytes changed, removed or put in."""
    data = bytearray(draw(st.sampled_from(CAPTURES)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=8))
        data[at : at + draw(st.sampled_from([0, 1, 4, len(new)]))] = new
    return bytes(data)


@given(st.binary(max_size=200) | damaged())
@settings(max_examples=400, deadline=None)
def test_anything_is_read_or_refused(data: bytes) -> None:
    read(data)


@given(damaged())
@settings(max_examples=50, deadline=None)
def test_compression_changes_nothing(data: bytes) -> None:
    if data[:2] != b"\x1f\x8b":
        assert read(gzip.compress(data)) == read(data)


@given(st.binary(min_size=3, max_size=300))
@settings(max_examples=100, deadline=None)
def test_damaged_gzip_streams(data: bytes) -> None:
    read(b"\x1f\x8b\x08" + data)


@given(st.sampled_from(CAPTURES[:2]), st.data())
@settings(max_examples=100, deadline=None)
def test_a_shorter_capture_holds_the_first_packets(data: bytes, draw: st.DataObject) -> None:
    """Cut anywhere, each packet before the cut is there, and one that is cut is counted."""
    cut = draw.draw(st.integers(40, len(data)))
    delivered, skipped, failed = read(data[:cut])
    whole = (
        [len(p) + 16 for p in PACKETS]
        if data == CAPTURES[0]
        else [len(enhanced(p)) for p in PACKETS]
    )
    start = 24 if data == CAPTURES[0] else len(BLOCKS[0]) + len(BLOCKS[1])
    ends = [start + sum(whole[: i + 1]) for i in range(len(whole))]
    complete = sum(end <= cut for end in ends)
    inside = cut not in [start, *ends] and start < cut < ends[-1]
    if not failed:
        assert delivered + skipped == complete + inside
    else:
        assert delivered + skipped == complete
