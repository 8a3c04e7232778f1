"""How fast the carrier is, as a ratio to a bare multiprocessing.JoinableQueue in the same run.

    python tests/benchmarks/carrier.py
    python tests/benchmarks/carrier.py --quick --json

End to end: one producer puts all messages, the workers get each and call task_done, and the
clock stops when join() returns. "put_many" is the same with the raw way, put_bytes_many and
get_bytes. The rounds of all contenders are interleaved, since a shared machine's speed drifts;
compare ratios, and rates only within one run.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import platform
import statistics
import sys
import time
from typing import Any

from persistq._journal.carrier import Carrier

SIZES = {"30 B": 30, "1 KB": 1000, "100 KB": 100_000}
BATCH = 100


def work(queue: Any, ready: Any) -> None:
    ready.release()
    while queue.get() is not None:
        queue.task_done()
    queue.task_done()


def work_raw(queue: Any, ready: Any) -> None:
    ready.release()
    while queue.get_bytes() != b"":
        queue.task_done()
    queue.task_done()


def put_each(queue: Any, message: str, number: int) -> None:
    put = queue.put
    for _ in range(number):
        put(message)


def put_many(queue: Any, message: str, number: int) -> None:
    batch = [message.encode()] * BATCH
    for _ in range(number // BATCH):
        queue.put_bytes_many(batch)


CONTENDERS: dict[str, tuple[Any, Any, Any, Any]] = {
    "bare": (lambda ctx: ctx.JoinableQueue(), work, put_each, None),
    "carrier": (lambda ctx: Carrier(ctx=ctx), work, put_each, None),
    "put_many": (lambda ctx: Carrier(ctx=ctx), work_raw, put_many, b""),
}


def rate(contender: str, ctx: Any, workers: int, size: int, number: int) -> float:
    """Return messages per second, end to end."""
    make, target, put, end = CONTENDERS[contender]
    queue = make(ctx)
    ready = ctx.Semaphore(0)
    processes = [ctx.Process(target=target, args=(queue, ready)) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    gc.collect()
    started = time.perf_counter()
    put(queue, "x" * size, number)
    queue.join()
    seconds = time.perf_counter() - started
    for _ in processes:
        queue.put(None) if end is None else queue.put_bytes(end)
    for process in processes:
        process.join()
        process.close()
    queue.close()
    queue.join_thread()
    return number / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="of each contender, interleaved")
    parser.add_argument("--messages", type=int, default=40_000, help="of 30 B in a round")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--start-method", default=multiprocessing.get_start_method())
    parser.add_argument("--quick", action="store_true", help="one small round, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.messages = 1, 2000
    ctx = multiprocessing.get_context(options.start_method)

    rows = []
    for label, size in SIZES.items():
        number = max(BATCH, options.messages * 30 // max(30, size // 25) // BATCH * BATCH)
        for workers in options.workers:
            rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
            for _ in range(options.rounds):
                for name in CONTENDERS:
                    rates[name].append(rate(name, ctx, workers, size, number))
            for name, values in rates.items():
                ratios = [mine / bare for mine, bare in zip(values, rates["bare"])]
                rows.append(
                    {
                        "size": label,
                        "workers": workers,
                        "messages": number,
                        "queue": name,
                        "per_second": round(statistics.median(values)),
                        "lowest": round(min(values)),
                        "highest": round(max(values)),
                        "ratio": round(statistics.median(ratios), 2),
                    }
                )
    about = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "start_method": options.start_method,
        "rounds": options.rounds,
    }
    if options.json:
        print(json.dumps({**about, "rows": rows}))
        return
    print(*(f"{key}: {value}" for key, value in about.items()), sep=", ")
    form = "{:>7} {:>8} {:>9} {:>9} {:>11} {:>22} {:>6}"
    print(form.format("size", "workers", "messages", "queue", "msgs/s", "lowest-highest", "ratio"))
    for row in rows:
        spread = f"{row['lowest']}-{row['highest']}"
        print(
            form.format(
                row["size"],
                row["workers"],
                row["messages"],
                row["queue"],
                row["per_second"],
                spread,
                row["ratio"],
            )
        )


if __name__ == "__main__":
    sys.exit(main())
