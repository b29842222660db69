"""Captures in: every format, endianness and resolution; damage is named, and counts add up."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from xdpbatch.data import poll
from xdpbatch.data.code import Code
from xdpbatch.errors import CaptureError
from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import CUT_OFF, Packet, Reader
from xdpbatch.ports.capture import CapturePort

PACKETS = [bytes([i % 256]) * (14 + i % 70) for i in range(1000)]
SHARED = Path(__file__).parents[3] / "shared" / "pcaps"


@cache
def code() -> Code:
    return compile_native(*poll.NATIVES, index, CapturePort.wakeup)


def read(data: bytes | str, chunk: int = 0) -> tuple[list[Packet], dict[str, int], str]:
    """Packets, skips and the error's text of a capture."""
    found: list[Packet] = []
    reader = None
    try:
        reader = Reader(data if isinstance(data, str) else io.BytesIO(data), chunk)
        for packet in reader.packets(code()):
            found.append(packet)
    except CaptureError as error:
        return found, dict(reader.skipped) if reader else {}, str(error)
    return found, dict(reader.skipped), ""


def pcap(
    packets: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1, wire: int = 0
) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    records = (
        struct.pack(f"{order}IIII", 100 + i, 7, len(p), len(p) + wire) + p
        for i, p in enumerate(packets)
    )
    return head + b"".join(records)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    total = len(body) + 12
    return struct.pack(f"{order}II", kind, total) + body + struct.pack(f"{order}I", total)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link: int = 1, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link, 0, snaplen) + options)


