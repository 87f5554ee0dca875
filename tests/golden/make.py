# SPDX-License-Identifier: MIT
"""Archives of every kind, seeded. ``python tests/golden/make.py`` writes the golden ones and their hashes anew.

Only do that when the format version grows; the files of a released version never change.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import hbae
from hbae.arrays import Array, ArraySource, Attribute, Dimension, Field, Group, Variable
from hbae.blocks import split_tiles
from hbae.bound.fit import fit_transform
from hbae.codecs import ByteReader, unpack
from hbae.codecs.ints import LEVELS
from hbae.codecs.related import Relation
from hbae.codecs.tables import read_runs, read_tables
from hbae.exact import AxisBasis, BlockDecoder, ExactNet, Linear, Split, Transform, Wavelet
from hbae.pipeline.calibrate import Choice
from hbae.pipeline.logdomain import step_for
from hbae.pipeline.plan import GroupPlan, Levels
from hbae.pipeline.replan import fit_blocks
from hbae.pipeline.sampling import whole_axis

HERE = Path(__file__).parent
GOLDEN = {
    "model_codebook",
    "example",
    "attributes_and_types",
    "big_endian_packed",
    "lossless",
    "lossless_chunks",
    "exact_chunks",
    "lossless_predicted",
    "transform_gae",
    "transform_columns",
    "transform_rounded",
    "lorenzo_exact_points",
    "mix_levels_mask",
    "mix_wavelet",
    "wavelet_corrected",
    "related_contexts",
    "related_wavelet",
    "log_domain",
    "model",
    "half_precision",
    "redundant",
}
CASES: dict[str, Callable[[Path], None]] = {}


def case(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a case by its name."""
    CASES[make.__name__] = make
    return make


def wave(*shape: int, seed: int = 0, noise: float = 0.01, dtype: str = "<f4") -> Array:
    """A smooth field with a little noise."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape)
    for i, n in enumerate(shape):
        x = np.arange(n).reshape([-1 if k == i else 1 for k in range(len(shape))])
        total = total + np.sin(0.35 * (i + 1 + seed) * x + i)
    return np.asarray(3 + total + noise * rng.standard_normal(shape)).astype(dtype)


def field(variables: Mapping[str, Any], **extra: Any) -> Field:
    """A field of arrays by path; a value may be (array, attributes)."""
    groups: dict[str, list[Variable]] = {"": []}
    dims: dict[str, dict[str, int]] = {"": {}}
    for path, item in variables.items():
        a, attrs = item if isinstance(item, tuple) else (item, {})
        group, _, name = path.rpartition("/")
        names = tuple(f"d{i}_{n}" for i, n in enumerate(a.shape))
        dims.setdefault(group, {}).update(dict(zip(names, a.shape, strict=True)))
        kind = {"O": "string", "S": "char", "b": "bool"}.get(a.dtype.kind, "number")
        kept = tuple(Attribute(k, v if isinstance(v, str) else np.asarray(v)) for k, v in attrs.items())
        groups.setdefault(group, []).append(
            Variable(name=name, dims=names, source=ArraySource(a), kind=kind, attrs=kept, group=group)
        )
    found = [
        Group(path=g, dims=tuple(Dimension(n, s) for n, s in dims.get(g, {}).items()), variables=tuple(v))
        for g, v in groups.items()
    ]
    return Field(format="dataset", groups=tuple(found), extra={"coords": [], "indexes": [], **extra})


def compress(path: Path, variables: Mapping[str, Any], bound: Any, **options: Any) -> None:
    """Write an archive in one process."""
    hbae.compress(field(variables), path, bound, overwrite=True, threads=1, **{"method": "linear", **options})


def forced(
    path: Path,
    variables: Mapping[str, Any],
    bound: Any,
    change: Callable[[GroupPlan, Any], dict[str, Any]],
    **options: Any,
) -> None:
    """Write an archive under a plan of one's own instead of the best one."""

    def choose(draft: GroupPlan, targets: Any, sample: Any, methods: Any, **_: Any) -> Choice:
        return Choice(replace(draft, **change(draft, sample)), 0.0, False, "forced")

    with (
        mock.patch("hbae.pipeline.choosing.choose_plan", choose),
        mock.patch("hbae.pipeline.encode.estimate_lossless", return_value=1 << 40),
    ):
        compress(path, variables, bound, **options)


