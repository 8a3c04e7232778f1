"""What is true of a queue on disk right now: read only, whoever is at work on it.

Nothing here claims, announces, renames or writes. What changes meanwhile is seen as it was at one
moment or another; a file that vanishes in between has the look repeated.
"""

from __future__ import annotations

from persistq._survey.ending import (
    against_the_guess,
    ending_for_renames,
    ending_of,
    ending_of_claim,
    ending_of_existing,
    is_guessed,
)
from persistq._survey.find import (
    current_runs,
    homes,
    journal_prefixes,
    journals,
    runs,
    survey,
)
from persistq._survey.folder import FolderSurvey
from persistq._survey.hand import ALIVE, DEAD, ELSEWHERE, InHand
from persistq._survey.journals import JournalSurvey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._survey.find import Survey

__all__ = [
    "ALIVE",
    "DEAD",
    "ELSEWHERE",
    "FolderSurvey",
    "InHand",
    "JournalSurvey",
    "Survey",
    "against_the_guess",
    "current_runs",
    "ending_for_renames",
    "ending_of",
    "ending_of_claim",
    "ending_of_existing",
    "homes",
    "is_guessed",
    "journal_prefixes",
    "journals",
    "runs",
    "survey",
]
