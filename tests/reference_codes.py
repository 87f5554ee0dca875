# SPDX-License-Identifier: MIT
"""Pieces of the reference reader: sections 2, 5, 6 and 7 of docs/format.md."""

from __future__ import annotations

import itertools
import json
import math
import struct
from bisect import bisect_right

import numpy as np
import zstandard


class InvalidError(ValueError):
    """The file breaks a rule of the page."""


def need(ok, text):
    if not ok:
        raise InvalidError(text)


# Section 2: basic pieces.


class Bytes:
    """Bytes read from front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, n):
        need(self.at + n <= len(self.data), "bytes end early")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        n = 0
        for shift in range(0, 63, 7):
            b = self.raw(1)[0]
            n |= (b & 127) << shift
            if b < 128:
                need(b or not shift, "varint longer than it needs to be")
                return n
        raise InvalidError("varint too long")

    def part(self):
        return self.raw(self.varint())

    def packed(self, limit):
        head = self.varint()
        size = head >> 1
        need(size <= limit, "packed part over its limit")
        if not head & 1:
            return self.raw(size)
        frame = self.part()
        need(size and zstandard.frame_content_size(frame) == size, "zstd frame declares another size")
        out = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
        need(len(out) == size, "zstd frame has another size")
        return out

    def end(self):
        need(self.at == len(self.data), "bytes left over")


# Section 5: lossless arrays and masks.


def bits_of(data, n):
    need(len(data) == (n + 7) // 8, "bits of a wrong size")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    need(not bits[n:].any(), "bits behind the last one")
    return bits[:n]


def lossless(r, shape, dtype):
    mode = r.raw(1)[0]
    if mode == 3:
        return predicted(r, shape, dtype)
    axis, shuffle = r.raw(2)
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(r.packed(nbytes), np.uint8)
    need(len(raw) == nbytes and mode < 3 and shuffle < 2, "bad lossless array")
    order = ">" if dtype.byteorder == ">" else "<"
    unit, tail = "u1", (dtype.itemsize,)
    if dtype.itemsize in (1, 2, 4, 8):
        unit, tail = f"{order}u{dtype.itemsize}", ()
    elif dtype.kind == "c" and dtype.itemsize == 16:
        unit, tail = f"{order}u8", (2,)
    need((mode or not axis) and (not shuffle or np.dtype(unit).itemsize > 1), "bad lossless array")
    if shuffle:
        raw = np.ascontiguousarray(raw.reshape(np.dtype(unit).itemsize, -1).T).ravel()
    words = raw.view(unit).reshape((*shape, *tail))
    words = words.astype(words.dtype.newbyteorder("="))
    if mode:
        words = (np.add if mode == 1 else np.bitwise_xor).accumulate(words, axis=axis, dtype=words.dtype)
    return np.frombuffer(words.astype(unit).tobytes(), dtype).reshape(shape)


def predicted(r, shape, dtype):
    parts = 2 if dtype.kind == "c" else 1
    size = dtype.itemsize // parts
    need(dtype.kind in "biufc" and size in (1, 2, 4, 8) and shape and math.prod(shape), "nothing to predict")
    full = (*shape, 2) if parts == 2 else shape
    zeros, count = r.raw(2)
    places = zeros - 64 if zeros >= 64 and dtype.kind in "fc" else -1
    need(zeros < 8 * size or 0 <= places <= 9, "bad form of a prediction")
    need(count == 0 or (len(full) > 1 and count == full[-1] and 2 <= count <= 32), "bad number of planes")
    grid, ways, seen = (full[:-1] if count else full), [], set()
    for _ in range(max(count, 1)):
        number, source = r.raw(2) if count else (0, 0)
        need(number not in seen and number < max(count, 1) and (not source or source - 1 in seen), "bad plane")
        seen.add(number)
        moves = r.raw(len(grid)) if source else ()
        orders = r.raw(len(grid))
        need(all(m < 3 for m in moves) and all(o < 4 for o in orders), "bad prediction of a plane")
        need(sum(m != 1 for m in moves) < 3 and sum(orders) < 13, "bad prediction of a plane")
        ways.append((number, source - 1, [m - 1 for m in moves], orders))
    out = np.zeros(full, f"i{size}")
    for (number, source, moves, orders), plane in zip(ways, residuals(r, len(ways), grid, size), strict=True):
        for axis, order in enumerate(orders):
            plane = np.moveaxis(plane, axis, 0).copy()
            for k in reversed(range(order)):
                plane[k:] = np.cumsum(plane[k:], axis=0, dtype=plane.dtype)
            plane = np.moveaxis(plane, 0, axis)
        if source >= 0:
            known = out[..., source]
            for axis, m in enumerate(moves):
                known = known.take((np.arange(grid[axis]) - m) % grid[axis], axis)
            plane = plane + known
        out[(..., number) if count else ...] = plane
    high = -(1 << (8 * size - 1))
    words = out << zeros if places < 0 else (out / 10.0**places).astype(f"f{size}").view(f"i{size}")
    if dtype.kind in "fc" and places < 0:
        words = np.where(out < 0, ((-1 - out) << zeros) | high, words & ~np.array(high, out.dtype))
    order = ">" if dtype.byteorder == ">" else "<"
    return np.frombuffer(words.astype(f"{order}i{size}").tobytes(), dtype).reshape(shape)


def residuals(r, planes, grid, size):
    kind = r.raw(1)[0]
    if kind == 2:
        need(planes * math.prod(grid) <= 1 << 24, "too many integers")
        merged = [n for n in grid if n > 1] or [1]
        while len(merged) > 1 and merged[0] < 32:
            merged = [merged[0] * merged[1], *merged[2:]]
        coded = integers(r, (merged[0], planes, *merged[1:]), 1).astype(f"i{size}")
        return coded.swapaxes(0, 1).reshape(planes, *grid)
    need(kind == 0 or (kind == 1 and size > 1), "bad residuals")
    nbytes = planes * math.prod(grid) * size
    raw = np.frombuffer(r.packed(nbytes), np.uint8)
    need(len(raw) == nbytes, "bad residuals")
    if kind:
        raw = np.ascontiguousarray(raw.reshape(size, -1).T).ravel()
    return raw.view(f"<i{size}").reshape(planes, *grid)


def mask_of(r, shape):
    mode = r.raw(1)[0]
    need(mode < 4, "bad mask")
    if mode < 2:
        return np.full(shape, bool(mode))
    n = math.prod(shape)
    mask = bits_of(r.packed((n + 7) // 8), n).reshape(shape)
    return (np.bitwise_xor.accumulate(mask, axis=0) if mode == 3 else mask).astype(bool)


# Section 6: integers with contexts.


class Symbols:
    """A symbol stream, read step by step."""

    def __init__(self, r, contexts):
        t = Bytes(r.packed(450 * contexts + 16))
        kinds = [t.varint() for _ in range(t.varint())]
        self.labels = labels_of(t, contexts) if kinds else np.full(contexts, -1)
        need(t.varint() == kinds.count(0), "wrong number of tables")
        self.models = []
        for k in kinds:
            if k:
                self.models.append(k - 1)
                continue
            size, top = t.varint(), t.varint()
            need(2 <= size <= 146 and top < size, "bad table")
            f = [0 if i == top else t.varint() + 1 for i in range(size)]
            f[top] = 16384 - sum(f)
            need(f[top] > 0, "bad table")
            self.models.append((f, [0, *itertools.accumulate(f)]))
        t.end()
        need(set(range(len(kinds))) == set(self.labels.tolist()) - {-1}, "labels do not fit the tables")
        self.used = np.zeros(contexts, bool)
        self.raw = "".join(f"{b:08b}" for b in r.part())
        self.raw_at = 0
        words = r.part()
        self.words = list(struct.unpack(f"<{len(words) // 4}I", words))
        self.state = 0
        for _ in range(2):
            self.state = self.state << 32 | self.words.pop() if self.words else self.state

    def token(self, model):
        if isinstance(model, int):
            return model
        f, left = model
        slot = (self.state & 0xFFFFFF) >> 10
        t = bisect_right(left, slot) - 1
        self.state = (self.state >> 24) * (f[t] << 10) + (self.state & 0xFFFFFF) - (left[t] << 10)
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return t

    def value(self, token):
        u = token
        if token >= 32:
            count = (token - 32) // 2 + 4
            text = self.raw[self.raw_at : self.raw_at + count]
            need(len(text) == count, "raw bits run out")
            self.raw_at += count
            u = (2 + (token & 1)) << count | int(text, 2)
        return -(u + 1 >> 1) if u & 1 else u >> 1

    def step(self, contexts):
        contexts = np.asarray(contexts)
        order = np.argsort(contexts.ravel(), kind="stable")
        tokens = [self.token(self.models[self.labels[c]]) for c in contexts.ravel()[order].tolist()]
        out = np.zeros(contexts.size, np.int64)
        out[order] = [self.value(t) for t in tokens]
        self.used[contexts] = True
        return out.reshape(contexts.shape)

    def end(self):
        need(not self.words and not self.state, "words left over")
        left = self.raw[self.raw_at :]
        need(len(left) < 8 and "1" not in left, "raw bits left over")
        need(self.used.any() or (self.labels < 0).all(), "tables that no context uses")
        last = self.labels[self.used.argmax()]
        for label, used in zip(self.labels, self.used, strict=True):
            need(used or label == last, "a context that does not occur has a table of its own")
            last = label


def labels_of(t, contexts):
    runs = t.varint()
    need(1 <= runs <= contexts, "wrong number of runs")
    labels = [t.varint() for _ in range(runs)]
    lengths = [t.varint() + 1 for _ in range(runs - 1)]
    lengths.append(contexts - sum(lengths))
    need(lengths[-1] > 0 and all(a != b for a, b in itertools.pairwise(labels)), "runs of contexts do not fit")
    return np.repeat(labels, lengths)


def size_of(v):
    """Size of an integer: its magnitude below 64, then 48 more for each doubling, at most 511."""
    u = abs(int(v))
    k = u.bit_length() - 7
    return u if u < 64 else min(511, 64 + 48 * k + (48 * (u - (64 << k)) >> k + 6))


def sizes(a):
    return np.array([size_of(v) for v in np.ravel(a)], np.int64).reshape(np.shape(a))


CLASSES = [1, 2, 3, 5, 8, 12, 18, 28, 44, 68, 108, 172, 270, 424, 664, *range(1024, 8176, 496)]


def class_of(total, weight):
    """Class of the mean of sizes whose weighted sum is ``total``."""
    return np.searchsorted(CLASSES, total * 16 // max(weight, 1), side="right")


BIT_LENGTH = np.array([n.bit_length() for n in range(1 << 18)])


def level_at(a, s, first):
    """Levels of slab s from the sizes a of the slabs before; neighbours along axes ``first`` and up."""
    if s == 0:
        return np.zeros(a.shape[1:], np.int64)
    p, size = a[s - 1], a.shape[1:]
    m, weight = 2 * p + (a[s - 2] if s > 1 else 0), 3
    for axis in range(first, len(size)):
        wide = np.pad(p, [(int(k == axis),) * 2 for k in range(len(size))])
        m = m + wide.take(range(size[axis]), axis) + wide.take(range(2, size[axis] + 2), axis)
        weight += 2 * (size[axis] > 1)
    return class_of(m, weight) + 1


def integers(r, shape, far=0):
    if shape[0] > 64 and math.prod(shape[1:]) < 1024:
        folds = -(-shape[0] // 64)
        q = slabs_of(r, (64, folds, *shape[1:]), far + 1).swapaxes(0, 1).reshape(-1, *shape[1:])
        need(not q[shape[0] :].any(), "numbers behind the last one")
        return q[: shape[0]]
    return slabs_of(r, shape, far)


def slabs_of(r, shape, first):
    live = bits_of(r.packed((shape[0] + 7) // 8), shape[0])
    q = np.zeros(shape, np.int64)
    symbols = Symbols(r, 32) if live.any() else None
    known = np.zeros(shape, np.int64)
    for s in np.flatnonzero(live):
        q[s] = symbols.step(level_at(known, s, first))
        known[s] = sizes(q[s])
    if symbols:
        symbols.end()
    return q


EXPECTED = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, *range(1024, 7969, 496)]


def phased(symbols, shape, hint, guide, *, live=None, unknown=525, told=None):
    """Integers (B, ...) phase by phase, and the rests that were read, which are these where nothing is told.

    hint, guide: None or by point; unknown: contexts where nothing is known. told: for related variables, gives from
    near steps and what is known class, sign and integer of what is expected.
    """
    rests, q, size = np.zeros(shape, np.int64), np.zeros(shape, np.int64), shape[1:]
    need(sum(n > 1 for n in size) <= 7, "too many axes")
    parities = sorted(itertools.product(*((0, 1) if n > 1 else (0,) for n in size)), key=lambda p: (sum(p) % 2, p))
    done = []
    for p in parities:
        near = [d for d in itertools.product((-1, 0, 1), repeat=len(size)) if sum(map(abs, d)) == 2 - sum(p) % 2]
        near = [d for d in near if tuple((a + k) % 2 for a, k in zip(p, d, strict=True)) in done]
        near = [d for d in near if all(n > 1 or k == 0 for n, k in zip(size, d, strict=True))]
        known = np.pad(sizes(rests), [(0, 0), *((1, 1) for _ in size)])
        around = np.zeros(shape, np.int64)
        for d in near:
            around += known[(slice(None), *(slice(1 + k, 1 + k + n) for k, n in zip(d, size, strict=True)))]
        kind = 1 + sum(p) % 2 if near else 0
        parts = (0, 15, 16)[kind] if sum(n > 1 for n in size) > 3 else (0, 11, 14)[kind]
        parts, more = (16, 0) if hint is None else (parts, hint)
        expected = (parts * (16 * around // max(len(near), 1)) + (16 - parts) * more) >> 4
        contexts = 5 * (35 * kind + np.searchsorted(EXPECTED, expected, side="right"))
        if guide is not None:
            contexts = contexts + np.searchsorted([2, 8, 24, 64], guide, side="right")
        if not near and hint is None:
            contexts = np.broadcast_to(unknown, shape)
        here = np.zeros(shape, bool)
        here[(slice(None), *(slice(a, None, 2) for a in p))] = True
        here &= True if live is None else live
        if told:
            classes, negative, whole = told(near, q)
            rests[here] = symbols.step((contexts // 5 * 16 + classes)[here])
            q[here] = (np.where(negative, -rests, rests) + whole)[here]
        elif here.any():
            q[here] = rests[here] = symbols.step(contexts[here])
        done.append(p)
    return q, rests


EXPECTED_PARTS = [1, 4, 8, 13, 22, 32, 48, 64, 96, 160, 256, 512, 1024, 2048, 4096]


def expected_from(leaders, places):
    """Class, sign, integer of what is expected; leaders (J, ...) at the points; places: (leaders, integers) of each."""
    f, few = np.float32, len(leaders)
    a = [[sum((u[i] * u[j] for u, _ in places), start=f(0)) for j in range(i + 1)] for i in range(few)]
    lower, times, part, w = [[] for _ in a], [[] for _ in a], [], list(leaders)
    with np.errstate(all="ignore"):
        for i in range(few):
            a[i][i] = a[i][i] + a[i][i] * f(2.0**-12) + f(4)
            for j in range(i + 1):
                rest = a[i][j]
                for k in range(j):
                    rest = rest - times[i][k] * lower[j][k]
                if j < i:
                    times[i].append(rest)
                    lower[i].append(rest * part[j])
                else:
                    part.append(f(1) / np.where(rest > 4, rest, f(4)))
            for k in range(i):
                w[i] = w[i] - lower[i][k] * w[k]
        w = [x * p for x, p in zip(w, part, strict=True)]
        for i in range(few - 1, -1, -1):
            for k in range(few - 1, i, -1):
                w[i] = w[i] - lower[k][i] * w[k]
    w = [np.where(np.abs(x) < 2.0**64, x, f(0)) for x in w]
    total = f(0)
    for u, values in places:
        total = total + sum((u[i] * w[i] for i in range(few)), start=f(0)) * values
    classes = sum((np.abs(total) >= f(limit / 64)).astype(np.int64) for limit in EXPECTED_PARTS)
    whole = np.sign(total) * np.rint(np.minimum(np.abs(total), f(2**15 - 1))) * (np.abs(total) >= 1)
    some = np.any(np.array(leaders) != 0, axis=0)
    return np.where(some, classes, 0), (total < 0) & some, np.where(some, whole, 0).astype(np.int64)


def coefficients(r, tiles, logs):
    """(S, B, R1, ..., Rm) for log scales of S, R1, ..., Rm."""
    slabs, *rest = (len(log) for log in logs)
    table = (slabs, *rest[:-1]) if len(rest) > 1 else (1, slabs)
    runs = integers(r, table).reshape(slabs, *rest[:-1])
    need(runs.min() >= 0 and runs.max() <= rest[-1], "run out of range")
    q = np.zeros((slabs, tiles, *rest), np.int64)
    symbols = Symbols(r, 565) if runs.any() else None
    bucket = np.zeros(rest, np.int64) + logs[0][0]
    for i, log in enumerate(logs[1:]):
        bucket = bucket + log.reshape([-1 if k == i else 1 for k in range(len(rest))])
    guide = None
    for s in range(slabs):
        live = np.broadcast_to(np.arange(rest[-1]) < runs[s][..., None], q[s].shape)
        if live.any():
            hint = None if guide is None else around_of(guide)
            q[s], _ = phased(symbols, q[s].shape, hint, guide, live=live, unknown=525 + np.clip(bucket, 0, 39))
        guide = 16 * sizes(q[s]) if guide is None else (16 * sizes(q[s]) + guide) >> 1
    if symbols:
        symbols.end()
    return q


def around_of(guide):
    axes = [a for a in range(1, guide.ndim) if guide.shape[a] > 1]
    total = (4 + 2 * len(axes)) * guide
    for axis in axes:
        wide = np.pad(guide, [(int(k == axis),) * 2 for k in range(guide.ndim)])
        total = total + wide.take(range(guide.shape[axis]), axis) + wide.take(range(2, guide.shape[axis] + 2), axis)
    return total // (4 + 4 * len(axes))


def summed(d, axes):
    for a in axes:
        d = np.cumsum(d, axis=a, dtype=np.int64)
    return d


# Section 7: transforms.


def named(data):
    r = Bytes(data)
    head = json.loads(r.packed(16 << 20))
    by_rows = {n: n.endswith(".columns") and len(s) == 2 and min(s) > 0 for n, s in head["arrays"]}
    arrays = {n: integers(r, tuple(s) if by_rows[n] else (1, math.prod(s))).reshape(s) for n, s in head["arrays"]}
    r.end()
    return head["doc"], arrays


def stored(arrays, i):
    """The matrix of axis i, or its columns with their last bits."""
    if f"{i}.matrix" in arrays:
        return arrays[f"{i}.matrix"]
    return arrays[f"{i}.columns"].T << arrays[f"{i}.shifts"]


def transform_of(data):
    """List of (matrix or None, logs)."""
    doc, arrays = named(data)
    out = []
    for i, (kind, size, kept) in enumerate(doc["axes"]):
        need(kind in ("none", "klt", "dct"), "unknown basis")
        matrix = None if kind == "none" else stored(arrays, i) if kind == "klt" else dct(size)[:, :kept]
        out.append((matrix, arrays[f"{i}.logs"]))
    return out


def dct(n):
    one = 1 << 96

    def arctan_inverse(x):
        term, total, k, sign = (1 << 112) // x, 0, 1, 1
        while term:
            total += sign * (term // k)
            term //= x * x
            k, sign = k + 2, -sign
        return total

    pi = (4 * (4 * arctan_inverse(5) - arctan_inverse(239))) >> 16

    def cos(x):
        total, term, k = one, one, 0
        while term:
            k += 2
            term = -(((term * x) >> 96) * x >> 96) // (k * (k - 1))
            total += term
            if -2 < term < 2:
                break
        return total

    quarter = [cos(pi * j // (2 * n)) for j in range(n + 1)]

    def at(j):
        j %= 4 * n
        j = 4 * n - j if j > 2 * n else j
        return quarter[j] if j <= n else -quarter[2 * n - j]

    norms = [math.isqrt((1 + (k > 0)) * one * one // n) for k in range(n)]
    rows = [[(((at((2 * i + 1) * k) * norms[k]) >> 96) + (1 << 80)) >> 81 for k in range(n)] for i in range(n)]
    return np.array(rows, np.int64)


def inverse(bases, q):
    """Integers with F fraction bits, and F."""
    qmax = float(np.abs(q).max(initial=0))
    for fraction in range(8, -1, -1):
        amax = worst = qmax * 2.0**fraction
        for matrix, _ in bases[::-1]:
            if matrix is not None:
                total = amax * float(np.abs(matrix).sum(1).max(initial=0))
                worst, amax = max(worst, total), total * 2.0**-15 + 1
        if worst * 1.0000001 < 2.0**53:
            break
    else:
        raise InvalidError("coefficients are too large")
    v = q.astype(np.float64) * 2.0**fraction
    for i, (matrix, _) in reversed(list(enumerate(bases))):
        axis = i + 1 if i else 0
        if matrix is not None:
            v = np.moveaxis(np.tensordot(matrix.astype(np.float64), v, (1, axis)), 0, axis)
            v = np.rint(v * 2.0**-15)
    return v, fraction