def basis(draft: GroupPlan, kinds: tuple[str, ...]) -> Transform:
    """Bases fitted to noise: any basis is a valid one."""
    rng = np.random.default_rng(7)
    return fit_transform(rng.standard_normal((draft.num_variables, 20, *draft.geometry.tile)).cumsum(-1), kinds)


def block_stage(draft: GroupPlan, unit: float) -> dict[str, Any]:
    """A block basis and its step."""
    units = np.full(draft.num_variables, unit)
    left = [wave(draft.num_variables, *draft.geometry.chunk, noise=0.3, dtype="f8")]
    return {"gae": fit_blocks(left, draft, units), "gae_unit": units}


def full(draft: GroupPlan, value: float) -> Array:
    """The same step for all variables."""
    return np.full(draft.num_variables, value)


@case
def example(path: Path) -> None:
    """The archive that the page on the format explains."""
    a = np.add.outer(np.linspace(0, 1, 6), np.sin(np.arange(8) / 3)).astype("<f4")
    forced(path, {"T": a}, "nrmse=1e-2", lambda d, s: {"point_unit": full(d, 0.05), "diff_axes": (0, 1)})


@case
def attributes_and_types(path: Path) -> None:
    text = np.array(["one", "", "drei \u00e4\u00f6\u4e2d"], object)
    compress(
        path,
        {
            "T": (wave(5, 9), {"units": "K", "valid_range": np.array([0.0, 10.0], ">f4")}),
            "text": text,
            "chars": np.array([[b"a", b"\0"], [b"c", b"d"]]),
            "fixed": np.array([b"abc", b"defgh"]),
            "flag": np.array([True, False, True]),
            "scalar": np.array(2.5, ">f8"),
            "empty": np.zeros((0, 4), "<f4"),
            "ints": np.arange(7, dtype="<i8") ** 5,
            "bytes": np.arange(40, dtype="u1"),
            "z": (np.arange(5) + 1j).astype("<c16"),
            "z8": (np.arange(5) - 2j).astype(">c8"),
            "ocean/deep/S": wave(4, 4, 4, seed=2, dtype="<f8"),
            "ocean/n": np.array([3], ">u2"),
        },
        "nrmse=1e-2",
    )


@case
def big_endian_packed(path: Path) -> None:
    packed = np.rint(wave(6, 12) * 1000).astype(">i2")
    packed[2, 3:6] = -32768
    data = {
        "p": (packed, {"scale_factor": np.float64(0.001), "add_offset": np.float64(10.0), "_FillValue": packed[2, 3]}),
        "T": wave(6, 12, dtype=">f4"),
        "U": wave(6, 12, seed=3, dtype=">f8"),
    }
    bounds = ["p:abs=0.01", "T:rel_range=1e-2", "U:psnr=40"]
    forced(path, data, bounds, lambda d, s: {"point_unit": full(d, 0.015), "diff_axes": (0,)})


@case
def lossless(path: Path) -> None:
    rng = np.random.default_rng(6)
    flips = np.bitwise_xor.accumulate(np.uint32(1) << rng.integers(0, 32, 3000).astype("<u4"))
    compress(
        path,
        {"T": wave(9, 11), "n": np.arange(60).reshape(6, 10), "flips": flips},
        "T:nrmse=1e-9",
        method="lossless",
    )


@case
def lossless_chunks(path: Path) -> None:
    """Bounds that no stage can meet with fewer bytes, or where a chunk holds no valid point."""
    a = np.full((8, 8), np.nan, "<f4")
    a[0, :2] = 1, 2
    noise = np.random.default_rng(0).integers(0, 3, (8, 8)).astype("<f4")
    compress(path, {"T": a, "R": noise}, "abs=1e-6", method="auto")


