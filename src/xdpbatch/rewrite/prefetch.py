"""Prefetches for a trampoline: while packet i runs, the headers of packet i + k are fetched.

Analogous to the prefetch() calls of drivers, and the answer to question 1 of the slides: "prefetch
instruction in BPF assembly". Only the XdpBuff of a packet that is in the batch is looked at.

Before       After, with k = 4
  body:        body:
                 if there is no packet i + 4 goto none      ; the trampoline knows how
                 r2 = *(u64 *)(r1 + 224)                    ; its data
                 prefetch(r2 + 0)
               none:
    ...          ...
"""

from __future__ import annotations

from xdpbatch.data.buff import DATA, SIZEOF_XDP_BUFF
from xdpbatch.errors import UnsupportedError

LARGEST = 512  # packets ahead: the offset of a load has 16 bits


def headers(ahead: int, unless_there: str) -> str:
    """What comes first for each packet, r1 being its XdpBuff; r2 and r3 may be used.

    `unless_there` is a jump to `none`, taken if there is no packet `ahead` of this one.
    """
    if ahead == 0:
        return ""
    if not 0 < ahead <= LARGEST:
        raise UnsupportedError.of(
            "prefetch-distance",
            f"cannot prefetch {ahead} packets ahead",
            suggestion=f"--prefetch takes 0 (none) to {LARGEST}",
        )
    return f"""
            {unless_there}
            r2 = *(u64 *)(r1 + {ahead * SIZEOF_XDP_BUFF + DATA})
            prefetch(r2 + 0)
        none:
    """
