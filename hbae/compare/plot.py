# SPDX-License-Identifier: MIT
"""The rate-distortion plot as SVG: compression ratio against error, both logarithmic, one line per compressor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
WIDTH, HEIGHT = 1120, 470
LEFT, RIGHT, TOP, BOTTOM = 74, 190, 18, 56
OWN, OWN_COLOUR = "hbae", "#c8102e"
COLOURS = ("#1f77b4", "#2a9d5c", "#8c564b", "#7b3fb5", "#e08214", "#17a2b8", "#6b7280", "#b5a11a", "#d977b8")


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from ``low`` to ``high`` over pixels ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """Give the pixel of a value."""
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Give round numbers: powers of ten, with 2 and 5 where there are few."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if math.log10(self.high / self.low) < 3.2 else (1,)
        return [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]


def rate_distortion(lines: Mapping[str, Sequence[Point]], error: str) -> str:
    """Give the plot of points (error, ratio) by name; points without error become a dashed line at their ratio.

    ``error`` names the horizontal axis.
    """
    points = [p for line in lines.values() for p in line if p[1] > 0 and math.isfinite(p[1])]
    errors = [x for x, _ in points if x > 0 and math.isfinite(x)]
    if not errors:
        return ""
    x = _axis(errors, LEFT, WIDTH - RIGHT)
    y = _axis([r for _, r in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Compression ratio against {escape(error)}">',
        *_grid(x, y, error),
    ]
    # Own line last, so that it lies on top.
    order = sorted(lines, key=lambda n: n == OWN)
    parts += [s for n in order for s in _line(lines[n], colour(n, list(lines)), x, y, strong=n == OWN)]
    for i, n in enumerate(lines):
        parts += _legend(n, colour(n, list(lines)), TOP + 14 + 24 * i, flat=not any(p[0] > 0 for p in lines[n]))
    return "\n".join([*parts, "</svg>"])


def colour(name: str, names: Sequence[str]) -> str:
    """Give a name's colour among others."""
    if name == OWN:
        return OWN_COLOUR
    return COLOURS[[n for n in names if n != OWN].index(name) % len(COLOURS)]


def _axis(values: Sequence[float], start: float, stop: float) -> _Axis:
    low, high = min(values), max(values)
    room = max(math.log(high / low) * 0.07, 0.15)
    return _Axis(low * math.exp(-room), high * math.exp(room), start, stop)


def _grid(x: _Axis, y: _Axis, error: str) -> list[str]:
    out = []
    for t in x.ticks():
        px = x.at(t)
        out.append(f'<path class="grid" d="M{px:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{t:g}</text>')
    for t in y.ticks():
        py = y.at(t)
        out.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{t:g}</text>')
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH - RIGHT - LEFT}" height="{HEIGHT - BOTTOM - TOP}"/>'
    )
    out.append(f'<text class="name" x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(error)}</text>')
    out.append(
        f'<text class="name" transform="translate(18 {half}) rotate(-90)" text-anchor="middle">compression ratio</text>'
    )
    return out


def _line(points: Sequence[Point], stroke: str, x: _Axis, y: _Axis, *, strong: bool) -> list[str]:
    drawn = sorted(p for p in points if p[0] > 0 and math.isfinite(p[0]) and p[1] > 0)
    width = 3.2 if strong else 1.8
    if not drawn:
        py = y.at(points[0][1])
        return [
            f'<path d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}" stroke="{stroke}" stroke-width="1.5" stroke-dasharray="6 4"/>'
        ]
    path = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in drawn)
    marks = [
        f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="{5 if strong else 3.6}" fill="{stroke}">'
        f"<title>{a:.3g}: {b:.4g}</title></circle>"
        for a, b in drawn
    ]
    return [f'<path d="M{path}" fill="none" stroke="{stroke}" stroke-width="{width}"/>', *marks]


def _legend(name: str, stroke: str, py: float, *, flat: bool) -> list[str]:
    px = WIDTH - RIGHT + 18
    dash = ' stroke-dasharray="6 4"' if flat else ""
    weight = ' font-weight="700"' if name == OWN else ""
    text = f"{name} (lossless)" if flat else name
    return [
        f'<path d="M{px} {py}h26" stroke="{stroke}" stroke-width="{3.2 if name == OWN else 2}"{dash}/>',
        f'<text x="{px + 34}" y="{py + 4}"{weight}>{escape(text)}</text>',
    ]
