# SPDX-License-Identifier: MIT
"""S3D-like combustion: turbulent, stratified natural gas igniting at 40 atm with GRI-3.0 chemistry (53 species and T).

Three scalars (initial temperature, equivalence ratio, induction lag) are stirred and mixed by a turbulent flow; each
cell's state is that of its mixture at that time, from a table of real ignitions, and neighbours mix a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.synth.ignition import IgnitionTable, ignition_table, species_names
from hbae.synth.stream import Piece, Stream, StreamVariable
from hbae.synth.turbulence import Flow, Stencil, departure, diffuse, limited, random_field

BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class S3DConfig:
    """Size and physics of an S3D-like run.

    ``temperature`` and ``ratio`` are (mean, standard deviation) of the unburnt mixture (K, -); ``lag`` is the standard
    deviation of the logarithm of the induction time that the mixture does not explain; ``speed`` is the rms velocity
    in cells of a 192-cell domain per step; ``blur`` is the mixing of species in cells squared; ``span`` are first and
    last time in units of the delay of the mean mixture.
    """

    steps: int = 50
    ny: int = 192
    nx: int = 192
    seed: int = 0
    temperature: tuple[float, float] = (1100.0, 17.0)
    ratio: tuple[float, float] = (0.45, 0.07)
    lag: float = 0.05
    speed: float = 0.8
    k_min: float = 2.0
    blur: float = 1.0
    span: tuple[float, float] = (0.55, 1.35)
    table: tuple[int, int, int] = (12, 12, 256)
    processes: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.ny, self.nx) < 1 or min(self.ny, self.nx) < 4:
            raise ConfigError(f"s3d: {self.steps} steps of {self.ny} x {self.nx} cells; at least 1 step of 4 x 4")
        if min(self.temperature[1], self.ratio[1], self.lag, self.speed, self.blur) < 0:
            raise ConfigError("s3d: a standard deviation, a speed or a mixing is negative")


def s3d_stream(config: S3DConfig | None = None, *, table: IgnitionTable | None = None) -> Stream:
    """Describe an S3D-like run: (time, y, x), float32, one piece per time step; Y_<species> (-) and T (K).

    Raises
    ------
    ConfigError
        For sizes or deviations that make no sense.
    MissingExtraError
        If cantera is not installed.
    """
    c = config or S3DConfig()
    grid = table or make_table(c)
    mean_delay = float(grid.delay(np.array([c.temperature[0]]), np.array([c.ratio[0]]))[0])
    times = np.linspace(c.span[0], c.span[1], c.steps) * mean_delay
    species = species_names()
    variables = tuple(StreamVariable(name=f"Y_{s}", units="1", long_name=f"mass fraction of {s}") for s in species)
    variables += (StreamVariable(name="T", units="K", long_name="temperature"),)
    cell = 0.0032 / 192
    return Stream(
        dims={"time": c.steps, "y": c.ny, "x": c.nx},
        variables=variables,
        coords={"time": (times, "s"), "y": (np.arange(c.ny) * cell, "m"), "x": (np.arange(c.nx) * cell, "m")},
        pieces=lambda: _pieces(c, grid, times / mean_delay, mean_delay),
        count=c.steps,
        attrs={"title": "S3D-like ignition of stratified natural gas", "mechanism": "GRI-3.0", "seed": c.seed},
    )


def make_table(config: S3DConfig) -> IgnitionTable:
    """Tabulate the ignitions that a run needs: three standard deviations about the means."""
    (t, dt), (r, dr) = config.temperature, config.ratio
    return ignition_table(
        (t - 3.2 * dt - 1, t + 3.2 * dt + 1),
        (max(r - 3.2 * dr - 0.01, 0.05), r + 3.2 * dr + 0.01),
        size=config.table,
        processes=config.processes,
    )


def scalars(config: S3DConfig) -> Iterator[Array]:
    """Give the stirred scalars of every step: (3, Y, X) float64 with mean 0, standard deviation 1 at the start."""
    c = config
    rng = np.random.default_rng(c.seed)
    shape = (c.ny, c.nx)
    scale = min(shape) / 192
    fields = np.stack([random_field(shape, rng, k_min=c.k_min, k_max=min(shape) / 12) for _ in range(3)])
    flow = Flow(shape, rng, speed=c.speed * scale, k_min=c.k_min)
    fields = diffuse(fields, 0.4)
    for step in range(c.steps):
        if step:
            v, u = flow.at(0.03 * step)
            moved = Stencil(*departure(v, u, 1.0)).apply(fields)
            fields = diffuse(limited(moved, fields), 0.02)
        yield fields


def _pieces(c: S3DConfig, table: IgnitionTable, phases: Array, mean_delay: float) -> Iterator[Piece]:
    names = [f"Y_{s}" for s in species_names()] + ["T"]
    for step, fields in enumerate(scalars(c)):
        states = _states(c, table, fields, float(phases[step]) * mean_delay)
        if c.blur:
            states = mix(states, c.blur)
        yield (slice(step, step + 1), slice(0, c.ny), slice(0, c.nx)), dict(zip(names, states[:, None], strict=True))


def _states(c: S3DConfig, table: IgnitionTable, fields: Array, time: float) -> Array:
    """Give (S + 1, Y, X) float32, a block of cells at a time."""
    flat = fields.reshape(3, -1)
    out = np.empty((table.values.shape[-1], flat.shape[1]), np.float32)
    for start in range(0, flat.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        temperature = c.temperature[0] + c.temperature[1] * flat[0, part]
        ratio = c.ratio[0] + c.ratio[1] * flat[1, part]
        relative = time / (table.delay(temperature, ratio) * np.exp(c.lag * flat[2, part]))
        out[:, part] = table.states(temperature, ratio, relative).T
    return out.reshape(-1, c.ny, c.nx)


def mix(states: Array, amount: float) -> Array:
    """Mix periodic float32 states (S, Y, X) with their neighbours: explicit diffusion by ``amount`` cells squared."""
    passes = max(1, int(np.ceil(amount / 0.25)))
    weight = np.float32(amount / passes)
    for axis in (1, 2):
        for _ in range(passes):
            states = states + weight * (np.roll(states, 1, axis) + np.roll(states, -1, axis) - 2 * states)
    return states


def sized(megabytes: float, config: S3DConfig | None = None) -> S3DConfig:
    """Give the configuration with a square grid of about that many megabytes (10^6 bytes) in the same steps."""
    c = config or S3DConfig()
    side = max(16, round((megabytes * 1e6 / (4 * 54 * c.steps)) ** 0.5 / 16) * 16)
    return replace(c, ny=side, nx=side)
