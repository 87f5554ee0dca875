# SPDX-License-Identifier: MIT
"""What each rank runs on, whether all run the same, and which device and how many threads each gets."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hbae import __version__
from hbae.batch.recipe import Campaign
from hbae.errors import BatchError, ConfigError

# The packages whose version can change an archive's bytes.
PACKAGES = ("numpy", "torch", "constriction", "zstandard")


@dataclass(frozen=True)
class Card:
    """What a rank tells the root about itself before any work."""

    rank: int
    host: str
    versions: dict[str, str]
    cores: tuple[int, ...]
    omp: str = ""
    gpus: int = 0
    digest: str = ""
    error: str = ""
    code: int = 0


@dataclass(frozen=True)
class Seat:
    """What a rank works with."""

    rank: int = 0
    device: str = "cpu"
    threads: int = 1


def make_card(rank: int, campaign: Campaign | None, error: Exception | None = None) -> Card:
    """Describe this process; torch is asked for GPUs only where a model can use one."""
    return Card(
        rank=rank,
        host=socket.gethostname(),
        versions={"hbae": __version__} | {p: _version(p) for p in PACKAGES},
        cores=tuple(sorted(os.sched_getaffinity(0))),
        omp=os.environ.get("OMP_NUM_THREADS", ""),
        gpus=_gpus(campaign) if campaign is not None else 0,
        digest=campaign.digest if campaign is not None else "",
        error=str(error) if error is not None else "",
        code=getattr(error, "exit_code", 1) if error is not None else 0,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _gpus(campaign: Campaign) -> int:
    device = campaign.recipe.device
    if device == "cpu" or (device == "auto" and not campaign.recipe.needs_torch):
        return 0
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_alike(cards: Sequence[Card]) -> None:
    """Refuse ranks whose archives could differ.

    Raises
    ------
    BatchError
        When versions, recipe or model differ, or a rank failed to read them; it names the rank and its host.
    """
    first = cards[0]
    check_versions(cards)
    for c in cards:
        if c.error:
            raise BatchError(f"rank {c.rank} ({c.host}): {c.error}")
        if c.digest != first.digest:
            raise BatchError(f"rank {c.rank} ({c.host}) has another recipe or model file than rank 0 ({first.host})")


def check_versions(cards: Sequence[Card]) -> None:
    """Refuse ranks that run different versions of anything in ``PACKAGES`` or of hbae.

    Raises
    ------
    BatchError
        It names the package, the rank and its host.
    """
    first = cards[0]
    for c in cards:
        for name, have in c.versions.items():
            want = first.versions.get(name)
            if have != want:
                raise BatchError(f"rank {c.rank} ({c.host}) has {name} {have}, rank 0 ({first.host}) has {want}")


def seats(cards: Sequence[Card], campaign: Campaign) -> list[Seat]:
    """Give every rank its device and thread count.

    ``cuda`` deals the GPUs of a host out to its ranks in turn; ``auto`` is ``cuda`` only if every rank has one, as
    archives must not depend on who wrote them. Ranks that may run on the same cores share them.

    Raises
    ------
    ConfigError
        When a rank has not the device that the recipe asks for.
    """
    device = campaign.recipe.device
    if device == "auto":
        device = "cuda" if all(c.gpus for c in cards) else "cpu"
    local: Counter[str] = Counter()
    out = []
    for c, share in zip(cards, shared_threads(cards), strict=True):
        place = local[c.host]
        local[c.host] += 1
        threads = campaign.recipe.threads or share
        out.append(Seat(c.rank, _device(device, c, place), threads))
    return out


def shared_threads(cards: Sequence[Card]) -> list[int]:
    """Give every rank its threads: ``OMP_NUM_THREADS``, else its cores, shared with the ranks that may use them too."""
    sharers = Counter((c.host, c.cores) for c in cards)
    return [_omp(c) or max(1, len(c.cores) // sharers[c.host, c.cores]) for c in cards]


def _device(device: str, card: Card, place: int) -> str:
    if device == "cpu":
        return device
    index = int(device.partition(":")[2]) if ":" in device else place % max(card.gpus, 1)
    if index >= card.gpus:
        raise ConfigError(f"device: {device}: rank {card.rank} ({card.host}) finds {card.gpus} GPUs")
    return f"cuda:{index}"


def _omp(card: Card) -> int:
    head = card.omp.partition(",")[0].strip()
    return int(head) if head.isdecimal() else 0
