"""Measure persistq against its limits, and against its peers where these are installed.

    python tests/benchmarks                        everything; half an hour
    python tests/benchmarks --quick                in under a minute: orders of magnitude
    python tests/benchmarks --only end-to-end recovery --json figures.json

Every contender does the same work on the same disk in the same run, in rounds that take turns.
Shown are the median, the lowest and highest value, and the ratio to the limit, which is the
first contender of each work: the median of the ratios of the rounds. Compare ratios, and rates
only within one run; on a machine that does other things, trust ratios to about 20 percent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import end_to_end
import engines
import footprint
import jobs
import peers
import scaling
from harness import Amounts, Report, about

import carrier
import cli
import folder
import journal

if TYPE_CHECKING:
    from collections.abc import Callable

SECTIONS: dict[str, Callable[[Amounts, Report], None]] = {
    **end_to_end.SECTIONS,
    **journal.SECTIONS,
    **folder.SECTIONS,
    **footprint.SECTIONS,
    **jobs.SECTIONS,
    **cli.SECTIONS,
    **carrier.SECTIONS,
    **engines.SECTIONS,
    **scaling.SECTIONS,
    **peers.SECTIONS,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="PART", help=f"of {', '.join(SECTIONS)}"
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_const", const="quick", dest="level")
    level.add_argument(
        "--tiny", action="store_const", const="tiny", dest="level", help="see that it runs"
    )
    parser.add_argument("--rounds", type=int, help="of each contender (7; 3 if quick; 1 if tiny)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too; - prints")
    parser.add_argument("--dir", help="a directory on the disk to measure (a temporary one)")
    options = parser.parse_args()
    level = options.level or "full"
    rounds = options.rounds or {"full": 7, "quick": 3, "tiny": 1}[level]
    print(*(f"{key}: {value}" for key, value in about().items()), sep="\n")
    report, began_s = Report(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        amounts = Amounts(rounds, level, directory)
        parts_s = {}
        for name in options.only or SECTIONS:
            part_began_s = time.monotonic()
            SECTIONS[name](amounts, report)
            parts_s[name] = round(time.monotonic() - part_began_s, 1)
    took_s = round(time.monotonic() - began_s, 1)
    load = about()["load"]
    print("\nseconds:", ", ".join(f"{name} {part_s}" for name, part_s in parts_s.items()))
    print(f"took {took_s} s; load at the end: {load}")
    report.write(options.json, level=level, rounds=rounds, took_s=took_s, load_at_end=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
