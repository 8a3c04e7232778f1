"""What a message file is called, waiting and claimed: pure strings, no file is looked at."""

from __future__ import annotations

import os
import re

WIP = ".wip"
HELO = ".helo"
DONE = ".done"
FAILED = ".failed"
CONTROL = (HELO, DONE, FAILED)

TEMPORARY = ".persistq_"
"""How the name of every temporary file begins: no queue takes it for a message."""

# No file system takes a longer one (255 bytes on all that matter), and a claim adds the process,
# the host and its own ending; 10 digits hold every process id of every system.
LONGEST_NAME_BYTES = 255
_LONGEST_PREFIX = "0000000000_0000000000_"

_WIP_NAME = re.compile(r"(\d{6,})_(\d{10})_([^/\0]+)\.wip", re.ASCII)
_TEMPORARY_NAME = re.compile(r"\.persistq_(\d{6,})_(\d{10})_[0-9a-f]+\.tmp", re.ASCII)
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
    if extension.lower().endswith((*CONTROL, WIP)):
        raise ValueError(
            f"message_extension {message_extension!r} ends like a control or work-in-progress "
            f"file ({', '.join((*CONTROL, WIP))}); choose another one"
        )
    return extension


def is_message(name: str, extension: str) -> bool:
    """Tell whether a file of this name is a message.

    Args:
        name (str): A file name, without its folder.
        extension (str): The message extension with its leading dot.
    """
    return name.endswith(extension) and not name.startswith(".")


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


def wip_prefix(pid: int, host: str) -> str:
    """Give what the names of all files that one process has claimed begin with."""
    return f"{pid:06d}_{host}_"


def wip_name(name: str, extension: str, prefix: str) -> str:
    """Give the name of a message once it is claimed."""
    return f"{prefix}{name[: -len(extension)]}{WIP}"


def parse_wip(name: str) -> tuple[int, str, str] | None:
    """Take a claimed file's name apart.

    Returns:
        tuple[int, str, str] | None: Process id, host digits, and the message's name without its
        extension; None for a name of another form.
    """
    match = _WIP_NAME.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match else None


def parse_temporary(name: str) -> tuple[int, str] | None:
    """Give process id and host digits from the name of a temporary file; None for another."""
    match = _TEMPORARY_NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def fits_when_claimed(name: str, extension: str) -> bool:
    """Tell whether the claimed name of a message is one that a file system takes."""
    claimed = wip_name(name, extension, _LONGEST_PREFIX)
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
