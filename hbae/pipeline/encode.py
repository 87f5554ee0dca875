# SPDX-License-Identifier: MIT
"""One chunk: values to bytes that have been decoded again and judged. Pure: same input, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hbae.arrays import Array
from hbae.blocks import block_sums, fill_invalid, split_blocks, split_tiles
from hbae.bound import (
    ROUNDING,
    ChunkErrors,
    Target,
    block_limits,
    check_chunk,
    failing_points,
    select_coefficients,
)
from hbae.codecs import estimate_lossless
from hbae.errors import BoundViolationError, FormatError
from hbae.exact import Backend, BlockDecoder, ExactNet, Transform
from hbae.exact.backend import NumpyBackend
from hbae.pipeline.chunk import decode_chunk, digest, encode_parts, encode_raw
from hbae.pipeline.levels import encode_levels, quantise_levels
from hbae.pipeline.logdomain import split_bits
from hbae.pipeline.original import OriginalThere, device_for, original_of, physical, rounding_of
from hbae.pipeline.parts import Parts, linear_values, values_of
from hbae.pipeline.plan import GroupPlan, finer_steps
from hbae.pipeline.rounding import round_by_worth, worth_of
from hbae.pipeline.waves import encode_waves, quantise_waves

_REPAIRS = 3
# Chunks whose estimated bytes without loss are below so many times what they take are weighed without loss too.
NEAR_LOSSLESS = 1.25


@contextmanager
def quiet() -> Iterator[None]:
    """Silence NumPy's floating-point warnings: odd values are expected, and every result is judged."""
    with np.errstate(all="ignore"):
        yield


class BlockEncoder(Protocol):
    """The encoder side of a model: any float arithmetic, any answer."""

    def encode(self, x: Array) -> tuple[Array, Array | None]:
        """Give latents (N, L) and (N, K, L_b) for blocks (N, K, P, V) in physical units."""


@dataclass(frozen=True)
class CoarseLatents:
    """A model whose latents are multiples of a step: they take fewer bytes, and what they leave takes more."""

    model: BlockEncoder
    step: int

    def encode(self, x: Array) -> tuple[Array, Array | None]:
        """Give the model's latents, rounded."""
        z, zb = self.model.encode(x)
        return self._rounded(z), None if zb is None else self._rounded(zb)

    def _rounded(self, z: Array) -> Array:
        return np.rint(np.asarray(z, np.float64) / self.step) * self.step


def with_latent_step(model: BlockEncoder, step: int) -> BlockEncoder:
    """Give the model with latents that are multiples of a step."""
    return model if step == 1 else CoarseLatents(model, step)


@dataclass(frozen=True)
class Coded:
    """A chunk's bytes and its measured errors; ``lossless`` when it is kept without loss."""

    payload: bytes
    errors: ChunkErrors
    lossless: bool


def encode_chunk(
    raw: Array,
    invalid: Array,
    plan: GroupPlan,
    targets: list[Target],
    *,
    model: BlockEncoder | None,
    backend: Backend,
    lossless: bool = False,
    fine: int = 0,
) -> Coded:
    """Encode (V, *grid) values of the stored type so that every block and point limit holds on what is decoded.

    ``fine``: how much finer than the plan's the steps are, in 256ths.

    Raises
    ------
    BoundViolationError
        When the bytes decode to something else than was judged: a bug in hbae.
    """
    if lossless or invalid.all():
        return _as_lossless(raw, invalid, plan, targets)
    grid = raw.shape[1:]
    valid = ~invalid
    parts = Parts(fine=fine)
    if invalid.any():
        parts = replace(parts, mask=invalid, filler=raw[invalid])
    original = original_of(raw, valid, plan, backend)
    try:
        if plan.domain == "log":
            parts = _quantise_log(raw, valid, plan, parts)
        elif isinstance(original, OriginalThere):
            parts = original.quantised(targets, parts)
        else:
            parts = _quantise(original.x, valid, plan, targets, parts, model, backend)
        payload, decoded = seal(encode_parts(parts, plan, grid), plan, grid, backend)
    except FormatError:
        # Integers too large for exact arithmetic or for the coder: the plan does not suit this chunk.
        return _as_lossless(raw, invalid, plan, targets)
    for _ in range(_REPAIRS + 1):
        errors, taken = original.judge(decoded, targets), _taken(decoded, valid, targets)
        if errors.hold and not taken.any():
            break
        parts = _repair(raw, decoded, valid, plan, targets, parts, taken)
        payload, decoded = seal(encode_parts(parts, plan, grid), plan, grid, backend)
    else:
        return _as_lossless(raw, invalid, plan, targets)
    if estimate_lossless(raw) < NEAR_LOSSLESS * len(payload):
        plain = _as_lossless(raw, invalid, plan, targets)
        if len(plain.payload) <= len(payload):
            return plain
    if parts.mask is not None and decoded[invalid].tobytes() != raw[invalid].tobytes():
        raise BoundViolationError("masked points did not come back bit for bit")
    return Coded(payload, errors, False)


