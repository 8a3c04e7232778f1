"""Whatever has happened in the runs of a job, what is outstanding is what the plain rule says."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from histories import History
from persistq._journal import outstanding as module
from persistq._journal import reading
from persistq._journal.codec import line_key
from persistq._journal.outstanding import count, outstanding

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(120))
def test_outstanding_and_count_agree_with_the_plain_rule(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(f"sizes {seed}")
    monkeypatch.setattr(reading, "_BLOCK_BYTES", dice.choice([16, 300, 1 << 15]))
    monkeypatch.setattr(module, "_LEAD_LINES", dice.choice([0, 20, 4_000]))
    monkeypatch.setattr(module, "_OPEN_FILES", dice.choice([0, 2, 60]))
    history = History(tmp_path, seed)

    found, tally = outstanding(history.runs), count(history.runs)

    assert found.lines == history.left
    assert Counter(tally.lines) == Counter(map(line_key, history.left))
    for totals in (found, tally):
        assert (totals.requested, totals.completed, totals.failed, totals.torn) == (
            history.requested,
            history.completed,
            history.failed,
            history.torn,
        )
    for index in range(0, len(found.lines), 7):
        path, number = found.where(index)
        with open(path, "rb") as file:
            on_disk = file.read().split(b"\n")[number - 1]
        assert on_disk.removesuffix(b"\r") == found.lines[index]


def test_a_message_completed_twice_and_requested_again_later_is_not_outstanding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(module, "_LEAD_LINES", 1)
    requested, completed = tmp_path / "requested", tmp_path / "completed"
    others = [f"other {number}\n" for number in range(100)]
    requested.write_text("".join(["a\n", *others, "a\n"]))
    completed.write_text("a\na\n")

    found = count(module.Journals([str(requested)], [str(completed)]))

    assert b"a" not in found.lines
    assert len(found.lines) == 100
