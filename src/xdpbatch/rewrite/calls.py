"""Turns calls of helpers by number into calls of this runtime's functions.

Analogous to do_misc_fixups() of kernel/bpf/verifier.c, which also calls a map type's own function
where the map is known. The map's geometry is passed as constants then, which fold after inlining.

Before                              After
  call bpf_map_lookup_elem#1          r0 = maps.hash.lookup(r1, r2, 13, 8, 1024)
  call bpf_get_prandom_u32#7          r0 = helpers.get_prandom_u32.get_prandom_u32(buff)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Called
from xdpbatch.helpers import Arg, Helper, helpers
from xdpbatch.isa import (
    CALL,
    HELPER_CALL,
    KFUNC_CALL,
    MOV64_IMM,
    NATIVE_CALL,
    Class,
    Insn,
    Jmp,
    Size,
)
from xdpbatch.maps import ENOTSUPP, GEOMETRY, MAP_TYPE, map_type
from xdpbatch.native import Argument, Field, Hidden, Native, NativeCall, Reg
from xdpbatch.program import MapSpec
from xdpbatch.rewrite.check import RewriteError
from xdpbatch.rewrite.patch import Code, Patch, expand, goto, here, load

JEQ_IMM = Class.JMP | Jmp.JEQ
FIXED = ("key_size", "value_size")  # what a map-in-map's template says of every inner map


@dataclass(frozen=True, slots=True)
class CallSite:
    """A helper call that is to be replaced: the instruction, its prototype, what is known."""

    index: int
    insn: Insn
    helper: Helper
    specs: Mapping[str, MapSpec]

    @property
    def called(self) -> Called:
        """What the verifier proved of it."""
        return self.insn.fact if isinstance(self.insn.fact, Called) else Called()

    @property
    def spec(self) -> MapSpec | None:
        """The map that is passed, or the template of the inner map; None if paths differ."""
        named = self.specs.get(self.called.map or "")
        return named.inner if named and self.called.inner else named

    def error(self, why: str) -> UnsupportedError:
        """The error for a call that this runtime cannot make."""
        return UnsupportedError.of(
            "unsupported-helper",
            f"the program calls bpf_{self.helper.name} in a way that this runtime does not have",
            where=f"insn {self.index}",
            reason=why,
        )


def calls(code: Code, specs: Mapping[str, MapSpec]) -> Code:
    """`code` with no helper call left. What changes the flow is replaced by `control` before."""

    def patch(i: int, insn: Insn) -> Patch | None:
        if insn.op != CALL or insn.src not in (HELPER_CALL, KFUNC_CALL):
            return None
        site = site_of(i, insn, specs)
        if site.helper.native is not None:
            return Patch([_plain(site, site.helper.native)])
        if site.helper.op:
            return Patch(map_operation(site))
        raise site.error("it has no definition")

    return expand(code, patch)


def site_of(i: int, insn: Insn, specs: Mapping[str, MapSpec]) -> CallSite:
    """The call at instruction `i`; UnsupportedError for what is no helper of this runtime."""
    helper = helpers().get(insn.imm)
    if insn.src != HELPER_CALL or helper is None:
        what = f"helper {insn.imm}" if insn.src == HELPER_CALL else f"kernel function {insn.ref}"
        raise UnsupportedError.of(
            "unsupported-helper",
            f"the program calls {what}, which this runtime does not have",
            where=f"insn {i}",
            suggestion="`xdpbatch features` lists the helpers",
        )
    return CallSite(i, insn, helper, specs)


def native_call(insn: Insn, function: Native, arguments: tuple[Argument, ...]) -> Insn:
    """A NATIVE_CALL in the place of `insn`, with what was proved of it."""
    call = NativeCall(function, arguments)
    return Insn(CALL, src=NATIVE_CALL, fact=insn.fact, native=call)


def _plain(site: CallSite, function: Native) -> Insn:
    """A helper that is one function: its arguments in order."""
    hidden: tuple[Argument, ...] = (Hidden.BUFF,) if function.takes_buff else ()
    registers = tuple(Reg(i + 1) for i in range(len(site.helper.args)))
    return native_call(site.insn, function, hidden + registers)


def map_operation(site: CallSite) -> list[Insn]:
    """A helper whose work the map's type does; which type may be known at run time only.

    Before                    After (r1 may be a hash or an array)
      call bpf_..._elem#1       r0 = *(u32 *)(r1 + 16)          ; the map's type
                                if r0 == 1 goto hash
                                r0 = maps.array.lookup(...)
                                goto next
                                hash: r0 = maps.hash.lookup(...)
    """
    if site.spec is not None:
        return [operation(site, site.spec.type)]
    kinds = _possible_types(site)
    if len(kinds) == 1:
        return [operation(site, kinds[0])]
    map_register = 1 + site.helper.args.index(Arg.CONST_MAP_PTR)
    *others, last = kinds
    # layout: the load, one test per other type, the last type's call, then pairs (goto, call)
    out = [load(0, map_register, MAP_TYPE, Size.W)]
    first_call = 1 + len(others)
    out += [
        Insn(JEQ_IMM, imm=kind, target=here(first_call + 2 + 2 * i))
        for i, kind in enumerate(others)
    ]
    out.append(operation(site, last))
    end = first_call + 1 + 2 * len(others)
    for kind in others:
        out += [goto(here(end)), operation(site, kind)]
    return out


def _possible_types(site: CallSite) -> list[int]:
    specs = [s for spec in site.specs.values() for s in (spec, spec.inner) if s is not None]
    kinds = {int(spec.type) for spec in specs}
    if site.helper.maps is not None:
        kinds &= set(site.helper.maps)
    if not kinds:
        raise RewriteError(f"insn {site.index}: no map that bpf_{site.helper.name} takes")
    return sorted(kinds)


def operation(site: CallSite, kind: int) -> Insn:
    """The call of the operation of map type `kind`; -ENOTSUPP if the type does not have it."""
    function: Native | None = getattr(map_type(kind), site.helper.op)
    if function is None:
        return Insn(MOV64_IMM, 0, imm=-ENOTSUPP)
    return native_call(site.insn, function, arguments(site, function))


def arguments(site: CallSite, function: Native) -> tuple[Argument, ...]:
    """One Argument for each parameter of a map operation, found by its name."""
    registers = {name: Reg(i + 1) for i, name in enumerate(site.helper.params)}

    def argument(name: str) -> Argument:
        if name == "buff":
            return Hidden.BUFF
        if name in registers:
            return registers[name]
        if name not in GEOMETRY:
            raise RewriteError(f"{function!r}: bpf_{site.helper.name} has no argument {name}")
        spec = site.spec
        if spec is not None and (not site.called.inner or name in FIXED):
            return geometry(spec, name)
        return Field(registers["map"].number, GEOMETRY[name])

    return tuple(argument(name) for name in function.params)


def geometry(spec: MapSpec, name: str) -> int:
    """The constant that a parameter of GEOMETRY stands for."""
    return {
        "key_size": spec.key_size,
        "value_size": spec.value_size,
        "max_entries": spec.max_entries,
        "map_flags": spec.flags,
    }[name]
