"""Hooks of mkdocs: pages of the repository that lie outside docs/, and links that lead out of it."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import join, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Path in the repository -> path in the site.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{f"medzsad/weights/{path.name}": f"cards/{path.name}" for path in ROOT.glob("medzsad/weights/*.md")},
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?!https?://|#|mailto:)[^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Put pages that the navigation does not name at its end."""
    named = str(config.nav)
    others = sorted(path.name for path in (ROOT / "docs").glob("*.md") if f"'{path.name}'" not in named)
    if others:
        config.nav = [*(config.nav or []), {"More": others}]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that lie outside docs/."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links between files of the repository to the site's pages; where there is none, leave the text."""
    here = next((source for source, target in OUTSIDE.items() if target == page.file.src_uri), None)
    here = here or f"docs/{page.file.src_uri}"

    def led(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups(default="")
        source = normpath(join(here.rpartition("/")[0], target))
        there = OUTSIDE.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)
        if there is None:
            return text
        folder = page.file.src_uri.rpartition("/")[0] or "."
        return f"{image}[{text}]({relpath(there, folder)}{anchor})"

    return LINK.sub(led, markdown)
