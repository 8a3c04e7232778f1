"""What was completed in earlier runs, also in those whose folders are removed.

Of a run it stands in its journals. When its folder is removed, that is kept as a file of digests,
`root/<prefix>/completed/run_000001.keys`: 15 bytes for each message. On disk, one step after the
other: that file is written under a temporary name, synced, and renamed; the run's folder gets a
name that is no run's; what is in it is deleted. Killed between any two: the file says the same as
the folder, and is asked instead of it; a folder that was renamed is deleted by the next call.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections import Counter

from persistq import _fs
from persistq._journal.codec import WITHDRAWN
from persistq._journal.run_state import RunState
from persistq._journal.tail import Tail
from persistq._run.chain import RUN, run_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("persistq")

_DIGEST_BYTES = 15
# Of at most so many bytes: what is read at a time.
_BLOCK_BYTES = _DIGEST_BYTES * 4096
_REMOVED = ".removed_"


def digest(key: bytes) -> int:
    """Return what stands for a message here: of a billion, no two are likely to share it.

    Args:
        key (bytes): The `line_key` of its journal line.
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=_DIGEST_BYTES).digest(), "big")


class History:
    """The runs of one prefix under one root.

    Args:
        home (str): The folder of all its runs.
        prefix (str): The prefix of the journals.
    """

    def __init__(self, home: str, prefix: str) -> None:
        self._home = home
        self._prefix = prefix
        self._kept = os.path.join(home, "completed")

    def names(self) -> list[str]:
        """Return the names of all runs of which anything is known."""
        found = set(run_names(self._home))
        if os.path.isdir(self._kept):
            stems = (os.path.splitext(name) for name in os.listdir(self._kept))
            found.update(stem for stem, end in stems if end == ".keys" and RUN.fullmatch(stem))
        return sorted(found, key=lambda name: int(name.partition("_")[2]))

    def completed(self, name: str) -> Iterator[int]:
        """Yield the digest of each message that was completed in a run, repeats included.

        Args:
            name (str): The name of the run's folder.

        Raises:
            OSError: A file cannot be read.
        """
        try:
            path = os.path.join(self._kept, f"{name}.keys")
            with open(path, "rb", opener=_fs.open_file) as file:
                while block := file.read(_BLOCK_BYTES):
                    for start in range(0, len(block), _DIGEST_BYTES):
                        yield int.from_bytes(block[start : start + _DIGEST_BYTES], "big")
            return
        except FileNotFoundError:
            pass
        folder = os.path.join(self._home, name)
        if not os.path.isdir(folder):
            logger.warning(
                "%s is gone, and so is what says which messages were completed there: they may be "
                "done again",
                folder,
            )
            return
        withdrawn: Counter[bytes] = Counter()
        paths = RunState(folder, self._prefix).completed
        for path in paths:
            for keys in Tail().read([path]):
                withdrawn.update(k[len(WITHDRAWN) :] for k in keys if k.startswith(WITHDRAWN))
        for path in paths:
            for keys in Tail().read([path]):
                for key in keys:
                    if key.startswith(WITHDRAWN):
                        continue
                    if withdrawn and withdrawn[key] > 0:
                        withdrawn[key] -= 1
                    else:
                        yield digest(key)

    def tidy(self, keep_runs: int, current: str) -> None:
        """Remove the folders of older runs whose work was carried on, but for the last ones.

        Args:
            keep_runs (int): How many of them are kept.
            current (str): The path of the current run's folder.
        """
        try:
            for name in os.listdir(self._home):
                if name.startswith(_REMOVED):
                    shutil.rmtree(os.path.join(self._home, name), ignore_errors=True)
            if os.path.isdir(self._kept):
                for name in os.listdir(self._kept):
                    if name.startswith(".run_"):
                        os.unlink(os.path.join(self._kept, name))  # killed while it was written
            before = [n for n in run_names(self._home) if n != os.path.basename(current)]
            for name in before[: max(len(before) - keep_runs, 0)]:
                self._remove(name)
        except OSError as error:
            # The job can do without; the next call tries again.
            logger.warning("cannot remove the folders of older runs: %s", error)

    def _remove(self, name: str) -> None:
        folder = os.path.join(self._home, name)
        state = RunState(folder, self._prefix)
        if state.living() or (state.has_journals and state.seal is None):
            return
        others = [
            entry
            for entry in os.listdir(folder)
            if not entry.startswith((f"{self._prefix}_", f".{self._prefix}_"))
        ]
        if others:
            logger.warning("%s is kept: it holds %s, which is not ours", folder, others[0])
            return
        self._keep(name)
        removed = os.path.join(self._home, _REMOVED + name)
        os.rename(folder, removed)
        _fs.sync_folder(self._home)
        shutil.rmtree(removed, ignore_errors=True)

    def _keep(self, name: str) -> None:
        path = os.path.join(self._kept, f"{name}.keys")
        if os.path.exists(path):
            return  # killed behind the writing of it
        digests = self.completed(name)
        first = next(digests, None)
        if first is None:
            return
        _fs.make_folders(self._kept)
        temporary = os.path.join(self._kept, f".{name}.{os.urandom(6).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.write(first.to_bytes(_DIGEST_BYTES, "big"))
                for number in digests:
                    file.write(number.to_bytes(_DIGEST_BYTES, "big"))
                file.flush()
                _fs.sync_file(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise
        _fs.sync_folder(self._kept)
