"""The form of a native program: which trampoline stands around it, with which of its choices.

Analogous to nothing in Linux, which has one form; the slides' alternatives side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.errors import UnsupportedError, XdpBatchError
from xdpbatch.rewrite import Layout, Results, Xlated

LARGEST = 512  # packets staged at a time


ADAPTIVE = -1  # `stage`: a queue measures what pays, see data.staging


def stage_of(text: str) -> int:
    """The `stage` that `off`, `auto` or a number of packets stands for. Raises XdpBatchError."""
    known = {"off": 0, "auto": ADAPTIVE}
    if text in known:
        return known[text]
    if text.isdecimal() and 0 < int(text) <= LARGEST:
        return int(text)
    raise XdpBatchError.of(
        "usage",
        f"--stage {text} is no number of packets",
        suggestion=f"off, auto, or 1 to {LARGEST}",
    )


@dataclass(frozen=True, slots=True)
class Form:
    """`layout`, and of a trampoline: where verdicts go, how many packets ahead headers are
    fetched, and for the slides' layout whether what is wrong with it is put right."""

    layout: Layout = Layout.BATCH
    results: Results = Results.BUFF
    prefetch: int = 0
    fixed: bool = False
    stage: int = 0  # packets staged at a time, 0: none, ADAPTIVE: as measured

    def around(self, xlated: Xlated) -> Xlated:
        """`xlated` in this form. Raises UnsupportedError if it has no such form, or would be wrong
        in it."""
        if self.layout is Layout.BATCH and not self.fixed:
            from xdpbatch.rewrite.batch import batch

            return batch(xlated, results=self.results, prefetch=self.prefetch, stage=self.stage)
        if self.layout is Layout.POC and not self.stage:
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

    def staging(self, xlated: Xlated) -> str:
        """What comes of `stage`, in words: how many packets in how many passes, or why not."""
        if not self.stage:
            return "off"
        from xdpbatch.rewrite.stage import staged

        found = staged(xlated.verified) if xlated.verified else None
        if found is None or found.code is None:
            return f"off: {found.why if found else 'the program was not verified'}"
        width = "auto" if self.stage == ADAPTIVE else str(self.stage)
        return f"{width}, {found.passes} passes"

    def __str__(self) -> str:
        """For the first line of a run: `batch`, `poc results=array prefetch=4 fixed`."""
        parts = [self.layout.value]
        if self.results is not Results.BUFF:
            parts.append(f"results={self.results.value}")
        if self.prefetch:
            parts.append(f"prefetch={self.prefetch}")
        if self.stage:
            parts.append("stage=auto" if self.stage < 0 else f"stage={self.stage}")
        return " ".join([*parts, *(["fixed"] if self.fixed else [])])
