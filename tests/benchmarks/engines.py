"""`run` on somebody else's engine, against that engine's own way, where it is installed.

Limit for Dask: `client.map` with the same function and as many in flight; each batch that is done
makes room for as many again. The clock runs from the first message to the last result.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

from persistq import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

WORKERS = 2


def nothing(message: str) -> int:
    return len(message)


def ten_milliseconds(message: str) -> int:
    time.sleep(0.01)
    return len(message)


def by_map(client: Any, function: Any, messages: list[str], in_flight: int) -> int:
    from distributed import as_completed

    rest, count = iter(messages), 0
    first = list(itertools.islice(rest, in_flight))
    flight = as_completed(client.map(function, first, pure=False), with_results=True)
    for batch in flight.batches():
        count += len(batch)
        more = list(itertools.islice(rest, len(batch)))
        if more:
            flight.update(client.map(function, more, pure=False))
    return count


def by_run(folder: str, client: Any, function: Any, messages: list[str], in_flight: int) -> int:
    results: list[int] = []
    run(
        function,
        messages,
        root=folder,
        executor=client.get_executor(pure=False),
        workers=in_flight // 2,
        on_result=lambda message, result: results.append(result),
    )
    return len(results)


def dask(amounts: Amounts, report: Report) -> None:
    if importlib.util.find_spec("distributed") is None:
        report.skip("run on Dask", "distributed is not installed")
        return
    from distributed import Client, LocalCluster

    # Its workers import this module by name.
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for function, in_flight, number in (
            (nothing, 2 * WORKERS, amounts.of(800, 400, 20)),
            (nothing, 32, amounts.of(2000, 800, 20)),
            (ten_milliseconds, 2 * WORKERS, amounts.of(400, 200, 20)),
        ):
            messages = [f"message {n}" for n in range(number)]

            def timed(way: Callable[[str], int], number: int = number) -> Callable[[], float]:
                def measure() -> float:
                    with amounts.new_folder() as parent:
                        folder = tempfile.mkdtemp(dir=parent)
                        began_s = time.perf_counter()
                        assert way(folder) == number
                        return number / (time.perf_counter() - began_s)

                return measure

            given = (client, function, messages, in_flight)
            report.compare(
                f"Dask, {WORKERS} workers, {function.__name__}, {in_flight} in flight",
                "/s",
                "client.map",
                {
                    "client.map": timed(lambda folder, given=given: by_map(*given)),
                    "run": timed(lambda folder, given=given: by_run(folder, *given)),
                },
                amounts.rounds,
                {"run": ("at least", 0.85)},
            )


SECTIONS = {"dask": dask}
