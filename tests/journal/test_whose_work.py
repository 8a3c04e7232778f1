"""Whose work it is: whichever directories are used, each message is carried on once, by one."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import PersistentQueue, UpstreamFailureError
from persistq._journal import decisions
from persistq._journal.run_state import RunState
from processes import can_unshare

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Child, Nursery

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")


class Nights:
    """A job that is started again and again, each time in a process of its own."""

    def __init__(self, root: Path, nursery: Nursery) -> None:
        self.root = root
        self._nursery = nursery

    def path(self, name: str | None) -> str | None:
        return None if name is None else str(self.root / name)

    def start(
        self, current: str, previous: str | None, puts: Any = (), completes: int = 0, **how: Any
    ) -> Child:
        return self._nursery.start(
            workers.a_night,
            self.path(current),
            self.path(previous),
            list(puts),
            completes,
            *how.values(),
        )

    def run(
        self, current: str, previous: str | None, puts: Any = (), completes: int = 0, **how: Any
    ) -> tuple[int, list[Any]]:
        """Have a night, which ends with a kill; return what was requeued, and all it was handed."""
        child = self.start(current, previous, puts, completes, **how)
        kind, result = child.receive()
        assert kind == "result", result
        if how.get("ends") != "lives":
            child.join()
        return result  # type: ignore[no-any-return]

    def error(self, current: str, previous: str | None, wait_s: float = 0.1) -> str:
        """Start in vain; return why."""
        args = (self.path(current), self.path(previous), wait_s)
        return self._nursery.start(workers.error_of_a_night, *args).result()  # type: ignore[no-any-return]

    def left(self, name: str) -> list[Any]:
        return Journals(self.root / name).outstanding()


@pytest.fixture
def nights(tmp_path: Path, nursery: Nursery) -> Nights:
    return Nights(tmp_path, nursery)


# --- directories in turn -------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("names", [["same"], ["odd", "even"], ["x", "y", "z"]])
def test_directories_in_turn_lose_nothing_and_repeat_nothing_for_many_nights(
    nights: Nights, names: list[str]
) -> None:
    left: list[str] = []
    previous = None
    for night in range(12):
        current = names[night % len(names)]
        puts = [f"{night}-{n}" for n in range(3)]
        # The very first time there is no previous run; then it is last night's.
        requeued, got = nights.run(current, previous, puts, completes=2 + night % 3)
        assert requeued == len(left)
        assert got == left + puts
        left = got[2 + night % 3 :]
        assert nights.left(current) == left
        previous = current
        if night == 0 and len(names) == 1:
            previous = names[0]


def test_where_the_work_went_is_named_also_when_that_is_gone(nights: Nights) -> None:
    nights.run("first", None, ["a"])
    nights.run("second", "first")
    first = RunState(str(nights.root / "first"), "jobs")
    assert decisions.is_elsewhere(first)
    said = nights.error("third", "first")
    assert f"was carried on by another run, in {str(nights.root / 'second')!r}, so" in said
    shutil.rmtree(nights.root / "second")
    assert not decisions.is_elsewhere(first)
    said = nights.error("third", "first")
    assert f"in {str(nights.root / 'second')!r} (which is gone), so" in said


def test_a_directory_used_for_years_costs_no_more_than_a_new_one(nights: Nights) -> None:
    """What is listed and read does not grow: neither the files in it, nor the run's record."""
    sizes = []
    for night in range(40):
        nights.run("same", "same" if night else None, ["a"], completes=9)
        names = os.listdir(nights.root / "same")
        record = (nights.root / "same" / "jobs_run.json").stat().st_size
        sizes.append((len(names), record))
    assert max(sizes[2:])[0] <= sizes[2][0]
    assert sizes[-1][1] == sizes[-2][1]


def test_the_same_pair_again_and_again_goes_on_with_what_the_current_one_holds(
    nights: Nights,
) -> None:
    nights.run("1", None, ["a", "b"])
    assert nights.run("2", "1", ["c"], completes=1) == (2, ["a", "b", "c"])
    for _ in range(4):
        assert nights.run("2", "1") == (2, ["b", "c"])
    assert nights.run("2", "1", ["d"], completes=2) == (2, ["b", "c", "d"])
    assert nights.run("3", "2") == (1, ["d"])
    # Now it is the third that holds it, however the second is given.
    assert str(nights.root / "3") in nights.error("2", "1")
    assert str(nights.root / "3") in nights.error("4", "2")


