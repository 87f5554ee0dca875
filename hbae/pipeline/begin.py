# SPDX-License-Identifier: MIT
"""What is looked at before a compression begins: names, bounds, room, and whether all ranks are about the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbae.arrays import Field
from hbae.blocks import MAX_RANK
from hbae.config import BoundLike, parse_rules
from hbae.errors import ConfigError, FieldError, OutputExistsError
from hbae.exact import get_backend
from hbae.exact.backend import num_devices
from hbae.io import open_field
from hbae.pipeline.groups import lossy_bounds
from hbae.pipeline.inputs import scratch_space
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.regions import Regions
from hbae.pipeline.size import ANY_SIZE
from hbae.ranks import Machine, Team, place_of, seat_ranks


def look(
    source: Any, out: str | os.PathLike[str], bound: BoundLike | None, options: CompressOptions
) -> tuple[Field, dict[str, Any]]:
    """Open the input and give it with the bounds of its lossy variables; whatever makes no sense is refused."""
    if Path(out).exists() and not options.overwrite:
        raise OutputExistsError(f"{out} exists; use -f or overwrite=True to replace it")
    if not Path(out).absolute().parent.is_dir():
        raise FieldError(f"{out}: there is no such folder")
    if bound is None and not options.by_size:
        if options.method != "lossless":
            raise ConfigError(
                "nothing is asked for: give --bound, --size, --cr (bound=, size=, cr= in Python) or --method lossless"
            )
        # What has no bound is kept exactly.
        bound = ()
    # A device that is not there.
    get_backend(options.backend(model=False))
    rules = parse_rules(ANY_SIZE if bound is None else bound)
    field = source if isinstance(source, Field) else open_field(source)
    for v in field.variables():
        if len(v.shape) > MAX_RANK:
            raise FieldError(f"variable {v.path}: {len(v.shape)} axes, the format holds {MAX_RANK}")
    wanted = lossy_bounds(field, rules, options.variables)
    Regions(field, wanted)
    return field, wanted


def for_ranks(team: Team, field: Field, wanted: dict[str, Any], options: CompressOptions, out: Path) -> CompressOptions:
    """Check that all ranks are about the same; deal out threads, devices, and a scratch folder that every host sees."""
    alike = replace(options, progress=None, threads=None, scratch=None)
    text = json.dumps(field.to_json()) + repr((wanted, alike, str(out)))
    machines, threads = seat_ranks(team, hashlib.sha256(text.encode()).hexdigest())
    scratch = options.scratch
    if scratch is None and len({m.host for m in machines}) > 1:
        scratch = out.absolute().parent
    device = own_device(options.device, machines, team.rank)
    return replace(options, threads=options.threads or threads, scratch=scratch, device=device)


def own_device(device: str, machines: Sequence[Machine], rank: int) -> str:
    """Deal the GPUs of a host out to its ranks in turn where ``cuda`` is asked for; several may get the same."""
    if device != "cuda" or len(machines) < 2:
        return device
    return f"cuda:{place_of(machines, rank) % max(num_devices(), 1)}"


def check_scratch(field: Field, wanted: dict[str, Any], options: CompressOptions) -> None:
    need = sum(field.variable(p).nbytes for p in wanted if field.variable(p).source.storage is not None)
    if need > scratch_space(options.scratch):
        raise FieldError(f"up to {need} bytes of scratch space are needed; give a larger folder with --scratch")
