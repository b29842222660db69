"""Backends: a module jit/NAME.py with `compile(xlated) -> Compiled`; found by name."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Compiled:
    """Native code of one program in one layout.

    `address` is a C function: `u64 f(XdpBuff *buff)` for SINGLE, `u64 f(XdpBuff *buffs, u64 n)`
    for BATCH and POC, and with Results.ARRAY `u64 f(XdpBuff *buffs, u32 *results, u64 n)`.
    `owner` keeps the code mapped.
    """

    backend: str
    name: str
    address: int
    size: int  # bytes of machine code
    owner: object = field(repr=False)
