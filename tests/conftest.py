# SPDX-License-Identifier: MIT
"""One profile for all property tests (the same examples always, no time limits), the usual Ctrl-C, and kernels."""

from __future__ import annotations

import shutil
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
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
