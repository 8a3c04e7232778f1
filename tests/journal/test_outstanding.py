"""Outstanding is requested minus completed: as a multiset, in order, whatever the files hold."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from persistq import JournalError
from persistq._journal import outstanding as module
from persistq._journal import reading
from persistq._journal.codec import Codec
from persistq._journal.outstanding import Journals, Outstanding, count, outstanding

if TYPE_CHECKING:
    from pathlib import Path


class Files:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, requested: list[bytes], completed: list[bytes]) -> Outstanding:
        """Write these files, and return what is outstanding."""
        paths: list[list[str]] = []
        for kind, contents in (("requested", requested), ("completed", completed)):
            paths.append([])
            for number, content in enumerate(contents):
                path = self.folder / f"{kind}{number}.tsv"
                path.write_bytes(content)
                paths[-1].append(str(path))
        return outstanding(Journals(*paths))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def by_definition(requested: list[list[bytes]], completed: list[list[bytes]]) -> list[bytes]:
    done: dict[bytes, int] = {}
    for lines in completed:
        for line in lines:
            done[line] = done.get(line, 0) + 1
    left = []
    for lines in requested:
        for line in lines:
            if done.get(line):
                done[line] -= 1
            else:
                left.append(line)
    return left


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize(("block_bytes", "lead_lines"), [(1 << 18, 20_000), (16, 3), (5, 0)])
def test_it_is_the_multiset_difference_in_order(
    files: Files, monkeypatch: pytest.MonkeyPatch, block_bytes: int, lead_lines: int
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(module, "_LEAD_LINES", lead_lines)
    rng = random.Random(block_bytes)
    for _ in range(100):
        names = [b"%d" % rng.randrange(rng.choice([3, 30, 300])) for _ in range(rng.randrange(200))]
        cut = sorted(rng.randrange(len(names) + 1) for _ in range(2))
        requested = [names[: cut[0]], names[cut[0] : cut[1]], names[cut[1] :]]
        shuffled = [*rng.sample(names, rng.randrange(len(names) + 1)), b"never requested"]
        completed = [shuffled[::3], shuffled[1::3], shuffled[2::3]]

        found = files.find([joined(x) for x in requested], [joined(x) for x in completed])

        assert found.lines == by_definition(requested, completed)
        assert (found.requested, found.completed) == (len(names), len(shuffled))


def test_each_line_knows_its_file_and_number(files: Files) -> None:
    found = files.find([b"a\nb\n", b"", b"a\nc\nd\n"], [b"a\nc\n"])
    assert found.lines == [b"b", b"a", b"d"]
    places = [found.where(n) for n in range(3)]
    assert [(path[-5:], number) for path, number in places] == [
        ("0.tsv", 2),
        ("2.tsv", 1),
        ("2.tsv", 3),
    ]


@pytest.mark.parametrize(
    ("requested", "completed", "left"),
    [
        (b"a\n\x10-a\n", b"", []),
        (b"a\nb\na\n\x10-a\n", b"", [b"a", b"b"]),
        (b"a\nb\na\n\x10-a\n", b"a\n", [b"b"]),
        (b"a\n\x10-a\na\n", b"a\n", []),
        (b"a\na\na\n\x10-a\n\x10-a\n", b"a\n", []),
        (b"a\nb\n", b"a\nb\n\x10-b\n", [b"b"]),
        (b"a\nb\n", b"b\n\x10-b\nb\n", [b"a"]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1 << 18, 4])
def test_what_was_withdrawn_does_not_count(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    requested: bytes,
    completed: bytes,
    left: list[bytes],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(module, "_LEAD_LINES", 0)
    found = files.find([requested], [completed])
    assert found.lines == left
    net = [text.count(b"\n") - 2 * text.count(b"\x10-") for text in (requested, completed)]
    assert [found.requested, found.completed] == net


@pytest.mark.parametrize("torn", [b"half a li", b"\0\0\0\0", b"half\0\0\0", b"a\x10"])
def test_a_torn_last_line_is_skipped_and_quoted_in_a_warning(
    files: Files, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    found = files.find([b"a\nb\n" + torn], [b"a\n" + torn])
    assert found.lines == [b"b"]
    assert found.torn == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "requested0.tsv" in warnings[0] + warnings[1]
    assert repr(torn.strip(b"\0").decode()) in warnings[0]


def test_line_ends_of_windows_are_read(files: Files) -> None:
    found = files.find([b"a\r\nb\r\nc\r\n"], [b"b\n"])
    assert found.lines == [b"a", b"c"]


def test_a_raw_escape_character_equals_its_escaped_form(files: Files) -> None:
    found = files.find([b"a\x10b\nc\n"], [b"a\x10db\n"])
    assert found.lines == [b"c"]


def test_dicts_are_equal_whatever_the_order_of_their_keys_and_keep_their_own(files: Files) -> None:
    rows = [{"b": n, "a": str(n)} for n in range(4)]
    encode = Codec().encode
    done = [encode(dict(sorted(rows[n].items()))) for n in (1, 3)]
    for repeats in (1, 2):  # as SimpleMatcher, and as GeneralMatcher has it
        found = files.find([joined([encode(row) for row in rows * repeats])], [joined(done)])
        left = [rows[0], rows[2], *(rows * (repeats - 1))]
        messages = found.messages(Codec())
        assert [[*row.items()] for row in messages] == [[*row.items()] for row in left]
        assert found.where(0)[1] == 1


def test_the_number_of_a_line_is_that_on_disk(files: Files) -> None:
    found = files.find([b"a\r\nb\n\x10-b\nc\r\nb\nc\n"], [b"a\n"])
    assert found.lines == [b"c", b"b", b"c"]
    assert [found.where(n)[1] for n in range(3)] == [4, 5, 6]


def test_what_is_set_aside_is_not_outstanding(tmp_path: Path) -> None:
    requested, failed = tmp_path / "requested", tmp_path / "failed"
    requested.write_bytes(b"a\nb\tc\nd\ne\n")
    aside = b"2024-02-29T01:02:03+00:00\t1\tValueError: bad\t"
    failed.write_bytes(
        aside + b"b\tc\n" + aside + b"d\n" + b"\x10-" + aside + b"d\n" + aside + b"e\n" + aside
    )
    journals = Journals([str(requested)], [], [str(failed)])
    for found in (outstanding(journals), count(journals)):
        assert sorted(found.lines) == [b"a", b"d"]
        assert (found.requested, found.completed, found.failed, found.torn) == (4, 0, 2, 1)


def test_a_damaged_line_of_what_is_set_aside_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    requested, failed = tmp_path / "requested", tmp_path / "failed"
    requested.write_bytes(b"a\nb\n")
    failed.write_bytes(b"a\nthen\t1\tbad\tb\n")
    found = outstanding(Journals([str(requested)], [], [str(failed)]))
    assert found.lines == [b"a"]
    assert "failed: skipped a line of 1 fields, 'a'" in caplog.text


def test_a_completion_too_many_cancels_nothing_of_a_later_run(tmp_path: Path) -> None:
    runs = []
    for number, (requested, completed) in enumerate(
        [(b"a\nx\n", b"a\na\ny\n"), (b"a\ny\n", b"x\n"), (b"b\n", b"a\n")]
    ):
        paths = [tmp_path / f"requested{number}", tmp_path / f"completed{number}"]
        paths[0].write_bytes(requested)
        paths[1].write_bytes(completed)
        runs.append(Journals([str(paths[0])], [str(paths[1])]))
    assert outstanding(runs[:1]).lines == [b"x"]
    assert outstanding(runs[:2]).lines == [b"a", b"y"]
    found = outstanding(runs)
    assert found.lines == [b"y", b"b"]
    assert [found.where(n) for n in range(2)] == [
        (str(tmp_path / "requested1"), 2),
        (str(tmp_path / "requested2"), 1),
    ]
    assert sorted(count(runs).lines) == [b"b", b"y"]


def test_a_line_of_many_blocks_comes_back_whole(files: Files) -> None:
    long = b"x" * 3_000_000
    found = files.find([b"a\n" + long + b"\nb\n"], [b"a\n"])
    assert found.lines == [long, b"b"]


def test_a_line_that_a_converter_rejects_is_named(files: Files) -> None:
    found = files.find([b"1\n2\nthree\n4\n"], [b"1\n"])
    with pytest.raises(JournalError) as caught:
        found.messages(Codec(None, [int]))
    assert isinstance(caught.value, ValueError)
    for said in ("requested0.tsv, line 3", "'three'", "converter_list"):
        assert said in str(caught.value)


def test_all_lines_that_a_converter_rejects_are_found(files: Files) -> None:
    found = files.find([b"1\ntwo\n3\nfour\n"], [b"1\n"])
    [two, four] = found.unreadable(Codec(None, [int]))
    assert [two[0], four[0]] == [0, 2]
    assert "requested0.tsv, line 2: 'two'" in str(two[1])
    assert "requested0.tsv, line 4: 'four'" in str(four[1])


def test_no_more_than_a_few_files_are_open_however_many_there_are(files: Files) -> None:
    names = [b"message %d" % n for n in range(1_100)]
    requested = joined(names) + b"left\n"
    files.find([requested], [joined([name, b"long " * 200]) for name in names])
    code = (
        "import glob, resource, sys\n"
        "from persistq._journal import reading\n"
        "from persistq._journal.outstanding import Journals, count, outstanding\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\n"
        "reading._BLOCK_BYTES = 512\n"
        "found = [sorted(glob.glob(f'{sys.argv[1]}/{k}*')) for k in ('requested', 'completed')]\n"
        "print(outstanding(Journals(*found)).lines, *count(Journals(*found)).lines)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(files.folder)], capture_output=True, text=True, timeout=25
    )
    assert done.stdout == "[b'left'] b'left'\n", done.stderr


def test_a_file_that_is_gone_since_it_was_listed_is_said_to_be_so(files: Files) -> None:
    files.find([b"a\n"], [b"a\n"])
    requested = str(files.folder / "requested0.tsv")
    for journals in (
        Journals([requested], [str(files.folder / "gone.tsv")]),
        Journals([requested, str(files.folder / "gone.tsv")], []),
    ):
        with pytest.raises(FileNotFoundError, match=r"gone\.tsv"):
            outstanding(journals)
        with pytest.raises(FileNotFoundError, match=r"gone\.tsv"):
            count(journals)


@pytest.mark.parametrize(
    ("workers", "line"), [(1, b"part-%d"), (4, b"part-%d"), (1, b'\x10={"b": %d, "a": 1}')]
)
def test_memory_does_not_grow_with_the_length_of_the_journal(
    files: Files, monkeypatch: pytest.MonkeyPatch, workers: int, line: bytes
) -> None:
    """Eight times the journal, as little outstanding: by far not eight times the memory."""
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1 << 13)
    monkeypatch.setattr(module, "_LEAD_LINES", 1_000)
    peaks = []
    for amount in (20_000, 160_000):
        lines = [line % n for n in range(amount)]
        parts = [joined(lines[n:-100:workers]) for n in range(workers)]
        requested = [joined(lines)]
        del lines
        files.find(requested, parts)
        tracemalloc.start()
        found = outstanding(
            Journals(
                [str(files.folder / "requested0.tsv")],
                [str(files.folder / f"completed{n}.tsv") for n in range(workers)],
            )
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.lines) == 100
    assert peaks[1] < peaks[0] * 1.5
