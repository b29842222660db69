"""The verifier: `verify(program) -> Verified`, or VerifierError with every reason."""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.program import Program


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that is proven safe. Each instruction that a path reaches carries its `fact`.

    `program.insns` are unchanged but for the facts; instructions not in `reached` can never run
    and `rewrite.dead` removes them. `stack_depth`: bytes of frame per subprog, a multiple of 8.
    """

    program: Program
    reached: frozenset[int]
    stack_depth: tuple[int, ...]
    processed: int  # instructions walked, the kernel's measure of complexity
