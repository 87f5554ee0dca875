# SPDX-License-Identifier: MIT
"""The files of a batch: found, named, told apart, biggest first."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hbae.batch.recipe import Campaign
from hbae.errors import ConfigError

SUFFIX = ".hbae"


@dataclass(frozen=True)
class Identity:
    """An input as the journal knows it; a folder (Zarr) or a raw file with its description counts as a whole."""

    path: str
    size: int
    mtime_ns: int

    @staticmethod
    def of(path: Path) -> Identity:
        """Look at an input.

        Raises
        ------
        OSError
            When it is not there.
        """
        stats = [p.stat() for p in _parts(path)]
        return Identity(str(path), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))


@dataclass(frozen=True)
class Item:
    """One input and its archive.

    ``claim`` is the SHA-256 under which the journal lists a finished archive, to be checked before it is believed.
    """

    identity: Identity
    archive: str
    claim: str | None = None

    @property
    def name(self) -> str:
        """Name of the archive, by which the journal knows the item."""
        return Path(self.archive).name


def find_items(campaign: Campaign) -> list[Item]:
    """Give the items of a batch, biggest first; a file that two patterns match counts once.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, or two inputs would get the same archive.
    """
    taken: dict[str, Path] = {}
    items = []
    for path in dict.fromkeys(_matches(campaign)):
        name = path.stem + SUFFIX
        if name in taken:
            raise ConfigError(f"inputs: {taken[name]} and {path} would both become {name}")
        taken[name] = path
        items.append(Item(Identity.of(path), str(campaign.output / name)))
    return sorted(items, key=lambda i: (-i.identity.size, i.identity.path))


def _matches(campaign: Campaign) -> Iterator[Path]:
    for n, text in enumerate(campaign.recipe.inputs):
        path = campaign.resolve(text)
        found = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise ConfigError(f"inputs[{n}]: {text!r} matches no file in {campaign.path.parent}")
        yield from (Path(os.path.normpath(p)) for p in found)


def _parts(path: Path) -> list[Path]:
    """Files that make up an input: a folder's, or a raw file and its description, whichever of them is named."""
    if path.is_dir():
        inside = [Path(root) / f for root, _, files in os.walk(path) for f in files]
        return [path, *inside]
    described = path.with_suffix("") if path.suffix == ".yaml" else path.with_name(path.name + ".yaml")
    return [path, described] if described.is_file() else [path]
