"""Machine code for the map operations that user space calls often.

Analogous to nothing in the kernel, where bpf(2) always runs compiled operations. A map that is
filled with a million entries from Python should not run each insertion in the interpreter, but a
map that is read once should not wait for a compiler: an operation is compiled when it has run
BUSY times.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable

from xdpbatch import maps
from xdpbatch.jit.native import NativeCode, compile_native
from xdpbatch.native import Native

BUSY = 1000  # calls: about as long as compiling takes from a warm cache


class Operations:
    """Chooses how an operation runs: `Operations()(op)` is what to call."""

    def __init__(self, busy: int = BUSY) -> None:
        self.busy = busy
        self._calls: Counter[Native] = Counter()
        self._code: list[NativeCode] = []  # stays mapped
        self._compiled: dict[Native, Callable[..., int]] = {}

    def __call__(self, op: Native) -> Callable[..., int]:
        compiled = self._compiled.get(op)
        if compiled is not None:
            return compiled
        self._calls[op] += 1
        return op if self._calls[op] <= self.busy else self._compile(op)

    def _compile(self, op: Native) -> Callable[..., int]:
        code = compile_native(op)
        signature = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(op.params))
        self._code.append(code)
        self._compiled[op] = signature(code.address(op))
        return self._compiled[op]


def enable() -> None:
    """Let every map of this process use machine code for its busy operations."""
    maps.run_with(Operations())
