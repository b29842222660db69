"""Run the same packets through several backends and find the first difference.

Analogous to the differential tests of the kernel's own JITs (lib/test_bpf.c), with this runtime's
rules 1 and 2 as what is tested: the batched native program against the interpreter, against single
native runs, against the other backend and against the running kernel. Every side starts with fresh
maps; after each chunk of packets verdicts, bytes and redirect targets are compared, and map
contents at the end.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest

import numpy as np

from xdpbatch.callback import SIGNATURE
from xdpbatch.data.buff import MAX_LINEAR
from xdpbatch.data.layout import bytes_at
from xdpbatch.errors import UnsupportedError
from xdpbatch.host.choice import host_for
from xdpbatch.host.tables import Tables
from xdpbatch.isa import CALL, HELPER_CALL, MASK32
from xdpbatch.maps import CPUS, SIZEOF_HEADER, Map, address_in, round_up
from xdpbatch.program import MapSpec, Object, Program
from xdpbatch.runtime import BATCH, NATIVE, SINGLE, Instance, Stages
from xdpbatch.test_run import NOT_TOLD, Bench, Outcome
from xdpbatch.uapi import HELPER_NAMES, Action, MapNumber

BATCH_SIZES = (1, 2, 3, 63, 64, 65, 256)
CHUNK = 1024  # packets that are in memory at once
SIDES = ("interp", "single", "x86", "kernel")
CLOCKS = ("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns",
          "jiffies64")  # fmt: skip
NOT_OURS = (*CLOCKS, "get_prandom_u32")  # what the kernel answers cannot be foreseen
ARRAYS = (MapNumber.ARRAY, MapNumber.PERCPU_ARRAY)
PER_CPU = (MapNumber.PERCPU_ARRAY, MapNumber.PERCPU_HASH, MapNumber.LRU_PERCPU_HASH)
COMPARED = frozenset(
    {MapNumber.HASH, MapNumber.ARRAY, MapNumber.PERCPU_HASH, MapNumber.PERCPU_ARRAY}
    | {MapNumber.LRU_HASH, MapNumber.LRU_PERCPU_HASH, MapNumber.LPM_TRIE}
)  # map types whose contents a program can change and user space can read
EVENTS = (MapNumber.RINGBUF, MapNumber.PERF_EVENT_ARRAY)  # what is written there is taken out

Contents = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two sides first differ. `packet` counts from 0; None for maps, after all packets."""

    left: str
    right: str
    packet: int | None
    what: str
    left_value: str
    right_value: str

    def __str__(self) -> str:
        place = "after all packets" if self.packet is None else f"packet {self.packet}"
        width = max(len(self.left), len(self.right))
        return (
            f"{place}: {self.what} differs\n"
            f"  {self.left:<{width}}  {self.left_value}\n"
            f"  {self.right:<{width}}  {self.right_value}"
        )


@dataclass(slots=True)
class Report:
    """What a comparison came to: `difference` is None if there is none."""

    packets: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> packets
    sides: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be compared, and why
    difference: Difference | None = None


class Side(ABC):
    """One way to run the object's program, with maps of its own."""

    name: str
    maps: Mapping[str, MutableMapping[bytes, bytes]]
    cpus: int  # copies of a per-CPU value that user space writes

    def put(self, spec: MapSpec, key: bytes, value: bytes) -> None:
        """Write an element from user space; of a per-CPU map the same value for every CPU."""
        if spec.type in PER_CPU:
            value = value.ljust(round_up(spec.value_size, 8), b"\0") * self.cpus
        self.maps[spec.name][key] = value

    @abstractmethod
    def run(self, packets: Sequence[bytes]) -> list[Outcome]:
        """What each packet comes to, run in order."""

    @abstractmethod
    def contents(self, spec: MapSpec) -> Contents:
        """The map's elements, without the all-zero ones of an array; one CPU's values."""

    @abstractmethod
    def events(self, spec: MapSpec) -> list[bytes]:
        """What was written to a ring buffer or perf array since the last call, in order."""


