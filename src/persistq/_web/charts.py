"""Pictures of a queue, as SVG that stands in the page: a bar of its messages, its last hours."""

from __future__ import annotations

import html
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from persistq._web.history import Past
    from persistq._web.summary import Summary

# What is there at all must be seen: one that failed of a million, too. In parts of the bar's 1,000.
_LEAST = 12
_HEIGHT = 40
_LEAST_MINUTES = 10


def parts(queue: Summary) -> list[tuple[str, str, int]]:
    """Give what a queue's messages are, in the order in which the bar shows them.

    Returns:
        list[tuple[str, str, int]]: Class of the colour, words, and number; none unknown.
    """
    found = [] if queue.done is None else [("done", "done", queue.done)]
    return [
        *found,
        ("failed", "set aside", queue.failed),
        ("hand", "in progress", queue.in_progress),
        ("waiting", "waiting", queue.waiting),
    ]


def bar(queue: Summary) -> str:
    """Draw what a queue's messages are."""
    shown = [part for part in parts(queue) if part[2]]
    total = queue.total
    said = ", ".join(f"{count:,} {words}" for _, words, count in parts(queue))
    label = html.escape(f"Of {total:,} messages: {said}")
    widths = [max(1000 * count / total, _LEAST) for _, _, count in shown]
    scale = 1000 / sum(widths) if widths else 1.0
    drawn, x = [], 0.0
    for (kind, _, _), width in zip(shown, widths):
        width *= scale
        # Colours alone must not tell where one part ends.
        gap = 4 if x + width < 999 else 0
        drawn.append(f'<rect class="{kind}" x="{x:.1f}" width="{width - gap:.1f}" height="12"/>')
        x += width
    return (
        f'<svg class="bar" role="img" aria-label="{label}" viewBox="0 0 1000 12" '
        'preserveAspectRatio="none"><rect class="none" width="1000" height="12"/>'
        f"{''.join(drawn)}</svg>"
    )


def last_hours(past: Past, now_s: float) -> str:
    """Draw how many messages ended in each minute, and how many were left; nothing, if all stood.

    Args:
        past (Past): What was seen of the queue.
        now_s (float): The time, in seconds since the epoch.
    """
    points = [*past.points]
    # This minute has not ended: it would always look as if work had slowed down.
    whole = points[:-1] if points and points[-1].minute >= int(now_s // 60) else points
    if len(whole) < 2 or all(point.ended == points[0].ended for point in points):
        return ""
    ended = [
        # Looks may be more than a minute apart: then each minute has had its share.
        (
            before.minute + 1,
            after.minute,
            max(after.ended - before.ended, 0) / (after.minute - before.minute),
        )
        for before, after in zip(whole, whole[1:])
    ]
    left = [(point.minute, point.left) for point in points]
    last = points[-1].minute
    first = min(points[0].minute, last - _LEAST_MINUTES)
    since = time.strftime("%H:%M", time.localtime(max(points[0].minute * 60, past.since_s)))
    peak = max(value for _, _, value in ended)
    most = max(point.left for point in points)
    return (
        '<div class="charts">'
        + _chart(
            "done",
            f"Ended a minute since {since}",
            f"most {_number(peak)}, last {_number(ended[-1][2])}",
            _columns(ended, first, peak),
            last + 1 - first,
        )
        + _chart(
            "hand",
            f"Left since {since}",
            f"most {most:,}, now {points[-1].left:,}",
            _area(left, first, most),
            last + 1 - first,
        )
        + "</div>"
    )


def _chart(kind: str, title: str, numbers: str, path: str, width: int) -> str:
    return (
        f'<figure><figcaption>{title}<span class="sub">{numbers}</span></figcaption>'
        f'<svg class="chart" role="img" aria-label="{title}: {numbers}" '
        f'viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none">'
        f'<path class="{kind}" d="{path}"/></svg></figure>'
    )


def _columns(values: Sequence[tuple[int, int, float]], first: int, most: float) -> str:
    path = []
    for start, end, value in values:
        if value:
            height = max(_HEIGHT * value / most, 1)
            x, width = start - first, end + 1 - start
            path.append(f"M{x} {_HEIGHT}v{-height:.1f}h{width}v{height:.1f}z")
    return "".join(path)


def _area(values: Sequence[tuple[int, int]], first: int, most: int) -> str:
    x = values[0][0] - first
    path = [f"M{x} {_HEIGHT}"]
    for minute, value in values:
        y = _HEIGHT - (_HEIGHT - 1) * value / (most or 1)
        path.append(f"V{y:.1f}H{minute + 1 - first}")
    return "".join([*path, f"V{_HEIGHT}z"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
