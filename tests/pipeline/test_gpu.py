# SPDX-License-Identifier: MIT
"""P2 on devices: what a device writes holds its bounds and decodes alike everywhere; what it reads has the same bits.

The same tests run on torch's CPU arithmetic, so that they are seen working where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import hbae

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.hbae"))
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])]


def numbers(ds: xr.Dataset) -> xr.Dataset:
    """Leave out text, whose arrays hold addresses."""
    return ds.drop_vars([n for n, v in ds.variables.items() if v.dtype.hasobject])


@pytest.mark.parametrize("device", ["torch", *DEVICES])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden_files_have_the_same_bits(path: Path, device: str, sha: Callable[[xr.Dataset], str]) -> None:
    there, here = (numbers(hbae.decompress(path, backend=b)) for b in (device, "numpy"))
    assert sha(there) == sha(here)


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_trained_and_used_there(device: str, sha: Callable[[xr.Dataset], str], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, y, z = np.meshgrid(np.arange(12) / 3, np.arange(24) / 5, np.arange(24) / 7, indexing="ij")
    data = {
        f"v{i}": (("t", "y", "x"), (np.sin(x + i) * np.cos(y) + z + rng.normal(0, 0.01, x.shape)).astype("f4"))
        for i in range(3)
    }
    source, path = xr.Dataset(data), tmp_path / "a.hbae"
    hbae.compress(source, path, "nrmse=3e-2", method="hbae", budget="1ep", device=device)
    assert "hbae" in hbae.info(path)["groups"][0]["stages"]
    there, here = (hbae.decompress(path, backend=b) for b in (device, "numpy"))
    assert sha(there) == sha(here)
    for name in data:
        error = here[name].values.astype("f8") - source[name].values.astype("f8")
        assert np.sqrt((error**2).mean()) <= 3e-2 * float(source[name].max() - source[name].min())
    assert hbae.verify(path).ok
