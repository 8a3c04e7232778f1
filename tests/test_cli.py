"""The command line, run as it is run: real commands, on queues that others are working on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cli_workers
import persistq
from folder_workers import listed
from persistq import (
    DONE,
    PersistentQueue,
    ReadableFolderQueue,
    WritableFolderQueue,
    pickup_dirs,
)

if TYPE_CHECKING:
    from processes import Nursery

LIMIT_S = 25
COMMAND = [sys.executable, "-m", "persistq"]
REFERENCE = Path(__file__).parent.parent / "docs/reference/command-line.md"
posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell, signals or names")


def run(*arguments: str | bytes, folder: Path | None = None, **options: Any) -> Any:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        timeout=LIMIT_S,
        **{"stdin": subprocess.DEVNULL, **options},
    )


def text(*arguments: str, status: int = 0, folder: Path | None = None) -> str:
    """Run a command that is to end with a status; return what it printed."""
    result = run(*arguments, folder=folder)
    assert result.returncode == status, (result.stdout, result.stderr)
    return (result.stdout + result.stderr).decode()


def script(code: str, folder: Path, shell: str = "bash") -> Any:
    """Run a shell script in which `persistq` is the command."""
    bin_folder = folder.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    command = bin_folder / "persistq"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m persistq "$@"\n')
    command.chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    (folder / "script.sh").write_text(code)
    return subprocess.run(
        [shell, "script.sh"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def surveys(*paths: Path, status: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        text("status", "--json", *map(str, paths), status=status)
    )
    return found


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def write(folder: Path, *names: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return [str(folder / name) for name in names]


# Looking


def test_status_shows_a_live_run_and_who_has_what_in_hand(tmp_path: Path, nursery: Nursery) -> None:
    worker = nursery.start(cli_workers.put_and_work, str(tmp_path / "run"), 10, 4)
    assert worker.receive() == "file 4.csv"
    before = contents(tmp_path)

    (found,) = surveys(tmp_path / "run", status=1)
    shown = text("status", str(tmp_path / "run"), status=1)

    assert (found["requested"], found["completed"], found["outstanding"]) == (10, 4, 6)
    (hand,) = found["in_progress"]
    assert (hand["pid"], hand["state"], hand["messages"]) == (worker.pid, "alive", ["file 4.csv"])
    assert found["alive"] == [worker.pid]
    assert re.search(rf"process {worker.pid}, alive, has 1 since .* ago\): file 4.csv", shown)
    assert re.search(r"^jobs +10 +4 +0 +6 +1 +0 +0 +1 process ", shown, re.MULTILINE)
    assert contents(tmp_path) == before


def test_status_tells_a_killed_worker_from_a_living_one(tmp_path: Path, nursery: Nursery) -> None:
    living = nursery.start(cli_workers.put_and_work, str(tmp_path), 3, 0)
    dead = nursery.start(cli_workers.put_and_work, str(tmp_path), 3, 1)
    living.receive()
    dead.receive()
    dead.kill()

    (found,) = surveys(tmp_path, status=1)

    states = {hand["pid"]: hand["state"] for hand in found["in_progress"]}
    assert states == {living.pid: "alive", dead.pid: "dead"}
    assert found["alive"] == [living.pid]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_looking_opens_nothing_for_writing_and_renames_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    worker = nursery.start(cli_workers.put_and_work, str(tmp_path / "run"), 3, 1)
    worker.receive()
    trace = tmp_path / "trace"
    calls = "trace=open,openat,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir"
    command = ["strace", "-f", "-e", calls, "-o", str(trace), *COMMAND, "status"]
    status = subprocess.run(
        [*command, str(tmp_path / "run")], capture_output=True, timeout=LIMIT_S
    ).returncode
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip("strace may not trace here")

    assert status == 1
    touched = [line for line in trace.read_text().splitlines() if str(tmp_path / "run") in line]
    assert touched
    assert not [line for line in touched if "O_RDONLY" not in line]


def test_status_reads_journals_of_the_original(tmp_path: Path) -> None:
    (tmp_path / "load_requested_PID77.tsv").write_text("a\tb\nc\td\ntorn")
    (tmp_path / "load_completed_PID78.tsv").write_text("a\tb\n")

    (found,) = surveys(tmp_path, status=1)

    assert (found["prefix"], found["outstanding"], found["torn"]) == ("load", 1, 1)
    assert found["in_progress"] == []


def test_a_message_requested_twice_and_completed_once_is_outstanding_once(tmp_path: Path) -> None:
    (tmp_path / "jobs_requested_PID1.tsv").write_text("a\na\nb\n")
    (tmp_path / "jobs_completed_PID2.tsv").write_text("b\na\n")
    (tmp_path / "jobs_started_PID2.tsv").write_text("b\na\n")

    (found,) = surveys(tmp_path, status=1)

    assert found["outstanding"] == 1
    assert found["in_progress"] == []  # what process 2 started it completed
    assert text("outstanding", str(tmp_path)) == "a\n"


def test_status_of_a_root_shows_the_run_that_matters(tmp_path: Path) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    with PersistentQueue("jobs", first) as q:
        q.put_many(["a", "b"])
        q.task_done(q.get())
    assert [found["path"] for found in surveys(tmp_path, status=1)] == [first]
    second, previous = pickup_dirs(tmp_path, "jobs")
    with PersistentQueue("jobs", second, previous) as q:
        q.requeue_unprocessed_work()
        (found,) = surveys(tmp_path, status=1)
        assert (found["path"], found["carried"], found["outstanding"]) == (second, 1, 1)
        q.task_done(q.get())

    assert text("status", str(tmp_path / "jobs")).count(second) == 1


def test_a_run_that_forgot_the_one_before_does_not_hide_its_work(tmp_path: Path) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    second, _ = pickup_dirs(tmp_path, "jobs")
    for folder, message in ((first, "lost?"), (second, "new")):
        with PersistentQueue("jobs", folder) as q:
            q.put(message)

    assert sum(found["outstanding"] for found in surveys(tmp_path, status=1)) == 2
    assert text("outstanding", str(tmp_path)) == "lost?\nnew\n"


def test_status_of_a_folder_queue_shows_consumers_and_producers(
    tmp_path: Path, nursery: Nursery
) -> None:
    folder = tmp_path / "orders"
    dead = nursery.start(cli_workers.announce_and_stay, str(folder))
    dead.receive()
    dead.kill()
    with WritableFolderQueue(folder) as q:
        for path in write(tmp_path / "src", "1_a.tsv", "1_b.tsv", "2_a.tsv", "2_b.tsv", "3_a.tsv"):
            q.put(path)
    (folder / "000001_0000000000_x.wip").touch()
    worker = nursery.start(cli_workers.claim_and_stay, str(folder), 1)
    worker.receive()
    gone = nursery.start(cli_workers.claim_and_stay, str(folder), 2)
    gone.receive()
    gone.kill()
    before = contents(folder)

    (found,) = surveys(folder, status=1)
    shown = text("status", str(folder), status=1)
    grouped = text(
        "status", str(folder), "--items", "a,b", "--group", r"(?P<group>\d)_(?P<item>.)", status=1
    )

    assert found["kind"] == "folder"
    assert found["waiting"] == 2
    hands = {hand["pid"]: (hand["state"], hand["count"]) for hand in found["in_progress"]}
    assert hands == {worker.pid: ("alive", 1), gone.pid: ("dead", 2), 1: ("elsewhere", 1)}
    assert found["producers"] == {"open": 0, "closed": 1, "dead": 1}
    assert "died without closing" in shown
    assert "persistq reclaim" in shown
    assert "group 3 waits for b." in grouped
    assert contents(folder) == before


def test_status_exits_with_0_when_all_is_done_and_1_after_a_failure(tmp_path: Path) -> None:
    with WritableFolderQueue(tmp_path):
        pass
    assert "closed" in text("status", str(tmp_path))
    WritableFolderQueue(tmp_path).fail()
    assert "a producer failed" in text("status", str(tmp_path), status=1)


def test_outstanding_prints_the_lines_in_order_as_journalled(tmp_path: Path) -> None:
    odd = ["two words", "line\nend", "b\udce9te", ("a", "tuple")]
    with PersistentQueue("jobs", tmp_path) as q:
        q.put_many(odd)

    lines = run("outstanding", str(tmp_path)).stdout
    assert lines == b"two words\nline\x10nend\nb\xe9te\na\ttuple\n"
    assert run("outstanding", "-0", str(tmp_path)).stdout == (
        b"two words\0line\nend\0b\xe9te\0a\ttuple\0"
    )


def test_outstanding_asks_which_prefix_where_there_are_several(tmp_path: Path) -> None:
    for prefix in ("one", "two"):
        with PersistentQueue(prefix, tmp_path) as q:
            q.put(prefix)

    assert "say which with --prefix" in text("outstanding", str(tmp_path), status=2)
    assert text("outstanding", str(tmp_path), "--prefix", "two") == "two\n"
    assert "one, two" in text("outstanding", str(tmp_path), "--prefix", "three", status=2)


@posix
def test_names_that_a_terminal_would_obey_are_made_safe(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/q\xff"
    os.mkdir(folder)
    with open(folder + b"/000001_0000000000_a\x1b[2J\nb.wip", "w"):
        pass

    shown = run("status", folder).stdout

    assert b"q\\xff" in shown
    assert b"a\\x1b[2J\\x0ab.wip" in shown


# Taking part


LOOP = """
while f=$(persistq get in) || { end=$?; false; }; do
  cat "$f" && persistq done --move-to loaded "$f" || persistq release "$f"
