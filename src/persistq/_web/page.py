"""What the page says, as HTML: whatever a name holds is shown as text."""

from __future__ import annotations

import datetime
import hashlib
import html
import os
import time

from persistq import __version__, _words
from persistq._folder.names import original_name, parse_wip
from persistq._processes import host_name
from persistq._survey import ALIVE, DEAD, FolderSurvey, InHand, JournalSurvey
from persistq._web import charts, design
from persistq._web.summary import ATTENTION, IDLE, OVER, WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from persistq._web.looks import Seen
    from persistq._web.summary import Summary

_ORDER = {ATTENTION: 0, WORK: 1, IDLE: 2, OVER: 3}
_MARKS = {ATTENTION: "\u25b2", WORK: "\u25b6", IDLE: "\u25cb", OVER: "\u2713"}
_SHOWN_MESSAGES = 3
_SHOWN_ODD = 20
_SHOWN_HANDS = 100
# A table of more rows, and those of more queues, are folded up, unless nobody can unfold them.
_UNFOLDED_ROWS = 5
_UNFOLDED_QUEUES = 12
_LONGEST_TEXT = 500


def text(value: str, longest: int = _LONGEST_TEXT) -> str:
    """Give any text as HTML that shows it as it is, and turns nothing around it.

    Args:
        value (str): Any text: a name, a message, a reason.
        longest (int): How many characters of it are shown.
    """
    if len(value) > longest:
        value = f"{value[:longest]} ... ({len(value):,} characters)"
    # Letters that are written from right to left must not carry what follows along.
    return f"<bdi>{html.escape(_words.safe(value))}</bdi>"


def render(seen: Seen, roots: Sequence[str], nonce: str, looking_s: float = 0.0) -> str:
    """Make the page that is served, which renews itself.

    Args:
        seen (Seen): What a look has seen.
        roots (Sequence[str]): The folders that were looked at.
        nonce (str): What allows its style and script; drawn anew for each answer.
        looking_s (float): For how many seconds a look is going on that has not ended.
    """
    head = f'<noscript><meta http-equiv="refresh" content="{design.RELOADED_EVERY_S}"></noscript>\n'
    when = f"Looked at {_clock(seen.at_s)}."
    if looking_s > 2 * seen.took_s + 5:
        when = (
            f'<strong class="dead">What is shown here is of {_clock(seen.at_s)}: the next look '
            f"has been going on for {_words.amount(looking_s)}. Does a file system hang?</strong>"
        )
    foot = (
        '<p class="sub">The same as <a href="status.json">JSON</a>, and as '
        '<a href="metrics">metrics</a>.</p>\n'
        f'<script nonce="{nonce}">{design.SCRIPT}</script>\n'
    )
    return _page(seen, roots, nonce, head, when, foot)


def report(seen: Seen, roots: Sequence[str], nonce: str) -> str:
    """Make the page that is written once, for mail: no script, and nothing folded up.

    Args:
        seen (Seen): What a look has seen.
        roots (Sequence[str]): The folders that were looked at.
        nonce (str): What allows its style, and nothing else.
    """
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    when = f"As it was at {_clock(seen.at_s)}."
    return _page(seen, roots, nonce, head, when, "")


def waiting(nonce: str) -> str:
    """Make the page for as long as the first look has not ended."""
    return _frame(
        "Looking ...",
        nonce,
        '<meta http-equiv="refresh" content="3">\n',
        "<main><h1>Looking ...</h1><p>The first look at the queues has not ended yet. This page "
        "loads itself again.</p></main>\n",
    )


def _frame(title: str, nonce: str, head: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'{head}<link rel="icon" href="data:,">\n<title>{title}</title>\n'
        f'<style nonce="{nonce}">{design.STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n'
    )


def _page(
    seen: Seen,
    roots: Sequence[str],
    nonce: str,
    head: str,
    when: str,
    foot: str,
) -> str:
    host = html.escape(_words.safe(host_name()))
    counts = _counts(seen)
    places = ", ".join(map(text, roots))
    return _frame(
        f"{counts} \u2013 queues on {host}",
        nonce,
        head,
        f"<header>\n<h1>Queues on {host}</h1>\n"
        f'<p class="sub">Under {places}. <span id="when">{when}</span> '
        '<strong id="said" class="dead" role="status"></strong></p>\n</header>\n'
        f'<main id="now">\n<p class="counts">{counts}</p>\n{_wrong(seen)}'
        f"{_cards(seen)}</main>\n"
        f'<footer>\n{foot}<p class="sub">persistq {__version__}. Looking changes nothing.</p>\n'
        "</footer>\n",
    )


def _clock(at_s: float) -> str:
    then = time.localtime(at_s)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", then)
    zone = html.escape(_words.safe(time.strftime("%Z", then)))
    machine = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
    return f'<time datetime="{machine}">{stamp} {zone}</time>'


