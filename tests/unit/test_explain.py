"""Every error code of the sources has an explanation, and every explanation a code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpbatch
from xdpbatch.errors import XdpBatchError
from xdpbatch.explain import explanation, explanations

SOURCES = sorted(Path(xdpbatch.__file__).parent.rglob("*.py"))
MAKERS = {"Refusal", "Diagnostic", "of", "bad", "bounded", "_wrong", "_refuse"}
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def codes(tree: ast.AST) -> Iterator[str]:
    """The code of every error that is made in a module: the first constant argument."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "Error")
        if name in MAKERS and owner.endswith("Error"):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            yield from [t for t in texts if isinstance(t, str) and CODE.fullmatch(t)][:1]


def test_every_code_is_explained() -> None:
    found = {code for path in SOURCES for code in codes(ast.parse(path.read_text()))}
    assert len(found) > 100, "the codes were not found"
    missing = sorted(found - explanations().keys())
    assert not missing, "add a heading to explanations.md"


def test_every_explanation_has_a_code() -> None:
    text = "\n".join(path.read_text() for path in SOURCES)
    assert not {code for code in explanations() if f'"{code}"' not in text}


@pytest.mark.parametrize("code", sorted(explanations()))
def test_an_explanation_is_more_than_a_title(code: str) -> None:
    assert len(explanation(code).split()) >= 6
    assert all(len(line) <= 100 for line in explanation(code).splitlines())


def test_a_code_that_is_nearly_one() -> None:
    with pytest.raises(XdpBatchError, match="like it: packet-bounds"):
        explanation("packet-bound")
