"""Make the page that a package index shows out of README.md, whose links would lead nowhere there.

The build backend calls this (`[tool.hatch.metadata.hooks.custom]`). There is no address at which
the files of the repository can be read, so a link to one becomes its path, which is the same in the
repository and in the source distribution.
"""

from __future__ import annotations

import re
from pathlib import Path

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # in the tests, which need no build backend
    MetadataHookInterface = object

NOTE = "> Paths in parentheses are those of files in the source distribution.\n"


def for_pypi(text: str) -> str:
    """Return the page.

    Args:
        text (str): The README: Markdown that begins with a heading.
    """
    heading, _, rest = text.partition("\n\n")
    rest = re.sub(r"!?\[([^\]]+)\]\((?![a-z]+:)([^)\s]+)\)", r"\1 (`\2`)", rest)
    # What the tests read behind a block's language keeps the index from colouring it.
    rest = re.sub(r"^(```\w+) .*$", r"\1", rest, flags=re.MULTILINE)
    return f"{heading}\n\n{NOTE}\n{rest}"


class ReadmeHook(MetadataHookInterface):
    """What the build backend asks for the metadata that pyproject.toml calls dynamic."""

    def update(self, metadata: dict) -> None:
        """Add the readme."""
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_pypi(text)}
