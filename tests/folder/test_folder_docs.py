"""The example program of the folder queues does what its page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "folder_pipeline.py"


def run(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def make_tree(root: Path, packages: int) -> Path:
    for number in range(packages):
        folder = root / f"package{number:02}"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("import os\nfrom sys import path\n")
        (folder / "more.py").write_text(f"class C{number}:\n    def method(self): ...\n")
    (root / "single.py").write_text("async def lonely(): ...\n")
    (root / "broken.py").write_text("def (:\n")
    return root


@pytest.mark.timeout(60)
def test_the_pipeline_gives_the_same_result_when_both_stages_are_killed(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "tree", 8)
    said = run(str(tmp_path / "work"), "--source", str(source), "--crash")
    assert "a producer was killed: True" in said
    assert "a consumer was killed: True" in said
    # Two imports, a class and a method in each package, and the function of the module.
    assert f"{8 * 4 + 1} rows; with and without the crash they are equal" in said


@pytest.mark.timeout(60)
def test_the_stages_of_the_pipeline_run_by_hand(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "tree", 2)
    work = str(tmp_path / "work")
    run(work, "--source", str(source), "--stage", "extract")
    assert "loaded 4 groups" in run(work, "--stage", "load")
    assert "loaded 0 groups" in run(work, "--stage", "load")
    run(work, "--stage", "reset")
    assert list((tmp_path / "work" / "queue").iterdir()) == []
