# SPDX-License-Identifier: MIT
"""One training run on many ranks: they find each other, agree on what they do, and get devices and threads.

Started by mpirun or srun (rendezvous through MPI) or by torchrun (through its environment); without a launcher there is
one process.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbae.batch.machine import Card, make_card
from hbae.errors import BatchError, ConfigError
from hbae.ranks import Team, agreed, check_versions, fair_threads, join

if TYPE_CHECKING:
    from hbae.train.ranks import Ranks

# A rank that reads for hours keeps the others waiting; one that is lost is noticed by its broken connections.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Applicant:
    """What a rank tells before any work: its card, and what it was asked to do, by option."""

    card: Card
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """What a rank trains with: its device and, for a budget in seconds, its threads."""

    device: str
    threads: int | None = None


def torchrun_size(environment: Mapping[str, str] = os.environ) -> int:
    """Give the number of ranks that torchrun started, 1 without it."""
    names = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return int(environment["WORLD_SIZE"]) if all(n in environment for n in names) else 1


def join_training() -> Team:
    """Give the team of this process; under torchrun a group of torch already.

    Raises
    ------
    HbaeError
        When the launcher's ranks cannot find each other.
    """
    if torchrun_size() == 1:
        return join()
    dist = _distributed()
    from hbae.train.ranks import RankGroup

    _loopback([os.environ["MASTER_ADDR"]] if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"] else [])
    dist.init_process_group("gloo", init_method="env://", timeout=PATIENCE)
    return RankGroup(dist.get_rank(), dist.get_world_size())


def agree(team: Team, device: str, files: Sequence[Path], asked: Mapping[str, Any]) -> Place:
    """Refuse ranks that would not train the same model, and give each its device and threads.

    ``asked``: options by name. ``files`` must be the same (path, size, change time) everywhere.

    Raises
    ------
    HbaeError
        The same on all ranks; the message names the rank, its host and what differs.
    """
    if team.size == 1:
        return Place(device)
    error, facts = None, {k: str(v) for k, v in asked.items()}
    try:
        for path in files:
            facts[str(path)] = _identity(path)
    except OSError as e:
        error = ConfigError(f"{e.filename}: {e.strerror}")
    card = replace(make_card(team.rank, None, error), gpus=_gpus() if device.startswith("cuda") else 0)
    applicants = team.gather(Applicant(card, facts))

    def judge() -> list[Place]:
        if applicants is None:
            raise RuntimeError("only the root judges")
        cards = [a.card for a in applicants]
        check_versions(cards)
        check_asked(applicants)
        return [Place(d, t) for d, t in zip(deal_devices(cards, device), fair_threads(cards), strict=True)]

    return agreed(team, judge)[team.rank]


def form_group(team: Team, place: Place) -> Ranks:
    """Form the process group of a team that has agreed; needs torch, for one process too.

    Raises
    ------
    BatchError
        When the ranks cannot reach each other.
    """
    from hbae.train.ranks import ALONE, RankGroup

    if team.size == 1:
        return ALONE
    dist = _distributed()
    if isinstance(team, RankGroup):
        group = team
    else:
        _meet(team)
        group = RankGroup(dist.get_rank(), dist.get_world_size())
    if place.device.startswith("cuda"):
        import torch

        torch.cuda.set_device(place.device)
        group.use_cuda()
    return group


def close_group(team: Team) -> None:
    """End the process group after the work is done; a failing process just ends."""
    if team.size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def _meet(team: Team) -> None:
    """Start torch's process group among MPI ranks: rank 0 opens a port and tells the others."""
    dist = _distributed()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    names = team.share(team.gather(socket.gethostname())) or []
    address = "127.0.0.1" if len(set(names)) == 1 else socket.getfqdn()
    _loopback([address] if address == "127.0.0.1" else [])

    def serve() -> tuple[str, int]:
        try:
            stores.append(TCPStore(address, 0, team.size, True, PATIENCE, wait_for_workers=False))
        except RuntimeError as e:
            raise BatchError(f"training: rank 0 cannot open a port on {address}: {e}") from e
        return address, int(stores[0].port)

    stores: list[Any] = []
    host, port = agreed(team, serve)
    try:
        store = stores[0] if stores else TCPStore(host, port, team.size, False, timedelta(minutes=2))
        store.set_timeout(PATIENCE)
        dist.init_process_group("gloo", store=store, rank=team.rank, world_size=team.size, timeout=PATIENCE)
    except RuntimeError as e:
        raise BatchError(f"training: rank {team.rank} cannot reach rank 0 at {host}:{port}: {e}") from e


def _distributed() -> Any:
    """Give :mod:`torch.distributed`, fit to form a group that ends when it is told to.

    Optimisers load ``torch._dynamo``; loaded while there is a group it holds on to it, whose threads then run into the
    end of the interpreter, and now and then abort the process.
    """
    import torch._dynamo
    import torch.distributed

    return torch.distributed


def _loopback(addresses: list[str]) -> None:
    """Let gloo use the loopback device where all ranks are on one host, whose name may lead nowhere."""
    if addresses and "GLOO_SOCKET_IFNAME" not in os.environ:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}" if not path.is_dir() else "folder"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_asked(applicants: Sequence[Applicant]) -> None:
    """Refuse ranks with other options or files than rank 0, or that found something wrong.

    Raises
    ------
    BatchError
        It names the rank, its host, the option or file and both values.
    """
    first = applicants[0]
    for a in applicants:
        where = f"rank {a.card.rank} ({a.card.host})"
        if a.card.error:
            raise BatchError(f"{where}: {a.card.error}")
        for name in sorted({*a.asked, *first.asked}):
            have, want = a.asked.get(name, "nothing"), first.asked.get(name, "nothing")
            if have != want:
                raise BatchError(f"{where} has {name}: {have}; rank 0 ({first.card.host}) has {want}")


def deal_devices(cards: Sequence[Card], device: str) -> list[str]:
    """Give every rank its device; of the GPUs of a host each rank there gets its own, as nccl wants it.

    Raises
    ------
    ConfigError
        When a host has fewer GPUs than ranks, or one GPU is named.
    """
    if not device.startswith("cuda"):
        return [device] * len(cards)
    if ":" in device:
        raise ConfigError(f"device: {device}: with several ranks say cuda, each takes a GPU of its own")
    local: Counter[str] = Counter()
    out = []
    for c in cards:
        index = local[c.host]
        local[c.host] += 1
        if index >= c.gpus:
            raise ConfigError(f"device: rank {c.rank} ({c.host}) is number {index + 1} there and finds {c.gpus} GPUs")
        out.append(f"cuda:{index}")
    return out
