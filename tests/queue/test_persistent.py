"""PersistentQueue in one process: what it records, hands out, and refuses."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import workers
from persistq import DONE, FAILED, PersistentQueue, UpstreamFailureError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from journals import Journals

    MakeQueue = Callable[..., PersistentQueue]


def drain(q: PersistentQueue) -> list[Any]:
    """Take what waits, without waiting for more than what is on its way; at most one sentinel."""
    messages = []
    while True:
        try:
            messages.append(q.get(timeout=0.5))
        except queue.Empty:
            return messages
        if messages[-1] is DONE or messages[-1] is FAILED:
            return messages


def test_what_is_put_is_recorded_before_it_can_be_taken(
    make_queue: MakeQueue, journals: Journals
) -> None:
    seen: list[list[str]] = []

    class Spy(queue.Queue):  # type: ignore[type-arg]
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            seen.append(journals.lines("requested"))
            super().put(item, block, timeout)

    q = make_queue(queue=Spy())
    q.put("a")
    q.put(("b", "c"))
    assert seen == [["a"], ["a", "b\tc"]]


def test_a_message_is_completed_before_the_queue_is_told(
    make_queue: MakeQueue, journals: Journals
) -> None:
    seen: list[list[str]] = []

    class Spy(queue.Queue):  # type: ignore[type-arg]
        def task_done(self) -> None:
            seen.append(journals.lines("completed"))
            super().task_done()

    q = make_queue(queue=Spy())
    q.put("a")
    q.task_done(q.get())
    assert seen == [["a"]]
    assert journals.outstanding() == []


def test_a_message_that_was_taken_and_not_completed_is_outstanding(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue()
    for message in ("a", "b", "a", ("c", 4), {"d": [5]}):
        q.put(message)
    q.task_done(q.get(timeout=5))
    assert q.get(timeout=5) == "b"
    assert journals.outstanding() == ["b", "a", ("c", 4), {"d": [5]}]


def test_an_unlabeled_queue_has_a_prefix_of_its_own(make_queue: MakeQueue, current: Path) -> None:
    q = make_queue(pickup_file_prefix=None)
    q.put("a")
    assert q.pickup_file_prefix is None
    names = [name for name in os.listdir(current) if name.endswith(".tsv")]
    assert names == [f"unlabeled_queue_requested_PID{os.getpid()}.tsv"]


def test_without_a_directory_nothing_is_recorded_and_anything_travels(tmp_path: Path) -> None:
    q = PersistentQueue("jobs")
    for message in ("a", b"raw", {1: {2}}, 0, -1, None):
        q.put(message)
    q.put_many([b"x", 3.5])
    assert drain(q) == ["a", b"raw", {1: {2}}, 0, -1, None, b"x", 3.5]
    for _ in range(8):
        q.task_done("anything")
    assert q.join(5)
    assert (q.put_file, q.done_file) == (None, None)


def test_zero_and_minus_one_are_work(make_queue: MakeQueue, journals: Journals) -> None:
    q = make_queue()
    q.put_many([0, -1, False])
    q.close()
    got = list(q)
    assert got == [0, -1, False]
    assert journals.outstanding() == [0, -1, False]
    assert DONE == 0
    assert FAILED == -1


def test_sentinels_are_not_recorded(make_queue: MakeQueue, journals: Journals) -> None:
    q = make_queue(number_of_workers=2)
    q.put(DONE)
    q.close()
    assert [q.get(timeout=5) for _ in range(3)] == [DONE] * 3
    q.task_done(DONE)
    q.task_done(FAILED)
    assert journals.names() == []
    assert q.join(5)


def test_what_travels_is_the_message_as_it_was_at_the_call(make_queue: MakeQueue) -> None:
    for carrier in (None, queue.Queue()):
        q = make_queue(queue=carrier)
        message = {"state": "old"}
        q.put(message)
        message["state"] = "new"
        assert q.get(timeout=5) == {"state": "old"}


def test_threads_may_share_what_cannot_be_pickled() -> None:
    q = PersistentQueue(queue=queue.Queue())
    lock = threading.Lock()
    q.put(lock)
    assert q.get() is lock


def test_a_message_that_cannot_be_journalled_is_refused(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue()
    with pytest.raises(TypeError, match=r"set.*formatter_list"):
        q.put({1, 2})
    with pytest.raises(TypeError, match=r"field 1 of the message is a bytes"):
        q.put_many(["fine", ("x", b"raw")])
    assert journals.names() == []
    assert drain(q) == []


def test_a_message_that_cannot_be_pickled_is_refused_in_the_caller(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue(formatter_list=[repr])
    with pytest.raises(TypeError, match=r"function that cannot be pickled .* path, a key"):
        q.put(lambda: None)
    with pytest.raises(TypeError, match="cannot be pickled"):
        q.put_many(["fine", threading.Lock()])
    assert journals.names() == []
    assert drain(q) == []


def test_formatters_and_converters_apply_to_the_journal_alone(
    make_queue: MakeQueue, journals: Journals
) -> None:
    functions: dict[str, Any] = {
        "formatter_list": [workers.to_hex, PersistentQueue.return_same],
        "converter_list": [workers.from_hex],
    }
    q = make_queue(**functions)
    q.put((255, "b"))
    q.put((16, "b"))
    assert q.get(timeout=5) == (255, "b")
    q.task_done((255, "b"))
    assert journals.lines("requested") == ["0xff\tb", "0x10\tb"]
    again = make_queue(previous_pickup_dir=journals.folder, **functions)
    assert again.get_list_of_outstanding_work() == [(16, "b")]


def test_a_refused_message_is_withdrawn(make_queue: MakeQueue, journals: Journals) -> None:
    q = make_queue(queue=queue.Queue(2))
    q.put("a")
    q.put("b")
    with pytest.raises(queue.Full):
        q.put("c", timeout=0.01)
    with pytest.raises(queue.Full):
        q.put_nowait("d")
    q.get()
    with pytest.raises(queue.Full):
        q.put_many(["e", "f", "g"], block=False)
    assert journals.outstanding() == ["a", "b", "e"]
    assert drain(q) == ["b", "e"]


def test_the_line_of_an_interrupted_put_stays_for_it_may_have_been_sent(
    make_queue: MakeQueue, journals: Journals
) -> None:
    class Interrupted(queue.Queue):  # type: ignore[type-arg]
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item, block, timeout)
            raise KeyboardInterrupt

    q = make_queue(queue=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        q.put("a")
    q.task_done(q.get())
    with pytest.raises(KeyboardInterrupt):
        q.put("a")
    assert journals.outstanding() == ["a"]


def test_task_done_once_too_often_leaves_no_record(
    make_queue: MakeQueue, journals: Journals
) -> None:
    for carrier in (None, queue.Queue()):
        q = make_queue(queue=carrier)
        q.put("a")
        q.task_done(q.get(timeout=5))
        with pytest.raises(ValueError, match="called too many times"):
            q.task_done("a")
    assert journals.lines("completed") == ["a", "a"]


def test_get_waits_for_seconds(make_queue: MakeQueue) -> None:
    q = make_queue()
    start_s = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.2)
    assert 0.15 < time.monotonic() - start_s < 10
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(queue.Empty):
        q.get(False)


def test_a_kept_done_does_not_prolong_the_wait() -> None:
    q = PersistentQueue(number_of_producers=3, queue=queue.Queue())
    q.close()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.05)


def test_iteration_stops_at_done_and_disposes(make_queue: MakeQueue) -> None:
    q = make_queue()
    q.put_many(["a", "b"])
    q.close()
    for message in q:
        q.task_done(message)
        file = q.done_file
    assert file is not None
    assert file.closed
    assert q.join(5)


def test_iteration_raises_when_a_producer_has_failed(make_queue: MakeQueue) -> None:
    q = make_queue()
    q.put("a")
    q.fail()
    taken = iter(q)
    assert next(taken) == "a"
    with pytest.raises(UpstreamFailureError, match="jobs"):
        next(taken)


def test_task_done_after_dispose_opens_the_journal_again(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue()
    q.put_many(["a", "b"])
    q.task_done(q.get(timeout=5))
    q.dispose()
    q.task_done(q.get(timeout=5))
    assert journals.lines("completed") == ["a", "b"]


def test_a_closed_queue_takes_nothing_more(make_queue: MakeQueue, journals: Journals) -> None:
    for end in (PersistentQueue.close, PersistentQueue.fail):
        q = make_queue()
        q.put("a")
        end(q)
        end(q)
        with pytest.raises(ValueError, match="after close"):
            q.put("b")
        with pytest.raises(ValueError, match="after close"):
            q.put_many(["b"])
        assert drain(q) == ["a", DONE if end is PersistentQueue.close else FAILED]
    assert journals.outstanding() == ["a", "a"]


def test_close_puts_a_done_for_each_worker_that_there_is_by_then(make_queue: MakeQueue) -> None:
    q = make_queue(number_of_workers=2, queue=queue.Queue())
    q.number_of_workers = 3
    q.close()
    assert [q.get(timeout=5) for _ in range(3)] == [DONE] * 3
    with pytest.raises(queue.Empty):
        q.get(timeout=0.05)


def test_on_the_default_carrier_everybody_meets_done_however_many_there_are(
    make_queue: MakeQueue,
) -> None:
    q = make_queue()
    q.put("a")
    q.close()
    assert [q.get(timeout=5) for _ in range(5)] == ["a", *[DONE] * 4]
    assert q.get() is DONE
    assert q.get_nowait() is DONE


def test_close_can_be_called_again_for_the_dones_that_had_no_room(make_queue: MakeQueue) -> None:
    class Small(queue.Queue):  # type: ignore[type-arg]
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item, False)

    q = make_queue(number_of_workers=3, queue=Small(2))
    with pytest.raises(queue.Full):
        q.close()
    assert [q.get(), q.get()] == [DONE, DONE]
    q.close()
    q.close()
    assert drain(q) == [DONE]


def test_of_several_producers_the_last_done_counts(make_queue: MakeQueue) -> None:
    q = make_queue(number_of_producers=2, number_of_workers=2, queue=queue.Queue())
    other = make_queue(number_of_producers=2, number_of_workers=2, queue=q.joinable_queue)
    q.put("a")
    q.close()
    other.put("b")
    other.close()
    first, second = list(q), list(other)
    assert first + second == ["a", "b"]
    assert drain(q) == []


def test_failed_is_handed_out_at_once(make_queue: MakeQueue) -> None:
    q = make_queue(number_of_producers=5, queue=queue.Queue())
    q.fail()
    assert q.get() is FAILED


def test_as_a_context_manager_it_closes_or_fails(make_queue: MakeQueue) -> None:
    with make_queue() as q:
        q.put("a")
    assert drain(q) == ["a", DONE]
    q = make_queue()
    with pytest.raises(KeyError), q:
        raise KeyError("in the block")
    assert drain(q) == [FAILED]


def test_a_batch_is_recorded_with_one_write(make_queue: MakeQueue, current: Path) -> None:
    q = make_queue(fsync=True)
    q.put_many(f"message {n}" for n in range(1000))
    assert drain(q) == [f"message {n}" for n in range(1000)]
    q.put_many([])
    file = q.put_file
    assert file is not None
    assert file.name == str(current / f"jobs_requested_PID{os.getpid()}.tsv")
    assert os.path.getsize(file.name) == sum(len(f"message {n}\n") for n in range(1000))


def test_a_sentinel_in_a_batch_is_refused(make_queue: MakeQueue, journals: Journals) -> None:
    q = make_queue()
    with pytest.raises(TypeError, match=r"close\(\)"):
        q.put_many(["a", DONE])
    assert journals.names() == []


@pytest.mark.parametrize("make_carrier", [lambda: None, queue.Queue, multiprocessing.JoinableQueue])
def test_join_without_time_tells_the_truth_at_once(
    make_queue: MakeQueue, make_carrier: Callable[[], Any]
) -> None:
    q = make_queue(queue=make_carrier())
    for _ in range(100):
        q.put("a")
        assert not q.join(0)
        q.task_done(q.get(timeout=20))
        assert q.join(0)


@pytest.mark.parametrize("carrier", [None, queue.Queue()])
def test_join_says_whether_all_was_done(make_queue: MakeQueue, carrier: Any) -> None:
    q = make_queue(queue=carrier)
    q.put_many(["a", "b"])
    q.task_done(q.get(timeout=5))
    assert q.join(0.01) is False
    assert q.join(0) is False
    q.task_done(q.get(timeout=5))
    assert q.join(5) is True
    assert q.join() is True


def test_sizes(make_queue: MakeQueue) -> None:
    q = make_queue(queue=queue.Queue(2))
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
    q.put("a")
    assert (q.qsize(), q.empty(), q.full()) == (1, False, False)
    q.put("b")
    assert (q.qsize(), q.empty(), q.full()) == (2, False, True)


def test_mark_all_work_done_completes_what_is_left_and_keeps_the_sentinels(
    make_queue: MakeQueue, journals: Journals
) -> None:
    for carrier in (None, queue.Queue()):
        q = make_queue(queue=carrier, number_of_workers=2)
        q.put_many(["a", "b", "c"])
        q.close()
        assert q.get(timeout=5) == "a"
        q.mark_all_work_done()
        assert journals.outstanding() == ["a"]
        assert [q.get(timeout=5), q.get(timeout=5)] == [DONE, DONE]
        q.task_done("a")
        assert q.join(5)


def test_a_carrier_needs_only_put_and_get(make_queue: MakeQueue) -> None:
    class Minimal:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def put(self, obj: Any, block: bool, timeout: float | None) -> None:
            self.messages.append(obj)

        def get(self, block: bool, timeout: float | None) -> Any:
            if not self.messages:
                raise queue.Empty
            return self.messages.pop(0)

    q = make_queue(queue=Minimal())
    q.put({"a": 1})
    message = q.get()
    q.task_done(message)
    assert message == {"a": 1}
    assert q.full() is False
    with pytest.raises(NotImplementedError):
        q.qsize()
    with pytest.raises(Exception, match="Minimal"):
        q.join(0)
    q.put("b")
    q.mark_all_work_done()
    with pytest.raises(queue.Empty):
        q.get()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"pickup_file_prefix": "a/b"}, ValueError, "path separators"),
        ({"pickup_file_prefix": ""}, ValueError, "cannot start a file name"),
        ({"pickup_file_prefix": 3}, TypeError, "expected a str"),
        ({"use_queue": False, "current_pickup_dir": None}, ValueError, "current_pickup_dir"),
        ({"previous_pickup_dir": "no/such/place"}, FileNotFoundError, "no/such/place"),
        ({"number_of_workers": -1}, ValueError, "expected 0 or more"),
        ({"number_of_workers": "two"}, ValueError, "'two'"),
        ({"number_of_producers": 0}, ValueError, "expected 1 or more"),
        ({"formatter_list": ["upper"]}, TypeError, r"formatter_list\[0\]"),
        ({"converter_list": [None, 3]}, TypeError, r"converter_list\[1\]"),
        ({"maxsize": -1}, ValueError, "expected 0, for no bound"),
        ({"maxsize": 1.5}, ValueError, "1.5"),
        ({"maxsize": 2, "use_queue": False}, ValueError, "without use_queue=False"),
        ({"maxsize": 2, "queue": queue.Queue(2)}, ValueError, "a bound of its own"),
        ({"queue": []}, TypeError, r"no put\(\).*JoinableQueue"),
        ({"queue": multiprocessing.SimpleQueue()}, TypeError, "SimpleQueue, whose put"),
    ],
)
def test_bad_arguments_are_named(
    make_queue: MakeQueue,
    current: Path,
    arguments: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        make_queue(**arguments)


def test_a_function_that_no_other_process_can_find_is_named(make_queue: MakeQueue) -> None:
    q = make_queue(use_queue=False, formatter_list=[str, lambda x: x])
    with pytest.raises(TypeError, match=r"formatter_list\[1\] .*top of a module"):
        pickle.dumps(q)


# --- use_queue=False ---------------------------------------------------------------------


def test_without_a_queue_the_journal_hands_out_what_it_holds(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue(use_queue=False, number_of_workers=2)
    q.put_many(["a", {"b": 1}])
    q.put("c")
    q.task_done("a")  # it does not count
    q.task_done("a")
    q.close()
    assert (q.qsize(), q.empty(), q.full(), q.join()) == (2, False, False, False)
    assert [q.get() for _ in range(4)] == [{"b": 1}, "c", DONE, DONE]
    with pytest.raises(queue.Empty):
        q.get()
    q.task_done({"b": 1})
    q.task_done("c")
    assert (q.qsize(), q.empty(), q.join()) == (0, True, True)
    assert journals.outstanding() == []


def test_without_a_queue_a_copy_pickles_anywhere(make_queue: MakeQueue) -> None:
    q = make_queue(use_queue=False)
    q.put("a")
    copy = pickle.loads(pickle.dumps(q))
    assert list(copy) == ["a"]
    assert copy.joinable_queue is None


def test_without_a_queue_nothing_is_taken_once_work_has_begun(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue(use_queue=False)
    q.put("a")
    assert q.get() == "a"
    with pytest.raises(ValueError, match="before the first get"):
        q.put("b")
    assert journals.outstanding() == ["a"]


def test_without_a_queue_a_failure_is_told_behind_the_work(make_queue: MakeQueue) -> None:
    q = make_queue(use_queue=False)
    q.put("a")
    q.fail()
    assert [q.get(), q.get()] == ["a", FAILED]


def test_without_a_queue_mark_all_work_done_completes_the_rest(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue(use_queue=False)
    q.put_many(["a", "b", "c"])
    assert q.get() == "a"
    q.mark_all_work_done()
    assert journals.outstanding() == ["a"]
    assert q.get() is DONE


def test_repr_names_queue_and_directory(make_queue: MakeQueue, current: Path) -> None:
    assert repr(make_queue()) == f"<PersistentQueue 'jobs' in {str(current)!r}>"


def test_nothing_is_logged_in_an_undisturbed_life(
    make_queue: MakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        with make_queue() as q:
            q.put("a")
        for message in q:
            q.task_done(message)
        q.join()
    assert caplog.records == []
