# SPDX-License-Identifier: MIT
"""Arrays as small PNG pictures inside a page, without any drawing library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from hbae.arrays import Array

LONGEST = 480  # pixels; larger slices are drawn with every second, third, ... point
FIELD = ("#0d0887", "#5b02a3", "#9a179b", "#cb4678", "#eb7852", "#fbb32f", "#f0f921")
ERROR = ("#053061", "#3a87bd", "#a7d0e4", "#f7f7f7", "#f5b799", "#d05548", "#67001f")
MISSING = "#d9d9d9"


def picture(x: Array, low: float, high: float, colours: tuple[str, ...]) -> str:
    """Give a slice (rows, columns) as the ``data:`` address of a PNG; the last row on top, missing points grey."""
    step = max(1, -(-max(x.shape) // LONGEST))
    x = x[::step, ::step][::-1].astype(np.float64)
    part = (x - low) / (high - low) if high > low else np.full(x.shape, 0.5)
    rgb = blend(np.clip(np.nan_to_num(part, nan=0.0), 0, 1), colours)
    rgb[~np.isfinite(x)] = _rgb(MISSING)
    return "data:image/png;base64," + base64.b64encode(png(rgb)).decode()


def bar(colours: tuple[str, ...]) -> str:
    """Give the scale of colours from left to right, as :func:`picture`."""
    return picture(np.linspace(0, 1, 128)[None], 0.0, 1.0, colours)


def blend(part: Array, colours: tuple[str, ...]) -> Array:
    """Give 8-bit colours (..., 3) for values of 0 to 1, linear between the given ones."""
    stops = np.array([_rgb(c) for c in colours], np.float64)
    places = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(part, places, stops[:, i]) for i in range(3)], -1).round().astype(np.uint8)


def png(rgb: Array) -> bytes:
    """Give (rows, columns, 3) bytes as a PNG file."""
    rows, columns, _ = rgb.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), rgb.reshape(rows, -1)], 1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
