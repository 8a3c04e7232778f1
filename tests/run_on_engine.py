"""A job on an engine: `run_on_engine.py ENGINE FOLDER JOB [ADDRESS]`. See run/test_engines.py."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import run_jobs
from persistq import PersistqError, run

NUMBERS = [str(n) for n in range(50)]


@contextlib.contextmanager
def executor_of(engine: str, address: str) -> Iterator[Any]:
    if engine == "local-cluster":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()
    elif engine == "dask":
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(2)
            yield client.get_executor()
    elif engine == "loky":
        from loky import get_reusable_executor

        yield get_reusable_executor(2)
    else:
        from mpi4py.futures import MPIPoolExecutor

        with MPIPoolExecutor() as executor:
            yield executor


def main() -> int:
    engine, folder, job, *address = sys.argv[1:]
    with executor_of(engine, *address or [""]) as executor:
        if job == "gate":
            try:
                run(
                    run_jobs.gate,
                    [(folder, str(n)) for n in range(20)],
                    root=os.path.join(folder, "p"),
                    workers=2,
                    executor=executor,
                )
            except PersistqError as error:
                # A client waits long for a scheduler that is gone.
                print(f"PersistqError: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        middle = ["bad", "lock"] if job == "strange" else ["kill"]
        try:
            summary = run(
                run_jobs.strange_result,
                [*NUMBERS[:20], *middle, *NUMBERS[20:]],
                root=os.path.join(folder, "p"),
                workers=2,
                executor=executor,
                on_result=lambda message, result: run_jobs.note(folder, str(result)),
            )
        except PersistqError as error:
            run_jobs.write_outcome(folder, {"error": str(error)})
        else:
            failed = {f.message: f.reason for f in summary.failures}
            counts = {"done": summary.done, "outstanding": summary.outstanding}
            run_jobs.write_outcome(folder, {"failed": failed, **counts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
