"""``medzsad cohort``."""

from __future__ import annotations

import click

from medzsad.cli.options import tell


@click.group()
def cohort() -> None:
    """What many scans, predicted by medzsad predict --jobs, --ray or --shard, have in common."""


@cohort.command()
@click.argument("out", metavar="DIR|URL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def merge(out: str, as_json: bool) -> None:
    """Merge the tables of all shards and runs in DIR|URL into scores.parquet and, of reports, index.html."""
    from medzsad.batch.merging import merge as merge_parts
    from medzsad.batch.store import open_store
    from medzsad.batch.table import TABLE

    store = open_store(out)
    merged = merge_parts(store)
    if as_json:
        from medzsad.results.report import to_json

        facts = {"done": merged.done, "failed": merged.failed, "indexed": merged.indexed}
        click.echo(to_json({"table": f"{store.url}/{TABLE}", **facts, "notes": list(merged.notes)}), nl=False)
        return
    for note in merged.notes:
        tell(note)
    click.echo(f"{merged.done} scans done, {merged.failed} failed: {store.url}/{TABLE}")
    if merged.indexed:
        click.echo(f"{merged.indexed} reports: {store.url}/index.html")
