"""Kill producers and consumers of folder queues in every way, and count what is lost: nothing.

Three parts, each of which can be run alone:

- storm: producers and consumers at work are killed at random moments and replaced.
- steps: each operation is killed at each of its steps, which are lines of Python (everywhere)
  or system calls (where strace is).
- races: two processes want one name, over and over.
- reclaimers: several put back at once what the dead had claimed, while others take it.
- groups: consumers of groups are killed, and no group is ever mixed with another one's files.
- containers: consumers in containers of one name are killed and start again (root and unshare).
- clocks: consumers whose clocks are years apart (a time namespace, root and unshare).

`--no-kernel-rename` does all of it as on a file system whose rename cannot refuse to overwrite.

Prints figures as JSON; the exit status is 1 when a file was lost, doubled or seen half written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import persistq
from persistq import (
    DONE,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    UpstreamFailureError,
    WritableFolderQueue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = os.path.dirname(os.path.abspath(persistq.__file__))
MARK = "/persistq-begins"
CONTENT = "whole " * 3000 + "end"


# ------------------------------------------------------------------------------------ storm


def produce(folder: str, source: str) -> None:
    """Put whatever is in the source folder, and close: a restarted producer does just the same."""
    queue = WritableFolderQueue(folder)
    for name in sorted(os.listdir(source)):
        queue.put(os.path.join(source, name))
    queue.close()


def consume(queue: ReadableFolderQueue) -> None:
    while True:
        try:
            for path in queue:
                with open(path) as file:
                    assert file.read().endswith("end\n"), f"{path} was seen half written"
                queue.task_done(path)
            return
        except UpstreamFailureError:
            time.sleep(0.01)  # a producer was killed: the one that takes its place goes on


def storm(root: str, chance: random.Random, files: int, kills: int) -> dict[str, Any]:
    """Kill at random until there have been so many kills, then let the rest finish."""
    context = multiprocessing.get_context("fork")
    folder, finished = os.path.join(root, "queue"), os.path.join(root, "finished")
    sources = [os.path.join(root, f"source{number}") for number in range(4)]
    expected = set()
    for number in range(files):
        source = sources[number % 4]
        os.makedirs(source, exist_ok=True)
        name = f"m{number:07}.tsv"
        expected.add(name)
        Path(source, name).write_text(f"{name} end\n")
    consumer = ReadableFolderQueue(folder, task_done_directory=finished)
    # Announced before any closes, and closed last: a killed producer never says that it is done.
    keeper = WritableFolderQueue(folder)

    def start_producer(source: str) -> Any:
        process = context.Process(target=produce, args=(folder, source))
        process.start()
        return process

    def start_consumer() -> Any:
        process = context.Process(target=consume, args=(consumer,))
        process.start()
        return process

    producers = {source: start_producer(source) for source in sources}
    consumers = [start_consumer() for _ in range(4)]
    killed = restored = 0
    began_s = time.monotonic()
    while killed < kills:
        time.sleep(chance.uniform(0, 0.005))
        if chance.random() < 0.3:
            source = chance.choice(sources)
            if producers[source].exitcode == 0:
                continue
            os.kill(producers[source].pid, signal.SIGKILL)
            producers[source].join()
            producers[source] = start_producer(source)
        else:
            index = chance.randrange(4)
            os.kill(consumers[index].pid, signal.SIGKILL)
            consumers[index].join()
            restored += len(consumer.reclaim_abandoned())
            consumers[index] = start_consumer()
        killed += 1
        if len(os.listdir(finished)) == files:
            break
    for process in producers.values():
        process.join()
    keeper.close(dead=True)  # the others have put what those that were killed had not
    for process in consumers:
        process.join()
    restored += len(consumer.reclaim_abandoned())
    with contextlib.suppress(Empty):
        while (path := consumer.get(0)) is not DONE:
            consumer.task_done(path)
    names = os.listdir(finished)
    torn = [name for name in names if not Path(finished, name).read_text().endswith("end\n")]
    return {
        "files": files,
        "kills": killed,
        "restored": restored,
        "lost": len(expected - set(names)),
        "doubled": len(set(names) - expected),
        "torn": len(torn),
        "left over": len([name for name in os.listdir(folder) if name.endswith((".tsv", ".wip"))]),
        "failed processes": sum(p.exitcode != 0 for p in [*producers.values(), *consumers]),
        "seconds": round(time.monotonic() - began_s, 2),
    }


# -------------------------------------------------------------- reclaimers, groups, containers


def claim_all(folder: str) -> None:
    """Claim whatever waits, and die."""
    queue = ReadableFolderQueue(folder)
    with contextlib.suppress(Empty):
        while True:
            queue.get(0)
    os.kill(os.getpid(), signal.SIGKILL)


def reclaim_then_end(folder: str, barrier: Any) -> None:
    queue = ReadableFolderQueue(folder)
    barrier.wait(30)
    queue.reclaim_abandoned(None)


def note_all(folder: str, notes: str) -> None:
    """Take everything until DONE, and note each; the note is what counts doubles."""
    queue = ReadableFolderQueue(folder)
    with open(notes, "a", buffering=1) as file:
        for path in queue:
            file.write(os.path.basename(queue.original_filename_from_wip(path)) + "\n")
            queue.task_done(path)


def count_notes(folder: str, root: str, files: int) -> dict[str, Any]:
    taken = [line for path in Path(root).glob("notes*") for line in path.read_text().split()]
    left = [name for name in os.listdir(folder) if name.endswith((".tsv", ".wip"))]
    return {
        "files": files,
        "lost": files - len(set(taken)),
        "doubled": len(taken) - len(set(taken)),
        "left over": len(left),
    }


def reclaimers(root: str, files: int, rounds: int) -> dict[str, Any]:
    """Let four reclaim at once what a killed consumer had, while two take it; nobody is killed."""
    context = multiprocessing.get_context("fork")
    totals: dict[str, Any] = {"rounds": rounds, "files": 0, "lost": 0, "doubled": 0}
    totals.update({"left over": 0, "failed processes": 0})
    for number in range(rounds):
        place = os.path.join(root, str(number))
        folder = os.path.join(place, "queue")
        os.makedirs(folder)
        for file in range(files):
            Path(folder, f"m{file:07}.tsv").write_text("whole end\n")
        dead = context.Process(target=claim_all, args=(folder,))
        dead.start()
        dead.join()
        barrier = context.Barrier(4)
        takers = [
            context.Process(target=note_all, args=(folder, os.path.join(place, f"notes{who}")))
            for who in range(2)
        ]
        others = [
            context.Process(target=reclaim_then_end, args=(folder, barrier)) for _ in range(4)
        ]
        for process in takers + others:
            process.start()
        for process in others:
            process.join()
        ReadableFolderQueue(folder).reclaim_abandoned(None)
        Path(folder, "end.done").touch()
        for process in takers:
            process.join()
        figures = count_notes(folder, place, files)
        for key in ("files", "lost", "doubled", "left over"):
            totals[key] += figures[key]
        totals["failed processes"] += sum(p.exitcode != 0 for p in takers + others)
    return totals


def group_of(name: str) -> str:
    return name.partition("-")[0]


def item_of(name: str) -> str:
    return name.partition("-")[2][0]


def groups_queue(folder: str, finished: str) -> ReadableGroupedFileFolderQueue:
    return ReadableGroupedFileFolderQueue(
        folder,
        task_done_directory=finished,
        grouping_function=group_of,
        item_function=item_of,
        list_of_items_in_group=["a", "b", "c"],
    )


def consume_groups(folder: str, finished: str) -> None:
    queue = groups_queue(folder, finished)
    while True:
        try:
            for paths in queue:
                days = {Path(path).read_text() for path in paths}
                assert len(days) == 1, f"files of {days} in one group"
                queue.task_done(paths)
            return
        except UpstreamFailureError:
            time.sleep(0.01)


def groups(root: str, chance: random.Random, days: int, kills: int) -> dict[str, Any]:
    """Put groups of the same names day after day, while their consumers are killed."""
    context = multiprocessing.get_context("fork")
    folder, finished = os.path.join(root, "queue"), os.path.join(root, "finished")
    source = os.path.join(root, "source")
    os.makedirs(source)
    producer = WritableFolderQueue(folder)
    queue = groups_queue(folder, finished)

    def start() -> Any:
        process = context.Process(target=consume_groups, args=(folder, finished))
        process.start()
        return process

    consumers = [start() for _ in range(3)]
    killed = failed = 0
    for day in range(days):
        for shop in range(5):
            for item in "abc":
                path = Path(source, f"shop{shop}-{item}.tsv")
                path.write_text(f"day {day} shop {shop}")
                while path.exists():
                    try:
                        producer.put(path)
                    except FileExistsError:
                        time.sleep(0.001)  # the one of the day before waits still
                        queue.reclaim_abandoned(None)
        if killed < kills:
            index = chance.randrange(3)
            os.kill(consumers[index].pid, signal.SIGKILL)
            consumers[index].join()
            failed += consumers[index].exitcode not in (-signal.SIGKILL,)
            if chance.random() < 0.5:  # else the next day's files come first
                queue.reclaim_abandoned(None)
            consumers[index] = start()
            killed += 1
    producer.close()
    for process in consumers:
        process.join()
        failed += process.exitcode != 0
    for _ in range(3):
        queue.reclaim_abandoned(None)
        with contextlib.suppress(Empty):
            while isinstance(paths := queue.get(0), list):
                queue.task_done(paths)
    done: dict[str, int] = {}
    for path in Path(finished).iterdir():
        done[path.read_text()] = done.get(path.read_text(), 0) + 1
    return {
        "groups": days * 5,
        "kills": killed,
        "lost": sum(3 - count for count in done.values() if count < 3) + 3 * (days * 5 - len(done)),
        "doubled": sum(count - 3 for count in done.values() if count > 3),
        "left over": len([n for n in os.listdir(folder) if n.endswith((".tsv", ".wip"))]),
        "failed processes": failed,
    }


CONSUME = """
import sys, time
sys.path.insert(0, sys.argv[3])
from persistq import ReadableFolderQueue
queue = ReadableFolderQueue(sys.argv[1], task_done_directory=sys.argv[2])
queue.reclaim_abandoned(None)
print("began", flush=True)
for path in queue:
    with open(path) as file:
        assert file.read().endswith("end\\n")
    time.sleep(0.001)
    queue.task_done(path)
    queue.reclaim_abandoned(None)
