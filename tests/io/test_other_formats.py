# SPDX-License-Identifier: MIT
"""HDF5, Zarr, .npy and raw files: all that they hold survives a round trip."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from hbae.arrays import ArraySource, Attribute, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io import open_field, same_field, write_field
from hbae.io.boxes import whole

BITS = np.array([0x7FC00001, 0xFF800000, 0x80000000, 0x00000000, 0x7F800001, 0x00000001], np.uint32)


def _round_trip(path: Path, out: Path) -> Field:
    field = open_field(path)
    write_field(field, out)
    again = open_field(out)
    assert same_field(field, again) == []
    assert again.format == field.format
    assert {p.path: dict(p.hints) for p in again.variables()} == {p.path: dict(p.hints) for p in field.variables()}
    for v in field.variables():
        source = pickle.loads(pickle.dumps(v.source))
        assert source.read(whole(v.shape)).tolist() == v.source.read(whole(v.shape)).tolist() or v.dtype.kind in "fc"
    assert Field.from_json(json.loads(json.dumps(field.to_json()))).to_json() == field.to_json()
    return field


def _values(field: Field, path: str) -> Any:
    v = field.variable(path)
    return v.source.read(whole(v.shape))


def test_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("z_first", data=BITS.view("f4").astype(">f4").reshape(2, 3), chunks=(1, 3), compression="gzip")
        f["half"] = np.array([1.5, -0.0, np.nan], "f2")
        f["c"] = np.array([1 + 2j, np.nan], "c8")
        f["flag"] = np.array([True, False])
        f["fixed"] = np.array([b"ab", b"\xff"], "S3")
        f["text"] = ["a", "h\u00e9", ""]
        f["raw"] = np.array([b"x\xff", b""], h5py.string_dtype("ascii"))
        f["scalar"] = np.uint64(2**64 - 1)
        f["empty"] = np.zeros((0, 4), "i2")
        f.create_dataset("grow", (2, 3), "i4", maxshape=(None, 3), data=np.arange(6).reshape(2, 3), fillvalue=-5)
        f["lat"] = np.arange(3.0)
        f["lat"].make_scale("lat")
        f["half"].dims[0].attach_scale(f["lat"])
        f["c"].dims[0].label = "freq"
        g = f.create_group("g/k", track_order=True)
        g["z"], g["a"] = 1, 2.0
        f.attrs.update(
            {"n": np.float32(3), "flag": True, "two": np.zeros((2, 2)), "text": "h\u00e9", "list": ["a", "b"]}
        )
        f.attrs["fixed"] = np.bytes_(b"ab")
        f.attrs["fixeds"] = np.array([b"ab", b"c"])
        f.attrs["none"] = h5py.Empty("f4")
        f.attrs["one"] = np.array([1], ">i2")
        f["half"].attrs["x"] = 1
    field = open_field(tmp_path / "a.h5")
    assert field.format == "hdf5"
    _round_trip(tmp_path / "a.h5", tmp_path / "b.h5")
    assert _values(field, "z_first").byteswap().tobytes() == BITS.tobytes()
    assert field.variable("half").dims == ("lat",)
    assert field.variable("c").dims == ("freq",)
    assert field.variable("flag").kind == "bool"
    assert [v.name for v in field.groups[-1].variables] == ["z", "a"]
    assert field.dims_of("")[field.variable("grow").dims[0]].unlimited


@pytest.mark.parametrize("kind", ["compound", "enum", "vlen", "opaque", "reference", "null", "link"])
def test_hdf5_refusals(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        if kind == "compound":
            f["bad"] = np.zeros(2, [("a", "f4"), ("b", "i2")])
        elif kind == "enum":
            f.create_dataset("bad", (2,), h5py.enum_dtype({"RED": 0, "BLUE": 1}))
        elif kind == "vlen":
            f.create_dataset("bad", (2,), h5py.vlen_dtype("i4"))
        elif kind == "opaque":
            f["bad"] = np.zeros(2, "V3")
        elif kind == "reference":
            f.create_dataset("bad", (1,), h5py.ref_dtype)
        elif kind == "null":
            f["bad"] = h5py.Empty("f4")
        else:
            f["bad"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(FieldError, match="bad: "):
        open_field(tmp_path / "a.h5")


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path: Path, version: Any) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    named: Any = {"dimension_names": ["y", "x"]} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["y", "x"]}}
    serial: Any = {"serializer": zarr.codecs.BytesCodec(endian="big")} if version == 3 else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = root.create_array("T", shape=(2, 3), dtype=">f4", chunks=(1, 2), fill_value=0.0, **named, **serial)
        a[:] = BITS.view("f4").reshape(2, 3)
        for name in ("f2", "c16", "?", "S3", "U4", "M8[s]", "u8"):
            root.create_array("v" + name.strip("[]?"), shape=(3,), dtype=name, chunks=(2,))
        root["vS3"][:] = np.array([b"a", b"\xff", b""])
        root["vU4"][:] = np.array(["a", "h\u00e9", ""])
        root["vM8[s"][:] = np.array([0, 5, np.datetime64("NaT")], "M8[s]")
        s = root.create_array("text", shape=(3,), dtype="str", chunks=(2,))
        s[:] = np.array(["a", "h\u00e9", ""], object)
    root.create_array("scalar", shape=(), dtype="f8")[...] = -0.0
    root.create_array("empty", shape=(0, 3), dtype="f4", chunks=(1, 3))
    root.create_group("g").create_array("k", shape=(4,), dtype="i4")[:] = np.arange(4)
    root.attrs.update(
        {"f": 1.5, "i": 3, "l": [1, 2], "nan": float("nan"), "d": {"a": [None, 1]}, "s": "x", "none": None}
    )
    root["T"].attrs.update({"mixed": [1, 2.5], "flag": True, "e": []})
    field = _round_trip(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert field.format == f"zarr{version}"
    assert field.variable("T").dims == ("y", "x")
    assert field.variable("T").dtype == np.dtype(">f4")
    assert _values(field, "T").byteswap().tobytes() == BITS.tobytes()
    assert _values(field, "vU4").tolist() == ["a", "h\u00e9", ""]
    assert _values(field, "vM8[s").tolist() == [0, 5, -(2**63)]
    again = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    assert dict(again.attrs)["d"] == {"a": [None, 1]}
    assert dict(again["T"].attrs)["mixed"] == [1, 2.5]
    assert again["T"].metadata.to_dict() == root["T"].metadata.to_dict()


def test_zarr_shards_and_consolidated_metadata(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("a", shape=(8, 8), dtype="i4", chunks=(2, 2), shards=(4, 4))[:] = np.arange(64).reshape(8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    field = _round_trip(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert field.variable("a").source.storage == (4, 4)
    assert "consolidated_metadata" in json.loads((tmp_path / "b.zarr/zarr.json").read_text())


def test_zarr_array_at_the_root(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.arange(5.0))
    assert _values(_round_trip(tmp_path / "a.zarr", tmp_path / "b.zarr"), "data").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">f4", "<f8", "c16", "f2", "?", "S3", "<U2", "<M8[ns]"])
def test_npy(tmp_path: Path, order: Any, dtype: str) -> None:
    values = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, order=order).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    field = _round_trip(tmp_path / "a.npy", tmp_path / "b.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    box = (slice(1, 2), slice(0, 2), slice(1, 4))
    shown = field.variable("data").source.read(box)
    want = values[box]
    assert shown.tolist() == (want.view("i8") if want.dtype.kind == "M" else want).tolist()


def test_npy_refusals(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([None, 1], object), allow_pickle=True)
    with pytest.raises(FieldError, match="object cannot be kept"):
        open_field(tmp_path / "a.npy")
    v = Variable(name="data", dims=("dim_0",), source=ArraySource(np.zeros(2)), attrs=(Attribute("units", "m"),))
    field = Field(format="dataset", groups=(Group(dims=(Dimension("dim_0", 2),), variables=(v,)),))
    with pytest.raises(FieldError, match=r"cannot hold attributes \(units\)"):
        write_field(field, tmp_path / "b.npy")
    with pytest.raises(FieldError, match="exactly one variable, not 0"):
        write_field(Field(format="npy", groups=(Group(),)), tmp_path / "b.npy")


def test_raw(tmp_path: Path) -> None:
    first = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    second = np.asfortranarray(np.arange(6, dtype="<i2").reshape(2, 3))
    (tmp_path / "box.dat").write_bytes(first.tobytes() + second.tobytes("F"))
    (tmp_path / "box.yaml").write_text(
        """
