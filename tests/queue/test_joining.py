"""How join() waits: for all that is to be done, for nobody who is not there, and not too long."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING

import pytest

import scripts
import workers
from journals import Journals
from persistq import PersistentQueue, PersistqError
from persistq._queue import desertion, joining

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork and SIGKILL"
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desertion, "_REPLACEMENT_S", 0.3)
    monkeypatch.setattr(joining, "_LOOK_S", 0.05)


@pytest.mark.parametrize("is_closed", [False, True])
def test_it_says_what_is_left_and_why(tmp_path: Path, nursery: Nursery, is_closed: bool) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["given up", "in hand", "never taken 1", "never taken 2"])
    assert nursery.start(workers.take_and_dispose, q).result() == "given up"
    holder = nursery.start(workers.take_and_hold, q, 1)
    assert holder.receive() == "holding"
    if is_closed:
        q.close()
    holder.kill()
    with pytest.raises(PersistqError) as raised:
        q.join()
    said = str(raised.value)
    assert "4 messages are outstanding" in said
    assert "1 given up" in said
    assert "never taken" in said
    if is_closed:
        assert "1 in hand of workers that died" in said
    assert len(Journals(tmp_path).outstanding()) == 4


@pytest.mark.parametrize("is_closed", [False, True])
def test_it_waits_for_nobody_who_never_came(
    tmp_path: Path, nursery: Nursery, is_closed: bool
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    child = nursery.start(workers.end_at_once, q)
    if is_closed:
        q.close()
    child.join()
    with pytest.raises(PersistqError, match="never taken"):
        q.join()


def test_a_child_that_is_older_than_the_queue_is_no_worker(
    tmp_path: Path, nursery: Nursery
) -> None:
    nursery.start(workers.wait_for_a_word)  # as the server of a multiprocessing manager
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    assert nursery.start(workers.take_and_die, q, 1).join() == -9
    with pytest.raises(PersistqError, match="never taken"):
        q.join()


def test_it_waits_for_a_worker_that_lives_however_long_its_message_takes(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    holder = nursery.start(workers.take_and_hold, q, 1)
    assert holder.receive() == "holding"
    assert q.join(1) is False  # much longer than all that is waited for above
    holder.send("complete")
    assert q.join() is True


def test_a_replacement_within_the_time_is_waited_for(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desertion, "_REPLACEMENT_S", 20)
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", "b"])
    assert nursery.start(workers.take_and_die, q, 1).join() == -9
    assert q.join(0.5) is False
    other = nursery.start(workers.work, q)
    assert q.join() is True
    q.close()
    assert sorted(other.result()) == ["a", "b"]


@pytest.mark.timeout(60)
def test_a_timeout_is_kept_whatever_is_looked_at_meanwhile(
    tmp_path: Path, nursery: Nursery
) -> None:
    """Long journals, a death, and a directory that is locked by somebody else."""
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(f"message {n}" for n in range(60_000))
    assert nursery.start(workers.take_and_die, q, 5).join() == -9
    for timeout_s in (0, 0.2, 1):
        began_s = time.monotonic()
        assert q.join(timeout_s) is False
        assert time.monotonic() - began_s < timeout_s + 1
    locker = nursery.start(workers.lock_folder, str(tmp_path))
    assert locker.receive() == "locked"
    began_s = time.monotonic()
    assert q.join(0.5) is False
    assert time.monotonic() - began_s < 1.5
    locker.send("let go")
    locker.result()
    q.joinable_queue.cancel_join_thread()


@pytest.mark.timeout(120)
def test_many_workers_and_messages_with_one_death_end_without_delay(tmp_path: Path) -> None:
    seconds = {}
    for kills in (0, 1):
        folder = tmp_path / str(kills)
        folder.mkdir()
        seconds[kills] = end_of_many(folder, 24, 100_000, kills)
    # Were all journals read by each worker, or each look, it would be minutes.
    assert seconds[1] < seconds[0] * 2 + 5, seconds


@pytest.mark.timeout(60)
def test_most_of_many_workers_are_killed_and_the_rest_does_it_all(tmp_path: Path) -> None:
    assert end_of_many(tmp_path, 60, 6_000, 20) < 20


def end_of_many(folder: Path, count: int, messages: int, kills: int) -> float:
    """Return how long it took from the last message's completion to the end, in seconds."""
    body = """
    import multiprocessing, os, random, signal, sys, time
    from persistq import PersistentQueue

    def load(q):
        for name in q: q.task_done(name)

    if __name__ == "__main__":
        count, messages, kills = map(int, sys.argv[1:])
        q = PersistentQueue("jobs", "run", number_of_workers=count)
        workers = [multiprocessing.Process(target=load, args=(q,)) for _ in range(count)]
        for worker in workers: worker.start()
        q.put_many(f"m{n}" for n in range(messages // 2))
        rng = random.Random(1)
        for worker in rng.sample(workers, kills):
            time.sleep(rng.uniform(0, 0.01)); worker.kill(); worker.join()
        q.put_many(f"n{n}" for n in range(messages // 2))
        while not q.empty(): time.sleep(0.005)
        began = time.monotonic()
        assert q.join(60)
        q.close()
        for worker in workers: worker.join()
        with open("log", "a") as file: file.write(f"{time.monotonic() - began}\\n")
    """
    status, said, errors = scripts.run(folder, body, str(count), str(messages), str(kills))
    assert status == 0, errors
    assert Journals(folder / "run").outstanding() == []
    return float(said[0])


def test_what_many_waiters_might_hold_is_found_though_the_quick_take_the_others_wakes(
    tmp_path: Path, nursery: Nursery
) -> None:
    """A message is lost with its taker, and each of all that wait has to come back once."""
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["lost 1", "lost 2"])
    for _ in range(2):
        assert nursery.start(workers.die_before_recording, q).join() == -9
    waiting = [nursery.start(workers.work, q) for _ in range(16)]
    assert q.join(15) is True
    q.close()
    done = [message for child in waiting for message in child.result()]
    assert sorted(done) == ["lost 1", "lost 2"]
    assert Journals(tmp_path).outstanding() == []