def _counts(seen: Seen) -> str:
    states = [queue.state for queue in seen.queues]
    said = [
        f"{states.count(state)} {words}"
        for state, words in (
            (ATTENTION, "to look into"),
            (WORK, "at work"),
            (IDLE, "open"),
            (OVER, "done"),
        )
        if state in states
    ]
    if seen.unreadable:
        said.append(f"{len(seen.unreadable)} that cannot be read")
    return f"{_words.count_of(len(states), 'queue')}: {', '.join(said)}" if said else "No queues"


def _wrong(seen: Seen) -> str:
    if not seen.unreadable:
        return ""
    items = "".join(
        f"<li>{text(place.path)}: {text(place.error)}</li>\n" for place in seen.unreadable
    )
    return f'<section class="wrong">\n<h2>Cannot be read</h2>\n<ul>\n{items}</ul>\n</section>\n'


def _cards(seen: Seen) -> str:
    if not seen.queues:
        return (
            "<p>Neither journals nor folder queues are here yet. Files alone make no queue of a "
            "folder in which no process has announced itself.</p>\n"
        )
    queues = sorted(seen.queues, key=lambda queue: _ORDER[queue.state])
    is_open = len(queues) <= _UNFOLDED_QUEUES or queues[0].past is None
    cards = "".join(_card(queue, seen.at_s, is_open) for queue in queues)
    return f'<div class="cards">\n{cards}</div>\n'


def _card(queue: Summary, now_s: float, is_open: bool) -> str:
    survey = queue.survey
    key = hashlib.blake2s(os.fsencode("\0".join(queue.key)), digest_size=6).hexdigest()
    legend = "".join(
        f'<li><i class="{kind}"></i>{count:,} {words}{_since(queue, kind)}</li>'
        for kind, words, count in charts.parts(queue)
    )
    chart = charts.last_hours(queue.past, now_s) if queue.past is not None else ""
    return (
        f'<article class="{queue.state}" aria-labelledby="n{key}">\n'
        f'<div class="title"><h2 id="n{key}">{text(queue.name)}</h2>'
        f'<span class="state {queue.state}"><span aria-hidden="true">{_MARKS[queue.state]}</span> '
        f"{text(queue.words)}</span></div>\n"
        f'<p class="sub">{text(survey.path)}</p>\n'
        f'{charts.bar(queue)}<ul class="legend">{legend}</ul>\n'
        f'<p class="sub">{". ".join(_pace(queue, now_s))}.</p>\n'
        f"{chart}{_remarks(queue)}"
        f"{_set_aside(queue, key, now_s, is_open)}"
        f"{_in_progress(queue, key, now_s, is_open)}</article>\n"
    )


def _since(queue: Summary, kind: str) -> str:
    if kind != "done" or not queue.is_done_since or queue.past is None:
        return ""
    return time.strftime(", as seen since %H:%M", time.localtime(queue.past.since_s))


def _ago(at_s: float, now_s: float) -> str:
    if not at_s:
        return "unknown"
    if now_s - at_s < 86_400:
        return f"{_words.amount(max(now_s - at_s, 0.0))} ago"
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))
    except (OSError, OverflowError, ValueError):
        return "unknown"  # a file may have any time that somebody gives it


def _pace(queue: Summary, now_s: float) -> list[str]:
    survey = queue.survey
    said = []
    if queue.rate_per_s is not None and survey.outstanding:
        rate = queue.rate_per_s
        pace = "at least " * queue.is_done_since
        pace += f"{rate:,.1f} a second" if rate >= 1 else f"{60 * rate:,.1f} a minute"
        if queue.seconds_left is not None:
            pace += f", {_words.amount(queue.seconds_left)} left"
        if rate:
            said.append(pace[0].upper() + pace[1:])
        elif queue.past is not None and now_s - queue.past.since_s >= 60:
            said.append("Nothing done in the last minute")
    if isinstance(survey, JournalSurvey):
        if survey.alive:
            said.append(f"{_words.count_of(len(survey.alive), 'process')} alive")
    elif survey.producers.open or survey.producers.closed:
        said.append(f"Producers: {survey.producers.open} open, {survey.producers.closed} closed")
    said.append(f"Last activity {_ago(survey.last_activity_s, now_s)}")
    return said


def _remarks(queue: Summary) -> str:
    survey = queue.survey
    said = []
    if isinstance(survey, FolderSurvey):
        for group, missing in sorted(survey.incomplete.items())[:_SHOWN_ODD]:
            said.append(f"Group {text(group)} waits for {text(', '.join(missing))}.")
        for name, reason in [*survey.odd.items()][:_SHOWN_ODD]:
            said.append(f"{text(name)} is passed over: {text(reason)}.")
        if len(survey.odd) > _SHOWN_ODD:
            said.append(f"So are {len(survey.odd) - _SHOWN_ODD:,} more.")
        if survey.others and not survey.outstanding:
            count = _words.count_of(survey.others, "file")
            said.append(f"{count} of other kinds than {text(survey.extension)}.")
    elif survey.torn:
        said.append(f"{_words.count_of(survey.torn, 'torn line')}, as a crash leaves them.")
    return "".join(f'<p class="sub">{remark}</p>\n' for remark in said)