class _Ours(Side):
    """A side in this process: maps in memory, packets on a Bench."""

    def __init__(self, instance: Instance, capacity: int, clock: int) -> None:
        self.instance = instance
        self.maps, self.cpus = instance.maps, CPUS
        self.bench = Bench(capacity, clock)

    def know(self, host: Tables) -> None:
        """Let programs ask about a host."""
        self.host = host  # keeps its memory
        self.bench.rxq["host"] = host.address

    def run(self, packets: Sequence[bytes]) -> list[Outcome]:
        out: list[Outcome] = []
        rest = iter(packets)
        while part := list(islice(rest, self.bench.capacity)):
            out += self.batch(self.bench.fill(part))
        return out

    @abstractmethod
    def batch(self, count: int) -> Iterable[Outcome]:
        """Run the first `count` packets of the bench."""

    def contents(self, spec: MapSpec) -> Contents:
        return contents_of(self.instance.maps[spec.name])

    def events(self, spec: MapSpec) -> list[bytes]:
        return list(self.instance.maps[spec.name].records())


class Interpreted(_Ours):
    """The interpreter."""

    name = "interp"

    def __init__(self, instance: Instance, program: Program, clock: int = 0) -> None:
        super().__init__(instance, CHUNK, clock)
        self.machine = instance.interpreter(program)

    def batch(self, count: int) -> Iterator[Outcome]:
        for i in range(count):
            yield self.bench.outcome(i, self.machine.run(self.bench.buff(i)))


class Single(_Ours):
    """Native code that is called for one packet at a time."""

    def __init__(self, instance: Instance, program: Program, backend: str, clock: int = 0) -> None:
        super().__init__(instance, CHUNK, clock)
        self.name = f"{backend} single"
        entry = instance.entry(program, backend, SINGLE)
        self.function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(entry.address)

    def batch(self, count: int) -> Iterator[Outcome]:
        for i in range(count):
            self.bench.rxq["tail_calls"] = 0  # in a batch, the trampoline does it
            verdict = int(self.function(self.bench.buff(i))) & MASK32
            yield self.bench.outcome(i, verdict)


class Batched(_Ours):
    """Native code that is called for `size` packets at a time."""

    def __init__(
        self,
        instance: Instance,
        program: Program,
        backend: str,
        size: int,
        clock: int = 0,
        stage: int = 0,
    ) -> None:
        super().__init__(instance, size, clock)
        self.name = f"{backend} batch {size}" + (f" stage {stage}" if stage else "")
        entry = instance.entry(program, backend, replace(BATCH, stage=stage))
        self.function = SIGNATURE(entry.address)

    def batch(self, count: int) -> Iterator[Outcome]:
        self.function(self.bench.address, count)
        for i in range(count):
            yield self.bench.outcome(i)


class InKernel(Side):
    """The running kernel."""

    name = "kernel"

    def __init__(self, obj: Object, program: Program) -> None:
        from xdpbatch.sys.kernel import KernelObject, possible_cpus

        self.kernel = KernelObject(obj)
        self.maps, self.cpus = self.kernel.maps, possible_cpus()
        self.program = self.kernel.program(program.name)

    def run(self, packets: Sequence[bytes]) -> list[Outcome]:
        from xdpbatch.sys.kernel import pinned

        with pinned(self.kernel.cpu):
            return [
                Outcome(r.verdict, r.data, r.meta, NOT_TOLD) for r in map(self.program.run, packets)
            ]

    def contents(self, spec: MapSpec) -> Contents:
        one = self.kernel.maps[spec.name]
        return sparse(spec, one.copies(self.kernel.cpu))

    def events(self, spec: MapSpec) -> list[bytes]:
        return list(self.kernel.maps[spec.name].records())


def array_contents(one: Map) -> Contents:
    """The first CPU's elements that are not all zero, read from memory: arrays may be large."""
    spec, first = one.spec, one.address + SIZEOF_HEADER
    if one.kind.per_cpu:
        zero = bytes(4)  # stays alive while its address is used
        first = one.call(one.kind.lookup_cpu, key=address_in(zero), cpu=0)
    stride = round_up(spec.value_size, 8)
    raw = np.frombuffer(bytes_at(first, stride * spec.max_entries), np.uint8)
    rows = raw.reshape(spec.max_entries, stride)[:, : spec.value_size]
    used = np.flatnonzero(rows.any(axis=1)).tolist()
    return {i.to_bytes(4, "little"): rows[i].tobytes() for i in used}


