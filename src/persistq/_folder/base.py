"""What all folder queues share: where they are, what their files are called, how they travel."""

from __future__ import annotations

import os
import threading

from persistq import _fs
from persistq._folder import identity, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_process_lock = threading.Lock()


# Raised by each fork: quicker to ask than the process's id is.
generation = [0]


def _renew_lock() -> None:
    # A thread of the parent may have held it during the fork; nobody would release it here.
    global _process_lock
    _process_lock = threading.Lock()
    generation[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def same_name(filename: str) -> str:
    """Give the file name back: the default of all functions that a queue applies to names."""
    return filename


def sorting_value(function: Callable[[str], Any], filename: str) -> Any:
    """Apply a sorting function, of which an exception and None count as an empty string."""
    try:
        value = function(filename)
    except Exception:
        return ""
    return "" if value is None else value


class _FolderQueue:
    """Base of the queues whose messages are files in a folder.

    Args:
        path (str | os.PathLike[str]): The queue's folder; made if missing. A relative one is
            taken from the current folder of the moment, once.
        message_extension (str): Files with this extension are messages; with or without its dot.
        task_done_directory (str | os.PathLike[str] | None): Where finished files go; made if
            missing. None: they are removed.
        sorting_function ((filename: str) -> str): Gives what a file is sorted by.
        ignore_case (bool): Whether `A.TSV` is a message where the extension is `.tsv`.
        sync (bool): Whether folders that are made are on stable storage when this returns.

    Attributes:
        path (str): The folder, absolute.
        message_extension (str): Without its leading dot.
        ignore_case (bool): As given.
        task_done_directory (str | None): Absolute.

    Raises:
        ValueError: The extension can be no message's, or finished files would be messages again.
        OSError: A folder cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        sorting_function: Callable[[str], Any] = same_name,
        *,
        ignore_case: bool = False,
        sync: bool = False,
    ) -> None:
        self._extension = names.dotted(message_extension)
        if not callable(sorting_function):
            raise TypeError(f"sorting_function is {sorting_function!r}; expected a function")
        self._sorting_function = sorting_function
        self.message_extension: str = self._extension[1:]
        self.path: str = os.path.abspath(os.fsdecode(path))
        self.ignore_case: bool = bool(ignore_case)
        if sync:
            _fs.make_folders(self.path)
        elif not os.path.isdir(self.path):  # mostly it is there, and to ask is quicker
            os.makedirs(self.path, exist_ok=True)
        self.task_done_directory: str | None = self._other_folder(
            "task_done_directory", task_done_directory
        )
        self._start_here()

    def _other_folder(self, name: str, path: str | os.PathLike[str] | None) -> str | None:
        """Make a folder for what leaves the queue.

        Raises:
            ValueError: It is the queue's own.
        """
        if path is None:
            return None
        folder = os.path.abspath(os.fsdecode(path))
        os.makedirs(folder, exist_ok=True)
        if os.path.samefile(self.path, folder):
            raise ValueError(
                f"{name} is the queue's own folder {self.path}: its files would be put on the "
                "queue again. Choose another one."
            )
        return folder

    def _start_here(self) -> None:
        """Set up what belongs to one process: at creation, after a fork, after unpickling."""
        self._generation = generation[0]
        self._member = self._find_member()
        # One for all queues of this process in the folder: they claim by the same names.
        self._lock, self._come = self._member.lock, self._member.turn.come
        self._prefix = self._member.prefix

    # What the lease says that this process is, where it is the first to need one here.
    _role = "consumer"

    def _find_member(self) -> identity.Claimer:
        """Give the number by which this process takes part."""
        return identity.member(self.path, self._extension, self.ignore_case, self._role)

    def _staged(self, folder: str) -> str:
        """Give the path of a new temporary file, whose owner can be told."""
        self._own()
        return self._member.staged(folder)

    def _own(self) -> None:
        """Make sure that what belongs to one process belongs to this one."""
        if self._generation != generation[0]:
            with _process_lock:
                if self._generation != generation[0]:
                    self._start_here()

    def _functions(self) -> dict[str, Callable[..., Any]]:
        """Give the user's functions by the names of their parameters."""
        return {"sorting_function": self._sorting_function}

    def _settings(self) -> dict[str, Any]:
        """Give what a copy in another process is made from."""
        return {
            "path": self.path,
            "message_extension": self.message_extension,
            "task_done_directory": self.task_done_directory,
            "ignore_case": self.ignore_case,
            "_extension": self._extension,
            "_sorting_function": self._sorting_function,
        }

    def __getstate__(self) -> dict[str, Any]:
        import pickle

        for name, function in self._functions().items():
            try:
                pickle.dumps(function)
            except Exception as error:
                raise pickle.PicklingError(
                    f"{name} {function!r} cannot be sent to another process; expected a function "
                    "that is defined with def at the top of a module, not a lambda nor one inside "
                    f"another function ({error})"
                ) from error
        return self._settings()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_here()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self._extension!r})"

    def sorting_function(self, filename: str) -> Any:
        """Apply this queue's sorting function to a file name.

        Args:
            filename (str): A file name, without its folder.

        Returns:
            Any: What the file is sorted by: mostly a str. Numbers come before strings, by value;
            a function that raises or returns None gives `""`.
        """
        return sorting_value(self._sorting_function, filename)

    def wip_filename(self, msg: str | os.PathLike[str]) -> str:
        """Give the path that a message has while this process works on it.

        Args:
            msg (str | os.PathLike[str]): File name or path of the message.

        Raises:
            ValueError: No message of this queue has such a name.
        """
        name = os.path.basename(os.fsdecode(msg))
        self._check_name(name)
        self._own()
        return os.path.join(self.path, names.wip_name(name, self._extension, self._member.prefix))

    def original_filename_from_wip(self, msg: str | os.PathLike[str]) -> str:
        """Give the path that a claimed file had before, whichever process claimed it.

        Args:
            msg (str | os.PathLike[str]): File name or path of the claimed file.

        Raises:
            ValueError: That is not the name of a claimed file.
        """
        name = os.path.basename(os.fsdecode(msg))
        parts = names.parse_wip(name)
        if parts is None:
            raise ValueError(
                f"{name!r} is not the name of a claimed file; expected one like "
                f"{self._member.prefix}name.wip, as get() returns it"
            )
        original = names.original_name(parts[2], self._extension, self.ignore_case)
        return os.path.join(self.path, original)

    def _check_name(self, name: str) -> None:
        bad = not names.is_message(name, self._extension, self.ignore_case) or "\0" in name
        if bad or (self.ignore_case and names.is_ambiguous(name, self._extension)):
            raise ValueError(
                f"{name!r} cannot be a message of this queue: expected a file name that ends with "
                f"{self._extension!r} and does not start with a dot. Rename the file, or choose "
                "another message_extension."
            )

    def dispose(self) -> None:
        """Stop using the queue, as a consumer. It can be used again."""
        self._own()
        self._member.let_go()
