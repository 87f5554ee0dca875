# SPDX-License-Identifier: MIT
"""Ignition in two dimensions, computed: GRI-3.0 chemistry in every cell, a frozen turbulent flow, and diffusion.

The charge has one density, constant in time, so that every cell is a reactor of constant volume; mass fractions and
internal energy are carried by a solenoidal flow and diffuse alike (unity Lewis number). Chemistry and transport
alternate (Strang, 1968). Sound and expansion are left out: the pressure of a cell follows from its temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.processes import WorkerPool
from hbae.synth.ignition import AIR, FUEL, MECHANISM, fastest_rise, load_cantera, make_reactor, species_names
from hbae.synth.stream import Piece, Stream, StreamVariable
from hbae.synth.turbulence import Stencil, departure, diffuse, limited, random_field, solenoidal

CELLS = 64
LONGEST = 10.0
React = Callable[[Array, float], Array]
_gas: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class HCCI2DConfig:
    """Size and physics of a run.

    ``temperature`` and ``ratio`` are (mean, standard deviation) of the initial charge (K, -) at a mean ``pressure``
    (Pa); the domain is ``length`` m along x with square cells; ``speed`` is the rms velocity (m/s) and
    ``diffusivity`` in m^2/s; ``span`` are first and last time in units of the delay of the mean mixture;
    ``substeps`` is how often transport and chemistry alternate between two times.
    """

    steps: int = 50
    ny: int = 64
    nx: int = 64
    seed: int = 0
    temperature: tuple[float, float] = (1100.0, 15.0)
    ratio: tuple[float, float] = (0.45, 0.05)
    pressure: float = 40 * 101325.0
    length: float = 0.0032
    speed: float = 0.5
    diffusivity: float = 5e-6
    span: tuple[float, float] = (0.55, 1.35)
    substeps: int = 2
    processes: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.substeps, self.processes) < 1 or min(self.ny, self.nx) < 4:
            raise ConfigError(
                f"hcci2d: {self.steps} steps of {self.ny} x {self.nx} cells, {self.substeps} substeps,"
                f" {self.processes} processes; at least 1 step of 4 x 4, 1 substep, 1 process"
            )
        if min(self.temperature[1], self.ratio[1], self.speed, self.diffusivity) < 0:
            raise ConfigError("hcci2d: a standard deviation, the speed or the diffusivity is negative")
        if min(self.pressure, self.length, self.temperature[0], self.ratio[0]) <= 0:
            raise ConfigError("hcci2d: pressure, length, temperature and ratio must be above 0")
        if not 0 <= self.span[0] < self.span[1]:
            raise ConfigError(f"hcci2d: span {self.span} must rise from 0 or more")


def hcci2d_stream(config: HCCI2DConfig | None = None) -> Stream:
    """Describe a run: (time, y, x), float32, one piece per time; Y_<species> (-) and T (K).

    Same bits for any number of processes. Every call of ``pieces()`` computes the run anew.

    Raises
    ------
    ConfigError
        For sizes or physics that make no sense, or a mean mixture that does not ignite within 10 s.
    MissingExtraError
        If cantera is not installed.
    """
    c = config or HCCI2DConfig()
    delay = mean_delay(c)
    times = np.linspace(c.span[0], c.span[1], c.steps) * delay
    names = [f"Y_{s}" for s in species_names()]
    variables = tuple(StreamVariable(name=n, units="1", long_name=f"mass fraction of {n[2:]}") for n in names)
    variables += (StreamVariable(name="T", units="K", long_name="temperature"),)
    cell = c.length / c.nx
    return Stream(
        dims={"time": c.steps, "y": c.ny, "x": c.nx},
        variables=variables,
        coords={"time": (times, "s"), "y": (np.arange(c.ny) * cell, "m"), "x": (np.arange(c.nx) * cell, "m")},
        pieces=lambda: _pieces(c, times),
        count=c.steps,
        attrs={"title": "Ignition of natural gas in two dimensions", "mechanism": "GRI-3.0", "seed": c.seed},
    )


def mean_delay(config: HCCI2DConfig) -> float:
    """Give the ignition delay, s, of the mean mixture at constant volume (time of the fastest rise of temperature)."""
    ct = load_cantera()
    gas = _mixture(ct.Solution(MECHANISM), config.ratio[0], config.temperature[0], config.pressure)
    start, first = gas.T, gas.UVX
    gas.equilibrate("UV")
    burnt = start + 0.8 * (gas.T - start)
    gas.UVX = first
    reactor, net = make_reactor(ct, gas)
    times, path = [0.0], [start]
    while path[-1] < burnt and times[-1] < LONGEST and len(times) < 100_000:
        net.step()
        times.append(net.time)
        path.append(reactor.T)
    if path[-1] < burnt:
        raise ConfigError(f"hcci2d: {config.ratio[0]} at {config.temperature[0]} K does not ignite in {LONGEST:g} s")
    return fastest_rise(np.array(times), np.array(path))


def initial_state(config: HCCI2DConfig) -> tuple[Array, float]:
    """Give the charge (S + 2, Y, X) float64: mass fractions, internal energy (J/kg), temperature (K); and its density.

    The density (kg/m^3) is that of the mean mixture at the mean temperature and pressure.
    """
    c = config
    rng = np.random.default_rng(c.seed)
    shape = (c.ny, c.nx)
    k_max = max(min(shape) / 8, 2.0)
    t, r = (random_field(shape, rng, k_max=k_max) for _ in range(2))
    gas = load_cantera().Solution(MECHANISM)
    density = float(_mixture(gas, c.ratio[0], c.temperature[0], c.pressure).density)
    temperature = np.maximum(c.temperature[0] + c.temperature[1] * t, 300.0)
    ratio = np.maximum(c.ratio[0] + c.ratio[1] * r, 0.01)
    out = np.empty((gas.n_species + 2, c.ny, c.nx))
    for y, x in np.ndindex(shape):
        _mixture(gas, float(ratio[y, x]), float(temperature[y, x]), c.pressure)
        gas.TD = float(temperature[y, x]), density
        out[:-2, y, x], out[-2, y, x], out[-1, y, x] = gas.Y, gas.int_energy_mass, gas.T
    return out, density


def _mixture(gas: Any, ratio: float, temperature: float, pressure: float) -> Any:
    gas.set_equivalence_ratio(ratio, FUEL, AIR)
    gas.TP = temperature, pressure
    return gas


def _pieces(c: HCCI2DConfig, times: Array) -> Iterator[Piece]:
    names = [f"Y_{s}" for s in species_names()] + ["T"]
    state, density = initial_state(c)
    rng = np.random.default_rng([c.seed, 1])
    v, u = solenoidal(random_field((c.ny, c.nx), rng, slope=-11 / 3, k_min=2.0))
    pace = (times[1] - times[0]) / c.substeps if c.steps > 1 else max(times[0] / c.substeps, 1e-9)
    now = 0.0
    with _reactors(c.processes, density) as react:
        for step, time in enumerate(times):
            if time > now:
                count = max(c.substeps if step else 1, int(np.ceil((time - now) / pace - 1e-9)))
                state = _advance(c, state, (v, u), (time - now) / count, count, react)
                now = float(time)
            out = np.delete(state, -2, axis=0).astype(np.float32)
            box = (slice(step, step + 1), slice(0, c.ny), slice(0, c.nx))
            yield box, dict(zip(names, out[:, None], strict=True))


def _advance(c: HCCI2DConfig, state: Array, flow: tuple[Array, Array], dt: float, count: int, react: React) -> Array:
    """Advance by ``count`` steps of ``dt`` s: half of the chemistry, transport, half of the chemistry; halves join."""
    scale = c.speed * dt / (c.length / c.nx)
    stencil = Stencil(*departure(flow[0] * scale, flow[1] * scale, 1.0))
    amount = c.diffusivity * dt / (c.length / c.nx) ** 2
    state = react(state, dt / 2)
    for step in range(count):
        state = transport(state, stencil, amount)
        state = react(state, dt if step < count - 1 else dt / 2)
    return state


def transport(state: Array, stencil: Stencil, amount: float) -> Array:
    """Carry and diffuse (by ``amount`` cells squared) a state; no new extremes, mass fractions sum to 1."""
    out = limited(diffuse(limited(stencil.apply(state), state), amount), state)
    out[:-2] /= out[:-2].sum(axis=0)
    return out


@contextmanager
def _reactors(processes: int, density: float) -> Iterator[React]:
    """Give a function (state, s) -> state after that much chemistry, in this process or in several."""

    def run(mapped: Callable[..., Any], state: Array, dt: float) -> Array:
        cells = state.reshape(len(state), -1).T
        jobs = [(cells[i : i + CELLS], density, dt) for i in range(0, len(cells), CELLS)]
        return np.ascontiguousarray(np.concatenate(list(mapped(react_cells, jobs))).T).reshape(state.shape)

    if processes == 1:
        yield lambda state, dt: run(map, state, dt)
        return
    with WorkerPool(processes) as pool:
        yield lambda state, dt: run(pool.map, state, dt)


def react_cells(job: tuple[Array, float, float]) -> Array:
    """Give cells (n, S + 2) after ``dt`` s at constant volume and energy; ``job`` is (cells, density in kg/m^3, dt).

    The last column is the temperature: on entry a guess, on return that of the cell.
    """
    cells, density, dt = job
    ct = load_cantera()
    if MECHANISM not in _gas:
        _gas[MECHANISM] = ct.Solution(MECHANISM)
    gas = _gas[MECHANISM]
    out = cells.copy()
    for row in out:
        gas.TDY = row[-1], density, row[:-2]
        gas.UVY = row[-2], 1.0 / density, row[:-2]
        _, net = make_reactor(ct, gas)
        net.advance(dt)
        row[:-2], row[-1] = np.maximum(gas.Y, 0.0), gas.T
    return out
