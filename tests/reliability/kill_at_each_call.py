"""Kill a short job at its 1st, 2nd, 3rd ... system call that changes a disk, until it runs through.

After each kill: everything that put() accepted is outstanding or was worked on, nothing that was
refused is outstanding, nothing that was completed is outstanding, nothing is outstanding twice;
what was set aside is so until somebody decides, and then outstanding or gone; and a restart goes on
from there. Needs strace, which kills just before the call takes place.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
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
from persistq._carrier.refusal import refused
from persistq._journal import failures
from persistq._journal.run_state import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str, str], None]

CALLS = (
    "write,pwrite64,writev,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "fsync,fdatasync,ftruncate,mkdir,mkdirat"
)


# All runs in one directory, fsync, over the default carrier (else over a queue of this process).
Variant = "tuple[bool, bool, bool]"
VARIANTS = [(False, False, False), (True, True, True), (False, False, True), (True, True, False)]
VARIANTS += [(False, True, True), (True, False, False), (False, True, False), (True, False, True)]
LARGE = "x" * 6000  # too large for a record of the default carrier


def refuse(q: PersistentQueue, tag: str, meanwhile: Callable[[], None]) -> None:
    """Let the queue's carrier refuse what is called so, as one that is full does."""
    put = q._transport.put
    # With the tag: not what an earlier run's kill has left of that name.
    name = f"{tag}-refused".encode()

    def put_or_refuse(payload: Any, block: bool = True, timeout: float | None = None) -> None:
        data = payload if isinstance(payload, bytes) else payload.encode()
        if name in data:
            if data.endswith(b"behind-others"):
                meanwhile()  # as another thread may, between the record and the refusal
            raise refused(queue.Full())  # else it might have been sent
        put(payload, block, timeout)

    q._transport.put = put_or_refuse  # type: ignore[method-assign]


def run_job(root: str, tag: str, variant: Variant, say: Say) -> None:
    """Restart the job and go some way: every kind of journal write, rename and sync is in it."""

    def put(name: str) -> None:
        try:
            q.put(f"{tag}-{name}")
        except queue.Full:
            say("refused", f"{tag}-{name}")
        else:
            say("put", f"{tag}-{name}")

    same_directory, fsync, is_default = variant
    current, previous = directories(root, same_directory)
    carrier = None if is_default else queue.Queue()
    q = PersistentQueue("jobs", current, previous, queue=carrier, fsync=fsync)
    refuse(q, tag, lambda: put("between"))
    q.requeue_unprocessed_work()
    put("first")
    put("refused")
    batch = [f"{tag}-batch-{n}" for n in range(6)]
    q.put_many(batch)
    for message in batch:
        say("put", message)
    put("refused-behind-others")
    earlier = [work.message for work in q.get_list_of_failed_work()]
    for number in range(7):
        message = q.get(False)
        say("doing", message)
        if number in (1, 2, 3):
            q.task_failed(message, "bad data")
            say("aside", message)
        else:
            q.task_done(message)
            say("done", message)
    if len(earlier) > 1:
        say("deciding", earlier[0])
        q.requeue_failed_work([earlier[0]])
        say("again", earlier[0])
        say("deciding", earlier[1])
        q.discard_failed_work([earlier[1]])
        say("given up", earlier[1])
    q.dispose()
    message = q.get(False)
    say("doing", message)
    q.task_done(message)
    say("done", message)
    put(f"large-{LARGE}")
    q.close()


def directories(root: str, same_directory: bool) -> tuple[str, str | None]:
    if not same_directory:
        return pickup_dirs(root, "jobs")
    folder = os.path.join(root, "same")
    os.makedirs(folder, exist_ok=True)
    return folder, folder


class Witness:
    """What was said of a job's messages, over all of its runs."""

    def __init__(self) -> None:
        kinds = ("put", "refused", "doing", "done", "aside", "deciding", "again", "redoing")
        self.said: dict[str, set[str]] = {kind: set() for kind in (*kinds, "given up")}

    def hear(self, kind: str, message: str) -> None:
        if kind == "doing" and message in self.said["deciding"]:
            kind = "redoing"
        self.said[kind].add(message)

    def hear_all(self, text: str) -> None:
        for line in text.split("\n")[:-1]:
            kind, message = line.split(": ", 1)
            self.hear(kind, message)

    def copy(self) -> Witness:
        witness = Witness()
        witness.said = {kind: set(messages) for kind, messages in self.said.items()}
        return witness

    def judge(self, left: list[str], aside: list[str]) -> dict[str, list[str]]:
        """Return what is wrong with the outstanding work, and with that set aside."""
        found = {
            "lost": self.said["put"] - self.said["doing"] - set(left),
            "refused, and there": self.said["refused"] & set(left),
            "done, and there": (self.said["done"] & set(left)) - self.said["deciding"],
            "there twice": {message for message in left if left.count(message) > 1},
            "set aside, and gone": self.said["aside"] - self.said["deciding"] - set(aside),
            # Killed before its decision is recorded, it is done again and still to be decided.
            "set aside, and there": (set(aside) & set(left)) - self.said["deciding"],
            "requeued, and gone": self.said["again"]
            - self.said["redoing"]
            - set(left)
            - set(aside),
            "given up, and there": self.said["given up"] & set(left + aside),
        }
        return {what: sorted(m[:40] for m in ms) for what, ms in found.items() if ms}


