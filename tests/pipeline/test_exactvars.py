# SPDX-License-Identifier: MIT
"""What is kept without loss is decoded and compared while it is written: a broken coder leaves no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.errors import BoundViolationError
from hbae.pipeline import chunk, exactvars

SMALL = xr.Dataset({"n": (("a",), np.arange(50))})
LARGE = xr.Dataset({"n": (("a",), np.arange(50_000))})
TEXT = xr.Dataset({"n": (("a",), np.array(["x", "yz"], object))})


def off_by_one(encode: Callable[..., bytes]) -> Callable[..., bytes]:
    """A coder that changes the last element."""

    def wrong(a: Any, **options: Any) -> bytes:
        b = a.copy()
        b[-1] += 1
        return encode(b, **options)

    return wrong


@pytest.mark.parametrize(("ds", "module"), [(SMALL, exactvars), (LARGE, chunk)], ids=["small", "large"])
def test_numbers(ds: xr.Dataset, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "encode_lossless", off_by_one(module.encode_lossless))
    if module is chunk:
        # The hash is that of what is coded: only the comparison can tell.
        right = chunk.digest
        monkeypatch.setattr(chunk, "digest", lambda a: right(np.append(a[:-1], 50_000) if a[-1] == 49_999 else a))
    with pytest.raises(BoundViolationError, match="n"):
        hbae.compress(ds, tmp_path / "a.hbae", "abs=1")
    assert list(tmp_path.iterdir()) == []


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = exactvars.pack
    monkeypatch.setattr(exactvars, "pack", lambda data, level: pack(data.replace(b"y", b"z"), level))
    with pytest.raises(BoundViolationError, match="n"):
        hbae.compress(TEXT, tmp_path / "a.hbae", "abs=1")
    assert list(tmp_path.iterdir()) == []
