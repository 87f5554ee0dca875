# SPDX-License-Identifier: MIT
"""Error-bounded compression of scientific fields with hyper-block autoencoders.

``import hbae`` is light: torch, mpi4py and netCDF4 are loaded by the calls that need them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "compress": "hbae.pipeline.api",
    "decompress": "hbae.pipeline.api",
    "open": "hbae.pipeline.api",
    "verify": "hbae.pipeline.api",
    "info": "hbae.pipeline.api",
    "train": "hbae.pipeline.training",
    "StreamWriter": "hbae.pipeline.stream.writer",
    "repair": "hbae.pipeline.stream.repair",
    "Report": "hbae.pipeline.report",
    "ErrorBound": "hbae.config",
}

__all__ = [
    "ErrorBound",
    "Report",
    "StreamWriter",
    "__version__",
    "compress",
    "decompress",
    "info",
    "open",
    "repair",
    "train",
    "verify",
]

if TYPE_CHECKING:
    from hbae.config import ErrorBound
    from hbae.pipeline.api import compress, decompress, info, open, verify
    from hbae.pipeline.report import Report
    from hbae.pipeline.stream.repair import repair
    from hbae.pipeline.stream.writer import StreamWriter
    from hbae.pipeline.training import train


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'hbae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``hbae.train`` the function: importing the room of that name would put the room in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
