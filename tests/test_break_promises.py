# SPDX-License-Identifier: MIT
"""The list of ways to break promises still fits the tree, and has some for every promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def script() -> Any:
    spec = importlib.util.spec_from_file_location("break_promises", ROOT / "scripts/break_promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BREAKS = script().read_breaks()


@pytest.mark.parametrize("way", BREAKS, ids=lambda b: b.what)
def test_way_fits_the_tree(way: Any) -> None:
    text = (ROOT / way.file).read_text()
    assert way.applied(text) != text
    assert way.tests
    assert all((ROOT / t.split("::")[0]).exists() for t in way.tests)


def test_every_promise_has_some() -> None:
    table = (ROOT / "docs/guarantee.md").read_text().split("## Promises and the tests")[1]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")]
    names = {(number.strip() or what.strip()) for number, what in rows if what.strip() != "promise"}
    assert names == {b.promise for b in BREAKS}
