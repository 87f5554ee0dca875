# SPDX-License-Identifier: MIT
"""Files from the wild, where HBAE_DATA names a folder: each one opens and round-trips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbae.io import open_field, same_field, to_dataset, write_field

_ROOT = os.environ.get("HBAE_DATA")
_FILES = (
    sorted(p for p in Path(_ROOT).rglob("*") if p.suffix in (".nc", ".cdf", ".npy", ".ex2") and p.is_file())
    if _ROOT
    else []
)


@pytest.mark.parametrize("path", _FILES, ids=lambda p: p.name)
def test_real_file_round_trips(path: Path, tmp_path: Path) -> None:
    field = open_field(path)
    suffix = {".ex2": ".nc"}.get(path.suffix, path.suffix)
    write_field(field, tmp_path / f"copy{suffix}")
    again = open_field(tmp_path / f"copy{suffix}")
    assert again.format == field.format
    assert same_field(field, again) == []
    for group in field.groups:
        to_dataset(field, group.path)
