# SPDX-License-Identifier: MIT
"""Bands of a chunk: read in one call they are what they are band by band; damage and bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.sets as module
from hbae.arrays import Array
from hbae.codecs import ByteReader
from hbae.codecs.related import Relation
from hbae.errors import FormatError
from hbae.exact.wavelet import Wavelet
from hbae.pipeline.waves import code_waves, decode_waves

GRIDS = [
    ((1,), Wavelet(((0,),))),
    ((70,), Wavelet(((0,),))),
    ((13, 29), Wavelet(((0, 1),))),
    ((13, 29), Wavelet(((0,), (1,)))),
    ((20, 1, 23), Wavelet(((1, 2), (0,)))),
    ((11, 12, 10), Wavelet(((0,), (1, 2)))),
    ((3, 9, 10, 12), Wavelet(((0, 1), (2, 3)))),
]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_sets")


def everywhere(shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(1)
    return np.rint(rng.standard_cauchy(shape) * (rng.random(shape) < 0.6)).clip(-(2.0**40), 2.0**40) + 0.0


def in_some_bands(shape: tuple[int, ...]) -> Array:
    """Every variable misses other bands; the first one has nothing anywhere."""
    q = everywhere(shape)
    for v, grid in enumerate(q):
        grid[(slice(v % 2, None, 2),) * grid.ndim] = 0
        grid[tuple(slice((v + a) % 3 == 0, None, 2) for a in range(grid.ndim))] = 0
    q[0] = 0
    return q


def in_a_corner(shape: tuple[int, ...]) -> Array:
    q = np.zeros(shape)
    corner = (slice(None), *(slice(-5, None),) * (len(shape) - 1))
    q[corner] = 1e5 * everywhere(q[corner].shape)
    return q.clip(-(2.0**40), 2.0**40)


def decoded(data: bytes, shape: tuple[int, ...], wavelet: Wavelet, related: Relation = "") -> bytes:
    reader = ByteReader(data)
    q = decode_waves(reader, shape, wavelet, related=related).q
    reader.end()
    return q.tobytes()


@pytest.mark.parametrize(("grid", "wavelet"), GRIDS)
@pytest.mark.parametrize("count", [1, 2, 3, 19])
@pytest.mark.parametrize("values", [everywhere, in_some_bands, in_a_corner])
def test_all_bands_are_read_as_band_by_band(
    grid: tuple[int, ...],
    wavelet: Wavelet,
    count: int,
    values: Callable[[tuple[int, ...]], Array],
    compiled: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q = values((count, *grid))
    data = code_waves(q, wavelet, related="")
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_sets", kernel)
        assert decoded(data, q.shape, wavelet) == q.tobytes()


class Noted:
    """The kernel, with notes of what it was asked."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.calls = kernel, []  # type: tuple[Any, list[tuple[str, list[Any]]]]

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*args: Any) -> int:
            self.calls.append((name, copied(args)))
            return int(getattr(self.kernel, name)(*args))

        return call


def copied(args: Sequence[Any]) -> list[Any]:
    """Copy arrays, also those in tuples, so that a call leaves the others alone."""
    return [a.copy() if isinstance(a, np.ndarray) else tuple(copied(a)) if isinstance(a, tuple) else a for a in args]


