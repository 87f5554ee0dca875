# SPDX-License-Identifier: MIT
"""The integers of a chunk, and the one formula that turns them into values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hbae.arrays import Array
from hbae.blocks import join_blocks, join_tiles
from hbae.exact import Backend, Transform
from hbae.exact.backend import TorchBackend
from hbae.exact.interpolate import FRACTION
from hbae.exact.transform import largest_of
from hbae.pipeline.casting import Finish, cast_into, column
from hbae.pipeline.device import Sum, device_of
from hbae.pipeline.logdomain import join_bits
from hbae.pipeline.plan import GroupPlan, finer_steps
from hbae.pipeline.waves import POINTS, Waves, check_largest, synthesised

# Values of one stage that are finished together, some columns at least.
_PIECE, _COLUMNS = 1 << 15, 1024


@dataclass(frozen=True)
class Parts:
    """The integers of one chunk, before entropy coding; None where a stage is not used.

    ``mask``: (V, *grid) invalid points. ``filler``: their stored values, in C order. ``z``, ``zb``: latents (N, L)
    and (N, K, L_b). ``coefs``, ``gae``: transform integers (V', B, ...). ``point``: (V, *grid) integers. ``signs``:
    (V, *grid), log domain only. ``coded_point``: the point stage's bytes where interpolation or wavelets made them
    (``point`` is then in units of 2**-6). ``exact``: flat indices and stored values of points kept as they are.
    ``fine``: how much finer than the plan's the steps are, in 256ths. ``largest``: magnitude in ``point``, where known.
    ``waves``: what a reader found in the place of ``point``, before the inverse wavelet.
    """

    mask: Array | None = None
    filler: Array | None = None
    z: Array | None = None
    zb: Array | None = None
    coefs: Array | None = None
    gae: Array | None = None
    point: Array | None = None
    coded_point: bytes = b""
    signs: Array | None = None
    exact: tuple[Array, Array] | None = None
    fine: int = 0
    largest: float | None = None
    waves: Waves | None = None


def values_of(parts: Parts, plan: GroupPlan, grid: tuple[int, ...], backend: Backend) -> Array:
    """Give the decoded values (V, *grid) in the stored type; the one formula of the last step.

    float64, one IEEE operation at a time: ``x = offset + scale * y`` (base) or ``offset``; ``x = x + (unit * 2**-F) *
    t`` for the transform and then the block basis; ``x = x + (point_unit * 2**-F) * q``, where F counts the fraction
    bits of mixing basis and of interpolation or wavelets; clip to [low, high]; ``x + 0.0``; packed variables
    ``rint((x - add_offset) / scale_factor)``; cast to the type. Masked and exact points are then put in bit for bit.
    """
    shape = (plan.num_variables, *grid)
    if plan.domain == "log":
        out = join_bits(parts.point, parts.signs, plan, shape)
    elif (there := device_of(backend)) is not None and parts.z is None:
        out = _values_there(parts, plan, shape, there)
    else:
        parts = _points_of(parts, plan)
        alone = _alone(parts, plan)
        if alone is None:
            out = _cast(linear_values(parts, plan, shape, backend), plan)
        else:
            out = _piecewise(alone, plan, shape)
    if parts.mask is not None:
        out[parts.mask] = parts.filler
    if parts.exact is not None:
        out.reshape(-1)[parts.exact[0]] = parts.exact[1]
    return out


def _points_of(parts: Parts, plan: GroupPlan) -> Parts:
    """Undo the wavelet of what a reader found."""
    if parts.waves is None or plan.wavelet is None:
        return parts
    point, largest = synthesised(parts.waves, plan.wavelet)
    return replace(parts, waves=None, point=point, largest=largest)


def _values_there(parts: Parts, plan: GroupPlan, shape: tuple[int, ...], there: TorchBackend) -> Array:
    """Clipped and cast values, made on a device."""
    plan = finer_steps(plan, parts.fine)
    with there.working():
        total = Sum(there, plan, shape)
        for q, basis, unit in ((parts.coefs, plan.transform, plan.unit), (parts.gae, plan.gae, plan.gae_unit)):
            if q is not None and basis is not None:
                total.add_tiles(q, basis, unit, largest_of(q))
        fraction = FRACTION if plan.predicts else 0
        if parts.waves is not None and plan.wavelet is not None:
            y, largest = total.waves(parts.waves.q, parts.waves.rows, plan.wavelet, POINTS)
            check_largest(largest)
            total.add_points(y, largest, plan.point_unit, fraction)
        elif parts.point is not None:
            largest = largest_of(parts.point) if plan.mix is not None else 0.0
            total.add_points(parts.point, largest, plan.point_unit, fraction)
        return total.stored()


def linear_values(parts: Parts, plan: GroupPlan, shape: tuple[int, ...], backend: Backend) -> Array:
    """Decoded values in float64 before clip and cast."""
    grid, plan = shape[1:], finer_steps(plan, parts.fine)
    if parts.z is not None and plan.decoder is not None:
        y = join_blocks(plan.decoder.decode(parts.z, parts.zb, backend), plan.geometry, grid)
        x = column(plan.decoder.offset, len(shape)) + column(plan.decoder.scale, len(shape)) * y.astype(np.float64)
    else:
        x = None
    for q, basis, unit in ((parts.coefs, plan.transform, plan.unit), (parts.gae, plan.gae, plan.gae_unit)):
        if q is not None and basis is not None:
            t, fraction = inverse_of(basis, q)
            x = _add_scaled(x, unit * 2.0**-fraction, join_tiles(t, grid), plan.offset)
    if parts.point is not None:
        if plan.mix is not None:
            t, fraction = inverse_of(plan.mix, parts.point.reshape(len(parts.point), -1))
        else:
            t, fraction = parts.point.astype(np.float64), 0
        fraction += FRACTION if plan.predicts else 0
        x = _add_scaled(x, plan.point_unit * 2.0**-fraction, t.reshape(shape), plan.offset)
    return np.broadcast_to(column(plan.offset, len(shape)), shape).copy() if x is None else x


@dataclass(frozen=True)
class _Alone:
    """The only stage of a chunk: integers (V', B, ...), basis, steps; tiles or the grid; the largest, where known."""

    q: Array
    basis: Transform | None
    unit: Array
    tiled: bool
    fraction: int = 0
    largest: float | None = None


def _alone(parts: Parts, plan: GroupPlan) -> _Alone | None:
    """Give the stage that makes a chunk's values by itself, where there is no other."""
    fine = finer_steps(plan, parts.fine)
    found = [
        _Alone(q, basis, unit, tiled=True)
        for q, basis, unit in ((parts.coefs, plan.transform, fine.unit), (parts.gae, plan.gae, fine.gae_unit))
        if q is not None and basis is not None
    ]
    if parts.point is not None:
        fraction = FRACTION if plan.predicts else 0
        found.append(_Alone(parts.point, plan.mix, fine.point_unit, False, fraction, parts.largest))
    return found[0] if len(found) == 1 and parts.z is None else None


def _piecewise(alone: _Alone, plan: GroupPlan, shape: tuple[int, ...]) -> Array:
    """Clipped and cast values of one stage, some columns at a time: the operations of :func:`linear_values`."""
    basis, q = alone.basis, alone.q if alone.tiled else alone.q.reshape(len(alone.q), -1)
    if basis is None:
        pieces, fraction, cell = _columns(q), 0, q.shape[1:]
    else:
        largest = largest_of(q) if alone.largest is None else alone.largest
        fraction, cell = basis.fraction_for(largest), (q.shape[1], *basis.tile[1:])
        pieces = basis.inverse_by_columns(q, fraction, largest)
    out = np.empty((shape[0], math.prod(cell)), plan.dtype)
    finish = Finish(plan, alone.unit * 2.0 ** -(fraction + alone.fraction))
    for here, t in pieces:
        finish(t, out, here)
    return np.ascontiguousarray(join_tiles(out.reshape(-1, *cell), shape[1:])) if alone.tiled else out.reshape(shape)


def _columns(q: Array) -> Iterator[tuple[slice, Array]]:
    """Give integers (V, N) as float64, some columns at a time."""
    width = max(_PIECE // max(len(q), 1), _COLUMNS)
    for k in range(0, q.shape[1], width):
        here = slice(k, k + width)
        yield here, q[:, here].astype(np.float64)


def _add_scaled(x: Array | None, scale: Array, t: Array, offset: Array) -> Array:
    """``x + scale * t`` with the offset for no x, one variable at a time (it fits the cache); may write over x or t."""
    if x is None:
        for steps, s, o in zip(t, scale, offset, strict=True):
            steps *= s
            steps += o
        return t
    for values, s, steps in zip(x, scale, t, strict=True):
        values += s * steps
    return x


def inverse_of(basis: Transform, q: Array) -> tuple[Array, int]:
    """Give a transform's exact inverse and the fraction bits F, which follow from max|q| alone."""
    fraction = basis.fraction_for(largest_of(q))
    return basis.inverse(q, fraction), fraction


def _cast(x: Array, plan: GroupPlan) -> Array:
    out = np.empty(x.shape, plan.dtype)
    cast_into(out, x, plan)
    return out
