"""``medzsad predict`` where it is asked for a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from medzsad.cli.options import tell
from medzsad.errors import BadInput


def is_cohort(
    inputs: Sequence[str],
    out: str,
    jobs: int | None,
    ray: str | None,
    shard: str | None,
    retry_failed: bool,
) -> bool:
    """Whether options or inputs ask for a cohort."""
    from medzsad.batch.manifest import is_table
    from medzsad.scans.dicom.web_query import is_query

    asked = jobs is not None or ray is not None or shard is not None or retry_failed
    return asked or "://" in out or any(is_table(text) or is_query(text) for text in inputs)


def predict_cohort(
    inputs: Sequence[str],
    out: str,
    options: Mapping[str, Any],
    *,
    jobs: int | None,
    ray: str | None,
    shard: str | None,
    retry_failed: bool,
    headers: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a cohort, print what became of it, and end with its exit code.

    Raises:
        MedzsadError: see :func:`~medzsad.batch.run.run_cohort`.
    """
    from medzsad.batch.predictor import PredictSettings
    from medzsad.batch.run import run_cohort
    from medzsad.scans.dicom.web import access_headers
    from medzsad.storage.sharding import Shard

    if not inputs:
        raise BadInput("no scans are given")
    summary = run_cohort(
        inputs,
        out,
        PredictSettings(**options),
        jobs=jobs,
        ray=ray,
        shard=None if shard is None else Shard.parse(shard),
        retry_failed=retry_failed,
        headers=access_headers(headers),
        bar=not quiet,
    )
    if as_json:
        from medzsad.results.report import to_json

        click.echo(to_json(summary.document()), nl=False)
    elif not quiet:
        for line in summary.lines():
            click.echo(line)
    notes = summary.merged.notes if summary.merged is not None and not quiet else ()
    for line in (*notes, *(f"error: {line}" for line in summary.failures())):
        tell(line)
    if summary.exit_code:
        raise click.exceptions.Exit(summary.exit_code)
