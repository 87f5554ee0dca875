# SPDX-License-Identifier: MIT
"""A reader of archives written from docs/format.md alone: NumPy, zstandard and the standard library.

Slow and small: it shows that the page is complete. ``python tests/reference_reader.py FILE OUT_DIR`` writes .npy files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import struct
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from reference_codes import (
    BIT_LENGTH,
    Bytes,
    Symbols,
    bits_of,
    coefficients,
    expected_from,
    integers,
    inverse,
    lossless,
    mask_of,
    named,
    need,
    phased,
    sizes,
    summed,
    transform_of,
)

# Section 1: file and frames.


def frame_at(data, offset, length, kind, number):
    head = data[offset : offset + 28]
    mark, k, zero, n, size, crc, own = struct.unpack("<4sB3sIQII", head)
    need(mark == b"HBfr" and zero == b"\0\0\0" and zlib.crc32(head[:24]) == own, "damaged frame")
    need((k, n, size + 28) == (kind, number, length), "another frame")
    payload = data[offset + 28 : offset + length]
    need(len(payload) == size and zlib.crc32(payload) == crc, "damaged payload")
    return payload


def json_of(payload):
    r = Bytes(payload)
    doc = json.loads(r.packed(64 << 20))
    r.end()
    return doc


def read_file(data):
    """Header, sections by name, chunks."""
    magic, _, minimum, crc = struct.unpack("<8sHHI", data[:16])
    need(magic == b"\x89HBAE\r\n\n" and zlib.crc32(data[:12]) == crc and minimum <= 1, "bad prelude")
    offset, length, total, crc, mark = struct.unpack("<QQQI4s", data[-32:])
    need(mark == b"HBnd" and zlib.crc32(data[-32:-8]) == crc, "bad tail")
    need(total == len(data) and offset + length + 32 == total, "cut file")
    index = json_of(frame_at(data, offset, length, 4, 0))
    header = json_of(frame_at(data, *index["header"], 1, 0))
    places = [index["header"], *([index["copy"]] if index["copy"] else [])]
    places += [s[1:] for s in index["sections"]] + index["chunks"]
    at = 16
    for o, n in sorted(places):
        need(o == at, "gap or overlap")
        at = o + n
    need(at + (length if index["copy"] else 0) == offset, "index does not cover the file")
    sections = {}
    for i, (name, o, n) in enumerate(index["sections"]):
        r = Bytes(frame_at(data, o, n, 2, i))
        need(r.part().decode() == name, "another section")
        sections.setdefault(name, r.raw(len(r.data) - r.at))
    return header, sections, [frame_at(data, o, n, 3, i) for i, (o, n) in enumerate(index["chunks"])]


# Section 10: interpolation.


def interpolated(r, shape, levels):
    order, cubic, steps = levels
    grid = shape[1:]
    need(sorted(order) == list(range(len(grid))), "bad order of axes")
    top = max(0, (max(grid, default=1) - 1).bit_length())
    symbols = Symbols(r, 10880)
    t, q = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def step(level):
        return steps[min(level, len(steps) - 1)]

    corner = (slice(None), *(slice(0, 1) for _ in grid))
    k = symbols.step(np.full(t[corner].shape, 10879))
    t[corner], q[corner] = k * step(top), sizes(k)
    for level in range(top - 1, -1, -1):
        s = 1 << level
        for place, axis in enumerate(order):
            if grid[axis] <= s:
                continue
            known = [slice(0, None, s if a in order[:place] else 2 * s) for a in range(len(grid))]
            target = list(known)
            target[axis] = slice(s, None, 2 * s)
            known, target = (slice(None), *known), (slice(None), *target)
            x, near = np.moveaxis(t[known], axis + 1, 0), np.moveaxis(q[known], axis + 1, 0)
            want = np.moveaxis(t[target], axis + 1, 0)
            guess, slope, around = np.zeros_like(want), np.zeros_like(want), near[: len(want)].copy()
            for i in range(len(want)):
                b, before, after = x[i], i > 0, i + 2 < len(x)
                if i + 1 == len(x):
                    guess[i] = b + ((b - x[i - 1]) >> 1) if before else b
                    slope[i] = np.abs(b - x[i - 1]) if before else 0
                    continue
                c = x[i + 1]
                slope[i] = np.abs(c - b)
                around[i] += near[i + 1]
                if cubic and before and after:
                    guess[i] = (-x[i - 1] + 9 * b + 9 * c - x[i + 2] + 8) >> 4
                elif cubic and after:
                    guess[i] = (3 * b + 6 * c - x[i + 2] + 4) >> 3
                elif cubic and before:
                    guess[i] = (-x[i - 1] + 6 * b + 3 * c + 4) >> 3
                else:
                    guess[i] = (b + c + 1) >> 1
            rough = BIT_LENGTH[np.minimum(slope >> 6, 32767)]
            limits = [1, 2, 4, 8, 16, 32, 64, 128, 224, 320, 416, 512, 608, 704, 800, 896]
            ctx = 272 * min(level, 7) + 16 * np.searchsorted(limits, around, side="right") + rough
            ctx = 5 * np.moveaxis(ctx, 0, axis + 1)
            k = np.zeros_like(ctx)
            for mine, guide in guided(k):
                k[mine] = symbols.step(ctx[mine] + np.searchsorted([2, 8, 24, 64], guide, side="right"))
            t[target] = np.moveaxis(guess, 0, axis + 1) + k * step(level)
            q[target] = sizes(k)
    symbols.end()
    return t


def guided(q, few=2**62):
    """Sets of variables of q (V, ...), which the caller fills in, each with the guide from those before (0: none)."""
    first, count, guide = 0, 1, 0
    while first < len(q):
        mine = slice(first, first + count) if first < few else slice(first, len(q))
        yield mine, guide
        mean = 16 * sizes(q[mine]).sum(0) // len(q[mine])
        guide = (3 * mean + guide) >> 2 if first else mean
        first, count = mine.stop, 2 * count


# Section 11: block decoder.


class Net:
    def __init__(self, doc, name, arrays):
        self.doc, self.layers = doc, []
        for i, item in enumerate(doc["layers"]):
            self.layers.append((item, *(arrays.get(f"{name}.{i}.{p}") for p in ("weight", "bias", "shift"))))
        self.latents = self.layers[0][1].shape[1]
        self.prove()

    def prove(self):
        amax = max(abs(self.doc["lo"]), abs(self.doc["hi"]))
        for item, weight, bias, _ in self.layers:
            if item[0] == "linear":
                need((amax * np.abs(weight).sum(1) + np.abs(bias)).max(initial=0) < 2**53, "a sum can overflow")
                amax = max(abs(item[2]), abs(item[3]))

    def run(self, z):
        a = np.clip(z, self.doc["lo"], self.doc["hi"]).astype(np.float64)
        for item, weight, bias, shift in self.layers:
            if item[0] == "split":
                a = a.reshape(a.shape[0] * item[1], -1)
                continue
            a = (a @ weight.T.astype(np.float64) + bias) * np.ldexp(1.0, -shift)
            if item[1] != "none":
                a = np.maximum(a, 0 if item[1] == "relu" else a / 8)
            a = np.clip(np.rint(a), item[2], item[3])
        return a.reshape(len(z), -1)

    def crc(self):
        lo, i = self.doc["lo"], np.arange(4 * self.latents, dtype=np.int64).reshape(4, -1)
        z = lo + (7919 * i + 104729 * (i // 3)) % (self.doc["hi"] - lo + 1)
        return zlib.crc32(self.run(z).astype("<i4").tobytes())


def model_of(sections, sha):
    body = sections[f"model {sha[:16]}"]
    need(hashlib.sha256(body).hexdigest() == sha, "another model")
    doc, arrays = named(body)
    for name in [n for n in arrays if n.endswith(".book")]:
        book, weight = arrays.pop(name), name[:-4] + "weight"
        need(0 < len(book) <= 4096 and (np.diff(book) > 0).all() and 0 in book, "bad codebook")
        at = arrays[weight] + book.tolist().index(0)
        need(at.min(initial=0) >= 0 and at.max(initial=0) < len(book), "code outside its book")
        arrays[weight] = book[at]
    nets = [Net(doc[n], n, arrays) if doc[n] else None for n in ("hyper", "block")]
    need([n.crc() for n in nets if n] == doc["check"], "the test vector differs")
    return (*nets, *(np.array([float.fromhex(v) for v in doc[n]]) for n in ("offset", "scale")))


# Sections 8, 9 and 12: plans, chunks, values.


def cells(grid, cell):
    return [-(-n // c) for n, c in zip(grid, cell, strict=True)]


def join(tiles, grid):
    """(V, B, *cell) to (V, *grid)."""
    cell, r = tiles.shape[2:], len(grid)
    count = cells(grid, cell)
    z = tiles.reshape(len(tiles), *count, *cell)
    z = z.transpose([0] + [k for i in range(r) for k in (1 + i, r + 1 + i)])
    z = z.reshape(len(tiles), *(n * c for n, c in zip(count, cell, strict=True)))
    return z[(slice(None), *(slice(0, n) for n in grid))]


# Section 10, wavelets.


def halvings(n):
    k = 0
    while n >= 9 and k < 6:
        n, k = (n + 1) // 2, k + 1
    return k


def wavelet_bands(groups, grid):
    """(slices, parent, siblings, cousin) of all bands."""
    lists = []
    for group in groups:
        level = {a: halvings(grid[a]) for a in group}
        own, last = [({a: slice(0, None, 2 ** level[a]) for a in group}, None)], {}
        for n in range(max(level.values()), 0, -1):
            active = [a for a in group if level[a] >= n]
            for parity in itertools.product((0, 1), repeat=len(active)):
                if any(parity):
                    place = {a: slice(0, None, 2 ** level[a]) for a in group}
                    place |= {a: slice(odd * 2 ** (n - 1), None, 2**n) for a, odd in zip(active, parity, strict=True)}
                    kind = frozenset(a for a, odd in zip(active, parity, strict=True) if odd)
                    own.append((place, last.get(kind)))
                    last[kind] = len(own) - 1
        lists.append(own)
    combinations = list(itertools.product(*(range(len(own)) for own in lists)))
    number = {c: i for i, c in enumerate(combinations)}
    out = []
    for c in combinations:
        place = {}
        for own, k in zip(lists, c, strict=True):
            place |= own[k][0]
        up = lists[-1][c[-1]][1]
        step = [s.step for s in lists[-1][c[-1]][0].values()]
        alike = [k for k in range(c[-1]) if [s.step for s in lists[-1][k][0].values()] == step]
        before = number[(c[0] - 1, *c[1:])] if len(groups) > 1 and c[0] else None
        out.append(
            (
                tuple(place[a] for a in range(len(grid))),
                None if up is None else number[(*c[:-1], up)],
                [number[(*c[:-1], k)] for k in alike],
                before,
            )
        )
    return out


def waved(r, shape, groups, related):
    grid, rank = shape[1:], len(shape) - 1
    bands = wavelet_bands(groups, grid)
    live = bits_of(r.packed((len(bands) * shape[0] + 7) // 8), len(bands) * shape[0]).reshape(-1, shape[0]).astype(bool)
    q, rests = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    symbols = Symbols(r, 1696 if related else 526) if live.any() else None
    for band, used in zip(bands, live, strict=True):
        rows, place = np.flatnonzero(used), band[0]
        values, rest = q[(rows, *place)], rests[(rows, *place)]
        others = [i for i in (band[1], band[3], *band[2]) if i is not None]
        others = [seen_in(q, band[0], bands[i][0], rows) for i in others] if related else []
        for mine, guide in guided(rest, 15 if related else len(values)):
            guide = guide if mine.start else None
            hint = hint_for(rests, bands, band, rows[mine], guide)
            told = partial(relate, values, mine, others, len(band[2]), related == "rests") if related else None
            values[mine], rest[mine] = phased(symbols, values[mine].shape, hint, guide, told=told)
        q[(rows, *place)], rests[(rows, *place)] = values, rest
    if symbols:
        symbols.end()
    out = np.zeros(shape, np.int64)
    for v in range(shape[0]):
        y = q[v].astype(np.float64)
        lift_back(y, groups)
        out[v] = np.rint(y * 64)
    need(np.abs(out).max() < 2.0**52 and rank <= 6, "too large")
    return out


def relate(values, mine, others, siblings, rests, near, q):
    """Class, sign, integer of what is expected of integers q (B, ...), unknown ones 0, of variables ``mine``.

    values: the band of all variables (R, ...). others: what other bands have there, the siblings last.
    """
    known, shape = values.copy(), values.shape[1:]
    known[mine] = q
    known, *others = (np.clip(a, 1 - 2**15, 2**15 - 1).astype(np.float32) for a in (known, *others))
    few = min(mine.start, 15)

    def moved(a, step):
        wide = np.pad(a, [(0, 0), *((1, 1) for _ in shape)])
        return wide[(slice(None), *(slice(1 + k, 1 + k + n) for k, n in zip(step, shape, strict=True)))]

    around = [*others, *(moved(known, d) for d in near)]
    for a in others[len(others) - siblings :] if siblings else []:
        for axis in range(max(len(shape) - 2, 0), len(shape)):
            steps = ([sign * (k == axis) for k in range(len(shape))] for sign in (-1, 1) if shape[axis] > 1)
            around += [moved(a, d) for d in steps]
    around = around[:24]
    if not few or not around:
        return np.zeros(q.shape, np.int64), np.zeros(q.shape, bool), np.zeros(q.shape, np.int64)
    classes, negative, whole = expected_from(known[:few], [(a[:few], a[mine]) for a in around])
    return classes, negative, whole * rests


def seen_in(q, here, there, rows):
    """What the band at the places ``there`` has at each point of the band at the places ``here``."""
    found = q[(rows, *there)]
    for axis, (a, b, n) in enumerate(zip(here, there, q.shape[1:], strict=True), 1):
        index = np.arange(len(range(*a.indices(n)))) * a.step // b.step
        found = np.take(found, np.minimum(index, found.shape[axis] - 1), axis=axis)
    return found


def hint_for(q, bands, band, rows, guide):
    """The hint for each point of the band's variables, or None."""
    place, parent, siblings, cousin = band

    def seen(i):
        return sizes(seen_in(q, place, bands[i][0], rows))

    parts = []
    if parent is not None:
        parts.append((2, 4 * seen(parent)))
    if cousin is not None:
        parts.append((2, 16 * seen(cousin)))
    if siblings:
        parts.append((2, 16 * sum(seen(i) for i in siblings) // len(siblings)))
    if guide is not None:
        parts.append((1, np.array([guide] * len(rows))))
    return sum(w * p for w, p in parts) // sum(w for w, _ in parts) if parts else None


def lift_back(x, groups):
    passes = []
    for group in groups:
        level = {a: halvings(x.shape[a]) for a in group}
        for n in range(max(level.values())):
            stride = {a: 2 ** min(n, level[a]) for a in group}
            passes += [(a, stride) for a in group if n < level[a]]
    for axis, stride in reversed(passes):
        view = np.moveaxis(x[tuple(slice(None, None, stride.get(a, 1)) for a in range(x.ndim))], axis, 0)
        even, odd = view[0::2], view[1::2]
        even /= 1.149604398860241
        odd *= 1.149604398860241
        before_odd, after_odd = range(len(odd)), [min(i + 1, len(even) - 1) for i in range(len(odd))]
        before_even = [max(i - 1, 0) for i in range(len(even))]
        after_even = [min(i, len(odd) - 1) for i in range(len(even))]
        even -= 0.443506852043971 * (odd[before_even] + odd[after_even])
        odd -= 0.882911075530934 * (even[before_odd] + even[after_odd])
        even -= -0.052980118572961 * (odd[before_even] + odd[after_even])
        odd -= -1.586134342059924 * (even[before_odd] + even[after_odd])


class Plan:
    def __init__(self, data, sections):
        r = Bytes(data)
        self.doc = json.loads(r.packed(64 << 20))
        v = len(self.doc["vars"])
        numbers = np.frombuffer(r.packed(56 * v), "<f8").astype(float).reshape(7, v)
        self.low, self.high, _, self.offset, self.unit, self.gae_unit, self.point_unit = numbers
        self.bases = {n: transform_of(r.part()) if self.doc[n] else None for n in ("transform", "gae", "mix")}
        r.end()
        self.dtype, self.geometry = np.dtype(self.doc["dtype"]), self.doc["geometry"]
        self.model = model_of(sections, self.doc["model"]) if self.doc["model"] else None

    def latents(self, r, grid, count, k):
        g = self.geometry
        hyper = cells(grid, [b * h for b, h in zip(g["block"], g["hyper"], strict=True)])
        mode, shape = r.raw(1)[0], (count, *hyper, k)
        z = integers(r, shape)
        if mode:
            z = summed(z, [i for i in range(1, len(shape)) if shape[i] > 1])
        return z.reshape(count, -1, k).transpose(1, 2, 0)

    def coefficients(self, r, grid, name, cell):
        """Integers (V', B, kept)."""
        logs = [log for _, log in self.bases[name]]
        kept, tiles = [len(log) for log in logs], math.prod(cells(grid, cell))
        slab = next((i for i, n in enumerate(kept) if n > 1), 0)
        rest = [i for i in range(len(kept)) if i != slab and (i or kept[0] > 1)]
        q = coefficients(r, tiles, [logs[slab], *([logs[i] for i in rest] or [np.zeros(1, int)])])
        q = q if slab == 0 else np.moveaxis(q[:, None], 0, slab + 1)
        return q.reshape(kept[0], tiles, *kept[1:])

    def base(self, y, grid):
        """Block values (N, K, P, V) to (V, *grid)."""
        g, r = self.geometry, len(grid)
        z = y.reshape(len(y), *g["hyper"], *g["block"], -1)
        z = z.transpose([1 + 2 * r, 0] + [k for i in range(r) for k in (1 + i, 1 + r + i)])
        return join(z.reshape(y.shape[-1], len(y), *(b * h for b, h in zip(g["block"], g["hyper"], strict=True))), grid)

    def chunk(self, payload, grid):
        r, shape = Bytes(payload), (len(self.doc["vars"]), *grid)
        kind, sha = r.raw(1)[0], r.raw(32)
        need(kind < 2, "unknown kind of chunk")
        out = self.coded(r, shape) if kind else lossless(r, shape, self.dtype)
        r.end()
        need(hashlib.sha256(out.tobytes()).digest() == sha, "other values than were written")
        return out

    def coded(self, r, shape):
        grid, g, flags = shape[1:], self.geometry, r.raw(1)[0]
        need(flags & 6 != 4, "block latents without latents")
        need(self.doc["domain"] == "linear" or flags & 186 == 32, "parts that the log domain does not have")
        mask = filler = None
        finer = (256 - r.raw(1)[0]) / 256 if flags & 128 else 1.0
        unit, point_unit = self.unit * finer, self.point_unit * finer

        def spread(a):
            return a.reshape(-1, *(1 for _ in grid))

        if flags & 1:
            mask = mask_of(r, shape)
            same, n = r.raw(1)[0], int(mask.sum())
            filler = np.repeat(lossless(r, (1,), self.dtype), n) if same else lossless(r, (n,), self.dtype)
        x = spread(self.offset) + np.zeros(shape)
        if flags & 2:
            hyper, block, offset, scale = self.model
            z = self.latents(r, grid, hyper.latents, 1)[:, 0]
            k = math.prod(g["hyper"])
            y = hyper.run(z).reshape(len(z), k, -1)
            if flags & 4:
                zb = self.latents(r, grid, block.latents, k)
                y = y + block.run(zb.reshape(-1, block.latents)).reshape(y.shape)
            y = self.base(y.reshape(len(z), k, -1, len(offset)), grid)
            x = spread(offset) + spread(scale) * y
        for flag, name, step, cell in ((8, "transform", unit, "tile"), (16, "gae", self.gae_unit, "block")):
            if flags & flag:
                t, fraction = inverse(self.bases[name], self.coefficients(r, grid, name, g[cell]))
                x = x + spread(step * 2.0**-fraction) * join(t, grid)
        if flags & 32:
            mix, levels = self.bases["mix"], self.doc["levels"]
            mixed = (len(mix[0][1]), *grid) if mix else shape
            if levels:
                q = interpolated(r, mixed, levels)
            elif self.doc["wavelet"]:
                need(self.doc.get("related", "rests") in ("contexts", "rests"), "related")
                q = waved(r, mixed, self.doc["wavelet"], self.doc.get("related"))
            else:
                slab = next((i for i, n in enumerate(mixed[1:], 1) if n > 1), 1)
                q = integers(r, (mixed[slab], *(n for i, n in enumerate(mixed) if i != slab)), far=1)
                q = summed(np.moveaxis(q, 0, slab), [a + 1 for a in self.doc["diff"]])
            if self.doc["domain"] == "log":
                signs = mask_of(r, shape)
            else:
                t, fraction = inverse(mix, q.reshape(len(q), -1)) if mix else (q.astype(float), 0)
                fraction += 6 if levels or self.doc["wavelet"] else 0
                x = x + spread(point_unit * 2.0**-fraction) * t.reshape(shape)
        if self.doc["domain"] == "log":
            out = self.from_log(q, signs, spread)
        else:
            x = np.clip(x, spread(self.low), spread(self.high)) + 0.0
            for v, p in enumerate(self.doc["packing"]):
                if p:
                    info = np.iinfo(self.dtype)
                    x[v] = np.clip(np.rint((x[v] - p[1]) / p[0]), info.min, info.max)
            out = x.astype(self.dtype)
        if mask is not None:
            out[mask] = filler
        if flags & 64:
            n = r.varint()
            steps = np.frombuffer(r.packed(4 * n), "<u4").astype(np.int64)
            need(len(steps) == n > 0 and steps[1:].all(), "exact points do not rise")
            index = np.cumsum(steps)
            out.reshape(-1)[index] = lossless(r, (n,), self.dtype)
        return out

    def from_log(self, q, signs, spread):
        native, size = self.dtype.newbyteorder("="), self.dtype.itemsize
        low, high = (spread(np.abs(a).astype(native).view(f"u{size}").astype(np.int64)) for a in (self.low, self.high))
        step = spread(self.point_unit.astype(np.int64))
        m = np.clip(np.clip(q, 0, (1 << 62) // step) * step, low, high).astype(np.uint64)
        m |= signs.astype(np.uint64) << np.uint64(8 * size - 1)
        x = m.astype(f"u{size}").view(native)
        if self.doc.get("limits"):
            least, most = (spread(np.array(a).astype(native)) for a in zip(*self.doc["limits"], strict=True))
            x = np.where(x < least, least, np.where(x > most, most, x))
        return x.astype(self.dtype)


def boxes(shape, step):
    starts = [range(0, n, s) for n, s in zip(shape, step, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + s, n)) for a, s, n in zip(corner, step, shape, strict=True))


def read(path):
    """Arrays of all variables by path."""
    header, sections, chunks = read_file(Path(path).read_bytes())
    known = {}
    for group in header["field"]["groups"]:
        for v in group["vars"]:
            name = f"{group['path']}/{v['name']}" if group["path"] else v["name"]
            known[name] = (tuple(v["shape"]), np.dtype(v["dtype"]))
    out, todo = {}, iter(chunks)
    for i, group in enumerate(header["groups"]):
        plan = Plan(sections[f"group {i}"], sections)
        out |= {p: np.empty(*known[p]) for p in group["vars"]}
        for box in boxes(known[group["vars"][0]][0], group["chunk"]):
            for p, a in zip(group["vars"], plan.chunk(next(todo), [b.stop - b.start for b in box]), strict=True):
                out[p][box] = a
    for p, step in header["exact"]:
        out[p] = np.empty(*known[p])
        for box in boxes(known[p][0], step):
            r = Bytes(next(todo))
            kind, sha = r.raw(1)[0], r.raw(32)
            out[p][box] = a = lossless(r, tuple(b.stop - b.start for b in box), known[p][1])
            r.end()
            need(kind == 0 and hashlib.sha256(a.tobytes()).digest() == sha, "other values than were written")
    need(next(todo, None) is None, "chunks left over")
    values = Bytes(sections["values"])
    for p, (shape, dtype) in known.items():
        if p in out:
            continue
        part = Bytes(values.part())
        if dtype.hasobject:
            out[p] = np.empty(math.prod(shape), object)
            out[p][:] = json.loads(part.packed(64 << 20))
            out[p] = out[p].reshape(shape)
        else:
            out[p] = lossless(part, shape, dtype)
        part.end()
    values.end()
    return {p: out[p] for p in known}


def main(argv):
    folder = Path(argv[1])
    for name, a in read(argv[0]).items():
        file = folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, a.astype(str) if a.dtype.hasobject else a)


if __name__ == "__main__":
    main(sys.argv[1:])
