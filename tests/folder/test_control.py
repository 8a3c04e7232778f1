"""Control files: the original's, those made by hand, and hostile ones."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from queue import Empty

import pytest

from folder_workers import listed
from persistq import DONE, FAILED, ReadableFolderQueue, WritableFolderQueue
from persistq._folder import control


def outcome(folder: Path) -> object:
    try:
        return ReadableFolderQueue(folder).get(0)
    except Empty:
        return "waits"


def original(folder: Path, kind: str, uuid: str = "u1", pid: str = "000123") -> Path:
    """Write a control file as the original does."""
    path = folder / f"20260101_120000_000000__{pid}{uuid}.{kind}"
    header = {"type": kind, "uuid": uuid, "machineFQDN": "etl.example.com", "pid": pid}
    path.write_text(json.dumps({"header": header}))
    return path


def test_the_originals_producers_are_honoured(folder: Path) -> None:
    original(folder, "helo", "u1")
    original(folder, "helo", "u2")
    assert outcome(folder) == "waits"
    original(folder, "done", "u1")
    assert outcome(folder) == "waits"
    original(folder, "done", "u2", pid="123")  # the same id, with fewer zeros
    assert outcome(folder) is DONE


def test_a_control_file_that_is_gone_by_now_hides_none_behind_it(folder: Path) -> None:
    original(folder, "helo", "u2")
    gone, announced = "20250101_120000_000000__000001u1.helo", os.listdir(folder)[0]
    producers = control.Producers(str(folder))
    producers.look([gone, announced])
    assert list(producers.open.values()) == [announced]


def test_a_done_with_a_header_but_no_helo_is_a_producer_that_is_done(folder: Path) -> None:
    original(folder, "done")
    assert outcome(folder) is DONE
    original(folder, "helo", "u2")
    assert outcome(folder) == "waits"


def test_a_producer_is_machine_process_and_uuid(folder: Path) -> None:
    original(folder, "helo", pid="000123")
    original(folder, "done", pid="000124")
    assert outcome(folder) == "waits"


def test_a_done_made_by_hand_ends_the_queue_once_nothing_waits(folder: Path) -> None:
    producer = WritableFolderQueue(folder)
    (folder / "a.tsv").touch()
    (folder / "x.done").touch()
    queue = ReadableFolderQueue(folder)
    assert os.path.basename(queue.get(0)).endswith("_a.wip")
    assert queue.get(0) is DONE
    assert producer.path == str(folder)


@pytest.mark.parametrize("kind", ["helo", "failed"])
def test_a_helo_or_failed_made_by_hand_fails_the_queue(folder: Path, kind: str) -> None:
    (folder / "a.tsv").touch()
    (folder / f"x.{kind}").touch()
    assert outcome(folder) is FAILED
    (folder / f"x.{kind}").unlink()
    assert os.path.basename(str(outcome(folder))).endswith("_a.wip")


HOSTILE = {
    "empty": b"",
    "list": b"[1, 2]",
    "number": b"17",
    "no header": b'{"uuid": "u1"}',
    "header of another kind": b'{"header": [1]}',
    "header without keys": b'{"header": {}}',
    "keys of other kinds": b'{"header": {"uuid": [], "pid": {}, "machineFQDN": null}}',
    "not UTF-8": b'\xff\xfe{"header": \xe9}',
    "nested deeply": b"[" * 60_000,
    "nested objects": b'{"header":' * 6_000,
    "a long number": b'{"header": ' + b"9" * 60_000 + b"}",
    "NUL": b"\0" * 1000,
    "lone surrogate": b'{"header": {"uuid": "\\ud800"}}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_content_is_taken_as_made_by_hand(folder: Path, content: bytes) -> None:
    (folder / "x.done").write_bytes(content)
    assert outcome(folder) is DONE
    (folder / "x.done").rename(folder / "x.helo")
    assert outcome(folder) is FAILED


def test_a_huge_control_file_takes_no_memory(folder: Path) -> None:
    with open(folder / "x.done", "wb") as file:
        file.write(b'{"header": {"uuid": "')
        file.truncate(100 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcome(folder) is DONE
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20 * 1024  # KiB on Linux, bytes on macOS: less still


@pytest.mark.parametrize("kind", ["helo", "done", "failed"])
def test_only_files_are_control_files(tmp_path: Path, folder: Path, kind: str) -> None:
    (folder / f"folder.{kind}").mkdir()
    (folder / f"dangling.{kind}").symlink_to("nowhere")
    (folder / f"to-folder.{kind}").symlink_to(tmp_path)
    os.mkfifo(folder / f"pipe.{kind}")
    (folder / f".{kind}").touch()
    assert outcome(folder) == "waits"
    WritableFolderQueue(folder).reset()
    assert sorted(name for name in listed(folder) if "__" not in name) == sorted(
        [f".{kind}", f"folder.{kind}"]
    )
    assert tmp_path.is_dir()


def test_a_control_file_comes_to_the_notice_of_a_queue_that_watches(folder: Path) -> None:
    queue = ReadableFolderQueue(folder)
    with pytest.raises(Empty):
        queue.get(0)
    original(folder, "helo")
    with pytest.raises(Empty):
        queue.get(0)
    done = original(folder, "done")
    assert queue.get(0) is DONE
    done.unlink()
    with pytest.raises(Empty):
        queue.get(0)
    (folder / "x.failed").touch()
    assert queue.get(0) is FAILED


def test_get_removes_no_control_file(folder: Path) -> None:
    producer = WritableFolderQueue(folder)
    producer.close()
    before = sorted(listed(folder))
    assert outcome(folder) is DONE
    assert sorted(listed(folder)) == before