"""


def namespaces(
    root: str, chance: random.Random, files: int, kills: int, wrap: list[list[str]]
) -> dict[str, Any]:
    """Kill consumers that each run in a namespace of their own, and start them again.

    Args:
        root: Where to work.
        chance: Gives the moments.
        files: How many files there are.
        kills: How many consumers are killed.
        wrap: For each consumer, the command that runs it in its namespace.
    """
    folder = os.path.join(root, "queue")
    finished = os.path.join(root, "finished")
    os.makedirs(folder)
    for number in range(files):
        Path(folder, f"m{number:07}.tsv").write_text("whole end\n")
    arguments = [sys.executable, "-c", CONSUME, folder, finished, os.path.dirname(SOURCE)]

    def start(index: int) -> subprocess.Popen[str]:
        process = subprocess.Popen([*wrap[index], *arguments], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if process.stdout.readline() != "began\n":
            raise PermissionError(f"{wrap[index][0]} cannot do this here")
        return process

    consumers = [start(index) for index in range(len(wrap))]
    for _ in range(kills):
        time.sleep(chance.uniform(0.01, 0.1))
        index = chance.randrange(len(wrap))
        consumers[index].kill()
        consumers[index].wait()
        consumers[index] = start(index)
    Path(folder, "end.done").touch()
    failed = sum(process.wait() != 0 for process in consumers)
    queue = ReadableFolderQueue(folder, task_done_directory=finished)
    queue.reclaim_abandoned(None)
    with contextlib.suppress(Empty):
        while (path := queue.get(0)) is not DONE:
            queue.task_done(path)
    names = os.listdir(finished)
    return {
        "files": files,
        "kills": kills,
        "lost": files - len({name for name in names if name.count(".") == 1}),
        "doubled": len([name for name in names if name.count(".") > 1]),
        "left over": len([n for n in os.listdir(folder) if n.endswith((".tsv", ".wip"))]),
        "failed processes": failed,
    }


def containers() -> list[list[str]]:
    inside = 'hostname loader-0; exec "$@"'
    unshare = ["unshare", "-u", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
    return [[*unshare, "sh", "-c", inside, "sh"] for _ in range(3)]


def clocks() -> list[list[str]]:
    return [
        ["unshare", "-T", f"--boottime={offset}", f"--monotonic={offset}", "-f", "--kill-child"]
        for offset in (0, 10**6, 10**8)
    ]


# ------------------------------------------------------------------------------------ steps


class Scene:
    """A fresh queue with files at every stage, for one operation to be killed in."""

    def __init__(self, root: str, elsewhere: str) -> None:
        self.folder = os.path.join(root, "queue")
        self.source = os.path.join(root, "source")
        self.finished = os.path.join(root, "finished")
        self.elsewhere = elsewhere
        for path in (root, elsewhere):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.folder, self.source, self.finished, self.elsewhere):
            os.makedirs(path)

    def write(self, *parts: str) -> str:
        path = os.path.join(*parts)
        Path(path).write_text(CONTENT)
        return path

    def found(self) -> list[str]:
        """Name every file that holds the whole content, wherever it is."""
        found = []
        for top in (self.folder, self.source, self.finished, self.elsewhere):
            for name in os.listdir(top):
                path = os.path.join(top, name)
                # A temporary file, whole or not, is no place where anybody would look.
                if not name.startswith(".") and Path(path).read_text() == CONTENT:
                    found.append(path)
        return found

    def visible_and_torn(self) -> list[str]:
        paths = [*Path(self.folder).glob("*.tsv"), *Path(self.finished).glob("*.tsv")]
        return [path.name for path in paths if path.read_text() != CONTENT]


def put_move(scene: Scene) -> Callable[[], object]:
    path = scene.write(scene.source, "a.tsv")
    return lambda: WritableFolderQueue(scene.folder).put(path)


def put_copy(scene: Scene) -> Callable[[], object]:
    path = scene.write(scene.source, "a.tsv")
    return lambda: WritableFolderQueue(scene.folder).put(path, copy=True)


def put_across_file_systems(scene: Scene) -> Callable[[], object]:
    path = scene.write(scene.elsewhere, "a.tsv")
    return lambda: WritableFolderQueue(scene.folder, fsync=True).put(path)


def get(scene: Scene) -> Callable[[], object]:
    scene.write(scene.folder, "a.tsv")
    return lambda: ReadableFolderQueue(scene.folder).get(0)


def get_group(scene: Scene) -> Callable[[], object]:
    for name in ("a.tsv", "b.tsv", "c.tsv"):
        scene.write(scene.folder, name)
    queue = ReadableGroupedFileFolderQueue(
        scene.folder,
        grouping_function=len,
        item_function=lambda name: name[0],
        list_of_items_in_group=["a", "b", "c"],
    )
    return lambda: queue.get(0)


def task_done_to_directory(scene: Scene) -> Callable[[], object]:
    scene.write(scene.folder, "999999_0000000000_a.wip")
    scene.write(scene.finished, "a.tsv")
    queue = ReadableFolderQueue(scene.folder, task_done_directory=scene.finished)
    return lambda: queue.task_done(queue.path + "/999999_0000000000_a.wip")


def task_done_across_file_systems(scene: Scene) -> Callable[[], object]:
    scene.write(scene.folder, "999999_0000000000_a.wip")
    queue = ReadableFolderQueue(scene.folder, task_done_directory=scene.elsewhere)
    return lambda: queue.task_done(queue.path + "/999999_0000000000_a.wip")


def release(scene: Scene) -> Callable[[], object]:
    scene.write(scene.folder, "999999_0000000000_a.wip")
    queue = ReadableFolderQueue(scene.folder)
    return lambda: queue.release(queue.path + "/999999_0000000000_a.wip")


def reset(scene: Scene) -> Callable[[], object]:
    for stem in "abc":
        scene.write(scene.folder, f"999999_0000000000_{stem}.wip")
    scene.write(scene.folder, "c.tsv")
    queue = WritableFolderQueue(scene.folder)
    return queue.reset


def close(scene: Scene) -> Callable[[], object]:
    scene.write(scene.folder, "a.tsv")
    return WritableFolderQueue(scene.folder).close


# Each operation, and how many whole files there are before it and must be after it. (task_done
# without a directory removes the file, which is what it is for, so it is not among them.)
OPERATIONS: dict[Callable[[Scene], Callable[[], object]], int] = {
    put_move: 1,
    put_copy: 1,
    put_across_file_systems: 1,
    get: 1,
    get_group: 3,
    task_done_to_directory: 2,
    task_done_across_file_systems: 1,
    release: 1,
    reset: 4,
    close: 1,
}


def kill_at_line(number: int) -> Any:
    """Make a trace function that kills this process at a line of persistq's code."""
    left = number

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def check_end(status: int) -> bool:
    """Tell whether a child came to its end alive."""
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the operation raised an error of its own")
    return os.WIFEXITED(status)


