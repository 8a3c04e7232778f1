"""Which messages are done alone, since they have met deaths that may have been another's.

An engine that loses a worker tells the same of all that this worker had, and a pool that breaks of
all that was in flight. So one message that kills its worker would be set aside with its neighbours.
From its second death on a message is done behind the rest, with nothing else in flight: then a
death is its own. How often a message has met one stands in the run's attempts files, so a restart
knows it, too.
"""

from __future__ import annotations

from persistq._journal import failures
from persistq._journal.carrying import SUSPECT_AT
from persistq._journal.codec import Codec, line_key
from persistq._journal.run_state import RunState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Suspects:
    """Those of one run.

    Args:
        folder (str): The folder of the run.
        prefix (str): The prefix of its journals.

    Raises:
        OSError: A file cannot be read.
    """

    def __init__(self, folder: str, prefix: str) -> None:
        self._encode = Codec().encode
        self._deaths = failures.deaths(RunState(folder, prefix).attempts)

    def have(self, message: Any) -> bool:
        """Tell whether a message is to be done alone.

        Args:
            message (Any): The message.
        """
        if not self._deaths:
            return False
        return self._deaths[line_key(self._encode(message))] >= SUSPECT_AT

    def add_death(self, message: Any) -> None:
        """Note that a message has met another death.

        Args:
            message (Any): The message.
        """
        self._deaths[line_key(self._encode(message))] += 1
