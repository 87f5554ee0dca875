# SPDX-License-Identifier: MIT
"""Latents' step and correction are chosen together: coarser latents where that makes the file smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.pipeline import choosing, pass2
from hbae.pipeline.encode import CoarseLatents, with_latent_step

pytest.importorskip("torch")


class Fixed:
    """Gives latents as they are."""

    def __init__(self, z: Array, zb: Array | None) -> None:
        self.z, self.zb = z, zb

    def encode(self, x: Array) -> tuple[Array, Array | None]:
        return self.z, self.zb


@pytest.mark.parametrize("step", [2, 4, 3])
def test_latents_become_the_nearest_multiples(step: int) -> None:
    z = np.arange(-40, 41).reshape(3, 27)
    coarse, block = with_latent_step(Fixed(z, 2 * z.reshape(3, 3, 9)), step).encode(z)
    assert (coarse % step == 0).all()
    assert (np.abs(coarse - z) <= step / 2).all()
    assert block is not None
    assert block.shape == (3, 3, 9)
    assert (block % step == 0).all()
    assert with_latent_step(Fixed(z, None), step).encode(z)[1] is None
    same = Fixed(z, None)
    assert with_latent_step(same, 1) is same


def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All models that chunks are written with from now on."""
    found: list[Any] = []
    real = pass2.Job

    def noted(plan: Any, targets: Any, model: Any, *more: Any) -> Any:
        found.append(model)
        return real(plan, targets, model, *more)

    monkeypatch.setattr(pass2, "Job", noted)
    return found


def waves(seed: int) -> Array:
    shape, rng = (40, 64, 64), np.random.default_rng(seed)
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij"))) + 0.02
    return np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * k**-4).real.astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "bound", "step"), [("untrained", "nrmse=0.1", 2), ("untrained", "nrmse=0.01", 1), ("noise", "abs=0.5", 4)]
)
def test_the_step_that_takes_the_fewest_bytes_is_taken(
    kind: str,
    bound: str,
    step: int,
    bad_model: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What is written is what was chosen; bounds hold with any step."""
    data = xr.Dataset({n: (("t", "y", "x"), waves(i)) for i, n in enumerate("uv")})
    bad_model(kind)
    models, sizes, path = used(monkeypatch), {}, tmp_path / "a.hbae"
    for steps in ((1,), (2,), (4,), (1, 2, 4)):
        models.clear()
        monkeypatch.setattr(choosing, "LATENT_STEPS", steps)
        report = hbae.compress(data, path, bound, method="hbae", threads=1, overwrite=True)
        assert hbae.verify(path, data).ok
        sizes[steps] = report.size
        chosen = {m.step if isinstance(m, CoarseLatents) else 1 for m in models}
        assert chosen == {steps[0] if len(steps) == 1 else step}
        said = "" if chosen == {1} else f", latents x{chosen.pop()}"
        assert all(v.method.partition(", ")[1:] == said.partition(", ")[1:] for v in report.variables)
        assert all(v.method.startswith("hbae+") for v in report.variables)
    assert sizes[1, 2, 4] == min(sizes.values())
