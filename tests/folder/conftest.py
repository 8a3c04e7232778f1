"""All that queues of files promise is tried both ways: with the kernel's rename, and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistq import _fs

BOTH_WAYS = {"test_readable", "test_writable", "test_grouped", "test_processes", "test_recovery"}
BOTH_WAYS |= {"test_leases", "test_publishing", "test_failing", "test_patience"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.fixturenames.append("rename_way")
        metafunc.parametrize("rename_way", ["kernel rename", "link and unlink"], indirect=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    path.mkdir()
    return path


@pytest.fixture
def rename_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rename as this system does, or as on one whose rename cannot refuse to overwrite."""
    if request.param == "link and unlink":
        monkeypatch.setenv(_fs.NO_KERNEL_RENAME, "1")
        # As when it was first asked for: children find out for themselves.
        monkeypatch.setattr(_fs, "_kernel_rename", _fs._find_kernel_rename)
    return str(request.param)
