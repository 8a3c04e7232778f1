"""What the child processes of the folder queues' tests run."""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import Empty
from typing import Any

from persistq import DONE, ReadableFolderQueue, WritableFolderQueue, _fs


def listed(folder: Any) -> list[str]:
    """Name what is in a queue's folder, besides the leases of those who take part."""
    return [name for name in os.listdir(folder) if not name.endswith(".lease")]


def write(folder: Any, *wanted: str) -> None:
    """Make messages, as `put` does: complete under another name first."""
    staged = os.path.join(folder, ".staged")
    for name in wanted:
        with open(staged, "w") as file:
            file.write(name)
        os.rename(staged, os.path.join(folder, name))


def last_letter(filename: str) -> str:
    return filename.rpartition(".")[0][-1]


def whole_stem(filename: str) -> str:
    return filename.partition(".")[0]


def stem_before_dash(filename: str) -> str:
    return filename.partition("-")[0]


def stem_after_dash(filename: str) -> str:
    return filename.partition("-")[2].partition(".")[0]


def put_files(talk: Any, queue: WritableFolderQueue, source: str, first: int, count: int) -> None:
    """Write and put files whose content is their number, once told to, then close."""
    talk.send("ready")
    talk.recv()
    for number in range(first, first + count):
        path = os.path.join(source, f"m{number:07}.tsv")
        with open(path, "w") as file:
            file.write(str(number))
        queue.put(path)
    queue.close()


def consume_all(talk: Any, queue: Any) -> list[Any]:
    """Take and finish everything until DONE; give names and content in the order taken."""
    talk.send("ready")
    talk.recv()
    taken = []
    while True:
        message = queue.get()
        if message is DONE:
            return taken
        for path in message if isinstance(message, list) else [message]:
            with open(path) as file:
                content = file.read()
            taken.append((os.path.basename(queue.original_filename_from_wip(path)), content))
        queue.task_done(message)


def get_one_then_wait(talk: Any, queue: Any) -> None:
    talk.send(queue.get())
    talk.recv()


def stage_then_wait(talk: Any, queue: Any, content: str) -> None:
    """Be half way through writing a file."""
    with open(queue._staged(queue.path), "w") as file:
        file.write(content)
    talk.send("staged")
    talk.recv()


def put_then_wait(talk: Any, folder: str, source: str | None) -> None:
    """Announce a producer, put what there is, and never close."""
    queue = WritableFolderQueue(folder)
    if source is not None:
        queue.put(source)
    talk.send("announced")
    talk.recv()


def reclaim_when_told(talk: Any, queue: ReadableFolderQueue, wips: list[str]) -> int:
    """Reclaim; give how many files were put back."""
    talk.send("ready")
    talk.recv()
    return len(queue.reclaim_abandoned())


def release_when_told(talk: Any, queue: ReadableFolderQueue, wips: list[str]) -> int:
    """Release all of them; give how many were put back."""
    talk.send("ready")
    talk.recv()
    count = 0
    for wip in wips:
        try:
            queue.release(wip)
            count += 1
        except (FileNotFoundError, FileExistsError):
            pass
    return count


def die_between_link_and_unlink(talk: Any, folder: str, source: str) -> None:
    """Put a file, and be killed when it has both names."""
    queue = WritableFolderQueue(folder, announce=False)
    queue._member.publisher().hold()
    unlink = os.unlink

    def kill(path: str) -> None:
        if path.endswith(".wip"):
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(path)

    os.unlink = kill
    queue.put(source)


def kill_at_unlink(talk: Any, queue: Any, verb: str) -> None:
    """Finish a group, and be killed before its second file."""
    claimed = queue.get(0)
    act = {"task_done": "_finish", "task_failed": "_set_aside", "release": "_put_back"}[verb]
    real, calls = getattr(queue, act), []

    def killed(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args)

    setattr(queue, act, killed)
    getattr(queue, verb)(claimed)


def get_in_two_steps(talk: Any, queue: Any) -> None:
    """When told, claim the first file of a group; when told again, the rest; say each."""
    claim, calls = _fs.claim, []

    def wait_behind_the_first(source: str, target: str) -> bool:
        claimed = claim(source, target)
        calls.append(source)
        if len(calls) == 1:
            talk.send("first")
            talk.recv()
        return claimed

    _fs.claim = wait_behind_the_first
    talk.recv()
    talk.send(queue.get(20_000))
    talk.recv()


def get_when_told(talk: Any, queue: Any) -> None:
    """Answer each thing received with what a get, waiting that many milliseconds, gives."""
    while True:
        timeout = talk.recv()
        try:
            talk.send(queue.get(timeout))
        except Empty:
            talk.send("Empty")


def wait_for_a_message(talk: Any, queue: Any) -> None:
    """Say when about to wait, and then what came and when, by the clock that processes share."""
    try:
        queue.get(0)
    except Empty:
        talk.send("waiting")
    message = queue.get(20_000)
    talk.send((message, time.monotonic()))


def race_for_one_name(talk: Any, path: str, source: str, mine: str, rounds: int) -> list[int]:
    """Put a file of one name, again and again; give the rounds that this producer won."""
    queue = WritableFolderQueue(path)
    won = []
    for number in range(rounds):
        name = os.path.join(source, f"r{number}.tsv")
        with open(name, "w") as file:
            file.write(mine)
        talk.send("ready")
        talk.recv()
        try:
            queue.put(name)
            won.append(number)
        except FileExistsError:
            with open(name) as file:
                assert file.read() == mine
    return won


def report_errors(talk: Any, queue: Any, producer: WritableFolderQueue, source: str) -> list[Any]:
    """Do what must be the same under each start method; give what came of it, without ids."""
    seen: list[Any] = []

    def attempt(action: Any, *args: Any) -> None:
        try:
            result = action(*args)
        except Exception as error:
            seen.append((type(error).__name__,))
        else:
            if isinstance(result, str):
                result = queue.original_filename_from_wip(result)
            elif isinstance(result, list):
                result = [queue.original_filename_from_wip(path) for path in result]
            seen.append(result)

    attempt(queue.get, 0)
    attempt(queue.get, 0)
    attempt(queue.task_done, "../x")
    attempt(queue.task_done, None)
    attempt(producer.put, os.path.join(source, "missing.tsv"))
    attempt(producer.put, os.path.join(source, "wrong.csv"))
    producer.close()
    attempt(producer.put, os.path.join(source, "late.tsv"))
    attempt(queue.get, 0)
    controls = sorted(name.rpartition(".")[2] for name in os.listdir(queue.path) if "__" in name)
    seen.append(controls)
    return seen


def get_from_a_fork_with_threads(talk: Any, queue: ReadableFolderQueue) -> list[str]:
    """Take what is there from several threads of a forked copy."""
    taken: list[str] = []

    def take() -> None:
        while True:
            message = queue.get(5000)
            if message is DONE:
                return
            taken.append(os.path.basename(message))
            queue.task_done(message)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken
