"""Pages from the templates beside this module, and the rules that keep them closed.

A page may load nothing: its content security policy forbids every connection, and only the scripts whose
hashes it names may run. What is put into a template is escaped, but for our own scripts and styles.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup


def render_page(template: str, **values: Any) -> str:
    """Return a template of ``results/html/templates``, filled in with ``values``."""
    return _environment().get_template(template).render(values)


def asset(name: str) -> str:
    """Return a text file of the package's ``results/html/assets``."""
    return _text("assets", *name.split("/"))


def content_policy(*scripts: str) -> str:
    """Return a content security policy that lets exactly these inline scripts run, and nothing be loaded."""
    hashes = " ".join(f"'sha256-{_base64(hashlib.sha256(script.encode()).digest())}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def embed_json(value: Any) -> Markup:
    """Return JSON that may stand in a script element: nothing in it can end the element or open a comment."""
    return htmlsafe_json_dumps(value, allow_nan=False)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(functools.partial(_text, "templates")),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["base64"] = _base64
    return environment


def _text(*path: str) -> str:
    return files("medzsad").joinpath("results", "html", *path).read_text("utf-8")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
