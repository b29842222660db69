"""Rebuild the objects: `python -m xdpbatch.bench.programs`, as xdpbatch.examples does."""

from __future__ import annotations

from xdpbatch.bench import programs
from xdpbatch.examples.__main__ import build

if __name__ == "__main__":
    build(programs.path(name) for name in programs.names())
