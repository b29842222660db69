"""Ways to run a program: batched or one by one, by which backend, in which form, with retpoline.

Analogous to a kernel's build options that change how a driver calls its program (CONFIG_RETPOLINE,
CONFIG_BPF_JIT_ALWAYS_ON). A Way is a column of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.bench.frames import Alone, Frames
from xdpbatch.bench.method import Case
from xdpbatch.bench.subject import Subject
from xdpbatch.bench.whole import Whole
from xdpbatch.jit.retpoline import retpoline
from xdpbatch.program import Program
from xdpbatch.rewrite.form import Form
from xdpbatch.runtime import BATCH, SINGLE, Entry, Instance

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class Way:
    """`size` packets per call, 0 for one by one. `through_retpoline`: every call of the program."""

    name: str
    size: int = BATCH_SIZE
    backend: str = "llvm"
    trampoline: Form = BATCH
    through_retpoline: bool = False

    def entry(self, instance: Instance, program: Program) -> tuple[Entry, object]:
        """What is called, and what must be kept alive meanwhile."""
        form = SINGLE if self.size == 0 else self.trampoline
        entry = instance.entry(program, self.backend, form)
        return (retpoline(entry.address), entry) if self.through_retpoline else (entry, entry)

    def alone(self, instance: Instance, program: Program, frames: Frames) -> Case:
        """The program and its call."""
        entry, owner = self.entry(instance, program)
        return Alone(frames, entry.address, self.size, (entry, owner, instance))

    def whole(self, instance: Instance, program: Program, subject: Subject) -> Case:
        """The whole poll."""
        entry, owner = self.entry(instance, program)
        return Whole(
            subject,
            entry.address,
            self.size or BATCH_SIZE,
            single=self.size == 0,
            owner=(entry, owner, instance),
        )


def batched(size: int = BATCH_SIZE, backend: str = "llvm", *, retpoline: bool = False) -> Way:
    """`batch 64`, `x86 batch 64`, `batch 64, retpoline`."""
    return Way(_name(f"batch {size}", backend, retpoline), size, backend, BATCH, retpoline)


def one_by_one(backend: str = "llvm", *, retpoline: bool = False) -> Way:
    """`one by one`, `x86 one by one`, `one by one, retpoline`."""
    return Way(_name("one by one", backend, retpoline), 0, backend, BATCH, retpoline)


def _name(what: str, backend: str, retpoline: bool) -> str:
    prefix = "" if backend == "llvm" else f"{backend} "
    return f"{prefix}{what}{', retpoline' if retpoline else ''}"
