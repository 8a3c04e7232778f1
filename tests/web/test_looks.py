"""What is looked at, how often, and what is remembered of it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import web_workers
from persistq import ReadableFolderQueue, WritableFolderQueue
from persistq._survey import JournalSurvey, under
from persistq._survey.under import Found, Surveyor, Unreadable
from persistq._web import charts, page
from persistq._web.history import MINUTES, History, Past
from persistq._web.looks import Looks, Seen, look

if TYPE_CHECKING:
    from processes import Nursery


def said(surveyor: Surveyor) -> list[dict[str, Any]]:
    found, unreadable = surveyor.look()
    assert not unreadable
    return [queue.survey.as_dict() for queue in found]


def test_journals_are_read_again_when_something_has_changed_and_only_then(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    class Counted(JournalSurvey):
        def _look(self) -> None:
            read.append(self.prefix)
            super()._look()

    monkeypatch.setattr(under, "JournalSurvey", Counted)
    worker = nursery.start(web_workers.work_on, str(tmp_path), 5, 1, 1)
    worker.receive()
    surveyor = Surveyor([str(tmp_path)])

    (first,) = said(surveyor)
    assert said(surveyor) == [first]
    assert len(read) == 1
    worker.send("next")
    worker.receive()
    (second,) = said(surveyor)
    worker.kill()  # no file changes
    (third,) = said(surveyor)

    assert (first["completed"], second["completed"], third["completed"]) == (1, 2, 2)
    assert (second["alive"], third["alive"]) == ([worker.pid], [])
    assert third["in_progress"][0]["state"] == "dead"
    fresh = JournalSurvey(third["path"], "orders").as_dict()
    assert third == fresh


def test_queues_are_found_below_a_root_each_once_and_no_other_folders(tmp_path: Path) -> None:
    for name in ("a", "a/b/c", "a/b/c/d", ".hidden"):
        WritableFolderQueue(tmp_path / name).close()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/x.tsv").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    roots = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "link")]

    paths = [survey["path"] for survey in said(Surveyor(roots))]

    assert paths == [str(tmp_path / name) for name in ("a", "a/b/c", "a/b/c/d")]
    deep = [survey["path"] for survey in said(Surveyor([str(tmp_path / "files")]))]
    assert deep == [str(tmp_path / "files")]


def test_too_many_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under, "_MOST_FOLDERS", 3)
    for name in "abcd":
        WritableFolderQueue(tmp_path / name).close()
    found, unreadable = Surveyor([str(tmp_path)]).look()
    assert [os.path.basename(queue.survey.path) for queue in found] == ["a", "b"]
    assert [place.error for place in unreadable] == [
        "more than 3 folders: name those that hold queues"
    ]


def test_what_is_done_in_a_folder_is_counted_though_as_much_comes(
    tmp_path: Path, nursery: Nursery
) -> None:
    worker = nursery.start(web_workers.folder_in_use, str(tmp_path / "in"), 3)
    worker.receive()
    surveyor, history = Surveyor([str(tmp_path / "in")]), History()
    for done in range(4):
        (queue,) = look(surveyor, history).queues
        assert (queue.done, queue.in_progress, queue.waiting) == (done, 1, 2)
        worker.send("next")
        worker.receive()
    ReadableFolderQueue(tmp_path / "in").task_failed(worker_file(tmp_path / "in"), "bad")
    (queue,) = look(surveyor, history).queues
    assert (queue.done, queue.failed, queue.is_done_since) == (4, 1, True)
    assert look(surveyor, None).queues[0].done is None


def worker_file(folder: Path) -> str:
    path = ReadableFolderQueue(folder).get(0)
    assert isinstance(path, str)
    return path


def test_with_a_folder_for_what_is_done_all_that_is_there_counts(tmp_path: Path) -> None:
    WritableFolderQueue(tmp_path / "in").close()
    (tmp_path / "done").mkdir()
    for name in ("a.tsv", "b.tsv", "c.other"):
        (tmp_path / "done" / name).touch()
    surveyor = Surveyor([str(tmp_path / "in")], done_folder=str(tmp_path / "done"))
    for history in (None, History()):
        (queue,) = look(surveyor, history).queues
        assert (queue.done, queue.is_done_since, queue.words) == (2, False, "done")


class Slow(Surveyor):
    """Looks for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__([])
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.looks = 0

    def look(self) -> tuple[list[Found], list[Unreadable]]:
        self.looks += 1
        self.begun.release()
        self.may_end.acquire()
        return [], [Unreadable("look", str(self.looks))]


