"""Let the disk fail a short job: full at each byte, full for real, failing at each call.

Three parts. `limits`: no file may grow beyond a limit, for every limit in turn, which gives real
short writes. `tmpfs`: a small file system that is really full, of bytes or of files (needs the
right to mount). `calls`: each call that writes, syncs, renames or cuts fails in its turn, with
ENOSPC or EIO (needs strace). The job goes on meanwhile, and the disk gets well before its end.
Then: what was refused is never delivered, nor outstanding; what was accepted, or was there before,
is delivered once; what was done is done; and journals hold whole lines. Figures as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import multiprocessing
import os
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import persistq
from persistq import PersistentQueue, pickup_dirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Events = list[tuple[str, str]]

# (over the default carrier, one directory for all runs, fsync)
VARIANTS = [(True, False, False), (False, True, True), (True, True, True), (False, False, False)]
CALLS = ("write", "fdatasync", "fsync", "ftruncate", "rename", "mkdir", "unlink", "pwrite64")
CALLS += ("link", "renameat2")
LARGE = "x" * 6000


def run_job(
    root: str,
    tag: str,
    variant: tuple[bool, bool, bool],
    fail: Callable[[], Callable[[], None]],
    is_begun_first: bool = False,
) -> Any:
    """Restart the job, go on though the disk fails, heal it, and do what was refused again.

    `fail` spoils the disk, and returns what heals it; where a run is to begin first, for which the
    disk must hold more than a journal's first lines do, it is called behind that.

    Returns:
        list: What happened, as pairs of a kind and a message.
    """
    is_default, same_directory, fsync = variant
    events: Events = []

    def attempt(call: Callable[[], object]) -> bool:
        try:
            call()
        except OSError:
            return False
        return True

    def persist(call: Callable[[], object]) -> None:
        """Do what must succeed, but for the one call that fails."""
        if not attempt(call):
            events.append(("again", ""))
            call()

    def put(*names: str) -> None:
        messages = [f"{tag}-{name}" for name in names]
        is_put = attempt(lambda: q.put_many(messages) if len(messages) > 1 else q.put(messages[0]))
        events.extend(("put" if is_put else "refused", message) for message in messages)

    def take() -> str:
        message = q.get(False)
        events.append(("got", message))
        assert isinstance(message, str)
        return message

    def open_queue() -> PersistentQueue:
        current, previous = directories(root, same_directory)
        carrier = None if is_default else queue.Queue()
        return PersistentQueue("jobs", current, previous, queue=carrier, fsync=fsync)

    heal = (lambda: None) if is_begun_first else fail()
    try:
        q = open_queue()
        if is_default and q.joinable_queue._spill.home._end is None:
            raise OSError("no room for large messages, as the log says")
    except OSError:
        heal()
        q = open_queue()
        events.append(("restarted", ""))
    if is_begun_first:
        heal = fail()
    is_requeued = attempt(q.requeue_unprocessed_work)
    put("first")
    put("some", "of", "a batch")
    put("second")
    put(f"large {LARGE}")
    undone = []
    for _ in range(3):
        with contextlib.suppress(queue.Empty):
            message = take()
            if attempt(lambda message=message: q.task_done(message)):  # type: ignore[misc]
                events.append(("done", message))
            else:
                undone.append(message)
    q.dispose()
    events += [("undone", message) for message in undone]
    heal()
    if not is_requeued:
        events.append(("not requeued at first", ""))
        persist(q.requeue_unprocessed_work)
    put("after")
    put("all", f"the rest {LARGE}")
    with contextlib.suppress(queue.Empty):
        while True:
            undone.append(take())
    for message in undone[:-3]:  # so the next run finds some outstanding
        persist(lambda message=message: q.task_done(message))  # type: ignore[misc]
        events.append(("done", message))
    return events


def directories(root: str, same_directory: bool) -> tuple[str, str | None]:
    if not same_directory:
        return pickup_dirs(root, "jobs")
    folder = os.path.join(root, "same")
    os.makedirs(folder, exist_ok=True)
    return folder, folder


def outstanding(root: str, same_directory: bool) -> list[str]:
    _, previous = directories(root, same_directory)
    q = PersistentQueue("jobs", previous_pickup_dir=previous, queue=queue.Queue())
    return q.get_list_of_outstanding_work()


def judge(root: str, variant: tuple[bool, bool, bool], before: list[str], events: Any) -> Any:
    """Return what is wrong after a job; nothing, if all is well."""
    heard: dict[str, set[str]] = {}
    for kind, message in events:
        heard.setdefault(kind, set()).add(message)
    put, refused = heard.get("put", set()), heard.get("refused", set())
    got, done = heard.get("got", set()), heard.get("done", set())
    left = outstanding(root, variant[1])
    deliveries = Counter(message for kind, message in events if kind == "got")
    torn = [
        path.name for path in Path(root).rglob("jobs_*.tsv") if path.read_bytes()[-1:] not in b"\n"
    ]
    found = {
        "lost": (put | set(before)) - done - set(left),
        "not delivered": (put | set(before)) - got,
        "refused, and there": refused & (got | set(left)),
        "done, and there": done & set(left),
        "from nowhere": (got | set(left)) - put - set(before) - refused,
        "twice": {message for message, n in (deliveries + Counter(left)).items() if n > 2},
        "delivered twice": {message for message, n in deliveries.items() if n > 1},
        "torn": torn,
    }
    return {what: sorted(m[:40] for m in messages) for what, messages in found.items() if messages}


class Scene:
    """Two earlier runs of the job, to restart from, over and over."""

    def __init__(self, scratch: Path, variant: tuple[bool, bool, bool]) -> None:
        self.scratch = scratch
        self.variant = variant
        self.template = scratch / "template"
        self.template.mkdir(parents=True)
        for tag in ("one", "two"):
            run_in_child(str(self.template), tag, variant, None)
        self.before = outstanding(str(self.template), variant[1])

    def copy(self, name: str) -> str:
        root = self.scratch / name
        shutil.copytree(self.template, root)
        return str(root)

    def judge(self, root: str, events: Any) -> Any:
        return judge(root, self.variant, self.before, events)


def run_in_child(
    root: str,
    tag: str,
    variant: tuple[bool, bool, bool],
    fail: Callable[[], Callable[[], None]] | None,
    is_begun_first: bool = False,
) -> list[Any]:
    """Run the job in a process of its own; see `run_job`."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, root, tag, variant, fail, is_begun_first))
    child.start()
    theirs.close()
    try:
        events: list[Any] = ours.recv()
    except EOFError:
        raise RuntimeError(f"a job in {root} failed") from None
    finally:
        child.join()
        ours.close()
    return events


