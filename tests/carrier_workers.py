"""What the child processes of the carrier's tests run."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def echo_until_none(talk: Connection, queue: Any) -> list[Any]:
    """Take messages until None comes, and return them."""
    taken = []
    talk.send("ready")
    while (message := queue.get()) is not None:
        taken.append(message)
        queue.task_done()
    queue.task_done()
    return taken


def get_until_killed(talk: Connection, queue: Any) -> None:
    talk.send("ready")
    while True:
        talk.send(queue.get())
        queue.task_done()


def work_until_none(queue: Any) -> None:
    """Take and finish messages until None comes; a process's target, without a handshake."""
    while queue.get() is not None:
        queue.task_done()
    queue.task_done()


def work_until_killed(talk: Connection, queue: Any) -> None:
    talk.send("ready")
    while True:
        queue.get()
        queue.task_done()


def put_all(talk: Connection, queue: Any, messages: list[Any]) -> None:
    for message in messages:
        queue.put(message)


def put_raw(talk: Connection, queue: Any, messages: list[bytes]) -> int:
    return int(queue.put_bytes_many(messages))


def get_raw(talk: Connection, queue: Any, number: int) -> list[bytes | None]:
    talk.send("ready")
    return [queue.get_bytes() for _ in range(number)]


def put_until_killed(talk: Connection, queue: Any, message: Any) -> None:
    talk.send("ready")
    while True:
        queue.put(message)


def put_and_exit_without_waiting(talk: Connection, queue: Any, number: int, when: str) -> None:
    if when == "before the first put":
        queue.cancel_join_thread()
    for n in range(number):
        queue.put(n)
    if when == "after the last put":
        queue.cancel_join_thread()


def put_all_and_stay(talk: Connection, queue: Any, messages: list[Any]) -> None:
    for message in messages:
        queue.put(message)
    talk.send("all put")
    talk.recv()


def die_at(talk: Connection, queue: Any, where: str, message: Any) -> None:
    """Kill this process inside the carrier's own code, at the first call of `where`."""

    def die(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "after taking a slot":
        queue._count_up = die
        queue.put(message)
    elif where == "after taking a record":
        queue._slots.free = die
        queue.get()
    elif where == "before reading a large message":
        queue._spill.read = die
        queue.get()
    elif where == "before sending a large message":
        write = queue._spill.write

        def write_and_die(data: bytes) -> None:
            write(data)
            die()

        queue._spill.write = write_and_die
        queue.put(message)


def count_down_and_up(talk: Connection, number: Any, up: int) -> int:
    """Lower a counter to zero, raise it, and return what it was."""
    was = 0
    while number.down():
        was += 1
    number.up(up)
    return was


def post_one(board: Any, kind: bytes) -> None:
    board.post(kind)


def post_on_board(talk: Connection, board: Any, kind: bytes) -> None:
    board.post(kind)


def call(talk: Connection, function: Any) -> None:
    function()


def show_in_transit(talk: Connection, board: Any) -> None:
    """Say that a thread is taking and sending, and records wait; then that none does."""
    flags = board.flags()
    flags[0], flags[1] = 7, 1
    board.set_backlog(True)
    talk.send(board.token())
    talk.recv()
    flags[0] = flags[1] = 0
    board.set_backlog(False)
    talk.send("none")
    talk.recv()


def post_many_and_take_bytes(talk: Connection, board: Any, number: int) -> str:
    """Post from one thread while others, that stay, take their bytes."""
    talk.send("ready")
    talk.recv()
    done = threading.Event()

    def take() -> None:
        board.flags()[0] = 1
        done.wait()

    for n in range(number):
        if n % (number // 8) == 0:
            threading.Thread(target=take, daemon=True).start()
        board.post(b"D")
    while len(board.in_transit()[board.token()].taking) < 8:
        time.sleep(0.001)
    return str(board.token())


def post_until_killed(talk: Connection, board: Any) -> None:
    board.post(b"D")
    talk.send("ready")
    while True:
        board.post(b"D")


def end_and_die_before_the_wakes(talk: Connection, queue: Any) -> None:
    post = queue.board.post

    def post_and_die(kind: bytes) -> None:
        post(kind)
        os.kill(os.getpid(), signal.SIGKILL)

    queue.put_bytes(b"work")
    queue.board.post = post_and_die
    queue.end(b"D", 5)


def send_numbers(talk: Connection, queue: Any, number: int) -> None:
    lists = ([b"%d" % n for n in range(at, at + 64)] for at in range(0, number, 64))
    queue.send_source(number, lists)


def get_when_told(talk: Connection, queue: Any) -> Any:
    talk.send("ready")
    talk.recv()
    return queue.get(timeout=20)
