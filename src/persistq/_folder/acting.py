"""How one process takes part in a folder queue for another: a command for the shell that calls it.

Each command is a process of its own and soon gone. What it claims must not look abandoned then,
and what it announces must be one producer from the first `put` to `close`. So the claims bear the
id of the process that calls, and the producer's uuid is made from that process's id and start.
"""

from __future__ import annotations

import os

from persistq import _fs
from persistq._folder import control, names
from persistq._folder.readable import ReadableFolderQueue
from persistq._folder.watch import Watch
from persistq._folder.writable import WritableFolderQueue


class Actor:
    """A living process of this machine, for which another acts.

    Args:
        pid (int): Its id.

    Attributes:
        pid (int): Its id.
        start_s (float): Since when it lives, in seconds since the epoch.

    Raises:
        ProcessLookupError: No such process lives.
    """

    def __init__(self, pid: int) -> None:
        start_s, key = _fs.process_start_s(pid), _fs.process_key(pid)
        if start_s is None or key is None:
            raise ProcessLookupError(
                f"no process {pid} lives on this machine; expected the id of the process that "
                "takes part in the queue"
            )
        self.pid = pid
        self.start_s = start_s
        self._key = key

    def lives(self) -> bool:
        """Tell whether it still lives, and its id is not another's by now."""
        return _fs.process_key(self.pid) == self._key

    def prefix(self) -> str:
        """Give what the names of its claimed files begin with."""
        host = names.host_digits(_fs.machine_fqdn(), _fs.pid_namespace())
        return names.wip_prefix(self.pid, host)

    def uuid(self) -> str:
        """Give the uuid of the producer that it is: the same at each call."""
        import hashlib
        import uuid

        digest = hashlib.sha256(self._key.encode("utf-8", "surrogateescape")).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


class ActingWriter(WritableFolderQueue):
    """A producer whose calls come from several processes, for one that outlives them.

    What earlier calls announced, or closed, is found in the folder.

    Args:
        actor (Actor): The producer.
        path (str): The queue's folder.
        message_extension (str): As for any folder queue.
    """

    def __init__(self, actor: Actor, path: str, message_extension: str) -> None:
        self._actor = actor
        super().__init__(path, message_extension)
        ending = f"_{actor.uuid()}"
        kinds = {
            os.path.splitext(name)[1]
            for name in os.listdir(self.path)
            if control.is_control(name) and os.path.splitext(name)[0].endswith(ending)
        }
        self._closed = bool(kinds & {names.DONE, names.FAILED})
        self._failed = names.FAILED in kinds

    def _announce(self) -> None:
        # Two calls at once may both announce: of one producer, so nobody minds.
        ending = f"_{self._uuid}{names.HELO}"
        if not any(name.endswith(ending) for name in os.listdir(self.path)):
            super()._announce()

    def _process_id(self) -> int:
        return self._actor.pid

    def _process_prefix(self) -> str:
        return self._actor.prefix()

    def _new_uuid(self) -> str:
        return self._actor.uuid()


class ActingReader(ReadableFolderQueue):
    """A consumer whose calls come from several processes, for one that outlives them.

    Args:
        actor (Actor): The consumer.
        path (str): The queue's folder.
        message_extension (str): As for any folder queue.
        task_done_directory (str | None): As for any folder queue.
    """

    def __init__(
        self,
        actor: Actor,
        path: str,
        message_extension: str,
        task_done_directory: str | None = None,
    ) -> None:
        self._actor = actor
        super().__init__(path, message_extension, task_done_directory)

    def _process_id(self) -> int:
        return self._actor.pid

    def _process_prefix(self) -> str:
        return self._actor.prefix()

    def _make_watch(self) -> None:
        super()._make_watch()
        self._watch = Watch(
            self.path, self._extension, self._prefix, self._index, self._actor.start_s
        )
