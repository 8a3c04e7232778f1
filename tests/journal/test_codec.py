"""Messages come back equal, and plain text is journalled as it is."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import OrderedDict
from enum import Enum, IntEnum
from fractions import Fraction
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from persistq._journal.codec import Codec, line_key, return_same

NASTY_PIECES = [
    *"ab \t\n\r\x10\\\"'=-([tnrdu0\0\x0b\x0c\x1c\x85\u2028\u2029é\u4e2d\U0001f600",
    "\x10t",
    "\x10u00",
    "\udc80",
    "\udcc3\udca9",  # as bytes, these are the UTF-8 of é
    "\ud800",
    "\ud83d\ude00",
    "\udfff",
]


class Name(str):
    pass


class Odd(str):
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = str.__hash__


class OddPair(tuple):  # type: ignore[type-arg]
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = tuple.__hash__


class Number(int):
    pass


class Ratio(float):
    pass


class Rows(list):  # type: ignore[type-arg]
    pass


class Pair(tuple):  # type: ignore[type-arg]
    pass


class Size(IntEnum):
    LARGE = 2


class Unit(str, Enum):
    KM = "km"


class Colour(Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Index:
    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self.number == other

    __hash__ = None  # type: ignore[assignment]


class Scalar:
    """What a numpy scalar looks like from outside."""

    shape = ()

    def __init__(self, item: object, equals: object, kind: str = "i") -> None:
        self.dtype = SimpleNamespace(kind=kind)
        self.item = lambda: item
        self.equals = equals

    def __eq__(self, other: object) -> bool:
        return self.equals == other

    __hash__ = None  # type: ignore[assignment]


def shuffled(rng: random.Random, value: object) -> object:
    """Return the value with the keys of its dicts in another order."""
    if isinstance(value, dict):
        return {key: shuffled(rng, value[key]) for key in rng.sample([*value], len(value))}
    return [shuffled(rng, x) for x in value] if isinstance(value, list) else value


def in_order(value: object) -> object:
    if isinstance(value, dict):
        return sorted((key, in_order(x)) for key, x in value.items())
    if isinstance(value, tuple):
        return tuple(map(in_order, value))
    return [*map(in_order, value)] if isinstance(value, list) else value


def nasty_text(rng: random.Random) -> str:
    return "".join(rng.choice(NASTY_PIECES) for _ in range(rng.choice([0, 1, 2, 3, 8, 40])))


def json_value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 10**30, rng.randrange(-(2**70), 2**70)])
    if kind == 2:
        return rng.choice([0.0, -0.5, 1e300, 5e-324, rng.random(), float("inf")])
    if kind in (3, 4):
        return nasty_text(rng).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if kind == 5:
        return [json_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = rng.sample(["a", "b b", "b", "key\t1", "\xe4", '"', "{", ": "], rng.randrange(4))
    return {key: json_value(rng, depth + 1) for key in keys}


def assert_comes_back(codec: Codec, message: object) -> None:
    line = codec.encode(message)
    assert b"\n" not in line
    assert b"\r" not in line
    back = codec.decode(line)
    assert back == message
    assert type(back) is type(message)
    assert codec.encode(back) == line  # the keys of dicts are in their order, too
    assert line_key(line_key(line)) == line_key(line)
    assert codec.decode(line_key(line)) == message
    if b"{" not in line:
        assert line_key(line) is line


@pytest.mark.parametrize(
    "text", ["", "plain", "  blanks  ", "c:\\new\\table", "'\"", "é\u4e2d\U0001f600", "\udcff.tsv"]
)
def test_text_without_control_characters_is_journalled_as_it_is(text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    assert Codec().encode(text) == raw
    assert Codec().encode((text, "second", text)) == raw + b"\tsecond\t" + raw
    assert Codec().decode(raw) == text


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a\tb", b"a\x10tb"),
        ("a\nb", b"a\x10nb"),
        ("a\rb", b"a\x10rb"),
        ("a\x10b", b"a\x10db"),
        ("\ud800", b"\x10ud800"),
        ("\udcc3\udca9", b"\x10udcc3\x10udca9"),
        (5, b"\x10=5"),
        (None, b"\x10=null"),
        ({"b": "\u00e9", "a": [1]}, b'\x10={"b": "\\u00e9", "a": [1]}'),
        (("a", 1.5), b"a\t\x10=1.5"),
        ((), b"\x10("),
        (("a",), b"\x10(a\t"),
        (("",), b"\x10(\t"),
        ([], b"\x10["),
        (["a", "b"], b"\x10[a\tb\t"),
        ([""], b"\x10[\t"),
    ],
)
def test_what_plain_text_cannot_say_is_said_with_data_link_escape(
    message: object, line: bytes
) -> None:
    assert Codec().encode(message) == line
    assert_comes_back(Codec(), message)


def test_any_text_comes_back_equal() -> None:
    rng, codec = random.Random(20_241), Codec()
    for _ in range(3_000):
        assert_comes_back(codec, nasty_text(rng))
        fields = [nasty_text(rng) for _ in range(rng.randrange(5))]
        assert_comes_back(codec, fields)
        assert_comes_back(codec, tuple(fields))
    assert_comes_back(codec, "".join(rng.choices(NASTY_PIECES, k=1 << 20)))


def test_any_json_value_comes_back_equal() -> None:
    rng, codec = random.Random(20_242), Codec()
    for _ in range(1_000):
        assert_comes_back(codec, json_value(rng))
        assert_comes_back(codec, (nasty_text(rng), json_value(rng)))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({1: "a"}, "dict"),
        (float("nan"), "float"),
        (object(), "object"),
        (b"raw", "bytes"),
        (("a", {1, 2}), "field 1 of the message is a set"),
        (("a", ("nested",)), "field 1 of the message is a tuple"),
        ({"a": (1,)}, "a tuple inside of it would come back as a list"),
        ([{"a": [(1,)]}], "a tuple inside of it would come back as a list"),
        ({"a": json.loads("[NaN]")}, "nan is not equal to itself"),
        ({"a": "\ud83d\ude00"}, "JSON does not bring it back equal"),
        ({"a": {True: 1}}, "its key True would come back as a str"),
        ([Fraction(1, 2)], "JSON knows no fractions.Fraction"),
        ({"a": 1, Odd("a"): 2}, "JSON does not bring it back equal"),
        ([Colour.RED], "Colour"),
        ({"a": Scalar(5, 5, kind="m")}, "JSON knows no"),
        ({"a": Scalar(5, 6)}, "JSON does not bring it back equal"),
    ],
)
def test_what_json_does_not_bring_back_is_refused(message: object, named: str) -> None:
    with pytest.raises(TypeError) as caught:
        Codec().encode(message)
    assert named in str(caught.value)
    assert "formatter_list" in str(caught.value)


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (Name("a\tb"), "a\tb"),
        (Size.LARGE, 2),
        (Unit.KM, "km"),
        (Number(5), 5),
        (Ratio(0.1), 0.1),
        (OrderedDict([("b", 1), ("a", Number(2))]), {"b": 1, "a": 2}),
        ((Name("a"), Size.LARGE, OrderedDict(b=Unit.KM)), ("a", 2, {"b": "km"})),
        ([Name("a"), [Ratio(1.0), {Name("k"): Rows([Size.LARGE])}]], ["a", [1.0, {"k": [2]}]]),
        (Rows(["a"]), ["a"]),
        (Pair(("a", 1)), ("a", 1)),
        (Scalar(5, 5), 5),
        (("a", Scalar(0.5, 0.5, kind="f"), [Scalar(True, True, kind="b")]), ("a", 0.5, [True])),
        ({"a": Scalar("\xe4", "\xe4", kind="U")}, {"a": "\xe4"}),
        ([Index(7)], [7]),
    ],
)
def test_a_subclass_travels_as_its_plain_type(message: object, plain: object) -> None:
    codec = Codec()
    line = codec.encode(message)
    assert line == codec.encode(plain)
    back = codec.decode(line)
    assert back == message
    assert repr(back) == repr(plain)
    travels = codec.comes_back_as(message, line)
    assert repr(travels) == repr(plain)


def test_an_ordered_dict_keeps_its_own_order() -> None:
    row = OrderedDict(a=1, b=2, c=3)
    row.move_to_end("a")
    codec = Codec()
    assert [*codec.decode(codec.encode(row))] == ["b", "c", "a"]
    assert [*codec.decode(codec.encode([row]))[0]] == ["b", "c", "a"]


@pytest.mark.parametrize(
    "message",
    [Point(1, 2), ("a", Point(1, 2)), {"a": [Point(1, 2)]}, [[Point(1, 2)]], time.localtime(0)],
)
def test_what_would_lose_its_names_is_refused(message: object) -> None:
    with pytest.raises(TypeError, match=r"without its names.*ut tuple\(x\)"):
        Codec().encode(message)


def test_a_subclass_that_does_not_equal_its_plain_type_is_refused() -> None:
    for message in (Odd("a"), ("a", Odd("b")), OddPair(("a", "b"))):
        with pytest.raises(TypeError, match="does not equal"):
            Codec().encode(message)


@pytest.mark.parametrize("message", ["a", ("a", "b"), ["a"], (), 5, 1.5, None, True])
def test_a_plain_message_travels_as_the_same_object(message: object) -> None:
    codec = Codec()
    assert codec.comes_back_as(message, codec.encode(message)) is message


def test_where_functions_are_given_a_message_travels_as_it_is() -> None:
    codec, message = Codec([None, str], [None, int]), (Name("a"), Number(5))
    assert codec.comes_back_as(message, codec.encode(message)) is message


def test_two_lines_share_a_key_exactly_when_their_messages_are_equal() -> None:
    rng, codec = random.Random(20_243), Codec()
    for _ in range(500):
        one = json_value(rng)
        other = json_value(rng) if rng.random() < 0.3 else shuffled(rng, one)
        messages = rng.choice([(one, other), (("a\t", one), ("a\t", other)), ([one], [other])])
        lines = [codec.encode(message) for message in messages]
        # As texts: 1, 1.0 and True are three messages.
        texts = [repr(in_order(codec.decode(line))) for line in lines]
        keys = [line_key(line) for line in lines]
        assert (keys[0] == keys[1]) is (texts[0] == texts[1])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'\x10={"b":1,"a":2}', b'\x10={"a": 2, "b": 1}'),  # by hand
        (b'\x10={"a": 1, "a!": 2}', line_key(b'\x10={"a!":2,"a":1}')),
        (b'\x10={"a": "}, {", "b": 1', b'\x10={"a": "}, {", "b": 1'),  # damaged
        (b"\x10={\xff}", b"\x10={\xff}"),
        (b'a\x10x\t\x10={"b": 1, "a": 2}', b'a\x10dx\t\x10={"a": 2, "b": 1}'),
    ],
)
def test_a_line_by_another_hand_has_a_key_too(line: bytes, key: bytes) -> None:
    assert line_key(line) == key


def test_importing_the_codec_is_enough_to_use_it() -> None:
    """A fork while a thread imports something would leave the child with the import's lock."""
    code = (
        "import sys; from persistq._journal.codec import Codec, line_key; loaded = {*sys.modules};"
        "line_key(Codec().encode({'b': [1], 'a': 2})); Codec().decode(b'\\x10=[1.5]');"
        "print(sorted({*sys.modules} - loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "[]\n"


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append([endless])
    with pytest.raises(TypeError, match="formatter_list"):
        Codec().encode(endless)


def test_functions_apply_by_position() -> None:
    codec = Codec([hex, return_same], [lambda text: int(text, 16), None, int])
    assert codec.encode((255, "b", 3, 4)) == b"0xff\tb\t3\t\x10=4"
    assert codec.decode(b"0xff\tb\t3\t\x10=4") == (255, "b", 3, 4)
    assert codec.encode(255) == b"0xff"
    assert codec.decode(b"0xff") == 255
    assert codec.encode([255]) == b"\x10[0xff\t"
    assert codec.decode(b"\x10[0xff\t") == [255]


def test_a_converter_may_give_any_object() -> None:
    codec = Codec([json.dumps], [json.loads])
    assert codec.decode(codec.encode({"a": "\t"})) == {"a": "\t"}


def test_what_a_formatter_gives_is_escaped() -> None:
    codec = Codec([str.upper], [str.lower])
    assert codec.encode("a\t\x10=") == b"A\x10t\x10d="
    assert codec.decode(b"A\x10t\x10d=") == "a\t\x10="


@pytest.mark.parametrize("line", [b"a\x10b", b"\x10", b"\x10\x10t", b"\x10uzzzz", b"a\t\x10[x"])
def test_an_escape_character_that_escapes_nothing_stands_for_itself(line: bytes) -> None:
    codec = Codec()
    message = codec.decode(line)
    expected = line.decode().replace("\x10t", "\t")
    assert message == (tuple(expected.split("\t")) if b"\t" in line else expected)
    assert codec.encode(message) == line_key(line)


@pytest.mark.parametrize("bad", [["upper"], [None, 3]])
def test_a_formatter_that_cannot_be_called_is_refused(bad: list[object]) -> None:
    with pytest.raises(TypeError, match="formatter_list"):
        Codec(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="converter_list"):
        Codec(None, bad)  # type: ignore[arg-type]
