"""What is told about machines, users and processes, and who is asked for it."""

from __future__ import annotations

import os

import pytest

from persistq import _processes

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.mark.skipif(not os.path.exists("/etc/passwd"), reason="no /etc/passwd here")
def test_the_users_name_is_told_without_asking_a_directory_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pwd

    def refuse(number: int) -> None:
        raise AssertionError("the C library was asked, which may ask a server")

    monkeypatch.setattr(pwd, "getpwuid", refuse)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with open("/etc/passwd") as file:
        users = [line.split(":") for line in file if line.count(":") > 2]
    for user in users:
        first = next(other for other in users if other[2] == user[2])
        monkeypatch.setattr(os, "getuid", lambda number=int(user[2]): number)
        assert _processes.user_name() == first[0]
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert _processes.user_name() == "uid 4000000000"  # a container's
    monkeypatch.setenv("LOGNAME", "etl")
    assert _processes.user_name() == "etl"
