"""What a program's shape must be, before any path is walked. Analogous to check_subprogs,
check_cfg, compute_live_registers and check_max_stack_depth of kernel/bpf/verifier.c.

Every function ends in `exit` or a jump, jumps stay inside their function, every instruction can be
reached by some edge, functions do not call themselves, and a chain of calls fits in the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    CMPXCHG,
    EXIT,
    FETCH,
    LD_IMM64,
    LOAD_ACQ,
    PREFETCH,
    PSEUDO_FUNC,
    STORE_REL,
    Alu,
    Class,
    Insn,
)
from xdpbatch.program import Program
from xdpbatch.verify.explain import Refusal
from xdpbatch.verify.state import MAX_FRAMES, MAX_STACK

TAIL_CALL = 12
FRAME_ROUND = 16  # what a JIT rounds a frame to
TAIL_CALLER_STACK = 256
ALL_REGS = (1 << 11) - 1
CALLER_SAVED = 0b111111  # r0-r5


class Misshapen(Refusal):
    """A Refusal that no path led to: it carries its instruction."""

    def __init__(self, index: int, refusal: Refusal) -> None:
        super().__init__(refusal.code, refusal.message, refusal.reason, refusal.suggestion)
        self.index = index


def successors(program: Program, index: int) -> Iterator[int]:
    """Instructions of the same function that can follow."""
    insn = program.insns[index]
    if insn.falls_through:
        yield index + 1
    if insn.is_jump and insn.target is not None:
        yield insn.target


def check_shape(program: Program) -> None:
    """Raise Misshapen for the first thing wrong with the control flow, or with a load's fields,
    which the kernel looks at even where no path comes."""
    for index, insn in enumerate(program.insns):
        if insn.is_load and insn.imm:
            reason = f"imm {insn.imm} of a load"
            raise _wrong(index, "reserved-field", "an unused field is not 0", reason)
    for subprog in program.subprogs:
        last = program.insns[subprog.end - 1]
        if last.falls_through:
            raise _wrong(
                subprog.end - 1,
                "fall-off",
                "the function's last instruction is neither exit nor a jump",
                "execution would run into the next function",
            )
        seen, todo = {subprog.start}, [subprog.start]
        while todo:
            index = todo.pop()
            for after in successors(program, index):
                if not subprog.start <= after < subprog.end:
                    raise _wrong(
                        index,
                        "jump-out-of-range",
                        "jump leaves its function",
                        f"insn {after} is not in {subprog.name}()",
                    )
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        for index in range(subprog.start, subprog.end):
            if index not in seen:
                raise _wrong(
                    index,
                    "unreachable-insn",
                    "no path leads to this instruction",
                    "the kernel refuses a program with such code",
                    "remove what follows the jump or exit before it",
                )
    _check_calls(program)


def _wrong(index: int, code: str, message: str, reason: str = "", hint: str = "") -> Misshapen:
    return Misshapen(index, Refusal(code, message, reason, hint))


def called_functions(program: Program, subprog: int) -> Iterator[tuple[int, int]]:
    """(instruction, function number) of every function that one calls or passes to a helper."""
    starts = {s.start: i for i, s in enumerate(program.subprogs)}
    one = program.subprogs[subprog]
    for index in range(one.start, one.end):
        insn = program.insns[index]
        calls = insn.op == CALL and insn.src == BPF_CALL
        if calls or (insn.op == LD_IMM64 and insn.src == PSEUDO_FUNC):
            if insn.target not in starts:
                raise _wrong(index, "bad-call", "call of what is not the start of a function")
            yield index, starts[insn.target]


def _check_calls(program: Program) -> None:
    """No recursion, and no chain of calls that is too long, even where it is never run."""

    def visit(subprog: int, chain: tuple[int, ...]) -> None:
        if len(chain) > MAX_FRAMES:
            one = program.subprogs[subprog]
            raise _wrong(
                one.start,
                "call-depth",
                "calls are nested too deep",
                f"{one.name}() is frame {len(chain)}, at most {MAX_FRAMES} are allowed",
            )
        for index, callee in calls[subprog]:
            if callee in chain:
                raise _wrong(
                    index,
                    "recursion",
                    "a function calls itself",
                    f"{program.subprogs[callee].name}() is reached from itself",
                    "BPF has no recursion: use a loop or bpf_loop",
                )
            if deepest.get(callee, 0) <= len(chain):
                deepest[callee] = len(chain) + 1
                visit(callee, (*chain, callee))

    calls = [list(called_functions(program, i)) for i in range(len(program.subprogs))]
    deepest: dict[int, int] = {}
    visit(0, (0,))


def check_stack_depth(program: Program, depths: Sequence[int]) -> None:
    """Raise Misshapen if a chain of calls needs more than 512 bytes of stack."""

    def visit(subprog: int, before: int) -> None:
        one = program.subprogs[subprog]
        if subprog and before >= TAIL_CALLER_STACK and has_tail_call(program, subprog):
            raise _wrong(
                one.start,
                "stack-depth",
                "tail call in a function called too deep",
                f"its callers use {before} bytes of stack, at most {TAIL_CALLER_STACK - 1} are "
                "allowed",
            )
        total = before + max(-(-depths[subprog] // FRAME_ROUND) * FRAME_ROUND, FRAME_ROUND)
        if total > MAX_STACK:
            raise _wrong(
                one.start,
                "stack-depth",
                "the chain of calls needs too much stack",
                f"{total} bytes with {one.name}(), at most {MAX_STACK} are allowed",
                "move large locals into a per-CPU array map",
            )
        if deepest.get(subprog, -1) < total:
            deepest[subprog] = total
            for _, callee in calls[subprog]:
                visit(callee, total)

    calls = [list(called_functions(program, i)) for i in range(len(program.subprogs))]
    deepest: dict[int, int] = {}
    visit(0, 0)


def has_tail_call(program: Program, subprog: int) -> bool:
    """Whether a function calls bpf_tail_call itself."""
    one = program.subprogs[subprog]
    return any(
        i.op == CALL and i.src == 0 and i.imm == TAIL_CALL
        for i in program.insns[one.start : one.end]
    )


def prune_points(program: Program) -> set[int]:
    """Where states are compared: conditional jumps, what jumps go to, calls of functions."""
    points = set()
    for index, insn in enumerate(program.insns):
        if insn.is_jump and insn.target is not None:
            points.add(insn.target)
            if insn.falls_through:
                points.add(index)
        elif insn.op == CALL and insn.src == BPF_CALL:
            points.add(index)
    return points


def live_before(program: Program) -> list[int]:
    """For each instruction the registers (bit set) whose contents some path from it may use."""
    effects = [_uses_defs(insn) for insn in program.insns]
    live = [0] * len(program.insns)
    for subprog in program.subprogs:
        before: dict[int, list[int]] = {i: [] for i in range(subprog.start, subprog.end)}
        for i in range(subprog.start, subprog.end):
            for after in successors(program, i):
                before[after].append(i)
        todo = list(range(subprog.start, subprog.end))
        while todo:
            i = todo.pop()
            out = 0
            for after in successors(program, i):
                out |= live[after]
            uses, defs = effects[i]
            new = uses | out & ~defs
            if new != live[i]:
                live[i] = new
                todo += before[i]
    return live


def _uses_defs(insn: Insn) -> tuple[int, int]:
    """Bit sets of registers that an instruction reads and overwrites."""
    dst, src = 1 << insn.dst, 1 << insn.src
    if insn.op == EXIT:
        return 1, 0
    if insn.op == LD_IMM64:
        return 0, dst
    if insn.cls in (Class.JMP, Class.JMP32):
        if not insn.is_jump:
            return 0b111110, CALLER_SAVED
        return (
            0
            if insn.target is not None and not insn.falls_through
            else dst | (src if insn.uses_reg else 0)
        ), 0
    if insn.is_alu:
        op = insn.op & 0xF0
        uses = 0 if op == Alu.MOV else dst
        if insn.uses_reg and op != Alu.END:
            uses |= src
        return uses, dst
    if insn.op == PREFETCH:
        return src, 0
    if insn.is_load:
        return src, dst
    if insn.is_atomic:
        if insn.imm == LOAD_ACQ:
            return src, dst
        if insn.imm == CMPXCHG:
            return dst | src | 1, 1
        fetches = insn.imm & FETCH and insn.imm != STORE_REL
        return dst | src, src if fetches else 0
    return dst | (src if insn.cls == Class.STX else 0), 0