def _set_aside(queue: Summary, key: str, now_s: float, is_open: bool) -> str:
    if not queue.set_aside:
        return ""
    rows = [
        [
            ("Message", "name", text(entry["text"])),
            ("Attempts", "number", text(str(entry["attempts"]), 9)),
            ("When", "short", _when(entry["failed_at"], now_s)),
            ("Reason", "wide", text(entry["reason"] or "-")),
        ]
        for entry in queue.set_aside
    ]
    more = queue.failed - len(rows)
    note = f", of which the latest {len(rows)} are shown" if more > 0 else ""
    is_open = is_open and (queue.past is None or len(rows) <= _UNFOLDED_ROWS)
    return _table(
        f"s{key}",
        f"Set aside: {queue.failed:,}{note}",
        f"Messages of {text(queue.name)} that were set aside, the latest first",
        rows,
        is_open,
    )


def _in_progress(queue: Summary, key: str, now_s: float, is_open: bool) -> str:
    hands = queue.survey.in_progress
    if not hands:
        return ""
    rows = [
        [
            ("Process", "", f"{hand.pid}{_host(hand)}"),
            ("State", "short" if hand.state == ALIVE else "dead", html.escape(hand.state)),
            ("Has", "number", f"{hand.count:,}"),
            ("Since", "short", _ago(hand.since_s, now_s)),
            ("Messages", "", _messages(hand, queue.survey)),
        ]
        for hand in hands[:_SHOWN_HANDS]
    ]
    dead = sum(hand.state == DEAD for hand in hands)
    note = f", {dead} of them dead" if dead else ""
    note += f"; the first {_SHOWN_HANDS} are shown" * (len(hands) > _SHOWN_HANDS)
    summary = f"In progress with {_words.count_of(len(hands), 'process')}{note}"
    if dead == len(hands):
        summary = f"In the hands of {_words.count_of(dead, 'dead process')}"
    return _table(
        f"p{key}",
        summary,
        f"What processes have in hand of {text(queue.name)}",
        rows,
        is_open and (queue.past is None or bool(dead)),
    )


def _host(hand: InHand) -> str:
    return f" on {text(hand.host)}" if hand.host else ""


def _messages(hand: InHand, survey: JournalSurvey | FolderSurvey) -> str:
    names = [os.fsdecode(message) for message in hand.messages[:_SHOWN_MESSAGES]]
    if isinstance(survey, FolderSurvey):
        # A claim's own name says all that the other columns say, and hides the file's.
        parsed = [(name, parse_wip(name)) for name in names]
        ending = survey.extension, survey.ignore_case
        names = [
            name if parts is None else original_name(parts[2], *ending) for name, parts in parsed
        ]
    shown = [text(name, 100) for name in names]
    return ", ".join(shown) + (", ..." if hand.count > len(shown) else "")


def _when(failed_at: str | None, now_s: float) -> str:
    if failed_at is None:
        return "-"
    try:
        at_s = datetime.datetime.fromisoformat(failed_at).timestamp()
    except (OSError, OverflowError, ValueError):
        return "unknown"  # somebody has written into the file with the reason
    return _ago(at_s, now_s)


def _table(
    key: str,
    summary: str,
    caption: str,
    rows: Sequence[Iterable[tuple[str, str, str]]],
    is_open: bool,
) -> str:
    """Give a table that can be folded up.

    Args:
        key (str): Its id.
        summary (str): What is said when it is folded up, as HTML.
        caption (str): What it is, for who does not see it, as HTML.
        rows (Sequence[Iterable[tuple[str, str, str]]]): Of each cell: the name of its column, its
            class, and what it holds, as HTML.
        is_open (bool): Whether it is not folded up.
    """
    number = ' class="number"'
    # The roles are those that the elements have, but for on a telephone, where each cell is a line.
    head = "".join(
        f'<th role="columnheader" scope="col"{number * (kind == "number")}>{name}</th>'
        for name, kind, _ in rows[0]
    )
    body = "".join(
        '<tr role="row">'
        + "".join(
            f'<td role="cell" class="{kind}" data-name="{name}">{cell}</td>'
            for name, kind, cell in row
        )
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<details id="{key}"{" open" * is_open}><summary id="{key}s">{summary}</summary>\n'
        f'<table role="table"><caption>{caption}</caption>\n<thead role="rowgroup">'
        f'<tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}</tbody></table></details>\n'
    )
