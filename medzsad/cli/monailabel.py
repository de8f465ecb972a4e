"""``medzsad monailabel``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from medzsad.cli.options import device_option


@click.group()
def monailabel() -> None:
    """A MONAI Label server for 3D Slicer and OHIF: pre-labels, what to label next, training on labels.

    See docs/monailabel.md. Needs: pip install "medzsad[monailabel]"
    """


@monailabel.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write the app folder DIR, which the server is started with and keeps trained adapters in.

    A folder that holds something else is refused; an app folder is brought up to date.
    """
    from medzsad.integrations.monailabel.server import write_app_folder

    for path in write_app_folder(folder):
        click.echo(str(path))
    click.echo(f"start it with: medzsad monailabel start --app {folder} --studies DIR")


@monailabel.command()
@click.option(
    "--app",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The app folder (init makes it).",
)
@click.option(
    "--studies",
    required=True,
    metavar="DIR|URL",
    help="A folder of scans, or a DICOMweb server (http://...).",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere."
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--models",
    metavar="NAMES",
    help="Models to offer, joined by ',': of medzsad models list, checkpoints, folders of training runs "
    "[default: all of the list that are ready].",
)
@click.option(
    "--scoring-model", metavar="NAME", help="What scans are scored with [default: the first model]."
)
@click.option(
    "--clip-weights", metavar="NAME|FILE", help="What HeadCLIP is trained on [default: a CLIP that is ready]."
)
@device_option
@click.option("--parallel", type=click.IntRange(min=1), help="Predictions at once [default: 1].")
@click.option(
    "--no-auto-scoring", is_flag=True, help="Score scans only when asked to (POST /scoring/anomaly)."
)
@click.option("--conf", nargs=2, multiple=True, metavar="KEY VALUE", help="Further settings of the app.")
def start(
    app: Path,
    studies: str,
    host: str,
    port: int,
    no_auto_scoring: bool,
    conf: tuple[tuple[str, str], ...],
    **options: str | int | None,
) -> None:
    """Start the MONAI Label server, until Ctrl-C.

    Scans of every modality are found on a DICOMweb server, unless MONAI_LABEL_DICOMWEB_SEARCH_FILTER says
    otherwise; all MONAI_LABEL_* variables work.

    Exit code: 2 bad options, 0 stopped.
    """
    from medzsad.integrations.monailabel.parameters import AppConf
    from medzsad.integrations.monailabel.server import (
        ServerSettings,
        require_app_folder,
        require_monailabel,
        run_server,
    )

    require_monailabel()
    require_app_folder(app)
    given = {key: str(value) for key, value in options.items() if value is not None and value != "auto"}
    settings = ServerSettings(app, studies, host, port, {**given, **dict(conf)}, not no_auto_scoring)
    environment = settings.environment(os.environ)
    settings.check(environment)
    checked = AppConf.parse(settings.conf)
    if checked.model_names:
        from medzsad.integrations.monailabel.models import ModelList, Versions

        ModelList(checked.model_names, Versions(app))
    raise click.exceptions.Exit(run_server(settings.command(), environment))
