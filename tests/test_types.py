"""What type checkers see, and what is left of that at run time."""

from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from persistq import FailedWork, PersistentQueue

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(240)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_typed_script_of_a_users_is_understood_and_its_errors_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "tests/typed"]
    ended = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stdout


def test_queues_and_failed_work_are_subscriptable_as_those_of_the_standard_library_are() -> None:
    assert PersistentQueue[str].__origin__ is PersistentQueue  # type: ignore[attr-defined]
    assert FailedWork[str].__args__ == (str,)  # type: ignore[attr-defined]

    class Orders(PersistentQueue[str]):
        pass

    orders = Orders(queue=queue.Queue())
    orders.put("a")
    assert isinstance(orders, PersistentQueue)
    assert next(iter(orders)) == "a"


def test_a_subscript_changes_nothing_of_what_a_worker_gets(tmp_path: Path) -> None:
    class OfThisFunction:  # which pickle could not find
        pass

    context = multiprocessing.get_context("spawn")
    orders = PersistentQueue[OfThisFunction]("jobs", tmp_path, queue=context)
    assert type(orders) is PersistentQueue
    orders.put("a")  # type: ignore[arg-type]
    orders.close()
    worker = context.Process(target=orders.work, args=(len,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert orders.join(0)


def test_an_alias_pickles() -> None:
    assert pickle.loads(pickle.dumps(PersistentQueue[str])) == PersistentQueue[str]
