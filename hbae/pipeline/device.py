# SPDX-License-Identifier: MIT
"""Chunks on a device: true values to integers, integers to values of the stored type, errors of what was decoded.

The same formulas as in :mod:`hbae.pipeline.parts`, so that values have the same bits. Integers travel as float64, which
the coder's kernels walk over. Entropy coding and hashes stay with the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.bound import ChunkErrors, Target, VariableErrors
from hbae.exact import Backend, Transform, Wavelet
from hbae.exact.backend import TorchBackend
from hbae.exact.on_torch import (
    column,
    over,
    transform_forward,
    transform_inverse,
    wavelet_forward,
    wavelet_inverse,
)
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.rounding_there import round_by_worth_there

# Types that torch reads as NumPy does; half precision too, which it would write with two roundings.
_WRITES = {np.dtype(t) for t in ("f4", "f8", "i1", "u1", "i2", "i4")}
_READS = _WRITES | {np.dtype("f2")}
_MOST = 2.0**62


def device_of(backend: Backend) -> TorchBackend | None:
    """Give a backend that works on chunks as tensors, or None."""
    return backend if isinstance(backend, TorchBackend) and backend.on_device else None


def encodes(plan: GroupPlan) -> bool:
    """Tell whether a plan's integers are made on a device: it has one stage, by wavelets or transform."""
    alone = (plan.transform is not None) != bool(plan.point_unit.any())
    other = plan.decoder is not None or plan.gae is not None or plan.levels is not None
    return plan.domain == "linear" and alone and not other and (plan.transform or plan.wavelet) is not None


def reads(dtype: np.dtype[Any]) -> bool:
    """Tell whether stored values of that type become float64 on a device."""
    return dtype.newbyteorder("=") in _READS


def load(there: TorchBackend, raw: Array, packing: tuple[tuple[float, float] | None, ...]) -> Any:
    """Give stored values (V, ...) as float64 in physical units (packed variables unpacked)."""
    x = there.load(raw).double()
    for v, p in enumerate(packing):
        if p is not None:
            x[v].mul_(p[0]).add_(p[1])
    return x


def wave_integers(there: TorchBackend, x: Any, plan: GroupPlan, wavelet: Wavelet, worth: float) -> Array:
    """Give the quantised coefficients (V', *grid), held in float64, of physical values."""
    left = _left(x, plan, plan.point_unit)
    if plan.mix is not None:
        left = transform_forward(plan.mix, left.reshape(len(left), -1)).reshape(-1, *x.shape[1:])
    wavelet_forward(wavelet, left)
    groups = [tuple(a + 1 for a in g) for g in wavelet.groups]
    round_by_worth_there(there, left, groups, worth, pyramid=True)
    return there.fetch(left)


def tile_integers(there: TorchBackend, x: Any, plan: GroupPlan, transform: Transform) -> Array:
    """Give the quantised coefficients (V', B, *kept), int64, of physical values."""
    c = transform_forward(transform, _split_tiles(_left(x, plan, plan.unit), plan.geometry.tile)).contiguous()
    round_by_worth_there(there, c, [tuple(range(2, c.ndim))], pyramid=False)
    # What is no number, or too large, must not reach the cast: there devices differ.
    return there.fetch(c.nan_to_num_(0.0).clamp_(-_MOST, _MOST).long())


def _left(x: Any, plan: GroupPlan, unit: Array) -> Any:
    return over(x - column(plan.offset, x), column(unit, x))


