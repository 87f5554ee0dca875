# SPDX-License-Identifier: MIT
"""What every result says of itself: the command that makes it again, the day, the machine, versions, other load."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from hbae.compare.environment import machine, versions


def heading() -> dict[str, Any]:
    """Give the first entries of a result of the running script."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
    }
