# SPDX-License-Identifier: MIT
"""The last step of a value: the kernel gives NumPy's bits, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hbae.pipeline.casting as module
from hbae.pipeline.casting import Finish


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_casting")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 5, 37])
def test_compiled_values_are_those_of_numpy(
    dtype: type, columns: int, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any values: zeros of both signs, limits, what is not a number, halves of float32 steps, infinite products."""
    rng = np.random.default_rng(2)
    plan: Any = SimpleNamespace(
        offset=np.array([0.0, -0.0, 1e300, 3.5]),
        low=np.array([-1.0, -0.0, -1e308, -np.finfo(np.float32).max]),
        high=np.array([1.0, 5.0, 1e308, np.finfo(np.float32).max]),
        dtype=np.dtype(dtype),
        packing=(None,) * 4,
    )
    steps = np.rint(rng.standard_cauchy((4, columns)) * 10.0 ** rng.integers(0, 15, (4, columns)))
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0 + 2.0**-24, 1e308])
    steps.ravel()[rng.integers(0, steps.size, 9)] = rng.choice(special, 9)
    results = []
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_casting", kernel)
        out = np.full((4, columns + 3), 7, dtype)
        with np.errstate(all="ignore"):
            Finish(plan, np.array([1e-3, 1.0, 1e300, 0.1]))(steps.copy(), out, slice(2, 2 + columns))
        assert (out[:, :2] == 7).all()
        assert (out[:, 2 + columns :] == 7).all()
        assert not np.signbit(out[out == 0]).any()
        results.append(out.tobytes())
    assert results[0] == results[1]


def test_what_does_not_fit_is_refused(compiled: Any) -> None:
    good = [np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 5), np.float32), 2, True]
    compiled.finish(*good)
    for place, bad in (
        (0, np.zeros((2, 4))),
        (0, np.zeros(5)),
        (1, np.zeros((2, 3))),
        (1, np.zeros((0, 4))),
        (2, np.zeros((2, 4), np.float32)),
        (2, np.zeros(9, np.float32)),
        (3, 3),
        (3, -1),
        (4, False),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            compiled.finish(*good[:place], bad, *good[place + 1 :])
