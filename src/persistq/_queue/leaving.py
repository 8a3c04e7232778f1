"""How a copy of a queue ends: what it owes, and who is told.

A copy that ends owing nothing removes its lease. One that has a message in hand, or is a producer
that never closed, leaves it, free: for the living it has died, and they see to what it owes.
"""

from __future__ import annotations

import logging
import sys
import weakref
from multiprocessing import util

from persistq._journal.names import COPY, MAIN, PRODUCER, WORKER
from persistq._journal.run_state import RunState
from persistq._queue import orphans
from persistq._sentinels import FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._journal.members import Membership
    from persistq._queue.consumer import Consumer
    from persistq._queue.failing import Failing
    from persistq._queue.producer import Producer
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")


class Leaving:
    """The end of one copy of a queue.

    Args:
        queue (object): The copy; it ends with it, or with its process.
        membership (Membership): Its part in the run.
        transport (Transport): What carries the messages.
        consumer (Consumer): Its side that takes.
        producer (Producer): Its side that puts.
        failing (Failing): What sets messages aside.
    """

    def __init__(
        self,
        queue: object,
        membership: Membership,
        transport: Transport,
        consumer: Consumer,
        producer: Producer,
        failing: Failing,
    ) -> None:
        self._queue = weakref.ref(queue)
        self._membership = membership
        self._transport = transport
        self._consumer = consumer
        self._producer = producer
        self._failing = failing
        self._exit_status = 0

    def prepare(self) -> None:
        """See to it that this copy leaves when it ends, or its process does."""
        queue = self._queue()
        # Before this process joins its children (0): they may wait for the end. And behind that,
        # and behind the moment (-5) at which all that was put is in the pipe.
        util.Finalize(queue, self._fail_unclosed, exitpriority=10)
        util.Finalize(queue, self.leave, exitpriority=-20)
        orphans.on_exit_status(self._note_exit_status)

    def _note_exit_status(self, status: int) -> None:
        self._exit_status = status

    def _fail_unclosed(self) -> None:
        """At the main process's end: let nobody wait behind its traceback for ever."""
        if not util.is_exiting() or self._membership.role != MAIN:
            return
        try:
            try:
                if self._producer.is_closed or not self._is_to_close():
                    return
            except OSError:
                pass  # no more descriptors, say: then rather tell somebody too much
            logger.error(
                "queue %r: this process ends without close(), so its workers are told FAILED",
                self._membership.names.prefix,
            )
            self._producer.finish(FAILED, block=False)
        except Exception as error:  # a carrier of the user's raises what it will
            logger.warning("cannot tell the workers that this process ends: %s", error)

    def _is_to_close(self) -> bool:
        state = RunState(self._membership.directory, self._membership.names.prefix)
        roles = [member.name.role for member in state.living()]
        if not roles and not orphans.living_children():
            return False  # nobody waits
        if self._producer.has_put or getattr(sys, "last_value", None) is not None:
            return True
        if self._transport.number_of_producers > 1 or self._transport.has_ended():
            return False  # others put, and close
        return bool(roles) and all(role == WORKER for role in roles)

    def leave(self) -> None:
        """End this copy's part in the run."""
        self._leave()
        # Not left to the collector of garbage, which warns of files.
        self._producer.close_files()
        self._consumer.close_files()
        self._failing.close()

    def _leave(self) -> None:
        membership = self._membership
        if not membership.is_in:
            return
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit) and not error.code:
            error = None
        owes = self._consumer.has_work
        if membership.role == PRODUCER and not self._producer.is_closed:
            has_failed = error is not None or self._exit_status != 0
            owes = owes or has_failed or self._transport.number_of_producers > 1
        why = f"exit status {self._exit_status}" if self._exit_status else ""
        if error is not None:
            why = f"{type(error).__name__}: {error}"
        self._consumer.forget_started()
        membership.leave(owes, why=why.replace("\n", " ")[:500])

    def dispose(self, give_up: bool = False) -> None:
        """As a consumer, give up what is in hand, and leave where this copy does nothing else."""
        if not self._consumer.dispose(give_up):
            return
        self._failing.close()
        had_work = self._consumer.give_up()
        if self._membership.role in (WORKER, COPY):
            self._membership.leave(owes=False, gives_up=had_work)
