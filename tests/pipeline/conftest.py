# SPDX-License-Identifier: MIT
"""A judge of decoded values that shares no code with the package, and models that answer badly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array

Judge = Callable[..., None]


def bits(a: Array) -> bytes:
    """The bytes of an array in C order."""
    return np.ascontiguousarray(a).tobytes()


def valid_points(x: Array, excluded: tuple[float, ...]) -> Array:
    """Finite points that are none of the excluded values."""
    ok = np.isfinite(x)
    for value in excluded:
        ok &= x != value
    return ok


def block_sums(e: Array, block: tuple[int, ...]) -> dict[tuple[int, ...], list[float]]:
    """Values of every block that starts at a multiple of its shape, one by one."""
    found: dict[tuple[int, ...], list[float]] = {}
    for index in np.ndindex(*e.shape):
        found.setdefault(tuple(i // b for i, b in zip(index, block, strict=True)), []).append(float(e[index]))
    return found


def check_variable(
    x: Array,
    y: Array,
    bounds: list[tuple[str, float]],
    block: tuple[int, ...] | None,
    excluded: tuple[float, ...] = (),
    span: float | None = None,
) -> None:
    """Fail when decoded values miss a bound, with no slack at all, or invalid points lost a bit."""
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    ok = valid_points(x, excluded)
    assert bits(y[~ok]) == bits(x[~ok]), "an invalid point lost its bits"
    if not ok.any():
        return
    a, b = x[ok].astype(np.float64), y[ok].astype(np.float64)
    assert np.isfinite(b).all()
    low, high = float(a.min()), float(a.max())
    if any(kind == "pw_rel" for kind, _ in bounds):
        # Pointwise relative bounds keep signs, and magnitudes within those of the original.
        assert (np.signbit(a) == np.signbit(b)).all()
        a_size, b_size = np.abs(a[a != 0]), np.abs(b[a != 0])
        assert not a_size.size or (b_size.min() >= a_size.min() and b_size.max() <= a_size.max())
    assert float(b.min()) >= low, "a decoded value lies below the smallest one"
    assert float(b.max()) <= high, "a decoded value lies above the largest one"
    if bits(x) == bits(y):
        return
    with np.errstate(over="raise"):
        width = high - low if span is None else span
    e = np.zeros(x.shape)
    e[ok] = np.abs(b - a)
    for kind, value in bounds:
        if kind == "abs":
            assert float(e.max()) <= value, kind
        elif kind == "rel_range":
            assert float(e.max()) <= value * width, kind
        elif kind == "pw_rel":
            assert (np.abs(b - a) <= value * np.abs(a)).all(), kind
        elif kind == "nrmse":
            assert math.sqrt(math.fsum(v * v for v in e[ok].tolist()) / ok.sum()) <= value * width, kind
        elif kind == "psnr":
            rmse = math.sqrt(math.fsum(v * v for v in e[ok].tolist()) / ok.sum())
            assert rmse == 0 or -20 * math.log10(rmse / width) >= value, kind
        else:
            assert block is not None, "a variable with errors must say its blocks"
            counts = {k: sum(n) for k, n in block_sums(ok.astype(np.float64), block).items()}
            for place, errors in block_sums(e, block).items():
                norm = math.sqrt(math.fsum(v * v for v in errors))
                if kind == "l2":
                    assert norm <= value, (kind, place)
                elif counts[place]:
                    assert norm / math.sqrt(counts[place]) <= value * width, (kind, place)


def compare(
    ds: xr.Dataset, back: xr.Dataset, path: Path, bounds: Mapping[str, list[tuple[str, float]]], **kw: Any
) -> None:
    """Judge lossy variables by their bounds and hold all else to be identical."""
    blocks: dict[str, tuple[int, ...]] = {}
    for group in hbae.info(path)["groups"]:
        for name in group["variables"]:
            blocks[name] = tuple(group["geometry"]["block"])
    excluded = dict(kw.get("excluded", {}))
    assert list(back.variables) == list(ds.variables)
    assert dict(back.sizes) == dict(ds.sizes)
    assert list(back.attrs) == list(ds.attrs)
    for name, v in ds.variables.items():
        w = back.variables[name]
        assert w.dims == v.dims
        assert list(w.attrs) == list(v.attrs)
        for key, value in v.attrs.items():
            assert type(w.attrs[key]) is type(value)
            assert np.asarray(w.attrs[key]).dtype == np.asarray(value).dtype
            assert bits(np.asarray(w.attrs[key])) == bits(np.asarray(value))
        x, y = v.values, w.values
        if name in bounds:
            check_variable(
                x, y, bounds[str(name)], blocks.get(str(name)), excluded.get(name, ()), kw.get("spans", {}).get(name)
            )
        else:
            assert y.dtype == x.dtype
            assert y.tolist() == x.tolist() if x.dtype.hasobject else bits(y) == bits(x)


def write_and_judge(ds: xr.Dataset, path: Path, bounds: Mapping[str, list[tuple[str, float]]], **options: Any) -> Any:
    """Compress a Dataset, decode it twice, judge it; gives the report."""
    excluded = options.pop("excluded", {})
    spec = {n: [",".join(f"{k}={v!r}" for k, v in bs)] for n, bs in bounds.items()}
    report = hbae.compress(ds, path, spec, overwrite=True, **options)
    spans = {n: b - a for n, (a, b) in options.get("ranges", {}).items()}
    compare(ds, hbae.decompress(path), path, bounds, excluded=excluded, spans=spans)
    with hbae.open(path, backend="numpy") as lazy:
        compare(ds, lazy.load(), path, bounds, excluded=excluded, spans=spans)
    assert report.size == path.stat().st_size == len(path.read_bytes())
    return report


def sha_of(ds: xr.Dataset) -> str:
    """SHA-256 over all values of a Dataset."""
    h = hashlib.sha256()
    for name in sorted(map(str, ds.variables)):
        h.update(bits(ds.variables[name].values))
    return h.hexdigest()


def smooth_fields(shape: tuple[int, ...] = (9, 20, 24), names: str = "TUV", dtype: str = "f4") -> xr.Dataset:
    """Smooth fields with a little noise, coordinates, an integer and a string variable."""
    rng = np.random.default_rng(5)
    dims = tuple(f"d{i}" for i in range(len(shape)))
    grid = np.meshgrid(*(np.arange(n) / 7 for n in shape), indexing="ij")
    data = {}
    for i, name in enumerate(names):
        x = sum(np.sin(g * (k + 1) + i) for k, g in enumerate(grid)) + rng.normal(0, 0.02, shape)
        data[name] = (dims, (x * 10.0**i + i).astype(dtype), {"units": "K"})
    data["flag"] = ((dims[0],), np.arange(shape[0], dtype=np.int16))
    data["label"] = ((dims[0],), np.array([f"ä{i}" for i in range(shape[0])], object))
    return xr.Dataset(
        data, coords={d: np.linspace(0, 1, n) for d, n in zip(dims, shape, strict=True)}, attrs={"t": "x"}
    )


@pytest.fixture
def judged() -> Callable[..., Any]:
    """Give :func:`write_and_judge`."""
    return write_and_judge


@pytest.fixture
def sha() -> Callable[[xr.Dataset], str]:
    """Give :func:`sha_of`."""
    return sha_of


@pytest.fixture
def fields() -> Callable[..., xr.Dataset]:
    """Give :func:`smooth_fields`."""
    return smooth_fields


@pytest.fixture
def bad_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function after which compress finds a model whose latents are wrong in the way named.

    The net inside has never been trained; ``untrained`` leaves its own answers as they are.
    """
    import torch

    from hbae.container import encode_decoder
    from hbae.models.autoencoder import Autoencoder
    from hbae.models.config import ModelConfig
    from hbae.models.trained import EncodingModel
    from hbae.pipeline import compress as module
    from hbae.pipeline.groups import make_drafts
    from hbae.pipeline.learn import GroupModel
    from hbae.testing.hostile import HostileModel

    def install(kind: str) -> None:
        def prepare(coded: Any, inputs: Any, options: Any) -> GroupModel | None:
            linear = [m for m in coded if not np.isfinite(m.target.pw_rel)]
            if options.method in ("linear", "lossless") or not linear:
                return None
            draft, _ = make_drafts(linear, options, None)[0]
            g, v = draft.geometry, draft.num_variables
            cfg = ModelConfig(
                num_blocks=g.num_blocks, points=g.points, num_variables=v, latents=6, embed=8, hidden=8, head=8,
                block_latents=2,
            )  # fmt: skip
            torch.manual_seed(0)
            net = Autoencoder(cfg, draft.offset, np.maximum(draft.high - draft.low, 1e-30))
            net.calibrate(torch.randn(4, g.num_blocks, g.points, v))
            inner = EncodingModel(net, draft.paths)
            encoder = inner if kind == "untrained" else HostileModel(inner, kind)
            section = encode_decoder(inner.decoder)
            sha = hashlib.sha256(section).hexdigest()
            return GroupModel(draft.paths, g, encoder, inner.decoder, section, sha)

        monkeypatch.setattr(module, "prepare_model", prepare)

    return install
