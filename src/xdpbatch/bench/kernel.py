"""The running kernel by BPF_PROG_TEST_RUN, and what its loop costs without a program.

Analogous to tools/testing/selftests/bpf/benchs. The kernel runs ONE packet again and again, which
flatters it; a sample of the traffic's packets takes turns. A program that would not do the same
with what it made of its packet is run once per call, from a fresh copy of the packet. Times are the
kernel's own, which are whole nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import cycle
from statistics import mean

from xdpbatch.asm import program as assemble
from xdpbatch.bench.method import Sample
from xdpbatch.maps import Map
from xdpbatch.program import Object
from xdpbatch.runtime import Instance
from xdpbatch.sys import bpf
from xdpbatch.sys.kernel import PER_CPU, KernelMap, KernelObject, possible_cpus
from xdpbatch.uapi import MapNumber

SAMPLE = 32  # packets of the traffic
REPEAT = 50000  # the call itself waits for the BPF dispatcher's text to change
EMPTY = "r0 = 2\nexit"
DEVICES = (MapNumber.DEVMAP, MapNumber.DEVMAP_HASH)
COPIED = frozenset(
    {MapNumber.HASH, MapNumber.ARRAY, MapNumber.PERCPU_HASH, MapNumber.PERCPU_ARRAY}
    | {MapNumber.LRU_HASH, MapNumber.LRU_PERCPU_HASH, MapNumber.LPM_TRIE, *DEVICES}
)
_LOOPBACK = struct.pack("<I", 1)


class InKernel:
    """A loaded program over a sample of packets: one of them per turn, then the next."""

    def __init__(self, fd: bpf.Fd, packets: Sequence[bytes], *, once: bool) -> None:
        """`once`: one run per call."""
        self._fd, self._packets, self._once = fd, cycle(packets), once

    def turn(self) -> Sample:
        """One packet, repeated; or some, each run once."""
        calls, repeat = (SAMPLE, 1) if self._once else (1, REPEAT)
        own = mean(self._run(next(self._packets), repeat) for _ in range(calls))
        return Sample(own, own)

    def _run(self, packet: bytes, repeat: int) -> int:
        """Nanoseconds per run: by the kernel itself, which does not count while others run."""
        return bpf.prog_test_run(self._fd, packet, repeat=repeat, out_size=0).duration


class Loaded:
    """An object in the kernel, with what an Instance's maps hold."""

    def __init__(self, obj: Object, name: str, instance: Instance, packets: list[bytes]) -> None:
        self._object = KernelObject(obj)
        for map_name, one in instance.maps.items():
            if one.spec.type in COPIED and one.spec.contents is None:
                fill(self._object.maps[map_name], one)
        self.program = self._object.program(name)
        self._packets = packets[:SAMPLE]
        self.once = any(map(self._changes, self._packets))

    def case(self) -> InKernel:
        """The program."""
        return InKernel(self.program.fd, self._packets, once=self.once)

    def empty(self) -> InKernel:
        """A program that does nothing, in the same loop."""
        fd = bpf.prog_load(_encoded(EMPTY), "GPL", name="empty", attach_type=37)
        return InKernel(fd, self._packets, once=self.once)

    def _changes(self, packet: bytes) -> bool:
        first = self.program.run(packet)
        if len(first.data) != len(packet):
            return True
        return self.program.run(first.data).verdict != first.verdict


def fill(to: KernelMap, one: Map) -> None:
    """Copy the entries of a map. Devices become the loopback: a test run sends nothing."""
    for key in one:
        value = one.get(key)  # arrays of devices show keys without a device
        if value is None:
            continue
        if one.spec.type in PER_CPU:
            value = value[: -(-one.spec.value_size // 8) * 8] * possible_cpus()
        if one.spec.type in DEVICES:
            value = _LOOPBACK + value[4:]
        if any(value) or one.spec.type not in (MapNumber.ARRAY, MapNumber.PERCPU_ARRAY):
            to[key] = value


def _encoded(text: str) -> bytes:
    from xdpbatch.isa import encode

    return encode(list(assemble(text).insns))
