"""Objects compiled by the test itself, with every compiler for BPF that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpbatch import cc, elf
from xdpbatch.program import Object
from xdpbatch.target import Target

PRELUDE = '#include "xdp.h"\n#define __ulong(name, value) enum { name##_value = value } name\n'


@pytest.fixture(params=["clang", "ziglang"])
def compiler(request: pytest.FixtureRequest) -> cc.Compiler:
    """Each compiler of this machine in turn."""
    for found in cc.compilers():
        if found.name.startswith(request.param):
            return found
    pytest.skip(f"no {request.param} that compiles for BPF is installed")


def compile_text(
    compiler: cc.Compiler, directory: Path, text: str, target: Target | None = None
) -> Object:
    """The object of a C text that may use the examples' header."""
    source = directory / "source.c"
    source.write_text(PRELUDE + text + '\nchar _license[] SEC("license") = "GPL";\n')
    cc.compile(source, directory / "source.o", compiler=compiler)
    return elf.load(directory / "source.o", target=target)