def test_a_run_that_was_carried_on_elsewhere_names_the_last_directory_of_the_chain(
    nights: Nights,
) -> None:
    nights.run("1", None, ["a"])
    nights.run("2", "1")
    nights.run("3", "2")
    error = nights.error("other", "1")
    assert error.startswith("PersistqError")
    assert repr(str(nights.root / "3")) in error
    assert nights.left("3") == ["a"]
    # Nothing was taken, and following the advice does.
    assert nights.run("other", "3") == (1, ["a"])


def test_a_run_whose_successor_lives_is_active(nights: Nights) -> None:
    nights.run("1", None, ["a"])
    child = nights.start("2", "1", ends="lives")
    assert child.receive()[0] == "result"
    error = nights.error("other", "1")
    assert error.startswith("PreviousRunActiveError")
    assert f"process {child.pid} on" in error
    assert not (nights.root / "other").exists() or nights.left("other") == []
    child.kill()
    assert nights.error("other", "1").startswith("PersistqError")


def test_older_work_of_the_current_directory_is_carried_with_that_of_the_previous_one(
    nights: Nights,
) -> None:
    nights.run("current", None, ["old"])
    nights.run("previous", None, ["a", "b"], completes=1)
    requeued, got = nights.run("current", "previous", ["new"])
    assert requeued == 2
    assert sorted(got) == ["b", "new", "old"]
    assert sorted(nights.left("current")) == ["b", "new", "old"]


def test_a_dead_run_waits_where_no_previous_one_is_given_until_a_restart_asks(
    nights: Nights,
) -> None:
    for night in range(3):
        # Nobody asks: each is a run of its own, whose completions touch no other's work.
        requeued, got = nights.run("here", None, ["same", f"own {night}"], completes=1)
        assert (requeued, got) == (0, ["same", f"own {night}"])
    assert nights.left("here") == ["own 0", "own 1", "own 2"]
    assert nights.run("here", "here") == (3, ["own 0", "own 1", "own 2"])
    assert nights.run("there", "here") == (3, ["own 0", "own 1", "own 2"])


def test_a_completion_too_many_of_a_run_that_waits_cancels_nothing_of_a_later_one(
    nights: Nights, nursery: Nursery
) -> None:
    nursery.start(workers.complete_what_was_never_put, nights.path("here"), "a").join()
    nights.run("here", None, ["a"])
    assert nights.left("here") == ["a"]
    assert nights.run("there", "here") == (1, ["a"])


def test_what_was_set_aside_in_a_run_that_waits_is_carried_too(
    nights: Nights, nursery: Nursery, tmp_path: Path
) -> None:
    nursery.start(workers.set_aside, str(tmp_path / "here"), ["bad 1"]).join()
    nursery.start(workers.set_aside, str(tmp_path / "here"), ["bad 2"]).join()
    q = PersistentQueue("jobs", tmp_path / "there", tmp_path / "here", queue=queue.Queue())
    assert [work.message for work in q.get_list_of_failed_work()] == ["bad 1", "bad 2"]


def test_the_spent_run_of_an_alternating_directory_counts_no_more(nights: Nights) -> None:
    nights.run("odd", None, ["mon-1", "mon-2"], completes=1)
    nights.run("even", "odd", ["tue-1", "tue-2"], completes=2)
    assert nights.run("odd", "even") == (1, ["tue-2"])
    assert nights.run("even", "odd", completes=1) == (1, ["tue-2"])
    assert nights.run("odd", "even") == (0, [])


def test_a_previous_directory_that_does_not_exist_is_named(nights: Nights) -> None:
    assert "no-such-run" in nights.error("2", "no-such-run")
    assert not (nights.root / "2" / "jobs_run.json").exists()


# --- journals without an identity -------------------------------------------------------------


def make_old_journals(folder: Path, **more: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "jobs_requested_PID77.tsv").write_bytes(b"a\nb\nc\n")
    (folder / "jobs_completed_PID78.tsv").write_bytes(b"b\n")
    for name, text in more.items():
        (folder / f"jobs_{name}.tsv").write_text(text)


@pytest.mark.parametrize("same", [False, True])
def test_journals_of_the_original_are_one_run_that_is_carried_once(
    nights: Nights, same: bool
) -> None:
    old = nights.root / "old"
    make_old_journals(old)
    current = "old" if same else "new"
    assert nights.run(current, "old", completes=1) == (2, ["a", "c"])
    assert nights.run(current, "old") == (1, ["c"])
    if not same:
        assert "PersistqError" in nights.error("third", "old")
        # The original has written there since: a run of its own, and only that counts.
        (old / "jobs_requested_PID99.tsv").write_text("d\n")
        assert nights.run("third", "old") == (1, ["d"])
        assert nights.left("new") == ["c"]


