"""What the processes of tests/journal/test_lines.py run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persistq import PersistentQueue


def put_and_wait(talk: Any, q: PersistentQueue, messages: list[Any]) -> None:
    for message in messages:
        q.put(message)
    talk.send("put")
    talk.recv()


def take(talk: Any, q: PersistentQueue, count: int) -> list[Any]:
    taken = []
    for _ in range(count):
        taken.append(q.get(timeout=20))
        q.task_done(taken[-1])
    return taken
