"""The interpreter: what every BPF instruction means, one table per instruction class.

Analogous to ___bpf_prog_run() of kernel/bpf/core.c, with the bounds checks that the kernel leaves
to its verifier. It runs the program as it was loaded (ctx accesses are `struct xdp_md` fields,
helpers are called by number) over the same memory that native code uses: an XdpBuff, and maps
in their blocks. Nothing of the rewrites or backends is shared, so that it can judge them.
Registers are unsigned 64-bit Python integers. What an operation computes stands in
`semantics`. The source of all of it is RFC 9669.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from xdpbatch import mem
from xdpbatch.data import buff as xdp
from xdpbatch.errors import XdpBatchError
from xdpbatch.isa import (
    ATOMIC_OPS,
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
    FP,
    GOTOL,
    HELPER_CALL,
    JA,
    LOAD_ACQ,
    MASK32,
    MASK64,
    PREFETCH,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    STORE_REL,
    XCHG,
    Alu,
    Class,
    Insn,
    Mode,
    X,
)
from xdpbatch.maps import SIZEOF_HEADER, Map
from xdpbatch.program import Program
from xdpbatch.semantics import ALU, ATOMIC, JUMP, SIGNED_ALU, SIGNED_JUMP, signed, swapped
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MAX_BPF_STACK

MAX_FRAMES = 8  # MAX_CALL_FRAMES of include/linux/bpf_verifier.h
FUNCTION = 1 << 62  # a function's "address" is this plus its first instruction's index


class ExecutionError(XdpBatchError):
    """A program did what its verifier should have refused."""

    status = 1


LOAD = {1: mem.load8, 2: mem.load16, 4: mem.load32, 8: mem.load64}
STORE = {1: mem.store8, 2: mem.store16, 4: mem.store32, 8: mem.store64}

# struct xdp_md of include/uapi/linux/bpf.h: offset of a field -> how to read it from an XdpBuff.
XDP_MD: dict[int, Callable[[int], int]] = {
    0: lambda buff: mem.load64(buff + xdp.DATA),
    4: lambda buff: mem.load64(buff + xdp.DATA_END),
    8: lambda buff: mem.load64(buff + xdp.DATA_META),
    12: lambda buff: mem.load32(mem.load64(buff + xdp.RXQ) + xdp.RXQ_IFINDEX),
    16: lambda buff: mem.load32(mem.load64(buff + xdp.RXQ) + xdp.RXQ_QUEUE_INDEX),
    20: lambda buff: mem.load32(mem.load64(buff + xdp.RXQ) + xdp.RXQ_EGRESS_IFINDEX),
}


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes [start, end) that a program may read, and write if `writable`."""

    start: int
    end: int
    writable: bool = True


@dataclass(slots=True)
class Frame:
    """One running function: its registers and where it is. A tail call replaces `program`."""

    program: Program
    pc: int
    r: list[int]
    insn: Insn = field(init=False)
    returned: bool = False


HelperCall = Callable[["Interpreter", Frame, int], int]


