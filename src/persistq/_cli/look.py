"""Looking at queues: `persistq status` and `persistq outstanding`."""

from __future__ import annotations

import os
import re
import sys

from persistq import _survey
from persistq._cli import show
from persistq._cli.exits import FINE, OUTSTANDING
from persistq._journal.run_state import RunState
from persistq._survey import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

_SHOWN_MESSAGES = 3


def folder_options(options: argparse.Namespace) -> dict[str, Any]:
    """Give what a survey of a folder queue takes, from the command's options.

    Args:
        options (argparse.Namespace): With `extension`, `ignore_case`, `done_dir`, `failed_dir`,
            `items` and `group`.

    Raises:
        ValueError: The pattern of groups is none.
    """
    from persistq._folder.names import dotted

    given: dict[str, Any] = {
        "extension": None if options.extension is None else dotted(options.extension),
        "ignore_case": options.ignore_case,
        "done_folder": options.done_dir,
        "failed_folder": options.failed_dir,
    }
    if options.items is None and options.group is None:
        return given
    if options.items is None or options.group is None:
        raise ValueError(
            "--items and --group go together: which items make a group, and where group and item "
            r"stand in a file's name. For instance --items customers,orders --group "
            r"'(?P<group>\d+)_(?P<item>\w+)'"
        )
    try:
        pattern = re.compile(options.group)
        if not {"group", "item"} <= pattern.groupindex.keys():
            raise re.error("it has no (?P<group>...) or no (?P<item>...)")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"--group {options.group!r} cannot be used: {error}. Expected a regular expression "
            r"with both, such as '(?P<group>\d+)_(?P<item>\w+)'"
        ) from error
    items = frozenset(options.items.split(","))

    def locate(name: str) -> tuple[str, str] | None:
        match = pattern.match(name)
        return (match["group"], match["item"]) if match and match["item"] in items else None

    return {**given, "items": items, "locate": locate}


def status(options: argparse.Namespace) -> int:
    """Show what is true of the queues at some paths.

    Args:
        options (argparse.Namespace): With `paths`, `json` and `alert`, and those of
            `folder_options`.

    Returns:
        int: OUTSTANDING when something is, or was set aside, or a producer failed or died. With
            `alert`, only where a person must look.
    """
    more = folder_options(options)
    found = [survey for path in options.paths for survey in _survey.survey(path, **more)]
    if options.json:
        import json

        show.say(json.dumps(as_json.surveys(found), indent=2))
    else:
        for line in _as_tables(found):
            show.say(line)
    if options.alert:
        return OUTSTANDING if any(survey.needs_attention for survey in found) else FINE
    return FINE if all(map(_is_in_order, found)) else OUTSTANDING


def _is_in_order(survey: _survey.Survey) -> bool:
    if isinstance(survey, _survey.JournalSurvey):
        return survey.is_finished and not survey.failed
    bad = survey.set_aside or survey.failed or survey.producers.dead
    return not (survey.outstanding or bad)


def _as_tables(found: list[_survey.Survey]) -> list[str]:
    journals = [s for s in found if isinstance(s, _survey.JournalSurvey)]
    folders = [s for s in found if isinstance(s, _survey.FolderSurvey)]
    lines: list[str] = []
    if journals:
        rows = [
            [
                "JOURNAL",
                "REQUESTED",
                "COMPLETED",
                "FAILED",
                "OUTSTANDING",
                "IN PROGRESS",
                "CARRIED",
                "TORN",
                "OPEN IN",
                "LAST ACTIVITY",
                "DIRECTORY",
            ]
        ]
        rows += [
            [
                journal.prefix,
                str(journal.requested),
                str(journal.completed),
                str(journal.failed),
                str(journal.outstanding),
                str(sum(hand.count for hand in journal.in_progress)),
                str(journal.carried),
                str(journal.torn),
                show.count_of(len(journal.alive), "process"),
                show.moment(journal.last_activity_s),
                journal.path,
            ]
            for journal in journals
        ]
        lines += show.table(rows)
    if folders:
        lines += [""] * bool(lines) + show.table(_folder_rows(folders))
    for survey in found:
        lines += _in_progress_lines(survey)
    for journal in journals:
        lines += _journal_remarks(journal)
    for folder in folders:
        lines += _remarks(folder)
    return lines


def _journal_remarks(journal: _survey.JournalSurvey) -> list[str]:
    name = show.safe(journal.prefix)
    lines = []
    if journal.failed:
        lines.append(
            f"{name}: {show.count_of(journal.failed, 'message')} set aside. 'persistq failed' says "
            "why, 'persistq retry' has the next run do them again."
        )
    if journal.carried_on is not None:
        where = show.safe(journal.carried_on)
        if journal.outstanding or journal.failed:
            lines.append(f"{name}: carried on in {where}, but not there any more: it is only here.")
        else:
            lines.append(f"{name}: carried on, so what was left is in {where}.")
    return [""] * bool(lines) + lines


def _folder_rows(folders: list[_survey.FolderSurvey]) -> list[list[str]]:
    rows = [
        [
            "FOLDER",
            "WAITING",
            "IN PROGRESS",
            "DONE",
            "FAILED",
            "OPEN",
            "CLOSED",
            "DEAD",
            "STATE",
            "LAST ACTIVITY",
        ]
    ]
    for folder in folders:
        producers = folder.producers
        state = "failed" if folder.failed else "closed" if folder.ended else "open"
        if not folder.is_queue:
            state = "empty"
        rows.append(
            [
                folder.path,
                str(folder.waiting),
                str(sum(hand.count for hand in folder.in_progress)),
                "-" if folder.done is None else str(folder.done),
                str(folder.set_aside),
                str(producers.open),
                str(producers.closed),
                str(producers.dead),
                state,
                show.moment(folder.last_activity_s),
            ]
        )
    return rows


