from __future__ import annotations

from importlib.resources import files

from medzsad.results.html.sections import card_in_short


def test_what_a_card_says_in_short_is_plain_text_alone():
    markdown = "# A\n\n## In short\n\nSee **this**\nand [that](x.md).\n\nUse `it`.\n\n## Limits\n\nmany\n"
    assert card_in_short(markdown) == ("See this and that.", "Use it.")
    assert card_in_short("# A\n\n## Limits\n\nmany\n") == ()


def test_the_embedded_card_is_written_for_readers_of_a_result():
    card = files("medzsad").joinpath("weights", "medzsad-mini.md").read_text("utf-8")
    text = " ".join(card_in_short(card))
    assert "no all-clear" in text
    assert not set(text) & set("|#`*[]")
    assert not any(word in text for word in ("python", "tools/", "medzsad ", "--"))
