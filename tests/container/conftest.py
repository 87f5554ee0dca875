# SPDX-License-Identifier: MIT
"""One small archive with several chunks, groups and sections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae


@pytest.fixture(scope="session")
def dataset() -> xr.Dataset:
    """Two lossy variables on one grid, a third one apart, and a large lossless one."""
    rng = np.random.default_rng(2)
    x, y, z = np.meshgrid(np.arange(48) / 3, np.arange(32) / 5, np.arange(24) / 7, indexing="ij")
    wave = np.sin(x) * np.cos(y) + z
    data = {
        "T": (("t", "y", "x"), (280 + 10 * wave + rng.normal(0, 0.01, wave.shape)).astype("f4")),
        "U": (("t", "y", "x"), (5 * np.cos(wave) + rng.normal(0, 0.01, wave.shape)).astype("f4")),
        "P": (("t", "y"), (1e5 + 100 * wave[..., 0])),
        "id": (("n",), np.arange(40000, dtype=np.int32)),
        "name": (("k",), np.array(["a", "bc"], object)),
    }
    return xr.Dataset(data, attrs={"title": "x"})


@pytest.fixture(scope="session")
def archive(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of that Dataset."""
    path = tmp_path_factory.mktemp("made") / "a.hbae"
    hbae.compress(dataset, path, "nrmse=1e-3", chunk=0.0625, block=(4, 4, 4), variables=("T", "U"), method="linear")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small archive with a chunk."""
    path = tmp_path_factory.mktemp("tiny") / "t.hbae"
    x = np.sin(np.arange(400).reshape(20, 20) / 30).astype("f4")
    hbae.compress(xr.Dataset({"T": (("a", "b"), x), "n": ((), np.int16(7))}), path, "abs=1e-2", method="linear")
    return path
