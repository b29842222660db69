"""Python behind the native signature, so that the poll loop can call a judge like any backend.

Analogous to a BPF program that is interpreted although the driver calls it by pointer. Slow by
nature (a Python call for each packet): for the interpreter and the running kernel only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from xdpbatch.data.buff import ACT, SIZEOF_XDP_BUFF
from xdpbatch.mem import store32
from xdpbatch.uapi import Action

SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


class PerPacket:
    """A C function `u64 f(XdpBuff *buffs, u64 n)` at `address` that calls `run(buff)` n times.

    An exception cannot pass through C: the first one is kept, every later packet is XDP_ABORTED,
    and `check()` raises it. The object must outlive every use of the address.
    """

    def __init__(self, run: Callable[[int], int]) -> None:
        self.run = run
        self.error: BaseException | None = None
        self._function = SIGNATURE(self._batch)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def check(self) -> None:
        """Raise what went wrong since the last check."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _batch(self, buffs: int, count: int) -> int:
        for buff in range(buffs, buffs + count * SIZEOF_XDP_BUFF, SIZEOF_XDP_BUFF):
            store32(buff + ACT, self._one(buff))
        return 0

    def _one(self, buff: int) -> int:
        if self.error is not None:
            return Action.XDP_ABORTED
        try:
            return self.run(buff)
        except BaseException as error:
            self.error = error
            return Action.XDP_ABORTED