def option(order: str, number: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", number, len(value)) + value + bytes(-len(value) % 4)


def enhanced(
    order: str, data: bytes, time: int = 0, number: int = 0, options: bytes = b""
) -> bytes:
    fixed = struct.pack(
        f"{order}IIIII", number, time >> 32, time & 0xFFFFFFFF, len(data), len(data)
    )
    return block(order, 6, fixed + data + bytes(-len(data) % 4) + options)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap(order: str, magic: int, unit: int) -> None:
    found, skipped, error = read(pcap(PACKETS, order, magic, wire=5))
    assert [p.data for p in found] == PACKETS
    assert [p.time for p in found] == [(100 + i) * 10**9 + 7 * unit for i in range(1000)]
    assert {p.missing for p in found} == {5}
    assert (skipped, error) == ({}, "")


@pytest.mark.parametrize("order", "<>")
def test_pcapng_with_all_its_packet_blocks(order: str) -> None:
    obsolete = struct.pack(f"{order}HHIIII", 0, 9, 0, 77, 20, 25) + bytes(20)
    simple = struct.pack(f"{order}I", 100) + bytes(range(64))
    data = (
        section(order)
        + interface(order, snaplen=64)
        + block(order, 0x0BAD, b"custom")
        + enhanced(order, PACKETS[3], 5, options=option(order, 1, b"hello") + bytes(4))
        + block(order, 2, obsolete)
        + block(order, 3, simple)
        + block(order, 4, bytes(600_000))  # larger than a packet block may be: passed over
        + enhanced(order, PACKETS[4], 6)
    )
    found, skipped, error = read(data)
    assert (skipped, error) == ({}, "")
    assert found == [
        Packet(PACKETS[3], 5000, 0),
        Packet(bytes(20), 77000, 5),
        Packet(bytes(range(64)), 0, 36),
        Packet(PACKETS[4], 6000, 0),
    ]


def test_sections_of_both_endiannesses_and_mixed_link_types() -> None:
    data = b""
    for order in "<>":
        data += section(order) + interface(order) + interface(order, 113) + interface(order, 101)
        data += b"".join(enhanced(order, p, number=i % 3) for i, p in enumerate(PACKETS))
    found, skipped, error = read(data)
    assert [p.data for p in found] == PACKETS[::3] * 2
    assert skipped == {"link type 113 (LINUX_SLL)": 666, "link type 101 (RAW)": 666}
    assert error == ""


@pytest.mark.parametrize(
    ("resolution", "offset", "units", "nanoseconds"),
    [
        (6, 0, 1_500_000, 1_500_000_000),
        (9, 0, 1_500_000_000, 1_500_000_000),
        (3, 0, 1500, 1_500_000_000),
        (0, 0, 2, 2_000_000_000),
        (12, 0, 1_500_000_000_000, 1_500_000_000),
        (0x80 | 10, 0, 1536, 1_500_000_000),
        (0x80 | 32, 0, 3 << 31, 1_500_000_000),
        (0x80 | 40, 0, 3 << 39, 1_500_000_000),
        (9, 1000, 5, 1_000_000_000_005),
        (9, -1, 1_500_000_000, 500_000_000),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_time_resolution(
    order: str, resolution: int, offset: int, units: int, nanoseconds: int
) -> None:
    options = option(order, 9, bytes([resolution]))
    options += option(order, 14, struct.pack(f"{order}q", offset)) + bytes(4)
    data = section(order) + interface(order, options=options) + enhanced(order, PACKETS[0], units)
    assert read(data)[0] == [Packet(PACKETS[0], nanoseconds, 0)]


def test_many_interfaces() -> None:
    data = section("<") + interface("<") * 300 + enhanced("<", PACKETS[1], number=299)
    assert [p.data for p in read(data)[0]] == [PACKETS[1]]


def test_lengths_that_no_frame_takes() -> None:
    sizes = [0, 13, 14, 60, 3520, 3521, 65535, 262144]
    found, skipped, error = read(pcap([bytes(n) for n in sizes]))
    assert [len(p.data) for p in found] == [14, 60, 3520]
    assert skipped == {"longer than 3520 bytes": 3, "shorter than 14 bytes": 2}
    assert error == ""


def test_chunks_end_anywhere() -> None:
    packets = [bytes([i % 256]) * (14 + 37 * i % 3400) for i in range(3000)]
    for data in (pcap(packets), section("<") + interface("<") + _blocks(packets)):
        assert len(data) > 4 << 20
        assert [p.data for p in read(data)[0]] == packets


def _blocks(packets: list[bytes]) -> bytes:
    return b"".join(enhanced("<", p) for p in packets)


def test_gzip_also_of_several_members() -> None:
    data = pcap(PACKETS)
    zipped = gzip.compress(data[:5000]) + gzip.compress(data[5000:])
    assert [p.data for p in read(zipped)[0]] == PACKETS


def test_a_stream_is_handed_on_as_it_comes() -> None:
    """Packets written to a pipe are read before the pipe is closed."""
    data = pcap(PACKETS)
    out, into = os.pipe()
    with os.fdopen(out, "rb", buffering=0) as stream, os.fdopen(into, "wb", buffering=0) as sender:
        sender.write(data[:2000])
        packets = Reader(stream).packets(code())
        first = [next(packets).data for _ in range(20)]
        rest = threading.Thread(target=lambda: (sender.write(data[2000:]), sender.close()))
        rest.start()
        assert first + [p.data for p in packets] == PACKETS
        rest.join()


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 60])
@pytest.mark.parametrize("order", "<>")
def test_a_capture_cut_off_mid_packet(order: str, cut: int) -> None:
    last = bytes(range(100))
    found, skipped, error = read(pcap([*PACKETS, last], order)[: cut - 116])
    assert [p.data for p in found] == PACKETS
    assert (skipped, error) == ({CUT_OFF: 1}, "")
    if cut >= 15:  # shorter ones do not tell what kind of block was cut
        data = section(order) + interface(order) + enhanced(order, PACKETS[0])
        found, skipped, error = read(data + enhanced(order, last)[:cut])
        assert (len(found), skipped, error) == (1, {CUT_OFF: 1}, "")


def test_a_damaged_gzip_stream_delivers_what_it_had() -> None:
    incompressible = [os.urandom(1000) for _ in range(100)]
    zipped = gzip.compress(pcap(incompressible))
    found, skipped, error = read(zipped[: len(zipped) // 2])
    assert [p.data for p in found] == incompressible[: len(found)]
    assert 45 <= len(found) <= 50
    assert skipped == {CUT_OFF: 1}
    assert "error[capture-damaged]: the gzip stream is damaged" in error


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "error[capture-empty]: the capture is empty (0 bytes)"),
        (b"\xd4", "is neither pcap nor pcapng: it starts with d4, at byte 0"),
        (b"GIF89a" + bytes(40), "is neither pcap nor pcapng: it starts with 47 49 46 38"),
        (struct.pack("<I", 0xA1B2CD34) + bytes(40), "is a modified pcap (Kuznetzov's)"),
        (pcap([])[:20], "cut off inside its header, at byte 0"),
        (section("<")[:20], "cut off inside a section header, at byte 0"),
        (section("<")[:8] + bytes(20), "a section header without byte order, at byte 0"),
        (section("<") + interface("<")[:10], "inside a block that is no packet, at byte 28"),
        (section("<") + block("<", 99, b"1234")[:11], "inside a block that is no packet"),
    ],
)
def test_no_capture(data: bytes, message: str) -> None:
    found, skipped, error = read(data)
    assert (found, skipped) == ([], {})
    assert message in error
    assert error.startswith("error[capture-")


