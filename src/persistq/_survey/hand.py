"""What one process has in hand, and whether it lives."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALIVE, DEAD, ELSEWHERE = "alive", "dead", "elsewhere"
# So many messages of each process are named.
SHOWN = 100
# What changes during a look has it repeated so often.
TRIES = 20


class InHand:
    """What one process is working on, or was when it died.

    Attributes:
        pid (int): Its process id.
        host (str): Its host: a name, or ten digits where no lease tells; empty for a journal.
        state (str): ALIVE, DEAD, or ELSEWHERE: on a host that cannot be asked.
        count (int): How many messages it has in hand.
        since_s (float): When it took the last one (journals) or the first one (folders), in
            seconds since the epoch.
        messages (list[bytes]): The first of them: journal lines, or names of claimed files.
    """

    def __init__(
        self, pid: int, host: str, state: str, count: int, since_s: float, messages: list[bytes]
    ) -> None:
        self.pid = pid
        self.host = host
        self.state = state
        self.count = count
        self.since_s = since_s
        self.messages = messages

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            **vars(self),
            "messages": [m.decode("utf-8", "surrogateescape") for m in self.messages],
        }
