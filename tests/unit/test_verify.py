"""The verifier where a file test cannot say it: map contents, callbacks, limits, error texts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpbatch import asm
from xdpbatch.errors import Source, VerifierError
from xdpbatch.facts import Access, Called, Region
from xdpbatch.program import Attach, MapSpec, Program
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber
from xdpbatch.verify import callbacks, verify, walk

ROSTER = MapSpec(
    ".rodata", MapNumber.ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG, contents=bytes(range(16)), frozen=True
)
DATA = MapSpec(".data", MapNumber.ARRAY, 4, 16, 1, contents=bytes(16))
INNER = MapSpec("inner", MapNumber.ARRAY, 4, 8, 4)
OUTER = MapSpec("outer", MapNumber.ARRAY_OF_MAPS, 4, 4, 2, inner=INNER)


def refusal(program: Program) -> VerifierError:
    with pytest.raises(VerifierError) as caught:
        verify(program)
    return caught.value


def code(program: Program) -> str:
    return refusal(program).diagnostics[0].code


def test_read_only_data_is_constant() -> None:
    text = """
        r1 = map_value[.rodata+4] ll
        r2 = *(u16 *)(r1 + 2)
        if r2 == 0x0706 goto +1
        r0 = *(u8 *)(r2 + 0)
        r0 = 2
        exit
    """
    verified = verify(asm.program(text, maps=[ROSTER]))
    assert 3 not in verified.reached
    assert verified.program.insns[1].fact == Access(Region.MAP_VALUE, 6, ".rodata")


def test_read_only_data_is_not_written() -> None:
    text = "r1 = map_value[.rodata+0] ll\n *(u8 *)(r1 + 0) = 1\n r0 = 2\n exit"
    assert code(asm.program(text, maps=[ROSTER])) == "map-access"


def test_data_may_change() -> None:
    text = """
        r1 = map_value[.data+8] ll
        r2 = *(u32 *)(r1 + 0)
        *(u32 *)(r1 + 4) = 5
        if r2 == 0 goto +0
        r0 = 2
        exit
    """
    assert verify(asm.program(text, maps=[DATA])).reached == frozenset(range(6))
    outside = text.replace("r1 + 4", "r1 + 8")
    assert code(asm.program(outside, maps=[DATA])) == "map-value-bounds"


TWO_LEVELS = """
    r6 = r1
    *(u32 *)(r10 - 4) = 1
    r2 = r10
    r2 += -4
    r1 = map[outer] ll
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r2 = r10
    r2 += -4
    r1 = r0
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
out: r0 = 2
    exit
