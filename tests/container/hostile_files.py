# SPDX-License-Identifier: MIT
"""Archives spoiled on purpose, all checksums right: seeded changes of header, index, sections and chunks."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from hbae.codecs import ByteReader, ByteWriter, pack, unpack
from hbae.container import ArchiveReader
from hbae.container.frames import CHUNK, END_MARK, HEADER, INDEX, SECTION, TAIL, frame, prelude

ZSTD = b"\x28\xb5\x2f\xfd"
ODD: list[Any] = [
    0, 1, -1, 2, 7, 255, 2**15, 2**24, 2**31, 2**40, 2**62, 2**63, 2**70, -(2**63), 0.5, 1e308, float("inf"),
    float("nan"), True, False, None, "", "x", "\ud800", "<f8", "|S0", "|O", ">i2", "none", "klt", [], [0], [[]], {},
    [1] * 40, {"a": 1},
]  # fmt: skip


class Parts:
    """Header, sections and chunks of an archive, to be changed and written again."""

    def __init__(self, path: Path) -> None:
        with ArchiveReader(path) as r:
            self.header: Any = r.header
            self.sections = [(n, r.section(n)) for n in r.section_names()]
            self.chunks = [r.chunk(i) for i in range(r.num_chunks)]

    def change_section(self, i: int, rng: random.Random) -> None:
        """Change a section; a model's new name is put where plans ask for the old one."""
        name, body = self.sections[i]
        body = change_plan(body, rng) if name.startswith("group ") else change_bytes(body, rng, 0)
        if name.startswith("model "):
            sha = hashlib.sha256(body).hexdigest()
            name = f"model {sha[:16]}"
            self.sections = [(n, with_model(b, sha) if n.startswith("group ") else b) for n, b in self.sections]
        self.sections[i] = (name, body)

    def build(self, out: Path, header: bytes | None = None, index: Callable[[Any], Any] = lambda t: t) -> None:
        """Write the archive."""
        data = bytearray(prelude())

        def put(kind: int, number: int, payload: bytes) -> list[int]:
            start = len(data)
            data.extend(frame(kind, number, payload))
            return [start, len(data) - start]

        place = put(HEADER, 0, as_json(self.header) if header is None else header)
        listing = []
        for i, (name, body) in enumerate(self.sections):
            w = ByteWriter()
            w.part(name.encode())
            w.raw(body)
            listing.append([name, *put(SECTION, i, w.getvalue())])
        spots = [put(CHUNK, i, c) for i, c in enumerate(self.chunks)]
        table = index({"header": place, "copy": None, "sections": listing, "chunks": spots})
        offset, length = put(INDEX, 0, table if isinstance(table, bytes) else as_json(table))
        body = TAIL.pack(offset, length, len(data) + TAIL.size, 0, END_MARK)[:24]
        out.write_bytes(bytes(data) + body + zlib.crc32(body).to_bytes(4, "little") + END_MARK)


def as_json(doc: Any) -> bytes:
    """JSON as a packed part."""
    return pack(json.dumps(doc).encode())


def spoil(path: Path, out: Path, seed: int) -> str:
    """Write an archive again with one to three seeded changes; tells what was changed."""
    rng = random.Random(seed)
    parts = Parts(path)
    done, header, index = [], None, lambda t: t
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = ["header", "index", *(["section"] * 6), *(["chunk"] * 6 if parts.chunks else [])]
        place = rng.choice(places)
        if place == "header":
            parts.header = change_json(parts.header, rng)
        elif place == "index":
            index = lambda t: change_json(t, rng)  # noqa: E731
        elif place == "section":
            i = rng.randrange(len(parts.sections))
            parts.change_section(i, rng)
        else:
            i = rng.randrange(len(parts.chunks))
            parts.chunks[i] = change_bytes(parts.chunks[i], rng, 33)
        done.append(place)
    parts.build(out, header, index)
    return "+".join(done)


