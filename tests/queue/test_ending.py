"""How a job ends: DONE for everybody, failures told, and no one left behind to wait for nobody."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import scripts
from journals import Journals

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")

HEAD = """
    import multiprocessing, os, queue, signal, sys, time
    from persistq import PersistentQueue, UpstreamFailureError
    from persistq._queue import desertion, joining, lookout, orphans, own_queue, producer

    # How often is looked for what nothing reports.
    orphans._LOOK_S = lookout._PRODUCERS_S = own_queue._LOOK_AROUND_S = 0.1
    joining._LOOK_S = producer._LOOK_S = 0.1

    def say(text):
        with open("log", "a") as file:
            file.write(f"{text}\\n")

    def load(q):
        try:
            for name in q:
                say(f"did {name}")
                q.task_done(name)
            say("DONE")
        except UpstreamFailureError as error:
            say("FAILED")
"""


def left(folder: Path) -> list[str]:
    return sorted(Journals(folder / "run").outstanding())


# --- DONE -------------------------------------------------------------------------------------


def test_a_forgotten_number_of_workers_leaves_nobody_waiting(
    tmp_path: Path, start_method: str
) -> None:
    body = (
        HEAD
        + """
    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        q = PersistentQueue("jobs", "run", queue=context)
        workers = [context.Process(target=load, args=(q,)) for _ in range(4)]
        for worker in workers: worker.start()
        with q:
            q.put_many(["a", "b"])
        for worker in workers: worker.join()
    """
    )
    status, said, errors = scripts.run(tmp_path, body, start_method)
    assert (status, errors) == (0, "")
    assert sorted(said) == ["DONE"] * 4 + ["did a", "did b"]
    assert left(tmp_path) == []


def test_replaced_workers_meet_the_end_too(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    if __name__ == "__main__":
        q = PersistentQueue("jobs", "run", number_of_workers=2)
        q.put_many(["a", "b"])
        q.close()
        for _ in range(5):
            worker = multiprocessing.Process(target=load, args=(q,)); worker.start(); worker.join()
    """
    )
    status, said, errors = scripts.run(tmp_path, body)
    assert (status, errors) == (0, "")
    assert said == ["did a", "did b", *["DONE"] * 5]


# --- producers that die -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "how", "count"),
    [
        ("fork", "kill", 1),
        ("fork", "raise", 1),
        ("fork", "exit", 2),
        ("fork", "raise", 3),
        ("spawn", "kill", 2),
        ("spawn", "raise", 1),
        ("spawn", "exit", 3),
        ("forkserver", "kill", 1),
    ],
)
def test_a_producer_that_dies_without_closing_counts_as_failed(
    tmp_path: Path, how: str, count: int, method: str
) -> None:
    body = (
        HEAD
        + """
    def produce(q, number, how):
        with q:
            for n in range(4):
                q.put(f"{number}-{n}")
            if number == 0:
                # What it has put is in the pipe by then, as a pipe holds more than this.
                if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
                if how == "exit": os._exit(0)

    def produce_without_with(q, number, how):
        for n in range(4):
            q.put(f"{number}-{n}")
        if number == 0:
            raise RuntimeError("cannot read the input")
        q.close()

    if __name__ == "__main__":
        method, how, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
        context = multiprocessing.get_context(method)
        q = PersistentQueue("jobs", "run", queue=context, number_of_producers=count,
                            number_of_workers=2)
        workers = [context.Process(target=load, args=(q,)) for _ in range(2)]
        make = produce_without_with if how == "raise" else produce
        producers = [context.Process(target=make, args=(q, n, how)) for n in range(count)]
        for p in workers + producers: p.start()
        for p in workers + producers: p.join()
        say("over")
    """
    )
    status, said, errors = scripts.run(tmp_path, body, method, how, str(count))
    assert status == 0
    assert said.count("FAILED") == 2, (said, errors)
    # Failed once its messages are taken, and those of the others are not lost either.
    done = {line[4:] for line in said if line.startswith("did")}
    assert {f"0-{n}" for n in range(4)} <= done
    everything = {f"{p}-{n}" for p in range(count) for n in range(4)}
    assert done | set(left(tmp_path)) == everything


def test_a_worker_that_is_busy_behind_the_end_fills_no_pipe(tmp_path: Path) -> None:
    """Woken in vain, once a look, for hours, its next wake would wait for room for ever."""
    body = (
        HEAD
        + """
    class Looks:
        count = 0

    def work(q):
        looks = q._consumer._lookout._has_reason_to_wake
        def look():
            Looks.count += 1
            return looks()
        q._consumer._lookout._has_reason_to_wake = look
        q.get()
        while Looks.count < 40: time.sleep(0.01)
        say(q.qsize())
        raise RuntimeError("bad data")

    if __name__ == "__main__":
        orphans._LOOK_S = 0.005
        orphans.weakref = type("", (), {"WeakMethod": staticmethod(lambda method: lambda: method)})
        q = PersistentQueue("jobs", "run")
        q.put("a")
        q.close()
        worker = multiprocessing.get_context("fork").Process(target=work, args=(q,))
        worker.start(); worker.join()
    """
    )
    _, said, _ = scripts.run(tmp_path, body)
    assert int(said[0]) <= 1  # close() wakes one


