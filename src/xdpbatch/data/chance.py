"""Where unpredictable numbers of maps come from: the machine, or a seed that can be repeated.

Analogous to get_random_u32() at map creation (kernel/bpf/hashtab.c), which no caller controls.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

_seeded: list[random.Random] = []


def word() -> int:
    """64 bits."""
    return _seeded[-1].getrandbits(64) if _seeded else int.from_bytes(os.urandom(8), "little")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what is created inside depend on the seed only; 0 changes nothing."""
    if not seed:
        yield
        return
    _seeded.append(random.Random(seed))
    try:
        yield
    finally:
        _seeded.pop()
