"""Commands on a queue whose extension counts in other letters, too: `A.TSV`, as of Windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import LIMIT_S, text, write
from persistq import ReadableFolderQueue, WritableFolderQueue

NOTHING = 5


def messages_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".tsv")


def test_it_is_said_once_and_all_commands_know_it(tmp_path: Path) -> None:
    folder, done = tmp_path / "q", tmp_path / "done"
    files = write(tmp_path, "A.TSV", "b.tsv", "C.Tsv", "D.TSV", "E.TSV", "F.TSV")
    text("put", "--ignore-case", folder, files[0])
    text("put", folder, *files[1:])
    (found,) = json.loads(text("status", "--json", folder, status=1))
    assert (found["waiting"], found["others"], found["other_kinds"]) == (6, 0, {})

    claims = text("get", "-n", "3", folder).split()
    assert text("name", *claims) == "A.TSV\nC.Tsv\nD.TSV\n"
    text("release", claims[0])
    text("done", claims[1], claims[2], "--move-to", done)
    assert messages_in(done) == ["C.Tsv", "D.TSV"]
    (found,) = json.loads(text("status", "--json", "--done-dir", done, folder, status=1))
    assert (found["waiting"], found["done"]) == (4, 2)

    text("work", "--timeout", "0", folder, "--", "false", status=1)
    assert [entry["message"] for entry in json.loads(text("failed", "--json", folder))] == [
        "A.TSV",
        "E.TSV",
        "F.TSV",
        "b.tsv",
    ]
    assert "waits again: E.TSV" in text("retry", folder, "E.TSV")
    assert "given up: F.TSV" in text("discard", "--yes", folder, "F.TSV")
    assert messages_in(folder) == ["E.TSV"]

    text("get", folder)
    text("close", folder)
    assert "waits again: E.TSV" in text("reset", "--yes", folder)
    assert messages_in(folder) == ["E.TSV"]


def test_it_is_known_of_producers_that_have_gone(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    with WritableFolderQueue(folder, ignore_case=True) as producer:
        producer.put(write(tmp_path, "A.TSV")[0])
    (control,) = folder.glob("*.helo")
    assert json.loads(control.read_text())["header"]["ignoreCase"] is True
    # It has closed, so its lease is gone.
    assert not list(folder.glob(".persistq_*.lease"))
    (found,) = json.loads(text("status", "--json", folder, status=1))
    assert (found["waiting"], found["others"]) == (1, 0)
    assert text("name", text("get", folder).strip()) == "A.TSV\n"
    with WritableFolderQueue(tmp_path / "exact"):
        pass
    (control,) = (tmp_path / "exact").glob("*.helo")
    assert "ignoreCase" not in json.loads(control.read_text())["header"]


def test_a_killed_claimers_file_gets_its_own_name_back(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write(folder, "A.TSV", "b.tsv")
    code = "import os, sys, persistq; q = persistq.ReadableFolderQueue(sys.argv[1], "
    code += "ignore_case=True); q.get(); q.get(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(folder)], timeout=LIMIT_S)
    assert text("reclaim", folder) == ("waits again: A.TSV\nwaits again: b.tsv\n2 files put back\n")


def test_purge_takes_what_the_queue_holds_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write(folder, "A.TSV", "b.tsv", "README")
    consumer = ReadableFolderQueue(folder, ignore_case=True)
    consumer.task_failed(consumer.get(0), "no amount")
    assert (folder / "A.TSV.rejected").exists()
    assert (folder / "A.TSV.reason.txt").exists()
    text("purge", "--yes", folder)
    assert os.listdir(folder) == ["README"]


def test_without_it_other_letters_are_another_kind(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write(folder, "A.TSV")
    (found,) = json.loads(text("status", "--json", folder))
    assert (found["waiting"], found["other_kinds"]) == (0, {".TSV": 1})
    said = text("get", "--timeout", "0", folder, status=NOTHING)
    assert "files of other kinds (.TSV)" in said
    assert "--ignore-case" in said
    assert "nothing waits" not in text("get", "--ignore-case", "--timeout", "0", folder)

    folder = tmp_path / "q2"
    write(folder, "A.TSV", "B.TSV")
    (found,) = json.loads(text("status", "--ignore-case", "--json", folder, status=1))
    assert (found["waiting"], found["other_kinds"]) == (2, {})
    assert text("name", text("get", "--ignore-case", folder).strip()) == "A.TSV\n"
    # Also beside a named extension, what one says who uses the folder counts.
    assert text("name", text("get", "-e", "tsv", folder).strip()) == "B.TSV\n"


def test_the_page_and_watch_know_it(tmp_path: Path) -> None:
    folder, page = tmp_path / "q", tmp_path / "page.html"
    write(folder, "A.TSV", "B.TSV")
    consumer = ReadableFolderQueue(folder, ignore_case=True)
    consumer.get(0)
    text("report", "-o", page, folder)
    shown = page.read_text()
    assert "A.TSV" in shown
    assert ".wip" not in shown
    consumer.task_failed(consumer.get(0), "no amount")
    text("report", "-o", page, folder)
    assert "no amount" in page.read_text()
