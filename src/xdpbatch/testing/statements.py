"""Statements of random programs: each draws its choices and leaves the rules of `generate` intact.

A statement is a function of the Function being written; block() puts them in sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import strategies as st

from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber

Draw = Callable[[st.SearchStrategy[Any]], Any]

MAPS = (
    MapSpec("numbers", MapNumber.ARRAY, 4, 16, 5),
    MapSpec("counters", MapNumber.PERCPU_ARRAY, 4, 16, 3),
    MapSpec("table", MapNumber.HASH, 8, 16, 4),
    MapSpec("copies", MapNumber.PERCPU_HASH, 4, 16, 4),
    MapSpec("ports", MapNumber.DEVMAP, 4, 4, 2),
    MapSpec("events", MapNumber.RINGBUF, 0, 0, 4096),
)
NAMES = ("prog", "second", "third")
JUMPS = MapSpec("jumps", MapNumber.PROG_ARRAY, 4, 4, 4, values=dict(enumerate(reversed(NAMES))))
VALUE_SIZE = 16
SCALARS = ("7", "8", "9")
SLOTS = 8
MAX_OFFSET = 40  # of a packet access

# constants where carries, signs and shifts go wrong
ODD = (
    *(0, 1, 2, 7, 31, 32, 63, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF),
    *(-1, -2, -3, -128, -32768, -0x8000_0000, 0x1234_5678),
)
WIDE = (0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_0000_0001)
IMMEDIATE = st.sampled_from(ODD) | st.integers(-0x8000_0000, 0x7FFF_FFFF)
SCALAR = st.sampled_from(SCALARS)
ALU = st.sampled_from(("+=", "-=", "*=", "/=", "%=", "s/=", "s%=", "|=", "&=", "^=", "="))
SHIFT = st.sampled_from(("<<=", ">>=", "s>>="))
COMPARISON = st.sampled_from(("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"))
BITS = st.sampled_from((8, 16, 32, 64))
LETTER = st.sampled_from(("r", "w"))


@dataclass(slots=True)
class Function:
    """One function being written."""

    draw: Draw
    numbers: count[int]
    callees: tuple[str, ...] = ()
    called: set[str] = field(default_factory=set)  # by any function of the program
    is_main: bool = False
    depth: int = 0
    loops: int = 0
    lines: list[str] = field(default_factory=list)

    def emit(self, *lines: str) -> None:
        self.lines += lines

    def label(self) -> str:
        """A name for a place to jump to."""
        return f"l{next(self.numbers)}"

    def scalar(self) -> str:
        """The number of a register that holds a scalar."""
        return str(self.draw(SCALAR))


def alu(f: Function) -> None:
    """Arithmetic of two scalars, or of one and a constant."""
    letter, sign, dst = f.draw(LETTER), f.draw(ALU), f.scalar()
    if f.draw(st.booleans()):
        f.emit(f"{letter}{dst} {sign} {letter}{f.scalar()}")
        return
    constant = f.draw(IMMEDIATE)
    if constant == 0 and sign in ("/=", "%=", "s/=", "s%="):
        constant = 3  # a verifier refuses division by a constant 0
    f.emit(f"{letter}{dst} {sign} {constant}")


def shift(f: Function) -> None:
    """Shift by a scalar, which is masked, or by a constant below the width."""
    letter, sign = f.draw(LETTER), f.draw(SHIFT)
    amount = f.draw(st.integers(0, 63 if letter == "r" else 31))
    by = f"{letter}{f.scalar()}" if f.draw(st.booleans()) else str(amount)
    f.emit(f"{letter}{f.scalar()} {sign} {by}")


def unary(f: Function) -> None:
    """Negation, byte swaps and sign-extending moves."""
    a, b = f.scalar(), f.scalar()
    swaps = [f"r{a} = {kind}{bits} r{a}" for kind in ("le", "be", "bswap") for bits in (16, 32, 64)]
    moves = [f"r{a} = (s{bits})r{b}" for bits in (8, 16, 32)]
    moves += [f"w{a} = (s{bits})w{b}" for bits in (8, 16)]
    f.emit(f.draw(st.sampled_from([f"r{a} = -r{a}", f"w{a} = -w{a}", *swaps, *moves])))


def wide(f: Function) -> None:
    """A 64-bit immediate."""
    f.emit(f"r{f.scalar()} = {f.draw(st.sampled_from(WIDE) | st.integers(0, 2**64 - 1)):#x} ll")


def hint(f: Function) -> None:
    """A prefetch of anything: it has no effect."""
    base = f.draw(st.sampled_from((*SCALARS, "6", "10")))
    f.emit(f"prefetch(r{base} {f.draw(st.sampled_from((0, 8, -64, 4096))):+d})")


def spill(f: Function) -> None:
    """Store to a stack slot, or to an aligned part of it."""
    bits, slot = f.draw(BITS), f.draw(st.integers(1, SLOTS))
    within = f.draw(st.integers(0, 64 // bits - 1)) * bits // 8
    value = f"r{f.scalar()}" if f.draw(st.booleans()) else str(f.draw(IMMEDIATE))
    f.emit(f"*(u{bits} *)(r10 - {slot * 8 - within}) = {value}")


def fill(f: Function) -> None:
    """Load from a stack slot, or from an aligned part of it."""
    bits, slot = f.draw(BITS), f.draw(st.integers(1, SLOTS))
    within = f.draw(st.integers(0, 64 // bits - 1)) * bits // 8
    sign = "u" if bits == 64 else f.draw(st.sampled_from("us"))
    f.emit(f"r{f.scalar()} = *({sign}{bits} *)(r10 - {slot * 8 - within})")


def access(f: Function, base: str, limit: int) -> None:
    """A load or store of up to 8 of the `limit` bytes that `base` points to."""
    bits = f.draw(BITS)
    offset = f.draw(st.integers(0, limit - bits // 8))
    kind = f.draw(st.sampled_from(("store", "load", "constant")))
    if kind == "load":
        sign = "u" if bits == 64 else f.draw(st.sampled_from("us"))
        f.emit(f"r{f.scalar()} = *({sign}{bits} *)({base} + {offset})")
    elif kind == "store":
        f.emit(f"*(u{bits} *)({base} + {offset}) = r{f.scalar()}")
    else:
        f.emit(f"*(u{bits} *)({base} + {offset}) = {f.draw(IMMEDIATE)}")


def atomic(f: Function, base: str) -> None:
    """An atomic operation on the 8 bytes that `base` points to."""
    bits, s = f.draw(st.sampled_from((32, 64))), f.scalar()
    wide_, where = "64" if bits == 64 else "", f"(u{bits} *)({base} + 0)"
    forms = [f"lock *{where} {sign} r{s}" for sign in ("+=", "|=", "&=", "^=")]
    forms += [
        f"r{s} = atomic{wide_}_fetch_{op}({where}, r{s})" for op in ("add", "or", "and", "xor")
    ]
    forms += [f"r{s} = atomic{wide_}_xchg({where}, r{s})"]
    forms += [f"r0 = r{f.scalar()}\nr0 = atomic{wide_}_cmpxchg({where}, r0, r{s})\nr{s} = r0"]
    f.emit(f.draw(st.sampled_from(forms)))


def stack_atomic(f: Function) -> None:
    """An atomic operation on a stack slot through a copy of r10."""
    f.emit("r5 = r10", f"r5 += {-8 * f.draw(st.integers(1, SLOTS))}")
    atomic(f, "r5")


def packet(f: Function) -> None:
    """Accesses behind a comparison with data_end, at a constant or a bounded offset."""
    out, size = f.label(), f.draw(st.integers(8, MAX_OFFSET))
    f.emit("r2 = *(u32 *)(r6 + 0)", "r3 = *(u32 *)(r6 + 4)")
    if f.draw(st.booleans()):
        f.emit(f"r1 = r{f.scalar()}", f"r1 &= {f.draw(st.integers(0, 31))}", "r2 += r1")
    f.emit("r1 = r2", f"r1 += {size}")
    f.emit(f.draw(st.sampled_from((f"if r1 > r3 goto {out}", f"if r3 < r1 goto {out}"))))
    for _ in range(f.draw(st.integers(1, 3))):
        access(f, "r2", size)
    f.emit(f"{out}:")


def key(f: Function, size: int) -> None:
    """r2 = a key at r10-72, from a scalar that is made small most of the time."""
    f.emit(f"r1 = r{f.scalar()}")
    mask = f.draw(st.sampled_from((1, 3, 3, 7, 0)))
    if mask:
        f.emit(f"r1 &= {mask}")
    f.emit(f"*(u{8 * size} *)(r10 - 72) = r1", "r2 = r10", "r2 += -72")


def lookup(f: Function) -> None:
    """Look up an element and work on its value."""
    spec, out = f.draw(st.sampled_from(MAPS[:4])), f.label()
    key(f, spec.key_size)
    f.emit(f"r1 = map[{spec.name}] ll", "call bpf_map_lookup_elem", f"if r0 == 0 goto {out}")
    if f.draw(st.booleans()):
        f.emit("r5 = r0")
        atomic(f, "r5")
    else:
        for _ in range(f.draw(st.integers(1, 3))):
            access(f, "r0", VALUE_SIZE)
    f.emit(f"{out}:")


def update(f: Function) -> None:
    """Write an element; the value is two scalars."""
    spec = f.draw(st.sampled_from(MAPS[:4]))
    key(f, spec.key_size)
    f.emit(f"*(u64 *)(r10 - 88) = r{f.scalar()}", f"*(u64 *)(r10 - 80) = r{f.scalar()}")
    f.emit(f"r1 = map[{spec.name}] ll", "r3 = r10", "r3 += -88")
    f.emit(f"r4 = {f.draw(st.sampled_from((0, 0, 1, 2, 3)))}", "call bpf_map_update_elem")
    f.emit(f"r{f.scalar()} = r0")


def delete(f: Function) -> None:
    """Delete an element of a hash, or try to of an array."""
    spec = f.draw(st.sampled_from(MAPS[:4]))
    key(f, spec.key_size)
    f.emit(f"r1 = map[{spec.name}] ll", "call bpf_map_delete_elem", f"r{f.scalar()} = r0")


def adjust(f: Function) -> None:
    """Move the packet's start, its end or its metadata."""
    name = f.draw(st.sampled_from(("head", "tail", "meta")))
    delta = f.draw(st.integers(-64, 64) | st.sampled_from((-300, 300, -4, 4, -8, -32)))
    f.emit("r1 = r6", f"r2 = {delta}", f"call bpf_xdp_adjust_{name}", f"r{f.scalar()} = r0")


