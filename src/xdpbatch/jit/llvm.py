"""The LLVM backend: a program and the native functions it calls, compiled together at -O3.

Analogous to bpf_int_jit_compile(). Object code is kept in the disk cache by content; the addresses
of maps are filled in when an object is loaded, so a second start only loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as once
from pathlib import Path

from xdpbatch import cache
from xdpbatch.jit import Compiled, engine, native
from xdpbatch.jit.llvm_lower import ENTRY, lower, symbol
from xdpbatch.jit.llvm_pointers import pointers
from xdpbatch.program import Program
from xdpbatch.rewrite import Xlated
from xdpbatch.uapi import MAX_BPF_STACK

INLINE = 300  # IR instructions of a native function with all that it calls: a lookup, not an update


def compile(xlated: Xlated, maps: Mapping[str, int]) -> Compiled:  # noqa: A001
    """Machine code of `xlated`; `maps` has the address of the block of each map it refers to."""
    return _compile(xlated, maps, bare=False)


def compile_bare(program: Program) -> Compiled:
    """Machine code `u64 f(u64 r1, u64 r2)` of a program that nobody verified: run it with care.

    Its only helper is 5, of the bpf_conformance suite: r0 = r1, and the program ends if that is 0.
    """
    return _compile(_bare(program), {}, bare=True)


def ir_text(xlated: Xlated, *, optimised: bool = True) -> str:
    """The program's LLVM IR, with all native functions in it."""
    build = _optimised if optimised else _module
    return str(build(xlated, _symbols(xlated, {}), bare=False))


def asm_text(xlated: Xlated) -> str:
    """The program's machine code in the assembler syntax of this CPU."""
    return engine.assembly(_optimised(xlated, _symbols(xlated, {}), bare=False))


def _compile(xlated: Xlated, maps: Mapping[str, int], *, bare: bool) -> Compiled:
    symbols = _symbols(xlated, maps)
    key = _key(xlated, symbols, bare)
    code = cache.get("o", key)
    if code is None:
        code = engine.object_code(_optimised(xlated, symbols, bare=bare))
        cache.put("o", key, code)
    addresses = {symbol: maps[name] for name, symbol in symbols.items()}
    loaded = engine.Loaded(code, [ENTRY], addresses)
    name, size = xlated.program.name, engine.code_size(code)
    return Compiled("llvm", name, loaded.address(ENTRY), size, loaded)


def _symbols(xlated: Xlated, maps: Mapping[str, int]) -> dict[str, str]:
    """The external symbol of each map that the program refers to.

    Two names of one map get one symbol: LLVM takes it that different symbols do not overlap.
    """
    first: dict[object, str] = {}
    used = sorted({insn.ref for insn in xlated.insns if insn.ref is not None})
    return {
        name: first.setdefault(maps.get(name, name), symbol("map", i, name))
        for i, name in enumerate(used)
    }


def _key(xlated: Xlated, symbols: Mapping[str, str], bare: bool) -> str:
    functions = native.identity(insn.native.function for insn in xlated.insns if insn.native)
    extra = (getattr(xlated, "body", 0), getattr(xlated, "buff_slot", 0))
    parts = (xlated.insns, xlated.subprogs, xlated.stack_depth, xlated.layout, extra)
    return cache.key_of("llvm", parts, symbols, bare, functions, _sources(), engine.versions())


@once
def _sources() -> str:
    """What this backend is made of: a change of it makes all cached objects useless."""
    here = Path(__file__).parent
    return cache.key_of(*(file.read_bytes() for file in sorted(here.glob("llvm*.py"))))


def _module(xlated: Xlated, symbols: Mapping[str, str], *, bare: bool) -> engine.Module:
    """The program and all that it calls as one module that exports ENTRY."""
    called = list(dict.fromkeys(insn.native.function for insn in xlated.insns if insn.native))
    texts = [str(lower(xlated, symbols, bare=bare)), *map(native.ir_of, native.closure(called))]
    module = engine.link(texts)
    engine.export_only(module, [ENTRY])
    for function in called:
        engine.inline_always(module, [one.symbol for one in native.closure([function])], INLINE)
    return module


def _optimised(xlated: Xlated, symbols: Mapping[str, str], *, bare: bool) -> engine.Module:
    """The module at -O3, twice where the first time shows addresses that are pointers."""
    module = _module(xlated, symbols, bare=bare)
    engine.optimise(module)
    text = str(module)
    clearer = pointers(text)
    if clearer != text:
        module = engine.parse(clearer)
        engine.optimise(module)
    return module


def _bare(program: Program) -> Xlated:
    depths = (MAX_BPF_STACK,) * len(program.subprogs)
    return Xlated(program, program.insns, program.subprogs, depths)
