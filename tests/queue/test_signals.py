"""Signal handlers that put, fail or close at any moment: no deadlock, and nothing lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import scripts
from journals import Journals

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")

HEAD = """
    import os, queue, random, signal, sys, threading, time
    from persistq import PersistentQueue

    def say(text):
        with open("log", "a") as file:
            file.write(f"{text}\\n")
"""


@pytest.mark.parametrize("end", ["fail", "close"])
@pytest.mark.parametrize("what", ["put", "put_many", "large"])
def test_a_handler_may_end_the_queue_in_the_midst_of_a_put(
    tmp_path: Path, end: str, what: str
) -> None:
    body = (
        HEAD
        + """
    class Over(Exception): pass

    def handler(number, frame):
        getattr(q, sys.argv[1])()
        q.join(0)
        raise Over

    signal.signal(signal.SIGALRM, handler)
    rng = random.Random(1)
    for round in range(60):
        q = PersistentQueue("jobs", f"run {round}", maxsize=0)
        accepted = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.03))
            while True:
                if sys.argv[2] == "put_many": q.put_many([f"{accepted + n}" for n in range(100)])
                elif sys.argv[2] == "large": q.put(f"{accepted} " + "x" * 5000)
                else: q.put(f"{accepted}")
                accepted += 100 if sys.argv[2] == "put_many" else 1
        except (Over, ValueError): pass  # Python may swallow the first one in a __del__
        signal.setitimer(signal.ITIMER_REAL, 0)
        with open("accepted", "a") as file: file.write(f"{accepted}\\n")
        q.joinable_queue.cancel_join_thread()
        del q
    say("over")
    os._exit(0)
    """
    )
    status, said, errors = scripts.run(tmp_path, body, end, what)
    assert (status, said) == (0, ["over"]), errors
    accepted = list(map(int, (tmp_path / "accepted").read_text().split()))
    for round_, count in list(enumerate(accepted))[::10]:
        left = Journals(tmp_path / f"run {round_}").outstanding()
        # What put() accepted is there, in order; behind it, at most what was interrupted.
        assert [text.split()[0] for text in left[:count]] == [str(n) for n in range(count)]
        assert len(left) - count <= (100 if what == "put_many" else 1)


def test_a_handler_may_put_at_any_moment(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    handled = 0
    def handler(number, frame):
        global handled
        q.put(f"signal {handled}")
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0001, 0.002))

    rng = random.Random(3)
    signal.signal(signal.SIGALRM, handler)
    q = PersistentQueue("jobs", "run")
    signal.setitimer(signal.ITIMER_REAL, 0.0001)
    n = 0
    while n < 6000 or handled <= 20:
        q.put(f"{n}" if n % 50 else f"{n} " + "x" * 3000)
        if n % 3 == 0: q.task_done(q.get())
        n += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(n + handled - (n + 2) // 3)
    q.joinable_queue.cancel_join_thread()
    os._exit(0)
    """
    )
    status, said, errors = scripts.run(tmp_path, body)
    assert status == 0, errors
    left = Journals(tmp_path / "run").outstanding()
    assert len(left) == int(said[0])
    assert len(set(left)) == len(left)


def test_an_interrupted_put_leaves_its_line_and_the_message_is_never_lost(tmp_path: Path) -> None:
    """Ctrl-C in a put: whether it was sent is unknown, so it is outstanding until completed."""
    body = (
        HEAD
        + """
    class Stop(Exception): pass
    def stop(number, frame): raise Stop
    signal.signal(signal.SIGALRM, stop)
    rng = random.Random(2)
    for round in range(150):
        q = PersistentQueue("jobs", "run", "run" if round else None)
        waiting = q.requeue_unprocessed_work()
        n = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0003, 0.004))
            while True: q.put(f"{round}-{n}"); n += 1
        except Stop: pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(f"{round} {n}")
        while q.qsize():
            m = q.get(timeout=5)
            if m.split("-")[1] == str(n - 1): continue  # the last accepted is left
            q.task_done(m)
        q.dispose()
        left = PersistentQueue("jobs", previous_pickup_dir="run").get_list_of_outstanding_work()
        if n and f"{round}-{n - 1}" not in left: say(f"lost {round}-{n - 1}")
        del q
    say("over")
    """
    )
    status, said, errors = scripts.run(tmp_path, body)
    assert status == 0, errors
    assert said[-1] == "over"
    assert not [line for line in said if "lost" in line]


def test_fork_while_other_threads_put_leaves_no_child_with_a_lock(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    q = PersistentQueue("jobs", "run")
    over = []
    def put(name):
        n = 0
        while not over: q.put({name: n}); n += 1; time.sleep(0)
    threads = [threading.Thread(target=put, args=(name,)) for name in "ab"]
    for thread in threads: thread.start()
    for number in range(60):
        pid = os.fork()
        if not pid:
            q.put(f"child {number}"); q.put("x" * 3000); q.task_done(q.get(timeout=10))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    over.append(1)
    for thread in threads: thread.join()
    say("over")
    q.joinable_queue.cancel_join_thread()
    os._exit(0)
    """
    )
    status, said, errors = scripts.run(tmp_path, body)
    assert (status, said) == (0, ["over"]), errors
    lines = Journals(tmp_path / "run").lines("requested")
    assert sum(line.startswith("child") for line in lines) == 60


def test_close_that_a_handler_enters_again_ends_once(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    signal.signal(signal.SIGALRM, lambda number, frame: q.fail())
    for round in range(150):
        carrier = queue.SimpleQueue()  # which a handler may enter again
        q = PersistentQueue("p", f"run {round}", number_of_workers=1000, queue=carrier)
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00001 * round)
        q.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(carrier.qsize())
    """
    )
    status, said, errors = scripts.run(tmp_path, body)
    assert (status, errors) == (0, "")
    assert set(said) == {"1000"}
