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
bounded, and through pointers that may be null. A guard that fires ends the packet before the access.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from xdpbatch.errors import Diagnostic, Source, VerifierError
from xdpbatch.isa import EXIT, FP, LD_IMM64, PSEUDO_MAP_VALUE, WIDTH, Class, Insn, Jmp, Mode, Size
from xdpbatch.program import MapSpec, Object, Program, Subprog
from xdpbatch.rewrite.patch import Code, Patch, expand, written
from xdpbatch.uapi import MapNumber
from xdpbatch.verify.cfg import live_before
from xdpbatch.verify.explain import place
from xdpbatch.verify.verdict import verdict

COUNTS = ".guards"  # the map that counts: a u64 per guard of the object
MOST = 64  # guards in a program
PLAIN = (Mode.MEM, Mode.MEMSX)


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
    """The object with what program `name` needs; Guard k counts in element k of COUNTS.

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


class _Growing:
    """A program while guards are put into it."""

    def __init__(self, program: Program) -> None:
        self.original = program
        self.program = program
        self.origin = list(range(len(program.insns)))  # of each instruction, in the original
        self.guards: list[Guard] = []
        self.saved = 0  # offset of the saved ctx

    def run(self) -> tuple[Guard, ...]:
        """Put in guards until the program is accepted."""
        done: set[int] = set()  # accesses that have a guard, in the original
        while True:
            try:
                verdict(self.program)
                return tuple(self.guards)
            except VerifierError as error:
                at = error.index
                why = error.diagnostics[0]
                check = self._check(at, why.code) if self._guardable(at, why.code, done) else None
                if check is None:
                    raise self._refused(error) from None
                origin = self.origin[at]
                done.add(origin)
                where = place(self.original, origin)
                self.guards.append(Guard(why.code, where, self.original.source_at(origin)))
                self._insert(at, check)

    def _guardable(self, at: int, code: str, done: set[int]) -> bool:
        main = self.program.subprogs[0]
        if code not in ("packet-bounds", "null-deref") or not main.start <= at < main.end:
            return False
        insn = self.program.insns[at]
        plain = (insn.is_load or insn.is_store) and insn.op & 0xE0 in PLAIN
        return plain and self.origin[at] not in done and len(self.guards) < MOST

    def _check(self, at: int, code: str) -> list[Insn] | None:
        """The check in front of instruction `at`, whose jump goes to FIRES."""
        insn = self.program.insns[at]
        base = insn.src if insn.is_load else insn.dst
        fires = self.program.subprogs[0].end  # where `_insert` puts what happens then
        if code == "null-deref":
            return [Insn(Class.JMP | Jmp.JEQ, base, target=fires)]
        live = live_before(self.program)[at]
        free = [r for r in range(FP) if not live >> r & 1]
        held = [r for r in range(FP) if live >> r & 1 and r not in (insn.dst, insn.src)]
        a, b = (*free, *held)[:2]
        if not self.saved:
            self._save_ctx()
        spilled = [(r, self.saved - 8 * i) for i, r in enumerate((a, b), 1) if r in held]
        save = [f"*(u64 *)(r10 - {-slot}) = r{r}" for r, slot in spilled]
        restore = [f"r{r} = *(u64 *)(r10 - {-slot})" for r, slot in spilled]
        end = insn.off + WIDTH[Size(insn.op & 0x18)]
        test = written(f"""
            r{a} = *(u64 *)(r10 - {-self.saved})
            r{a} = *(u32 *)(r{a} + 4)
            r{b} = r{base}
            r{b} += {end}
        """)
        jump = Insn(Class.JMP | Jmp.JGT | 0x08, b, a, target=fires)
        return [*written("\n".join(save)), *test, jump, *written("\n".join(restore))]

    def _save_ctx(self) -> None:
        """Remember to keep r1 of the start in a slot below all that the program is seen to use."""
        main = self.program.subprogs[0]
        lowest = 0
        for insn in self.program.insns[main.start : main.end]:
            if FP in (insn.dst, insn.src):
                lowest = min(lowest, insn.off)
            elif insn.is_alu and -512 <= insn.imm < 0:
                lowest = min(lowest, insn.imm)  # perhaps of a copy of r10
        self.saved = (lowest & ~7) - 8

    def _insert(self, at: int, check: list[Insn]) -> None:
        old = self.program
        main = old.subprogs[0]
        number = len(self.guards) - 1
        first = self.saved and COUNTS + "ctx" not in old.maps and not self._has_prologue
        prologue = written(f"*(u64 *)(r10 - {-self.saved}) = r1") if first else []
        self._has_prologue = self._has_prologue or bool(first)
        fires = _fires(number)

        def patch(i: int, insn: Insn) -> Patch | None:
            before = check if i == at else []
            lead = prologue if i == main.start else []
            after = fires if i == main.end - 1 else []
            return Patch([*lead, *before, insn, *after], entry=len(lead))

        raise NotImplementedError
