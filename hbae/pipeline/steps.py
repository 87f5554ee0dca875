# SPDX-License-Identifier: MIT
"""Steps at which every variable's RMSE just meets its tolerance, found on sample data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hbae.arrays import Array
from hbae.bound import ROUNDING, SWEEPS, carried, dead_zone, fit_transform, precise, refit_variables, rotated
from hbae.exact import BASIS_BITS, AxisBasis, Transform
from hbae.exact.interpolate import FRACTION
from hbae.pipeline.sampling import Sample, few_boxes

AIM = 0.985
FIT_POINTS = 1 << 20
# Where scales are searched, and where a predictor's own errors are looked at.
_SEARCH_POINTS, _BALANCE_POINTS = 1 << 18, 1 << 19
BALANCE = (2, 5)
# Turns of the balance by a predictor's own errors, and the limits of a factor's square in one of them.
_TURNS, _LEAST, _MOST = 8, 0.5, 1.5
# From which of these turns on bases are rotated; no step grows beyond so many tolerances.
_ROTATED, _LARGEST = 4, 32
_POINT_ROUNDS = 5
# Steps of a mixing basis are set right on the whole sample later: this near is near enough.
_NEAR = 0.02
# A step is found when the error is below the tolerance by no more than that, or after so many guesses.
_CLOSE, _GUESSES = 0.005, 8

Quantiser = Callable[[Array], Array]


def solve_points(
    left: list[Array], sample: Sample, tol: Array, start: tuple[Array, Transform | None], quantise: Quantiser
) -> Array:
    """Find point units at which a predictor meets every variable's tolerance on part of the sample.

    ``quantise`` turns values (V, *grid) in point units into the integers, in 2**-6 units, that a reader gets.
    """
    units, mix = start
    boxes = _few_points(left, sample)
    if mix is not None:
        return _solve_mixed(boxes, tol, (units, mix), quantise)
    good = np.zeros(len(tol))
    for turn in range(_POINT_ROUNDS):
        apart = AIM / np.maximum(_point_ratios(boxes, tol, units, mix, quantise), 1e-9)
        good = np.where(apart >= 1, np.maximum(good, units), good)
        # At loose bounds errors grow slower than steps.
        units = units * np.clip(apart, 0.25, 4.0) ** np.where(apart > 1, 1.3, 1.0)
        if turn == _POINT_ROUNDS - 1:
            units = np.where(good > 0, good, units)
    return units


def balance_points(
    left: list[Array],
    sample: Sample,
    tol: Array,
    start: tuple[Array, Transform],
    quantise: Quantiser,
    points: Array,
    details: Array,
) -> tuple[Array, Transform]:
    """Give steps and a basis over the variables at which a predictor's errors come near all tolerances.

    As :func:`solve_units` does for points rounded one by one, but with the errors that the predictor makes: those of
    wavelets are far from these where most coefficients are zero. ``points``: (V, n) values to fit bases to. In the
    later turns the basis is rotated until ``details`` (V, n), as coefficients are, take few bits.
    """
    units, mix = start
    boxes = _few_points(left, sample)
    for turn in range(_TURNS):
        ratio = _point_ratios(boxes, tol, units, mix, quantise)
        # Where nothing happens the errors say nothing: no step may run away.
        alike = min(max(AIM / max(float(ratio.mean()), 1e-9), 1 / 16), 4.0)
        factor = gentle(ratio, _LEAST, _MOST) * math.sqrt(alike)
        # What others tell of on the sample may happen alone elsewhere.
        factor = np.minimum(factor, np.maximum(_LARGEST * tol / units, 1.0))
        units = units * factor
        if turn < _ROTATED:
            mix = fit_transform(points / units[:, None], ("klt",))
        else:
            mix = Transform((carried(mix.axes[0], factor),))
            mix = rotated(mix, details / units[:, None], sweeps=SWEEPS if turn == _ROTATED else 1)
    mix = precise(mix, details / units[:, None])
    return _solve_mixed(boxes, tol, (units, mix), quantise), mix


def _few_points(left: list[Array], sample: Sample) -> list[tuple[Array, Array]]:
    """Some boxes of residuals, with what counts of them."""
    return few_boxes(list(zip(left, (~bad for _, bad in sample.boxes), strict=True)), _BALANCE_POINTS)


def _solve_mixed(
    boxes: list[tuple[Array, Array]], tol: Array, start: tuple[Array, Transform], quantise: Quantiser
) -> Array:
    """Steps of variables that a basis mixes, all moved alike until the worst error is near its tolerance."""
    units, mix = start
    slope = _Slope()
    for _ in range(_POINT_ROUNDS):
        value = max(float(_point_ratios(boxes, tol, units, mix, quantise).max()), 1e-9)
        units = units * min(max(slope.factor(AIM, float(units[0]), value), 0.25), 4.0)
        if abs(AIM / value - 1) < _NEAR:
            break
    return units


class _Slope:
    """How the error grows with the step, about as a power of it: the line through the last two in logarithms."""

    def __init__(self) -> None:
        self._slope = 1.0
        self._last: tuple[float, float] | None = None

    def factor(self, aim: float, step: float, error: float) -> float:
        """Give the factor of the step that should bring its error to the aim."""
        here = math.log(step), math.log(error)
        if self._last is not None and abs(here[0] - self._last[0]) > 1e-6:
            self._slope = min(max((here[1] - self._last[1]) / (here[0] - self._last[0]), 0.2), 2.0)
        self._last = here
        return float((aim / error) ** (1 / self._slope))


def _point_ratios(
    boxes: list[tuple[Array, Array]], tol: Array, units: Array, mix: Transform | None, quantise: Quantiser
) -> Array:
    """RMSE of each variable over its tolerance at those units."""
    sse, count = np.zeros(len(tol)), np.zeros(len(tol))
    for x, ok in boxes:
        column = units.reshape(-1, *(1,) * (x.ndim - 1))
        y = x / column
        if mix is not None:
            y = mix.forward(y.reshape(len(y), -1)).reshape(-1, *x.shape[1:])
        t = quantise(y) * 2.0**-FRACTION
        if mix is not None and mix.axes[0].matrix is not None:
            m = np.ldexp(mix.axes[0].matrix.astype(np.float64), -BASIS_BITS)
            t = (m @ t.reshape(len(t), -1)).reshape(x.shape)
        e = (x - t * column) * ok
        sse += (e * e).reshape(len(e), -1).sum(1)
        count += ok.reshape(len(e), -1).sum(1)
    out: Array = np.sqrt(sse / np.maximum(count, 1)) / tol
    return out


def gentle(ratio: Array, least: float = 0.75, most: float = 1.1) -> Array:
    """Factors towards equal errors of variables that a basis mixes; their errors depend on each other."""
    out: Array = np.sqrt(np.clip(ratio.mean() / np.maximum(ratio, 1e-9), least, most))
    return out


def solve_units(
    tiles: Array, tol: Array, kinds: tuple[str, ...], *, rounding: float = ROUNDING
) -> list[tuple[Transform, Array]]:
    """Give transforms and steps (V,) so that every variable's RMSE on the tiles is at most ``tol``.

    One for each degree of balance that is worth weighing. The steps start at the tolerances. For so many turns, a
    variable that comes out better than asked gets a larger step, and the reverse, and bases are fitted again: a basis
    fitted for other steps costs far more than it brings.
    """
    column = (-1, *(1,) * (tiles.ndim - 1))
    weights = tol.copy()
    transform = fit_transform(tiles / weights.reshape(column), kinds)
    if transform.axes[0].matrix is None:
        c = transform.forward(tiles / weights.reshape(column))
        return [(transform, weights * _scales_apart(c, tol, weights, rounding))]
    few = tiles[:, :: max(1, tiles.size // _SEARCH_POINTS)]
    scale: float | None = None
    found = []
    for turn in range(1, BALANCE[-1] + 1):
        c = transform.forward(few / weights.reshape(column))
        scale = _scale_for(c, weights, tol, transform, rounding, around=scale)
        ratio = _ratios(c, np.array(scale), weights, tol, transform, rounding)
        weights = weights * gentle(ratio)
        if turn not in BALANCE:
            # The bases of the grid hardly depend on the weights.
            transform = refit_variables(transform, few / weights.reshape(column))
        else:
            transform = fit_transform(tiles / weights.reshape(column), kinds)
            c = transform.forward(few / weights.reshape(column))
            found.append(
                (transform, weights * _scale_for(c, weights, tol, transform, rounding, around=scale, worst=True))
            )
    return found


def _scales_apart(c: Array, tol: Array, weights: Array, rounding: float) -> Array:
    """Find each variable's own step by bisection, where the transform does not mix variables."""
    low, high = np.full(len(tol), 2.0**-6), np.full(len(tol), 2.0**12)
    none = Transform((AxisBasis("none", len(tol), None, np.zeros(len(tol), np.int64)),))
    for _ in range(16):
        mid = np.sqrt(low * high)
        good = _ratios(c, mid.reshape(-1, *(1,) * (c.ndim - 1)), weights, tol, none, rounding) <= AIM
        low, high = np.where(good, mid, low), np.where(good, high, mid)
    return low


