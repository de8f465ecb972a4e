"""The documentation site builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs mkdocs (the docs extra)")

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|img|iframe)[^>]+src=\"(https?:)?//|<link[^>]+href=\"(https?:)?//|@import")


@pytest.mark.slow
def test_it_builds_strictly_and_stands_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}
    assert [name for name, html in pages.items() if LOADED.search(html)] == []
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{page.stem}.html" in pages
        assert f'href="{page.stem}.html"' in pages["gallery.html"], "not in the navigation"
    api = pages["api.html"]
    assert 'id="medzsad.predicting.predict"' in api
    assert ":class:" not in api
    assert "+SKIP" not in api
    assert 'href="cards/medzsad-mini.html"' in pages["choose.html"]
