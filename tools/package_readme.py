"""Build hook of hatchling: README.md as a package index shows it, where relative links lead nowhere.

With ``Repository`` under ``[project.urls]`` of pyproject.toml, links and pictures get that address; without,
links become plain text and pictures are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

CODE = r"```.*?```|`[^`\n]*`"
LINK = re.compile(
    rf"(?P<code>{CODE})|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?://|#)[^)]+)\)", re.DOTALL
)


def for_index(readme: str, repository: str | None) -> str:
    """Return a README whose links are absolute, or gone."""

    def replaced(link: re.Match[str]) -> str:
        if link["code"]:
            return link["code"]
        image, text, target = link["image"], link["text"], link["target"]
        if repository is None:
            return "" if image else text
        return f"{image}[{text}]({repository.rstrip('/')}/{'raw' if image else 'blob'}/main/{target})"

    return LINK.sub(replaced, readme)


class ReadmeHook(MetadataHookInterface):
    """Sets the field ``readme`` of the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Take README.md from the root of the project."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, repository)}
