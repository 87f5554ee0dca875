# SPDX-License-Identifier: MIT
"""The reader written from docs/format.md gives the same bits as the package, for every stage of the format."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.codecs import encode_coefficients
from hbae.codecs.related import Relation
from hbae.exact import Wavelet
from hbae.pipeline.levels import encode_levels
from hbae.pipeline.plan import Levels
from hbae.pipeline.waves import encode_waves

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def load(name: str, path: Path) -> ModuleType:
    """Import a file by its path."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


reference = load("reference_reader", HERE / "reference_reader.py")
make = load("golden_make", GOLDEN / "make.py")


class Watch:
    """Counts what the reference reader met: chunk kinds, flags, modes, bases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        plan = reference.Plan
        for owner, name, look in (
            (reference, "lossless", self._lossless),
            (reference, "mask_of", self._mask),
            (sys.modules["reference_codes"], "residuals", self._residuals),
            (plan, "coded", self._coded),
            (plan, "chunk", self._chunk),
        ):
            self._wrap(monkeypatch, owner, name, look)

    @staticmethod
    def _wrap(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, look: object) -> None:
        inner = getattr(owner, name)

        def outer(*args: object) -> object:
            look(*args)
            return inner(*args)

        monkeypatch.setattr(owner, name, outer)
        if name in ("lossless", "mask_of"):
            monkeypatch.setattr(reference, name, outer)

    def _lossless(self, r, shape, dtype):
        mode, _, shuffle = r.data[r.at : r.at + 3]
        self.seen.add(f"lossless mode {mode}")
        if mode < 3:
            self.seen.add(f"shuffle {shuffle}")
        elif r.data[r.at + 1] >= 64:
            self.seen.add("places")

    def _residuals(self, r, planes, grid, size):
        self.seen |= {f"residuals {r.data[r.at]}", f"planes {planes}"}

    def _mask(self, r, shape):
        self.seen.add(f"mask mode {r.data[r.at]}")

    def _chunk(self, plan, payload, grid):
        self.seen.add(f"chunk kind {payload[0]}")

    def _coded(self, plan, r, shape):
        flags = r.data[r.at]
        self.seen |= {f"flag {1 << i}" for i in range(8) if flags >> i & 1}
        for name, bases in plan.bases.items():
            for matrix, _ in bases or ():
                self.seen.add(f"{name} {'none' if matrix is None else 'matrix'}")
        self.seen.add(f"domain {plan.doc['domain']}")
        if flags & 32:
            wave, levels, diff = (bool(plan.doc.get(k)) for k in ("wavelet", "levels", "diff"))
            kind = "wavelet" if wave else "levels" if levels else "differences" if diff else "plain"
            kind = "related" if plan.doc.get("related") else kind
            self.seen.add(f"point {kind}")
        if any(plan.doc["packing"]):
            self.seen.add("packing")


def same(path: Path) -> None:
    """Fail unless both readers give the same types, shapes and bits."""
    expected, found = make.arrays_of(path), reference.read(path)
    assert list(found) == list(expected)
    for name, a in expected.items():
        assert make.digest(found[name]) == make.digest(a), name


CASES = sorted(make.CASES)
MUST = {
    *(f"lossless mode {m}" for m in range(4)),
    *(f"residuals {k}" for k in range(3)),
    "planes 1",
    "places",
    "planes 4",
    *(f"mask mode {m}" for m in range(4)),
    *(f"flag {f}" for f in (1, 2, 4, 8, 16, 32, 64)),
    *("shuffle 0", "shuffle 1", "chunk kind 0", "chunk kind 1", "domain linear", "domain log", "packing"),
    *("transform none", "transform matrix", "gae matrix", "mix matrix"),
    *("point wavelet", "point related", "point levels", "point differences", "point plain"),
}


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=5).map(tuple),
    tiles=st.integers(1, 3),
    scale=st.integers(0, 20),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_any_coefficients(shape: tuple[int, ...], tiles: int, scale: int, zeros: float, seed: int) -> None:
    """Axes of length 1, tiles, runs of any length, zeros anywhere."""
    rng = np.random.default_rng(seed)
    logs = [rng.integers(0, 30, n) for n in shape]
    q = rng.integers(-(2**scale), 2**scale + 1, (shape[0], tiles, *shape[1:]))
    q *= rng.random(q.shape) >= zeros
    r = reference.Bytes(encode_coefficients(q, logs))
    assert np.array_equal(reference.coefficients(r, tiles, logs), q)
    r.end()


@settings(max_examples=20, deadline=None)
@given(
    shape=st.one_of(
        st.lists(st.integers(1, 13), min_size=1, max_size=3).map(tuple),
        st.lists(st.integers(2, 4), min_size=4, max_size=4).map(tuple),
    ),
    variables=st.integers(1, 20),
    related=st.sampled_from(get_args(Relation)),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_any_wavelet(shape: tuple[int, ...], variables: int, related: Relation, seed: int, data: st.DataObject) -> None:
    """Any grouping of the axes, edges of any length, variables of any size, related or not."""
    rng = np.random.default_rng(seed)
    axes = data.draw(st.permutations(range(len(shape))))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(shape) - 1, max_size=len(shape) - 1))
    groups: list[list[int]] = [[axes[0]]]
    for a, cut in zip(axes[1:], cuts, strict=True):
        groups.append([a]) if cut else groups[-1].append(a)
    wavelet = Wavelet(tuple(tuple(g) for g in groups))
    x = rng.normal(size=(variables, *shape)) + bool(related) * rng.normal(size=shape)
    x *= 10.0 ** rng.uniform(-2, data.draw(st.sampled_from([1, 4, 9])), (variables, *(1,) * len(shape)))
    coded, known = encode_waves(x, wavelet, worth=0.0, related=related, known=True)
    r = reference.Bytes(coded)
    assert np.array_equal(reference.waved(r, x.shape, groups, related), known)
    r.end()


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple),
    variables=st.integers(1, 8),
    cubic=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_interpolation(shape: tuple[int, ...], variables: int, cubic: bool, seed: int) -> None:
    """Any number of variables of any size, any order of axes."""
    rng = np.random.default_rng(seed)
    levels = Levels(tuple(rng.permutation(len(shape)).tolist()), cubic, (64, 43, 28, 19))
    x = rng.normal(size=(variables, *shape)) * 10.0 ** rng.uniform(-2, 4, (variables, *(1,) * len(shape)))
    coded, known = encode_levels(x, levels, 0.5)
    r = reference.Bytes(coded)
    assert np.array_equal(reference.interpolated(r, x.shape, (levels.order, cubic, levels.steps)), known)
    r.end()


@pytest.mark.parametrize("name", [n for n in CASES if n != "trained_model"])
def test_same_bits(name: str, tmp_path: Path) -> None:
    make.CASES[name](tmp_path / "a.hbae")
    same(tmp_path / "a.hbae")


def test_trained_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    make.CASES["trained_model"](tmp_path / "a.hbae")
    header, sections, _ = reference.read_file((tmp_path / "a.hbae").read_bytes())
    assert any(n.startswith("model ") for n in sections), header
    same(tmp_path / "a.hbae")


def test_every_stage_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden archives alone, few as they are, use every stage and mode."""
    watch = Watch(monkeypatch)
    for path in sorted(GOLDEN.glob("*.hbae")):
        reference.read(path)
    assert watch.seen >= MUST, MUST - watch.seen


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.hbae")), ids=lambda p: p.stem)
def test_golden(path: Path) -> None:
    """Files of format version 1 decode to the same bits forever."""
    expected = json.loads((GOLDEN / "hashes.json").read_text())[path.stem]
    for arrays in (make.arrays_of(path), reference.read(path)):
        assert {p: make.digest(a) for p, a in arrays.items()} == expected


