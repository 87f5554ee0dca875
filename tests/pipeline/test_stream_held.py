# SPDX-License-Identifier: MIT
"""A chunk of a stream whose plan suits one variable only: the other one holds its limit as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.bound import Target
from hbae.exact import get_backend
from hbae.pipeline.archive import Archive
from hbae.pipeline.chunk import CODED, decode_chunk
from hbae.pipeline.stream.held import encode_held


@pytest.mark.parametrize("worse", [0, 1])
@pytest.mark.parametrize("times", [1.5, 6.0])
def test_steps_that_are_too_large_for_one_variable(
    worse: int, times: float, fields: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    ds = fields((12, 20, 24), "TU")
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        plan = a.plan(0)
    raw = np.stack([ds[n].values for n in plan.paths])
    limits = [1e-3 * float(np.ptp(x.astype("f8"))) for x in raw]
    larger = np.where(np.arange(2) == worse, times, 0.5)
    plan = replace(plan, unit=plan.unit * larger, point_unit=plan.point_unit * larger)
    backend = get_backend("numpy")
    targets = [Target(rmse=r) for r in limits]
    payload = encode_held(raw, np.zeros(raw.shape, bool), plan, targets, model=None, backend=backend)
    assert payload[0] == CODED
    error = decode_chunk(payload, plan, raw.shape[1:], backend).astype("f8") - raw
    assert (np.sqrt((error**2).mean(axis=(1, 2, 3))) <= limits).all()
