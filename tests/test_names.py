# SPDX-License-Identifier: MIT
"""The public names stay what they are, whatever has been imported, and their failures are hbae's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.errors import InputError, MissingFileError


def test_importing_rooms_leaves_public_functions_callable() -> None:
    for room in ("hbae.train", "hbae.train.blocks", "hbae.compare", "hbae.pipeline.verify"):
        importlib.import_module(room)
    for name in hbae.__all__:
        if name != "__version__":
            assert callable(getattr(hbae, name)), name


def test_inputs_that_are_not_there_are_failures_of_hbae(tmp_path: Path) -> None:
    none = tmp_path / "none.hbae"
    data = xr.Dataset({"t": (("x",), np.arange(50.0))})
    calls: list[Callable[[], object]] = [
        lambda: hbae.open(none),
        lambda: hbae.decompress(none),
        lambda: hbae.verify(none),
        lambda: hbae.info(none),
        lambda: hbae.compress(tmp_path / "none.nc", tmp_path / "a.hbae", "abs=1"),
        lambda: hbae.compress(data, tmp_path / "a.hbae", "abs=1", model=tmp_path / "none.hbm"),
    ]
    for call in calls:
        with pytest.raises(MissingFileError, match="none"):
            call()
    with pytest.raises(InputError, match=tmp_path.name):
        hbae.open(tmp_path)
