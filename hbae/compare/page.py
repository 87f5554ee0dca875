# SPDX-License-Identifier: MIT
"""A comparison as one HTML page without any outside resource."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from hbae.compare.derived import table_of
from hbae.compare.image import ERROR, FIELD, bar, picture
from hbae.compare.plot import colour, rate_distortion
from hbae.compare.run import TERMS, Comparison, Picture
from hbae.compare.table import Row

COLUMNS = (
    ("compressor", "the whole file for hbae, the payload for the others"),
    ("variables", "how many of them it takes; all figures of the row are over these"),
    ("bytes", ""),
    ("CR", "raw bytes over bytes"),
    ("NRMSE", "mean over the variables"),
    ("max error", "largest error over the range, of all variables"),
    ("PSNR", "dB, mean"),
    ("SSIM", "mean over the variables"),
    ("DSSIM", "data SSIM of Baker et al., mean"),
    ("spectrum", "power at wavelengths of 2 to 4 points over the original's, mean"),
    ("error autocorr.", "lag 1, the strongest axis, mean"),
    ("in, MB/s", "encoding, one core"),
    ("out, MB/s", "decoding, one core"),
)
QUANTITIES = (
    "The mean before, and of each compressor the mean after with the relative error in brackets: RMS error over the "
    "range of the quantity, of gradients over their RMS. Green: the smallest. Lossless rivals are left out."
)
STYLE = """
:root { color-scheme: light }
body { margin: 0; background: #fff; color: #1c2430; font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 28px 32px 60px }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 19px; margin: 38px 0 10px }
h3 { font-size: 15px; margin: 22px 0 4px }
p.lead { color: #53606f; margin: 0 0 8px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: 5px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid #e5e9ee }
th { font-weight: 600; color: #53606f; border-bottom: 2px solid #c5ccd6; vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left } tr.own td { background: #fdf1f2; font-weight: 600 }
td.best { color: #0a6b3d; font-weight: 700 } td i.key { display: inline-block; width: 10px; height: 10px;
border-radius: 2px; margin-right: 7px }
table.facts { width: auto } table.facts td { text-align: left; white-space: normal; padding-right: 24px }
table.facts td:first-child { color: #53606f; white-space: nowrap }
svg { width: 100%; height: auto; display: block; font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1c2430 }
svg .grid { stroke: #e5e9ee; stroke-width: 1 } svg .frame { fill: none; stroke: #c5ccd6 } svg .name { fill: #53606f }
.maps { display: grid; grid-template-columns: 120px 1fr 1fr 1fr; gap: 10px 14px; align-items: center }
.maps img { width: 100%; image-rendering: pixelated; display: block; border: 1px solid #c5ccd6; box-sizing: border-box }
.maps .head { color: #53606f; font-weight: 600; font-size: 13.5px } .maps .who { font-weight: 600; font-size: 13.5px }
.maps .who small { display: block; font-weight: 400; color: #53606f }
.scale { display: grid; grid-template-columns: auto 1fr auto; gap: 8px; align-items: center; font-size: 12.5px }
.maps .scale img { height: 12px }
ul { padding-left: 20px; margin: 6px 0 } li { margin: 3px 0 }
"""


def page(c: Comparison) -> str:
    """Give the whole page: plot, tables, maps, terms, notes, configuration."""
    body = [
        "<h1>Compressors at equal error</h1>",
        f'<p class="lead">{escape(c.source)} &middot; each rival tuned to the {_metric(c)} that hbae achieved</p>',
        "<h2>Compression ratio against error</h2>",
        _plot(c),
        "<h2>Figures</h2>",
        *(_table(b, rows, [r.rival for r in _all(c)]) for b, rows in zip(c.options.bounds, c.rows, strict=True)),
    ]
    if c.options.qoi:
        body += ["<h2>Quantities of interest</h2>", f'<p class="lead">{QUANTITIES}</p>']
        body += [_quantities(b, rows) for b, rows in zip(c.options.bounds, c.rows, strict=True)]
    if c.picture is not None:
        body.append(_maps(c.picture, c))
    body += ["<h2>Terms</h2>", _list(TERMS)]
    if c.notes:
        body += ["<h2>Notes</h2>", _list(c.notes)]
    body += ["<h2>Configuration</h2>", _facts(_configuration(c))]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>hbae compare {escape(c.source)}</title>'
        f"<style>{STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def cells(row: Row, total: int) -> tuple[str, ...]:
    """Give a row of the table as text, in the order of :data:`COLUMNS`."""
    return (
        row.rival,
        f"{len(row.errors)} of {total}",
        f"{row.nbytes:,}",
        f"{row.cr:.2f}",
        _number(row.mean_nrmse),
        _number(row.max_error),
        _fixed(row.mean("psnr"), 1),
        _fixed(row.mean("ssim"), 5),
        _fixed(row.mean("dssim"), 5),
        _number(row.mean("spectrum_ratio")),
        _fixed(row.mean("error_autocorrelation"), 2),
        _fixed(row.encode_mb_s, 1),
        _fixed(row.decode_mb_s, 1),
    )


def _metric(c: Comparison) -> str:
    return "largest error" if c.options.metric == "max" else "NRMSE"


def _all(c: Comparison) -> list[Row]:
    """One row of each compressor, in order."""
    return list({r.rival: r for rows in c.rows for r in rows}.values())


def _plot(c: Comparison) -> str:
    by_max = c.options.metric == "max"
    lines: dict[str, list[tuple[float, float]]] = {r.rival: [] for r in _all(c)}
    for rows in c.rows:
        for r in rows:
            lines[r.rival].append((r.max_error if by_max else r.mean_nrmse, r.cr))
    error = "largest error over the range" if by_max else "NRMSE (mean over the variables)"
    return rate_distortion(lines, error)


def _table(bound: float, rows: Sequence[Row], names: Sequence[str]) -> str:
    total = len(rows[0].errors)
    best = max((r.cr for r in rows if len(r.errors) == total), default=math.nan)
    head = "".join(f'<th title="{escape(tip)}">{escape(name)}</th>' for name, tip in COLUMNS)
    body = []
    for r in rows:
        first, *rest = cells(r, total)
        key = f'<i class="key" style="background:{colour(first, names)}"></i>'
        tds = [f"<td>{key}{escape(first)}</td>"]
        tds += [f"<td{' class=best' if i == 2 and r.cr == best else ''}>{escape(t)}</td>" for i, t in enumerate(rest)]
        body.append(f"<tr{' class=own' if first == 'hbae' else ''}>{''.join(tds)}</tr>")
    return _wide(bound, head, body)


def _quantities(bound: float, rows: Sequence[Row]) -> str:
    head, body = table_of(rows)
    errors = [{q.name: q.relative for q in r.quantities} for r in rows if r.quantities]
    lines = []
    for name, *rest in body:
        best = min(of.get(name, math.inf) for of in errors)
        marks = [False] + [name in of and of[name] == best for of in errors]
        cells = [f"<td{' class=best' if m else ''}>{escape(t)}</td>" for m, t in zip(marks, rest, strict=True)]
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{escape(h)}</th>" for h in head)
    return _wide(bound, heads, lines)


def _wide(bound: float, head: str, lines: Iterable[str]) -> str:
    """Give a table under the name of its bound; one wider than the window is moved by itself."""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<h3>bound {bound:g}</h3>\n<div class="wide">{table}</div>'


def _maps(p: Picture, c: Comparison) -> str:
    """Field, reconstruction and error of every compressor, on common scales."""
    x = p.original
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    errors = {n: np.where(np.isfinite(x), y.astype(np.float64) - x, np.nan) for n, y in p.decoded.items()}
    rows = {r.rival: r for r in c.rows[c.options.bounds.index(p.bound)]}
    lossy = [n for n in p.decoded if rows[n].mean_nrmse > 0]
    top = max((float(np.nanquantile(np.abs(errors[n]), 0.995)) for n in lossy), default=0.0) or 1.0
    at = f", index {' '.join(map(str, p.index))}" if p.index else ""
    # Very long slices are drawn less long than they are.
    shape = f' style="aspect-ratio:{min(max(x.shape[1] / x.shape[0], 0.75), 4):.3f}"'
    out = [
        f"<h2>{escape(p.variable)}{at}, at {p.bound:g}</h2>",
        '<p class="lead">One scale for all fields, one for all errors (99.5 % of the points; the rest is saturated). '
        "Lossless rivals are left out.</p>",
        '<div class="maps"><span></span><span class="head">field</span><span class="head">reconstruction</span>'
        '<span class="head">error (reconstruction - field)</span>',
    ]
    field = f'<img{shape} alt="field" src="{picture(x, low, high, FIELD)}">'
    for n in lossy:
        decoded = np.where(np.isfinite(x), p.decoded[n], np.nan)
        shown = f'<img{shape} alt="{escape(n)}" src="{picture(decoded, low, high, FIELD)}">'
        error = f'<img{shape} alt="error of {escape(n)}" src="{picture(errors[n], -top, top, ERROR)}">'
        out.append(f'<span class="who">{escape(n)}<small>CR {rows[n].cr:.1f}</small></span>{field}{shown}{error}')
    scale = _scale(FIELD, low, high)
    out.append(f"<span></span>{scale}{scale}{_scale(ERROR, -top, top)}</div>")
    return "\n".join(out)


def _scale(colours: tuple[str, ...], low: float, high: float) -> str:
    return f'<span class="scale">{low:.4g}<img alt="" src="{bar(colours)}">{high:.4g}</span>'


def _configuration(c: Comparison) -> Iterable[tuple[str, str]]:
    for k, v in c.options.to_json().items():
        text = ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in v) if isinstance(v, tuple) else str(v)
        yield k, "none" if v is None else text or ("all" if k == "variables" else "none")
    yield "versions", ", ".join(f"{k} {v}" for k, v in c.versions.items())
    yield "machine", _machine(c.machine)


def _machine(m: dict[str, Any]) -> str:
    return f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}"


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows)
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(i)}</li>' for i in items)}</ul>"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _fixed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else "exact" if math.isinf(value) else f"{value:z.{digits}f}"
