"""A short run of each reliability program: they judge, and end non-zero where something is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def figures(program: str, *arguments: str) -> dict[str, object]:
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, object] = json.loads(ended.stdout)
    return result


@needs_strace
@pytest.mark.timeout(120)
def test_killed_at_each_call_nothing_is_lost() -> None:
    variants = figures("kill_at_each_call.py", "--quick")["variants"]
    assert isinstance(variants, list)
    assert all(variant["kills"] > 30 and not variant["wrong"] for variant in variants)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("arguments", [["--start-method=spawn"], ["--same-directory", "--fsync"]])
def test_killed_again_and_again_a_job_is_finished(arguments: list[str]) -> None:
    found = figures("kill_runs.py", "--kills=3", "--messages=500", *arguments)
    assert found["lost"] == 0
    assert found["kills"] >= 3
