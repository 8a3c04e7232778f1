"""Everything at once, for minutes: killed workers and runs, the folder storm, full disks.

Three lanes run side by side. `runs` takes jobs through kills of single workers (replaced), kills of
the whole process group (restarted) and disks that are full for a moment, over all start methods.
`life` is one process that makes, kills, fills and drops queue after queue, of both kinds, and
measures itself. `storm` is folder_storm, again and again. Nothing may be lost, and memory, file
descriptors, semaphores, threads and leftover files may not grow from the first quarter of the time
to the last. Prints figures as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persistq import DONE, PersistentQueue, ReadableFolderQueue, WritableFolderQueue, pickup_dirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HANG_S = 120.0
# What a process may use more at the end than at the beginning, and be said not to grow: the
# allocator's pages come and go.
MEMORY_SLACK_BYTES = 4 << 20
# What a finished run leaves: its record, its journals, and the settled deaths of those that were
# killed.
KEPT = re.compile(
    r"jobs_(run|seal)\.json|jobs_earlier|jobs_carried\.tsv"
    r"|jobs_(requested|completed|started|attempts)_PID\d+(-\d+)?(_requeued)?\.tsv|jobs_attempts\.tsv"
    # A lease that its process was killed in making stays until the next start.
    r"|\.jobs_\w+_[0-9a-f]{8}_PID\d+(-\d+)?\.(settled|checked|lease\.new-\w+)"
)


# ------------------------------------------------------------------------- what all lanes do


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file of this process grow beyond `room` bytes, which gives short writes, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """A disk that is full now and then.

    Args:
        rng (random.Random): When it is.
        often (float): The part of all calls that find it full.
    """

    def __init__(self, rng: random.Random, often: float) -> None:
        self._rng = rng
        self._often = often
        self.refusals = 0

    def write(self, call: Callable[[], object], path: str) -> None:
        """Make the call, which writes to the file; once more where the disk has refused it."""
        if self._rng.random() < self._often:
            size = os.path.getsize(path) if os.path.exists(path) else 0
            try:
                with full_disk(size + self._rng.randrange(30)):
                    call()
            except OSError as error:
                if error.errno not in (errno.EFBIG, errno.ENOSPC):
                    raise
                self.refusals += 1
            else:
                return
        call()


def message(number: int) -> str:
    """Return a message: most are small, some need an arena, few a file of their own."""
    padding = 5_000_000 if number % 1999 == 1998 else 3000 if number % 50 == 49 else 0
    return f"{number} {'x' * padding}"


def work(q: PersistentQueue, folder: str, seed: int) -> None:
    logging.getLogger("persistq").setLevel(logging.CRITICAL)  # full disks, many, are the point
    rng = random.Random(seed)
    disk = Disk(rng, 0.02)
    # One write of a line in append mode is whole or absent, whenever this process is killed.
    log = os.open(
        os.path.join(folder, f"worked-{os.getpid()}-{time.time_ns()}"),
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL,
    )
    for taken in q:
        number = taken.split(" ", 1)[0]
        assert taken == message(int(number)), "a message was changed on its way"
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0, 0.002))  # so that kills meet workers at work
        os.write(log, f"{number}\n".encode())
        path = q.done_file
        disk.write(lambda taken=taken: q.task_done(taken), str(path and path.name))  # type: ignore[misc]
    os.close(log)


class Workers:
    """The workers of a queue: killed one by one, and replaced."""

    def __init__(self, context: Any, q: PersistentQueue, folder: str, rng: random.Random) -> None:
        self._context = context
        self._arguments = (q, folder)
        self._rng = rng
        self.processes: list[Any] = []
        self.kills = 0

    def start(self) -> None:
        arguments = (*self._arguments, self._rng.randrange(2**32))
        self.processes.append(self._context.Process(target=work, args=arguments))
        self.processes[-1].start()

    def kill(self, at_least: int) -> bool:
        """Kill one, if so many live; return whether one was."""
        living = [process for process in self.processes if process.is_alive()]
        if len(living) < at_least:
            return False
        victim = self._rng.choice(living)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        self.kills += victim.exitcode == -signal.SIGKILL  # else it had just ended
        return True

    def finish(self) -> None:
        """Wait for all, and give back what they hold of this process."""
        for process in self.processes:
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), f"a worker ended: {process.exitcode}"
            process.close()


# ------------------------------------------------------------------------------------- runs


def run(root: str, options: argparse.Namespace) -> None:
    """One run of a job: what is outstanding first, then the inputs that were not yet put."""
    logging.getLogger("persistq").setLevel(logging.CRITICAL)
    rng = random.Random(options.seed)
    if options.same_directory:
        current = previous = os.path.join(root, "same")
        os.makedirs(current, exist_ok=True)
    else:
        current, previous = pickup_dirs(root, "jobs")  # type: ignore[assignment]
    context: Any = multiprocessing.get_context(options.start_method)
    q = PersistentQueue("jobs", current, previous, queue=context, fsync=options.fsync)
    for name in semaphores_of_this_process():
        os.write(1, f"semaphore {name}\n".encode())
    workers = Workers(context, q, os.path.join(root, "worked"), rng)
    for _ in range(3):
        workers.start()
    q.requeue_unprocessed_work()
    noted = os.open(os.path.join(root, "put"), os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with open(os.path.join(root, "put")) as lines:
        already = {int(line) for line in lines}
    disk = Disk(rng, 0.02)
    put_file = q.put_file
    assert put_file is not None
    for number in range(options.messages):
        if number in already:
            continue
        disk.write(lambda number=number: q.put(message(number)), str(put_file.name))  # type: ignore[misc]
        os.write(noted, f"{number}\n".encode())
        if rng.random() < 0.004 and workers.kill(at_least=1):
            workers.start()
            os.write(1, b"killed\n")
    # A DONE for each, and for those that were killed: one may die with the DONE in hand.
    q.number_of_workers = len(workers.processes) + 1
    q.close()
    if rng.random() < 0.5 and workers.kill(at_least=2):
        os.write(1, b"killed\nkilled at the end\n")
    workers.finish()
    os.write(1, f"refused {disk.refusals}\n".encode())
    if PersistentQueue("jobs", previous_pickup_dir=current).get_list_of_outstanding_work():
        # The one that was killed last had the others outlive it only for a moment.
        os.write(1, b"unfinished\n")
    else:
        os.write(1, b"finished\n")


def semaphores_of_this_process() -> list[str]:
    """Return the paths of named semaphores that are mapped, and were not unlinked."""
    try:
        with open("/proc/self/maps") as maps:
            return sorted(set(re.findall(r"(/dev/shm/sem\.\S+)$", maps.read(), re.MULTILINE)))
    except FileNotFoundError:
        return []  # not Linux


def one_job(root: str, options: argparse.Namespace, rng: random.Random) -> dict[str, Any]:
    """Run a job to its end through kills of its whole group; return the figures."""
    os.mkdir(os.path.join(root, "worked"))
    count = options.messages
    command = [sys.executable, __file__, "--run", root, "--messages", str(count)]
    command += ["--start-method", rng.choice(multiprocessing.get_all_start_methods())]
    command += ["--same-directory"] * (rng.random() < 0.3) + ["--fsync"] * (rng.random() < 0.3)
    figures: Counter[str] = Counter(jobs=1)
    said: list[str] = []
    limit_s = options.patience_s
    while "finished" not in said:
        with subprocess.Popen(
            [*command, "--seed", str(rng.randrange(2**32))],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            wait_s = rng.uniform(0, limit_s)
            try:
                text = process.communicate(timeout=wait_s)[0]
            except subprocess.TimeoutExpired:
                figures["hangs"] += wait_s > HANG_S
                os.killpg(process.pid, signal.SIGKILL)
                text = process.communicate()[0]
                figures["runs killed"] += 1
        said += text.splitlines()
        figures["runs"] += 1
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a run ended with {process.returncode}: {command}")
        limit_s *= 1.3
    worked: Counter[str] = Counter()
    for path in Path(root, "worked").iterdir():
        worked.update(path.read_text().split())
    wanted = {str(number) for number in range(count)}
    last = max(path.parent for path in Path(root).rglob("jobs_requested_*"))
    names = [line.split()[1] for line in said if line.startswith("semaphore ")]
    figures["workers killed"] = said.count("killed")
    figures["refused on a full disk"] = sum(int(s.split()[1]) for s in said if "refused" in s)
    figures["messages"] = count
    figures["lost"] = len(wanted - worked.keys())
    figures["unknown"] = len(worked.keys() - wanted)
    figures["repeated"] = sum(worked.values()) - len(worked)
    figures["semaphores left"] = sum(map(os.path.exists, names))
    leftovers = [path.name for path in last.iterdir() if is_leftover(path.name)]
    # Of a worker that had done all its work when nobody was left to settle its death; and of the
    # run itself, if the kill met it behind its last word.
    for is_left, lease in (
        ("killed at the end" in text, r"\.jobs_(?!main_).*\.lease"),
        (process.returncode == -signal.SIGKILL, r"\.jobs_main_.*\.lease"),
    ):
        leases = [name for name in leftovers if is_left and re.fullmatch(lease, name)]
        leftovers = [name for name in leftovers if name not in leases[:1]]
    if leftovers:
        os.write(2, f"left over: {leftovers}\n".encode())
    figures["files left"] = len(leftovers)
    return figures


def is_leftover(name: str) -> bool:
    """Tell whether this is in a finished run's folder, and should not."""
    return not KEPT.fullmatch(name)


