# SPDX-License-Identifier: MIT
"""Limits of points met by coarse waves and corrections of the points that miss theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.blocks import join_tiles
from hbae.exact import get_backend
from hbae.pipeline import families
from hbae.pipeline.archive import Archive
from hbae.pipeline.chunk import CODED, open_chunk, read_parts
from hbae.pipeline.families import make_family
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.setting import Family

# No block divides these lengths.
SHAPE = (12, 65, 70)


def smooth(seed: int = 0) -> Array:
    """A field whose spectrum falls steeply."""
    rng = np.random.default_rng(seed)
    k = np.sqrt(sum(np.meshgrid(*((np.fft.fftfreq(n) * n) ** 2 for n in SHAPE), indexing="ij")))
    k[0, 0, 0] = 1
    x = np.fft.ifftn(np.fft.fftn(rng.normal(size=SHAPE)) * k**-3.5).real
    out: Array = (x / x.std()).astype(np.float32)
    return out


def dataset(**variables: Array) -> xr.Dataset:
    return xr.Dataset({n: (tuple("ijk")[: a.ndim], a) for n, a in variables.items()})


def plans(path: Path) -> list[GroupPlan]:
    with Archive(path) as a:
        return [a.plan(g) for g in sorted({p.group for p in a.parts if p.group is not None})]


def test_smooth_fields_take_fewer_bytes(
    judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ds = dataset(a=smooth())
    judged(ds, tmp_path / "a.hbae", {"a": [("rel_range", 1e-3)]}, method="linear")
    (plan,) = plans(tmp_path / "a.hbae")
    assert plan.wavelet is not None
    assert plan.corrects_points
    real = families.family_tasks
    monkeypatch.setattr("hbae.pipeline.calibrate.family_tasks", lambda s: [t for t in real(s) if t[0] != "corrected"])
    hbae.compress(ds, tmp_path / "b.hbae", "rel_range=1e-3", method="linear")
    assert (tmp_path / "a.hbae").stat().st_size < 0.95 * (tmp_path / "b.hbae").stat().st_size


def test_noise_over_a_signal_costs_what_noise_costs(tmp_path: Path) -> None:
    """Differences would make the noise larger by the root of two: half a bit for every value."""
    rng = np.random.default_rng(0)
    n, sigma, bound = 100_000, 0.1, 0.01
    x = 20 + 5 * np.sin(np.arange(n) / 700) + sigma * rng.normal(size=n)
    hbae.compress(dataset(x=x), tmp_path / "a.hbae", f"abs={bound}", method="linear")
    ideal = n / 8 * math.log2(sigma * math.sqrt(2 * math.pi * math.e) / (2 * bound))
    assert ideal < (tmp_path / "a.hbae").stat().st_size < 1.07 * ideal


def test_steps_below_points_may_be_coarse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same where transforms are what is below the points."""
    real = families.family_tasks
    monkeypatch.setattr("hbae.pipeline.calibrate.family_tasks", lambda s: [t for t in real(s) if t[0] == "transform"])
    rng = np.random.default_rng(0)
    sigma, bound = 0.1, 0.01
    x = 5 * smooth() + sigma * rng.normal(size=SHAPE)
    hbae.compress(dataset(x=x), tmp_path / "a.hbae", f"abs={bound}", method="linear")
    ideal = x.size / 8 * math.log2(sigma * math.sqrt(2 * math.pi * math.e) / (2 * bound))
    assert ideal < (tmp_path / "a.hbae").stat().st_size < 1.2 * ideal


def test_no_correction_lies_beyond_the_grid(tmp_path: Path) -> None:
    hbae.compress(dataset(a=smooth()), tmp_path / "a.hbae", "rel_range=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        plan, seen = a.plan(0), 0
        for i, box in enumerate(a.parts[0].boxes):
            grid = tuple(s.stop - s.start for s in box)
            r, kind, _ = open_chunk(a.reader.chunk(i), (1, *grid), plan.dtype, "chunk")
            assert kind == CODED
            gae = read_parts(r, plan, grid, get_backend("numpy")).gae
            assert gae is not None
            inside = join_tiles(gae, grid)
            seen += np.count_nonzero(inside)
            assert np.count_nonzero(inside) == np.count_nonzero(gae)
    assert seen > 100


OTHERS: dict[str, dict[str, list[tuple[str, float]]]] = {
    "also an RMSE": {"a": [("rel_range", 1e-3), ("nrmse", 4e-4)], "b": [("rel_range", 1e-3), ("nrmse", 4e-4)]},
    "one without limits of points": {"a": [("rel_range", 1e-3)], "b": [("nrmse", 1e-3)]},
    "also blocks": {"a": [("rel_range", 1e-3), ("block_nrmse", 4e-4)], "b": [("rel_range", 1e-3)]},
    "also relative ones": {"a": [("rel_range", 1e-3), ("pw_rel", 0.1)], "b": [("rel_range", 1e-3)]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_only_where_points_alone_have_limits(name: str, judged: Callable[..., Any], tmp_path: Path) -> None:
    """Corrections leave most errors near the limit of points: too large for an RMSE."""
    bounds = OTHERS[name]
    judged(dataset(a=smooth(), b=smooth(1)), tmp_path / "a.hbae", bounds, method="linear")
    for plan in plans(tmp_path / "a.hbae"):
        alone = all([kind for kind, _ in bounds[n]] == ["rel_range"] for n in plan.paths)
        assert alone or not plan.corrects_points


@pytest.mark.parametrize("head", ["none", "klt"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i2"])
def test_limits_hold_on_values_of_any_type(
    head: str, dtype: str, judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Forced, whatever it costs; with points that are not valid, and with points that no step can keep."""
    monkeypatch.setattr("hbae.pipeline.calibrate.family_tasks", lambda s: [("corrected", head)])
    x = np.stack([smooth(), smooth() + 0.1 * smooth(1)])
    x[1, 3, 4, 5] = 40
    if dtype == "i2":
        values = np.rint(x * 500).astype("i2")
    else:
        x[0, 2:5, 7:9] = np.nan
        x[1, 0, 0, :3] = np.inf
        values = x.astype(dtype)
    ds = dataset(a=values[0], b=values[1])
    bounds = {n: [("rel_range", 3e-3)] for n in ds}
    judged(ds, tmp_path / "a.hbae", bounds, method="linear")
    found = plans(tmp_path / "a.hbae")
    assert all(p.corrects_points for p in found)
    assert any((p.mix is not None) == (head == "klt") for p in found)


def test_a_family_is_weighed_at_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of steps end where bytes grow, and two plans at most go on."""
    made: list[Family] = []

    def spy(*args: Any) -> Family:
        family = make_family(*args)
        if args[1][0] in ("corrected", "transform"):
            made.append(family)
        return family

    monkeypatch.setattr("hbae.pipeline.calibrate.make_family", spy)
    hbae.compress(dataset(a=smooth()), tmp_path / "a.hbae", "rel_range=1e-3", method="linear", threads=1)
    assert made
    assert all(1 <= len(f.members) <= 2 for f in made)
