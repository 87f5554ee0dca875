# SPDX-License-Identifier: MIT
"""A size or a ratio is asked for: the file never exceeds it, uses most of it, and its bounds hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.config import ErrorBound, parse_size
from hbae.errors import ConfigError, OutputExistsError, SizeNotMetError
from hbae.pipeline.report import Report
from hbae.pipeline.size import Ask, loosest, scaled, write_to_size
from hbae.pipeline.stats import Validity, VariableStats
from hbae.ranks import Solo


def field(noise: float) -> xr.Dataset:
    """Fronts of many widths with noise, and a variable that stays as it is."""
    rng = np.random.default_rng(1)
    t, y, x = np.meshgrid(np.arange(8) / 8, np.linspace(-2, 2, 40), np.linspace(-2, 2, 48), indexing="ij")
    a = np.tanh(5 * (x - np.sin(3 * y + t))) + np.cos(4 * x * y + 3 * t)
    dims = ("t", "y", "x")
    return xr.Dataset(
        {"a": (dims, (a + rng.normal(0, noise, a.shape)).astype("f4")), "n": (("t",), np.arange(8))},
        coords={"x": np.arange(48.0)},
    )


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("ask", [{"cr": 5.5}, {"size": "2.5kB"}, {"cr": 9, "bound": "abs=3"}])
def test_most_of_the_size_is_used_and_never_more(noise: float, ask: dict[str, Any], tmp_path: Path) -> None:
    ds, path = field(noise), tmp_path / "a.hbae"
    r = hbae.compress(ds, path, method="linear", **ask)
    most = 2500 if "size" in ask else int(ds.a.nbytes / ask["cr"])
    assert r.most_bytes == most
    assert 0.95 * most <= path.stat().st_size == r.size <= most
    assert "cr" not in ask or r.cr >= ask["cr"]
    kind, _, value = r.variables[0].bounds[0].partition("=")
    e = hbae.decompress(path).a.values.astype("f8") - ds.a.values
    found = {"abs": abs(e).max(), "nrmse": np.sqrt((e * e).mean()) / float(ds.a.max() - ds.a.min())}[kind]
    assert 0.5 * float(value) < found <= float(value) * (1 + 1e-5)
    assert hbae.info(path)["groups"][0]["bounds"] == [list(r.variables[0].bounds)]
    assert hbae.verify(path, ds).ok
    assert list(tmp_path.iterdir()) == [path]


def test_given_bounds_keep_their_proportions(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    ds, path = fields((6, 24, 24), "TUV"), tmp_path / "a.hbae"
    spec = ["T:nrmse=1", "U:nrmse=0.1", "V:psnr=10"]
    r = hbae.compress(ds, path, spec, method="linear", cr=8)
    assert r.cr >= 8
    got = {v.path: float(v.bounds[0].partition("=")[2]) for v in r.variables}
    assert got["U"] == pytest.approx(0.1 * got["T"], rel=1e-4)
    assert 10 ** (-(got["V"] - 10) / 20) == pytest.approx(got["T"], rel=1e-4)
    assert hbae.verify(path, ds).ok


def test_what_lossless_meets_is_lossless(tmp_path: Path) -> None:
    ds, path = field(0.0), tmp_path / "a.hbae"
    r = hbae.compress(ds, path, size=1 << 20)
    assert r.variables[0].method == "lossless"
    assert "no loss is needed" in " ".join(r.notes)
    assert hbae.decompress(path).identical(ds)
    few = ds.assign(a=np.round(ds.a))
    r = hbae.compress(few, tmp_path / "few.hbae", cr=8)
    assert r.variables[0].method == "lossless"
    assert hbae.decompress(tmp_path / "few.hbae").identical(few)


def test_a_size_that_cannot_be_met_is_refused(tmp_path: Path) -> None:
    ds, path = field(0.0), tmp_path / "a.hbae"
    with pytest.raises(SizeNotMetError, match="200 bytes cannot be met: even with nrmse=1 the file takes"):
        hbae.compress(ds, path, size=200, method="linear")
    with pytest.raises(SizeNotMetError, match="without loss is larger"):
        hbae.compress(ds, path, size=2000, method="lossless")
    ds["big"] = (("k",), np.random.default_rng(0).integers(0, 2**32, 50000))
    with pytest.raises(SizeNotMetError, match="what is not lossy alone takes"):
        hbae.compress(ds, path, size=20000)
    assert not list(tmp_path.iterdir())


def test_large_lossless_variables_are_inside_the_size(tmp_path: Path) -> None:
    ds, path = field(0.02), tmp_path / "a.hbae"
    ds["big"] = (("k",), np.random.default_rng(0).integers(0, 2**16, 50000))
    r = hbae.compress(ds, path, size=105_000, method="linear")
    assert 0.95 * 105_000 <= r.size == path.stat().st_size <= 105_000
    assert (hbae.decompress(path).big == ds.big).all()


def test_an_output_that_exists_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists"):
        hbae.compress(field(0.0), path, cr=10)
    assert path.read_bytes() == b"mine"


def test_sizes_are_read() -> None:
    assert [parse_size(s) for s in ("20MB", "1.5MiB", "7", 1e3, "2 kib", "3GB")] == [
        20_000_000, 1_572_864, 7, 1000, 2048, 3_000_000_000,
    ]  # fmt: skip
    for bad in ("", "MB", "-1", "1XB", "nan", "0", "1e30", "1.2.3", "ib"):
        with pytest.raises(ConfigError, match="expected bytes"):
            parse_size(bad)


def test_options_exclude_each_other(tmp_path: Path) -> None:
    for options, text in (
        ({"size": 9, "cr": 2}, "exclude"),
        ({"cr": 0}, "positive"),
        ({}, "give --bound, --size, --cr"),
    ):
        with pytest.raises(ConfigError, match=text):
            hbae.compress(field(0.0), tmp_path / "a.hbae", **options)


def test_scaled_bounds_stay_bounds() -> None:
    bs = (ErrorBound("pw_rel", 0.5), ErrorBound("psnr", 20), ErrorBound("l2", 2.0))
    assert scaled(bs, 10) == (ErrorBound("pw_rel", 0.999), ErrorBound("psnr", 1e-3), ErrorBound("l2", 20.0))
    stats = VariableStats(low=0.0, high=8.0, valid=100, invalid=0, validity=Validity())
    assert loosest({"a": bs}, {"a": stats}) == 8 / 2 * 10


@dataclass
class Sized:
    """An attempt whose file has the length that its scale asks for, to the byte."""

    length: int

    def estimate(self) -> float:
        return float(self.length)

    def write(self, out: str | os.PathLike[str]) -> Report:
        Path(out).write_bytes(bytes(self.length))
        return Report(
            path=str(out), size=self.length, raw_bytes=1, lossy_values=1, variables=(), sizes={"chunks": self.length}
        )


@pytest.mark.parametrize("lossless_first", [False, True])
@pytest.mark.parametrize("over", [1, 2, 900])
def test_not_one_byte_over(over: int, lossless_first: bool, tmp_path: Path) -> None:
    """Files that come out a hair too large are never the answer, whether with loss or without."""
    most = 1_000_000

    def start(scale: float | None, near: bool) -> Sized:
        if scale is None:
            return Sized(most + over)
        return Sized(most + over if scale < 0.5 else most - 20_000)

    ask = Ask(most=most, top=1.0, overwrite=False, lossless_first=lossless_first)
    report = write_to_size(start, tmp_path / "a.hbae", ask, Solo())
    assert report.size == (tmp_path / "a.hbae").stat().st_size <= most
    assert [p.name for p in tmp_path.iterdir()] == ["a.hbae"]


def test_nothing_is_left_when_none_fits(tmp_path: Path) -> None:
    with pytest.raises(SizeNotMetError, match="cannot be met"):
        write_to_size(lambda *_: Sized(11), tmp_path / "a.hbae", Ask(most=10, top=1.0, overwrite=False), Solo())
    with pytest.raises(ZeroDivisionError):
        write_to_size(lambda *_: 1 // 0, tmp_path / "a.hbae", Ask(most=10, top=1.0, overwrite=False), Solo())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
