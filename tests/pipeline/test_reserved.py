# SPDX-License-Identifier: MIT
"""Fill values within the range of the data: points that are there do not come back as missing ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.pipeline import encode

FILL = 7
PACKED = {"scale_factor": 0.5, "add_offset": 1.0}
CASES = {
    "packed": ("i2", PACKED, "block_nrmse=3e-2"),
    "bytes": ("i1", PACKED, "nrmse=2e-2"),
    "plain": ("<i4", {}, "l2=40"),
    "points": ("<i4", {}, "abs=4"),
    "floats": ("f4", {}, "nrmse=3e-2"),
}


def field(dtype: str, attrs: dict[str, Any]) -> xr.Dataset:
    """Whole numbers around the fill value, which only some places have."""
    rng = np.random.default_rng(0)
    a = np.rint(np.cumsum(rng.normal(size=(30, 20, 24)), axis=0) * 3)
    a[a == FILL] += 1
    a[:, 3:6, 4:9] = FILL
    return xr.Dataset({"v": (("t", "y", "x"), a.astype(dtype), {"_FillValue": np.array(FILL, dtype)[()], **attrs})})


def coarse(decoded: Any) -> Any:
    """Round floats, so that many of them fall on the fill value."""
    return np.rint(decoded) if decoded.dtype.kind == "f" else decoded


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reader's values fall on whole numbers."""
    from hbae.pipeline import chunk, parts

    real = parts.values_of
    monkeypatch.setattr(chunk, "values_of", lambda *args: coarse(real(*args)))


def taken(path: Path, ds: xr.Dataset) -> int:
    back, x = hbae.decompress(path)["v"].values, ds["v"].values
    assert np.array_equal(back[x == FILL], x[x == FILL])
    return int(((back == FILL) & (x != FILL)).sum())


@pytest.mark.parametrize("name", list(CASES))
def test_no_point_is_taken_for_missing(
    name: str, rounding: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, attrs, bound = CASES[name]
    ds, path = field(dtype, attrs), tmp_path / "a.hbae"
    hbae.compress(ds, path, f"v:{bound}", method="linear")
    assert taken(path, ds) == 0
    assert hbae.verify(path, ds).ok
    # The same without care: some points fall on the fill value, and are told.
    monkeypatch.setattr(encode, "_taken", lambda decoded, *_: np.zeros(decoded.shape, bool))
    hbae.compress(ds, path, f"v:{bound}", method="linear", overwrite=True)
    assert taken(path, ds) > 0
    assert "came back as a fill value" in "".join(hbae.verify(path, ds).failures)


@pytest.mark.parametrize("killed", [False, True])
def test_nor_in_a_stream(killed: bool, rounding: None, tmp_path: Path) -> None:
    path, ds = tmp_path / "a.hbae", field("f4", {})
    w = hbae.StreamWriter(path, "block_nrmse=3e-2", steps=12, range={"v": (-40.0, 40.0)})
    for t in range(30):
        w.append(t, ds.isel(t=t))
    if killed:
        w.leave()
        hbae.repair(f"{path}.part")
    else:
        w.close()
    assert taken(path, ds.transpose("t", "y", "x")) == 0
