"""Programs made of helper calls, run by this runtime and by the kernel: what each call returned."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xdpbatch.asm import program
from xdpbatch.compare import Side, side
from xdpbatch.isa import slot_of
from xdpbatch.program import MapSpec, Object, Program
from xdpbatch.test_run import Outcome

OUT = ".map out array 4 2048 1"
Entries = dict[str, dict[bytes, bytes]]
SIDES = ("kernel", "interp", "single")
PACKET = bytes(range(64))


@dataclass(frozen=True)
class Ran:
    """What one side came to: the packet, and the u64 results in the order of the calls."""

    packet: Outcome
    results: tuple[int, ...]
    side: Side
    before: Any = None  # what the caller's `before` returned


def argument(register: int, value: int | str) -> str:
    """Assembly that puts an argument into a register: a number, `r10-64`, `map[x]`, `ctx`."""
    if isinstance(value, int):
        return f"r{register} = {value & (1 << 64) - 1:#x} ll"
    if value == "ctx":
        return f"r{register} = r6"
    if value.startswith("r10"):
        return f"r{register} = r10\nr{register} += {value[3:]}"
    return f"r{register} = {value} ll" if value.startswith("map") else f"r{register} = {value}"


def call(helper: str, *arguments: int | str) -> str:
    """Assembly of one call."""
    lines = [argument(i, value) for i, value in enumerate(arguments, 1)]
    return "\n".join([*lines, f"call bpf_{helper}", ""])


def stack(data: bytes, offset: int) -> str:
    """Assembly that writes bytes, a multiple of 8, to r10 + offset."""
    lines = []
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        lines += [f"r0 = {word:#x} ll", f"*(u64 *)(r10 {offset + at:+d}) = r0"]
    return "\n".join([*lines, ""])


def with_btf(made: Program) -> Program:
    """The program with the BTF that the kernel wants of callbacks: int f(int, ...) everywhere."""
    names = b"\0int\0" + b"".join(one.name.encode() + b"\0" for one in made.subprogs)
    types = struct.pack("<4I", 1, 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("<7I", 0, 13 << 24 | 2, 1, 1, 1, 1, 1)  # FUNC_PROTO of two ints
    for one in made.subprogs:
        types += struct.pack("<3I", names.index(b"\0" + one.name.encode() + b"\0") + 1, 12 << 24, 2)
    sizes = (0, len(types), len(types), len(names))
    slots = slot_of(made.insns)
    infos = [struct.pack("<2I", slots[one.start], 3 + i) for i, one in enumerate(made.subprogs)]
    section = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + types + names
    return replace(made, kernel_btf=section, func_info=b"".join(infos))


class Script:
    """A program that is written call by call; `keep` stores r0 as the next result.

    `entries` are elements to put into maps first; `frozen` is what a read-only map holds.
    """

    def __init__(self, *maps: str, entries: Entries | None = None, **frozen: bytes) -> None:
        self.lines = [*maps, OUT, "r6 = r1", "r9 = map_value[out+0] ll"]
        self.count = 0
        self.entries = entries or {}
        self.frozen = frozen

    def add(self, text: str) -> None:
        self.lines.append(text)

    def keep(self, register: str = "r0") -> None:
        self.lines.append(f"*(u64 *)(r9 + {self.count * 8}) = {register}")
        self.count += 1

    def do(self, helper: str, *arguments: int | str) -> None:
        """Call and keep what it returns."""
        self.add(call(helper, *arguments))
        self.keep()

    def do_without_low_bits(self, helper: str, *arguments: int | str) -> None:
        """Call and keep what it returns without the low 32 bits, unless it is an error."""
        self.add(call(helper, *arguments))
        self.add("if r0 s< 0 goto +2\nr0 >>= 32\nr0 <<= 32")
        self.keep()

    def run(
        self,
        name: str,
        packet: bytes = PACKET,
        verdict: str = "r0 = 2",
        before: Callable[[Any], Any] = lambda one: None,
    ) -> Ran:
        """Run it on one side, after `before(side)`."""
        made = with_btf(program("\n".join([*self.lines, verdict, "exit"])))
        made = replace(made, maps={n: self.spec(one) for n, one in made.maps.items()})
        one = side(name, Object("script", {made.name: made}, made.maps, "GPL"), made)
        for map_name, elements in self.entries.items():
            for key, value in elements.items():
                one.maps[map_name][key] = value
        prepared = before(one)
        (outcome,) = one.run([packet])
        values = one.contents(made.maps["out"]).get(bytes(4), bytes(2048))
        words = [values[i * 8 : i * 8 + 8] for i in range(self.count)]
        results = tuple(int.from_bytes(word, "little", signed=True) for word in words)
        outcome = Outcome(outcome.verdict, outcome.data, outcome.meta)
        return Ran(outcome, results, one, prepared)

    def spec(self, declared: MapSpec) -> MapSpec:
        """What is declared, with its contents if it is read-only."""
        if declared.name not in self.frozen:
            return declared
        return replace(declared, contents=self.frozen[declared.name], frozen=True)

    def same(
        self, packet: bytes = PACKET, verdict: str = "r0 = 2", sides: Sequence[str] = SIDES
    ) -> Ran:
        """Run it on every side and compare; what the kernel came to."""
        judge, *others = (self.run(name, packet, verdict) for name in sides)
        for one in others:
            assert one.results == judge.results, one.side.name
            assert one.packet == judge.packet, one.side.name
        return judge
