"""From native functions to LLVM IR and machine code, through numba and the disk cache.

Analogous to compiling the kernel's helpers with the kernel: done once per machine. numba is a
front end only (`frontend`): it turns ONE function into IR, in which calls of other native functions
are calls of their symbols; linking and inlining come later. numba is imported only when the cache
does not know a function yet.

Before (Python)                      After (LLVM IR)
  @native                              define i64 @"maps.array.lookup"(i64 %map, i64 %key, ...) {
  def lookup(map, key, ...):             %i = load i32, ptr ...
      i = load32(key)                    ...
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llvmlite import ir

from xdpbatch import cache
from xdpbatch.jit import engine
from xdpbatch.jit.intrinsics import EMIT, I64
from xdpbatch.native import Intrinsic, Native

_BUILTINS = ("range", "int", "min", "max", "abs", "bool")
_SOURCES = ("native.py", "frontend.py", "intrinsics.py", "engine.py")
_RAISED = "xdpbatch.raised"  # called on a path that raises; must be gone after optimisation


def ir_of(function: Native) -> str:
    """LLVM IR of a module that defines `i64 @"symbol"(i64...)` and declares what it calls.

    Intrinsics are functions too: a call site may name one directly.
    Raises TypeError, naming the function, if it breaks the rules of `xdpbatch.native`.
    """
    key = cache.key_of(*_identity(function))
    cached = cache.get("ll", key)
    if cached is None:
        text = _intrinsic_ir(function) if isinstance(function, Intrinsic) else _numba_ir(function)
        cached = text.encode()
        cache.put("ll", key, cached)
    return cached.decode()


def closure(functions: Iterable[Native]) -> list[Native]:
    """The functions and all native functions that they call, each once, in a stable order.

    Intrinsics appear only where they are asked for: within a function they are emitted in place.
    """
    found: dict[str, Native] = {}
    waiting = list(functions)
    while waiting:
        function = waiting.pop(0)
        if function.symbol not in found:
            found[function.symbol] = function
            waiting += _callees(function)
    return list(found.values())


class NativeCode:
    """Machine code of native functions, loaded. Keep it alive as long as the code may run."""

    def __init__(self, functions: tuple[Native, ...], loaded: engine.Loaded) -> None:
        self._functions = functions
        self._loaded = loaded

    def address(self, function: Native) -> int:
        """Of the C function `int64_t symbol(int64_t, ...)`."""
        return self._loaded.address(function.symbol)


def compile_native(*functions: Native) -> NativeCode:
    """Machine code of `functions`, with all that they call inlined where it pays."""
    exports = [function.symbol for function in functions]
    everything = closure(functions)
    key = cache.key_of("object", exports, [_identity(function) for function in everything])
    code = cache.get("o", key)
    if code is None:
        module = engine.link([ir_of(function) for function in everything])
        engine.export_only(module, exports)
        engine.optimise(module)
        code = engine.object_code(module)
        cache.put("o", key, code)
    return NativeCode(functions, engine.Loaded(code, exports))


def identity(functions: Iterable[Native]) -> tuple[object, ...]:
    """All that the code of `functions` is made of, for a cache key."""
    return tuple(_identity(function) for function in closure(functions))


def _identity(function: Native) -> tuple[object, ...]:
    """Byte code, constants and the meaning of each global name; versions of all tools."""
    code = function.python.__code__
    if isinstance(function, Intrinsic):
        return (function.symbol, function.params, _toolchain())
    names = [(name, _meaning(function, name)) for name in code.co_names]
    return (function.symbol, code.co_code, code.co_consts, code.co_varnames, names, _toolchain())


def _meaning(function: Native, name: str) -> object:
    value = _global(function, name)
    return (value.symbol, len(value.params)) if isinstance(value, Native) else value


def _global(function: Native, name: str) -> Any:
    """What a global name of a native function stands for; TypeError unless the rules allow it."""
    value = function.python.__globals__.get(name, getattr(builtins, name, None))
    if isinstance(value, Native) or (name in _BUILTINS and value is getattr(builtins, name)):
        return value
    if isinstance(value, int):
        return int(value)
    raise _refused(function, f"{name} is not an integer, a native function or one of {_BUILTINS}")


def _callees(function: Native) -> list[Native]:
    if isinstance(function, Intrinsic):
        return []
    values = (_global(function, name) for name in function.python.__code__.co_names)
    return [v for v in values if isinstance(v, Native) and not isinstance(v, Intrinsic)]


def _refused(function: Native, why: str) -> TypeError:
    return TypeError(f"native function {function.symbol}: {why}")


@once
def _toolchain() -> tuple[object, ...]:
    """What the code of a native function depends on apart from the function."""
    here = Path(__file__).parent
    ours = [(here / name).read_bytes() for name in _SOURCES]
    return engine.versions(), _numba_version(), cache.key_of(*ours)


def _numba_version() -> list[str]:
    """The names of numba's metadata, such as numba-0.68.0.dist-info, without importing anything."""
    spec = find_spec("numba")
    if spec is None or spec.origin is None:
        return []
    return sorted(path.name for path in Path(spec.origin).parent.parent.glob("numba-*"))


def _intrinsic_ir(function: Native) -> str:
    module = ir.Module(function.symbol)
    kind = ir.FunctionType(I64, [I64] * len(function.params))
    body = ir.Function(module, kind, function.symbol)
    builder = ir.IRBuilder(body.append_basic_block())
    builder.ret(EMIT[function.python.__name__](builder, body.args))
    return str(module)


def _numba_ir(function: Native) -> str:
    """numba's code, cleaned: wrapping arithmetic, no exceptions, no trace of CPython."""
    from xdpbatch.jit import frontend  # imports numba, which takes most of a second

    names = {name: _global(function, name) for name in function.python.__code__.co_names}
    try:
        text, mangled = frontend.compile_function(function, names)
    except frontend.RefusedError as error:
        raise _refused(function, str(error)) from error
    # int64 arithmetic of numba is `nsw`: an overflow would be poison. Here it wraps.
    text = re.sub(r"\b(add|sub|mul|shl)((?: nuw| nsw)+)", r"\1", text).replace(
        "noinline", "nounwind"
    )
    module = engine.parse(text + _wrapper(function, mangled))
    engine.export_only(module, [function.symbol])
    engine.optimise(module, final=False)
    cleaned = str(module)
    if _RAISED in cleaned:
        raise _refused(function, "a path of it raises an exception")
    return cleaned


def _wrapper(function: Native, mangled: str) -> str:
    """`i64 @"symbol"(i64...)` around numba's `i32 @mangled(ptr result, ptr exception, i64...)`."""
    count = len(function.params)
    params = ", ".join(f"i64 %a{i}" for i in range(count))
    passed = "".join(f", i64 %a{i}" for i in range(count))
    return f"""
declare void @"{_RAISED}"()
define i64 @"{function.symbol}"({params}) {{
  %result = alloca i64
  %exception = alloca ptr
  %status = call i32 @"{mangled}"(ptr %result, ptr %exception{passed})
  %good = icmp eq i32 %status, 0
  br i1 %good, label %return, label %raise
return:
  %value = load i64, ptr %result
  ret i64 %value
raise:
  call void @"{_RAISED}"()
  unreachable
}}
"""