def run_to_line(action: Callable[[], object], number: int) -> bool:
    """Run an action in a child that is killed at a line; whether it came to its end alive."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(kill_at_line(number))
            action()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(3)
        os._exit(0)
    return check_end(os.waitpid(pid, 0)[1])


def run_to_call(action: Callable[[], object], kill: str | None) -> tuple[bool, list[str]]:
    """Run an action in a child that strace watches, and kills at a system call.

    Args:
        action: What to do.
        kill: Name of the call, a colon, and at which time of that call; None to kill nowhere.

    Returns:
        Whether it came to its end alive, and the names of its calls. None of these where it was
        over before strace watched, which happens: strace says that it is attached too early.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            os.access(MARK, os.F_OK)
            action()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(3)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["strace", "-o", log.name, "-p", str(pid)]
        if kill:
            name, _, time_of_call = kill.partition(":")
            command += ["-e", f"inject={name}:signal=KILL:when={time_of_call}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            tracer.communicate()
            raise PermissionError(f"strace cannot attach: {said}")
        os.kill(pid, signal.SIGCONT)
        alive = check_end(os.waitpid(pid, 0)[1])
        tracer.communicate()
        lines = log.read().splitlines()
    marks = [number for number, line in enumerate(lines) if MARK in line]
    calls = [line.partition("(")[0] for line in lines if "(" in line]
    return alive, calls if marks else []


def look_and_reset(scene: Scene, count: int, figures: dict[str, Any]) -> None:
    """Count what a kill cost: at once, and after the next run has reset the queue."""
    figures["torn"] += len(scene.visible_and_torn())
    before = len(scene.found())
    WritableFolderQueue(scene.folder).reset()
    after = len(scene.found())
    litter = [name for name in os.listdir(scene.folder) if name.endswith(".tmp")]
    figures["lost"] += max(0, count - before) + max(0, count - after) + len(litter)


def steps_of_lines(root: str, elsewhere: str, stride: int) -> dict[str, Any]:
    """Kill each operation at each line of persistq that it runs."""
    figures: dict[str, Any] = {"lost": 0, "torn": 0, "steps": {}}
    for operation, count in OPERATIONS.items():
        line, alive = 1, False
        while not alive:
            scene = Scene(os.path.join(root, "scene"), elsewhere)
            alive = run_to_line(operation(scene), line)
            look_and_reset(scene, count, figures)
            line += stride
        figures["steps"][operation.__name__] = line - stride - 1
    return figures


def steps_of_calls(root: str, elsewhere: str, stride: int) -> dict[str, Any]:
    """Kill each operation at each system call that it makes."""
    figures: dict[str, Any] = {"lost": 0, "torn": 0, "steps": {}}
    for operation, count in OPERATIONS.items():
        calls: list[str] = []
        while not calls:
            scene = Scene(os.path.join(root, "scene"), elsewhere)
            calls = run_to_call(operation(scene), None)[1]
        kills = [f"{name}:{calls[: at + 1].count(name)}" for at, name in enumerate(calls)]
        killed = 0
        for kill in kills[::stride]:
            seen: list[str] = []
            while not seen:
                scene = Scene(os.path.join(root, "scene"), elsewhere)
                alive, seen = run_to_call(operation(scene), kill)
                if not alive:
                    killed += 1
                    break
            look_and_reset(scene, count, figures)
        figures["steps"][operation.__name__] = killed
    return figures


# ------------------------------------------------------------------------------------ races


def race_put(root: str, number: int, who: int) -> None:
    path = os.path.join(root, f"r{number}.tsv")
    with contextlib.suppress(FileExistsError):
        queues[who].put(os.path.join(root, str(who), os.path.basename(path)))


def prepare_put(root: str, number: int, who: int) -> None:
    Path(root, str(who), f"r{number}.tsv").write_text(f"{number} {who}")


def prepare_claimed(root: str, number: int, who: int) -> None:
    wip = f"{900_000 + who}_0000000000_r{number}.wip"
    Path(root, "queue", wip).write_text(f"{number} {who}")


def race_finish(root: str, number: int, who: int) -> None:
    readers[who].task_done(os.path.join(root, "queue", f"{900_000 + who}_0000000000_r{number}.wip"))


def race_release(root: str, number: int, who: int) -> None:
    with contextlib.suppress(FileExistsError):
        readers[who].release(
            os.path.join(root, "queue", f"{900_000 + who}_0000000000_r{number}.wip")
        )


def prepare_one_claimed(root: str, number: int, who: int) -> None:
    (prepare_claimed if who == 0 else prepare_put)(root, number, who)


def race_release_and_put(root: str, number: int, who: int) -> None:
    (race_release if who == 0 else race_put)(root, number, who)


def race_reset_and_put(root: str, number: int, who: int) -> None:
    if who:
        race_put(root, number, who)
    else:
        name = f"900000_0000000000_r{number}.wip"
        persistq._folder.recovery.restore(queues[who]._member, name, f"r{number}.tsv")


def race_claim_and_put(root: str, number: int, who: int) -> None:
    """Claim a name, and want it again while it is held, as another process puts it anew."""
    if who == 0:
        held = readers[0].get(30_000)
        for _ in range(2):
            with contextlib.suppress(Empty):
                readers[0].get(0)  # would be claimed over the one that is held
        readers[0].task_done(held)
        readers[0].task_done(readers[0].get(30_000))
    else:
        for again in range(2):
            path = Path(root, "1", f"r{number}.tsv")
            path.write_text(f"{number} {again}")
            while path.exists():  # until the one before is claimed
                with contextlib.suppress(FileExistsError):
                    queues[1].put(path)


def prepare_nothing(root: str, number: int, who: int) -> None:
    pass


RACES: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "two producers put one name": (prepare_put, race_put),
    "two consumers finish one name": (prepare_claimed, race_finish),
    "two consumers release one name": (prepare_claimed, race_release),
    "a release and a put": (prepare_one_claimed, race_release_and_put),
    "a reset and a put": (prepare_one_claimed, race_reset_and_put),
    "claims of a held name and puts": (prepare_nothing, race_claim_and_put),
}
queues: list[WritableFolderQueue] = []
readers: list[ReadableFolderQueue] = []