def test_however_many_ask_there_is_one_look_and_what_was_seen_last_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("persistq._web.looks._PATIENCE_S", 0.2)
    monkeypatch.setattr("persistq._web.looks._GOOD_S", 0.0)
    surveyor = Slow()
    looks = Looks(surveyor)
    looks.start()
    assert surveyor.begun.acquire(timeout=10)
    seen, looking_s = looks.latest()
    assert seen is None
    assert looking_s >= 0.2
    surveyor.may_end.release()
    while looks.latest()[0] is None:
        pass
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(looks.latest())) for _ in range(20)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(10)

    assert [seen.unreadable[0].error for seen, _ in answers] == ["1"] * 20
    assert surveyor.looks <= 2
    surveyor.may_end.release()
    deadline_s = time.monotonic() + 10
    while (seen := looks.latest()[0]) is not None and seen.unreadable[0].error == "1":
        assert time.monotonic() < deadline_s
    assert surveyor.looks <= 3
    surveyor.may_end.release(100)


def test_the_page_says_when_a_look_takes_much_longer_than_the_last_one() -> None:
    seen = Seen([], [], 1_800_000_000.0, 2.0)
    assert "Does a file system hang?" not in page.render(seen, ["/q"], "n", looking_s=9.0)
    shown = page.render(seen, ["/q"], "n", looking_s=61.0)
    assert "has been going on for 61 s. Does a file system hang?" in shown


def test_a_look_that_fails_is_told_and_the_next_one_goes_on() -> None:
    class Failing(Surveyor):
        looks = 0

        def look(self) -> tuple[list[Found], list[Unreadable]]:
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("no such luck")
            return [], []

    looks = Looks(Failing([]))
    looks.start()
    seen, _ = looks.latest()
    assert seen is not None
    assert seen.unreadable[0].error == "looking failed: RuntimeError: no such luck"
    deadline_s = time.monotonic() + 10
    while (seen := looks.latest()[0]) is not None and seen.unreadable:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_the_past_is_bounded_and_forgets_queues_that_have_gone() -> None:
    history = History()
    past = history.of("a", 0.0)
    for minute in range(2 * MINUTES):
        past.add(minute * 60.0, minute, 0)
        past.add(minute * 60.0 + 30, minute, 0)
    assert len(past.points) == MINUTES
    for number in range(1500):
        history.of(number, 60.0)
    assert history.of(1499, 60.0) is not history.of(1499, 60.0)
    hours_s = MINUTES * 60.0
    history.forget(hours_s)  # it may come back
    assert history.of("a", 90.0) is past
    history.forget(hours_s + 91)
    assert history.of("a", hours_s + 91) is not past
    assert history.of(1499, hours_s) is history.of(1499, hours_s)  # there is room again


def test_the_charts_show_what_ended_in_each_whole_minute_and_what_was_left() -> None:
    past = Past(6000.0)
    for minute, ended, left in ((100, 0, 90), (101, 30, 60), (103, 70, 20), (104, 71, 19)):
        past.add(minute * 60.0, ended, left)

    drawn = charts.last_hours(past, 104 * 60.0 + 1)

    assert "most 30, last 20" in drawn  # 40 in two minutes; the last has not ended
    assert "most 90, now 19" in drawn
    # Ten minutes at least, so the 11 columns begin at minute 94.
    assert 'viewBox="0 0 11 40"' in drawn
    assert 'd="M7 40v-40.0h1v40.0zM8 40v-26.7h2v26.7z"' in drawn
    assert 'd="M6 40V1.0H7V14.0H8V31.3H10V31.8H11V40z"' in drawn
    still = Past(0.0)
    for minute in range(5):
        still.add(minute * 60.0, 7, 3)
    assert charts.last_hours(still, 600.0) == ""
