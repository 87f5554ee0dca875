# SPDX-License-Identifier: MIT
"""What a rank of a test runs: ``hbae.compress`` with plans that are chosen at once, some of them too coarse.

``job.py OUT [OPTIONS as JSON]``. The bounds of T are missed by little, so that a few chunks are coded again; those of
W by far, so that a plan is made finer; V is looked at before it is coded. The root prints how often each happened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import numpy as np

import hbae
from hbae.pipeline import choosing, exactvars, inputs, pass2
from hbae.pipeline.calibrate import Choice
from hbae.ranks import MpiTeam, join

BOUNDS = {"T": "nrmse=1e-2", "U": "nrmse=3e-2", "W": "nrmse=1e-2", "V": "nrmse=2e-2", "P": "abs=1e-2"}
TOO_COARSE = {"T": 1.04, "W": 3.0}
counts = {"touch-ups": 0, "finer plans": 0, "looks": 0}


def choose(draft: Any, targets: Any, sample: Any, methods: Any, **_: Any) -> Choice:
    """Give a plan with one step per variable, exactly what the bound asks for times a factor."""
    steps = [
        12**0.5 * t.rmse * TOO_COARSE.get(p, 0.9) if np.isfinite(t.rmse) else 1.9 * t.point
        for p, t in zip(draft.paths, targets, strict=True)
    ]
    return Choice(replace(draft, point_unit=np.array(steps)), 0.0, False, "forced")


def counted(name: str, function: Any) -> Any:
    """Count the calls that give something."""

    def call(*args: Any) -> Any:
        out = function(*args)
        counts[name] += bool(out is not None and (not isinstance(out, tuple) or np.size(out[1])))
        return out

    return call


def die(team: Any, where: str) -> None:
    """Let rank 1 fail, or die without a word, in one place."""
    if team.rank != 1:
        return
    if where == "encode":

        def fail(*_: Any) -> Any:
            raise OSError(5, "Input/output error", "slab")

        pass2.GroupWriter._chunks = fail
    elif where == "killed":
        rest = MpiTeam.write_pieces

        def kill(self: Any, path: Any, pieces: Any, rounds: int) -> None:
            next(iter(pieces))
            os.kill(os.getpid(), signal.SIGKILL)
            rest(self, path, pieces, rounds)

        MpiTeam.write_pieces = kill
    elif where == "write":

        def full(self: Any, starts: Any) -> Any:
            raise OSError(28, "No space left on device", "spool")
            yield

        from hbae.container import SharedWriter

        SharedWriter._chunk_pieces = full
    elif where == "bug":
        inputs.share_of = None


def main() -> None:
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    team = join()
    die(team, options.pop("die", ""))
    choosing.choose_plan = choose
    exactvars.CHUNK_BYTES = 1 << 18
    pass2.touch_up = counted("touch-ups", pass2.touch_up)
    pass2.finer_plan = counted("finer plans", pass2.finer_plan)
    pass2._after_look = counted("looks", pass2._after_look)
    pass2.can_settle = lambda plan, *_, **__: "V" in plan.paths
    bounds = options.pop("bounds", BOUNDS)
    report = hbae.compress(
        "in.nc", sys.argv[1], bounds, comm=getattr(team, "comm", None), **{"chunk": 0.0625} | options
    )
    assert report.size == os.path.getsize(sys.argv[1])
    assert report.size == sum(report.sizes.values())
    if team.rank == 0:
        sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
