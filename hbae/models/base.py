# SPDX-License-Identifier: MIT
"""What the pipeline asks of a learned model."""

from __future__ import annotations

from typing import Protocol

from hbae.arrays import Array
from hbae.exact.block_decoder import BlockDecoder


class BlockModel(Protocol):
    """A trained block codec: promises integer latents for any input, and the decoder that turns them into values.

    ``names``: the V variables, in order. ``decoder``: K, P, V, normalisation and the exact nets.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""

    @property
    def decoder(self) -> BlockDecoder:
        """The exact decoder that archives carry."""

    def encode(self, x_NKPV: Array) -> tuple[Array, Array | None]:
        """Give int32 latents z (N, L) and z_b (N, K, L_b) or None, for values in physical units."""
