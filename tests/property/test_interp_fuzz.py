"""Any bytes at all: the interpreter ends with a result or one clear error, never otherwise."""

from __future__ import annotations

import ctypes

from hypothesis import example, given
from hypothesis import strategies as st

from xdpbatch import isa
from xdpbatch.errors import XdpBatchError
from xdpbatch.interp import Interpreter, Region
from xdpbatch.isa import Insn
from xdpbatch.testing import conformance

OPCODES = st.sampled_from(sorted(isa.OPCODES))
REGISTER = st.integers(0, 10)
OFFSET = st.sampled_from((0, 0, 0, 1, 8, 16, -8, -520, 32767)) | st.integers(-32768, 32767)
ODD = (0, 1, 5, 8, 16, 32, 64, 0xE1, 0xF1, 0x100, 0x110, -1)
IMMEDIATE = st.sampled_from(ODD) | st.integers(-(1 << 31), (1 << 31) - 1)
SLOT = st.builds(
    lambda op, dst, src, off, imm: isa.encode([Insn(op, dst, src, off, imm)]),
    *(OPCODES, REGISTER, REGISTER, OFFSET, IMMEDIATE),
)
EXIT = isa.encode([Insn(isa.EXIT)])


def ends(code: bytes) -> None:
    """Run it with 16 bytes of memory; whatever happens, the bytes around them stay as they are."""
    memory = ctypes.create_string_buffer(b"\xa5" * 48, 48)
    address = ctypes.addressof(memory) + 16
    try:
        program = conformance.bare_program(isa.decode(code))
        machine = Interpreter(program, helper=conformance.unwind, budget=2000)
        machine.call((address, 16), [Region(address, address + 16)])
    except (XdpBatchError, conformance.UnwindError):
        pass
    assert memory.raw[:16] == memory.raw[32:] == b"\xa5" * 16


@given(st.lists(SLOT, max_size=30).map(lambda slots: b"".join((*slots, EXIT))))
def test_random_instructions(code: bytes) -> None:
    ends(code)


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x95")
@example(isa.encode([Insn(isa.LD_IMM64, 1, isa.PSEUDO_FUNC, imm=0xFFFFFFFF)]))
def test_random_bytes(code: bytes) -> None:
    ends(code)
