# SPDX-License-Identifier: MIT
"""Coded bytes of real symbols against the adaptive ideal on the same symbols, for whole files.

``python benchmarks/entropy.py FILE... -o RESULT.json --bounds 1e-2,1e-3,1e-4`` compresses each file to each NRMSE and
looks at every symbol stream that ends in the archive. The ideal is the length that the Krichevsky-Trofimov estimator
gives the tokens of each context, whatever their order, with the tokens that occur in the stream as its alphabet: of
contexts as they are, and of contexts that share tables as one, whichever is less. Coded are words and tables; raw bits
of large numbers are left out of both.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer
from _heading import heading
from scipy.special import gammaln

import hbae
from hbae.arrays import Array
from hbae.codecs.contexts import SymbolWriter
from hbae.codecs.tables import merge_contexts


@dataclass
class Streams:
    """Streams as they were coded: their bytes, ideals in bits by kind of context, and bits that are not tokens."""

    found: list[tuple[bytes, dict[str, float], int]] = field(default_factory=list)

    def watched(self, writer: SymbolWriter) -> bytes:
        """Code a stream and note what the ideal would take."""
        data = _getvalue(writer)
        counts = writer._counts[:, writer._counts.any(axis=0)]
        ideals = {"contexts": adaptive_bits(counts), "merged": adaptive_bits(merged(writer._counts))}
        raw = sum(int(nbits.sum()) for _, _, nbits, _ in writer._steps)
        self.found.append((data, ideals, raw))
        return data


_getvalue = SymbolWriter.getvalue


def merged(counts: Array) -> Array:
    """Give the counts of contexts that share tables as one."""
    tables = np.array(merge_contexts(counts)[1])
    return tables[:, tables.any(axis=0)] if tables.size else tables


def adaptive_bits(counts: Array) -> float:
    """Bits of the Krichevsky-Trofimov estimator for tokens with these counts, a row for each context."""
    if not counts.size:
        return 0.0
    size, total = counts.shape[1], counts.sum(axis=1)
    nats = gammaln(total + size / 2) - gammaln(size / 2) + (gammaln(0.5) - gammaln(counts + 0.5)).sum(axis=1)
    # A context of which one token alone is seen costs nothing to either.
    return float(nats[(counts > 0).sum(axis=1) > 1].sum() / np.log(2))


def measure(path: Path, bound: float, folder: Path) -> dict[str, Any]:
    """Compress a file and sum up the streams that its archive holds."""
    streams, out = Streams(), folder / "a.hbae"
    with mock.patch.object(SymbolWriter, "getvalue", lambda w: streams.watched(w)):
        hbae.compress(path, out, bound=f"nrmse={bound}", overwrite=True, threads=1, method="linear")
    data = out.read_bytes()
    kept = {s[0]: s for s in streams.found if s[0] in data}.values()
    ideals = {k: sum(i[k] for _, i, _ in kept) / 8 for k in ("contexts", "merged")}
    coded = sum(len(d) - raw / 8 for d, _, raw in kept)
    row = {
        "file": path.name,
        "bound": bound,
        "archive_bytes": len(data),
        "streams": len(kept),
        "coded_bytes": round(coded),
        "adaptive_bytes": {k: round(v) for k, v in ideals.items()},
        "over_ideal": round(coded / min(ideals.values()) - 1, 4),
    }
    print(row, flush=True)
    return row


def main(
    files: Annotated[list[Path], typer.Argument(help="Fields.")],
    out: Annotated[Path, typer.Option("-o", help="The result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE.")] = "1e-2,1e-3,1e-4",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            for bound in bounds.split(","):
                doc["rows"].append(measure(path, float(bound), Path(folder)))
                out.write_text(json.dumps(doc, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