"""


def test_map_in_map_uses_its_template() -> None:
    verified = verify(asm.program(TWO_LEVELS, maps=[OUTER]))
    fact = verified.program.insns[10].fact
    assert isinstance(fact, Called)
    assert (fact.map, fact.inner) == ("outer", True)
    assert verified.program.insns[12].fact == Access(Region.MAP_VALUE, 0, None)


def test_inner_map_may_be_missing() -> None:
    text = TWO_LEVELS.replace("if r0 == 0 goto out\n    r2", "r2", 1)
    assert code(asm.program(text, maps=[OUTER])) == "null-deref"


def test_for_each_map_elem_gives_key_and_value() -> None:
    flows = MapSpec("flows", MapNumber.HASH, 4, 8, 64)
    text = """
        r1 = map[flows] ll
        r2 = func[visit] ll
        r3 = 0
        r4 = 0
        call bpf_for_each_map_elem
        r0 = 2
        exit
    visit:
        r1 = *(u32 *)(r2 + 0)
        *(u64 *)(r3 + 0) = r1
        r0 = 0
        exit
    """
    verified = verify(asm.program(text, maps=[flows]))
    facts = [insn.fact for insn in verified.program.insns]
    assert facts[7:9] == [Access(Region.MEM, 0, "flows"), Access(Region.MAP_VALUE, 0, "flows")]
    behind = text.replace("r3 + 0", "r3 + 4")
    assert code(asm.program(behind, maps=[flows])) == "map-value-bounds"
    key = text.replace("*(u64 *)(r3 + 0) = r1", "*(u32 *)(r2 + 0) = 5")
    assert code(asm.program(key, maps=[flows])) == "map-access"


def test_every_callback_helper_is_one_that_exists() -> None:
    assert set(callbacks.CALLBACKS) <= set(walk.helpers())


def test_facts_of_different_paths_are_merged() -> None:
    text = """
        r2 = *(u32 *)(r1 + 16)
        r3 = map_value[.data+0] ll
        *(u64 *)(r10 - 8) = 0
        if r2 == 1 goto use
        r3 = r10
        r3 += -8
    use:
        r4 = *(u8 *)(r3 + 0)
        r0 = 2
        exit
    """
    program = asm.program(text, maps=[DATA])
    assert verify(program).program.insns[6].fact == Access(Region.MIXED, None, None)


def test_egress_ifindex_of_devmap_programs() -> None:
    program = asm.program("r0 = *(u32 *)(r1 + 20)\n exit")
    assert code(program) == "invalid-ctx-access"
    verify(replace(program, attach=Attach.DEVMAP))


def test_gpl_only_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    one = next(iter(walk.helpers().values()))
    gpl = {5: replace(walk.helpers()[5], gpl=True), one.id: one}
    monkeypatch.setattr(walk, "helpers", lambda: gpl)
    program = asm.program("call bpf_ktime_get_ns\n exit")
    verify(program)
    assert code(replace(program, license="Proprietary")) == "gpl-only"


def test_complexity_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_PROCESSED", 1000)
    program = asm.program("r0 = 0\nloop: r0 += 1\n if r0 < 100 goto loop\n exit")
    assert verify(program).processed == 202
    program = asm.program("r0 = 0\nloop: r0 += 1\n if r0 < 500 goto loop\n exit")
    assert code(program) == "too-complex"


def test_prefetch_takes_any_address() -> None:
    verified = verify(asm.program("r2 = 5\n prefetch(r2 + 64)\n r0 = 1\n exit"))
    assert verified.program.insns[1].fact is None


def test_paths_that_join_are_walked_once() -> None:
    branches = "".join(f"if r6 & {1 << i} goto +1\n r0 += 1\n" for i in range(20))
    program = asm.program(f"r6 = *(u32 *)(r1 + 16)\n r0 = 0\n {branches} exit")
    assert verify(program).processed < 1000  # and not 2**20 paths


def test_error_has_source_reason_path_and_suggestion() -> None:
    text = """
        r2 = *(u32 *)(r1 + 0)
        r3 = *(u32 *)(r1 + 4)
        r4 = r2
        r4 += 14
        if r4 > r3 goto out
        r0 = *(u8 *)(r2 + 23)
    out: r0 = 2
        exit
    """
    lines = {
        0: Source("fw.c", 40, 2, "void *data = (void *)(long)ctx->data;"),
        5: Source("fw.c", 42, 9, " if (ip->protocol == IPPROTO_TCP)"),
    }
    program = replace(asm.program(text, name="xdp_fw"), lines=lines)
    assert str(refusal(program)) == (
        "error[packet-bounds]: load may read past the end of the packet\n"
        "  --> fw.c:42:9   insn 5, program xdp_fw (section xdp)\n"
        "     42 |   if (ip->protocol == IPPROTO_TCP)\n"
        "  reason: r2 is packet+0 and only [0, 14) is proven to lie before data_end\n"
        "  note: insn 4 (fw.c:40): if r4 > r3 goto +1: not taken\n"
        "  suggestion: compare data + 24 with data_end before this load"
    )


def test_long_paths_show_their_last_decisions() -> None:
    branches = "".join(f"if r6 == {i} goto +0\n" for i in range(30))
    program = asm.program(f"r6 = *(u32 *)(r1 + 16)\n {branches} r0 = r9\n exit")
    notes = refusal(program).diagnostics[0].notes
    assert notes[0] == "(earlier decisions left out)"
    assert len(notes) == 9


def test_deep_call_chains_are_refused_not_a_crash() -> None:
    functions = "\n".join(f"f{i}: call f{i + 1}\n exit" for i in range(3000))
    assert code(asm.program(f"call f0\n exit\n {functions}\n f3000: r0 = 0\n exit")) == "call-depth"
