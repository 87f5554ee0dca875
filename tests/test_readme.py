# SPDX-License-Identifier: MIT
"""The README's example runs as printed, and its assertion is the promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    assert "assert " in code[1]
    done = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.hbae").exists()


@pytest.mark.parametrize("page", re.findall(r"\]\((docs/\w+\.md|\w+\.md)\)", README.read_text()))
def test_every_linked_page_exists(page: str) -> None:
    assert (README.parent / page).is_file()