def trial_chunk(
    raw: Array,
    invalid: Array,
    plan: GroupPlan,
    targets: list[Target],
    *,
    model: BlockEncoder | None,
    backend: Backend,
    code: bool = True,
) -> tuple[int, ChunkErrors]:
    """Measure bytes and errors of a box whose targets are global and in the linear domain, without reading it back.

    No bytes are made (0) without ``code``.

    Raises
    ------
    FormatError
        When integers are too large for exact arithmetic or for the coder.
    """
    x, valid, grid = physical(raw, plan), ~invalid, raw.shape[1:]
    parts = Parts()
    if invalid.any():
        parts = Parts(mask=invalid, filler=raw[invalid])
        x = fill_invalid(x, valid)
    parts = _quantise(x, valid, plan, targets, parts, model, backend, code=code, known=True)
    size = len(encode_parts(parts, plan, grid)) if code else 0
    y = physical(values_of(parts, plan, grid, backend), plan)
    return size, check_chunk(x, y, valid, targets, plan.geometry.block, margin=True)


def look_at_chunk(
    raw: Array, invalid: Array, plan: GroupPlan, targets: list[Target], *, model: BlockEncoder | None, backend: Backend
) -> ChunkErrors:
    """Measure the errors that a chunk will have, as :func:`trial_chunk` does, where its plan is worked on.

    Raises
    ------
    FormatError
        When integers are too large for exact arithmetic.
    """
    if device_for(plan, backend) is not None:
        original = original_of(raw, ~invalid, plan, backend)
        if isinstance(original, OriginalThere):
            return original.errors(targets)
    return trial_chunk(raw, invalid, plan, targets, model=model, backend=backend, code=False)[1]


def seal(body: bytes, plan: GroupPlan, grid: tuple[int, ...], backend: Backend) -> tuple[bytes, Array]:
    """Decode a coded chunk's bytes as a reader would and put the SHA-256 of that into it."""
    decoded = decode_chunk(body, plan, grid, backend, check=False)
    return body[:1] + digest(decoded) + body[33:], decoded


def _as_lossless(raw: Array, invalid: Array, plan: GroupPlan, targets: list[Target]) -> Coded:
    payload = encode_raw(raw, plan)
    decoded = decode_chunk(payload, plan, raw.shape[1:], NumpyBackend(), check=False)
    if decoded.dtype != raw.dtype or decoded.tobytes() != raw.tobytes():
        raise BoundViolationError("a chunk that is kept without loss did not come back bit for bit")
    x = np.where(invalid, 0.0, physical(raw, plan)) if invalid.any() else physical(raw, plan)
    errors = check_chunk(x, x, ~invalid, targets, plan.geometry.block, margin=True)
    return Coded(payload, errors, True)


