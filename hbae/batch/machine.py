# SPDX-License-Identifier: MIT
"""What each rank runs on, whether all run the same, and which device and how many threads each gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hbae.batch.recipe import Campaign
from hbae.errors import BatchError, ConfigError
from hbae.ranks import Machine, check_versions, fair_threads, make_machine


@dataclass(frozen=True)
class Card(Machine):
    """What a rank tells the root about itself before any work."""

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
        **asdict(make_machine(rank)),
        gpus=_gpus(campaign) if campaign is not None else 0,
        digest=campaign.digest if campaign is not None else "",
        error=str(error) if error is not None else "",
        code=getattr(error, "exit_code", 1) if error is not None else 0,
    )


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
    for c, fair in zip(cards, fair_threads(cards), strict=True):
        place = local[c.host]
        local[c.host] += 1
        out.append(Seat(c.rank, _device(device, c, place), campaign.recipe.threads or fair))
    return out


def _device(device: str, card: Card, place: int) -> str:
    if device == "cpu":
        return device
    index = int(device.partition(":")[2]) if ":" in device else place % max(card.gpus, 1)
    if index >= card.gpus:
        raise ConfigError(f"device: {device}: rank {card.rank} ({card.host}) finds {card.gpus} GPUs")
    return f"cuda:{index}"
