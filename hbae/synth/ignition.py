# SPDX-License-Identifier: MIT
"""Ignition of natural gas at constant volume, tabulated: GRI-3.0 chemistry (Gas Research Institute, 1999), Cantera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError, MissingExtraError
from hbae.processes import WorkerPool

MECHANISM = "gri30.yaml"
FUEL = "CH4:0.90, C2H6:0.07, C3H8:0.03"
AIR = "O2:1, N2:3.727, AR:0.0446"


def load_cantera() -> Any:
    """Import cantera.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import cantera
    except ImportError as e:
        raise MissingExtraError("cantera", "demo") from e
    return cantera


def species_names() -> tuple[str, ...]:
    """Name the 53 species of the mechanism, in its order."""
    return tuple(load_cantera().Solution(MECHANISM).species_names)


def make_reactor(ct: Any, gas: Any, rtol: float = 1e-6, atol: float = 1e-14) -> tuple[Any, Any]:
    """Give a constant-volume reactor over ``gas`` (sharing it, in any Cantera from 3.1) and its network.

    ``rtol`` and ``atol`` (mass fractions) are the tolerances of its integrator.
    """
    try:
        reactor = ct.IdealGasReactor(gas, clone=False)
    except TypeError:
        reactor = ct.IdealGasReactor(gas)
    net = ct.ReactorNet([reactor])
    net.rtol, net.atol = rtol, atol
    return reactor, net


def fastest_rise(times: Array, values: Array) -> float:
    """Give the time of the fastest rise, between the steps of the integrator: they differ from processor to processor.

    ``times`` (n >= 2) ascend strictly. The peak of the slopes between steps is found by a parabola through it and its
    two neighbours.
    """
    middle = 0.5 * (times[1:] + times[:-1])
    slopes = np.diff(values) / np.diff(times)
    top = int(np.argmax(slopes))
    if not 0 < top < len(slopes) - 1:
        return float(middle[top])
    left, right = middle[top] - middle[top - 1], middle[top + 1] - middle[top]
    down, up = (slopes[top] - slopes[top - 1]) / left, (slopes[top + 1] - slopes[top]) / right
    bend = up - down
    return float(middle[top] - 0.5 * (down * right + up * left) / bend) if bend else float(middle[top])


@dataclass(frozen=True)
class IgnitionTable:
    """States of igniting mixtures, values (A, P, W, S + 1): initial temperature A, equivalence ratio P, warped time W.

    The last axis holds the S mass fractions and the temperature (K). The time of a trajectory is warped so that
    ignition is at warp 0 for every mixture: (time / delay - 1) / (1 + |time / delay - 1| * stretch), which keeps
    fronts sharp under interpolation between mixtures. ``log_delay`` (A, P) is the logarithm of the delay in s.
    """

    temperatures: Array
    ratios: Array
    warps: Array
    log_delay: Array
    values: Array
    stretch: float = 8.0

    def delay(self, temperature: Array, ratio: Array) -> Array:
        """Give the ignition delay, s, of mixtures (any shape; bilinear in its logarithm)."""
        (i, s), (j, t) = _place(self.temperatures, temperature), _place(self.ratios, ratio)
        g = self.log_delay
        low = g[i, j] * (1 - t) + g[i, j + 1] * t
        high = g[i + 1, j] * (1 - t) + g[i + 1, j + 1] * t
        return np.asarray(np.exp(low * (1 - s) + high * s))

    def states(self, temperature: Array, ratio: Array, relative: Array) -> Array:
        """Give states (n, S + 1) float32 of n cells at ``relative`` = time / delay; linear in all three axes."""
        (i, s), (j, t) = _place(self.temperatures, temperature), _place(self.ratios, ratio)
        k, w = _place(self.warps, warp(relative, self.stretch))
        n_p, n_w = len(self.ratios), len(self.warps)
        flat = self.values.reshape(-1, self.values.shape[-1])
        base = (i * n_p + j) * n_w + k
        out = np.zeros((len(base), flat.shape[1]), np.float32)
        for a, wa in ((0, 1 - s), (1, s)):
            for b, wb in ((0, 1 - t), (1, t)):
                for c, wc in ((0, 1 - w), (1, w)):
                    weight = (wa * wb * wc).astype(np.float32)
                    out += flat.take(base + (a * n_p + b) * n_w + c, axis=0) * weight[:, None]
        return out


def warp(relative: Array, stretch: float) -> Array:
    """Warp time / delay so that ignition is at 0 and its surroundings are spread out; odd about 1."""
    d = np.asarray(relative) - 1.0
    return np.asarray(d / (1.0 + stretch * np.abs(d)))


def unwarp(w: Array, stretch: float) -> Array:
    """Undo :func:`warp`."""
    return np.asarray(1.0 + w / (1.0 - stretch * np.abs(w)))


