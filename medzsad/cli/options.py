"""Options that several commands have, alike, and what messages call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from medzsad.errors import BadInput
from medzsad.threads import limit_threads

if TYPE_CHECKING:
    from medzsad.detectors.mutual.settings import MutualSettings

# What messages name in `backticks`, as a Python argument or a field of a recipe is named; all else that they
# name so is spelt as the option is.
_OTHERWISE = {
    "allow_hosts": "--allow-host",
    "as": "--as",
    "cors_origins": "--cors-origin",
    "headers": "--dicomweb-header",
    "mapping": "--map",
    "minimum_lesion_iou": "--min-lesion-iou",
    "minimum_lesion_ml": "--min-lesion-ml",
    "name": "--as",
    "normals_dir": "--normals-dir",
    "token_file": "--token-file",
}
_SETTINGS = (
    "allow any_modality architecture backbone backend channel class_name clip_weights conf data dataset "
    "device dicom dicomweb draws features first_pass foreground_only framing fresh height_weight "
    "height_window host jobs masks modality mutual no_cache normals organ port ray resamples roi root series "
    "shard shots size skip_bids_validation slice_step split studies study suffix unverified volume weights "
    "window without_clip"
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
    help="A profile of normal scans (medzsad normals fit): alone, or joined to a --model.",
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


def mutual_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a cohort that scores itself; :func:`mutual_of` makes settings of them."""
    options = (
        click.option(
            "--mutual",
            is_flag=True,
            help="No model: three scans or more of the same kind score each other (docs/normals.md).",
        ),
        click.option(
            "--features",
            metavar="NAME",
            help="What patches are compared by, with --mutual or drawn normals [default: lite0].",
        ),
        click.option(
            "--height-window",
            type=click.FloatRange(0, 1),
            metavar="X",
            help="Of --mutual: how far apart, in parts of the stack, slices are compared [default: 0.05].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def mutual_of(mutual: bool, features: str | None, height_window: float | None) -> MutualSettings | None:
    """Return the settings that :func:`mutual_options` ask for; None without ``--mutual``.

    Raises:
        BadInput: if one of the others is given without it.
    """
    given = {"features": features, "height_window": height_window}
    chosen = {name: value for name, value in given.items() if value is not None}
    if not mutual:
        if chosen:
            raise BadInput(f"`{next(iter(chosen))}` is of `mutual`; add it, or leave this out")
        return None
    from medzsad.detectors.mutual.settings import MutualSettings

    return MutualSettings(**chosen)  # type: ignore[arg-type]
