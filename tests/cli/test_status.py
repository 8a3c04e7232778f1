"""What `status` and `watch` say of runs: set-aside work, whom to wake, who carried them on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cli_workers
from commands import COMMAND, text
from persistq import ReadableFolderQueue, WritableFolderQueue, pickup_dirs

if TYPE_CHECKING:
    from processes import Nursery


def surveys(*paths: str | Path, status: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        text("status", "--json", *map(str, paths), status=status)
    )
    return found


def test_work_that_is_set_aside_is_counted_and_makes_status_exit_with_1(
    tmp_path: Path, nursery: Nursery
) -> None:
    current, previous = pickup_dirs(tmp_path, "jobs")
    nursery.start(cli_workers.run_job, current, previous, ["b"], ["a", "b"], False).result()

    (found,) = surveys(tmp_path, status=1)
    shown = text("status", str(tmp_path), status=1)

    assert found["schema"] == 1
    assert (found["requested"], found["completed"]) == (2, 1)
    assert (found["failed"], found["outstanding"]) == (1, 0)
    assert "jobs: 1 message set aside. 'persistq failed' says why" in shown
    assert "[####################] 100% 2/2" in text("watch", str(tmp_path))
    assert "1 set aside" in text("watch", str(tmp_path))
    text("discard", "--yes", str(tmp_path))
    text("status", str(tmp_path))


TYPES = {
    "number": (int, float),
    "text": (str,),
    "list": (list,),
    "object": (dict,),
    "true or false": (bool,),
    "anything": (object,),
    "null": (type(None),),
}


def documented_types(of: str) -> dict[str, tuple[type, ...]]:
    """Return the types of the fields that the page lists in the table behind some words."""
    found = {}
    for row in rows_of_table(of):
        said = re.sub(r"list of \w+", "list", row.split("|")[2].strip())
        kinds = [said] if said in TYPES else said.split(" or ")
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            found[name] = tuple(kind for word in kinds for kind in TYPES[word])
    return found


def check(entry: dict[str, Any], of: str) -> None:
    types = documented_types(of)
    for name, value in entry.items():
        assert isinstance(value, types[name]), (name, value)
        assert not isinstance(value, bool) or bool in types[name] or object in types[name]


def rows_of_table(of: str) -> list[str]:
    page = Path(__file__).parents[2] / "docs/reference/command-line.md"
    section = page.read_text("utf-8").split("\n### JSON\n")[1].split(of, 1)[1]
    return section.split("| --- | --- | --- |\n")[1].split("\n\n")[0].splitlines()


def documented(of: str) -> set[str]:
    """Return the fields that the reference page lists in the table behind some words."""
    return {*documented_types(of)}


def test_the_reference_lists_each_field_of_the_json(tmp_path: Path, nursery: Nursery) -> None:
    nursery.start(cli_workers.run_job, str(tmp_path), None, ["b"], ["b"], False).result()
    worker = nursery.start(cli_workers.put_and_work, str(tmp_path / "other"), 1, 0)
    worker.receive()
    WritableFolderQueue(tmp_path / "in")

    (journal,) = surveys(tmp_path, status=1)
    (busy, folder) = surveys(tmp_path / "other", tmp_path / "in", status=1)
    (failed,) = json.loads(text("failed", "--json", str(tmp_path)))

    assert set(journal) == set(busy) == documented("gives for journals:")
    assert set(folder) == documented("for a folder queue:")
    assert set(busy["in_progress"][0]) == documented("for each process in")
    assert {*failed, "file"} == documented("`failed --json` gives")
    for entry in (journal, busy):
        check(entry, "gives for journals:")
    check(folder, "for a folder queue:")
    check(busy["in_progress"][0], "for each process in")
    check(failed, "`failed --json` gives")
    assert {entry["schema"] for entry in (journal, busy, folder, failed)} == {1}


def test_alert_is_for_what_nobody_sees_to(tmp_path: Path, nursery: Nursery) -> None:
    worker = nursery.start(cli_workers.put_and_work, str(tmp_path), 3, 1)
    worker.receive()
    text("status", str(tmp_path), status=1)
    text("status", "--alert", str(tmp_path))  # at work
    worker.kill()
    text("status", "--alert", str(tmp_path), status=1)  # left, and nobody alive
    done = nursery.start(cli_workers.run_job, str(tmp_path), str(tmp_path), [], [], True)
    assert done.receive() == ["file 1.csv", "file 2.csv"]
    text("status", "--alert", str(tmp_path))


def test_alert_is_for_set_aside_work_also_of_a_living_run(tmp_path: Path, nursery: Nursery) -> None:
    worker = nursery.start(cli_workers.run_job, str(tmp_path), None, ["b"], ["b"], True)
    worker.receive()
    text("status", "--alert", str(tmp_path), status=1)


def test_alert_of_a_folder_queue(tmp_path: Path, nursery: Nursery) -> None:
    folder = tmp_path / "in"
    source = tmp_path / "a.tsv"
    with WritableFolderQueue(folder) as q:
        source.touch()
        q.put(source)
    text("status", "--alert", str(folder), status=1)  # it waits, and nobody works or produces
    worker = nursery.start(cli_workers.claim_and_stay, str(folder), 1)
    worker.receive()
    text("status", "--alert", str(folder))
    worker.kill()
    text("status", "--alert", str(folder), status=1)
    ReadableFolderQueue(folder).reclaim_abandoned()
    for path in folder.glob("*.tsv"):
        path.unlink()
    text("status", "--alert", str(folder))


def test_watch_says_when_nobody_is_left_to_do_the_work(tmp_path: Path, nursery: Nursery) -> None:
    worker = nursery.start(cli_workers.put_and_work, str(tmp_path), 3, 1)
    worker.receive()
    command = [*COMMAND, "watch", "--interval", "0.05", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert "nobody is at work" not in watching.stdout.readline()
            worker.kill()
            # It goes on, line for line, for a restart is awaited.
            for line in watching.stdout:
                if "nobody is at work" in line:
                    break
            assert " 33% 1/3" in line
        finally:
            watching.kill()


def test_a_live_run_in_which_nobody_has_put_anything_is_shown(
    tmp_path: Path, nursery: Nursery
) -> None:
    worker = nursery.start(cli_workers.run_job, str(tmp_path), None, [], [], True)
    worker.receive()
    assert not list(tmp_path.glob("*.tsv"))

    (found,) = surveys(tmp_path)

    assert (found["prefix"], found["requested"], found["alive"]) == ("jobs", 0, [worker.pid])
    assert text("outstanding", str(tmp_path)) == ""
    assert text("failed", str(tmp_path)) == "nothing is set aside\n"


def test_a_run_that_was_carried_on_has_nothing_of_its_own_any_more(
    tmp_path: Path, nursery: Nursery
) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    worker = nursery.start(cli_workers.put_and_work, first, 3, 1)
    worker.receive()
    worker.kill()
    second, _ = pickup_dirs(tmp_path, "jobs")
    other = nursery.start(cli_workers.run_job, second, first, [], [], True)
    other.receive()
    other.kill()

    (found,) = surveys(tmp_path)
    old, new = surveys(first, second)

    assert (found["path"], new["path"]) == (second, second)
    assert (old["outstanding"], old["failed"], old["carried_on"]) == (0, 0, second)
    assert old["in_progress"] == []
    assert new["carried_on"] is None
    assert f"carried on, so what was left is in {second}." in text("status", first)
    assert f"carried on in {second}" in text("watch", first)


def test_a_start_killed_before_it_could_seal_the_run_before_shows_its_work_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    worker = nursery.start(cli_workers.put_and_work, first, 3, 1)
    worker.receive()
    worker.kill()
    pickup_dirs(tmp_path, "jobs")  # so that it is not its neighbour's
    third, _ = pickup_dirs(tmp_path, "jobs")
    (tmp_path / "jobs" / "run_000002").rmdir()
    other = nursery.start(cli_workers.list_failed, third, first)
    other.result()
    os.unlink(os.path.join(first, "jobs_seal.json"))

    (found,) = surveys(tmp_path, status=1)

    assert (found["path"], found["outstanding"]) == (third, 2)


def test_work_that_was_carried_on_to_a_place_that_is_gone_is_not_hidden(
    tmp_path: Path, nursery: Nursery
) -> None:
    folders = []
    for _ in range(3):
        current, previous = pickup_dirs(tmp_path, "jobs")
        folders.append(current)
        job = (current, previous, ["b"], [] if previous else ["b"], False)
        nursery.start(cli_workers.run_job, *job).result()
    shutil.rmtree(folders[1])  # the last one still tells that it has carried this one's work on
    (found,) = surveys(tmp_path, status=1)
    assert (found["path"], found["failed"]) == (folders[2], 1)
    shutil.rmtree(folders[2])

    (found,) = surveys(tmp_path, status=1)

    assert (found["path"], found["failed"]) == (folders[0], 1)
    assert "but not there any more: it is only here" in text("status", folders[0], status=1)


@pytest.mark.parametrize("command", ["status", "outstanding", "failed"])
def test_looking_changes_nothing_and_does_not_wait_for_the_lock(
    command: str, tmp_path: Path, nursery: Nursery
) -> None:
    import fcntl

    worker = nursery.start(cli_workers.run_job, str(tmp_path), None, ["b"], ["a", "b"], True)
    worker.receive()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    modified = tmp_path.stat().st_mtime_ns
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        text(command, str(tmp_path), status=command == "status")
    finally:
        os.close(fd)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert tmp_path.stat().st_mtime_ns == modified
