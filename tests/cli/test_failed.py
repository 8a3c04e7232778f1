"""What an operator decides of work that was set aside, and what the next run makes of that."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cli_workers
from journals import Journals
from persistq import PersistentQueue, pickup_dirs
from persistq._journal import decisions
from persistq._journal.run_state import RunState

if TYPE_CHECKING:
    from processes import Nursery

LIMIT_S = 25
COMMAND = [sys.executable, "-m", "persistq"]


def run(*arguments: str, **options: Any) -> Any:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        timeout=LIMIT_S,
        text=True,
        **{"stdin": subprocess.DEVNULL, **options},
    )


def text(*arguments: str, status: int = 0) -> str:
    result = run(*arguments)
    assert result.returncode == status, (result.stdout, result.stderr)
    return str(result.stdout + result.stderr)


def failed(path: Path | str) -> list[str]:
    return [entry["text"] for entry in json.loads(text("failed", "--json", str(path)))]


def a_night(
    nursery: Nursery, root: Path, bad: list[Any], put: list[Any], stay: bool = False
) -> tuple[str, Any]:
    """Run a job in a process of its own; return its directory, and what it did."""
    current, previous = pickup_dirs(root, "jobs")
    child = nursery.start(cli_workers.run_job, current, previous, bad, put, stay)
    if stay:
        return current, child.receive()
    return current, child.result()


def test_failed_says_what_was_set_aside_when_and_why(tmp_path: Path, nursery: Nursery) -> None:
    current, done = a_night(
        nursery, tmp_path, ["bad.csv", ("a", "b")], ["good", "bad.csv", ("a", "b")]
    )
    assert done == ["good"]

    shown = text("failed", str(tmp_path))
    one, two = json.loads(text("failed", "--json", str(tmp_path)))

    assert f"Set aside in jobs ({current}):" in shown
    assert re.search(
        r"^bad\.csv +1 +\d{4}-.* ago\) +ValueError: cannot read bad", shown, re.MULTILINE
    )
    assert (one["schema"], one["kind"], one["prefix"], one["path"]) == (
        1,
        "journals",
        "jobs",
        current,
    )
    assert (one["message"], one["text"], one["attempts"]) == ("bad.csv", "bad.csv", 1)
    assert one["reason"].startswith("ValueError: cannot read bad.csv (")
    assert "run_job" in one["reason"]
    assert one["failed_at"].endswith("+00:00")
    assert (two["message"], two["text"]) == (["a", "b"], "a\tb")


def test_what_is_retried_is_done_by_the_next_run(tmp_path: Path, nursery: Nursery) -> None:
    a_night(nursery, tmp_path, ["b1", "b2", "x"], ["good", "b1", "b2", "x"])

    assert text("retry", str(tmp_path), "b*").splitlines() == [
        "outstanding again: b1",
        "outstanding again: b2",
        "2 messages to be done again: the next run does them",
    ]

    assert failed(tmp_path) == ["x"]
    assert text("outstanding", str(tmp_path)) == "b1\nb2\n"
    current, done = a_night(nursery, tmp_path, [], ["b1", "x"])  # both passed over
    assert done == ["b1", "b2"]
    assert failed(current) == ["x"]


def test_what_is_discarded_is_neither_done_nor_told_of_again(
    tmp_path: Path, nursery: Nursery
) -> None:
    a_night(nursery, tmp_path, ["b1", "b2"], ["b1", "b2"])

    assert "--yes" in text("discard", str(tmp_path), "b1", status=2)
    assert failed(tmp_path) == ["b1", "b2"]
    assert text("discard", str(tmp_path), "--yes", "b1") == "given up: b1\n1 message given up\n"

    assert failed(tmp_path) == ["b2"]
    current, done = a_night(nursery, tmp_path, [], [])
    assert done == []
    assert failed(current) == ["b2"]


def test_a_message_that_fails_again_after_a_retry_is_set_aside_again(
    tmp_path: Path, nursery: Nursery
) -> None:
    a_night(nursery, tmp_path, ["b"], ["b"])
    for _ in range(2):
        text("retry", str(tmp_path))
        a_night(nursery, tmp_path, ["b"], [])
    assert failed(tmp_path) == ["b"]
    text("retry", str(tmp_path))
    assert a_night(nursery, tmp_path, [], [])[1] == ["b"]
    assert text("status", str(tmp_path)).count("\n") == 2
    assert text("failed", str(tmp_path)) == "nothing is set aside\n"


def test_retried_work_begins_with_no_attempts(tmp_path: Path, nursery: Nursery) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    (Path(first) / "jobs_run.json").write_text(json.dumps({"run": "0" * 32}))
    (Path(first) / "jobs_requested_PID1.tsv").write_text("killer\n")
    (Path(first) / "jobs_attempts_PID1.tsv").write_text("5\tkiller\n")
    record = "2026-01-01T00:00:00.000000Z\t5\tbegan 5 times\tkiller\n"
    (Path(first) / "jobs_failed_PID1.tsv").write_text(record)
    text("retry", str(tmp_path))
    assert text("outstanding", str(tmp_path)) == "killer\n"

    second, previous = pickup_dirs(tmp_path, "jobs")
    assert nursery.start(cli_workers.list_failed, second, previous).result() == []

    assert text("outstanding", str(tmp_path)) == "killer\n"


def test_a_living_run_is_not_decided_over(tmp_path: Path, nursery: Nursery) -> None:
    current, _ = a_night(nursery, tmp_path, ["b"], ["b"], stay=True)
    before = Journals(Path(current)).all_names()

    for command in (["retry"], ["discard", "--yes"]):
        shown = text(*command, str(tmp_path), status=2)
        assert "is alive: process" in shown
        assert "requeue_failed_work()" in shown

    assert Journals(Path(current)).all_names() == before
    assert failed(tmp_path) == ["b"]


def test_the_decision_goes_to_where_the_work_lives_now(tmp_path: Path, nursery: Nursery) -> None:
    first, _ = a_night(nursery, tmp_path, ["b"], ["b"])
    for _ in range(2):
        last, _ = a_night(nursery, tmp_path, [], [])
    before = Journals(Path(first)).all_names()

    assert f"see {last}" in text("retry", first)

    assert Journals(Path(first)).all_names() == before
    assert text("outstanding", last) == "b\n"
    assert text("failed", last) == "nothing is set aside\n"


def test_work_that_is_no_more_where_it_was_carried_is_an_error(
    tmp_path: Path, nursery: Nursery
) -> None:
    first, _ = a_night(nursery, tmp_path, ["b"], ["b"])
    second, _ = a_night(nursery, tmp_path, [], [])
    shutil.rmtree(second)
    for command in ("failed", "retry", "outstanding"):
        assert "is not there any more" in text(command, first, status=2)


def test_a_directory_that_is_used_again_and_again_is_decided_in_place(
    tmp_path: Path, nursery: Nursery
) -> None:
    current = str(tmp_path / "same")
    bad = ["b", "c"]
    nursery.start(cli_workers.run_job, current, None, bad, ["a", "b", "c"], False).result()
    text("retry", current, "b")
    text("discard", "--yes", current, "c")
    done = nursery.start(cli_workers.run_job, current, current, [], [], False).result()
    assert done == ["b"]
    assert failed(current) == []
    assert text("status", current).count("\n") == 2


def test_a_pattern_that_nothing_matches_is_told_and_the_rest_is_done(
    tmp_path: Path, nursery: Nursery
) -> None:
    a_night(nursery, tmp_path, ["a[1].csv", "b"], ["a[1].csv", "b"])
    shown = text("retry", str(tmp_path), "a[1].csv", "nothing*", status=2)
    assert "outstanding again: a[1].csv" in shown
    assert "nothing*: nothing that is set aside matches this" in shown
    assert failed(tmp_path) == ["b"]


def test_a_disk_that_is_full_at_a_retry_decides_nothing(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, _ = a_night(nursery, tmp_path, ["b"], ["b"])
    append = decisions.JournalFile.append

    def fill_up(self: Any, data: bytes) -> None:
        if self._kind == "resolved":
            raise OSError(28, "No space left on device")
        append(self, data)

    monkeypatch.setattr(decisions.JournalFile, "append", fill_up)
    with pytest.raises(OSError, match="No space"):
        decisions.decide(current, "jobs", lambda records: records, begin_anew=True)
    monkeypatch.undo()

    assert Journals(Path(current)).outstanding() == []
    assert failed(current) == ["b"]
    assert not [m for m in RunState(current, "jobs").members if m.is_dead() is not True]
    text("retry", current)
    assert Journals(Path(current)).outstanding() == ["b"]


CALLS = "write,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,ftruncate"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("command", [["retry"], ["discard", "--yes"]])
@pytest.mark.timeout(90)
def test_killed_at_each_call_a_decision_loses_nothing(
    command: list[str], tmp_path: Path, nursery: Nursery
) -> None:
    template = tmp_path / "template"
    a_night(nursery, template, ["b", "c"], ["a", "b", "c"])

    def kill(call: str, number: int) -> bool:
        """Kill at one call; return whether there was one."""
        root = tmp_path / f"{call}{number}"
        shutil.copytree(template, root)
        where = str(root / "jobs" / "run_000001")
        strace = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
        strace += ["-e", f"inject={call}:signal=KILL:when={number}"]
        ended = subprocess.run(
            [*strace, sys.executable, "-B", "-m", "persistq", *command, where],
            capture_output=True,
            timeout=LIMIT_S,
        )
        if ended.returncode not in (137, -9):
            assert ended.returncode == 0, ended.stderr
            return False
        left = PersistentQueue("jobs", previous_pickup_dir=where).get_list_of_outstanding_work()
        state = RunState(where, "jobs")
        aside = [record.line.decode() for record in decisions.undecided(state)]
        if command == ["retry"]:
            # On the queue, or set aside, or at worst both; each of them once.
            assert set(left) | set(aside) == {"b", "c"}
            assert max(Counter(left).values(), default=1) == 1
        else:
            assert left == []
            assert aside in (["b", "c"], [])
        # And it can be said again, whatever the killed one has left.
        subprocess.run([*COMMAND, *command, where], check=True, capture_output=True)
        now = PersistentQueue("jobs", previous_pickup_dir=where).get_list_of_outstanding_work()
        assert decisions.undecided(RunState(where, "jobs")) == []
        assert set(now) == ({"b", "c"} if command == ["retry"] else set())
        shutil.rmtree(root)
        return True

    def kill_at_each(call: str) -> int:
        return next(number for number in itertools.count() if not kill(call, number + 1))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(kill_at_each, CALLS.split(","))) > 5


def shows_locks(folder: Path) -> bool:
    """Tell whether the system lists this process's locks, so that a wait for one can be seen."""
    if not os.path.exists("/proc/locks"):
        return False
    import fcntl

    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return f" {os.getpid()} " in Path("/proc/locks").read_text()
    finally:
        os.close(fd)


def test_two_who_decide_at_once_decide_once(tmp_path: Path, nursery: Nursery) -> None:
    if not shows_locks(tmp_path):
        pytest.skip("this system does not say who waits for a lock")
    current, _ = a_night(nursery, tmp_path, ["b"], ["b"])
    others = []

    def choose(records: list[Any]) -> list[Any]:
        """Be half way when another one comes: it has to wait, or else would be done by now."""
        other = subprocess.Popen([*COMMAND, "retry", current], stdout=subprocess.PIPE)
        others.append(other)
        waits = re.compile(rf"-> FLOCK +\S+ +\S+ +{other.pid} ")
        while other.poll() is None and not waits.search(Path("/proc/locks").read_text()):
            pass
        return records

    _, decided = decisions.decide(current, "jobs", choose, begin_anew=True)

    assert others[0].communicate(timeout=LIMIT_S)[0].startswith(b"0 messages to be done again")
    assert [record.line for record in decided] == [b"b"]
    assert Journals(Path(current)).outstanding() == ["b"]
    assert failed(current) == []