def contents_of(one: Map) -> Contents:
    """A map's elements, without the all-zero ones of an array; the first CPU's values."""
    if one.spec.type in ARRAYS:
        return array_contents(one)
    found = {key: one.get(key) for key in one}  # an array of devices lists keys without a value
    return {key: value[: one.spec.value_size] for key, value in found.items() if value is not None}


def sparse(spec: MapSpec, pairs: Iterable[tuple[bytes, bytes]]) -> Contents:
    """Elements as a dict; of an array only those that are not all zero, as it is always full."""
    return {key: value for key, value in pairs if spec.type not in ARRAYS or any(value)}


def compare(
    obj: Object,
    packets: Iterable[bytes],
    *,
    name: str = "",
    against: Sequence[str] = ("interp", "single"),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    backend: str = "llvm",
    clock: int = 0,
    entries: Mapping[str, Contents] | None = None,
    stages: dict[str, Stages] | None = None,
    windows: Sequence[int] = (),
    host: str = "",
) -> Report:
    """Run `packets` through `backend` in every batch size and through each side of `against`.

    `name` is the program (default: the object's first). `clock` is a fixed time in nanoseconds
    for every side but the kernel's. `entries` are elements, by map, that each side starts with.
    `stages` keeps the verified program for a next comparison. `windows` are numbers of packets
    to stage at a time, each tried with every batch size. `host` is what programs may ask about:
    see host.choice; the kernel's side has its own. Stops at the first difference.
    """
    program = obj.programs[name] if name else next(iter(obj.programs.values()))
    report = Report()
    kernel = "kernel" in against
    foreign = sorted(helpers_of(program) & set(NOT_OURS))
    if foreign and kernel:
        report.notes.append(f"map contents are not compared with the kernel: the program calls "
                            f"{', '.join(foreign)}")  # fmt: skip
    if set(foreign) & set(CLOCKS) and not clock:
        clock = 1_000_000_000_000
        report.notes.append("the clock stands still on every side but the kernel's")
    report.notes += [
        f"contents of map {spec.name} ({MapNumber(spec.type).name.lower()}) are not compared"
        for spec in obj.maps.values()
        if spec.type not in (*COMPARED, *EVENTS)
    ]
    report.notes += [
        f"what goes to map {spec.name} (perf_event_array) is not compared with the kernel"
        for spec in obj.maps.values()
        if spec.type == MapNumber.PERF_EVENT_ARRAY and kernel
    ]
    stages = {} if stages is None else stages
    sides = [side(one, obj, program, backend, clock, stages) for one in against]
    for size in batch_sizes:
        sides += [
            Batched(Instance(obj, stages), program, backend, size, clock, stage)
            for stage in (0, *windows)
        ]
    known = host_for(obj, host)
    for one in sides:
        if known and isinstance(one, _Ours):
            one.know(known)
    if known:
        report.notes.append(f"host: {known}")
    report.sides = [one.name for one in sides]
    for map_name, elements in (entries or {}).items():
        for one in sides:
            for key, value in elements.items():
                one.put(obj.maps[map_name], key, value)
    rest = _comparable(packets, report, kernel)
    while report.difference is None and (chunk := list(islice(rest, CHUNK))):
        report.difference = first_difference(sides, chunk, report.packets)
        report.difference = report.difference or _event_difference(sides, obj)
        report.packets += len(chunk)
    if report.difference is None:
        trusted = [side for side in sides if not (foreign and side.name == "kernel")]
        report.difference = _map_difference(trusted, obj)
    return report


def helpers_of(program: Program) -> set[str]:
    """Names of the helpers that a program calls."""
    numbers = {i.imm for i in program.insns if i.op == CALL and i.src == HELPER_CALL}
    return {HELPER_NAMES[number] for number in numbers if 0 < number < len(HELPER_NAMES)}


