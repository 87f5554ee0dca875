# SPDX-License-Identifier: MIT
"""Rounding by worth moves a coefficient by one step towards zero at most, and saves bytes at equal error."""

from __future__ import annotations

import numpy as np
import pytest

from hbae.arrays import Array
from hbae.bound import ROUNDING, dead_zone
from hbae.exact import Wavelet
from hbae.pipeline.rounding import round_by_worth
from hbae.pipeline.waves import encode_waves, quantise_waves

WHOLE = [(slice(None),)]


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.4, 3.0, 1e3, 1e12])
@pytest.mark.parametrize("shape", [(1, 7), (2, 40, 30), (3, 5, 4, 6, 2)])
def test_every_integer_is_the_nearest_or_the_next_towards_zero(scale: float, shape: tuple[int, ...]) -> None:
    c = np.random.default_rng(1).laplace(size=shape) * scale
    q = round_by_worth(c, WHOLE, range(len(shape) - 1))
    near, size = np.abs(np.rint(c)), np.abs(q)
    assert ((size == near) | (size == near - 1)).all()
    assert (size <= near).all()
    assert ((q == 0) | (np.sign(q) == np.sign(c))).all()


def test_it_saves_bytes_at_equal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    k = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.rfftfreq(160)) + 1 / 160
    x = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(160, 160))) * k**-2.0, s=(160, 160))[None]
    x /= x.std()
    wavelet = Wavelet(((0, 1),))

    def plain(c: Array, *_: object) -> Array:
        return dead_zone(c, ROUNDING).astype(np.int64)

    def bytes_at(error: float) -> int:
        low, high = error / 10, error * 100
        for _ in range(16):
            unit = (low * high) ** 0.5
            got = quantise_waves(x / unit, wavelet) * (unit / 64)
            low, high = (unit, high) if ((got - x) ** 2).mean() <= error**2 else (low, unit)
        return len(encode_waves(x / low, wavelet, nearest=False))

    worth = bytes_at(0.02)
    monkeypatch.setattr("hbae.pipeline.waves.round_by_worth", plain)
    assert worth < 0.985 * bytes_at(0.02)
