"""What a message file is called, waiting and claimed: pure strings, no file is looked at."""

from __future__ import annotations

import os
import re

WIP = ".wip"
HELO = ".helo"
DONE = ".done"
FAILED = ".failed"
CONTROL = (HELO, DONE, FAILED)
LEASE = ".lease"
REJECTED = ".rejected"
REASON = ".reason.txt"

TEMPORARY = ".persistq_"
"""How the name of every temporary file begins: no queue takes it for a message."""

NOTE = TEMPORARY + "note_"
"""How the name of what is written down of a message begins; its own name follows."""
INTENT = ".group"

# No file system takes a longer one (255 bytes on all that matter), and a claim adds the process,
# the host and its own ending; 10 digits hold every process id of every system.
LONGEST_NAME_BYTES = 255
_LONGEST_PREFIX = "0000000000_0000000000_"

_WIP_NAME = re.compile(r"(\d{6,})_(\d{10})_([^/\0]+)\.wip", re.ASCII)
_LEASE_NAME = re.compile(r"\.persistq_(\d{6,})_(\d{10})\.lease", re.ASCII)
_CONTROL_NAME = re.compile(
    r"\d{8}_\d{6}_\d{6}__(\d{6,})(?:_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))?"
    r"\.(?:helo|done|failed)",
    re.ASCII,
)
_TEMPORARY_NAME = re.compile(r"\.persistq_(\d{6,})_(\d{10})_[0-9a-f]+\.tmp", re.ASCII)
_INTENT_NAME = re.compile(r"\.persistq_(\d{6,})_(\d{10})_[0-9a-f]+\.group", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def dotted(message_extension: str) -> str:
    """Check a message extension, and give it with its leading dot.

    Args:
        message_extension (str): With or without its leading dot; `.tar.gz` is one too.

    Raises:
        TypeError: It is not a str.
        ValueError: No message could have it, or its messages would look like control or wip files.
    """
    if not isinstance(message_extension, str):
        raise TypeError(
            f"message_extension is a {type(message_extension).__name__}; expected a str like '.tsv'"
        )
    bare = message_extension[1:] if message_extension.startswith(".") else message_extension
    if not bare:
        raise ValueError(
            "message_extension is empty; expected one like '.tsv', by which messages are told "
            "from other files"
        )
    separators = {"/", os.sep, os.altsep or os.sep, "\0"}
    if any(separator in bare for separator in separators):
        raise ValueError(
            f"message_extension {message_extension!r} holds a path separator; expected one like "
            "'.tsv'"
        )
    extension = "." + bare
    if extension.lower().endswith((*CONTROL, WIP, REJECTED)):
        raise ValueError(
            f"message_extension {message_extension!r} ends like a control or work-in-progress "
            f"file ({', '.join((*CONTROL, WIP, REJECTED))}); choose another one"
        )
    return extension


def is_message(name: str, extension: str, ignore_case: bool = False) -> bool:
    """Tell whether a file of this name is a message.

    Args:
        name (str): A file name, without its folder.
        extension (str): The message extension with its leading dot.
        ignore_case (bool): Whether `A.TSV` is a message where the extension is `.tsv`.
    """
    if name.startswith("."):
        return False
    return name.endswith(extension) or (
        ignore_case and name[-len(extension) :].lower() == extension.lower()
    )


def host_digits(fqdn: str, namespace: str) -> str:
    """Give the ten digits that stand for a host in the names of claimed files.

    Args:
        fqdn (str): The host's fully qualified name.
        namespace (str): The name of the process-id namespace, empty for the host's first: two
            containers on one host must not take each other's process ids for their own.
    """
    import hashlib

    text = f"{fqdn} {namespace}" if namespace else fqdn
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return f"{int.from_bytes(digest, 'big') % 10**10:010d}"


def wip_prefix(pid: int, claimer: str) -> str:
    """Give what the names of all files that one claimer has claimed begin with.

    Args:
        pid (int): Its process id.
        claimer (str): The ten digits that number it.
    """
    return f"{pid:06d}_{claimer}_"


# A message whose extension is in other letters keeps it in its claimed name, with this behind:
# `A.TSV` becomes `..._A.TSV=.wip`. (So `A.TSV=.tsv` is a name that such a queue does not take.)
_OTHER_LETTERS = "="


def wip_name(name: str, extension: str, prefix: str) -> str:
    """Give the name of a message once it is claimed."""
    if name.endswith(extension):
        return f"{prefix}{name[: -len(extension)]}{WIP}"
    return f"{prefix}{name}{_OTHER_LETTERS}{WIP}"


def original_name(stem: str, extension: str, ignore_case: bool = False) -> str:
    """Give the name that a claimed file had as a message.

    Args:
        stem (str): What `parse_wip` gives of its name.
        extension (str): The message extension with its leading dot.
        ignore_case (bool): Whether its queue takes the extension in other letters, too.
    """
    if ignore_case and stem.endswith(_OTHER_LETTERS):
        name = stem[: -len(_OTHER_LETTERS)]
        if is_message(name, extension, True) and not name.endswith(extension):
            return name
    return stem + extension


def is_ambiguous(name: str, extension: str) -> bool:
    """Tell whether a name would, claimed, look like another one's in other letters."""
    stem = name[: -len(extension)]
    return original_name(stem, extension, True) != stem + extension


def parse_wip(name: str) -> tuple[int, str, str] | None:
    """Take a claimed file's name apart.

    Returns:
        tuple[int, str, str] | None: Process id, host digits, and the message's name without its
        extension; None for a name of another form.
    """
    match = _WIP_NAME.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match else None


def parse_temporary(name: str) -> tuple[int, str] | None:
    """Give process id and ten digits from the name of a temporary file; None for another."""
    match = _TEMPORARY_NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def lease_name(pid: int, claimer: str) -> str:
    """Give the name of the lease of a claimer, or of a producer."""
    return f"{TEMPORARY}{pid:06d}_{claimer}{LEASE}"


def parse_lease(name: str) -> tuple[int, str] | None:
    """Give process id and ten digits from the name of a lease; None for another."""
    match = _LEASE_NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def parse_intent(name: str) -> tuple[int, str] | None:
    """Give process id and ten digits from the name of what is to become of a group."""
    match = _INTENT_NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def claimer_of_uuid(uuid: str) -> str:
    """Give the ten digits of the lease that a producer of this uuid holds; empty for no uuid."""
    if not _UUID.fullmatch(uuid):
        return ""
    return f"{int(uuid[-12:], 16) % 10**10:010d}"


def uuid_of_claimer(claimer: str) -> str:
    """Make a new uuid for a producer whose lease bears these ten digits."""
    import uuid

    drawn = uuid.uuid4().int
    node = drawn % 2**48 // 10**10 % 28147 * 10**10 + int(claimer)
    return str(uuid.UUID(int=drawn // 2**48 * 2**48 + node))


def parse_control(name: str) -> tuple[str, str] | None:
    """Give process id (without leading zeros) and uuid from a control file's name.

    Returns:
        tuple[str, str] | None: An empty uuid where the name has none, as the original's have not;
        None for a name of another form.
    """
    match = _CONTROL_NAME.fullmatch(name)
    return (match[1].lstrip("0"), match[2] or "") if match else None


def fits_when_claimed(name: str, extension: str) -> bool:
    """Tell whether the claimed name of a message is one that a file system takes."""
    claimed = wip_name(name, extension, _LONGEST_PREFIX)
    # As long as the claimed name is what is written down of a message (see notes.py).
    return len(os.fsencode(claimed)) <= LONGEST_NAME_BYTES


def uuid_endings(text: str) -> tuple[str, str] | None:
    """Give both forms, lower case, in which a file name may end with this UUID.

    Returns:
        tuple[str, str] | None: With dashes and with underscores; None when it is no UUID.
    """
    if not _UUID.fullmatch(text):
        return None
    dashes = text.lower().replace("_", "-")
    return dashes, dashes.replace("-", "_")


def numbered(name: str, extension: str, number: int) -> str:
    """Give another name for a file whose own is taken: `a.tsv` becomes `a.1.tsv`."""
    return f"{name[: -len(extension)]}.{number}{extension}" if number else name


def is_numbered(other: str, name: str, extension: str) -> bool:
    """Tell whether a name is another's, or is one that `numbered` gives for it."""
    stem = name[: -len(extension)]
    if not (other.startswith(stem) and other.endswith(extension)):
        return False
    between = other[len(stem) : -len(extension)]
    return not between or (between[0] == "." and between[1:].isdecimal())
