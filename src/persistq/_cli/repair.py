"""Repairing folder queues: reset, reclaim and purge."""

from __future__ import annotations

import os
import sys

from persistq import _fs, _survey
from persistq._cli import show
from persistq._cli.exits import ERROR, FINE, TAKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def may(question: str, options: argparse.Namespace) -> bool:
    """Ask before what cannot be undone.

    Raises:
        ValueError: There is nobody to ask, and no `--yes`.
    """
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            f"{question} This cannot be undone, and there is no terminal to ask on: say --yes, "
            "if it is what you want. Nothing has been changed."
        )
    sys.stdout.flush()
    sys.stderr.write(f"{question} This cannot be undone. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    show.complain("nothing has been changed")
    return False


def _folder(options: argparse.Namespace, renames: bool) -> _survey.FolderSurvey:
    """Look at a folder queue that is to be repaired.

    Args:
        options (argparse.Namespace): With `folder`, `extension` and `ignore_case`.
        renames (bool): Whether files are to be given their names back.

    Raises:
        ValueError: It is none.
    """
    path = options.folder
    if _survey.journal_prefixes(path) or _survey.homes(path):
        raise ValueError(
            f"{path} holds journals; expected a folder queue. Journals need no repair: the next "
            "run picks up what is outstanding."
        )
    find = _survey.ending_for_renames if renames else _survey.ending_of
    extension, ignore_case = find(path, options.extension, options.ignore_case)
    return _survey.FolderSurvey(path, extension, ignore_case=ignore_case)


def _claims(folder: _survey.FolderSurvey) -> str:
    count = sum(hand.count for hand in folder.in_progress)
    # Of another host nobody knows, so it counts as living.
    living = sum(hand.count for hand in folder.in_progress if hand.state != _survey.DEAD)
    text = show.count_of(count, "claimed file")
    return f"{text} ({living} of processes that may be at work)" if living else text


def _status_of_the_rest(folder: _survey.FolderSurvey, everybodys: bool) -> int:
    """Tell whether claimed files were left since others of their names wait; the log says which.

    Args:
        folder (_survey.FolderSurvey): The queue.
        everybodys (bool): Whether those of the living count, too.
    """
    from persistq._folder import identity, names

    verdicts = identity.Verdicts(folder.path)
    for name in os.listdir(folder.path):
        claim = names.parse_wip(name)
        if claim is None:
            continue
        own = names.original_name(claim[2], folder.extension, folder.ignore_case)
        if os.path.lexists(os.path.join(folder.path, own)):
            dead, said = verdicts.of(claim[0], claim[1])
            is_ours = (said or {}).get("messageExtension", folder.extension) == folder.extension
            if is_ours and (dead or everybodys):
                return TAKEN
    return FINE


def reclaim(options: argparse.Namespace) -> int:
    """Put back what dead processes had claimed."""
    from persistq._folder.readable import ReadableFolderQueue

    folder = _folder(options, renames=True)
    queue = ReadableFolderQueue(options.folder, folder.extension, ignore_case=folder.ignore_case)
    restored = queue.reclaim_abandoned(options.max_attempts or None)
    for path in restored:
        show.say(f"waits again: {show.safe(os.path.basename(path))}")
    show.say(f"{show.count_of(len(restored), 'file')} put back")
    return _status_of_the_rest(folder, everybodys=False)


def reset(options: argparse.Namespace) -> int:
    """Prepare a folder for the next run: no control files, and nothing claimed."""
    from persistq._folder import identity, names, recovery

    folder = _folder(options, renames=True)
    controls = [name for name in os.listdir(options.folder) if name.endswith(names.CONTROL)]
    question = (
        f"{options.folder}: {_claims(folder)} would wait again, and "
        f"{show.count_of(len(controls), 'control file')} be removed."
    )
    if not may(question, options):
        return ERROR
    recovery.purge_control_messages(options.folder)
    path = os.path.abspath(options.folder)
    member = identity.member(path, folder.extension, folder.ignore_case, "operator")
    restored = recovery.reset_processing_files(member)
    member.let_go()
    for path in restored:
        show.say(f"waits again: {show.safe(os.path.basename(path))}")
    show.say(
        f"{show.count_of(len(restored), 'file')} put back, "
        f"{show.count_of(len(controls), 'control file')} removed"
    )
    return _status_of_the_rest(folder, everybodys=True)


def purge(options: argparse.Namespace) -> int:
    """Remove all that is in the folder of a queue."""
    from persistq._folder import recovery
    from persistq._folder.listing import Listing

    folder = _folder(options, renames=False)
    _refuse_precious(options.folder, options.everything)
    listing = Listing(options.folder, folder.extension, folder.ignore_case)
    # A single file of that ending makes no queue: it may be anybody's.
    is_queue = bool(listing.claims or listing.controls or listing.leases)
    ours = _names_of_the_queue(folder)
    rest = len(os.listdir(options.folder)) - len(ours)
    if (ours or rest) and not is_queue and not options.everything:
        raise ValueError(
            f"{options.folder} holds {show.count_of(len(ours) + rest, 'file')}, but no trace of a "
            "folder queue: neither claimed files nor control files. It is left alone. "
            "--extension says how messages end; --everything deletes all the same."
        )
    waiting = len(listing.messages)
    other = rest if options.everything else 0
    question = (
        f"{options.folder}: {show.count_of(waiting, 'waiting message')}, "
        f"{_claims(folder)} and {show.count_of(other, 'other file or folder')} would be deleted."
    )
    if not may(question, options):
        return ERROR
    if options.everything:
        recovery.purge(options.folder)
        show.say(
            f"deleted all that was in {show.safe(options.folder)}: {len(ours) + rest} files and "
            "folders"
        )
        return FINE
    for name in ours:
        _fs.remove(os.path.join(options.folder, name))
    left = f"; {show.count_of(rest, 'other file or folder')} left alone" if rest else ""
    show.say(
        f"deleted all of the queue in {show.safe(options.folder)}: "
        f"{show.count_of(len(ours), 'file')}{left}"
    )
    return FINE


def _owner_of(name: str) -> tuple[int, str] | None:
    """Give process id and ten digits from the name of a file that one claimer has made."""
    from persistq._folder import names

    wip = names.parse_wip(name)
    if wip is not None:
        return wip[:2]
    return names.parse_lease(name) or names.parse_temporary(name) or names.parse_intent(name)


def _names_of_the_queue(queue: _survey.FolderSurvey) -> list[str]:
    """Give the names of the files that a queue has made, or that were put on it.

    What belongs to a queue of another extension in the same folder is that one's.
    """
    from persistq import _lease
    from persistq._folder import control, names

    folder, extension, ignore_case = queue.path, queue.extension, queue.ignore_case

    def is_anothers(said: dict[str, object]) -> bool:
        known = said.get("messageExtension")
        return isinstance(known, str) and names.dotted(known) != extension

    found = []
    others = {
        owner
        for name in os.listdir(folder)
        if (owner := names.parse_lease(name))
        and is_anothers(_lease.read(os.path.join(folder, name)))
    }
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False) or _owner_of(name) in others:
                continue
            if name.endswith(names.CONTROL) and is_anothers(control.header_of(entry.path)):
                continue
            if name.endswith(names.REJECTED) and not names.is_message(
                name[: -len(names.REJECTED)], extension, True
            ):
                continue
            if (
                name.startswith(names.TEMPORARY)
                or names.is_message(name, extension, ignore_case)
                or name.endswith((*names.CONTROL, names.REJECTED))
                or names.is_message(name, extension + names.REASON, ignore_case)
                or names.parse_wip(name)
            ):
                found.append(name)
    return found


