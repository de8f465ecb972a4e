"""JSON schemas of all that medzsad prints and writes as JSON: a file each beside this module; docs/json.md.

A program may rely on what a schema requires: within one number of ``schema`` (where a document has none,
within one major version of medzsad) fields are added, but none goes or changes its meaning.
"""

from __future__ import annotations

from importlib.resources import files

from medzsad.errors import BadInput


def schema_names() -> list[str]:
    """Return the names of the schemas: mostly a command and its subcommand, joined by ``-``."""
    folder = files("medzsad").joinpath("schemas")
    return sorted(path.name.removesuffix(".json") for path in folder.iterdir() if path.name.endswith(".json"))


def schema_text(name: str) -> str:
    """Return a schema (JSON Schema 2020-12) as it ships.

    Raises:
        BadInput: if there is none of that name.
    """
    if name not in schema_names():
        raise BadInput(f"there is no schema {name!r}; use one of {', '.join(schema_names())}")
    return files("medzsad").joinpath("schemas", f"{name}.json").read_text("utf-8")
