r"""Turn a message into one line of journal text, and back.

A line is the message's fields, separated by tabs, as they are. What plain text cannot say is
said with the ASCII character that exists for this, data link escape (DLE, 0x10):

- inside a field: DLE `t` tab, DLE `n` line feed, DLE `r` carriage return, DLE `d` DLE itself, and,
  only in a `str` that UTF-8 with surrogateescape does not bring back, DLE `u` and four hex digits
  for each surrogate;
- at the start of a field: DLE `=` and JSON (ASCII, keys in the order of the dict), for a value that
  is no `str`;
- at the start of a line: DLE `(` a tuple of none or one, DLE `[` a list (behind these each field is
  ended by a tab, so that no field and one empty field differ), DLE `-` the rest of the line,
  recorded earlier in the same file, is withdrawn.

DLE followed by anything else stands for itself, as it does in a journal that knows no DLE.

So one message may have several lines: dicts are equal whatever the order of their keys, and an
older journal may not have escaped a DLE. `line_key` is what all lines of equal messages share.

Lines are `bytes` without their line end here; the files belong to `_journal.files`.
"""

from __future__ import annotations

import json  # here, and in no function: a fork during an import leaves its lock held in the child
import operator
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

_JSON = b"\x10="
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_PAIR = re.compile(_TEXT + b": (?:" + _TEXT + rb"|[^\"\\,\[\]{}]+)")
# Made once: the functions of `json` that do the same make an object for each call.
_to_json = json.JSONEncoder().encode
_to_sorted_json = json.JSONEncoder(sort_keys=True).encode
_from_json = json.JSONDecoder().decode
# What JSON brings back as it was, whichever it is. (Of floats not all: there is nan.)
_SIMPLE = frozenset({str, int, bool, type(None)})
_SAFE = frozenset({str, int, float, bool, type(None)})


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


def line_key(line: bytes) -> bytes:
    """Return what two lines share exactly when their messages are equal.

    Equal are dicts whatever the order of their keys; and a DLE that stands for itself, in a
    journal that knows no DLE, equals the one that this codec escapes.

    Args:
        line (bytes): A line, without its line end. One that is withdrawn is to be given without
            the DLE `-` before it.

    Returns:
        bytes: The very same object where the line holds no DLE.
    """
    if b"\x10" not in line:
        return line
    if line.startswith(_JSON) and b"\t" not in line:
        key = _json_key(line)
    else:
        start = _LINE_START.match(line)
        head = start[0] if start else b""
        key = head + b"\t".join(map(_field_key, line[len(head) :].split(b"\t")))
    return line if key == line else key


def _field_key(field: bytes) -> bytes:
    if b"\x10" not in field:
        return field
    if field.startswith(_JSON):
        return _json_key(field)
    return _DLE_IN_FIELD.sub(lambda match: match[0] if len(match[0]) > 1 else b"\x10d", field)


def _json_key(field: bytes) -> bytes:
    if b"{" not in field:
        return field
    key = _flat_json_key(field)
    if key is None:
        try:
            value = _from_json(field[len(_JSON) :].decode())
            field = _JSON + _to_sorted_json(value).encode()
        except (ValueError, RecursionError):
            return field  # damaged: it equals itself
        key = _flat_json_key(field)
    return field if key is None else key


def _flat_json_key(field: bytes) -> bytes | None:
    """Return the key of a dict of texts and numbers, as rows of a table are; None of others."""
    # A third of the time of json. That the pairs make up the whole text proves each to be one.
    if field.startswith(_JSON + b"{") and field.count(b"{") == 1:
        pairs = _PAIR.findall(field, len(_JSON) + 1)
        if b", ".join(pairs) == field[len(_JSON) + 1 : -1]:
            pairs.sort()
            return _JSON + b"{" + b", ".join(pairs) + b"}"
    return None


def _json_field(value: Any, where: str) -> bytes:
    try:
        plain = value if type(value) in _SIMPLE else _plain(value)
        text = _to_json(plain)
        back = _from_json(text)
        # `back` has the types and the order of `plain`, for this is all that JSON knows. What it
        # may change is text: two surrogates that together spell one character come back as that.
        is_same = bool(back == plain and back == value)
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    else:
        if is_same:
            return _JSON + text.encode("ascii")
        problem = "JSON does not bring it back equal"
    raise TypeError(
        f"{where} is a {_kind(value)}, which cannot be journalled as it is ({problem}); "
        "expected a str or what JSON brings back the same. Give a function for its position in "
        "formatter_list that makes it a str, and one in converter_list that turns that back."
    )


