# SPDX-License-Identifier: MIT
"""The array that stands behind a lazy Dataset; apart because its base class needs xarray at import."""

from __future__ import annotations

from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from hbae.arrays import Array, Source
from hbae.io.lazy import as_stored, read_key


class LazyArray(BackendArray):
    """A source seen as an xarray backend array; pickles when the source does."""

    def __init__(self, source: Source, stored: object = None) -> None:
        self.source, self.stored = source, stored
        self.shape = tuple(source.shape)
        self.dtype: np.dtype[Any] = as_stored(np.empty(0, source.dtype), stored).dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Array:
        return as_stored(read_key(self.source, key), self.stored)
