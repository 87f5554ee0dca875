# SPDX-License-Identifier: MIT
"""Fields as lazy xarray Datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hbae.arrays import Array, ArraySource, Attribute, Field, Group, Source, Variable
from hbae.errors import FieldError, UnknownNameError
from hbae.io.attributes import PY_ATTRS, to_mapping
from hbae.io.dataset import ENCODING, encoding_from
from hbae.io.kinds import STORED, to_stored

if TYPE_CHECKING:
    import xarray as xr


def to_dataset(field: Field, group: str = "") -> xr.Dataset:
    """Give one group of a field as a Dataset that reads only what is asked for; values are raw.

    Coordinates are those that the Dataset had; for files, the variables named like their one dimension, as
    ``xarray.open_dataset(path, decode_cf=False)`` gives them.

    Raises
    ------
    UnknownNameError
        When there is no such group.
    """
    import xarray as xr

    found = next((g for g in field.groups if g.path == group), None)
    if found is None:
        raise UnknownNameError(f"no group {group!r}; there are: {', '.join(repr(g.path) for g in field.groups)}")
    of_dataset = field.format == "dataset"
    variables = {v.name: _variable(v, field) for v in found.variables}
    if of_dataset:
        names = [n for n in field.extra.get("coords", ()) if n in variables]
        indexes = set(field.extra.get("indexes", ()))
    else:
        names = [v.name for v in found.variables if v.dims == (v.name,)]
        indexes = set(names)
    # An index is loaded when it is built, so only those are built that the Dataset had.
    coords = xr.Coordinates({n: variables[n] for n in names}, indexes={})
    ds = xr.Dataset({n: v for n, v in variables.items() if n not in names}, coords=coords, attrs=_attrs(field, found))
    for name in names:
        if name in indexes and ds[name].ndim == 1:
            ds = ds.set_xindex(name)
            ds[name].encoding = variables[name].encoding
    ds.encoding = encoding_from(field.extra.get(ENCODING, {})) if of_dataset else _encoding(found)
    return ds


def _encoding(group: Group) -> dict[str, Any]:
    unlimited = {d.name for d in group.dims if d.unlimited}
    return {"unlimited_dims": unlimited} if unlimited else {}


def _attrs(field: Field, group: Group) -> dict[str, Any]:
    return _plain(group.attrs, field.extra.get(PY_ATTRS, {}).get(group.path, {}), field)


def _plain(attrs: tuple[Attribute, ...], markers: dict[str, str], field: Field) -> dict[str, Any]:
    out = to_mapping(attrs, markers)
    if field.format == "dataset":
        return out
    for name, value in out.items():
        if isinstance(value, str):
            # netCDF4-python writes an empty text as one NUL; nobody wants to see it.
            out[name] = value.rstrip("\0")
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            out[name] = value[0]
        elif field.format.startswith("zarr") and isinstance(value, np.ndarray | np.generic):
            out[name] = value.tolist() if value.dtype in (np.int64, np.float64, np.bool_) else value
    return out


def _variable(v: Variable, field: Field) -> xr.Variable:
    import xarray as xr

    attrs = _plain(v.attrs, v.hints.get(PY_ATTRS, {}), field)
    data = _data(v.source, v.hints.get(STORED))
    encoding = encoding_from(v.hints.get(ENCODING, {}))
    if v.source.storage is not None:
        encoding.setdefault("preferred_chunks", dict(zip(v.dims, v.source.storage, strict=True)))
    if field.format != "dataset" and isinstance(v.hints.get("chunks"), list):
        encoding["chunksizes"] = tuple(v.hints["chunks"])
    return xr.Variable(v.dims, data, attrs, encoding if field.format != "dataset" else encoding_from(
        v.hints.get(ENCODING, {})
    ), fastpath=True)  # fmt: skip


def _data(source: Source, stored: object) -> Any:
    """What is in memory as it is, and what reads the rest when it is asked for."""
    if isinstance(source, ArraySource):
        return as_stored(source.values, stored)
    from xarray.core import indexing

    from hbae.io.lazy_array import LazyArray

    return indexing.LazilyIndexedArray(LazyArray(source, stored))


def read_key(source: Source, key: tuple[Any, ...]) -> Array:
    """Read integers, slices of any step and integer arrays (one per axis, orthogonal) through boxes.

    Raises
    ------
    FieldError
        When the key has the wrong rank.
    """
    if len(key) != len(source.shape):
        raise FieldError(f"a key of rank {len(key)} for an array of rank {len(source.shape)}")
    box: list[slice] = []
    after: list[Any] = []
    for k, n in zip(key, source.shape, strict=True):
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            wanted = range(start, stop, step)
            low, high = (min(wanted), max(wanted) + 1) if len(wanted) else (0, 0)
            box.append(slice(low, high))
            after.append(slice(None, None, step))
        elif np.ndim(k) == 0:
            i = int(k) + (n if int(k) < 0 else 0)
            if not 0 <= i < n:
                raise IndexError(f"index {int(k)} is out of bounds for length {n}")
            box.append(slice(i, i + 1))
            after.append(0)
        else:
            indices = np.where(np.asarray(k) < 0, np.asarray(k) + n, np.asarray(k))
            low = int(indices.min()) if indices.size else 0
            box.append(slice(low, int(indices.max()) + 1 if indices.size else 0))
            after.append(indices - low)
    values = source.read(tuple(box))
    for axis in reversed(range(len(after))):
        values = values[(slice(None),) * axis + (after[axis],)]
    return values


def as_stored(values: Array, stored: object) -> Array:
    """Give values as the Dataset had them (dates, fixed Unicode)."""
    return to_stored(np.asarray(values), stored)
