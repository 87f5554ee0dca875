# SPDX-License-Identifier: MIT
"""SPERR and ZFP, which are reached as HDF5 filters.

Traps kept shut here: SPERR's filter takes the fastest axis first (``swap=True``, else 2 to 7 times larger); HDF5 hands
back the uncompressed chunk from its cache unless the file is closed in between; a filter keeps its true settings in the
file, so that a chunk without them decodes to something else; sizes are those of the stored chunk, not of the file.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.compare.interface import Encoded, Rival, layout, package, plain, turned
from hbae.errors import ConfigError, FieldError

# SPERR's filter fails at largest errors far from 1, and HDF5 then ends the process.
_FAR = 16


class _Filter(ABC):
    """A compressor that is reached as an HDF5 filter: a small file with one chunk, the whole array.

    ``most`` is the largest rank, ``least`` the smallest, ``shortest`` the fewest points along an axis.
    """

    name = ""
    most, least, shortest = 4, 1, 1

    def require(self) -> None:
        """Raise ``MissingExtraError`` without hdf5plugin."""
        package("hdf5plugin")

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give the file, which holds the filter's settings too; only its stored chunk counts."""
        import h5py

        shape = self._layout(array.shape)
        # A power of two changes no bit of a value; the filters cannot express all settings.
        exponent = self._exponent(setting)
        x = np.ldexp(plain(array), -exponent) if exponent else plain(array)
        x = x.reshape(shape)
        options = self._options(x, math.ldexp(setting, -exponent))
        # Not closed: after a failure HDF5 still writes to it, from wherever its objects end.
        memory = io.BytesIO()
        try:
            with h5py.File(memory, "w") as f:
                stored = f.create_dataset("x", data=x, chunks=shape, **options)
                stored.attrs["exponent"] = exponent
                f.flush()
                skipped = bool(stored.id.get_chunk_info(0).filter_mask)
                nbytes = int(stored.id.get_storage_size())
                del stored
        except RuntimeError as e:
            raise FieldError(f"{self.name}: HDF5's filter failed: {e}") from e
        if skipped:
            raise FieldError(f"{self.name}: HDF5 skipped the filter and stored the array as it is")
        return Encoded(memory.getvalue(), nbytes)

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back, read from the closed file."""
        import h5py

        self.require()
        with io.BytesIO(encoded.payload) as memory, h5py.File(memory, "r") as f:
            x, exponent = np.asarray(f["x"][...]), int(f["x"].attrs["exponent"])
        return (np.ldexp(x, exponent) if exponent else x).astype(dtype, copy=False).reshape(shape)

    def _layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        inner = layout(shape, self.most, self.shortest)
        if len(inner) < self.least or (min(inner) < self.shortest and self.least > 1):
            raise FieldError(
                f"{self.name} does not apply: it takes {self.least} or {self.most} axes of at least {self.shortest} "
                f"points, and shape {shape} cannot be laid out so"
            )
        return inner

    def _exponent(self, setting: float) -> int:
        """Power of two that values are divided by."""
        return 0

    @abstractmethod
    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        """Keywords of ``create_dataset`` for a setting."""


class Sperr(_Filter):
    """SPERR over 2 or 3 axes of at least 9 points; other arrays are laid out so, or refused.

    ``mode`` is ``psnr`` (the setting is the RMSE asked for; at equal RMSE a few percent smaller and faster) or ``abs``
    (the largest error). ``swap`` is the filter's: False reads arrays in the wrong order and is here to show it.

    Raises
    ------
    ConfigError
        For another mode.
    """

    name = "SPERR"
    bounds = ("abs", "psnr")
    steps = False
    most, least, shortest = 3, 2, 9

    def __init__(self, *, mode: str = "psnr", swap: bool = True) -> None:
        if mode not in ("psnr", "abs"):
            raise ConfigError(f"SPERR: unknown mode {mode!r}")
        self.mode, self.swap = mode, swap

    @property
    def label(self) -> str:
        """Give the mode."""
        return f"{self.mode} mode"

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give the mode that suits the metric, with each axis as the fastest."""
        return turned(Sperr(mode="abs" if metric == "max" else "psnr"), shape)

    def _exponent(self, setting: float) -> int:
        exponent = math.frexp(setting)[1]
        return exponent if self.mode == "abs" and abs(exponent) > _FAR else 0

    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        plugin = package("hdf5plugin")
        span = float(x.max()) - float(x.min())
        if self.mode == "abs" or span == 0:
            return dict(plugin.Sperr(absolute=setting, swap=self.swap))
        psnr = min(max(20 * math.log10(span / setting), 1.0), 300.0)
        return dict(plugin.Sperr(peak_signal_to_noise_ratio=psnr, swap=self.swap))


class ZFP(_Filter):
    """ZFP in accuracy mode: rank 1 to 4, short axes merged into blocks of 4; tolerances count to a power of two."""

    name = "ZFP"
    label = "accuracy mode"
    bounds = ("abs",)
    steps = True
    most, least, shortest = 4, 1, 4

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give itself alone: its blocks treat all axes alike."""
        return (self,)

    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        return dict(package("hdf5plugin").Zfp(accuracy=setting))
