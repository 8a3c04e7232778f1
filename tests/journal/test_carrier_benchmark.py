"""The carrier's benchmark runs, and measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "carrier.py"
carrier = pytest.importorskip("persistq._journal.carrier")


@pytest.mark.skipif(bool(carrier._MISSING), reason="there is no Carrier on this platform")
def test_the_benchmark_measures_each_contender_at_each_size() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=25,
        check=True,
    )
    rows = json.loads(done.stdout)["rows"]
    measured = {(row["size"], row["workers"], row["queue"]) for row in rows}
    assert measured == {
        (size, workers, queue)
        for size in ("30 B", "1 KB", "100 KB")
        for workers in (1, 4)
        for queue in ("bare", "carrier", "put_many")
    }
    assert all(row["per_second"] > 0 for row in rows)
