"""Options that several commands have, alike, and what messages call them."""

from __future__ import annotations

import click
from click.core import ParameterSource

from medzsad.threads import limit_threads

# What messages name in `backticks`, as a Python argument or a field of a recipe is named; all else that they
# name so is spelt as the option is.
_OTHERWISE = {
    "as": "--as",
    "headers": "--dicomweb-header",
    "mapping": "--map",
    "minimum_lesion_ml": "--min-lesion-ml",
    "name": "--as",
}
_SETTINGS = (
    "any_modality architecture backbone backend channel class_name clip_weights conf data dataset device "
    "dicom dicomweb draws foreground_only framing fresh height_weight host jobs masks modality no_cache "
    "normals organ port ray resamples root series shard shots size split studies study unverified volume "
    "weights window without_clip"
)
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _SETTINGS.split()} | _OTHERWISE


def in_options(message: str) -> str:
    """Return a message with the settings that it names in `backticks` as options of the command line."""
    for name, option in OPTIONS.items():
        message = message.replace(f"`{name}`", option)
    return message


def given(context: click.Context, parameter: str) -> bool:
    """Return whether the user gave a parameter, so that its value is no default."""
    return context.get_parameter_source(parameter) is not ParameterSource.DEFAULT


def tell(message: str) -> None:
    """Print a message on stderr, the settings that it names as options."""
    click.echo(in_options(message), err=True)


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
clip_option = click.option(
    "--clip-weights",
    metavar="TAG|FILE",
    help="Other CLIP weights for CLIP-based models: an open_clip tag or a local file.",
)
normals_option = click.option(
    "--normals",
    metavar="FILE",
    help="A profile of normal scans (medzsad normals fit): alone, or with --model the mean of both.",
)
organ_option = click.option(
    "--organ",
    metavar="NAME",
    help="What the scans show, for models whose texts name it: brain, liver, ... [default: object-agnostic].",
)
class_option = click.option(
    "--class-name",
    metavar="TEXT",
    help="The same in words of one's own, for those texts: 'knee MRI' [default: the organ's].",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
)
precision_option = click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
)
backend_option = click.option(
    "--backend",
    default="torch",
    show_default=True,
    type=click.Choice(["torch", "openvino", "onnx", "auto"]),
    help="What computes on the CPU; auto: the fastest that medzsad models time measured (docs/backends.md).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
