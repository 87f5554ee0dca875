# SPDX-License-Identifier: MIT
"""One item on one rank: compress it, or check that what the journal vouches for is there."""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbae.batch.folder import sweep
from hbae.batch.items import Identity, Item
from hbae.batch.machine import Seat
from hbae.batch.recipe import Campaign
from hbae.errors import FieldError
from hbae.pipeline.api import compress
from hbae.pipeline.report import Report

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: ``done``, ``kept`` (was finished already) or ``failed``.

    ``report`` holds sizes and errors of a finished archive. ``stop`` says that further items would fail alike.
    """

    item: Item
    status: str
    seconds: float
    rank: int = 0
    size: int = 0
    sha256: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    kind: str = ""
    code: int = 0
    stop: bool = False


def work(item: Item, campaign: Campaign, seat: Seat) -> Outcome:
    """Promise a complete, verified archive with its hash, or a failure that says why; only signals get through."""
    begin = time.monotonic()
    archive = Path(item.archive)
    try:
        if item.claim is not None and file_sha256(archive) == item.claim:
            return Outcome(item=item, status="kept", seconds=time.monotonic() - begin, size=archive.stat().st_size)
        _check_same(item)
        report = compress(
            item.identity.path,
            archive,
            campaign.recipe.bound,
            # The folder is locked and the archive's name claimed: what stands there is ours.
            overwrite=True,
            **campaign.options(seat.device, seat.threads),
        )
        try:
            _check_same(item)
        except (FieldError, OSError):
            archive.unlink(missing_ok=True)
            raise
        sha = file_sha256(archive)
    except Exception as e:
        # A full disk can keep the writer from removing what it began.
        sweep([item])
        return _failed(item, e, time.monotonic() - begin, seat.rank)
    seconds = time.monotonic() - begin
    return Outcome(
        item=item, status="done", seconds=seconds, rank=seat.rank, size=report.size, sha256=sha, report=_short(report)
    )


def file_sha256(path: Path) -> str:
    """Give the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _check_same(item: Item) -> None:
    if Identity.of(Path(item.identity.path)) != item.identity:
        raise FieldError("the input has changed since the batch began")


def _failed(item: Item, e: Exception, seconds: float, rank: int) -> Outcome:
    logging.getLogger("hbae").info("traceback of %s", item.identity.path, exc_info=e)
    text = str(e)
    if isinstance(e, OSError) and e.strerror:
        text = f"{e.filename}: {e.strerror}" if e.filename is not None else e.strerror
    return Outcome(
        item=item,
        status="failed",
        seconds=seconds,
        rank=rank,
        error=text or type(e).__name__,
        kind=type(e).__name__,
        code=getattr(e, "exit_code", 1),
        stop=isinstance(e, OSError) and e.errno in _FULL,
    )


def _short(r: Report) -> dict[str, Any]:
    """Sizes and errors, without what ``hbae info`` tells as well."""
    doc = r.to_json()
    errors = {v["path"]: {k: v[k] for k in ("nrmse", "max_error")} for v in doc["variables"]}
    facts = ("raw_bytes", "cr", "mean_nrmse", "max_nrmse", "notes")
    return {k: doc[k] for k in facts} | {"errors": errors, "stages": doc["seconds"]}


def journal_line(outcome: Outcome, digest: str, version: str) -> dict[str, Any]:
    """Write an outcome down as the journal keeps it."""
    i = outcome.item.identity
    line: dict[str, Any] = {
        "kind": outcome.status,
        "archive": outcome.item.name,
        "input": {"path": i.path, "size": i.size, "mtime_ns": i.mtime_ns},
        "recipe": digest,
        "seconds": round(outcome.seconds, 4),
        "rank": outcome.rank,
        "version": version,
    }
    if outcome.status == "failed":
        return line | {"error": outcome.error, "error_kind": outcome.kind}
    return line | {"sha256": outcome.sha256, "size": outcome.size, **outcome.report}
