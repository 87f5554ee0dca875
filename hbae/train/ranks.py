# SPDX-License-Identifier: MIT
"""The processes of one training run: what they add up and share."""

from __future__ import annotations

import socket
from typing import Any, Protocol, TypeVar

import torch.distributed as dist
from torch import Tensor

from hbae.errors import TrainingError

T = TypeVar("T")


class Ranks(Protocol):
    """Ranks 0 to ``size`` - 1 that train one model; rank 0 alone writes files and speaks."""

    rank: int
    size: int

    def share(self, value: T) -> T:
        """Give everybody rank 0's value."""

    def gather(self, value: T) -> list[T] | None:
        """Give rank 0 everybody's value, in the order of ranks."""

    def add(self, values: Tensor) -> Tensor:
        """Give the sum over all ranks, written over ``values``: the same bits on every rank."""

    def copy(self, values: Tensor) -> Tensor:
        """Give rank 0's values, written over ``values``."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def share(self, value: T) -> T:
        """Give the value back."""
        return value

    def gather(self, value: T) -> list[T] | None:
        """Give a list of one."""
        return [value]

    def add(self, values: Tensor) -> Tensor:
        """Give the values back."""
        return values

    def copy(self, values: Tensor) -> Tensor:
        """Give the values back."""
        return values


ALONE = Alone()


class RankGroup:
    """The ranks of a process group of torch: objects go through gloo, tensors of a GPU through nccl.

    ``failure``: what all ranks have raised together.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.failure: BaseException | None = None
        self._cuda: Any = None

    def use_cuda(self) -> None:
        """Form the second group, for tensors of GPUs; all ranks call it, each after choosing its own GPU."""
        self._cuda = dist.new_group(backend="nccl")

    def share(self, value: T) -> T:
        """Give everybody rank 0's value."""
        box = [value]
        with _Named():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T] | None:
        """Give rank 0 everybody's value, in the order of ranks."""
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with _Named():
            dist.gather_object(value, values, dst=0)
        return values

    def add(self, values: Tensor) -> Tensor:
        """Give the sum over all ranks, written over ``values``: the same bits on every rank."""
        with _Named():
            dist.all_reduce(values, group=self._cuda if values.is_cuda else None)
        return values

    def copy(self, values: Tensor) -> Tensor:
        """Give rank 0's values, written over ``values``."""
        with _Named():
            dist.broadcast(values, src=0, group=self._cuda if values.is_cuda else None)
        return values

    def abort(self, code: int) -> None:
        """Leave it to this process, which has failed: it ends, and its launcher ends the others."""


class _Named:
    """Turns what gloo and nccl say about a lost rank into one sentence."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):
            reason = str(error).splitlines()[0]
            raise TrainingError(f"training: another rank has ended or cannot be reached ({reason})") from error


def own_rows(batch: int, ranks: Ranks) -> slice:
    """Give the rows of a global batch that are this rank's: contiguous, sizes differ by at most one.

    Raises
    ------
    TrainingError
        When there are more ranks than rows.
    """
    if batch < ranks.size:
        raise TrainingError(f"training: a batch of {batch} hyper-blocks is too small for {ranks.size} ranks")
    return slice(batch * ranks.rank // ranks.size, batch * (ranks.rank + 1) // ranks.size)


def hosts(ranks: Ranks) -> tuple[str, ...]:
    """Give the host of every rank."""
    return ranks.share(tuple(ranks.gather(socket.gethostname()) or ()))
