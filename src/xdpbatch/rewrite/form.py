"""The form of a native program: which trampoline stands around it, with which of its choices.

Analogous to nothing in Linux, which has one form; the slides' alternatives side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.errors import UnsupportedError
from xdpbatch.rewrite import Layout, Results, Xlated


@dataclass(frozen=True, slots=True)
class Form:
    """`layout`, and of a trampoline: where verdicts go, how many packets ahead headers are
    fetched, and for the slides' layout whether what is wrong with it is put right."""

    layout: Layout = Layout.BATCH
    results: Results = Results.BUFF
    prefetch: int = 0
    fixed: bool = False

    def around(self, xlated: Xlated) -> Xlated:
        """`xlated` in this form. Raises UnsupportedError if it has no such form, or would be wrong
        in it."""
        if self.layout is Layout.BATCH and not self.fixed:
            from xdpbatch.rewrite.batch import batch

            return batch(xlated, results=self.results, prefetch=self.prefetch)
        if self.layout is Layout.POC:
            from xdpbatch.rewrite.poc import poc

            return poc(xlated, fixed=self.fixed, results=self.results, prefetch=self.prefetch)
        if self != Form(self.layout):
            raise UnsupportedError.of(
                "no-such-form",
                f"{self} does not exist",
                reason="a single program has no trampoline, and only the slides' is put right",
                suggestion="use --layout batch or poc for --results and --prefetch",
            )
        return xlated

    def __str__(self) -> str:
        """For the first line of a run: `batch`, `poc results=array prefetch=4 fixed`."""
        parts = [self.layout.value]
        if self.results is not Results.BUFF:
            parts.append(f"results={self.results.value}")
        if self.prefetch:
            parts.append(f"prefetch={self.prefetch}")
        return " ".join([*parts, *(["fixed"] if self.fixed else [])])
