"""Helpers: one file per helper, each with its prototype and its one definition.

Analogous to `struct bpf_func_proto` (include/linux/bpf.h) beside the BPF_CALL it describes. A
module helpers/NAME.py defines `HELPER = Helper(...)`; `helpers()` finds it by scanning the
package: adding a helper touches one file. The verifier reads the prototype, `rewrite.calls` and
the interpreter call `native`, or the map type's own function where `op` says so.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

from xdpbatch.native import Native


class Arg(Enum):
    """What an argument must be: enum bpf_arg_type."""

    ANYTHING = auto()  # any initialised value
    DONTCARE = auto()  # whatever the register holds, also if it was never written
    CTX = auto()
    CONST_MAP_PTR = auto()
    MAP_KEY = auto()  # readable memory of the map's key size
    MAP_VALUE = auto()  # readable memory of the map's value size
    UNINIT_MAP_VALUE = auto()  # writable memory of the map's value size
    MEM = auto()  # readable memory, its size is the next argument
    MEM_OR_NULL = auto()
    UNINIT_MEM = auto()  # memory that the helper writes, its size is the next argument
    INOUT_MEM = auto()  # memory that the helper reads and writes, its size is the next argument
    CONST_SIZE = auto()  # a bounded number > 0
    CONST_SIZE_OR_ZERO = auto()
    CONST_ALLOC_SIZE = auto()  # a constant: the size of the memory that is returned
    ALLOC_MEM = auto()  # memory from ringbuf_reserve; the call gives it back
    CONST_STR = auto()  # pointer into a read-only map, NUL-terminated
    FIXED_MEM = auto()  # writable memory of `Helper.fixed_size` bytes (struct bpf_fib_lookup, u32)
    STRUCT = auto()  # readable memory of `Helper.sizes` at this argument's place
    FUNC = auto()  # a callback, LD_IMM64 with src PSEUDO_FUNC
    STACK_OR_NULL = auto()  # callback context
    SPIN_LOCK = auto()
    TIMER = auto()
    DYNPTR = auto()
    SOCK = auto()


class Ret(Enum):
    """What a helper returns: enum bpf_return_type."""

    INTEGER = auto()
    VOID = auto()
    MAP_VALUE_OR_NULL = auto()
    ALLOC_MEM_OR_NULL = auto()  # acquires a reference
    SOCK_OR_NULL = auto()  # acquires a reference
    SOCK_COMMON_OR_NULL = auto()  # acquires a reference; not every field is there


@dataclass(frozen=True, slots=True)
class Helper:
    """The prototype of one helper. `maps` are the kernel numbers of the map types it takes."""

    id: int
    name: str  # without bpf_
    args: tuple[Arg, ...]
    ret: Ret
    native: Native | None = None  # parameters: [buff], then one per argument
    op: str = ""  # instead of `native`: the MapType attribute that does the work ("lookup", …)
    params: tuple[str, ...] = ()  # with `op`: the operation's parameter for each of `args`
    maps: frozenset[int] | None = None
    changes_packet: bool = False  # packet pointers are invalid afterwards
    gpl: bool = False
    fixed_size: int = 0
    sizes: tuple[int, ...] = ()  # bytes of STRUCT arguments, by place
    releases: int | None = None  # index of the argument whose reference is given back
    needs: str = ""  # what it needs besides the program, in words; see `xdpbatch features`


@cache
def helpers() -> dict[int, Helper]:
    """Every helper of this runtime, by number."""
    found: dict[int, Helper] = {}
    for module in pkgutil.iter_modules(__path__):
        one: Helper | None = getattr(
            importlib.import_module(f"{__name__}.{module.name}"), "HELPER", None
        )
        if one is not None:
            found[one.id] = one
    return found