def test_one_call_reads_all_bands_where_variables_are_not_related(
    compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted(compiled)
    q, wavelet = everywhere((3, 20, 30)), Wavelet(((0, 1),))
    monkeypatch.setattr(module, "_sets", noted)
    assert decoded(code_waves(q, wavelet, related=""), q.shape, wavelet) == q.tobytes()
    assert [name for name, _ in noted.calls] == ["read_bands"]
    assert decoded(code_waves(q, wavelet, related="rests"), q.shape, wavelet, "rests") == q.tobytes()
    assert {name for name, _ in noted.calls[1:]} == {"read"}


def test_damage_is_told_as_band_by_band(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte turned: both ways give the same integers, or refuse the stream alike."""
    q, wavelet = in_some_bands((4, 17, 12)), Wavelet(((0,), (1,)))
    data, refused = code_waves(q, wavelet, related=""), 0
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        found: list[Any] = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_sets", kernel)
            try:
                found.append(decoded(bad, q.shape, wavelet))
            except FormatError as e:
                found.append(str(e))
        assert found[0] == found[1], at
        refused += isinstance(found[0], str)
    assert refused > len(data) / 2


def slack_of(band: Any, places: int) -> int:
    """How far behind a band's last place a variable's grid ends."""
    first, shape, steps = band[:3]
    return places - 1 - first - sum((n - 1) * k for n, k in zip(shape, steps, strict=True))


def test_bands_that_do_not_fit_are_refused(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted(compiled)
    q, wavelet = everywhere((3, 20, 30)), Wavelet(((0,), (1,)))
    monkeypatch.setattr(module, "_sets", noted)
    decoded(code_waves(q, wavelet, related=""), q.shape, wavelet)
    good = noted.calls[0][1]
    assert compiled.read_bands(*copied(good)) == 0
    bands, live, grid, classes, guides, stream = good
    i = next(i for i, b in enumerate(bands) if len(b[5]) > 1)
    _, shape, steps, _, hinted, told = bands[i]
    phase = hinted[1]

    def band(k: int, wrong: Any, at: int = i) -> tuple[int, Any]:
        new = (*bands[at][:k], wrong, *bands[at][k + 1 :])
        return 0, (*bands[:at], new, *bands[at + 1 :])

    for place, wrong in (
        (0, None),
        (0, ()),
        (0, bands[1:]),
        (0, (*bands[:-1], None)),
        (0, (*bands[:-1], bands[-1][:5])),
        band(0, -1),
        band(0, grid.size // 3),
        band(0, bands[i][0] + 1 + slack_of(bands[i], grid.size // 3)),
        band(0, 1 << 62),
        band(1, shape[:1]),
        band(1, (shape[0], 1 << 61)),
        band(1, (shape[0], 1 << 30)),
        band(1, (shape[0], -1)),
        band(1, (shape[0], 0)),
        band(1, (shape[0], shape[1] + 40)),
        band(1, (*shape, 1, 1, 1, 1, 1, 1, 1)),
        band(2, steps[:1]),
        band(2, (steps[0], 0)),
        band(2, (steps[0], 1 << 61)),
        band(3, (), 0),
        band(3, None, 0),
        band(3, bands[0][3] * 64, 0),
        band(4, ()),
        band(4, (None,)),
        band(4, hinted * 64),
        band(4, (hinted[0], (phase[0], (1 << 40,), *phase[2:]), *hinted[2:])),
        band(4, (hinted[0], (phase[0], (-1000,), *phase[2:]), *hinted[2:])),
        band(4, (hinted[0], (*phase[:2], phase[2][1:2], *phase[3:]), *hinted[2:])),
        band(5, None),
        band(5, (None,)),
        band(5, told * 40),
        band(5, ((i, *told[0][1:]),)),
        band(5, ((-1, *told[0][1:]),)),
        band(5, ((len(bands) + 9, *told[0][1:]),)),
        band(5, ((told[0][0], (1,), told[0][2]),)),
        band(5, ((told[0][0], (0, 1), told[0][2]),)),
        band(5, ((*told[0][:2], -1),)),
        band(5, ((*told[0][:2], 17),)),
        (1, live[:-1].copy()),
        (1, live.ravel()[:-1].copy()),
        (1, np.zeros(0, np.uint8)),
        (2, grid[1:].copy()),
        (2, grid.ravel()[1:].copy()),
        (2, np.zeros(0)),
        (3, classes[1:].copy()),
        (4, guides[1:].copy()),
        (5, stream[1:]),
        (5, (stream[0], stream[1][1:].copy(), *stream[2:])),
    ):
        args = copied(good)
        args[place] = wrong
        with pytest.raises((ValueError, OverflowError, TypeError)):
            compiled.read_bands(*args)