def test_a_journal_of_version_0_1_is_picked_up_with_what_it_carried(nights: Nights) -> None:
    make_old_journals(
        nights.root / "old",
        carried="x\ny\n",
        requested_PID5_requeued="p\nq\n",
        completed_PID6="p\n",
        started_PID6="q\n",
    )
    left = nights.left("old")
    assert sorted(left) == ["a", "c", "q", "x", "y"]
    requeued, got = nights.run("new", "old")
    assert requeued == 5
    assert sorted(got) == sorted(left)


# --- a previous directory that cannot be written ---------------------------------------------


@pytest.mark.skipif(not can_unshare("-m"), reason="unshare cannot do this here")
def test_a_read_only_previous_directory_is_carried_with_a_warning(nights: Nights) -> None:
    nights.run("old", None, ["a", "b"], completes=1)
    before = sorted(os.listdir(nights.root / "old"))
    code = (
        "import logging, queue, sys; from persistq import PersistentQueue\n"
        "logging.basicConfig()\n"
        "q = PersistentQueue('jobs', sys.argv[2], sys.argv[1], queue=queue.Queue())\n"
        "print(q.requeue_unprocessed_work(), q.get())\n"
    )
    mount = 'mount --bind -o ro "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", nights.path("old"), *python(code, nights)],
        capture_output=True,
        text=True,
    )
    if "mount:" in ended.stderr:
        pytest.skip(ended.stderr)
    assert ended.stdout.split() == ["1", "b"], ended.stderr
    assert "cannot be written" in ended.stderr
    assert sorted(os.listdir(nights.root / "old")) == before
    # The restart with the same pair knows, though nothing is sealed.
    assert nights.run("new", "old") == (1, ["b"])


def python(code: str, nights: Nights) -> list[str]:
    return [sys.executable, "-c", code, str(nights.root / "old"), str(nights.root / "new")]


# --- several starts at once ------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("pair", [("2", "1"), ("1", "1"), (None, "1")])
def test_of_several_starts_at_once_one_carries_and_the_others_find_it_alive(
    nights: Nights, nursery: Nursery, count: int, pair: tuple[str | None, str]
) -> None:
    nights.run("1", None, [f"message {n}" for n in range(200)])
    children = []
    for number in range(count):
        current = nights.path(pair[0] or f"of its own {number}")
        children.append(nursery.start(workers.start_at_once, current, nights.path(pair[1]), 0.2))
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    said = [child.receive()[1] for child in children]
    assert sorted(said) == sorted(["200", *["PreviousRunActiveError"] * (count - 1)])
    for child in children:
        child.send("end")


def test_a_start_waits_for_a_run_that_is_just_ending(nights: Nights, nursery: Nursery) -> None:
    child = nights.start("1", None, ["a"], ends="lives")
    assert child.receive()[0] == "result"
    other = nursery.start(workers.start_at_once, nights.path("2"), nights.path("1"), 20)
    assert other.receive() == "ready"
    other.send("go")
    assert not other.talk.poll(0.3)
    child.kill()
    assert other.receive() == ("result", "1")
    other.send("end")


def test_a_start_does_not_hang_behind_one_that_was_stopped_in_its_midst(
    nights: Nights, nursery: Nursery
) -> None:
    nights.run("1", None, ["a"])
    locker = nursery.start(workers.lock_folder, nights.path("1"))
    assert locker.receive() == "locked"
    for current in ("1", "2"):
        error = nights.error(current, "1", 0.3)
        assert error.startswith("PreviousRunActiveError: another process has locked")
    locker.kill()
    assert nights.run("2", "1") == (1, ["a"])


# --- a seal is found by who comes back ---------------------------------------------------------


def test_a_run_that_was_carried_on_meanwhile_is_told_at_once(tmp_path: Path) -> None:
    """As a process that was stopped, its run restarted over, and that comes back."""
    q = PersistentQueue("jobs", tmp_path / "1", queue=queue.Queue())
    q.put_many(["a", "b", "c"])
    taken = q.get()
    for lease in (tmp_path / "1").glob(".jobs_*.lease"):
        lease.unlink()  # whoever looks now sees nobody
    other = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())
    assert other.requeue_unprocessed_work() == 3

    for call in (q.get, lambda: q.put("d"), lambda: q.put_many(["d"])):
        with pytest.raises(UpstreamFailureError, match=r"carried on by run .* in .*2"):
            call()
    q.task_done(taken)
    assert sorted(other.get_list_of_outstanding_work()) == ["a", "b", "c"]
    assert Journals(tmp_path / "2").outstanding() == ["a", "b", "c"]
    assert Journals(tmp_path / "1").lines("completed") == []
    own = list((tmp_path / "1" / "jobs_earlier").rglob("jobs_completed_*.tsv"))
    assert [path.read_text() for path in own] == ["a\n"]


