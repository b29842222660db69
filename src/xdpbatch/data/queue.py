"""A queue: one port's receive side with its array of XdpBuffs, and all that a poll needs.

Analogous to a driver's per-queue structure (i40e_ring, veth_rq) with the slides' array of 64
xdp_buffs at ring set-up. One thread owns a queue, its port, its Umem and its port table.
"""

from __future__ import annotations

import numpy as np

from xdpbatch.data import buff
from xdpbatch.data.layout import Layout, address_of, aligned
from xdpbatch.data.port import PortTable
from xdpbatch.data.stats import Stats
from xdpbatch.mem import store_release32

QUEUE = Layout(
    "Queue",
    {
        "port": "u64",
        "batch": "u64",  # address of XdpBuff[batch_size + 1]; the last is spare
        "rxq": "u64",  # address of the Rxq that every XdpBuff points to
        "stats": "u64",
        "table": "u64",  # where redirects find their target
        "stack": "u64",  # the port that XDP_PASS goes to
        "sorted": "u64",  # address of u64[batch_size]: XdpBuffs in the order of their actions
        "unsorted": "u64",  # u64[batch_size + 1]: all in packet order, written once
        "recorder": "u64",  # a RECORDER, or 0
        "pending": "u64",  # first port with descriptors that were not submitted
        "redirects": "u64",  # address of Redirect[batch_size + 1]
        "umem": "u64",  # the port's
        "batch_size": "u32",
        "stop": "u32",  # not 0: `run` returns after the current batch
        "first": "u32",  # index in the rx ring of the batch's first packet
        "flush_each": "u32",  # one by one: 1 flushes after every packet, 0 after every poll
        "meta": "u64",  # address of bytes to put in front of every packet, or 0
        "meta_size": "u64",
    },
    128,
)
PORT, BATCH, RXQ, STATS, TABLE, STACK = range(0, 48, 8)
SORTED, UNSORTED, RECORDER, PENDING, REDIRECTS, UMEM = range(48, 96, 8)
BATCH_SIZE, STOP, FIRST, FLUSH_EACH, META, META_SIZE = 96, 100, 104, 108, 112, 120
MAX_BATCH = 4095  # `split` counts five actions in 12 bits each

for _field in ("umem", "stop", "first", "flush_each", "recorder", "unsorted", "meta"):
    if QUEUE.offset(_field) != globals()[_field.upper()]:
        raise AssertionError(f"QUEUE.{_field} is not at {globals()[_field.upper()]}")


class Queue:
    """The memory of one queue; `address` is its QUEUE, `words` the same for numpy.

    `port`, `stack` and the recorder are addresses of structs that must outlive the queue.
    """

    def __init__(self, port: int, umem: int, stack: int, table: PortTable, batch_size: int) -> None:
        if not 1 <= batch_size <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} packets, not {batch_size}")
        self.batch_size = batch_size
        self.stats = Stats()
        self.table = table
        self.buffs = buff.XDP_BUFF.array(batch_size + 1)
        self.redirects = buff.REDIRECT.array(batch_size + 1)
        self.rxq = buff.RXQ_INFO.array(1)
        self.words = QUEUE.array(1)
        self.address = address_of(self.words)
        self.rxq["frame_size"] = buff.PAGE_FRAME
        self.rxq["redirects"] = address_of(self.redirects)
        self.buffs["rxq"] = address_of(self.rxq)
        self._unsorted = aligned(8 * (batch_size + 1)).view("<u8")
        every = np.arange(batch_size + 1) * buff.SIZEOF_XDP_BUFF
        self._unsorted[:] = address_of(self.buffs) + every
        self._sorted = aligned(8 * batch_size)
        for field, value in {
            "port": port,
            "batch": address_of(self.buffs),
            "rxq": address_of(self.rxq),
            "stats": self.stats.address,
            "table": table.address,
            "stack": stack,
            "sorted": address_of(self._sorted),
            "unsorted": address_of(self._unsorted),
            "redirects": address_of(self.redirects),
            "umem": umem,
            "batch_size": batch_size,
        }.items():
            self.words[field] = value

    def record(self, recorder: int) -> None:
        """Show every packet to the recorder whose RECORDER_STATE is at an address."""
        self.words["recorder"] = recorder

    def prepend(self, metadata: bytes) -> None:
        """Put metadata in front of every packet from now on."""
        self._metadata = np.frombuffer(metadata, dtype=np.uint8).copy()
        self.words["meta"] = address_of(self._metadata) if metadata else 0
        self.words["meta_size"] = len(metadata)

    def tell_times(self, stamps: int, mask: int) -> None:
        """Let clock helpers say when a packet was received: the STAMPs of the port's rx ring."""
        self.rxq["stamps"], self.rxq["stamp_mask"] = stamps, mask
        self.rxq["first"], self.rxq["batch"] = self.address + FIRST, address_of(self.buffs)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return bool(self.words["stop"][0])

    def stop(self) -> None:
        """Let `run` return after the batch it is at; callable from any thread."""
        store_release32(self.address + STOP, 1)
