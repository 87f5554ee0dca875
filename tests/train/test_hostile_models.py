# SPDX-License-Identifier: MIT
"""Hostile model files: each is refused by name, in little memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from hbae.arrays import Array
from hbae.container.sections import decode_arrays, encode_arrays, encode_decoder
from hbae.errors import FormatError, ModelMismatchError
from hbae.pipeline.archive import find_shared_model
from hbae.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hbae.train.config import TrainConfig
from hbae.train.model_file import decoder_id, load_model, save_model

from .test_blocks import train

MEASURE = """
import resource, sys
from pathlib import Path
from hbae.errors import FormatError, ModelMismatchError
from hbae.pipeline.archive import find_shared_model
from hbae.train.model_file import load_model
load_model(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[2:]:
    for act in (load_model, lambda p: find_shared_model("0" * 64, p, Path(name + " no folder"))):
        try:
            act(Path(name))
        except (FormatError, ModelMismatchError):
            continue
        raise AssertionError(name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.fixture
def good(blocks: Array, config: TrainConfig, tmp_path: Path) -> Path:
    path = tmp_path / "good.hbm"
    save_model(path, train(blocks, config, 1))
    return path


def with_doc(good: Path, **doc: Any) -> Path:
    """Write the model with another description."""
    state = load_checkpoint(good)
    out = good.with_name("bad.hbm")
    save_checkpoint(out, Checkpoint({**state.doc, **doc}, state.tensors))
    return out


def with_section(good: Path, section: bytes) -> Path:
    """Write the model with another decoder section and the SHA-256 that fits it."""
    state = load_checkpoint(good)
    tensors = {**state.tensors, "decoder": torch.from_numpy(np.frombuffer(section, np.uint8).copy())}
    out = good.with_name("bad.hbm")
    save_checkpoint(out, Checkpoint({**state.doc, "decoder_id": decoder_id(section)}, tensors))
    return out


def with_header(good: Path, text: str, tensors: Iterable[tuple[str, str, int]], name: str) -> Path:
    """Write a safetensors file of holes: its description, and (name, type, bytes) of one-byte tensors."""
    at, entries = 0, {}
    for key, dtype, size in tensors:
        entries[key] = {"dtype": dtype, "shape": [size], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps({"__metadata__": {"hbae": text}, **entries}).encode()
    out = good.with_name(name)
    with out.open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + at)
    return out


def test_long_headers_are_not_read(good: Path) -> None:
    path = with_header(good, " " * (17 << 20), [("decoder", "U8", 9)], "long.hbm")
    with pytest.raises(FormatError, match="header of more than 16 MiB"):
        load_model(path)


def test_bombs(good: Path) -> None:
    text = json.dumps(dict(load_checkpoint(good).doc))
    wide = encode_arrays({}, {"hyper.0.weight": np.zeros((1 << 12, 1 << 13), np.int64)})
    bad = [
        with_header(good, text, [("decoder", "U8", 3 << 30)], "3 GiB.hbm"),
        with_header(good, text, [("decoder", "U8", 800 << 20)], "800 MiB.hbm"),
        with_header(good, text, ((f"{i:x}", "U8", 0) for i in range(300_000)), "tensors.hbm"),
        with_header(good, "[" * 1_000_000, [("decoder", "U8", 9)], "deep.hbm"),
        with_header(good, '"' + "a" * (90 << 20) + '"', [("decoder", "U8", 9)], "text.hbm"),
        with_header(good, "[" + "{}," * 300_000 + "{}]", [("decoder", "U8", 9)], "objects.hbm"),
        with_section(good, wide).rename(good.with_name("frame.hbm")),
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(good), *map(str, bad)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 256


LENGTHS = [
    None,
    True,
    0,
    "x",
    [],
    [[]],
    {},
    [0, 3, 4],
    [-3, -2, 2],
    [2**40, 1, 1],
    ["a", "b", "c"],
    [1.5, 2, 4],
    [3, 4],
]


@pytest.mark.parametrize("key", ["block", "hyper"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=repr)
def test_lengths_that_do_not_fit(good: Path, key: str, lengths: Any) -> None:
    geometry = dict(load_checkpoint(good).doc["geometry"])
    with pytest.raises(FormatError, match="malformed model"):
        load_model(with_doc(good, geometry=geometry | {key: lengths}))
    del geometry[key]
    with pytest.raises(FormatError, match="malformed model"):
        load_model(with_doc(good, geometry=geometry))


@pytest.mark.parametrize(
    ("doc", "said"),
    [
        ({"names": ["v0"] * 6}, "named twice"),
        ({"scale": ["nan"] * 6}, "bad offset or scale"),
        ({"scale": ["inf"] * 6}, "bad offset or scale"),
        ({"offset": ["-inf"] * 6}, "bad offset or scale"),
        ({"decoder_id": "0" * 64}, "SHA-256"),
    ],
)
def test_bad_descriptions(good: Path, doc: dict[str, Any], said: str) -> None:
    with pytest.raises((FormatError, ModelMismatchError), match=said):
        load_model(with_doc(good, **doc))


def changed(change: Callable[[dict[str, Any], dict[str, Array]], Any]) -> Callable[[bytes], bytes]:
    """Give a function that changes the description or the arrays of a decoder section."""

    def apply(section: bytes) -> bytes:
        doc, arrays = decode_arrays(section)
        arrays = dict(arrays)
        change(doc, arrays)
        return encode_arrays(doc, arrays)

    return apply


SECTIONS = {
    "NaN scale": changed(lambda d, a: d.update(scale=["nan"] * 6)),
    "infinite offset": changed(lambda d, a: d.update(offset=["inf"] * 6)),
    "too many layers": changed(lambda d, a: d["hyper"].update(layers=[["split", 1]] * 10_000)),
    "layers of another net": changed(lambda d, a: d.update(hyper=d["block"])),
    "weights over the proof": changed(lambda d, a: a.update({"hyper.0.weight": a["hyper.0.weight"] * 0 + 32767})),
    "another test vector": changed(lambda d, a: a.update({"hyper.0.bias": a["hyper.0.bias"] + 1})),
    "more points": changed(lambda d, a: d.update(P=1 << 40)),
    "cut": lambda s: s[: len(s) // 2],
    "more bytes": lambda s: s + b"\0",
    "nothing": lambda s: b"",
}


@pytest.mark.parametrize("name", SECTIONS)
def test_bad_sections(good: Path, name: str) -> None:
    """Their SHA-256 is right."""
    section = encode_decoder(load_model(good).decoder)
    with pytest.raises(FormatError, match=r"\w"):
        load_model(with_section(good, SECTIONS[name](section)))


def test_a_command_says_what_is_wrong(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hbae.cli.main import run

    x = np.random.default_rng(0).normal(size=(6, 4, 4)).astype("f4")
    xr.Dataset({f"v{i}": (("t", "y", "x"), x) for i in range(6)}).to_netcdf(good.with_name("a.nc"), engine="netcdf4")
    bad = with_doc(good, geometry={"block": [3, 2, 2]})
    out = good.with_name("a.hbae")
    assert (
        run(["compress", str(good.with_name("a.nc")), "-o", str(out), "--bound", "nrmse=1e-2", "--model", str(bad)])
        == 4
    )
    assert "bad.hbm: malformed model" in capsys.readouterr().err
    assert not out.exists()


def test_models_that_are_searched_are_not_read_whole(good: Path) -> None:
    """A folder may hold anything; the right model is found beside it."""
    sha = decoder_id(encode_decoder(load_model(good).decoder))
    (good.parent / "a.hbm").write_bytes(b"\xff" * 99)
    (good.parent / "b.hbm").write_bytes(b"")
    with_header(good, "", [("decoder", "U8", 3 << 30)], "c.hbm")
    assert decoder_id(find_shared_model(sha, None, good.parent)) == sha
