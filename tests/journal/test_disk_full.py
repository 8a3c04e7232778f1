"""A full disk: the error reaches the caller, journals hold whole lines, and work goes on."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import workers
from journal.conftest import Journals
from persistq import PersistentQueue

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
