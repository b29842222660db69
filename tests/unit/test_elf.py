"""Loading objects: which sections are XDP programs, how they are linked, what is refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_elf import (
    ALLOC,
    HIDDEN,
    LOCAL,
    NOBITS,
    NOTYPE,
    OBJECT,
    RETURN_2,
    SECTION,
    WEAK,
    Raw,
    TinyElf,
)

from xdpbatch import asm, elf, examples
from xdpbatch.errors import ObjectError, UnsupportedError, XdpBatchError
from xdpbatch.isa import PSEUDO_FUNC, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, encode
from xdpbatch.program import Attach, Object
from xdpbatch.uapi import BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, MapNumber

EXAMPLES = {name: examples.path(name).read_bytes() for name in examples.names()}


def code_of(text: str) -> bytes:
    return encode(asm.assemble(text))


def load(tiny: TinyElf) -> Object:
    return elf.load(tiny.bytes(), name="tiny.o")


# What is a program


@pytest.mark.parametrize(
    ("section", "attach", "frags"),
    [
        ("xdp", Attach.XDP, False),
        ("xdp.frags", Attach.XDP, True),
        ("xdp/devmap", Attach.DEVMAP, False),
        ("xdp.frags/devmap", Attach.DEVMAP, True),
        ("xdp/cpumap", Attach.CPUMAP, False),
        ("xdp.frags/cpumap", Attach.CPUMAP, True),
        ("xdp_devmap/map_prog", Attach.DEVMAP, False),
        ("xdp/name", Attach.XDP, False),
        ("xdp_tx_iptunnel", Attach.XDP, False),
        ("xdp-simple", Attach.XDP, False),
        ("xdp1", Attach.XDP, False),
        ("prog", Attach.XDP, False),
        ("?xdp", Attach.XDP, False),
    ],
)
def test_sections_that_hold_xdp_programs(section: str, attach: Attach, frags: bool) -> None:
    tiny = TinyElf()
    tiny.program(section)
    program = load(tiny).programs["prog"]
    assert (program.section, program.attach, program.frags) == (section, attach, frags)
    assert asm.disassemble(program.insns) == ["r0 = 2", "exit"]


@pytest.mark.parametrize("section", ["classifier", "tc", "xdpx", "kprobe/xdp", ".text", "socket"])
def test_other_sections_do_not(section: str) -> None:
    tiny = TinyElf()
    tiny.program(section)
    with pytest.raises(ObjectError, match=rf"no XDP program(.|\n)*with code: {section}"):
        load(tiny)
    assert "prog" in elf.load(tiny.bytes(), sections=[section]).programs


def test_several_programs_in_one_section_and_in_several() -> None:
    tiny = TinyElf()
    section = tiny.code("xdp", RETURN_2 * 2)
    tiny.symbol("one", section, 0, 16)
    tiny.symbol("two", section, 16, 16)
    tiny.program("xdp.frags", "three")
    tiny.program("classifier", "not_xdp")
    assert list(load(tiny).programs) == ["one", "two", "three"]


def test_a_function_without_a_size_ends_where_the_next_starts() -> None:
    tiny = TinyElf()
    section = tiny.code("xdp", RETURN_2 * 2)
    tiny.symbol("one", section, 0, 0, type=NOTYPE)
    tiny.symbol("LBB0_1", section, 8, 0, type=NOTYPE, bind=LOCAL)
    tiny.symbol("two", section, 16, 0, type=NOTYPE)
    assert [len(p.insns) for p in load(tiny).programs.values()] == [2, 2]


def test_license() -> None:
    tiny = TinyElf()
    tiny.program()
    tiny.section("license", b"Dual BSD/GPL\0")
    assert load(tiny).programs["prog"].license == load(tiny).license == "Dual BSD/GPL"


# Linking


def test_calls_across_sections_and_addresses_of_functions() -> None:
    """Two programs share static functions of .text: one by section symbol, one by name."""
    main = bytearray(code_of("call pc-1\nr2 = 0 ll\nexit"))
    main[12:16] = (32).to_bytes(4, "little")  # the callback's offset in .text
    tiny = TinyElf()
    text = tiny.code(".text", RETURN_2 + code_of("r0 = 7\nexit") + code_of("r0 = 9\nexit"))
    one, two = tiny.code("xdp", bytes(main)), tiny.code("xdp.frags", code_of("call pc-1\nexit"))
    tiny.symbol("unused", text, 0, 16)
    helper = tiny.symbol("helper", text, 16, 16)
    tiny.symbol("callback", text, 32, 16, bind=LOCAL)
    section = tiny.symbol("", text, type=SECTION, bind=LOCAL)
    tiny.symbol("one", one, 0, len(main))
    tiny.symbol("two", two, 0, 16)
    tiny.relocations(one, {0: helper, 8: section}, kind=10)
    tiny.relocations(two, {0: helper}, kind=10)
    programs = load(tiny).programs
    first, second = programs["one"], programs["two"]
    assert [s.name for s in first.subprogs] == ["one", "helper", "callback"]
    assert [(s.start, s.end) for s in first.subprogs] == [(0, 3), (3, 5), (5, 7)]
    assert (first.insns[0].target, first.insns[1].target) == (3, 5)
    assert first.insns[1].src == PSEUDO_FUNC
    assert asm.disassemble(first.insns[3:]) == ["r0 = 7", "exit", "r0 = 9", "exit"]
    assert [s.name for s in second.subprogs] == ["two", "helper"]
    assert encode(first.insns)[:8] == bytes.fromhex("8510000003000000")


def test_recursion_does_not_hang_the_loader() -> None:
    tiny = TinyElf()
    tiny.program(code=code_of("call pc-1\nexit"))
    program = load(tiny).programs["prog"]
    assert program.insns[0].target == 0


def test_global_functions_are_those_visible_outside() -> None:
    """Without BTF the kernel, and so this loader, takes every function for static."""
    tiny = TinyElf()
    code = code_of("call f\nexit\nf: r0 = 1\nexit")
    section = tiny.code("xdp", code)
    tiny.symbol("prog", section, 0, 16)
    tiny.symbol("f", section, 16, 16, visibility=HIDDEN)
    assert [s.is_global for s in load(tiny).programs["prog"].subprogs] == [False, False]


# Maps and data


@pytest.mark.parametrize("words", [5, 6, 7])
def test_legacy_maps(words: int) -> None:
    tiny = TinyElf()
    tiny.program(code=code_of("r1 = 0 ll\nr0 = 2\nexit"))
    table = b"".join(
        struct.pack("<7I", *values)[: words * 4]
        for values in [(1, 4, 8, 16, BPF_F_NO_PREALLOC, 0, 0), (2, 4, 8, 32, 0, 0, 0)]
    )
    maps = tiny.section("maps", table)
    tiny.symbol("first", maps, 0, words * 4, type=OBJECT)
    second = tiny.symbol("second", maps, words * 4, words * 4, type=OBJECT)
    tiny.relocations(1, {0: second})
    loaded = load(tiny)
    assert {
        (m.name, m.type, m.key_size, m.value_size, m.max_entries, m.flags)
        for m in loaded.maps.values()
    } == {
        ("first", MapNumber.HASH, 4, 8, 16, BPF_F_NO_PREALLOC),
        ("second", MapNumber.ARRAY, 4, 8, 32, 0),
    }
    insn = loaded.programs["prog"].insns[0]
    assert (insn.src, insn.ref, insn.imm) == (PSEUDO_MAP_FD, "second", 0)


def test_legacy_map_in_map() -> None:
    tiny = TinyElf()
    tiny.program()
    maps = tiny.section(
        "maps", struct.pack("<14I", *(2, 4, 8, 5, 0, 0, 0), *(12, 4, 4, 3, 0, 0, 0))
    )
    tiny.symbol("inner", maps, 0, 28, type=OBJECT)
    tiny.symbol("outer", maps, 28, 28, type=OBJECT)
    inner = load(tiny).maps["outer"].inner
    assert inner is not None
    assert (inner.type, inner.max_entries) == (MapNumber.ARRAY, 5)


def test_data_sections_are_array_maps() -> None:
    tiny = TinyElf()
    tiny.program(code=code_of("r1 = 4 ll\nr2 = 0 ll\nr0 = 2\nexit"))
    data = tiny.section(".data", bytes(range(16)))
    tiny.section(".rodata.str1.1", b"hello\0")
    bss = tiny.section(".bss", bytes(24), type=NOBITS)
    tiny.section(".data.empty", b"")
    section = tiny.symbol("", data, type=SECTION, bind=LOCAL)
    counter = tiny.symbol("counter", bss, 8, 8, type=OBJECT)
    tiny.relocations(1, {0: section, 16: counter})
    loaded = load(tiny)
    assert list(loaded.maps) == [".data", ".rodata.str1.1", ".bss"]
    read_only = loaded.maps[".rodata.str1.1"]
    assert (read_only.contents, read_only.frozen) == (b"hello\0", True)
    assert read_only.flags == BPF_F_RDONLY_PROG
    assert loaded.maps[".bss"].contents == bytes(24)
    assert not loaded.maps[".data"].frozen
    first, second = loaded.programs["prog"].insns[:2]
    assert (first.src, first.ref, first.imm) == (PSEUDO_MAP_VALUE, ".data", 4)
    assert (second.ref, second.imm) == (".bss", 8)


# What is refused


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


GOOD = EXAMPLES["parse"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b"\x7f", "not-elf"),
        (b"\x7fELF", "truncated-elf"),
        (b"#!/bin/sh\n" * 20, "not-elf"),
        (GOOD[:63], "truncated-elf"),
        (GOOD[:-1], "truncated-elf"),
        (patched(GOOD, 4, b"\x01"), "not-bpf"),
        (patched(GOOD, 5, b"\x02"), "big-endian"),
        (patched(GOOD, 16, b"\x02"), "not-relocatable"),
        (patched(GOOD, 18, b"\x3e\0"), "not-bpf"),
        (patched(GOOD, 40, b"\xff" * 8), "truncated-elf"),
        (patched(GOOD, 58, b"\x10"), "bad-elf"),
        (patched(GOOD, 60, b"\0\0"), "bad-elf"),
        (patched(GOOD, 62, b"\xff\xff"), "bad-elf"),
    ],
)
def test_files_that_are_no_bpf_objects(data: bytes, code: str) -> None:
    with pytest.raises(ObjectError) as caught:
        elf.load(data, name="some.o")
    assert caught.value.diagnostics[0].code == code
    assert "some.o" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.o", "\0.o", "/dev/zero"):
        with pytest.raises(ObjectError):
            elf.load(path)


def malformed() -> dict[str, tuple[TinyElf, str]]:
    """Objects that contradict themselves in one place each, and the error's words."""

    def tiny(code: bytes = RETURN_2) -> TinyElf:
        made = TinyElf()
        made.program(code=code)
        return made

    found: dict[str, tuple[TinyElf, str]] = {}

    def case(name: str, words: str, code: bytes = RETURN_2) -> TinyElf:
        found[name] = (tiny(code), words)
        return found[name][0]

    case("section too long", "sections overlap or lie outside").sections[0].size = 1 << 60
    bss = Raw(".bss", NOBITS, ALLOC, b"", size=1 << 50)
    case("huge bss", "zeroed sections").sections.append(bss)
    case("symbol outside", "outside its section").symbol("x", 1, 8, 1 << 40)
    case("symbol section", "section 99 does not exist").symbol("x", 99)
    case("relocation outside", "outside its section").relocations(1, {1 << 40: 1})
    case("relocation symbol", "symbol 77 does not exist").relocations(1, {0: 77})
    case("relocated mov", "cannot refer to").relocations(1, {0: 1})
    case("overlap", "functions overlap").symbol("half", 1, 8, 8)
    case("misaligned", "not whole instructions").symbol("odd", 1, 4, 0)
    case("falls off", "does not end in exit", code_of("r0 = 1\nr0 = 2"))
    case("unknown opcode", "unknown opcode 0xff", b"\xff" * 8)
    case("half immediate", "without its second half", code_of("r0 = 1 ll")[:8])
    case("wild jump", "jump out of range", bytes.fromhex("0500ff7f00000000"))
    case(
        "wild call", "no function starts at byte", bytes.fromhex("8510000063000000") + RETURN_2[8:]
    )
    map_like = case(
        "call into data", "without code", bytes.fromhex("85100000ffffffff") + RETURN_2[8:]
    )
    map_like.relocations(1, {0: map_like.symbol("d", map_like.section(".data", bytes(8)))})
    undefined = case("undefined", "defined in another object", code_of("r1 = 0 ll\nexit"))
    undefined.relocations(1, {0: undefined.symbol("elsewhere", 0)})
    to_symtab = case("reference to symtab", "no map, global variable", code_of("r1 = 0 ll\nexit"))
    to_symtab.relocations(1, {0: to_symtab.symbol("s", to_symtab.section("odd", bytes(8)))})
    case("maps without BTF", "needs type information").section(".maps", bytes(32))
    short = case("short legacy map", "not a struct bpf_map_def")
    short.symbol("m", short.section("maps", bytes(8)), 0, 8, type=OBJECT)
    no_inner = case("legacy inner", "does not come before")
    words = struct.pack("<7I", 12, 4, 4, 1, 0, 5, 0)
    no_inner.symbol("m", no_inner.section("maps", words), 0, 28, type=OBJECT)
    twice = case("two maps of a name", "two maps have this name")
    maps = twice.section("maps", bytes(40))
    for at in (0, 20):
        twice.symbol("same", maps, at, 20, type=OBJECT)
    case("BTF", "too few for a header").section(".BTF", b"\x9f\xeb")
    return found


