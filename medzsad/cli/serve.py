"""``medzsad serve``."""

from __future__ import annotations

from typing import Any

import click

from medzsad.cli.options import backend_option, device_option, precision_option, threads_option


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; what other machines can reach needs --token-file.",
)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--token-file", metavar="FILE", help="Holds the secret that clients must send.")
@click.option(
    "--models",
    metavar="NAMES",
    help="Models to offer, joined by ',': of medzsad models list, checkpoints, folders of training runs; the "
    "first is the default [default: all of the list that are ready].",
)
@click.option("--normals-dir", metavar="DIR", help="Profiles of normals that clients may name.")
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A name that it is called by, too."
)
@click.option(
    "--cors-origin", "cors_origins", multiple=True, metavar="URL", help="Pages there may use it: a viewer's."
)
@click.option(
    "--queue", default=16, show_default=True, type=click.IntRange(1, 10_000), help="Scans that may wait."
)
@click.option(
    "--keep",
    "keep_minutes",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="How long results stay.",
)
@click.option(
    "--keep-models",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="Detectors in memory; the least recently used goes.",
)
@click.option(
    "--max-upload",
    "max_upload_mb",
    default=2000.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Largest upload.",
)
@click.option(
    "--max-unpacked",
    "max_unpacked_mb",
    default=4000.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Its largest size, unpacked.",
)
@threads_option
@device_option
@precision_option
@backend_option
def serve(
    models: str | None, allow_hosts: tuple[str, ...], cors_origins: tuple[str, ...], **options: Any
) -> None:
    """Predict scans for others: a page in the browser, and an interface for programs, until Ctrl-C.

    Uploads and results lie in a private temporary folder, and are gone after --keep minutes or with the
    server. See docs/server.md. Needs: pip install "medzsad[serve]"

    Exit code: 2 bad options, 0 stopped.
    """
    from medzsad.integrations.server.running import serve as run
    from medzsad.integrations.server.settings import ServerSettings

    names = tuple(name.strip() for name in (models or "").split(",") if name.strip())
    settings = ServerSettings(models=names, allow_hosts=allow_hosts, cors_origins=cors_origins, **options)
    run(settings, lambda address: click.echo(f"medzsad serves {address} (Ctrl-C stops it)"))
