r"""Turn a message into one line of journal text, and back.

A line is the message's fields, separated by tabs, as they are. What plain text cannot say is
said with the ASCII character that exists for this, data link escape (DLE, 0x10):

- inside a field: DLE `t` tab, DLE `n` line feed, DLE `r` carriage return, DLE `d` DLE itself, and,
  only in a `str` that UTF-8 with surrogateescape does not bring back, DLE `u` and four hex digits
  for each surrogate;
- at the start of a field: DLE `=` and JSON, for a value that is no `str`;
- at the start of a line: DLE `(` a tuple of none or one, DLE `[` a list (behind these each field is
  ended by a tab, so that no field and one empty field differ), DLE `-` the rest of the line,
  recorded earlier in the same file, is withdrawn.

DLE followed by anything else stands for itself, as it does in a journal that knows no DLE.

Lines are `bytes` without their line end here; the files belong to `_journal.files`.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Function = Callable[[Any], Any]

WITHDRAWN = b"\x10-"

_SPECIAL = re.compile("[\t\n\r\x10]")
_SPECIAL_OR_SURROGATE = re.compile("[\t\n\r\x10\ud800-\udfff]")
_ESCAPED = re.compile("\x10(?:([tnrd])|u([0-9a-fA-F]{4}))")
_ESCAPES = {"\t": "\x10t", "\n": "\x10n", "\r": "\x10r", "\x10": "\x10d"}
_UNESCAPES = {"t": "\t", "n": "\n", "r": "\r", "d": "\x10"}
# A DLE that means something, by where it stands. Anything else is a DLE of its own right.
_LINE_START = re.compile(rb"\x10[(\[]")
_DLE_IN_FIELD = re.compile(rb"\x10(?:[tnrd]|u[0-9a-fA-F]{4})?")


def return_same(obj: Any) -> Any:
    """Return the object unchanged: the default formatter and converter.

    A named function, because a queue is pickled and a lambda cannot be.

    Args:
        obj (Any): Any object.

    Returns:
        Any: The same object.
    """
    return obj


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _ESCAPES.get(character) or f"\x10u{ord(character):04x}"


def _unescape(match: re.Match[str]) -> str:
    return _UNESCAPES[match[1]] if match[1] else chr(int(match[2], 16))


def escape(text: str) -> bytes:
    """Return the text as it stands in a field.

    Args:
        text (str): Any text whatever, lone surrogates included.

    Returns:
        bytes: UTF-8 without tabs, line ends and bare DLEs.
    """
    # Four searches, since each is as fast as memory: a regular expression, or isprintable(), looks
    # at one character after the other.
    if not ("\t" in text or "\n" in text or "\r" in text or "\x10" in text):
        try:
            return text.encode()  # the common case
        except UnicodeEncodeError:
            pass  # surrogates
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        # Bytes that are not UTF-8, as in some file names, are surrogates in a str and come back
        # as these bytes. Surrogates that happen to spell valid UTF-8 would come back as another
        # str, and those outside of DC80 to DCFF not at all.
        pattern = _SPECIAL_OR_SURROGATE
        try:
            raw = text.encode("utf-8", "surrogateescape")
            if raw.decode("utf-8", "surrogateescape") == text:
                pattern = _SPECIAL
        except UnicodeEncodeError:
            pass
        return pattern.sub(_escape, text).encode("utf-8", "surrogateescape")
    if _SPECIAL.search(text) is None:
        return raw
    return _SPECIAL.sub(_escape, text).encode()


def unescape(text: str) -> str:
    """Return the text that `escape` made this field of.

    Args:
        text (str): A field, decoded from UTF-8 with surrogateescape.

    Returns:
        str: The original text.
    """
    return _ESCAPED.sub(_unescape, text) if "\x10" in text else text


def _json_field(value: Any, where: str) -> bytes:
    import json  # here, since most messages need none, and it takes 3 ms to import

    try:
        text = json.dumps(value, sort_keys=True)
        comes_back = bool(json.loads(text) == value)
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    else:
        if comes_back:
            return b"\x10=" + text.encode("ascii")
        problem = "JSON does not bring it back equal"
    kind = f"{type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
    raise TypeError(
        f"{where} is a {kind}, which cannot be journalled as it is ({problem}); "
        "expected a str or what JSON brings back equal. Give a function for its position in "
        "formatter_list that makes it a str, and one in converter_list that turns that back."
    )


def canonical(line: bytes) -> bytes:
    """Return the line as this codec would have written it.

    A journal that knows no DLE may hold one that escapes nothing. Read, it stands for itself;
    written again, it is escaped. Compared are therefore the escaped forms.

    Args:
        line (bytes): A line with a DLE in it, without its line end.

    Returns:
        bytes: The line with every DLE that stands for itself escaped.
    """
    start = _LINE_START.match(line)
    head = start[0] if start else b""
    return head + b"\t".join(map(_canonical_field, line[len(head) :].split(b"\t")))


def _canonical_field(field: bytes) -> bytes:
    if field.startswith(b"\x10="):
        return field
    return _DLE_IN_FIELD.sub(lambda match: match[0] if len(match[0]) > 1 else b"\x10d", field)


class Codec:
    """Messages to lines and back, with the user's functions for single positions.

    Args:
        formatter_list (Iterable[(value) -> object] | None): For each position of a message, the
            function whose result, as a `str`, is journalled. A message that is neither tuple nor
            list has position 0 alone.
        converter_list (Iterable[(text: str) -> object] | None): For each position, the function
            that turns the journalled text back into a value.

    `return_same`, None, and positions past a list's end mean that no function is given.

    Raises:
        TypeError: A list holds something that cannot be called.
    """

    def __init__(
        self,
        formatter_list: Iterable[Function | None] | None = None,
        converter_list: Iterable[Function | None] | None = None,
    ) -> None:
        formatters = _given(formatter_list, "formatter_list")
        converters = _given(converter_list, "converter_list")
        count = max(len(formatters), len(converters))
        self._formatters = formatters + [None] * (count - len(formatters))
        self._converters = converters + [None] * (count - len(converters))
        while self._formatters and not (self._formatters[-1] or self._converters[-1]):
            del self._formatters[-1], self._converters[-1]
        # How many leading positions have a function: 0 is the common case, and the fast one.
        self._count = len(self._formatters)

    def is_plain(self) -> bool:
        """Tell whether a line brings back every message exactly: no function is given.

        Returns:
            bool: True where neither a formatter nor a converter is in use.
        """
        return not self._count

    def encode(self, message: Any) -> bytes:
        """Return the line for a message.

        Args:
            message (Any): A `str`, a tuple or list of fields, or one value that JSON or a
                formatter can write.

        Returns:
            bytes: One line of UTF-8 without its line end.

        Raises:
            TypeError: The message cannot be journalled; names the type and the remedy. What a
                formatter itself raises goes on as it is.
        """
        if isinstance(message, str) and not self._count:
            return escape(message)
        if isinstance(message, tuple):
            if len(message) > 1:
                return b"\t".join([self._field(n, x) for n, x in enumerate(message)])
            return b"\x10(" + b"".join([self._field(n, x) + b"\t" for n, x in enumerate(message)])
        if isinstance(message, list):
            return b"\x10[" + b"".join([self._field(n, x) + b"\t" for n, x in enumerate(message)])
        return self._field(-1, message)

    def _field(self, position: int, value: Any) -> bytes:
        slot = max(position, 0)  # -1: the message itself, which uses the functions of position 0
        if slot < self._count and (self._formatters[slot] or self._converters[slot]):
            formatter = self._formatters[slot]
            return escape(str(formatter(value) if formatter else value))
        if isinstance(value, str):
            return escape(value)
        where = "the message" if position < 0 else f"field {position} of the message"
        return _json_field(value, where)

    def decode(self, line: bytes) -> Any:
        """Return the message of a line.

        Args:
            line (bytes): A line without its line end.

        Returns:
            Any: The message, equal to the one that was encoded (by way of the functions given).

        Raises:
            Exception: Whatever a converter raises, and `ValueError` for damaged JSON; the caller
                knows file and line number and adds them.
        """
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode("utf-8", "surrogateescape")
        if not (self._count or "\t" in text or "\x10" in text):
            return text  # the common case: one field, as it is
        if text.startswith(("\x10(", "\x10[")):
            fields = text[2:].split("\t")
            if not fields[-1]:
                fields.pop()  # what stands behind the tab that ends the last field
            values = [self._value(n, field) for n, field in enumerate(fields)]
            return values if text[1] == "[" else tuple(values)
        if "\t" in text:
            return tuple([self._value(n, field) for n, field in enumerate(text.split("\t"))])
        return self._value(0, text)

    def _value(self, position: int, field: str) -> Any:
        if field.startswith("\x10="):
            import json

            return json.loads(field[2:])
        text = unescape(field)
        if position < self._count:
            converter = self._converters[position]
            if converter:
                return converter(text)
        return text


def _given(functions: Iterable[Function | None] | None, name: str) -> list[Function | None]:
    given: list[Function | None] = []
    for position, function in enumerate(functions or ()):
        if function is not None and not callable(function):
            raise TypeError(
                f"{name}[{position}] is {function!r}; expected a function of one argument, "
                "or return_same for a field that needs none"
            )
        given.append(None if function is return_same else function)
    return given
