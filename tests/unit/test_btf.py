"""Type information: decoding, sizes, values, and what malformed BTF leads to."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_btf import TinyBtf

from xdpbatch import btf_ext, elf, examples
from xdpbatch.btf import Array, Btf, Composite, DataSection, Enum, Int, Kind, Member, essential_name
from xdpbatch.btf_kernel import complete
from xdpbatch.btf_value import pack, unpack
from xdpbatch.elf_file import ElfFile
from xdpbatch.errors import MapError, ObjectError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
LB = ElfFile(examples.path("lb").read_bytes())


def section(name: str) -> bytes:
    found = LB.find(name)
    assert found is not None
    return found.data


def test_types_of_an_object() -> None:
    btf = Btf.from_bytes(section(".BTF"))
    (flow,) = btf.named("flow", Kind.STRUCT)
    assert isinstance(flow, Composite)
    assert flow.size == btf.size_of(flow.id) == 16
    assert [(m.name, m.bit_offset) for m in flow.members] == [
        ("saddr", 0), ("daddr", 32), ("sport", 64), ("dport", 80), ("proto", 96),
    ]  # fmt: skip
    word = btf.resolve(flow.members[0].type)
    assert isinstance(word, Int)
    assert (word.name, word.size, word.signed) == ("unsigned int", 4, False)


def test_every_kind() -> None:
    made = TinyBtf()
    word = made.integer("int", 4, signed=True)
    pointer = made.add(Kind.PTR, "", word)
    array = made.add(Kind.ARRAY, "", 0, pointer, word, 6)
    made.composite("s", 8, ("a", word, 0), ("b", word, 32))
    made.composite("u", 4, ("a", word, 0), kind=Kind.UNION)
    made.enum("e", one=1, two=2)
    made.add(Kind.FWD, "fwd")
    alias = made.add(Kind.TYPEDEF, "alias", array)
    const = made.add(
        Kind.CONST, "", made.add(Kind.VOLATILE, "", made.add(Kind.RESTRICT, "", alias))
    )
    proto = made.add(Kind.FUNC_PROTO, "", word, made.name("x"), word, count=1)
    made.add(Kind.FUNC, "f", proto, count=1)
    var = made.add(Kind.VAR, "v", const, 1)
    made.add(Kind.DATASEC, ".data", 48, var, 0, 48, count=1)
    made.add(Kind.FLOAT, "double", 8)
    made.add(Kind.DECL_TAG, "tag", var, -1)
    made.add(Kind.TYPE_TAG, "tag", word)
    made.add(Kind.ENUM64, "big", 8, made.name("huge"), 1, 2, count=1)
    btf = made.btf()
    assert [t.kind for t in btf] == [
        Kind.INT, Kind.PTR, Kind.ARRAY, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.FWD,
        Kind.TYPEDEF, Kind.RESTRICT, Kind.VOLATILE, Kind.CONST, Kind.FUNC_PROTO, Kind.FUNC,
        Kind.VAR, Kind.DATASEC, Kind.FLOAT, Kind.DECL_TAG, Kind.TYPE_TAG, Kind.ENUM64,
    ]  # fmt: skip
    assert btf.resolve(const) == Array(array, Kind.ARRAY, "", 0, pointer, word, 6)
    assert btf.size_of(var) == 48
    assert btf.type(4) == Composite(
        4, Kind.STRUCT, "s", 8, 0, (Member("a", word, 0), Member("b", word, 32))
    )
    big = btf.named("big")[0]
    assert isinstance(big, Enum)
    assert big.values[0].value == 2 << 32 | 1


def test_cycles_and_dangling_ids_are_errors() -> None:
    made = TinyBtf()
    made.add(Kind.TYPEDEF, "self", 1)
    made.add(Kind.ARRAY, "", 0, 2, 2, 4)
    made.add(Kind.TYPEDEF, "dangling", 99)
    made.add(Kind.FWD, "fwd")
    btf = made.btf()
    for type_id in (1, 2, 3, 4, 0, -1, 99):
        with pytest.raises(ObjectError, match="malformed type information"):
            btf.size_of(type_id)


@pytest.mark.parametrize(
    ("at", "layout", "value", "why"),
    [
        (0, "<H", 0x9FEB, "magic number"),
        (2, "<B", 2, "version 2"),
        (4, "<I", 20, "outside the section"),
        (12, "<I", 0xFFFFFFFF, "outside the section"),
        (8, "<I", 0xFFFFFFF0, "outside the section"),
        (20, "<I", 0, "start and end with NUL"),
        (24 + 4, "<I", 31 << 24, "unknown kind 31"),
        (24 + 4, "<I", 4 << 24 | 0xFFFF, "cut off"),
    ],
)
def test_malformed_sections(at: int, layout: str, value: int, why: str) -> None:
    made = TinyBtf()
    made.integer("int", 4)
    raw = bytearray(made.bytes())
    struct.pack_into(layout, raw, at, value)
    with pytest.raises(ObjectError, match=why):
        Btf(bytes(raw))


def test_essential_names() -> None:
    assert essential_name("task_struct") == "task_struct"
    assert essential_name("task_struct___old") == "task_struct"
    assert essential_name("a___b___c") == "a___b"
    assert essential_name("___a") == "___a"
    assert essential_name("a____b") == "a____b"
    assert essential_name("a___") == "a___"


def test_the_running_kernels_types() -> None:
    if not VMLINUX.exists():
        pytest.skip(f"no kernel type information: {VMLINUX} does not exist")
    btf = Btf(VMLINUX.read_bytes())
    (context,) = btf.named("xdp_md", Kind.STRUCT)
    assert isinstance(context, Composite)
    offsets = {m.name: m.bit_offset // 8 for m in context.members}
    assert offsets["data"] == 0
    assert offsets["data_end"] == 4
    assert offsets["rx_queue_index"] == 16


# Values


def values_btf() -> tuple[Btf, int]:
    made = TinyBtf()
    word, byte = made.integer("int", 4, signed=True), made.integer("u8", 1)
    mac = made.add(Kind.ARRAY, "", 0, byte, word, 6)
    pair = made.add(Kind.ARRAY, "", 0, word, word, 2)
    inner = made.composite("", 4, ("x", word, 0), ("y", byte, 0), kind=Kind.UNION)
    made.bit_fields(
        "s", 24, ("mac", mac, 0, 0), ("low", word, 64, 3), ("high", byte, 67, 5),
        ("pair", pair, 96, 0), ("", inner, 160, 0),
    )  # fmt: skip
    return made.btf(), made.count


def test_structs_as_dicts() -> None:
    btf, struct_id = values_btf()
    value = {"mac": b"\1\2\3\4\5\6", "low": -2, "high": 17, "pair": [1, -1], "x": 258}
    packed = pack(btf, struct_id, value)
    assert packed.hex() == "010203040506" + "0000" + "8e000000" + "01000000ffffffff" + "02010000"
    assert unpack(btf, struct_id, packed) == {**value, "y": 2}
    assert pack(btf, struct_id, {}) == bytes(24)


@given(
    st.binary(min_size=6, max_size=6),
    st.integers(-4, 3),
    st.integers(0, 31),
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=2, max_size=2),
)
def test_values_come_back(mac: bytes, low: int, high: int, pair: list[int]) -> None:
    btf, struct_id = values_btf()
    value = {"mac": mac, "low": low, "high": high, "pair": pair, "x": 0, "y": 0}
    assert unpack(btf, struct_id, pack(btf, struct_id, value)) == value


def test_values_that_do_not_fit() -> None:
    btf, struct_id = values_btf()
    for value in ({"nothing": 1}, {"low": 8}, {"pair": [1]}, {"mac": b"12345"}, 7, {"x": "a"}):
        with pytest.raises(MapError):
            pack(btf, struct_id, value)  # type: ignore[arg-type]
    with pytest.raises(MapError):
        unpack(btf, struct_id, bytes(23))


# For the kernel


def test_data_sections_are_completed_for_the_kernel() -> None:
    btf = Btf(section(".BTF"))
    (before,) = btf.named(".maps", Kind.DATASEC)
    completed = Btf(complete(btf, LB))
    (after,) = completed.named(".maps", Kind.DATASEC)
    assert isinstance(before, DataSection)
    assert isinstance(after, DataSection)
    assert before.size == 0
    assert after.size == len(section(".maps"))
    maps = LB.find(".maps")
    assert maps is not None
    assert {v.offset for v in after.vars} == {s.value for s in LB.symbols_in(maps)}
    assert [v.offset for v in after.vars] == sorted(v.offset for v in after.vars)
    assert {v.type for v in after.vars} == {v.type for v in before.vars}


# Fuzzing


@settings(max_examples=200)
@given(st.data())
def test_mutated_type_information(data: st.DataObject) -> None:
    raw = bytearray(section(".BTF"))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) // 4 - 1)) * 4
        raw[at : at + 4] = data.draw(st.integers(0, 0xFFFFFFFF)).to_bytes(4, "little")
    try:
        btf = Btf(bytes(raw))
    except ObjectError:
        return
    for type_id in range(1, len(btf)):
        try:
            assert btf.size_of(type_id) >= 0
            unpack(btf, type_id, bytes(64))
        except (ObjectError, MapError):
            continue


@settings(max_examples=200)
@given(st.data())
def test_mutated_line_information(data: st.DataObject) -> None:
    raw = bytearray(section(".BTF.ext"))
    at = data.draw(st.integers(0, len(raw) // 4 - 1)) * 4
    raw[at : at + 4] = data.draw(st.integers(0, 0xFFFFFFFF)).to_bytes(4, "little")
    btf = Btf(section(".BTF"))
    try:
        ext = btf_ext.parse(bytes(raw), btf)
    except ObjectError:
        return
    assert all(line.col < 1024 for lines in ext.lines.values() for line in lines.values())


def test_line_information_of_an_object() -> None:
    program = elf.load(examples.path("drop")).programs["xdp_drop"]
    source = program.source_at(1)
    assert source is not None
    assert (source.file, source.text) == ("drop.c", "return XDP_DROP;")
