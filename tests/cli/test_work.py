"""A stage in one command: what becomes of files as commands succeed, fail, hang and are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from folder_workers import get_one_then_wait
from persistq import ReadableFolderQueue, WritableFolderQueue
from persistq._cli import main
from persistq._folder.trying import TryingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processes import Nursery

pytestmark = pytest.mark.skipif(os.name == "nt", reason="'work' needs a POSIX system")

LIMIT_S = 25
PERSISTQ = [sys.executable, "-m", "persistq"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a queue of three files, whose producer is done."""
    fill(tmp_path / "q", "a.csv", "b.csv", "c.csv")
    return tmp_path / "q"


def fill(folder: Path, *names: str, close: bool = True) -> WritableFolderQueue:
    producer = WritableFolderQueue(folder, "csv")
    for name in names:
        (folder.parent / name).write_text(f"content of {name}")
        producer.put(folder.parent / name)
    if close:
        producer.close()
    return producer


def work(folder: Path, *arguments: str | Path, **options: Any) -> Any:
    return subprocess.run(
        [*PERSISTQ, "work", *map(str, [folder, *arguments])],
        cwd=folder.parent,
        timeout=LIMIT_S,
        **{"capture_output": True, "text": True, **options},
    )


def waiting(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.csv"))


def claimed(folder: Path) -> list[str]:
    return sorted(path.name.split("_")[2] for path in folder.glob("*.wip"))


def failed(folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    result = subprocess.run(
        [*PERSISTQ, "failed", "--json", str(folder), *map(str, arguments)],
        capture_output=True,
        check=True,
        timeout=LIMIT_S,
    )
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"it never came: {what}"
        time.sleep(0.01)


class Stage:
    """`persistq work` whose commands say that they run, and go on when they are let."""

    # Says who it is in the file `log`, and waits until it is told in a pipe how to end.
    GATE = 'echo "$PERSISTQ_NAME $$" >> log; read status < "gate_$PERSISTQ_NAME"; exit "$status"'

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._at = folder.parent
        for name in "abc":
            os.mkfifo(self._at / f"gate_{name}.csv")
        (self._at / "log").touch()
        self.process = subprocess.Popen(
            [*PERSISTQ, "work", str(folder), *arguments, "--", "bash", "-c", self.GATE],
            cwd=self._at,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def running(self) -> list[tuple[str, int]]:
        """Give names of files and process ids of the commands that were begun."""
        lines = (self._at / "log").read_text().splitlines()
        return [(line.split()[0], int(line.split()[1])) for line in lines if line.count(" ") == 1]

    def wait_until_running(self, count: int) -> None:
        wait_until(lambda: len(self.running()) >= count, f"{count} commands that run")

    def let_end(self, name: str, status: int = 0) -> None:
        """Wait until the command runs that has a file, and have it end."""
        (self._at / f"gate_{name}.csv").write_text(f"{status}\n")

    def end(self) -> tuple[int, str]:
        """Wait for the end; give exit status and what was said."""
        said = self.process.communicate(timeout=LIMIT_S)[1]
        return self.process.returncode, said

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *rest: object) -> None:
        for pid in [self.process.pid, *(pid for _, pid in self.running())]:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.communicate()


@pytest.fixture
def start_stage() -> Iterator[Callable[..., Stage]]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Stage(*arguments))


# What the command gets


def test_each_file_is_given_to_a_command_and_moved_when_that_is_done(folder: Path) -> None:
    program = (
        "import os, sys; print(sys.argv[1:] == ['x y', f'--in={os.environ[\"PERSISTQ_CLAIM\"]}',"
        " os.environ['PERSISTQ_NAME'], '$HOME;*'], open(sys.argv[2][5:]).read(), sys.stdin.read())"
    )
    words = (sys.executable, "-c", program, "x y", "--in={}", "{name}", "$HOME;*")

    result = work(folder, "--move-to", "done", "--", *words)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "".join(f"True content of {name}.csv \n" for name in "abc")
    done = folder.parent / "done"
    assert waiting(done) == ["a.csv", "b.csv", "c.csv"]
    assert (done / "a.csv").read_text() == "content of a.csv"
    assert not waiting(folder)
    assert not claimed(folder)
    assert not list(folder.glob(".persistq*"))


def test_odd_names_go_through_and_are_not_replaced_twice(tmp_path: Path) -> None:
    names = ["{name} {}.csv", "-rf.csv", "a\nb.csv"]
    fill(tmp_path / "q", *names)
    odd = os.path.join(os.fsencode(tmp_path / "q"), b"\xff.csv")
    with open(odd, "w"):
        pass

    result = work(tmp_path / "q", "--", "printf", "%s\\0", "{name}", text=False)

    assert result.returncode == 0
    assert sorted(result.stdout.split(b"\0")[:-1]) == sorted(
        [*map(os.fsencode, names), b"\xff.csv"]
    )


def test_so_many_commands_run_at_a_time_and_no_more(
    folder: Path, start_stage: Callable[..., Stage]
) -> None:
    stage = start_stage(folder, "-j", "2")
    stage.wait_until_running(2)
    assert sorted(name for name, _ in stage.running()) == ["a.csv", "b.csv"]
    assert waiting(folder) == ["c.csv"]
    stage.let_end("a")
    stage.wait_until_running(3)
    stage.let_end("b")
    stage.let_end("c")
    assert stage.end() == (0, "")


def test_it_waits_for_producers_that_are_not_done(
    tmp_path: Path, start_stage: Callable[..., Stage]
) -> None:
    producer = fill(tmp_path / "q", "a.csv", close=False)
    stage = start_stage(tmp_path / "q")
    stage.wait_until_running(1)
    stage.let_end("a")
    (tmp_path / "b.csv").touch()
    producer.put(tmp_path / "b.csv")
    stage.wait_until_running(2)
    producer.close()
    stage.let_end("b")
    assert stage.end() == (0, "")


def test_how_it_ended_is_in_its_exit_status(tmp_path: Path) -> None:
    producer = fill(tmp_path / "q", "a.csv", close=False)
    assert work(tmp_path / "q", "--timeout", "0", "--", "true").returncode == 5
    producer.fail()
    assert work(tmp_path / "q", "--", "true").returncode == 4
    assert work(tmp_path / "nowhere", "--", "true").returncode == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_commands_put_on_a_next_queue_is_put_by_the_script(folder: Path, shell: str) -> None:
    persistq = " ".join(PERSISTQ)
    put = f"cp {{}} {{name}}; {persistq} put next {{name}} -e csv"
    code = f"{persistq} work q -j 2 -- sh -c '{put}' && {persistq} close next"
    subprocess.run(
        [shell, "-c", code], cwd=folder.parent, start_new_session=True, timeout=LIMIT_S, check=True
    )
    following = ReadableFolderQueue(folder.parent / "next", "csv")
    names = [os.path.basename(path)[-5:] for path in following]  # which ends, and finds none dead
    assert names == ["a.wip", "b.wip", "c.wip"]
    # Two calls at once may both announce it.
    controls = [path.stem for path in (folder.parent / "next").glob("*.[hd]*o*")]
    assert len({stem.rpartition("_")[2] for stem in controls}) == 1


# Commands that fail


def test_what_fails_is_set_aside_with_the_last_that_was_said(folder: Path) -> None:
    code = 'case {name} in b*) seq 1000 >&2; echo "no \\"amount\\"" >&2; exit 3;; esac'

    result = work(folder, "--failed-to", "bad", "--", "sh", "-c", code)

    assert result.returncode == 1
    # It is passed on as it is, and told once more in a line.
    assert result.stderr.startswith("1\n2\n3\n")
    reason = "exit status 3: " + " | ".join([*map(str, range(992, 1001)), 'no "amount"'])
    assert result.stderr.endswith(f"persistq: b.csv: set aside: {reason}\n")
    (entry,) = failed(folder, "--failed-dir", folder.parent / "bad")
    assert (entry["message"], entry["reason"], entry["attempts"]) == ("b.csv", reason, 1)
    assert Path(entry["file"]).read_text() == "content of b.csv"
    assert not waiting(folder)
    assert not claimed(folder)


def test_a_command_killed_by_a_signal_has_failed(folder: Path) -> None:
    code = 'case {name} in b*) kill -SEGV "$$";; esac'
    assert work(folder, "--", "bash", "-c", code).returncode == 1
    assert [entry["reason"] for entry in failed(folder)] == ["killed by SIGSEGV"]
    assert [Path(entry["file"]).name for entry in failed(folder)] == ["b.csv.rejected"]


def test_what_fails_is_tried_again_so_often(folder: Path) -> None:
    # The command writes to its file, and succeeds at its third attempt with one of them.
    code = (
        'echo more >> {}; echo "{name} $PERSISTQ_ATTEMPT" >> log;'
        ' case "{name} $PERSISTQ_ATTEMPT" in a.csv*|"b.csv 3") ;; *) exit 9;; esac'
    )

    result = work(folder, "--max-attempts", "3", "--retry-delay", "0.01", "--", "sh", "-c", code)

    assert result.returncode == 1
    assert "b.csv: is tried again (2 of 3): exit status 9" in result.stderr
    begun = (folder.parent / "log").read_text().splitlines()
    expected = ["a.csv 1", *(f"{name}.csv {n}" for name in "bc" for n in (1, 2, 3))]
    assert sorted(begun) == expected
    (entry,) = failed(folder)
    assert (entry["message"], entry["attempts"]) == ("c.csv", 3)
    assert not list(folder.glob(".persistq*"))


def test_what_is_there_is_tried_so_often_also_when_nothing_is_waited_for(folder: Path) -> None:
    words = ["sh", "-c", "echo {name} >> log; exit 1"]
    options = ["--timeout", "0", "--max-attempts", "3", "--retry-delay", "0.2", "-j", "2"]
    assert work(folder, *options, "--", *words).returncode == 1
    begun = (folder.parent / "log").read_text().split()
    assert sorted(begun) == sorted(["a.csv", "b.csv", "c.csv"] * 3)
    assert begun[:2] != ["a.csv", "a.csv"]  # not at once again


def test_one_that_cannot_wait_again_is_set_aside(folder: Path) -> None:
    code = (
        "case {name} in b*) [ -e other ] || { echo new > other; cp other q/b.csv; exit 9; }; esac"
    )
    result = work(folder, "--max-attempts", "3", "--", "sh", "-c", code)
    assert result.returncode == 1
    assert [Path(entry["file"]).read_text() for entry in failed(folder)] == ["content of b.csv"]
    assert not waiting(folder)  # the new one was done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-command", "{}"], "no such command, or none that may be run"),
        (["./script"], "cannot be started: Exec format error"),
        ([], "expected it behind '--'"),
    ],
)
def test_a_command_that_cannot_be_started_is_nobodys_fault(
    folder: Path, words: list[str], said: str
) -> None:
    (folder.parent / "script").write_bytes(b"\0\0")
    (folder.parent / "script").chmod(0o755)
    result = work(folder, "--", *words)
    assert result.returncode in (2, 8)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert waiting(folder) == ["a.csv", "b.csv", "c.csv"]
    assert not failed(folder)


