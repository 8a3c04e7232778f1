r"""The same numbers for Prometheus, in its text format (version 0.0.4).

A name may hold anything. So that two names are never one, and that none can end a label, a
backslash stands there as two, and what does not print, or is no UTF-8, as `\x0a`.
"""

from __future__ import annotations

from persistq import _words
from persistq._survey import ALIVE, DEAD, ELSEWHERE, FolderSurvey, JournalSurvey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Union

    from persistq._web.looks import Seen
    from persistq._web.summary import Summary

    Sample = tuple[dict[str, str], Union[int, float]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def text(seen: Seen) -> str:
    """Give all metrics.

    Args:
        seen (Seen): What a look has seen.

    Returns:
        str: Lines that end with a line feed; only what UTF-8 can write.
    """
    lines: list[str] = []
    for name, kind, about, samples in _metrics(seen):
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            said = ",".join(f'{label}="{escape(labels[label])}"' for label in labels)
            lines.append(f"{name}{{{said}}} {value}" if said else f"{name} {value}")
    return "\n".join(lines) + "\n"


def escape(value: str) -> str:
    r"""Give a label's value as it stands between quotes.

    Args:
        value (str): Any text.
    """
    shown = _words.safe(value.replace("\\", "\\\\"))
    return shown.replace("\\", "\\\\").replace('"', '\\"')


def _metrics(seen: Seen) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    queues = seen.queues
    journals = [(_labels(q), q.survey) for q in queues if isinstance(q.survey, JournalSurvey)]
    folders = [(_labels(q), q.survey) for q in queues if isinstance(q.survey, FolderSurvey)]
    yield (
        "persistq_messages",
        "gauge",
        "Messages of a queue by state: done, failed (set aside), in_progress, waiting.",
        (
            ({**_labels(queue), "state": state}, count)
            for queue in queues
            for state, count in (
                # Of a folder queue only where its done files are counted, and not since some look.
                ("done", None if queue.is_done_since else queue.done),
                ("failed", queue.failed),
                ("in_progress", queue.in_progress),
                ("waiting", queue.waiting),
            )
            if count is not None
        ),
    )
    yield (
        "persistq_in_progress_messages",
        "gauge",
        "Messages in hand of processes that are alive, dead, or elsewhere (cannot be asked).",
        (
            (
                {**_labels(queue), "process": state},
                sum(hand.count for hand in queue.survey.in_progress if hand.state == state),
            )
            for queue in queues
            for state in (ALIVE, DEAD, ELSEWHERE)
        ),
    )
    yield (
        "persistq_needs_attention",
        "gauge",
        "Whether a person must look (1) or not (0), as 'persistq status --alert' judges.",
        ((_labels(queue), int(queue.survey.needs_attention)) for queue in queues),
    )
    yield (
        "persistq_last_activity_timestamp_seconds",
        "gauge",
        "When a queue's files last changed.",
        ((_labels(queue), queue.survey.last_activity_s) for queue in queues),
    )
    yield (
        "persistq_run_requested_messages_total",
        "counter",
        "Messages put in the run that the journals hold; a new run begins anew.",
        ((labels, survey.requested) for labels, survey in journals),
    )
    yield (
        "persistq_run_completed_messages_total",
        "counter",
        "Messages completed in the run that the journals hold; a new run begins anew.",
        ((labels, survey.completed) for labels, survey in journals),
    )
    yield (
        "persistq_processes",
        "gauge",
        "Living processes that take part in the run that the journals hold.",
        ((labels, len(survey.alive)) for labels, survey in journals),
    )
    yield (
        "persistq_producers",
        "gauge",
        "Producers of a folder queue: open, closed, or dead (ended without closing).",
        (
            ({**labels, "state": state}, count)
            for labels, survey in folders
            for state, count in sorted(vars(survey.producers).items())
        ),
    )
    yield (
        "persistq_producer_failed",
        "gauge",
        "Whether a producer of a folder queue has said that it failed (1) or not (0).",
        ((labels, int(survey.failed)) for labels, survey in folders),
    )
    unreadable = {place.path for place in seen.unreadable}
    yield (
        "persistq_unreadable",
        "gauge",
        "Folders that could not be looked at (1 each).",
        (({"path": path}, 1) for path in sorted(unreadable)),
    )
    yield "persistq_queues", "gauge", "How many queues were found.", [({}, len(queues))]
    yield (
        "persistq_look_timestamp_seconds",
        "gauge",
        "When these numbers were taken; stands still while a file system hangs.",
        [({}, seen.at_s)],
    )
    yield "persistq_look_seconds", "gauge", "How long that took.", [({}, seen.took_s)]


def _labels(queue: Summary) -> dict[str, str]:
    survey = queue.survey
    name = survey.prefix if isinstance(survey, JournalSurvey) else survey.extension
    return {"kind": survey.kind, "path": survey.path, "queue": name}
