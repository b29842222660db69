"""The collector: verdict and bytes of every packet after the program, in memory.

Analogous to what BPF_PROG_TEST_RUN hands back (retval, data_out), for a whole run. It is a recorder
whose Python side gathers arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xdpbatch.data.buff import ACT, DATA, DATA_END, SIZEOF_XDP_BUFF
from xdpbatch.data.code import Code
from xdpbatch.data.layout import Layout, address_of, aligned
from xdpbatch.data.queue import BATCH, RECORDER
from xdpbatch.data.recorder import BUFFER, PACKETS, RECORDER_OWN, RECORDER_STATE, USED
from xdpbatch.data.umem import HARD_END
from xdpbatch.mem import copy, load32, load64, store32, store64
from xdpbatch.native import native

RESULT = Layout("Result", {"act": "u32", "length": "u32"}, 8)
RESULTS = RECORDER_OWN  # address of RESULT[], as many as the buffer can hold packets of no bytes
SIZEOF_RESULT = 8
_BUFFER = 1 << 20  # bytes of packets between two drains

Array = np.ndarray[Any, np.dtype[Any]]


@native
def collect(queue: int, n: int) -> int:
    """Note verdict and bytes of the first `n` XdpBuffs; each packet takes a multiple of 8 bytes."""
    recorder, batch = load64(queue + RECORDER), load64(queue + BATCH)
    packets, used = load64(recorder + PACKETS), load64(recorder + USED)
    for i in range(n):
        buff = batch + i * SIZEOF_XDP_BUFF
        data = load64(buff + DATA)
        length = load64(buff + DATA_END) - data
        result = load64(recorder + RESULTS) + (packets + i) * SIZEOF_RESULT
        store32(result, load32(buff + ACT))
        store32(result + 4, length)
        copy(load64(recorder + BUFFER) + used, data, length)
        used += (length + 15) & ~7  # never 0, so that USED bounds the results too
    store64(recorder + PACKETS, packets + n)
    return store64(recorder + USED, used)


class Collector:
    """Gathers results. `address` is its RECORDER_STATE; `actions`, `packets` are for afterwards."""

    recorder = collect

    def __init__(self, batch_size: int) -> None:
        room = batch_size * (HARD_END + 16)
        self._buffer = aligned(_BUFFER + room)
        self._results = RESULT.array(len(self._buffer) // 8 + 1)
        self._state = RECORDER_STATE.array(1)
        self.address = address_of(self._state)
        self._state["buffer"], self._state["limit"] = address_of(self._buffer), _BUFFER
        self._state["own0"] = address_of(self._results)
        self._bytes: list[Array] = []
        self._parts: list[Array] = []

    def install(self, code: Code) -> None:
        """Hand in the code of `recorder`; `code` must outlive the collector."""
        self._state["code"] = code.address(self.recorder)

    def drain(self) -> None:
        """Move what was collected out of the way of the next batch."""
        used, packets = int(self._state["used"][0]), int(self._state["packets"][0])
        self._state["used"] = self._state["packets"] = 0
        if packets:
            self._bytes.append(self._buffer[:used].copy())
            self._parts.append(self._results[:packets].copy())

    @property
    def actions(self) -> Array:
        """u32 per packet: what the program returned, unchecked."""
        return self._all()["act"]

    @property
    def packets(self) -> list[Array]:
        """u8[length] per packet: its bytes after the program; views of shared memory."""
        data = np.concatenate(self._bytes) if self._bytes else np.zeros(0, dtype=np.uint8)
        lengths = self._all()["length"].astype(np.int64)
        ends = np.cumsum((lengths + 15) & ~7)
        starts = ends - ((lengths + 15) & ~7)
        return [data[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]

    def _all(self) -> Array:
        return np.concatenate(self._parts) if self._parts else RESULT.array(1)[:0]
