"""`persistq report`: the page in one file, which is whole or as it was."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import web_workers
from pages import COMMAND, LIMIT_S, snapshot
from persistq._cli import exits

if TYPE_CHECKING:
    from processes import Nursery


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "report", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        **options,
    )


def test_it_is_one_page_that_needs_nothing_else_and_writes_nowhere_else(
    tmp_path: Path, nursery: Nursery
) -> None:
    nursery.start(web_workers.work_on, str(tmp_path / "root"), 9, 4, 1).receive()
    before = snapshot(tmp_path / "root")
    file = tmp_path / "page.html"

    result = run(tmp_path / "root", "-o", file, umask=0o027)
    printed = run(tmp_path / "root", "-o", "-")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    page = file.read_text("utf-8")
    assert snapshot(tmp_path / "root") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "root"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "4 done</li>" in page
    assert "line 3: no amount" in page
    assert not re.search('<script|<noscript|refresh|<details(?! id="\\w+" open)', page)
    assert not re.findall(r"(?:src|href)=\"(?!data:,)", page)
    assert "a second" not in page
    assert "default-src 'none'; style-src 'nonce-" in page
    assert printed.stdout.count("<article") == page.count("<article") == 1


@pytest.fixture
def old(tmp_path: Path) -> Path:
    file = tmp_path / "out" / "page.html"
    file.parent.mkdir()
    file.write_text("old")
    return file


KILLED_AT = """
import os, signal, sys
from persistq._cli import main

def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[1], killed)
main(sys.argv[2:])
"""


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_kill_leaves_the_old_file_and_the_next_one_clears_up(
    call: str, tmp_path: Path, old: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    arguments = [call, "report", str(root), "-o", str(old)]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, *arguments], timeout=LIMIT_S)
    assert killed.returncode == -signal.SIGKILL
    assert old.read_text() == "old"
    assert [path.name for path in old.parent.iterdir() if path != old] == [
        ".page.html.persistq-report"
    ]

    assert run(root, "-o", old).returncode == 0

    assert old.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [*old.parent.iterdir()] == [old]


def test_a_full_disk_is_told_and_leaves_the_old_file_alone(tmp_path: Path, old: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    result = run(tmp_path, "-o", old, preexec_fn=limit)

    assert result.returncode == exits.NO_ROOM
    assert "File too large" in result.stderr
    assert old.read_text() == "old"
    assert [*old.parent.iterdir()] == [old]


def test_many_at_once_leave_one_whole_page(tmp_path: Path, old: Path) -> None:
    command = [*COMMAND, "report", str(tmp_path), "-o", str(old)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(LIMIT_S) for process in running] == [0] * 4
    page = old.read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert [*old.parent.iterdir()] == [old]


def test_a_link_stays_one_and_what_is_no_file_is_refused(tmp_path: Path, old: Path) -> None:
    link = tmp_path / "link.html"
    link.symlink_to(old)
    assert run(tmp_path, "-o", link).returncode == 0
    assert link.is_symlink()
    assert old.read_text("utf-8").startswith("<!DOCTYPE html>")
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "out"):
        result = run(tmp_path, "-o", tmp_path / name)
        assert result.returncode == 2
        assert f"{name} is no file. Expected the name of one as -o FILE" in result.stderr
    result = run(tmp_path, "-o", tmp_path / "gone" / "page.html")
    assert result.returncode == 2
    assert "gone: No such file or directory" in result.stderr
    assert "gone is not there" in run(tmp_path / "gone", "-o", "-").stderr
