"""What is in hand is known by what was handed out, else by its line, and counted exactly."""

from __future__ import annotations

from persistq._queue.in_hand import InHand


def taken(*lines: bytes) -> tuple[InHand, list[str]]:
    """One thread that has taken messages, the last of them in its hand, the others beside it."""
    in_hand, messages = InHand(), []
    hand = in_hand.new_hand(bytearray(4))
    for line in lines:
        messages.append(line.decode() + "!")
        in_hand.take(hand, messages[-1], line)
    return in_hand, messages


def test_all_that_was_taken_and_not_done_is_counted() -> None:
    in_hand, (first, second, third) = taken(b"a", b"b", b"b")
    assert (in_hand.count, in_hand.others) == (3, 2)
    assert [in_hand.how_many(key) for key in (b"a", b"b", b"c")] == [1, 2, 0]
    in_hand.remove(third, b"b")
    in_hand.remove(first, b"a")
    assert in_hand.count == 1
    assert in_hand.line_of(second) == b"b"
    in_hand.remove(second, b"b")
    assert (in_hand.count, in_hand.others) == (0, 0)


def test_the_object_itself_goes_before_one_that_equals_it() -> None:
    in_hand, (first, second) = taken(b"a", b"a")
    in_hand.remove(first, b"a")
    assert in_hand.line_of(first) is None
    assert in_hand.line_of(second) == b"a"


def test_what_was_never_taken_takes_nothing_with_it() -> None:
    in_hand, messages = taken(b"b", b"d")
    for line in (b"a", b"c", b"e"):
        in_hand.remove(line.decode(), line)
    assert [in_hand.line_of(message) for message in messages] == [b"b", b"d"]
    in_hand.remove("an equal one", b"d")
    assert [in_hand.line_of(message) for message in messages] == [b"b", None]
