"""The benchmarks run and give figures; how good these are is no matter for a test."""

from __future__ import annotations

import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(__file__).parent)

# What each part has to measure at least: the work, and who does it.
MEASURED = {
    "end-to-end": {
        (f"end to end, {size} bytes, {workers} workers", contender)
        for size in ("30", "1,000", "100,000")
        for workers in (1, 4)
        for contender in ("bare JoinableQueue", "journals", "and started lines", "no directory")
    },
    "put": {
        ("put, journal on, a consumer running", "bare put and os.write"),
        ("put, journal on, a consumer running", "put"),
        ("put_many of 1,000, against put", "put_many of 1,000"),
        ("put alone, nobody takes", "put"),
    },
    "fsync": {
        ("put on stable storage", "write and fdatasync"),
        ("put on stable storage", "put_many of 100, fsync=True"),
    },
    "recovery": {
        (f"outstanding of {count} lines in {files}+{files} files{peak}", contender)
        for count in ("1,000", "10,000")
        for files in (1, 4)
        for peak in ("", ", peak")
        for contender in ("bare loop", "persistq")
    },
    "requeue": {("requeue 1,000 messages", "requeue_unprocessed_work")},
    "folder-get": {("folder get and task_done, 100 waiting", "ReadableFolderQueue")},
    "folder-grouped": {
        ("folder get of groups of two, 100 files waiting", "ReadableGroupedFileFolderQueue")
    },
    "folder-four": {("four consumers of one folder, 100 waiting", "ReadableFolderQueue")},
    "folder-put": {("folder put by move", "WritableFolderQueue")},
    "folder-wait": {("folder get that waits: median, against 0.5 ms", "wake")},
    "import": {("import, over an empty interpreter", "persistq")},
    "jobs": {
        ("a job of 200 messages that do nothing, 4 workers", contender)
        for contender in ("run", "run, with on_result", "ProcessPoolExecutor.map")
    },
    "command-line": {("command line: journals of 20,000 lines", "status")},
    "work": {
        ("20 files through `true`, one after the other", contender)
        for contender in ("xargs -n1", "work")
    },
    "carrier": {("the carrier alone, 30 bytes, 4 workers", "put_many")},
    "dask": {
        ("Dask, 2 workers, nothing, 4 in flight", "run"),
        ("Dask, 2 workers, nothing, 32 in flight", "run"),
        ("Dask, 2 workers, ten_milliseconds, 4 in flight", "run"),
    },
    "workers": {("run, messages that do nothing", f"{n} workers") for n in (1, 2, 4, 8)},
    "sizes": {("run, 2 workers, messages that do nothing", "1,000,000 bytes")},
    "disk": {("journals of a message of 30 bytes, when it is done", "run")},
    "restart": {("a restart of 1,000 messages, a tenth of them outstanding", "memory")},
    "redis": {("workers by Redis on this machine, messages that do nothing", "2 workers")},
    "peers": {("peers: end to end, 1 workers", "persistq, ack")},
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("benchmarks")
    path = folder / "figures.json"
    command = [sys.executable, PROGRAM, "--tiny", "--dir", str(folder), "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == [path], "the program has left something behind"
    return {**json.loads(path.read_text()), "printed": done.stdout}


@pytest.mark.timeout(100)
@pytest.mark.parametrize("part", MEASURED)
def test_a_tiny_run_measures_what_the_part_promises(part: str, figures: Any) -> None:
    rows = {(row["work"], row["contender"]): row for row in figures["rows"]}
    if part == "carrier" and "the carrier alone\n  skipped" in figures["printed"]:
        pytest.skip("there is no Carrier on this platform")
    if part == "dask" and "run on Dask\n  skipped" in figures["printed"]:
        pytest.skip("needs distributed (pip install --group dask)")
    if part == "redis" and "workers by Redis\n  skipped" in figures["printed"]:
        pytest.skip("needs redis (pip install --group redis) and redis-server")
    assert rows.keys() >= MEASURED[part]
    assert all(rows[key]["value"] > 0 for key in MEASURED[part])


def test_the_figures_say_where_they_come_from_and_what_is_wanted(figures: Any) -> None:
    assert figures["python"] == platform.python_version()
    assert len(figures["load"]) == 3
    row = next(row for row in figures["rows"] if row["contender"] == "journals")
    assert row["goal"] == ["at least", 1.3]
    assert row["met"] is (row["ratio"] >= 1.3)
    assert "(at least 1.3: " in figures["printed"]


def test_a_ratio_is_taken_round_by_round_and_the_limit_has_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(PROGRAM)
    report = importlib.import_module("harness").Report()
    limits, ours = iter([10.0, 20.0, 40.0]), iter([5.0, 60.0, 20.0])
    contenders = {"limit": lambda: next(limits), "ours": lambda: next(ours)}
    medians = report.compare("work", "s", "limit", contenders, 3, {"ours": ("at most", 0.4)})
    assert medians == {"limit": 20.0, "ours": 20.0}
    assert [(row["ratio"], row["met"]) for row in report.rows] == [(1.0, None), (0.5, False)]


def test_the_parts_that_are_to_run_are_checked_by_their_names() -> None:
    command = [sys.executable, PROGRAM, "--only", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert all(part in done.stderr for part in MEASURED)
