"""What a file system carries of what persistq relies on, tried in a folder of it.

With `--seen-as`, the same folder by another path, what one sees of the other is tried, too: by
another mount of this machine, or, with `--by "ssh HOST"`, on another host.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time

from persistq import _fs
from persistq._folder.reports import Reports
from persistq._mounts import _mount_of

REPORT_LIMIT_S = 1.0
LOCK = "import fcntl, sys; fcntl.{0}(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def said(error: OSError) -> str:
    return f"no: {error.strerror}"


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write(path)
    return path


def never_overwrites(folder: str) -> dict[str, object]:
    """Whether a rename in one step, and a link, refuse a name that is taken."""
    found: dict[str, object] = {}
    first, second = write(f"{folder}/first"), write(f"{folder}/second")
    try:
        # To a free name first: some refuse a taken one, and have no such step all the same.
        if not _fs.rename_in_one_step(first, f"{folder}/free"):
            found["rename without overwriting"] = "no"
        else:
            os.rename(f"{folder}/free", first)
            _fs.rename_in_one_step(first, second)
            found["rename without overwriting"] = "no: it overwrites"
            write(first)
    except FileExistsError:
        found["rename without overwriting"] = "yes"
    except OSError as error:
        found["rename without overwriting"] = said(error)
    try:
        os.link(first, f"{folder}/linked")
        is_told = os.stat(first).st_nlink == 2
        try:
            os.link(first, second)
            found["hard links"] = "no: they overwrite"
        except FileExistsError:
            found["hard links"] = "yes" if is_told else "yes, and does not count them"
    except OSError as error:
        found["hard links"] = said(error)
    return found


def locks(path: str, seen_as: str, shell: list[str]) -> str:
    """Whether a lock that this process holds is seen by another one, and is freed by its end."""
    import fcntl

    kinds = []
    for kind in ("flock", "lockf"):
        with open(path, "r+") as file:
            getattr(fcntl, kind)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = [*shell, shlex.join([sys.executable, "-c", LOCK.format(kind), seen_as])]
            refused = subprocess.run(command, capture_output=True).returncode != 0
        freed = subprocess.run(command, capture_output=True).returncode == 0
        if refused and freed:
            kinds.append(kind)
    return ", ".join(kinds) or "no"


def reports(folder: str, seen_as: str, shell: list[str]) -> str:
    """Whether the kernel reports here what another process does there."""
    try:
        watch = Reports(folder)
    except OSError as error:
        return said(error)
    try:
        name = f"{seen_as}/reported-{time.monotonic_ns()}"
        subprocess.run([*shell, shlex.join(["touch", name])], check=True)
        watch.wait(REPORT_LIMIT_S)
        try:
            return "yes" if os.read(watch.fd, 4096) else "no"
        except BlockingIOError:
            return "no"
    finally:
        watch.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where to try; what is made there is removed")
    parser.add_argument("--seen-as", help="the same folder, by another path")
    parser.add_argument("--by", default="sh -c", help="what runs a command where that is known")
    options = parser.parse_args()
    here = ["sh", "-c"]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found: dict[str, object] = {"file system": _mount_of(folder, os.stat(folder).st_dev)[0]}
        found.update(never_overwrites(folder))
        path = write(f"{folder}/lock")
        found["locks on this machine"] = locks(path, path, here)
        found["reports of changes"] = reports(folder, folder, here)
        if options.seen_as:
            shell = shlex.split(options.by)
            there = os.path.join(options.seen_as, os.path.basename(folder))
            found["locks held here, seen there"] = locks(path, f"{there}/lock", shell)
            found["changes there, reported here"] = reports(folder, there, shell)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
