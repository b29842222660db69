"""Compiling C: which compiler is taken, and what is said when there is none or it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import compiler

from xdpbatch import cc, elf
from xdpbatch.errors import ObjectError, UnsupportedError

__all__ = ["compiler"]

PROGRAM = '#include "xdp.h"\nSEC("xdp") int prog(struct xdp_md *ctx) { %s return 2; }\n'


def test_compiles_and_says_by_what(compiler: cc.Compiler, tmp_path: Path) -> None:
    source = tmp_path / "-odd name.c"
    source.write_text(PROGRAM % "")
    made = cc.compile(source, tmp_path / "a.o", compiler=compiler)
    assert made.messages == ""
    assert made.compiler.name in str(made.compiler)
    assert any(character.isdigit() for character in made.compiler.version)
    assert list(elf.load(made.output).programs) == ["prog"]


def test_warnings_are_passed_on(compiler: cc.Compiler, tmp_path: Path) -> None:
    source = tmp_path / "warn.c"
    source.write_text(PROGRAM % "int unused;")
    made = cc.compile(source, tmp_path / "a.o", compiler=compiler)
    assert "unused variable" in made.messages
    assert made.output.exists()


def test_errors_are_the_compilers_own(compiler: cc.Compiler, tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text(PROGRAM % "return nothing;")
    with pytest.raises(ObjectError, match=r"bad\.c:2:\d+: error: use of undeclared") as caught:
        cc.compile(source, tmp_path / "a.o", compiler=compiler)
    assert caught.value.diagnostics[0].code == "compile-failed"


def test_a_missing_source_is_an_error(compiler: cc.Compiler, tmp_path: Path) -> None:
    for source in (tmp_path / "none.c", tmp_path / "no" / "none.c"):
        with pytest.raises(ObjectError, match=r"none\.c"):
            cc.compile(source, tmp_path / "a.o", compiler=compiler)


def test_without_a_compiler_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install xdpbatch\[cc\]"):
        cc.find()


def test_the_newest_clang_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, targets in [("clang-9", "bpfel"), ("clang-20", "bpfel"), ("clang-21", "x86-64")]:
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\ncase $1 in --print-targets) echo '  {targets} - x';; esac\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    names = [found.name for found in cc.compilers() if found.name != "ziglang"]
    assert names == ["clang-20", "clang-9"]
