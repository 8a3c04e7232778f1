"""PersistentQueue: a multiprocessing queue whose work survives its processes."""

from __future__ import annotations

import os
import weakref

from persistq import _fs
from persistq._attempts import Attempt
from persistq._carrier.default_carrier import new_carrier
from persistq._generic import Generic, Message
from persistq._journal.carrying import CarriedWork
from persistq._journal.codec import Codec, return_same
from persistq._journal.names import UNLABELED_PREFIX, check_prefix
from persistq._journal.runs import begin, wait_until_over
from persistq._queue import orphans
from persistq._queue.consumer import Consumer
from persistq._queue.desertion import Desertion, OtherProcesses
from persistq._queue.failing import Failing
from persistq._queue.joining import Joiner
from persistq._queue.journal_only import JournalOnly
from persistq._queue.leaving import Leaving
from persistq._queue.no_carrier import NoCarrier
from persistq._queue.producer import Producer
from persistq._queue.progress import Looking
from persistq._queue.reports import Reports
from persistq._queue.requeueing import Requeueing
from persistq._queue.user_queue import UserQueue
from persistq._sentinels import DONE, FAILED
from persistq.exceptions import PersistqError, UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.context import BaseContext
    from typing import Any

    from persistq._journal.failures import FailedWork
    from persistq._journal.members import Membership
    from persistq._queue.progress import Progress
    from persistq._queue.transport import Transport, UsersQueue
    from persistq._sentinels import Sentinel

    Function = Callable[[Any], Any]


