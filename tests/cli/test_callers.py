"""Whose a claim is, and who produces, in a shell: the script, whatever stands in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")

LIMIT_S = 25

# Each takes one file. The script is a process group of its own, as from cron or a terminal.
WAYS = """\
f=$(persistq get q 2>>log)
persistq get q | cat > out
( f=$(persistq get q) )
f=$( ( persistq get q; true ) )
f=$(cd . && persistq get q || true)
echo q | xargs persistq get > out
f=$(timeout 20 persistq get q)
f=$(nice nohup env A=1 persistq get q)
f=$(bash -c 'g=$(persistq get q); true')
{ persistq get q > out; true; } & wait
takes() { persistq get q; }; f=$(takes)
"""


def run_script(folder: Path, *shell: str) -> tuple[int, str]:
    """Run script.sh as a session of its own; give its process id and what it said."""
    folder.joinpath("persistq").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m persistq "$@"\n')
    folder.joinpath("persistq").chmod(0o755)
    process = subprocess.Popen(
        [*shell, "script.sh"],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = process.communicate(timeout=LIMIT_S)[0]
    return process.pid, said


@pytest.mark.parametrize("shell", ["dash", "bash -m"])
def test_a_claim_is_the_scripts_whatever_stands_between(tmp_path: Path, shell: str) -> None:
    words = shell.split()
    if not all(map(shutil.which, [words[0], "xargs", "timeout", "nohup", "bash"])):
        pytest.skip(f"{shell}, or a tool, is not installed")
    (tmp_path / "q").mkdir()
    ways = WAYS.splitlines()
    for number in range(len(ways)):
        (tmp_path / "q" / f"{number:02}.tsv").touch()
    # Before it ends: nothing of what it has is a dead one's.
    (tmp_path / "script.sh").write_text(WAYS + "persistq reclaim q\n")

    pid, said = run_script(tmp_path, *words)

    claims = sorted((path.name for path in (tmp_path / "q").glob("*.wip")), key=lambda n: n[-6:])
    owners = {way: int(claim.split("_")[0]) for way, claim in zip(ways, claims)}
    assert owners == dict.fromkeys(ways, pid)
    assert "0 files put back" in said


@pytest.mark.parametrize(
    "code",
    [
        "persistq put q a.tsv; persistq close q",
        "persistq put q a.tsv && exec persistq close q",
        "bash -c 'persistq put q a.tsv; persistq close q'",
        "echo a.tsv | xargs persistq put q; (persistq close q)",
        "x=$(persistq put q a.tsv 2>>log); persistq close q | cat",
        "persistq put --close q a.tsv",
        "setsid -w sh -c 'persistq put q a.tsv; persistq close q'",
    ],
)
def test_what_puts_and_closes_is_one_producer(tmp_path: Path, code: str) -> None:
    if not shutil.which("setsid"):
        pytest.skip("setsid is not installed")
    (tmp_path / "a.tsv").touch()
    (tmp_path / "script.sh").write_text(code + "\n")
    assert run_script(tmp_path, "bash")[1] == ""
    controls = [path for path in (tmp_path / "q").iterdir() if path.suffix in (".helo", ".done")]
    assert len(controls) == 2
    assert len({path.stem.rpartition("_")[2] for path in controls}) == 1


def test_bash_c_that_puts_itself_in_the_place_of_its_last_command_is_one_producer(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.tsv").touch()
    (tmp_path / "script.sh").write_text("")
    run_script(tmp_path, "bash")  # makes the command
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", "persistq put q a.tsv; persistq close q"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        start_new_session=True,
        timeout=LIMIT_S,
        check=True,
    )
    controls = [path for path in (tmp_path / "q").iterdir() if path.suffix in (".helo", ".done")]
    assert len({path.stem.rpartition("_")[2] for path in controls}) == 1