@pytest.mark.parametrize("name", malformed())
def test_objects_that_contradict_themselves(name: str) -> None:
    tiny, words = malformed()[name]
    with pytest.raises(ObjectError, match=words) as caught:
        load(tiny)
    assert "tiny.o" in str(caught.value)
    assert len(caught.value.diagnostics) == 1


def test_a_weak_undefined_symbol_is_zero_and_a_function_is_a_kfunc() -> None:
    tiny = TinyElf()
    tiny.program(code=code_of("r1 = 0 ll\ncall pc-1\nexit"))
    weak = tiny.symbol("maybe", 0, bind=WEAK, type=NOTYPE)
    kfunc = tiny.symbol("bpf_kfunc", 0, bind=WEAK, type=NOTYPE)
    tiny.relocations(1, {0: weak, 16: kfunc})
    insns = load(tiny).programs["prog"].insns
    assert asm.disassemble(insns) == ["r1 = 0x0 ll", "call kfunc[bpf_kfunc]", "exit"]


# Fuzzing


def loads_or_is_refused(data: bytes) -> None:
    try:
        loaded = elf.load(data)
    except (ObjectError, UnsupportedError):
        return
    for program in loaded.programs.values():
        assert program.subprogs[-1].end == len(program.insns)
        assert all(i.target is None or i.target < len(program.insns) for i in program.insns)


