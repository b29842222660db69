"""Rebuild the examples' objects: `python -m xdpbatch.examples`, needs clang and llvm-strip.

The objects are stripped of DWARF, which only a debugger reads, and keep BTF.
"""

from __future__ import annotations

import subprocess

from xdpbatch import cc, examples


def main() -> None:
    compiler = cc.find()
    strip = compiler.name.replace("clang", "llvm-strip")
    for name in examples.names():
        output = examples.path(name)
        cc.compile(output.with_suffix(".c"), output, compiler=compiler, options=["-Werror"])
        subprocess.run([strip, "-g", output], check=True)
        print(f"{output.name}: {output.stat().st_size} bytes, {compiler}")


if __name__ == "__main__":
    main()
