"""A short run of each reliability program: they judge, and end non-zero where something is lost.

They mostly wait, for a random moment to kill or for what is left to end: so two run at a time.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    Started = dict[tuple[str, ...], Future[subprocess.CompletedProcess[str]]]

LIMIT_S = 110
STRACE = shutil.which("strace")


def run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[Started]:
    """Start what the chosen tests of this module ask for, in their order."""
    commands = [
        item.callspec.params["figures"]
        for item in request.session.items
        if item.path == request.path
        and isinstance(item, pytest.Function)
        and not any(mark.args[0] for mark in item.iter_markers("skipif"))
    ]
    pool = ThreadPoolExecutor(2)
    yield {command: pool.submit(run, command) for command in commands}
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def figures(request: pytest.FixtureRequest, started: Started) -> Any:
    """Wait for a program to end well; return what it has counted."""
    ended = started[request.param].result()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def given_by(*commands: str, needs: dict[str, str] | None = None) -> pytest.MarkDecorator:
    """Let a test have the figures of each of these programs; some need modules or programs."""
    parameters = []
    for command in commands:
        missing = [
            need
            for need in (needs or {}).get(command, "").split()
            if importlib.util.find_spec(need) is None and shutil.which(need) is None
        ]
        mark = pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")
        parameters.append(pytest.param(tuple(command.split()), id=command, marks=mark))
    return pytest.mark.parametrize("figures", parameters, indirect=True)


@pytest.mark.skipif(STRACE is None, reason="needs strace")
@pytest.mark.timeout(120)
@given_by("kill_at_each_call.py --quick --step=3")
def test_killed_at_each_call_nothing_is_lost(figures: Any) -> None:
    assert len(figures["variants"]) == 2
    assert all(v["kills"] > 15 and not v["wrong"] for v in figures["variants"])


@pytest.mark.timeout(120)
@given_by(
    "full_disk.py --quick --step=17 --only=limits",
    "full_disk.py --quick --step=17 --only=tmpfs",
    "full_disk.py --quick --step=17 --only=calls",
)
def test_on_a_failing_disk_nothing_is_lost_and_nothing_refused_is_delivered(figures: Any) -> None:
    (found,) = (figures[part] for part in ("limits", "tmpfs", "calls") if part in figures)
    if isinstance(found, str):
        pytest.skip(found)
    assert found["runs"] > 5
    assert sum(found.get(kind, 0) for kind in ("refused", "undone", "restarted")) > 0
    assert found["wrong"] == []


@pytest.mark.timeout(120)
@given_by("soak.py --minutes=0.05 --messages=200 --patience-s=0.8")
def test_all_of_it_at_once_loses_nothing_and_nothing_grows(figures: Any) -> None:
    assert figures["runs"]["messages"] >= 200
    assert figures["life"]["workers killed"] > 0


@pytest.mark.timeout(120)
@given_by(
    "kill_runs.py --kills=3 --messages=500 --start-method=spawn",
    "kill_runs.py --kills=3 --messages=500 --same-directory --fsync",
)
def test_killed_again_and_again_a_job_is_finished(figures: Any) -> None:
    assert figures["lost"] == 0
    assert figures["kills"] >= 3


@pytest.mark.timeout(120)
@given_by(
    "kill_workers.py --kills=6 --messages=200 --start-method=fork",
    "kill_workers.py --kills=6 --messages=200 --start-method=spawn --replace",
    "kill_workers.py --kills=6 --messages=200 --start-method=forkserver --maxsize=2",
)
def test_killed_workers_stop_nobody(figures: Any) -> None:
    assert (figures["hangs"], figures["left"], figures["lost"]) == (0, 0, 0)


@pytest.mark.timeout(120)
@given_by(
    "threads.py --seconds=0.5 --count=300 --only=one",
    "threads.py --seconds=0.5 --count=300 --only=passed",
    "threads.py --seconds=0.5 --count=300 --only=many",
    "threads.py --seconds=0.5 --count=300 --only=files",
)
def test_eight_threads_share_queues_and_folders(figures: Any) -> None:
    assert figures["wrong"] == []
    (rounds,) = figures["rounds"].values()
    assert rounds >= 1


@pytest.mark.timeout(120)
@given_by(
    "kill_run.py --kills=3 --messages=200 --workers=2 --start-method=spawn",
    "kill_run.py --kills=3 --messages=200 --workers=2 --results --longest-s=0.5",
)
def test_killed_and_called_again_run_does_all_or_sets_it_aside(figures: Any) -> None:
    assert figures["kills"] >= 3
    assert (figures["lost"], figures["not set aside"], figures["outstanding"]) == (0, 0, 0)


DASK = "kill_engine.py --engine=dask --kills=4 --messages=200 --deadly --seed=3"
LOKY = "kill_engine.py --engine=loky --kills=4 --messages=200"


@pytest.mark.timeout(120)
@given_by(DASK, LOKY, needs={DASK: "distributed", LOKY: "loky"})
def test_with_killed_engines_and_callers_all_is_done_or_set_aside(figures: Any) -> None:
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "outstanding")
    assert [figures.get(name, 0) for name in wrong] == [0] * 5
    assert figures["messages"] == figures["jobs"] * 200


REDIS = "redis redis-server"
KEPT_NOWHERE = "kill_redis.py --kills=4 --messages=300"
KEPT_BY_REDIS = "kill_redis.py --kills=4 --messages=300 --aof --seed=2"


@pytest.mark.timeout(120)
@given_by(KEPT_NOWHERE, KEPT_BY_REDIS, needs=dict.fromkeys((KEPT_NOWHERE, KEPT_BY_REDIS), REDIS))
def test_with_redis_killed_too_nothing_is_lost_that_the_journals_hold(figures: Any) -> None:
    assert figures["messages"] == figures["jobs"] * 300
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "recorded twice")
    assert [figures[name] for name in wrong] == [0] * 5


@pytest.mark.timeout(120)
@given_by(
    "overlapping_starts.py --rounds=1 --waves=2",
    "stop_and_continue.py --rounds=1 --waves=2",
    "folders_in_turn.py --rounds=1 --nights=8 --folders=2",
)
def test_no_two_living_runs_do_the_same_work(figures: Any) -> None:
    assert (figures["lost"], figures["by two living runs"], figures["hangs"]) == ([], [], 0)
    assert figures["starts"] > 3
