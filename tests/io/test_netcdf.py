# SPDX-License-Identifier: MIT
"""NetCDF files, classic and NetCDF-4: all that they hold survives a round trip."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from scipy.io import netcdf_file

from hbae.arrays import ArraySource, Attribute, Dimension, Field, Group, Variable
from hbae.errors import FieldError, InputError
from hbae.io import open_field, same_field, write_field
from hbae.io.boxes import whole
from hbae.io.handles import LIBRARY_LOCK, Handle
from hbae.io.netcdf4_ import NetcdfSource

NASTY = np.array([0x7FC00001, 0xFF800000, 0x7F800001, 0x80000000, 0x00000001, 0xFFC12345], np.uint32)


def _round_trip(path: Path, out: Path) -> Field:
    field = open_field(path)
    write_field(field, out)
    again = open_field(out)
    assert same_field(field, again) == []
    assert again.format == field.format
    assert pickle.loads(pickle.dumps(field)).to_json() == field.to_json()
    assert Field.from_json(field.to_json()).to_json() == field.to_json()
    return field


def _values(field: Field, path: str) -> Any:
    v = field.variable(path)
    return v.source.read(whole(v.shape))


@pytest.mark.parametrize(
    ("model", "flavour"),
    [("NETCDF3_CLASSIC", "netcdf3"), ("NETCDF3_64BIT_OFFSET", "netcdf3_64bit"), ("NETCDF3_64BIT_DATA", "cdf5")],
)
def test_classic(tmp_path: Path, model: str, flavour: str) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=model) as f:
        f.setncatts({"title": "caf\u00e9", "empty": "", "n": np.int16(3), "v": np.array([1.5, np.nan])})
        f.createDimension("t", None)
        f.createDimension("x", 3)
        f.createDimension("unused", 7)
        f.createVariable("zero", "f8", ())[...] = -0.0
        f.createVariable("b", "i1", ("t",))[:] = [1, 2, 3, 4, 5]
        v = f.createVariable("v", "f4", ("t", "x"), fill_value=np.float32(1e20))
        v.set_auto_mask(False)
        v[:] = np.arange(15, dtype="f4").reshape(5, 3)
        v.scale_factor = np.float32(2)
        f.createVariable("c", "S1", ("x",))[:] = np.array([b"a", b"\0", b" "])
        if flavour == "cdf5":
            f.createVariable("u", "u8", ("x",))[:] = [0, 1, 2**64 - 1]
    field = _round_trip(tmp_path / "a.nc", tmp_path / "b.nc")
    assert field.format == flavour
    assert field.groups[0].dims[0] == Dimension("t", 5, True)
    assert field.variable("v").dtype == np.dtype("f4")
    with netCDF4.Dataset(tmp_path / "b.nc") as f:
        assert f.data_model == model
        assert f["v"][:].data.tolist() == (np.arange(15).reshape(5, 3) * 2).tolist()
        assert f["b"][:].tolist() == [1, 2, 3, 4, 5]
        assert f.title == "caf\u00e9"


def test_classic_single_record_variable_is_not_padded(tmp_path: Path) -> None:
    with netcdf_file(tmp_path / "a.nc", "w") as f:
        f.createDimension("t", None)
        f.createVariable("b", "i1", ("t",))[:] = np.arange(5, dtype="i1")
    _round_trip(tmp_path / "a.nc", tmp_path / "b.nc")
    with netcdf_file(tmp_path / "b.nc", "r", mmap=False) as f:
        assert f.variables["b"][:].tolist() == [0, 1, 2, 3, 4]
    with netCDF4.Dataset(tmp_path / "b.nc") as g:
        assert g["b"][:].tolist() == [0, 1, 2, 3, 4]


def test_classic_keeps_nan_bits_and_nul_bytes(tmp_path: Path) -> None:
    values = NASTY.view("f4")
    attrs = (Attribute("nul", "m\0\0"), Attribute("latin", b"\xe9"), Attribute("none", ""), Attribute("f", values))
    v = Variable(name="v", dims=("x",), source=ArraySource(values), attrs=attrs)
    field = Field(format="netcdf3", groups=(Group(dims=(Dimension("x", 6),), variables=(v,)),))
    write_field(field, tmp_path / "a.nc")
    again = _round_trip(tmp_path / "a.nc", tmp_path / "b.nc")
    assert same_field(field, again) == []
    assert _values(again, "v").tobytes() == values.tobytes()


def test_classic_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01\0\0\0\0\0\0\0\x0a\0\0\0\x05")
    with pytest.raises(FieldError, match="header ends early"):
        open_field(tmp_path / "a.nc")


def _nasty_netcdf4(path: Path) -> None:
    with netCDF4.Dataset(path, "w", auto_complex=True) as f:
        f.setncatts(
            {"text": "abc", "empty": "", "i": np.int8(1), "v": np.array([1, 2], "u2"), "none": np.array([], "i4")}
        )
        f.setncattr_string("vl", "one")
        f.setncattr("many", ["a", "", "\u00e9"])
        f.setncattr("uni", "caf\u00e9")
        f.createDimension("t", None)
        f.createDimension("x", 6)
        f.createDimension("n", None)
        v = f.createVariable("v", ">f4", ("t", "x"), endian="big", zlib=True, complevel=3, chunksizes=(1, 6))
        v.units = "K"
        v.setncatts({"_FillValue": np.float32(1e20)})
        v.missing_value = np.array([1e20, 9e20], "f4")
        v.set_auto_maskandscale(False)
        v[0:3] = np.tile(NASTY.view("f4"), (3, 1))
        f.createVariable("sf", str, ("x",), fill_value="none")
        f.createVariable("never", "i2", ("n",), fill_value=False)
        f.createVariable("x", "f8", ("x",))[:] = np.arange(6)
        packed = f.createVariable("packed", "i2", ("x",), fill_value=np.int16(-1), fletcher32=True)
        packed.setncatts({"scale_factor": 0.5, "add_offset": 3.0})
        packed[:] = np.arange(6)
        z = f.createVariable("z", "c16", ("x",))
        z[:] = np.arange(6) * (1 + 2j)
        f.createVariable("z0", "c8", ())[...] = 1j
        g = f.createGroup("g/h")
        g.createDimension("x", 2)
        g.createVariable("s", str, ("x",))[:] = np.array(["", "h\u00e9"], object)
        g.createVariable("s0", str, ())[...] = "alone"
        g.createVariable("c", "S1", ("x",), fill_value=b"x")[:] = np.array([b"\0", b"\xff"])
        g.createVariable("i", "u8", ())[...] = 2**64 - 1
        # a dimension's name on a variable of another shape
        f.createDimension("y", 2)
        f.createVariable("y", "f4", ("x",))[:] = np.arange(6)


def _by_library(path: Path) -> list[Any]:
    """All that netCDF4-python shows of a file but values, in order; our reader has no part in it."""
    out: list[Any] = []
    with netCDF4.Dataset(path) as f:
        f.set_auto_maskandscale(False)
        groups = [f]
        for g in groups:
            groups += g.groups.values()
            out.append((g.path, [(n, len(d), d.isunlimited()) for n, d in g.dimensions.items()], g.ncattrs()))
            for v in g.variables.values():
                attrs = [(n, type(v.getncattr(n)), np.asarray(v.getncattr(n)).dtype) for n in v.ncattrs()]
                out.append((v.name, v.dimensions, str(v.dtype), v.endian(), v.chunking(), attrs))
    return out


def test_netcdf4(tmp_path: Path) -> None:
    _nasty_netcdf4(tmp_path / "a.nc")
    field = _round_trip(tmp_path / "a.nc", tmp_path / "b.nc")
    assert _by_library(tmp_path / "a.nc") == _by_library(tmp_path / "b.nc")
    assert field.format == "netcdf4"
    root = {a.name: a.value for a in field.groups[0].attrs}
    assert root["text"] == "abc"
    assert root["vl"] == ["one"]
    assert root["many"] == ["a", "", "\u00e9"]
    assert root["uni"] == ["caf\u00e9"]
    v = field.variable("v")
    assert v.dtype == np.dtype(">f4")
    assert v.source.storage == (1, 6)
    assert v.hints["zlib"]
    assert v.hints["complevel"] == 3
    assert _values(field, "v")[1].astype("<f4").tobytes() == NASTY.tobytes()
    assert _values(field, "v")[1].byteswap().tobytes() == NASTY.tobytes()
    assert field.variable("never").hints["fill_off"]
    assert _values(field, "g/h/s").tolist() == ["", "h\u00e9"]
    again = open_field(tmp_path / "b.nc")
    assert {p.path: dict(p.hints) for p in again.variables()} == {p.path: dict(p.hints) for p in field.variables()}


def test_netcdf4_classic_model(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF4_CLASSIC") as f:
        f.createDimension("t", None)
        v = f.createVariable("v", "f4", ("t",), fill_value=np.float32(-1))
        v[:] = np.arange(3)
        v.units = "m"
    assert _round_trip(tmp_path / "a.nc", tmp_path / "b.nc").format == "netcdf4_classic"


def test_netcdf4_classic_model_keeps_the_order_of_attributes(tmp_path: Path) -> None:
    attrs = (Attribute("units", "m"), Attribute("_FillValue", np.array(-1, "f4")), Attribute("z", "last"))
    v = Variable(name="v", dims=("x",), source=ArraySource(np.zeros(2, "f4")), attrs=attrs)
    c = Variable(
        name="c",
        dims=("x",),
        kind="char",
        source=ArraySource(np.array([b"a", b""])),
        attrs=(Attribute("_FillValue", "x"),),
    )
    field = Field(format="netcdf4_classic", groups=(Group(dims=(Dimension("x", 2),), variables=(v, c)),))
    write_field(field, tmp_path / "a.nc")
    assert same_field(field, _round_trip(tmp_path / "a.nc", tmp_path / "b.nc")) == []


def test_netcdf4_char_attributes_keep_nul_bytes(tmp_path: Path) -> None:
    attrs = (
        Attribute("a", "before"),
        Attribute("nul", "m\0\0"),
        Attribute("none", ""),
        Attribute("n", np.array([1, 2], "i2")),
        Attribute("latin", b"\xe9\xff"),
        Attribute("one", ["x"]),
        Attribute("list", ["x", "y"]),
        Attribute("f", np.array(2.5)),
    )
    v = Variable(name="v", dims=("x",), source=ArraySource(np.arange(3.0)), attrs=attrs)
    field = Field(format="netcdf4", groups=(Group(dims=(Dimension("x", 3),), variables=(v,), attrs=attrs),))
    write_field(field, tmp_path / "a.nc")
    assert same_field(field, open_field(tmp_path / "a.nc")) == []
    with netCDF4.Dataset(tmp_path / "a.nc") as f:
        assert f.ncattrs() == [a.name for a in attrs]
        assert f["v"].list == ["x", "y"]


@pytest.mark.parametrize("kind", ["enum", "vlen", "compound"])
def test_user_types_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as f:
        f.createDimension("x", 2)
        if kind == "enum":
            made: Any = f.createEnumType("i1", "colour", {"red": 0, "blue": 1})
        elif kind == "vlen":
            made = f.createVLType("i4", "ragged")
        else:
            made = f.createCompoundType(np.dtype([("a", "f4"), ("b", "i2")]), "pair")
        f.createVariable("bad", made, ("x",))
    with pytest.raises(FieldError, match="bad: "):
        open_field(tmp_path / "a.nc")


def _one(dtype: str, **more: Any) -> Field:
    v = Variable(name="v", dims=("x",), source=ArraySource(np.zeros(2, dtype)), **more)
    return Field(format="dataset", groups=(Group(dims=(Dimension("x", 2),), variables=(v,)),))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (_one("f2"), "v: netCDF-4 cannot hold number values of type float16"),
        (_one("?", kind="bool"), "v: netCDF-4 cannot hold bool"),
        (_one("f4", attrs=(Attribute("flag", np.array(True)),)), "v: attribute 'flag': netCDF cannot hold bool"),
        (_one("f4", attrs=(Attribute("m", np.zeros((2, 2))),)), "attribute 'm': netCDF cannot hold float64 of rank 2"),
        (_one("f4", attrs=(Attribute("_FillValue", np.array(1.0)),)), "_FillValue of type float64 beside float32"),
        (_one("f4", attrs=(Attribute("_FillValue", "x"),)), "_FillValue of type characters beside float32"),
        (_one("f4", attrs=(Attribute("CLASS", "x"),)), "attribute name 'CLASS' is reserved"),
        (
            _one("f4", hints={"py_attrs": {"d": "json"}}, attrs=(Attribute("d", "{}"),)),
            "'d' is a nested or empty value",
        ),
        (Field(format="dataset", groups=(Group(dims=(Dimension("e", 0),)),)), "'e': netCDF cannot hold a fixed"),
        (Field(format="netcdf3", groups=(Group(), Group(path="g"))), "g: netcdf3 cannot hold groups"),
        (Field(format="netcdf3", groups=(Group(attrs=(Attribute("l", ["a"]),)),)), "attribute 'l' is a list"),
    ],
)
def test_what_netcdf_cannot_hold(tmp_path: Path, field: Field, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        write_field(field, tmp_path / "a.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["i2", "u2", "i4", "f4", "f8", "i8"])
def test_big_endian_of_every_width_stays(code: str, tmp_path: Path) -> None:
    values = np.arange(12).astype(f">{code}")
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as d:
        d.createDimension("x", 12)
        d.createVariable("v", f">{code}", ("x",), endian="big")[:] = values
    field = open_field(tmp_path / "a.nc")
    assert field.variable("v").dtype == np.dtype(f">{code}")
    write_field(field, tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "b.nc") as d:
        assert d["v"].endian() == "big"
    assert same_field(open_field(tmp_path / "b.nc"), field) == []


@pytest.mark.parametrize(
    ("name", "with_complex"),
    [("c", False), ("ri", False), ("complex", False), ("_pfnc_complex", False), ("x", False), ("x", True)],
)
def test_dimensions_of_length_2_are_no_complex_numbers(name: str, with_complex: bool, tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    made = [("v", ("y", name), values.T), ("w", (name, "y"), values), ("u", (name,), values[:, 0])]
    dims = (Dimension("y", 3), Dimension(name, 2))
    variables = [Variable(name=n, dims=d, source=ArraySource(np.ascontiguousarray(a))) for n, d, a in made]
    if with_complex:
        variables.append(Variable(name="z", dims=("y",), source=ArraySource(np.array([1j, 2, 3]))))
    field = Field(format="netcdf4", groups=(Group(dims=dims, variables=tuple(variables)),))
    write_field(field, tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as d:
        assert d["v"].dimensions == ("y", name)
        assert d["w"][:].tolist() == values.tolist()
    assert same_field(open_field(tmp_path / "a.nc"), field) == []


def of_strings(path: Path) -> Path:
    with netCDF4.Dataset(path, "w") as f:
        f.createDimension("x", 3)
        f.createVariable("T", "f4", ("x",))[:] = 1, 2, 3
        f.createVariable("s", str, ())
    return path


def handle_of(field: Field) -> Handle:
    source = field.variable("T").source
    assert isinstance(source, NetcdfSource)
    return source.handle


def test_a_file_is_open_once_and_closed_with_its_last_user(tmp_path: Path) -> None:
    """Left to the collector, netCDF4 closes files while it opens others, and processes that read many of them crash."""
    path = of_strings(tmp_path / "a.nc")
    first, second = open_field(path), open_field(path)
    opened = handle_of(first).get()
    assert handle_of(second).get() is opened
    del first
    assert opened.isopen()
    del second
    assert not opened.isopen()
    last = open_field(path)
    with netCDF4.Dataset(tmp_path / "b.nc", "w") as f:
        f.createVariable("T", "f4", ())[...] = 9
    (tmp_path / "b.nc").replace(path)
    assert open_field(path).variable("T").shape == ()
    assert last.variable("T").source.read((slice(0, 3),)).tolist() == [1, 2, 3]


def test_a_file_that_changed_while_it_is_open_is_refused(tmp_path: Path) -> None:
    """HDF5 would go on with what it knows of it."""
    path = of_strings(tmp_path / "a.nc")
    kept = open_field(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed while it is open"):
        open_field(path)
    del kept
    assert open_field(path).variable("T").shape == (3,)
    tangled: list[Any] = [open_field(path)]
    tangled.append(tangled)
    del tangled
    os.utime(path, ns=(2, 2))
    assert open_field(path).variable("T").shape == (3,)


def test_a_file_is_closed_later_where_another_thread_is_at_work(tmp_path: Path) -> None:
    field = open_field(of_strings(tmp_path / "a.nc"))
    opened = handle_of(field).get()
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with LIBRARY_LOCK:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(60)
    begin = time.monotonic()
    del field
    assert time.monotonic() - begin < 10
    assert opened.isopen()
    leave.set()
    thread.join()
    open_field(of_strings(tmp_path / "b.nc"))
    assert not opened.isopen()


def test_a_forked_process_opens_files_of_its_own(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from hbae.io import open_field
        field = open_field(sys.argv[1])
        handle = field.variable("T").source.handle
        before = handle.get()
        child = os.fork()
        if not child:
            again = handle.get()
            good = again is not before and field.variable("T").source.read((slice(0, 3),)).tolist() == [1, 2, 3]
            handle.close()
            os._exit(0 if good and before.isopen() and not again.isopen() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert handle.get() is before and before.isopen()
        """
    path = of_strings(tmp_path / "a.nc")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=120)


def test_files_with_strings_may_be_opened_again_and_again(tmp_path: Path) -> None:
    """In a process of its own, as what it guards against is a crash."""
    code = """if True:
        import sys
        from hbae.io import open_field
        kept = []
        for i in range(200):
            kept = [*kept[-(i % 5) :], open_field(sys.argv[1])]
        """
    path = of_strings(tmp_path / "a.nc")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=120)