def _child(talk: Any, root: str, tag: str, variant: Any, fail: Any, is_begun_first: bool) -> None:
    talk.send(run_job(root, tag, variant, fail or never, is_begun_first))


def never() -> Callable[[], None]:
    """Leave the disk as it is."""
    return lambda: None


class Figures:
    """What the runs of one part have shown."""

    def __init__(self) -> None:
        self.runs = 0
        self.events: Counter[str] = Counter()
        self.wrong: list[Any] = []

    def add(self, what: str, events: Any, trouble: Any) -> None:
        self.runs += 1
        self.events.update(kind for kind, _ in events)
        if trouble:
            self.wrong.append({"at": what, **trouble})

    def as_dict(self) -> dict[str, Any]:
        return {"runs": self.runs, **self.events, "wrong": self.wrong}


def limits(scene: Scene, step: int, rng: random.Random, figures: Figures) -> None:
    """Run the job under each limit that a journal of it reaches, and some that a large one does.

    Each twice: with the limit from its start on, which a lease reaches first, and behind that.
    """
    files = list(scene.template.rglob("jobs_requested*.tsv"))
    small = max(path.read_bytes().find(LARGE.encode()) for path in files)
    sizes = [*range(rng.randrange(step), small + 20, step), small + 3000, small + 2 * len(LARGE)]
    for limit in sizes:
        for is_begun_first in (False, True):
            root = scene.copy(f"limit{limit}")
            spoil = functools.partial(limit_files, limit)
            events = run_in_child(root, "now", scene.variant, spoil, is_begun_first)
            figures.add(
                f"limit {limit}, {scene.variant}, {is_begun_first}",
                events,
                scene.judge(root, events),
            )
            shutil.rmtree(root)


def limit_files(limit: int) -> Callable[[], None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ------------------------------------------------------------------------------------ tmpfs


def in_a_mount_namespace(options: argparse.Namespace) -> Any:
    """Run the part on a small file system that nobody else sees; return its figures."""
    if not shutil.which("unshare") or os.geteuid():
        return "skipped: only root may mount a file system"
    allowed = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    tried = subprocess.run(allowed, stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        return f"skipped: {tried.stderr.strip()}"
    command = ["unshare", "-m", sys.executable, __file__, "--inside", "--seed", str(options.seed)]
    command += ["--step", str(options.step), *["--quick"] * options.quick]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout)


def tmpfs(scene: Scene, step: int, rng: random.Random, figures: Figures) -> None:
    """Leave the job little room, of pages or of files, on a file system that is else full."""
    del rng
    place = scene.scratch / "full"
    place.mkdir()
    page = os.sysconf("SC_PAGE_SIZE")
    for what in ("pages", "files"):
        for room in range(0, 10, min(step, 3)):
            mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "tmpfs", str(place)]
            subprocess.run(mount, check=True)
            root = str(place / "root")
            shutil.copytree(scene.template, root)
            os.mkdir(place / "tmp")
            usage = os.statvfs(place)
            pages = usage.f_blocks - usage.f_bfree + (room if what == "pages" else 200)
            inodes = usage.f_files - usage.f_ffree + (room if what == "files" else 200)
            events = run_in_child(
                root, "now", scene.variant, functools.partial(use_up, place, pages * page, inodes)
            )
            trouble = scene.judge(root, events)
            figures.add(f"{room} {what} left, {scene.variant}", events, trouble)
            subprocess.run(["umount", str(place)], check=True)


