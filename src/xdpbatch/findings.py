"""What is said of several programs at once, in the formats that people, editors and CI read.

Analogous to ruff's --output-format. `full` is the house format, `concise` one line per error,
`json` everything, `github` workflow commands, `sarif` SARIF 2.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from xdpbatch.errors import Diagnostic
from xdpbatch.explain import explanations

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one program, or of an object that could not be read (no `program`).

    Accepted if there are no diagnostics; `said` is more about it in words, `numbers` in numbers.
    """

    path: str
    program: str = ""
    section: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()
    said: str = ""
    numbers: tuple[tuple[str, int], ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.diagnostics


def full(findings: Sequence[Finding]) -> str:
    """One line per program; the errors themselves, in the house format, go to stderr."""
    return "\n".join(f"{f.path}: {f.program or '-'}: {f.said or 'refused'}" for f in findings)


def concise(findings: Sequence[Finding]) -> str:
    """`file:line:col: error[code]: message`; the object where there is no source line."""
    return "\n".join(
        f"{_spot(f, d)}: error[{d.code}]: {d.message}" for f in findings for d in f.diagnostics
    )


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps(as_object(findings))


def as_object(findings: Sequence[Finding]) -> dict[str, Any]:
    """The object of `verify -j`."""
    return {"schema": 1, "programs": [_as_object(f) for f in findings]}


def _as_object(finding: Finding) -> dict[str, Any]:
    if finding.accepted:
        rest: dict[str, Any] = dict(finding.numbers)
    else:
        texts = "\n".join(map(str, finding.diagnostics))
        rest = {"error": texts, "errors": [asdict(d) for d in finding.diagnostics]}
    named = {"program": finding.program, "section": finding.section} if finding.program else {}
    return {"object": finding.path, **named, "accepted": finding.accepted, **rest}


def github(findings: Sequence[Finding]) -> str:
    """Workflow commands, which GitHub shows beside the source line."""
    return "\n".join(_command(f, d) for f in findings for d in f.diagnostics)


def _command(finding: Finding, one: Diagnostic) -> str:
    source = one.source
    place = f"file={_property(source.file if source else finding.path)}"
    if source:
        place += f",line={source.line},col={source.col}"
    text = _details(one, f"{one.message} ({finding.program})" if finding.program else one.message)
    return f"::error {place},title={one.code}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def sarif(findings: Sequence[Finding]) -> str:
    """One run, with a rule for each code that occurs."""
    pairs = [(f, d) for f in findings for d in f.diagnostics]
    codes = sorted({d.code for _, d in pairs})
    driver = {"name": "xdpbatch", "rules": [_rule(code) for code in codes]}
    results = [_result(f, d, codes.index(d.code)) for f, d in pairs]
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": SARIF, "version": "2.1.0", "runs": [run]})


def _rule(code: str) -> dict[str, Any]:
    text = explanations().get(code, code)
    return {"id": code, "fullDescription": {"text": text}}


def _result(finding: Finding, one: Diagnostic, rule: int) -> dict[str, Any]:
    source = one.source
    uri = quote(source.file if source else finding.path)
    where: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if source:
        where["region"] = {"startLine": source.line, "startColumn": source.col}
    location: dict[str, Any] = {"physicalLocation": where}
    if finding.program:
        location["logicalLocations"] = [{"name": finding.program, "kind": "function"}]
    return {
        "ruleId": one.code,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": _details(one, one.message)},
        "locations": [location],
    }


def _details(one: Diagnostic, message: str) -> str:
    """The message with reason, notes and suggestion, a line each."""
    suggestion = f"suggestion: {one.suggestion}" if one.suggestion else ""
    return "\n".join(filter(None, (message, one.where, one.reason, *one.notes, suggestion)))


def _spot(finding: Finding, one: Diagnostic) -> str:
    if one.source:
        return f"{one.source.file}:{one.source.line}:{one.source.col}"
    return finding.path + (f": {one.where}" if one.where not in ("", finding.path) else "")


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "full": full,
    "concise": concise,
    "json": as_json,
    "github": github,
    "sarif": sarif,
}
