"""Native functions: compiled code does what their Python definition does."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from xdpbatch import cache, mem
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.jit.native import NativeCode, closure, compile_native, ir_of
from xdpbatch.mem import add64, below, load32, mul64, signed, store32
from xdpbatch.native import Intrinsic, Native, native

STEP = 4
BIG = (1 << 63) - 1
NUMBERS = [0, 1, -1, 0x80, 0x1234, -0x8000_0000, 0x8000_0001, BIG, -BIG - 1, 0x0123_4567_89AB_CDEF]
INTRINSICS = {v.python.__name__: v for v in vars(mem).values() if isinstance(v, Intrinsic)}
PURE = ["swap16", "swap32", "swap64", "ctz64", "clz64", "relax"]
PURE += ["add64", "mul64", "fold64", "below"]


@native
def total(array: int, count: int) -> int:
    out = 0
    for i in range(count):
        out = (out + load32(array + STEP * i)) & 0xFFFFFFFF
    return out


@native
def double_total(array: int, count: int) -> int:
    return 2 * total(array, count)


@native
def successor_is_larger(a: int) -> int:
    return int(a + 1 > a)


@native
def divides(a: int, b: int) -> int:
    return a // b


@native
def raises(a: int) -> int:
    if a > 5:
        raise ValueError
    return a


@native
def steps(a: int) -> int:
    out = 0
    for i in range(0, 10, a):  # a step of 0 is a ValueError
        out = i
    return out


@native
def uses_a_string(a: int) -> int:
    return a + len(__name__)


def call(code: NativeCode, function: Native, *args: int) -> int:
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(function.params))
    return int(kind(code.address(function))(*args))


@pytest.fixture(scope="module")
def machine() -> NativeCode:
    return compile_native(*INTRINSICS.values())


@pytest.mark.parametrize("name", PURE)
def test_arithmetic(machine: NativeCode, name: str) -> None:
    function = INTRINSICS[name]
    for a in NUMBERS:
        for b in NUMBERS if len(function.params) == 2 else [0]:
            args = (a, b)[: len(function.params)]
            assert call(machine, function, *args) == function(*args)


def test_shift_right(machine: NativeCode) -> None:
    for n in range(64):
        assert call(machine, mem.shr64, -2, n) == mem.shr64(-2, n)


@pytest.mark.parametrize("name", [n for n in INTRINSICS if n.startswith("load")])
def test_loads(machine: NativeCode, name: str) -> None:
    memory = aligned(64)
    memory[:] = [(200 + i) % 256 for i in range(64)]
    steps = range(0, 24, 8) if "acquire" in name else range(24)
    for offset in steps:
        address = address_of(memory) + offset
        assert call(machine, INTRINSICS[name], address) == INTRINSICS[name](address)


@pytest.mark.parametrize("name", [n for n in INTRINSICS if n.startswith(("store", "fetch_add"))])
def test_writes(machine: NativeCode, name: str) -> None:
    ours, theirs = aligned(64), aligned(64)
    for value in NUMBERS:
        ours[:] = theirs[:] = 0xA5
        got = call(machine, INTRINSICS[name], address_of(ours) + 8, value)
        assert got == INTRINSICS[name](address_of(theirs) + 8, value)
        assert bytes(ours) == bytes(theirs)


@pytest.mark.parametrize("bits", [32, 64])
def test_compare_exchange(machine: NativeCode, bits: int) -> None:
    function = INTRINSICS[f"compare_exchange{bits}"]
    ours, theirs = aligned(64), aligned(64)
    for expected in (0, 7, -1, 7):
        got = call(machine, function, address_of(ours), expected, 7)
        assert got == function(address_of(theirs), expected, 7)
        assert bytes(ours) == bytes(theirs)


def test_copy_and_fill(machine: NativeCode) -> None:
    ours, theirs = aligned(64), aligned(64)
    for memory, copy, fill in (
        (ours, lambda *a: call(machine, mem.copy, *a), lambda *a: call(machine, mem.fill, *a)),
        (theirs, mem.copy, mem.fill),
    ):
        memory[:] = range(64)
        start = address_of(memory)
        copy(start + 3, start, 20)  # overlapping
        fill(start + 40, 0x1FF, 9)
    assert bytes(ours) == bytes(theirs)


def test_calls_and_clock(machine: NativeCode) -> None:
    assert call(machine, mem.call1, machine.address(mem.swap16), 0x1234) == 0x3412
    assert call(machine, mem.call2, machine.address(mem.add64), 40, 2) == 42
    before = mem.clock_ns(1)
    assert before <= call(machine, mem.clock_ns, 1) <= mem.clock_ns(1)
    assert call(machine, mem.prefetch, 1) == 0  # no such address: still only a hint


def test_every_intrinsic_has_code() -> None:
    for function in INTRINSICS.values():
        assert f'@"{function.symbol}"' in ir_of(function)


def test_a_function_and_its_callees() -> None:
    assert [f.symbol.split(".")[-1] for f in closure([double_total])] == ["double_total", "total"]
    code = compile_native(double_total, total)
    memory = aligned(64).view("<u4")
    memory[:] = range(1, 17)
    assert call(code, double_total, address_of(memory), 16) == 272
    assert call(code, total, address_of(memory), 16) == 136


def test_overflow_wraps() -> None:
    """numba emits `nsw`, with which `a + 1 > a` would be true for the largest number too."""
    code = compile_native(successor_is_larger)
    assert call(code, successor_is_larger, BIG - 1) == 1
    assert call(code, successor_is_larger, BIG) == 0


def test_division_never_traps() -> None:
    code = compile_native(divides)
    assert call(code, divides, -7, 2) == -4
    assert call(code, divides, 7, 0) == 0
    assert call(code, divides, -BIG - 1, -1) in (0, -BIG - 1)  # not SIGFPE


def test_refused_functions_are_named() -> None:
    with pytest.raises(TypeError, match="raises: ValueError is not an integer"):
        ir_of(raises)
    with pytest.raises(TypeError, match="steps: a path of it raises"):
        ir_of(steps)
    with pytest.raises(TypeError, match="uses_a_string: len is not an integer"):
        ir_of(uses_a_string)


def test_second_start_needs_no_numba() -> None:
    """What is in the cache is loaded without numba, in another process."""
    code = (
        "import sys; from xdpbatch.jit.native import compile_native; "
        "from test_native import double_total; compile_native(double_total); "
        "assert 'numba' not in sys.modules"
    )
    compile_native(double_total)
    folder = __file__.rpartition("/")[0]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_a_damaged_cache_entry_is_a_miss(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    monkeypatch.setenv("XDPBATCH_CACHE", str(folder))
    key = cache.key_of("a", 1)
    assert cache.get("o", key) is None
    cache.put("o", key, b"contents")
    assert cache.get("o", key) == b"contents"
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-1])
    assert cache.get("o", key) is None


def test_a_cache_that_others_can_write_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    folder.chmod(0o777)
    monkeypatch.setenv("XDPBATCH_CACHE", str(folder))
    cache.put("o", "key", b"contents")
    assert not list(folder.iterdir())


def test_no_cache_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPBATCH_CACHE", "/proc/nowhere")
    cache.put("o", "key", b"contents")
    assert cache.get("o", "key") is None
    assert call(compile_native(mem.add64), mem.add64, 1, 2) == 3


def test_native_functions_see_registers_as_signed() -> None:
    assert signed((1 << 64) - 1) == -1
    assert add64(BIG, 1) == -BIG - 1
    assert mul64(BIG, 2) == -2
    assert below(-1, 1) == 0
    memory = aligned(8)
    store32(address_of(memory), -1)
    assert load32(address_of(memory)) == 0xFFFFFFFF
