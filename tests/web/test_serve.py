"""`persistq serve`: who may ask, what is answered, how it begins and ends."""

from __future__ import annotations

import html.parser
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import web_workers
from pages import COMMAND, LIMIT_S, Served, snapshot
from persistq import WritableFolderQueue

if TYPE_CHECKING:
    from processes import Nursery

PAGE_OF_REFERENCE = Path(__file__).parents[2] / "docs/reference/page.md"


def complaint(*arguments: str) -> str:
    """Run a command that is to fail; return what it says."""
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=LIMIT_S)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_json_is_that_of_status_and_looking_writes_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    job = nursery.start(web_workers.work_on, str(tmp_path / "pickups"), 9, 4, 1)
    job.receive()
    nursery.start(web_workers.folder_in_use, str(tmp_path / "inbox"), 3).receive()
    nursery.start(web_workers.work_on, str(tmp_path / "dead"), 3, 1).receive()
    before = snapshot(tmp_path)
    roots = [str(tmp_path / "pickups"), str(tmp_path / "inbox")]

    with Served(*roots) as served, Served(tmp_path) as all_below:
        shown = json.loads(served.get("/status.json").text)
        page = served.get("/").text
        metrics = served.get("/metrics").text
        below = json.loads(all_below.get("/status.json").text)
        result = subprocess.run([*COMMAND, "status", "--json", *roots], stdout=-1, timeout=LIMIT_S)

    assert shown == json.loads(result.stdout)
    assert [survey["schema"] for survey in shown] == [1, 1]
    orders, inbox = shown
    assert (orders["completed"], orders["failed"], orders["outstanding"]) == (4, 1, 4)
    assert sorted(b["path"] for b in below) == sorted(
        [orders["path"], inbox["path"], str(tmp_path / "dead/orders/run_000001")]
    )
    assert "4 done</li>" in page
    assert 'queue="orders",state="waiting"} 3\n' in metrics
    assert snapshot(tmp_path) == before


class Collector(html.parser.HTMLParser):
    """Collects the elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def label_value(text: str) -> str:
    r"""Undo the escapes of a label's value, and then those of persistq."""
    value = re.sub(r'\\([\\"])', r"\1", text)
    assert "\\n" not in text.replace("\\\\", "")

    def undo(match: re.Match[str]) -> str:
        if match[0] == "\\\\":
            return "\\"
        code = int(match[1], 16)
        return chr(code) if len(match[1]) == 4 or code < 0x80 else os.fsdecode(bytes([code]))

    return re.sub(r"\\\\|\\x(?=(..))..|\\u(?=(....))....", lambda m: undo(_first(m)), value)


def _first(match: re.Match[str]) -> re.Match[str]:
    found = re.match(r"\\\\|\\[xu](.+)", match[0])
    assert found is not None
    return found


SAMPLE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)+)\})? (-?[0-9.e+-]+)')


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read metrics as strictly as the format says: each sample once, below its type."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    typed = helped = ""
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped = line.split(" ")[2]
        elif line.startswith("# TYPE "):
            typed = line.split(" ")[2]
            assert line.split(" ")[3] in ("gauge", "counter")
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == typed == helped
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")
            key = (match[1], tuple((name, label_value(value)) for name, value in labels))
            assert key not in found
            found[key] = float(match[3])
    return found


def test_hostile_names_are_text_everywhere(tmp_path: Path, nursery: Nursery) -> None:
    folder = nursery.start(web_workers.hostile_queues, str(tmp_path)).result()

    with Served(tmp_path) as served:
        page = served.get("/").text
        found = json.loads(served.get("/status.json").text)
        metrics = samples(served.get("/metrics").text)

    collected = Collector(page)
    tags = [tag for tag, _ in collected.tags]
    assert (tags.count("script"), tags.count("h1"), tags.count("h2")) == (1, 1, 2)
    assert not {"img", "i<", "u", "b"} & set(tags)
    assert not [name for _, attrs in collected.tags for name in attrs if name.startswith("on")]
    text = "".join(collected.texts)
    assert "<script>alert(1)</script>&\"'\\\\x1b[2J\\x0a\\u202egnp" in text
    assert "caf\\xe9\\xff.csv" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert {survey["path"] for survey in found} == {folder, str(tmp_path / "journals")}
    paths = {dict(labels).get("path") for _, labels in metrics}
    assert paths == {folder, str(tmp_path / "journals"), None}


def test_two_names_that_would_look_alike_are_two_in_the_metrics(tmp_path: Path) -> None:
    names = ["a\\x0a", "a\n", os.fsdecode(b"a\xff"), "a\\xff", "a\\", 'a"', "a\u2028", "a\\u2028"]
    for name in names:
        WritableFolderQueue(tmp_path / name).close()
    with Served(tmp_path) as served:
        found = samples(served.get("/metrics").text)
    paths = {dict(labels)["path"] for name, labels in found if name == "persistq_needs_attention"}
    assert paths == {str(tmp_path / name) for name in names}


