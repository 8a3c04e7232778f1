"""Measure contenders in turn over several rounds, and report medians and ratios to their limit."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Amounts(NamedTuple):
    """How much to measure: in full, in under a minute, or just enough to see that it runs."""

    rounds: int
    level: str  # "full", "quick" or "tiny"
    folder: str  # on the disk to measure

    def of(self, full: Any, quick: Any, tiny: Any) -> Any:
        """Return the amount for this level."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.level]

    def rounds_of(self, at_most: int) -> int:
        """Return the number of rounds, less where one takes long."""
        return min(self.rounds, at_most)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[str]:
        """Make a folder for one measurement: ext4 is slow for a while where much was deleted."""
        path = tempfile.mkdtemp(dir=self.folder)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def about() -> dict[str, Any]:
    """Return what the figures depend on and do not show."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": [round(value, 2) for value in os.getloadavg()],
    }


class Report:
    """Rows of figures, as a table for people and as JSON for programs.

    A row's ratio is its value over the limit's value, both in its unit: for rates ("/s") more is
    better, for times and amounts less. A goal is ("at least", 1.3) or ("at most", 1.2).
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._last_work = ""

    def compare(
        self,
        work: str,
        unit: str,
        limit: str | None,
        contenders: Mapping[str, Callable[[], float]],
        rounds: int,
        goals: Mapping[str, tuple[str, float]] | None = None,
    ) -> dict[str, float]:
        """Run each contender once a round, so that a noisy moment meets them all.

        Args:
            work (str): What all of them do.
            unit (str): Of what they return.
            limit (str | None): The contender that the others are compared with.
            contenders (Mapping[str, () -> float]): Each does the work once and returns its measure.
            rounds (int): How many rounds; each begins with another contender.
            goals (Mapping[str, tuple[str, float]] | None): The ratios that are wanted.

        Returns:
            dict[str, float]: The median of each contender.
        """
        measures: dict[str, list[float]] = {name: [] for name in contenders}
        names = list(contenders)
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                measures[name].append(contenders[name]())
        for name, values in measures.items():
            ratio = None
            if limit is not None:
                # Round by round, for a noisy minute slows both.
                ratio = statistics.median(a / b for a, b in zip(values, measures[limit]))
            self.add(work, name, values, unit, ratio, (goals or {}).get(name))
        return {name: statistics.median(values) for name, values in measures.items()}

    def add(
        self,
        work: str,
        contender: str,
        values: list[float],
        unit: str,
        ratio: float | None = None,
        goal: tuple[str, float] | None = None,
    ) -> None:
        """Add a row of one contender's measures, and print it."""
        met = None
        if goal is not None and ratio is not None:
            met = ratio >= goal[1] if goal[0] == "at least" else ratio <= goal[1]
        row = {
            "work": work,
            "contender": contender,
            "value": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "unit": unit,
            "ratio": ratio,
            "goal": goal,
            "met": met,
        }
        self.rows.append(row)
        if work != self._last_work:
            print(f"\n{work}", flush=True)
            self._last_work = work
        spread = f"{min(values):,.4g}-{max(values):,.4g}"
        shown = f"{row['value']:>12,.4g} {unit:<6} {spread:>20}"
        if ratio is not None:
            shown += f"  x {ratio:.3g}"
        if goal is not None:
            shown += f"  ({goal[0]} {goal[1]}: {'met' if met else 'missed'})"
        print(f"  {contender:<34} {shown}", flush=True)

    def skip(self, work: str, why: str) -> None:
        """Say that something is not measured."""
        print(f"\n{work}\n  skipped: {why}", flush=True)

    def write(self, path: str | None, **more: Any) -> None:
        """Write the rows as JSON to a file, or print them for `-`."""
        text = json.dumps({**about(), **more, "rows": self.rows}, indent=2)
        if path == "-":
            sys.stdout.write(text + "\n")
        elif path:
            with open(path, "w") as file:
                file.write(text)
