"""What type checkers see, and what is left of that at run time."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import queue
import subprocess
import sys
from pathlib import Path

import pytest

from persistq import (
    FailedWork,
    PersistentQueue,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
)

ROOT = Path(__file__).parent.parent


def check(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker of this interpreter, on src/ and not on what is installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        # Where pyright looks for the interpreter that says what can be imported.
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }
    return subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def pyright() -> None:
    """Skip where pyright cannot run: it is fetched, with a node of its own, at its first start."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    started = check("pyright", "--version")
    if started.returncode != 0:
        pytest.skip(f"pyright does not start: {started.stdout}")


@pytest.mark.timeout(240)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_typed_script_of_a_users_is_understood_and_its_errors_found(tmp_path: Path) -> None:
    ended = check("mypy", "--cache-dir", str(tmp_path), "tests/typed")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.timeout(240)
def test_pyright_understands_it_and_finds_its_errors_too(pyright: None) -> None:
    ended = check("pyright", "tests/typed")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.timeout(240)
def test_a_type_checker_knows_all_that_is_public(pyright: None) -> None:
    ended = check("pyright", "--verifytypes", "persistq", "--ignoreexternal")
    assert f'Package directory: "{ROOT / "src" / "persistq"}"' in ended.stdout
    assert "Type completeness score: 100%" in ended.stdout
    assert ended.returncode == 0, ended.stdout


def test_folder_queues_are_subscriptable_and_stay_what_they_are(tmp_path: Path) -> None:
    class Uploads(ReadableFolderQueue[str]):
        pass

    (tmp_path / "a.tsv").touch()
    uploads = pickle.loads(pickle.dumps(ReadableFolderQueue[str](tmp_path)))
    assert type(uploads) is ReadableFolderQueue
    assert Uploads(tmp_path).get(timeout=0) == uploads.wip_filename("a.tsv")
    assert issubclass(ReadableGroupedFileFolderQueue, ReadableFolderQueue)


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
