"""What is no file, and has the name of one of a run, makes nobody wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persistq import PersistentQueue, PersistqError
from persistq._cli import main

CODE = """
import queue, sys
from persistq import PersistentQueue
q = PersistentQueue("orders", sys.argv[1], queue=queue.Queue())
q.put_many("abc")
q.task_done(q.get())
q.task_failed(q.get(), "bad")
q.close()
q.dispose()
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize(
    "name",
    [
        "orders_run.json",
        "orders_seal.json",
        "orders_carried.tsv",
        "orders_requested_PID*.tsv",
        "orders_completed_PID*.tsv",
        "orders_failed_PID*.tsv",
    ],
)
def test_a_pipe_with_the_name_of_a_file_of_a_run_makes_nobody_wait(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pickup"
    subprocess.run([sys.executable, "-c", CODE, str(folder)], check=True, timeout=20)
    pipe = next(folder.glob(name), folder / name)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    for command in ("status", "outstanding", "failed", f"report -o {tmp_path / 'page.html'}"):
        # Opened as a file, it would have waited here for somebody who writes.
        main([*command.split(), str(folder)])
        assert "Traceback" not in capsys.readouterr().err
    with contextlib.suppress(PersistqError, OSError):
        queue = PersistentQueue("orders", tmp_path / "next", folder)
        queue.requeue_unprocessed_work()
        queue.dispose(give_up=True)
