"""Measure contenders in turn over several rounds, and show medians and ratios to their limit."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run each contender once a round, so that a noisy moment meets them all.

    Args:
        contenders (Mapping[str, () -> float]): Each returns its own measure, in any unit.
        rounds (int): How many rounds.

    Returns:
        dict[str, float]: The median of each.
    """
    measures: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            measures[name].append(contenders[name]())
    return {name: statistics.median(values) for name, values in measures.items()}


class Report:
    """Rows of figures, as a table for people and as JSON."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, work: str, contender: str, value: float, unit: str, ratio: float) -> None:
        """Add a row; `ratio` is to the limit of the same work."""
        row = {"work": work, "contender": contender, "value": value, "unit": unit, "ratio": ratio}
        self.rows.append(row)
        print(f"{work:<44} {contender:<28} {value:>12,.3f} {unit:<6} {ratio:>7.2f}", flush=True)

    def write(self, path: str | None) -> None:
        """Write the rows as JSON to a file, or print them for `-`."""
        text = json.dumps(self.rows, indent=2)
        if path == "-":
            print(text)
        elif path:
            with open(path, "w") as file:
                file.write(text)
