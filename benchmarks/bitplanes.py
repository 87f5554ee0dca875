# SPDX-License-Identifier: MIT
"""Integers of a Lorenzo prediction, coded by tokens with contexts (as here) and by bit planes.

``python benchmarks/bitplanes.py FILE... -o RESULT.json --bounds 1e-4,1e-6`` rounds every lossy variable of a file to
that NRMSE, takes differences along all axes, and counts bytes. ``tokens``: what hbae writes of them. ``planes, zstd``:
zigzag, one bit plane after the other, zstd at level 19. ``planes, contexts``: the ideal of an adaptive coder of bit
planes from the highest one down: entropies of bits by plane, by what is known of the value (nothing, a leading one,
more), and by what is known of its neighbours (bits above of all, bits of this plane of those before), with half a
logarithm of its count for each context, and a bit for each sign.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import zstandard
from _heading import heading

from hbae.arrays import Array
from hbae.codecs import difference, encode_ints
from hbae.compare.load import read_variable
from hbae.compare.tune import prepare
from hbae.config import parse_rules
from hbae.io import open_field
from hbae.pipeline.groups import lossy_bounds

_LEVELS = 16


def main(
    sources: Annotated[list[Path], typer.Argument(help="Files to code.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-4,1e-6",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "rows": []}
    for source in sources:
        arrays = [prepare(read_variable(source, p))[0] for p in lossy(source)]
        arrays = [np.asarray(x, np.float64) for x in arrays if np.ptp(x) > 0]
        for bound in bounds.split(","):
            row: dict[str, Any] = {"file": source.name, "bound": float(bound)}
            for name, code in (("tokens", tokens), ("planes_zstd", packed), ("planes_contexts", ideal)):
                row[name] = round(sum(code(integers(x, float(bound))) for x in arrays))
            typer.echo(str(row))
            doc["rows"].append(row)
    out.write_text(json.dumps(doc, indent=1) + "\n", "utf-8")


def lossy(source: Path) -> list[str]:
    """Give the variables that a bound on all would be for."""
    return list(lossy_bounds(open_field(source), parse_rules("nrmse=1e-3"), ()))


def integers(x: Array, bound: float) -> Array:
    """Give the differences, along all axes that are longer than one, of values rounded to an NRMSE."""
    q = np.rint((x - x.min()) / (np.sqrt(12) * bound * np.ptp(x))).astype(np.int64)
    q = q.reshape([n for n in q.shape if n > 1])
    return difference(q, range(q.ndim))


def tokens(d: Array) -> int:
    """Bytes as hbae codes slabs."""
    return len(encode_ints(np.ascontiguousarray(d), far=1))


def packed(d: Array) -> int:
    """Bytes of bit planes of the zigzag code, one after the other, by zstd."""
    u = ((d << 1) ^ (d >> 63)).astype(np.uint64)
    planes = range(int(u.max()).bit_length())
    bits = b"".join(np.packbits((u >> np.uint64(p)).astype(np.uint8) & 1).tobytes() for p in planes)
    return len(zstandard.ZstdCompressor(level=19).compress(bits))


def ideal(d: Array) -> float:
    """Bytes of an ideal adaptive coder of bit planes with contexts."""
    u = np.abs(d)
    bits = float((u > 0).sum())
    for p in range(int(u.max()).bit_length()):
        above, bit = u >> (p + 1), (u >> p) & 1
        context = np.minimum(_around(np.minimum(above, 2)) + _before(bit), _LEVELS - 1) + _LEVELS * np.minimum(above, 2)
        ones, all_ = (np.bincount(context.ravel(), w, 3 * _LEVELS) for w in (bit.ravel(), None))
        share = np.clip(ones / np.maximum(all_, 1), 1e-12, 1 - 1e-12)
        bits -= float((ones * np.log2(share) + (all_ - ones) * np.log2(1 - share)).sum())
        bits += float((np.log2(np.maximum(all_[all_ > 0], 2)) / 2).sum())
    return bits / 8


def _around(x: Array) -> Array:
    """Sum of both neighbours along each axis."""
    total = _before(x)
    for axis in range(x.ndim):
        np.moveaxis(total, axis, 0)[:-1] += np.moveaxis(x, axis, 0)[1:]
    return total


def _before(x: Array) -> Array:
    """Sum of the neighbours before along each axis."""
    total = np.zeros_like(x)
    for axis in range(x.ndim):
        np.moveaxis(total, axis, 0)[1:] += np.moveaxis(x, axis, 0)[:-1]
    return total


if __name__ == "__main__":
    typer.run(main)
