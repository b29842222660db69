"""`bench latency`: what staging hides when tables are larger than the caches.

Analogous to the flow sweeps of Beeswax. 256 packets lie warm in the cache; before each pass over
them every one gets another source address, drawn before from the flows, so the tables are as cold
as the flows are many. What writing the addresses costs is measured in the same turn and taken off.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xdpbatch import elf
from xdpbatch.bench import programs
from xdpbatch.bench.frames import HEAD, Frames, batched, one_by_one
from xdpbatch.bench.method import Grid, Sample, enough, timed
from xdpbatch.bench.subject import EXAMPLES, FIVE, Subject
from xdpbatch.data.buff import SIZEOF_XDP_BUFF, XDP_PACKET_HEADROOM
from xdpbatch.data.code import caller
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.data.umem import STRIDE
from xdpbatch.jit.native import compile_native
from xdpbatch.maps import Map
from xdpbatch.maps.hash import update
from xdpbatch.mem import copy, load32, store32
from xdpbatch.native import native
from xdpbatch.program import Object
from xdpbatch.rewrite.form import Form
from xdpbatch.runtime import SINGLE, Entry, Instance, the_program

DRAWS = 1 << 22  # source addresses drawn before, 4 bytes each, read in order
KERNEL_FLOWS = 1 << 22  # of drawn.c
MOST_FLOWS = 1 << 24
PACKETS = 256
ZIPF = 1.1
REPEAT = 20000  # runs in the kernel for a turn
SIZEOF_FLOW = 16
_SADDR, _PROTOCOL = 26, 23  # of an IPv4 packet behind an Ethernet header
_STRIDE = STRIDE
_LAST = DRAWS - 1


@native
def keyed(
    prog: int, buffs: int, n: int, size: int, frames: int, kept_buffs: int, kept_heads: int,
    draws: int, start: int, times: int,
) -> int:  # fmt: skip
    """All packets `times` times, with the drawn source addresses from `start` on; see `passes`."""
    at = start
    for _ in range(times):
        copy(buffs, kept_buffs, n * SIZEOF_XDP_BUFF)
        for i in range(n):
            data = frames + i * _STRIDE + XDP_PACKET_HEADROOM
            copy(data, kept_heads + i * HEAD, HEAD)
            store32(data + _SADDR, load32(draws + (at & _LAST) * 4))
            at += 1
        if prog != 0 and size != 0:
            batched(prog, buffs, n, size)
        elif prog != 0:
            one_by_one(prog, buffs, n)
    return at


class Keyed:
    """A program over packets whose flows change all the time."""

    def __init__(self, frames: Frames, draws: Draws, entry: Entry, size: int) -> None:
        self._frames, self._draws, self._entry, self._size = frames, draws, entry, size
        self._code = compile_native(keyed)
        self._run = caller(self._code, keyed)
        self._at = 0
        self._times = enough(lambda n: self._pass(entry.address, n))

    def turn(self) -> Sample:
        """Some milliseconds."""
        whole = timed(lambda: self._pass(self._entry.address, self._times))
        return whole - timed(lambda: self._pass(0, self._times))

    def fill(self, count: int) -> None:
        """Run the first `count` draws once."""
        self._pass(self._entry.address, -(-count // self._frames.count))

    def _pass(self, prog: int, times: int) -> int:
        frames = self._frames
        kept = frames.kept
        end = self._run(
            *(prog, address_of(frames.buffs), frames.count, self._size),
            *(address_of(frames.umem.area), *map(address_of, kept)),
            *(address_of(self._draws.values), self._at, times),
        )
        self._at = int(end) & _LAST
        return frames.count * times


@dataclass(frozen=True)
class Draws:
    """DRAWS flow numbers, below `flows`."""

    values: np.ndarray[tuple[int], np.dtype[np.uint32]]

    @classmethod
    def of(cls, flows: int, zipf: float) -> Draws:
        """Uniform, or by Zipf's law with that exponent."""
        random = np.random.default_rng(1)
        if not zipf:
            return cls(random.integers(0, flows, DRAWS, dtype=np.uint32))
        weights = np.cumsum(1.0 / np.arange(1, flows + 1) ** zipf)
        ranks = np.searchsorted(weights, random.random(DRAWS) * weights[-1])
        return cls(random.permutation(flows).astype(np.uint32)[ranks])

    @classmethod
    def each(cls, flows: int) -> Draws:
        """Every flow in turn."""
        return cls((np.arange(DRAWS, dtype=np.uint64) % flows).astype(np.uint32))


def resized(obj: Object, entries: Mapping[str, int]) -> Object:
    """The object with maps of another size, as bpf_map__set_max_entries() makes it."""
    maps = {
        name: replace(spec, max_entries=entries.get(name, spec.max_entries))
        for name, spec in obj.maps.items()
    }
    sized = {name: replace(program, maps=maps) for name, program in obj.programs.items()}
    return replace(obj, maps=maps, programs=sized)