file: box.dat
attributes: {title: box, n: 3, f: 1.5, list: [1, 2], texts: [a, b], d: {a: 1}}
variables:
  - {name: T, dtype: float32, shape: [2, 3, 4], dims: [t, y, x], endian: big, attributes: {units: K}}
  - {name: i, dtype: int16, shape: [2, 3], dims: [t, y], order: F,
     attributes: {_FillValue: {dtype: int16, value: -1}}}
"""
    )
    field = open_field(tmp_path / "box.yaml")
    assert field.format == "raw"
    assert _values(field, "T").tolist() == first.tolist()
    assert _values(field, "i").tolist() == second.tolist()
    write_field(field, tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == (tmp_path / "box.dat").read_bytes()
    for path in ("out.raw", "out.raw.yaml"):
        assert same_field(field, open_field(tmp_path / path)) == []
    assert same_field(field, open_field(tmp_path / "box.dat", description=tmp_path / "box.yaml")) == []


def test_raw_short_description(tmp_path: Path) -> None:
    (tmp_path / "w.float").write_bytes(np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "w.float.yaml").write_text("dtype: float32\nshape: [2, 3]\n")
    field = open_field(tmp_path / "w.float")
    assert _values(field, "w").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtype: float32\nshape: [2, 2]", "16 bytes are described, w.float has 24"),
        ("dtype: float32\nshape: [9, 9]", "324 bytes are described"),
        ("dtype: nope\nshape: [6]", "dtype 'nope' is unknown"),
        ("dtype: float32", "shape is missing"),
        ("dtype: float32\nshape: [6]\nordr: F", "unknown key 'ordr'"),
        ("dtype: float32\nshape: [6]\norder: X", "order must be C or F, not 'X'"),
        ("- 1", "expected a mapping"),
    ],
)
def test_raw_descriptions_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "w.float").write_bytes(bytes(24))
    (tmp_path / "w.float.yaml").write_text(text)
    with pytest.raises(FieldError, match=message):
        open_field(tmp_path / "w.float")


def test_a_description_decides_what_raw_bytes_are(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "a.raw.yaml").write_text("dtype: float64\nshape: []\n")
    assert _values(open_field(tmp_path / "a.raw"), "a").tobytes() == b"\x89HDF\r\n\x1a\n"


def test_unknown_file(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"hello")
    with pytest.raises(FieldError, match="unknown format"):
        open_field(tmp_path / "x.bin")
    with pytest.raises(FieldError, match="a folder that is no Zarr store"):
        open_field(tmp_path)
    with pytest.raises(FieldError, match="source of type int cannot be opened"):
        open_field(3)
