"""`run`: a whole job in one call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sized

from persistq import PersistentQueue
from persistq._queue import orphans
from persistq._run import sending
from persistq._run.chain import Job
from persistq._run.direct import MAXSIZE, Direct
from persistq._run.progress_line import ProgressLine
from persistq._run.stopping import Signals, Terminated
from persistq._run.summary import Summary
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from persistq._run.dispatching import Dispatching, Engine

    Message = TypeVar("Message")
    Result = TypeVar("Result")


def run(
    function: Callable[[Message], Result],
    messages: Iterable[Message],
    *,
    root: str | os.PathLike[str] = "pickups",
    prefix: str | None = None,
    workers: int | None = None,
    executor: Any = None,
    max_attempts: int | None = 5,
    retry_failed: bool = False,
    on_result: Callable[[Message, Result], object] | None = None,
    once: bool = False,
    time_limit: float | None = None,
    progress: bool | None = None,
    context: Any = None,
    fsync: bool = False,
    keep_runs: int = 10,
) -> Summary:
    """Call a function with each message in worker processes, and survive whatever happens.

    What is done, and what is not, is recorded. A message whose function raises is set aside with
    the reason, and the others are done. A worker that dies is replaced. The same call again, after
    a crash or a stop, goes on with the same job; after one that was finished it begins a new one.

    Ctrl-C and SIGTERM: no message is begun any more, those in hand are finished (a second Ctrl-C
    ends them), and the rest is outstanding for the next call. Then `KeyboardInterrupt` is raised,
    or SIGTERM does what it would have done.

    Args:
        function ((message) -> result): Does the work of one message.
        messages (Iterable[Any]): The messages: what `PersistentQueue.put` takes. Taken as they
            come; of those that are done, set aside or put already in this job, as many equal ones
            are passed over.
        root (str | os.PathLike[str]): Directory of all jobs; made if missing.
        prefix (str | None): What the job is called there; None for the function's name.
        workers (int | None): How many processes; None for as many as this machine has for this
            process. With `executor`, half as many as the messages that are in flight.
        executor (Any): Anything with the `submit` of `concurrent.futures.Executor`, which calls
            the function instead of processes of ours.
        max_attempts (int | None): At how many deaths of a worker that had it in hand a message is
            set aside; None: never.
        retry_failed (bool): Whether what is set aside is tried again, before all else.
        on_result ((message, result) -> object | None): Called in this process, in the thread that
            called `run`; a message is done only when it has returned. If it raises, the message is
            set aside with that.
        once (bool): Whether what was ever completed under this root and prefix is passed over, and
            each message given is done once.
        time_limit (float | None): Seconds that one message may take. Then its worker is ended
            (SIGTERM, and SIGKILL 5 seconds later), which counts as a death.
        progress (bool | None): Whether to show progress on standard error: on a terminal a line
            that changes, elsewhere a line a minute. None: on a terminal only.
        context (Any): A context of `multiprocessing`, or the name of a start method; None for the
            default one.
        fsync (bool): Whether records are to survive a power cut.
        keep_runs (int): How many folders of older runs, whose work was carried on, are kept.

    Returns:
        Summary: What was done.

    Raises:
        TypeError: The function cannot be sent to a process; nothing is put then. Or a message
            cannot be recorded; those before it are.
        ValueError: An argument is not what it may be.
        PreviousRunActiveError: The job is at work already.
        PersistqError: This is a spawned child that just imports its parent's main script. Or
            workers die before they begin a message, or cannot use the queue, or the executor is
            broken: then what is not done is outstanding.
        OSError: The journal cannot be written.
        KeyboardInterrupt: Ctrl-C; what is not done is outstanding.
    """
    if prefix is None:
        prefix = sending.name_of(function)
        if prefix is None:
            raise ValueError(f"{function!r} has no name; expected prefix=, to call the job after")
    if orphans.is_importing_main():
        raise PersistqError(
            "run() is called while a spawned process, or the fork server, imports the main script: "
            "each worker would begin the job anew. Expected it inside of "
            'if __name__ == "__main__":.'
        )
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected something to call with a message")
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(f"executor is {executor!r}; expected one with submit(function, message)")
    if executor is not None and (time_limit is not None or context is not None):
        raise ValueError(
            "time_limit and context are for worker processes that run() starts; expected them "
            "without executor, whose workers are its own"
        )
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers is {workers!r}; expected 1 or more, or None")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit!r}; expected seconds, above 0, or None")
    if time_limit is not None and max_attempts is None:
        raise ValueError(
            "time_limit needs max_attempts: a message that always takes too long would be handed "
            "out again for ever"
        )
    if not isinstance(keep_runs, int) or keep_runs < 0:
        raise ValueError(f"keep_runs is {keep_runs!r}; expected 0 or more")
    if isinstance(messages, (str, bytes)):
        raise TypeError(f"messages is {messages!r}; expected a list, or another iterable")
    if workers is None:
        workers = getattr(executor, "_max_workers", None) or _processors()
    call = _Call(function, prefix, workers, on_result, executor)
    call.prepare(context, time_limit)
    summary = None
    with Signals() as signals:
        try:
            summary = call.run(
                messages,
                Job(root, prefix),
                {"max_attempts": max_attempts, "fsync": fsync},
                retry_failed,
                once,
                progress,
                keep_runs,
            )
        except Terminated:
            pass
        is_interrupted = call.is_interrupted
    del call
    if is_interrupted:
        # Anew, without what stands where Ctrl-C struck: a traceback that somebody keeps, as a
        # notebook does, would keep the queue, and so this process in the run.
        raise KeyboardInterrupt
    signals.pass_on()
    if summary is None:
        raise Terminated  # a handler of the user's has returned, and SIGTERM struck at the very end
    return summary


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Call:
    """One call of `run`."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        prefix: str,
        workers: int,
        on_result: Callable[[Any, Any], object] | None,
        executor: Any,
    ) -> None:
        self._function = function
        self._prefix = prefix
        self._workers = workers
        self._on_result = on_result
        self._executor = executor
        self._context: Any = None
        self._time_limit: float | None = None
        self._given: int | None = None
        self._taken = 0
        self.is_interrupted = False

    def prepare(self, context: Any, time_limit: float | None) -> None:
        """Refuse what could not be done, before anything is put."""
        self._time_limit = time_limit
        import multiprocessing

        if self._executor is None:
            if context is None or isinstance(context, str):
                context = multiprocessing.get_context(context)
            self._context = context
            sending.check(self._function, context.get_start_method())
        else:
            pools = sys.modules.get("concurrent.futures.process")
            if pools is not None and isinstance(self._executor, pools.ProcessPoolExecutor):
                sending.check_pickling(self._function, "of a ProcessPoolExecutor")

    def run(
        self,
        messages: Iterable[Any],
        job: Job,
        arguments: dict[str, Any],
        retry_failed: bool,
        once: bool,
        progress: bool | None,
        keep_runs: int,
    ) -> Summary:
        began_s = time.monotonic()

        def make_queue(current: str, previous: str | None) -> PersistentQueue:
            return PersistentQueue(
                self._prefix,
                current,
                previous,
                number_of_workers=self._workers,
                queue=self._context,
                maxsize=0 if self._is_dispatching else MAXSIZE,
                **arguments,
            )

        self._given = len(messages) if isinstance(messages, Sized) else None
        self._queue = job.begin(make_queue)
        line: ProgressLine | None = None
        requeued, has_ended = 0, False
        try:
            line = ProgressLine(self._prefix, progress, self._queue.progress, self._still_to_come)
            # They load hashlib, for which who runs nothing need not wait.
            from persistq._run.history import History
            from persistq._run.passing_over import PassingOver

            passing = PassingOver(job, once)
            History(job.home, job.prefix).tidy(keep_runs, job.current)
            self._mode = self._make_mode(job.current, line)
            try:
                requeued = self._mode.requeue(retry_failed, passing.requeued > 0)
                self._mode.do(passing.what_is_left(self._count(messages)))
                has_ended = True
            except BaseException as error:
                self._stop()
                if isinstance(error, KeyboardInterrupt):
                    self.is_interrupted = True
                elif not isinstance(error, Terminated):
                    raise
            else:
                self._mode.finish()
            look = self._queue.progress()
            failures = self._queue.get_list_of_failed_work()
            if has_ended and not look.outstanding:
                job.end()
            return Summary(
                look.completed,
                failures,
                look.outstanding,
                requeued,
                passing.count,
                time.monotonic() - began_s,
            )
        finally:
            if line is not None:
                line.end()
                line.release()
            self._release()
            job.leave()

    @property
    def _is_dispatching(self) -> bool:
        return self._executor is not None or self._on_result is not None

    def _make_mode(self, folder: str, line: ProgressLine) -> Direct | Dispatching:
        if self._is_dispatching:
            from persistq._run.dispatching import Dispatching
            from persistq._run.suspects import Suspects

            suspects = Suspects(folder, self._prefix)
            return Dispatching(
                self._queue, self._make_engine(), self._on_result, line.show, suspects
            )
        return Direct(
            self._queue,
            folder,
            self._context,
            self._workers,
            self._prefix,
            self._function,
            self._time_limit,
            line.show,
        )

    def _make_engine(self) -> Engine:
        if self._executor is not None:
            from persistq._run.executing import Executing

            wants_results = self._on_result is not None
            return Executing(self._executor, self._function, self._workers, wants_results)
        from persistq._run.piping import Piping

        return Piping(self._context, self._workers, self._prefix, self._function, self._time_limit)

    def _stop(self) -> None:
        """Finish what is in hand; at a second Ctrl-C or SIGTERM end it."""
        try:
            self._mode.stop()
        except (KeyboardInterrupt, Terminated):
            self._mode.end_now()

    def _release(self) -> None:
        """Let go of the queue, whoever keeps a traceback of this."""
        mode = self.__dict__.pop("_mode", None)
        if mode is not None:
            mode.release()
        del self._queue

    def _count(self, messages: Iterable[Any]) -> Iterable[Any]:
        for message in messages:
            self._taken += 1
            yield message

    def _still_to_come(self) -> int | None:
        return None if self._given is None else max(self._given - self._taken, 0)
