# SPDX-License-Identifier: MIT
"""What a result depends on beside data and options: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "h5py",
    "hdf5plugin",
    "pysz",
    "pcodec",
    "zstandard",
    "numcodecs-wasm-ebcc",
    "numcodecs-wasm-tthresh",
    "torch",
    "constriction",
)


def versions() -> dict[str, str]:
    """Give the versions of hbae, Python and every package that takes part, where installed."""
    from hbae import __version__

    found = {"hbae": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Give processor, number of usable cores, memory in GiB and system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
