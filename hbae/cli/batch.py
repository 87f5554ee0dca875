# SPDX-License-Identifier: MIT
"""``hbae batch``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output
from hbae.cli.ranks import ended_together, start_output
from hbae.errors import ConfigError

if TYPE_CHECKING:
    from hbae.batch.estimate import Estimate
    from hbae.batch.items import Item
    from hbae.batch.summary import Summary
    from hbae.batch.work import Outcome
    from hbae.ranks import Team


def batch(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML: inputs, output, bound, options of compress.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List inputs, sizes and order; write nothing.")] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Predict time and size from a sample.")] = False,
    sample: Annotated[int, typer.Option(metavar="N", help="Inputs that --estimate compresses.", min=1)] = 3,
    ranks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="R", help="Ranks that --estimate is for.", min=1),
    ] = None,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace archives that another recipe or program wrote.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Compress many files, on one process or under mpirun; start it again to go on where it was stopped."""
    from hbae.ranks import join

    if dry_run and estimate:
        raise ConfigError("--dry-run and --estimate exclude each other")
    team = join()
    output = start_output(team, as_json, quiet, verbose)
    with ended_together(team):
        code = _run(team, output, recipe, (dry_run, estimate, force), (sample, ranks))
    if code:
        raise typer.Exit(code)


def _run(
    team: Team, output: Output, recipe: Path, what: tuple[bool, bool, bool], numbers: tuple[int, int | None]
) -> int:
    dry_run, estimate, force = what
    if dry_run:
        from hbae.batch.run import plan, set_up
        from hbae.ranks import agreed

        campaign = set_up(team, recipe).campaign
        _show_plan(agreed(team, lambda: plan(campaign, force=force)), output)
        return 0
    if estimate:
        from hbae.batch.estimate import estimate_batch

        sample, ranks = numbers
        result = estimate_batch(team, recipe, sample=sample, ranks=ranks, tell=_Lines(output))
        if result is not None:
            _show_estimate(result, output)
        return 0
    from hbae.batch.run import run_batch

    summary = run_batch(team, recipe, force=force, tell=_Lines(output))
    if summary is not None:
        _show(summary, output)
    return team.share(summary.exit_code if summary is not None else 0)


class _Lines:
    """Says one line for each outcome."""

    def __init__(self, output: Output) -> None:
        self._output, self._count = output, 0

    def __call__(self, outcome: Outcome) -> None:
        self._count += 1
        i = outcome.item.identity
        text = {
            "done": f"{i.size:,} -> {outcome.size:,} bytes in {outcome.seconds:.1f} s",
            "kept": f"finished before, {outcome.size:,} bytes checked",
            "failed": f"FAILED: {outcome.error}",
        }[outcome.status]
        notes = outcome.report.get("notes", ())
        text = "; ".join([text, *(n for n in notes if n.startswith(("a model ", "model ")))])
        self._output.line(f"{self._count}: {os.path.basename(i.path)}: {text}")


def _show_plan(items: list[Item], output: Output) -> None:
    rows: list[dict[str, Any]] = [
        {
            "input": i.identity.path,
            "bytes": i.identity.size,
            "archive": i.archive,
            "action": "check" if i.claim else "compress",
        }
        for i in items
    ]
    output.document({"items": rows, "bytes": sum(r["bytes"] for r in rows)})
    for n, r in enumerate(rows, 1):
        output.line(f"{n}: {r['action']} {r['input']} ({r['bytes']:,} bytes) -> {r['archive']}")
    output.line(f"{len(rows)} items, {sum(r['bytes'] for r in rows):,} bytes; nothing was written")


def _show_estimate(e: Estimate, output: Output) -> None:
    output.document(e.to_json())
    output.line(f"{e.items} items, {e.input_bytes:,} bytes: about {_clock(e.seconds)} on {e.ranks} ranks")
    output.line(f"archives: about {e.archive_bytes:,} bytes ({e.low:,} to {e.high:,})")
    output.line(f"how: {e.how}")


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 300
        else f"{seconds / 60:.0f} min"
        if seconds < 2e4
        else f"{seconds / 3600:.1f} h"
    )


def _show(s: Summary, output: Output) -> None:
    doc = s.to_json()
    output.document(doc)
    counts = f"{doc['done']} done, {doc['kept']} kept, {doc['failed']} failed, {doc['not_begun']} not begun"
    output.line(f"{s.folder}: {counts} in {s.seconds:.1f} s on {s.ranks} ranks")
    if doc["done"]:
        output.line(f"{doc['raw_bytes']:,} -> {doc['archive_bytes']:,} bytes, CR {doc['cr']:.2f}")
        slow = ", ".join(f"{os.path.basename(r['input'])} {r['seconds']:.1f} s" for r in doc["slowest"])
        output.line(f"slowest: {slow}")
    for f in doc["failures"]:
        output.line(f"failed: {f['input']}: {f['error']}")
    if s.error:
        output.line(s.error)
