# SPDX-License-Identifier: MIT
"""Models that answer badly on purpose: an archive made with any of them must still keep every bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.exact.block_decoder import BlockDecoder
from hbae.models.base import BlockModel

KINDS = ("zeros", "nan", "noise", "extreme", "negated", "shuffled")


@dataclass(frozen=True)
class HostileModel:
    """A :class:`hbae.models.base.BlockModel` whose latents are wrong in the way that ``kind`` names.

    ``zeros``: all 0. ``nan``: float arrays of NaN and infinities. ``noise``: random over the whole range. ``extreme``:
    far outside it. ``negated``: the right ones with the other sign. ``shuffled``: those of other hyper-blocks.

    Raises
    ------
    ConfigError
        For an unknown kind.
    """

    model: BlockModel
    kind: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"hostile model: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inner model."""
        return self.model.names

    @property
    def decoder(self) -> BlockDecoder:
        """The inner model's decoder."""
        return self.model.decoder

    def encode(self, x_NKPV: Array) -> tuple[Array, Array | None]:
        """Give latents of the right shapes and wrong values."""
        z, zb = self.model.encode(x_NKPV)
        rng = np.random.default_rng(self.seed)
        return self._spoil(z, rng), None if zb is None else self._spoil(zb, rng)

    def _spoil(self, z: Array, rng: np.random.Generator) -> Array:
        spoiled: Array = np.zeros_like(z)
        if self.kind == "nan":
            spoiled = np.where(rng.random(z.shape) < 0.5, np.nan, np.inf)
        elif self.kind == "noise":
            spoiled = np.asarray(rng.integers(-2047, 2048, z.shape, dtype=np.int32))
        elif self.kind == "extreme":
            spoiled = np.asarray(rng.choice(np.array([-(2**31), 2**31 - 1]), z.shape))
        elif self.kind == "negated":
            spoiled = -z
        elif self.kind == "shuffled":
            spoiled = rng.permutation(z)
        return spoiled
