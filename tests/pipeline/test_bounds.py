# SPDX-License-Identifier: MIT
"""P1 and P5: every bound holds on what a reader gets, judged apart from the package; all else comes back identical."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hbae
from hbae.arrays import Array
from hbae.config import KINDS
from hbae.pipeline import encode

PATTERNS = (
    "smooth", "noise", "constant", "two", "spikes", "denormal", "zeros", "integers", "huge", "tiny", "steps", "walk",
)  # fmt: skip
HOLES = ("none", "nan", "payload", "inf", "fill", "all_nan", "one_valid", "mixed")
SHAPES = (
    (), (0,), (1,), (2,), (7,), (131,), (0, 5), (1, 1), (13, 17), (3, 129), (5, 1, 7), (11, 13, 5), (9, 10, 8),
    (0, 3, 4), (3, 5, 7, 2), (2, 1, 3, 1, 5), (2, 3, 2, 3, 2, 3), (1, 1, 1, 1, 1, 1),
    (3, 2, 2, 3, 2, 2, 3), (2, 2, 3, 2, 2, 2, 3, 2), (2, 1, 1, 5, 1, 7, 1, 1, 3), (2,) * 11,
)  # fmt: skip
DTYPES = ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2")
FILL = -999.0


def base_values(pattern: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Values of one pattern in float64, within the type's range."""
    info = np.finfo(dtype)
    ramp = sum(np.arange(n).reshape([-1 if i == k else 1 for i in range(len(shape))]) for k, n in enumerate(shape))
    wave = np.sin(np.broadcast_to(np.asarray(ramp, np.float64), shape) / 5.0)
    noise = rng.standard_normal(shape)
    top = float(info.max)
    made = {
        "smooth": lambda: 280 + 20 * wave,
        "noise": lambda: noise,
        "constant": lambda: np.full(shape, 3.25),
        "two": lambda: np.where(rng.random(shape) < 0.3, -1.5, 2.0),
        "spikes": lambda: np.where(rng.random(shape) < 0.05, noise * 1e4, 0.0),
        "denormal": lambda: noise * float(info.smallest_subnormal) * 100,
        "zeros": lambda: np.where(rng.random(shape) < 0.5, -0.0, 0.0) * np.ones(shape),
        "integers": lambda: np.rint(noise * 5),
        "huge": lambda: noise * (top / 64),
        "tiny": lambda: noise * float(info.tiny) * 1e3,
        "steps": lambda: np.floor(np.broadcast_to(np.asarray(ramp, np.float64), shape) / 3) * 1e3,
        "walk": lambda: np.cumsum(noise.ravel()).reshape(shape) * 1e-3,
    }
    return np.clip(np.array(made[pattern](), np.float64).reshape(shape), -top / 8, top / 8)


def dig(x: Array, holes: str, rng: np.random.Generator) -> Array:
    """Put invalid points in, NaN payloads included, bit for bit."""
    if holes == "none" or not x.size:
        return x
    where = rng.random(x.shape) < (1.0 if holes == "all_nan" else 0.2)
    if holes == "one_valid":
        where = np.ones(x.shape, bool)
        where.ravel()[int(rng.integers(x.size))] = False
    if holes in ("inf", "mixed"):
        x[where & (rng.random(x.shape) < 0.5)] = np.inf
        x[where & ~np.isinf(x)] = -np.inf
    if holes == "fill":
        x[where] = FILL
        return x
    if holes in ("nan", "all_nan", "one_valid"):
        x[where] = np.nan
    if holes in ("payload", "mixed"):
        size = x.dtype.itemsize
        word = x.dtype.str[0].replace("|", "<") + f"u{size}"
        exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}[size]
        low = rng.integers(1, {2: 1 << 9, 4: 1 << 22, 8: 1 << 51}[size], x.shape, dtype=np.uint64)
        sign = rng.integers(0, 2, x.shape, dtype=np.uint64) << np.uint64(8 * size - 1)
        words = np.asarray(low | np.uint64(exponent) | sign).astype(word)
        flags = where if holes == "payload" else where & (rng.random(x.shape) < 0.4)
        flat = np.frombuffer(x.tobytes(), word).reshape(x.shape).copy()
        flat[flags] = words[flags]
        x = flat.view(x.dtype)
    return x


