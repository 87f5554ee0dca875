# SPDX-License-Identifier: MIT
"""Files made to do harm, with right checksums: a clear error and little memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

import hbae
from hbae.blocks import Geometry
from hbae.codecs import ByteReader, ByteWriter, pack, unpack
from hbae.container.frames import MAGIC
from hbae.errors import FormatError, UnsupportedVersionError
from hbae.pipeline.archive import Archive

from .hostile_files import Parts

Doc = dict[str, Any]


def rebuild(
    path: Path, out: Path, *, header: Any = None, index: Any = None, spoil: Callable[[str, bytes], bytes] | None = None
) -> None:
    """Write the archive again with other JSON and payloads, all checksums right."""
    parts = Parts(path)
    if spoil is not None:
        parts.sections = [(n, spoil(n, b)) for n, b in parts.sections]
        parts.chunks = [spoil(f"chunk {i}", c) for i, c in enumerate(parts.chunks)]
    if callable(header):
        parts.header = header(parts.header)
    table = (lambda t: t) if index is None else index if callable(index) else lambda t: index
    parts.build(out, header if isinstance(header, bytes) else None, table)


def bomb(size: int) -> bytes:
    """A part of a few bytes that declares and gives ``size`` zeros."""
    w = ByteWriter()
    c = zstandard.ZstdCompressor(level=19, write_content_size=True).compressobj(size=size)
    block = bytes(1 << 20)
    frame_bytes = b"".join(c.compress(block) for _ in range(size >> 20)) + c.flush()
    w.varint(size * 2 + 1)
    w.part(frame_bytes)
    return w.getvalue()


def lying(real: int, told: int) -> bytes:
    """A part whose varint tells less than its frame holds."""
    w = ByteWriter()
    w.varint(told * 2 + 1)
    w.part(zstandard.ZstdCompressor().compress(bytes(real)))
    return w.getvalue()


def changed(**parts: Any) -> Callable[[Doc], Doc]:
    return lambda doc: {**doc, **parts}


def with_var(**parts: Any) -> Callable[[Doc], Doc]:
    def change(doc: Doc) -> Doc:
        group = doc["field"]["groups"][0]
        first = {**group["vars"][0], **parts}
        field = {**doc["field"], "groups": [{**group, "vars": [first, *group["vars"][1:]]}]}
        return {**doc, "field": field}

    return change


def test_a_file_written_again_as_it_was_decodes(tiny: Path, tmp_path: Path) -> None:
    rebuild(tiny, tmp_path / "b.hbae")
    assert hbae.decompress(tmp_path / "b.hbae").equals(hbae.decompress(tiny))


BAD_INDEX: dict[str, Any] = {
    "gap": lambda t: {**t, "chunks": [[t["chunks"][0][0] + 1, t["chunks"][0][1] - 1]]},
    "overlap": lambda t: {**t, "chunks": [t["sections"][0][1:]]},
    "twice": lambda t: {**t, "chunks": t["chunks"] * 2},
    "far": lambda t: {**t, "chunks": [[2**62, 2**62]]},
    "negative": lambda t: {**t, "chunks": [[-5, 10]]},
    "huge": lambda t: {**t, "chunks": [[t["chunks"][0][0], 2**63]]},
    "no chunks": lambda t: {**t, "chunks": []},
    "float": lambda t: {**t, "chunks": [[1e400, 5]]},
    "null": lambda t: {**t, "chunks": None},
    "wrong header": lambda t: {**t, "header": t["chunks"][0]},
    "text": lambda t: {**t, "sections": "x"},
    "short": lambda t: {**t, "sections": [[1]]},
    "list": lambda t: [t],
    "copy": lambda t: {**t, "copy": [1]},
    "swap": lambda t: {
        **t,
        "sections": [[a[0], *b[1:]] for a, b in zip(t["sections"], t["sections"][::-1], strict=True)],
    },
    "deep": pack(b'{"header":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not json": pack(b"\xff\xfe"),
    "bomb": bomb(512 << 20),
    "lying": lying(1 << 20, 100),
    "empty": b"",
}

BAD_HEADER: dict[str, Any] = {
    "empty": changed(field={}),
    "no groups": lambda d: {k: v for k, v in d.items() if k != "groups"},
    "groups of text": changed(groups="abc"),
    "unknown variable": changed(groups=[{"vars": ["nope"], "chunk": [1, 1]}]),
    "no variables": changed(groups=[{"vars": [], "chunk": [1, 1]}]),
    "zero step": lambda d: {**d, "groups": [{**d["groups"][0], "chunk": [0, 5]}]},
    "tiny step": lambda d: {**d, "groups": [{**d["groups"][0], "chunk": [1, 1]}]},
    "rank": lambda d: {**d, "groups": [{**d["groups"][0], "chunk": [5]}]},
    "step of text": lambda d: {**d, "groups": [{**d["groups"][0], "chunk": ["x", "y"]}]},
    "exact unknown": changed(exact=[["nope", [1]]]),
    "exact text": changed(exact="x"),
    "huge shape": with_var(shape=[2**40, 2**40]),
    "endless shape": with_var(shape=[1e400, 4]),
    "field of lists": changed(field={"format": "x", "extra": {}, "groups": [[1]]}),
    "attrs of numbers": with_var(attrs=[5]),
    "negative shape": with_var(shape=[-1, 4]),
    "large shape": with_var(shape=[1 << 16, 1 << 16]),
    "rank 40": with_var(shape=[1] * 40, dims=["a"] * 40),
    "object": with_var(dtype="|V8"),
    "dtype": with_var(dtype="evil"),
    "wide text": with_var(dtype="<U1000000"),
    "other type": with_var(dtype="<f8"),
    "dtype list": with_var(dtype=["<f4"]),
    "attrs": with_var(attrs=[["a"]]),
    "attr base64": with_var(attrs=[["a", "<f8", [1], "!!!"]]),
    "attr size": with_var(attrs=[["a", "<f8", [1 << 40], "AAAA"]]),
    "dims": with_var(dims=None),
    "list": lambda d: [d],
    "deep": pack(b"[" * 200_000 + b"]" * 200_000),
    "nan": pack(b"NaN"),
    "bomb": bomb(256 << 20),
}


@pytest.mark.parametrize("name", sorted(BAD_INDEX))
def test_bad_indexes(name: str, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    rebuild(tiny, path, index=BAD_INDEX[name])
    with pytest.raises(FormatError):
        hbae.decompress(path)
    try:
        assert any("damaged" in g for g in hbae.info(path)["groups"])
    except FormatError:
        return


@pytest.mark.parametrize("name", sorted(BAD_HEADER))
def test_bad_headers(name: str, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    rebuild(tiny, path, header=BAD_HEADER[name])
    with pytest.raises(FormatError):
        hbae.decompress(path)


def spoilers() -> dict[str, Callable[[str, bytes], bytes]]:
    """Changes of sections and chunks by name."""

    def plan(change: Callable[[Doc], Doc]) -> Callable[[str, bytes], bytes]:
        def spoil(name: str, body: bytes) -> bytes:
            if not name.startswith("group"):
                return body
            r = ByteReader(body)
            doc = json.loads(unpack(r, 1 << 20))
            return pack(json.dumps(change(doc)).encode()) + r.rest()

        return spoil

    def geometry(**kw: Any) -> Callable[[str, bytes], bytes]:
        return plan(lambda d: {**d, "geometry": {**d["geometry"], **kw}})

    return {
        "chunk bomb": lambda n, b: b[:33] + bomb(300 << 20) if n.startswith("chunk") else b,
        "chunk empty": lambda n, b: b"" if n.startswith("chunk") else b,
        "chunk kind": lambda n, b: b"\7" + b[1:] if n.startswith("chunk") else b,
        "chunk more": lambda n, b: b + b"\0" if n.startswith("chunk") else b,
        "chunk flags": lambda n, b: b[:33] + b"\xff" + b[34:] if n.startswith("chunk") else b,
        "chunk hash": lambda n, b: b[:1] + bytes(32) + b[33:] if n.startswith("chunk") else b,
        "group bomb": lambda n, b: bomb(256 << 20) if n.startswith("group") else b,
        "group deep": lambda n, b: pack(b"[" * 200_000) if n.startswith("group") else b,
        "values bomb": lambda n, b: bomb(256 << 20) if n == "values" else b,
        "tile": geometry(tile=[1 << 30, 1 << 30]),
        "block": geometry(block=[1 << 40, 1]),
        "hyper": geometry(hyper=[1 << 40, 1]),
        "endless": geometry(block=[1e400, 1]),
        "endless bound": plan(lambda d: {**d, "bounds": [[["abs", 1e400]]]}),
        "zero": geometry(block=[0, 1]),
        "geometry rank": geometry(block=[1]),
        "levels": plan(lambda d: {**d, "levels": [[0, 5], True, [64]]}),
        "levels steps": plan(lambda d: {**d, "levels": [[0, 1], True, [0]]}),
        "diff": plan(lambda d: {**d, "diff": [7]}),
        "bounds": plan(lambda d: {**d, "bounds": [[["nope", 1]]]}),
        "domain": plan(lambda d: {**d, "domain": "cubic"}),
        "packing": plan(lambda d: {**d, "packing": []}),
        "model": plan(lambda d: {**d, "transform": True, "gae": True}),
        "dtype": plan(lambda d: {**d, "dtype": "<i4"}),
    }


@pytest.mark.parametrize("name", sorted(spoilers()))
def test_bad_sections_and_chunks(name: str, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    rebuild(tiny, path, spoil=spoilers()[name])
    with pytest.raises(FormatError):
        hbae.decompress(path)
    try:
        assert not hbae.verify(path).ok
    except FormatError:
        return


def test_hostile_files_take_little_memory(tiny: Path, tmp_path: Path) -> None:
    """Every bomb is refused in a process that has the small archive's needs and 64 MiB."""
    paths = []
    for name, kw in {
        "index": {"index": BAD_INDEX["bomb"]},
        "header": {"header": BAD_HEADER["large shape"]},
        "rank": {"header": BAD_HEADER["huge shape"]},
        **{n: {"spoil": s} for n, s in spoilers().items() if "bomb" in n or n in ("tile", "block", "hyper")},
    }.items():
        path = tmp_path / f"{name.replace(' ', '_')}.hbae"
        rebuild(tiny, path, **kw)
        paths.append(str(path))
    code = """
import resource, sys, hbae, xarray
from hbae.errors import FormatError
hbae.decompress(sys.argv[1], backend="numpy")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        hbae.decompress(path, backend="numpy")
    except FormatError:
        continue
    sys.exit(f"{path} decoded")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny), *paths], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64, "MiB"


def test_a_newer_format_is_told(tiny: Path, tmp_path: Path) -> None:
    head = MAGIC + struct.pack("<HH", 9, 9)
    path = tmp_path / "new.hbae"
    path.write_bytes(head + struct.pack("<I", zlib.crc32(head)) + tiny.read_bytes()[16:])
    with pytest.raises(UnsupportedVersionError, match="format 9"):
        hbae.info(path)


def test_a_grid_without_axes_is_no_plan(tiny: Path) -> None:
    """One value: pieces of a stage and the whole of it would be scaled differently."""
    with Archive(tiny) as a:
        plan = a.plan(0)
    none = Geometry(shape=(), block=(), hyper=(), tile=(), chunk=())
    with pytest.raises(FormatError, match="without axes"):
        replace(plan, geometry=none)


def test_related_variables_need_a_wavelet(tiny: Path) -> None:
    with Archive(tiny) as a:
        plan = a.plan(0)
    assert plan.wavelet is None
    with pytest.raises(FormatError, match="without a wavelet"):
        replace(plan, related="contexts")
