"""LLVM as a library: modules in, machine code of this CPU out, and loaded.

Analogous to the kernel's bpf_jit_binary_alloc and module loader: objects are position independent,
names that they do not define (maps, libc functions) are given their address when they are loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from functools import cache
from typing import TypeAlias

import llvmlite
from llvmlite import binding as llvm

Module: TypeAlias = llvm.ModuleRef
_serial = itertools.count()


@cache
def cpu() -> tuple[str, str, str]:
    """This machine as LLVM names it: triple, CPU, features."""
    features: str = llvm.get_host_cpu_features().flatten()
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), features


def versions() -> tuple[object, ...]:
    """What machine code depends on apart from its source: part of every cache key."""
    return llvmlite.__version__, llvm.llvm_version_info, cpu()


@cache
def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # for inline assembly
    triple, name, features = cpu()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=name, features=features, opt=3, reloc="pic", codemodel="small"
    )


def parse(text: str) -> Module:
    """A module of IR text, checked."""
    module = llvm.parse_assembly(text)
    module.triple = cpu()[0]
    module.data_layout = str(_machine().target_data)
    module.verify()
    return module


def link(texts: Collection[str]) -> Module:
    """All modules in one."""
    first, *others = texts
    module = parse(first)
    for text in others:
        module.link_in(parse(text))
    return module


def export_only(module: Module, names: Collection[str]) -> None:
    """Make all else private to the module, so that it is inlined or goes away."""
    for value in itertools.chain(module.functions, module.global_variables):
        if not value.is_declaration and value.name not in names:
            value.linkage = "internal"


def inline_always(module: Module, names: Collection[str], most: int) -> None:
    """Inline these functions, defined in the module, if all have `most` instructions at most.

    LLVM takes a call behind several tests for cold and leaves it.
    """
    functions = [module.get_function(name) for name in names]
    blocks = (block for function in functions for block in function.blocks)
    if sum(1 for block in blocks for _ in block.instructions) <= most:
        for function in functions:
            function.add_function_attribute("alwaysinline")


def optimise(module: Module, *, final: bool = True) -> None:
    """-O3; if not `final`, only what later inlining does not mind (no loop is unrolled).

    Nothing is vectorised: measured, it made no program faster, and loops over packets of a
    few instructions became ten times as long.
    """
    options = llvm.create_pipeline_tuning_options(speed_level=3 if final else 1)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = final
    builder = llvm.create_pass_builder(_machine(), options)
    builder.getModulePassManager().run(module, builder)


def object_code(module: Module) -> bytes:
    """An ELF object of a module."""
    return bytes(_machine().emit_object(module))


def code_size(code: bytes) -> int:
    """Bytes of machine code in an object."""
    sections = llvm.ObjectFileRef.from_data(code).sections()
    return sum(section.size() for section in sections if section.is_text())


def assembly(module: Module) -> str:
    """The machine code of a module as text."""
    return str(_machine().emit_assembly(module))


@cache
def _jit() -> llvm.orcjit.LLJIT:
    _machine()
    return llvm.create_lljit_compiler(_machine(), use_jit_link=True)


class Loaded:
    """An object in memory. Its code stays mapped as long as this lives."""

    def __init__(
        self, code: bytes, exports: Collection[str], symbols: Mapping[str, int] | None = None
    ) -> None:
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name, address in (symbols or {}).items():
            builder.import_symbol(name, address)
        for name in exports:
            builder.export_symbol(name)
        self._library = builder.link(_jit(), f"xdpbatch.{next(_serial)}")

    def address(self, name: str) -> int:
        """Of an exported function."""
        return int(self._library[name])
