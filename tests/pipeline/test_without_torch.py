# SPDX-License-Identifier: MIT
"""Light imports, and all that needs no training works where torch is absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

import hbae

BLOCK = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
_find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {blocked!r} else _find(name, package)
"""


def run(code: str, *args: str, blocked: tuple[str, ...] = ("torch",)) -> str:
    """Run code in a process where some modules cannot be imported; gives its output."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code, *args],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MAKE = """
import numpy as np, xarray as xr, hbae, hashlib
x = np.sin(np.arange(24 * 24 * 8).reshape(8, 24, 24) / 50).astype("f4")
ds = xr.Dataset({"T": (("t", "y", "x"), x)})
"""


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, hbae; print([m for m in ('torch', 'mpi4py', 'netCDF4', 'xarray', 'numpy') if m in sys.modules])"
    assert run(code, blocked=()) == "[]"


def test_linear_compress_and_decompress_load_no_torch(tmp_path: Path) -> None:
    code = MAKE + (
        "import sys\n"
        "hbae.compress(ds, sys.argv[1], 'nrmse=1e-3', method='linear')\n"
        "hbae.decompress(sys.argv[1], backend='numpy')\n"
        "print([m for m in ('torch', 'mpi4py') if m in sys.modules])"
    )
    assert run(code, str(tmp_path / "a.hbae"), blocked=()) == "[]"


def test_a_learned_archive_decodes_without_torch(
    fields: Callable[..., xr.Dataset], sha: Callable[[xr.Dataset], str], tmp_path: Path
) -> None:
    path = tmp_path / "a.hbae"
    ds = fields((8, 16, 16)).drop_vars(["label"])
    hbae.compress(ds, path, "nrmse=3e-2", method="hbae", budget="1ep")
    assert "hbae" in hbae.info(path)["groups"][0]["stages"]
    code = """
import sys, hashlib, hbae
ds = hbae.decompress(sys.argv[1])
h = hashlib.sha256()
for name in sorted(map(str, ds.variables)):
    h.update(ds.variables[name].values.tobytes())
assert "torch" not in sys.modules and hbae.verify(sys.argv[1]).ok
print(h.hexdigest())
"""
    assert run(code, str(path)) == sha(hbae.decompress(path, backend="cpu"))


def test_linear_archives_are_the_same_without_torch(tmp_path: Path) -> None:
    code = MAKE + "import sys\nhbae.compress(ds, sys.argv[1], 'nrmse=1e-3', method=sys.argv[2])"
    for method in ("linear", "auto"):
        run(code, str(tmp_path / f"{method}0"), method)
        run(code, str(tmp_path / f"{method}1"), method, blocked=())
        assert (tmp_path / f"{method}0").read_bytes() == (tmp_path / f"{method}1").read_bytes()


@pytest.mark.parametrize("options", ["method='hbae'", "budget='1ep'", "method='hbae', budget='1ep'"])
def test_a_model_without_torch_names_the_extra(options: str, tmp_path: Path) -> None:
    code = (
        MAKE
        + f"""
import os, sys
from hbae.errors import MissingExtraError
try:
    hbae.compress(ds, sys.argv[1], 'nrmse=1e-3', {options})
except MissingExtraError as e:
    assert not os.listdir(os.path.dirname(sys.argv[1]))
    print(e)
"""
    )
    assert "hbae[torch]" in run(code, str(tmp_path / "a.hbae"))
