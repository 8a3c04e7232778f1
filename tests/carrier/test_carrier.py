"""What a Carrier does for its users, apart from what happens when processes are killed."""

from __future__ import annotations

import _thread
import fcntl
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import queues
from queue import Empty, Full
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier import feeder
from persistq._carrier.carrier import Carrier
from persistq._carrier.default_carrier import new_carrier
from persistq._carrier.pipe import RECORD_BYTES, open_pipe, records_in
from persistq._carrier.record import INLINE_BYTES
from persistq.exceptions import PersistqError

if TYPE_CHECKING:
    from processes import Nursery

FORK = multiprocessing.get_context("fork")
# More than the pipe holds, so that a feeder has the rest.
MANY = 3 * (1 << 20) // RECORD_BYTES


def no_threads(error: type[BaseException] = RuntimeError) -> Any:
    """Stand in for `_thread` where none can be started, or an interrupt hits the start."""

    def refuse(*args: object) -> None:
        raise error("can't start new thread")

    return SimpleNamespace(start_new_thread=refuse, get_ident=_thread.get_ident)


def drain(queue: Any) -> list[Any]:
    messages = []
    while True:
        try:
            messages.append(queue.get(timeout=0.2))
        except Empty:
            return messages


def test_a_carrier_is_a_joinable_queue() -> None:
    assert isinstance(new_carrier(), queues.JoinableQueue)
    assert isinstance(new_carrier(), Carrier)


def test_what_the_base_class_adds_later_is_noticed() -> None:
    # The base's own methods use locks that a Carrier does not have.
    harmless = {"get_nowait", "put_nowait", "__class_getitem__", "__init__"}
    feeding = {"_start_thread", "_feed", "_finalize_join", "_finalize_close"}
    feeding |= {"_on_queue_feeder_error"}
    methods = {
        name
        for base in (queues.Queue, queues.JoinableQueue)
        for name, value in vars(base).items()
        if callable(value) or isinstance(value, (staticmethod, classmethod))
    }
    assert methods - set(vars(Carrier)) <= harmless | feeding


