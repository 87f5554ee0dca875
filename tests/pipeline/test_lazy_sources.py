# SPDX-License-Identifier: MIT
"""Datasets whose values are computed on demand: never a whole variable at once, and each value as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array, Box, Variable
from hbae.io import reading_boxes
from hbae.pipeline import exactvars, inputs, verify

SHAPE = (48, 48, 40)
BOX = 1 << 16
# The archive's own chunks are whole tiles; they may be a little larger.
MOST = int(np.prod(SHAPE)) // 3


class Counting:
    """An array that computes what it is asked for, and notes how many values that were each time."""

    __array_priority__ = 1000

    def __init__(self, values: Array, seen: list[int]) -> None:
        self._values, self.seen = values, seen
        self.shape, self.dtype, self.ndim, self.size = values.shape, values.dtype, values.ndim, values.size

    def __getitem__(self, key: Any) -> Counting:
        return Counting(self._values[key], self.seen)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.seen.append(self.size)
        return np.array(self._values, dtype)

    def __array_function__(self, *args: Any) -> Any:
        raise AssertionError("a function of NumPy computes the whole")

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a function of NumPy computes the whole")


def plain() -> dict[str, Array]:
    """A lossy variable and a large one that is kept as it is."""
    x, y, z = np.meshgrid(*(np.arange(n) / 7 for n in SHAPE), indexing="ij")
    noise = np.random.default_rng(0).normal(0, 0.01, SHAPE)
    return {"T": (np.sin(x) * np.cos(y) + z + noise).astype("f4"), "n": (x * y * 100).astype("i4")}


def counting(seen: list[int]) -> xr.Dataset:
    return xr.Dataset({k: (("t", "y", "x"), Counting(a, seen)) for k, a in plain().items()})


def chunked(seen: list[int]) -> xr.Dataset:
    dask = pytest.importorskip("dask.array")

    def noted(a: Array) -> Array:
        seen.append(a.size)
        return a

    # Tiles of the archive cut these chunks, and the last ones are shorter.
    found = {k: dask.from_array(a, chunks=(5, 48, 16)).map_blocks(noted, dtype=a.dtype) for k, a in plain().items()}
    seen.clear()
    return xr.Dataset({k: (("t", "y", "x"), a) for k, a in found.items()})


@pytest.fixture
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a variable be large that would be small otherwise."""

    def boxes(v: Variable, limit: int = BOX) -> Iterator[Box]:
        return reading_boxes(v, min(limit, BOX))

    monkeypatch.setattr(inputs, "KEEP_BYTES", 0)
    monkeypatch.setattr(exactvars, "CHUNK_BYTES", BOX)
    for module in (inputs, exactvars, verify):
        if hasattr(module, "reading_boxes"):
            monkeypatch.setattr(module, "reading_boxes", boxes)


@pytest.mark.usefixtures("small_boxes")
@pytest.mark.parametrize("make", [counting, chunked])
def test_a_variable_is_never_computed_whole(make: Callable[[list[int]], xr.Dataset], tmp_path: Path) -> None:
    seen: list[int] = []
    ds = make(seen)
    hbae.compress(ds, tmp_path / "a.hbae", "T:abs=1e-2", method="linear", chunk=0.0625)
    assert seen
    assert max(seen) < MOST
    if make is chunked:
        # What is lossy is computed once (what is needed again waits in a scratch file), the other at most twice.
        assert sum(seen) <= 3 * np.prod(SHAPE)
    seen.clear()
    found = hbae.verify(tmp_path / "a.hbae", ds)
    assert found.ok
    assert max(seen) < MOST
    back, truth = hbae.decompress(tmp_path / "a.hbae"), plain()
    assert (back["n"].values == truth["n"]).all()
    assert float(abs(back["T"].values.astype(float) - truth["T"]).max()) <= 1e-2
