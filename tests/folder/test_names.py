"""What message files and claimed files are called."""

from __future__ import annotations

import hashlib
import random

import pytest

from persistq._folder import names


@pytest.mark.parametrize("given", ["tsv", ".tsv"])
def test_an_extension_is_the_same_with_and_without_its_dot(given: str) -> None:
    assert names.dotted(given) == ".tsv"


def test_an_extension_may_have_several_parts() -> None:
    extension = names.dotted(".tar.gz")
    assert names.is_message("a.tar.gz", extension)
    assert not names.is_message("a.gz", extension)
    assert names.wip_name("a.tar.gz", extension, "000001_0000000002_") == "000001_0000000002_a.wip"


@pytest.mark.parametrize(
    "bad", ["", ".", "a/b", "../x", "wip", ".wip", "done", ".helo", "failed", "x.WIP", "\0"]
)
def test_an_extension_that_no_message_can_have_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="message_extension"):
        names.dotted(bad)


def test_an_extension_that_only_sounds_like_a_control_file_is_taken() -> None:
    assert names.dotted("undone") == ".undone"


def test_the_host_digits_are_those_of_the_original() -> None:
    expected = int(hashlib.sha256(b"etl.example.com").hexdigest(), 16) % 10**10
    assert names.host_digits("etl.example.com", "") == f"{expected:010d}"


def test_two_containers_on_one_host_are_two_hosts() -> None:
    one, other = (names.host_digits("etl", f"pid:[{number}]") for number in (1, 2))
    assert len({one, other, names.host_digits("etl", "")}) == 3


def test_a_process_id_has_at_least_six_digits() -> None:
    assert names.wip_prefix(7, "0123456789") == "000007_0123456789_"
    assert names.wip_prefix(4194304, "0123456789") == "4194304_0123456789_"


def test_claimed_names_come_apart_as_they_were_put_together() -> None:
    random_source = random.Random(20)
    letters = "ab_.- \n\\é漢\udce9" + "0123456789"
    for _ in range(2000):
        stem = "".join(random_source.choices(letters, k=random_source.randint(1, 20)))
        pid = random_source.randrange(1, 10**8)
        host = f"{random_source.randrange(10**10):010d}"
        name = names.wip_name(stem + ".tsv", ".tsv", names.wip_prefix(pid, host))
        assert names.parse_wip(name) == (pid, host, stem)


@pytest.mark.parametrize(
    "name",
    [
        "a.wip",
        "00012_0123456789_a.wip",
        "000123_012345678_a.wip",
        "000123_0123456789_.wip",
        "000123_0123456789_a.tsv",
        "٠٠٠١٢٣_0123456789_a.wip",
        "000123_0123456789_a/b.wip",
    ],
)
def test_other_names_are_no_claimed_files(name: str) -> None:
    assert names.parse_wip(name) is None


def test_a_uuid_is_found_with_dashes_and_underscores() -> None:
    text = "C0FFEE00-1234-5678-9abc-def012345678"
    dashes = text.lower()
    assert names.uuid_endings(text) == (dashes, dashes.replace("-", "_"))
    assert names.uuid_endings("../x") is None
