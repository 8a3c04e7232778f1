"""Queues for the page to show: what child processes of its tests run."""

from __future__ import annotations

import os
import queue
import shutil
from pathlib import Path
from typing import Any

from persistq import PersistentQueue, ReadableFolderQueue, WritableFolderQueue, pickup_dirs

HOSTILE = "<script>alert(1)</script>&\"'\\\x1b[2J\n\u202egnp"
"""Markup, quotes, an escape sequence, a line end, and letters turned around."""


def work_on(talk: Any, root: str, count: int, done: int, bad: int = 0) -> None:
    """Put, complete and set aside messages; then complete one at each word, until told to end."""
    q = PersistentQueue("orders", *pickup_dirs(root, "orders"), queue=queue.Queue())
    q.put_many([f"order {number}.csv" for number in range(count)])
    for _ in range(bad):
        q.task_failed(q.get(), "line 3: no amount")
    for _ in range(done):
        q.task_done(q.get())
    message = q.get()
    talk.send(message)
    while talk.recv() == "next":
        q.task_done(message)
        message = q.get()
        talk.send(message)


def hostile_queues(talk: Any, root: str) -> str:
    """Make a queue of each kind in which every name and text is hostile; say the folder's path."""
    q = PersistentQueue(HOSTILE[:30].replace("/", "|"), Path(root, "journals"), queue=queue.Queue())
    q.put_many([HOSTILE, os.fsdecode(b"caf\xe9\xff.csv"), "x" * 3000])
    for _ in range(2):
        q.task_failed(q.get(), HOSTILE + " " + "W" * 300)
    q.get()
    folder = Path(root, HOSTILE.replace("/", "|") + os.fsdecode(b"\xe9\xff"))
    WritableFolderQueue(folder)
    for name in (HOSTILE.replace("/", "|"), os.fsdecode(b"\xe9"), "W" * 150):
        (folder / f"{name}.tsv").touch()
    r = ReadableFolderQueue(folder)
    r.task_failed(r.get(), f"</td></table>{HOSTILE}")
    (reason,) = folder.glob("*.reason.txt")
    lines = [reason.read_text().split("\n")[0], f"attempts: {'9' * 4000}"]
    reason.write_text("\n".join([*lines, "failed at: 0001-01-01T00:00:00+23:59"]))
    r.get()
    (folder / "folder<u>.tsv").mkdir()
    return str(folder)


def folder_in_use(talk: Any, folder: str, count: int) -> None:
    """Put files, take one, and put another whenever one is done."""
    source = Path(folder).with_suffix(".new")
    producer = WritableFolderQueue(folder)
    for number in range(count):
        source.touch()
        producer.put(shutil.move(source, source.with_name(f"file {number}.tsv")))
    consumer = ReadableFolderQueue(folder)
    path = consumer.get()
    talk.send(path)
    while talk.recv() == "next":
        count += 1
        source.touch()
        producer.put(shutil.move(source, source.with_name(f"file {count}.tsv")))
        consumer.task_done(path)
        path = consumer.get()
        talk.send(path)
