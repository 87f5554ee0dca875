# SPDX-License-Identifier: MIT
"""The rivals by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hbae.compare.filters import ZFP, Sperr
from hbae.compare.interface import Rival
from hbae.compare.klt import Klt
from hbae.compare.lossless import Pcodec, Zstd
from hbae.compare.sz3 import SZ3
from hbae.compare.wasm import Ebcc, Tthresh
from hbae.errors import UnknownNameError

RIVALS: dict[str, Callable[[], Rival]] = {
    "SZ3": SZ3,
    "SPERR": Sperr,
    "ZFP": ZFP,
    "EBCC": Ebcc,
    "TTHRESH": Tthresh,
    "zstd": Zstd,
    "pcodec": Pcodec,
}
TOGETHER: dict[str, Callable[[], Klt]] = {
    "PCA+SZ3": lambda: Klt(SZ3()),
    "PCA+SPERR": lambda: Klt(Sperr(), by_rmse=True),
}
USUAL = ("SZ3", "SPERR", "ZFP", "PCA+SZ3", "PCA+SPERR", "zstd", "pcodec")


def find(name: str) -> str:
    """Give the name of a rival as in :data:`RIVALS` or :data:`TOGETHER`, from a name in any case.

    Raises
    ------
    UnknownNameError
        For a rival that is not known.
    """
    known = {n.lower(): n for n in (*RIVALS, *TOGETHER)}
    if name.lower() not in known:
        raise UnknownNameError(f"rival {name!r} is not known; known: {', '.join(known.values())}")
    return known[name.lower()]


def find_all(names: Iterable[str]) -> tuple[str, ...]:
    """Give the names of rivals, each once, whose packages are all there; ``all`` stands for every one.

    Raises
    ------
    UnknownNameError
        For a rival that is not known.
    MissingExtraError
        If a rival's package is not installed.
    """
    given = [known for n in names for known in ((*RIVALS, *TOGETHER) if n.lower() == "all" else (find(n),))]
    chosen = tuple(dict.fromkeys(given))
    for n in chosen:
        (RIVALS[n] if n in RIVALS else TOGETHER[n])().require()
    return chosen


def is_lossless(name: str) -> bool:
    """Tell whether a rival knows no loss."""
    return name in RIVALS and not RIVALS[name]().bounds
