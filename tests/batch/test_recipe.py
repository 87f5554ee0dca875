# SPDX-License-Identifier: MIT
"""A recipe is refused with the path of every key that makes no sense, before any work."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import xarray as xr

import hbae
from hbae.batch.items import Identity, find_items
from hbae.batch.recipe import load_recipe
from hbae.errors import ConfigError, InputError

if TYPE_CHECKING:
    from conftest import Bench

REFUSED = [
    ({"bound": {"T": "abs=0"}}, "bound.T: "),
    ({"bound": ["nrmse=1e-3", "T:ab=1"]}, "bound[1]: bound: unknown kind 'ab'"),
    ({"block": [4, 0]}, "block[1]: "),
    ({"range": {"T": [1]}}, "range.T[1]: "),
    ({"colour": "red"}, "colour: "),
    ({"threads": 0}, "threads: "),
    ({"chunk": 1000}, "chunk: "),
    ({"method": "magic"}, "method: unknown 'magic'"),
    ({"device": "tpu"}, "device: unknown 'tpu'"),
    ({"budget": "5s"}, "method=linear uses no model"),
    ({"like": "a.hbae", "method": "lossless"}, "like: not together with"),
    ({"like": "out/a.hbae"}, "like: lies in the output folder"),
    ({"inputs": []}, "inputs: "),
    ({"output": None}, "output: Field required"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=[m.strip(": ") for _, m in REFUSED])
def test_names_the_key(bench: Bench, keys: dict[str, Any], message: str) -> None:
    path = bench.folder / bench.recipe(**keys)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_recipe(path)


def test_all_wrong_keys_at_once_and_exit_code_2(bench: Bench) -> None:
    doc = bench.document(bench.recipe(colour="red", seed="x"))
    assert doc["exit"] == 2
    assert doc["kind"] == "ConfigError"
    assert "colour: " in doc["error"]
    assert "seed: " in doc["error"]
    assert not (bench.folder / "out").exists()


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "- a\n", "a: [\n", "\x00"], ids=["twice", "list", "open", "binary"])
def test_no_recipe(bench: Bench, text: str) -> None:
    path = bench.folder / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_recipe(path)


def test_digest_follows_what_decides_the_bytes(bench: Bench) -> None:
    def digest(**keys: Any) -> str:
        return load_recipe(bench.folder / bench.recipe(**keys)).digest

    assert digest() == digest(threads=2) == digest(device="cpu") == digest(output="elsewhere")
    assert len({digest(), digest(seed=1), digest(bound="nrmse=1e-3"), digest(chunk=16)}) == 4


def test_digest_follows_the_plans_to_be_like(bench: Bench) -> None:
    """The plans decide what an archive's bytes are; where the archive lies does not."""
    field = xr.open_dataset(bench.folder / "in" / "f0.nc")
    a, b, c = (bench.folder / n for n in ("a.hbae", "b.hbae", "c.hbae"))
    hbae.compress(field, a, "nrmse=1e-2", threads=1)
    hbae.compress(field, b, "abs=1e-2", threads=1)
    c.write_bytes(a.read_bytes())
    found = [load_recipe(bench.folder / bench.recipe(like=like)) for like in (None, "a.hbae", "b.hbae", str(c))]
    assert len({f.digest for f in found}) == 3
    assert found[1].digest == found[3].digest
    assert [f.options("cpu", 1)["like"] for f in found] == [None, a, b, c]
    with pytest.raises(InputError):
        load_recipe(bench.folder / bench.recipe(like="none.hbae"))


def test_archives_are_like_another(bench: Bench) -> None:
    assert bench.run(bench.recipe("one.yaml", inputs="in/f4.nc", output="one")).code == 0
    assert bench.run(bench.recipe(like="one/f4.hbae")).code == 0
    said = {line["archive"]: line["notes"] for line in bench.journal() if line["kind"] == "done"}
    assert len(said) == 5
    assert all(f"like {bench.folder / 'one' / 'f4.hbae'}: plan of T: " in notes[0] for notes in said.values())


def test_items_biggest_first_and_once(bench: Bench) -> None:
    path = bench.folder / bench.recipe(inputs=["in/f0.nc", "in/*.nc", "./in/f?.nc"])
    items = find_items(load_recipe(path))
    assert [i.name for i in items] == [f"f{n}.hbae" for n in (4, 3, 2, 1, 0)]


def test_same_output_twice_is_refused(bench: Bench) -> None:
    (bench.folder / "in" / "f0.h5").write_bytes(b"")
    doc = bench.document(bench.recipe(inputs=["in/f0.nc", "in/f0.h5"]))
    assert doc["exit"] == 2
    assert "would both become f0.hbae" in doc["error"]
    assert not (bench.folder / "out").exists()


def test_pattern_without_files(bench: Bench) -> None:
    doc = bench.document(bench.recipe(inputs=["in/*.nc", "none*.nc"]))
    assert doc["exit"] == 2
    assert doc["error"].startswith("inputs[1]: 'none*.nc' matches no file")


def test_identity_of_folders_and_described_files(bench: Bench) -> None:
    store = bench.folder / "s.zarr" / "T"
    store.mkdir(parents=True)
    (store / "0").write_bytes(b"12")
    before = Identity.of(bench.folder / "s.zarr")
    (store / "1").write_bytes(b"345")
    os.utime(store / "1", ns=(10**18, 2 * 10**18))
    after = Identity.of(bench.folder / "s.zarr")
    assert after.size >= before.size + 3
    assert after.mtime_ns == 2 * 10**18
    (bench.folder / "x.raw").write_bytes(b"1234")
    (bench.folder / "x.raw.yaml").write_text("a: 1")
    named, described = (Identity.of(bench.folder / n) for n in ("x.raw", "x.raw.yaml"))
    assert (named.size, named.mtime_ns) == (described.size, described.mtime_ns)
