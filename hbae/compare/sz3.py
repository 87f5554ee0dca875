# SPDX-License-Identifier: MIT
"""SZ3 through pysz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.compare.interface import Encoded, Rival, layout, package, plain, turned
from hbae.errors import ConfigError

ALGORITHMS = ("INTERP_LORENZO", "INTERP", "LORENZO_REG", "NOPRED")


class SZ3:
    """SZ3 at an absolute tolerance, rank 1 to 4 (leading axes of more are merged).

    ``algorithm`` is one of ``INTERP_LORENZO`` (its default), ``INTERP``, ``LORENZO_REG``, ``NOPRED``.

    Raises
    ------
    ConfigError
        For another algorithm.
    """

    name = "SZ3"
    bounds = ("abs", "rel_range", "l2", "psnr")
    steps = False

    def __init__(self, algorithm: str = "INTERP_LORENZO") -> None:
        if algorithm not in ALGORITHMS:
            raise ConfigError(f"SZ3: unknown algorithm {algorithm!r}")
        self.algorithm = algorithm

    @property
    def label(self) -> str:
        """Give the algorithm."""
        return self.algorithm

    def require(self) -> None:
        """Raise ``MissingExtraError`` without pysz."""
        package("pysz")

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give every algorithm, those that predict with each axis as the fastest."""
        predicting: list[Rival] = [v for a in ALGORITHMS[:-1] for v in turned(SZ3(a), shape)]
        return [*predicting, SZ3(ALGORITHMS[-1])]

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give SZ3's stream."""
        pysz = package("pysz")
        x = plain(array).reshape(layout(array.shape, 4))
        config = pysz.szConfig(x.shape)
        config.errorBoundMode = pysz.szErrorBoundMode.ABS
        config.absErrorBound = setting
        config.cmprAlgo = getattr(pysz.szAlgorithm, self.algorithm)
        stream, _ = pysz.sz.compress(x, config)
        payload = bytes(stream)
        return Encoded(payload, len(payload))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        native = dtype.newbyteorder("=")
        x, _ = package("pysz").sz.decompress(np.frombuffer(encoded.payload, np.uint8), native, layout(shape, 4))
        return np.asarray(x).reshape(shape)
