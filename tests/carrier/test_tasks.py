"""How many tasks are unfinished, added up over all threads of all processes, dead ones included."""

from __future__ import annotations

import os
import threading

import pytest

from persistq._carrier import default_carrier

if default_carrier._MISSING is not None:
    pytest.skip(f"no carrier here: {default_carrier._MISSING}", allow_module_level=True)

from persistq._carrier.board import Board
from persistq._carrier.tasks import Tasks


def test_threads_and_forked_processes_lose_no_count_of_one_another() -> None:
    board = Board()
    tasks = Tasks(board)
    tasks.add()

    def count() -> None:
        for _ in range(2_000):
            tasks.add()

    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            count()
            os._exit(0)
        pids.append(pid)
    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    count()
    for thread in threads:
        thread.join()
    for pid in pids:
        os.waitpid(pid, 0)
    assert board.unfinished() == 7 * 2_000 + 1


def test_who_completes_what_others_took_may_do_so_as_often_as_there_are_tasks() -> None:
    tasks = Tasks(Board())
    tasks.add(2)
    tasks.finish()
    assert not tasks.none_left()
    tasks.finish()
    assert tasks.none_left()
    with pytest.raises(ValueError, match="too many times"):
        tasks.finish()
    assert tasks.none_left()