def test_messages_of_every_size_arrive_whole_and_in_order(
    nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    sizes = [0, 1, 30, *range(INLINE_BYTES - 40, INLINE_BYTES + 3), 1000, 5000, 100_000, 6_000_000]
    messages = [("x" * size, index) for index, size in enumerate(sizes)]
    child = nursery.start(carrier_workers.echo_until_none, queue, method=start_method)
    for message in messages:
        queue.put(message)
    queue.put(None)
    assert child.receive() == "ready"
    assert child.result() == messages
    assert queue.join(timeout=0)


@pytest.mark.parametrize("size", range(INLINE_BYTES - 2, INLINE_BYTES + 3))
def test_bytes_arrive_as_they_are(size: int) -> None:
    queue = Carrier()
    for data in (b"\0" * size, b"\xff" * size, bytes([size % 256]) * size):
        queue.put_bytes(data)
        assert queue.get_bytes() == data


def test_put_bytes_many_sends_all_in_order_from_another_process(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    messages = [b"%d" % n + b"y" * (n % 900) for n in range(3000)]
    child = nursery.start(carrier_workers.put_raw, queue, messages)
    assert [queue.get_bytes(timeout=20) for _ in messages] == messages
    assert child.result() == len(messages)
    for _ in messages:
        queue.task_done()
    assert queue.join(timeout=0)


def test_more_than_the_pipe_holds_arrives_in_order() -> None:
    queue = Carrier()
    expected = [*range(MANY), "one", *range(MANY)]
    for n in range(MANY):
        queue.put(n)
    assert queue.qsize() == MANY
    queue.put("one")
    for n in range(MANY):
        queue.put(n)
    assert [queue.get() for _ in expected] == expected


def test_put_bytes_many_leaves_what_the_pipe_has_no_room_for_to_the_feeder() -> None:
    queue = Carrier()
    messages = [b"%d" % n for n in range(MANY)]
    assert queue.put_bytes_many(messages) == MANY
    queue.put_bytes(b"last")
    assert [queue.get_bytes() for _ in range(MANY + 1)] == [*messages, b"last"]


def test_a_process_that_ends_normally_sends_all_it_has_put(
    nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    child = nursery.start(carrier_workers.put_all, queue, list(range(MANY)), method=start_method)
    assert [queue.get(timeout=20) for _ in range(MANY)] == list(range(MANY))
    child.result()


def test_the_feeder_rests_until_there_is_room_for_many_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = Carrier()
    fd = queue._reader.fileno()
    received: list[bytes | None] = []
    rests_s: list[float] = []

    def take_half(seconds: float) -> None:
        rests_s.append(seconds)
        received.extend(queue.get_bytes(False) for _ in range(records_in(fd) // 2))

    messages = [b"%d" % n for n in range(MANY)]
    with monkeypatch.context() as patch:
        patch.setattr(feeder, "_thread", no_threads())  # but in this thread, by finish()
        patch.setattr("persistq._carrier.feeder.time", SimpleNamespace(sleep=take_half))
        patch.setattr(queue._feeder, "_call_thread", lambda: None)
        queue.put_bytes_many(messages)
        patch.delattr(queue._feeder, "_call_thread")
        capacity = records_in(fd)
        queue._feeder.finish()
    assert 1 <= len(rests_s) <= MANY // (capacity // 2)
    # Even a reader that takes a record in a microsecond finds more when the rest ends.
    assert 0 < rests_s[0] < 0.000001 * capacity
    assert received + [queue.get_bytes(False) for _ in range(records_in(fd))] == messages


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe can be set on Linux")
def test_a_feeder_that_is_just_ending_forgets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "LINGER_S", 0)  # it ends as soon as it has nothing to do
    queue = Carrier()
    fcntl.fcntl(queue._writer.fileno(), 1031, 4096)  # F_SETPIPE_SZ: 16 records
    makers, each = 4, 4000

    def make(who: int) -> None:
        for n in range(each):
            queue.put((who, n))

    threads = [threading.Thread(target=make, args=(who,)) for who in range(makers)]
    for thread in threads:
        thread.start()
    taken = [queue.get(timeout=10) for _ in range(makers * each)]
    for thread in threads:
        thread.join()
    for who in range(makers):
        assert [n for maker, n in taken if maker == who] == list(range(each))
    queue._feeder.finish()
    assert not queue.board.in_transit()[queue.board.token()].backlog


@pytest.mark.parametrize("when", ["before the first put", "after the last put"])
def test_a_process_need_not_wait_for_its_feeder(nursery: Nursery, when: str) -> None:
    queue = Carrier(ctx=FORK)
    child = nursery.start(carrier_workers.put_and_exit_without_waiting, queue, MANY, when)
    child.result()  # ends although nobody reads
    taken = drain(queue)
    assert taken == list(range(len(taken)))
    assert 0 < len(taken) < MANY


def test_a_script_whose_queue_nobody_will_read_again_can_drop_it() -> None:
    code = (
        "from persistq._carrier.carrier import Carrier\n"
        f"q = Carrier()\nfor n in range({MANY}): q.put(n)\ndel q"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_fork_while_the_feeder_runs_starts_with_an_empty_backlog(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    for n in range(MANY):
        queue.put(("parent", n))
    child = nursery.start(carrier_workers.put_all, queue, [("child", n) for n in range(MANY)])
    taken = [queue.get(timeout=20) for _ in range(2 * MANY)]
    child.result()
    assert [n for who, n in taken if who == "parent"] == list(range(MANY))
    assert [n for who, n in taken if who == "child"] == list(range(MANY))


def test_a_bare_fork_while_the_feeder_runs_is_a_process_of_its_own() -> None:
    # os.fork() runs none of multiprocessing's hooks.
    queue = Carrier(ctx=FORK)
    queue.put("x" * 5000)
    for n in range(MANY):
        queue.put(n)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            queue.put(("child", "x" * 5000))
            queue.close()
            queue.join_thread()
            status = 0
        finally:
            os._exit(status)
    taken = [queue.get(timeout=20) for _ in range(MANY + 2)]
    assert os.waitpid(pid, 0)[1] == 0
    assert [message for message in taken if isinstance(message, int)] == list(range(MANY))
    assert [message for message in taken if not isinstance(message, int)] == [
        "x" * 5000,
        ("child", "x" * 5000),
    ]


def test_many_threads_put_and_get_at_once() -> None:
    queue = Carrier()
    each, makers = 1500, 4
    taken: list[list[Any]] = [[] for _ in range(makers)]

    def make(who: int) -> None:
        for n in range(each):
            queue.put((who, n, "x" * (n % 600)))

    def take(into: list[Any]) -> None:
        while (message := queue.get()) is not None:
            into.append(message)

    threads = [threading.Thread(target=make, args=(who,)) for who in range(makers)]
    takers = [threading.Thread(target=take, args=(into,)) for into in taken]
    for thread in threads + takers:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in takers:
        queue.put(None)
    for thread in takers:
        thread.join()
    everything = [message for into in taken for message in into]
    assert sorted(everything) == [
        (who, n, "x" * (n % 600)) for who in range(makers) for n in range(each)
    ]
    for into in taken:  # each reader sees each writer's messages in the order put
        for who in range(makers):
            numbers = [n for maker, n, _ in into if maker == who]
            assert numbers == sorted(numbers)


def test_a_get_with_a_timeout_waits_that_long_and_no_longer() -> None:
    queue = Carrier()
    start = time.monotonic()
    with pytest.raises(Empty):
        queue.get(timeout=0.05)
    assert time.monotonic() - start >= 0.05
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=-1)


def test_a_get_with_a_timeout_takes_what_comes_in_time(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    nursery.start(carrier_workers.put_all, queue, ["late"])
    assert queue.get(timeout=20) == "late"


def test_wake_makes_one_reader_look_around_and_is_no_task(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    child = nursery.start(carrier_workers.get_raw, queue, 2)
    assert child.receive() == "ready"
    queue.wake()
    queue.put_bytes(b"work")
    assert child.result() == [None, b"work"]
    queue.task_done()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def test_wake_never_waits_and_sends_nothing_where_the_pipe_is_full_so_that_nobody_sleeps() -> None:
    queue = Carrier()
    for n in range(MANY):
        queue.put_bytes(b"%d" % n)
    queue.wake()
    assert [queue.get_bytes() for _ in range(MANY)] == [b"%d" % n for n in range(MANY)]
    queue.wake()
    assert queue.get_bytes() is None


def test_a_notice_comes_behind_the_messages_and_needs_no_room() -> None:
    queue = Carrier(2)
    queue.put_bytes(b"a")
    queue.put_bytes(b"b")
    for _ in range(3):
        queue.put_notice(b"end")
    assert [queue.get_bytes() for _ in range(5)] == [b"a", b"b", b"end", b"end", b"end"]
    queue.task_done()
    queue.task_done()
    assert queue.join(0)
    # Nor has it given any.
    queue.put_bytes(b"c")
    queue.put_bytes(b"d")
    assert queue.full()
    unbounded = Carrier()
    for n in range(MANY):
        unbounded.put_bytes(b"%d" % n)
    unbounded.put_notice(b"end")
    assert [unbounded.get_bytes() for _ in range(MANY + 1)][-1] == b"end"


def test_get_does_not_take_a_wake_for_a_message() -> None:
    queue = Carrier()
    queue.wake()
    queue.put("work")
    assert queue.get(timeout=5) == "work"
    queue.wake()
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


def test_a_bounded_carrier_is_full_at_its_bound() -> None:
    queue = Carrier(2)
    queue.put("a")
    assert not queue.full()
    queue.put("b" * 1000)
    assert queue.full()
    for attempt in (lambda: queue.put_nowait("c"), lambda: queue.put("c" * 999, timeout=0.01)):
        with pytest.raises(Full):
            attempt()
    assert queue.qsize() == 2
    assert queue.get() == "a"
    queue.put("d")
    assert [queue.get(), queue.get()] == ["b" * 1000, "d"]
    for _ in range(3):
        queue.task_done()
    assert queue.join(timeout=0)


def test_put_bytes_many_stops_at_the_bound_and_says_where() -> None:
    queue = Carrier(20)
    messages = [b"%d" % n for n in range(25)]
    assert queue.put_bytes_many(messages, block=False) == 20
    assert queue.put_bytes_many(messages, timeout=0.01) == 0
    assert [queue.get_bytes() for _ in range(20)] == messages[:20]
    for _ in range(20):
        queue.task_done()
    assert queue.join(timeout=0)


def test_put_bytes_many_waits_for_slots(nursery: Nursery) -> None:
    queue = Carrier(3, ctx=FORK)
    messages = [b"%d" % n for n in range(500)]
    child = nursery.start(carrier_workers.put_raw, queue, messages)
    assert [queue.get_bytes() for _ in messages] == messages
    assert child.result() == 500


def test_join_waits_for_the_work_and_not_only_for_the_messages(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    queue.put("work")
    assert queue.join(timeout=0.01) is False
    assert queue.get() == "work"
    assert queue.join(timeout=0.01) is False
    queue.task_done()
    assert queue.join() is True


def test_what_cannot_be_pickled_raises_in_the_caller_and_counts_for_nothing() -> None:
    queue = Carrier(1)
    with pytest.raises(Exception, match="pickle"):
        queue.put(lambda: None)
    assert queue.empty()
    assert queue.join(timeout=0)
    queue.put("the slot is free")


def test_a_message_changed_after_the_put_travels_as_it_was() -> None:
    queue = Carrier()
    for message in (["as it was"], {"as": "it was"}):
        queue.put(message)
    message.clear()  # type: ignore[attr-defined]
    assert drain(queue) == [["as it was"], {"as": "it was"}]


def test_a_closed_carrier_takes_no_more_but_sends_what_it_has(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    child = nursery.start(carrier_workers.echo_until_none, queue)
    for n in range(MANY):
        queue.put(n)
    queue.put(None)
    queue.close()
    for attempt in (
        lambda: queue.put(1),
        lambda: queue.put_bytes(b""),
        lambda: queue.put_bytes_many([b""]),
        queue.get,
        queue.wake,
        lambda: queue.put_notice(b""),
    ):
        with pytest.raises(ValueError, match="is closed"):
            attempt()
    queue.join_thread()
    assert child.receive() == "ready"
    assert child.result() == list(range(MANY))


def test_a_closed_carrier_holds_no_descriptors_once_all_is_sent() -> None:
    queue = Carrier()
    reader = os.dup(queue._reader.fileno())
    for n in range(MANY):
        queue.put(n)
    queue.close()
    os.set_blocking(reader, True)
    for _ in range(MANY):
        assert len(os.read(reader, RECORD_BYTES)) == RECORD_BYTES
    queue.join_thread()
    with pytest.raises(OSError, match="is closed"):
        queue.empty()
    assert os.read(reader, 1) == b""  # the end: no other write end is open
    os.close(reader)


def test_a_put_that_fails_for_want_of_a_thread_sends_and_counts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As at the end of the interpreter: the pipe is full, and no thread can be had.
    monkeypatch.setattr(feeder, "_thread", no_threads())
    queue = Carrier(MANY)

    def put_all() -> None:
        for n in range(MANY):
            queue.put((n, "x" * 300))

    with pytest.raises(RuntimeError, match="new thread"):
        put_all()
    sent = queue.qsize()
    assert 0 < sent < MANY
    with pytest.raises(RuntimeError, match="new thread"):
        queue.put_bytes_many([b"more"])
    assert queue.qsize() == sent
    for n in range(sent):
        assert queue.get() == (n, "x" * 300)
        queue.task_done()
    assert queue.join(timeout=0)
    monkeypatch.undo()
    assert queue.put_bytes_many([b"x"] * (MANY + 1), block=False) == MANY  # no slot is lost


def test_a_message_whose_put_was_interrupted_on_its_way_to_the_feeder_is_sent_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupt(BaseException):
        pass

    monkeypatch.setattr(feeder, "_thread", no_threads(Interrupt))
    queue = Carrier()

    def put_all() -> None:
        for n in range(MANY):
            queue.put(n)

    with pytest.raises(Interrupt):
        put_all()
    assert queue._feeder.records
    for n in range(queue.qsize() - 1):
        assert queue.get(timeout=0) == n
    monkeypatch.setattr(feeder, "_thread", no_threads())
    queue._feeder.finish()  # as join_thread and the interpreter's exit do
    assert queue.get(timeout=0) == n + 1


def test_a_put_that_a_close_overtakes_writes_nowhere() -> None:
    queue = Carrier()
    queue.put("before")
    writer = queue._writer.fileno()
    queue.close()
    stranger, end = os.pipe()
    reused = [os.dup(end) for _ in range(4)]
    assert writer in [stranger, end, *reused]
    queue._open_for_put = True  # what a thread in the middle of its put has seen
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.put("after")
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.put_bytes_many([b"after"])
    os.set_blocking(stranger, False)
    with pytest.raises(BlockingIOError):
        os.read(stranger, 1)
    for fd in (stranger, end, *reused):
        os.close(fd)


def test_a_torn_record_is_an_error_that_says_to_restart() -> None:
    for torn in (b"\3abc", b"\3abc" + b"\0" * (RECORD_BYTES - 4), b"\xfd" * RECORD_BYTES):
        queue = Carrier()
        os.write(queue._writer.fileno(), torn)
        with pytest.raises(PersistqError, match="Restart the job"):
            queue.get(timeout=1)


def test_every_write_is_small_enough_to_be_atomic() -> None:
    import select

    from persistq._carrier.pipe import RECORDS_PER_WRITE

    assert RECORDS_PER_WRITE * RECORD_BYTES <= select.PIPE_BUF


def test_it_works_where_a_pipe_end_cannot_be_opened_twice(
    monkeypatch: pytest.MonkeyPatch, nursery: Nursery
) -> None:
    real_open = os.open

    def no_proc(path: Any, *args: Any, **options: Any) -> int:
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", no_proc)
    assert open_pipe()[1] is None
    queue = Carrier(ctx=FORK)
    children = [nursery.start(carrier_workers.echo_until_none, queue) for _ in range(3)]
    for child in children:
        assert child.receive() == "ready"
    for n in range(300):
        queue.put(n)
    for _ in children:
        queue.put(None)
    assert sorted(n for child in children for n in child.result()) == list(range(300))


def test_an_interrupt_at_any_moment_leaves_the_carrier_usable() -> None:
    class Interrupt(Exception):
        pass

    armed = [False]

    def interrupt(signum: int, frame: object) -> None:
        if armed[0]:
            armed[0] = False  # one at a time, so that none hits the handling of another
            raise Interrupt

    queue = Carrier(50)
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, interrupt)
    stop = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def pester() -> None:
        while not stop.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR1)

    pest = threading.Thread(target=pester)
    interrupted = 0
    # What an interrupt raises in a destructor reaches nobody: those of other tests' garbage
    # must not run here.
    gc.collect()
    gc.disable()
    try:
        pest.start()
        for n in range(4000):
            try:
                armed[0] = True
                try:
                    queue.put_nowait((n, "x" * (n % 400)))
                    queue.get(timeout=1)
                except Full:
                    drain(queue)
                armed[0] = False
            except Interrupt:
                interrupted += 1
    finally:
        armed[0] = False
        stop.set()
        pest.join()
        signal.signal(signal.SIGUSR1, before)
        gc.enable()
    assert interrupted
    drain(queue)
    # Slots that an interrupt took with it are missed and replaced.
    for n in range(50):
        queue.put(n, timeout=2.5 * 50)
        assert queue.get(timeout=1) == n


def test_new_carrier_falls_back_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(default_carrier, "_MISSING", "select.poll")
    with caplog.at_level(logging.WARNING, logger="persistq"):
        queue = new_carrier(3)
    assert type(queue) is queues.JoinableQueue
    assert "select.poll" in caplog.text
    queue.put("works")
    assert queue.get(timeout=5) == "works"
    queue.task_done()
    queue.close()
    queue.join_thread()


def test_carriers_leave_no_descriptors_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    def use() -> None:
        queue = Carrier(5)
        queue.put("x" * 1000)
        queue.get()

    use()
    before = descriptors()
    for _ in range(20):
        use()
    assert descriptors() <= before
