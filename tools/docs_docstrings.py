"""Extension of griffe: docstrings as the site shows them: examples as code, names without their modules."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
EXAMPLE = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Return a docstring whose doctests are blocks of code, and names in Sphinx's roles mere code."""

    def code(example: re.Match[str]) -> str:
        lines = [re.sub(r" *# doctest:.*", "", line) for line in example[0].splitlines()]
        return "\n".join(("```pycon", *lines, "```"))

    text = ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", text)
    return EXAMPLE.sub(code, text)


class Docstrings(griffe.Extension):
    """Applies :func:`as_markdown` to each docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
