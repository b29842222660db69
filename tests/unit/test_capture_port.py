"""The capture port under a driver: packets and skips add up to what the capture holds."""

from __future__ import annotations

import ctypes
import gzip
import io
import resource
from functools import cache
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from xdpbatch.data import poll
from xdpbatch.data.code import Code
from xdpbatch.data.collect import Collector
from xdpbatch.data.driver import Driver
from xdpbatch.data.umem import Umem
from xdpbatch.errors import CaptureError
from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.write import pcap
from xdpbatch.ports.capture import CapturePort
from xdpbatch.ports.loop import LoopPort

SHARED = Path(__file__).parents[3] / "shared" / "pcaps"
I64 = ctypes.c_int64
PASS_NOTHING = ctypes.CFUNCTYPE(I64, I64, I64)(lambda buffs, n: 0)  # act stays XDP_ABORTED
PROGRAM = ctypes.cast(PASS_NOTHING, ctypes.c_void_p).value or 0


@cache
def code() -> Code:
    return compile_native(*poll.NATIVES, CapturePort.wakeup, LoopPort.wakeup, Collector.recorder)


class Run:
    """A capture, run to its end or error."""

    def __init__(self, origin: str | io.BytesIO | io.RawIOBase) -> None:
        umem = Umem(256)
        self.collector = Collector(64)
        self.port = CapturePort(umem, origin, 1)  # type: ignore[arg-type]
        self.driver = Driver(self.port, LoopPort(umem, 0), code(), {}, 64, self.collector)
        self.error = ""
        try:
            self.driver.run(PROGRAM)
        except CaptureError as error:
            self.error = str(error)
        self.port.close()

    @property
    def packets(self) -> list[bytes]:
        assert self.driver.stats.packets == len(self.collector.packets)
        return [packet.tobytes() for packet in self.collector.packets]


@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("*.pcap*")) if SHARED.is_dir() else [], ids=lambda path: path.name
)
def test_real_captures(path: Path) -> None:
    reader = RawPcapNgReader if path.suffix == ".pcapng" else RawPcapReader
    expected = [data for data, *_ in reader(str(path))]
    run = Run(str(path))
    assert len(run.packets) + sum(run.port.skipped.values()) == len(expected)
    if not any("link type" in reason for reason in run.port.skipped):
        assert run.packets == [data for data in expected if 14 <= len(data) <= 3520]


def test_gzip_and_odd_lengths() -> None:
    sent = [bytes([i % 256]) * (14 + i * 7 % 3507) for i in range(2000)]
    run = Run(io.BytesIO(gzip.compress(pcap(sent))))
    assert run.packets == sent
    assert run.port.umem.intact()


def test_an_error_comes_after_the_packets_before_it() -> None:
    sent = [bytes([i]) * 60 for i in range(100)]
    data = pcap(sent)
    run = Run(io.BytesIO(data + b"\xff" * 100))
    assert run.packets == sent
    assert f"a length that cannot be true, at byte {len(data)}" in run.error
    assert run.driver.run(PROGRAM) == 0
    assert run.driver.stats.packets == 100


class Endless(io.RawIOBase):
    """A pcap of `size` bytes that exists nowhere."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._record = pcap([bytes(64)])[24:] * 1000
        self._rest = pcap([])

    def readable(self) -> bool:
        return True

    def readinto(self, memory: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = self._record[: self._left]
            self._left -= len(self._rest)
        n = min(len(self._rest), len(memory))
        memory[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


def test_memory_does_not_depend_on_the_size_of_the_capture() -> None:
    def run(packets: int) -> int:
        umem = Umem(256)
        port = CapturePort(umem, Endless(packets * 80), 1)  # type: ignore[arg-type]
        driver = Driver(port, LoopPort(umem, 0), code())
        assert driver.run(PROGRAM) == packets
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(10_000)
    assert run(1_000_000) - before < 8 << 10  # KiB, for 80 MB
