"""What each intrinsic of `mem` becomes in LLVM IR.

Analogous to arch/*/include/asm/barrier.h and atomic.h: the one place where memory order and
machine instructions are chosen. `EMIT[name](builder, args)` emits one intrinsic; `args` and the
result are i64. Adding an intrinsic: its definition in `mem`, its entry here.

Orders follow the kernel's (Documentation/atomic_t.txt): read-modify-writes that return a value are
fully ordered, acquire and release are what they say, plain loads and stores promise nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from llvmlite import ir

Emit = Callable[[ir.IRBuilder, Sequence[ir.Value]], ir.Value]

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
PTR = ir.PointerType()
RELAX = {"x86_64": "pause", "aarch64": "yield"}


def declare(b: ir.IRBuilder, name: str, result: ir.Type, *params: ir.Type) -> ir.Function:
    """The function `name` of the builder's module, declared at its first use."""
    found = b.module.globals.get(name)
    return found or ir.Function(b.module, ir.FunctionType(result, params), name)


def pointer(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """An address in a register, as something to load from.

    base + constant becomes a getelementptr: after inlining LLVM then sees that it is the base's
    object, such as a key on the program's stack, which it does not see through an addition.
    """
    if isinstance(address, ir.Instruction) and address.opname == "add":
        base, offset = address.operands
        if isinstance(offset, ir.Constant):
            return b.gep(b.inttoptr(base, PTR), [offset], source_etype=I8)
    return b.inttoptr(address, PTR)


def atom(b: ir.IRBuilder, address: ir.Value, bits: int) -> ir.Value:
    """An address that an atomic operation of `bits` bits goes to."""
    return b.inttoptr(address, ir.IntType(bits).as_pointer())


def _load(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        value = b.load(pointer(b, args[0]), typ=ir.IntType(bits), align=1)
        return b.zext(value, I64) if bits < 64 else value

    return emit


def _store(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        b.store(_narrow(b, args[1], bits), pointer(b, args[0]), align=1)
        return I64(0)

    return emit


def _load_acquire(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        value = b.load_atomic(atom(b, args[0], bits), "acquire", bits // 8)
        return b.zext(value, I64) if bits < 64 else value

    return emit


def _store_release(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        value = _narrow(b, args[1], bits)
        b.store_atomic(value, atom(b, args[0], bits), "release", bits // 8)
        return I64(0)

    return emit


def _fetch_add(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        old = b.atomic_rmw("add", atom(b, args[0], bits), _narrow(b, args[1], bits), "seq_cst")
        return b.zext(old, I64) if bits < 64 else old

    return emit


def _compare_exchange(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        expected, value = (_narrow(b, arg, bits) for arg in args[1:])
        pair = b.cmpxchg(atom(b, args[0], bits), expected, value, "seq_cst", "seq_cst")
        old = b.extract_value(pair, 0)
        return b.zext(old, I64) if bits < 64 else old

    return emit


def _swap(bits: int) -> Emit:
    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
        value = b.bswap(_narrow(b, args[0], bits))
        return b.zext(value, I64) if bits < 64 else value

    return emit


def _narrow(b: ir.IRBuilder, value: ir.Value, bits: int) -> ir.Value:
    return b.trunc(value, ir.IntType(bits)) if bits < 64 else value


def _copy(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    memmove = declare(b, "llvm.memmove.p0.p0.i64", ir.VoidType(), PTR, PTR, I64, I1)
    b.call(memmove, [pointer(b, args[0]), pointer(b, args[1]), args[2], I1(0)])
    return I64(0)


def _fill(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    memset = declare(b, "llvm.memset.p0.i64", ir.VoidType(), PTR, I8, I64, I1)
    b.call(memset, [pointer(b, args[0]), b.trunc(args[1], I8), args[2], I1(0)])
    return I64(0)


def _fold64(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    wide = ir.IntType(128)
    product = b.mul(b.zext(args[0], wide), b.zext(args[1], wide))
    return b.xor(b.trunc(product, I64), b.trunc(b.lshr(product, wide(64)), I64))


def _settled(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    """What LLVM calls freeze, which llvmlite cannot emit."""
    return b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [args[0]], side_effect=False)


def prefetch(b: ir.IRBuilder, target: ir.Value) -> ir.Value:
    """Bring a cache line in to be read, into all caches."""
    hint = declare(b, "llvm.prefetch.p0", ir.VoidType(), PTR, I32, I32, I32)
    b.call(hint, [target, I32(0), I32(3), I32(1)])
    return I64(0)


def _relax(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    code = RELAX.get(platform.machine(), "")
    b.asm(ir.FunctionType(ir.VoidType(), []), code, "~{memory}", [], side_effect=True)
    return I64(0)


def _call(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    kind = ir.FunctionType(I64, [I64] * (len(args) - 1))
    return b.call(b.inttoptr(args[0], kind.as_pointer()), args[1:])


def _clock_ns(b: ir.IRBuilder, args: Sequence[ir.Value]) -> ir.Value:
    clock_gettime = declare(b, "clock_gettime", I32, I32, PTR)
    with b.goto_entry_block():
        timespec = b.alloca(ir.ArrayType(I64, 2))
    b.call(clock_gettime, [b.trunc(args[0], I32), timespec])
    seconds = b.load(timespec, typ=I64)
    nanoseconds = b.load(b.gep(timespec, [I64(8)], source_etype=I8), typ=I64)
    return b.add(b.mul(seconds, I64(1_000_000_000)), nanoseconds)


EMIT: dict[str, Emit] = {
    **{f"load{bits}": _load(bits) for bits in (8, 16, 32, 64)},
    **{f"store{bits}": _store(bits) for bits in (8, 16, 32, 64)},
    **{f"swap{bits}": _swap(bits) for bits in (16, 32, 64)},
    **{f"load_acquire{bits}": _load_acquire(bits) for bits in (32, 64)},
    **{f"store_release{bits}": _store_release(bits) for bits in (32, 64)},
    **{f"fetch_add{bits}": _fetch_add(bits) for bits in (32, 64)},
    **{f"compare_exchange{bits}": _compare_exchange(bits) for bits in (32, 64)},
    "copy": _copy,
    "fill": _fill,
    "add64": lambda b, args: b.add(args[0], args[1]),
    "mul64": lambda b, args: b.mul(args[0], args[1]),
    "fold64": _fold64,
    "shr64": lambda b, args: b.lshr(args[0], b.and_(args[1], I64(63))),
    "below": lambda b, args: b.zext(b.icmp_unsigned("<", args[0], args[1]), I64),
    "ctz64": lambda b, args: b.cttz(args[0], I1(0)),
    "clz64": lambda b, args: b.ctlz(args[0], I1(0)),
    "settled": _settled,
    "prefetch": lambda b, args: prefetch(b, pointer(b, args[0])),
    "relax": _relax,
    "call1": _call,
    "call2": _call,
    "call6": _call,
    "clock_ns": _clock_ns,
}
