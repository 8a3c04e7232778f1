"""Messages come back equal, and plain text is journalled as it is."""

from __future__ import annotations

import json
import random

import pytest

from persistq._journal.codec import Codec, canonical, return_same

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
    return {f"key\t{n}": json_value(rng, depth + 1) for n in range(rng.randrange(4))}


def assert_comes_back(codec: Codec, message: object) -> None:
    line = codec.encode(message)
    assert b"\n" not in line
    assert b"\r" not in line
    back = codec.decode(line)
    assert back == message
    assert type(back) is type(message)
    assert codec.encode(back) == line
    assert canonical(line) == line


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
        ({"b": "\u00e9", "a": [1]}, b'\x10={"a": [1], "b": "\\u00e9"}'),
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
        ({"a": (1,)}, "dict"),
    ],
)
def test_what_json_does_not_bring_back_is_refused(message: object, named: str) -> None:
    with pytest.raises(TypeError) as caught:
        Codec().encode(message)
    assert named in str(caught.value)
    assert "formatter_list" in str(caught.value)


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
    assert codec.encode(message) == canonical(line)


@pytest.mark.parametrize("bad", [["upper"], [None, 3]])
def test_a_formatter_that_cannot_be_called_is_refused(bad: list[object]) -> None:
    with pytest.raises(TypeError, match="formatter_list"):
        Codec(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="converter_list"):
        Codec(None, bad)  # type: ignore[arg-type]
