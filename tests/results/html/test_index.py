"""The page that leads to several reports: what it lists, and what it must not run."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from report_cases import make_volume

from medzsad.results.html.index import index_entry, index_page, is_index, reports_in
from medzsad.results.html.pages import asset

HOSTILE = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>'


def page_of(*scores: tuple[str, float], **more: object) -> str:
    entries = []
    for name, score in scores:
        prediction = make_volume(name=name)
        prediction.score = score
        entries.append(index_entry(prediction, Path(f"{name.replace('/', '_')}_report.html")))
    return index_page(entries, **more)


def test_highest_score_first_with_links_and_pictures() -> None:
    page = page_of(("low", 0.2), (HOSTILE, 0.95), ("50% #1", 0.5))
    places = [page.index(f'<a href="{link}_report.html">') for link in ("50%25%20%231", "low")]
    assert places == sorted(places)
    assert page.index("&lt;/script&gt;") < places[0]
    pictures = page.split("data:image/png;base64,")[1:]
    assert len(pictures) == 3
    assert all(base64.b64decode(text.split('"')[0]).startswith(b"\x89PNG") for text in pictures)


def test_only_its_own_script_runs_whatever_scans_and_reasons_are_called() -> None:
    page = page_of((HOSTILE, 0.5), failed=[(HOSTILE, HOSTILE)])
    script = asset("index.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page
    assert page.count("<script") == 1
    assert "<img src=x" not in page


def test_failures_stand_behind_and_what_is_left_out_is_counted() -> None:
    page = page_of(("a", 0.2), failed=[("b", "b is empty")], done=3, failures=4)
    assert "<title>medzsad: 1 of 3 scans</title>" in page
    assert "<h1>1 of 3 scans, 4 failed</h1>" in page
    assert page.index('data-name="a"') < page.index('data-name="b"') < page.index("b is empty")
    assert "3 more failed: see scores.csv" in page


def test_an_index_is_known_again_and_so_is_what_it_lists() -> None:
    page = page_of(("50% #1", 0.5), ("a & b", 0.2))
    assert is_index(page.encode())
    assert reports_in(page) == {"50% #1", "a & b"}
    assert not is_index(b"<html><title>mine</title></html>")