def _homes() -> set[str]:
    """Give the homes of all users that this machine knows of."""
    found = {os.path.expanduser("~")}
    try:
        import pwd

        found |= {user.pw_dir for user in pwd.getpwall() if os.path.isabs(user.pw_dir)}
    except ImportError:
        pass  # not on Windows
    return {os.path.realpath(home) for home in found}


def _refuse_precious(folder: str, with_folders: bool) -> None:
    """Refuse a folder that no queue has to itself.

    Args:
        folder (str): The folder.
        with_folders (bool): Whether the folders in it are to go, too.

    Raises:
        ValueError: It is a root, a home, or holds a repository or a home.
    """
    real = os.path.realpath(folder)
    homes = _homes()
    what = ""
    if os.path.dirname(real) == real or (os.path.ismount(real) and real.count(os.sep) <= 1):
        what = "a root"
    elif real in homes or any(home.startswith(real + os.sep) for home in homes):
        what = "a home"
    elif os.path.lexists(os.path.join(real, ".git")):
        what = "a folder with a repository (.git)"
    elif with_folders and any(".git" in [*dirs, *files] for _, dirs, files in os.walk(real)):
        what = "a folder with a repository (.git) in a folder below it"
    if what:
        raise ValueError(f"{folder} is {what}: it is never purged. Delete files of it with 'rm'.")
