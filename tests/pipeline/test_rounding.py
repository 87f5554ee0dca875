# SPDX-License-Identifier: MIT
"""Rounding by worth moves a coefficient by one step towards zero at most, and saves bytes at equal error."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.pipeline.rounding as module
from hbae.arrays import Array
from hbae.bound import ROUNDING, dead_zone
from hbae.exact import Wavelet
from hbae.pipeline.rounding import SYMBOLS, WORTH, round_by_worth
from hbae.pipeline.waves import encode_waves, quantise_waves

KernelOf = Callable[[ModuleType, str], Any]
WHOLE = [(slice(None),)]


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.4, 3.0, 1e3, 1e12])
@pytest.mark.parametrize("shape", [(1, 7), (2, 40, 30), (3, 5, 4, 6, 2)])
def test_every_integer_is_the_nearest_or_the_next_towards_zero(scale: float, shape: tuple[int, ...]) -> None:
    c = np.random.default_rng(1).laplace(size=shape) * scale
    q = round_by_worth(c.copy(), WHOLE, range(len(shape) - 1))
    near, size = np.abs(np.rint(c)), np.abs(q)
    assert ((size == near) | (size == near - 1)).all()
    assert (size <= near).all()
    assert ((q == 0) | (np.sign(q) == np.sign(c))).all()


@pytest.mark.parametrize("shape", [(7,), (40, 31), (5, 1, 16, 9)])
@pytest.mark.parametrize("scale", [0.0, 0.4, 3.0, 1e12])
def test_compiled_rounding_chooses_as_numpy(
    shape: tuple[int, ...], scale: float, kernel_of: KernelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_of(module, "_rounding")
    c = np.random.default_rng(1).laplace(size=(3, *shape)) * scale
    places = [b.place for b in Wavelet((tuple(range(len(shape))),)).bands(shape)]
    compiled = round_by_worth(c.copy(), places, range(len(shape)))
    tiles = round_by_worth(c.copy(), WHOLE, range(1, len(shape)))
    monkeypatch.setattr(module, "_rounding", None)
    assert round_by_worth(c.copy(), places, range(len(shape))).tobytes() == compiled.tobytes()
    assert round_by_worth(c.copy(), WHOLE, range(1, len(shape))).tobytes() == tiles.tobytes()


@pytest.mark.parametrize("value", [0.5, np.nextafter(0.5, 1), 0.505, -0.51, 1.0])
@pytest.mark.parametrize("at", [0, 7, 15, 16, 33])
def test_one_value_among_small_ones_is_seen(
    value: float, at: int, kernel_of: KernelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(module, "_rounding")
    found = []
    for unit in (kernel, None):
        monkeypatch.setattr(module, "_rounding", unit)
        values, lowest = np.full(40, 0.1), np.full(SYMBOLS, -0.5)
        values[at], lowest[0] = value, -1
        module._settle(values, np.zeros(40, np.uint16), lowest)
        found.append(values.tobytes())
    assert found[0] == found[1]
    assert (np.frombuffer(found[0]) != 0).sum() == (value != 0.5)


def test_compiled_rounding_refuses_what_does_not_fit(kernel_of: KernelOf) -> None:
    kernel = kernel_of(module, "_rounding")
    table, counts = np.zeros(60 * 2 + 1, np.uint16), np.zeros(80, np.int64)
    band = ((0, 1), (1, 2))
    good = [np.zeros((3, 4)), (3, 4), (((1, 0), (2, 2)), band), (0, 1), table, np.zeros((3, 4), np.uint16), counts]
    kernel.classify(*good)
    for place, bad in (
        (0, np.zeros(11)),
        (1, (3,)),
        (1, (0, 4)),
        (1, (1 << 62, 4)),
        (2, (band, ((3, 0), (1, 2)))),
        (2, (band, ((-1, 0), (1, 2)))),
        (2, (band, ((0, 1), (0, 1)))),
        (2, (band, ((0, 1, 0), (1, 2)))),
        (2, (band, ((0, 1),))),
        (2, (band, None)),
        (2, None),
        (3, (1, 1)),
        (3, (0,)),
        (4, table + np.uint16(2)),
        (5, np.zeros(3, np.uint16)),
        (6, counts[:39].copy()),
    ):
        with pytest.raises((ValueError, OverflowError, TypeError)):
            kernel.classify(*good[:place], bad, *good[place + 1 :])
    for classes, lowest in ((3, 40), (4, 39)):
        with pytest.raises(ValueError, match="do not fit"):
            kernel.settle(np.zeros(4), np.zeros(classes, np.uint16), np.zeros(lowest))
    with pytest.raises(ValueError, match="do not fit"):
        kernel.settle(np.zeros(4), np.ones(4, np.uint16), np.zeros(40))


def test_it_saves_bytes_at_equal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    k = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.rfftfreq(160)) + 1 / 160
    x = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(160, 160))) * k**-2.0, s=(160, 160))[None]
    x /= x.std()
    wavelet = Wavelet(((0, 1),))

    def plain(c: Array, *_: object) -> Array:
        return dead_zone(c, ROUNDING)

    def bytes_at(error: float) -> int:
        low, high = error / 10, error * 100
        for _ in range(16):
            unit = (low * high) ** 0.5
            got = quantise_waves(x / unit, wavelet, worth=WORTH) * (unit / 64)
            low, high = (unit, high) if ((got - x) ** 2).mean() <= error**2 else (low, unit)
        return len(encode_waves(x / low, wavelet, worth=WORTH)[0])

    worth = bytes_at(0.02)
    monkeypatch.setattr("hbae.pipeline.waves.round_by_worth", plain)
    assert worth < 0.985 * bytes_at(0.02)