# ------------------------------------------------------------------------------------- life


def live(root: str, options: argparse.Namespace) -> None:
    """Make, kill, fill and drop queues in one process; say after each round what it holds."""
    logging.getLogger("persistq").setLevel(logging.CRITICAL)
    rng = random.Random(options.seed)
    context: Any = multiprocessing.get_context("fork")
    end_s = time.monotonic() + options.minutes * 60
    while time.monotonic() < end_s:
        folder = tempfile.mkdtemp(dir=root)
        figures = one_life(folder, context, rng, options.messages // 10)
        gc.collect()  # with the queue goes its lease
        leftovers = list(filter(is_leftover, os.listdir(os.path.join(folder, "run"))))
        if leftovers:
            os.write(2, f"left over in one life: {leftovers}\n".encode())
        figures["files left"] = len(leftovers)
        shutil.rmtree(folder)
        figures.update(measures())
        os.write(1, f"{json.dumps(figures)}\n".encode())


def one_life(folder: str, context: Any, rng: random.Random, count: int) -> dict[str, int]:
    current = os.path.join(folder, "run")
    worked = os.path.join(folder, "worked")
    os.mkdir(worked)
    q = PersistentQueue("jobs", current, queue=context)
    workers = Workers(context, q, worked, rng)
    disk = Disk(rng, 0.05)
    for _ in range(2):
        workers.start()
    assert q.put_file is not None
    path = str(q.put_file.name)
    for number in range(count):
        disk.write(lambda number=number: q.put(message(number)), path)  # type: ignore[misc]
        if number == count // 2:
            workers.kill(at_least=1)
            workers.start()
    is_done = q.join(HANG_S)
    q.number_of_workers = len(workers.processes)
    q.close()
    workers.finish()
    done = {line for file in Path(worked).iterdir() for line in file.read_text().split()}
    left = PersistentQueue("jobs", previous_pickup_dir=current).get_list_of_outstanding_work()
    return {
        "hangs": not is_done,
        "lost": count - len(done) + len(left),
        "workers killed": workers.kills,
        "refused on a full disk": disk.refusals,
        "messages": count,
        "folder files lost": hand_over(os.path.join(folder, "queue"), disk),
    }


def hand_over(folder: str, disk: Disk) -> int:
    """Send files through a folder queue; return how many did not arrive."""
    names = [f"m{number:02}.tsv" for number in range(20)]
    seen = set()
    with WritableFolderQueue(folder) as writer:
        for name in names:
            source = os.path.join(os.path.dirname(folder), name)
            Path(source).write_text("whole " * 10)
            target = os.path.join(folder, name)
            disk.write(lambda source=source: writer.put(source, copy=True), target)  # type: ignore[misc]
    reader = ReadableFolderQueue(folder)
    while (path := reader.get()) is not DONE:
        assert isinstance(path, str)
        assert Path(path).read_text() == "whole " * 10
        seen.add(os.path.basename(reader.original_filename_from_wip(path)))
        reader.task_done(path)
    reader.dispose()
    return len(set(names) - seen)


def measures() -> dict[str, int]:
    """Return what this process holds."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "semaphores": len(semaphores_of_this_process()),
        "temporary files": sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
    }


MEASURED = ("memory", "descriptors", "threads", "semaphores", "temporary files")


def growth(samples: list[dict[str, int]]) -> dict[str, Any]:
    """Compare the last quarter of the samples to the first; return what there is to say."""
    quarter = max(len(samples) // 4, 1)
    # The first round of all fills caches and imports modules.
    first, last = samples[1 : quarter + 1] or samples, samples[-quarter:]
    result: dict[str, Any] = {"grown": []}
    for name in MEASURED:
        before, after = ([sample[name] for sample in part] for part in (first, last))
        if name == "memory":
            low, high = int(statistics.median(before)), int(statistics.median(after))
            is_grown = high > low * 1.1 + MEMORY_SLACK_BYTES
        else:
            low, high = max(before), max(after)
            is_grown = high > low
        result[name] = {"first quarter": low, "last quarter": high}
        if is_grown:
            result["grown"].append(name)
    return result


# ---------------------------------------------------------------------------------- all lanes


def soak(root: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run all lanes until the time is over; return the figures."""
    temporary = os.path.join(root, "tmp")
    os.makedirs(os.path.join(temporary, "life"))
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    end_s = time.monotonic() + options.minutes * 60
    totals: dict[str, Counter[str]] = {"runs": Counter(), "storm": Counter()}
    failures: list[BaseException] = []

    def lane(round_of_it: Callable[[random.Random], dict[str, int]], name: str) -> None:
        rng = random.Random(f"{options.seed} {name}")
        try:
            while True:
                totals[name].update(round_of_it(rng))
                if time.monotonic() >= end_s:
                    return
        except BaseException as error:
            failures.append(error)

    def job(rng: random.Random) -> dict[str, int]:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            return one_job(folder, options, rng)

    def storm(rng: random.Random) -> dict[str, int]:
        command = [sys.executable, str(Path(__file__).with_name("folder_storm.py"))]
        command += ["--only", "storm", "--files", str(options.messages), "--folder", root]
        command += ["--kills", "20", "--seed", str(rng.randrange(2**32))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=HANG_S * 4)
        return {**json.loads(ended.stdout)["storm"], "rounds": 1}

    threads = [
        threading.Thread(target=lane, args=(one, name))
        for name, one in (("runs", job), ("storm", storm))
    ]
    for thread in threads:
        thread.start()
    home = os.path.join(root, "life")
    os.mkdir(home)
    arguments = ["--minutes", str(options.minutes), "--seed", str(options.seed)]
    arguments += ["--messages", str(options.messages)]
    command = [sys.executable, __file__, "--live", home, *arguments]
    # What other processes have among the temporary files is not for this one to measure.
    environment = {**os.environ, "TMPDIR": os.path.join(temporary, "life")}
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if ended.returncode:
        raise RuntimeError(f"life ended with {ended.returncode}")
    samples = [json.loads(line) for line in ended.stdout.splitlines()]
    life: Counter[str] = Counter(rounds=len(samples))
    for sample in samples:
        life.update({name: n for name, n in sample.items() if name not in MEASURED})
    # What the killed have left in the temporary directory, the next process removes.
    script = "from persistq import PersistentQueue; PersistentQueue()"
    subprocess.run([sys.executable, "-c", script], check=True)
    return {
        **{name: {**total} for name, total in totals.items()},
        "life": {**life},
        "growth": growth(samples),
        "temporary files at the end": [
            # Not multiprocessing's own: a killed fork server leaves its socket's directory.
            name
            for _, folders, files in os.walk(temporary)
            for name in folders + files
            if "persistq" in name
        ],
    }


def is_well(figures: dict[str, Any]) -> bool:
    """Tell whether nothing is lost, hangs, grows or stays."""
    bad = ("lost", "unknown", "hangs", "doubled", "torn", "left over", "failed processes")
    bad += ("folder files lost", "files left", "semaphores left")
    lanes = [figures[name] for name in ("runs", "storm", "life")]
    is_bad = any(lane.get(name) for lane in lanes for name in bad)
    return not (is_bad or figures["growth"]["grown"] or figures["temporary files at the end"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (1)")
    parser.add_argument("--minutes", type=float, default=20, help="how long (20)")
    parser.add_argument("--messages", type=int, default=2000, help="of each job (2000)")
    parser.add_argument("--patience-s", type=float, default=2.0, help="a run's first seconds (2)")
    parser.add_argument("--run", metavar="ROOT", help="one run of a job over ROOT")
    parser.add_argument("--live", metavar="FOLDER", help="the one long life alone")
    parser.add_argument("--start-method", default="fork", help="with --run")
    parser.add_argument("--same-directory", action="store_true", help="with --run")
    parser.add_argument("--fsync", action="store_true", help="with --run")
    options = parser.parse_args()
    if options.run:
        run(options.run, options)
        return 0
    if options.live:
        live(options.live, options)
        return 0
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        figures = soak(root, options)
    figures.update(seed=options.seed, seconds=round(time.monotonic() - started_s, 1))
    print(json.dumps(figures, indent=2))
    return 0 if is_well(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
