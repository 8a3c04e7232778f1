"""Large messages travel as the place of their journal line: they arrive, or an error says why."""

from __future__ import annotations

import multiprocessing
import queue
from typing import TYPE_CHECKING, Any

import pytest

import lines_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq import PersistentQueue, PersistqError
from persistq._carrier.carrier import Carrier
from persistq._journal.lines import OPEN_FILES, LineReader, place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from journals import Journals
    from processes import Nursery

    MakeQueue = Callable[..., PersistentQueue]

LARGE = [
    "x" * 1000,
    "\u00fcn\tix\n" * 300,
    ("a", "b\r" * 400, ""),
    "\udcff" * 500,
    ["a list", "y" * 900],
    {"pickled": "z" * 900},
    "small",
    "w" * 200_000,
]


def records(q: PersistentQueue) -> bytes:
    """Return what is in the pipe, and take it out."""
    found = b""
    while not q.joinable_queue.empty():
        found += q.joinable_queue.get_bytes()
    return found


@pytest.mark.parametrize("many", [False, True])
def test_large_messages_come_back_as_they_were(make_queue: MakeQueue, many: bool) -> None:
    q = make_queue()
    if many:
        q.put_many(LARGE)
    else:
        for message in LARGE:
            q.put(message)
    for message in LARGE:
        assert q.get(timeout=5) == message
        q.task_done(message)
    assert q.join(5)


@pytest.mark.parametrize("many", [False, True])
def test_a_large_text_is_written_once(make_queue: MakeQueue, current: Path, many: bool) -> None:
    q = make_queue()
    if many:
        q.put_many(["x" * 100_000])
    else:
        q.put("x" * 100_000)
    sent = records(q)
    assert len(sent) < 250
    assert str(current).encode() in sent
    assert q.joinable_queue._spill._arena is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_large_messages_are_there_when_their_producer_was_killed(
    make_queue: MakeQueue, nursery: Nursery, method: str
) -> None:
    q = make_queue(queue=multiprocessing.get_context(method))
    texts = ["small", "x" * 1000, "y" * 100_000]
    producer = nursery.start(lines_workers.put_and_wait, q, texts, method=method)
    assert producer.receive() == "put"
    producer.kill()
    assert nursery.start(lines_workers.take, q, 3, method=method).result() == texts


def test_a_forked_worker_reads_while_its_parent_does(
    make_queue: MakeQueue, nursery: Nursery
) -> None:
    q = make_queue()
    for n in range(4):
        q.put(str(n) * 1000)
    assert q.get() == "0" * 1000  # the file is open here, for reading
    assert nursery.start(lines_workers.take, q, 2, method="fork").result() == [
        "1" * 1000,
        "2" * 1000,
    ]
    assert q.get() == "3" * 1000


def test_a_large_message_that_a_full_queue_refuses_leaves_no_line(
    make_queue: MakeQueue, journals: Journals
) -> None:
    q = make_queue(queue=Carrier(2))
    q.put_many(["a" * 1000])
    with pytest.raises(queue.Full):
        q.put_many(["b" * 1000, "c" * 1000, "d" * 1000], block=False)
    with pytest.raises(queue.Full):
        q.put("e" * 1000, block=False)
    assert journals.lines("requested") == ["a" * 1000, "b" * 1000]
    assert [q.get(), q.get()] == ["a" * 1000, "b" * 1000]
    q.put("f" * 1000)
    assert q.get() == "f" * 1000


@pytest.mark.parametrize("many", [False, True])
def test_an_interrupt_after_sending_does_not_put_other_lines_in_the_place(
    make_queue: MakeQueue, journals: Journals, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    q = make_queue()
    name = "send_many" if many else "put_bytes"
    send: Any = getattr(q.joinable_queue, name)

    def send_and_interrupt(*args: Any) -> None:
        send(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(q.joinable_queue, name, send_and_interrupt)
        patch.setattr(q._transport, "put", send_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            q.put_many(["a" * 1000]) if many else q.put("a" * 1000)
    q.put("b" * 1000)
    # The record of the first is on the queue, though its put was interrupted.
    assert q.get() == "a" * 1000
    assert q.get() == "b" * 1000
    assert journals.outstanding() == ["a" * 1000, "b" * 1000]


def test_a_changed_journal_is_an_error_and_not_another_message(
    make_queue: MakeQueue, current: Path
) -> None:
    q = make_queue()
    q.put("a" * 1000)
    q.put("b" * 1000)
    (file,) = current.glob("*requested*")
    file.write_text("c" * 700 + "\n")
    with pytest.raises(PersistqError, match="has been changed"):
        q.get()
    file.unlink()
    with pytest.raises(PersistqError, match="Restart the job"):
        q.get()


def test_where_the_path_is_too_long_the_message_is_spilled(
    make_queue: MakeQueue, tmp_path: Path
) -> None:
    q = make_queue(current_pickup_dir=tmp_path / ("d" * 200))
    q.put("a" * 1000)
    q.put_many(["b" * 1000])
    assert q.joinable_queue._spill._arena is not None
    assert [q.get(), q.get()] == ["a" * 1000, "b" * 1000]


def test_a_reader_keeps_few_files_open(tmp_path: Path) -> None:
    reader, places = LineReader(), []
    for n in range(OPEN_FILES + 3):
        path = tmp_path / str(n)
        path.write_bytes(b"before\nline %d\nbehind\n" % n)
        places.append((place_of(bytes(path), 7, len(f"line {n}")), b"line %d" % n))
    for place, line in places * 2:
        assert reader.read(place) == line
    assert len(reader._files) == OPEN_FILES
    reader.close()
    assert reader._files == {}
