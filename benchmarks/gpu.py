# SPDX-License-Identifier: MIT
"""Compressing and decompressing with a GPU: copies, arithmetic and entropy coding apart, then commands on many ranks.

``python benchmarks/gpu.py FILE -o RESULT.json --folder /dev/shm/gpu`` measures, for each bound, in one process and with
a wait around every stage, the chunks of the file's largest lossy group; then ``hbae compress`` and ``hbae decompress``
(to Zarr) on each number of ranks and each device in turn. GB/s are 10^9 raw bytes per second of the clock, copies
excepted, whose bytes are those that go over the bus. ``--device cpu`` runs the stages with torch's CPU in the place of
a device: for a look at whether all works, not for its numbers. A file should have many chunks: 32 MiB each.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from _heading import heading
from _launch import launcher

import hbae
from hbae.blocks import fill_invalid
from hbae.exact.backend import TorchBackend
from hbae.io import open_field
from hbae.pipeline.archive import Archive
from hbae.pipeline.chunk import CODED, digest, encode_parts, open_chunk, read_parts
from hbae.pipeline.device import encodes, errors_there, load, tile_integers, wave_integers
from hbae.pipeline.original import physical
from hbae.pipeline.parts import Parts, values_of
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.rounding import worth_of
from hbae.pipeline.waves import code_waves

COPY = 256 << 20


def main(
    source: Annotated[Path, typer.Argument(help="File to compress.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    folder: Annotated[Path, typer.Option(help="Folder for archives and outputs; in memory, to leave disks out.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-3",
    device: Annotated[str, typer.Option(help="Device of the stages: cuda or cpu.")] = "cuda",
    devices: Annotated[str, typer.Option(help="Devices of the commands, in turn.")] = "cuda,cpu",
    ranks: Annotated[str, typer.Option(help="Numbers of ranks.")] = "1,4,8,16",
    chunks: Annotated[int, typer.Option(help="Chunks of which stages are measured, after one to warm up.")] = 8,
    repeat: Annotated[int, typer.Option(help="Turns of the commands.")] = 1,
) -> None:
    """Run the benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = Timed("cuda") if device == "cuda" else Timed("cpu", on_device=True)
    doc: dict[str, Any] = {**heading(), "device": card(backend), "copies": copies(backend)}
    doc |= {"stages": [], "commands": []}
    save(doc, out)
    for bound in bounds.split(","):
        doc["stages"].append({"bound": float(bound), **stages(source, folder / "stages.hbae", bound, backend, chunks)})
        save(doc, out)
    for bound in bounds.split(","):
        for count in (int(r) for r in ranks.split(",")):
            for turn in range(repeat):
                for place in devices.split(","):
                    row = {"bound": float(bound), "ranks": count, "device": place, "turn": turn}
                    doc["commands"].append(row | commands(source, folder, bound, count, place))
                    save(doc, out)
    print(json.dumps(doc, indent=1))


def save(doc: dict[str, Any], out: Path) -> None:
    """Write what is known so far."""
    out.write_text(json.dumps(doc, indent=1) + "\n")


