"""What a package index shows of this: a page without dead links, and a licence."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # Without a cache of its byte code in docs/.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = ROOT / "docs/readme_for_pypi.py"
    spec = importlib.util.spec_from_file_location("readme_for_pypi", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_on_a_package_index_has_no_dead_links_and_names_the_files(
    hook: ModuleType,
) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    metadata: dict[str, Any] = {}
    update: Any = hook.ReadmeHook.update
    update(type("Project", (), {"root": str(ROOT)}), metadata)
    page = metadata["readme"]["text"]
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)\s]+)\)", readme)
    assert pictures
    for words, target in pictures:
        assert f"*{words}*" in page
        assert target not in page
    links = re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", readme)
    assert links
    for target in links:
        if not re.match(r"[a-z]+:", target):
            assert f"]({target})" not in page
            assert f"(`{target}`)" in page
    assert not re.search(r"\]\((?!https?:)", page)
    assert re.findall(r"^```\w+ .*$", readme, re.MULTILINE)
    assert not re.findall(r"^```\w+ .*$", page, re.MULTILINE)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")
def test_the_licence_is_an_expression_and_its_file_is_named() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"] == "MIT"
    assert all((ROOT / name).is_file() for name in project["license-files"])
    # Both would be an error to the index.
    assert not [text for text in project["classifiers"] if text.startswith("License ::")]
