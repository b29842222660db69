"""Turns the helpers that call back or call another program into BPF code around one call.

Analogous to inline_bpf_loop() of kernel/bpf/verifier.c and emit_bpf_tail_call_indirect() of
arch/x86/net/bpf_jit_comp.c. What must survive a call is kept in slots below the function's frame.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from xdpbatch.isa import CALL, HELPER_CALL, Insn
from xdpbatch.program import MapSpec
from xdpbatch.rewrite.calls import CallSite, map_operation, operation, site_of
from xdpbatch.rewrite.patch import Code, Patch, expand, slots, written
from xdpbatch.uapi import MapNumber

BPF_MAX_LOOPS = 8 * 1024 * 1024  # include/linux/bpf.h


@dataclass(frozen=True, slots=True)
class Form:
    """How one helper is replaced: what by, and how many slots of 8 bytes that takes."""

    slots: int
    code: Callable[[CallSite, int], list[Insn]]


def tail_call(site: CallSite, frame: int) -> list[Insn]:
    """bpf_tail_call(ctx, map, index): the verdict of the other program is this function's.

    Before                  After
      call bpf_tail_call      slot = r1
                              r0 = maps.prog_array.target(buff, r2, r3, ...)
                              if r0 == 0 goto next         ; no such program: go on
                              r1 = slot
                              callx r0
                              exit
    """
    helper = replace(site.helper, op="target", params=("ctx", "map", "index"))
    fetch = operation(replace(site, helper=helper), MapNumber.PROG_ARRAY)
    code = written(f"""
        *(u64 *)(r10 - {frame + 8}) = r1
        call bpf_tail_call#12            ; in its place: the fetch
        if r0 == 0 goto next
        r1 = *(u64 *)(r10 - {frame + 8})
        callx r0
        exit
        next:
    """)
    return [fetch if insn.op == CALL else insn for insn in code]


def loop(site: CallSite, frame: int) -> list[Insn]:
    """bpf_loop(count, callback, context, flags): the number of calls made, or -errno.

    As the kernel's inlined form, a count of more than 32 bits is too large, and -E2BIG has 32 bits.

    Before             After
      call bpf_loop      r7 = 0
                         again: if r7 >= r6 goto out       ; r6 = count, r8 = context, r9 = callback
                         r0 = callback(r7, context); r7 += 1
                         if r0 == 0 goto again
                         out: r0 = r7                      ; r6-r9 are restored
    """
    return written(f"""
        if r4 == 0 goto size
        r0 = {-errno.EINVAL}
        goto next
        size:
        if r1 <= {BPF_MAX_LOOPS} goto start
        w0 = {-errno.E2BIG}
        goto next
        start:
        *(u64 *)(r10 - {frame + 8}) = r6
        *(u64 *)(r10 - {frame + 16}) = r7
        *(u64 *)(r10 - {frame + 24}) = r8
        *(u64 *)(r10 - {frame + 32}) = r9
        r6 = r1
        r7 = 0
        r8 = r3
        r9 = r2
        again:
        if r7 >= r6 goto out
        r1 = r7
        r2 = r8
        callx r9
        r7 += 1
        if r0 == 0 goto again
        out:
        r0 = r7
        r6 = *(u64 *)(r10 - {frame + 8})
        r7 = *(u64 *)(r10 - {frame + 16})
        r8 = *(u64 *)(r10 - {frame + 24})
        r9 = *(u64 *)(r10 - {frame + 32})
        next:
    """)


def for_each(site: CallSite, frame: int) -> list[Insn]:
    """bpf_for_each_map_elem(map, callback, context, flags): the number of calls made, or -EINVAL.

    Before                         After
      call bpf_for_each_map_elem     r7 = 0
                                     again: r0 = maps.hash.visit(r6, r7, entry)   ; r6 = map
                                     if r0 == 0 goto out
                                     r7 = r0; count += 1
                                     r0 = callback(r6, entry.key, entry.value, r8) ; r8 = context
                                     if r0 == 0 goto again
                                     out: r0 = count                 ; r6-r9 are restored
    """
    helper = replace(site.helper, op="visit", params=("map", "position", "entry"))
    visit = map_operation(replace(site, helper=helper))
    if len(visit) != 1:
        raise site.error("which type the map has differs from path to path")
    step = replace(visit[0], fact=None)  # what was proved of r1-r5 is not true of its arguments
    entry = frame + 64  # 24 bytes that native code writes: reached by address, not as slots
    code = written(f"""
        if r4 == 0 goto start
        r0 = {-errno.EINVAL}
        goto next
        start:
        *(u64 *)(r10 - {frame + 8}) = r6
        *(u64 *)(r10 - {frame + 16}) = r7
        *(u64 *)(r10 - {frame + 24}) = r8
        *(u64 *)(r10 - {frame + 32}) = r9
        r6 = r1
        r7 = 0
        r8 = r3
        r9 = r2
        *(u64 *)(r10 - {frame + 40}) = r7
        again:
        r1 = r6
        r2 = r7
        r3 = r10
        r3 += -{entry}
        call bpf_for_each_map_elem       ; in its place: the visit
        if r0 == 0 goto out
        r7 = r0
        r0 = *(u64 *)(r10 - {frame + 40})
        r0 += 1
        *(u64 *)(r10 - {frame + 40}) = r0
        r5 = r10
        r5 += -{entry}
        r1 = r6
        r2 = *(u64 *)(r5 + 0)
        r3 = *(u64 *)(r5 + 8)
        r4 = r8
        r5 = 0
        callx r9
        if r0 == 0 goto again
        out:
        r0 = *(u64 *)(r10 - {frame + 40})
        r6 = *(u64 *)(r10 - {frame + 8})
        r7 = *(u64 *)(r10 - {frame + 16})
        r8 = *(u64 *)(r10 - {frame + 24})
        r9 = *(u64 *)(r10 - {frame + 32})
        next:
    """)
    return [step if insn.op == CALL else insn for insn in code]


FORMS = {
    "tail_call": Form(1, tail_call),
    "loop": Form(4, loop),
    "for_each_map_elem": Form(8, for_each),
}


def control(code: Code, specs: Mapping[str, MapSpec]) -> Code:
    """`code` with no helper call left that changes the flow of control."""
    frames = code.stack_depth
    sites: dict[int, tuple[CallSite, int]] = {}
    extra = [0] * len(frames)
    for function, subprog in enumerate(code.subprogs):
        for i in range(subprog.start, subprog.end):
            insn = code.insns[i]
            if insn.op == CALL and insn.src == HELPER_CALL:
                site = site_of(i, insn, specs)
                if site.helper.name in FORMS:
                    sites[i] = site, frames[function]
                    extra[function] = max(extra[function], 8 * FORMS[site.helper.name].slots)

    def patch(i: int, insn: Insn) -> Patch | None:
        if i not in sites:
            return None
        site, frame = sites[i]
        return Patch(slots(FORMS[site.helper.name].code(site, frame), -frame))

    depths = tuple(frame + more for frame, more in zip(frames, extra, strict=True))
    return replace(expand(code, patch), stack_depth=depths)
