"""Events: what programs write for user space, in the order in which they wrote it.

Analogous to perf_buffer__poll() and ring_buffer__poll() of libbpf, and to trace_pipe, in one: the
records of all ring buffers and perf event arrays, and the lines of bpf_trace_printk. A ring that
nobody reads fills up; what finds no room in it is lost and counted, as in the kernel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TextIO

from xdpbatch.data.records import LOST, SIZE, begun, read_numbered, used
from xdpbatch.data.trace import TraceRing
from xdpbatch.errors import XdpBatchError
from xdpbatch.isa import CALL, HELPER_CALL
from xdpbatch.maps import Map
from xdpbatch.mem import load64
from xdpbatch.program import Object
from xdpbatch.uapi import MapNumber

TRACE = "trace"
_PRINTING = (6, 177)  # helpers trace_printk and trace_vprintk
_KINDS = {MapNumber.RINGBUF: "ringbuf", MapNumber.PERF_EVENT_ARRAY: "perf"}
_FULL = 4  # a ring is read before it is predicted to be one in so many parts full


@dataclass(frozen=True, slots=True)
class Event:
    """One record: `kind` is ringbuf, perf or trace, `map` where it was written, "" for trace.

    `number` counts all records of this process, 32 bits; what was discarded or not read has one.
    """

    kind: str
    map: str
    data: bytes
    number: int

    @property
    def text(self) -> str:
        """The line that was printed, without its end."""
        return self.data.decode(errors="replace").removesuffix("\n")

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        if self.kind == TRACE:
            return {"type": TRACE, "text": self.text}
        return {"type": self.kind, "map": self.map, "size": len(self.data), "data": self.data.hex()}

    def __str__(self) -> str:
        """For a terminal."""
        if self.kind == TRACE:
            return f"{TRACE}: {self.text}"
        return f"{self.map}: {len(self.data)} bytes {self.data.hex(' ')}"


def prints(obj: Object) -> bool:
    """Whether a program of an object calls bpf_trace_printk or bpf_trace_vprintk."""
    return any(
        insn.op == CALL and insn.src == HELPER_CALL and insn.imm in _PRINTING
        for program in obj.programs.values()
        for insn in program.insns
    )


class Events:
    """The readers of an object's rings. `traces` are rings of printed lines, of each queue one."""

    def __init__(self, maps: Mapping[str, Map], traces: Sequence[TraceRing] = ()) -> None:
        self._rings = [
            (_KINDS[MapNumber(one.spec.type)], name, ring)
            for name, one in maps.items()
            for ring in one.kind.rings(one)
        ]
        self._rings += [(TRACE, "", one.address) for one in traces]
        self._traces = traces
        self._last = begun()

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._rings)

    def take(self) -> list[Event]:
        """The records that are complete, in the order in which they were begun."""
        found = [
            Event(kind, name, data, number)
            for kind, name, ring in self._rings
            for number, data in read_numbered(ring)
        ]
        # Numbers wrap: what lies up to 2 billion behind the last one taken is older than it.
        found.sort(key=lambda event: (event.number - self._last + (1 << 31)) & 0xFFFFFFFF)
        if found:
            self._last = found[-1].number
        return found

    @property
    def lost(self) -> dict[str, int]:
        """Records that found no room, by map, lines as `trace`; only where there were any."""
        counts: dict[str, int] = {}
        for kind, name, ring in self._rings:
            lost = load64(ring + LOST)
            if lost:
                counts[name or kind] = counts.get(name or kind, 0) + lost
        return counts

    def budget(self, packets: int, least: int) -> int:
        """How many packets to run before the next `take`, after `packets` of which nothing was
        taken yet: until the fullest ring would be a quarter full, but at least `least`.
        """
        shares = [used(ring) / load64(ring + SIZE) for _, _, ring in self._rings]
        fullest = max(shares, default=0.0)
        return max(least, int(packets / fullest / _FULL)) if fullest else max(least, 2 * packets)


class Sink:
    """Where a command writes events: "-" or a file as NDJSON, "text" for people on stderr; "trace"
    likewise, but printed lines only; "" nowhere.
    """

    def __init__(self, path: str) -> None:
        self._as_text = path in ("text", "trace")
        self.wants_records, self.wants_lines = path not in ("", "trace"), path != ""
        self.count = 0
        self._opened = ExitStack()
        self._out = sys.stderr if self._as_text else sys.stdout
        if path not in ("", "-", "text", "trace"):
            self._out = self._opened.enter_context(_create(path))

    def write(self, events: Sequence[Event]) -> None:
        """Write them, a line each."""
        self.count += len(events)
        for event in events:
            line = str(event) if self._as_text else json.dumps(event.as_object())
            self._out.write(f"{line}\n")
        self._out.flush()

    def close(self) -> None:
        """Close a file."""
        self._opened.close()


def _create(path: str) -> TextIO:
    try:
        return open(path, "w")
    except OSError as error:
        raise XdpBatchError.of("unwritable", f"{path}: {error.strerror}") from None


class Listener:
    """Hears a run's events while it goes on: `budget` packets may be run before the next `hear`."""

    def __init__(self, obj: Object, maps: Mapping[str, Map], sink: Sink, batch_size: int) -> None:
        self.trace = TraceRing() if prints(obj) else None
        traces = [self.trace] if self.trace else []
        self._all = Events(maps, traces)
        heard = Events(maps if sink.wants_records else {}, traces if sink.wants_lines else [])
        self._heard = heard
        self._sink, self._least = sink, batch_size
        self.budget: int | None = batch_size if heard else None

    def hear(self, packets: int) -> None:
        """Write what `packets` packets have brought about."""
        if self._heard:
            self.budget = self._heard.budget(packets, self._least)
            self._sink.write(self._heard.take())

    def summary(self) -> dict[str, Any]:
        """How many were written, and how many were lost where."""
        return {"written": self._sink.count, "lost": self._all.lost}