def make_dataset(
    shape: tuple[int, ...], dtype: str, pattern: str, holes: str, seed: int, variables: int = 1
) -> tuple[xr.Dataset, list[str]]:
    """A Dataset with variables of that pattern, and things around them that must not change."""
    rng = np.random.default_rng(seed)
    dims = tuple(f"d{i}" for i in range(len(shape)))
    data: dict[str, Any] = {}
    names = [f"v{i}" for i in range(variables)]
    for i, name in enumerate(names):
        kind = pattern if i == 0 else PATTERNS[(PATTERNS.index(pattern) + i) % len(PATTERNS)]
        with np.errstate(over="ignore"):
            x = np.array(base_values(kind, shape, rng, np.dtype(dtype)), dtype, order="C").reshape(shape)
        attrs: dict[str, Any] = {"long_name": "ünïcode", "n": np.int16(3)}
        if holes == "fill":
            attrs["_FillValue"] = np.array(FILL, dtype)[()]
        data[name] = (dims, dig(x, holes, rng), attrs)
    data["count"] = (("k",), rng.integers(-(2**62), 2**62, 5))
    data["flag"] = (("k",), rng.random(5) < 0.5)
    data["label"] = (("k",), np.array(["a", "", "ß", "long" * 9, "\0"], object))
    coords = {d: (d, np.linspace(0.1, 3, n).astype(">f8")) for d, n in zip(dims, shape, strict=True)}
    return xr.Dataset(data, coords=coords, attrs={"title": "t", "nan": np.float32("nan"), "list": ["x", "y"]}), names


def typical_value(kind: str, exponent: float, ds: xr.Dataset, name: str) -> float:
    """A bound of that kind between far below the type's resolution and far over the range."""
    if kind == "psnr":
        return max(1e-3, -20.0 * exponent)
    value = 10.0**exponent
    if kind == "pw_rel":
        return min(value, 0.99)
    if kind in ("abs", "l2"):
        x = ds[name].values
        good = x[np.isfinite(x) & (x != FILL)].astype(np.float64)
        width = float(good.max() - good.min()) if good.size else 1.0
        value *= width if width > 0 else 1.0
        value = value if value > 0 and math.isfinite(value) else 1e-300
    return value


CASES = st.tuples(
    st.sampled_from(SHAPES),
    st.sampled_from(DTYPES),
    st.sampled_from(PATTERNS),
    st.sampled_from(HOLES),
    st.lists(st.tuples(st.sampled_from(KINDS), st.floats(-12, 0.5)), min_size=1, max_size=3, unique_by=lambda b: b[0]),
    st.integers(0, 2**32 - 1),
)


def run_case(case: Any, judged: Callable[..., Any], path: Path, variables: int = 1, **options: Any) -> Any:
    """Make the data of a case, compress and judge."""
    shape, dtype, pattern, holes, asked, seed = case
    ds, names = make_dataset(shape, dtype, pattern, holes, seed, variables)
    bounds = {n: [(k, typical_value(k, e, ds, n)) for k, e in asked] for n in names}
    excluded = dict.fromkeys(names, (FILL,) if holes == "fill" else ())
    return judged(ds, path, bounds, excluded=excluded, **options)


@settings(max_examples=350)
@given(case=CASES)
def test_linear_holds_every_bound(case: Any, judged: Callable[..., Any], tmp_path: Path) -> None:
    run_case(case, judged, tmp_path / "a.hbae", method="linear")


@settings(max_examples=120)
@given(case=CASES, block=st.lists(st.integers(1, 9), min_size=11, max_size=11), chunk=st.sampled_from([0.0625, 1.0]))
def test_auto_with_several_variables_and_any_blocks(
    case: Any, block: list[int], chunk: float, judged: Callable[..., Any], tmp_path: Path
) -> None:
    run_case(
        case, judged, tmp_path / "a.hbae", variables=3, method="auto", block=tuple(block[: len(case[0])]), chunk=chunk
    )


@settings(max_examples=60)
@given(case=CASES)
def test_lossless_changes_no_bit(case: Any, tmp_path: Path) -> None:
    shape, dtype, pattern, holes, _, seed = case
    ds, names = make_dataset(shape, dtype, pattern, holes, seed)
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="lossless", overwrite=True)
    back = hbae.decompress(tmp_path / "a.hbae")
    for n in names:
        assert back[n].values.tobytes() == ds[n].values.tobytes()
        assert back[n].dtype == ds[n].dtype


