"""What each error code means, at length: the texts of explanations.md.

Analogous to `rustc --explain`. A new code needs a heading there; a test compares them with the
codes in the sources.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib.resources import files

from xdpbatch.errors import XdpBatchError


@cache
def explanations() -> dict[str, str]:
    """The text of every code."""
    text = files("xdpbatch").joinpath("explanations.md").read_text()
    parts = re.split(r"^# ([a-z0-9-]+)\n", text, flags=re.MULTILINE)
    return {code: body.strip() for code, body in zip(parts[1::2], parts[2::2], strict=True)}


def explanation(code: str) -> str:
    """The text of one code. Raises XdpBatchError for one that does not exist."""
    if code not in explanations():
        near = difflib.get_close_matches(code, explanations(), 3)
        raise XdpBatchError.of(
            "no-such-code",
            f"there is no error {code}",
            suggestion=f"like it: {', '.join(near)}" if near else "`xdpbatch explain` lists all",
        )
    return explanations()[code]
