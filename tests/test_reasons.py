from __future__ import annotations

import json

import pytest

from persistq import _reasons


def _raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_text_is_kept_as_one_line():
    assert _reasons.describe(" line 4:\tno number\r\n\u2028\x1b[31mred ") == (
        "line 4: no number    [31mred"
    )


def test_an_exception_is_kept_as_type_message_and_place():
    def parse():
        raise ValueError("line 4:\nno number")

    said = _reasons.describe(_raised(parse))

    line = parse.__code__.co_firstlineno + 1
    assert said == f"ValueError: line 4: no number ({__file__}, line {line}, in parse)"


def test_the_place_is_in_the_users_code_and_not_in_the_library_that_it_called():
    def parse():
        json.loads("{")

    said = _reasons.describe(_raised(parse))

    assert said.startswith("json.decoder.JSONDecodeError: ")
    assert said.endswith("in parse)")


def test_an_exception_that_was_never_raised_has_no_place():
    assert _reasons.describe(KeyError("a")) == "KeyError: 'a'"
    assert _reasons.describe(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_an_exception_whose_text_fails_is_described_all_the_same():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    assert "its text cannot be had: RuntimeError" in _reasons.describe(Odd())


@pytest.mark.parametrize("text", ["caf\udce9", "\ud800"])
def test_what_is_no_valid_text_can_be_written_all_the_same(text):
    assert _reasons.describe(text).encode("utf-8", "surrogateescape")


def test_a_reason_that_quotes_a_whole_file_is_cut():
    assert len(_reasons.describe("x" * 10_000_000)) < _reasons.LONGEST + 100


def test_what_is_neither_text_nor_exception_is_refused():
    with pytest.raises(TypeError, match="expected a str"):
        _reasons.describe(7)
