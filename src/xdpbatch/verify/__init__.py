"""The verifier: `verify(program) -> Verified`, or VerifierError with every reason.

Analogous to bpf_check of kernel/bpf/verifier.c, for a program that a privileged user loads:

    domain, tnum, arith, refine     what is known of a number
    state, stack                    what is known at one point of a path
    require, arguments              what must hold for an access, for a helper's arguments
    transfer, offsets, branch,      what an instruction does
      links, call, callbacks,
      functions
    prune, walk, cfg                which paths are walked
    explain                         how a refusal is said
    verdict                         what was decided before is not decided again
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.program import Program
from xdpbatch.verify.cfg import Misshapen, check_shape, check_stack_depth
from xdpbatch.verify.explain import diagnose
from xdpbatch.verify.walk import Walk, annotated


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that is proven safe. Each instruction that a path reaches carries its `fact`.

    `program.insns` are unchanged but for the facts; instructions not in `reached` can never run
    and `rewrite.dead` removes them. `stack_depth`: bytes of frame per subprog, a multiple of 8.
    `zero_stack`: per subprog the 8-byte stack slots (offset from r10) of which a path may read
    bytes that it did not write, as the kernel allows; clear them at each entry of the function.
    """

    program: Program
    reached: frozenset[int]
    stack_depth: tuple[int, ...]
    processed: int  # instructions walked, the kernel's measure of complexity
    zero_stack: tuple[tuple[int, ...], ...] = ()


def verify(program: Program) -> Verified:
    """Prove a program safe, or raise VerifierError saying where it is not and what to do."""
    try:
        check_shape(program)
        walk = Walk(program)
        walk.run()
        check_stack_depth(program, walk.stack_depth)
    except Misshapen as refusal:
        raise diagnose(program, refusal.index, refusal) from None
    return Verified(
        annotated(program, walk.facts),
        frozenset(i for i, reached in enumerate(walk.reached) if reached),
        tuple(walk.stack_depth),
        walk.processed,
        tuple(tuple(sorted(slots)) for slots in walk.zero_stack),
    )
