# SPDX-License-Identifier: MIT
"""Batches of hyper-blocks in normalised units, in an order that repeats by seed."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from hbae.arrays import Array
from hbae.errors import TrainingError
from hbae.models.autoencoder import Autoencoder
from hbae.train.ranks import ALONE, Ranks, own_rows

CACHE_LIMIT = 4 << 30
PART = 64


class Batches:
    """Hyper-blocks x (N, K, P, V) with their valid mask, shuffled every epoch; short last batches are dropped.

    All ranks draw the same order; each takes its own rows of every batch.
    """

    def __init__(
        self,
        net: Autoencoder,
        x: Array,
        valid: Array | None,
        *,
        batch: int,
        seed: int,
        device: str,
        ranks: Ranks = ALONE,
    ) -> None:
        self.net, self.x, self.valid = net, x, valid
        self.device = torch.device(device)
        self.batch = min(batch, len(x))
        self.rows = own_rows(self.batch, ranks)
        self.counts = torch.from_numpy(counted_variables(x, valid)).to(self.device)
        self.order_rng = torch.Generator().manual_seed(seed ^ 0x5EED)
        self.order = torch.zeros(0, dtype=torch.int64)
        self.at = 0
        crc = zlib.crc32(np.ascontiguousarray(x[:: max(1, len(x) // PART)]).tobytes())
        self.fingerprint = [*x.shape, crc]
        self._cache: Tensor | None = None
        # Ranks share the sample of their host; a copy for each would not fit on a node of many cores.
        if x.size * 4 <= CACHE_LIMIT and ranks.size == 1:
            parts = [self._normalised(np.arange(i, min(i + PART, len(x)))) for i in range(0, len(x), PART)]
            self._cache = torch.cat(parts)

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return len(self.x) // self.batch

    def next(self) -> tuple[Tensor, Tensor | None]:
        """Give this rank's rows of the next batch, (b, K, P, V), and their weights (1 valid, 0 not) or None."""
        if self.at + self.batch > len(self.order):
            self.order, self.at = torch.randperm(len(self.x), generator=self.order_rng), 0
        index = self.order[self.at : self.at + self.batch][self.rows]
        self.at += self.batch
        return self._take(index), self._weights(index)

    def sample(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Give about ``count`` hyper-blocks spread over the data, and their weights or None."""
        index = torch.arange(0, len(self.x), max(1, len(self.x) // count))[:count]
        return self._take(index), self._weights(index)

    def _weights(self, index: Tensor) -> Tensor | None:
        if self.valid is None:
            return None
        return torch.from_numpy(self.valid[index.numpy()]).to(self.device, torch.float32)

    def _take(self, index: Tensor) -> Tensor:
        if self._cache is not None:
            return self._cache[index.to(self.device)]
        return self._normalised(index.numpy())

    def _normalised(self, index: Array) -> Tensor:
        return self.net.normalise(torch.from_numpy(self.x[index]).to(self.device))


def normalisation(x: Array, valid: Array | None) -> tuple[Array, Array]:
    """Give offset (mid-range) and scale (range, 1 where it is 0) of every variable over its valid finite values.

    Raises
    ------
    TrainingError
        When there is nothing to train on.
    """
    if x.ndim != 4 or x.size == 0:
        raise TrainingError(f"training: hyper-blocks must have shape (N, K, P, V), not {x.shape}")
    if valid is not None and valid.shape != x.shape:
        raise TrainingError("training: the valid mask has another shape than the data")
    lo, hi = _limits(x, valid)
    if not np.isfinite(lo).any():
        raise TrainingError("training: no valid value in the data")
    lo, hi = np.where(np.isfinite(lo), lo, 0.0), np.where(np.isfinite(hi), hi, 0.0)
    scale = hi - lo
    usable = np.isfinite(scale) & (scale > 0)
    return np.where(usable, lo / 2 + hi / 2, lo), np.where(usable, scale, 1.0)


def counted_variables(x: Array, valid: Array | None) -> Array:
    """Tell which variables have a range (V,); all, if none has."""
    lo, hi = _limits(x, valid)
    moving = np.isfinite(lo) & (hi > lo)
    return moving if moving.any() else np.ones_like(moving)


def _limits(x: Array, valid: Array | None) -> tuple[Array, Array]:
    lo, hi = np.full(x.shape[-1], np.inf), np.full(x.shape[-1], -np.inf)
    for i in range(0, len(x), PART):
        part = x[i : i + PART].astype(np.float64)
        ok = np.isfinite(part)
        if valid is not None:
            ok &= valid[i : i + PART]
        lo = np.minimum(lo, np.where(ok, part, np.inf).min((0, 1, 2)))
        hi = np.maximum(hi, np.where(ok, part, -np.inf).max((0, 1, 2)))
    return lo, hi