def checksum(f: Function) -> None:
    """A difference of two parts of the stack slots; either may be empty."""
    first, second = (4 * f.draw(st.integers(0, 8)) for _ in "ab")
    f.emit("r1 = r10", "r1 += -32", f"r2 = {first}", "r3 = r10", "r3 += -64", f"r4 = {second}")
    f.emit(f"r5 = r{f.scalar()}", "call bpf_csum_diff", f"r{f.scalar()} = r0")


def bytes_of_packet(f: Function) -> None:
    """Copy between the packet and the stack slots, at any offset; or only its length."""
    name = f.draw(st.sampled_from(("load_bytes", "store_bytes", "get_buff_len")))
    offset = f.draw(st.sampled_from((str(f.draw(st.integers(0, 64))), f"r{f.scalar()}")))
    f.emit("r1 = r6", f"r2 = {offset}", "r3 = r10", "r3 += -64")
    f.emit(f"r4 = {f.draw(st.integers(1, 64))}", f"call bpf_xdp_{name}", f"r{f.scalar()} = r0")


def event(f: Function) -> None:
    """Write a record to the ring buffer: copied, or reserved and then submitted or discarded."""
    size = f.draw(st.integers(1, 64))
    if f.draw(st.booleans()):
        f.emit("r1 = map[events] ll", "r2 = r10", "r2 += -64", f"r3 = {size}", "r4 = 0")
        f.emit("call bpf_ringbuf_output", f"r{f.scalar()} = r0")
        return
    out = f.label()
    f.emit("r1 = map[events] ll", "r2 = 16", "r3 = 0", "call bpf_ringbuf_reserve")
    f.emit(f"if r0 == 0 goto {out}", f"*(u64 *)(r0 + 0) = r{f.scalar()}")
    f.emit(f"*(u64 *)(r0 + 8) = {f.draw(IMMEDIATE)}", "r1 = r0", "r2 = 0")
    f.emit(
        f"call bpf_ringbuf_{f.draw(st.sampled_from(('submit', 'submit', 'discard')))}", f"{out}:"
    )


