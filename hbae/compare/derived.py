# SPDX-License-Identifier: MIT
"""Quantities of interest of every coder in a comparison, from the decoded values that it left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hbae.arrays import ArraySource, Field
from hbae.compare.quantities import quantities_of
from hbae.compare.rivals import is_lossless
from hbae.compare.table import Row, Wish
from hbae.compare.tally import Pairs, QuantityRow
from hbae.io import open_field
from hbae.processes import WorkerPool


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One coder at one target."""

    source: Path
    names: tuple[str, ...]
    files: Mapping[str, Path]
    lost: frozenset[str]
    limits: Mapping[str, tuple[float, float]]


def check_fit(field: Field, paths: Sequence[str], names: Sequence[str]) -> None:
    """Refuse quantities that no variable of the input has, before any work on it.

    Raises
    ------
    ConfigError
        When there is such a name.
    """
    quantities_of(Pairs(original=field, paths=frozenset(paths), decoded={}), names)


def with_quantities(
    rows: Sequence[Sequence[Row]],
    source: Path,
    names: tuple[str, ...],
    limits: Mapping[str, tuple[float, float]],
    wish: Wish,
    processes: int,
) -> list[list[Row]]:
    """Give the rows of all targets with the quantities of each coder that has loss, over the same points for all."""
    places = [(t, i) for t, some in enumerate(rows) for i, r in enumerate(some) if not is_lossless(r.rival)]
    jobs = [
        _Job(
            source=source,
            names=names,
            files={n: wish.place(t, rows[t][i].rival, n) for n in rows[t][i].errors},
            lost=frozenset(rows[t][0].errors) - frozenset(rows[t][i].errors),
            limits=limits,
        )
        for t, i in places
    ]
    if processes > 1 and len(jobs) > 1:
        with WorkerPool(min(processes, len(jobs))) as pool:
            found = list(pool.map(_run, jobs))
    else:
        found = list(map(_run, jobs))
    out = [list(some) for some in rows]
    for (t, i), quantities in zip(places, found, strict=True):
        out[t][i] = replace(out[t][i], quantities=quantities)
    return out


def _run(job: _Job) -> list[QuantityRow]:
    """Give the quantities of one coder, box by box."""
    decoded = {n: ArraySource(np.load(path, mmap_mode="r")) for n, path in job.files.items()}
    pairs = Pairs(
        original=open_field(job.source),
        paths=frozenset(decoded),
        decoded=decoded,
        limits=job.limits,
        lost=job.lost,
    )
    return quantities_of(pairs, job.names)


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Give a table of one target: quantity, its mean before, and for each coder its mean after and relative error."""
    coders = [r for r in rows if r.quantities]
    found = [{q.name: q for q in r.quantities} for r in coders]
    body = []
    for name in dict.fromkeys(n for of in found for n in of):
        before = next(of[name].before for of in found if name in of)
        body.append([name, f"{before:.6g}", *(_cell(of.get(name)) for of in found)])
    return ["quantity", "before", *(r.rival for r in coders)], body


def _cell(q: QuantityRow | None) -> str:
    return "-" if q is None else f"{q.after:.6g} ({q.relative:.2g})"
