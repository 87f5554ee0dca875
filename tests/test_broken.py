# SPDX-License-Identifier: MIT
"""The ways to break promises still fit the tree, and every row of the guarantee's table has some."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WAYS = tomllib.loads((ROOT / "tests/broken/promises.toml").read_text())["break"]


@pytest.mark.parametrize("way", WAYS, ids=lambda w: w["what"])
def test_way_fits_the_tree(way: dict[str, str]) -> None:
    assert (ROOT / way["file"]).read_text().count(way["old"]) == 1
    assert way["new"] != way["old"]
    assert way["tests"]
    assert all((ROOT / t).exists() for t in way["tests"])


def test_every_promise_is_broken_at_least_once() -> None:
    rows = {w["promise"] for w in WAYS}
    assert rows >= {f"P{i}" for i in range(1, 8)} | {"regions", "size", "stream", "left-overs", "memory"}
