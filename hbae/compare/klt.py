# SPDX-License-Identifier: MIT
"""PCA (Karhunen-Loeve) over the variables of one grid in front of another rival: its components are coded as fields.

Each variable is divided by the error that it may have, so that one setting serves all; the weights are then moved until
every variable comes near its own target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hbae.arrays import Array
from hbae.compare.interface import Encoded, Rival
from hbae.compare.metrics import Errors, measure
from hbae.compare.search import NEAR, Run, following, scout, search, slope_at
from hbae.compare.tune import SMALL, Tuned, typical_eighth
from hbae.errors import FieldError

MOST_BYTES = 1 << 30  # of one group; about five times as much memory is needed
ROUNDS, WHOLE_ROUNDS = 4, 2  # of moving the weights: on a typical eighth, then on the whole
STEP = 1 << 18  # points a time in covariances


@dataclass(frozen=True)
class Klt:
    """PCA over the variables of one grid, then ``inner`` on each component that is worth any bytes.

    The means, weights and the used part of the basis count, in float64 and float32. ``by_rmse``: the inner rival's
    setting is the RMSE that it comes to (else the largest error).
    """

    inner: Rival
    by_rmse: bool = False

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"PCA+{self.inner.name}"

    def require(self) -> None:
        """Raise ``MissingExtraError`` where the inner rival's package is not installed."""
        self.inner.require()

    def tune(self, arrays: Sequence[Array], masks: Sequence[Array], targets: Sequence[float], metric: str) -> Tuned:
        """Give the smallest result in which every variable is within its target, and near it if possible.

        ``arrays`` and ``masks`` are those of :func:`hbae.compare.tune.prepare`; targets are errors over the ranges.

        Raises
        ------
        FieldError
            For groups of more than 1 GiB, arrays of different shapes or types, or such that the inner rival refuses.
        """
        raw = sum(a.nbytes for a in arrays)
        if len({(a.shape, a.dtype.newbyteorder("=")) for a in arrays}) != 1:
            raise FieldError(f"{self.name} does not apply: the variables are not on one grid, of one type")
        if raw > MOST_BYTES:
            raise FieldError(f"{self.name} is not run on more than {MOST_BYTES >> 20} MiB at a time")
        t0 = time.perf_counter()
        x = np.stack([a.reshape(-1) for a in arrays], dtype=arrays[0].dtype.newbyteorder("="))
        mean, covariance = _moments(x)
        spent = time.perf_counter() - t0
        whole = _Group(
            inner=self.inner.variants(arrays[0].shape, metric)[0],
            x=x,
            shape=arrays[0].shape,
            masks=[m.reshape(-1) for m in masks],
            spans=_spans(x, masks),
            targets=tuple(targets),
            metric=metric,
            share=1.0 if self.by_rmse else 1 / math.sqrt(3),
            mean=mean,
        ).weighted(covariance, np.ones(len(x)))
        best = _tune(whole, covariance)
        return Tuned(
            setting=best.setting,
            variant=f"{len(arrays)} variables",
            nbytes=best.nbytes,
            raw_bytes=raw,
            errors=best.errors,
            encode_seconds=best.encode_seconds + spent,
            decode_seconds=best.decode_seconds,
            reached=best.reached,
            runs=best.runs,
            decoded=best.decoded,
        )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A :class:`~hbae.compare.search.Trial` of all variables (V, N) of a grid; settings are in units of the targets.

    ``share``: RMSE of a component over the setting that it is coded with.
    """

    inner: Rival
    x: Array
    shape: tuple[int, ...]
    masks: list[Array]
    spans: tuple[float, ...]
    targets: tuple[float, ...]
    metric: str
    share: float
    mean: Array
    scale: Array = field(default_factory=lambda: np.zeros(0))
    basis: Array = field(default_factory=lambda: np.zeros((0, 0)))
    size: Array = field(default_factory=lambda: np.zeros(0))
    ways: tuple[Rival, ...] = ()

    steps = False

    @property
    def top(self) -> float:
        """The largest range over its weight."""
        return float((np.array(self.spans) / self.scale).max())

    def weighted(self, covariance: Array, gains: Array) -> _Group:
        """Give the same with another weight for each variable, and the basis (V, V) that follows."""
        scale = (gains * np.array(self.targets) * np.array(self.spans)).astype(np.float32).astype(np.float64)
        values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        # What counts four bytes per entry must also be what is decoded with.
        basis = vectors[:, ::-1].astype(np.float32).astype(np.float64)
        return replace(self, scale=scale, basis=basis, size=np.sqrt(np.maximum(values[::-1], 0)))

    def cut(self, box: tuple[slice, ...]) -> _Group:
        """Give the same on a box of the grid."""
        x = np.stack([v.reshape(self.shape)[box].ravel() for v in self.x])
        masks = [m.reshape(self.shape)[box].ravel() for m in self.masks]
        shape = tuple(len(range(*s.indices(n))) for s, n in zip(box, self.shape, strict=True))
        return replace(self, x=x, masks=masks, shape=shape)

    def components(self) -> Array:
        """Give the components (V, N), largest first, in the type of the data."""
        forward = (self.basis / self.scale[:, None]).T
        out = (forward @ self.mean).astype(self.x.dtype)[:, None]
        return np.asarray(forward.astype(self.x.dtype) @ self.x - out)

    def kept(self, c: Array, setting: float) -> list[int]:
        """Number the components that are larger than the error that they may have."""
        if self.metric == "max":
            return [i for i, v in enumerate(c) if float(np.abs(v).max()) > setting]
        return [i for i in range(len(c)) if self.size[i] > self.share * setting]

    def run(self, setting: float) -> Run:
        """Encode every component that counts, decode, turn back and measure every variable."""
        t0 = time.perf_counter()
        c = self.components()
        kept = self.kept(c, setting)
        coded: list[tuple[int, Rival, Encoded]] = []
        for i in kept:
            way = self.ways[i] if self.ways else self.inner
            coded.append((i, way, way.encode(c[i].reshape(self.shape), setting)))
        t1 = time.perf_counter()
        decoded = self._decode(coded)
        t2 = time.perf_counter()
        errors = self.measure(decoded)
        v = len(self.x)
        side = v * len(kept) * 4 + v * (8 + 4) + -(-v // 8)
        return Run(
            setting=setting,
            nbytes=sum(e.nbytes for _, _, e in coded) + side,
            loss=max(e.by(self.metric) / t for e, t in zip(errors, self.targets, strict=True)),
            errors=errors,
            encode_seconds=t1 - t0,
            decode_seconds=t2 - t1,
            decoded=tuple(d.reshape(self.shape) for d in decoded),
        )

    def _decode(self, coded: list[tuple[int, Rival, Encoded]]) -> Array:
        back = (self.basis * self.scale[:, None]).astype(self.x.dtype)
        y = np.zeros((len(coded), self.x.shape[1]), self.x.dtype)
        for row, (_, way, e) in enumerate(coded):
            y[row] = way.decode(e, self.shape, self.x.dtype).reshape(-1)
        return np.asarray(back[:, [i for i, _, _ in coded]] @ y + self.mean.astype(self.x.dtype)[:, None])

    def measure(self, decoded: Array) -> tuple[Errors, ...]:
        """Give the errors of every variable over the whole variables' ranges."""
        rows = zip(self.x, decoded, self.masks, self.spans, strict=True)
        return tuple(replace(measure(a, b, m), span=s) for a, b, m, s in rows)