class Timed(TorchBackend):
    """A backend that waits around every copy, and notes seconds and bytes of each way."""

    def __init__(self, device: str, *, on_device: bool = False) -> None:
        super().__init__(device, on_device=on_device)
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)
        self._stage = ""

    def load(self, a: Any, *, own: bool = False) -> Any:
        """Copy to the device; staging in pinned memory is apart."""
        with self.timed("in"):
            x = super().load(a, own=own)
        self.bytes["in"] += a.nbytes
        return x

    def fetch(self, x: Any) -> Any:
        """Copy to the host."""
        with self.timed("out"):
            a = super().fetch(x)
        self.bytes["out"] += a.nbytes
        return a

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count seconds, from when all before is done until all inside is; those of copies inside count there alone."""
        self.wait()
        begin, before = time.perf_counter(), self._copied()
        yield
        self.wait()
        self.seconds[f"{self._stage}{name}"] += time.perf_counter() - begin - (self._copied() - before)

    def _copied(self) -> float:
        return sum(s for k, s in self.seconds.items() if k.endswith(("in", "out")))

    def of(self, stage: str) -> None:
        """Name the way, which copies are counted for."""
        self._stage = f"{stage} "


def card(backend: TorchBackend) -> dict[str, Any]:
    """Describe the device."""
    if backend.device.type != "cuda":
        return {"name": "torch on the CPU"}
    properties: Any = torch.cuda.get_device_properties(backend.device)
    memory = round(properties.total_memory / 2**30, 1)
    return {"name": properties.name, "memory_gib": memory, "cuda": torch.version.cuda}


def copies(backend: TorchBackend) -> dict[str, float]:
    """Give the best of ten copies of 256 MiB: between pinned memory and the device, and on the device; GB/s."""
    pinned = backend.device.type == "cuda"
    there = torch.zeros(COPY, dtype=torch.uint8, device=backend.device)
    also = torch.empty_like(there)
    here = torch.zeros(COPY, dtype=torch.uint8, pin_memory=pinned)
    staged = np.zeros(COPY, np.uint8)

    def best(job: Any) -> float:
        took = []
        for _ in range(10):
            backend.wait()
            begin = time.perf_counter()
            job()
            backend.wait()
            took.append(time.perf_counter() - begin)
        return round(COPY / 1e9 / min(took), 2)

    return {
        "to_device_gb_s": best(lambda: there.copy_(here, non_blocking=True)),
        "to_host_gb_s": best(lambda: here.copy_(there, non_blocking=True)),
        "on_device_gb_s": best(lambda: also.copy_(there)),
        "host_to_pinned_gb_s": best(lambda: np.copyto(here.numpy(), staged)),
    }


def stages(source: Path, path: Path, bound: str, backend: Timed, count: int) -> dict[str, Any]:
    """Give seconds of every stage over some chunks, and what that is in GB/s."""
    hbae.compress(source, path, f"nrmse={bound}", method="linear", overwrite=True)
    backend.seconds.clear()
    backend.bytes.clear()
    raw_bytes = done = 0
    field = open_field(source)
    with Archive(path, backend="numpy") as archive:
        lossy = [p for p in archive.parts if p.group is not None]
        part = max(lossy, key=lambda p: len(p.paths) * int(np.prod(p.boxes.shape, dtype=object)))
        plan = archive.plan(part.group or 0)
        for i in range(len(part.boxes)):
            payload = archive.reader.chunk(part.first + i)
            if payload[0] != CODED or done > count:
                continue
            raw = np.stack([field.variable(p).source.read(part.boxes[i]) for p in part.paths])
            one_chunk(raw, payload, plan, backend)
            if not done:
                # The first one warms up.
                backend.seconds.clear()
                backend.bytes.clear()
            else:
                raw_bytes += raw.nbytes
            done += 1
    if done < 2:
        raise typer.BadParameter(f"{source}: fewer than two chunks are coded with loss")
    speeds = {k: round(raw_bytes / 1e9 / s, 3) for k, s in backend.seconds.items() if s}
    return {
        "plan": "wavelet" if plan.wavelet else "transform" if plan.transform else "other",
        "mixed": plan.mix is not None,
        "variables": plan.num_variables,
        "chunks": done - 1,
        "raw_bytes": raw_bytes,
        "copied_bytes": dict(backend.bytes),
        "seconds": {k: round(s, 5) for k, s in backend.seconds.items()},
        "gb_s": speeds,
        "peak_device_mb": round(torch.cuda.max_memory_allocated() / 1e6) if backend.device.type == "cuda" else None,
    }


def one_chunk(raw: Any, payload: bytes, plan: GroupPlan, backend: Timed) -> None:
    """Go through a chunk both ways, stage by stage; missing values are filled outside of the stages."""
    grid, shape = raw.shape[1:], raw.shape
    backend.of("decode")
    with backend.working():
        with backend.timed("entropy decoding"):
            r, _, _ = open_chunk(payload, shape, plan.dtype, "chunk")
            found = read_parts(r, plan, grid, backend)
        with backend.timed("arithmetic"):
            decoded = values_of(found, plan, grid, backend)
        with backend.timed("sha-256"):
            digest(decoded)
    valid = None if found.mask is None else ~found.mask
    stored, packing = raw, plan.packing
    if valid is not None:
        stored, packing = fill_invalid(physical(raw, plan), valid), ()
    backend.of("encode")
    with backend.working():
        with backend.timed("arithmetic"):
            x = load(backend, stored, packing)
        parts = Parts()
        if encodes(plan):
            with backend.timed("arithmetic"):
                if plan.wavelet is not None:
                    q = wave_integers(backend, x, plan, plan.wavelet, worth_of(plan.related, nearest=False))
                elif plan.transform is not None:
                    parts = Parts(coefs=tile_integers(backend, x, plan, plan.transform))
            with backend.timed("entropy coding"):
                coded = code_waves(q, plan.wavelet, related=plan.related) if plan.wavelet is not None else b""
                encode_parts(Parts(coefs=parts.coefs, coded_point=coded), plan, grid)
    backend.of("judge")
    with backend.working(), backend.timed("arithmetic"):
        errors_there(backend, x, decoded, valid, plan.packing)


def commands(source: Path, folder: Path, bound: str, ranks: int, device: str) -> dict[str, Any]:
    """Compress and decompress; wall seconds, seconds of the reports' stages, GB/s."""
    archive, back = folder / "a.hbae", folder / "back.zarr"
    asked = ["--bound", f"nrmse={bound}", "--method", "linear", "--threads", 1, "--device", device, "--scratch", folder]
    wall, report = run(["compress", source, "-o", archive, *asked, "-f"], ranks)
    raw = report["raw_bytes"] / 1e9
    found: dict[str, Any] = {
        "raw_bytes": report["raw_bytes"],
        "archive_bytes": archive.stat().st_size,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "compress_seconds": {k: round(s, 3) for k, s in report["seconds"].items()} | {"wall": round(wall, 3)},
        "compress_gb_s": round(raw / report["seconds"]["total"], 3),
        "encode_gb_s": round(raw / report["seconds"]["encode"], 3),
    }
    way = "cuda" if device.startswith("cuda") else "cpu"
    wall, report = run(["decompress", archive, "-o", back, "-f", "--threads", 1, "--device", way], ranks)
    found["decompress_seconds"] = {"total": round(report["seconds"], 3), "wall": round(wall, 3)}
    found["decompress_gb_s"] = round(raw / report["seconds"], 3)
    shutil.rmtree(back)
    archive.unlink()
    print(found, file=sys.stderr, flush=True)
    return found


def run(args: list[Any], ranks: int) -> tuple[float, dict[str, Any]]:
    """Run one command on that many ranks; give wall seconds and its JSON."""
    command = [sys.executable, "-m", "hbae.cli.main", *map(str, args), "--json"]
    if ranks > 1:
        command = [*launcher(ranks), *command, "--ranks"]
    begin = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    wall = time.monotonic() - begin
    if done.returncode:
        raise typer.BadParameter(f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return wall, json.loads(done.stdout)


if __name__ == "__main__":
    typer.run(main)
