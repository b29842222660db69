"""The kernel lets XDP programs call no helper that our list leaves out."""

from __future__ import annotations

import pytest

from xdpbatch import asm
from xdpbatch.compatibility import XDP_HELPERS
from xdpbatch.helpers import helpers
from xdpbatch.isa import encode
from xdpbatch.sys import bpf
from xdpbatch.uapi import HELPER_NAMES

pytestmark = pytest.mark.kernel

REFUSALS = ("unknown func", "invalid func", "cannot use helper", "cannot use")


def allowed(number: int) -> bool:
    """Whether the kernel finds fault with the arguments only, if with anything."""
    program = asm.program(f"call {number}\nr0 = 2\nexit")
    try:
        bpf.prog_load(encode(list(program.insns)), "GPL", name="probe")
    except bpf.BpfError as error:
        return not any(refusal in error.log for refusal in REFUSALS)
    return True


def test_what_the_kernel_allows_is_listed() -> None:
    found = {name for number, name in enumerate(HELPER_NAMES) if number and allowed(number)}
    assert {"map_lookup_elem", "xdp_adjust_head"} <= found
    assert found <= XDP_HELPERS


def test_nothing_is_here_that_the_kernel_refuses() -> None:
    """Of the helpers that the running kernel knows."""
    newest = max(number for number, name in enumerate(HELPER_NAMES) if number and allowed(number))
    refused = {h.name for h in helpers().values() if h.id <= newest and not allowed(h.id)}
    assert refused == set()