def tail_call(f: Function) -> None:
    """Go to another program, unless the index is out of range or too many calls were made.

    Only from main functions: the kernel wants BTF for it elsewhere.
    """
    if f.is_main:
        f.emit("r1 = r6", "r2 = map[jumps] ll", f"r3 = r{f.scalar()}")
        if f.draw(st.booleans()):
            f.emit("r3 &= 3")
        f.emit("call bpf_tail_call")


def redirect(f: Function) -> None:
    """Name a target; the last one counts if the verdict is XDP_REDIRECT."""
    if f.draw(st.booleans()):
        f.emit(f"r1 = {f.draw(st.integers(0, 5))}", f"r2 = {f.draw(st.sampled_from((0, 0, 1)))}")
        f.emit("call bpf_redirect")
    else:
        f.emit("r1 = map[ports] ll", f"r2 = r{f.scalar()}")
        f.emit(f"r3 = {f.draw(st.integers(0, 4))}", "call bpf_redirect_map")
    f.emit(f"r{f.scalar()} = r0")


def context(f: Function) -> None:
    """Fields of xdp_md that are numbers, and distances of those that are pointers."""
    if f.draw(st.booleans()):
        f.emit(f"r{f.scalar()} = *(u32 *)(r6 + {f.draw(st.sampled_from((12, 16)))})")
        return
    f.emit("r1 = *(u32 *)(r6 + 4)", "r2 = *(u32 *)(r6 + 0)", "r1 -= r2", f"r{f.scalar()} = r1")


