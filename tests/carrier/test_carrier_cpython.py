"""CPython's own tests of multiprocessing queues, which the interpreter ships, hold for Carrier."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(
    importlib.util.find_spec("test") is None
    or importlib.util.find_spec("test._test_multiprocessing") is None,
    reason="this interpreter comes without its own tests (the package `test`)",
)
@pytest.mark.skipif(os.name == "nt", reason="there is no Carrier on Windows")
@pytest.mark.timeout(60)
def test_cpythons_own_tests_of_queues_pass(start_method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "-v", "cpython_queue_tests"],
        cwd=TESTS,
        env={**os.environ, "START_METHOD": start_method},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    passed = re.findall(r"^(test_\w+) .*\.\.\. ok$", done.stderr, re.MULTILINE)
    assert {"test_put", "test_get", "test_fork", "test_qsize", "test_task_done"} <= set(passed)
    skipped = re.findall(r"\.\.\. skipped", done.stderr)
    assert len(skipped) <= 2, done.stderr
