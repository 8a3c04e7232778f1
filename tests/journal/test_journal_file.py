"""A journal file holds whole lines, whatever fails, and is written by one process only."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest

import workers
from persistq import _fs
from persistq._journal.journal_file import JournalFile
from persistq._journal.lines import LineReader
from persistq._journal.members import Membership
from persistq._journal.names import COMPLETED, REQUESTED
from persistq._journal.run_state import RunState
from processes import Nursery


def membership_in(folder: Path) -> Membership:
    return Membership(str(folder), "jobs", "0123456789abcdef")


def journals_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".tsv"))


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    return JournalFile(membership_in(tmp_path), REQUESTED, False)


def content(journal: JournalFile) -> bytes:
    return Path(str(journal.open().name)).read_bytes()


def test_nothing_is_made_before_it_is_needed(journal: JournalFile, tmp_path: Path) -> None:
    assert os.listdir(tmp_path) == []
    journal.append(b"a\n")
    assert journals_in(tmp_path) == [f"jobs_requested_PID{os.getpid()}.tsv"]


def test_a_file_of_an_earlier_process_of_the_same_id_is_never_touched(tmp_path: Path) -> None:
    first = tmp_path / f"jobs_completed_PID{os.getpid()}.tsv"
    second = tmp_path / f"jobs_completed_PID{os.getpid()}-2.tsv"
    first.write_bytes(b"earlier\n")
    second.symlink_to("nowhere")
    journal = JournalFile(membership_in(tmp_path), COMPLETED, False)
    journal.append(b"mine\n")
    assert first.read_bytes() == b"earlier\n"
    assert (tmp_path / f"jobs_completed_PID{os.getpid()}-3.tsv").read_bytes() == b"mine\n"
    assert not (tmp_path / "nowhere").exists()


def test_closed_and_needed_again_it_goes_on_in_the_same_file(journal: JournalFile) -> None:
    journal.append(b"a\n")
    journal.close()
    journal.append(b"b\n")
    journal.open().close()  # as a user may, who has it from put_file
    journal.append(b"c\n")
    assert content(journal) == b"a\nb\nc\n"


def test_it_goes_on_in_a_new_file_where_its_own_was_taken_away(
    journal: JournalFile, tmp_path: Path
) -> None:
    journal.append(b"a\n")
    journal.close()
    taken = tmp_path / f"jobs_requested_PID{os.getpid()}.tsv"
    taken.rename(tmp_path / "elsewhere")
    taken.write_bytes(b"somebody else's\n")
    journal.append(b"b\n")
    assert taken.read_bytes() == b"somebody else's\n"
    assert content(journal) == b"b\n"


def test_lines_that_are_withdrawn_at_the_end_are_cut_off(journal: JournalFile) -> None:
    journal.append(b"a\n")
    journal.append(b"b\nc\n")
    journal.withdraw([b"b", b"c"])
    assert content(journal) == b"a\n"
    journal.withdraw([b"a"])
    assert content(journal) == b""
    journal.append(b"d\n")
    assert content(journal) == b"d\n"


def test_lines_that_are_withdrawn_behind_others_are_said_to_be(journal: JournalFile) -> None:
    journal.append(b"a\n")
    journal.append(b"ba\n")
    journal.withdraw([b"a"])
    assert content(journal) == b"a\nba\n\x10-a\n"


def test_a_forked_child_closes_its_parents_file_and_makes_one_of_its_own(
    journal: JournalFile, tmp_path: Path, nursery: Nursery
) -> None:
    journal.append(b"parent\n")
    file = journal.open()
    child = nursery.start(workers.append_in_fork, journal, file.fileno(), file.name)
    assert child.result() == "the parent's file is closed"
    assert content(journal) == b"parent\n"
    assert journals_in(tmp_path) == sorted(
        f"jobs_requested_PID{pid}.tsv" for pid in (os.getpid(), child.pid)
    )
    assert (tmp_path / f"jobs_requested_PID{child.pid}.tsv").read_bytes() == b"child\n"


class Slow:
    """A file on which a write stays until it may go on."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.writes = 0
        self.is_writing, self.go_on = threading.Event(), threading.Event()
        self.closed, self.name, self.fileno, self.close = False, file.name, file.fileno, file.close

    def write(self, data: bytes) -> int:
        self.writes += 1
        self.is_writing.set()
        assert self.go_on.wait(10)
        return self.file.write(data) or 0


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_fork_while_another_thread_writes_does_not_block_the_child(
    journal: JournalFile, nursery: Nursery, is_alone: bool
) -> None:
    if not is_alone:
        journal.append(b"main\n")
    first = threading.Thread(target=journal.append, args=(b"a\n",))
    first.start()
    first.join()
    file = journal.open()
    slow = Slow(file)
    journal._file = slow  # type: ignore[assignment]
    thread = threading.Thread(target=journal.append, args=(b"b\n",), daemon=True)
    thread.start()
    assert slow.is_writing.wait(10)
    child = nursery.start(workers.append_in_fork, journal, file.fileno(), file.name)
    assert child.result() == "the parent's file is closed"
    slow.go_on.set()
    thread.join(10)
    assert content(journal).endswith(b"a\nb\n")


