"""Where the code of a native function is: what the data plane is given instead of a compiler.

Analogous to a driver's table of function pointers (`struct net_device_ops`): a caller that has
compiled native functions (`jit.native.NativeCode` has this shape) hands in their addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

from xdpbatch.native import Native

_I64 = ctypes.c_int64


class Code(Protocol):
    """Anything that knows the address of the C function `int64_t f(int64_t, ...)` of a Native."""

    def address(self, function: Native) -> int: ...


class Interpreted:
    """Code that runs the Python bodies themselves: the definition, some 1000 times slower."""

    def __init__(self) -> None:
        self._callbacks: dict[str, Any] = {}

    def address(self, function: Native) -> int:
        """The address of a C callback into the Python function."""
        if function.symbol not in self._callbacks:
            kind = ctypes.CFUNCTYPE(_I64, *[_I64] * len(function.params))
            self._callbacks[function.symbol] = kind(function.python)
        return ctypes.cast(self._callbacks[function.symbol], ctypes.c_void_p).value or 0


def caller(code: Code, function: Native) -> Callable[..., int]:
    """`function` as a Python callable that runs the given code and holds no GIL meanwhile."""
    kind = ctypes.CFUNCTYPE(_I64, *[_I64] * len(function.params))
    return kind(code.address(function))
