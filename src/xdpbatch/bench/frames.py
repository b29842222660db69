"""A program and its call alone: packets lie ready in frames with XdpBuffs, only the program runs.

Analogous to the inner loop of BPF_PROG_TEST_RUN (bpf_test_run(), net/bpf/test_run.c), in native
code and over many packets. The frames are a Umem's, with its own distance from frame to frame. By
default there are as many as a driver's queue has (256), warm in the cache; the same packets come
again and again in the same order, so the branch predictor learns them: what a program costs when
they are neither warm nor learned is in the whole poll, and in a sweep over --packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from xdpbatch.bench.method import Sample, enough, timed
from xdpbatch.data.buff import (
    ACT,
    PAGE_FRAME,
    REDIRECT,
    RXQ,
    RXQ_INFO,
    RXQ_REDIRECT_COUNT,
    RXQ_TAIL_CALLS,
    SIZEOF_XDP_BUFF,
    XDP_BUFF,
    XDP_PACKET_HEADROOM,
)
from xdpbatch.data.code import caller
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.data.umem import STRIDE, Umem
from xdpbatch.errors import XdpBatchError
from xdpbatch.jit.native import compile_native
from xdpbatch.mem import call1, call2, copy, load64, store32, store64
from xdpbatch.native import native

PACKETS = 256  # the frames of a driver's queue
HEAD = 128  # bytes of a packet that are put back after a program has changed them
_FRAME = STRIDE


@native
def batched(prog: int, buffs: int, n: int, size: int) -> int:
    """`n` packets in batches of `size`: what a driver does per batch, and the call."""
    rxq = load64(buffs + RXQ)
    at = 0
    while at < n:
        store32(rxq + RXQ_REDIRECT_COUNT, 0)
        call2(prog, buffs + at * SIZEOF_XDP_BUFF, min(size, n - at))
        at += size
    return n


@native
def one_by_one(prog: int, buffs: int, n: int) -> int:
    """`n` packets, each by a call through a pointer."""
    rxq = load64(buffs + RXQ)
    for i in range(n):
        buff = buffs + i * SIZEOF_XDP_BUFF
        store64(rxq + RXQ_TAIL_CALLS, 0)  # and redirect_count
        store32(buff + ACT, call1(prog, buff))
    return n


@native
def restore(buffs: int, frames: int, kept_buffs: int, kept_heads: int, n: int) -> int:
    """Put packets and XdpBuffs back as they were."""
    copy(buffs, kept_buffs, n * SIZEOF_XDP_BUFF)
    for i in range(n):
        copy(frames + i * _FRAME + XDP_PACKET_HEADROOM, kept_heads + i * HEAD, HEAD)
    return n


@native
def passes(
    prog: int, buffs: int, n: int, size: int, frames: int, kept_buffs: int, kept_heads: int,
    times: int,
) -> int:  # fmt: skip
    """All packets `times` times; `size` 0: one by one; `prog` 0: nothing runs.

    With `frames` not 0, packets are put back before each pass.
    """
    for _ in range(times):
        if frames != 0:
            restore(buffs, frames, kept_buffs, kept_heads, n)
        if prog != 0 and size != 0:
            batched(prog, buffs, n, size)
        elif prog != 0:
            one_by_one(prog, buffs, n)
    return n * times


class Frames:
    """Packets of at most 3520 bytes, ready to be run. Cases over the same Frames share them."""

    def __init__(self, packets: Iterable[bytes], count: int = PACKETS) -> None:
        """The first `count` of `packets`; all if there are fewer. Raises XdpBatchError for none."""
        taken = list(islice(packets, count))
        if not taken:
            raise XdpBatchError.of("no-packets", "there is no packet to measure with")
        self.count = len(taken)
        self.packets = taken
        self.umem = Umem(self.count)
        self.buffs = XDP_BUFF.array(self.count)
        self.rxq = RXQ_INFO.array(1)
        self._redirects = REDIRECT.array(self.count + 1)
        self.rxq["ifindex"], self.rxq["frame_size"], self.rxq["random"] = 1, PAGE_FRAME, 1
        self.rxq["redirects"] = address_of(self._redirects)
        for i, packet in enumerate(taken):
            at = slice(XDP_PACKET_HEADROOM, XDP_PACKET_HEADROOM + len(packet))
            self.umem.area[i, at] = np.frombuffer(packet, dtype=np.uint8)
        frames = address_of(self.umem.area) + _FRAME * np.arange(self.count, dtype=np.uint64)
        lengths = np.fromiter(map(len, taken), dtype=np.uint64, count=self.count)
        self.buffs["data_hard_start"] = frames
        self.buffs["handle"] = frames - np.uint64(address_of(self.umem.area))
        self.buffs["data"] = self.buffs["data_meta"] = frames + np.uint64(XDP_PACKET_HEADROOM)
        self.buffs["data_end"] = self.buffs["data"] + lengths
        self.buffs["rxq"] = address_of(self.rxq)
        self._kept_buffs = self.buffs.copy()
        at = slice(XDP_PACKET_HEADROOM, XDP_PACKET_HEADROOM + HEAD)
        self._kept_heads = aligned(HEAD * self.count)
        self._kept_heads[:] = self.umem.area[:, at].ravel()
        self._code = compile_native(passes)
        self._run = caller(self._code, passes)

    def run(self, prog: int, size: int, times: int, *, restoring: bool) -> int:
        """Run the program at `prog` over all packets (see `passes`); how many that were."""
        return int(
            self._run(
                *(prog, address_of(self.buffs), self.count, size),
                address_of(self.umem.area) if restoring else 0,
                *(address_of(self._kept_buffs), address_of(self._kept_heads), times),
            )
        )

    @property
    def kept(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The XdpBuffs and the first HEAD bytes of each packet, as they were."""
        return self._kept_buffs, self._kept_heads

    def restore(self) -> None:
        """Put packets and XdpBuffs back as they were."""
        self.run(0, 0, 1, restoring=True)

    def verdicts(self, prog: int, size: int) -> dict[int, int]:
        """How many packets get which verdict in one run; everything is put back before it."""
        self.restore()
        self.run(prog, size, 1, restoring=False)
        values, counts = np.unique(self.buffs["act"], return_counts=True)
        return dict(zip(map(int, values), map(int, counts), strict=True))

    def must_restore(self, prog: int, size: int = 0) -> bool:
        """Whether a second run over packets as the first one left them comes to something else."""
        self.restore()
        self.run(prog, size, 1, restoring=False)
        first = self.buffs[["act", "data", "data_end"]].copy()
        moved = not bool((self._kept_buffs["data"] == first["data"]).all())
        self.run(prog, size, 1, restoring=False)
        differs = not bool((self.buffs[["act", "data", "data_end"]] == first).all())
        self.restore()
        return moved or differs


class Alone:
    """The program at an address over Frames: `size` packets per call, 0 for one by one.

    What putting packets back costs is measured in the same turn and taken off.
    """

    def __init__(self, frames: Frames, prog: int, size: int, owner: object = None) -> None:
        self._frames, self._prog, self._size, self._owner = frames, prog, size, owner
        self.restoring = frames.must_restore(prog, size)
        self._times = enough(lambda n: self._pass(prog, n))

    def turn(self) -> Sample:
        """Some milliseconds."""
        whole = timed(lambda: self._pass(self._prog, self._times))
        if not self.restoring:
            return whole
        return whole - timed(lambda: self._pass(0, self._times))

    def _pass(self, prog: int, times: int) -> int:
        return self._frames.run(prog, self._size, times, restoring=self.restoring)
