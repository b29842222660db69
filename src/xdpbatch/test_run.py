"""Packets set up for a program as BPF_PROG_TEST_RUN sets them up, in this process.

Analogous to bpf_prog_test_run_xdp() of net/bpf/test_run.c: each packet lies in a zeroed page behind
256 bytes of headroom, seems to come from queue 0 of the loopback, and is read back from data_meta
to data_end. Here a whole batch of them lies ready, so that the same packets can go through any
backend in any batch size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xdpbatch.context import LOOPBACK, Context, Source
from xdpbatch.data.buff import (
    MAX_LINEAR,
    PAGE_FRAME,
    REDIRECT,
    RXQ_INFO,
    SIZEOF_XDP_BUFF,
    XDP_BUFF,
    XDP_PACKET_HEADROOM,
)
from xdpbatch.data.layout import address_of, aligned, bytes_at
from xdpbatch.data.port import STAMP

SEED = 0x5EED


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a program's last redirect helper pointed: an ifindex (map_type 0) or a map's entry."""

    map_type: int
    index: int
    flags: int


NOT_TOLD = Redirect(-1, 0, 0)  # the kernel's test run does not say where a redirect points


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one packet came to: the verdict, its bytes (the first `meta` are metadata), a target."""

    verdict: int
    data: bytes
    meta: int = 0
    redirect: Redirect | None = None


class Bench:
    """`capacity` XdpBuffs over frames of a page, on one queue.

    `context` is what programs find beside the packet. Without one, `clock` is what every clock
    helper says, in nanoseconds; 0 is the machine's own time.
    """

    def __init__(
        self,
        capacity: int,
        clock: int = 0,
        ifindex: int = LOOPBACK,
        queue: int = 0,
        context: Context | None = None,
    ) -> None:
        self.capacity = capacity
        self.frames = aligned(capacity * PAGE_FRAME)
        self.buffs = XDP_BUFF.array(capacity)
        self.redirects = REDIRECT.array(capacity + 1)
        self.rxq = RXQ_INFO.array(1)
        self.address = address_of(self.buffs)
        self.rxq["ifindex"], self.rxq["queue_index"] = ifindex, queue
        self.rxq["frame_size"], self.rxq["hz"] = PAGE_FRAME, 1000
        self.rxq["redirects"] = address_of(self.redirects)
        self.rxq["random"], self.rxq["clock"] = SEED, clock
        self.buffs["rxq"] = address_of(self.rxq)
        self.meta = b""
        if context is not None:
            self._set(context)

    def _set(self, context: Context) -> None:
        rxq = self.rxq
        self._context = context  # its host must live
        rxq["host"], rxq["secret"] = context.host_address, context.secret
        rxq["ifindex"], rxq["queue_index"] = context.ifindex, context.rx_queue
        rxq["egress_ifindex"], rxq["hz"] = context.egress_ifindex, context.hz
        rxq["clock"] = context.clock.ns
        rxq["random"] = context.random_state if context.seed else SEED
        self.meta = context.meta
        if context.clock.source is Source.CAPTURE:
            self._first = np.zeros(1, dtype="<u4")
            self.stamps = STAMP.array(1 << (self.capacity - 1).bit_length())
            rxq["stamps"], rxq["stamp_mask"] = address_of(self.stamps), len(self.stamps) - 1
            rxq["first"], rxq["batch"] = address_of(self._first), self.address

    def buff(self, i: int) -> int:
        """Address of XdpBuff i."""
        return self.address + i * SIZEOF_XDP_BUFF

    def fill(self, packets: Sequence[bytes]) -> int:
        """Put packets of at most MAX_LINEAR bytes into the first frames; how many there are."""
        count = len(packets)
        self.frames[: count * PAGE_FRAME] = 0
        hard_start = address_of(self.frames) + PAGE_FRAME * np.arange(count, dtype=np.uint64)
        start = hard_start + np.uint64(XDP_PACKET_HEADROOM)
        lengths = np.fromiter(map(len, packets), dtype=np.uint64, count=count)
        if count and int(lengths.max()) > MAX_LINEAR:
            raise ValueError(f"a packet has more than {MAX_LINEAR} bytes")
        used = self.buffs[:count]
        used["data_hard_start"] = used["handle"] = hard_start
        used["data"] = used["data_meta"] = start
        used["data_end"] = start + lengths
        used["act"] = used["target"] = 0
        if self.meta:
            used["data_meta"] = start - np.uint64(len(self.meta))
            for at in used["data_meta"].tolist():
                ctypes.memmove(at, self.meta, len(self.meta))
        self.rxq["redirect_count"] = self.rxq["tail_calls"] = 0
        for at, packet in zip(start.tolist(), packets, strict=True):
            ctypes.memmove(at, packet, len(packet))
        return count

    def outcome(self, i: int, verdict: int | None = None) -> Outcome:
        """What packet i came to. `verdict` if it was returned instead of written to `act`."""
        one = self.buffs[i]
        data, end, meta = int(one["data"]), int(one["data_end"]), int(one["data_meta"])
        first = min(data, meta)
        return Outcome(
            int(one["act"]) if verdict is None else verdict,
            bytes_at(first, end - first),
            data - first,
            self._redirect(int(one["target"])),
        )

    def _redirect(self, target: int) -> Redirect | None:
        if not target:
            return None
        record = self.redirects[target]
        return Redirect(int(record["map_type"]), int(record["index"]), int(record["flags"]))
