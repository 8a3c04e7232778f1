"""What commands never do: guess a name, delete too much, make a folder that is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cli_workers
from commands import COMMAND, LIMIT_S, text, write
from persistq import ReadableFolderQueue, WritableFolderQueue

if TYPE_CHECKING:
    from processes import Nursery

posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell, signals or names")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The extension


def test_no_command_needs_the_extension_of_those_who_use_the_folder(tmp_path: Path) -> None:
    """All commands in turn, on a queue of `.dat` files whose extension is said once."""
    folder = tmp_path / "q"
    write(tmp_path, *(f"{letter}.dat" for letter in "abcdefg"))
    text("put", "-e", "dat", folder, tmp_path / "a.dat")
    text("put", folder, *(tmp_path / f"{letter}.dat" for letter in "bcdefg"))
    (found,) = json.loads(text("status", "--json", folder, status=1))
    assert (found["extension"], found["waiting"], found["others"]) == (".dat", 7, 0)

    claims = text("get", "-n", "3", folder).split()
    assert text("name", *claims) == "a.dat\nb.dat\nc.dat\n"
    text("release", claims[0])
    text("done", claims[1], "--move-to", tmp_path / "done")
    assert names_in(tmp_path / "done") == ["b.dat"]
    text("work", "--timeout", "0", folder, "--", "false", status=1)
    assert [entry["message"] for entry in json.loads(text("failed", "--json", folder))] == [
        f"{letter}.dat" for letter in "adefg"
    ]
    assert "waits again: d.dat" in text("retry", folder, "d.dat")
    assert "given up: e.dat" in text("discard", "--yes", folder, "e.dat")
    assert text("reclaim", folder) == "0 files put back\n"
    text("close", folder)
    assert "waits again: c.dat" in text("reset", "--yes", folder)
    assert {"c.dat", "d.dat"} <= {*names_in(folder)}


def test_a_killed_claimers_file_gets_its_own_name_back(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    WritableFolderQueue(folder, "csv").put(write(tmp_path, "a.csv")[0])
    code = "import os, sys, persistq; q = persistq.ReadableFolderQueue(sys.argv[1], 'csv');"
    code += "q.get(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(folder)], timeout=LIMIT_S)
    assert "waits again: a.csv" in text("reclaim", folder)


def test_the_extension_of_what_was_set_aside_is_known_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    with WritableFolderQueue(folder, "csv") as producer:
        producer.put(write(tmp_path, "a.csv")[0])
    consumer = ReadableFolderQueue(folder, "csv")
    consumer.task_failed(consumer.get(0), "no amount")
    consumer.dispose()
    text("reset", "--yes", folder)
    assert not [name for name in names_in(folder) if name.endswith((".helo", ".lease"))]
    assert "waits again: a.csv" in text("retry", folder)


def test_a_folder_of_files_of_another_kind_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write(folder, "a.csv", "b.csv", "c")
    said = "3 files of other kinds (.csv, none) than .tsv"
    assert said in text("status", folder)
    write(folder, "d.tsv")
    assert said in text("status", folder, status=1)
    (found,) = json.loads(text("status", "--json", folder, status=1))
    assert (found["others"], found["other_kinds"]) == (3, {".csv": 2, "": 1})
    assert "other kinds" not in text("get", folder)


@posix
def test_where_only_files_of_another_kind_are_nobody_waits_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write(folder, "a.csv")
    said = "nothing waits that ends with .tsv, and nobody says how messages end"
    assert said in text("get", "--timeout", "0", folder, status=5)
    assert said in text("work", "--timeout", "0", folder, "--", "true", status=5)
    assert said not in text("get", "-e", "csv", folder)


def test_nothing_is_renamed_to_an_extension_that_is_a_guess(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    claim = "000001_0000000000_a.wip"
    write(folder, "b.csv", claim)
    for command in (["release"], ["done", "--move-to", tmp_path / "out"], ["name"]):
        assert "Nothing has been changed" in text(*command, folder / claim, status=2)
    for command in (["reclaim"], ["reset", "--yes"]):
        assert "--extension says how" in text(*command, folder, status=2)
    assert names_in(folder) == [claim, "b.csv"]
    text("release", "-e", "csv", folder / claim)
    assert names_in(folder) == ["a.csv", "b.csv"]
    (folder / claim).touch()
    text("done", folder / claim)  # which needs no name
    assert names_in(folder) == ["a.csv", "b.csv"]


# purge


def test_purge_leaves_the_queue_of_another_extension_in_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    kept = {}
    for extension in ("csv", "tsv"):
        producer = WritableFolderQueue(folder, extension)
        for letter in "abc":
            producer.put(write(tmp_path, f"{letter}.{extension}")[0])
        consumer = ReadableFolderQueue(folder, extension)
        consumer.get(0)
        consumer.task_failed(consumer.get(0), "no amount")
        kept[extension] = [name for name in names_in(folder) if name not in kept.get("csv", ())]
        # Held on to, so that leases and claims stay.
        kept[f"{extension} holds"] = [producer, consumer]  # type: ignore[list-item]
    write(folder, "notes.md")

    assert "1 other file" not in text("purge", "--yes", "-e", "tsv", folder)

    assert names_in(folder) == sorted([*kept["csv"], "notes.md"])


@posix
def test_purge_never_takes_a_home_a_root_or_a_repository(tmp_path: Path) -> None:
    import pwd

    home = tmp_path / "home" / "me"
    home.mkdir(parents=True)
    environment = {**os.environ, "HOME": str(home)}
    for place in (home, home.parent):
        write(place, "a.tsv", "20260101_000000_000000__1_x.helo")
    repository = tmp_path / "repository"
    (repository / "work" / ".git").mkdir(parents=True)
    write(repository, "a.tsv", "20260101_000000_000000__1_x.helo")
    before = sorted(tmp_path.rglob("*"))
    others = {user.pw_dir for user in pwd.getpwall() if os.path.isdir(user.pw_dir)}
    places = [home, home.parent, repository, repository / "work", "/", *sorted(others)]
    for place in places:
        try:
            os.listdir(place)
        except PermissionError:
            continue  # another user's home, seen by nobody but a superuser
        result = subprocess.run(
            # Nobody says yes, should it ask.
            [*COMMAND, "purge", "--everything", str(place)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == 2
        assert "it is never purged" in result.stderr, place
    assert sorted(tmp_path.rglob("*")) == before
    shutil.rmtree(repository / "work")
    text("purge", "--yes", "--everything", repository)
    assert names_in(repository) == []


# What is not there


@pytest.mark.parametrize(
    "command", [["get"], ["close"], ["fail"], ["reclaim"], ["reset"], ["purge"], ["status"]]
)
def test_a_folder_that_is_not_there_is_an_error_and_is_not_made(
    tmp_path: Path, command: list[str]
) -> None:
    assert "No such file" in text(*command, tmp_path / "nowhere", status=2)
    assert names_in(tmp_path) == []


@posix
@pytest.mark.parametrize("kind", ["folder", "journals", "journals in an empty folder"])
def test_watch_waits_for_what_is_not_there_yet(tmp_path: Path, nursery: Nursery, kind: str) -> None:
    place = tmp_path / "later"
    if kind.endswith("empty folder"):
        place.mkdir()
    with subprocess.Popen(
        [*COMMAND, "watch", "--interval", "0.05", str(place)], stdout=subprocess.PIPE, text=True
    ) as watching:
        try:
            assert watching.stdout is not None
            for _ in range(3):  # looks
                shown = watching.stdout.readline()
                assert ("not there yet" in shown) != kind.endswith("empty folder")
            if kind == "folder":
                with WritableFolderQueue(place, "csv") as producer:
                    producer.put(write(tmp_path, "a.csv")[0])
                consumer = ReadableFolderQueue(place, "csv")
                consumer.task_done(consumer.get(0))
            else:
                nursery.start(cli_workers.run_to_the_end, str(place)).result()
            last = watching.stdout.read().splitlines()[-1]
            assert watching.wait(LIMIT_S) == 0
        finally:
            watching.send_signal(signal.SIGKILL)
    assert "nothing outstanding" in last
    assert last.startswith(str(place) if kind == "folder" else "jobs ")
