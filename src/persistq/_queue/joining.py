"""Wait until all work is done, though workers may die while it waits.

The carrier counts what is not acknowledged, and a death can leave that count too high for ever: of
a worker killed between taking a message and recording it, or between recording that it is done
and saying so. So once somebody has died, the journals are asked.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from queue import Full

from persistq import _fs
from persistq._journal.recovery import Casualties
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from persistq._journal.codec import Codec
    from persistq._journal.files import RunFiles
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

_LOOK_S = 0.5
# A look that reads long journals takes at most this part of the time.
_PART = 0.1
# A supervisor has this long to replace workers, before they are taken to be gone for good.
_REPLACEMENT_S = 10.0


class Joiner:
    """What waits until the work of one copy of a queue is done.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns journal lines into messages.
        directory (str): Directory of the journals.
        prefix (str): The queue's prefix.
        files (() -> RunFiles): The files of this run.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        directory: str,
        prefix: str,
        files: Callable[[], RunFiles],
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._directory = directory
        self._prefix = prefix
        self._files = files
        self._lost: Counter[bytes] = Counter()  # what the last look missed
        self._to_put_back: deque[bytes] = deque()  # what the queue has had no room for
        self._given_up: Counter[bytes] = Counter()  # what cannot be put on the queue at all
        self._next_look_s = 0.0
        self._deserted_since_s: float | None = None

    def join(self, is_closed: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until all messages are done; what dead workers had in hand goes to the living.

        It is put back on the queue, unless this producer has closed it: then the workers
        themselves see to it, each before its `DONE`.

        Args:
            is_closed (() -> bool): Whether the `DONE`s are on the queue.
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether all is done.

        Raises:
            PersistqError: The queue is closed, workers died with work in hand, and for ten
                seconds no worker is alive to do it. Never with a timeout.
        """
        deadline_s = None if timeout is None else time.monotonic() + timeout
        self._deserted_since_s = None
        while True:
            left_s = _LOOK_S if deadline_s is None else max(deadline_s - time.monotonic(), 0)
            if self._transport.join(min(left_s, _LOOK_S)):
                return True
            if time.monotonic() >= self._next_look_s:
                if self._look(is_closed()):
                    return True
                if deadline_s is None:
                    self._check_deserted()
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return False

    def _check_deserted(self) -> None:
        since_s = self._deserted_since_s
        if since_s is not None and time.monotonic() - since_s > _REPLACEMENT_S:
            raise PersistqError(
                f"queue {self._prefix!r}: workers died with work in hand, and none is alive to do "
                "it. Start the job again: what was not completed is outstanding."
            )

    def _look(self, is_closed: bool) -> bool:
        """See to the dead; return whether all is done."""
        started_s = time.monotonic()
        try:
            with _fs.folder_lock(self._directory):
                casualties = Casualties(self._directory, self._prefix, self._files)
                if is_closed:
                    self._to_put_back.clear()  # the workers find it outstanding, and in no hand
                if casualties.lines and not is_closed:
                    self._to_put_back += casualties.lines
                    # First back on the queue: killed between the two, it is done twice in this
                    # run. Of what has no room yet, only this process knows; should it be killed,
                    # it is outstanding for the next run.
                    self._put_back()
                    casualties.put_aside()
                elif self._to_put_back:
                    self._put_back()
                elif casualties.has_deaths and (is_closed or self._is_empty()):
                    return self._ask_the_journals(casualties, is_closed)
        except OSError as error:
            logger.warning("cannot look for workers that died: %s", error)
        else:
            self._deserted_since_s = None
        finally:
            now_s = time.monotonic()
            self._next_look_s = now_s + max(_LOOK_S, (now_s - started_s) / _PART)
        return False

    def _is_empty(self) -> bool:
        try:
            return self._transport.empty()
        except NotImplementedError:
            return False

    def _ask_the_journals(self, casualties: Casualties, is_closed: bool) -> bool:
        left = casualties.lost_on_the_way() - self._given_up
        if not left and not casualties.in_hand():
            return True
        if is_closed:
            if casualties.has_living:
                self._deserted_since_s = None
            elif self._deserted_since_s is None:
                self._deserted_since_s = time.monotonic()
            return False
        # A message may be on its way from another process that is just putting it, or taking it:
        # what is missed at two looks is not.
        lost, self._lost = left & self._lost, left
        if lost:
            self._lost -= lost
            self._to_put_back += lost.elements()
            self._put_back()
        return False

    def _put_back(self) -> None:
        """Put messages on the queue again, as far as there is room."""
        waiting, count = self._to_put_back, 0
        while waiting:
            line = waiting[0]
            try:
                payload = self._transport.pack(self._codec.decode(line), line)
                self._transport.put(payload, False)
                count += 1
            except Full:
                break
            except OSError as error:
                logger.warning("a message of a dead worker cannot be put back yet: %s", error)
                break
            except Exception as error:
                logger.error("%r, of a dead worker, is left outstanding: %s", line, error)
                self._given_up[line] += 1
            waiting.popleft()
            # For the time that the dead worker took it.
            self._transport.task_done()
        if count:
            logger.warning(
                "queue %r: %d messages of workers that died are back on the queue",
                self._prefix,
                count,
            )