def racer(barrier: Any, race: str, root: str, who: int, rounds: int) -> None:
    prepare, act = RACES[race]
    for number in range(rounds):
        prepare(root, number, who)
        barrier.wait(30)
        act(root, number, who)
        barrier.wait(30)


def races(root: str, rounds: int) -> dict[str, Any]:
    """Let two processes want one name at one moment; count the contents that are left."""

    context = multiprocessing.get_context("fork")
    figures: dict[str, Any] = {"rounds": rounds, "lost": 0}
    for race in RACES:
        place = os.path.join(root, race.replace(" ", "_"))
        for name in ("0", "1", "queue", "finished"):
            os.makedirs(os.path.join(place, name))
        folder, finished = os.path.join(place, "queue"), os.path.join(place, "finished")
        queues[:] = [WritableFolderQueue(folder) for _ in range(2)]
        readers[:] = [ReadableFolderQueue(folder, ".tsv", finished) for _ in range(2)]
        barrier = context.Barrier(2)
        children = [
            context.Process(target=racer, args=(barrier, race, place, who, rounds))
            for who in range(2)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        found = {
            path.read_text()
            for path in Path(place).rglob("*")
            if path.suffix in (".tsv", ".wip") and path.is_file()
        }
        expected = {f"{number} {who}" for number in range(rounds) for who in range(2)}
        figures["lost"] += len(expected - found)
        figures["lost"] += sum(child.exitcode != 0 for child in children)
    return figures


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (1)")
    parser.add_argument("--files", type=int, default=20_000, help="of the storm (20000)")
    parser.add_argument("--kills", type=int, default=200, help="of the storm (200)")
    parser.add_argument("--rounds", type=int, default=10_000, help="of each race (10000)")
    parser.add_argument("--stride", type=int, default=1, help="kill at each n-th step only (1)")
    parser.add_argument("--folder", help="where to work (a temporary folder)")
    parts = ["storm", "lines", "system calls", "races", "reclaimers", "groups", "containers"]
    parser.add_argument("--only", choices=[*parts, "clocks"], help="one part alone")
    parser.add_argument(
        "--no-kernel-rename", action="store_true", help="link and unlink, as on NFS and sshfs"
    )
    options = parser.parse_args()
    if options.no_kernel_rename:
        os.environ[persistq._fs.NO_KERNEL_RENAME] = "1"
    chance = random.Random(options.seed)
    figures: dict[str, Any] = {"seed": options.seed}
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
        other = stack.enter_context(tempfile.TemporaryDirectory(dir=memory))
        elsewhere = os.path.join(other, "elsewhere")
        figures["two file systems"] = os.stat(root).st_dev != os.stat(other).st_dev
        if options.only in (None, "storm"):
            figures["storm"] = storm(
                os.path.join(root, "storm"), chance, options.files, options.kills
            )
        if options.only in (None, "lines"):
            figures["lines"] = steps_of_lines(root, elsewhere, options.stride)
        if options.only in (None, "system calls"):
            if shutil.which("strace"):
                try:
                    figures["system calls"] = steps_of_calls(root, elsewhere, options.stride)
                except PermissionError as error:
                    figures["system calls"] = f"skipped: {error}"
            else:
                figures["system calls"] = "skipped: no strace on this machine"
        if options.only in (None, "races"):
            figures["races"] = races(os.path.join(root, "races"), options.rounds)
        if options.only in (None, "reclaimers"):
            rounds = max(1, options.rounds // 500)
            figures["reclaimers"] = reclaimers(os.path.join(root, "reclaimers"), 200, rounds)
        if options.only in (None, "groups"):
            days = max(5, options.kills)
            figures["groups"] = groups(os.path.join(root, "groups"), chance, days, days - 2)
        for part, wrap in (("containers", containers), ("clocks", clocks)):
            if options.only not in (None, part):
                continue
            if os.geteuid() or not shutil.which("unshare"):
                figures[part] = "skipped: needs root and unshare"
                continue
            try:
                place, count = os.path.join(root, part), max(3, options.kills // 5)
                figures[part] = namespaces(place, chance, 40 * count, count, wrap())
            except PermissionError as error:
                figures[part] = f"skipped: {error}"
    print(json.dumps(figures, indent=2))
    bad = ("lost", "doubled", "torn", "left over", "failed processes")
    ran = [part for part in figures.values() if isinstance(part, dict)]
    return int(any(part.get(key) for part in ran for key in bad))


if __name__ == "__main__":
    sys.exit(main())
