"""XdpBuff and what hangs off it: the structs that compiled programs and the poll loop share.

XdpBuff is `struct xdp_buff` of Linux 5.3 as the slides extend it (`act` at 0x30, sizeof 0x38); its
4 bytes of padding hold `target`. Rxq is `struct xdp_rxq_info` plus what the kernel keeps per CPU:
one per queue and thread, so that a program with an XdpBuff has everything. Redirect is `struct
bpf_redirect_info`, but one per packet instead of one per CPU: a batch keeps every target.
"""

from __future__ import annotations

from xdpbatch.data.layout import Layout

XDP_BUFF = Layout(
    "XdpBuff",
    {
        "data": "u64",
        "data_end": "u64",
        "data_meta": "u64",  # > data: metadata not supported (xdp_set_data_meta_invalid)
        "data_hard_start": "u64",
        "handle": "u64",  # address of the frame in the Umem
        "rxq": "u64",
        "act": "u32",  # the program's r0, unchecked
        "target": "u32",  # index into Rxq.redirects; 0: no redirect helper was called
    },
    56,
)
DATA, DATA_END, DATA_META, DATA_HARD_START = 0, 8, 16, 24
HANDLE, RXQ, ACT, TARGET = 32, 40, 48, 52
SIZEOF_XDP_BUFF = 56

RXQ_INFO = Layout(
    "Rxq",
    {
        "ifindex": "u32",
        "queue_index": "u32",
        "egress_ifindex": "u32",
        "cpu": "u32",
        "frame_size": "u32",  # data_hard_end = data_hard_start + frame_size - SKB_SHARED_INFO
        "tail_calls": "u32",  # made by the current packet; reset by the trampoline
        "redirect_count": "u32",  # records in use; reset by the poll loop for each batch
        "hz": "u32",
        "redirects": "u64",  # address of Redirect[batch capacity + 1]; record 0 is not used
        "trace": "u64",  # address of the trace_printk ring, 0: lines are dropped
        "random": "u64",  # state of get_prandom_u32
        "clock": "u64",  # nanoseconds for every clock helper; 0: the machine's own clocks
        "stamps": "u64",  # not 0: every clock helper says when the packet was received; STAMPs,
        "stamp_mask": "u64",  # of which packet i has number (first + i) & mask,
        "first": "u64",  # `first` being the u32 at this address
        "batch": "u64",  # and i counted from the XdpBuff at this address
        "stage": "u64",  # packets that a trampoline of adaptive staging stages at a time; 0: none
        "host": "u64",  # address of host.layout.TABLES, what is known of the host; 0: nothing
        **{f"scratch{i}": "u64" for i in range(4)},  # for keys that helpers put together
        "secret": "u64",  # key of SYN cookies
        **{f"reserved{i}": "u64" for i in range(5)},
    },
    192,
)
RXQ_IFINDEX, RXQ_QUEUE_INDEX, RXQ_EGRESS_IFINDEX, RXQ_CPU = 0, 4, 8, 12
RXQ_FRAME_SIZE, RXQ_TAIL_CALLS, RXQ_REDIRECT_COUNT, RXQ_HZ = 16, 20, 24, 28
RXQ_REDIRECTS, RXQ_TRACE, RXQ_RANDOM, RXQ_CLOCK = 32, 40, 48, 56
RXQ_STAMPS, RXQ_STAMP_MASK, RXQ_FIRST, RXQ_BATCH = 64, 72, 80, 88
RXQ_STAGE, RXQ_HOST, RXQ_SCRATCH, RXQ_SECRET = 96, 104, 112, 144

REDIRECT = Layout(
    "Redirect",
    {
        "map_type": "u32",  # 0: bpf_redirect() by ifindex; else BPF_MAP_TYPE_*
        "index": "u32",  # ifindex, or the map key
        "flags": "u64",
        "map": "u64",  # address of the map
        "value": "u64",  # address of the entry's value when the helper ran; 0 for broadcast
    },
    32,
)
REDIRECT_MAP_TYPE, REDIRECT_INDEX, REDIRECT_FLAGS, REDIRECT_MAP, REDIRECT_VALUE = 0, 4, 8, 16, 24
SIZEOF_REDIRECT = 32

XDP_PACKET_HEADROOM = 256  # include/uapi/linux/bpf.h
SKB_SHARED_INFO = 320  # SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) on 64-bit Linux
SIZEOF_XDP_FRAME = 40  # sizeof(struct xdp_frame): adjust_head must leave room for it
PAGE_FRAME = 4096  # frame size of BPF_PROG_TEST_RUN; the longest linear packet is then
MAX_LINEAR = PAGE_FRAME - XDP_PACKET_HEADROOM - SKB_SHARED_INFO  # 3520 bytes


def _check(layout: Layout, prefix: str) -> None:
    """The constants above are what the layouts say: checked at every import."""
    for field in layout.fields:
        constant = globals().get(f"{prefix}{field.upper()}")
        if constant is not None and constant != layout.offset(field):
            raise AssertionError(f"{prefix}{field.upper()} is not at {layout.offset(field)}")


_check(XDP_BUFF, "")
_check(RXQ_INFO, "RXQ_")
_check(REDIRECT, "REDIRECT_")
