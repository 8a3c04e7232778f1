"""Eight threads on one queue, and on many: messages and files, with and without the global lock.

- `one`: threads put and take on one queue of each kind (the default carrier, bounded, of threads).
  Each message is taken once, the counts are right in the end, and nothing looks as if a worker had
  died.
- `passed`: what one thread has taken another one completes.
- `many`: each thread makes, uses and drops queues of its own, while others are kept.
- `files`: threads share a folder, with one queue object for all and with one for each, and with
  the kernel's rename and without. Each file goes to one thread.

Threads are switched as often as can be. Prints figures as JSON; exit status 1 where anything is
wrong.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

from persistq import PersistentQueue, ReadableFolderQueue, WritableFolderQueue, _fs

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_S = 60.0


def together(count: int, work: Callable[[int], None]) -> list[str]:
    """Call a function in so many threads at once; return what went wrong in them."""
    wrong: list[str] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            start.wait(HANG_S)
            work(number)
        except BaseException:
            wrong.append(traceback.format_exc(limit=-3))

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + HANG_S
    for thread in threads:
        thread.join(max(deadline_s - time.monotonic(), 0))
        if thread.is_alive():
            where = traceback.format_stack(sys._current_frames()[thread.ident or 0])
            wrong.append("hangs at " + "".join(where[-3:]))
    return wrong


def judge_messages(
    q: PersistentQueue, folder: str, got: list[str], expected: list[str]
) -> list[str]:
    """Say what is wrong with a queue whose work is done."""
    wrong = []
    if Counter(got) != Counter(expected):
        lost, twice = Counter(expected) - Counter(got), Counter(got) - Counter(expected)
        wrong.append(f"lost {sorted(lost)[:5]}, twice {sorted(twice)[:5]}")
    if not q.join(0):
        wrong.append("join(0) is False, though all is done")
    try:
        q.task_done("one too many")
        wrong.append("task_done() once too often is accepted")
    except ValueError:
        pass
    if glob.glob(folder + "/*_started_*"):
        wrong.append("a started file is left: a worker seems to have died")
    left = PersistentQueue("jobs", previous_pickup_dir=folder).get_list_of_outstanding_work()
    if left:
        wrong.append(f"outstanding: {left[:5]}")
    return wrong


CARRIERS: dict[str, Callable[[], dict[str, Any]]] = {
    "default": dict,
    "bounded": lambda: {"maxsize": 5},
    "threads": lambda: {"queue": queue.Queue()},
}


def one(folder: str, threads: int, count: int, arguments: dict[str, Any]) -> list[str]:
    """Let half of the threads put, and the others take."""
    producers = max(threads // 2, 1)
    q = PersistentQueue("jobs", folder, number_of_workers=threads - producers, **arguments)
    got: list[str] = []
    names = [f"{producer}-{n}" for producer in range(producers) for n in range(count // producers)]
    left_to_put = threading.Semaphore(producers - 1)

    def work(number: int) -> None:
        if number < producers:
            mine = [name for name in names if name.startswith(f"{number}-")]
            for name in mine[::2]:
                q.put(name)
            q.put_many(mine[1::2])
            if not left_to_put.acquire(blocking=False):
                q.close()  # the last one
        else:
            for message in q:
                got.append(message)
                q.task_done(message)

    return together(threads, work) + judge_messages(q, folder, got, names)


def passed(folder: str, threads: int, count: int, arguments: dict[str, Any]) -> list[str]:
    """Let half of the threads take messages, and the others complete them."""
    takers = max(threads // 2, 1)
    q = PersistentQueue("jobs", folder, number_of_workers=takers, **arguments)
    taken: queue.Queue[str | None] = queue.Queue()
    names = list(map(str, range(count)))
    got: list[str] = []

    def work(number: int) -> None:
        if number == 2 * takers:
            q.put_many(names)
            q.close()
        elif number < takers:
            for message in q:
                taken.put(message)
            taken.put(None)
        else:
            while (message := taken.get(timeout=HANG_S)) is not None:
                got.append(message)
                q.task_done(message)

    found = together(2 * takers + 1, work)
    q.dispose()
    return found + judge_messages(q, folder, got, names)


def for_each_carrier(
    part: Callable[[str, int, int, dict[str, Any]], list[str]],
) -> Callable[[str, int, int], list[str]]:
    """Return a part that runs another one over each kind of carrier."""

    def run(root: str, threads: int, count: int) -> list[str]:
        wrong = []
        for kind, arguments in CARRIERS.items():
            found = part(os.path.join(root, kind), threads, count, arguments())
            wrong += [f"{kind}: {text}" for text in found]
        return wrong

    return run


def many(root: str, threads: int, count: int) -> list[str]:
    """Make and drop queues in all threads at once."""
    kept = [PersistentQueue("kept", os.path.join(root, "kept"), queue=queue.Queue())]
    kept += [PersistentQueue(queue=queue.Queue()) for _ in range(100)]
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(max(count // 50, 3)):
            for kind, arguments in CARRIERS.items():
                folder = os.path.join(root, f"{number}-{turn}-{kind}")
                q = PersistentQueue("jobs", folder, **arguments())
                q.put_many(["a", "b"])
                q.close()
                got = []
                for message in q:
                    got.append(message)
                    q.task_done(message)
                if got != ["a", "b"] or not q.join(0):
                    wrong.append(f"{kind}: {got}")
                shutil.rmtree(folder, ignore_errors=True)

    found = together(threads, work)
    assert len(kept) == 101
    return wrong + found


def files(root: str, threads: int, count: int) -> list[str]:
    """Claim files in all threads at once."""
    wrong = []
    for has_kernel_rename in (True, False):
        for is_shared in (True, False):
            what = f"{'one queue' if is_shared else 'a queue each'}, {has_kernel_rename=}"
            folder = os.path.join(root, f"{has_kernel_rename}-{is_shared}")
            os.mkdir(folder)
            # As in the first moment of a process: the rename is yet to be found.
            before, _fs._kernel_rename = _fs._kernel_rename, _fs._find_kernel_rename
            if not has_kernel_rename:
                os.environ[_fs.NO_KERNEL_RENAME] = "1"
            try:
                wrong += [f"{what}: {text}" for text in share(folder, threads, count, is_shared)]
            finally:
                _fs._kernel_rename = before
                os.environ.pop(_fs.NO_KERNEL_RENAME, None)
    return wrong


def share(folder: str, threads: int, count: int, is_shared: bool) -> list[str]:
    names = [f"{number:06d}.tsv" for number in range(count)]
    producer = WritableFolderQueue(folder)
    for name in names:
        with open(os.path.join(folder, name + ".new"), "w"):
            pass
        os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
    producer.close()
    shared = ReadableFolderQueue(folder)
    paths: list[str] = []

    def work(number: int) -> None:
        q = shared if is_shared else ReadableFolderQueue(folder)
        for path in q:
            paths.append(os.path.basename(path))
            q.task_done(path)

    wrong = together(threads, work)
    if len(paths) != count or len(set(paths)) != count:
        twice = [path for path, times in Counter(paths).items() if times > 1]
        wrong.append(f"{len(paths)} of {count} files taken, twice: {twice[:5]}")
    left = glob.glob(folder + "/*.wip") + glob.glob(folder + "/*.tsv")
    if left:
        wrong.append(f"left: {left[:5]}")
    return wrong


PARTS = {
    "one": for_each_carrier(one),
    "passed": for_each_carrier(passed),
    "many": many,
    "files": files,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--count", type=int, default=2000, help="messages or files of a round")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all parts together")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    sys.setswitchinterval(1e-5)
    rounds: Counter[str] = Counter()
    wrong: list[str] = []
    end_s = time.monotonic() + options.seconds
    while not wrong:
        for name in options.only:
            root = tempfile.mkdtemp(prefix=f"threads-{name}-")
            found = PARTS[name](root, options.threads, options.count)
            wrong += [f"{name}: {text}" for text in found]
            rounds[name] += 1
            if not found:
                shutil.rmtree(root, ignore_errors=True)
        if time.monotonic() >= end_s:
            break
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    figures = {"python": sys.version.split()[0], "global lock": has_lock, "rounds": rounds}
    print(json.dumps({**figures, "wrong": wrong}, indent=2))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
