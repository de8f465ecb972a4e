"""The stage of :mod:`train_mini` that makes the network for slices of volumes.

It starts from the network for grey images and learns from :mod:`synthetic_slices`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from slice_training import Course, Trained, follow, run_parts, state_file, steps_of, weights_after
from synthetic.spots import PATTERN_SHARES
from synthetic_slices import KIND_SHARES, SHARES, STRIPPED, SliceBatch, Sources, generate, load_sources
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import tensors_of
from medzsad.detectors.mini.network import MirrorUnit
from medzsad.detectors.mini.slices import SliceNetwork


@dataclass(frozen=True)
class SlicePart:
    """One part of the training.

    Attributes:
        shares: of :data:`synthetic_slices.SHARES`.
        kinds: shares of the orders of tissues, :data:`synthetic.heads.KINDS`.
        stripped: share of label maps, but for CT, of which the brain alone is shown.
        size: of the slices, in pixels.
        batch: samples per step.
        steps: of the optimiser.
        rate: highest learning rate.
        warm: steps over which it rises.
        horizon: step at which a cosine would be at its end.
        cooldown: last steps, over which the rate falls to zero on a line.
        planned: steps after which ``cooldown`` ends, where the part ends before; 0 for ``steps``.
        ema: share of the averaged weights that each step keeps.
        dropped: share of samples that do not see their mirror image.
        patterns: shares of :data:`synthetic.spots.PATTERN_SHARES`.
    """

    shares: tuple[float, ...]
    kinds: tuple[float, ...]
    steps: int
    rate: float
    warm: int
    horizon: int
    cooldown: int
    planned: int = 0
    stripped: float = STRIPPED
    size: int = 192
    batch: int = 8
    ema: float = 0.995
    dropped: float = 0.25
    patterns: tuple[float, ...] = PATTERN_SHARES


# Whatever contrast tissues may have, then mostly what scanners show, then mostly whole heads.
SCANS, SCAN_KINDS = (0.82, 0.12, 0.06), (0.12, 0.44, 0.18, 0.06, 0.20)
WHOLE, WHOLE_KINDS = (0.60, 0.20, 0.06, 0.14), (0.10, 0.40, 0.24, 0.06, 0.20)
# Large tumours, also with cores and contrast agent: the parts before had shown few of them.
MORE_KINDS, LARGE = (0.08, 0.42, 0.28, 0.06, 0.16), (0.28, 0.28, 0.08, 0.14, 0.22)
PARTS = (
    SlicePart(SHARES, KIND_SHARES, steps=500, rate=3e-4, warm=100, horizon=1600, cooldown=0),
    SlicePart(SCANS, SCAN_KINDS, steps=520, rate=2e-4, warm=40, horizon=0, cooldown=400),
    SlicePart(WHOLE, WHOLE_KINDS, 800, 3e-4, 100, 0, 2600, planned=2700, stripped=0.45, ema=0.997),
    SlicePart(WHOLE, WHOLE_KINDS, 1250, 2.2e-4, 20, 0, 1230, stripped=0.45, ema=0.995),
    SlicePart(WHOLE, MORE_KINDS, 1300, 2.2e-4, 20, 0, 1280, stripped=0.5, patterns=LARGE),
    SlicePart(WHOLE, MORE_KINDS, 1000, 2.0e-4, 20, 0, 980, stripped=0.5, patterns=LARGE, ema=0.997),
)
CHUNK = 4  # batches that are generated together: the generator has a cost per call
TERMS = ("image", "focal", "dice", "lesion", "false", "outside", "brain")
OUTSIDE = 3.0  # weight of the focal loss of what is normal outside the brain


def slice_losses(pixel: Tensor, image: Tensor, brain: Tensor, batch: SliceBatch) -> Tensor:
    """Return the terms of the loss, in the order of :data:`TERMS`.

    Image cross-entropy; pixel focal; dice over the batch and over each image with lesions; what is missed of
    each lesion, small and large alike; the highest false alarms of each image, and those outside the brain;
    brain or not. What is not known, of lesions or of the brain, counts nowhere.

    Args:
        pixel: logits (B, 2, h, w).
        image: logits (B, 2).
        brain: logits (B, h, w).
        batch: what was shown.
    """
    half = pixel.shape[-2:]
    lesions = batch.lesions.clamp_min(0)
    target, sure, where = (
        F.adaptive_avg_pool2d(each[:, None].float(), half)[:, 0]
        for each in (lesions > 0, batch.lesions >= 0, batch.brain.clamp_min(0))
    )
    sure = (sure == 1).float()
    known = (batch.brain >= 0)[:, 0, 0].float()
    outside = (1 - where) * known[:, None, None] * sure
    log_p = pixel.log_softmax(1)
    p = log_p.exp()
    normal = 0.5 * (1 - target) * p[:, 1].square() * log_p[:, 0] * (1 + (OUTSIDE - 1) * outside)
    focal = -(target * p[:, 0].square() * log_p[:, 1] + normal) * sure
    p = p * sure[:, None]
    sick = batch.labels == 1

    def dice(seen: Tensor, wanted: Tensor, dims: tuple[int, ...]) -> Tensor:
        overlap = (seen * wanted).sum(dims)
        return (1 - (2 * overlap + 1) / (seen.sum(dims) + wanted.sum(dims) + 1)).mean()

    target = target * sure
    overlap = dice(p[:, 1], target, (0, 1, 2)) / 2 + dice(p[:, 0], sure - target, (1, 2))
    lesion = pixel.new_zeros(())
    if sick.any():
        overlap = overlap + dice(p[sick, 1], target[sick], (1, 2)) / 2
        # Each lesion has a number of its own in the batch; 0 is what is no lesion.
        most = int(lesions.max()) + 1
        number = F.adaptive_max_pool2d(lesions[:, None].float(), half)[:, 0].long()
        number = torch.where(number > 0, number + most * torch.arange(len(number)).view(-1, 1, 1), 0)
        length = most * (len(number) + 1)
        size = torch.zeros(length).index_add_(0, number.flatten(), target.flatten())
        found = torch.zeros(length).index_add_(0, number.flatten(), (p[:, 1] * target).flatten())
        there = size > 0.2
        there[0] = False
        if there.any():
            lesion = (1 - found[there] / size[there]).mean()
    wrong = (p[:, 1] * (target == 0)).flatten(1)
    worst, worst_outside = (
        values.topk(max(1, values.shape[1] // 100), dim=1).values.square().mean()
        for values in (wrong, wrong * outside.flatten(1))
    )
    each = F.binary_cross_entropy_with_logits(brain, where, reduction="none").mean((1, 2))
    brain_term = (each * known).sum() / known.sum().clamp_min(1)
    judged = F.cross_entropy(image, batch.labels, label_smoothing=0.02, ignore_index=-1, reduction="sum")
    return torch.stack(
        [
            judged / (batch.labels >= 0).sum().clamp_min(1),
            10 * focal.mean(),
            overlap,
            0.5 * lesion,
            0.3 * worst,
            0.6 * worst_outside,
            0.3 * brain_term,
        ]
    )


def rate_at(step: int, part: SlicePart, steps: int) -> float:
    """Return the learning rate of a step: up, down with a cosine and the root of the step, to zero on a line.

    Higher for longer, the network forgets what it came with.
    """
    factor = min(1.0, (step + 1) / part.warm)
    if part.horizon:
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step * part.steps / steps / part.horizon))
        factor *= cosine * math.sqrt(part.warm / max(step, part.warm))
    if part.cooldown:
        end = steps * (part.planned or part.steps) / part.steps
        factor *= min(1.0, (end - step) / (part.cooldown * steps / part.steps))
    return part.rate * factor


def train_slices(args: argparse.Namespace, parts: tuple[SlicePart, ...] = PARTS) -> bool:
    """Run the stage, or go on with it; say whether it came to its end.

    Args:
        args: ``work``, ``data``, ``seed``, ``steps_factor``, ``stop_after`` and ``save_every`` of train_mini.
        parts: the settings.
    """
    torch.set_num_threads(1)
    sources = load_sources(args.data)
    start = read_checkpoint(Path(args.work) / "grey.safetensors")
    trained = run_parts(parts, args, partial(train_part, args=args, sources=sources, start=start))
    if trained is None:
        return False
    average, record = trained
    write_stage(average, start, args, parts[-1], record)
    return True


def train_part(
    number: int, stage: SlicePart, args: argparse.Namespace, sources: Sources, start: Checkpoint
) -> Trained:
    """Run one part, or go on with it; the first starts from ``start``, others from the part before.

    Returns:
        The averaged weights, the step that was reached and the seconds that it took.
    """
    steps = steps_of(stage, args)
    torch.manual_seed(args.seed)
    network = SliceNetwork(**start.settings["network"])
    if number:
        network.load_state_dict(weights_after(args, "slice", number - 1))
    else:
        network.start_from(tensors_of(start, "network"))
    network = network.to(memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, MirrorUnit):
            module.dropped = stage.dropped

    def make(chunk: int) -> SliceBatch:
        return generate(
            (args.seed + 1000 * number) * 1_000_003 + chunk,
            CHUNK * stage.batch,
            stage.size,
            sources,
            shares=stage.shares,
            kinds=stage.kinds,
            stripped=stage.stripped,
            patterns=stage.patterns,
        )

    def losses(batch: SliceBatch, step: int) -> Tensor:
        torch.manual_seed(args.seed * 1_000_003 + step)  # which samples see their mirror image
        seen = network.marks(batch.images.contiguous(memory_format=torch.channels_last))
        return slice_losses(*seen, batch)

    course = Course(
        name=f"slice {number}",
        saved=state_file(args, "slice", number),
        steps=steps,
        batch=stage.batch,
        chunk=CHUNK,
        ema=stage.ema,
        make=make,
        rate_at=lambda step: rate_at(step, stage, steps),
        losses=losses,
        terms=TERMS,
    )
    return follow(course, network, args)


def write_stage(
    state: dict[str, Tensor], start: Checkpoint, args: argparse.Namespace, part: SlicePart, record: dict
) -> None:
    """Write ``slice.safetensors``: the averaged weights alone, for combine_mini."""
    training = {
        "data": "lesions drawn into slices of anatomical label maps with random intensities (Apache-2.0), of "
        "redistributable scans (T1 and, unmarked, every other FLAIR of nichart_demo, UPenn; one head CT, "
        "BSD-2; one brain MR, MIT; small body CT and MR, Apache-2.0), and synthetic anomalies over "
        "procedurally made images",
        "licence": "Apache-2.0",
        "seed": args.seed,
        "precision": "fp32",
        **record,
    }
    settings = {"image_size": part.size, "network": start.settings["network"]}
    tensors = {name: tensor.half().contiguous() for name, tensor in state.items()}
    save_checkpoint(Checkpoint("mini", tensors, settings, training), Path(args.work) / "slice.safetensors")
