# SPDX-License-Identifier: MIT
"""Every promise names tests, and every test that the page names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = (HERE.parent / "docs" / "guarantee.md").read_text().split("## Promises and the tests")[1]
ROWS = re.findall(r"^\| (P\d|) ?\| (.+?) \| (.*`.*) \|$", TABLE, re.MULTILINE)


def defined(path: Path) -> set[str]:
    """Names of the tests in a file or folder that pytest would run."""
    files = [path] if path.is_file() else path.rglob("test_*.py")
    trees = [ast.parse(f.read_text()) for f in files]
    return {n.name for t in trees for n in t.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_every_promise_has_a_row() -> None:
    assert [p for p, _, _ in ROWS if p] == [f"P{i}" for i in range(1, 8)]
    assert len(ROWS) == len(re.findall(r"^\| ", TABLE, re.MULTILINE)) - 1


@pytest.mark.parametrize(("promise", "tests"), [(f"{p} {text}".strip(), tests) for p, text, tests in ROWS])
def test_named_tests_exist(promise: str, tests: str) -> None:
    places: list[Path] = []
    known: set[str] = set()
    names = re.findall(r"`([\w./]+)`", tests)
    assert names, promise
    for name in names:
        if name.startswith("tests/") or name.endswith(".py"):
            # A bare file name lies beside the file before it.
            place = HERE.parent / name if name.startswith("tests/") else places[-1].parent / name
            assert place.exists(), name
            places.append(place)
            if "conftest" not in name and "golden" not in name:
                assert defined(place), f"{name} holds no test"
            known |= defined(place)
        elif name.startswith("test_"):
            assert name in known, name
    assert known, promise