class Sum:
    """Values in float64 as :func:`hbae.pipeline.parts.linear_values` makes them, stage by stage."""

    def __init__(self, there: TorchBackend, plan: GroupPlan, shape: tuple[int, ...]) -> None:
        self._there, self._plan, self._shape = there, plan, shape
        self._x: Any = None

    def add_tiles(self, q: Array, basis: Transform, unit: Array, largest: float) -> None:
        """Add a stage by tiles: integers (V', B, *kept)."""
        fraction = basis.fraction_for(largest)
        t = transform_inverse(basis, self._there.load(q).double(), fraction, largest)
        self._add(_join_tiles(t, self._shape[1:]), unit * 2.0**-fraction)

    def waves(self, q: Array, rows: Array, wavelet: Wavelet, factor: float) -> tuple[Any, float]:
        """Undo the wavelet of those variables, times a factor, to integers on the device; the largest magnitude.

        It is infinite where one is no number. q came from the backend, and is of no other use.
        """
        y = self._there.load(q, own=True)
        if not rows.size:
            return y, 0.0
        live = y[: int(rows[-1]) + 1]
        wavelet_inverse(wavelet, live)
        live.mul_(factor).round_()
        largest = float(live.abs().max())
        return y, np.inf if np.isnan(largest) else largest

    def add_points(self, y: Any, largest: float, unit: Array, fraction: int) -> None:
        """Add the point stage: integers (V', *grid), of the host or the device, in units of 2**-fraction."""
        if isinstance(y, np.ndarray):
            y = self._there.load(y)
        y, mix = y.double(), self._plan.mix
        if mix is not None:
            more = mix.fraction_for(largest)
            y, fraction = transform_inverse(mix, y.reshape(len(y), -1), more, largest), fraction + more
        self._add(y.reshape(self._shape), unit * 2.0**-fraction)

    def _add(self, t: Any, scale: Array) -> None:
        t = t.mul_(column(scale, t))
        self._x = t.add_(column(self._plan.offset, t)) if self._x is None else self._x.add_(t)

    def stored(self) -> Array:
        """Give the clipped values in the stored type, on the host."""
        plan, dtype = self._plan, self._plan.dtype.newbyteorder("=")
        if self._x is None:
            self._x = self._there.load(
                np.broadcast_to(plan.offset.reshape(-1, *(1,) * len(self._shape[1:])), self._shape)
            )
        x = self._x
        x.clamp_(column(plan.low, x), column(plan.high, x)).add_(0.0)
        for v, p in enumerate(plan.packing):
            if p is not None:
                info = np.iinfo(dtype)
                over(x[v].sub_(p[1]), float(p[0])).round_().clamp_(float(info.min), float(info.max))
        if dtype in _WRITES:
            x = x.to(_type(dtype))
        return self._there.fetch(x).astype(plan.dtype, copy=False)


def errors_there(
    there: TorchBackend,
    x: Any,
    decoded: Array,
    valid: Array | None,
    packing: tuple[tuple[float, float] | None, ...],
) -> ChunkErrors:
    """Measure what the host holds after decoding, of the stored type, for targets of whole variables alone.

    ``x``: true values on the device. ``valid``: the points that count, or None for all.
    """
    # Sums of torch are made in one order on one device; integers of the host say how many there are.
    e = load(there, decoded, packing).sub_(x)
    counts = [x[0].numel()] * len(x)
    if valid is not None:
        e.masked_fill_(there.load(~valid), 0.0)
        counts = [int(np.count_nonzero(v)) for v in valid]
    e = e.reshape(len(e), -1)
    largest = e.abs().amax(1)
    found = there.fetch(_stack([e.mul_(e).sum(1), largest]))
    variables = [VariableErrors(float(s), n, float(m)) for s, m, n in zip(*found, counts, strict=True)]
    return ChunkErrors(variables, [True] * len(x), [True] * len(x))


def judges(targets: list[Target]) -> bool:
    """Tell whether all limits are of whole variables."""
    return not any(t.by_point or t.by_block or t.regions for t in targets)


def _stack(rows: list[Any]) -> Any:
    import torch

    return torch.stack(rows)


def _type(dtype: np.dtype[Any]) -> Any:
    import torch

    return torch.from_numpy(np.empty(0, dtype)).dtype


def _split_tiles(x: Any, tile: tuple[int, ...]) -> Any:
    """Cut (V, *grid) into tiles (V, B, *tile); edges are padded by their last value."""
    import torch

    for axis, t in enumerate(tile, 1):
        n = x.shape[axis]
        if n % t:
            width = [-n % t if a == axis else -1 for a in range(x.ndim)]
            x = torch.cat([x, x.narrow(axis, n - 1, 1).expand(width)], axis)
    shape = [len(x)]
    for n, t in zip(x.shape[1:], tile, strict=True):
        shape += [n // t, t]
    r = len(tile)
    order = [0, *(1 + 2 * i for i in range(r)), *(2 + 2 * i for i in range(r))]
    return x.reshape(shape).permute(order).reshape(len(x), -1, *tile)


def _join_tiles(y: Any, grid: tuple[int, ...]) -> Any:
    """Undo :func:`_split_tiles` for a box of shape ``grid``."""
    tile, r = y.shape[2:], len(grid)
    counts = [-(-n // t) for n, t in zip(grid, tile, strict=True)]
    order = [0, *(k for i in range(r) for k in (1 + i, r + 1 + i))]
    z = y.reshape(len(y), *counts, *tile).permute(order)
    z = z.reshape(len(y), *(c * t for c, t in zip(counts, tile, strict=True)))
    return z[(slice(None), *(slice(0, n) for n in grid))].contiguous()
