"""Jobs that look for the dead more often than users' jobs do, so that no test waits for that."""

from __future__ import annotations

import pytest

from persistq._queue import joining
from persistq._run import direct


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LOOK_S", 0.05)
    monkeypatch.setattr(direct, "_JOIN_S", 0.06)