def _quantise(
    x: Array,
    valid: Array,
    plan: GroupPlan,
    targets: list[Target],
    parts: Parts,
    model: BlockEncoder | None,
    backend: Backend,
    *,
    code: bool = True,
    known: bool = False,
) -> Parts:
    """Run the stages of a linear-domain plan one after the other, each on what the ones before leave.

    GAE comes last. With ``code``, predicted points come as bytes, and as integers only if they are to be ``known`` or
    GAE builds on them.
    """
    grid, geometry = x.shape[1:], plan.geometry
    steps = finer_steps(plan, parts.fine)
    if plan.decoder is not None and model is not None:
        parts = latents_of(model, plan.decoder, split_blocks(x, geometry), parts)
    if plan.transform is not None:
        left = _left_of(x, parts, plan, steps.unit, backend)
        parts = replace(parts, coefs=_coefficients(split_tiles(left, geometry.tile), plan.transform))
    if plan.point_unit.any():
        left = _left_of(x, parts, plan, steps.point_unit, backend)
        if plan.mix is not None:
            left = plan.mix.forward(left.reshape(len(left), -1)).reshape(-1, *grid)
        # Where single points are corrected later, waves may lose what is worth less than its bits.
        rounding = ROUNDING if plan.corrects_points else rounding_of(targets)
        known = known or plan.gae is not None
        coded, point = _encode_points(left, plan, rounding, known) if code else (b"", None)
        if coded and not known:
            point = None
        elif point is None:
            point = _quantise_points(left, plan, rounding)
        parts = replace(parts, coded_point=coded, point=point)
    if plan.gae is not None:
        parts = _quantise_gae(x, valid, plan, targets, parts, backend)
    return parts


def _left_of(x: Array, parts: Parts, plan: GroupPlan, unit: Array, backend: Backend) -> Array:
    """What the stages so far leave of x (V, *grid), in units by variable; one variable at a time fits the cache."""
    nothing = parts.z is None and parts.coefs is None and parts.gae is None and parts.point is None
    known = plan.offset if nothing else linear_values(parts, plan, x.shape, backend)
    left = np.empty_like(x)
    for mine, values, before, u in zip(left, x, known, unit, strict=True):
        np.subtract(values, before, out=mine)
        mine /= u
    return left


def _coefficients(tiles: Array, transform: Transform) -> Array:
    """Quantise the coefficients of tiles (V, B, *tile)."""
    c = transform.forward(tiles)
    return round_by_worth(c, [(slice(None),)], range(1, c.ndim - 1)).astype(np.int64)


def _encode_points(left: Array, plan: GroupPlan, rounding: float, known: bool) -> tuple[bytes, Array | None]:
    """Bytes of the point stage by interpolation or wavelets (none for other plans), and maybe a reader's integers."""
    if plan.wavelet is not None:
        worth = worth_of(plan.related, nearest=rounding == 0.5)
        return encode_waves(left, plan.wavelet, worth=worth, related=plan.related, known=known)
    if plan.levels is not None:
        return encode_levels(left, plan.levels, rounding)
    return b"", None


def _quantise_points(left: Array, plan: GroupPlan, rounding: float) -> Array:
    """What a reader gets of the point stage: integers, in 2**-6 units for interpolation and wavelets."""
    if plan.wavelet is not None:
        return quantise_waves(left, plan.wavelet, worth=worth_of(plan.related, nearest=rounding == 0.5))
    if plan.levels is not None:
        return quantise_levels(left, plan.levels, rounding)
    return np.rint(left).astype(np.int64)


def latents_of(model: BlockEncoder, decoder: BlockDecoder, blocks: Array, parts: Parts) -> Parts:
    """Ask the model for latents of blocks (N, K, P, V); of any answer, integers in the decoder's range are kept."""
    z, zb = model.encode(blocks.astype(np.float32))
    z = _latents(z, decoder.hyper)
    return replace(parts, z=z, zb=None if zb is None or decoder.block is None else _latents(zb, decoder.block))


def _latents(z: Array, net: ExactNet) -> Array:
    known = np.nan_to_num(np.asarray(z, np.float64), nan=0.0)
    return np.rint(np.clip(known, net.in_lo, net.in_hi)).astype(np.int64)


