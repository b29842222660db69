"""The slides' trampoline: always 64 packets, its loop counter and buffer in the top of the stack.

Analogous to nothing in Linux: it is what "How can we apply batching to XDP?" (Linux Plumbers 2019)
proposed. `rewrite.batch` is what the product uses; this form is here to be looked at and compared.

Before                              After
  main:                               main:
    ...                                 r2 = 0
                                        *(u32 *)(r10 - 4) = r2    ; loop counter
                                        *(u64 *)(r10 - 12) = r1   ; current xdp_buff
                                      body:
                                        ...                       ; stack accesses 12 lower
    exit                                r1 = *(u64 *)(r10 - 12)
                                        r2 = *(u32 *)(r10 - 4)
                                        *(u32 *)(r1 + 48) = r0    ; xdp_buff.act
                                        r1 += 56                  ; sizeof(struct xdp_buff)
                                        r2 += 1
                                        *(u32 *)(r10 - 4) = r2
                                        *(u64 *)(r10 - 12) = r1
                                        if r2 < 64 goto body
                                        exit
"""

from __future__ import annotations

from collections.abc import Iterator

from xdpbatch.data.buff import SIZEOF_XDP_BUFF
from xdpbatch.errors import Diagnostic, UnsupportedError
from xdpbatch.isa import CALL, EXIT, HELPER_CALL, Class, Insn, Jmp, K
from xdpbatch.rewrite import Batched, Layout, Results, Xlated
from xdpbatch.rewrite.batch import RESET_TAIL_CALLS, tail_calls
from xdpbatch.rewrite.check import final
from xdpbatch.rewrite.frame import lower
from xdpbatch.rewrite.patch import Code, Patch, expand, goto, slots, written
from xdpbatch.rewrite.prefetch import headers
from xdpbatch.rewrite.results import SLOT, arguments, put
from xdpbatch.uapi import MAX_BPF_STACK

COUNT = 64
COUNTER, BUFF, ARRAY = -4, -12, -20  # from r10
TAKEN = 12  # bytes, and 8 more for the address of a results array
BODY = 0  # the index of the program's first instruction, before the prologue is put before it
JLT_IMM = Class.JMP | Jmp.JLT | K
TAIL_CALL, REDIRECT, REDIRECT_MAP = 12, 23, 51  # enum bpf_func_id

START = "r2 = 0"
START_FIXED = f"""
        if r2 != 0 goto some
        r0 = 0
        exit
    some:
        r2 = -r2
        r2 += {COUNT}
"""


def poc(
    xlated: Xlated, *, fixed: bool = False, results: Results = Results.BUFF, prefetch: int = 0
) -> Batched:
    """`xlated` in the slides' trampoline, for exactly COUNT packets: the argument n is ignored.

    Raises UnsupportedError, one diagnostic per reason, where that would give wrong answers.
    With `fixed`, they are put right: other exits go to the epilogue too, a tail call comes back to
    it, redirect targets are kept in the xdp_buff, and n packets are run, 0 <= n <= COUNT.
    """
    taken = TAKEN + SLOT[results]
    reasons = [*_no_room(xlated, taken), *([] if fixed else _wrong(xlated))]
    if reasons:
        raise UnsupportedError(*reasons)
    prologue = slots(written(_prologue(fixed, results)), 0)
    epilogue = slots(written(_epilogue(results)), 0)
    epilogue += [Insn(JLT_IMM, 2, imm=COUNT, target=BODY), Insn(EXIT)]
    first = slots(written(_each_packet(xlated, prefetch)), 0)
    code = lower(Code(xlated.insns, xlated.subprogs, xlated.stack_depth), taken)
    code = expand(code, lambda i, insn: Patch([*first, insn], len(first)) if i == BODY else None)
    *others, last = [i for i in range(code.subprogs[0].end) if code.insns[i].op == EXIT]

    def patch(i: int, insn: Insn) -> Patch | None:
        before = prologue if i == BODY else []
        new = [goto(last)] if i in others else epilogue if i == last else [insn]
        return Patch([*before, *new], len(before))

    out = final(expand(code, patch), "poc")
    return Batched(
        xlated.program,
        out.insns,
        out.subprogs,
        out.stack_depth,
        Layout.POC,
        body=len(prologue),
        buff_slot=BUFF,
        results=results,
    )


def _prologue(fixed: bool, results: Results) -> str:
    """Executed once."""
    return f"""
        {arguments(results, ARRAY)}
        {START_FIXED if fixed else START}
        *(u32 *)(r10 - {-COUNTER}) = r2
        *(u64 *)(r10 - {-BUFF}) = r1
    """


def _each_packet(xlated: Xlated, prefetch: int) -> str:
    """Executed first for each packet; nothing in the slides' own form."""
    beyond = f"r2 = *(u32 *)(r10 - {-COUNTER})\nif r2 >= {max(COUNT - prefetch, 0)} goto none"
    reset = RESET_TAIL_CALLS if tail_calls(xlated.insns) else ""
    return headers(prefetch, beyond) + reset


def _epilogue(results: Results) -> str:
    """Executed for each packet; the jump back to the body comes after it."""
    return f"""
        r1 = *(u64 *)(r10 - {-BUFF})
        r2 = *(u32 *)(r10 - {-COUNTER})
        {put(results, ARRAY)}
        r1 += {SIZEOF_XDP_BUFF}
        r2 += 1
        *(u32 *)(r10 - {-COUNTER}) = r2
        *(u64 *)(r10 - {-BUFF}) = r1
    """


def require_count(n: int, *, fixed: bool = False) -> None:
    """UnsupportedError unless a program in this form may be called with `n` packets."""
    if n != COUNT and not (fixed and n < COUNT):
        raise UnsupportedError(
            _diagnostic(
                "poc-count",
                f"{n} packets for a trampoline that always runs {COUNT} times",
                "it would run over xdp_buffs that hold no packet, or leave packets out",
            )
        )


def _no_room(xlated: Xlated, taken: int) -> Iterator[Diagnostic]:
    depth = xlated.stack_depth[0]
    if depth + taken > MAX_BPF_STACK:
        yield _diagnostic(
            "poc-stack",
            f"the program leaves no {taken} bytes of stack for the slides' trampoline",
            f"it uses {depth} of {MAX_BPF_STACK} bytes",
        )


def _wrong(xlated: Xlated) -> Iterator[Diagnostic]:
    """What the slides' form does not do right, by name."""
    main = xlated.subprogs[0]
    exits = sum(insn.op == EXIT for insn in xlated.insns[main.start : main.end])
    called = {
        insn.imm for insn in xlated.program.insns if insn.op == CALL and insn.src == HELPER_CALL
    }
    if exits > 1:
        yield _diagnostic(
            "poc-exits",
            f"the program has {exits} exits, and the slides' trampoline replaces only the last",
            "the first packet that takes another exit would end the batch",
        )
    if TAIL_CALL in called:
        yield _diagnostic(
            "poc-tail-call",
            "the program makes tail calls, which leave the slides' loop",
            "the packets after one would not be run",
        )
    if called & {REDIRECT, REDIRECT_MAP}:
        yield _diagnostic(
            "poc-redirect",
            "the program redirects, and the slides' kernel keeps one target per CPU",
            "all packets of a batch would go where the last one goes",
        )


def _diagnostic(code: str, message: str, reason: str) -> Diagnostic:
    fix = "" if code == "poc-stack" else ", or --poc-fixed for the slides' form put right"
    return Diagnostic(code, message, reason=reason, suggestion=f"use --layout batch{fix}")
