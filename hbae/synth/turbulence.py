# SPDX-License-Identifier: MIT
"""Periodic random fields with a power-law spectrum, solenoidal velocities, advection and diffusion; NumPy only."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError


def wavenumbers(shape: tuple[int, ...]) -> Array:
    """Give |k| (cycles per domain, the shortest axis counts 1) on the half-complex grid of ``rfftn``."""
    short = min(shape)
    axes = [np.fft.fftfreq(n) * short for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1]) * short]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.asarray(np.sqrt(sum(g**2 for g in grids)))


def random_field(
    shape: tuple[int, ...], rng: np.random.Generator, *, slope: float = -5 / 3, k_min: float = 2.0, k_max: float = 1e9
) -> Array:
    """Give a periodic Gaussian field, mean 0 and standard deviation 1, with energy spectrum E(k) ~ k^slope.

    Below ``k_min`` the spectrum rises like k^2 and above ``k_max`` it is cut off smoothly, so that ``k_min`` sets the
    size of the largest eddies (domain / k_min) and ``k_max`` that of the smallest.

    Raises
    ------
    ConfigError
        For an axis of fewer than 2 points.
    """
    if min(shape) < 2:
        raise ConfigError(f"shape: every axis needs at least 2 points, not {shape}")
    k = wavenumbers(shape)
    dims = len(shape)
    with np.errstate(divide="ignore"):
        energy = np.where(k < k_min, (k / k_min) ** 2 * k_min**slope, np.where(k > 0, k, 1.0) ** slope)
    energy *= np.exp(-((k / k_max) ** 2))
    amplitude = np.sqrt(energy / np.where(k > 0, k, 1.0) ** (dims - 1))
    amplitude[(0,) * dims] = 0.0
    noise = np.fft.rfftn(rng.standard_normal(shape))
    out = np.fft.irfftn(noise * amplitude, s=shape, axes=tuple(range(dims)))
    return np.asarray((out - out.mean()) / out.std())


def solenoidal(stream_function: Array) -> tuple[Array, Array]:
    """Give the velocity (v along axis 0, u along axis 1; cells per unit time, rms 1) of a stream function (Y, X)."""
    ny, nx = stream_function.shape
    f = np.fft.rfft2(stream_function)
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :]
    v = np.fft.irfft2(2j * np.pi * kx * f, s=(ny, nx))
    u = np.fft.irfft2(-2j * np.pi * ky * f, s=(ny, nx))
    rms = float(np.sqrt((u**2 + v**2).mean() / 2)) or 1.0
    return v / rms, u / rms


def departure(v: Array, u: Array, dt: float) -> tuple[Array, Array]:
    """Give where each cell's content was ``dt`` earlier (row, column; fractional cells, periodic), second order."""
    ny, nx = v.shape
    y, x = np.arange(ny, dtype=float)[:, None], np.arange(nx, dtype=float)[None, :]
    mid_y, mid_x = y - 0.5 * dt * v, x - 0.5 * dt * u
    stencil = Stencil(mid_y, mid_x)
    vm, um = stencil.apply(np.stack([v, u]))
    return y - dt * vm, x - dt * um


class Stencil:
    """Periodic bicubic (Catmull-Rom) interpolation at fixed points, for any number of fields of shape (..., Y, X)."""

    def __init__(self, y: Array, x: Array) -> None:
        self.y0, self.wy = _weights(y)
        self.x0, self.wx = _weights(x)

    def apply(self, fields: Array) -> Array:
        """Give the fields at the points, shape (..., Y, X); float64."""
        ny, nx = fields.shape[-2:]
        out = np.zeros(fields.shape)
        columns = [(self.x0 + b - 1) % nx for b in range(4)]
        for a in range(4):
            row = (self.y0 + a - 1) % ny
            line = sum(fields[..., row, columns[b]] * self.wx[b] for b in range(4))
            out += self.wy[a] * line
        return out


def _weights(position: Array) -> tuple[Array, list[Array]]:
    base = np.floor(position)
    t = position - base
    weights = [
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    ]
    return base.astype(np.int64), weights


def limited(new: Array, old: Array) -> Array:
    """Keep each field of (..., Y, X) within the range that it had before: interpolation makes no new extremes."""
    low, high = old.min(axis=(-2, -1), keepdims=True), old.max(axis=(-2, -1), keepdims=True)
    return np.asarray(np.clip(new, low, high))


def diffuse(fields: Array, amount: float) -> Array:
    """Diffuse periodic fields (..., Y, X) exactly for ``amount`` = diffusivity x time, in cells squared."""
    ny, nx = fields.shape[-2:]
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :]
    damping = np.exp(-amount * 4 * np.pi**2 * (ky**2 + kx**2))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(fields) * damping, s=(ny, nx)))


class Flow:
    """A turbulent flow that changes with time: two frozen solenoidal fields, slowly exchanged; rms ``speed``."""

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator, *, speed: float, k_min: float = 2.0) -> None:
        self.speed = speed
        # stream function spectrum k^(-5/3 - 2) gives velocities with k^(-5/3)
        self.parts = [solenoidal(random_field(shape, rng, slope=-11 / 3, k_min=k_min)) for _ in range(2)]

    def at(self, phase: float) -> tuple[Array, Array]:
        """Give (v, u) in cells per step at a phase in radians."""
        a, b = np.cos(phase) * self.speed, np.sin(phase) * self.speed
        (v0, u0), (v1, u1) = self.parts
        return a * v0 + b * v1, a * u0 + b * u1
