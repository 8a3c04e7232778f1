"""The public names, and the reference's signatures."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

import persistq
from persistq import exceptions, queuing

NAMES = {
    "PersistentQueue",
    "WritableFolderQueue",
    "ReadableFolderQueue",
    "ReadableGroupedFileFolderQueue",
    "DONE",
    "FAILED",
    "FailedWork",
    "Summary",
    "run",
    "pickup_dirs",
    "PersistqError",
    "UpstreamFailureError",
    "JournalError",
    "PreviousRunActiveError",
    "__version__",
}


def test_the_public_names_are_there_in_both_modules() -> None:
    assert set(persistq.__all__) == NAMES
    assert set(queuing.__all__) == NAMES | {"_FolderQueue"}
    for name in persistq.__all__:
        assert getattr(queuing, name) is getattr(persistq, name)


def test_the_signature_is_the_references_and_then_keywords() -> None:
    parameters = list(inspect.signature(persistq.PersistentQueue).parameters.values())
    same = persistq.PersistentQueue.return_same
    assert [(p.name, p.default) for p in parameters] == [
        ("pickup_file_prefix", None),
        ("current_pickup_dir", None),
        ("previous_pickup_dir", None),
        ("formatter_list", [same]),
        ("converter_list", [same]),
        ("number_of_workers", 1),
        ("use_queue", True),
        ("queue", None),
        ("number_of_producers", 1),
        ("fsync", False),
        ("record_started", True),
        ("maxsize", 0),
        ("max_attempts", 5),
    ]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:7])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[7:])


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("put", ["self", "obj", "block", "timeout"]),
        ("put_nowait", ["self", "obj"]),
        ("get", ["self", "block", "timeout"]),
        ("get_nowait", ["self"]),
        ("task_done", ["self", "obj"]),
        ("get_list_of_outstanding_work", ["self"]),
        ("requeue_unprocessed_work", ["self", "skip_unreadable", "pass_over"]),
        ("mark_all_work_done", ["self"]),
        ("close", ["self"]),
        ("fail", ["self"]),
        ("dispose", ["self", "give_up"]),
        ("return_same", ["obj"]),
        ("put_many", ["self", "iterable", "block", "timeout"]),
        ("join", ["self", "timeout"]),
        ("task_done_many", ["self", "iterable"]),
        ("task_failed", ["self", "obj", "reason"]),
        ("attempt", ["self", "obj"]),
        ("task_lost", ["self", "obj", "how"]),
        ("progress", ["self"]),
        ("work", ["self", "function"]),
        ("get_list_of_failed_work", ["self"]),
        ("requeue_failed_work", ["self", "messages"]),
        ("discard_failed_work", ["self", "messages"]),
    ],
)
def test_the_methods_of_the_reference_are_there(method: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(persistq.PersistentQueue, method))
    assert list(signature.parameters) == parameters


@pytest.mark.parametrize(
    "error",
    [
        persistq.PersistqError("a"),
        persistq.UpstreamFailureError("a"),
        persistq.JournalError("a"),
        persistq.PreviousRunActiveError("a"),
    ],
)
def test_errors_pickle(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
    assert isinstance(error, exceptions.MPXError)


@pytest.mark.parametrize("sentinel", [persistq.DONE, persistq.FAILED])
def test_sentinels_stay_identical_through_pickling(sentinel: persistq._sentinels.Sentinel) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(sentinel, protocol)) is sentinel


def test_journal_errors_are_value_errors() -> None:
    assert issubclass(persistq.JournalError, ValueError)


@pytest.mark.parametrize("first", ["", "import logging; "])
def test_nothing_is_printed_where_the_user_has_set_up_no_logging(first: str) -> None:
    code = first + (
        "from persistq import queuing; import logging; "
        "logging.getLogger('persistq').warning('a warning'); queuing.DONE"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert (ended.stdout, ended.stderr) == ("", "")