class Interpreter:
    """One program ready to run. `maps` are the created maps, by name.

    `programs` is what the entries of its PROG_ARRAYs stand for. `budget` bounds the
    instructions of one run, so that no program can hang the process. `helper` runs helper number
    n for a frame and returns its r0.
    """

    def __init__(
        self,
        program: Program,
        maps: Mapping[str, Map] | None = None,
        programs: Mapping[int, Program] | None = None,
        helper: HelperCall | None = None,
        budget: int = 16_000_000,
    ) -> None:
        self.program = program
        self.maps = maps or {}
        self.programs = programs or {}
        self.helper = helper or call_helper
        self.budget = budget
        self.buff = 0
        self.map_addresses = {m.address for m in self.maps.values()}
        self.granted: dict[int, Region] = {}
        self._stack = ctypes.create_string_buffer(MAX_FRAMES * MAX_BPF_STACK + 16)
        self._stack_base = -(-ctypes.addressof(self._stack) // 8) * 8
        self.stack_end = self._stack_base + MAX_FRAMES * MAX_BPF_STACK
        self._depth = 0
        self._left = 0

    def run(self, buff: int) -> int:
        """Run over the packet of the XdpBuff at address `buff`; the 32-bit verdict."""
        self.buff = buff
        mem.store32(mem.load64(buff + xdp.RXQ) + xdp.RXQ_TAIL_CALLS, 0)
        return self.call((buff,)) & MASK32

    def call(self, arguments: Sequence[int], regions: Sequence[Region] = ()) -> int:
        """Run with r1... = `arguments`, allowed to touch `regions`; the 64-bit r0."""
        self.granted = {region.start: region for region in regions}
        self._depth = 0
        self._left = self.budget
        return self.function(self.program, 0, arguments)

    def grant(self, region: Region) -> None:
        """Let the rest of this run touch `region`: a map value, a ring buffer record."""
        self.granted[region.start] = region

    def function(self, program: Program, start: int, arguments: Sequence[int]) -> int:
        """Run one function in a stack frame of its own, until its exit; its r0."""
        if self._depth == MAX_FRAMES:
            raise self._error(program, start, f"more than {MAX_FRAMES} nested calls")
        self._depth += 1
        frame = Frame(program, start, [0, *arguments, *[0] * (FP - len(arguments))])
        frame.r[FP] = self.stack_end - (self._depth - 1) * MAX_BPF_STACK
        # As native code does: a program may read stack that it did not write (Linux 6.3).
        mem.fill(frame.r[FP] - MAX_BPF_STACK, 0, MAX_BPF_STACK)
        while not frame.returned:
            if frame.pc >= len(frame.program.insns):
                raise self._error(frame.program, frame.pc - 1, "ran past the last instruction")
            if self._left == 0:
                raise self._error(frame.program, frame.pc, f"more than {self.budget} instructions")
            self._left -= 1
            frame.insn = frame.program.insns[frame.pc]
            frame.pc += 1
            STEP[frame.insn.cls](self, frame)
        self._depth -= 1
        return frame.r[0]

    def check(self, frame: Frame, address: int, size: int, write: bool) -> None:
        """Raise unless this run may touch `size` bytes at `address`."""
        end = address + size
        low = self.stack_end - self._depth * MAX_BPF_STACK
        if (low <= address and end <= self.stack_end) or self._in_packet(address, end):
            return
        for region in self.granted.values():
            if region.start <= address and end <= region.end and (region.writable or not write):
                return
        verb = "write" if write else "read"
        raise self.error(frame, f"{verb} of {size} bytes at {address:#x} is outside its memory")

    def _in_packet(self, address: int, end: int) -> bool:
        if not self.buff:
            return False
        start = min(mem.load64(self.buff + xdp.DATA_META), mem.load64(self.buff + xdp.DATA))
        return start <= address and end <= mem.load64(self.buff + xdp.DATA_END)

    def error(self, frame: Frame, reason: str) -> ExecutionError:
        """The error of the instruction that `frame` is at."""
        return self._error(frame.program, frame.pc - 1, reason)

    def _error(self, program: Program, index: int, reason: str) -> ExecutionError:
        where = f"insn {index}, program {program.name} (section {program.section})"
        return ExecutionError.of("unsafe-program", "the program broke a rule", where=where,
                                 reason=reason)  # fmt: skip


def call_helper(machine: Interpreter, frame: Frame, number: int) -> int:
    """The helpers of this runtime: imported when a program calls the first one."""
    from xdpbatch.helper_call import call

    return call(machine, frame, number)


def _second(frame: Frame) -> int:
    """The second operand of ALU and JMP: a register, or the sign-extended immediate."""
    insn = frame.insn
    return frame.r[insn.src] if insn.op & X else insn.imm & MASK64


# what the offset of an ALU instruction may be; only 0 where it is not listed
OFFSETS: dict[int, tuple[int, ...]] = {Alu.MOV: (0, 8, 16, 32), Alu.DIV: (0, 1), Alu.MOD: (0, 1)}


def _alu(machine: Interpreter, frame: Frame) -> None:
    """ALU and ALU64: arithmetic (section 4.1) and byte swaps (section 4.2)."""
    insn, r = frame.insn, frame.r
    bits = 64 if insn.cls == Class.ALU64 else 32
    mask = (1 << bits) - 1
    operation = insn.op & 0xF0
    a, b = r[insn.dst] & mask, _second(frame) & mask
    if insn.off not in OFFSETS.get(operation, (0,)):
        raise machine.error(frame, f"offset {insn.off} means nothing in this instruction")
    if operation == Alu.END:
        if insn.imm not in (16, 32, 64):
            raise machine.error(frame, f"there are no byte swaps of {insn.imm} bits")
        swap = insn.cls == Class.ALU64 or insn.op & X  # to little endian only truncates
        whole = r[insn.dst] & ((1 << insn.imm) - 1)
        r[insn.dst] = swapped(whole, insn.imm) if swap else whole
        return
    if operation == Alu.MOV and insn.off:
        result = signed(b, insn.off)
    elif operation in SIGNED_ALU and insn.off:
        result = SIGNED_ALU[operation](signed(a, bits), signed(b, bits))
    else:
        result = ALU[operation](a, b, bits)
    r[insn.dst] = result & mask


def _jmp(machine: Interpreter, frame: Frame) -> None:
    """JMP and JMP32: jumps, calls and exit (section 4.3)."""
    insn, r = frame.insn, frame.r
    if insn.op == EXIT:
        frame.returned = True
    elif insn.op in (CALL, CALLX):
        _call(machine, frame)
    elif insn.op in (JA, GOTOL):
        frame.pc = _target(insn)
    else:
        bits = 64 if insn.cls == Class.JMP else 32
        mask = (1 << bits) - 1
        a, b = r[insn.dst] & mask, _second(frame) & mask
        operation = insn.op & 0xF0
        if operation in SIGNED_JUMP:
            taken = SIGNED_JUMP[operation](signed(a, bits), signed(b, bits))
        else:
            taken = JUMP[operation](a, b)
        if taken:
            frame.pc = _target(insn)


def _target(insn: Insn) -> int:
    if insn.target is None:
        raise ValueError("a jump or call without a target: not made by isa.decode or asm")
    return insn.target


def _call(machine: Interpreter, frame: Frame) -> None:
    """A helper by number, a function of this program, or (CALLX) either, found in a register."""
    insn, r = frame.insn, frame.r
    if insn.op == CALLX and r[insn.call_register] & FUNCTION:
        result = machine.function(frame.program, r[insn.call_register] ^ FUNCTION, r[1:6])
    elif insn.op == CALLX or insn.src == HELPER_CALL:
        number = r[insn.call_register] if insn.op == CALLX else insn.imm
        result = machine.helper(machine, frame, number)
    elif insn.src == BPF_CALL:
        result = machine.function(frame.program, _target(insn), r[1:6])
    else:
        raise machine.error(frame, "kernel functions cannot be called")
    r[0] = result & MASK64


def _ld(machine: Interpreter, frame: Frame) -> None:
    """LD_IMM64: a constant, a map, a map's value, or a function (section 5.4)."""
    insn = frame.insn
    value = insn.imm
    m = machine.maps.get(insn.ref or "")
    if insn.src == PSEUDO_FUNC:
        value = FUNCTION | _target(insn)
    elif insn.src == PSEUDO_MAP_FD and m is not None:
        value = m.address
    elif insn.src == PSEUDO_MAP_VALUE and m is not None:
        start = m.address + SIZEOF_HEADER  # the one value of an array: a data section
        read_only = m.spec.flags & BPF_F_RDONLY_PROG
        machine.grant(Region(start, start + m.spec.value_size, not read_only))
        value = start + insn.imm
    elif insn.src:
        raise machine.error(frame, f"64-bit immediate of kind {insn.src} ({insn.ref}) is unknown")
    frame.r[insn.dst] = value & MASK64


def _ldx(machine: Interpreter, frame: Frame) -> None:
    """LDX: plain and sign-extending loads (sections 5.1, 5.2); a PREFETCH has no effect."""
    insn = frame.insn
    if insn.op == PREFETCH:
        return
    address = (frame.r[insn.src] + insn.off) & MASK64
    if machine.buff and machine.buff <= address < machine.buff + xdp.SIZEOF_XDP_BUFF:
        value = _ctx_field(machine, frame, address - machine.buff)
    else:
        machine.check(frame, address, insn.width, write=False)
        value = LOAD[insn.width](address)
    if insn.op & 0xE0 == Mode.MEMSX:
        value = signed(value, 8 * insn.width)
    frame.r[insn.dst] = value & MASK64


def _ctx_field(machine: Interpreter, frame: Frame, offset: int) -> int:
    if frame.insn.width != 4 or offset not in XDP_MD:
        raise machine.error(
            frame, f"struct xdp_md has no {frame.insn.width}-byte field at {offset}"
        )
    return XDP_MD[offset](machine.buff)


def _st(machine: Interpreter, frame: Frame) -> None:
    """ST and STX: store an immediate or a register, or do an atomic operation."""
    insn = frame.insn
    if insn.is_atomic:
        _atomic(machine, frame)
        return
    address = (frame.r[insn.dst] + insn.off) & MASK64
    machine.check(frame, address, insn.width, write=True)
    value = frame.r[insn.src] if insn.cls == Class.STX else insn.imm
    STORE[insn.width](address, value)


def _atomic(machine: Interpreter, frame: Frame) -> None:
    """Read-modify-write (section 5.3), and load-acquire and store-release (Linux 6.15)."""
    insn, r = frame.insn, frame.r
    mask = (1 << 8 * insn.width) - 1
    if insn.imm == LOAD_ACQ:
        _ldx(machine, frame)
        return
    plain = insn.imm & ~FETCH in ATOMIC_OPS or insn.imm in (XCHG, CMPXCHG)
    if insn.imm != STORE_REL and not (plain and insn.width >= 4):
        raise machine.error(frame, f"there is no atomic operation {insn.imm:#x} of this width")
    address = (r[insn.dst] + insn.off) & MASK64
    machine.check(frame, address, insn.width, write=True)
    old, source = LOAD[insn.width](address) & mask, r[insn.src] & mask
    if insn.imm == STORE_REL:
        new = source
    elif insn.imm == CMPXCHG:
        new = source if old == r[0] & mask else old
        r[0] = old
    elif insn.imm == XCHG:
        new = source
        r[insn.src] = old
    else:
        new = ATOMIC[ATOMIC_OPS[insn.imm & ~FETCH]](old, source)
        if insn.imm & FETCH:
            r[insn.src] = old
    STORE[insn.width](address, new)


STEP: dict[int, Callable[[Interpreter, Frame], None]] = {
    Class.LD: _ld,
    Class.LDX: _ldx,
    Class.ST: _st,
    Class.STX: _st,
    Class.ALU: _alu,
    Class.JMP: _jmp,
    Class.JMP32: _jmp,
    Class.ALU64: _alu,
}
