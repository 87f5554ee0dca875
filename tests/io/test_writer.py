# SPDX-License-Identifier: MIT
"""The writer: all or nothing, boxes in any order; scratch arrays; reading boxes; facts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hbae.arrays import ArraySource, Attribute, Dimension, Field, Group, Variable, box_shape, boxes_of
from hbae.errors import ConfigError, FieldError, OutputError, OutputExistsError, UnknownNameError
from hbae.io import (
    FieldWriter,
    ScratchFile,
    fill_patterns,
    open_field,
    packing,
    reading_boxes,
    same_field,
    write_field,
)
from hbae.io.boxes import whole

SUFFIXES = [".nc", ".zarr", ".h5", ".raw"]


def _field(values: Any, name: str = "v", form: str = "netcdf4", **more: Any) -> Field:
    values = np.asarray(values)
    dims = tuple(f"dim_{i}" for i in range(values.ndim))
    v = Variable(name=name, dims=dims, source=ArraySource(values), **more)
    return Field(
        format=form,
        groups=(Group(dims=tuple(Dimension(n, s) for n, s in zip(dims, values.shape, strict=True)), variables=(v,)),),
    )


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npy"])
def test_misaligned_boxes_in_any_order(tmp_path: Path, suffix: str) -> None:
    values = np.arange(11 * 13 * 7, dtype="f4").reshape(11, 13, 7)
    field = _field(values, "data", hints={"chunks": [4, 5, 7]})
    boxes = list(boxes_of(values.shape, (4, 10, 7)))[:1]
    rest = list(boxes_of((11, 13, 7), (11, 3, 2)))
    with FieldWriter(tmp_path / f"a{suffix}", field) as w:
        # first a box on whole chunks, then boxes across chunks
        w.put("data", boxes[0], values[boxes[0]])
        for box in reversed(rest):
            for part in boxes_of(box_shape(box), (1, 1, 9)):
                small = tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, part, strict=True))
                if small[0].start < 4 and small[1].start < 10:
                    continue
                w.put("data", small, values[small])
        assert len([p for p in tmp_path.iterdir() if p.suffix == ".scratch"]) == 0
    v = open_field(tmp_path / f"a{suffix}").variable("data")
    assert v.source.read(whole(v.shape)).tobytes() == values.tobytes()


def _fail(out: Path, field: Field, error: BaseException) -> None:
    with FieldWriter(out, field) as w:
        w.put("v", (slice(0, 1), slice(0, 3)), np.zeros((1, 3)))
        raise error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_after_a_failure(tmp_path: Path, suffix: str) -> None:
    field = _field(np.arange(6.0).reshape(2, 3))
    out = tmp_path / f"a{suffix}"
    for error in (ValueError("stop"), KeyboardInterrupt("stop")):
        with pytest.raises(type(error), match="stop"):
            _fail(out, field, error)
    with pytest.raises(FieldError, match=r"not written whole: v \(6 values\)"), FieldWriter(out, field):
        pass
    assert list(tmp_path.iterdir()) == []
    write_field(field, out)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(OutputExistsError, match="exists"):
        write_field(field, out)
    other = _field(np.arange(6.0).reshape(2, 3) + 1)
    with pytest.raises(ValueError, match="stop"), FieldWriter(out, other, overwrite=True):
        raise ValueError("stop")
    assert same_field(open_field(out), field) == []
    write_field(other, out, overwrite=True)
    assert same_field(open_field(out), other) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["_sync_tree", "_put_in_place"])
def test_nothing_is_left_when_the_last_step_fails(
    tmp_path: Path, suffix: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is written and the library has closed its file; then the disk, or the rename, fails."""

    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(f"hbae.io.writer.{step}", fails)
    with pytest.raises(OutputError, match="the disk is gone"):
        write_field(_field(np.arange(6.0).reshape(2, 3)), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import numpy as np, os, signal\n"
        "from hbae.arrays import *\nfrom hbae.io import FieldWriter\n"
        "v = Variable(name='v', dims=('x',), source=ArraySource(np.zeros(4)))\n"
        "f = Field(format='netcdf3', groups=(Group(dims=(Dimension('x', 4),), variables=(v,)),))\n"
        f"with FieldWriter({str(tmp_path / 'a.nc')!r}, f) as w:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_put_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with (
        pytest.raises(UnknownNameError, match="no variable 'w'"),
        FieldWriter(tmp_path / "a.nc", _field([1.0, 2])) as w,
    ):
        w.put("w", (), np.zeros(()))
    for box, values in [
        ((slice(0, 3),), np.zeros(3)),
        ((slice(0, 2),), np.zeros(1)),
        ((slice(0, 2),), np.zeros(2, "f4")),
    ]:
        with pytest.raises(FieldError, match="does not fit"), FieldWriter(tmp_path / "a.nc", _field([1.0, 2])) as w:
            w.put("v", box, values)
    with pytest.raises(ConfigError, match=r"unknown suffix '\.tif'"):
        write_field(_field([1.0]), tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_history_and_provenance(tmp_path: Path, suffix: str) -> None:
    field = _field([1.0, 2.0])
    write_field(field, tmp_path / f"a{suffix}", history="one", provenance={"hbae_version": "0", "n": 3})
    write_field(open_field(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}", history="two")
    attrs = {a.name: a.value for a in open_field(tmp_path / f"b{suffix}").groups[0].attrs}
    assert attrs["history"] == "one\ntwo"
    assert attrs["hbae_version"] == "0"
    assert int(attrs["n"]) == 3


def test_library_can_read_while_writing_many(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 64, 64)).astype("f4")
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as f:
        for name, n in zip("txy", values.shape, strict=True):
            f.createDimension(name, n)
        f.createVariable("v", "f4", ("t", "x", "y"), zlib=True, chunksizes=(1, 16, 64))[:] = values
    field = open_field(tmp_path / "a.nc")
    write_field(field, tmp_path / "b.zarr")
    write_field(open_field(tmp_path / "b.zarr"), tmp_path / "c.h5")
    write_field(open_field(tmp_path / "c.h5"), tmp_path / "d.nc")
    assert same_field(field, open_field(tmp_path / "d.nc")) == []


def test_formats_keep_everything_of_one_another(tmp_path: Path) -> None:
    attrs = (
        Attribute("f", np.array(1.5, "f4")),
        Attribute("l", ["a"]),
        Attribute("v", np.array([1, 2], "u2")),
        Attribute("s", "x\0"),
    )
    b = Variable(name="b", dims=("t", "x"), source=ArraySource(np.zeros((2, 3), "i2")), attrs=attrs)
    a = Variable(name="a", dims=("x",), source=ArraySource(np.zeros(3, ">f4")), attrs=attrs)
    k = Variable(name="k", dims=("x", "k"), source=ArraySource(np.zeros((3, 1))), group="g")
    dims = (Dimension("x", 3), Dimension("t", 2, True), Dimension("unused", 9))
    groups = (
        Group(dims=dims, variables=(b, a), attrs=attrs),
        Group(path="g", dims=(Dimension("k", 1),), variables=(k,)),
    )
    field = Field(format="netcdf4", groups=groups)
    for suffix in (".nc", ".zarr", ".h5"):
        write_field(field, tmp_path / f"a{suffix}")
        again = open_field(tmp_path / f"a{suffix}")
        assert same_field(field, again) == []
        write_field(again, tmp_path / f"b{suffix}")
        assert same_field(field, open_field(tmp_path / f"b{suffix}")) == []
    flat = Field(format="netcdf4", groups=groups[:1])
    write_field(flat, tmp_path / "a.raw")
    assert same_field(flat, open_field(tmp_path / "a.raw")) == []
    with pytest.raises(FieldError, match="g: raw files cannot hold groups"):
        write_field(field, tmp_path / "b.raw")


_DTYPES = st.sampled_from(
    ["f4", "f8", "i1", "u1", "i2", "u4", "i8", "u8", ">f4", ">i2", ">f8", "f2", "c8", "c16", "?", "S1", "S3"]
)
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
_NAMES = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
_VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=5),
    st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=4), min_size=1, max_size=3),
    hnp.arrays(st.sampled_from(["f4", "i2", "f8", "u1", "i8"]), st.sampled_from([(), (2,), (3,)])),
)
_ATTRS = st.dictionaries(_NAMES, _VALUES, max_size=3).map(lambda d: tuple(Attribute(k, v) for k, v in d.items()))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npy"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_array_round_trips_or_is_refused(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    dtype, shape = np.dtype(data.draw(_DTYPES)), data.draw(_SHAPES)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = data.draw(st.binary(min_size=count, max_size=count))
    values = np.frombuffer(raw, dtype).reshape(shape)
    if dtype.kind == "b":
        values = np.frombuffer(bytes(b & 1 for b in raw), dtype).reshape(shape)
    kind = {"b": "bool", "S": "char"}.get(dtype.kind, "number")
    attrs = () if suffix == ".npy" else data.draw(_ATTRS)
    field = _field(values, "data", kind=kind, attrs=attrs)
    out = tmp_path / f"a{suffix}"
    try:
        write_field(field, out, overwrite=True)
    except FieldError as e:
        assert suffix == ".nc"
        assert "cannot hold" in str(e)  # noqa: PT017
        return
    again = open_field(out)
    assert same_field(field, again) == []
    write_field(again, tmp_path / f"b{suffix}", overwrite=True)
    assert same_field(again, open_field(tmp_path / f"b{suffix}")) == []


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".h5"])
def test_groups_keep_their_order_and_their_names(tmp_path: Path, suffix: str) -> None:
    field = Field(format="netcdf4", groups=(Group(), Group(path="z"), Group(path="z/k"), Group(path="a")))
    write_field(field, tmp_path / f"a{suffix}")
    assert same_field(field, open_field(tmp_path / f"a{suffix}")) == []
    v = Variable(name="g", dims=(), source=ArraySource(np.array(1.0)))
    twice = Field(format="netcdf4", groups=(Group(variables=(v,)), Group(path="g")))
    with pytest.raises(FieldError, match=r"refuses this field|share a name"):
        write_field(twice, tmp_path / f"b{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_scratch_boxes(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=6))
    truth = np.zeros(shape, "i4")
    with ScratchFile() as file:
        before, scratch, after = (file.array(shape, "i4") for _ in range(3))
        for value in range(1, 5):
            box = tuple(_slice(data, n) for n in shape)
            scratch.write(box, np.full(box_shape(box), value, "i4"))
            truth[box] = value
        box = tuple(_slice(data, n) for n in shape)
        assert scratch.read(box).tolist() == truth[box].tolist()
        assert scratch.read(whole(shape)).tolist() == truth.tolist()
        assert not before.read(whole(shape)).any()
        assert not after.read(whole(shape)).any()


def _slice(data: st.DataObject, n: int) -> slice:
    a, b = sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
    return slice(a, b)


def test_scratch_vanishes(tmp_path: Path) -> None:
    file = ScratchFile(tmp_path)
    scratch = file.array((2, 3), "f4")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FieldError, match="cannot hold objects"):
        file.array((2,), np.dtype(object))
    file.close()
    file.close()
    with pytest.raises(FieldError, match="the scratch file is closed"):
        scratch.read((slice(0, 1), slice(0, 1)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reading_boxes_cover_all_once(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    chunk = tuple(data.draw(st.integers(1, 10)) for _ in shape) if data.draw(st.booleans()) else None
    limit = data.draw(st.integers(1, 400))
    v = Variable(name="v", dims=tuple("abcd"[: len(shape)]), source=ArraySource(np.zeros(shape, "f4"), chunk))
    seen = np.zeros(shape, int)
    for box in reading_boxes(v, limit):
        seen[box] += 1
        size = int(np.prod(box_shape(box))) * 4
        one = int(np.prod([min(c, n) for c, n in zip(chunk or (1,) * len(shape), shape, strict=True)])) * 4
        assert size <= max(limit, one, 4)
        if chunk is not None:
            for s, c, n in zip(box, chunk, shape, strict=True):
                assert s.start % c == 0
                assert s.stop % c == 0 or s.stop == n
    assert (seen == 1).all()


def test_facts() -> None:
    attrs = (
        Attribute("_FillValue", np.array(1e20, "f4")),
        Attribute("missing_value", np.array([1e20, -9.0])),
        Attribute("scale_factor", np.array(2.0)),
    )
    v = Variable(name="v", dims=("x",), source=ArraySource(np.zeros(2, "f4")), attrs=attrs)
    assert [float(f) for f in fill_patterns(v)] == [float(np.float32(1e20)), -9.0]
    assert {f.dtype for f in fill_patterns(v)} == {np.dtype("f4")}
    assert packing(v) is None
    i = Variable(name="i", dims=("x",), source=ArraySource(np.zeros(2, ">i2")), attrs=attrs[1:])
    assert packing(i) == (2.0, 0.0)
    assert [int(f) for f in fill_patterns(i)] == [-9]
    c = Variable(
        name="c", dims=("x",), kind="char", source=ArraySource(np.zeros(2, "S1")), attrs=(Attribute("_FillValue", "x"),)
    )
    assert [f.item() for f in fill_patterns(c)] == [b"x"]
    assert packing(Variable(name="n", dims=(), source=ArraySource(np.array(1)))) == (1.0, 0.0)
    two = (Attribute("scale_factor", np.array([1.0, 2.0])),)
    assert packing(Variable(name="n", dims=(), source=ArraySource(np.array(1)), attrs=two)) is None


def test_import_is_light() -> None:
    heavy = "('netCDF4', 'h5py', 'zarr', 'xarray', 'torch', 'pandas')"
    code = f"import sys, hbae.io; print([m for m in {heavy} if m in sys.modules])"
    env = dict(os.environ)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "[]"
