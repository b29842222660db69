"""Raw memory, atomics and the few machine operations that native functions need.

Each function here is an intrinsic: the Python body is its definition (it works on real addresses
through ctypes, little endian as BPF is here), `jit.native` emits one or two LLVM instructions for
it. Loads zero-extend; every address may be unaligned except for atomics.
Analogous to READ_ONCE/WRITE_ONCE, smp_load_acquire/smp_store_release and cmpxchg of the kernel.
"""

from __future__ import annotations

import ctypes
import time

from xdpbatch.native import intrinsic

_M64 = (1 << 64) - 1
_C8, _C16, _C32, _C64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int64


def signed(value: int) -> int:
    """`value` modulo 2**64 as a signed 64-bit integer: how native functions see a register."""
    value &= _M64
    return value - (1 << 64) if value >> 63 else value


@intrinsic
def load8(address: int) -> int:
    return _C8.from_address(address).value


@intrinsic
def load16(address: int) -> int:
    return _C16.from_address(address).value


@intrinsic
def load32(address: int) -> int:
    return _C32.from_address(address).value


@intrinsic
def load64(address: int) -> int:
    return _C64.from_address(address).value


@intrinsic
def store8(address: int, value: int) -> int:
    _C8.from_address(address).value = value & 0xFF
    return 0


@intrinsic
def store16(address: int, value: int) -> int:
    _C16.from_address(address).value = value & 0xFFFF
    return 0


@intrinsic
def store32(address: int, value: int) -> int:
    _C32.from_address(address).value = value & 0xFFFFFFFF
    return 0


@intrinsic
def store64(address: int, value: int) -> int:
    _C64.from_address(address).value = signed(value)
    return 0


@intrinsic
def copy(to: int, source: int, size: int) -> int:
    """memmove."""
    ctypes.memmove(to, source, size)
    return 0


@intrinsic
def fill(to: int, byte: int, size: int) -> int:
    """memset."""
    ctypes.memset(to, byte, size)
    return 0


@intrinsic
def add64(a: int, b: int) -> int:
    """a + b modulo 2**64."""
    return signed(a + b)


@intrinsic
def mul64(a: int, b: int) -> int:
    """a * b modulo 2**64."""
    return signed(a * b)


@intrinsic
def fold64(a: int, b: int) -> int:
    """The two halves of the unsigned 128-bit product a * b, xored: the step of a hash."""
    product = (a & _M64) * (b & _M64)
    return signed(product ^ product >> 64)


@intrinsic
def shr64(a: int, n: int) -> int:
    """Logical shift right, 0 <= n < 64."""
    return signed((a & _M64) >> n)


@intrinsic
def below(a: int, b: int) -> int:
    """1 if a < b as unsigned 64-bit integers, else 0."""
    return int((a & _M64) < (b & _M64))


@intrinsic
def swap16(a: int) -> int:
    return int.from_bytes((a & 0xFFFF).to_bytes(2, "little"), "big")


@intrinsic
def swap32(a: int) -> int:
    return int.from_bytes((a & 0xFFFFFFFF).to_bytes(4, "little"), "big")


@intrinsic
def swap64(a: int) -> int:
    return signed(int.from_bytes((a & _M64).to_bytes(8, "little"), "big"))


@intrinsic
def ctz64(a: int) -> int:
    """Number of trailing zero bits; 64 for 0."""
    a &= _M64
    return (a & -a).bit_length() - 1 if a else 64


@intrinsic
def clz64(a: int) -> int:
    """Number of leading zero bits; 64 for 0."""
    return 64 - (a & _M64).bit_length()


@intrinsic
def settled(value: int) -> int:
    """The value. In native code a register that was never written may hold anything, even
    something else at each look; what this returns is one number."""
    return value


@intrinsic
def prefetch(address: int) -> int:
    """A hint to bring the cache line in; any address is allowed."""
    return 0


@intrinsic
def load_acquire32(address: int) -> int:
    return _C32.from_address(address).value


@intrinsic
def store_release32(address: int, value: int) -> int:
    _C32.from_address(address).value = value & 0xFFFFFFFF
    return 0


@intrinsic
def load_acquire64(address: int) -> int:
    return _C64.from_address(address).value


@intrinsic
def store_release64(address: int, value: int) -> int:
    _C64.from_address(address).value = signed(value)
    return 0


@intrinsic
def fetch_add32(address: int, value: int) -> int:
    """Atomically add; returns the old value."""
    old = load32(address)
    store32(address, old + value)
    return old


@intrinsic
def fetch_add64(address: int, value: int) -> int:
    """Atomically add; returns the old value."""
    old = load64(address)
    store64(address, old + value)
    return old


@intrinsic
def compare_exchange32(address: int, expected: int, value: int) -> int:
    """Atomically store `value` if the old one is `expected`; returns the old one."""
    old = load32(address)
    if old == expected & 0xFFFFFFFF:
        store32(address, value)
    return old


@intrinsic
def compare_exchange64(address: int, expected: int, value: int) -> int:
    """Atomically store `value` if the old one is `expected`; returns the old one."""
    old = load64(address)
    if old == expected:
        store64(address, value)
    return old


@intrinsic
def relax() -> int:
    """What a spinning thread does between two looks: PAUSE on x86, YIELD on aarch64."""
    return 0


@intrinsic
def call1(function: int, a: int) -> int:
    """Call native code at an address with one 64-bit argument."""
    return int(ctypes.CFUNCTYPE(_C64, _C64)(function)(a))


@intrinsic
def call2(function: int, a: int, b: int) -> int:
    """Call native code at an address with two 64-bit arguments."""
    return int(ctypes.CFUNCTYPE(_C64, _C64, _C64)(function)(a, b))


@intrinsic
def call6(function: int, a: int, b: int, c: int, d: int, e: int, f: int) -> int:
    """Call native code at an address with six 64-bit arguments: a function of the C library."""
    return int(ctypes.CFUNCTYPE(_C64, *[_C64] * 6)(function)(a, b, c, d, e, f))


@intrinsic
def clock_ns(which: int) -> int:
    """clock_gettime(which) in nanoseconds, by the C library."""
    return time.clock_gettime_ns(which)
