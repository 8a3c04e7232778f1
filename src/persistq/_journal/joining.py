"""Wait until all work is done, though workers may die while it waits."""

from __future__ import annotations

import logging
import time
from queue import Full

from persistq import _fs
from persistq._journal.recovery import Casualties
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from persistq._journal.codec import Codec
    from persistq._journal.transport import Transport

logger = logging.getLogger("persistq")

_LOOK_S = 0.5
# A supervisor has this long to replace workers, before they are taken to be gone for good.
_REPLACEMENT_S = 10.0


def join(
    transport: Transport,
    codec: Codec,
    directory: str,
    prefix: str,
    is_closed: Callable[[], bool],
    timeout: float | None,
) -> bool:
    """Wait until all messages are done; what dead workers had in hand goes to the living.

    It is put back on the queue, unless this producer has closed it: then the workers themselves
    see to it, each before its `DONE`.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns journal lines into messages.
        directory (str): Directory of the journals.
        prefix (str): The queue's prefix.
        is_closed (() -> bool): Whether the `DONE`s are on the queue.
        timeout (float | None): Seconds to wait; None waits for ever.

    Returns:
        bool: Whether all is done.

    Raises:
        PersistqError: The queue is closed, workers died with work in hand, and for ten seconds no
            worker is alive to do it. Never with a timeout.
    """
    deadline_s = None if timeout is None else time.monotonic() + timeout
    deserted_since_s: float | None = None
    while True:
        left_s = _LOOK_S if deadline_s is None else max(deadline_s - time.monotonic(), 0)
        if transport.join(min(left_s, _LOOK_S)):
            return True
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return False
        try:
            is_deserted = _look(transport, codec, directory, prefix, is_closed())
        except OSError as error:
            logger.warning("cannot look for workers that died: %s", error)
            continue
        if not is_deserted or deadline_s is not None:
            deserted_since_s = None
        elif deserted_since_s is None:
            deserted_since_s = time.monotonic()
        elif time.monotonic() - deserted_since_s > _REPLACEMENT_S:
            raise PersistqError(
                f"queue {prefix!r}: workers died with work in hand, and none is alive to do it. "
                "Start the job again: what was not completed is outstanding."
            )


def _look(transport: Transport, codec: Codec, directory: str, prefix: str, is_closed: bool) -> bool:
    """Hand work of the dead to the living; return whether there is such work, and no living."""
    with _fs.folder_lock(directory):
        casualties = Casualties(directory, prefix)
        if is_closed or not casualties.lines:
            return is_closed and bool(casualties) and not casualties.has_living
        # First back on the queue: killed between the two, it is done twice in this run.
        for line in casualties.lines:
            try:
                transport.put(transport.pack(codec.decode(line), line), False)
            except Full:
                return False  # once there is room; what is on the queue by now is done twice
            except Exception as error:
                logger.error("%r, of a dead worker, is left outstanding: %s", line, error)
            # For the time that the dead worker took it.
            transport.task_done()
        casualties.put_aside()
        logger.warning(
            "queue %r: %d messages of workers that died are back on the queue",
            prefix,
            len(casualties.lines),
        )
    return False
