# SPDX-License-Identifier: MIT
"""Wavelet and transform on tensors of torch: the operations of wavelet.py and transform.py, each a kernel of its own.

What decides bits: no operation that fuses a product and a sum, and no division by a number of the host (:func:`over`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.exact.transform import BASIS_BITS, Transform
from hbae.exact.wavelet import ALPHA, BETA, DELTA, GAMMA, SCALE, Wavelet, num_levels


def over(x: Any, divisor: Any) -> Any:
    """Divide a tensor in place by a number, or by a tensor of its device: the IEEE quotient.

    By a number of the host, CUDA multiplies with its reciprocal, which rounds twice.
    """
    return x.div_(x.new_full((), divisor) if isinstance(divisor, float) else divisor)


def column(a: Array, x: Any) -> Any:
    """Give a number by variable (V,) beside a tensor (V, ...), on its device."""
    return tensor(a, x).reshape(-1, *(1,) * (x.ndim - 1))


def tensor(a: Array, x: Any) -> Any:
    """Give a small float64 array on the device of x, without waiting for what is under way there."""
    import torch

    place = torch.empty(a.shape, dtype=torch.float64, pin_memory=x.is_cuda)
    place.numpy()[...] = a
    return place.to(x.device, non_blocking=True)


def wavelet_forward(wavelet: Wavelet, x: Any) -> None:
    """Transform contiguous grids (V, *grid) in place, float64."""
    for group in wavelet.groups:
        _down(x, {a + 1: num_levels(x.shape[a + 1]) for a in group})


def wavelet_inverse(wavelet: Wavelet, x: Any) -> None:
    """Undo :func:`wavelet_forward` in place, the same bits as NumPy's."""
    for group in reversed(wavelet.groups):
        _up(x, {a + 1: num_levels(x.shape[a + 1]) for a in group})


def transform_forward(transform: Transform, x: Any) -> Any:
    """Give the coefficients of tiles (V, B, *tile); for the encoder only."""
    for axis, m in zip((0, *range(2, x.ndim)), transform.duals(), strict=True):
        if m is not None:
            x = _along(x, tensor(m, x), axis)
    return x


def transform_inverse(transform: Transform, q: Any, fraction: int, largest: float) -> Any:
    """Give integers in units of 2**-fraction steps, (V, B, *tile), from those of float64 (V', B, *kept), written over.

    ``largest``: no magnitude in q is larger.

    Raises
    ------
    FormatError
        When the overflow proof fails for these coefficients.
    """
    transform.prove(fraction, largest)
    y = q.mul_(2.0**fraction)
    for axis, basis in reversed(list(zip((0, *range(2, q.ndim)), transform.axes, strict=True))):
        if basis.matrix is not None:
            m = np.ldexp(basis.matrix.T.astype(np.float64), -BASIS_BITS)
            y = _along(y, tensor(m, y), axis).round_()
    return y


def lattice(x: Any, axes: Any) -> Any:
    """Give every second point along those axes."""
    return x[tuple(slice(None, None, 2 if a in axes else 1) for a in range(x.ndim))]


def active(levels: dict[int, int]) -> tuple[list[int], dict[int, int]]:
    """Give the axes that have levels left, and how many all have after this one."""
    return [a for a, n in levels.items() if n > 0], {a: n - 1 for a, n in levels.items()}


def _down(x: Any, levels: dict[int, int]) -> None:
    """Lift along axes that have levels left, then go on with the low band, which is put apart to lie without gaps."""
    now, then = active(levels)
    for axis in now:
        _lift_there(x, axis)
    if active(then)[0]:
        low = lattice(x, now)
        part = low.contiguous()
        _down(part, then)
        low.copy_(part)


def _up(x: Any, levels: dict[int, int]) -> None:
    now, then = active(levels)
    if active(then)[0]:
        low = lattice(x, now)
        part = low.contiguous()
        _up(part, then)
        low.copy_(part)
    for axis in reversed(now):
        _lift_back(x, axis)


def _halves(x: Any, axis: int) -> tuple[Any, Any]:
    before = (slice(None),) * axis
    return x[(*before, slice(0, None, 2))], x[(*before, slice(1, None, 2))]


def _lift_there(x: Any, axis: int) -> None:
    places = _halves(x, axis)
    even, odd = (p.contiguous() for p in places)
    odd.add_(_around_odd(even, odd, axis).mul_(ALPHA))
    even.add_(_around_even(even, odd, axis).mul_(BETA))
    odd.add_(_around_odd(even, odd, axis).mul_(GAMMA))
    even.add_(_around_even(even, odd, axis).mul_(DELTA))
    places[0].copy_(even.mul_(SCALE))
    places[1].copy_(over(odd, SCALE))


def _lift_back(x: Any, axis: int) -> None:
    places = _halves(x, axis)
    even, odd = (p.contiguous() for p in places)
    over(even, SCALE)
    odd.mul_(SCALE)
    even.sub_(_around_even(even, odd, axis).mul_(DELTA))
    odd.sub_(_around_odd(even, odd, axis).mul_(GAMMA))
    even.sub_(_around_even(even, odd, axis).mul_(BETA))
    odd.sub_(_around_odd(even, odd, axis).mul_(ALPHA))
    places[0].copy_(even)
    places[1].copy_(odd)


def _around_odd(even: Any, odd: Any, axis: int) -> Any:
    """Sum of the even neighbours before and after each odd point; mirrored at the end."""
    total = odd.new_empty(odd.shape)
    both = min(odd.shape[axis], even.shape[axis] - 1)
    _sum(total, axis, 0, even.narrow(axis, 0, both), even.narrow(axis, 1, both))
    if both < odd.shape[axis]:
        last = even.narrow(axis, both, 1)
        _sum(total, axis, both, last, last)
    return total


def _around_even(even: Any, odd: Any, axis: int) -> Any:
    """Sum of the odd neighbours before and after each even point; mirrored at both ends."""
    total = even.new_empty(even.shape)
    count = odd.shape[axis]
    first, last = odd.narrow(axis, 0, 1), odd.narrow(axis, count - 1, 1)
    _sum(total, axis, 0, first, first)
    _sum(total, axis, 1, odd.narrow(axis, 0, count - 1), odd.narrow(axis, 1, count - 1))
    if even.shape[axis] > count:
        _sum(total, axis, count, last, last)
    return total


def _sum(total: Any, axis: int, at: int, a: Any, b: Any) -> None:
    import torch

    torch.add(a, b, out=total.narrow(axis, at, a.shape[axis]))


def _along(x: Any, m: Any, axis: int) -> Any:
    """Multiply along one axis with (n, m): out[..., j, ...] = sum_i x[..., i, ...] m[i, j]."""
    import torch

    if axis == 0:
        return torch.matmul(m.T, x.reshape(len(x), -1)).reshape(m.shape[1], *x.shape[1:])
    return torch.matmul(x.movedim(axis, -1), m).movedim(-1, axis).contiguous()
