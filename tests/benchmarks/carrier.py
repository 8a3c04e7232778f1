"""The carrier alone, without the queue above it, against a bare multiprocessing.JoinableQueue.

End to end: one producer puts all messages, the workers get each and call task_done, and the
clock stops when join() returns. "put_many" is the same with the raw way, put_bytes_many and
get_bytes.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from persistq._carrier import default_carrier
from persistq._carrier.carrier import Carrier

if TYPE_CHECKING:
    from harness import Amounts, Report

SIZES = (30, 1000, 100_000)
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
    "bare JoinableQueue": (lambda ctx: ctx.JoinableQueue(), work, put_each, None),
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


def carriers(amounts: Amounts, report: Report) -> None:
    if default_carrier._MISSING:
        report.skip("the carrier alone", f"{default_carrier._MISSING} is missing on this platform")
        return
    ctx = multiprocessing.get_context()
    for size in SIZES:
        number = amounts.of(40_000, 2_000, 400) * 30 // max(30, size // 25)
        number = max(BATCH, number // BATCH * BATCH)
        for workers in (1, 4):
            report.compare(
                f"the carrier alone, {size:,} bytes, {workers} workers",
                "msgs/s",
                "bare JoinableQueue",
                {
                    name: lambda n=name, w=workers, s=size, m=number: rate(n, ctx, w, s, m)
                    for name in CONTENDERS
                },
                amounts.rounds_of(7 if amounts.level == "full" else 1),
            )


SECTIONS = {"carrier": carriers}
