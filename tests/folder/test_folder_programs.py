"""The reliability program of the folder queues, a small run of each of its parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent


def run(program: str, *arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(TESTS / program), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


STORM = "reliability/folder_storm.py"


@pytest.mark.timeout(60)
def test_nothing_is_lost_when_processes_are_killed_at_random(tmp_path: Path) -> None:
    arguments = ("--only", "storm", "--files", "1500", "--kills", "12", "--folder", str(tmp_path))
    figures = run(STORM, *arguments)["storm"]
    assert figures["kills"] > 0
    assert (figures["lost"], figures["doubled"], figures["torn"]) == (0, 0, 0)


@pytest.mark.timeout(60)
def test_nothing_is_lost_when_an_operation_is_killed_at_a_line(tmp_path: Path) -> None:
    figures = run(STORM, "--only", "lines", "--stride", "37", "--folder", str(tmp_path))["lines"]
    assert (figures["lost"], figures["torn"]) == (0, 0)
    assert min(figures["steps"].values()) > 13


@pytest.mark.timeout(90)
def test_nothing_is_lost_when_an_operation_is_killed_at_a_system_call(tmp_path: Path) -> None:
    arguments = ("--only", "system calls", "--stride", "11", "--folder", str(tmp_path))
    figures = run(STORM, *arguments)["system calls"]
    if isinstance(figures, str):
        pytest.skip(figures)
    assert (figures["lost"], figures["torn"]) == (0, 0)
    assert min(figures["steps"].values()) > 0


@pytest.mark.timeout(60)
def test_nothing_is_lost_when_two_processes_want_one_name(tmp_path: Path) -> None:
    figures = run(STORM, "--only", "races", "--rounds", "100", "--folder", str(tmp_path))["races"]
    assert figures["lost"] == 0


@pytest.mark.timeout(90)
@pytest.mark.parametrize("rename", [(), ("--no-kernel-rename",)])
@pytest.mark.parametrize("part", ["reclaimers", "groups", "containers", "clocks"])
def test_nothing_is_lost_or_doubled_whoever_reclaims(
    tmp_path: Path, part: str, rename: tuple[str, ...]
) -> None:
    arguments = ("--only", part, "--kills", "8", "--rounds", "500", "--folder", str(tmp_path))
    figures = run(STORM, *arguments, *rename)[part]
    if isinstance(figures, str):
        pytest.skip(figures)
    assert figures["files" if part != "groups" else "groups"] > 0
    assert (figures["lost"], figures["doubled"], figures["left over"]) == (0, 0, 0)


@pytest.mark.timeout(60)
def test_nothing_is_lost_where_the_kernel_has_no_such_rename(tmp_path: Path) -> None:
    common = ("--no-kernel-rename", "--folder", str(tmp_path))
    figures = run(STORM, "--only", "lines", "--stride", "41", *common)["lines"]
    assert (figures["lost"], figures["torn"]) == (0, 0)
    figures = run(STORM, "--only", "races", "--rounds", "50", *common)["races"]
    assert figures["lost"] == 0
