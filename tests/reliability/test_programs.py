"""A short run of each reliability program: they judge, and end non-zero where something is lost."""

from __future__ import annotations

import importlib.util
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
    variants = figures("kill_at_each_call.py", "--quick", "--step=2")["variants"]
    assert isinstance(variants, list)
    assert all(variant["kills"] > 15 and not variant["wrong"] for variant in variants)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["limits", "tmpfs", "calls"])
def test_on_a_failing_disk_nothing_is_lost_and_nothing_refused_is_delivered(part: str) -> None:
    if part == "calls" and shutil.which("strace") is None:
        pytest.skip("needs strace")
    found = figures("full_disk.py", "--quick", "--step=17", f"--only={part}")[part]
    if isinstance(found, str):
        pytest.skip(found)
    assert isinstance(found, dict)
    assert found["runs"] > 5
    assert sum(found.get(kind, 0) for kind in ("refused", "undone", "restarted")) > 0
    assert found["wrong"] == []


@pytest.mark.timeout(90)
def test_all_of_it_at_once_loses_nothing_and_nothing_grows() -> None:
    found = figures("soak.py", "--minutes=0.05", "--messages=200", "--patience-s=0.8")
    assert isinstance(found["runs"], dict)
    assert isinstance(found["life"], dict)
    assert found["runs"]["messages"] >= 200
    assert found["life"]["workers killed"] > 0


@pytest.mark.timeout(90)
@pytest.mark.parametrize("arguments", [["--start-method=spawn"], ["--same-directory", "--fsync"]])
def test_killed_again_and_again_a_job_is_finished(arguments: list[str]) -> None:
    found = figures("kill_runs.py", "--kills=3", "--messages=500", *arguments)
    assert found["lost"] == 0
    assert found["kills"] >= 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--start-method=fork"],
        ["--start-method=spawn", "--replace"],
        ["--start-method=forkserver", "--maxsize=2"],
    ],
)
def test_killed_workers_stop_nobody(arguments: list[str]) -> None:
    found = figures("kill_workers.py", "--kills=6", "--messages=200", *arguments)
    assert (found["hangs"], found["left"], found["lost"]) == (0, 0, 0)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("part", ["one", "passed", "many", "files"])
def test_eight_threads_share_queues_and_folders(part: str) -> None:
    found = figures("threads.py", "--seconds=0.5", "--count=300", f"--only={part}")
    assert found["wrong"] == []
    assert isinstance(found["rounds"], dict)
    assert found["rounds"][part] >= 1


@pytest.mark.timeout(90)
@pytest.mark.parametrize("arguments", [["--start-method=spawn"], ["--results"]])
def test_killed_and_called_again_run_does_all_or_sets_it_aside(arguments: list[str]) -> None:
    found = figures("kill_run.py", "--kills=3", "--messages=200", "--workers=2", *arguments)
    assert found["kills"] >= 3
    assert (found["lost"], found["not set aside"], found["outstanding"]) == (0, 0, 0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("engine", "module", "arguments"),
    [("dask", "distributed", ["--deadly", "--seed=3"]), ("loky", "loky", [])],
)
def test_with_killed_engines_and_callers_all_is_done_or_set_aside(
    engine: str, module: str, arguments: list[str]
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module} (pip install --group {engine})")
    found = figures(
        "kill_engine.py", f"--engine={engine}", "--kills=4", "--messages=200", *arguments
    )
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "outstanding")
    assert [found.get(name, 0) for name in wrong] == [0] * 5
    assert found["messages"] == found["jobs"] * 200  # type: ignore[operator]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("arguments", [[], ["--aof", "--seed=2"]], ids=["nothing kept", "aof"])
def test_with_redis_killed_too_nothing_is_lost_that_the_journals_hold(
    arguments: list[str],
) -> None:
    if importlib.util.find_spec("redis") is None or shutil.which("redis-server") is None:
        pytest.skip("needs redis (pip install --group redis) and redis-server")
    found = figures("kill_redis.py", "--kills=4", "--messages=300", *arguments)
    assert found["messages"] == found["jobs"] * 300  # type: ignore[operator]
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "recorded twice")
    assert [found[name] for name in wrong] == [0] * 5


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("overlapping_starts.py", ["--rounds=1", "--waves=2"]),
        ("stop_and_continue.py", ["--rounds=1", "--waves=2"]),
        ("folders_in_turn.py", ["--rounds=1", "--nights=8", "--folders=2"]),
    ],
)
def test_no_two_living_runs_do_the_same_work(program: str, arguments: list[str]) -> None:
    found = figures(program, *arguments)
    assert (found["lost"], found["by two living runs"], found["hangs"]) == ([], [], 0)
    assert isinstance(found["starts"], int)
    assert found["starts"] > 3