def _quantise_gae(
    x: Array, valid: Array, plan: GroupPlan, targets: list[Target], parts: Parts, backend: Backend
) -> Parts:
    """Choose coefficients for the blocks that are still over their limit."""
    basis, block = plan.gae, plan.geometry.block
    if basis is None:
        return parts
    shape = x.shape
    left = np.where(valid, x - linear_values(parts, plan, shape, backend), 0.0)
    if plan.corrects_points and any(t.by_point for t in targets):
        q = _tiles_of(np.rint(left / plan.gae_unit.reshape(-1, *(1,) * (x.ndim - 1))), block)
        return replace(parts, gae=q.astype(np.int64)) if q.any() else parts
    counts = block_sums(valid.astype(np.float64), block)
    limits = np.stack([block_limits(counts[v], t, margin=True) for v, t in enumerate(targets)])
    # 0.97: room for the rounding of the integer basis and of the output type.
    limits = limits.reshape(len(targets), -1) * 0.97
    bins = left / plan.gae_unit.reshape(-1, *(1,) * (x.ndim - 1))
    tiles = split_tiles(bins, block)
    c = basis.forward(tiles)
    flat = c.reshape(-1, int(np.prod(c.shape[2:], dtype=np.int64)))
    per_block = (limits / (plan.gae_unit * plan.gae_unit)[:, None]).reshape(-1)
    q = select_coefficients(flat, per_block).reshape(c.shape)
    return replace(parts, gae=q.astype(np.int64)) if q.any() else parts


def _quantise_log(raw: Array, valid: Array, plan: GroupPlan, parts: Parts) -> Parts:
    m, signs = split_bits(raw.astype(raw.dtype.newbyteorder("=")))
    step = plan.point_unit.astype(np.int64).reshape(-1, *(1,) * (raw.ndim - 1))
    q = (m + step // 2) // step
    if not valid.all():
        q = np.rint(fill_invalid(q.astype(np.float64), valid)).astype(np.int64) * ~valid + q * valid
    return replace(parts, point=q, signs=signs & valid)


def _taken(decoded: Array, valid: Array, targets: list[Target]) -> Array:
    """Tell which points that count came back as a value that means that one is missing."""
    out = np.zeros(decoded.shape, bool)
    for mine, values, ok, t in zip(out, decoded, valid, targets, strict=True):
        for r in t.reserved:
            mine |= (values == r) & ok
    return out


def _repair(
    raw: Array, decoded: Array, valid: Array, plan: GroupPlan, targets: list[Target], parts: Parts, taken: Array
) -> Parts:
    """Keep exactly what still fails: points over their limit or taken for missing, the largest errors of blocks."""
    x, y = physical(raw, plan), physical(decoded, plan)
    bad = taken.copy()
    for v, t in enumerate(targets):
        bad[v] |= failing_points(y[v] - x[v], x[v], valid[v], t, margin=True)
        if t.by_block:
            error = np.where(valid[v], y[v] - x[v], 0.0)
            bad[v] |= _worst_of_blocks(error, valid[v], t, plan.geometry.block)
    if parts.exact is not None:
        bad.reshape(-1)[parts.exact[0]] = True
    index = np.flatnonzero(bad)
    return replace(parts, exact=(index, raw.reshape(-1)[index]))


def _worst_of_blocks(error: Array, valid: Array, target: Target, block: tuple[int, ...]) -> Array:
    """Tell which points to keep exactly so that every block's sum of squares meets its limit."""
    sq = (error * error)[None]
    tiles = _tiles_of(sq, block).reshape(-1, int(np.prod(block, dtype=np.int64)))
    limits = block_limits(block_sums(valid.astype(np.float64)[None], block)[0], target, margin=True).reshape(-1)
    order = np.argsort(-tiles, axis=1, kind="stable")
    ranked = np.take_along_axis(tiles, order, axis=1)
    rest = np.cumsum(ranked[:, ::-1], axis=1)[:, ::-1]
    keep = rest > limits[:, None] * (1 - 1e-9)
    mark = np.zeros_like(keep)
    np.put_along_axis(mark, order, keep, axis=1)
    counts = [-(-n // b) for n, b in zip(error.shape, block, strict=True)]
    r = len(block)
    cells = mark.reshape(*counts, *block).transpose([i for k in range(r) for i in (k, r + k)])
    full = cells.reshape([c * b for c, b in zip(counts, block, strict=True)])
    return full[tuple(slice(0, n) for n in error.shape)] & valid


def _tiles_of(x: Array, block: tuple[int, ...]) -> Array:
    """Cut (V, *grid) into blocks (V, B, *block), with zeros beyond the edges."""
    pad = [(0, 0), *((0, -n % b) for n, b in zip(x.shape[1:], block, strict=True))]
    return split_tiles(np.pad(x, pad), block)
