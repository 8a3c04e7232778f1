"""The page in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import web_workers
from pages import Browser, Served, why_no_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Nursery

pytestmark = [
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
    pytest.mark.timeout(60),
]

# Each element with text of its own, and how far its colour is from what is behind it (WCAG 2.1).
CONTRASTS = """
const part = (value) => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
  return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
const behind = (element) => { for (; element; element = element.parentElement) {
  const colour = getComputedStyle(element).backgroundColor;
  if (!/, 0\\)$/.test(colour)) return colour; } return "rgb(255, 255, 255)"; };
const ratio = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + .05) / (b + .05); };
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const style = getComputedStyle(element);
  if ([...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    found.push([element.outerHTML.slice(0, 60), ratio(style.color, behind(element)), 4.5]);
  if (["rect", "path", "i"].includes(element.localName) && !element.matches(".none"))
    found.push([element.outerHTML.slice(0, 60), ratio(element.localName === "i"
      ? style.backgroundColor : style.fill, behind(element.parentElement)), 3]);
}
return found.filter(([, value, least]) => least !== null && value < least)
  .concat(found.length > 40 ? [] : [["too few", found.length, 0]]);
"""

# What it does every five seconds, at once: as when the reader comes back to it.
RENEW = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def hostile(tmp_path: Path, nursery: Nursery) -> Iterator[Served]:
    nursery.start(web_workers.hostile_queues, str(tmp_path / "root")).result()
    nursery.start(web_workers.work_on, str(tmp_path / "root"), 5, 1, 1).receive()
    with Served(tmp_path / "root") as served:
        served.until("/", "order 2.csv")
        yield served


def test_it_fits_on_a_telephone_with_any_names_and_nobody_complains(
    hostile: Served, tmp_path: Path
) -> None:
    with Browser(tmp_path, 360) as browser:
        browser.open(hostile.url)
        browser.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [360] * 2
        wide = "return [...document.querySelectorAll('body *')].filter((one) => "
        wide += "one.getBoundingClientRect().right > 360).length"
        assert browser.run(wide) == 0
        assert browser.run("return document.querySelectorAll('article').length") == 3
        loaded = "return performance.getEntriesByType('resource').map((one) => one.name)"
        assert {name for name in browser.run(loaded) if not name.startswith("data:")} <= {
            hostile.url
        }
        assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_pictures_have_contrast_in_the_light_and_in_the_dark(
    scheme: str, hostile: Served, tmp_path: Path
) -> None:
    with Browser(tmp_path) as browser:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.tell("Emulation.setEmulatedMedia", features=features)
        browser.open(hostile.url)
        browser.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert browser.run(CONTRASTS) == []
        back = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", back))) < 60 or scheme == "light"


def test_it_renews_itself_keeps_what_the_reader_opened_and_says_when_nobody_answers(
    tmp_path: Path, nursery: Nursery
) -> None:
    worker = nursery.start(web_workers.work_on, str(tmp_path / "root"), 5, 1)
    worker.receive()
    with Served(tmp_path / "root") as served, Browser(tmp_path) as browser:
        browser.open(served.url)
        assert "1 done" in browser.run("return document.body.innerText")
        browser.run("document.querySelector('summary').click()")
        browser.run("document.querySelector('summary').focus()")
        browser.run("window.stays = true")
        worker.send("next")
        worker.receive()

        browser.until("return document.body.innerText.includes('2 done')")

        assert browser.run("return window.stays")  # not loaded again
        assert browser.run("return document.querySelector('details').open")
        assert browser.run("return document.activeElement.localName") == "summary"
        worker.kill()
        served.until("/", "1 queue: 1 to look into")
        browser.run(RENEW)
        browser.until("return document.title.startsWith('1 queue: 1 to look into')")
        assert browser.complaints() == []
        served.end()
        browser.run(RENEW)
        browser.until("return document.getElementById('said').textContent.includes('No answer')")
        assert "2 done" in browser.run("return document.body.innerText")


def test_without_javascript_all_is_there_and_the_browser_is_told_to_load_it_again(
    tmp_path: Path, nursery: Nursery
) -> None:
    worker = nursery.start(web_workers.work_on, str(tmp_path / "root"), 5, 1, 1)
    worker.receive()
    switch = "--blink-settings=scriptEnabled=false"
    with Served(tmp_path / "root") as served, Browser(tmp_path, 1200, switch) as browser:
        browser.open(served.url)
        source = browser.source()
    assert re.search(r'<noscript><meta http-equiv="refresh" content="10"', source)
    assert "1 done</li>" in source
    assert "line 3: no amount" in source


def roles(tree: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (node["role"]["value"], str(node.get("name", {}).get("value", "")))
        for node in tree
        if not node.get("ignored") and "role" in node
    ]


def test_a_screen_reader_finds_landmarks_headings_pictures_in_words_and_tables(
    hostile: Served, tmp_path: Path
) -> None:
    with Browser(tmp_path, 360) as browser:  # where the tables are shown as lines
        browser.open(hostile.url)
        browser.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
        found = roles(browser.tell("Accessibility.getFullAXTree")["nodes"])
    kinds = [role for role, _ in found]
    for landmark in ("banner", "main", "contentinfo"):
        assert kinds.count(landmark) == 1
    assert kinds.count("article") == 3
    headings = [name for role, name in found if role == "heading"]
    assert len(headings) == 4
    assert ("image", "Of 5 messages: 1 done, 1 set aside, 1 in progress, 2 waiting") in found
    tables = [name for role, name in found if role == "table"]
    assert "Messages of orders that were set aside, the latest first" in tables
    assert {"columnheader", "row", "cell"} <= set(kinds)
    assert ("columnheader", "Reason") in found
