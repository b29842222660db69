"""Guards: what cannot be proved is checked at run time, so that it then can be proved.

Linux has nothing like it: it refuses. A guard is ordinary BPF in front of the access, and the
program with its guards goes through the verifier like any other. So a guard cannot make a program
unsafe; at worst it does not help, and the program is refused as before. A program that is accepted
as it stands is not changed.

Before                            After (r3 is not in use; ctx was saved at the start)
  r0 = *(u8 *)(r1 + 3)              r3 = *(u64 *)(r10 - 8)
                                    r3 = *(u32 *)(r3 + 4)         ; data_end
                                    r0 = r1
                                    r0 += 4
                                    if r0 > r3 goto fires
                                    r0 = *(u8 *)(r1 + 3)
  exit                              exit
                                  fires: count in the map `.guards`, r0 = XDP_ABORTED, exit

Guarded are loads and stores of the main function: behind the end of the packet, if the offset is
bounded, and through pointers that may be null. A guard that fires ends the packet before the
access.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xdpbatch.errors import Diagnostic, Source, VerifierError
from xdpbatch.isa import (
    EXIT,
    FP,
    LD_IMM64,
    MOV64_IMM,
    PSEUDO_MAP_VALUE,
    Class,
    Insn,
    Jmp,
    Mode,
    X,
)
from xdpbatch.maps import Map
from xdpbatch.program import MapSpec, Object, Program
from xdpbatch.rewrite.patch import Code, Patch, expand, written
from xdpbatch.uapi import MAX_BPF_STACK, Action, MapNumber
from xdpbatch.verify.cfg import live_before
from xdpbatch.verify.explain import place
from xdpbatch.verify.verdict import verdict

COUNTS = ".guards"  # the map that counts: one value with a u64 per guard
MOST = 64  # guards in a program
GUARDABLE = ("packet-bounds", "null-deref")
DATA_END = 4  # of struct xdp_md


@dataclass(frozen=True, slots=True)
class Guard:
    """One guarded access: why it was refused, and where it is in the program as it was."""

    code: str
    where: str
    source: Source | None

    def __str__(self) -> str:
        line = f"{self.source.file}:{self.source.line}: " if self.source else ""
        return f"{line}{self.code} at {self.where}"


def guarded(obj: Object, name: str) -> tuple[Object, tuple[Guard, ...]]:
    """The object with what program `name` needs; guard k counts in the k-th u64 of COUNTS.

    Raises VerifierError for what guards do not make safe.
    """
    growing = _Growing(obj.programs[name])
    guards = growing.run()
    if not guards:
        return obj, ()
    maps = {**obj.maps, COUNTS: growing.program.maps[COUNTS]}
    programs = {n: replace(p, maps=maps) for n, p in obj.programs.items()}
    programs[name] = growing.program
    return replace(obj, programs=programs, maps=maps), guards


def fired(maps: Mapping[str, Map], guards: Sequence[Guard]) -> dict[Guard, int]:
    """How often each guard fired, in an object's maps."""
    if not guards:
        return {}
    counts = struct.unpack(f"<{len(guards)}Q", maps[COUNTS][bytes(4)])
    return dict(zip(guards, counts, strict=True))


