"""Work that was set aside: `persistq failed`, `retry` and `discard`."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter

from persistq import PersistqError
from persistq._cli import ERROR, FINE, show
from persistq._cli.look import SCHEMA, journal_places, plain
from persistq._cli.repair import may
from persistq._journal.codec import Codec
from persistq._journal.decisions import decide, undecided

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from persistq._journal.failures import FailedLine
    from persistq._journal.run_state import RunState


def failed(options: argparse.Namespace) -> int:
    """List what was set aside, and nobody has decided.

    Args:
        options (argparse.Namespace): With `path`, `prefix` and `json`.
    """
    codec = Codec()
    found = [
        (place, undecided(place)) for place in journal_places(options.path, options.prefix)[::-1]
    ]
    if options.json:
        import json

        entries = [_entry(place, r, codec) for place, records in found for r in records]
        show.say(json.dumps(entries, indent=2))
        return FINE
    found = [(place, records) for place, records in found if records]
    if not found:
        show.say("nothing is set aside")
    for number, (place, records) in enumerate(found):
        name = f"{show.safe(place.names.prefix)} ({show.safe(place.directory)})"
        show.say("\n" * bool(number) + f"Set aside in {name}:")
        rows = [["MESSAGE", "ATTEMPTS", "WHEN", "REASON"]]
        for record in records:
            work = record.work(codec)
            when = show.moment(work.failed_at.timestamp())
            rows.append([_text(codec, record), str(work.attempts), when, work.reason])
        for line in show.table(rows):
            show.say(line)
    return FINE


def _entry(place: RunState, record: FailedLine, codec: Codec) -> dict[str, Any]:
    work = record.work(codec)
    return {
        "schema": SCHEMA,
        "kind": "journals",
        "path": place.directory,
        "prefix": place.names.prefix,
        "message": work.message,
        "text": _text(codec, record),
        "reason": work.reason,
        "attempts": work.attempts,
        "failed_at": work.failed_at.isoformat(),
    }


def _text(codec: Codec, record: FailedLine) -> str:
    """Give a message as it is shown, and as patterns see it."""
    return os.fsdecode(plain(codec, record.line))


class _Patterns:
    """Which messages are meant: all, or those that match one of some patterns.

    Args:
        patterns (Sequence[str]): Shell patterns; or a message itself, whatever that holds.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._codec = Codec()
        self._patterns = patterns
        self.met: set[str] = set()

    def choose(self, records: list[FailedLine]) -> list[FailedLine]:
        return [record for record in records if not self._patterns or self._is_meant(record)]

    def _is_meant(self, record: FailedLine) -> bool:
        text = _text(self._codec, record)
        met = {p for p in self._patterns if p == text or fnmatch.fnmatchcase(text, p)}
        self.met |= met
        return bool(met)

    def complain_of_the_rest(self) -> int:
        """Say which patterns no message has met."""
        unmet = [pattern for pattern in self._patterns if pattern not in self.met]
        for pattern in unmet:
            show.complain(f"{pattern}: nothing that is set aside matches this")
        return ERROR if unmet else FINE


def retry(options: argparse.Namespace) -> int:
    """Have the next run do what was set aside once more.

    Args:
        options (argparse.Namespace): With `path`, `patterns` and `prefix`.
    """
    patterns = _Patterns(options.patterns)
    places = journal_places(options.path, options.prefix)[::-1]
    count, status = _decide_each(places, patterns, {}, "outstanding again", begin_anew=True)
    status = max(status, patterns.complain_of_the_rest())
    if count or status == FINE:
        ending = ": the next run does them" if count > 1 else ": the next run does it"
        show.say(f"{show.count_of(count, 'message')} to be done again{ending if count else ''}")
    return status


def discard(options: argparse.Namespace) -> int:
    """Give up what was set aside.

    Args:
        options (argparse.Namespace): With `path`, `patterns`, `prefix` and `yes`.
    """
    patterns = _Patterns(options.patterns)
    places = journal_places(options.path, options.prefix)[::-1]
    # What has come since the question was asked, is not what was asked about.
    asked = {_key(place): Counter(_texts(patterns.choose(undecided(place)))) for place in places}
    number = sum(sum(texts.values()) for texts in asked.values())
    status = patterns.complain_of_the_rest()
    if number:
        question = f"{show.count_of(number, 'message')} set aside would be given up."
        if not may(question, options):
            return ERROR
    count, other = _decide_each(places, patterns, asked, "given up", begin_anew=False)
    status = max(status, other)
    if count or status == FINE:
        show.say(f"{show.count_of(count, 'message')} given up")
    return status


def _key(place: RunState) -> tuple[str, str]:
    return place.directory, place.names.prefix


def _texts(records: list[FailedLine]) -> list[bytes]:
    return [record.text for record in records]


def _decide_each(
    places: list[RunState],
    patterns: _Patterns,
    asked: dict[tuple[str, str], Counter[bytes]],
    what: str,
    *,
    begin_anew: bool,
) -> tuple[int, int]:
    """Decide in each place, and say what was done; return how many, and the exit status."""
    count, status = 0, FINE
    codec = Codec()
    for place in places:
        meant = asked.get(_key(place))

        def choose(
            records: list[FailedLine], meant: Counter[bytes] | None = meant
        ) -> list[FailedLine]:
            chosen = patterns.choose(records)
            return chosen if meant is None else [r for r in chosen if meant[r.text] > 0]

        if meant is not None and not meant:
            continue
        try:
            _, records = decide(*_key(place), choose, begin_anew)
        except PersistqError as error:
            if not patterns.choose(undecided(place)):
                continue  # it lives, and nothing in it is meant
            show.complain(str(error))
            status = ERROR
            continue
        for record in records:
            show.say(f"{what}: {show.safe(_text(codec, record))}")
        count += len(records)
    return count, status
