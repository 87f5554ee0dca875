# SPDX-License-Identifier: MIT
"""Small files that ask for much: refused within a small part of the memory that they ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Tiling
from hbae.blocks import MAX_VALUES, Preset, choose_preset, plan_geometry
from hbae.codecs import ByteReader, ByteWriter, pack, unpack
from hbae.container import ArchiveReader, decode_decoder
from hbae.container.frames import CHUNK, FRAME, HEADER, frame, prelude
from hbae.container.sections import encode_arrays
from hbae.errors import ConfigError, FieldError, FormatError
from hbae.exact import Wavelet
from hbae.pipeline.archive import Archive
from hbae.pipeline.waves import decode_waves

from .hostile_files import Parts, as_json

SIDE = 1 << 14


def with_shape(parts: Parts, shape: list[int], chunk: list[int]) -> None:
    """Let a one-variable archive declare another grid in header and plan."""
    group = parts.header["field"]["groups"][0]
    first = next(v for v in group["vars"] if v["name"] == "p")
    first["shape"] = shape
    group["dims"] = [[d[0], n, d[2]] for d, n in zip(group["dims"], shape, strict=True)]
    parts.header["groups"][0]["chunk"] = chunk
    name, body = next((n, b) for n, b in parts.sections if n == "group 0")
    r = ByteReader(body)
    doc = json.loads(unpack(r, 1 << 20))
    doc["geometry"] |= {"shape": shape, "chunk": chunk}
    parts.sections = [(n, as_json(doc) + r.rest() if n == name else b) for n, b in parts.sections]


def many_values(parts: Parts) -> None:
    """One chunk of 2**28 one-byte values, of which every one is a constant token that costs nothing."""
    with_shape(parts, [SIDE, SIDE], [SIDE, SIDE])
    tables = ByteWriter()
    for n in (1, 2):
        tables.varint(n)
    labels = np.zeros(560, "<u2")
    labels[[0, 1, 5]] = 1
    tables.raw(labels.tobytes())
    tables.varint(0)
    w = ByteWriter()
    w.raw(parts.chunks[0][:33] + bytes([32]))
    w.raw(pack(b"\xff" * (SIDE // 8)))
    w.raw(pack(tables.getvalue()))
    w.part(b"")
    w.part(b"")
    parts.chunks[0] = w.getvalue()


def text_of(content: bytes) -> Callable[[Parts], None]:
    """Put other JSON where the text of the variable is."""

    def change(parts: Parts) -> None:
        r = ByteReader(dict(parts.sections)["values"])
        r.part()
        w = ByteWriter()
        w.part(pack(content))
        parts.sections = [(n, w.getvalue() if n == "values" else b) for n, b in parts.sections]

    return change


def extra(content: bytes) -> Callable[[Parts], bytes]:
    return lambda parts: pack(as_text(parts.header)[:-1] + b',"more":' + content + b"}")


def as_text(doc: Any) -> bytes:
    return unpack(ByteReader(as_json(doc)), 1 << 20)


def many(item: bytes, mib: int) -> bytes:
    """A JSON list of one item again and again."""
    n = (mib << 20) // (len(item) + 1)
    return b"[" + b",".join([item] * n) + b"]"


BOMBS: dict[str, Callable[[Parts], bytes | None]] = {
    "values": many_values,
    "text": text_of(b'["' + b"a" * (1 << 30) + b'"]'),
    "texts": text_of(many(b'""', 60)),
    "lists in the header": extra(many(b"[[[[[[]]]]]]", 60)),
    "numbers in the header": extra(many(b"1e9", 60)),
    "objects in the header": extra(many(b'{"":0}', 60)),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with packed bytes and a text."""
    path = tmp_path_factory.mktemp("small") / "s.hbae"
    p = np.arange(64, dtype="i1").reshape(8, 8)
    ds = xr.Dataset({"p": (("a", "b"), p, {"scale_factor": 0.5}), "s": ((), np.array("x", object))})
    hbae.compress(ds, path, "p:abs=2", method="linear")
    assert hbae.info(path)["groups"]
    return path


MEASURE = """
import resource, sys
import xarray, hbae
from hbae.errors import FormatError
hbae.decompress(sys.argv[1], backend="numpy")
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    for act in (hbae.decompress, hbae.info, hbae.verify):
        try:
            found = act(path, backend="numpy")
        except FormatError:
            continue
        assert act is hbae.info or (act is hbae.verify and not found.ok), path
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def memory_for(good: Path, *bad: Path) -> int:
    """MiB that reading takes more than before, every file being refused."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(good), *map(str, bad)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs(name: str, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    parts = Parts(small)
    header = BOMBS[name](parts)
    parts.build(path, header)
    assert path.stat().st_size < 200_000
    assert memory_for(small, path) < 256