def test_the_reference_lists_each_metric_with_its_type(tmp_path: Path, nursery: Nursery) -> None:
    nursery.start(web_workers.work_on, str(tmp_path / "pickups"), 3, 1).receive()
    nursery.start(web_workers.folder_in_use, str(tmp_path / "inbox"), 2).receive()
    with Served(tmp_path) as served:
        text = served.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    page = PAGE_OF_REFERENCE.read_text("utf-8")
    assert dict(re.findall(r"^\| `(persistq_\w+)` \| (\w+) \|", page, re.MULTILINE)) == types
    labels = {name for _, labels in samples(text) for name, _ in labels}
    assert labels == {"kind", "path", "queue", "state", "process"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("127.0.0.1:9", 200),
        ("[::1]:9", 200),
        ("etl.example.org", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("192.0.2.1", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_who_names_the_server_rightly_is_answered(
    host: str, status: int, here: Served
) -> None:
    for path in ("/", "/status.json", "/metrics", "/nothing"):
        answer = here.get(path, Host=host)
        expected = 404 if (status, path) == (200, "/nothing") else status
        assert answer.status == expected
        assert ("persistq_queues" in answer.text) == ((status, path) == (200, "/metrics"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> object:
    with Served(tmp_path_factory.mktemp("root"), "--allowed-host", "etl.example.org") as served:
        yield served


def test_at_all_addresses_any_address_will_do_but_no_name_of_strangers(tmp_path: Path) -> None:
    with Served(tmp_path, "--bind", "0.0.0.0") as served:
        assert served.url.startswith("http://localhost:")
        assert served.get("/", Host="192.0.2.1:80").status == 200
        assert served.get("/", Host=os.uname().nodename).status == 200
        assert served.get("/", Host="evil.example.org").status == 421


def test_nothing_but_reading_is_allowed_and_nothing_from_elsewhere(here: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = here.get("/", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    head = here.get("/metrics", "HEAD")
    assert (head.status, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) > 500
    page, again = here.get("/?x=1"), here.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert page.text.count(f'nonce="{nonce}"') == 2
    assert nonce not in again.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert not re.findall(r"(?:src|href)=\"(?!data:,|status\.json|metrics)", page.text)
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_status_0_whatever_hangs(number: int, tmp_path: Path) -> None:
    hang = (
        "import time; from persistq._web import looks; looks._PATIENCE_S = 0.1; "
        "looks.look = lambda *_: time.sleep(60)"
    )
    with (
        Served(tmp_path, first=hang) as served,
        socket.create_connection(("127.0.0.1", served.port)),
    ):
        first = served.get("/status.json")
        assert (first.status, first.headers["Retry-After"]) == (503, "3")
        assert served.end(number) == (0, "")


def test_wrong_use_is_told(tmp_path: Path, here: Served) -> None:
    port = str(here.port)
    assert f"port {port} of 127.0.0.1 is in use" in complaint(
        "serve", str(tmp_path), "--port", port
    )
    assert "--port 0 takes any" in complaint("serve", str(tmp_path), "--port", port)
    assert "gone is not there. Expected a folder" in complaint("serve", str(tmp_path / "gone"))
    (tmp_path / "file").touch()
    assert "file is no folder" in complaint("serve", str(tmp_path / "file"))
    for wrong in ("-1", "65536"):
        said = complaint("serve", str(tmp_path), f"--port={wrong}")
        assert f"--port {wrong}: expected a number from 0" in said
    said = complaint("serve", str(tmp_path), "--host", "192.0.2.1")
    assert "cannot listen at 192.0.2.1" in said
    assert "127.0.0.1 for itself alone" in said


def test_a_root_that_goes_and_a_folder_that_may_not_be_read_are_told_and_hide_nothing(
    tmp_path: Path,
) -> None:
    WritableFolderQueue(tmp_path / "a").close()
    (tmp_path / "b").mkdir()
    with Served(tmp_path / "a", tmp_path / "b") as served:
        (tmp_path / "b").rmdir()
        page = served.until("/", "Cannot be read").text
        kinds = [(one["kind"], one["path"]) for one in json.loads(served.get("/status.json").text)]
        metrics = samples(served.get("/metrics").text)
    assert "it is not there" in page
    assert kinds == [("folder", str(tmp_path / "a")), ("unreadable", str(tmp_path / "b"))]
    assert metrics[("persistq_unreadable", (("path", str(tmp_path / "b")),))] == 1