def condition(f: Function) -> str:
    """`if A op B` with a scalar and a scalar or constant."""
    letter = f.draw(LETTER)
    second = f"{letter}{f.scalar()}" if f.draw(st.booleans()) else str(f.draw(IMMEDIATE))
    return f"if {letter}{f.scalar()} {f.draw(COMPARISON)} {second}"


def branch(f: Function) -> None:
    """Two ways that meet again."""
    other, out = f.label(), f.label()
    f.emit(f"{condition(f)} goto {other}")
    block(f, 3)
    f.emit(f"{f.draw(st.sampled_from(('goto', 'gotol')))} {out}", f"{other}:")
    block(f, 3)
    f.emit(f"{out}:")


def loop(f: Function) -> None:
    """A block a few times over; the counter is on the stack."""
    if f.loops == 2:
        return
    slot, again, times = 96 + 8 * f.loops, f.label(), f.draw(st.integers(1, 3))
    f.emit(f"*(u64 *)(r10 - {slot}) = 0", f"{again}:")
    f.loops += 1
    block(f, 2)
    f.loops -= 1
    f.emit(f"r1 = *(u64 *)(r10 - {slot})", "r1 += 1", f"*(u64 *)(r10 - {slot}) = r1")
    f.emit(f"if r1 < {times} goto {again}")


def early_exit(f: Function) -> None:
    """An exit in the middle."""
    on = f.label()
    f.emit(f"{condition(f)} goto {on}", f"r0 = r{f.scalar()}", "exit", f"{on}:")


def call(f: Function) -> None:
    """Call another function of the program."""
    if f.callees:
        callee = f.draw(st.sampled_from(f.callees))
        f.called.add(callee)
        f.emit("r1 = r6", f"r2 = r{f.scalar()}", f"r3 = r{f.scalar()}")
        f.emit(f"call {callee}", f"r{f.scalar()} = r0")


SIMPLE = (alu, alu, shift, unary, wide, hint, spill, fill, stack_atomic, packet, packet, context)
STATEMENTS = (
    *(
        *SIMPLE,
        lookup,
        lookup,
        lookup,
        update,
        update,
        delete,
        adjust,
        redirect,
        early_exit,
        call,
        tail_call,
    ),
    *(checksum, bytes_of_packet, event),
)


def block(f: Function, most: int, least: int = 0) -> None:
    """`least` to `most` statements; blocks nest at most three deep."""
    f.depth += 1
    choices = STATEMENTS if f.depth > 3 else (*STATEMENTS, branch, branch, loop)
    for statement in f.draw(st.lists(st.sampled_from(choices), min_size=least, max_size=most)):
        statement(f)
    f.depth -= 1
