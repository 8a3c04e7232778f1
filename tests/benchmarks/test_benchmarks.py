"""The benchmarks run and give figures; how good these are is no matter for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(60)
@pytest.mark.parametrize("program", ["journal.py", "cli.py"])
def test_a_quick_run_gives_figures(program: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, str(Path(__file__).with_name(program)), "--quick"]
    subprocess.run([*command, "--json", str(path)], check=True, capture_output=True)
    rows = json.loads(path.read_text())
    assert rows
    assert all(row["value"] > 0 for row in rows)
