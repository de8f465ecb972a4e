"""Options that several commands have."""

from __future__ import annotations

import click

from medzsad.threads import limit_threads


def _limit(_: click.Context, __: click.Parameter, count: int | None) -> int | None:
    limit_threads(count)
    return count


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1, max=1024),
    metavar="N",
    is_eager=True,  # before anything is imported that starts threads
    expose_value=False,
    callback=_limit,
    help="Cores to compute with [default: OMP_NUM_THREADS, or those that the process may use].",
)
