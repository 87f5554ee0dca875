# SPDX-License-Identifier: MIT
"""Where the bytes of archives are: by part of the file, and by stage of the chunks.

``python benchmarks/stages.py FILE... -o RESULT.json --bounds 1e-2,1e-3`` compresses each file to each NRMSE and reads
all chunks, noting how many bytes each stage takes; the parts sum up to the file. ``kept exactly``: variables without a
bound, and names. ``plans``: what groups need, bases over variables, times and places among it. ``base``: latents.
``correction``: everything else of a chunk that is coded by a plan; ``tables`` are the frequency tables in it.
``without loss``: chunks that are kept so. ``frames``: heads of chunks and their SHA-256.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer
from _heading import heading

import hbae
from hbae.codecs import coefficients, ints
from hbae.codecs.bytes_ import ByteReader
from hbae.codecs.contexts import SymbolReader
from hbae.pipeline import chunk as chunks
from hbae.pipeline import exactvars, levels, waves
from hbae.pipeline.archive import Archive

_STAGES = {"_read_latents": "base", "decode_lossless": "without loss"}
# Where streams of symbols are read.
_READING = (coefficients, ints, levels, waves)
_CORRECTION = (
    "decode_mask",
    "_read_filler",
    "_decode_coefs",
    "decode_levels",
    "decode_waves",
    "decode_ints",
    "_read_exact",
)


def main(
    sources: Annotated[list[Path], typer.Argument(help="Files to compress.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-2,1e-3",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="hbae-stages-") as folder:
        path = Path(folder) / "a.hbae"
        for source in sources:
            for bound in bounds.split(","):
                report = hbae.compress(source, path, f"nrmse={bound}", threads=1, overwrite=True)
                stages = stages_of(path)
                assert sum(v for k, v in stages.items() if k != "tables") == report.size
                doc["rows"].append({"file": source.name, "bound": float(bound), "bytes": report.size, **stages})
                print(doc["rows"][-1], flush=True)
                out.write_text(json.dumps(doc, indent=1) + "\n")


def stages_of(path: Path) -> dict[str, int]:
    """Give the bytes by part and stage."""
    found: Counter[str] = Counter()
    with Archive(path) as archive:
        for name, size in archive.reader.sizes().items():
            found[part_of(name)] += size
        in_chunks = watched(archive)
    found.update(in_chunks)
    frames = found.pop("chunks") - sum(v for k, v in in_chunks.items() if k != "tables")
    return {**found, "frames": frames}


def part_of(section: str) -> str:
    """Give the part that a section belongs to."""
    first = section.split()[0]
    return {"values": "kept exactly", "group": "plans", "model": "model"}.get(first, section)


def watched(archive: Archive) -> Counter[str]:
    """Read all chunks; give the bytes of their stages, and of the tables in them."""
    found: Counter[str] = Counter()
    inner = [0]

    def noting(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def noted(r: ByteReader, *args: Any, **kw: Any) -> Any:
            before, outermost = r._pos, inner[0] == 0
            inner[0] += 1
            try:
                return function(r, *args, **kw)
            finally:
                inner[0] -= 1
                found[stage] += (r._pos - before) * outermost

        return noted

    class Noted(SymbolReader):
        def __init__(self, reader: ByteReader, num_contexts: int) -> None:
            before = reader._pos
            head = ByteReader(reader._data[before:])
            size = head.varint()
            head.raw(head.varint() if size & 1 else size >> 1)
            super().__init__(reader, num_contexts)
            found["tables"] += head._pos

    stages = {**_STAGES, **dict.fromkeys(_CORRECTION, "correction")}
    with ExitStack() as patched:
        for name, stage in stages.items():
            patched.enter_context(mock.patch.object(chunks, name, noting(getattr(chunks, name), stage)))
        large = noting(exactvars.decode_lossless, "kept exactly")
        patched.enter_context(mock.patch.object(exactvars, "decode_lossless", large))
        for module in _READING:
            patched.enter_context(mock.patch.object(module, "SymbolReader", Noted))
        for part in archive.parts:
            for i in range(len(part.boxes)):
                archive.chunk(part, i, keep=False)
    return found


if __name__ == "__main__":
    typer.run(main)
