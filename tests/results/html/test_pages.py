"""Tests of the pages' templates: what is put into them stays text."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import jinja2
import pytest

from medzsad.results.html.pages import content_policy, embed_json, render_page

HOSTILE = "</code><img src=x onerror=alert(1)> {{ 7 * 7 }} {% raw %} '&\""
EMPTY = {"columns": [], "rows": [], "rest": 0, "hidden": 0}


def test_what_is_put_into_a_page_is_escaped_and_not_evaluated():
    page = render_page("notebook.html", line=HOSTILE, picture=b"", candidates=EMPTY, disclaimer="")
    assert "<img src=x" not in page
    assert "&lt;/code&gt;&lt;img src=x onerror=alert(1)&gt; {{ 7 * 7 }} {% raw %} &#39;&amp;&#34;" in page


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="line"):
        render_page("notebook.html", picture=b"", candidates=EMPTY, disclaimer="")


def test_only_our_own_texts_are_trusted():
    """What templates mark as safe: the policy, styles and scripts of the package, and JSON for scripts."""
    templates = [item for item in files("medzsad.results.html").joinpath("templates").iterdir()]
    assert len(templates) == 4
    safe = {name for item in templates for name in re.findall(r"(\w+)\s*\|\s*safe", item.read_text("utf-8"))}
    assert safe == {"policy", "style", "viewer_library", "script", "data"}


def test_embedded_json_cannot_leave_its_element():
    text = embed_json({"a": "</script><!--"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--"}
    with pytest.raises(ValueError, match="JSON"):
        embed_json(float("nan"))


def test_the_policy_without_scripts_allows_none():
    assert "script-src 'none'" in content_policy()
