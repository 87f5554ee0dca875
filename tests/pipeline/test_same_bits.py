# SPDX-License-Identifier: MIT
"""P2: the same file gives the same bits for any backend, batch, thread count, processor and window; and the same input
the same file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import hbae
from hbae.exact import ExactNet, backend, net
from hbae.pipeline.archive import Archive
from hbae.pipeline.decompress import decompress_file
from hbae.pipeline.logdomain import join_bits

DECODE = """
import hashlib, sys, hbae
ds = hbae.decompress(sys.argv[1], backend=sys.argv[2])
h = hashlib.sha256()
for name in sorted(map(str, ds.variables)):
    h.update(ds.variables[name].values.tobytes())
print(h.hexdigest())
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose values come from a model that was trained for one epoch."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(np.arange(12) / 3, np.arange(24) / 5, np.arange(24) / 7, indexing="ij")
    data = {
        f"v{i}": (("t", "y", "x"), (np.sin(x + i) * np.cos(y) + z + rng.normal(0, 0.01, x.shape)).astype("f4"))
        for i in range(3)
    }
    path = tmp_path_factory.mktemp("learned") / "m.hbae"
    hbae.compress(xr.Dataset(data), path, "nrmse=3e-2", method="hbae", budget="1ep", chunk=0.0625)
    assert "hbae" in hbae.info(path)["groups"][0]["stages"]
    return path


@pytest.fixture
def expected(learned: Path, sha: Callable[[xr.Dataset], str]) -> str:
    """SHA-256 of the values that plain NumPy decodes."""
    return sha(hbae.decompress(learned, backend="numpy"))


def decode_elsewhere(path: Path, name: str, env: dict[str, str]) -> str:
    """Decode in another process under other settings; gives the SHA-256."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(path), name],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_backends_and_threads(learned: Path, expected: str, sha: Callable[[xr.Dataset], str]) -> None:
    old = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert sha(hbae.decompress(learned, backend="cpu")) == expected
    finally:
        torch.set_num_threads(old)
    with hbae.open(learned) as lazy:
        assert sha(lazy.load()) == expected


def test_batches_of_the_nets(
    learned: Path, expected: str, sha: Callable[[xr.Dataset], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ExactNet.run

    def in_pieces(self: ExactNet, z: np.ndarray, b: backend.Backend) -> np.ndarray:
        return np.concatenate([run(self, z[i : i + 3], b) for i in range(0, len(z), 3)])

    monkeypatch.setattr(net.ExactNet, "run", in_pieces)
    for name in ("numpy", "cpu"):
        assert sha(hbae.decompress(learned, backend=name)) == expected


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("numpy", {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        ("numpy", {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}),
        ("numpy", {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}),
        ("cpu", {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OMP_NUM_THREADS": "2"}),
        ("cpu", {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}),
    ],
)
def test_processors_and_threads(learned: Path, expected: str, name: str, env: dict[str, str]) -> None:
    assert decode_elsewhere(learned, name, env) == expected


@pytest.mark.parametrize(
    "window", [{"t": (0, 1)}, {"t": (5, 6), "x": (3, 20)}, {"y": (23, 24)}, {"t": (1, 11), "y": (7, 9), "x": (0, 1)}]
)
def test_windows_equal_the_whole(learned: Path, tmp_path: Path, window: dict[str, tuple[int, int]]) -> None:
    whole = hbae.decompress(learned)
    keys = {d: slice(a, b) for d, (a, b) in window.items()}
    decompress_file(learned, tmp_path / "w.nc", window=window)
    with xr.open_dataset(tmp_path / "w.nc") as part, hbae.open(learned, backend="numpy") as lazy:
        for n in whole:
            want = whole[n].isel(keys).values
            assert part[n].values.tobytes() == want.tobytes()
            assert lazy[n].isel(keys).values.tobytes() == want.tobytes()
            assert lazy[n].isel(keys)[..., ::-1].values.tobytes() == want[..., ::-1].tobytes()


def test_only_the_chunks_of_a_window_are_decoded(learned: Path) -> None:
    with Archive(learned) as a:
        part = a.parts[0]
        assert len(part.boxes) > 1
        a.field.variable("v1").source.read(part.boxes[1])
        assert list(a._cache) == [part.first + 1]


@pytest.mark.parametrize("bound", ["nrmse=1e-3", "abs=1e-2", "block_nrmse=1e-3", "pw_rel=1e-2"])
def test_the_bytes_do_not_depend_on_threads_or_the_run(
    bound: str, fields: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    ds = fields((16, 40, 48), "TUV")
    found = set()
    for i, threads in enumerate((1, 2, 1)):
        hbae.compress(ds, tmp_path / f"{i}.hbae", bound, chunk=0.0625, threads=threads, method="linear")
        found.add((tmp_path / f"{i}.hbae").read_bytes())
    assert len(found) == 1


def test_the_bytes_of_a_learned_archive_repeat(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    found = set()
    for i in range(2):
        path = tmp_path / f"{i}.hbae"
        hbae.compress(fields((8, 16, 16)), path, "nrmse=1e-2", method="hbae", budget="1ep", threads=i + 1)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_workers_do_not_run_the_callers_script(tmp_path: Path) -> None:
    """A script without a guard may ask for processes: they must not start it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import hbae, numpy as np, pathlib, xarray as xr\n"
        "pathlib.Path('runs').open('a').write('x')\n"
        "a = np.random.default_rng(0).normal(size=(40, 32, 32)).cumsum(0).astype('f4')\n"
        "hbae.compress(xr.Dataset({'T': (('a', 'b', 'c'), a)}), 'a.hbae', 'abs=1e-2', threads=2, chunk=0.0625)\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").read_text() == "x"
    assert (tmp_path / "a.hbae").exists()


def test_zeros_have_no_sign(tmp_path: Path) -> None:
    """The lowest value is a zero with a sign: which of the two zeros clipping gives depends on how arrays lie."""
    x = np.random.default_rng(3).normal(size=(3, 40, 41)).astype("f4")
    x[x <= 0] = -0.0
    hbae.compress(xr.Dataset({"T": (("t", "y", "x"), x)}), tmp_path / "a.hbae", "nrmse=1e-2", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        assert np.signbit(a.plan(0).low).all()
    y = hbae.decompress(tmp_path / "a.hbae")["T"].values
    assert (y == 0).any()
    assert not np.signbit(y[y == 0]).any()


def test_zeros_of_the_log_domain_keep_their_sign(tmp_path: Path) -> None:
    """Under limits that are zeros of either sign; there, comparisons decide, and equal zeros stay as they are."""
    x = np.random.default_rng(4).uniform(1, 2, (3, 40, 41)).astype("f4")
    x[:, ::2] = 0.0
    x[:, ::4] = -0.0
    hbae.compress(xr.Dataset({"T": (("t", "y", "x"), x)}), tmp_path / "a.hbae", "pw_rel=1e-2", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        plan = a.plan(0)
        assert plan.domain == "log"
    y = hbae.decompress(tmp_path / "a.hbae")["T"].values
    assert np.array_equal(np.signbit(y), np.signbit(x))
    sizes, signs = (np.abs(x).view("u4").astype(np.int64)[None], np.signbit(x)[None])
    for low in (0.0, -0.0):
        one = replace(plan, limits=((low, 2.0),), low=np.zeros(1), point_unit=np.ones(1))
        assert join_bits(sizes, signs, one, sizes.shape).tobytes() == x.tobytes()
