# SPDX-License-Identifier: MIT
"""The compiled lifting gives the same bits as NumPy, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.exact.wavelet as module
from hbae.arrays import Array
from hbae.exact import Wavelet

SHAPES = [(9,), (10,), (31,), (17, 33), (9, 9, 9), (5, 12, 40), (3, 9, 10, 11), (64, 1, 18), (9, 2, 9, 3, 10)]
# Grids that do not fit the cache, cut along the first axis, between lines, and along rows.
SHAPES += [(70, 20, 30), (20, 40, 50), (3, 11003), (9, 4100), (4100, 9), (12, 10, 3, 120)]
# Columns of which few at a time, or one, fit where they are lifted.
SHAPES += [(300001,), (3, 300001), (40001, 7)]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_lifting")


def hostile(shape: tuple[int, ...]) -> Array:
    """Values over 60 orders of magnitude, with zeros of both signs, infinities and NaN."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
    flat = x.reshape(-1)
    flat[rng.integers(0, x.size, 4)] = [0.0, -0.0, 5e-324, -1e308]
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_lifting_gives_the_bits_of_numpy(
    shape: tuple[int, ...], compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = len(shape)
    for groups in {
        (tuple(range(r)),),
        tuple((a,) for a in range(r)),
        ((r - 1,), *((tuple(range(r - 1)),) if r > 1 else ())),
    }:
        wavelet = Wavelet(groups)
        results = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_lifting", kernel)
            x = hostile(shape)
            with np.errstate(all="ignore"):
                wavelet.forward(x)
                there = x.tobytes()
                wavelet.inverse(x)
            results.append((there, x.tobytes()))
        assert results[0] == results[1]


def test_lifting_refuses_what_does_not_fit(compiled: Any) -> None:
    x = np.zeros((9, 9))
    lift = compiled.lift
    for shape, *passes in (
        ((9, 10), (0, (1, 1))),
        ((9, 9), (0, (1,))),
        ((9, 9), (2, (1, 1))),
        ((9, 9), (-1, (1, 1))),
        ((9, 9), (0, (0, 1))),
        ((9, 9), (1, (1, 9))),
        ((9, 9), (1, (1, 16))),
        ((9, 9), (1, (10, 1))),
        ((9, 9), (0, (1, 1)), (1, (1, -1))),
        ((9, 9), *[(0, (1, 1))] * 65),
        ((9, 9), (0, (1, 1), 1)),
        ((9, 9), 0),
        ((-9, -9), (0, (1, 1))),
        ((1 << 40, 1 << 40), (0, (1, 1))),
        ((), (0, ())),
        ((3,) * 9, (0, (1,) * 9)),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            lift(x, shape, tuple(passes), False)
    one = ((0, (1, 1)),)
    with pytest.raises(TypeError):
        lift(x, (9, 9), list(one), False)
    with pytest.raises((TypeError, BufferError, ValueError)):
        lift(np.zeros((9, 18))[:, ::2], (9, 9), one, False)
    fixed = np.zeros((9, 9))
    fixed.setflags(write=False)
    with pytest.raises((TypeError, BufferError, ValueError)):
        lift(fixed, (9, 9), one, False)


@pytest.mark.parametrize("factor", [1, 64, 0.1])
def test_compiled_rounding_gives_the_bits_of_numpy(
    factor: float, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tricky = [0.5, 1.5, 2.5, -0.5, -2.5, 0.0, -0.0, 5e-324, 0.49999999999999994, 2.0**52 + 1, -(2.0**51) - 0.5]
    for more, largest in (
        ([], None),
        ([2.0**60], 2.0**60),
        ([-(2.0**61)], 2.0**61),
        ([np.inf], np.inf),
        ([np.nan], np.inf),
    ):
        found = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_lifting", kernel)
            x = np.array(tricky + more) / factor
            assert module.scale_and_round(x, factor) == (largest or np.abs(x).max())
            found.append(x.tobytes())
        assert found[0] == found[1]
