"""What makes a class subscriptable (`PersistentQueue[str]`) without loading `typing`.

For type checkers it is `typing.Generic` with a variable for the type of a queue's messages: `Any`
where nobody says it, so that a script without annotations needs none. At run time a subscript
changes nothing, as with the queues of the standard library.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic

    # Every type checker brings this module itself; nothing of it is needed at run time.
    from typing_extensions import TypeVar

    Message = TypeVar("Message", default=Any)
else:
    from types import GenericAlias

    Message = None

    class Generic:
        """A base class that its subclasses' subscripts come from."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["Generic", "Message"]