def _place(axis: Array, x: Array) -> tuple[Array, Array]:
    """Give the interval of each x on an even axis, and where it lies within (0 to 1, clipped)."""
    p = np.clip((x - axis[0]) / (axis[1] - axis[0]), 0.0, len(axis) - 1.0)
    i = np.minimum(p.astype(np.int64), len(axis) - 2)
    return i, p - i


def ignition_table(
    temperatures: tuple[float, float] = (1020.0, 1180.0),
    ratios: tuple[float, float] = (0.25, 0.75),
    *,
    pressure: float = 40 * 101325.0,
    size: tuple[int, int, int] = (12, 12, 256),
    refine: int = 3,
    end: float = 4.0,
    processes: int = 2,
) -> IgnitionTable:
    """Integrate mixtures to ``end`` delays and refine their grid by cubic interpolation; same bits for any processes.

    Parameters
    ----------
    temperatures, ratios : (low, high)
        Range of initial temperature, K, and of equivalence ratio.
    pressure : float
        Initial pressure, Pa.
    size : tuple of int
        Initial temperatures, equivalence ratios, points of the warped time axis.

    Raises
    ------
    ConfigError
        For a table of fewer than 2 points along an axis, or a refinement below 1.
    MissingExtraError
        If cantera is not installed.
    """
    if min(size) < 2 or refine < 1:
        raise ConfigError(f"ignition table: every axis needs 2 points (got {size}) and refine 1 or more (got {refine})")
    load_cantera()
    stretch = 8.0
    t_axis, r_axis = np.linspace(*temperatures, size[0]), np.linspace(*ratios, size[1])
    warps = np.linspace(warp(np.array(0.0), stretch), warp(np.array(end), stretch), size[2])
    relative = unwarp(warps, stretch)
    jobs = [(t, r_axis, pressure, relative) for t in t_axis]
    if processes > 1:
        with WorkerPool(processes) as pool:
            rows = list(pool.map(_row, jobs))
    else:
        rows = [_row(job) for job in jobs]
    log_delay = np.log(np.array([d for d, _ in rows]))
    values = np.array([v for _, v in rows])
    values = _refine(_refine(values, refine, 0), refine, 1)
    np.maximum(values, 0.0, out=values)
    return IgnitionTable(
        np.linspace(*temperatures, values.shape[0]),
        np.linspace(*ratios, values.shape[1]),
        warps,
        _refine(_refine(log_delay, refine, 0), refine, 1),
        values.astype(np.float32),
        stretch,
    )


def _row(job: tuple[float, Array, float, Array]) -> tuple[Array, Array]:
    """Give delays (P) and states (P, W, S + 1) for one initial temperature."""
    temperature, ratios, pressure, relative = job
    ct = load_cantera()
    gas = ct.Solution(MECHANISM)
    delays, states = [], []
    for ratio in ratios:
        gas.set_equivalence_ratio(float(ratio), FUEL, AIR)
        gas.TP = temperature, pressure
        times, path = _trajectory(ct, gas, float(relative[-1]))
        delay = fastest_rise(times, path[:, -1])
        delays.append(delay)
        states.append(_resample(times / delay, path, relative))
    return np.array(delays), np.array(states)


def _trajectory(ct: Any, gas: Any, end: float) -> tuple[Array, Array]:
    """Integrate until ``end`` times the time of 80 % burnt; give times (n) and states (n, S + 1) of all steps.

    So tightly that rounding, another on each processor, moves the table by 1e-5 of a range at most (RMS).
    """
    first = gas.UVX
    start = gas.T
    gas.equilibrate("UV")
    burnt = start + 0.8 * (gas.T - start)
    gas.UVX = first
    reactor, net = make_reactor(ct, gas, 1e-9, 1e-20)
    times, path, limit = [0.0], [np.append(gas.Y, gas.T)], np.inf
    while net.time < limit and len(times) < 100_000:
        net.step()
        times.append(net.time)
        path.append(np.append(gas.Y, reactor.T))
        if limit == np.inf and burnt < reactor.T:
            limit = end * net.time
    return np.array(times), np.array(path)


def _resample(relative: Array, path: Array, wanted: Array) -> Array:
    return np.stack([np.interp(wanted, relative, path[:, s]) for s in range(path.shape[1])], axis=1)


def _refine(x: Array, factor: int, axis: int) -> Array:
    """Interpolate (Catmull-Rom, ends extended linearly) to ``factor`` times as many intervals along an axis."""
    if factor == 1:
        return x
    x = np.moveaxis(x, axis, 0)
    n = len(x)
    padded = np.concatenate([2 * x[:1] - x[1:2], x, 2 * x[-1:] - x[-2:-1]])
    position = np.arange((n - 1) * factor + 1) / factor
    i = np.minimum(position.astype(np.int64), n - 2)
    t = (position - i).reshape((-1,) + (1,) * (x.ndim - 1))
    weights = (
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    )
    out = sum(w * padded[i + a] for a, w in enumerate(weights))
    return np.moveaxis(np.asarray(out), 0, axis)
