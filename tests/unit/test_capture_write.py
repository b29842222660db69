"""Captures out: what scapy and tshark read back is what the program did, packet by packet."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from xdpbatch.data import poll
from xdpbatch.data.buff import ACT, DATA, DATA_END, SIZEOF_XDP_BUFF
from xdpbatch.data.code import Code, Interpreted
from xdpbatch.data.collect import Collector
from xdpbatch.data.driver import Driver
from xdpbatch.data.umem import Umem
from xdpbatch.errors import CaptureError
from xdpbatch.jit.native import compile_native
from xdpbatch.mem import load8, load64, store8, store32, store64
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import Reader
from xdpbatch.pcap.write import CaptureWriter, pcap
from xdpbatch.ports.capture import CapturePort
from xdpbatch.ports.loop import LoopPort

SENT = [(bytes([i % 5]) + bytes(13 + i % 60), 1_600_000_000_123_456_789 + i) for i in range(700)]


@cache
def native() -> Code:
    return compile_native(
        *poll.NATIVES,
        index,
        CapturePort.wakeup,
        LoopPort.wakeup,
        CaptureWriter.recorder,
        Collector.recorder,
    )


def decide(buff: int) -> int:
    """Verdict from the packet's first byte; it is counted up, and every third packet shrinks."""
    data = load64(buff + DATA)
    verdict = load8(data)
    store8(data, verdict + 1)
    if (load64(buff + DATA_END) - data) % 3 == 0:
        store64(buff + DATA, data + 5)
    return verdict if verdict else 0xFFFFFFFF


def expected() -> list[tuple[int, bytes, int]]:
    """Verdict, bytes and time of every packet after the program."""
    after = []
    for data, time in SENT:
        changed = bytes([data[0] + 1]) + data[1:]
        verdict = data[0] or 0xFFFFFFFF
        after.append((verdict, changed[5:] if len(data) % 3 == 0 else changed, time))
    return after


def run(
    recorder: CaptureWriter | Collector, batch_size: int, single: bool, code: Code | None = None
) -> None:
    umem = Umem(1024)
    ring = max(64, batch_size)
    port = CapturePort(umem, io.BytesIO(pcap(SENT)), 1, ring)
    stack = LoopPort(umem, 0, ring)
    driver = Driver(port, stack, code or native(), {}, batch_size, recorder)

    def batch(buffs: int, n: int) -> int:
        for buff in range(buffs, buffs + n * SIZEOF_XDP_BUFF, SIZEOF_XDP_BUFF):
            store32(buff + ACT, decide(buff))
        return 0

    i64 = ctypes.c_int64
    program = (
        ctypes.CFUNCTYPE(i64, i64)(decide) if single else ctypes.CFUNCTYPE(i64, i64, i64)(batch)
    )
    driver.run(ctypes.cast(program, ctypes.c_void_p).value or 0, single=single)
    assert driver.stats.packets == len(SENT)


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
@pytest.mark.parametrize("batch_size", [1, 3, 64, 256])
def test_scapy_and_our_reader_read_back_every_packet(
    tmp_path: Path, batch_size: int, single: bool
) -> None:
    path = tmp_path / "out.pcapng"
    writer = CaptureWriter(str(path), batch_size)
    run(writer, batch_size, single)
    writer.close()
    assert writer.packets == len(SENT)
    by_scapy = [
        (data, (meta.tshigh << 32 | meta.tslow)) for data, meta in RawPcapNgReader(str(path))
    ]
    assert by_scapy == [(data, time) for _, data, time in expected()]
    longer = [(p.data, p.time) for p in Reader(str(path)).packets(native())]
    assert longer == [(data, time) for _, data, time in expected() if len(data) >= 14]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_shows_every_verdict(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    writer = CaptureWriter(str(path), 64, "eth7")
    run(writer, 64, False)
    writer.close()
    fields = ["frame.packet_id", "frame.interface_queue", "frame.verdict.ebpf_xdp"]
    fields += ["frame.time_epoch", "frame.len", "frame.interface_name"]
    command = ["tshark", "-r", str(path), "-T", "fields", *(f"-e{name}" for name in fields)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for i, (line, (verdict, data, time)) in enumerate(
        zip(shown.splitlines(), expected(), strict=True)
    ):
        number, queue, seen, epoch, length, name = line.split("\t")
        assert (int(number), int(queue), int(seen)) == (i + 1, 0, verdict)
        assert (int(epoch.replace(".", "")), int(length), name) == (time, len(data), "eth7")


def test_snapped_packets_keep_their_original_length() -> None:
    sent = bytearray(pcap(SENT[:1]))
    sent[24 + 12 : 24 + 16] = (1000).to_bytes(4, "little")
    umem, out = Umem(64), io.BytesIO()
    writer = CaptureWriter(out, 64)
    port = CapturePort(umem, io.BytesIO(bytes(sent)), 1)
    driver = Driver(port, LoopPort(umem, 0), native(), {}, 64, writer)
    i64 = ctypes.c_int64
    nothing = ctypes.CFUNCTYPE(i64, i64, i64)(lambda buffs, n: 0)
    driver.run(ctypes.cast(nothing, ctypes.c_void_p).value or 0)
    writer.close()
    (packet,) = Reader(io.BytesIO(out.getvalue())).packets(native())
    assert packet.missing == 1000 - len(SENT[0][0])


@pytest.mark.parametrize("code", [None, Interpreted()], ids=["native", "python"])
def test_the_collector_has_all_results(code: Code | None) -> None:
    collector = Collector(64)
    run(collector, 64, False, code)
    assert collector.actions.tolist() == [verdict for verdict, _, _ in expected()]
    assert [p.tobytes() for p in collector.packets] == [data for _, data, _ in expected()]


def test_a_collector_without_packets() -> None:
    collector = Collector(1)
    assert (collector.actions.tolist(), collector.packets) == ([], [])


def test_unwritable_paths(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "out.pcapng"):
        with pytest.raises(CaptureError, match="cannot be written") as caught:
            CaptureWriter(str(path), 64)
        assert str(path) in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_one_clear_error() -> None:
    writer = CaptureWriter("/dev/full", 64)
    with pytest.raises(CaptureError, match="cannot be written: No space left on device"):
        run(writer, 64, False)