done
"""


@posix
@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "busybox sh"])
def test_a_pipeline_in_shell_just_works(tmp_path: Path, shell: str) -> None:
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"{shell} is not installed")
    work = tmp_path / "work"
    write(work, "a 1.tsv", "b.tsv", "-c.tsv")
    code = (
        "persistq put --copy in ./*1.tsv && persistq put in ./b.tsv ./-c.tsv || exit 8\n"
        "persistq close in\n" + LOOP + "echo; echo $end $$\n"
    )

    result = script(code, work, shell.split()[0])

    assert (result.returncode, result.stderr) == (0, "")
    printed, last = result.stdout.splitlines()
    assert printed == "-c.tsva 1.tsvb.tsv"
    assert last.startswith("3 ")
    pid = int(last.split()[1])
    assert sorted(os.listdir(work / "loaded")) == ["-c.tsv", "a 1.tsv", "b.tsv"]
    # Three commands, one producer: the shell.
    controls = sorted(os.listdir(work / "in"))
    assert [name.rpartition(".")[2] for name in controls] == ["helo", "done"]
    headers = [json.loads((work / "in" / name).read_text())["header"] for name in controls]
    assert headers[0]["uuid"] == headers[1]["uuid"]
    assert {int(header["pid"]) for header in headers} == {pid}
    assert (work / "a 1.tsv").exists()
    assert ReadableFolderQueue(work / "in").get(0) is DONE


@posix
def test_what_a_killed_script_had_claimed_is_reclaimed_and_not_before(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write(folder)
    write(tmp_path, "a.tsv")
    WritableFolderQueue(folder / "in").put(tmp_path / "a.tsv", copy=True)
    script("", folder)  # makes the command
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-c", "f=$(persistq get in); echo $f; read wait"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell.stdin, shell.stdout:
        claimed = shell.stdout.readline().strip()
        assert claimed.startswith(f"in/{shell.pid:06d}_")
        assert text("reclaim", "in", folder=folder) == "0 files put back\n"
        shell.kill()
        shell.wait()
    assert text("reclaim", "in", folder=folder) == "waits again: a.tsv\n1 file put back\n"
    assert (folder / "in" / "a.tsv").exists()


def test_get_says_how_it_ended(tmp_path: Path) -> None:
    q = WritableFolderQueue(tmp_path / "in")
    assert text("get", "in", "--timeout", "0", status=5, folder=tmp_path) == ""
    q.close()
    assert text("get", "in", status=3, folder=tmp_path) == ""
    q.fail()
    assert "a producer failed" in text("get", "in", status=4, folder=tmp_path)


def test_get_takes_as_many_as_it_is_told_and_does_not_wait_for_more(tmp_path: Path) -> None:
    text("put", "in", *write(tmp_path, "a.tsv", "b.tsv", "c.tsv"), folder=tmp_path)
    first = text("get", "-n", "2", "in", folder=tmp_path).splitlines()
    rest = run("get", "-n", "9", "-0", "in", folder=tmp_path).stdout.split(b"\0")
    assert len(rest) == 2
    assert rest[1] == b""
    assert text("name", *first, rest[0].decode(), folder=tmp_path) == "a.tsv\nb.tsv\nc.tsv\n"
    assert run("name", "-0", first[0], folder=tmp_path).stdout == b"a.tsv\0"
    text("done", *first, rest[0].decode(), folder=tmp_path)


def test_name_knows_the_extension(tmp_path: Path) -> None:
    text("put", "-e", "csv", "in", *write(tmp_path, "a.csv"), folder=tmp_path)
    assert text("name", text("get", "in", folder=tmp_path).strip(), folder=tmp_path) == "a.csv\n"
    assert "is not a claimed file" in text("name", "in/a.csv", status=2, folder=tmp_path)


def test_put_closes_if_all_is_put(tmp_path: Path) -> None:
    write(tmp_path, "a.tsv", "b.tsv")
    shown = text("put", "--close", "in", "a.tsv", "missing.tsv", status=2, folder=tmp_path)
    assert "in: not closed, since not all files are put" in shown
    text("put", "--close", "in", "b.tsv", folder=tmp_path)
    for _ in range(2):
        text("get", "in", folder=tmp_path)
    text("get", "in", status=3, folder=tmp_path)


def test_get_for_the_same_process_twice_never_hands_out_what_it_holds(tmp_path: Path) -> None:
    q = WritableFolderQueue(tmp_path / "in")
    for _ in range(2):  # the second waits while the first of its name is in progress
        q.put(write(tmp_path, "a.tsv")[0])
        if _ == 0:
            first = text("get", "in", folder=tmp_path)
    assert text("get", "in", "--timeout", "0", status=5, folder=tmp_path) == ""
    text("done", first.strip(), folder=tmp_path)
    assert text("get", "in", "--timeout", "0", folder=tmp_path) == first


def test_get_stops_when_the_process_it_acts_for_has_died(tmp_path: Path, nursery: Nursery) -> None:
    other = nursery.start(cli_workers.announce_and_stay, str(tmp_path))
    other.receive()
    with subprocess.Popen(
        [*COMMAND, "get", str(tmp_path), "--pid", str(other.pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as waiting:
        assert waiting.stderr is not None
        try:
            wait_until_it_waits(waiting.pid)
            other.kill()
            assert waiting.wait(LIMIT_S) == 2
            assert b"has ended" in waiting.stderr.read()
        finally:
            waiting.kill()
    assert "no process" in text("get", str(tmp_path), "--pid", str(other.pid), status=2)


@posix
def test_a_stream_that_the_shell_has_closed_is_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    WritableFolderQueue(folder / "in").put(write(folder, "a.tsv")[0])
    for code, status in (
        ("persistq get in >&-", 2),
        ("persistq status in >&-", 2),
        ("persistq status nowhere 2>&-", 2),
        ("persistq reset in <&-", 2),
        ("persistq status in <&-", 1),
    ):
        result = script(code, folder)
        assert (code, result.returncode) == (code, status)
        assert "Traceback" not in result.stderr
    assert (folder / "in" / "a.tsv").exists()


@posix
def test_a_claim_whose_path_nobody_can_read_is_put_back(tmp_path: Path) -> None:
    WritableFolderQueue(tmp_path / "in").put(write(tmp_path, "a.tsv")[0])
    reading, writing = os.pipe()
    os.close(reading)

    result = subprocess.run(
        [*COMMAND, "get", "in"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT_S,
    )
    os.close(writing)

    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")
    assert (tmp_path / "in" / "a.tsv").exists()


@posix
def test_a_name_with_a_line_end_and_odd_bytes_goes_through(tmp_path: Path) -> None:
    name = b"a \n\xff.tsv"
    with open(os.fsencode(tmp_path) + b"/" + name, "w") as file:
        file.write("content")

    assert run("put", "in", name, folder=tmp_path).returncode == 0
    claimed = run("get", "-0", "in", folder=tmp_path).stdout
    assert claimed.endswith(b"_a \n\xff.wip\0")
    assert run("release", claimed[:-1], folder=tmp_path).returncode == 0
    assert name in os.listdir(os.fsencode(tmp_path / "in"))


def test_put_does_what_it_can_and_says_what_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", "taken.tsv")
    write(tmp_path, "taken.tsv", "good.tsv", "odd.csv")

    shown = text(
        "put", "in", "taken.tsv", "odd.csv", "missing.tsv", "good.tsv", status=6, folder=tmp_path
    )

    assert "taken.tsv: not done, since" in shown
    assert "'odd.csv' cannot be a message" in shown
    assert "missing.tsv: No such file" in shown
    assert (tmp_path / "in" / "good.tsv").exists()
    assert (tmp_path / "taken.tsv").exists()


def test_another_extension_goes_all_the_way(tmp_path: Path) -> None:
    write(tmp_path, "a.csv.gz")
    extension = ("--extension", "csv.gz")
    text("put", "in", "a.csv.gz", *extension, folder=tmp_path)
    claimed = text("get", "in", *extension, folder=tmp_path).strip()
    text("release", claimed, *extension, folder=tmp_path)
    claimed = text("get", "in", *extension, folder=tmp_path).strip()
    text("done", claimed, *extension, "--move-to", "out", folder=tmp_path)
    assert os.listdir(tmp_path / "out") == ["a.csv.gz"]


# Repairing


def test_reset_asks_and_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    WritableFolderQueue(folder).put(write(tmp_path, "a.tsv")[0])
    ReadableFolderQueue(folder).get(0)
    before = contents(folder)

    asked = text("reset", str(folder), status=2)
    assert "1 claimed file (1 of processes that may be at work) would wait again" in asked
    assert "--yes" in asked
    assert contents(folder) == before
    assert "1 file put back, 1 control file removed" in text("reset", "--yes", str(folder))
    assert listed(folder) == ["a.tsv"]


@posix
@pytest.mark.parametrize(("answer", "status", "left"), [("y", 0, 0), ("n", 2, 2), ("", 2, 2)])
def test_purge_asks_on_a_terminal(tmp_path: Path, answer: str, status: int, left: int) -> None:
    import pty

    folder = tmp_path / "in"
    WritableFolderQueue(folder).put(write(tmp_path, "a.tsv")[0])
    main, side = pty.openpty()
    os.write(main, f"{answer}\n".encode())

    result = run("purge", str(folder), stdin=side)
    os.close(side)
    os.close(main)

    assert b"would be deleted. This cannot be undone. Go on? [y/N]" in result.stderr
    assert result.returncode == status
    assert len(listed(folder)) == left


def test_purge_leaves_alone_what_is_no_queue(tmp_path: Path) -> None:
    write(tmp_path / "home", "thesis.txt")
    assert "left alone" in text("purge", "--yes", str(tmp_path / "home"), status=2)
    with PersistentQueue("jobs", tmp_path / "run") as q:
        q.put("a")
    assert "holds journals" in text("purge", "--yes", str(tmp_path / "run"), status=2)
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_retire_removes_runs_that_were_carried_on_and_no_others(tmp_path: Path) -> None:
    folders = []
    for number in range(5):
        current, previous = pickup_dirs(tmp_path, "jobs")
        folders.append(current)
        # The second run forgot the first one, so its work is nowhere else.
        with PersistentQueue("jobs", current, previous if number != 1 else None) as q:
            q.put(f"work of {number}")
    pickup_dirs(tmp_path, "jobs")  # crashed before it held anything
    before = text("outstanding", str(tmp_path))

    planned = text("retire", "--dry-run", "--keep", "2", str(tmp_path))
    assert planned.splitlines() == [f"would remove {path}" for path in folders[1:3]]
    assert "--yes" in text("retire", "--keep", "2", str(tmp_path), status=2)
    assert "2 run folders removed" in text("retire", "--keep", "2", "--yes", str(tmp_path))

    assert sorted(os.listdir(tmp_path / "jobs")) == [f"run_{number:06d}" for number in (1, 4, 5, 6)]
    assert text("outstanding", str(tmp_path)) == before
    assert text("retire", "--keep", "2", "--yes", str(tmp_path)) == "nothing to retire\n"
    assert pickup_dirs(tmp_path, "jobs")[1] == folders[4]


def test_retire_asks_before_it_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "run_000002").mkdir(parents=True)
    left = tmp_path / "jobs" / ".persistq_retired_run_000001"
    left.mkdir()
    assert "would remove" in text("retire", "--dry-run", str(tmp_path))
    assert "--yes" in text("retire", str(tmp_path), status=2)
    assert left.exists()
    assert "1 run folder removed" in text("retire", "--yes", str(tmp_path))
    assert not left.exists()


def test_retire_leaves_a_run_that_is_alive(tmp_path: Path, nursery: Nursery) -> None:
    first, _ = pickup_dirs(tmp_path, "jobs")
    worker = nursery.start(cli_workers.put_and_work, first, 1, 0)
    worker.receive()
    for _ in range(2):
        with PersistentQueue("jobs", pickup_dirs(tmp_path, "jobs")[0]) as q:
            q.put("a")
            q.task_done(q.get())
    (Path(first) / "jobs_completed_PID1.tsv").write_text("file 0.csv\n")
    shown = text("retire", "--keep", "1", "--yes", str(tmp_path))
    assert "1 run folder removed" in shown
    assert os.path.isdir(first)


# Watching


@posix
@pytest.mark.timeout(40)
def test_watch_redraws_on_a_terminal_until_the_work_is_done(
    tmp_path: Path, nursery: Nursery
) -> None:
    import pty

    worker = nursery.start(cli_workers.put_and_work, str(tmp_path), 4, 1)
    worker.receive()
    main, side = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "watch", "--interval", "0.1", str(tmp_path)],
        stdout=side,
        stderr=side,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as watching:
        os.close(side)
        try:
            seen = read_until(main, b"1/4")
            for number in range(2, 5):
                worker.send("next")
                worker.receive()
                seen += read_until(main, b"%d/4" % number)
            for _ in range(3):  # all is done, but the run may put more: it goes on
                seen += read_until(main, b"\x1b[1A")
            worker.send("end")
            worker.join()
            assert watching.wait(LIMIT_S) == 0
        finally:
            watching.kill()
    os.close(main)
    assert b"\x1b[1A" in seen
    assert b"[#####---------------]  25%" in seen
    assert b"[####################] 100%" in seen


def read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        seen += os.read(fd, 4096)
    return seen


def test_watch_prints_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, nursery: Nursery
) -> None:
    with WritableFolderQueue(tmp_path / "in"):
        pass
    nursery.start(cli_workers.run_to_the_end, str(tmp_path / "run")).join()

    shown = text("watch", str(tmp_path / "run"), str(tmp_path / "in"))

    assert shown.splitlines()[0].startswith("jobs [####################] 100% 1/1")
    assert "\x1b" not in shown


def test_watch_exits_with_4_when_a_producer_failed(tmp_path: Path) -> None:
    WritableFolderQueue(tmp_path).fail()
    assert "a producer failed" in text("watch", str(tmp_path), status=4)


@posix
@pytest.mark.parametrize("command", [["watch", "--interval", "0.1", "in"], ["get", "in"]])
def test_ctrl_c_ends_a_wait_as_a_shell_expects_and_without_a_traceback(
    tmp_path: Path, command: list[str]
) -> None:
    WritableFolderQueue(tmp_path / "in")
    # Tests that a shell runs in the background hand it on that Ctrl-C is to be ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        waiting = subprocess.Popen(
            [*COMMAND, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with waiting:
        assert waiting.stderr is not None
        try:
            wait_until_it_waits(waiting.pid)
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(LIMIT_S) == -signal.SIGINT
            assert waiting.stderr.read() == b""
        finally:
            waiting.kill()


def wait_until_it_waits(pid: int) -> None:
    """Wait until the command has begun to work: it sleeps, or waits for reports."""
    status = Path(f"/proc/{pid}/wchan")
    if not status.exists():
        pytest.skip("this system does not tell what a process waits for")
    deadline_s = time.monotonic() + LIMIT_S
    while not re.search("poll|nanosleep|select", status.read_text()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


# Wrong use, and the whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stats"], "Did you mean 'status'?"),
        (["status"], "required: PATH"),
        (["status", "missing"], "missing: No such file or directory"),
        (["status", ".", "--items", "a"], "go together"),
        (["status", ".", "--items", "a", "--group", "("], "cannot be used"),
        (["outstanding", "."], "holds no journals"),
        (["get", "in", "--timeout=-1"], "0 or more"),
        (["get", "in", "--timeout", "soon"], "invalid float value"),
        (["get", "in", "--pid", "0"], "no process 0"),
        (["get", "in", "-e", ".wip"], "choose another one"),
        (["done", "a.tsv"], "is not a claimed file"),
        (["release", "nowhere/000001_0000000000_a.wip"], "no such folder"),
        (["release", "000001_0000000000_a.wip"], "No such file"),
        (["put", "in", "."], "folder cannot be put"),
        (["put", "in", "a\udcff.txt"], "No such file"),
        (["reclaim", "missing"], "No such file"),
        (["retire", "."], "no run folders"),
        (["retire", ".", "--keep", "0"], "1 or more"),
        (["work", "in", "true", "{}"], "the command stands behind '--'"),
        (["work", ".", "--"], "expected it behind '--'"),
        (["work", ".", "--timeout", "nan", "--", "true"], "0 or more"),
        (["get", "in", "-n", "0"], "1 or more"),
        (["watch", "file"], "Not a directory"),
        (["watch", ".", "--interval", "0"], "more than 0"),
        (["watch", ".", "--interval", "inf"], "at most a day"),
        (["status", ".", "--items", "a", "--group", "a{99999999999999999999}"], "cannot be used"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_without_a_traceback(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "file").touch()
    result = run(*map(os.fsencode, arguments), folder=tmp_path)
    assert result.returncode == 2
    assert result.stdout == b""
    assert said in result.stderr.decode()
    assert result.stderr.startswith(b"persistq: ")
    assert result.stderr.count(b"\n") == 1


@posix
def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    with PersistentQueue("jobs", tmp_path) as q:
        q.put_many([f"message {number}" for number in range(50_000)])
    with subprocess.Popen(
        [*COMMAND, "outstanding", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        assert writing.stdout.readline() == b"message 0\n"
        writing.stdout.close()
        assert writing.wait(LIMIT_S) == -signal.SIGPIPE
        assert writing.stderr.read() == b""


def command_names() -> list[str]:
    from persistq._cli.parser import make

    return make()[1]


@pytest.mark.parametrize("command", command_names())
def test_the_reference_names_each_command_its_options_and_nothing_else(command: str) -> None:
    shown = text(command, "--help")
    assert "example:" in shown
    options = set(re.findall(r"(?<![\w-])--?[a-z0-9][a-z-]*", shown.split("example:")[0]))
    page = REFERENCE.read_text("utf-8")
    section = page.split(f"\n### `{command}`\n")[1].split("\n#")[0]
    documented = set(re.findall(r"`(--?[a-z0-9][a-z-]*)", section))
    assert documented == options - {"-h", "--help"}


def test_the_reference_lists_the_exit_statuses_that_help_lists() -> None:
    shown = text("--help").split("exit status (of several, the highest):\n")[1].split("\n\n")[0]
    in_help = re.findall(r"^ +(\d) +([^\n]*(?:\n {5}[^\n]*)*)", shown, re.MULTILINE)
    page = REFERENCE.read_text("utf-8").split("\n## Exit status\n")[1].split("\n## ")[0]
    on_page = re.findall(r"^\| (\d) \| (.*) \|$", page, re.MULTILINE)
    assert len(on_page) == 9
    assert on_page == [
        (number, re.sub(r"\s+", " ", meaning).replace("'", "`")) for number, meaning in in_help
    ]


def test_the_version_is_told_without_loading_a_queue() -> None:
    code = (
        "import sys; from persistq._cli import main; main(['--version']);"
        "print([name for name in sys.modules if name in ('argparse', 'logging', 're')"
        " or name.startswith(('persistq._j', 'persistq._f'))])"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(persistq.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    ).stdout
    assert shown == f"persistq {persistq.__version__}\n[]\n"
    assert text("-V") == text("--version")


DOCS = REFERENCE.parents[1]
PATTERNS = {
    "<id>": r"\d+",
    "<host>": r"\d{10}",
    "<when>": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(\d+ s ago\)",
}


def nothing_before(folder: Path, nursery: Nursery) -> None:
    """Give a page a folder as it is."""


def a_failed_night(folder: Path, nursery: Nursery) -> None:
    worker = nursery.start(cli_workers.load_then_wait, str(folder / "pickups"))
    worker.receive()
    worker.kill()
    producer = nursery.start(cli_workers.announce_and_stay, str(folder / "orders"))
    producer.receive()
    producer.kill()
    write(folder / "orders", "a.tsv", "b.tsv")
    consumer = nursery.start(cli_workers.claim_and_stay, str(folder / "orders"), 1)
    consumer.receive()
    consumer.kill()


@posix
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("page", "before"),
    [
        ("a-pipeline-in-shell", nothing_before),
        ("a-shell-stage-in-one-command", nothing_before),
        ("after-a-failed-run", a_failed_night),
    ],
)
def test_the_shell_examples_of_a_page_print_what_it_shows(
    page: str, before: Any, tmp_path: Path, nursery: Nursery
) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    before(folder, nursery)
    blocks = re.findall(
        r"^```(bash|text)\n(.*?)^```$",
        (DOCS / "how-to" / f"{page}.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    code, expected = "exec 2>&1\n", ""
    for kind, block in blocks:
        if kind == "bash":
            code += block
        else:
            expected += block

    printed = script(code, folder).stdout.splitlines()
    shown = [line for line in expected.splitlines() if line]

    printed = [line for line in printed if line and " Killed " not in line]
    assert len(printed) == len(shown), printed
    for line, wanted in zip(printed, shown):
        pattern = re.sub(r"(\\ )+", r" +", re.escape(wanted))
        for name, meaning in PATTERNS.items():
            pattern = pattern.replace(re.escape(name), meaning)
        assert re.fullmatch(pattern, line), (line, wanted)
