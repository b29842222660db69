"""`xdpbatch explain`: what an error code means and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="As in error[CODE]; without: all codes.")
    ] = None,
) -> None:
    """Explain an error code. Exit 0, 2 if there is no such code."""
    from xdpbatch.explain import explanation, explanations

    print("\n".join(sorted(explanations())) if code is None else explanation(code))
