# SPDX-License-Identifier: MIT
"""Smooth fields with sharp parts, small enough to compress many times."""

from __future__ import annotations

import numpy as np
import pytest


def smooth(shape: tuple[int, ...], dtype: str = "f4") -> np.ndarray:
    """A moving front and two waves over any number of axes, with a little noise."""
    grids = np.meshgrid(*[np.linspace(0, 1, n) for n in shape], indexing="ij")
    phase = sum((i + 1) * g for i, g in enumerate(grids))
    x = np.tanh(12 * (grids[-1] - 0.4 - 0.2 * grids[0])) + 0.3 * np.sin(7 * phase) + 0.1 * np.cos(23 * phase)
    return (300 + 40 * x + 0.01 * np.random.default_rng(7).normal(size=shape)).astype(dtype)


@pytest.fixture(scope="session")
def field() -> np.ndarray:
    return smooth((24, 96, 128))


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("pysz")
    pytest.importorskip("hdf5plugin")
