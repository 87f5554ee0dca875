# SPDX-License-Identifier: MIT
"""PCA over variables keeps every target by errors recomputed here, counts its basis, and pays where variables agree."""

from __future__ import annotations

import numpy as np
import pytest

from hbae.compare import TOGETHER, compare_targets, compare_variables
from hbae.compare.klt import Klt
from hbae.compare.sz3 import SZ3
from hbae.compare.tune import prepare
from hbae.errors import FieldError


def variables(field: np.ndarray) -> list[np.ndarray]:
    """Six variables of two fields, of very different sizes, with a little noise of their own."""
    a, b = field[:8, :32, :40], field[:8, 48:80, 48:88]
    rng = np.random.default_rng(1)
    mixes = [(1, 0), (0, 1), (2, 1), (1, -1), (0.3, 0.1), (1, 3)]
    out = [10.0 ** (i - 3) * (p * a + q * b + rng.normal(size=a.shape) * 0.02) for i, (p, q) in enumerate(mixes)]
    return [v.astype("f4") for v in out]


@pytest.mark.parametrize("metric", ["nrmse", "max"])
@pytest.mark.parametrize("name", list(TOGETHER))
def test_every_variable_is_within_its_own_target(name, metric, field):
    arrays = variables(field)
    targets = [1e-3 * (1 + i) for i in range(6)]
    found = TOGETHER[name]().tune(arrays, [np.ones(a.shape, bool) for a in arrays], targets, metric)
    assert found.reached
    loss = []
    for x, y, t in zip(arrays, found.decoded, targets, strict=True):
        e = np.abs(y.astype("f8") - x) / (float(x.max()) - float(x.min()))
        loss.append(float(e.max() if metric == "max" else np.sqrt((e**2).mean())) / t)
    assert max(loss) <= 1
    assert max(loss) > 0.85
    assert found.nbytes < found.raw_bytes / 8


def test_it_beats_its_inner_rival_where_variables_agree(field):
    arrays = {f"v{i}": a for i, a in enumerate(variables(field))}
    targets = dict.fromkeys(arrays, 2e-3)
    (rows, _), *_ = compare_targets(arrays, [targets], ["sz3", "pca+sz3"], grids=[list(arrays)], processes=1)
    alone, together = rows
    assert together.nbytes < 0.8 * alone.nbytes
    assert together.raw_bytes == alone.raw_bytes == sum(a.nbytes for a in arrays.values())
    assert together.missed == alone.missed == []
    assert all(e.nrmse <= 2e-3 for e in together.errors.values())


def test_basis_and_weights_count(field):
    arrays = variables(field)
    payloads: list[int] = []

    class Counted(SZ3):
        def variants(self, shape, metric):
            return (self,)

        def decode(self, encoded, shape, dtype):
            payloads.append(encoded.nbytes)
            return super().decode(encoded, shape, dtype)

    found = Klt(Counted()).tune(arrays, [np.ones(a.shape, bool) for a in arrays], [1e-3] * 6, "nrmse")
    # The smallest result is one of the runs: its payloads are a run of decoded streams that add up.
    sides = {found.nbytes - sum(payloads[i : i + k]): k for k in range(1, 7) for i in range(len(payloads) - k + 1)}
    assert any(side == 6 * k * 4 + 6 * 12 + 1 for side, k in sides.items())


def test_holes_differ_by_variable_and_do_not_count(field):
    arrays = variables(field)[:3]
    rng = np.random.default_rng(3)
    holed = [np.where(rng.random(a.shape) < 0.1, np.float32(np.nan), a) for a in arrays]
    pairs = [prepare(a) for a in holed]
    found = Klt(SZ3()).tune([a for a, _ in pairs], [m for _, m in pairs], [1e-3] * 3, "nrmse")
    for a, y in zip(holed, found.decoded, strict=True):
        ok = np.isfinite(a)
        e = y[ok].astype("f8") - a[ok]
        assert np.sqrt((e**2).mean()) <= 1e-3 * (float(a[ok].max()) - float(a[ok].min()))


def test_one_variable_alone_is_coded_by_the_inner_rival_and_strangers_are_refused(field):
    x = np.ascontiguousarray(field[:8, :40, :40])
    rows = compare_variables({"a": x}, {"a": 1e-3}, ["sz3", "pca+sz3"], processes=1)
    assert rows[0].nbytes == rows[1].nbytes
    ok = [np.ones(x.shape, bool)] * 2
    with pytest.raises(FieldError, match="not on one grid"):
        Klt(SZ3()).tune([x, x[1:]], ok, [1e-3] * 2, "nrmse")
    huge = np.broadcast_to(np.float32(1), (1 << 14, 1 << 14))
    with pytest.raises(FieldError, match="not run on more than"):
        Klt(SZ3()).tune([huge] * 2, [huge] * 2, [1e-3] * 2, "nrmse")
