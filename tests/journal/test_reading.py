"""Lines are found in files of any number and length, and in what these grow by."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from persistq._journal import reading, tail
from persistq._journal.codec import Codec, line_key
from persistq._journal.reading import FIELDS_BEFORE_FAILED, Reader, scan
from persistq._journal.tail import Shrunk, Tail

if TYPE_CHECKING:
    from pathlib import Path


def net(keys: list[bytes], counts: Counter[bytes]) -> None:
    """Count what a `Tail` has yielded."""
    for key in keys:
        if key.startswith(b"\x10-"):
            counts[key[2:]] -= 1
        else:
            counts[key] += 1


def new_keys(reader: Tail, *paths: Path) -> list[bytes]:
    return [key for keys in reader.read(map(str, paths)) for key in keys]


def test_a_scan_counts_the_lines_it_is_asked_for_less_those_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 16)
    row = Codec().encode({"b": 1, "a": 2})
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a\nb\r\n" + row + b"\na\n\x10-a\nc\n\x10-c\ne\n")
    two.write_bytes(b"a\n" + Codec().encode({"a": 2, "b": 1}) + b"\nd\nb torn")
    wanted = {b"a", b"b", b"c", b"other", line_key(row)}

    found = scan([str(one), str(two)], wanted)

    assert found == {b"a": 2, b"b": 1, line_key(row): 2}
    assert b"c" not in found


def test_a_scan_of_what_was_set_aside_looks_at_the_messages(tmp_path: Path) -> None:
    failed = tmp_path / "failed"
    failed.write_bytes(b"then\t1\ta\tb\tc\nthen\t1\ta\ta\n\x10-then\t1\ta\ta\nthen\t2\tx\tb\tc\n")
    assert scan([str(failed)], [b"a", b"b\tc"], FIELDS_BEFORE_FAILED) == {b"b\tc": 2}


def test_a_reader_that_closes_its_file_notices_when_another_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 4)
    path, other = tmp_path / "journal", tmp_path / "other"
    path.write_bytes(b"a\nb\nc\nd\n")
    other.write_bytes(b"1\n2\n3\n4\n")
    reader = Reader(str(path), stays_open=False)
    block = reader.read()
    assert block is not None
    assert block.lines == [b"a", b"b"]
    block = reader.read()
    assert block is not None
    assert block.lines == [b"c", b"d"]
    os.replace(other, path)
    with pytest.raises(FileNotFoundError, match="journal"):
        reader.read()


def test_a_tail_yields_each_line_once_it_is_whole(tmp_path: Path) -> None:
    one, two, new = tmp_path / "one", tmp_path / "two", Tail()
    one.write_bytes(b"a\nb\r\nhalf")
    two.touch()
    assert new_keys(new, one, two) == [b"a", b"b"]
    assert new_keys(new, one, two) == []
    with one.open("ab") as file:
        file.write(b" of it\n\x10-a\n")
    two.write_bytes(Codec().encode({"b": 1, "a": 2}) + b"\n")
    assert new_keys(new, one, two) == [b"half of it", b"\x10-a", b'\x10={"a": 2, "b": 1}']


def test_a_tail_follows_a_renamed_file_and_reads_another_of_its_name(tmp_path: Path) -> None:
    path, moved, new = tmp_path / "journal", tmp_path / "moved", Tail()
    path.write_bytes(b"a\n")
    assert new_keys(new, path) == [b"a"]
    path.rename(moved)
    path.write_bytes(b"a\n")
    with moved.open("ab") as file:
        file.write(b"b\n")
    assert new_keys(new, path, moved) == [b"a", b"b"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        new_keys(new, path)


def test_a_tail_opens_no_file_in_which_nothing_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "journal", Tail()
    path.write_bytes(b"a\n")
    assert new_keys(new, path) == [b"a"]
    monkeypatch.setattr(Tail, "_read", None)
    assert new_keys(new, path) == []


def test_a_tail_takes_back_lines_that_were_cut_off(tmp_path: Path) -> None:
    path, new = tmp_path / "journal", Tail()
    path.write_bytes(b"a\nb\n\x10-a\n")
    assert new_keys(new, path) == [b"a", b"b", b"\x10-a"]
    path.write_bytes(b"a\n")
    assert new_keys(new, path) == [b"\x10-b", b"a"]
    path.write_bytes(b"")
    assert new_keys(new, path) == [b"\x10-a"]


@pytest.mark.parametrize("remembered", [0, 30, 1 << 15])
@pytest.mark.parametrize("seed", range(20))
def test_what_a_tail_has_yielded_is_what_the_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, remembered: int
) -> None:
    monkeypatch.setattr(tail, "_REMEMBERED_BYTES", remembered)
    monkeypatch.setattr(tail, "_BLOCK_BYTES", 16)
    dice, path = random.Random(seed), tmp_path / "journal"
    lines: list[bytes] = []
    new, counts, begun = Tail(), Counter[bytes](), 1
    for look in range(60):
        for _ in range(dice.randrange(3)):
            if lines and dice.random() < 0.4:
                del lines[-dice.choice([1, 1, 1, 2, 9]) :]  # refused
            # All of one length, so that the size does not tell that they are others.
            lines += [b"%03d" % dice.randrange(1000) for _ in range(dice.choice([0, 1, 1, 4]))]
            if dice.random() < 0.1:
                lines.append(b"long " * dice.randrange(30))
        path.write_bytes(b"".join(line + b"\n" for line in lines) + dice.choice([b"", b"torn"]))
        os.utime(path, (look, look))  # whatever the resolution of the clock
        try:
            net(new_keys(new, path), counts)
        except Shrunk:
            new, counts, begun = Tail(), Counter(), begun + 1
            net(new_keys(new, path), counts)
        assert +counts == Counter(lines)
        assert min(counts.values(), default=0) >= 0
    assert (begun == 1) is (remembered > 1000)