# --- a main process that raises ---------------------------------------------------------------


@pytest.mark.parametrize("when", ["before any put", "after some", "requeued only"])
def test_a_script_that_raises_before_close_ends_behind_its_traceback(
    tmp_path: Path, start_method: str, when: str
) -> None:
    body = (
        HEAD
        + """
    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        if sys.argv[2] == "requeued only":
            first = PersistentQueue("jobs", "before", queue=queue.Queue())
            first.put("old")
            q = PersistentQueue("jobs", "run", "before", queue=context, number_of_workers=2)
        else:
            q = PersistentQueue("jobs", "run", queue=context, number_of_workers=2)
        workers = [context.Process(target=load, args=(q,)) for _ in range(2)]
        for worker in workers: worker.start()
        if sys.argv[2] == "after some": q.put_many(["a", "b"])
        if sys.argv[2] == "requeued only": q.requeue_unprocessed_work()
        os.listdir("no-such-inbox")
        q.close()
        for worker in workers: worker.join()
    """
    )
    if when == "requeued only":
        body = body.replace('first.put("old")', 'first.put("old"); del first')
    status, said, errors = scripts.run(tmp_path, body, start_method, when)
    assert status == 1
    assert "no-such-inbox" in errors
    assert said.count("FAILED") == 2, errors


def test_a_raise_between_the_starts_of_workers_leaves_nobody_behind(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    def main():
        q = PersistentQueue("jobs", "run", number_of_workers=4)
        workers = [multiprocessing.Process(target=load, args=(q,)) for _ in range(4)]
        for number, worker in enumerate(workers):
            if number == 2: raise OSError("no more processes")
            worker.start()

    if __name__ == "__main__":
        main()
    """
    )
    status, said, _ = scripts.run(tmp_path, body)
    assert status == 1
    assert said == ["FAILED", "FAILED"]


# --- a main process that dies -----------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["own", "users"])
def test_orphans_finish_the_message_in_hand_and_take_no_other(
    tmp_path: Path, start_method: str, carrier: str
) -> None:
    body = (
        HEAD
        + """
    def work(q):
        try:
            for name in q:
                say("took one")
                while not q._consumer._lookout.is_orphaned: time.sleep(0.02)
                say(f"did {name}")
                q.task_done(name)
        except UpstreamFailureError:
            say("UpstreamFailureError")

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        carrier = context.JoinableQueue() if sys.argv[2] == "users" else context
        q = PersistentQueue("jobs", "run", queue=carrier, number_of_workers=2)
        q.put_many(f"{n:03}" for n in range(400))
        for _ in range(2): context.Process(target=work, args=(q,)).start()
        signal.pause()
    """
    )
    with scripts.Script(tmp_path, body, start_method, carrier) as script:
        script.wait_until_said("took one", 2)
        script.process.send_signal(signal.SIGKILL)
        script.wait()
        script.wait_until_said("UpstreamFailureError", 2)
        did = [line for line in script.said() if line.startswith("did")]
        assert len(did) == 2, script.said()
        assert len(left(tmp_path)) == 398
        # And the restart need not wait.
        began_s = time.monotonic()
        status, said, errors = scripts.run(
            tmp_path,
            HEAD
            + """
    q = PersistentQueue("jobs", "again", "run", queue=queue.Queue())
    say(f"requeued {q.requeue_unprocessed_work()}")
    """,
        )
        assert (status, said[-1]) == (0, "requeued 398"), errors
        assert time.monotonic() - began_s < 5


def test_an_orphan_whose_results_nobody_reads_ends_all_the_same(
    tmp_path: Path, start_method: str
) -> None:
    body = (
        HEAD
        + """
    def work(q, results):
        try:
            for name in q:
                results.put("x" * 100_000)  # more than a pipe holds
                q.task_done(name)
                say("has a result")
        except UpstreamFailureError:
            say(f"over {os.getpid()}")
            raise

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        q = PersistentQueue("jobs", "run", queue=context)
        results = context.Queue()
        q.put_many(["a", "b", "c"])
        context.Process(target=work, args=(q, results)).start()
        signal.pause()
    """
    )
    with scripts.Script(tmp_path, body, start_method) as script:
        script.wait_until_said("has a result", 3)
        script.process.send_signal(signal.SIGKILL)
        script.wait()
        deadline_s = time.monotonic() + scripts.LIMIT_S
        while not any(line.startswith("over") for line in script.said()):
            assert time.monotonic() < deadline_s, script.said()
            time.sleep(0.05)
        (pid,) = [int(line.split()[1]) for line in script.said() if line.startswith("over")]
        while is_running(pid):
            assert time.monotonic() < deadline_s, "it waits for ever at its exit"
            time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_script_that_makes_itself_a_daemon_goes_on(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    if __name__ == "__main__":
        q = PersistentQueue("jobs", "run", number_of_workers=2)
        q.put("before")
        ended, held = os.pipe()
        if os.fork(): sys.exit(0)
        os.setsid()
        if os.fork(): os._exit(0)
        os.close(held)
        os.read(ended, 1)  # nobody writes: it ends when those before have ended
        try:
            workers = [multiprocessing.Process(target=load, args=(q,)) for _ in range(2)]
            for worker in workers: worker.start()
            with q:
                for n in range(3): q.put({"n": n, "text": "x" * 300})
            for worker in workers: worker.join()
            say("over")
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
            raise
    """
    )
    with scripts.Script(tmp_path, body) as script:
        script.wait()
        script.wait_until_said("over")
        did = [line for line in script.said() if line.startswith("did")]
        assert len(did) == 4, (script.said(), script.errors)
        assert left(tmp_path) == []


