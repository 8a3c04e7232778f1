"""What there is to say of one queue: its numbers, and its state in a few words."""

from __future__ import annotations

import os

from persistq import _words
from persistq._survey import DEAD, FolderSurvey, JournalSurvey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from persistq._survey.under import Found
    from persistq._web.history import Past

ATTENTION, WORK, IDLE, OVER = "attention", "work", "idle", "over"
"""Whether a person must look; processes are at work; nothing waits just now; all is over."""


class Summary:
    """A queue, as it is shown.

    Args:
        found (Found): The queue.
        past (Past | None): What was seen of it before; None for who looks only once.
        now_s (float): When it was looked at, in seconds since the epoch.

    Attributes:
        survey (JournalSurvey | FolderSurvey): All that is true of it.
        set_aside (list[dict[str, Any]]): Messages that were set aside, the latest first.
        past (Past | None): As given.
        name (str): What it is called: a prefix, or the last part of a folder's path.
        done (int | None): Messages that are done; None where the folder does not remember.
        is_done_since (bool): Whether they are counted since the first look only.
        failed, in_progress, waiting (int): Messages set aside, in hand, and in nobody's hand.
        rate_per_s (float | None): Messages that end a second; None while unknown.
        seconds_left (float | None): Until none is left at that rate; None while unknown.
        state (str): One of ATTENTION, WORK, IDLE and OVER.
        words (str): The same in words, with reasons.
    """

    def __init__(self, found: Found, past: Past | None, now_s: float) -> None:
        survey = self.survey = found.survey
        self.set_aside: list[dict[str, Any]] = found.set_aside
        self.past = past
        self.key = found.key
        hands = sum(hand.count for hand in survey.in_progress)
        self.in_progress = min(hands, survey.outstanding)
        self.waiting = survey.outstanding - self.in_progress
        self.is_done_since = False
        ended: int | None
        if isinstance(survey, JournalSurvey):
            self.name = survey.prefix
            self.done: int | None = survey.completed
            self.failed = survey.failed
            # Nothing is outstanding in a run that was carried on, though nobody has done it.
            ended = survey.requested - survey.outstanding if survey.carried_on is None else None
            reasons = _reasons_of_journals(survey)
            is_over = not survey.alive
        else:
            self.name = os.path.basename(os.path.abspath(survey.path)) or survey.path
            self.done = survey.done
            self.failed = survey.set_aside
            ended = survey.done
            if past is not None:
                ended, self.done = past.done(survey)
                self.is_done_since = survey.done is None
            reasons = _reasons_of_folder(survey)
            is_over = survey.ended
        if past is not None and ended is not None:
            past.add(now_s, ended, survey.outstanding)
        self.rate_per_s = past.rate_per_s if past is not None else None
        self.seconds_left = past.seconds_left(survey.outstanding) if past is not None else None
        if reasons:
            self.state, self.words = ATTENTION, "; ".join(reasons)
        elif isinstance(survey, JournalSurvey) and survey.carried_on is not None:
            self.state, self.words = OVER, f"carried on in {_words.safe(survey.carried_on)}"
        elif survey.outstanding:
            self.state, self.words = WORK, "at work"
        elif is_over:
            self.state, self.words = OVER, "done"
        else:
            self.state, self.words = IDLE, "nothing waits now"

    @property
    def total(self) -> int:
        """How many messages the numbers are of."""
        return (self.done or 0) + self.failed + self.in_progress + self.waiting


def _reasons_of_journals(survey: JournalSurvey) -> list[str]:
    reasons = []
    if survey.failed:
        reasons.append(f"{_words.count_of(survey.failed, 'message')} set aside")
    if survey.outstanding and not survey.alive:
        reasons.append(f"{survey.outstanding:,} left, and nobody at work")
    return reasons


def _reasons_of_folder(survey: FolderSurvey) -> list[str]:
    reasons = []
    if survey.failed:
        reasons.append("a producer failed")
    if survey.producers.dead:
        reasons.append(f"{_words.count_of(survey.producers.dead, 'producer')} died without closing")
    dead = sum(hand.count for hand in survey.in_progress if hand.state == DEAD)
    if dead:
        reasons.append(f"{_words.count_of(dead, 'file')} in the hands of dead processes")
    if survey.set_aside:
        reasons.append(f"{_words.count_of(survey.set_aside, 'file')} set aside")
    if survey.needs_attention and not reasons:
        reasons.append(f"{survey.outstanding:,} left, and nobody at work")
    return reasons