@settings(max_examples=60)
@given(case=CASES, kind=st.sampled_from(["zeros", "nan", "noise", "extreme", "negated", "shuffled", "untrained"]))
@example(case=((9, 10, 8), "<f4", "smooth", "none", [("nrmse", -3.0)], 1), kind="nan")
@example(case=((9, 10, 8), "<f4", "smooth", "payload", [("block_nrmse", -3.0)], 1), kind="extreme")
@example(case=((9, 10, 8), "<f4", "walk", "fill", [("l2", -2.0), ("abs", -1.0)], 2), kind="noise")
@example(case=((11, 13, 5), ">f8", "noise", "mixed", [("nrmse", -5.0), ("abs", -3.0)], 3), kind="shuffled")
def test_any_model_holds_every_bound(
    case: Any, kind: str, judged: Callable[..., Any], bad_model: Callable[[str], None], tmp_path: Path
) -> None:
    bad_model(kind)
    run_case(case, judged, tmp_path / "a.hbae", variables=2, method="hbae")


@pytest.mark.parametrize("kind", ["zeros", "nan", "noise", "extreme"])
def test_answers_of_models_become_latents_that_the_decoder_takes(
    kind: str, bad_model: Callable[[str], None], tmp_path: Path
) -> None:
    """Latents are integers in the decoder's range before they are coded, so that every machine codes the same."""
    bad_model(kind)
    found: list[Array] = []
    right = encode.latents_of

    def seen(*args: Any) -> Any:
        parts = right(*args)
        found.extend(z for z in (parts.z, parts.zb) if z is not None)
        return parts

    ds, _ = make_dataset((9, 10, 8), "<f4", "smooth", "none", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "latents_of", seen)
        hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="hbae")
    assert found
    assert all(z.dtype == np.int64 and np.abs(z).max() <= 2047 for z in found)
    assert "hbae" in hbae.info(tmp_path / "a.hbae")["groups"][0]["stages"]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_relative_bounds_stay_inside_the_range_of_both_signs(
    dtype: str, judged: Callable[..., Any], tmp_path: Path
) -> None:
    """A floor of negative values far smaller than the largest positive one; magnitudes alone would let it sink."""
    rng = np.random.default_rng(3)
    for floor in (-1.01, -1.37, -1.93, 1.53):
        x = np.sign(floor) * np.exp(rng.normal(0, 1, (12, 14)).cumsum(1) / 3)
        x[x < -1] = 7
        x[::3] = floor
        x[5, 5] = -40 * floor
        ds = xr.Dataset({"x": (("a", "b"), x.astype(dtype)), "y": (("a", "b"), np.abs(x).astype(dtype))})
        asked = [("pw_rel", 0.03)]
        judged(ds, tmp_path / "a.hbae", {"x": asked, "y": asked}, method="linear")
        assert dtype == "<f2" or "point" in hbae.info(tmp_path / "a.hbae")["groups"][0]["stages"]


PAIRS = {"abs": ("abs=0.02", "rel_range=0.1"), "nrmse": ("nrmse=0.002", "psnr=20"), "psnr": ("psnr=55", "nrmse=0.05")}


@pytest.mark.parametrize("kind", list(PAIRS))
@pytest.mark.parametrize("first", ["tight", "loose"])
def test_of_two_bounds_on_one_quantity_both_hold(
    kind: str, first: str, judged: Callable[..., Any], tmp_path: Path
) -> None:
    """The second one is no replacement of the first."""
    x = np.random.default_rng(4).normal(0, 1, (12, 20, 18)).cumsum(2)
    tight, loose = ((k, float(v)) for k, v in (b.split("=") for b in PAIRS[kind]))
    bounds = [tight, loose] if first == "tight" else [loose, tight]
    judged(xr.Dataset({"T": (("a", "b", "c"), x)}), tmp_path / "a.hbae", {"T": bounds}, method="linear")
    assert hbae.decompress(tmp_path / "a.hbae")["T"].values.tobytes() != x.tobytes()
