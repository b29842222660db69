"""CO-RE relocations: fields that moved, changed their width or are gone in the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compiled import compile_text, compiler
from hypothesis import given
from hypothesis import strategies as st
from tiny_btf import TinyBtf

from xdpbatch import asm, cc, elf
from xdpbatch.btf import Btf, Kind
from xdpbatch.btf_ext import CoreRelo
from xdpbatch.core_relo import POISON, Relo, apply
from xdpbatch.errors import ObjectError
from xdpbatch.isa import CALL, Insn
from xdpbatch.target import OWN, Target

__all__ = ["compiler"]


def types(*order: str, name: str = "s", wide: bool = False, signed: bool = False) -> Btf:
    """`struct NAME` with 4-byte members in that order, an enum and a bit field struct."""
    made = TinyBtf()
    word = made.integer("int", 8 if wide else 4, signed)
    bits = 64 if wide else 32
    members = [(member, word, i * bits) for i, member in enumerate(order)]
    made.composite(name, len(order) * bits // 8, *members)
    made.enum("e", first=10 + len(order), second=20)
    made.bit_fields("b", 4, ("x", word, 0, 5), ("y", word, 5, 9))
    made.composite("outer", 64, ("pad", word, 0), ("", 2, 64 * len(order)))
    return made.btf()


LOCAL = types("a", "b")
STRUCT, ENUM, BITS, OUTER = 2, 3, 4, 5


def one(
    text: str,
    access: str,
    kind: Relo,
    target: Btf | None,
    type_id: int = STRUCT,
    local: Btf = LOCAL,
) -> str:
    (insn,) = asm.assemble(text)
    return asm.disassemble([apply(insn, CoreRelo(type_id, access, kind), LOCAL, target, "here")])[0]


POISONED = f"call unknown#{POISON}"


@pytest.mark.parametrize(
    ("text", "access", "kind", "target", "wanted"),
    [
        ("r1 = *(u32 *)(r2 + 4)", "0:1", Relo.FIELD_BYTE_OFFSET, None, "r1 = *(u32 *)(r2 + 4)"),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("b", "a"), "r1 = *(u32 *)(r2 + 0)"),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("x", "y", "z", "b"), "r1 = *(u32 *)(r2 + 12)"),
        ("*(u32 *)(r2 + 4) = r1", "0:1", 0, types("a", "c", "b"), "*(u32 *)(r2 + 8) = r1"),
        ("r1 += 4", "0:1", 0, types("x", "y", "b"), "r1 += 8"),
        ("r1 = 12", "1:1", 0, types("b", "c", "d"), "r1 = 12"),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("a", "b", wide=True), "r1 = *(u64 *)(r2 + 8)"),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("a", "b", wide=True, signed=True), POISONED),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("a"), POISONED),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("a", "b", name="other"), POISONED),
        ("r1 = *(u32 *)(r2 + 4)", "0:1", 0, types("b", name="s___new"), "r1 = *(u32 *)(r2 + 0)"),
        ("r1 = 4", "0:1", Relo.FIELD_BYTE_SIZE, types("a", "b", wide=True), "r1 = 8"),
        ("r1 = 1", "0:1", Relo.FIELD_EXISTS, types("a"), "r1 = 0"),
        ("r1 = 1", "0:1", Relo.FIELD_EXISTS, types("b"), "r1 = 1"),
        ("r1 = 0", "0:1", Relo.FIELD_SIGNED, types("b", signed=True), "r1 = 1"),
        ("r1 = 8", "0", Relo.TYPE_SIZE, types("a", "b", "c"), "r1 = 12"),
        ("r1 = 8", "0", Relo.TYPE_SIZE, types(name="other"), "r1 = 0"),
        ("r1 = 1", "0", Relo.TYPE_EXISTS, types("x"), "r1 = 1"),
        ("r1 = 1", "0", Relo.TYPE_MATCHES, types("b", "c", "a"), "r1 = 1"),
        ("r1 = 1", "0", Relo.TYPE_MATCHES, types("b"), "r1 = 0"),
        ("r1 = 0x2 ll", "0", Relo.TYPE_ID_LOCAL, types("b"), "r1 = 0x2 ll"),
        ("r1 = 0x2 ll", "0", Relo.TYPE_ID_TARGET, types(name="other"), "r1 = 0x0 ll"),
    ],
)
def test_fields_and_types(text: str, access: str, kind: Relo, target: Btf, wanted: str) -> None:
    assert one(text, access, Relo(kind), target) == wanted


def test_enumerators() -> None:
    target = types("a", "b", "c")
    assert one("r1 = 0xc ll", "0", Relo.ENUMVAL_VALUE, target, ENUM) == "r1 = 0xd ll"
    assert one("r1 = 0xc ll", "0", Relo.ENUMVAL_VALUE, None, ENUM) == "r1 = 0xc ll"
    without = TinyBtf()
    without.enum("e", second=3)
    assert one("r1 = 0xc ll", "0", Relo.ENUMVAL_VALUE, without.btf(), ENUM) == POISONED
    assert one("r1 = 1", "0", Relo.ENUMVAL_EXISTS, without.btf(), ENUM) == "r1 = 0"


def test_bit_fields() -> None:
    """Field y has bits 5 to 13: a load of 4 bytes, shifted left by 50 and right by 55."""
    for kind, text in [
        (Relo.FIELD_BYTE_OFFSET, "r1 += 0"),
        (Relo.FIELD_BYTE_SIZE, "r1 = 4"),
        (Relo.FIELD_LSHIFT_U64, "r1 <<= 50"),
        (Relo.FIELD_RSHIFT_U64, "r1 >>= 55"),
    ]:
        assert one(text, "0:1", kind, None, BITS) == text
        assert one(text, "0:1", kind, types("a"), BITS) == text


def test_members_of_anonymous_structs() -> None:
    text = "r1 = *(u32 *)(r2 + 20)"
    assert one(text, "0:1:1", Relo.FIELD_BYTE_OFFSET, None, OUTER) == text
    moved = one(text, "0:1:1", Relo.FIELD_BYTE_OFFSET, types("x", "a", "b"), OUTER)
    assert moved == "r1 = *(u32 *)(r2 + 32)"


def test_two_answers_are_an_error() -> None:
    target = TinyBtf()
    word = target.integer("int", 4)
    target.composite("s", 8, ("b", word, 0))
    target.composite("s", 8, ("b", word, 32))
    with pytest.raises(ObjectError, match="disagree"):
        one("r1 = *(u32 *)(r2 + 4)", "0:1", Relo.FIELD_BYTE_OFFSET, target.btf())


@pytest.mark.parametrize(
    ("text", "access", "kind", "why"),
    [
        ("r1 = 4", "0:7", 0, "has no part 7"),
        ("r1 = 4", "0:1:0", 0, "has no part 0"),
        ("r1 = 4", "", 0, "access string"),
        ("r1 = 4", "0:-1", 0, "access string"),
        ("r1 = 4", "0:x", 0, "access string"),
        ("r1 = 4", ":".join("0" * 200), 0, "access string"),
        ("r1 = 5", "0:1", 0, "holds 5"),
        ("r1 = r2", "0:1", 0, "nothing to relocate"),
        ("exit", "0:1", 0, "nothing to relocate"),
        ("r1 = 4", "0:1", 99, "unknown kind 99"),
        ("r1 = 4", "0", 10, "has no enumerator 0"),
    ],
)
def test_malformed_relocations(text: str, access: str, kind: int, why: str) -> None:
    (insn,) = asm.assemble(text)
    with pytest.raises(ObjectError, match=why):
        apply(insn, CoreRelo(STRUCT, access, kind), LOCAL, None, "here")


def recursive(depth: int) -> Btf:
    """A function type whose parameters are pointers to itself, behind `depth` pointers."""
    made = TinyBtf()
    last = depth + 1
    made.add(Kind.FUNC_PROTO, "", last, 0, last, 0, last, count=2)
    for i in range(depth):
        made.add(Kind.PTR, "", i + 1)
    made.add(Kind.TYPEDEF, "f", 1)
    return made.btf()


@pytest.mark.parametrize("depth", [1, 5, 3000])
def test_recursive_types_end(depth: int) -> None:
    btf = recursive(depth)
    relo = CoreRelo(len(btf) - 1, "0", Relo.TYPE_MATCHES)
    (insn,) = asm.assemble("r1 = 1")
    try:
        assert apply(insn, relo, btf, btf, "here") == insn
    except ObjectError as error:
        message = str(error)
        if depth < 3000:
            raise
    else:
        message = ""
    assert depth < 3000 or "nested too deeply" in message


@given(
    st.integers(0, 6),
    st.lists(st.integers(0, 3), max_size=4),
    st.integers(0, 13),
    st.sampled_from(["r1 = 4", "r1 = *(u32 *)(r2 + 4)", "r1 = 0xc ll", "*(u8 *)(r1 + 0) = 0"]),
    st.sampled_from([None, LOCAL, types("b"), types("x", "a", wide=True), recursive(2)]),
)
def test_any_relocation_patches_poisons_or_is_refused(
    type_id: int, path: list[int], kind: int, text: str, target: Btf | None
) -> None:
    (insn,) = asm.assemble(text)
    relo = CoreRelo(type_id, ":".join(map(str, path)), kind)
    try:
        changed = apply(insn, relo, LOCAL, target, "here")
    except ObjectError:
        return
    kept = replace(changed, off=insn.off, imm=insn.imm, op=insn.op)
    assert changed == Insn(CALL, imm=POISON) or kept == insn


CLANG_TEXT = """
#define core __attribute__((preserve_access_index))
struct xdp_md___small { __u32 rx_queue_index; } core;
struct frame { __u32 a; __u32 b[4]; struct { __u16 c; __u16 d; } in; } core;
SEC("xdp") int prog(struct xdp_md *ctx) {
    struct frame *f = (void *)(long)ctx->data;
    if ((void *)(f + 1) > (void *)(long)ctx->data_end) return 0;
    if (!__builtin_preserve_field_info(f->in.c, 2)) return 1;
    return f->in.d + f->b[2];
}
"""


def test_what_compilers_emit(compiler: cc.Compiler, tmp_path: Path) -> None:
    """Against the object's own types nothing changes; against others the offsets do."""
    loaded = compile_text(compiler, tmp_path, CLANG_TEXT, Target(OWN))
    made = TinyBtf()
    word, half = made.integer("int", 4), made.integer("short", 2)
    array = made.add(Kind.ARRAY, "", 0, word, word, 4)
    inner = made.composite("", 8, ("d", half, 0), ("c", half, 32))
    made.composite("frame", 64, ("b", array, 96), ("in", inner, 256))
    (tmp_path / "types.btf").write_bytes(made.bytes())
    moved = elf.load(tmp_path / "source.o", target=Target(str(tmp_path / "types.btf")))
    own, other = (o.programs["prog"].insns for o in (loaded, moved))
    loads = [(i.off, j.off) for i, j in zip(own, other, strict=True) if i != j and i.is_load]
    assert (4 + 2 * 4, 12 + 2 * 4) in loads  # b[2]
    assert (22, 32) in loads  # in.d


def test_the_kernels_own_types() -> None:
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        pytest.skip(f"no kernel type information: {path} does not exist")
    kernel = Btf(path.read_bytes())
    made = TinyBtf()
    word = made.integer("unsigned int", 4)
    made.composite("xdp_md___few", 4, ("rx_queue_index", word, 0))
    relo = CoreRelo(2, "0:0", Relo.FIELD_BYTE_OFFSET)
    (insn,) = asm.assemble("r0 = *(u32 *)(r1 + 0)")
    assert apply(insn, relo, made.btf(), kernel, "here").off == 16