WORDS = st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_mutated_examples_load_or_are_refused(name: str, data: st.DataObject) -> None:
    changed = bytearray(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) // 4 - 1)) * 4
        changed[at : at + 4] = data.draw(WORDS).to_bytes(4, "little")
    loads_or_is_refused(bytes(changed))


@settings(max_examples=150)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_mutated_headers_load_or_are_refused(name: str, data: st.DataObject) -> None:
    changed = bytearray(EXAMPLES[name])
    (headers,) = struct.unpack_from("<Q", changed, 40)
    at = data.draw(st.integers(headers // 4, len(changed) // 4 - 1)) * 4
    changed[at : at + 4] = data.draw(WORDS).to_bytes(4, "little")
    loads_or_is_refused(bytes(changed))


@given(st.sampled_from(sorted(EXAMPLES)), st.floats(0, 1))
def test_truncated_examples_are_refused(name: str, part: float) -> None:
    whole = EXAMPLES[name]
    with pytest.raises(XdpBatchError):
        elf.load(whole[: int(part * (len(whole) - 1))])


# Objects that no one here wrote


def system_objects() -> list[Path]:
    return sorted(Path("/usr/lib").glob("*/bpf/*.o"))


def test_objects_of_the_distribution() -> None:
    """All of Debian's xdp-tools (libxdp1): each loads, or holds no XDP program."""
    paths = system_objects()
    if not paths:
        pytest.skip("no BPF objects of the system: package libxdp1 is not installed")
    loaded, refused = {}, {}
    for path in paths:
        try:
            loaded[path.name] = elf.load(path)
        except ObjectError as error:
            refused[path.name] = error.diagnostics[0].code
    assert set(refused.values()) <= {"no-xdp-program"}
    for obj in (obj for name, obj in loaded.items() if name.startswith("xdpfilt_")):
        (program,) = obj.programs.values()
        assert "xdp_stats_map" in obj.maps
        assert {insn.ref for insn in program.insns if insn.ref} <= set(obj.maps)
        assert os.path.basename(program.lines[0].file).endswith((".c", ".h"))
