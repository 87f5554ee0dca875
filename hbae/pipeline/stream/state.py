# SPDX-License-Identifier: MIT
"""What a growing file says of its stream, so that it can be finished without the program that began it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from hbae import __version__
from hbae.arrays import Array, Field
from hbae.bound import resolve_target
from hbae.codecs import ByteReader, ByteWriter, pack, unpack_json
from hbae.config import ErrorBound
from hbae.container import decode_decoder
from hbae.container.frames import MAX_JSON
from hbae.errors import FormatError
from hbae.exact import BlockDecoder
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan, decode_plan, encode_plan
from hbae.pipeline.stream.coder import CodedGroup, Coder
from hbae.pipeline.stream.layout import Layout, layout_from
from hbae.pipeline.stream.part import PartContents

_VERSION = 1


def encode_header(coder: Coder) -> tuple[dict[str, Any], bytes]:
    """Give the header of a new growing file, and the identity that ties its journal to it."""
    identity = uuid.uuid4()
    o = coder.options
    doc = {
        "stream": _VERSION,
        "package": __version__,
        "identity": identity.hex,
        "layout": coder.layout.to_json(),
        "steps": coder.steps,
        "bounds": [[p, [[b.kind, b.value, b.region] for b in bs]] for p, bs in coder.wanted.items()],
        "ranges": [[p, low, high] for p, (low, high) in o.ranges.items()],
        "preset": o.preset,
        "block": o.block,
        "chunk": o.chunk,
        "seed": o.seed,
        "redundant": o.redundant,
        "fast": o.fast,
    }
    return doc, identity.bytes


def encode_fixed(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Give the values of the variables that no step changes, as named sections."""
    for name, a in layout.fixed.items():
        yield f"fixed {name}", json.dumps(a.ravel().tolist()).encode() if a.dtype.hasobject else a.tobytes()


def encode_group(g: CodedGroup) -> bytes:
    """Give a group as the body of a section."""
    w = ByteWriter()
    doc = {"vars": g.paths, "chunk": g.chunk, "sentinels": g.sentinels}
    w.raw(pack(json.dumps(doc).encode(), 19))
    if g.plan is not None:
        w.raw(encode_plan(g.plan))
    return w.getvalue()


def restore(part: PartContents, *, overwrite: bool) -> tuple[Coder, bytes]:
    """Give the coder of a growing file, its groups as they stand, and the section of its model.

    Raises
    ------
    FormatError
        When the description is malformed.
    """
    try:
        h = part.header
        if h["stream"] != _VERSION:
            raise FormatError("the growing file was written by another version of hbae")
        layout = layout_from(h["layout"], dict(_fixed(h["layout"], part.sections)))
        options = CompressOptions(
            method="linear",
            ranges={str(p): (float(low), float(high)) for p, low, high in h["ranges"]},
            preset=h["preset"],
            block=None if h["block"] is None else tuple(h["block"]),
            chunk=h["chunk"],
            seed=h["seed"],
            redundant=h["redundant"],
            fast=h["fast"],
            overwrite=overwrite,
            threads=1,
        )
        wanted = {str(p): tuple(ErrorBound(k, x, r) for k, x, r in bs) for p, bs in h["bounds"]}
        coder = Coder(layout, int(h["steps"]), wanted, options)
        section = part.sections.get("model", b"")
        count = sum(name.startswith("group ") for name in part.sections)
        coder.groups = [_group(part.sections[f"group {i}"], section) for i in range(count)]
        return coder, section
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise FormatError(f"the growing file is malformed: {e!r}") from e


def _fixed(doc: dict[str, Any], sections: dict[str, bytes]) -> Iterator[tuple[str, Array]]:
    for v in Field.from_json(doc["field"]).variables():
        if v.path not in doc["fixed"]:
            continue
        body = sections[f"fixed {v.path}"]
        if v.dtype.hasobject:
            a = np.empty(len(json.loads(body)), object)
            a[:] = json.loads(body)
        else:
            a = np.frombuffer(body, v.dtype)
        yield v.path, a.reshape(v.shape)


def _group(body: bytes, section: bytes) -> CodedGroup:
    r = ByteReader(body)
    doc = unpack_json(r, MAX_JSON, "group")
    paths, chunk = tuple(doc["vars"]), tuple(doc["chunk"])
    rest = r.rest()
    if not rest:
        return CodedGroup(paths, chunk)
    plan: GroupPlan = decode_plan(rest, lambda sha: _decoder(sha, section))
    targets = tuple(resolve_target(b, float(s)) for b, s in zip(plan.bounds, plan.span, strict=True))
    sentinels = tuple(tuple(s) for s in doc["sentinels"])
    return CodedGroup(paths, chunk, plan.geometry, plan, targets, sentinels)


def _decoder(sha: str, section: bytes) -> BlockDecoder:
    if hashlib.sha256(section).hexdigest() != sha:
        raise FormatError("the growing file holds another model than its plan names")
    return decode_decoder(section)
