"""The main job: indexed, killed half way, finished by a restart, and proved complete."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "docs/examples/index_sources.py"
BODY = (
    "import os\n\n\nclass A:\n    def f(self):\n        return os.path\n\n\n" + "x = [1, 2]\n" * 300
)


def index_sources(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--workers", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "package").mkdir()
    for n in range(80):
        (folder / "package" / f"module_{n}.py").write_text(BODY, "utf-8")
    (folder / "broken.py").write_text("def f(:\n", "utf-8")
    (folder / "nul.py").write_bytes(b"x = 1\n\0\n")
    (folder / "notes.txt").write_text("no source", "utf-8")
    return folder


class Job:
    """The arguments of one job, and where it keeps what it knows."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self.database = folder / "index.db"
        self.pickups = folder / "pickups"

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        where = ["--source", self.source, "--database", self.database, "--pickups", self.pickups]
        return index_sources(*where, *more)

    def sql(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def finished_job(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(source, tmp_path_factory.mktemp("job"))
    result = job.run()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "requeued 0 files; 82 of 82 are in the database\n"
    return job


@pytest.fixture
def job(finished_job: Job, tmp_path: Path) -> Job:
    """A finished job of the test's own."""
    job = Job(finished_job.source, tmp_path)
    shutil.copy(finished_job.database, job.database)
    shutil.copytree(finished_job.pickups, job.pickups)
    return job


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="--crash needs process groups")
@pytest.mark.timeout(60)
def test_a_run_killed_half_way_is_finished_by_the_next(source: Path, start_method: str) -> None:
    result = index_sources("--crash", "--source", source, "--start-method", start_method)

    assert (result.returncode, result.stderr) == (0, "")
    killed, restarted, proved = result.stdout.splitlines()
    loaded, outstanding = map(int, re.findall(r"\d+", killed))
    assert 41 <= loaded < 82
    # What was loaded and not yet acknowledged is outstanding too: one file for each worker.
    assert 82 - loaded <= outstanding <= 82 - loaded + 2
    assert restarted == f"requeued {outstanding} files; 82 of 82 are in the database"
    assert proved == "proved: every file is in the database exactly once, with all its lines"


@pytest.mark.timeout(60)
def test_a_run_loads_every_file_and_a_second_finds_nothing_to_do(job: Job) -> None:
    result = job.run()

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "requeued 0 files; 82 of 82 are in the database\n"
    completed = job.pickups.rglob("*_completed_*")
    assert sum(len(path.read_text("utf-8").splitlines()) for path in completed) == 82
    query = "SELECT lines, functions, classes, count(*) FROM files WHERE error IS NULL GROUP BY 1"
    assert job.sql(query) == [(308, 1, 1, 80)]
    assert job.sql("SELECT module, count(*) FROM imports") == [("os", 80)]
    errors = job.sql("SELECT lines, error FROM files WHERE error IS NOT NULL ORDER BY path")
    assert [lines for lines, _ in errors] == [1, 2]
    assert str(errors[0][1]).startswith("SyntaxError: invalid syntax")
    assert job.run("--check").returncode == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("DELETE FROM files WHERE path LIKE '%module_7.py'", "81 rows for 82 files"),
        ("UPDATE files SET lines = 1 WHERE path LIKE '%module_7.py'", "module_7.py: 1 lines"),
        ("INSERT INTO files VALUES ('/gone.py', 0, 0, 0, NULL)", "83 rows for 82 files"),
    ],
)
def test_the_proof_fails_when_the_database_is_wrong(job: Job, damage: str, complaint: str) -> None:
    job.sql(damage)

    result = job.run("--check")

    assert result.returncode == 1
    assert complaint in result.stderr
    assert "proved" not in result.stdout


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="this file system wants names in UTF-8")
def test_a_file_name_that_is_not_utf8_is_indexed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    try:
        (source / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n", "utf-8")
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    job = Job(source, tmp_path)

    result = job.run()

    assert (result.returncode, result.stderr) == (0, "")
    assert job.sql("SELECT path, lines FROM files") == [(f"{source}/caf\\udce9.py", 1)]


@pytest.mark.timeout(60)
def test_a_run_whose_workers_all_fail_says_so_and_the_next_finishes(job: Job) -> None:
    job.sql("DELETE FROM files")
    job.sql(
        "CREATE TRIGGER full BEFORE INSERT ON files WHEN NEW.path LIKE '%module_7.py' "
        "BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )

    result = job.run()

    assert result.returncode == 1
    # The second worker took the file over from the first, and failed in its turn.
    assert "workers died (exit codes [1, 1]), 1 files left: start again" in result.stderr
    job.sql("DROP TRIGGER full")
    result = job.run()
    assert result.returncode == 0
    assert result.stdout == "requeued 1 files; 82 of 82 are in the database\n"