@pytest.mark.parametrize("order", "<>")
def test_no_packets_is_no_error(order: str) -> None:
    for data in (pcap([], order), section(order), section(order) + interface(order)):
        assert read(data) == ([], {}, "")


def lies() -> Iterator[tuple[bytes, bytes]]:
    """Headers, and a record or block that lies about its length."""
    yield pcap([]), struct.pack("<IIII", 0, 0, 262145, 262145)
    yield pcap([]), struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60)
    for order in "<>":
        head = section(order) + interface(order)
        good = enhanced(order, bytes(20))
        yield head, good[:-4] + bytes(4)  # two lengths differ
        yield head, struct.pack(f"{order}II", 6, 0xFFFFFFFC)
        yield head, struct.pack(f"{order}II", 6, 31) + bytes(30)
        yield head, struct.pack(f"{order}II", 6, 0)
        yield head, struct.pack(f"{order}II", 99, 8)
        yield head, good[:20] + struct.pack(f"{order}I", 21) + good[24:]  # packet beyond block
        yield head, enhanced(order, bytes(20), number=1)  # no such interface
        yield head, block(order, 3, struct.pack(f"{order}I", 30) + bytes(20))
        yield head, block(order, 1, bytes(4))
        yield section(order), block(order, 3, struct.pack(f"{order}I", 20) + bytes(20))


@pytest.mark.parametrize(("head", "lie"), list(lies()))
def test_lying_lengths_are_contained(head: bytes, lie: bytes) -> None:
    order = "<" if head[:2] in (b"\xd4\xc3", b"\n\r") and head[8:9] in (b"\x4d", b"\0") else ">"
    is_pcap = head[:4] == b"\xd4\xc3\xb2\xa1"
    some = pcap(PACKETS[:9])[24:] if is_pcap else b""
    if not is_pcap and len(head) > 28:
        some = b"".join(enhanced(order, p) for p in PACKETS[:9])
    found, skipped, error = read(head + some + lie + bytes(100))
    assert len(found) == (9 if some else 0)
    assert skipped == {}
    assert f"at byte {len(head) + len(some)}" in error


def test_unreadable_files(tmp_path: Path) -> None:
    assert "No such file" in read(str(tmp_path / "none.pcap"))[2]
    assert "directory" in read(str(tmp_path))[2]


def _captures() -> list[Path]:
    return sorted(SHARED.glob("*.pcap*")) if SHARED.is_dir() else []


@pytest.mark.parametrize("path", _captures(), ids=lambda path: path.name)
def test_real_captures_as_scapy_reads_them(path: Path) -> None:
    reader = RawPcapNgReader if path.suffix == ".pcapng" else RawPcapReader
    expected = [data for data, *_ in reader(str(path))]
    found, skipped, error = read(str(path))
    assert error == ""
    assert len(found) + sum(skipped.values()) == len(expected)
    if not any("link type" in reason for reason in skipped):
        usable = [data for data in expected if 14 <= len(data) <= 3520]
        assert [p.data for p in found] == usable


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
@pytest.mark.parametrize("path", _captures(), ids=lambda path: path.name)
def test_real_captures_have_the_times_that_tshark_shows(path: Path) -> None:
    shown = subprocess.run(
        ["tshark", "-r", path, "-T", "fields", "-e", "frame.time_epoch"],
        capture_output=True,
        text=True,
        check=False,
    )
    found, skipped, _ = read(str(path))
    if shown.returncode == 0 and not skipped:
        times = [int(line.replace(".", "")) for line in shown.stdout.split()]
        assert [p.time for p in found] == times
