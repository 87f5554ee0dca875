# SPDX-License-Identifier: MIT
"""XGC-like tokamak edge plasma: an ion distribution f(plane, node, v_perp, v_par) of drifting, bumpy Maxwellians.

Nodes follow a mesh in order (flux surface after flux surface, angle after angle), so that density, flow and the two
temperatures are smooth along nodes; ballooning fluctuations run along the field lines from plane to plane; a small
beam and the noise of finite particle numbers make every velocity grid a little different.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.synth.stream import Piece, Stream, StreamVariable
from hbae.synth.turbulence import random_field

MODES = 12


@dataclass(frozen=True, kw_only=True)
class XGCConfig:
    """Size and physics of an XGC-like run.

    Velocities are in units of the mean thermal speed: v_perp in [0, ``v_max``], v_par in [-``v_max``, ``v_max``].
    ``fluctuation`` is the rms of the turbulent part of density, flow and temperatures (relative); ``noise`` is the
    standard deviation of the finite-particle noise at the peak, relative to the peak (it falls like the square root
    of the local density of particles); ``bump`` is the mean density of the beam relative to the bulk. A piece is one
    plane and at most ``piece_nodes`` nodes.
    """

    planes: int = 8
    nodes: int = 2048
    nperp: int = 39
    npar: int = 39
    seed: int = 0
    v_max: float = 4.0
    density: float = 1e19
    fluctuation: float = 0.08
    noise: float = 0.003
    bump: float = 0.03
    piece_nodes: int = 2048
    double: bool = False

    def __post_init__(self) -> None:
        if min(self.planes, self.piece_nodes) < 1 or min(self.nodes, self.nperp, self.npar) < 2:
            raise ConfigError(
                f"xgc: {self.planes} planes x {self.nodes} nodes x {self.nperp} x {self.npar}, {self.piece_nodes} nodes"
                " a piece; at least 1 plane of 2 nodes of 2 x 2 and 1 node a piece"
            )
        if min(self.fluctuation, self.noise, self.bump) < 0 or self.v_max <= 0 or self.density <= 0:
            raise ConfigError("xgc: a fluctuation, noise or beam is negative, or a density or speed is not positive")


@dataclass(frozen=True)
class Moments:
    """Bulk moments over (plane, node): density (m^-3), flow and thermal speeds (mean thermal speed), beam (share)."""

    density: Array
    flow: Array
    perp: Array
    par: Array
    beam: Array
    beam_flow: Array


def xgc_stream(config: XGCConfig | None = None) -> Stream:
    """Describe an XGC-like run: i_f (plane, node, vperp, vpar), float32 (or float64), at most one plane a piece.

    Values are particles per m^3 and per (mean thermal speed)^3; none is negative.

    Raises
    ------
    ConfigError
        For sizes or amplitudes that make no sense.
    """
    c = config or XGCConfig()
    vperp, vpar = velocity_axes(c)
    dtype = "f8" if c.double else "f4"
    name = "ion distribution function"
    return Stream(
        dims={"plane": c.planes, "node": c.nodes, "vperp": c.nperp, "vpar": c.npar},
        variables=(StreamVariable(name="i_f", units="m-3 vth-3", long_name=name, dtype=dtype),),
        coords={
            "plane": (np.arange(c.planes) * (2 * np.pi / c.planes), "rad"),
            "vperp": (vperp, "vth"),
            "vpar": (vpar, "vth"),
        },
        pieces=lambda: _pieces(c, dtype),
        count=c.planes * -(-c.nodes // c.piece_nodes),
        attrs={"title": "XGC-like edge plasma", "seed": c.seed, "noise": c.noise},
    )


def velocity_axes(config: XGCConfig) -> tuple[Array, Array]:
    """Give the points of v_perp and of v_par, in mean thermal speeds."""
    c = config
    return np.linspace(0.0, c.v_max, c.nperp), np.linspace(-c.v_max, c.v_max, c.npar)


def moments(config: XGCConfig) -> Moments:
    """Give the prescribed moments of every plane and node, (plane, node) float64; the same bits for a seed."""
    c = config
    rng = np.random.default_rng(c.seed)
    radius = np.linspace(0.0, 1.0, c.nodes)
    angle = 2 * np.pi * _surfaces(c.nodes) * radius
    pedestal = 0.5 * (1.0 - np.tanh((radius - 0.6) / 0.15))
    turbulence = [_turbulence(c, rng, angle) for _ in range(6)]
    swing = 0.04 * np.cos(angle)
    warm = 0.55 + 0.75 * pedestal + swing
    f = c.fluctuation
    return Moments(
        density=c.density * (0.25 + 0.75 * pedestal + swing) * np.exp(f * turbulence[0]),
        flow=0.35 * np.sin(np.pi * radius) + 0.1 * np.cos(angle) + f * turbulence[1],
        perp=np.sqrt(warm * np.exp(f * turbulence[2])),
        par=np.sqrt(0.9 * warm * np.exp(f * turbulence[3])),
        beam=c.bump * np.exp(0.5 * turbulence[4]),
        beam_flow=1.6 + 0.2 * np.sin(np.pi * radius) + f * turbulence[5],
    )


def _surfaces(nodes: int) -> int:
    """Give the number of turns of the poloidal angle over all nodes: a quarter of the root of their number."""
    return max(1, round(float(np.sqrt(nodes)) / 4))


def _turbulence(c: XGCConfig, rng: np.random.Generator, angle: Array) -> Array:
    """Give fluctuations (plane, node), standard deviation about 1: toroidal modes, ballooned, smooth along nodes."""
    length = max(16, c.nodes)
    smooth = [random_field((length,), rng, k_min=1.0, k_max=8.0)[: c.nodes] for _ in range(2)]
    toroidal = 2 * np.pi * np.arange(c.planes)[:, None] / c.planes
    out = np.zeros((c.planes, c.nodes))
    balloon = 1.0 + 0.4 * np.cos(angle)
    power = 0.0
    for n in range(1, MODES + 1):
        phase, amplitude = rng.uniform(0, 2 * np.pi), n ** (-5 / 6)
        out += amplitude * np.cos(n * (toroidal - 0.25 * angle) + phase + 0.5 * smooth[0])
        power += amplitude**2 / 2
    return np.asarray(0.8 * balloon * out / np.sqrt(power) + 0.5 * smooth[1])


def _pieces(c: XGCConfig, dtype: str) -> Iterator[Piece]:
    m = moments(c)
    for plane in range(c.planes):
        for start in range(0, c.nodes, c.piece_nodes):
            stop = min(start + c.piece_nodes, c.nodes)
            rng = np.random.default_rng([c.seed, 1, plane, start])
            values = distribution(c, m, plane, slice(start, stop))
            values = _noisy(values, c.noise, rng)
            box = (slice(plane, plane + 1), slice(start, stop), slice(0, c.nperp), slice(0, c.npar))
            yield box, {"i_f": values.astype(dtype)[None]}


def distribution(config: XGCConfig, m: Moments, plane: int, nodes: slice) -> Array:
    """Give f of nodes of a plane without noise: (node, vperp, vpar) float64, m^-3 per (mean thermal speed)^3."""
    vperp, vpar = velocity_axes(config)
    perp, par, flow = m.perp[plane, nodes], m.par[plane, nodes], m.flow[plane, nodes]
    beam, beam_flow = m.beam[plane, nodes], m.beam_flow[plane, nodes]
    across = _gauss(vperp, 0.0 * perp, perp)
    bulk = across[:, :, None] * _gauss(vpar, flow, par)[:, None, :]
    narrow = 0.45 * par
    bump = _gauss(vperp, 0.0 * perp, 0.8 * perp)[:, :, None] * _gauss(vpar, beam_flow, narrow)[:, None, :]
    scale = (m.density[plane, nodes] / (2 * np.pi) ** 1.5)[:, None, None]
    first = ((1 - beam) / (perp**2 * par))[:, None, None]
    second = (beam / (0.64 * perp**2 * narrow))[:, None, None]
    return np.asarray(scale * (first * bulk + second * bump))


def _gauss(v: Array, centre: Array, width: Array) -> Array:
    """Give exp(-(v - centre)^2 / (2 width^2)), shape (node, v)."""
    return np.asarray(np.exp(-0.5 * ((v[None, :] - centre[:, None]) / width[:, None]) ** 2))


def _noisy(values: Array, noise: float, rng: np.random.Generator) -> Array:
    """Add noise of variance f x peak x noise^2 (particles counted), and keep f at 0 or above."""
    if not noise:
        return values
    peak = values.max(axis=(1, 2), keepdims=True)
    shaken = values + noise * np.sqrt(values * peak) * rng.standard_normal(values.shape, dtype=np.float32)
    return np.asarray(np.maximum(shaken, 0.0))
