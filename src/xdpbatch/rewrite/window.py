"""The part of a trampoline that stages a batch: for each window of packets, passes of the slice.

Analogous to nothing in Linux; see rewrite.slice and rewrite.stage. The packets themselves run
unchanged and in order afterwards, so a slice that guessed wrong has prefetched in vain, no more.

    epilogue            ...
                        if current != limit goto body
      next              if current == end goto done
                        first = current; limit = min(first + 56 * window, end)
                        for pass in 0 .. passes - 1:
                            for each packet from first to limit:
                                current->act = pass; slice(current)
                            if none of them, or none of the first 8, is WAITING: break
                        current = first
                        goto body
      done              r0 = 0
                        exit
"""

from __future__ import annotations

from dataclasses import replace

from xdpbatch.data.buff import ACT, RXQ, RXQ_STAGE, SIZEOF_XDP_BUFF
from xdpbatch.isa import BPF_CALL, CALL, Insn
from xdpbatch.rewrite.form import ADAPTIVE
from xdpbatch.rewrite.patch import Code, goto, written
from xdpbatch.rewrite.stage import WAITING

BODY = 0  # the instruction that a packet starts at
PROBE = 8  # packets of a window by which a pass is judged; a guess, as all prefetching is
SLOTS = 40  # bytes of the main function's frame


def appended(code: Code, slices: Code) -> Code:
    """`code` with the slice's functions after its own."""
    by = len(code.insns)
    moved = tuple(
        insn if insn.target is None else replace(insn, target=insn.target + by)
        for insn in slices.insns
    )
    functions = tuple(
        replace(s, name=f"slice.{s.name}", start=s.start + by, end=s.end + by)
        for s in slices.subprogs
    )
    depths = (*code.stack_depth, *slices.stack_depth)
    return Code(code.insns + moved, code.subprogs + functions, depths)


def windows(
    passes: int, window: int, slice_start: int, base: int, current: int, end: int
) -> list[Insn]:
    """The code from `next` on, r1 being `current`; it goes to the program's body, instruction 0.

    `base` is the lowest slot of the frame in use; `current` and `end` are slots of the trampoline.
    """
    first, passed, reached = -base + 16, -base + 24, -base + 32
    limit, probe = -limit_slot(base), -base + 40
    code = written(f"""
            r2 = *(u64 *)(r10 - {-end})
            if r1 == r2 goto done
            {_size(window)}
            r3 += r1
            if r3 <= r2 goto whole
            r3 = r2
        whole:
            *(u64 *)(r10 - {limit}) = r3
            *(u64 *)(r10 - {first}) = r1
            r2 = r1
            r2 += {PROBE * SIZEOF_XDP_BUFF}
            *(u64 *)(r10 - {probe}) = r2
            r2 = 0
            *(u64 *)(r10 - {passed}) = r2
        again:
            r2 = 0
            *(u64 *)(r10 - {reached}) = r2
        packet:
            r2 = *(u64 *)(r10 - {passed})
            *(u32 *)(r1 + {ACT}) = r2
            call 1                                   ; the slice
            r1 = *(u64 *)(r10 - {-current})
            r2 = *(u32 *)(r1 + {ACT})
            if r2 != {WAITING} goto over
            *(u64 *)(r10 - {reached}) = r1
        over:
            r1 += {SIZEOF_XDP_BUFF}
            *(u64 *)(r10 - {-current}) = r1
            r2 = *(u64 *)(r10 - {probe})
            if r1 != r2 goto more
            r2 = *(u64 *)(r10 - {reached})
            if r2 == 0 goto enough
        more:
            r2 = *(u64 *)(r10 - {limit})
            if r1 != r2 goto packet
            r1 = *(u64 *)(r10 - {first})
            *(u64 *)(r10 - {-current}) = r1
            r2 = *(u64 *)(r10 - {passed})
            r2 += 1
            *(u64 *)(r10 - {passed}) = r2
            if r2 == {passes} goto run
            r2 = *(u64 *)(r10 - {reached})
            if r2 != 0 goto again
            goto run
        done:
            r0 = 0
            exit
        enough:
            r1 = *(u64 *)(r10 - {first})
            *(u64 *)(r10 - {-current}) = r1
            goto run
        plain:
            *(u64 *)(r10 - {limit}) = r2
        run:
    """)
    slice_call = Insn(CALL, src=BPF_CALL, target=slice_start)
    return [*(slice_call if insn.op == CALL else insn for insn in code), goto(BODY)]


def limit_slot(base: int) -> int:
    """Where the end of the window is, `base` being the lowest slot in use."""
    return base - 8


def _size(window: int) -> str:
    """r3 = bytes of a window's XdpBuffs; if there is to be none, all packets are run plainly."""
    if window != ADAPTIVE:
        return f"r3 = {window * SIZEOF_XDP_BUFF}"
    return f"""
            r3 = *(u64 *)(r1 + {RXQ})
            r3 = *(u64 *)(r3 + {RXQ_STAGE})
            if r3 == 0 goto plain
            r3 *= {SIZEOF_XDP_BUFF}
    """
