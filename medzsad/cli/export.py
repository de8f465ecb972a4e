"""``medzsad export``."""

from __future__ import annotations

from pathlib import Path

import click

from medzsad.cli.options import class_option, clip_option, organ_option

_ADAPTER = click.option(
    "--adapter", metavar="FILE", help="A file of what was learned, instead of the model's own."
)


@click.group()
def export() -> None:
    """Take a detector to where medzsad's command line is not: MONAI, ONNX.

    NAME is a model's name (see medzsad models list), a .safetensors checkpoint or the folder of a training
    run. See docs/export.md.
    """


@export.command()
@click.argument("name", metavar="NAME")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@clip_option
@_ADAPTER
@organ_option
@class_option
@click.option(
    "--without-clip",
    is_flag=True,
    help="Leave a CLIP's weights out: a small bundle, which needs them in the model cache where it runs.",
)
def bundle(
    name: str,
    folder: Path,
    clip_weights: str | None,
    adapter: str | None,
    organ: str | None,
    class_name: str | None,
    without_clip: bool,
) -> None:
    """Write the MONAI bundle DIR, for python -m monai.bundle run.

    DIR must not exist, or be empty. docs/README.md in it says how it is run.
    """
    from medzsad.monai.bundle import export_bundle

    files = export_bundle(
        name,
        folder,
        clip_weights=clip_weights,
        adapter=adapter,
        organ=organ,
        class_name=class_name,
        with_clip=not without_clip,
    )
    size = sum(path.stat().st_size for path in files)
    click.echo(f"{folder}: MONAI bundle of {name}, {len(files)} files, {size / 1e6:.1f} MB")
    click.echo(
        f"run it with: python -m monai.bundle run --config_file {folder / 'configs' / 'inference.yaml'} "
        f"--bundle_root {folder} --image SCAN --output_dir OUT"
    )
    click.echo('which needs, where it runs: pip install "medzsad[bundle]"')


@export.command()
@click.argument("name", metavar="NAME")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@clip_option
@_ADAPTER
@organ_option
@class_option
@click.option(
    "--size", type=click.IntRange(min=1), metavar="PIXELS", help="Side of the images [default: the model's]."
)
@click.option("--opset", type=int, help="Version of ONNX's operators [default: 18].")
def onnx(
    name: str,
    file: Path,
    clip_weights: str | None,
    adapter: str | None,
    organ: str | None,
    class_name: str | None,
    size: int | None,
    opset: int | None,
) -> None:
    """Write the image side of a model to the ONNX file FILE, compared with PyTorch.

    It takes images, float32 (batch, 3, PIXELS, PIXELS) in [0, 1], and gives anomaly_map, image_score and
    image_probability. Prompts and texts are fixed. Needs: pip install "medzsad[onnx]"
    """
    from medzsad.backends.onnx_export import OPSET, export_onnx
    from medzsad.zoo.loading import load_detector

    detector = load_detector(
        name,
        device="cpu",
        precision="fp32",
        clip_weights=clip_weights,
        adapter=adapter,
        organ=organ,
        class_name=class_name,
    )
    done = export_onnx(detector, file, size=size, opset=OPSET if opset is None else opset)
    side, megabytes = done.image_size, file.stat().st_size / 1e6
    click.echo(f"{file}: {name}, images (batch, 3, {side}, {side}), opset {done.opset}, {megabytes:.1f} MB")
    click.echo(f"compared with PyTorch: maps and scores differ by at most {done.difference:.1g}")
