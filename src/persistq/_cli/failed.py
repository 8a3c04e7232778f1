"""Work that was set aside: `persistq failed`, `retry` and `discard`."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter

from persistq import PersistqError, _survey
from persistq._cli import show
from persistq._cli.exits import ERROR, FINE, TAKEN
from persistq._cli.look import journal_places
from persistq._cli.repair import may
from persistq._journal.codec import Codec
from persistq._journal.decisions import decide, undecided
from persistq._survey import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from persistq._folder.failing import FailedFile
    from persistq._journal.failures import FailedLine
    from persistq._journal.run_state import RunState

_HEADING = ["MESSAGE", "ATTEMPTS", "WHEN", "REASON"]


class _FolderPlace:
    """A folder queue, and the directory where its bad files go.

    Args:
        options (argparse.Namespace): With `path`, `extension` and `failed_dir`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.path: str = options.path
        self.extension, self.ignore_case = _survey.ending_of(
            options.path, options.extension, options.ignore_case
        )
        self.directory: str | None = options.failed_dir

    def files(self) -> list[FailedFile]:
        """List what was set aside."""
        from persistq._folder import failing

        return failing.list_failed(self.path, self.extension, self.directory, self.ignore_case)


def _places(options: argparse.Namespace) -> tuple[list[RunState], _FolderPlace | None]:
    """Find the runs at a path, the earliest first, and the folder queue if it is one.

    Raises:
        ValueError: It is neither.
    """
    has_journals = bool(_survey.journals(options.path))
    if options.prefix is not None:
        return journal_places(options.path, options.prefix)[::-1], None
    runs = journal_places(options.path, None)[::-1] if has_journals else []
    folder = _FolderPlace(options)
    is_queue = options.failed_dir is not None or bool(folder.files())
    if not is_queue and not has_journals:
        survey = _survey.FolderSurvey(
            options.path, folder.extension, ignore_case=folder.ignore_case
        )
        is_queue = survey.is_queue
        if not is_queue:
            raise ValueError(
                f"{options.path} holds neither journals nor a folder queue; expected a pickup "
                "directory, a root of them, or the folder of a queue"
            )
    return runs, folder if is_queue else None


def failed(options: argparse.Namespace) -> int:
    """List what was set aside, and nobody has decided.

    Args:
        options (argparse.Namespace): With `path`, `prefix`, `json`, `extension` and `failed_dir`.
    """
    codec = Codec()
    runs, folder = _places(options)
    found = [(run, undecided(run)) for run in runs]
    files = folder.files() if folder is not None else []
    if options.json:
        import json

        entries = [
            as_json.failed_line(run, record, codec) for run, records in found for record in records
        ]
        entries += [as_json.failed_file(options.path, file) for file in files]
        show.say(json.dumps(entries, indent=2))
        return FINE
    tables = []
    for run, records in found:
        rows = []
        for record in records:
            work = record.work(codec)
            when = show.moment(work.failed_at.timestamp())
            rows.append([as_json.text_of(codec, record), str(work.attempts), when, work.reason])
        tables.append((f"{run.names.prefix} ({run.directory})", _HEADING, rows))
    rows = [
        [
            file.message,
            str(file.attempts),
            show.moment(file.failed_at.timestamp() if file.failed_at is not None else 0),
            file.reason or "-",
            file.path,
        ]
        for file in files
    ]
    tables.append((options.path, [*_HEADING, "FILE"], rows))
    tables = [table for table in tables if table[2]]
    for number, (name, heading, rows) in enumerate(tables):
        show.say("\n" * bool(number) + f"Set aside in {show.safe(name)}:")
        for line in show.table([heading, *rows]):
            show.say(line)
    if not tables:
        show.say("nothing is set aside")
    return FINE


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
        """Return the records that are meant."""
        return [
            record for record in records if self._is_meant(as_json.text_of(self._codec, record))
        ]

    def choose_files(self, files: list[FailedFile]) -> list[FailedFile]:
        """Return the files that are meant, by their own names."""
        return [file for file in files if self._is_meant(file.message)]

    def _is_meant(self, text: str) -> bool:
        if not self._patterns:
            return True
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
        options (argparse.Namespace): With `path`, `patterns`, `prefix`, `extension` and
            `failed_dir`.
    """
    from persistq._folder import failing

    patterns = _Patterns(options.patterns)
    runs, folder = _places(options)
    count, status = _decide_each(runs, patterns, {}, "outstanding again", begin_anew=True)
    files = 0
    if folder is not None:
        meant = patterns.choose_files(folder.files())
        names = {file.message for file in meant}
        restored = failing.retry_failed(
            folder.path, folder.extension, folder.directory, names, folder.ignore_case
        )
        files = len(restored)
        waiting = Counter(map(os.path.basename, restored))
        for file in meant:
            waiting[file.message] -= 1
            if waiting[file.message] >= 0:
                show.say(f"waits again: {show.safe(file.message)}")
            else:
                show.complain(f"{file.path}: left there, since {file.message} waits already")
                status = TAKEN
    status = max(status, patterns.complain_of_the_rest())
    if files:
        show.say(f"{show.count_of(files, 'file')} put on the queue again")
    if count or (status == FINE and not files):
        ending = ": the next run does them" if count > 1 else ": the next run does it"
        show.say(f"{show.count_of(count, 'message')} to be done again{ending if count else ''}")
    return status


def discard(options: argparse.Namespace) -> int:
    """Give up what was set aside.

    Args:
        options (argparse.Namespace): With `path`, `patterns`, `prefix`, `extension`, `failed_dir`
            and `yes`.
    """
    from persistq._folder import failing

    patterns = _Patterns(options.patterns)
    places, folder = _places(options)
    names = {f.message for f in patterns.choose_files(folder.files())} if folder else set()
    # What has come since the question was asked, is not what was asked about.
    asked = {_key(place): Counter(_texts(patterns.choose(undecided(place)))) for place in places}
    number = sum(sum(texts.values()) for texts in asked.values()) + len(names)
    status = patterns.complain_of_the_rest()
    if number:
        question = f"{show.count_of(number, 'message')} set aside would be given up"
        question += ", and their files deleted." if names else "."
        if not may(question, options):
            return ERROR
    count, other = _decide_each(places, patterns, asked, "given up", begin_anew=False)
    status = max(status, other)
    if folder is not None and names:
        for name in failing.discard_failed(
            folder.path, folder.extension, folder.directory, names, folder.ignore_case
        ):
            show.say(f"given up: {show.safe(name)}")
            count += 1
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
            show.say(f"{what}: {show.safe(as_json.text_of(codec, record))}")
        count += len(records)
    return count, status