def use_up(place: Path, size: int, inodes: int) -> Callable[[], None]:
    def remount(size: int, inodes: int) -> None:
        how = f"remount,size={size},nr_inodes={inodes}"
        subprocess.run(["mount", "-o", how, str(place)], check=True)

    tempfile.tempdir = str(place / "tmp")
    remount(size, inodes)
    return lambda: remount(1 << 22, 900)


# ------------------------------------------------------------------------------------ calls


def calls(scene: Scene, step: int, rng: random.Random, figures: Figures) -> None:
    """Let each call fail in its turn."""
    made = find_calls(job_command(scene, scene.copy("counted")))
    moments = [
        (call, number, error, is_on_file)
        for call in CALLS
        for error in ("ENOSPC", "EIO")
        for number, is_on_file in list(enumerate(made[call], 1))[rng.randrange(step) :: step]
    ]

    def fail(moment: tuple[str, int, str, bool]) -> tuple[str, Any, Any]:
        call, number, error, is_on_file = moment
        root = scene.copy(f"{call}{number}{error}")
        strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call},ftruncate"]
        strace += ["-e", f"inject={call}:error={error}:when={number}"]
        if call == "write" and is_on_file:
            # Nor can the failed write be undone at once.
            strace += ["-e", f"inject=ftruncate:error={error}:when=1"]
        ended = subprocess.run([*strace, *job_command(scene, root)], stdout=subprocess.PIPE)
        if ended.returncode:
            return str(moment), [], {"the job ended with": [str(ended.returncode)]}
        events = [tuple(event) for event in json.loads(ended.stdout)]
        trouble = scene.judge(root, events)
        shutil.rmtree(root)
        return f"{moment}, {scene.variant}", events, trouble

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(fail, moments):
            figures.add(*found)


def job_command(scene: Scene, root: str) -> list[str]:
    """Return the command that runs the job alone, without what Python else does at its start."""
    path = os.path.dirname(os.path.dirname(persistq.__file__))
    start = f"import sys, runpy; sys.path.insert(0, {path!r}); sys.argv = sys.argv[1:]; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    flags = [str(int(flag)) for flag in scene.variant]
    return [sys.executable, "-S", "-E", "-B", "-c", start, __file__, "--job", root, *flags]


def find_calls(command: list[str]) -> dict[str, list[bool]]:
    """Return for each call that an undisturbed job makes whether it is on a file."""
    made: dict[str, list[bool]] = {call: [] for call in CALLS}
    with tempfile.NamedTemporaryFile("r") as log:
        strace = ["strace", "-f", "-y", "-qq", "-o", log.name, "-e", f"trace={','.join(CALLS)}"]
        subprocess.run([*strace, *command], stdout=subprocess.DEVNULL, check=True)
        for call, where in re.findall(r"^\d+ +(\w+)\((?:\d+<(.))?", log.read(), re.MULTILINE):
            made[call].append(where == "/")
    return made


# -------------------------------------------------------------------------------------- all


def run_part(part: Callable[..., None], options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    figures = Figures()
    with tempfile.TemporaryDirectory() as scratch:
        for number, variant in enumerate(VARIANTS[: 2 if options.quick else None]):
            scene = Scene(Path(scratch, str(number)), variant)
            part(scene, options.step, rng, figures)
    return figures.as_dict()


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    if options.only in (None, "limits"):
        yield "limits", run_part(limits, options)
    if options.only in (None, "tmpfs"):
        yield "tmpfs", in_a_mount_namespace(options)
    if options.only in (None, "calls"):
        has_strace = shutil.which("strace")
        yield "calls", run_part(calls, options) if has_strace else "skipped: no strace here"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of where a step starts (1)")
    parser.add_argument("--step", type=int, default=1, help="fail at each STEPth place (1)")
    parser.add_argument("--quick", action="store_true", help="two of the four variants")
    parser.add_argument("--only", choices=["limits", "tmpfs", "calls"], help="one part alone")
    parser.add_argument("--inside", action="store_true", help="tmpfs, where it may be mounted")
    parser.add_argument("--job", nargs=4, metavar=("ROOT", "DEFAULT", "SAME", "FSYNC"))
    options = parser.parse_args()
    logging.getLogger("persistq").setLevel(logging.CRITICAL)
    if options.job:
        root, *flags = options.job
        events = run_job(root, "now", tuple(flag == "1" for flag in flags), never)
        # Not with the call that is made to fail.
        os.writev(1, [json.dumps(events).encode()])
        return 0
    if options.inside:
        print(json.dumps(run_part(tmpfs, options)))
        return 0
    started_s = time.monotonic()
    figures: dict[str, Any] = {"seed": options.seed, **dict(parts(options))}
    figures["seconds"] = round(time.monotonic() - started_s, 1)
    print(json.dumps(figures, indent=2))
    return int(any(isinstance(part, dict) and part["wrong"] for part in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
