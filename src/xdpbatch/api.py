"""The Python API: load an object, compile a program, run packets through it.

    import xdpbatch as xb
    fw = xb.load("fw.o")["xdp_fw"].compile(batch_size=64)   # raises VerifierError
    res = fw.run(packets)            # bytes, numpy arrays, scapy packets, or a capture's path
    res.actions, res.packets         # numpy array of verdicts, list of packets after the program
    fw.maps["blocklist"]["10.0.0.1"] = 1    # through BTF: ints, structs as dicts; or bytes

Analogous to libbpf's skeletons: one Collection for an object, whose programs share its maps.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xdpbatch import elf
from xdpbatch.context import Context, Source
from xdpbatch.data.trace import TraceRing
from xdpbatch.errors import XdpBatchError
from xdpbatch.events import Event, Events, prints
from xdpbatch.host.choice import host_for
from xdpbatch.map_view import MapView
from xdpbatch.program import Program
from xdpbatch.rewrite import Layout
from xdpbatch.rewrite.form import Form
from xdpbatch.rewrite.poc import COUNT, require_count
from xdpbatch.runtime import BATCH, Instance, the_program
from xdpbatch.target import Target
from xdpbatch.test_run import Bench
from xdpbatch.verify import Verified
from xdpbatch.verify.verdict import verdict

DEFAULT = Context()


@dataclass(frozen=True, slots=True)
class Results:
    """What packets came to, in their order.

    `actions` has one u32 verdict per packet (the program's r0, unchecked); `packets` the bytes of
    each packet afterwards, `metadata` what is in front of it; `targets` where a redirect helper
    pointed, by packet index.
    """

    actions: npt.NDArray[np.uint32]
    packets: list[bytes]
    targets: Mapping[int, Any]
    metadata: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN says of one packet; `duration_ns` is the mean of all repetitions."""

    verdict: int
    data: bytes
    duration_ns: float


class Runnable:
    """A compiled program. `run` may be called again and again: maps keep their contents."""

    def __init__(
        self,
        instance: Instance,
        program: Program,
        backend: str,
        batch_size: int,
        form: Form = BATCH,
        context: Context = DEFAULT,
    ) -> None:
        self.program = program
        if context.host is None and backend != "kernel":
            context = replace(context, host=host_for(instance.object))
        self.context = context
        self.form = form
        self.backend = backend
        self.batch_size = COUNT if form.layout is Layout.POC else batch_size
        self.maps: Mapping[str, MapView] = instance.views(backend)
        self.entry = instance.entry(program, backend, form)
        self._bench = Bench(self.batch_size, context=context)
        trace = TraceRing() if prints(instance.object) else None
        if trace:
            self._bench.rxq["trace"] = trace.address
        self._rings = Events(instance.maps, [trace] if trace else [])
        self._heard: deque[Event] = deque()
        signature = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
        self._call = signature(self.entry.address)

    def run(self, packets: Any) -> Results:
        """Run packets in order, `batch_size` at a time.

        `packets` is an iterable of what bytes() takes (bytes, numpy arrays, scapy packets), or the
        path of a capture.

        Raises XdpBatchError for a packet that is not 14 to 3520 bytes long (what
        BPF_PROG_TEST_RUN takes in one buffer); packets of a capture that cannot be run are left
        out, as `xdpbatch run` does.
        """
        actions: list[int] = []
        after: list[bytes] = []
        targets: dict[int, Any] = {}
        metadata: list[bytes] = []
        for stamped in _chunks(self._stamped(packets), self.batch_size):
            first, chunk = len(after), [packet for packet, _ in stamped]
            if self.form.layout is Layout.POC:
                require_count(len(chunk), fixed=self.form.fixed)
            self._bench.fill(chunk)
            if self._by_capture:
                self._bench.stamps["time"][: len(chunk)] = [time for _, time in stamped]
            self._call(self._bench.address, len(chunk))
            self._check()
            self._heard.extend(self._rings.take())
            for i in range(len(chunk)):
                outcome = self._bench.outcome(i)
                actions.append(outcome.verdict)
                after.append(outcome.data[outcome.meta :])
                metadata.append(outcome.data[: outcome.meta])
                if outcome.redirect is not None:
                    targets[first + i] = outcome.redirect
        return Results(np.array(actions, dtype=np.uint32), after, targets, metadata)

    def test_run(self, data: bytes, repeat: int = 1) -> TestRun:
        """Run one packet `repeat` times, as BPF_PROG_TEST_RUN: the packet is not reset between."""
        _require_runnable(data)
        self._bench.fill([data])
        start = time.perf_counter_ns()
        for _ in range(repeat):
            self._call(self._bench.address, 1)
        took = time.perf_counter_ns() - start
        self._check()
        outcome = self._bench.outcome(0)
        return TestRun(outcome.verdict, outcome.data[outcome.meta :], took / repeat)

    def events(self) -> Iterator[Event]:
        """What programs have written to ring buffers and perf event arrays and printed, since the
        last call, in their order. `lost` counts what found no room.
        """
        self._heard.extend(self._rings.take())
        while self._heard:
            yield self._heard.popleft()

    @property
    def lost(self) -> Mapping[str, int]:
        """Events that found no room, by map; printed lines as `trace`."""
        return self._rings.lost

    @property
    def _by_capture(self) -> bool:
        return self.context.clock.source is Source.CAPTURE

    def _stamped(self, packets: Any) -> Iterator[tuple[bytes, int]]:
        """Packets with the nanoseconds at which they were captured, 0 if nobody asks."""
        if isinstance(packets, str | os.PathLike):
            from xdpbatch.packets import Capture

            yield from ((p.data, p.time) for p in Capture(os.fspath(packets)).stamped())
            return
        for packet in packets:
            data = bytes(packet)
            _require_runnable(data)
            yield data, _time_of(packet) if self._by_capture else 0

    def _check(self) -> None:
        check = getattr(self.entry, "check", None)
        if check is not None:
            check()


class Loaded:
    """One program of a Collection."""

    def __init__(self, collection: Collection, program: Program) -> None:
        self._collection = collection
        self.program = program

    def verify(self) -> Verified:
        """Prove it safe. Raises VerifierError."""
        return verdict(self.program)

    def compile(
        self,
        batch_size: int = 64,
        backend: str = "llvm",
        form: Form = BATCH,
        context: Context = DEFAULT,
    ) -> Runnable:
        """Verify, rewrite, compile by a `backend` (llvm, x86, interp, kernel), in a `form`.

        `context` is what the program finds: ctx fields, metadata, clock, seed, and the host, of
        which a snapshot is taken if there is none and the program asks.
        Raises VerifierError if the program is not safe, UnsupportedError for what this runtime or
        machine lacks.
        """
        instance = self._collection.instance
        return Runnable(instance, self.program, backend, batch_size, form, context)


class Collection(Mapping[str, Loaded]):
    """An object's programs by name. They share `maps`."""

    def __init__(self, path: str | os.PathLike[str], target: Target | None = None) -> None:
        self.object = elf.load(path, target=target)
        self.instance = Instance(self.object)

    @property
    def maps(self) -> Mapping[str, MapView]:
        """Every map of the object, by name."""
        return self.instance.views()

    def program(self, name: str | None = None, section: str | None = None) -> Loaded:
        """The one program with that name and section. Raises ObjectError if that is not one."""
        return Loaded(self, the_program(self.object, name, section))

    def __getitem__(self, name: str) -> Loaded:
        return Loaded(self, self.object.programs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.object.programs)

    def __len__(self) -> int:
        return len(self.object.programs)


def load(path: str | os.PathLike[str], *, btf: str = "", kconfig: str = "") -> Collection:
    """Load an ELF object and create its maps. Raises ObjectError, MapError.

    `btf` is a file with the types that CO-RE relocations are resolved against, or "own" (default:
    the running kernel's); `kconfig` one with a kernel's configuration (default: this one's).
    """
    return Collection(path, Target(btf, kconfig))


def _time_of(packet: Any) -> int:
    """Of a scapy packet."""
    if not hasattr(packet, "time"):
        raise XdpBatchError.of(
            "no-time",
            "a packet has no time for the clock to show",
            suggestion="give a capture or scapy packets, or another clock than capture",
        )
    return int(packet.time * 1_000_000_000)


def _require_runnable(data: bytes) -> None:
    from xdpbatch.data.buff import MAX_LINEAR
    from xdpbatch.pcap.index import MIN_LINEAR

    if not MIN_LINEAR <= len(data) <= MAX_LINEAR:
        raise XdpBatchError.of(
            "packet-length",
            f"a packet of {len(data)} bytes cannot be run",
            reason=f"{MIN_LINEAR} to {MAX_LINEAR} bytes, as BPF_PROG_TEST_RUN takes in one buffer",
        )


def _chunks(packets: Iterator[tuple[bytes, int]], size: int) -> Iterator[list[tuple[bytes, int]]]:
    chunk: list[tuple[bytes, int]] = []
    for packet in packets:
        chunk.append(packet)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


__all__ = ["Collection", "Loaded", "Results", "Runnable", "TestRun", "load"]
