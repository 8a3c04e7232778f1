"""Random histories of runs, as files, and what they leave by the plain rule of the multiset."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from persistq._journal.codec import Codec
from persistq._journal.outstanding import Journals

if TYPE_CHECKING:
    from pathlib import Path

ASIDE = b"2024-02-29T01:02:03+00:00\t2\tValueError: bad \x10t line\t"
TORN = [b"half a li", b"\0\0\0", b"\x10"]
encode = Codec().encode


class History:
    """Several runs of a job, in which some of all that may happen has happened.

    Args:
        folder (Path): Where the files are to be.
        seed (int): What the dice begin with.

    Attributes:
        runs (list[Journals]): The files of each run.
        left (list[bytes]): What is outstanding, in order: the lines as they were requested.
        requested (int): How often something was requested, and so on.
        completed (int): Likewise.
        failed (int): Likewise.
        torn (int): How many files end in a torn line.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.dice = random.Random(f"history {seed}")
        self.requested = self.completed = self.failed = self.torn = 0
        self.runs: list[Journals] = []
        # Whether anything is put twice, or withdrawn, at all: most nights have neither.
        self.is_simple = self.dice.random() < 0.4
        self.kinds = self.dice.choice([["text"], ["text", "dict"], ["text", "dict", "raw"]])
        self.count = 0
        left: list[tuple[object, bytes]] = []  # what the message is equal by, and its line
        for number in range(self.dice.randrange(1, 5)):
            left = self._run(number, left)
        self.left = [line for _, line in left]

    def _message(self) -> tuple[object, bytes]:
        dice = self.dice
        number = self.count if self.is_simple or dice.random() < 0.6 else dice.randrange(20)
        self.count += 1
        kind = self.kinds[number % len(self.kinds)]
        return (kind, number), self._line(kind, number)

    def _line(self, kind: str, number: int) -> bytes:
        """Return one of the lines that a message may have."""
        if kind == "text":
            return b"message %d" % number
        if kind == "raw":
            return self.dice.choice([b"\x10", b"\x10d"]) + b"\t%d" % number
        row = [("id", number), ("name", f"\xe4 {number}"), ("deep", {"y": 1, "x": [number]})]
        self.dice.shuffle(row)
        if number % 2:
            row = [pair for pair in row if pair[0] != "deep"]
        return encode(dict(row)) if number % 3 else encode((dict(row), "text"))

    def _run(self, number: int, left: list[tuple[object, bytes]]) -> list[tuple[object, bytes]]:
        dice = self.dice
        requests: list[tuple[object, bytes]] = []
        requested_files = []
        for _ in range(dice.randrange(4)):
            lines, net = [], []
            for _ in range(dice.choice([0, 3, 40, 400])):
                message = self._message()
                lines.append(message[1])
                net.append(message)
                if not self.is_simple and dice.random() < 0.05:
                    # Of equal lines in one file it is the last that was refused.
                    refused = dice.choice(net)
                    at = max(n for n, other in enumerate(net) if other[1] == refused[1])
                    lines.append(b"\x10-" + net.pop(at)[1])
            requests += net
            requested_files.append(lines)
        self.requested += len(requests)
        work = [*left, *requests]
        done = [message for message, _ in work if dice.random() < 0.8]
        disorder = dice.choice([0, 5, 1000])
        order = [at + dice.randrange(disorder + 1) for at in range(len(done))]
        done = [message for _, _, message in sorted(zip(order, range(len(done)), done))]
        if done and dice.random() < 0.3:
            done += dice.choices(done, k=3)  # more often than they were requested
        if dice.random() < 0.3:
            done.insert(0, ("text", -1))  # never requested
        if dice.random() < 0.2:
            done.insert(0, ("text", self.count + dice.randrange(50)))  # by a later run only
        completed: list[list[bytes]] = [[] for _ in range(dice.randrange(1, 4))]
        failed: list[list[bytes]] = [[] for _ in range(dice.randrange(1, 3))]
        for kind, n in done:
            is_failed = dice.random() < 0.1
            self.failed += is_failed
            self.completed += not is_failed
            file = dice.choice(failed if is_failed else completed)
            line = (ASIDE if is_failed else b"") + self._line(kind, n)
            file.append(line)
            if not self.is_simple and dice.random() < 0.03:
                file += [b"\x10-" + line, line]
            elif not self.is_simple and dice.random() < 0.03:
                other = (ASIDE if is_failed else b"") + self._line("text", dice.randrange(20))
                file += [other, b"\x10-" + other]
        self.runs.append(
            Journals(
                self._write(f"requested{number}", requested_files),
                self._write(f"completed{number}", completed),
                self._write(f"failed{number}", failed),
            )
        )
        # The rule: a completion takes the earliest equal request, and none of a later run.
        for message in done:
            for at, (other, _) in enumerate(work):
                if other == message:
                    del work[at]
                    break
        return work

    def _write(self, name: str, files: list[list[bytes]]) -> list[str]:
        paths = []
        for number, lines in enumerate(files):
            path = self.folder / f"{name}-{number}.tsv"
            end = self.dice.choice([b"\n", b"\n", b"\r\n"])
            torn = self.dice.choice(TORN) if self.dice.random() < 0.2 else b""
            self.torn += bool(torn)
            path.write_bytes(b"".join(line + end for line in lines) + torn)
            paths.append(str(path))
        return paths