def test_in_the_same_directory_its_completion_is_not_counted_in_the_new_run(
    tmp_path: Path,
) -> None:
    q = PersistentQueue("jobs", tmp_path, queue=queue.Queue())
    q.put_many(["a", "b"])
    taken = q.get()
    q.task_done(taken)  # its file of completions is open
    again = q.get()
    for lease in tmp_path.glob(".jobs_*.lease"):
        lease.unlink()
    other = PersistentQueue("jobs", tmp_path, tmp_path, queue=queue.Queue())
    assert other.requeue_unprocessed_work() == 1
    q.task_done(again)
    with pytest.raises(UpstreamFailureError):
        q.get()
    assert Journals(tmp_path).outstanding() == ["b"]


# --- who may start ------------------------------------------------------------------------------


def test_a_queue_made_while_a_spawned_child_imports_main_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from persistq import PersistentQueue\n"
        "q = PersistentQueue('jobs', sys.argv[1])\n"
        "def work(): print('worked')\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context(sys.argv[2]).Process(target=work)\n"
        "    child.start(); child.join()\n"
        "    print('ended', child.exitcode)\n"
    )
    for method in ("spawn", "forkserver"):
        ended = subprocess.run(
            [sys.executable, str(script), str(tmp_path / method), method],
            capture_output=True,
            text=True,
        )
        # A fork server of 3.14 imports the script itself, and ends with what that raises.
        told = ["ended 1\n", ""] if method == "forkserver" else ["ended 1\n"]
        assert ended.stdout in told, ended.stderr
        assert "PersistqError" in ended.stderr
        assert 'if __name__ == "__main__"' in ended.stderr


# --- killed at each step ---------------------------------------------------------------------


STEPS = ("rename", "replace", "link", "unlink", "mkdir", "fsync", "fdatasync", "write", "open")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pair", [("2", "1"), ("1", "1"), ("alternating", "1"), ("1", None)])
def test_a_start_killed_at_any_step_leaves_all_work_to_the_next_once(
    tmp_path: Path, nursery: Nursery, pair: tuple[str, str | None]
) -> None:
    """Each call that a start makes of the system is its last one, in turn; and twice in a row."""
    template = tmp_path / "template"
    nights = Nights(template, nursery)
    if pair[0] == "alternating":
        nights.run("alternating", None, ["very old"], completes=1)
        nights.run("1", "alternating", ["a", "b", "bad", "c"], completes=1)
    else:
        nights.run("1", None, ["a", "b", "bad", "c"], completes=1)
    nursery.start(workers.set_aside_one, str(template), "1", "bad").result()
    kills = 0
    for number in itertools.count(1):
        root = tmp_path / f"at-{number}"
        shutil.copytree(template, root)
        current, previous = (str(root / name) if name else None for name in pair)
        move_records(template, root)
        codes = []
        for _ in range(2):
            child = nursery.start(workers.start_until, current, previous, number)
            codes.append(child.join())
        if codes[0] == 0:
            break
        kills += 1
        here = Nights(root, nursery)
        if previous is None:
            # Nobody asks for that work: it waits.
            assert here.run(pair[0], None, completes=9)[0] == 0
            previous_name = pair[0]
        else:
            previous_name = pair[1]  # type: ignore[assignment]
        requeued, got = here.run(pair[0], previous_name)
        assert (requeued, sorted(got)) == (2, ["b", "c"]), (number, sorted(os.listdir(root)))
        q = PersistentQueue("jobs", root / "after", root / pair[0], queue=queue.Queue())
        assert sorted(q.get_list_of_outstanding_work()) == ["b", "c"]
        assert [work.message for work in q.get_list_of_failed_work()] == ["bad"]
        shutil.rmtree(root)
    assert kills > 15


def move_records(template: Path, root: Path) -> None:
    """Let the records in a copy say where that is."""
    for path in root.rglob("jobs_*.json"):
        text = path.read_text().replace(str(template), str(root))
        json.loads(text)
        path.write_text(text)


def test_no_step_of_a_start_is_missing_from_the_test_above() -> None:
    assert set(STEPS) == set(workers.COUNTED)