def side(
    name: str,
    obj: Object,
    program: Program,
    backend: str = "llvm",
    clock: int = 0,
    stages: dict[str, Stages] | None = None,
) -> Side:
    """The side called `name`, with fresh maps: one of SIDES, or a native backend run singly."""
    if name == "kernel":
        return InKernel(obj, program)
    if name not in (*SIDES, *NATIVE):
        raise UnsupportedError.of(
            "unknown-side",
            f"cannot compare against {name}",
            suggestion=f"one or more of {', '.join(SIDES)}",
        )
    instance = Instance(obj, stages)
    if name == "interp":
        return Interpreted(instance, program, clock)
    return Single(instance, program, backend if name == "single" else name, clock)


def _comparable(packets: Iterable[bytes], report: Report, kernel: bool) -> Iterator[bytes]:
    """The packets that every side can take; the others are counted by reason."""
    from xdpbatch.sys.kernel import ETH_HLEN

    for packet in packets:
        if len(packet) > MAX_LINEAR:
            reason = f"longer than {MAX_LINEAR} bytes"
        elif kernel and len(packet) < ETH_HLEN:
            reason = f"shorter than {ETH_HLEN} bytes, which the kernel's test run refuses"
        else:
            yield packet
            continue
        report.skipped[reason] = report.skipped.get(reason, 0) + 1


def first_difference(sides: Sequence[Side], chunk: Sequence[bytes], done: int) -> Difference | None:
    """Run the chunk on every side; the first packet where one differs from the first side."""
    columns = [side.run(chunk) for side in sides]
    for i, row in enumerate(zip(*columns, strict=True)):
        for side, outcome in zip(sides, row, strict=True):
            found = _differing(row[0], outcome)
            if found:
                return Difference(sides[0].name, side.name, done + i, *found)
    return None


def _differing(left: Outcome, right: Outcome) -> tuple[str, str, str] | None:
    """What differs between two outcomes: its name and both values."""
    if left.verdict != right.verdict:
        return "the verdict", _verdict(left.verdict), _verdict(right.verdict)
    if (left.data, left.meta) != (right.data, right.meta):
        return "the packet", _bytes(left), _bytes(right)
    targets = (left.redirect, right.redirect)
    if NOT_TOLD not in targets and targets[0] != targets[1]:
        return "the redirect target", str(left.redirect), str(right.redirect)
    return None


def _verdict(value: int) -> str:
    return Action(value).name if value in list(Action) else f"{value:#x}"


def _bytes(outcome: Outcome) -> str:
    return f"{len(outcome.data)} bytes, {outcome.meta} of them metadata: {outcome.data.hex(' ')}"


def _event_difference(sides: Sequence[Side], obj: Object) -> Difference | None:
    """The first record, in order, that differs from the first side's."""
    for spec in obj.maps.values():
        if spec.type not in EVENTS:
            continue
        perf = spec.type == MapNumber.PERF_EVENT_ARRAY  # nobody listens to the kernel's
        able = [side for side in sides if not (perf and side.name == "kernel")]
        left = able[0].events(spec)
        for side in able[1:]:
            for i, pair in enumerate(zip_longest(left, side.events(spec))):
                if pair[0] != pair[1]:
                    what = f"record {i} of map {spec.name}"
                    values = map(_value, pair)
                    return Difference(able[0].name, side.name, None, what, *values)
    return None


def _map_difference(sides: Sequence[Side], obj: Object) -> Difference | None:
    """The first key, in order, whose value differs from the first side's."""
    for spec in obj.maps.values():
        if spec.type not in COMPARED:
            continue
        left = sides[0].contents(spec)
        for side in sides[1:]:
            right = side.contents(spec)
            for key in sorted(left.keys() | right.keys()):
                if left.get(key) != right.get(key):
                    what = f"map {spec.name}, key {key.hex(' ')},"
                    values = (_value(left.get(key)), _value(right.get(key)))
                    return Difference(sides[0].name, side.name, None, what, *values)
    return None


def _value(value: bytes | None) -> str:
    return "nothing" if value is None else value.hex(" ")
