"""One thread at a time, the first without a lock; and nobody waits for who waits for him."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from persistq import _turn as turns
from persistq._turn import Turn

PATIENCE_S = 10


class Busy:
    """Does what `JournalFile.append` does with its turn, and can be held up half way."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.inside: list[str] = []
        self.most = 0

    def do(self, name: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
        turn = self.turn
        if turn.first == threading.get_ident():
            was_busy = turn.is_busy
            try:
                turn.is_busy = True
                if turn.is_alone or was_busy:
                    self._do(name, meanwhile)
                    return
            finally:
                turn.is_busy = was_busy
        with turn.lock:
            turn.come()
            self._do(name, meanwhile)

    def _do(self, name: str, meanwhile: Callable[[], Any]) -> None:
        self.inside.append(name)
        self.most = max(self.most, len(set(self.inside)))
        try:
            meanwhile()
        finally:
            self.inside.remove(name)


def start(call: Callable[..., Any], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    return thread


def end(thread: threading.Thread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture(params=["by itself", "by a lock"])
def busy(request: pytest.FixtureRequest) -> Busy:
    turn = Turn(is_long=request.param == "by a lock")
    busy = Busy(turn)
    busy.do("first")
    return busy


def test_the_second_thread_waits_until_the_first_has_done(busy: Busy) -> None:
    second_is_in, threads = threading.Event(), []

    def come() -> None:
        threads.append(start(busy.do, "second", second_is_in.set))
        assert not second_is_in.wait(0.1)

    busy.do("first", come)
    assert second_is_in.wait(PATIENCE_S)
    end(threads[0])
    assert busy.most == 1


def test_the_first_thread_waits_until_the_second_has_done(busy: Busy) -> None:
    second_is_in, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        second_is_in.set()
        assert go_on.wait(PATIENCE_S)

    second = start(busy.do, "second", stay)
    assert second_is_in.wait(PATIENCE_S)
    threading.Timer(0.1, go_on.set).start()
    busy.do("first")
    end(second)
    assert busy.most == 1


def test_a_signal_handler_has_its_threads_turn_though_another_waits_for_that(busy: Busy) -> None:
    came: list[str] = []
    threads = []

    def interrupt() -> None:
        threads.append(start(busy.do, "second"))
        while busy.turn.is_alone:  # until the second has asked for it, with the lock in hand
            pass
        signal.raise_signal(signal.SIGUSR1)

    def handle(*_: object) -> None:
        busy.do("first", lambda: came.append("done"))
        with busy.turn.lock:
            busy.turn.come()
            came.append("with it")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        busy.do("first", interrupt)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == ["done", "with it"]
    end(threads[0])
    assert busy.most == 1


def test_what_raises_leaves_the_turn_to_the_next(busy: Busy) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            busy.do("first", fail)
        end(start(busy.do, "second"))


class Limit(Exception):
    """The time is over."""


@pytest.mark.skipif(
    sys.version_info[:2] in ((3, 9), (3, 14)),
    reason="this Python itself may leave out the end of a with (a bare lock stays taken, too)",
)
def test_a_handler_that_raises_anywhere_leaves_the_lock_to_others() -> None:
    def interrupt(*_: object) -> None:
        raise Limit

    turn = Turn(is_long=True)
    # Not SIGALRM, by which the time limit of tests comes.
    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002)
                while True:
                    with turn.lock:
                        turn.come()
            except Limit:
                pass
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    got: list[bool] = []
    end(start(lambda: got.append(turn.lock.acquire(timeout=PATIENCE_S))))
    assert got == [True]


def test_many_threads_that_come_and_go_are_never_in_at_once() -> None:
    for _ in range(10):
        busy = Busy(Turn())
        begin = threading.Barrier(4)
        total = [0]

        def add(name: str, busy: Busy = busy, begin: Any = begin, total: Any = total) -> None:
            def one() -> None:
                seen = total[0]
                if seen % 7 == 0:
                    threading.Event().wait(0.00001)  # lets the others run
                total[0] = seen + 1

            begin.wait()
            for _ in range(50):
                busy.do(name, one)

        threads = [start(add, name) for name in "abcd"]
        for thread in threads:
            end(thread)
        assert (total[0], busy.most) == (200, 1)


def test_without_an_order_of_all_steps_everybody_takes_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_HAS_ORDER", False)
    busy = Busy(Turn())
    held: list[bool] = []
    for _ in range(2):
        busy.do("first", lambda: held.append(busy.turn.lock._is_owned()))  # type: ignore[attr-defined]
    assert held == [True, True]


def test_once_a_second_thread_has_come_all_take_the_lock(busy: Busy) -> None:
    end(start(busy.do, "second"))
    held: list[bool] = []
    busy.do("first", lambda: held.append(busy.turn.lock._is_owned()))  # type: ignore[attr-defined]
    assert held == [True]
