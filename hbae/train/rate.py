# SPDX-License-Identifier: MIT
"""What an archive holds beside the decoder's weights: bytes of latents and of the correction up to a bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbae.arrays import Array
from hbae.codecs import encode_ints
from hbae.errors import ConfigError
from hbae.exact import MAX_DCT, dct_basis
from hbae.train.loop import Trainer

SAMPLED_VALUES = 1 << 20
FEWEST, MOST = 8, 256


class RateEquation:
    """Bytes of latents and correction for the hyper-blocks of an archive, from a sample of them.

    Latents count by the law that training learned. The correction's transform is the pipeline's own: PCA over the
    variables, cosines over the axes of blocks and hyper-blocks, steps of ``sqrt(12)`` times the error allowed. Its
    bits, ``log2(1 + c**2) / 2`` for a coefficient of c steps, are scaled to real coded bytes of the net as it is first.

    ``tolerance``: RMSE allowed for each variable, (V,), in its units; None for the error that training aims at.
    ``geometry``: ``block`` and ``hyper``, where known. ``sample``: normalised hyper-blocks and their weights or None.

    Raises
    ------
    ConfigError
        For a tolerance that is not above 0.
    """

    def __init__(
        self,
        trainer: Trainer,
        stored_hyper: int,
        tolerance: Array | None,
        geometry: Mapping[str, Any],
        sample: tuple[Tensor, Tensor | None] | None = None,
    ) -> None:
        self.trainer, self.stored_hyper = trainer, stored_hyper
        self.x, self.weight = sample or spread_sample(trainer)
        k, p, v = self.x.shape[1:]
        aimed = np.full(v, trainer.cfg.target_nrmse)
        allowed = aimed if tolerance is None else tolerance / trainer.net.scale.cpu().numpy()
        # Variables without a range cost nothing.
        counted = trainer.batches.counts.cpu().numpy()
        if not (allowed[counted] > 0).all():
            raise ConfigError("rate: the errors allowed must be above 0")
        steps = np.where(counted, allowed * math.sqrt(12), np.inf)
        self.steps = torch.from_numpy(steps).to(self.x)
        hyper, block = _lengths(geometry.get("hyper"), k), _lengths(geometry.get("block"), p)
        self.axes = [*hyper, *block]
        self.bases = [_cosines(m).to(self.x) for m in self.axes]
        self.mixing: Tensor | None = None
        self.scale: float | None = None

    def __call__(self) -> float:
        """Give the bytes for the net as it is now, latents rounded."""
        self.trainer.net.eval()
        with torch.no_grad():
            out = self.trainer.net(self.x, None)
            left = out.x - self.x
            c = self._coefficients(left if self.weight is None else left * self.weight)
            bits = float(torch.log2(1 + c.double().square()).sum()) / 2 / len(self.x)
            if self.scale is None:
                self.scale = self._coded(c) / bits if bits > 1 else 1.0
            return self.stored_hyper * (float(out.bits.mean()) + self.scale * bits) / 8

    def _coefficients(self, left: Tensor) -> Tensor:
        """Give the residual's coefficients in steps, (V, axes of hyper-blocks and blocks, N)."""
        v = left.shape[-1]
        c = (left / self.steps).reshape(-1, v)
        if self.mixing is None:
            self.mixing = torch.linalg.eigh((c.T @ c).double())[1].flip(1).to(c)
        c = (c @ self.mixing).reshape(len(left), *self.axes, v).movedim(-1, 0).movedim(1, -1)
        for axis, basis in enumerate(self.bases, start=1):
            c = torch.movedim(torch.tensordot(c, basis, ([axis], [0])), -1, axis)
        return c

    def _coded(self, c: Tensor) -> float:
        """Give real coded bits per hyper-block; the dead zone is that of rounding at half a step."""
        q = torch.round(c.clamp(-1e6, 1e6)).cpu().numpy().astype(np.int64)
        return len(encode_ints(q)) * 8 / len(self.x)


def spread_sample(trainer: Trainer) -> tuple[Tensor, Tensor | None]:
    """Give training hyper-blocks spread over the data, about a million values, and their weights or None."""
    count = SAMPLED_VALUES // math.prod(trainer.batches.x.shape[1:])
    return trainer.batches.sample(max(FEWEST, min(MOST, count)))


def _lengths(given: Any, points: int) -> tuple[int, ...]:
    """Give the lengths of the axes that hold so many points; one axis where they are not known."""
    lengths = tuple(int(n) for n in given or ())
    return lengths if math.prod(lengths) == points and lengths else (points,)


def _cosines(n: int) -> Tensor:
    """Give the orthonormal DCT-II, columns are basis vectors; the identity for long axes."""
    return torch.from_numpy(dct_basis(n) * 2.0**-15 if n <= MAX_DCT else np.eye(n))