class _Growing:
    """A program while guards are put into it."""

    def __init__(self, program: Program) -> None:
        self.original = program
        self.program = program
        self.origin = list(range(len(program.insns)))  # of each instruction, in the original
        self.guards: list[Guard] = []
        self.saved = 0  # offset of the saved ctx from r10, 0 if it is not saved

    def run(self) -> tuple[Guard, ...]:
        """Put in guards until the program is accepted."""
        done: set[int] = set()  # accesses that have a guard, in the original
        while True:
            try:
                verdict(self.program)
            except VerifierError as error:
                why, origin = error.diagnostics[0], self._origin_of(error.index)
                if origin in done or not self._guardable(error.index, why.code):
                    raise self._refused(why, origin) from None
                done.add(origin)
                where, source = place(self.original, origin), self.original.source_at(origin)
                self.guards.append(Guard(why.code, where, source))
                self._guard(error.index, why.code)
            else:
                return tuple(self.guards)

    def _origin_of(self, index: int) -> int:
        return self.origin[index] if 0 <= index < len(self.origin) else -1

    def _refused(self, why: Diagnostic, origin: int) -> VerifierError:
        """The error in terms of the program as it was; its path is that of the guarded one."""
        if not self.guards or origin < 0:
            return VerifierError(why)
        where, source = place(self.original, origin), self.original.source_at(origin)
        note = f"{len(self.guards)} accesses before it have a guard"
        return VerifierError(replace(why, where=where, source=source, notes=(note,)))

    def _guardable(self, at: int, code: str) -> bool:
        main = self.program.subprogs[0]
        if code not in GUARDABLE or not main.start <= at < main.end or len(self.guards) == MOST:
            return False
        insn = self.program.insns[at]
        return (insn.is_load or insn.is_store) and insn.op & 0xE0 in (Mode.MEM, Mode.MEMSX)

    def _guard(self, at: int, code: str) -> None:
        """Put the guard that was added last in front of instruction `at`."""
        if code == "packet-bounds" and not self.saved:
            self._save_ctx()
            at += 1
        last = self.program.subprogs[0].end - 1
        fires = _fires(len(self.guards) - 1)
        self._apply(lambda i, insn: Patch([insn, *fires]) if i == last else None)
        check = self._null(at, last + 1) if code == "null-deref" else self._bounds(at, last + 1)
        self._apply(lambda i, insn: Patch([*check, insn]) if i == at else None)
        count = MapSpec(COUNTS, MapNumber.ARRAY, 4, 8 * len(self.guards), 1)
        self.program = replace(self.program, maps={**self.program.maps, COUNTS: count})

    def _null(self, at: int, fires: int) -> list[Insn]:
        return [Insn(Class.JMP | Jmp.JEQ, self._base(at), target=fires)]

    def _bounds(self, at: int, fires: int) -> list[Insn]:
        """Compare the end of the access with data_end, with two registers that get their old
        values back if they are in use."""
        insn, live = self.program.insns[at], live_before(self.program)[at]
        others = [r for r in range(FP) if r not in (insn.dst, insn.src) or not live >> r & 1]
        a, b = sorted(others, key=lambda r: live >> r & 1)[:2]
        used = [(r, 8 * i - self.saved) for i, r in enumerate((a, b), 1) if live >> r & 1]
        text = [f"*(u64 *)(r10 - {slot}) = r{r}" for r, slot in used]
        text += [f"r{a} = *(u64 *)(r10 - {-self.saved})", f"r{a} = *(u32 *)(r{a} + {DATA_END})"]
        text += [f"r{b} = r{self._base(at)}", f"r{b} += {insn.off + insn.width}"]
        restore = [f"r{r} = *(u64 *)(r10 - {slot})" for r, slot in used]
        jump = Insn(Class.JMP | Jmp.JGT | X, b, a, target=fires)
        return [*written("\n".join(text)), jump, *written("\n".join(restore))]

    def _base(self, at: int) -> int:
        insn = self.program.insns[at]
        return insn.src if insn.is_load else insn.dst

    def _save_ctx(self) -> None:
        """Keep r1 of the start in a slot below all that the program is seen to use. If that were
        wrong, the slot would be overwritten, and the verifier would not take it for the ctx."""
        main = self.program.subprogs[0]
        lowest = 0
        for insn in self.program.insns[main.start : main.end]:
            if FP in (insn.dst, insn.src):
                lowest = min(lowest, insn.off)
            elif insn.is_alu and -MAX_BPF_STACK <= insn.imm < 0:
                lowest = min(lowest, insn.imm)  # perhaps of a copy of r10
        self.saved = (lowest & ~7) - 8
        save = written(f"*(u64 *)(r10 - {-self.saved}) = r1")
        self._apply(lambda i, insn: Patch([*save, insn], entry=1) if i == main.start else None)

    def _apply(self, patch: Callable[[int, Insn], Patch | None]) -> None:
        """Patch the program, and what it says of its lines and functions."""
        old = self.program
        patches = [patch(i, insn) or Patch([insn]) for i, insn in enumerate(old.insns)]
        code = Code(old.insns, old.subprogs, (0,) * len(old.subprogs))
        new = expand(code, lambda i, _: patches[i])
        self.origin = [o for o, p in zip(self.origin, patches, strict=True) for _ in p.insns]
        lines: dict[int, Source] = {}
        for i, origin in enumerate(self.origin):
            if origin in self.original.lines and origin not in self.origin[max(i - 1, 0) : i]:
                lines[i] = self.original.lines[origin]
        self.program = replace(
            old,
            insns=new.insns,
            subprogs=new.subprogs,
            lines=lines,
            func_info=_func_info(new) if old.func_info else b"",
            line_info=b"",
        )


def _fires(number: int) -> list[Insn]:
    """What guard `number` does: counts, and ends the packet."""
    return [
        Insn(LD_IMM64, 1, PSEUDO_MAP_VALUE, imm=8 * number, ref=COUNTS),
        *written("r2 = 1\nlock *(u64 *)(r1 + 0) += r2"),
        Insn(MOV64_IMM, 0, imm=Action.XDP_ABORTED),
        Insn(EXIT),
    ]


def _func_info(code: Code) -> bytes:
    """struct bpf_func_info[]: where each function starts, in slots of 8 bytes, and its type."""
    slots = [0]
    for insn in code.insns:
        slots.append(slots[-1] + insn.slots)
    return b"".join(struct.pack("<II", slots[s.start], s.btf_id) for s in code.subprogs)
