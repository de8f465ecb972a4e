"""The stage of :mod:`train_mini` that trains the small U-Net beside the network for slices.

It learns from :mod:`synthetic_slices` what the other one learns, from random weights and at a higher rate;
the other one stays as it is.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from slice_stage import MORE_KINDS, TERMS, WHOLE, slice_losses
from slice_training import Course, Trained, follow, run_parts, state_file, steps_of, weights_after
from synthetic_slices import SliceBatch, Sources, generate, load_sources
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.slices import SliceUNet


@dataclass(frozen=True)
class UNetPart:
    """One part of the training.

    Attributes:
        shares: of :data:`synthetic_slices.SHARES`.
        kinds: shares of the orders of tissues, :data:`synthetic.heads.KINDS`.
        patterns: of lesions, :data:`synthetic.spots.PATTERN_SHARES`.
        stripped: share of label maps, but for CT, of which the brain alone is shown.
        below: share of whole heads that are cut below the brain or at its lower end.
        size: of the slices, in pixels.
        batch: samples per step.
        steps: of the optimiser.
        rate: highest learning rate.
        warm: steps over which it rises; then it falls with a cosine to zero.
        ema: share of the averaged weights that each step keeps.
        averaged: start from the averaged weights of the part before, as they are written, not its last ones.
    """

    shares: tuple[float, ...] = WHOLE
    kinds: tuple[float, ...] = MORE_KINDS
    patterns: tuple[float, ...] = (0.28, 0.30, 0.10, 0.12, 0.20)
    stripped: float = 0.5
    below: float = 0.0
    size: int = 192
    batch: int = 16
    steps: int = 2200
    rate: float = 3e-3
    warm: int = 60
    ema: float = 0.995
    averaged: bool = False


# More of T2, of contrasts that no scan has, and of lesions of 4 to 10 mm anywhere in the brain.
LONGEST = UNetPart(
    kinds=(0.22, 0.30, 0.20, 0.14, 0.14),
    patterns=(0.22, 0.27, 0.25, 0.12, 0.14),
    below=0.2,
    steps=9600,
    rate=2e-3,
    warm=40,
    ema=0.999,
    averaged=True,
)
# What lies below a brain is a small part of the first one's samples, and a third of many scans.
PARTS = (
    UNetPart(),
    UNetPart(stripped=0.4, below=0.4, steps=600, rate=1e-3, warm=20),
    UNetPart(below=0.2, steps=2400, rate=2e-3, warm=40, ema=0.998),
    UNetPart(below=0.2, steps=6400, rate=2e-3, warm=40, ema=0.999, averaged=True),
    LONGEST,
    # Slices of whole made volumes, as they are shown: thick ones, and necks.
    replace(LONGEST, shares=(0.42, 0.14, 0.05, 0.12, 0.27)),
)
CHUNK = 2  # batches that are generated together
SEED = 70  # of this stage, so that no two stages or parts see the same samples
PREFIX = "unet."  # of its tensors among those of the network for slices


def train_unet(args: argparse.Namespace, parts: tuple[UNetPart, ...] = PARTS) -> bool:
    """Run the stage, or go on with it; say whether it came to its end.

    Args:
        args: ``work``, ``data``, ``seed``, ``steps_factor``, ``stop_after`` and ``save_every`` of train_mini.
        parts: the settings.
    """
    torch.set_num_threads(1)
    beside = read_checkpoint(Path(args.work) / "slice.safetensors")  # now, not after hours
    sources = load_sources(args.data)
    trained = run_parts(parts, args, partial(train_part, args=args, sources=sources))
    if trained is None:
        return False
    average, record = trained
    write_stage(average, beside, args, record)
    return True


def train_part(number: int, part: UNetPart, args: argparse.Namespace, sources: Sources) -> Trained:
    """Run one part, or go on with it; the first starts from random weights, others from the part before.

    Returns:
        The averaged weights, the step that was reached and the seconds that it took.
    """
    torch.manual_seed(0)
    network = SliceUNet()
    if number:
        network.load_state_dict(weights_after(args, "unet", number - 1, averaged=part.averaged))
    network = network.to(memory_format=torch.channels_last).train()
    steps = steps_of(part, args)

    def make(chunk: int) -> SliceBatch:
        return generate(
            (args.seed + SEED + 1000 * number) * 1_000_003 + chunk,
            CHUNK * part.batch,
            part.size,
            sources,
            shares=part.shares,
            kinds=part.kinds,
            stripped=part.stripped,
            patterns=part.patterns,
            bodies=True,
            below=part.below,
        )

    def rate_at(step: int) -> float:
        rising = min(1, (step + 1) / part.warm)
        return part.rate * rising * (0.5 + 0.5 * math.cos(math.pi * step / steps))

    def losses(batch: SliceBatch, step: int) -> Tensor:
        lesions, brain = network(batch.images.contiguous(memory_format=torch.channels_last))
        pixel = torch.stack([torch.zeros_like(lesions), lesions], 1)
        return slice_losses(pixel, torch.zeros(len(pixel), 2), brain, batch)[1:]  # it judges no images

    course = Course(
        name=f"unet {number}",
        saved=state_file(args, "unet", number),
        steps=steps,
        batch=part.batch,
        chunk=CHUNK,
        ema=part.ema,
        make=make,
        rate_at=rate_at,
        losses=losses,
        terms=TERMS[1:],
    )
    return follow(course, network, args)


def write_stage(
    state: dict[str, Tensor], start: Checkpoint, args: argparse.Namespace, record: dict[str, int]
) -> None:
    """Write ``unet.safetensors``: the network for slices with this one, for combine_mini."""
    added = {f"{PREFIX}{name}": tensor.half().contiguous() for name, tensor in state.items()}
    training = {**start.training, "unet": {"seed": args.seed, "precision": "fp32", **record}}
    settings = {**start.settings, "unet": True}
    save_checkpoint(
        Checkpoint("mini", start.tensors | added, settings, training), Path(args.work) / "unet.safetensors"
    )
