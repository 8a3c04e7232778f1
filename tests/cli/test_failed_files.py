"""What an operator decides of files that were set aside by a folder queue."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import text
from persistq import ReadableFolderQueue, WritableFolderQueue


@pytest.fixture(params=["in the folder", "in a directory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """Set a.csv and b.csv aside; return the options that say where."""
    folder, bad = tmp_path / "q", tmp_path / "bad"
    directory = bad if request.param == "in a directory" else None
    with WritableFolderQueue(folder, "csv") as producer:
        for name in ("a.csv", "b.csv"):
            (tmp_path / name).write_text(name)
            producer.put(tmp_path / name)
    consumer = ReadableFolderQueue(folder, "csv", task_failed_directory=directory)
    for _ in range(2):
        consumer.task_failed(consumer.get(0), "line 4: no number")
    consumer.dispose()
    return [] if directory is None else ["--failed-dir", bad]


def test_failed_files_are_listed_and_counted(tmp_path: Path, where: list[str | Path]) -> None:
    folder = tmp_path / "q"

    shown = text("failed", folder, *where)
    one, two = json.loads(text("failed", "--json", folder, *where))
    (found,) = json.loads(text("status", "--json", folder, *where, status=1))

    assert shown.startswith(f"Set aside in {folder}:\nMESSAGE  ATTEMPTS")
    assert "line 4: no number" in shown
    assert (one["schema"], one["kind"], one["path"]) == (1, "folder", str(folder))
    assert (one["message"], one["attempts"], two["message"]) == ("a.csv", 1, "b.csv")
    assert one["reason"] == "line 4: no number"
    assert Path(one["file"]).read_text() == "a.csv"
    assert found["set_aside"] == 2
    assert "2 files set aside" in text("status", folder, *where, status=1)
    text("status", "--alert", folder, *where, status=1)
    assert "2 set aside" in text("watch", folder, *where)


def test_a_retried_file_waits_again_and_its_reason_is_gone(
    tmp_path: Path, where: list[str | Path]
) -> None:
    folder = tmp_path / "q"

    assert text("retry", folder, *where, "a*") == (
        "waits again: a.csv\n1 file put on the queue again\n"
    )

    consumer = ReadableFolderQueue(folder, "csv")
    assert Path(consumer.get(0)).read_text() == "a.csv"
    assert [e["message"] for e in json.loads(text("failed", "--json", folder, *where))] == ["b.csv"]
    assert not list(tmp_path.rglob("a.csv*reason*"))


def test_a_file_whose_name_waits_stays_set_aside(tmp_path: Path, where: list[str | Path]) -> None:
    folder = tmp_path / "q"
    (folder / "a.csv").write_text("another")
    shown = text("retry", folder, *where, status=6)
    assert "waits again: b.csv" in shown
    assert "left there, since a.csv waits already" in shown
    assert (folder / "a.csv").read_text() == "another"
    assert [e["message"] for e in json.loads(text("failed", "--json", folder, *where))] == ["a.csv"]


def test_a_discarded_file_is_deleted_when_it_is_asked_for(
    tmp_path: Path, where: list[str | Path]
) -> None:
    folder = tmp_path / "q"
    assert "--yes" in text("discard", folder, *where, "a.csv", status=2)
    assert text("discard", "--yes", folder, *where, "a.csv") == (
        "given up: a.csv\n1 message given up\n"
    )
    assert [e["message"] for e in json.loads(text("failed", "--json", folder, *where))] == ["b.csv"]
    assert not list(tmp_path.rglob("a.csv*"))
    text("discard", "--yes", folder, *where)
    assert text("failed", folder, *where) == "nothing is set aside\n"
    text("status", folder, *where)


def test_what_is_no_queue_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    for command in ("failed", "retry", "discard"):
        assert "holds neither journals nor a folder queue" in text(command, tmp_path, status=2)
    assert os.listdir(tmp_path) == ["letter.txt"]
