"""What `retire` deletes, and what it must not: work that is nowhere else, and what is in use."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cli_workers
from commands import text
from persistq import pickup_dirs
from persistq._cli import retire as retire_room
from persistq._journal.run_state import RunState

if TYPE_CHECKING:
    import pytest

    from processes import Nursery


def a_night(
    nursery: Nursery,
    current: str | Path,
    previous: str | Path | None,
    put: list[str],
    bad: list[str] | None = None,
) -> list[str]:
    before = None if previous is None else str(previous)
    job = cli_workers.run_job
    done: list[str] = nursery.start(job, str(current), before, bad or [], put, False).result()
    return done


def earlier(directory: Path) -> set[str]:
    return set(os.listdir(directory / "jobs_earlier"))


def test_of_a_directory_used_for_years_the_last_runs_are_kept(
    tmp_path: Path, nursery: Nursery
) -> None:
    runs = []
    a_night(nursery, tmp_path, None, ["0"])
    for number in range(1, 6):
        runs.append(RunState(str(tmp_path), "jobs").run)
        a_night(nursery, tmp_path, tmp_path, [str(number)])
    assert earlier(tmp_path) == set(runs)
    before = {path.name for path in tmp_path.iterdir()}

    planned = text("retire", "--dry-run", "--keep", "3", str(tmp_path))
    assert planned.splitlines() == [
        f"would remove {tmp_path}/jobs_earlier/{run}" for run in runs[:3]
    ]
    assert earlier(tmp_path) == set(runs)
    assert "3 run folders removed" in text("retire", "--keep", "3", "--yes", str(tmp_path))

    assert earlier(tmp_path) == set(runs[3:])
    assert {path.name for path in tmp_path.iterdir()} == before
    assert text("retire", "--keep", "3", "--yes", str(tmp_path)) == "nothing to retire\n"
    assert a_night(nursery, tmp_path, tmp_path, ["6"]) == ["6"]


def test_what_earlier_runs_left_is_kept_while_one_of_their_processes_lives(
    tmp_path: Path, nursery: Nursery
) -> None:
    stopped = nursery.start(cli_workers.put_and_work, str(tmp_path), 1, 0)
    stopped.receive()
    first = RunState(str(tmp_path), "jobs")
    # As if the lock had not been seen: the next run begins although this process lives.
    hidden = [(m.path, m.path.replace(tmp_path.name, "hidden-lease")) for m in first.members]
    (tmp_path.parent / "hidden-lease").mkdir()
    for path, aside in hidden:
        os.rename(path, aside)
    for number in range(3):
        a_night(nursery, tmp_path, tmp_path, [str(number)])
    for path, aside in hidden:
        os.rename(aside, path)
    assert len(earlier(tmp_path)) == 3

    assert "2 run folders removed" in text("retire", "--keep", "1", "--yes", str(tmp_path))
    assert earlier(tmp_path) == {first.run}
    stopped.kill()
    assert "1 run folder removed" in text("retire", "--keep", "1", "--yes", str(tmp_path))
    assert earlier(tmp_path) == set()


def test_a_run_whose_set_aside_work_nobody_carried_on_is_kept(
    tmp_path: Path, nursery: Nursery
) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    a_night(nursery, first, None, ["b"], bad=["b"])
    for _ in range(2):
        a_night(nursery, pickup_dirs(tmp_path, "jobs")[0], None, ["a"])

    assert "1 run folder removed" in text("retire", "--keep", "1", "--yes", str(tmp_path))
    assert os.path.isdir(first)
    text("discard", "--yes", str(tmp_path))
    assert "1 run folder removed" in text("retire", "--keep", "1", "--yes", str(tmp_path))
    assert not os.path.exists(first)


def test_a_run_that_was_carried_on_to_where_the_work_is_not_any_more_is_kept(
    tmp_path: Path, nursery: Nursery
) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    a_night(nursery, first, None, ["b"], bad=["b"])
    a_night(nursery, tmp_path / "elsewhere", first, [])
    for _ in range(2):
        a_night(nursery, pickup_dirs(tmp_path, "jobs")[0], None, ["a"])

    planned = text("retire", "--dry-run", "--keep", "1", str(tmp_path / "jobs"))
    assert f"would remove {first}" in planned
    shutil.rmtree(tmp_path / "elsewhere")  # by hand: what it held is in the first one alone
    planned = text("retire", "--dry-run", "--keep", "1", str(tmp_path / "jobs"))
    assert f"would remove {first}" not in planned


def test_what_has_changed_since_the_question_is_left_alone(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for _ in range(3):
        folders.append(pickup_dirs(tmp_path, "jobs")[0])
        a_night(nursery, folders[-1], None, ["a"])

    def begin_meanwhile(*_: object) -> bool:
        nursery.start(cli_workers.run_job, folders[0], None, [], ["b"], True).receive()
        return True

    monkeypatch.setattr(retire_room, "may", begin_meanwhile)

    class Options:
        root, keep, dry_run, yes = str(tmp_path), 1, False, False

    assert retire_room.retire(Options) == 0  # type: ignore[arg-type]

    assert os.listdir(tmp_path / "jobs") != []
    assert os.path.isdir(folders[0])
    assert not os.path.exists(folders[1])
    assert json.loads(text("status", "--json", folders[0]))[0]["alive"]


def test_what_a_killed_retire_has_hidden_in_a_directory_is_removed(
    tmp_path: Path, nursery: Nursery
) -> None:
    for _ in range(2):
        a_night(nursery, tmp_path, tmp_path if _ else None, ["a"])
    (name,) = earlier(tmp_path)
    hidden = f".persistq_retired_{name}"
    os.rename(tmp_path / "jobs_earlier" / name, tmp_path / "jobs_earlier" / hidden)
    assert "1 run folder removed" in text("retire", "--yes", str(tmp_path))
    assert earlier(tmp_path) == set()
