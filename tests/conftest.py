# SPDX-License-Identifier: MIT
"""One profile for all property tests (the same examples always, no time limits), the usual Ctrl-C, kernels, a field."""

from __future__ import annotations

import shutil
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    # Examples are small as drawn; shrinking a failure would take minutes.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("steady")

# A shell starts what runs in the background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, a file's share its fixtures, and launchers of ranks come one after the other."""
    for item in items:
        name = "mpi" if item.get_closest_marker("mpi") else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture
def kernel_of() -> Callable[[ModuleType, str], Any]:
    """Give a function that finds a module's compiled kernel; where a compiler is at hand it must have been built."""

    def find(module: ModuleType, name: str) -> Any:
        kernel = getattr(module, name)
        headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
        if kernel is None and not (headers and shutil.which("cc")):
            pytest.skip("there is no C compiler here, or Python's headers are missing, so there is no kernel")
        assert kernel is not None, "a C compiler is there, but the kernel was not built"
        return kernel

    return find


@pytest.fixture
def unlike() -> xr.Dataset:
    """A mosaic, which differences suit, and waves of all lengths, which wavelets and transforms suit."""
    rng = np.random.default_rng(5)
    shape = (12, 64, 64)
    places = rng.random((60, 3)) * shape
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    owners = np.argmin(((points[..., None, :] - places) ** 2).sum(-1), axis=-1)
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij"))) + 0.02
    waves = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * k**-2.5).real
    values = {"mosaic": rng.normal(size=60)[owners], "waves": waves}
    return xr.Dataset({n: (("t", "y", "x"), v.astype(np.float32)) for n, v in values.items()})
