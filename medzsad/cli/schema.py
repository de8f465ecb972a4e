"""``medzsad schema``."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
def schema(name: str | None) -> None:
    """Print the JSON schema NAME, of what --json prints or of a report; without NAME, list all.

    See docs/json.md.
    """
    from medzsad.schemas import schema_names, schema_text

    if name is not None:
        click.echo(schema_text(name), nl=False)
        return
    for each in schema_names():
        click.echo(f"{each:<16}{json.loads(schema_text(each))['description']}")
