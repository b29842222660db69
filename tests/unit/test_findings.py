"""What `verify` says of several programs in every format, and what it makes of the kernel's log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from xdpbatch import asm
from xdpbatch.cli.options import FormatName
from xdpbatch.errors import Diagnostic, Source
from xdpbatch.findings import FORMATS, Finding, as_object
from xdpbatch.sys.log import refusal

SPOT = Source("a b.c", 7, 3, "  return d[3];")
BAD = Diagnostic("packet-bounds", "too far: 100 %", "insn 1", SPOT, "r1 is packet", "check, first")
FINDINGS = (
    Finding("x.o", "one", "xdp", (BAD,)),
    Finding("x.o", "two", "xdp", (), "accepted, 2 instructions walked", (("processed", 2),)),
    Finding("y.o", diagnostics=(Diagnostic("not-elf", "not an ELF file", "y.o"),)),
)


def test_every_format_of_the_option_exists() -> None:
    assert [one.value for one in FormatName] == list(FORMATS)


def test_nothing_found_is_valid_everywhere() -> None:
    assert FORMATS["full"](()) == FORMATS["concise"](()) == FORMATS["github"](()) == ""
    assert json.loads(FORMATS["json"](()))["programs"] == []
    assert json.loads(FORMATS["sarif"](()))["runs"][0]["results"] == []


def test_full_has_a_line_per_program() -> None:
    assert FORMATS["full"](FINDINGS).splitlines() == [
        "x.o: one: refused",
        "x.o: two: accepted, 2 instructions walked",
        "y.o: -: refused",
    ]


def test_concise_has_a_line_per_error() -> None:
    assert FORMATS["concise"](FINDINGS).splitlines() == [
        "a b.c:7:3: error[packet-bounds]: too far: 100 %",
        "y.o: error[not-elf]: not an ELF file",
    ]


def test_github_escapes_what_its_commands_mean_something_by() -> None:
    first, second = FORMATS["github"](FINDINGS).splitlines()
    assert first.startswith("::error file=a b.c,line=7,col=3,title=packet-bounds::too far: 100 %25")
    assert "%0Asuggestion: check, first" in first
    assert second == "::error file=y.o,title=not-elf::not an ELF file%0Ay.o"


def test_json_has_every_field() -> None:
    one, two, three = as_object(FINDINGS)["programs"]
    assert one["errors"][0]["source"] == {"file": "a b.c", "line": 7, "col": 3, "text": SPOT.text}
    assert one["error"] == str(BAD)
    assert two == {
        "object": "x.o",
        "program": "two",
        "section": "xdp",
        "accepted": True,
        "processed": 2,
    }
    assert "program" not in three
    assert json.loads(FORMATS["json"](FINDINGS)) == json.loads(json.dumps(as_object(FINDINGS)))


def test_sarif_has_what_the_standard_requires() -> None:
    log: dict[str, Any] = json.loads(FORMATS["sarif"](FINDINGS))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "xdpbatch"
    assert len(run["results"]) == 2
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert not re.search(r"\s", place["artifactLocation"]["uri"])
    assert place.get("region") is None
    region = run["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 7, "startColumn": 3}


LOG = """\
0: R1=ctx() R10=fp0
; int x @ a.c:1
0: (18) r2 = 0x1                      ; R2=1
2: (71) r0 = *(u8 *)(r2 +3)
R2 invalid mem access 'scalar'
verification time 84 usec
processed 2 insns (limit 1000000)
"""


def test_the_kernels_log_says_where_and_why() -> None:
    program = asm.program("r2 = 1 ll\nr0 = *(u8 *)(r2 + 3)\nexit", name="prog")
    found = refusal(program, LOG, "-EACCES: Permission denied")
    assert found.message.endswith("R2 invalid mem access 'scalar'")
    assert found.where.startswith("insn 1, ")  # slot 2 is instruction 1
    assert found.reason == "-EACCES: Permission denied"
    assert found.notes == tuple(line for line in LOG.splitlines() if "(" in line and ": (" in line)


def test_a_log_without_instructions_or_none_at_all() -> None:
    program = asm.program("r0 = 1\nexit", name="prog")
    assert refusal(program, "unreachable insn 5\n", "").message.endswith("unreachable insn 5")
    assert refusal(program, "", "-EINVAL").reason == "-EINVAL"


def test_the_command_goes_on_after_an_error(tmp_path: Path) -> None:
    other = tmp_path / "other.o"
    other.write_bytes(b"no ELF")
    drop = Path(__file__).parents[2] / "src/xdpbatch/examples/drop.o"
    command = [sys.executable, "-m", "xdpbatch", "verify", "--output-format", "json"]
    done = subprocess.run([*command, other, drop], capture_output=True, check=False)
    assert done.returncode == 2
    accepted = [each["accepted"] for each in json.loads(done.stdout)["programs"]]
    assert accepted == [False, True]