def test_while_the_first_thread_writes_no_other_does(journal: JournalFile) -> None:
    seen = []

    def come() -> None:
        assert slow.is_writing.wait(10)
        other = threading.Thread(target=journal.append, args=(b"c\n",), daemon=True)
        other.start()
        other.join(0.1)
        seen.append(slow.writes)
        slow.go_on.set()
        other.join(10)
        seen.append(slow.writes)

    journal.append(b"a\n")
    slow = Slow(journal.open())
    journal._file = slow  # type: ignore[assignment]
    thread = threading.Thread(target=come, daemon=True)
    thread.start()
    journal.append(b"b\n")
    thread.join(10)
    assert seen == [1, 2]
    assert content(journal) == b"a\nb\nc\n"


def test_the_place_of_each_line_is_known(journal: JournalFile) -> None:
    lines = [b"one", b"", b"three", b"a longer one"]
    reader = LineReader()
    for _ in range(2):
        places = journal.append_in_place(lines)
        assert [reader.read(place) for place in places] == lines


def test_threads_write_whole_lines(journal: JournalFile) -> None:
    def write(name: bytes) -> None:
        for number in range(300):
            journal.append(b"%s-%d\n" % (name * 50, number))

    threads = [threading.Thread(target=write, args=(b"abcd"[n : n + 1],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = content(journal).splitlines()
    expected = [b"%s-%d" % (b"abcd"[n : n + 1] * 50, k) for n in range(4) for k in range(300)]
    assert sorted(lines) == sorted(expected)


def test_synced_means_that_file_and_directory_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(_fs, "sync_file", lambda fd: calls.append("file"))
    monkeypatch.setattr(_fs, "sync_folder", lambda folder: calls.append(folder))
    journal = JournalFile(membership_in(tmp_path), REQUESTED, True)
    journal.append(b"a\n")
    journal.append(b"b\nc\n")
    assert calls == [str(tmp_path), "file", "file"]


def test_a_sync_that_fails_undoes_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalFile(membership_in(tmp_path), REQUESTED, True)
    journal.append(b"a\n")
    with monkeypatch.context() as patch:

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(_fs, "sync_file", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            journal.append(b"refused\n")
    journal.append(b"b\n")
    assert content(journal) == b"a\nb\n"


def test_what_could_not_be_undone_is_undone_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = JournalFile(membership_in(tmp_path), REQUESTED, True)
    journal.append(b"a\n")

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "sync_file", fail)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            journal.append(b"refused\n")
    assert "cannot cut back" in caplog.text
    journal.append(b"b\n")
    assert content(journal) == b"a\nb\n"


def test_files_are_read_in_the_order_of_their_work(tmp_path: Path) -> None:
    made = [
        ("jobs_requested_PID7.tsv", 300),
        ("jobs_requested_PID7-2.tsv", 100),
        ("jobs_requested_PID100.tsv", 300),
        ("jobs_requested_PID8_requeued.tsv", 900),
        ("jobs_carried.tsv", 950),
        ("jobs_completed_PID7.tsv", 100),
        ("jobs_started_PID7.tsv", 100),
        ("jobs_requested_PIDx.tsv", 100),
        ("jobs_requested_PID7.tsv.bak", 100),
        (".jobs_carried.tsv.tmp", 100),
        ("other_jobs_requested_PID7.tsv", 100),
    ]
    for name, modified_s in made:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (modified_s, modified_s))
    names = RunState(str(tmp_path), "jobs")
    assert [os.path.basename(path) for path in names.requested] == [
        "jobs_carried.tsv",
        "jobs_requested_PID8_requeued.tsv",
        "jobs_requested_PID7-2.tsv",
        "jobs_requested_PID100.tsv",
        "jobs_requested_PID7.tsv",
    ]
    assert names.completed == [str(tmp_path / "jobs_completed_PID7.tsv")]
    assert not RunState(str(tmp_path), "job").has_journals
