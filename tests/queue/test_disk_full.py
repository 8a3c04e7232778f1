"""A full disk: the error reaches the caller, journals hold whole lines, and work goes on."""

from __future__ import annotations

import errno
import os
import queue
from typing import TYPE_CHECKING

import pytest

import workers
from journals import Journals
from persistq import PersistentQueue, _fs
from persistq._carrier import spill
from persistq._carrier.carrier import Carrier

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery

pytest.importorskip("resource", reason="needs RLIMIT_FSIZE")


@pytest.mark.parametrize("limit", range(40, 62, 3))
def test_what_a_full_disk_refuses_is_never_delivered(
    tmp_path: Path, nursery: Nursery, limit: int
) -> None:
    accepted, refused, delivered = nursery.start(
        workers.put_on_a_full_disk, str(tmp_path), limit
    ).result()
    assert refused
    assert set(refused.values()) == {errno.EFBIG}
    assert delivered == accepted
    assert accepted[-1] == "space is back"
    journals = Journals(tmp_path)
    assert journals.outstanding() == accepted
    for path in tmp_path.iterdir():
        assert path.read_bytes().endswith(b"\n")


def test_a_completion_that_a_full_disk_refuses_can_be_repeated(
    tmp_path: Path, nursery: Nursery
) -> None:
    child = nursery.start(workers.complete_on_a_full_disk, str(tmp_path))
    assert child.result() == [errno.EFBIG, True]
    assert Journals(tmp_path).outstanding() == []


def test_work_that_cannot_be_carried_is_carried_by_the_next_run(
    tmp_path: Path, nursery: Nursery
) -> None:
    work = [f"message {n}" for n in range(1000)]
    PersistentQueue("jobs", tmp_path / "1", use_queue=False).put_many(work)
    child = nursery.start(workers.carry_on_a_full_disk, str(tmp_path / "2"), str(tmp_path / "1"))
    assert child.result() == errno.EFBIG
    assert os.listdir(tmp_path / "2") == []
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", use_queue=False)
    assert q.get_list_of_outstanding_work() == work


def test_of_a_batch_that_is_interrupted_half_way_all_is_outstanding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C: whether the one under way was sent is not known, and the rest was accepted."""
    q = PersistentQueue("jobs", tmp_path)
    batches: list[list[bytes]] = []

    def send(batch: list[bytes]) -> None:
        batches.append(batch)
        if len(batches) == 3:
            raise KeyboardInterrupt
        Carrier._send_batch(q.joinable_queue, batch)

    messages = [f"message {n}" for n in range(100)]
    with monkeypatch.context() as patch:
        patch.setattr(q.joinable_queue, "_send_batch", send)
        with pytest.raises(KeyboardInterrupt):
            q.put_many(messages)
    # Undone, some versions of pytest leave a method there, which keeps the queue from being freed.
    vars(q.joinable_queue).pop("_send_batch", None)
    sent = messages[: len(batches[0]) * 2]
    assert Journals(tmp_path).outstanding() == messages
    assert [q.get(False) for _ in sent] == sent
    assert q.empty()


def test_a_large_message_that_was_read_is_handed_out_though_its_place_cannot_be_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a full file system that copies what is written over."""

    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    q = PersistentQueue()
    messages = ["x" * 5000, "y" * (spill.LARGEST_SLOT + 1)]
    q.put_many(messages)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        patch.setattr(os, "unlink", refuse)
        assert [q.get() for _ in messages] == messages


def test_work_whose_claim_cannot_be_synced_is_requeued_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PersistentQueue("jobs", tmp_path / "1", use_queue=False).put_many(["a", "b"])
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())

    def fail(folder: str) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "sync_folder", fail)
        assert workers.error_number(q.requeue_unprocessed_work) == errno.EIO
    assert q.qsize() == 0
    assert q.requeue_unprocessed_work() == 2
