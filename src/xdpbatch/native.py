"""Functions written once in Python and run twice: as they stand, and compiled to native code.

Analogous to a kernel helper's C function: `@native` marks it, all its parameters and its result
are 64-bit signed integers (addresses included), and it may call other native functions and the
intrinsics of `mem`. In the interpreter it is called as the Python function it is; for native code
`jit.native` compiles it through numba and links its LLVM IR into the program's module.

Rules for such a function, so that both ways agree:
* only integers, `while`, `for i in range(...)`, `if`, and calls of native functions and intrinsics
  imported by name (`from xdpbatch.mem import load32`), never through a module;
* module constants are plain ints;
* numba's int64 arithmetic must not overflow: mask to 32 bits (`& 0xFFFFFFFF`) or use the wrapping
  intrinsics `mem.add64`, `mem.mul64`; compare unsigned 64-bit values with `mem.below`;
* a first parameter named `buff` is hidden: the lowering passes the current XdpBuff's address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import update_wrapper


class Native:
    """A native function: callable in Python; `python` is what `jit.native` compiles."""

    def __init__(self, python: Callable[..., int]) -> None:
        self.python = python
        self.symbol = f"{python.__module__.removeprefix('xdpbatch.')}.{python.__name__}"
        self.params = python.__code__.co_varnames[: python.__code__.co_argcount]
        update_wrapper(self, python)

    @property
    def takes_buff(self) -> bool:
        """Whether the hidden first argument, the current XdpBuff, is wanted."""
        return bool(self.params) and self.params[0] == "buff"

    def __call__(self, *args: int) -> int:
        return self.python(*args)

    def __repr__(self) -> str:
        return f"<native {self.symbol}({', '.join(self.params)})>"


class Intrinsic(Native):
    """A native function whose code `jit.native` emits itself, by its symbol's last part."""


def native(python: Callable[..., int]) -> Native:
    """Mark a Python function as native."""
    return Native(python)


def intrinsic(python: Callable[..., int]) -> Intrinsic:
    """Mark a Python function as the definition of an intrinsic."""
    return Intrinsic(python)


class Hidden(Enum):
    """An argument of a native call that no BPF register holds."""

    BUFF = auto()  # address of the current XdpBuff


@dataclass(frozen=True, slots=True)
class Reg:
    """An argument that is a BPF register."""

    number: int


@dataclass(frozen=True, slots=True)
class Field:
    """An argument that is a u32 field at `offset` of the map whose address is in a register."""

    register: int
    offset: int


Argument = Reg | Field | Hidden | int


@dataclass(frozen=True, slots=True)
class NativeCall:
    """A call of `function` with one Argument per parameter; the result goes to r0.

    An int argument is a constant, so that geometry (key size, capacity) folds after inlining.
    r1-r5 are undefined afterwards, as after any BPF call.
    """

    function: Native
    arguments: tuple[Argument, ...]

    def parameter(self, name: str) -> int | None:
        """The index of the function's parameter of that name."""
        params = self.function.params
        return params.index(name) if name in params else None