def _plain(value: Any) -> Any:
    """Return the value made of what JSON knows and nothing else: no subclasses, no numpy."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if isinstance(value, dict):
        return {
            key if type(key) is str else _plain_key(key): x if type(x) in _SIMPLE else _plain(x)
            for key, x in value.items()
        }
    if isinstance(value, list):
        return [x if type(x) in _SIMPLE else _plain(x) for x in value]
    if isinstance(value, tuple):
        if _has_names(value):
            raise TypeError(
                f"a {_kind(value)} would come back without its names; put tuple(x) instead, or "
                "list(x) inside of another message"
            )
        raise TypeError("a tuple inside of it would come back as a list")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        number = float.__float__(value)
        if number != number:
            raise TypeError("nan is not equal to itself")
        return number
    return _plain_number(value)


def _plain_key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise TypeError(f"its key {key!r} would come back as a str")


def _plain_number(value: Any) -> Any:
    """Return the number, or truth value, that numpy or another library has wrapped."""
    # numpy need not be loaded to know one of its scalars: a value of no dimension. A time span
    # is an int to its item(), and would lose its unit.
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        if getattr(getattr(value, "dtype", None), "kind", None) not in ("m", "M"):
            item = value.item()
            if type(item) in _SAFE:
                return _plain(item)
    elif hasattr(type(value), "__index__"):
        return int.__int__(operator.index(value))
    raise TypeError(f"JSON knows no {_kind(value)}")


def _plain_text(text: str) -> str:
    """Return the text of a `str` of some subclass."""
    plain = str.__str__(text)
    if plain != text:
        raise TypeError(f"a {_kind(text)} does not equal its own text; expected one that does")
    return plain


def _has_names(value: Any) -> bool:
    # A namedtuple, or one of the interpreter's own, such as time.struct_time.
    return hasattr(value, "_fields") or hasattr(value, "n_sequence_fields")


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


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

        Subclasses, and numpy's scalars, are written as their plain type.

        Raises:
            TypeError: The message cannot be journalled, or would not come back the same; names
                the type and the remedy. What a formatter itself raises goes on as it is.
        """
        kind = type(message)
        if kind is str and not self._count:
            return escape(message)
        if isinstance(message, tuple):
            if kind is not tuple and _has_names(message):
                raise TypeError(
                    f"the message is a {_kind(message)}, which would come back without its "
                    "names; expected a plain tuple. Put tuple(x) instead."
                )
            if len(message) > 1:
                line = b"\t".join([self._field(n, x) for n, x in enumerate(message)])
            else:
                fields = [self._field(n, x) + b"\t" for n, x in enumerate(message)]
                line = b"\x10(" + b"".join(fields)
        elif isinstance(message, list):
            fields = [self._field(n, x) + b"\t" for n, x in enumerate(message)]
            line = b"\x10[" + b"".join(fields)
        else:
            return self._field(-1, message)
        if kind is not tuple and kind is not list and not self._count:
            back = self.decode(line)
            if back != message:
                raise TypeError(
                    f"the message is a {_kind(message)}, which would come back as {back!r} and "
                    "does not equal it; expected a plain tuple or list"
                )
        return line

    def _field(self, position: int, value: Any) -> bytes:
        slot = max(position, 0)  # -1: the message itself, which uses the functions of position 0
        if slot < self._count and (self._formatters[slot] or self._converters[slot]):
            formatter = self._formatters[slot]
            return escape(str(formatter(value) if formatter else value))
        if type(value) is str:
            return escape(value)
        if isinstance(value, str):
            return escape(_plain_text(value))
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
        if "\t" not in text and "\x10" not in text and not self._count:
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

    def comes_back_as(self, message: Any, line: bytes) -> Any:
        """Return the message as a restart would give it: what is to travel today.

        Args:
            message (Any): A message.
            line (bytes): What `encode` made of it.

        Returns:
            Any: The same object, where nothing can be told from what comes back, or where
            functions are given: it is these that say what a restart gives.
        """
        kind = type(message)
        if self._count or kind in _SAFE:
            return message
        if kind is tuple or kind is list:
            for field in message:
                if type(field) is not str:
                    break
            else:
                return message
        return self.decode(line)

    def _value(self, position: int, field: str) -> Any:
        if field.startswith("\x10="):
            return _from_json(field[2:])
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
