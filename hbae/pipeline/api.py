# SPDX-License-Identifier: MIT
"""The Python interface: compress, open, decompress, verify, info."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbae.arrays import Field
from hbae.config import BoundLike
from hbae.errors import FormatError, HbaeError
from hbae.pipeline.archive import Archive
from hbae.pipeline.compress import compress_field
from hbae.pipeline.decompress import load_field
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.report import Report
from hbae.pipeline.verify import Verification, verify_file
from hbae.pipeline.workers import usable_cores
from hbae.ranks import team_of, together

if TYPE_CHECKING:
    import xarray

PathLike = str | os.PathLike[str]


def compress(source: Any, out: PathLike, bound: BoundLike | None = None, *, comm: Any = None, **options: Any) -> Report:
    """Write an archive in which every bound holds on the values that a reader gets.

    Parameters
    ----------
    source : path or xarray.Dataset
        A file that :mod:`hbae.io` reads, or a Dataset (kept as given).
    out : path
        The archive, ``.hbae``; it appears complete and verified, or not at all.
    bound : str, ErrorBound, mapping or list of those
        For example ``"nrmse=1e-3"`` or ``{"T": "abs=0.5", "Y_*": "nrmse=1e-3"}``. With ``size`` or ``cr`` it may be
        left out (``nrmse`` then); if given, all its values are scaled by one factor until the file fits. With
        ``method="lossless"`` it may be left out, too: everything is kept exactly.
    comm : mpi4py.MPI.Comm, optional
        Ranks that share the work; all must call with the same arguments, and get the same report. A rank that dies of
        something that the others do not hear of ends them all. Without it this process works alone.
    **options
        Fields of :class:`hbae.pipeline.options.CompressOptions`: ``model``, ``budget``, ``method``, ``preset``, ...
        ``size`` (bytes, ``"20MB"``, ``"1.5MiB"``) or ``cr``: the tightest bound is searched whose file is that small.

    Returns
    -------
    Report
        Sizes and errors as measured on the decoded values.

    Raises
    ------
    hbae.errors.HbaeError
        One of its children for every failure.
    """
    with team_of(comm) as team:
        return compress_field(source, out, bound, together(team, lambda: CompressOptions(**options)), team)


def open(path: PathLike, group: str = "", **options: Any) -> xarray.Dataset:
    """Open an archive lazily; values are raw, as in the file or Dataset that was compressed (use ``xarray.decode_cf``).

    Parameters
    ----------
    path : path
        The archive.
    group : str
        Group of the file; the root by default.
    **options
        ``backend`` (``auto``, ``numpy``, ``cpu``, ``cuda``) and ``model`` (a MODEL file, where none is embedded).

    Raises
    ------
    FormatError
        When the archive is damaged; chunks are checked when they are read.
    """
    archive = Archive(path, **options)
    ds = _dataset(archive.field, group)
    ds.set_close(archive.close)
    return ds


def decompress(path: PathLike, group: str = "", *, threads: int | None = None, **options: Any) -> xarray.Dataset:
    """Decode a whole archive into a Dataset in memory; nothing is added to it.

    Parameters
    ----------
    path, group, **options
        As of :func:`open`.
    threads : int, optional
        How many chunks are decoded side by side; by default the cores at hand, at most 8. Values do not depend on it.

    Raises
    ------
    FormatError
        When anything is damaged.
    """
    with Archive(path, **options) as archive:
        return _dataset(load_field(archive, usable_cores() if threads is None else threads), group).load()


def _dataset(field: Field, group: str) -> xarray.Dataset:
    """Show a group as a Dataset; hints that a hostile header made up may break anything on the way."""
    from hbae.io import to_dataset

    try:
        return to_dataset(field, group)
    except HbaeError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as e:
        raise FormatError(f"the archive's header describes no Dataset: {e!r}") from e


def verify(path: PathLike, against: Any = None, *, comm: Any = None, **options: Any) -> Verification:
    """Check every checksum and stored hash and, against an original, every bound from scratch.

    ``comm``: as of :func:`compress`.

    Raises
    ------
    FormatError
        When not even header and index can be read; other damage is listed in the result.
    """
    with team_of(comm) as team:
        return verify_file(path, against, team=team, **options)


def info(path: PathLike, **options: Any) -> dict[str, Any]:
    """Describe an archive from its header and sections, without decoding a chunk.

    Raises
    ------
    FormatError
        When they are damaged.
    """
    with Archive(path, **options) as archive:
        groups: list[dict[str, Any]] = []
        for part in archive.parts:
            if part.group is None:
                continue
            try:
                plan = archive.plan(part.group)
            except FormatError as e:
                groups.append({"variables": list(part.paths), "damaged": str(e)})
                continue
            groups.append(
                {
                    "variables": list(plan.paths),
                    "bounds": [[str(b) for b in bs] for bs in plan.bounds],
                    "range": [float(s) for s in plan.span],
                    "geometry": plan.geometry.to_json(),
                    "model": plan.model,
                    "stages": stages(plan),
                    "chunks": len(part.boxes),
                }
            )
        variables = [
            {"path": v.path, "dtype": str(v.dtype), "dims": list(v.dims), "shape": list(v.shape)}
            for v in archive.field.variables()
        ]
        return {
            "path": str(Path(path)),
            "size": archive.reader.size,
            "format": 1,
            "package": archive.reader.header.get("package"),
            "source_format": archive.field.format,
            "variables": variables,
            "groups": groups,
            "sizes": archive.reader.sizes(),
        }


def stages(plan: Any) -> list[str]:
    """Name the stages of a plan that may be used, in order."""
    named = {
        "hbae": plan.decoder is not None,
        "transform": plan.transform is not None,
        "gae": plan.gae is not None,
        "point": bool(plan.point_unit.any()),
    }
    return [k for k, used in named.items() if used] or ["lossless"]