@case
def exact_chunks(path: Path) -> None:
    """Large variables kept without loss lie in chunks."""
    compress(path, {"n": (np.arange(70000, dtype="<i4") // 7).reshape(7, -1), "k": np.zeros(10**5, "<u1")}, "abs=1")


@case
def lossless_predicted(path: Path) -> None:
    """Coordinates and meshes, of which neighbours tell: corners of cells, nodes of elements, smooth values."""
    y, x = np.meshgrid(np.arange(41.0), np.arange(52.0), indexing="ij")
    lat = (90 * np.sin((y - 20 + 3 * np.sin(x / 9)) / 31)).astype("<f4")
    nodes = np.arange(9 * 31).reshape(9, 31)
    quads = np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, 1:], nodes[1:, :-1]], axis=-1).reshape(-1, 4)
    order = np.random.default_rng(3).permutation(len(quads) // 5)
    data = {
        "T": wave(9, 11),
        "lat": lat[:-1, :-1].astype("<f8"),
        "corners": np.stack([lat[:-1, :-1], lat[:-1, 1:], lat[1:, 1:], lat[1:, :-1]], axis=-1).astype(">f8"),
        "nodes": np.concatenate([quads.reshape(-1, 5, 4)[k] for k in order]).astype("<i4"),
        "spectrum": np.exp(1j * (x + y * y) / 90).astype("<c8"),
        "depth": (np.rint(10 * lat[::2, ::2]) / 10).astype("<f4"),
        "starts": np.cumsum(np.cumsum(np.tile(np.random.default_rng(5).integers(0, 900, 41), 12))).astype("<i8"),
        "orders": np.rint(900 * np.sin(x / 7) * np.cos(y / 5)).astype("<i2"),
    }
    compress(path, data, "T:nrmse=1e-2")


@case
def all_bounds(path: Path) -> None:
    kinds = ["nrmse=1e-2", "block_nrmse=1e-2", "l2=0.4", "abs=0.05", "rel_range=1e-2", "pw_rel=1e-2", "psnr=35"]
    kinds.append("nrmse=1e-2,abs=0.05,l2=0.2")
    compress(path, {f"v{i}": wave(6, 7, 5, seed=i) for i in range(8)}, [f"v{i}:{k}" for i, k in enumerate(kinds)])


@case
def transform_gae(path: Path) -> None:
    data = {f"v{i}": wave(9, 14, seed=i, noise=0.1) for i in range(3)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"transform": basis(d, ("klt", "klt", "dct")), "unit": full(d, 0.5), **block_stage(d, 0.08)}

    forced(path, data, "block_nrmse=1e-2", change, block=(4, 4))


@case
def transform_rounded(path: Path) -> None:
    """PCA bases whose weak columns have few bits."""
    data = {f"v{i}": wave(9, 14, seed=i, noise=0.1) for i in range(3)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        tiles = np.random.default_rng(7).standard_normal((d.num_variables, 20, *d.geometry.tile)).cumsum(-1).cumsum(-2)
        transform = fit_transform(tiles, ("klt", "klt", "klt"), 10.0)
        assert all(a.shifts is not None and np.ptp(a.shifts) > 2 for a in transform.axes[1:])
        return {"transform": transform, "unit": full(d, 0.05)}

    forced(path, data, "nrmse=1e-2", change, block=(8, 8))


@case
def transform_none(path: Path) -> None:
    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"transform": basis(d, ("none", "none", "klt")), "unit": full(d, 0.02)}

    forced(path, {f"v{i}": wave(5, 13, seed=i) for i in range(2)}, "nrmse=1e-2", change)


@case
def transform_columns(path: Path) -> None:
    """Tiles from end to end of the first axis, whose basis keeps only the columns that the bound needs."""
    time = np.linspace(0, 3, 40)[:, None] * np.array([1.0, 2.3, 3.1])
    data = {f"v{i}": (np.sin(time + i) @ wave(3, 30, seed=i).astype("<f8")).astype("<f4") for i in range(2)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        geometry = whole_axis(d.geometry)
        tiles = split_tiles((np.stack(list(data.values())) - d.offset[:, None, None]) / 1e-2, geometry.tile)
        transform = fit_transform(tiles, ("none", "pod", "dct"))
        assert transform.axes[1].kept < 10
        return {"geometry": geometry, "transform": transform, "unit": full(d, 2e-2)}

    forced(path, data, "nrmse=1e-2", change, block=(8, 8))


@case
def transform_large_numbers(path: Path) -> None:
    """Fewer fraction bits where coefficients are large."""
    a = wave(8, 8, 8, dtype="<f8") * 1e9

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"transform": basis(d, ("none", "dct", "dct", "dct")), "unit": full(d, 0.05)}

    forced(path, {"T": a}, "nrmse=1e-10", change)


@case
def lorenzo_exact_points(path: Path) -> None:
    """Steps too coarse for the bound: what fails is kept exactly."""
    a = wave(6, 5, 7, noise=0.3)
    forced(path, {"T": a}, "abs=0.2", lambda d, s: {"point_unit": full(d, 0.5), "diff_axes": (0, 1, 2)})


@case
def lorenzo_large(path: Path) -> None:
    """Tokens with raw bits."""
    a = wave(6, 40, dtype="<f8")
    forced(path, {"T": a}, "abs=1e-7", lambda d, s: {"point_unit": full(d, 1e-7), "diff_axes": ()})


@case
def mix_lorenzo(path: Path) -> None:
    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        mix = Transform(basis(d, ("klt", "none", "none")).axes[:1])
        return {"mix": mix, "point_unit": full(d, 0.03), "diff_axes": (1,)}

    forced(path, {f"v{i}": wave(6, 8, seed=i) for i in range(3)}, "nrmse=1e-2", change)


@case
def mix_levels_mask(path: Path) -> None:
    data = {f"v{i}": wave(7, 10, 6, seed=i) for i in range(2)}
    for a in data.values():
        a[:, 2:5, 1:4] = np.nan
        a[3, 8, 2] = np.inf

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        mix = Transform(basis(d, ("klt", "none", "none", "none")).axes[:1])
        return {"mix": mix, "point_unit": full(d, 0.05), "levels": Levels((2, 0, 1), True, (64, 43, 28, 19))}

    forced(path, data, "nrmse=1e-2", change)


@case
def levels_linear_fill(path: Path) -> None:
    a = wave(5, 33)
    a[a > 4.5] = 1e20

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"point_unit": full(d, 0.02), "levels": Levels((0, 1), False, (64, 30))}

    forced(path, {"T": (a, {"_FillValue": np.float32(1e20)})}, "abs=0.05", change)