@dataclass(frozen=True)
class Table:
    """A subject whose table has an entry for each flow. `learns`: the program enters flows."""

    subject: Subject
    map: str
    learns: bool

    def instance(self, flows: int) -> Instance:
        obj = resized(elf.load(self.subject.path), {self.map: max(2 * flows, 1024)})
        instance = Instance(obj)
        if self.learns:
            self.subject.fill(lambda m, k, v: instance.maps[m].put(k, v), [], 0)
        else:
            enter(instance.maps[self.map], self.packet(), flows)
        return instance

    def packet(self) -> bytes:
        """What all packets are alike but for the source address."""
        return replace(self.subject, spec=f"{_one_flow(self.subject.spec)},flows=1").packets(1)[0]


def _one_flow(spec: str) -> str:
    kept = ("udp", "dst=", "dport=", "size=")
    return ",".join(part for part in spec.split(",") if part.startswith(kept))


@native
def enter_flows(map: int, key: int, value: int, flows: int) -> int:
    """An entry for each flow in a map of hash.c."""
    for flow in range(flows):
        store32(key, flow)
        update(map, key, value, 0, 16, 8, 0)
    return flows


def enter(table: Map, packet: bytes, flows: int) -> None:
    """An entry for each flow that the packet can be made one of."""
    key = aligned(SIZEOF_FLOW)
    key[:] = np.frombuffer(key_of(packet, 0), np.uint8)
    code = compile_native(enter_flows)
    value = aligned(8)
    caller(code, enter_flows)(table.address, address_of(key), address_of(value), flows)


def key_of(packet: bytes, flow: int) -> bytes:
    """The struct flow of headers.h of a packet with another source address."""
    rest = packet[_SADDR + 4 : _SADDR + 12] + struct.pack("<I", packet[_PROTOCOL])
    return struct.pack("<I", flow) + rest


TABLES = {
    "hash": Table(FIVE["parse and hash map"], "flows", learns=False),
    "lb": Table(EXAMPLES["lb"], "connections", learns=True),
}


def grid(
    name: str,
    flows: Sequence[int],
    widths: Sequence[int],
    zipf: float = 0.0,
    *,
    kernel: bool = False,
) -> Grid:
    """Rows are numbers of flows; columns: one by one, plain batches, staged ones.

    `kernel`: of `hash` with 4 Mi flows also the running kernel.
    """
    table = TABLES[name]
    skew = f"Zipf {zipf}" if zipf else "uniform"
    found = Grid("latency", f"{name}, {skew}: tables larger than caches", "flows")
    staged = [f"staged {width}" for width in widths]
    found.against = dict.fromkeys([*staged, "one by one", "kernel"], "batch 64")
    found.settings = {"program": table.subject.path.name, "skew": skew, "batch": 64}
    found.notes.append(huge_pages())
    for count in flows:
        instance = table.instance(count)
        program = the_program(instance.object)
        draws = Draws.of(count, zipf)
        frames = Frames([table.packet()] * PACKETS, PACKETS)
        forms = {"one by one": SINGLE, "batch 64": Form()}
        forms |= {f"staged {width}": Form(stage=width) for width in widths}
        for column, form in forms.items():
            size = 0 if form is SINGLE else 64
            entry = instance.entry(program, "llvm", form)
            if column == "one by one" and table.learns:
                Keyed(frames, Draws.each(count), entry, size).fill(count)
            found.add(count, column, Keyed(frames, draws, _Held(entry, instance), size))
        if kernel and name == "hash" and count == KERNEL_FLOWS:
            found.add(count, "kernel", DrawnInKernel())
    return found


def huge_pages() -> str:
    """Whether maps of 2 MiB and more are on huge pages, which they ask for (data.layout)."""
    try:
        mode = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        mode = "[never]"
    if "[never]" in mode:
        return "maps are on pages of 4 KiB: this kernel gives no transparent huge pages"
    return "maps of 2 MiB and more ask for huge pages, which this kernel gives"


class _Held:
    """An entry that keeps its maps alive."""

    def __init__(self, entry: Entry, instance: Instance) -> None:
        self._owner = entry, instance
        self.address = entry.address


class DrawnInKernel:
    """drawn.c by BPF_PROG_TEST_RUN: one packet, but a random flow of 4 Mi in each run (root)."""

    def __init__(self) -> None:
        from xdpbatch.sys.kernel import KernelObject

        obj = resized(elf.load(programs.path("drawn")), {"flows": 2 * KERNEL_FLOWS})
        self._object = KernelObject(obj)
        packet = TABLES["hash"].packet()
        table, zero = self._object.maps["flows"], bytes(8)
        for flow in range(KERNEL_FLOWS):
            table[key_of(packet, flow)] = zero
        self._packet, self._program = packet, self._object.program("xdp_drawn")

    def turn(self) -> Sample:
        """The kernel's own time, in whole nanoseconds."""
        from xdpbatch.sys import bpf

        fd = self._program.fd
        found = bpf.prog_test_run(fd, self._packet, repeat=REPEAT, out_size=0).duration
        return Sample(found, found)
