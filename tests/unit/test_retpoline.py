"""The retpoline thunk: its instructions, and that a function behind it is the same function."""

from __future__ import annotations

import ctypes
import platform

import pytest

from xdpbatch.asm import program
from xdpbatch.errors import UnsupportedError
from xdpbatch.jit import x86
from xdpbatch.jit.retpoline import retpoline, thunk
from xdpbatch.rewrite import Xlated


def test_the_sequence_is_linux_s() -> None:
    assert [(line.offset, line.text) for line in thunk(0x1122334455667788)] == [
        (0x00, "movabs $0x1122334455667788,%r11"),
        (0x0A, "callq 0x16"),
        (0x0F, "pause"),
        (0x11, "lfence"),
        (0x14, "jmp 0xf"),
        (0x16, "mov %r11,0x0(%rsp)"),
        (0x1B, "retq"),
    ]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a retpoline is x86-64 code")
def test_a_program_behind_it_gives_the_same() -> None:
    one = program("r0 = r1\nr0 *= 3\nr0 += r2\nexit")
    code = x86.compile(Xlated(one, one.insns, one.subprogs, (0,)), {})
    jump = retpoline(code.address)
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    assert [kind(a)(40, 2) for a in (code.address, jump.address)] == [122, 122]


def test_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UnsupportedError, match="x86-64 only"):
        retpoline(0x1000)
