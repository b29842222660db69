"""The examples' objects are what their sources say, and do not name the machine they come from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compiled import compiler

from xdpbatch import cc, elf, examples
from xdpbatch.uapi import MapNumber

__all__ = ["compiler"]

NAMES = examples.names()


def test_there_is_one_for_every_purpose() -> None:
    assert NAMES == ["drop", "firewall", "flows", "lb", "parse", "pass", "redirect", "tx"]


@pytest.mark.parametrize("name", NAMES)
def test_objects_that_travel_in_the_package(name: str) -> None:
    loaded = elf.load(examples.path(name))
    (program,) = loaded.programs.values()
    assert program.name == f"xdp_{name}"
    assert program.section == "xdp"
    assert program.lines
    assert program.license == "Apache-2.0"
    for insn, source in ((i, program.source_at(i)) for i in range(len(program.insns))):
        assert source is not None, f"instruction {insn} has no source line"
        assert source.file in (f"{name}.c", "tuple.h")


@pytest.mark.parametrize("name", NAMES)
def test_sources_say_what_they_are_for(name: str) -> None:
    text = examples.path(name).with_suffix(".c").read_text()
    assert re.match(r"/\* [A-Z]", text), "the first line says what the program is for"
    assert "TODO" not in text


@pytest.mark.parametrize("name", NAMES)
def test_objects_name_no_directory(name: str) -> None:
    data = examples.path(name).read_bytes()
    assert not re.search(rb"/(home|root|usr|work|tmp|build)\b", data)


def test_maps() -> None:
    kinds = {
        f"{name}.{spec.name}": MapNumber(spec.type)
        for name in NAMES
        for spec in elf.load(examples.path(name)).maps.values()
    }
    assert kinds == {
        "firewall.blocked_ipv4": MapNumber.LPM_TRIE,
        "firewall.blocked_ipv6": MapNumber.LPM_TRIE,
        "firewall.blocked_ports": MapNumber.HASH,
        "flows.flows": MapNumber.LRU_HASH,
        "lb.services": MapNumber.HASH,
        "lb.ring": MapNumber.ARRAY,
        "lb.connections": MapNumber.LRU_HASH,
        "lb.reals": MapNumber.ARRAY,
        "lb.gateway": MapNumber.ARRAY,
        "lb.sent": MapNumber.PERCPU_ARRAY,
        "parse.counters": MapNumber.PERCPU_ARRAY,
        "redirect.macs": MapNumber.HASH,
        "redirect.ports": MapNumber.DEVMAP,
    }


@pytest.mark.parametrize("name", NAMES)
def test_rebuilt_objects_have_the_same_programs_and_maps(
    name: str, compiler: cc.Compiler, tmp_path: Path
) -> None:
    shipped = elf.load(examples.path(name))
    source = examples.path(name).with_suffix(".c")
    made = cc.compile(source, tmp_path / "new.o", compiler=compiler, options=["-Werror"])
    rebuilt = elf.load(made.output)
    assert list(rebuilt.programs) == list(shipped.programs)
    assert rebuilt.license == shipped.license
    for key, spec in shipped.maps.items():
        new = rebuilt.maps[key]
        assert (new.type, new.key_size, new.value_size, new.max_entries, new.flags) == (
            (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
        )  # fmt: skip
    assert rebuilt.maps.keys() == shipped.maps.keys()
    old_helpers, new_helpers = (
        {i.imm for p in o.programs.values() for i in p.insns if i.op == 0x85}
        for o in (shipped, rebuilt)
    )
    assert new_helpers == old_helpers