def change_json(doc: Any, rng: random.Random) -> Any:
    """Put something odd at a random place of a JSON value."""
    if isinstance(doc, dict) and doc and rng.random() < 0.92:
        key = rng.choice(sorted(doc))
        if rng.random() < 0.06:
            return {k: v for k, v in doc.items() if k != key}
        return {**doc, key: change_json(doc[key], rng)}
    if isinstance(doc, list) and doc and rng.random() < 0.92:
        i = rng.randrange(len(doc))
        if rng.random() < 0.1:
            return rng.choice([doc[:i] + doc[i + 1 :], [*doc, doc[i]], doc[::-1]])
        return [*doc[:i], change_json(doc[i], rng), *doc[i + 1 :]]
    if isinstance(doc, int) and not isinstance(doc, bool) and rng.random() < 0.5:
        return rng.choice([doc + 1, doc - 1, doc * 2, doc * 1000, -doc, doc + 2**20])
    return rng.choice(ODD)


def change_bytes(data: bytes, rng: random.Random, fixed: int) -> bytes:
    """Change bytes behind the first ``fixed`` ones: inside a compressed part where there is one, or as they are."""
    spots = packed_parts(data, fixed)
    if spots and rng.random() < 0.7:
        start, stop, content = rng.choice(spots)
        return data[:start] + pack(change_content(content, rng)) + data[stop:]
    return data[:fixed] + damage(data[fixed:], rng)


def packed_parts(data: bytes, fixed: int) -> list[tuple[int, int, bytes]]:
    """Start, stop and content of every zstd frame that stands as a packed part."""
    found = []
    at = data.find(ZSTD, fixed)
    while at >= 0:
        d = zstandard.ZstdDecompressor().decompressobj()
        try:
            content = d.decompress(data[at:])
        except zstandard.ZstdError:
            content = b""
        length = len(data) - at - len(d.unused_data)
        w = ByteWriter()
        w.varint(len(content) * 2 + 1)
        w.varint(length)
        head = w.getvalue()
        if content and data[:at].endswith(head):
            found.append((at - len(head), at + length, content))
        at = data.find(ZSTD, at + 4)
    return found


def change_content(content: bytes, rng: random.Random) -> bytes:
    """Change JSON as JSON and anything else as bytes."""
    try:
        doc = json.loads(content)
    except ValueError:
        return damage(content, rng)
    return json.dumps(change_json(doc, rng)).encode()


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change, put in, or take out a few bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not out:
            return bytes([rng.randrange(256)])
        # The front of a part holds what governs the rest.
        i = min(rng.randrange(len(out)), rng.choice((4, 16, 64, len(out))))
        i = min(i, len(out) - 1)
        kind = rng.randrange(6)
        if kind == 0:
            out[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[i] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            out[i : i + 8] = rng.choice(
                (b"\xff" * 8, bytes(8), b"\0\0\0\0\0\0\xf0\x7f", b"\xff\xff\xff\xff\xff\xff\xff\x7f")
            )
        elif kind == 3:
            del out[i : i + rng.choice((1, 4, 16))]
        elif kind == 4:
            out[i:i] = rng.randbytes(rng.choice((1, 4, 9)))
        else:
            out += rng.randbytes(rng.choice((1, 4)))
    return bytes(out)


def change_plan(body: bytes, rng: random.Random) -> bytes:
    """Change the JSON, the numbers or a basis of a plan, lengths set right."""
    r = ByteReader(body)
    pieces = [unpack(r, 1 << 26), unpack(r, 1 << 26)]
    bases = []
    while rest := r.rest():
        r = ByteReader(rest)
        bases.append(r.part())
    i = rng.randrange(2 + 3 * len(bases))
    if i < 2:
        pieces[i] = change_content(pieces[i], rng)
    else:
        bases[(i - 2) // 3] = change_bytes(bases[(i - 2) // 3], rng, 0)
    w = ByteWriter()
    for piece in pieces:
        w.raw(pack(piece))
    for basis in bases:
        w.part(basis)
    return w.getvalue()


def with_model(body: bytes, sha: str) -> bytes:
    """Let a plan that names a model name this one."""
    r = ByteReader(body)
    doc = json.loads(unpack(r, 1 << 26))
    return body if doc["model"] is None else as_json({**doc, "model": sha}) + r.rest()