@case
def mix_wavelet(path: Path) -> None:
    """Time apart, edges of odd length, variables without any coefficient."""
    data = {f"v{i}": wave(21, 18, 10, seed=i, noise=0.05 * (i > 0)) for i in range(3)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        mix = Transform(basis(d, ("klt", "none", "none", "none")).axes[:1])
        return {"mix": mix, "point_unit": full(d, 0.1), "wavelet": Wavelet(((0,), (1, 2)))}

    forced(path, data, "nrmse=1e-1", change)


@case
def wavelet_corrected(path: Path) -> None:
    """Coarse waves, and a block stage without a basis that corrects single points, a masked one among them."""
    data = {f"v{i}": wave(13, 18, 10, seed=i, noise=0.05) for i in range(2)}
    data["v1"][3, 4, 5] = np.nan

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        lengths = (d.num_variables, *d.geometry.block)
        none = Transform(tuple(AxisBasis("none", n, None, np.zeros(n, np.int64)) for n in lengths))
        gae = {"gae": none, "gae_unit": full(d, 0.1 * (1 - 1e-6))}
        return {"point_unit": full(d, 0.3), "wavelet": Wavelet(((0,), (1, 2))), **gae}

    forced(path, data, "abs=0.05", change)


@case
def related_wavelet(path: Path) -> None:
    related(path, "rests")


@case
def related_contexts(path: Path) -> None:
    related(path, "contexts")


def related(path: Path, kind: Relation) -> None:
    """More variables than leaders, combinations of three fields with factors that change from place to place."""
    fields = [wave(11, 10, 12, seed=i, noise=0.3) for i in range(4)]
    data = {f"v{i}": fields[i % 3] * np.float32(1 + i) + fields[3] * fields[(i + 1) % 3] for i in range(18)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        units = 1 + np.arange(18.0) % 7
        return {"point_unit": full(d, 0.3) * units, "wavelet": Wavelet(((0,), (1, 2))), "related": kind}

    forced(path, data, "nrmse=1e-1", change)


@case
def wavelet_together(path: Path) -> None:
    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"point_unit": full(d, 0.03), "wavelet": Wavelet(((1, 0),))}

    forced(path, {"T": wave(37, 26, dtype="<f8")}, "nrmse=1e-2", change)


@case
def wavelet_apart(path: Path) -> None:
    """All axes apart, in another order; sets of 1, 2, 4 and 1 variables, large integers among them."""
    data = {f"v{i}": wave(12, 10, 18, seed=i, noise=0.02 * i) for i in range(8)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        units = 0.3 ** np.arange(8.0)
        return {"point_unit": full(d, 0.1) * units, "wavelet": Wavelet(((2,), (0,), (1,)))}

    forced(path, data, "nrmse=1e-1", change)


@case
def wavelet_pairs(path: Path) -> None:
    """A first group of two axes of different numbers of levels."""
    data = {f"v{i}": wave(35, 9, 10, seed=i, noise=0.03 * i) for i in range(3)}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"point_unit": full(d, 0.05), "wavelet": Wavelet(((2, 0), (1,)))}

    forced(path, data, "nrmse=1e-1", change)


@case
def mask_of_many_values(path: Path) -> None:
    """Masked points of different bits, on one variable only."""
    a, rng = wave(7, 9), np.random.default_rng(5)
    a.reshape(-1)[rng.permutation(63)[:20]] = np.resize(np.array([np.nan, np.inf, -np.inf], "<f4"), 20)
    forced(path, {"T": a, "U": wave(7, 9, seed=1)}, "nrmse=1e-2", lambda d, s: {"point_unit": full(d, 0.05)})


@case
def log_domain(path: Path) -> None:
    a = (wave(6, 11) - 3) * np.exp(wave(6, 11, seed=4) * 3).astype("<f4")
    a[0, 0], a[1, 1] = 0, np.nan
    data = {"T": a, "D": -np.exp(wave(6, 11, dtype=">f8")), "P": np.abs(a) + 1}

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        return {"point_unit": full(d, step_for(1e-3, d.dtype)), "diff_axes": (0, 1)}

    forced(path, data, "pw_rel=1e-3", change)


@case
def half_precision(path: Path) -> None:
    compress(
        path, {"T": wave(8, 9, dtype="<f2"), "U": wave(8, 9, seed=1, dtype=">f2")}, ["T:abs=0.05", "U:pw_rel=0.01"]
    )


@case
def one_dimension(path: Path) -> None:
    compress(path, {"T": wave(70), "S": (wave(1, 1), {}), "Q": wave(3, 1, 4, 1, 2, noise=0)}, "rel_range=1e-2")


@case
def many_chunks(path: Path) -> None:
    compress(path, {"T": wave(96, 20, 20), "U": wave(96, 20, 20, seed=2)}, "nrmse=3e-2", chunk=0.0625)


@case
def finer_chunks(path: Path) -> None:
    """Chunks with finer steps than the plan's, as after a global bound that was missed by little."""
    again = [(64, np.array([0, 2])), (128, np.array([2])), (128, np.array([], int))]
    with mock.patch("hbae.pipeline.pass2.touch_up", side_effect=again):
        compress(path, {"T": wave(96, 20, 20)}, "nrmse=3e-2", chunk=0.0625)


@case
def redundant(path: Path) -> None:
    compress(path, {"T": wave(5, 6)}, "nrmse=1e-2", redundant=True)


def tiny_decoder(d: GroupPlan) -> BlockDecoder:
    """A decoder with every kind of layer, its weights drawn."""
    rng = np.random.default_rng(11)

    def linear(o: int, i: int, act: str, groups: int, bits: int, top: int) -> Linear:
        w = rng.integers(-(1 << bits), 1 << bits, (o, i))
        b, s = rng.integers(-99, 99, o), rng.integers(2, 6, o)
        return Linear(weight=w, bias=b, shift=s, act=act, lo=-top, hi=top, groups=groups)

    g, v = d.geometry, d.num_variables
    k, p = g.num_blocks, g.points
    hyper = ExactNet(
        (
            linear(4 * k, 3, "leaky", 1, 5, 999),
            Split(k),
            linear(6, 4, "relu", 2, 6, 999),
            linear(p * v, 6, "none", 0, 6, 9999),
        ),
        -50,
        50,
    )
    block = ExactNet((linear(p * v, 2, "none", 1, 5, 999),), -20, 20)
    scale, offset = np.full(v, 2.0**-9), d.offset.copy()
    return BlockDecoder(num_blocks=k, points=p, num_variables=v, hyper=hyper, block=block, offset=offset, scale=scale)


class DrawnEncoder:
    """Latents that have nothing to do with the values."""

    def encode(self, x: Array) -> tuple[Array, Array]:
        rng = np.random.default_rng(3)
        n, k = x.shape[:2]
        return np.arange(3 * n).reshape(n, 3) // 2 - 5, rng.integers(-3, 4, (n, k, 2))


def few_valued(decoder: BlockDecoder) -> BlockDecoder:
    """The same with six large, odd values as weights, which are stored as codes with a book."""
    values = np.array([-211, -40, 0, 37, 101, 230])

    def change(net: ExactNet) -> ExactNet:
        layers = [replace(x, weight=values[x.weight % 6]) if isinstance(x, Linear) else x for x in net.layers]
        return replace(net, layers=tuple(layers))

    return replace(decoder, hyper=change(decoder.hyper), block=decoder.block and change(decoder.block))


def write_with_model(path: Path, *, block: bool, book: bool = False) -> None:
    """An archive whose base is a drawn decoder; the stages after it repair everything."""
    from hbae.container import encode_decoder
    from hbae.pipeline import compress as module
    from hbae.pipeline.learn import GroupModel

    data = {f"v{i}": wave(9, 10, 7, seed=i, noise=0.1) for i in range(2)}
    options = {"block": (2, 4, 3), "preset": "auto"}
    made: dict[str, Any] = {}

    def prepare(coded: Any, inputs: Any, opts: Any) -> GroupModel:
        draft = module.make_drafts(coded, opts, None)[0][0]
        geometry = replace(draft.geometry, hyper=(2, 1, 2), tile=(8, 8, 6), chunk=(12, 12, 12))
        decoder = tiny_decoder(replace(draft, geometry=geometry))
        if not block:
            decoder = replace(decoder, block=None)
        if book:
            decoder = few_valued(decoder)
        section = encode_decoder(decoder)
        encoder: Any = DrawnEncoder()
        if not block:
            encoder = mock.Mock(encode=lambda x: (DrawnEncoder().encode(x)[0], None))
        made["model"] = GroupModel(
            names=tuple(data),
            geometry=geometry,
            encoder=encoder,
            decoder=decoder,
            section=section,
            sha=hashlib.sha256(section).hexdigest(),
        )
        return made["model"]

    def change(d: GroupPlan, s: Any) -> dict[str, Any]:
        m = made["model"]
        stage = block_stage(d, 0.08)
        unit = {"transform": basis(d, ("none", "dct", "klt", "dct")), "unit": full(d, 1.0)} if block else {}
        return {"decoder": m.decoder, "model": m.sha, **unit, **stage}

    with mock.patch("hbae.pipeline.compress.prepare_model", prepare):
        forced(path, data, "block_nrmse=2e-2", change, method="hbae", **options)


@case
def model(path: Path) -> None:
    """Hyper-block and block latents, then all correctors."""
    write_with_model(path, block=True)


@case
def model_without_blocks(path: Path) -> None:
    write_with_model(path, block=False)


@case
def model_codebook(path: Path) -> None:
    """Weights as codes with a book."""
    write_with_model(path, block=True, book=True)


@case
def trained_model(path: Path) -> None:
    """A model trained for one epoch."""
    data = {n: wave(8, 8, 6, seed=i) for i, n in enumerate("AB")}
    compress(path, data, "block_nrmse=1e-2", method="hbae", budget="1ep")


def digest(a: Array) -> str:
    """SHA-256 of type, shape and bytes (strings: of their JSON list)."""
    h = hashlib.sha256(f"{a.dtype.str} {list(a.shape)} ".encode())
    h.update(json.dumps(a.ravel().tolist()).encode() if a.dtype.hasobject else np.ascontiguousarray(a).tobytes())
    return h.hexdigest()


def arrays_of(path: Path) -> dict[str, Array]:
    """What the package itself reads."""
    from hbae.pipeline.archive import Archive

    with Archive(path, backend="numpy") as archive:
        return {v.path: v.source.read(tuple(slice(0, n) for n in v.shape)) for v in archive.field.variables()}


class _Dump:
    """Rows of an annotated hex dump."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.rows = data, 0, ["| offset | bytes | meaning |", "|---|---|---|"]

    def take(self, n: int, text: str) -> bytes:
        """Explain the next n bytes."""
        for i in range(0, n, 16):
            piece = self.data[self.at + i : self.at + min(n, i + 16)]
            self.rows.append(f"| `{self.at + i:04x}` | `{piece.hex(' ')}` | {text if i == 0 else ''} |")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self, text: str) -> int:
        """Explain a varint; ``{}`` in the text is its value."""
        n = 1
        while self.data[self.at + n - 1] >= 128:
            n += 1
        value = ByteReader(self.data[self.at : self.at + n]).varint()
        self.take(n, text.format(value))
        return value

    def frame(self, kind: str) -> int:
        """Explain a frame's head; give the end of its payload."""
        number, length = struct.unpack("<IQ", self.data[self.at + 8 : self.at + 20])
        self.take(4, f"frame of the {kind}: mark")
        self.take(4, f"kind {self.data[self.at]}")
        self.take(4, f"number {number}")
        self.take(8, f"payload of {length} bytes")
        self.take(8, "CRC-32 of the payload, CRC-32 of the head")
        return self.at + length

    def packed(self, what: str, show: Callable[[bytes], str]) -> bytes:
        """Explain a packed part."""
        body = unpack(ByteReader(self.data[self.at :]), 1 << 20)
        head = self.varint(f"{what}: packed part of {len(body)} bytes, plain or (odd number) as a zstd frame")
        size = self.varint("zstd frame of {} bytes") if head & 1 else len(body)
        self.take(size, show(body))
        return body


def explain(data: bytes) -> list[str]:
    """Rows that explain the example byte for byte."""
    d = _Dump(data)
    text = lambda b: "`" + b.decode().replace("|", "\\|") + "`"  # noqa: E731
    d.take(8, "prelude: magic")
    d.take(4, "format version 1, minimum reader version 1")
    d.take(4, "CRC-32")
    d.frame("header")
    d.packed("header", text)
    d.frame("section `values`")
    d.take(d.varint("length of the name: {}"), "`values`; its body is empty")
    end = d.frame("section `group 0`")
    d.take(d.varint("length of the name: {}"), "`group 0`")
    d.packed("plan", text)
    names = ("low", "high", "span", "offset", "unit", "gae_unit", "point_unit")
    d.packed("numbers", lambda b: ", ".join(f"{n} {x:g}" for n, x in zip(names, np.frombuffer(b, "<f8"), strict=True)))
    assert d.at == end, "the plan of the example has no transforms"
    end = d.frame("chunk 0")
    d.take(1, "kind 1: coded")
    d.take(32, "SHA-256 of the decoded values")
    d.take(1, "flags: point stage only")
    d.packed("point stage, bitmap", lambda b: f"slabs that are not all zero: {b[0]:08b}")
    d.packed("tables", _show_tables)
    n = d.varint("raw bits: {} bytes")
    d.take(n, "raw bits")
    n = d.varint("rANS words: {} bytes")
    d.take(n, f"{n // 4} words; the last one is read first")
    assert d.at == end, "more parts than expected"
    d.frame("index")
    d.packed("index", text)
    d.take(8, "tail: offset of the index frame")
    d.take(8, "its length")
    d.take(8, "length of the file")
    d.take(4, "CRC-32")
    d.take(4, "mark")
    assert d.at == len(data), "bytes left over"
    return d.rows


def _show_tables(body: bytes) -> str:
    r = ByteReader(body)
    kinds = [r.varint() for _ in range(r.varint())]
    labels = read_runs(r, LEVELS)
    tables = read_tables(r, len(kinds))
    begins = np.flatnonzero(np.diff(labels, prepend=-1))
    used = ", ".join(f"contexts from {c} on: table {labels[c]}" for c in begins)
    shown = "; ".join(" ".join(str(f) for f in t) for t in tables)
    return f"tables: {kinds}; {used}; frequencies {shown}"


def main() -> None:
    """Write all golden archives and hashes.json."""
    hashes = {}
    for name in sorted(GOLDEN):
        path = HERE / f"{name}.hbae"
        CASES[name](path)
        if path.stat().st_size > 20_000:
            raise SystemExit(f"{name}: too large")
        hashes[name] = {p: digest(a) for p, a in arrays_of(path).items()}
    (HERE / "hashes.json").write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")
    page = HERE.parent.parent / "docs" / "format.md"
    head, mark, rest = page.read_text().partition("<!-- example -->\n")
    tail = rest.partition("<!-- end of example -->")[2]
    rows = "\n".join(explain((HERE / "example.hbae").read_bytes()))
    page.write_text(f"{head}{mark}\n{rows}\n\n<!-- end of example -->{tail or chr(10)}")


if __name__ == "__main__":
    main()
