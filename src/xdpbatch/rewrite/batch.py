"""The trampoline: a program for one packet becomes a loop over an array of XdpBuffs.

This is the rewrite of the slides "How can we apply batching to XDP?" (docs/poc.md), between the
verifier and the JIT, with what a product needs more: n is an argument, every exit of the main
program goes to the epilogue, and the program's own frame does not move.

    program            r1 = XdpBuff           batched           r1 = XdpBuff[n], r2 = n
                                              prologue            if n == 0: return 0
                                                                  current = r1
                                                                  end = r1 + n * 56
      insn[0]                                 body                insn[0]
      ...                                                         ...
      exit                                                        goto epilogue
      ...                                                         ...
      exit                                    epilogue            current->act = r0
                                                                  r1 = current += 56
                                                                  if r1 != end goto body
                                                                  return 0

`current` and `end` are 16 aligned bytes below the frame of the main program, where no access of it
can reach: the verifier bounds them by its stack depth. Nothing of a packet is seen by the next one,
though r6-r9 and the stack are as the last packet left them: the verifier proves that a program
writes before it reads. Functions called by the main program are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdpbatch.data.buff import RXQ, RXQ_TAIL_CALLS, SIZEOF_XDP_BUFF
from xdpbatch.isa import EXIT, Class, Insn, Jmp, X
from xdpbatch.rewrite import Batched, Layout, Results, Xlated
from xdpbatch.rewrite.check import final
from xdpbatch.rewrite.patch import Code, Patch, expand, goto, later, slots, written
from xdpbatch.rewrite.prefetch import headers
from xdpbatch.rewrite.results import SLOT, arguments, put
from xdpbatch.rewrite.stage import Staged, staged
from xdpbatch.rewrite.window import SLOTS, appended, limit_slot, windows

NONE = Staged(None)
BODY = 0  # the index of the program's first instruction, before the prologue is put before it
RESET_TAIL_CALLS = f"""
    r2 = *(u64 *)(r1 + {RXQ})
    *(u32 *)(r2 + {RXQ_TAIL_CALLS}) = 0
"""


def batch(
    xlated: Xlated, *, results: Results = Results.BUFF, prefetch: int = 0, stage: int = 0
) -> Batched:
    """`xlated` inside the trampoline. 0 <= n; r0 is 0.

    `results`: where verdicts go. `prefetch`: how many packets ahead headers are fetched, 0: none.
    `stage`: how many packets are staged at a time (see rewrite.window), 0: none.
    """
    frame = (xlated.stack_depth[0] + 7) & -8
    current, end, array = -frame - 8, -frame - 16, -frame - 24
    base = -frame - 16 - SLOT[results]
    slices = staged(xlated.verified) if stage and xlated.verified else NONE
    prologue = written(f"""
            {arguments(results, array)}
            if r2 != 0 goto some
            r0 = 0
            exit
        some:
            *(u64 *)(r10 - {-current}) = r1
            r2 *= {SIZEOF_XDP_BUFF}
            r2 += r1
            *(u64 *)(r10 - {-end}) = r2
    """)
    beyond = f"""
            r2 = r1
            r2 += {prefetch * SIZEOF_XDP_BUFF}
            r3 = *(u64 *)(r10 - {-end})
            if r2 >= r3 goto none
    """
    epilogue = written(f"""
            r1 = *(u64 *)(r10 - {-current})
            {put(results, array)}
            r1 += {SIZEOF_XDP_BUFF}
            *(u64 *)(r10 - {-current}) = r1
            r2 = *(u64 *)(r10 - {-(limit_slot(base) if slices.code else end)})
    """)
    epilogue += [Insn(Class.JMP | Jmp.JNE | X, 1, 2, target=BODY)]
    first_window = len(epilogue)

    code = Code(xlated.insns, xlated.subprogs, xlated.stack_depth)
    if slices.code:
        code = appended(code, slices.code)
    code = _around(code, written(RESET_TAIL_CALLS) if tail_calls(code.insns) else [], [])
    code = _around(code, slots(written(headers(prefetch, beyond)), -frame), [])
    exits = code.subprogs[0].end  # where the epilogue will be
    if slices.code:
        slice_start = code.subprogs[len(xlated.subprogs)].start
        window = windows(slices.passes, stage, slice_start, base, current, end)
        epilogue += later(window, first_window)
        prologue.append(goto(exits + first_window))
    else:
        epilogue += [*written("r0 = 0"), Insn(EXIT)]
    code = _around(code, [], slots(epilogue, -frame))
    code = _to_epilogue(code, exits, slots(prologue, -frame))
    final(code, "batch")
    depths = (-base + (SLOTS if slices.code else 0), *code.stack_depth[1:])
    return Batched(
        xlated.program,
        code.insns,
        code.subprogs,
        depths,
        Layout.BATCH,
        body=len(prologue),
        buff_slot=current,
        results=results,
        stage=stage if slices.code else 0,
        sliced=code.subprogs[len(xlated.subprogs)].start if slices.code else 0,
        unstaged=slices.why,
    )


def _around(code: Code, first: list[Insn], last: list[Insn]) -> Code:
    """Put instructions before and after the main program; its own jumps do not see them."""
    end = code.subprogs[0].end

    def patch(i: int, insn: Insn) -> Patch | None:
        before, after = first if i == 0 else [], last if i == end - 1 else []
        return Patch([*before, insn, *later(after, len(before) + 1)], entry=len(before))

    return expand(code, patch)


def _to_epilogue(code: Code, epilogue: int, prologue: list[Insn]) -> Code:
    """Every exit of the main program goes to the epilogue; BODY is after the prologue."""

    def patch(i: int, insn: Insn) -> Patch | None:
        before = prologue if i == BODY else []
        if insn.op == EXIT and i < epilogue:
            falls_into_it = i == epilogue - 1
            return Patch([*before, *([] if falls_into_it else [goto(epilogue)])], len(before))
        return Patch([*before, insn], len(before))

    return expand(code, patch)


def tail_calls(insns: Sequence[Insn]) -> bool:
    """Whether a program makes tail calls, which are counted per packet."""
    return any(
        insn.native is not None and insn.native.function.symbol.endswith(".target")
        for insn in insns
    )
