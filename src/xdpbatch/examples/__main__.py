"""Rebuild the examples' objects: `python -m xdpbatch.examples`, needs clang and llvm-strip.

The objects are stripped of DWARF, which only a debugger reads, and keep BTF.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from xdpbatch import cc, examples


def build(objects: Iterable[Path]) -> None:
    """Make each object of the C source beside it."""
    compiler = cc.find()
    strip = compiler.name.replace("clang", "llvm-strip")
    for output in objects:
        cc.compile(output.with_suffix(".c"), output, compiler=compiler, options=["-Werror"])
        subprocess.run([strip, "-g", output], check=True)
        print(f"{output.name}: {output.stat().st_size} bytes, {compiler}")


if __name__ == "__main__":
    build(examples.path(name) for name in examples.names())
