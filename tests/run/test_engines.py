"""Executors that others make: each does a job here, where it is installed.

A job that uses an engine is a process of its own: what an engine leaves behind, threads and
warnings, is not the tests'.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import run_jobs
from dask_cluster import Cluster, environment
from persistq import run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")

HERE = Path(__file__).parent.parent


def needs(module: str, group: str) -> pytest.MarkDecorator:
    is_there = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not is_there, reason=f"needs {module} (pip install --group {group})")


def mpiexec() -> str | None:
    """Return the command that starts processes of MPI, beside this Python or of the system."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


needs_dask = needs("distributed", "dask")
needs_loky = needs("loky", "loky")
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or mpiexec() is None,
    reason="needs mpi4py and an MPI",
)


def job(engine: str, folder: Path, *arguments: str, start: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a job of `run_on_engine.py` on an engine; return what it has found."""
    ended = subprocess.run(
        [*(start or (sys.executable,)), str(HERE / "run_on_engine.py"), engine, folder, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return run_jobs.read_outcome(folder)


def check_strange(found: dict[str, Any]) -> None:
    """See that everything is done, or set aside with a reason, and its result was given once."""
    expected = Counter({str(n): 1 for n in range(50)})
    assert Counter(found["results"]) == expected
    assert sorted(found["failed"]) == ["bad", "lock"]
    assert found["failed"]["bad"].startswith("LookupError: bad (")
    assert "the result, a lock, cannot be sent" in found["failed"]["lock"]
    assert (found["done"], found["outstanding"]) == (50, 0)


@needs_dask
@pytest.mark.timeout(90)
def test_workers_of_dask_started_by_hand_do_a_job(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        check_strange(job("dask", tmp_path, "strange", cluster.address))


@needs_dask
@pytest.mark.timeout(90)
def test_a_local_cluster_of_dask_does_a_job(tmp_path: Path) -> None:
    check_strange(job("local-cluster", tmp_path, "strange"))


@needs_loky
@pytest.mark.timeout(90)
def test_a_pool_of_loky_does_a_job(tmp_path: Path) -> None:
    check_strange(job("loky", tmp_path, "strange"))


@needs_mpi
@pytest.mark.timeout(90)
def test_workers_of_mpi_do_a_job(tmp_path: Path) -> None:
    command = mpiexec()
    assert command is not None
    start = (command, "-n", "3", sys.executable, "-m", "mpi4py.futures")
    check_strange(job("mpi", tmp_path, "strange", start=start))


@needs_dask
@pytest.mark.timeout(90)
def test_a_message_that_kills_workers_of_dask_is_set_aside_and_the_rest_is_done(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        found = job("dask", tmp_path, "deadly", cluster.address)
    assert Counter(found["results"]) == Counter({str(n): 1 for n in range(50)})
    assert list(found["failed"]) == ["kill"]
    assert "began 5 times" in found["failed"]["kill"]
    assert "KilledWorker" in found["failed"]["kill"]


@needs_dask
@pytest.mark.timeout(90)
def test_without_its_scheduler_a_job_on_dask_ends_with_a_clear_error_and_can_go_on(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        process = subprocess.Popen(
            [sys.executable, HERE / "run_on_engine.py", "dask", tmp_path, "gate", cluster.address],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        run_jobs.wait_for(tmp_path / "began-0")
        cluster.kill_scheduler()
        error = process.communicate(timeout=40)[1]
    assert process.returncode == 1
    assert "PersistqError: the executor" in error
    (tmp_path / "open").touch()
    given = [(str(tmp_path), str(n)) for n in range(20)]
    summary = run(run_jobs.gate, given, root=tmp_path / "p", workers=2)
    assert (summary.requeued, summary.done, summary.outstanding) == (4, 20, 0)


@needs_loky
@pytest.mark.timeout(90)
def test_a_pool_of_loky_that_a_message_has_broken_is_a_clear_error(tmp_path: Path) -> None:
    for _ in range(8):
        found = job("loky", tmp_path, "deadly")
        if "error" not in found:
            break
        assert "the executor takes no more work" in found["error"]
    assert list(found["failed"]) == ["kill"]
    assert sorted(found["results"], key=int) == [str(n) for n in range(50)]
