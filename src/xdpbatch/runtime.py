"""An object with its maps in memory and its programs as code: analogous to a loaded bpf_object.

    Object --Instance--> maps: Map in memory        programs: Entry, by backend and layout

Every backend is behind the same C function (see jit.Compiled), so that what runs packets need not
know who executes the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Protocol

from xdpbatch.data.layout import address_of, aligned
from xdpbatch.errors import ObjectError, UnsupportedError
from xdpbatch.interp import Interpreter
from xdpbatch.jit import Compiled
from xdpbatch.map_view import MapView
from xdpbatch.maps import Map, add_program, map_types
from xdpbatch.program import Object, Program
from xdpbatch.rewrite import Layout, Results, Xlated, xlate
from xdpbatch.rewrite.form import Form
from xdpbatch.rewrite.results import COLLECT, PROGRAM, RESULTS
from xdpbatch.verify import Verified
from xdpbatch.verify.verdict import verdict

NATIVE = ("llvm", "x86")
SINGLE, BATCH = Form(Layout.SINGLE), Form(Layout.BATCH)
_NOT_NATIVE = 1 << 61  # "addresses" of programs that only the interpreter can run
BACKENDS = (*NATIVE, "interp", "kernel")


MOST = 4096  # packets in a batch, at most


class Entry(Protocol):
    """Something that can be called like a compiled program; keep it while `address` is used."""

    @property
    def address(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """A program at every stage up to the backend."""

    verified: Verified
    xlated: Xlated

    @classmethod
    def of(cls, program: Program) -> Stages:
        """Verify and rewrite. Raises VerifierError, UnsupportedError."""
        verified = verdict(program)
        return cls(verified, xlate(verified))


def compile_by(backend: str, code: Xlated, addresses: Mapping[str, int]) -> Compiled:
    """Machine code by the backend of that name (a module of `jit`)."""
    compiled: Compiled = import_module(f"xdpbatch.jit.{backend}").compile(code, addresses)
    return compiled


class Collected:
    """A program that fills an array of results, behind the C function of one that fills `act`."""

    def __init__(self, program: Compiled) -> None:
        self._program = program
        self._results = aligned(4 * MOST)
        addresses = {PROGRAM: program.address, RESULTS: address_of(self._results)}
        self._code = compile_by(program.backend, COLLECT, addresses)
        self.address = self._code.address


def select(obj: Object, name: str | None = None, section: str | None = None) -> list[Program]:
    """The programs with that name and section; all without. Raises ObjectError if there is none."""
    found = [
        program
        for program in obj.programs.values()
        if name in (None, program.name) and section in (None, program.section)
    ]
    if not found:
        raise ObjectError.of(
            "no-such-program",
            f"{obj.path} has no program {name or ''} in section {section or '(any)'}",
            suggestion="it has " + _listed(obj.programs.values()),
        )
    return found


def the_program(obj: Object, name: str | None = None, section: str | None = None) -> Program:
    """The one program meant. Raises ObjectError if several are, naming them."""
    found = select(obj, name, section)
    if len(found) > 1:
        raise ObjectError.of(
            "which-program",
            f"{obj.path} holds {len(found)} programs",
            reason=_listed(found),
            suggestion=f"choose one: -n {found[0].name}",
        )
    return found[0]


def _listed(programs: Iterable[Program]) -> str:
    return ", ".join(f"{p.name} (section {p.section})" for p in programs)


class Instance:
    """An Object's maps, created, and its programs, compiled when asked for.

    `maps` has every map of the object whose type this runtime has; a program that uses another is
    refused by name when it is compiled. `stages` of programs that are known already save time.
    With `kernel`, the running kernel's verifier must accept each program too.
    """

    def __init__(
        self, obj: Object, stages: dict[str, Stages] | None = None, *, kernel: bool = False
    ) -> None:
        self.object = obj
        self._kernel = kernel
        known = map_types()
        self.maps = {n: Map(spec) for n, spec in obj.maps.items() if spec.type in known}
        self._stages: dict[str, Stages] = {} if stages is None else stages
        self._entries: dict[tuple[str, str, Form], Entry] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._interpreted: dict[int, Program] = {}
        self._filled: set[tuple[str | None, str]] = set()  # prog arrays, by backend
        self._fill_maps_of_maps()

    @cached_property
    def addresses(self) -> Mapping[str, int]:
        """Of the maps' blocks, by name."""
        return {name: one.address for name, one in self.maps.items()}

    def views(self, backend: str = "llvm") -> Mapping[str, MapView]:
        """The maps through their types; a program's name stands for what `backend` makes of it."""

        def number(name: str) -> int:
            if name in self.maps:
                return self.maps[name].id
            return self.program_id(the_program(self.object, name), backend)

        return {n: MapView(one, self.object.btf, number) for n, one in self.maps.items()}

    def stages(self, program: Program) -> Stages:
        """The program verified and rewritten, once. Raises VerifierError, UnsupportedError."""
        if program.name not in self._stages:
            if self._kernel:
                from xdpbatch.sys.kernel import KernelObject

                KernelObject(self.object).program(program.name)
            self._stages[program.name] = Stages.of(program)
        return self._stages[program.name]

    def entry(self, program: Program, backend: str, form: Form = BATCH) -> Entry:
        """The program as a C function in that form, run by that backend.

        The programs that its prog arrays hold from the start are made with it: by the same native
        backend, or for the interpreter. An Instance serves native backends or the interpreter.
        """
        key = (program.name, backend, form)
        if key not in self._entries:
            self._entries[key] = self._make(program, backend, form)
            self._fill_prog_arrays(program, backend)
        return self._entries[key]

    def interpreter(self, program: Program) -> Interpreter:
        """The program in the interpreter; it is not verified first."""
        self._fill_prog_arrays(program, "interp")
        return Interpreter(program, self.maps, self._interpreted)

    def program_id(self, program: Program, backend: str = "llvm") -> int:
        """What a prog array's value must be so that tail calls go to `program`."""
        key = (program.name, backend)
        if key not in self._ids:
            if backend in NATIVE:
                address = self.entry(program, backend, SINGLE).address
            else:
                address = _NOT_NATIVE + len(self._interpreted)
                self._interpreted[address] = program
            # Making the entry may have come back here through a prog array that holds `program`.
            self._ids.setdefault(key, add_program(address, program.attach).id)
            self._fill_prog_arrays(program, backend)
        return self._ids[key]

    def _make(self, program: Program, backend: str, form: Form) -> Entry:
        if backend in NATIVE:
            code = form.around(self.stages(program).xlated)
            compiled = compile_by(backend, code, self.addresses)
            # Whoever calls the code must find the maps that it was compiled with.
            compiled = replace(compiled, owner=(compiled.owner, self.maps))
            return compiled if form.results is Results.BUFF else Collected(compiled)
        from xdpbatch.callback import PerPacket

        if form != BATCH:
            raise UnsupportedError.of(
                "layout",
                f"backend {backend} has no layout {form}",
                suggestion="use --backend llvm or x86",
            )
        return PerPacket(self._judge(program, backend))

    def _judge(self, program: Program, backend: str) -> Callable[[int], int]:
        if backend == "interp":
            self.stages(program)
            return self.interpreter(program).run
        from xdpbatch.sys.kernel import KernelObject

        return KernelObject(self.object).program(program.name).run_buff

    def _fill_maps_of_maps(self) -> None:
        for name, spec in self.object.maps.items():
            for key, value in spec.values.items():
                if value in self.object.maps and name in self.maps:
                    inner = self.maps[value].id.to_bytes(4, "little")
                    self.maps[name].put(key.to_bytes(spec.key_size, "little"), inner)

    def _fill_prog_arrays(self, program: Program, backend: str) -> None:
        """Enter what the object says is in the prog arrays that `program` refers to, once."""
        for name in {insn.ref for insn in program.insns if insn.ref in self.maps}:
            values = self.object.maps[name or ""].values
            if (name, backend) in self._filled:
                continue
            self._filled.add((name, backend))  # before its programs, which may refer to it as well
            for key, value in values.items():
                if value in self.object.programs:
                    target = self.object.programs[value]
                    number = self.program_id(target, backend).to_bytes(4, "little")
                    self.maps[name or ""].put(key.to_bytes(4, "little"), number)