def outstanding(root: str, variant: Variant) -> tuple[list[str], list[str]]:
    """Return what is outstanding, and what is set aside."""
    _, previous = directories(root, variant[0])
    assert previous is not None
    q = PersistentQueue("jobs", previous_pickup_dir=previous, queue=queue.Queue())
    state = RunState(previous, "jobs")
    aside = failures.undecided(state.failed, state.resolved)
    return q.get_list_of_outstanding_work(), [record.line.decode() for record in aside]


def kill_each(variant: Variant, step: int, scratch: Path) -> dict[str, Any]:
    """Kill at each call in turn; return the figures."""
    template = scratch / "template"
    template.mkdir(parents=True)
    before = Witness()
    for tag in ("one", "two"):
        run_job(str(template), tag, variant, before.hear)
    calls = count_calls(job_command(template, variant, scratch / "counted"))

    def kill(moment: tuple[str, int]) -> dict[str, Any]:
        call, number = moment
        root = scratch / f"{call}{number}"
        command = job_command(template, variant, root)
        witness = before.copy()
        strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
        strace += ["-e", f"inject={call}:signal=KILL:when={number}"]
        ended = subprocess.run([*strace, *command], stdout=subprocess.PIPE, text=True)
        if ended.returncode not in (137, -9):
            raise RuntimeError(f"not killed at {call} {number}: ended with {ended.returncode}")
        witness.hear_all(ended.stdout)
        trouble = witness.judge(*outstanding(str(root), variant))
        if not trouble:
            run_job(str(root), "after", variant, witness.hear)
            trouble = witness.judge(*outstanding(str(root), variant))
        shutil.rmtree(root)
        return {"call": call, "number": number, **trouble} if trouble else {}

    moments = [(call, n) for call in sorted(calls) for n in range(1, calls[call] + 1, step)]
    with ThreadPoolExecutor(4) as pool:
        wrong = [found for found in pool.map(kill, moments) if found]
    return {
        **dict(zip(("same_directory", "fsync", "default carrier"), variant)),
        "calls": calls,
        "kills": len(moments),
        "wrong": wrong,
    }


def job_command(template: Path, variant: Variant, root: Path) -> list[str]:
    """Return the command that runs the job over a copy of the template."""
    shutil.copytree(template, root)
    flags = [str(int(flag)) for flag in variant]
    # Without the site module, which takes most of a start under strace, and without writing
    # bytecode, which takes system calls in one run and not in the next.
    path = os.path.dirname(os.path.dirname(persistq.__file__))
    start = f"import sys, runpy; sys.path.insert(0, {path!r}); sys.argv = sys.argv[1:]; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    return [sys.executable, "-S", "-E", "-B", "-c", start, __file__, "--job", str(root), *flags]


def count_calls(command: list[str]) -> dict[str, int]:
    """Return how often an undisturbed job makes each system call."""
    with tempfile.NamedTemporaryFile("r") as log:
        strace = ["strace", "-f", "-qq", "-o", log.name, "-e", f"trace={CALLS}"]
        subprocess.run([*strace, *command], stdout=subprocess.DEVNULL, check=True)
        calls = re.findall(r"^\d+ +(\w+)\(", log.read(), re.MULTILINE)
    return dict(Counter(calls))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="kill at each STEPth call (default 1)")
    parser.add_argument("--quick", action="store_true", help="two of the eight variants")
    parser.add_argument("--job", nargs=4, metavar=("ROOT", "SAME", "FSYNC", "DEFAULT"))
    options = parser.parse_args()
    if options.job:

        def say(kind: str, message: str) -> None:
            os.write(1, f"{kind}: {message}\n".encode())

        root, *flags = options.job
        # What a killed process leaves there goes with the rest.
        tempfile.tempdir = root
        variant: Any = tuple(flag == "1" for flag in flags)
        run_job(root, f"job{os.getpid()}", variant, say)
        return 0
    started_s = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, variant in enumerate(VARIANTS[: 2 if options.quick else None]):
            results.append(kill_each(variant, options.step, Path(scratch) / str(number)))
    figures = {"variants": results, "seconds": round(time.monotonic() - started_s, 1)}
    print(json.dumps(figures, indent=2))
    return 1 if any(result["wrong"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
