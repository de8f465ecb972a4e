"""``medzsad example``."""

from __future__ import annotations

from pathlib import Path

import click

from medzsad.errors import BadInput, OutputNotWritable

NAMES = ("head_phantom.nii.gz", "head_phantom_lesion.nii.gz")


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("examples"),
    show_default=True,
    metavar="DIR",
    help="Where to.",
)
def example(out: Path) -> None:
    """Write the example scan to try medzsad on: a synthetic head with one lesion, and the lesion's mask."""
    from medzsad.storage.atomic import replacing
    from medzsad.storage.shipped import shipped

    try:
        for name in NAMES:
            content = (shipped("examples") / name).read_bytes()
            target = out / name
            if target.exists() and target.read_bytes() != content:
                raise BadInput(f"{target} is another file and would be replaced; choose another folder.")
            if not target.exists():
                with replacing(target) as temporary:
                    temporary.write_bytes(content)
            click.echo(target)
    except OSError as error:
        raise OutputNotWritable(f"{out}: cannot write there ({error.strerror or error})") from error
    click.echo(f"try it: medzsad predict {out / NAMES[0]} -o out")