def _scale_for(
    c: Array,
    weights: Array,
    tol: Array,
    transform: Transform,
    rounding: float,
    *,
    around: float | None,
    worst: bool = False,
) -> float:
    """Find the step (in units of the weights) at which the worst or the mean ratio to the tolerance is just met."""
    low, high = (2.0**-6, 2.0**12) if around is None else (around / 4, around * 4)
    guess, slope = around or 1.0, _Slope()
    for _ in range(_GUESSES):
        ratio = _ratios(c, np.array(guess), weights, tol, transform, rounding)
        value = max(float(ratio.max()) if worst else math.sqrt(float((ratio**2).mean())), 1e-9)
        low, high = (guess, high) if value <= AIM else (low, guess)
        if value <= AIM < value * (1 + _CLOSE):
            break
        guess *= slope.factor(AIM / (1 + _CLOSE / 2), guess, value)
        if not low < guess < high:
            guess = math.sqrt(low * high)
    return low


def _ratios(c: Array, scale: Array, weights: Array, tol: Array, transform: Transform, rounding: float) -> Array:
    """RMSE of each variable over its tolerance when coefficients are quantised with that step."""
    e = dead_zone(c / scale, rounding)
    e *= -scale
    e += c
    first = transform.axes[0]
    e = e.reshape(len(e), -1)
    if first.matrix is None:
        mse = np.einsum("ij,ij->i", e, e) / e.shape[1]
    else:
        m = np.ldexp(first.matrix.astype(np.float64), -BASIS_BITS)
        mse = np.einsum("ij,ij->i", m @ (e @ e.T), m) / e.shape[1]
    ratio: Array = np.sqrt(np.maximum(mse, 0)) * weights / tol
    return ratio
