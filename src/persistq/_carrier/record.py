"""What the bytes of one record say: a message, a reference to one, a notice, or "wake up"."""

from __future__ import annotations

import struct

from persistq._carrier.pipe import RECORD_BYTES
from persistq.exceptions import PersistqError

# A length byte (or one of the three kinds below), the message, zeros, and a mark by which a reader
# that is out of step notices. One call of struct each way.
_RECORD = struct.Struct(f"{RECORD_BYTES - 1}pc")
pack, unpack = _RECORD.pack, _RECORD.unpack
MARK = b"\n"
INLINE_BYTES = RECORD_BYTES - 4
_WAKE, _SPILLED, _NOTICE = INLINE_BYTES + 1, INLINE_BYTES + 2, INLINE_BYTES + 3

WAKE = bytes([_WAKE]) + pack(b"", MARK)[1:]


def pack_reference(reference: bytes) -> bytes:
    """Return a record that says where a large message is."""
    return _of_kind(_SPILLED, reference)


def reference_in(record: bytes) -> bytes | None:
    """Return the reference to a large message, None for a record of another kind."""
    return record[2 : 2 + record[1]] if record[0] == _SPILLED else None


def pack_notice(data: bytes) -> bytes:
    """Return a record with something short that is no message."""
    return _of_kind(_NOTICE, data)


def notice_in(record: bytes) -> bytes | None:
    """Return what is no message, None for a record of another kind."""
    return record[2 : 2 + record[1]] if record[0] == _NOTICE else None


def _of_kind(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + pack(bytes([len(data)]) + data, MARK)[1:]


def out_of_step(record: bytes) -> PersistqError:
    """Return the error for what cannot be a record."""
    return PersistqError(
        f"the queue between the processes is damaged: {len(record)} bytes came where a record of "
        f"{RECORD_BYTES} was expected, beginning {record[:16]!r}. Restart the job; what the "
        "journals hold as outstanding is put again."
    )