def _tune(whole: _Group, covariance: Array) -> Run:
    """Find weights and ways on a typical eighth, then the setting on the whole."""
    small = whole.x[0].nbytes < SMALL
    lead = (whole.basis[:, 0] / whole.scale) @ whole.x
    everywhere = np.ones(whole.shape, bool)
    box = (slice(None),) * len(whole.shape) if small else typical_eighth(lead.reshape(whole.shape), everywhere)
    x, gains = 0.0 if whole.metric == "max" else -math.log(whole.share), np.ones(len(whole.x))
    for _ in range(ROUNDS):
        part = whole.cut(box)
        points = scout(part, x, 0.0, 3)
        x = following(points, 0.0, slope_at(points, 0.0, 1.0))
        gains = _balanced(gains, part, x)
        whole = whole.weighted(covariance, gains)
    whole = replace(whole, ways=_ways(whole.cut(box), math.exp(x)))
    if not small:
        for _ in range(WHOLE_ROUNDS):
            gains = _balanced(gains, whole, x)
            whole = whole.weighted(covariance, gains)
    return search(whole, x, 1.0, NEAR, 4, 4)


def _balanced(gains: Array, group: _Group, x: float) -> Array:
    """Give every variable the weight that brings it nearer to its target, from a run at log setting ``x``."""
    errors = group.run(math.exp(x)).errors
    ratio = np.array([e.by(group.metric) / t for e, t in zip(errors, group.targets, strict=True)])
    return np.asarray(gains * np.clip(np.maximum(ratio, 1e-3) ** -0.7, 0.4, 2.5))


def _ways(part: _Group, setting: float) -> tuple[Rival, ...]:
    """Choose for every component the way that is smallest on the part."""
    ways = part.inner.variants(part.shape, part.metric)
    c = part.components()
    kept = set(part.kept(c, setting))
    return tuple(
        min(ways, key=lambda w: w.encode(v.reshape(part.shape), setting).nbytes) if i in kept else ways[0]
        for i, v in enumerate(c)
    )


def _moments(x: Array) -> tuple[Array, Array]:
    """Give mean (V) and covariance (V, V) of rows (V, N) in float64, a piece at a time."""
    n = x.shape[1]
    mean = np.array([math.fsum(float(v[i : i + STEP].sum(dtype=np.float64)) for i in range(0, n, STEP)) for v in x]) / n
    total = np.zeros((len(x), len(x)))
    for i in range(0, n, STEP):
        d = x[:, i : i + STEP].astype(np.float64) - mean[:, None]
        total += d @ d.T
    return mean, total / n


def _spans(x: Array, masks: Sequence[Array]) -> tuple[float, ...]:
    valid = [v if m.all() else v[m.reshape(-1)] for v, m in zip(x, masks, strict=True)]
    return tuple(float(v.max()) - float(v.min()) for v in valid)
