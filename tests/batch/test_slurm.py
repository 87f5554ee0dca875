# SPDX-License-Identifier: MIT
"""The scripts for Slurm: sound shell, and the signal before the time limit reaches what they start."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts" / "slurm").glob("*.sh"))


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) == 3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_the_signal_reaches_the_command(script: Path) -> None:
    """Slurm sends it to steps (of srun) only, unless it is asked for with ``B:``."""
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    (signal,) = re.findall(r"^#SBATCH --signal=(\S+)$", text, re.MULTILINE)
    (command,) = re.findall(r"^exec (\w+) ", text, re.MULTILINE)
    assert signal == ("TERM@60" if command == "srun" else "B:TERM@60")


def test_a_task_without_a_recipe_is_refused() -> None:
    script = next(p for p in SCRIPTS if p.stem == "batch_array")
    done = subprocess.run(["bash", script, "a.yaml"], env={"SLURM_ARRAY_TASK_ID": "2"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "task 2 has no recipe: 1 were given\n")
