"""One native function to unoptimised LLVM IR, by numba. Importing this imports numba.

Analogous to the C front end of a compiler. Ahead-of-time code generation is used, as numba.pycc
does it: numba's own JIT would want an address for every symbol that the function calls.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numba
from llvmlite import ir
from numba.core import compiler as _compiler
from numba.core import config as _config
from numba.core import errors
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from xdpbatch.jit.intrinsics import EMIT, I64, declare
from xdpbatch.native import Intrinsic, Native

compiler: Any = _compiler  # numba carries no types
config: Any = _config


class RefusedError(Exception):
    """numba cannot compile the function; the message is numba's."""


def compile_function(function: Native, names: Mapping[str, Any]) -> tuple[str, str]:
    """IR text, and the name of `i32 name(ptr result, ptr exception, i64...)` in it.

    `names` are the globals that the function may see: integers, built-ins, native functions.
    """
    python = function.python
    scope = {k: _as_numba(v) if isinstance(v, Native) else v for k, v in names.items()}
    copy = types.FunctionType(python.__code__, scope, python.__name__)
    context = cpu_target.target_context.with_aot_codegen("xdpbatch")
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    arguments = (numba.int64,) * len(function.params)
    with global_compiler_lock, _unoptimised():
        try:
            compiled = compiler.compile_extra(
                cpu_target.typing_context, context, copy, arguments, numba.int64, flags, {}
            )
        except errors.NumbaError as error:
            raise RefusedError(str(error)) from error
        compiled.library.finalize()  # links what built-ins like int() and min() need
        return compiled.library.get_llvm_str(), compiled.fndesc.mangled_name


@contextmanager
def _unoptimised() -> Iterator[None]:
    """numba without optimisation, so that its `nsw` flags have had no effect yet."""
    level = config.OPT
    config.OPT = type(level)(0)
    try:
        yield
    finally:
        config.OPT = level


def _as_numba(function: Native) -> Any:
    """A numba intrinsic that emits an intrinsic in place, or a call of a native's symbol."""
    signature = numba.int64(*[numba.int64] * len(function.params))

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if isinstance(function, Intrinsic):
            return EMIT[function.python.__name__](builder, args)
        callee = declare(builder, function.symbol, I64, *[I64] * len(function.params))
        return builder.call(callee, args)

    def typed(typing_context: Any, *args: Any) -> Any:
        return signature, emit

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("typing_context", *function.params)
    typed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    typed.__name__ = function.python.__name__
    return intrinsic(typed)
