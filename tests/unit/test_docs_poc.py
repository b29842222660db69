"""docs/poc.md says what really comes out: its commands and its Python are run."""

from __future__ import annotations

import contextlib
import doctest
import platform
import re
import shlex
import sys
from pathlib import Path

import pytest

from xdpbatch import examples
from xdpbatch.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "poc.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [block for block in BLOCKS if block.startswith("$ xdpbatch ")]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the page shows x86-64 machine code"
)


@pytest.fixture(autouse=True)
def _among_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(examples.__file__).parent)


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.split("\n")[0][11:])
def test_commands(
    block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, _, output = block.partition("\n")
    monkeypatch.setattr(sys, "argv", shlex.split(command.removeprefix("$ ")))
    with contextlib.suppress(SystemExit):
        main()
    shown = capsys.readouterr()
    assert shown.out + shown.err == output


def test_python() -> None:
    text = "\n\n".join(block for block in BLOCKS if block.startswith(">>> "))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 15
    report: list[str] = []
    failed, _ = doctest.DocTestRunner().run(test, out=report.append)
    assert not failed, "".join(report)


def test_all_slides_have_their_section() -> None:
    for title in (
        "Performance results",
        "Source of performance improvements",
        "Storing XDP program result per XDP buffer",
        "Bulking in driver",
        "Trampoline patching flow",
        "eBPF program layout after generating trampoline",
        "eBPF trampoline prologue section, continued",
        "Putting it all together",
        "Things to be solved, questions, thoughts",
    ):
        assert f"\n## {title}\n" in TEXT
