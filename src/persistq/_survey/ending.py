"""How the names of a folder queue's messages end, by what the user and those who use it say.

An ending is an extension with its leading dot, and whether it counts in other letters, too.
"""

from __future__ import annotations

import errno
import os

from persistq._survey.folder import FolderSurvey

# So many leases and control files are asked at most.
_ASKED = 100
_DEFAULT = ".tsv"


def endings_in(folder: str) -> list[tuple[str, bool]]:
    """Give the endings of those who use a folder, by their leases and control files.

    Args:
        folder (str): Path of the folder.

    Returns:
        list[tuple[str, bool]]: One for each extension, sorted; none where nobody says.
    """
    from persistq import _lease
    from persistq._folder import control, names

    try:
        there = os.listdir(folder)
    except OSError:
        return []
    leases = [name for name in there if names.parse_lease(name)]
    # The latest of each: a folder may have been used for years.
    controls = sorted(name for name in there if name.endswith((names.HELO, names.DONE)))
    said = [_lease.read(os.path.join(folder, name)) for name in leases[-_ASKED:]]
    said += [control.header_of(os.path.join(folder, name)) for name in controls[-_ASKED:]]
    found: dict[str, bool] = {}
    for facts in said:
        extension = facts.get("messageExtension")
        if isinstance(extension, str) and extension:
            extension = "." + extension.lstrip(".")
            found[extension] = found.get(extension, False) or facts.get("ignoreCase") is True
    if not found:
        # Of what was set aside: it was a message, and keeps its name.
        rejected = [name[: -len(names.REJECTED)] for name in there if name.endswith(names.REJECTED)]
        found = {ending: False for name in rejected if (ending := os.path.splitext(name)[1])}
    return sorted(found.items())


def ending_of(folder: str, named: str | None, ignore_case: bool = False) -> tuple[str, bool]:
    """Give the ending of a queue's messages.

    Args:
        folder (str): Path of its folder.
        named (str | None): The extension, as the user says; None: what those who use it say.
        ignore_case (bool): Whether the user says that it counts in other letters; it does, too,
            where one who uses the folder says so.

    Returns:
        tuple[str, bool]: `.tsv` where nobody says.

    Raises:
        ValueError: There are several.
    """
    from persistq._folder.names import dotted

    found = dict(endings_in(folder))
    if named is None and len(found) > 1:
        raise ValueError(
            f"{folder} is the folder of queues of several extensions ({', '.join(found)}); say "
            "which with --extension"
        )
    extension = dotted(named) if named is not None else next(iter(found), _DEFAULT)
    return extension, ignore_case or found.get(extension, False)


def is_guessed(folder: str, named: str | None, ignore_case: bool = False) -> bool:
    """Tell whether an ending is a mere guess, and the files of its folder speak against it.

    Args:
        folder (str): Path of the folder.
        named (str | None): As of `ending_of`.
        ignore_case (bool): As of `ending_of`.
    """
    if named is not None or endings_in(folder):
        return False
    queue = FolderSurvey(folder, _DEFAULT, ignore_case=ignore_case)
    return any(queue.other_kinds) and not queue.waiting  # not by a README or the like


def against_the_guess(folder: str, ignore_case: bool = False) -> str:
    """Say what speaks against the ending that is guessed for a folder."""
    kinds = [*filter(None, FolderSurvey(folder, _DEFAULT, ignore_case=ignore_case).other_kinds)]
    letters = any(kind.lower() == _DEFAULT for kind in kinds)
    return (
        f"{folder}: nothing waits that ends with {_DEFAULT}, and nobody says how messages end, but "
        f"there are files of other kinds ({', '.join(kinds)}); --extension says how messages end"
        f"{', and --ignore-case that large letters are as good as small ones' if letters else ''}"
    )


def ending_for_renames(
    folder: str, named: str | None, ignore_case: bool = False
) -> tuple[str, bool]:
    """Give the ending of messages that are to get their names back; else as `ending_of`.

    Raises:
        ValueError: There are several; or nobody says, and the files speak against a guess.
    """
    found = ending_of(folder, named, ignore_case)
    if is_guessed(folder, named, ignore_case):
        raise ValueError(f"{against_the_guess(folder, ignore_case)}. Nothing has been changed.")
    return found


def ending_of_existing(
    folder: str, named: str | None, ignore_case: bool = False
) -> tuple[str, bool]:
    """Give the ending of a queue's messages whose folder must be there; else as `ending_of`.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    from persistq._folder.names import dotted

    if named is not None:
        dotted(named)  # what is wrong with it comes first
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    return ending_of(folder, named, ignore_case)


def ending_of_claim(
    path: str, named: str | None, ignore_case: bool = False, renames: bool = True
) -> tuple[str, bool]:
    """Give the ending that a claimed file had as a message, as its lease knows it.

    Args:
        path (str): Path of the claimed file.
        named (str | None): As of `ending_of`.
        ignore_case (bool): As of `ending_of`.
        renames (bool): Whether the file is to get its own name, so that no guess will do.
    """
    from persistq import _lease
    from persistq._folder.names import dotted, lease_name, parse_wip

    folder, name = os.path.split(os.path.abspath(path))
    parts = parse_wip(name)
    said = _lease.read(os.path.join(folder, lease_name(parts[0], parts[1]))) if parts else {}
    known = named if named is not None else said.get("messageExtension")
    if isinstance(known, str) and (known or named is not None):
        return dotted(known), ignore_case or said.get("ignoreCase") is True
    find = ending_for_renames if renames else ending_of
    return find(folder, None, ignore_case)