def _in_progress_lines(survey: _survey.Survey) -> list[str]:
    if not survey.in_progress:
        return []
    name = survey.path if isinstance(survey, _survey.FolderSurvey) else survey.prefix
    lines = ["", f"In progress in {show.safe(name)}:"]
    for hand in survey.in_progress:
        where = f" of host {hand.host}" if hand.state == _survey.ELSEWHERE else ""
        shown = [os.fsdecode(message) for message in hand.messages[:_SHOWN_MESSAGES]]
        more = ", ..." if hand.count > len(shown) else ""
        lines.append(
            f"  process {hand.pid}{where}, {hand.state}, has {hand.count} since "
            f"{show.moment(hand.since_s)}: {', '.join(map(show.safe, shown))}{more}"
        )
    return lines


def _remarks(folder: _survey.FolderSurvey) -> list[str]:
    path = show.safe(folder.path)
    lines = []
    if folder.failed:
        lines.append(f"{path}: a producer failed; consumers stop, whatever waits.")
    if folder.producers.dead:
        lines.append(
            f"{path}: {show.count_of(folder.producers.dead, 'producer')} died without closing; "
            "consumers stop once no file waits."
        )
    if any(hand.state == _survey.DEAD for hand in folder.in_progress):
        lines.append(f"{path}: 'persistq reclaim' puts back what dead processes had taken.")
    for group, missing in sorted(folder.incomplete.items()):
        lines.append(f"{path}: group {show.safe(group)} waits for {show.safe(', '.join(missing))}.")
    for name, reason in folder.odd.items():
        lines.append(f"{path}: {show.safe(name)} is passed over: {show.safe(reason)}.")
    if folder.set_aside:
        lines.append(
            f"{path}: {show.count_of(folder.set_aside, 'file')} set aside. 'persistq failed' says "
            "why, 'persistq retry' puts them on the queue again."
        )
    if folder.others:
        kinds = show.safe(", ".join(kind or "none" for kind in folder.other_kinds))
        what = "" if folder.is_queue else "neither journals nor messages, but "
        lines.append(
            f"{path}: {what}{show.count_of(folder.others, 'file')} of other kinds ({kinds}) "
            f"than {show.safe(folder.extension)}; --extension says how messages end."
        )
    return [""] * bool(lines) + lines


def outstanding(options: argparse.Namespace) -> int:
    """Print the outstanding messages of journals, one a line as journalled.

    Args:
        options (argparse.Namespace): With `path`, `prefix` and `zero`.
    """
    from persistq._journal.codec import Codec
    from persistq._journal.outstanding import Outstanding
    from persistq._journal.outstanding import outstanding as read

    places = journal_places(options.path, options.prefix)
    if len({state.names.prefix for state in places}) > 1:
        prefixes = sorted({state.names.prefix for state in places})
        raise ValueError(
            f"{options.path} holds journals of {', '.join(prefixes)}; say which with --prefix"
        )
    # Earlier work first, as it would be requeued.
    for place in reversed(places):
        work: Outstanding | None = None
        for number in range(20):
            try:
                work = read(RunState(place.directory, place.names.prefix).chain())
                break
            except FileNotFoundError:
                if number == 19:
                    raise  # else a file has been renamed: carried work is being requeued
        assert work is not None
        if options.zero:
            codec = Codec()
            _write_all([as_json.plain(codec, line) for line in work.lines], b"\0")
        elif sys.stdout.isatty():
            _write_all([os.fsencode(_visible(line)) for line in work.lines], b"\n")
        else:
            _write_all(work.lines, b"\n")
    return FINE


def journal_places(path: str, prefix: str | None) -> list[RunState]:
    """Find the runs that hold the work of the journals at a path, wherever it is by now.

    Args:
        path (str): A pickup directory, or a root of them.
        prefix (str | None): Whose journals; None for all.

    Returns:
        list[RunState]: One at least; the latest run first.

    Raises:
        ValueError: There are no such journals.
        PersistqError: A run was carried on to where its work is not any more.
    """
    from persistq._journal.decisions import where_work_is

    found = _survey.journals(path)
    places = [place for place in found if prefix is None or place[1] == prefix]
    if not found:
        raise ValueError(
            f"{path} holds no journals; expected a directory with files such as "
            "jobs_requested_PID123.tsv. For a folder queue, 'ls' shows what waits."
        )
    if not places:
        known = ", ".join(sorted({name for _, name in found}))
        raise ValueError(
            f"{path}: no journals of {prefix!r}; expected one of those that are there: {known}"
        )
    states: dict[tuple[str, str], RunState] = {}
    for folder, name in places:
        state = where_work_is(folder, name)
        if state.directory != folder:
            show.complain(f"the work of {name!r} in {folder} was carried on: see {state.directory}")
        states.setdefault((os.path.realpath(state.directory), name), state)
    return list(states.values())


def _visible(line: bytes) -> str:
    return "\t".join(show.safe(part) for part in os.fsdecode(line).split("\t"))


def _write_all(lines: list[bytes], end: bytes) -> None:
    for start in range(0, len(lines), 10_000):
        show.write(b"".join([line + end for line in lines[start : start + 10_000]]))
