"""Every helper asked the same questions as the running kernel's, the edge cases first."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import random
import struct
import time

import pytest
from helper_calls import Script, call, stack

from xdpbatch.sys import bpf

pytestmark = pytest.mark.kernel

EDGES = [0, 1, -1, 3, 4, 14, 20, -4, -16, -64, -120, -216, -217, -256, -257, 2**31 - 1, -(2**31)]


def adjust(script: Script, helper: str, offset: int) -> None:
    script.do(helper, "ctx", offset)
    script.do("xdp_get_buff_len", "ctx")


@pytest.mark.parametrize("helper", ["xdp_adjust_head", "xdp_adjust_meta", "xdp_adjust_tail"])
@pytest.mark.parametrize(
    "offset", [*EDGES, 50, 51, 63, 64, -50, -51, 3456, 3457, 4096, -252, 5 << 32]
)
def test_adjust_once(helper: str, offset: int) -> None:
    script = Script()
    adjust(script, helper, offset)
    script.same()


@pytest.mark.parametrize("seed", range(12))
def test_adjust_in_sequence(seed: int) -> None:
    """Metadata moves with the head; a grown tail is zero; nothing leaves the frame."""
    choice = random.Random(seed)
    script = Script()
    for _ in range(12):
        helper = choice.choice(["xdp_adjust_head", "xdp_adjust_meta", "xdp_adjust_tail"])
        offset = choice.choice([*EDGES, choice.randrange(-300, 300), 4 * choice.randrange(-20, 20)])
        adjust(script, helper, offset)
        script.add(stack(bytes([seed + 1] * 8), -8))
        script.do("xdp_store_bytes", "ctx", choice.randrange(60), "r10-8", 8)
    script.same()


@pytest.mark.parametrize("size", [1, 2, 13, 64, 65, 128])
@pytest.mark.parametrize(
    "offset", [0, 1, 50, 63, 64, 65, 0xFFFF, 0x10000, 2**32 - 1, 2**32 + 2, -1]
)
def test_load_and_store_bytes(offset: int, size: int) -> None:
    script = Script()
    script.add(stack(bytes(range(100, 228)), -128))
    script.do("xdp_load_bytes", "ctx", offset, "r10-128", size)
    for at in range(-128, 0, 8):
        script.add(f"r1 = *(u64 *)(r10 {at})")
        script.keep("r1")
    script.add(stack(bytes(range(100, 228)), -128))
    script.do("xdp_store_bytes", "ctx", offset, "r10-128", size)
    script.same()


SIZES = [(0, 0), (0, 4), (4, 0), (4, 4), (20, 20), (8, 20), (64, 4), (1, 4), (4, 6), (3, 0), (0, 2)]
SIZES += [(0, 63), (61, 0), (7, 9), (33, 2)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"random"])
def test_csum_diff(sizes: tuple[int, int], fill: bytes) -> None:
    choice = random.Random(sum(sizes))
    script = Script()
    for seed in (0, 1, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x12345678, -1, 0xFFFFFFFF00000001):
        for start, size in ((-64, sizes[0]), (-128, sizes[1])):
            data = choice.randbytes(64) if fill == b"random" else fill * 64
            script.add(stack(data, start))
            assert size <= 64
        pointers = [f"r10{at}" if size else 0 for at, size in ((-64, sizes[0]), (-128, sizes[1]))]
        script.do("csum_diff", pointers[0], sizes[0], pointers[1], sizes[1], seed)
    script.same()


FLAGS = [0, 1, 2, 3, 4, 5, 8, 16, 24, 9, 1 << 32, -1]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("key", [0, 1, 2, 1 << 32, 2**32 - 1])
@pytest.mark.parametrize(
    "kind", ["devmap 4 4 2", "devmap_hash 4 8 2", "cpumap 4 4 2", "xskmap 4 4 2"]
)
def test_redirect_map(kind: str, key: int, flags: int) -> None:
    """Entry 1 is used where user space can fill it without a socket; the others are empty."""
    entries = {}
    if not kind.startswith("xskmap"):
        value = (1).to_bytes(int(kind.split()[2]), "little")  # device 1, or a queue of 1
        entries = {"ports": {(1).to_bytes(4, "little"): value}}
    script = Script(f".map ports {kind}", entries=entries)
    script.do("redirect_map", "map[ports]", key, flags)
    script.same()


@pytest.mark.parametrize("flags", [0, 1, 1 << 40, -1])
def test_redirect(flags: int) -> None:
    script = Script()
    script.do("redirect", 1, flags)
    script.same()


def test_maps_from_a_program() -> None:
    """Flags, full maps, missing keys: what update, delete and lookup return."""
    maps = [
        ".map hash hash 4 8 2",
        ".map loose hash 4 8 2 1",
        ".map array array 4 8 2",
        ".map percpu percpu_hash 4 8 2",
        ".map cells percpu_array 4 8 2",
        ".map lru lru_hash 4 8 2",
        ".map lrus lru_percpu_hash 4 8 2",
    ]
    script = Script(*maps)
    for line in maps:
        name = f"map[{line.split()[1]}]"
        for key, flags in [(1, 2), (1, 1), (1, 1), (1, 2), (0, 0), (5, 0), (5, 3), (5, 4), (1, -1)]:
            script.add(stack(key.to_bytes(8, "little"), -8) + stack(bytes([key + 1] * 8), -16))
            script.do("map_update_elem", name, "r10-8", "r10-16", flags)
        for key in (1, 1, 9):
            script.add(stack(key.to_bytes(8, "little"), -8))
            script.do("map_delete_elem", name, "r10-8")
            script.add(f"r1 = {name} ll\nr2 = r10\nr2 += -8\ncall bpf_map_lookup_elem")
            script.add("if r0 == 0 goto +1\nr0 = *(u64 *)(r0 + 0)")
            script.keep()
    script.same()


@pytest.mark.parametrize(
    "kind", ["hash 4 8 8", "hash 4 8 8 1", "lru_hash 4 8 64", "percpu_hash 4 8 8"]
)
def test_a_pointer_to_a_value_that_was_replaced(kind: str) -> None:
    """It shows the old value until the kernel uses the element again."""
    script = Script(f".map m {kind}")

    def update(key: int, value: int) -> None:
        script.add(stack(key.to_bytes(8, "little"), -8) + stack(value.to_bytes(8, "little"), -16))
        script.do("map_update_elem", "map[m]", "r10-8", "r10-16", 0)
        script.add("r1 = *(u64 *)(r7 + 0)")
        script.keep("r1")

    script.add("r7 = r9")
    update(1, 0x11)
    script.add("r1 = map[m] ll\nr2 = r10\nr2 += -8\ncall bpf_map_lookup_elem")
    script.add("if r0 == 0 goto end\nr7 = r0")
    update(1, 0x12)
    update(2, 0x21)
    update(1, 0x13)
    update(2, 0x22)
    script.do("map_delete_elem", "map[m]", "r10-8")
    script.add("r1 = *(u64 *)(r7 + 0)")
    script.keep("r1")
    update(3, 0x31)
    update(4, 0x41)
    script.add("end:")
    script.same()


def test_lookup_on_another_cpu() -> None:
    script = Script(".map p percpu_array 4 8 2", ".map h percpu_hash 4 8 2")
    script.add(stack(bytes(8), -8) + stack(b"\7" * 8, -16))
    for name in ("map[p]", "map[h]"):
        script.do("map_update_elem", name, "r10-8", "r10-16", 0)
        for cpu in (0, 1, 5000, 2**32 - 1, 1 << 32):
            script.add(f"r1 = {name} ll\nr2 = r10\nr2 += -8\nr3 = {cpu:#x} ll")
            script.add("call bpf_map_lookup_percpu_elem\nif r0 == 0 goto +1\nr0 = 1")
            script.keep()
    script.same()


def test_evictions_with_lookups_from_the_program() -> None:
    """A lookup sets the reference bit: which keys survive is the kernel's choice."""
    script = Script(".map lru lru_hash 4 8 6")
    for key in range(30):
        script.add(stack(key.to_bytes(8, "little"), -8) + stack(bytes(8), -16))
        script.do("map_update_elem", "map[lru]", "r10-8", "r10-16", 0)
        for used in (0, 2, key // 2):
            script.add(stack(used.to_bytes(8, "little"), -8))
            script.add("r1 = map[lru] ll\nr2 = r10\nr2 += -8\ncall bpf_map_lookup_elem")
            script.add("if r0 == 0 goto +1\nr0 = 1")
            script.keep()
    script.same()


@pytest.mark.parametrize("kind", ["queue", "stack"])
def test_queue_and_stack(kind: str) -> None:
    script = Script(f".map q {kind} 0 8 3")
    choice = random.Random(len(kind))
    for step in range(40):
        script.add(stack(bytes([step + 1] * 8), -8))
        helper = choice.choice(["map_push_elem"] * 2 + ["map_pop_elem", "map_peek_elem"])
        flags = [choice.choice([0, 0, 2, 1, 3, 4])] if helper == "map_push_elem" else []
        script.do(helper, "map[q]", "r10-8", *flags)
        script.add("r1 = *(u64 *)(r10 - 8)")
        script.keep("r1")
    script.same()


@pytest.mark.parametrize("kind", ["0 8 3 64", "0 24 100 64"])
def test_bloom_filter(kind: str) -> None:
    """With a zero seed what is found though it was never added is the same, too."""
    script = Script(f".map b bloom_filter {kind}")
    size = int(kind.split()[1])
    choice = random.Random(size)
    for _ in range(20):
        script.add(stack(choice.randbytes(size), -size))
        script.do("map_push_elem", "map[b]", f"r10-{size}", choice.choice([0, 0, 0, 1, 2, -1]))
        script.add(stack(choice.randbytes(size), -size))
        script.do("map_peek_elem", "map[b]", f"r10-{size}")
    judge = script.same()
    assert set(judge.results) == {0, -errno.EINVAL, -errno.ENOENT}


def test_a_bloom_filter_only_reads_what_it_is_asked_for() -> None:
    """A value that a program may not write is one that it may ask for."""
    value = b"\1\2\3\4\5\6\7\0"
    script = Script(".map b bloom_filter 0 8 3", ".map text array 4 8 1 128", text=value)
    script.do("map_peek_elem", "map[b]", "map_value[text+0]")
    script.do("map_push_elem", "map[b]", "map_value[text+0]", 0)
    script.do("map_peek_elem", "map[b]", "map_value[text+0]")
    assert script.same().results == (-errno.ENOENT, 0, 0)


def test_strncmp() -> None:
    script = Script(".map text array 4 16 1 128", text=b"abc".ljust(16, b"\0"))
    for first in (b"abc\0", b"abd\0", b"abb\0", b"ab\0\0", b"\xff\0\0\0", b"\0\0\0\0"):
        for size in (1, 2, 3, 4):
            script.add(stack(first.ljust(8, b"\0"), -8))
            script.add(f"r1 = r10\nr1 += -8\nr2 = {size}\nr3 = map_value[text+0] ll")
            script.add("call bpf_strncmp")
            script.keep()
    script.same()


@pytest.mark.parametrize("count", [0, 1, 5, 1 << 23, (1 << 23) + 1, 2**32 + 3])
@pytest.mark.parametrize("flags", [0, 1])
def test_loop(count: int, flags: int) -> None:
    """It stops at the callback's 1; the number of calls counts that one."""
    script = Script()
    script.add(f"r1 = {count:#x} ll\nr2 = func[once] ll\nr3 = 0\nr4 = {flags}\ncall bpf_loop")
    script.keep()
    script.same(verdict="r0 = 2\nexit\nonce: r0 = 0\nif r1 < 2 goto +1\nr0 = 1")


@pytest.mark.parametrize("seed", range(4))
def test_ring_buffer(seed: int) -> None:
    """What is reserved, given, given up and written, and the ring's positions in between."""
    choice = random.Random(seed)
    script = Script(".map ring ringbuf 0 0 4096")
    script.add(stack(choice.randbytes(256), -256))
    for _ in range(40):
        size = choice.choice([0, 1, 7, 8, 9, 64, 200])
        script.do("ringbuf_output", "map[ring]", "r10-256", size, choice.choice([0, 1, 2, 3, 4]))
        size = choice.choice([1, 8, 64, 200, 1000, 4088, 4089, 1 << 20])
        flags = choice.choice([0, 0, 0, 1])
        script.add(f"r1 = map[ring] ll\nr2 = {size}\nr3 = {flags}\ncall bpf_ringbuf_reserve")
        script.add("r7 = 0\nif r0 == 0 goto +7\n*(u8 *)(r0 + 0) = 7\nr1 = r0\nr2 = 0")
        script.add(
            f"call bpf_ringbuf_{choice.choice(['submit', 'discard'])}\nr7 = 1\nr0 = 0\nr0 = 0"
        )
        script.keep("r7")
        script.do("ringbuf_query", "map[ring]", choice.choice([0, 1, 2, 3, 4, -1]))
    judge = script.same()
    assert judge.results.count(-errno.EAGAIN)
    assert judge.results.count(0)


def perf_reader(fd: int) -> tuple[int, mmap.mmap]:
    """Open a software event for records on CPU 0 and put it into entry 0 of a perf array."""
    attr = struct.pack("<IIQQQQQII", 1, 112, 10, 1, 1 << 10, 0, 0, 1, 0).ljust(112, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 298, "aarch64": 241}[platform.machine()]
    event = libc.syscall(number, ctypes.c_char_p(attr), -1, 0, -1, 8)
    assert event >= 0, os.strerror(ctypes.get_errno())
    bpf.map_update(fd, bytes(4), struct.pack("<I", event))
    return event, mmap.mmap(event, 9 * 4096)


def perf_records(pages: mmap.mmap) -> list[bytes]:
    """The raw samples of an event's ring, each with its padding."""
    end = struct.unpack_from("<Q", pages, 1024)[0]
    at, out = 4096, []
    while at < 4096 + end:
        _, _, size = struct.unpack_from("<IHH", pages, at)
        length = struct.unpack_from("<I", pages, at + 8)[0]
        out.append(bytes(pages[at + 12 : at + 12 + length]))
        at += size
    return out


def test_perf_records() -> None:
    """Bytes and errors; a record of the kernel is padded to 8 bytes with its length before it."""
    script = Script(".map events perf_event_array 4 4 4")
    script.add(stack(bytes(range(64)), -64))
    sizes = [(8, 0), (0, 0), (5, 7), (64, 64), (1, 65), (3, 0xFFFFF), (64, 1)]
    for size, extra in sizes:
        for index in (0xFFFFFFFF, 0, 1, 2, 4):
            flags = extra << 32 | index
            script.do("perf_event_output", "ctx", "map[events]", flags, "r10-64", size)
    script.do("perf_event_output", "ctx", "map[events]", 1 << 52, "r10-64", 8)
    there = script.run("kernel", before=lambda one: perf_reader(one.maps["events"].fd))
    pages = there.before[1]
    for name in ("interp", "single"):
        here = script.run(name)
        # Entry 1 has no reader in the kernel, an event of another CPU here
        expected = [-errno.EOPNOTSUPP if r == -errno.ENOENT else r for r in there.results]
        ours = [-errno.EOPNOTSUPP if r == -errno.ENOENT else r for r in here.results]
        assert ours == expected
        records = list(here.side.instance.maps["events"].records())
        theirs = perf_records(pages)
        assert len(theirs) == len(records) > 6
        for mine, padded in zip(records, theirs, strict=True):
            assert padded[: len(mine)] == mine
            assert len(padded) == (len(mine) + 4 + 7) // 8 * 8 - 4


VISITED = [("array 4 8 5", 5), ("percpu_array 4 8 3", 3), ("hash 4 8 8", 4), ("lru_hash 4 8 8", 4)]
VISITED += [("percpu_hash 4 8 8", 4), ("lru_percpu_hash 4 8 8", 4)]
SUM = """
    r0 = 2
    exit
    each: r6 = *(u64 *)(r4 + 0)          ; the context: a sum of keys and values
    r7 = *(u32 *)(r2 + 0)
    r6 += r7
    r7 = *(u64 *)(r3 + 0)
    r6 += r7
    *(u64 *)(r4 + 0) = r6
    r6 = 1
    *(u64 *)(r3 + 0) = r6
    r0 = 0
"""


@pytest.mark.parametrize(("kind", "entries"), VISITED)
@pytest.mark.parametrize("flags", [0, 1])
def test_for_each_map_elem(kind: str, entries: int, flags: int) -> None:
    """Keys and values arrive, the callback may write, the number of calls is returned."""
    script = Script(f".map m {kind}")
    for key in range(entries):
        script.add(stack(key.to_bytes(8, "little"), -8) + stack(bytes([key] * 8), -16))
        script.do("map_update_elem", "map[m]", "r10-8", "r10-16", 0)
    for _ in range(2):
        script.add(stack(bytes(8), -24))
        script.add("r1 = map[m] ll\nr2 = func[each] ll\nr3 = r10\nr3 += -24")
        script.add(f"r4 = {flags}\nr8 = 77\nr7 = 66\ncall bpf_for_each_map_elem")
        for register in ("r0", "r7", "r8"):
            script.keep(register)
        script.add("r1 = *(u64 *)(r10 - 24)")
        script.keep("r1")
    script.same(verdict=SUM)


def test_for_each_stops_at_one() -> None:
    script = Script(".map m array 4 8 5")
    script.add("r1 = map[m] ll\nr2 = func[each] ll\nr3 = 0\nr4 = 0\ncall bpf_for_each_map_elem")
    script.keep()
    each = "each: r0 = *(u32 *)(r2 + 0)\nif r0 > 1 goto +2\nr0 = 0\nexit\nr0 = 1"
    script.same(verdict=f"r0 = 2\nexit\n{each}")


def test_jiffies() -> None:
    """Within two seconds of the kernel's."""
    script = Script()
    script.do("jiffies64")
    script.do("ktime_get_ns")
    script.do("ktime_get_boot_ns")
    script.do("ktime_get_coarse_ns")
    script.do("ktime_get_tai_ns")
    judge, ours = script.run("kernel"), script.run("single")
    started = time.monotonic_ns()
    assert abs(judge.results[1] - started) < 60e9
    for there, here in zip(judge.results[1:], ours.results[1:], strict=True):
        assert 0 <= here - there < 60e9


def test_get_smp_processor_id_and_node() -> None:
    script = Script()
    script.do("get_smp_processor_id")
    script.do("get_numa_node_id")
    script.same()


def test_tail_call_to_nothing() -> None:
    script = Script(".map p prog_array 4 4 2")
    for index in (0, 1, 2, 2**32 - 1, 1 << 32):
        script.add(f"r1 = r6\nr2 = map[p] ll\nr3 = {index:#x} ll\ncall bpf_tail_call\nr0 = 7")
        script.keep()
    script.same()


def test_errors_are_negative() -> None:
    """The judge itself: an error of the kernel's helper arrives as the number that it is."""
    script = Script()
    script.add(stack(bytes(8), -8))
    script.do("xdp_store_bytes", "ctx", 0x10000, "r10-8", 8)
    assert script.same().results == (-errno.EFAULT,)


GOOD = [
    *(b"plain", b"", b"100%%", b"%d", b"%i|%u|%x", b"%ld %lld %lu", b"%llx %lX %llX"),
    *(b"%5d|%-5d|%05d", b"%+d % d %+u", b"%c%c%c", b"%5c|%-5c|", b"%s", b"%10s|", b"tab\tnew\n"),
    *(b"\x80\xff", b"%-+ 08x", b"%-08d|", b"%x%X%x"),
]
POINTERS = [b"%p", b"%20p", b"%px", b"%pI4", b"%pi4 %pI6 %pi6", b"%pK", b"%pks"]
BAD = [
    *(b"%d %d %d %d", b"%", b"%q", b"%l", b"%ls", b"%lld%", b"%pI5", b"%pz", b"%sx", b"a\x01b"),
    *(b"%\x80", b"%0", b"%h", b"%.3d", b"%*d", b"%3$d"),
]


@pytest.mark.parametrize("text", [*GOOD, *POINTERS, *BAD])
def test_trace_printk(text: bytes) -> None:
    """The lengths and errors for each format; pointers are numbers that nobody can read."""
    script = Script()
    script.add(stack(text.ljust(24, b"\0"), -24))
    for values in ((0, 0, 0), (1, 2, 3), (-1, 2**31, 2**63), (12345678901, 65, 0xFFFFFFFF80000001)):
        script.do("trace_printk", "r10-24", len(text) + 1, *values)
    script.do("trace_printk", "r10-24", max(len(text), 1), 1, 2, 3)
    script.same()


@pytest.mark.parametrize("text", GOOD)
def test_snprintf(text: bytes) -> None:
    """The text itself, cut off where it does not fit."""
    script = Script(".map text array 4 32 1 128", text=text.ljust(32, b"\0"))
    count = text.replace(b"%%", b"").count(b"%")
    for size in (32, 4, 1):
        script.add(stack(b"\xaa" * 32, -64))
        values = (0xFFFFFFFF85EBCA6B, 77, 12345678901)
        script.add(stack(b"".join(value.to_bytes(8, "little") for value in values), -24))
        script.add(f"r1 = r10\nr1 += -64\nr2 = {size}\nr3 = map_value[text+0] ll")
        script.add(f"r4 = r10\nr4 += -24\nr5 = {8 * count}\ncall bpf_snprintf")
        script.keep()
        for at in range(-64, -32, 8):
            script.add(f"r1 = *(u64 *)(r10 {at})")
            script.keep("r1")
    script.same()


@pytest.mark.parametrize("length", [0, 7, 8, 24, 96, 104])
def test_trace_vprintk(length: int) -> None:
    script = Script()
    script.add(stack(b"%d %llx %d".ljust(16, b"\0"), -16) + stack(bytes(range(104)), -120))
    script.do("trace_vprintk", "r10-16", 11, "r10-120", length)
    script.same()


def test_unset_arguments_of_trace_printk() -> None:
    """Registers that were never written are no error unless the format asks for them."""
    script = Script()
    script.add(stack(b"hello\0\0\0", -8) + "r1 = r10\nr1 += -8\nr2 = 6\ncall bpf_trace_printk")
    script.keep()
    script.same()


SYN = bytes.fromhex("3039005000000001000000005002ffff00000000")  # port 12345 to 80, sequence 1
IPV4 = bytes.fromhex("4500002800010000400600000a0000010a000002")
IPV6 = bytes.fromhex("6000000000140640") + bytes(range(32))
OPTIONS = [
    b"", b"\2\4\5\xb4", b"\2\4\5\x14", b"\2\4\0\1", b"\2\4\0\0", b"\2\4\xff\xff",
    b"\1\1\2\4\5\x78\1\1", b"\0\0\0\0\2\4\5\xb4", b"\2\4\2\x18\2\4\5\xb4",
    b"\3\3\7\2\4\5\xb4\1", b"\2\3\5\1", b"\2\0\5\xb4", b"\2\x09\5\xb4", b"\1\1\1\2",
    b"\x08\x0a" + bytes(8) + b"\1\2",
]  # fmt: skip


def header(options: bytes, claimed: int | None = None) -> bytes:
    """A SYN with options; its length field, in words, is right unless one is claimed."""
    words = (20 + len(options)) // 4 if claimed is None else claimed
    return SYN[:12] + bytes([words << 4]) + SYN[13:] + options


@pytest.mark.parametrize("version", [4, 6])
def test_mss_of_syn_cookies(version: int) -> None:
    """The cookie's low bits are secret; the MSS above them, and the errors, are not."""
    script = Script()
    script.add(stack((IPV4 if version == 4 else IPV6).ljust(40, b"\0"), -40))
    for options, claimed in [*((one, None) for one in OPTIONS), (b"", 6), (b"", 4), (b"", 0)]:
        tcp = header(options, claimed)
        script.add(stack(tcp.ljust(40, b"\0"), -80))
        for length in {len(tcp), 20, 40, 19}:
            helper = f"tcp_raw_gen_syncookie_ipv{version}"
            script.do_without_low_bits(helper, "r10-40", "r10-80", length)
    assert -errno.EINVAL in script.same().results


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("change", [None, *range(12), *range(12, 40, 3)])
def test_syn_cookies_are_taken_back(version: int, change: int | None) -> None:
    """An ACK of the cookie is good; with an address, port or number changed it is not."""
    ip = (IPV4 if version == 4 else IPV6).ljust(40, b"\0")
    script = Script()
    script.add(stack(ip, -40) + stack(header(b"\2\4\5\xb4").ljust(24, b"\0"), -64))
    script.add(call(f"tcp_raw_gen_syncookie_ipv{version}", "r10-40", "r10-64", 24))
    script.add("r0 += 1\nr0 = be32 r0\n*(u32 *)(r10 - 56) = r0")  # ack = cookie + 1
    script.add(f"r0 = {2 << 24}\n*(u32 *)(r10 - 60) = r0")  # sequence 2
    if change is not None:
        at = -64 + change if change < 12 else -40 + change
        script.add(f"r1 = *(u8 *)(r10 {at})\nr1 ^= 4\n*(u8 *)(r10 {at}) = r1")
    script.do(f"tcp_raw_check_syncookie_ipv{version}", "r10-40", "r10-64")
    judge = script.same()
    if change is None:
        assert judge.results == (0,)


NOWHERE = [0, 8, -1, -8, -4096, (1 << 47) - 4097, (1 << 47) - 1, 1 << 47, 1 << 48, 1 << 56, 1 << 60]
NOWHERE += [0x4141414141414141, 1 << 63, -(1 << 56), -(1 << 47) - 1, 0xFFFFFFFFFF600010]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the address space is x86-64's")
@pytest.mark.parametrize("size", [0, 1, 8, 16])
def test_kernel_memory_that_cannot_be_read(size: int) -> None:
    script = Script()
    for address in NOWHERE:
        script.add(stack(b"\xaa" * 16, -16))
        script.do("probe_read_kernel", "r10-16", size, address)
        for at in (-16, -8):
            script.add(f"r1 = *(u64 *)(r10 {at})")
            script.keep("r1")
    script.same()