def test_a_file_that_is_the_command_and_cannot_be_started_is_set_aside(folder: Path) -> None:
    (folder / "b.csv").write_text("#!/bin/sh\necho started\n")
    (folder / "b.csv").chmod(0o755)
    result = work(folder, "--", "{}")
    assert (result.returncode, result.stdout) == (1, "started\n")
    assert [entry["message"] for entry in failed(folder)] == ["a.csv", "c.csv"]


def test_much_and_any_standard_error_is_no_matter(folder: Path) -> None:
    code = (
        "import os; os.write(2, b'\\xff' * 10); [os.write(2, b'x' * 99_999) for _ in range(500)];"
    )
    code += "os.write(2, b'\\n\\xffno\\x1b\\0'); os._exit(1)"
    with open(os.devnull, "w") as errors:
        result = work(folder, "--", sys.executable, "-c", code, capture_output=False, stderr=errors)
    assert result.returncode == 1
    assert {entry["reason"] for entry in failed(folder)} == {"exit status 1: \\xffno"}


def test_what_a_command_leaves_running_holds_nothing_up(folder: Path) -> None:
    code = "sleep 60 & echo $! >> pids; echo said >&2; exit 4"
    try:
        assert work(folder, "--", "sh", "-c", code, stderr=subprocess.DEVNULL, capture_output=False)
        assert {entry["reason"] for entry in failed(folder)} == {"exit status 4: said"}
    finally:
        for pid in (folder.parent / "pids").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_where_nobody_reads_the_output_no_file_is_blamed(folder: Path) -> None:
    with subprocess.Popen(
        [*PERSISTQ, "work", str(folder), "--", sys.executable, "-c", "print('y' * 1_000_000)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as stage:
        assert stage.stdout is not None
        stage.stdout.read(1)
        stage.stdout.close()
        assert stage.wait(LIMIT_S) == -signal.SIGPIPE
    assert waiting(folder) == ["a.csv", "b.csv", "c.csv"]
    assert not failed(folder)


def test_what_stops_the_work_stops_it_while_it_waits_for_a_file(tmp_path: Path) -> None:
    if not Path("/proc/self/wchan").exists():
        pytest.skip("this system does not tell what a process waits for")
    producer = fill(tmp_path / "q", "a.csv", close=False)
    os.mkfifo(tmp_path / "gate")
    # Without its file nothing waits again, which would end the wait, too.
    code = "read go < gate; rm {}; echo said"
    with subprocess.Popen(
        [*PERSISTQ, "work", "q", "-j", "2", "--", "sh", "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as stage:
        assert stage.stdout is not None
        stage.stdout.close()
        with open(tmp_path / "gate", "w") as gate:  # once the command runs
            place = Path(f"/proc/{stage.pid}/wchan")
            wait_until(lambda: "poll" in place.read_text(), "a wait for the next file")
            gate.write("go\n")
        try:
            assert stage.wait(LIMIT_S / 2) == -signal.SIGPIPE
        finally:
            stage.kill()
    producer.close()


def test_where_nobody_reads_the_errors_the_work_goes_on(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "seq 100000 >&2"
    result = work(folder, "--", "sh", "-c", code, capture_output=False, stderr=writing)
    os.close(writing)
    assert result.returncode == 0
    assert not waiting(folder)


@pytest.mark.parametrize("closing", ["<&- 2>&-", ">&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_are_nobodys_files(folder: Path, closing: str) -> None:
    command = " ".join([*PERSISTQ, "work", "q", "--", "sh", "-c", "'echo said; echo error >&2'"])
    result = subprocess.run(
        ["sh", "-c", f"{command} {closing}"],
        cwd=folder.parent,
        timeout=LIMIT_S,
        stdout=subprocess.DEVNULL,
    )
    assert result.returncode == 0
    assert not [path for path in folder.iterdir() if path.suffix not in (".helo", ".done")]


# Told to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_it_finishes_what_is_in_hand_and_takes_no_more(
    folder: Path, start_stage: Callable[..., Stage], number: signal.Signals
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("started by nohup, which has all ignore that")
    stage = start_stage(folder, "-j", "2", "--move-to", str(folder.parent / "done"))
    stage.wait_until_running(2)
    os.killpg(stage.process.pid, number)  # as a terminal does, or `timeout`
    assert stage.process.stderr is not None
    assert "stops when what is in hand is done" in stage.process.stderr.readline()
    stage.let_end("a")
    stage.let_end("b")
    assert stage.end() == (-number, "")
    assert waiting(folder.parent / "done") == ["a.csv", "b.csv"]
    assert waiting(folder) == ["c.csv"]
    assert not list(folder.glob(".persistq*"))


def test_told_to_stop_while_it_waits_it_ends_at_once(
    tmp_path: Path, start_stage: Callable[..., Stage]
) -> None:
    fill(tmp_path / "q", "a.csv", close=False)
    stage = start_stage(tmp_path / "q")
    stage.wait_until_running(1)
    stage.let_end("a")
    wait_until(lambda: not claimed(tmp_path / "q"), "the end of the file in hand")
    stage.process.terminate()
    assert stage.end() == (-signal.SIGTERM, "")


def test_a_signal_that_is_ignored_stays_ignored(
    folder: Path, start_stage: Callable[..., Stage]
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stage = start_stage(folder)
    finally:
        signal.signal(signal.SIGHUP, before)
    stage.wait_until_running(1)
    stage.process.send_signal(signal.SIGHUP)
    for name in "abc":
        stage.let_end(name)
    assert stage.end() == (0, "")


def test_told_twice_it_ends_what_is_in_hand_which_waits_again_and_is_not_blamed(
    folder: Path, start_stage: Callable[..., Stage]
) -> None:
    stage = start_stage(folder, "-j", "2")
    stage.wait_until_running(2)
    stage.process.send_signal(signal.SIGINT)
    assert stage.process.stderr is not None
    stage.process.stderr.readline()
    stage.process.send_signal(signal.SIGINT)
    status, said = stage.end()
    assert status == -signal.SIGINT
    assert "a.csv: waits again, since its command was ended: killed by SIGTERM" in said
    assert waiting(folder) == ["a.csv", "b.csv", "c.csv"]
    assert not failed(folder)
    for _, pid in stage.running():
        assert not Path(f"/proc/{pid}").exists()


# Killed, and a full disk


def test_killed_its_files_stay_with_their_commands_and_are_done_again_afterwards(
    folder: Path, start_stage: Callable[..., Stage]
) -> None:
    stage = start_stage(folder)
    stage.wait_until_running(1)
    stage.process.kill()
    stage.process.wait()
    # The command goes on, and nobody else is given its file meanwhile.
    reclaim = [*PERSISTQ, "reclaim", str(folder)]
    said = subprocess.run(reclaim, capture_output=True, text=True, timeout=LIMIT_S).stdout
    assert said == "0 files put back\n"
    assert claimed(folder) == ["a.wip"]

    ((_, pid),) = stage.running()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the death of the command")
    result = work(folder, "--", "sh", "-c", "echo {name} $PERSISTQ_ATTEMPT")
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == ["a.csv 2", "b.csv 1", "c.csv 1"]
    assert not list(folder.glob(".persistq*"))


def test_what_another_has_died_with_is_done_before_the_end(
    folder: Path, start_stage: Callable[..., Stage]
) -> None:
    stage = start_stage(folder)
    stage.wait_until_running(1)
    code = "import os, persistq; persistq.ReadableFolderQueue('q', 'csv').get(0); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], cwd=folder.parent, timeout=LIMIT_S)
    assert waiting(folder) == ["c.csv"]
    for name in "acb":
        stage.let_end(name)
    assert stage.end() == (0, "")


def test_what_another_dies_with_while_it_waits_is_done_too(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistq._cli.work._RECLAIM_S", 0.05)
    folder, by_hand = tmp_path / "q", tmp_path / "q" / "by-hand.done"
    producer = fill(folder, "a.csv", "b.csv", close=False)
    other = nursery.start(get_one_then_wait, ReadableFolderQueue(folder, "csv"))
    assert other.receive().endswith("_a.wip")
    # The queue ends only behind `a`, so nothing but its own looking brings that.
    code = 'case $1 in b.csv) kill -9 $2;; *) : >"$3";; esac'
    command = ["sh", "-c", code, "sh", "{name}", str(other.process.pid), str(by_hand)]
    assert main(["work", str(folder), "--", *command]) == 0
    assert by_hand.exists()
    assert not list(folder.glob("*.wip"))
    producer.close()


def test_told_to_stop_at_any_moment_it_leaves_nothing_claimed(tmp_path: Path) -> None:
    import random

    folder = tmp_path / "q"
    names = [f"{number:03}.csv" for number in range(200)]
    fill(folder, *names)
    random_ = random.Random(14)
    printed: list[str] = []
    for _ in range(12):
        said = len(printed) + random_.randint(1, 25)
        with subprocess.Popen(
            [*PERSISTQ, "work", str(folder), "-j", "2", "--", "echo", "{name}"],
            stdout=subprocess.PIPE,
            text=True,
        ) as stage:
            assert stage.stdout is not None
            while len(printed) < said and (line := stage.stdout.readline()):
                printed.append(line.strip())
            stage.terminate()
            printed += stage.stdout.read().split()
        assert not claimed(folder)
        assert not list(folder.glob(".persistq*"))
        assert sorted(printed + waiting(folder)) == names
    assert len(printed) > 50


def test_what_was_claimed_when_it_was_told_to_stop_and_nobody_has_is_put_back(
    folder: Path,
) -> None:
    reader = TryingReader(str(folder), "csv")
    started, lost = reader.get(0), reader.get(0)
    reader.put_back_unstarted({started})
    assert not os.path.exists(lost)
    assert waiting(folder) == ["b.csv", "c.csv"]
    assert claimed(folder) == ["a.wip"]
    reader.task_done(started)


@pytest.mark.timeout(60)
def test_killed_at_any_moment_no_file_is_lost_or_done_by_two_at_once(tmp_path: Path) -> None:
    import random

    names = [f"{number:03}.csv" for number in range(60)]
    folder = tmp_path / "q"
    fill(folder, *names)
    # A command that finds another one at work on its file says so; some fail at first.
    code = (
        "mkdir {name}.at_work || echo {name} >> twice; rmdir {name}.at_work;"
        ' case "{name} $PERSISTQ_ATTEMPT" in *[27].csv" 1") exit 1;; esac'
    )
    attempts = ["--max-attempts", "9", "--retry-delay", "0"]
    words = ["-j", "3", *attempts, "--move-to", "done", "--", "sh", "-c", code]
    command = [*PERSISTQ, "work", str(folder), *words]
    random_ = random.Random(14)
    kills = 0
    for _ in range(60):
        done = len(waiting(tmp_path / "done"))
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as stage:
            goal = done + random_.randint(1, 8)
            wait_until(
                lambda stage=stage, goal=goal: (
                    stage.poll() is not None  # type: ignore[misc]
                    or len(waiting(tmp_path / "done")) >= goal
                ),
                "some files done",
            )
            if stage.poll() is not None:
                break
            stage.kill()
            kills += 1
    # A command that outlives the last kill holds its file until it ends.
    wait_until(lambda: work(folder, *words).returncode == 0 and not claimed(folder), "the end")
    assert kills > 5
    assert not (tmp_path / "twice").exists()
    assert not failed(folder)
    assert waiting(tmp_path / "done") == names


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_disk_that_is_full_when_a_file_is_finished_stops_the_work_and_loses_nothing(
    folder: Path,
) -> None:
    done = folder.parent / "done"
    inject = ["-e", "inject=/^rename|^link:error=ENOSPC", "-P", str(done / "a.csv")]
    stage = [*PERSISTQ, "work", str(folder), "--move-to", str(done), "--", "true"]
    result = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-f", *inject, *stage],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 7
    assert "a.csv: cannot be finished, so it waits again: [Errno 28]" in result.stderr
    assert not waiting(done)
    assert waiting(folder) == ["a.csv", "b.csv", "c.csv"]


def test_a_full_disk_that_takes_no_reason_leaves_the_file_waiting(folder: Path) -> None:
    code = (
        "import resource, sys; from persistq._cli import main;"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); sys.exit(main(sys.argv[1:]))"
    )
    reason = "echo " + "x" * 500 + " >&2; exit 1"
    result = subprocess.run(
        [sys.executable, "-c", code, "work", str(folder), "--", "sh", "-c", reason],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 7, result.stderr
    assert waiting(folder) == ["a.csv", "b.csv", "c.csv"]
    assert not failed(folder)
    assert not claimed(folder)


def test_a_disk_that_takes_no_byte_keeps_nobody_from_emptying_it(folder: Path) -> None:
    """Also of what the dead had claimed, though their deaths cannot be written down."""
    code = "import os, persistq; persistq.ReadableFolderQueue('q', 'csv').get(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], cwd=folder.parent, timeout=LIMIT_S)
    assert claimed(folder)
    code = (
        "import resource, sys; from persistq._cli import main;"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "work", str(folder), "--", "true"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 0, result.stderr
    assert "no lease can be made" in result.stderr
    assert "how often it was begun cannot be written down" in result.stderr
    assert not waiting(folder)
    assert not claimed(folder)


def test_two_stages_share_a_queue(tmp_path: Path) -> None:
    names = [f"{number:03}.csv" for number in range(100)]
    fill(tmp_path / "q", *names)
    command = [*PERSISTQ, "work", "q", "-j", "2", "--", "echo", "{name}"]
    stages = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [stage.communicate(timeout=LIMIT_S)[0].split() for stage in stages]
    assert [stage.returncode for stage in stages] == [0, 0]
    assert sorted(printed[0] + printed[1]) == names
