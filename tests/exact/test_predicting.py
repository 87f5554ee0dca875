# SPDX-License-Identifier: MIT
"""Compiled predictions are those of NumPy for any strides and any integers, and bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbae.exact import interpolate
from hbae.exact.interpolate import predict


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    st.integers(2, 62),
    st.integers(0, 999),
)
def test_the_kernel_predicts_as_the_reference(
    kernel_of: Callable[..., Any], axes: list[tuple[int, int]], axis: int, fewer: bool, cubic: bool, top: int, seed: int
) -> None:
    whole = np.random.default_rng(seed).integers(-(2**top), 2**top, [n * step for n, step in axes])
    known = whole[tuple(slice(None, None, step) for _, step in axes)]
    axis %= known.ndim
    count = max(1, known.shape[axis] - fewer)
    found = []
    for unit in (kernel_of(interpolate, "_predicting"), None):
        with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
            patch.setattr(interpolate, "_predicting", unit)
            found.append(predict(known, count, axis, cubic=cubic))
    for ours, reference in zip(*found, strict=True):
        assert ours.shape == reference.shape
        assert np.array_equal(ours, reference)


def test_bad_arguments_are_refused(kernel_of: Callable[..., Any]) -> None:
    kernel = kernel_of(interpolate, "_predicting")
    known = np.zeros((4, 5), np.int64)
    ok, small = np.zeros((4, 4), np.int64), np.zeros((4, 3), np.int64)
    for args in (
        (known, 2, True, ok, ok.copy()),
        (known, -1, True, ok, ok.copy()),
        (known, 1, True, small, small.copy()),
        (known, 1, True, ok, small),
        (known.astype(np.int32), 1, True, ok, ok.copy()),
        (np.zeros((0, 5), np.int64), 1, True, ok, ok.copy()),
        (np.zeros((), np.int64), 0, True, ok, ok.copy()),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            kernel.predict(*args)