def test_an_index_of_many_values(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    more = b',"more":' + many(b"[0,0]", 60) + b"}"
    Parts(small).build(path, None, lambda t: pack(as_text(t)[:-1] + more))
    assert memory_for(small, path) < 256


def test_salvage_takes_no_memory_for_chunks_that_are_not_there(small: Path, tmp_path: Path) -> None:
    parts = Parts(small)
    with_shape(parts, [1 << 13, 1 << 11], [1, 1])
    parts.build(tmp_path / "bad.hbae")
    with pytest.raises(FormatError, match="more chunks"):
        Archive(tmp_path / "bad.hbae", salvage=True)


def test_boxes_are_made_when_they_are_asked_for() -> None:
    boxes = Tiling((1 << 40, 7), (1, 3))
    assert boxes.counts == (1 << 40, 3)
    assert boxes[5] == (slice(1, 2), slice(6, 7))
    assert list(boxes.meeting((slice(1, 3), slice(2, 4)))) == [3, 4, 6, 7]
    assert list(boxes.meeting((slice(5, 5), slice(0, 7)))) == []
    few = Tiling((3, 4), (2, 3))
    assert [few[i] for i in range(len(few))] == list(few)
    assert list(Tiling((), ())) == [()]
    assert len(Tiling((0, 4), (0, 4))) == 0


def test_a_frame_that_declares_more_than_the_file_has(tmp_path: Path) -> None:
    head = frame(HEADER, 0, b"")[: FRAME.size]
    fields = FRAME.unpack(head)
    body = FRAME.pack(*fields[:4], 1 << 62, *fields[5:])[:24]
    path = tmp_path / "bad.hbae"
    path.write_bytes(prelude() + body + crc(body) + frame(CHUNK, 1 << 31, b"x") * 3 + bytes(40))
    with pytest.raises(FormatError, match="no intact copy"):
        ArchiveReader(path, salvage=True)


def crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def test_models_that_declare_too_much() -> None:
    wide = {"hyper.0.weight": np.zeros((1 << 12, 1 << 12), np.int64), "hyper.0.bias": np.zeros(1, np.int64)}
    with pytest.raises(FormatError, match="too many numbers"):
        decode_decoder(encode_arrays({}, wide))
    names = {f"{i}": np.zeros(1, np.int64) for i in range(2000)}
    with pytest.raises(FormatError, match="cannot be"):
        decode_decoder(encode_arrays({}, names))
    cube = {"a": np.zeros((1, 1, 1), np.int64)}
    with pytest.raises(FormatError, match="cannot be"):
        decode_decoder(encode_arrays({}, cube))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1"])
@pytest.mark.parametrize(
    "shape", [(1 << 26,), (1, 1 << 27), (600, 721, 1440), (9000, 9000), (64,) * 5, (3, 5000, 5000)]
)
@pytest.mark.parametrize("variables", [1, 2, 50])
def test_chunks_stay_below_the_limit_of_values(dtype: str, shape: tuple[int, ...], variables: int) -> None:
    size = np.dtype(dtype).itemsize
    preset = choose_preset("auto", shape, variables)
    g = plan_geometry(shape, variables, size, preset, chunk_mib=128)
    assert g.padded(g.chunk) * variables <= MAX_VALUES
    long = Preset("model", tuple(max(1, min(n, 9)) for n in shape), (4,) * len(shape))
    g = plan_geometry(shape, variables, size, long, chunk_mib=128, padded=True)
    assert (g.block, g.hyper) == (long.block, long.hyper)
    assert g.padded(g.chunk) * variables <= max(MAX_VALUES, variables * 36 ** len(shape))


def test_blocks_that_no_reader_takes_are_refused(tmp_path: Path) -> None:
    x = np.broadcast_to(np.arange(5000, dtype="f4"), (5000, 5000))
    with pytest.raises(ConfigError, match="block"):
        hbae.compress(xr.Dataset({"x": (("a", "b"), x)}), tmp_path / "a.hbae", "abs=1", block=(5000, 5000))
    assert list(tmp_path.iterdir()) == []


def test_more_chunks_than_an_archive_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbae.pipeline.compress.MAX_CHUNKS", 3)
    x = np.sin(np.arange(200_000, dtype="f4")).reshape(200, 1000)
    with pytest.raises(ConfigError, match="chunk"):
        hbae.compress(xr.Dataset({"x": (("a", "b"), x)}), tmp_path / "a.hbae", "abs=1e-2", chunk=0.0625)


def test_texts_and_headers_that_no_reader_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = xr.Dataset({"s": (("n",), np.array(["a" * 900, "b"], object))}, attrs={"title": "x" * 5000})
    monkeypatch.setattr("hbae.pipeline.exactvars.MAX_TEXT", 500)
    with pytest.raises(FieldError, match="text"):
        hbae.compress(ds, tmp_path / "a.hbae", "abs=1")
    monkeypatch.setattr("hbae.container.layout.MAX_JSON", 4000)
    with pytest.raises(FieldError, match="header"):
        hbae.compress(ds, tmp_path / "a.hbae", "abs=1")
    assert list(tmp_path.iterdir()) == []


def test_values_that_memory_does_not_hold_are_told(tmp_path: Path) -> None:
    x = xr.Dataset({"n": (("a", "b"), np.zeros((300, 300), "i4"))})
    hbae.compress(x, tmp_path / "a.hbae", "abs=1")
    parts = Parts(tmp_path / "a.hbae")
    group = parts.header["field"]["groups"][0]
    group["vars"][0]["shape"] = [1 << 30, 1 << 30]
    group["dims"] = [[d[0], 1 << 30, d[2]] for d in group["dims"]]
    parts.header["exact"] = [["n", [1 << 30, 1 << 30]]]
    parts.build(tmp_path / "bad.hbae")
    with pytest.raises(FieldError, match="memory"):
        hbae.decompress(tmp_path / "bad.hbae")


@pytest.mark.parametrize(
    ("shape", "related"),
    [((31, *(9,) * 6), True), ((1 << 18, *(1,) * 6), True), ((1 << 20, *(1,) * 6), False), ((200000, *(3,) * 4), True)],
)
def test_bands_that_are_mostly_borders_are_refused(shape: tuple[int, ...], related: bool) -> None:
    """A few bytes say that all bands of all variables hold something: nothing is allocated for their borders."""
    wavelet = Wavelet((tuple(range(len(shape) - 1)),))
    bits = len(wavelet.bands(shape[1:])) * shape[0]
    coded = pack(b"\xff" * (bits // 8) + bytes([255 << -bits % 8 & 255]) * (bits % 8 > 0), 19)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="borders"):
            decode_waves(ByteReader(coded), shape, wavelet, related=related)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