class PersistentQueue(Generic[Message]):
    """A queue between processes that records its work, so that the next run can finish it.

    What is put, and what is done, is written to a pair of journal files for each process. After
    a failure their difference is the outstanding work, and `requeue_unprocessed_work` puts it on
    the queue of the next run.

    An instance is handed to worker processes like any `multiprocessing` queue, and is safe to use
    from several threads. For type checkers, `PersistentQueue[str]` is one whose messages are `str`.

    Args:
        pickup_file_prefix (str | None): Start of the journal files' names. None, with a directory:
            `unlabeled_queue`.
        current_pickup_dir (str | os.PathLike[str] | None): Directory for the journals of this run;
            made if missing. None keeps no journal.
        previous_pickup_dir (str | os.PathLike[str] | None): Directory with the journals of the run
            before, or None. It may be the current one.
        formatter_list (Iterable[(value) -> object]): For each position of a message, the function
            whose result, as a `str`, is journalled.
        converter_list (Iterable[(text: str) -> object]): For each position, the function that turns
            the journalled text back into a value.
        number_of_workers (int): How many workers take messages off the queue, so how many `DONE`s
            `close` puts. May be set later, before `close`.
        use_queue (bool): False: there is no queue but the journal. All work must be put before any
            is taken, in one process at a time.
        queue (UsersQueue | BaseContext | None): The carrier of the messages: anything with
            `put(obj, block, timeout)` and `get(block, timeout)`. None makes a
            `multiprocessing.JoinableQueue` whose workers may be killed at any moment; a context of
            `multiprocessing` makes that for its processes.
        number_of_producers (int): How many copies of this queue put messages, and close it.
        fsync (bool): Whether `put`, `put_many` and `task_done` return only when their record is on
            stable storage, so that it survives a power cut.
        record_started (bool): Whether `get` records what a worker has begun, so that the others
            take it over if it dies.
        maxsize (int): How many messages may wait before `put` waits for room; 0 for any number.
            Of a carrier that is given, its own bound counts.
        max_attempts (int | None): A message that was in hand of so many processes that died, in
            this run or earlier ones, is set aside; None: never.

    Raises:
        ValueError: The prefix holds a path separator; `use_queue=False` without
            `current_pickup_dir`; fewer than 0 workers or 1 producer; a `maxsize` below 0, or for
            a carrier that is given, or for none.
        PreviousRunActiveError: The run before is still alive, and was so for ten seconds.
        PersistqError: The run before was carried on by another one, elsewhere; or this is a spawned
            child that just imports its parent's main script.
        FileNotFoundError: `previous_pickup_dir` does not exist.
        TypeError: A formatter, converter or carrier is none.
        OSError: The previous run's work cannot be carried over; nothing is lost then.
    """

    def __init__(
        self,
        pickup_file_prefix: str | None = None,
        current_pickup_dir: str | os.PathLike[str] | None = None,
        previous_pickup_dir: str | os.PathLike[str] | None = None,
        # The inherited signature; nothing ever changes these lists.
        formatter_list: Iterable[Function | None] = [return_same],
        converter_list: Iterable[Function | None] = [return_same],
        number_of_workers: int = 1,
        use_queue: bool = True,
        *,
        queue: UsersQueue | BaseContext | None = None,
        number_of_producers: int = 1,
        fsync: bool = False,
        record_started: bool = True,
        maxsize: int = 0,
        max_attempts: int | None = 5,
    ) -> None:
        current = _directory(current_pickup_dir)
        previous = _directory(previous_pickup_dir)
        if pickup_file_prefix is not None:
            check_prefix(pickup_file_prefix)
        if not use_queue and current is None:
            raise ValueError(
                "use_queue=False needs current_pickup_dir: without a queue, the journal in that "
                "directory is all there is"
            )
        if not isinstance(number_of_producers, int) or number_of_producers < 1:
            raise ValueError(f"number_of_producers is {number_of_producers!r}; expected 1 or more")
        if max_attempts is not None and (not isinstance(max_attempts, int) or max_attempts < 1):
            raise ValueError(f"max_attempts is {max_attempts!r}; expected 1 or more, or None")
        if current is not None and orphans.is_importing_main():
            raise PersistqError(
                "a queue is made while a spawned process imports the main script: each worker "
                "would begin a run of its own. Expected it inside of "
                'if __name__ == "__main__":, and handed to the workers as an argument.'
            )
        self.pickup_file_prefix = pickup_file_prefix
        self.use_queue = use_queue
        self.formatter_list: list[Function | None] = list(formatter_list or ())
        self.converter_list: list[Function | None] = list(converter_list or ())
        self._fsync = fsync
        self._record_started = record_started
        self._max_attempts = max_attempts
        self._directory = current
        self._codec = Codec(self.formatter_list, self.converter_list)
        self._transport = self._make_transport(queue, maxsize, is_looking=current is None)
        self._transport.number_of_producers = number_of_producers
        self.number_of_workers = number_of_workers
        self._membership: Membership | None = None
        if current is not None:
            _fs.make_folders(current)
            beginning = begin(
                self._prefix, current, previous, max_attempts, _Facts(self._transport)
            )
            self._membership = beginning.membership
            self._carried = CarriedWork(self._membership, self._prefix, None, beginning.has_carried)
        else:
            if previous is not None and not os.path.isdir(previous):
                raise FileNotFoundError(
                    f"previous_pickup_dir {previous!r} is no directory; expected the one that "
                    "holds the journals of the run before"
                )
            self._carried = CarriedWork(None, self._prefix, previous, False)
        self._start()
        if self._membership is not None:
            others = OtherProcesses(self._membership.directory, self._prefix, self._membership.run)
            self._transport.leave_unread_at_exit(others.take)

    def _make_transport(self, queue: Any, maxsize: int, is_looking: bool) -> Transport:
        is_context = hasattr(queue, "JoinableQueue") and not hasattr(queue, "put")
        if not isinstance(maxsize, int) or maxsize < 0:
            raise ValueError(f"maxsize is {maxsize!r}; expected 0, for no bound, or more")
        if maxsize and not (self.use_queue and (queue is None or is_context)):
            raise ValueError(
                "maxsize is for the default carrier; expected it without use_queue=False, and "
                "without a queue of yours, which has a bound of its own"
            )
        if not self.use_queue and self._directory is not None:
            return JournalOnly(self._directory, self._prefix, self._codec)
        if queue is None or is_context:
            try:
                queue = new_carrier(maxsize, queue)
            except OSError as error:
                if not is_looking:
                    raise
                queue = NoCarrier(error)
        # Asked by name, for that module cannot be imported on every platform.
        if type(queue).__module__ == "persistq._carrier.carrier":
            from persistq._queue.own_queue import OwnQueue

            return OwnQueue(queue, self._codec.is_plain(), self._directory is not None)
        return UserQueue(queue, self._codec)

    return_same: staticmethod[[Any], Any] = staticmethod(return_same)

    def _start(self) -> None:
        """Set up what each copy, in whichever process, has of its own."""
        membership, prefix, fsync = self._membership, self._prefix, self._fsync
        transport, codec = self._transport, self._codec
        records = self._record_started and self.use_queue
        self._failing: Failing | None = None
        self._looking: Looking | None = None
        if membership is not None:
            self._failing = Failing(transport, codec, membership, fsync, self._max_attempts)
        self._consumer = Consumer(
            transport, codec, membership, prefix, fsync, records, self._failing
        )
        self._desertion = Desertion(membership, self._consumer)
        self._producer = Producer(
            transport,
            codec,
            membership,
            prefix,
            fsync,
            self._consumer,
            self._desertion,
        )
        self._requeueing = Requeueing(
            self._producer,
            transport,
            codec,
            membership,
            prefix,
            self._carried,
            self._failing,
        )
        self._joiner: Joiner | None = None
        if transport.reports_back and membership is not None:
            assert self._failing is not None
            assert self._consumer.completed is not None
            self._producer.reports = Reports(
                transport, codec, membership, self._consumer.completed, self._failing
            )
        self._leaving: Leaving | None = None
        if membership is not None and self._failing is not None:
            if self.use_queue:
                failing = self._failing if records else None
                self._joiner = Joiner(
                    transport, codec, membership, failing, self._desertion, prefix
                )
            self._leaving = Leaving(
                self, membership, transport, self._consumer, self._producer, self._failing
            )
            membership.facts = _Facts(transport)
            # Weakly, or the two would be garbage that only a collection finds, files and all.
            membership.on_join = _Weakly(self._leaving.prepare)
            if membership.is_in:
                self._leaving.prepare()

    @property
    def _prefix(self) -> str:
        return UNLABELED_PREFIX if self.pickup_file_prefix is None else self.pickup_file_prefix

    @property
    def number_of_workers(self) -> int:
        """int: How many workers take messages off the queue; to be set before `close`."""
        return self._number_of_workers

    @number_of_workers.setter
    def number_of_workers(self, number: int) -> None:
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"number_of_workers is {number!r}; expected 0 or more")
        self._number_of_workers = number
        self._transport.number_of_workers = number

    @property
    def joinable_queue(self) -> Any:
        """Any: The carrier of the messages."""
        return self._transport.carrier

    @property
    def put_file(self) -> io.FileIO | None:
        """io.FileIO | None: The open file that records work put; None without a directory."""
        requested = self._producer.requested
        return requested.open() if requested is not None else None

    @property
    def done_file(self) -> io.FileIO | None:
        """io.FileIO | None: The open file that records work done; None without a directory."""
        completed = self._consumer.completed
        return completed.open() if completed is not None else None

    def put(
        self, obj: Message | Sentinel, block: bool = True, timeout: float | None = None
    ) -> None:
        """Record a message and put it on the queue.

        The record is with the operating system before a worker can see the message.

        Args:
            obj (Message | Sentinel): A `str`, a tuple or list of fields, or anything that JSON or
                the formatters can write. What travels is the message as it is now.
            block (bool): Whether to wait for a free slot where the carrier is bounded.
            timeout (float | None): Seconds to wait for it; None waits for ever.

        Raises:
            queue.Full: There is no free slot (in time). The record is withdrawn.
            TypeError: The message cannot be journalled, or cannot be sent to another process.
            ValueError: The queue is closed.
            OSError: The record cannot be written. Nothing is queued.
        """
        self._producer.put(obj, block, timeout)

    def put_nowait(self, obj: Message | Sentinel) -> None:
        """Do the same as `put(obj, False)`.

        Args:
            obj (Message | Sentinel): The message.

        Raises:
            queue.Full: There is no free slot.
        """
        self.put(obj, False)

    def put_many(
        self, iterable: Iterable[Message], block: bool = True, timeout: float | None = None
    ) -> None:
        """Put messages, and record them all with one write (and one sync).

        Args:
            iterable (Iterable[Message]): The messages.
            block (bool): As for `put`.
            timeout (float | None): Seconds to wait for slots: for all of them on the default
                carrier, for each on a queue of yours.

        Raises:
            queue.Full: There is no free slot (in time). The records of the messages that are not
                on the queue are withdrawn; those before them stay on it.
            TypeError: A message cannot be journalled or sent; none of them is recorded or queued.
            ValueError: The queue is closed.
            OSError: The records cannot be written. Nothing is queued.
        """
        self._producer.put_many(iterable, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Message | Sentinel:
        """Take a message off the queue.

        Args:
            block (bool): Whether to wait for one.
            timeout (float | None): Seconds to wait; None waits for ever. (The folder queues
                count in milliseconds.)

        Returns:
            Message | Sentinel: A message; `DONE` when there is no more work for this worker;
            `FAILED` when a producer has failed.

        Raises:
            queue.Empty: There is no message (in time).
        """
        return self._consumer.get(block, timeout)  # type: ignore[no-any-return]

    def get_nowait(self) -> Message | Sentinel:
        """Do the same as `get(False)`.

        Returns:
            Message | Sentinel: A message, `DONE` or `FAILED`.

        Raises:
            queue.Empty: There is no message.
        """
        return self.get(False)

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until `DONE`, then dispose of the queue.

        Yields:
            Message: A message, for which the caller calls `task_done`.

        Raises:
            UpstreamFailureError: A producer failed.
        """
        while True:
            try:
                message = next(self)
            except StopIteration:
                return
            yield message

    def __next__(self) -> Message:
        """Return the next message; at `DONE` dispose of the queue, and stop.

        Returns:
            Message: A message, for which the caller calls `task_done`.

        Raises:
            StopIteration: There is no more work.
            UpstreamFailureError: A producer failed.
        """
        message = self.get()
        if message is DONE:
            self.dispose()
            raise StopIteration
        if message is FAILED:
            self.dispose()
            raise UpstreamFailureError(
                f"queue {self._prefix!r}: a producer called fail(), or died, so there will be no "
                "more work. Mend the cause and start again: what was not completed is outstanding."
            )
        return message

    def task_done(self, obj: Message | Sentinel) -> None:
        """Record that a message's work is done, and tell the queue.

        Args:
            obj (Message | Sentinel): The message that `get` returned. `DONE` and `FAILED` are
                ignored.

        Raises:
            ValueError: Called more often than there were messages. No record stays.
            OSError: The record cannot be written. The queue is not told, so call again.
        """
        self._consumer.task_done(obj)

    def task_done_many(self, iterable: Iterable[Message | Sentinel]) -> None:
        """Record that several messages' work is done, with one write (and one sync).

        Args:
            iterable (Iterable[Message | Sentinel]): The messages that `get` returned.

        Raises:
            ValueError: More than there were messages. No record stays of those that are too many.
            OSError: The records cannot be written. The queue is not told, so call again.
        """
        self._consumer.task_done_many(iterable)

    def get_list_of_outstanding_work(self) -> list[Message]:
        """Return the work that was not completed when this queue was created.

        Returns:
            list[Message]: Messages, in the order in which they were requested.

        Raises:
            JournalError: A journal line cannot be turned back into a message.
            OSError: A journal cannot be read.
        """
        return self._carried.look().messages(self._codec)

    def requeue_unprocessed_work(
        self, skip_unreadable: bool = False, *, pass_over: bool = True
    ) -> int:
        """Put the previous run's outstanding work on the queue, in its order.

        Once, however often it is called, and by one only of the queue's copies in several
        processes. From then on `put` passes over messages equal to these, as long as they are not
        completed, so a restart script may put all of its inputs anew. Before or after the workers
        start; where the carrier is bounded, after, since it waits for room.

        Args:
            skip_unreadable (bool): Whether lines that cannot be turned back into a message are set
                aside (`get_list_of_failed_work`), and the rest is put.
            pass_over (bool): False: `put` passes over nothing, for the caller knows what it puts.

        Returns:
            int: How many messages this call has put on the queue.

        Raises:
            ValueError: The queue is closed, and there is work. It stays outstanding.
            PreviousRunActiveError: Without a current directory: the run before is still alive.
            JournalError: A journal line cannot be turned back into a message. Nothing is queued.
            OSError: A journal cannot be read or renamed. Nothing is queued.
        """
        if self._carried.looked_at is not None:
            wait_until_over(self._carried.looked_at, self._prefix)
        return self._requeueing.requeue(skip_unreadable, pass_over)

    # --- work that fails ------------------------------------------------------------------

    def task_failed(self, obj: Message | Sentinel, reason: str | BaseException = "") -> None:
        """Set a message aside, and go on: it is neither done nor requeued until somebody decides.

        Args:
            obj (Message | Sentinel): The message that `get` returned.
            reason (str | BaseException): Why. Of an exception, its type, its message and its last
                place in your code are kept.

        Raises:
            ValueError: There was no such message, as for `task_done`; or there is no directory, so
                that nothing would remember it.
            OSError: The record cannot be written. The queue is not told, so call again.
        """
        if not self._transport.reports_back:
            self._with_journal("task_failed()")
        self._consumer.task_failed(obj, reason)

    def attempt(self, obj: Message) -> Attempt:
        """Return a block in which a message's work is tried.

        At its end the message is done. Where it raises an `Exception` that is logged, and the
        message set aside with it; the loop around it goes on. `KeyboardInterrupt` and
        `SystemExit` pass through, and the message stays outstanding.

        Args:
            obj (Message): The message that `get` returned.

        Returns:
            Attempt: A context manager; its `failed` tells whether the block has raised.
        """
        return Attempt(self, obj)

    def work(self, function: Callable[[Message], object]) -> int:
        """Do all the work: call a function with each message, and set aside what raises.

        Args:
            function ((message) -> object): Does the work of one message.

        Returns:
            int: How many messages were done.

        Raises:
            UpstreamFailureError: A producer failed.
        """
        done = 0
        for message in self:
            with self.attempt(message) as attempt:
                function(message)
            done += not attempt.failed
        return done

    def task_lost(self, obj: Message, how: str = "") -> bool:
        """Say that an attempt at a message has ended with who made it: a worker of an engine, say.

        For who hands out messages that it has taken itself. It counts like the death of a process
        that had the message in hand, also for later runs. At `max_attempts` it is set aside.

        Args:
            obj (Message): The message that `get` returned.
            how (str): What has ended the attempt, for the reason.

        Returns:
            bool: Whether it is to be tried again: it is still in hand here. False where it has
            been set aside.

        Raises:
            ValueError: There is no directory, so that nothing would remember it.
            OSError: The record cannot be written. Call again.
        """
        self._with_journal("task_lost()")
        return self._consumer.task_lost(obj, how)

    def get_list_of_failed_work(self) -> list[FailedWork[Message]]:
        """Return what is set aside, in this run or an earlier one, and not decided.

        Returns:
            list[FailedWork[Message]]: In the order in which it was set aside; empty without a
            directory.

        Raises:
            OSError: A journal cannot be read.
        """
        return self._failing.list_work() if self._failing is not None else []

    def requeue_failed_work(
        self, messages: Iterable[Message | FailedWork[Message]] | None = None
    ) -> int:
        """Put what is set aside on the queue again, its attempts from 0 on.

        Args:
            messages (Iterable[Message | FailedWork[Message]] | None): Which; None for all.

        Returns:
            int: How many were put.

        Raises:
            ValueError: The queue is closed, or keeps no journal.
            JournalError: One cannot be turned back into a message. Those before it are put.
            OSError: A record cannot be written. What is not put is still set aside.
        """
        self._with_journal("requeue_failed_work()")
        return self._requeueing.requeue_failed(messages)

    def discard_failed_work(
        self, messages: Iterable[Message | FailedWork[Message]] | None = None
    ) -> int:
        """Give up what is set aside: nobody is asked about it again.

        Args:
            messages (Iterable[Message | FailedWork[Message]] | None): Which; None for all.

        Returns:
            int: How many were given up.

        Raises:
            ValueError: The queue keeps no journal.
            OSError: The record cannot be written. They are still set aside.
        """
        failing = self._with_journal("discard_failed_work()")
        records = failing.choose(messages)
        failing.decide(records, begin_anew=False)
        return len(records)

    def _with_journal(self, what: str) -> Failing:
        if self._failing is None:
            raise ValueError(
                f"{what} needs current_pickup_dir: without a journal, nothing would remember it"
            )
        return self._failing

    # --- the end --------------------------------------------------------------------------

    def mark_all_work_done(self) -> None:
        """Call `task_done` for all messages that are left in the queue.

        For work that is done as a logical whole: take the messages, do the work, and if it
        succeeds mark all of it. `DONE`s and `FAILED`s stay on the queue.

        Raises:
            OSError: A record cannot be written. The messages behind it stay on the queue.
        """
        self._consumer.mark_all_done()

    def close(self) -> None:
        """Put `DONE` for each worker: this producer will put no more. A second call does nothing.

        Raises:
            Exception: What the carrier raises; then call again, for those that are missing.
        """
        self._producer.finish(DONE)

    def fail(self) -> None:
        """Put `FAILED` for each worker: this producer has failed. Does nothing after `close`.

        Raises:
            Exception: What the carrier raises; then call again, for those that are missing.
        """
        self._producer.finish(FAILED)

    def dispose(self, *, give_up: bool = False) -> None:
        """As a consumer, stop using the queue, and close the file that records completed work.

        A later `task_done` opens it again.

        Args:
            give_up (bool): Whether what is in hand is given up although other threads of this
                process live, any of which might still complete it.
        """
        if self._leaving is not None:
            self._leaving.dispose(give_up)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all messages are done.

        Args:
            timeout (float | None): Seconds to wait; None waits for ever. With `use_queue=False`
                nobody else does the work, so it looks and does not wait.

        Returns:
            bool: Whether all is done.

        Raises:
            PersistqError: The carrier has no `join`. Without a timeout also: messages are left,
                and every worker has ended or died; it says what is left, and why.
        """
        if self._producer.reports is not None:
            return self._producer.reports.join(timeout)
        if self._joiner is None:
            return self._transport.join(timeout)
        return self._joiner.join(lambda: self._producer.is_closed, timeout)

    def progress(self) -> Progress:
        """Tell how far the whole run is, by its journals: cheap enough for once a second.

        What was read is not read again, so the first call takes longest.

        Returns:
            Progress: Numbers, out of date as soon as they are known.

        Raises:
            ValueError: The queue keeps no journal.
            OSError: A journal cannot be read.
        """
        self._with_journal("progress()")
        if self._looking is None:
            self._looking = Looking(self._membership)  # type: ignore[arg-type]
        return self._looking.look()

    def qsize(self) -> int:
        """Return about how many messages, `DONE`s and `FAILED`s wait on the queue.

        Returns:
            int: The number, out of date as soon as it is known.

        Raises:
            NotImplementedError: The carrier cannot tell (a multiprocessing queue on macOS).
        """
        return self._transport.qsize()

    def empty(self) -> bool:
        """Tell whether nothing waits on the queue just now.

        Returns:
            bool: True if so.
        """
        return self._transport.empty()

    def full(self) -> bool:
        """Tell whether a `put` would have to wait just now.

        Returns:
            bool: True if so; False for a carrier that is not bounded.
        """
        return self._transport.full()

    def __enter__(self) -> PersistentQueue[Message]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close the queue, or fail it if the block has raised an exception."""
        if kind is None:
            self.close()
        else:
            self.fail()

    def __repr__(self) -> str:
        return f"<PersistentQueue {self._prefix!r} in {self._directory!r}>"

    def __getstate__(self) -> dict[str, Any]:
        for name in ("formatter_list", "converter_list"):
            for position, function in enumerate(getattr(self, name)):
                if "<" in getattr(function, "__qualname__", ""):
                    raise TypeError(
                        f"{name}[{position}] is {function.__qualname__}, which cannot be sent to "
                        "another process; expected a function defined at the top of a module"
                    )
        own = {
            "__orig_class__",  # of PersistentQueue[...](...), if anybody could send it
            "_producer",
            "_requeueing",
            "_consumer",
            "_joiner",
            "_failing",
            "_desertion",
            "_leaving",
            "_looking",
        }
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return {**state, "is_closed": self._producer.is_closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_closed = state.pop("is_closed")
        self.__dict__.update(state)
        self._start()
        self._producer.is_closed = is_closed
        if self._membership is not None:
            self._membership.join()


class _Weakly:
    """Calls a method as long as its object lives."""

    def __init__(self, method: Callable[[], object]) -> None:
        self._method = weakref.WeakMethod(method)

    def __call__(self) -> None:
        method = self._method()
        if method is not None:
            method()


class _Facts:
    """What the leases of a queue's copies say besides."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __call__(self) -> dict[str, Any]:
        return {"token": self._transport.token()}


def _directory(path: str | os.PathLike[str] | None) -> str | None:
    # Absolute: a worker process may change its working directory.
    return None if path is None else os.path.abspath(os.fspath(path))
