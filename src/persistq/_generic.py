"""What makes a class subscriptable (`PersistentQueue[str]`) without loading `typing`.

For type checkers it is `typing.Generic` with a variable for the type of a queue's messages: `Any`
where nobody says it, so that a script without annotations needs none. What a folder queue hands out
is the path of a file, where its class does not say that it is the paths of a group. At run time a
subscript changes nothing, as with the queues of the standard library.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, Union

    # Every type checker brings this module itself; nothing of it is needed at run time.
    from typing_extensions import TypeVar

    Message = TypeVar("Message", default=Any)
    Claim = TypeVar("Claim", bound=Union[str, list[str]], default=str)
else:
    from types import GenericAlias

    Message = Claim = None

    class Generic:
        """A base class that its subclasses' subscripts come from."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["Claim", "Generic", "Message"]