def test_golden_files_are_all_there() -> None:
    names = {p.stem for p in GOLDEN.glob("*.hbae")}
    assert names == make.GOLDEN == set(json.loads((GOLDEN / "hashes.json").read_text()))


def test_example_of_the_page() -> None:
    """The hex dump on the page is the golden file."""
    page = (HERE.parent / "docs" / "format.md").read_text()
    dump = page.split("<!-- example -->")[1].split("<!-- end of example -->")[0]
    data = b"".join(bytes.fromhex(row.split("`")[3]) for row in dump.splitlines() if row.startswith("| `"))
    assert data == (GOLDEN / "example.hbae").read_bytes()


def test_reader_stands_alone(tmp_path: Path) -> None:
    """No import but NumPy, zstandard and the standard library; it runs as a program."""
    allowed = {"numpy", "zstandard", *sys.stdlib_module_names}
    for file in HERE.glob("reference_*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(n.split(".")[0] in allowed or n == "reference_codes" for n in names), names
    source = GOLDEN / "attributes_and_types.hbae"
    code = f"import sys, runpy; sys.path.insert(0, {str(HERE)!r}); import reference_reader as r; "
    code += f"r.main([{str(source)!r}, {str(tmp_path)!r}]); assert 'hbae' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    for name, a in make.arrays_of(source).items():
        b = np.load(tmp_path / f"{name}.npy")
        assert (b == a).all() if a.dtype.hasobject else b.tobytes() == a.tobytes()


@pytest.mark.parametrize("at", [3, 40, 400, -10, -60])
def test_damage_is_seen(at: int, tmp_path: Path) -> None:
    data = bytearray((GOLDEN / "example.hbae").read_bytes())
    data[at] ^= 4
    (tmp_path / "a.hbae").write_bytes(data)
    with pytest.raises(ValueError):  # noqa: PT011
        reference.read(tmp_path / "a.hbae")