# --- nobody is left to wait for ------------------------------------------------------------------


@pytest.mark.parametrize("what", ["put", "put_many", "requeue", "join", "join after close"])
def test_nobody_waits_for_workers_that_have_all_ended(tmp_path: Path, what: str) -> None:
    body = (
        HEAD
        + """
    desertion._REPLACEMENT_S = 0.5

    def fail_to_load(q):
        for name in q:
            import module_that_is_missing_on_this_server

    if __name__ == "__main__":
        what = sys.argv[1]
        first = PersistentQueue("jobs", "before", queue=queue.Queue())
        if what == "requeue": first.put_many(f"old {n}" for n in range(20))
        del first
        q = PersistentQueue("jobs", "run", "before", number_of_workers=2,
                            maxsize=0 if "join" in what else 3)
        workers = [multiprocessing.Process(target=fail_to_load, args=(q,)) for _ in range(2)]
        for worker in workers: worker.start()
        with q:
            if what == "put":
                for n in range(20): q.put(f"n {n}")
            elif what == "requeue": q.requeue_unprocessed_work()
            else: q.put_many([f"n {n}" for n in range(20)])
            if what == "join": q.join()
        q.join()
    """
    )
    status, _, errors = scripts.run(tmp_path, body, what)
    assert status == 1, errors
    assert "persistq.exceptions.PersistqError" in errors
    assert "nobody is left to do it" in errors
    if what in ("put", "put_many"):
        # What had no room is refused, and its records withdrawn.
        assert 3 <= len(left(tmp_path)) < 20
    else:
        assert len(left(tmp_path)) == 20


def test_a_script_whose_queue_is_garbage_delivers_all_and_waits_for_no_dead_worker(
    tmp_path: Path,
) -> None:
    """The end of a function `main` drops the queue, while its worker goes on."""
    body = (
        HEAD
        + """
    def die(q):
        q.get()
        os.kill(os.getpid(), signal.SIGKILL)

    def main():
        q = PersistentQueue("jobs", "run")
        q.put_many(f"{n} " + "x" * 200 for n in range(9000))  # more than the pipe holds
        q.close()
        target = {"load": count, "die": die}[sys.argv[1]]
        worker = multiprocessing.Process(target=target, args=(q,))
        worker.start()
        worker._args = ()  # nor does multiprocessing hold it

    def count(q):
        say(sum(1 for name in q if not q.task_done(name)))

    if __name__ == "__main__":
        main()
    """
    )
    assert scripts.run(tmp_path, body, "load") == (0, ["9000"], "")
    assert left(tmp_path) == []
    status, _, errors = scripts.run(tmp_path, body, "die")
    assert (status, errors) == (0, "")
    assert len(left(tmp_path)) == 9000


def test_a_dropped_queue_gives_back_all_that_it_held_of_the_process(tmp_path: Path) -> None:
    body = (
        HEAD
        + """
    import gc
    def one(number):
        q = PersistentQueue("jobs", f"run {number}", maxsize=number % 2 * 9)
        q.put_many(["a", {"b": "x" * 1000}, "y" * 1000])
        worker = multiprocessing.Process(target=load, args=(q,)); worker.start()
        assert q.join(20)
        q.close(); worker.join(); worker.close()

    if __name__ == "__main__":
        for number in range(8):
            one(number); gc.collect()
            fds = os.listdir("/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd")
            leases = [n for n in os.listdir(f"run {number}") if n.endswith(".lease")]
            print(len(fds), leases, file=open("counts", "a"))
    """
    )
    status, _, errors = scripts.run(tmp_path, body)
    assert (status, errors) == (0, "")
    counts = (tmp_path / "counts").read_text().splitlines()
    assert len(set(counts[2:])) == 1, counts
    assert counts[-1].endswith(" []")
