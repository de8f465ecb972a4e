"""The stages of medzsad-mini's network for photographs: a decoder over frozen features of made images.

    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --stage colour
    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --stage colour_ultrasound
    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --stage colour_radiology

The others go on from the decoder of the first: one with a look of its own for ultrasound of the thyroid, one
with the looks of radiology and slices of anatomical label maps, for what stands beside the grey network. The
encoder stays as it is, so its features of each image and of the mirrored image are computed once and kept
in ``--work``; the decoder then sees each of them several times. Both halves go on where they were stopped.
All randomness comes from the seed.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import synthetic_slices
import torch
import torch.nn.functional as F
from map_losses import losses
from safetensors.torch import load_file, save_file
from synthetic.canvas import Batch
from synthetic_images import generate
from synthetic_slices import Sources, load_sources
from torch import Tensor

import medzsad
from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.colour import ColourNetwork, learned, load_learned
from medzsad.detectors.volume_intensity import decode


@dataclass(frozen=True)
class ColourRecipe:
    """The settings of a stage.

    Attributes:
        name: of the stage and its files.
        start: the stage whose averaged weights it starts from; empty for random ones.
        seed: added to the seed, so that no two stages see the same images.
        shares: of the looks of :data:`synthetic_images.LOOKS`.
        size: of the images that are made, in pixels.
        shown: size that they are shown at, as the detector shows them.
        chunks: files of features.
        chunk: images in each, which come again mirrored.
        steps: of the optimiser.
        batch: images a step.
        rate: highest learning rate.
        warm: steps until then.
        horizon: steps after which a cosine would have brought it to a hundredth.
        cooldown: steps at the end in which it falls to zero on a line.
        ema: share of the averaged weights that each step keeps.
        grey: show images without colours, and real normal slices among them.
        heads: share of images that are slices of anatomical label maps, shown in a grey window.
    """

    name: str = "colour"
    start: str = ""
    seed: int = 2
    shares: tuple[float, ...] = (0, 0, 0, 0, 0.08, 0.06, 0.22, 0.16, 0.14, 0.34)
    size: int = 192
    shown: int = 144
    chunks: int = 36
    chunk: int = 48
    steps: int = 520
    batch: int = 16
    rate: float = 1.5e-3
    warm: int = 60
    horizon: int = 1200
    cooldown: int = 200
    ema: float = 0.99
    grey: bool = False
    heads: float = 0.0


RECIPE = ColourRecipe()
# endoscopy, ultrasound, surface, objects, skin, colon, thyroid
MORE = (0, 0, 0, 0, 0.05, 0.05, 0.19, 0.14, 0.11, 0.32, 0.14)
ULTRASOUND = ColourRecipe(
    "colour_ultrasound",
    "colour",
    seed=4,
    shares=MORE,
    chunks=16,
    steps=200,
    rate=5e-4,
    warm=20,
    horizon=400,
    cooldown=100,
    ema=0.98,
)
# brain, abstract, body, real, endoscopy, ultrasound, surface, objects, skin, colon
RADIOLOGY_LOOKS = (0.50, 0.10, 0.08, 0.20, 0, 0.04, 0.04, 0, 0, 0.04)
RADIOLOGY = ColourRecipe(
    "colour_radiology",
    "colour",
    seed=5,
    shares=RADIOLOGY_LOOKS,
    chunks=64,
    steps=1000,
    rate=1e-3,
    warm=30,
    horizon=2000,
    cooldown=400,
    ema=0.99,
    grey=True,
    heads=0.5,
)


def train_colour(args: argparse.Namespace, recipe: ColourRecipe = RECIPE) -> bool:
    """Run the stage, or go on with it; say whether it came to its end.

    Args:
        args: ``work``, ``data``, ``seed``, ``steps_factor``, ``stop_after`` and ``save_every`` of train_mini.
        recipe: the settings.
    """
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    network = ColourNetwork().to(memory_format=torch.channels_last).train()
    begun = None
    if recipe.start:
        begun = read_checkpoint(Path(args.work) / f"{recipe.start}.safetensors")
        load_learned(network, {name: tensor.float() for name, tensor in begun.tensors.items()})
    chunks = max(1, round(recipe.chunks * args.steps_factor))
    sources = load_sources(args.data) if recipe.grey else None
    files = [make_features(network, args, recipe, number, sources) for number in range(chunks)]
    features, masks, labels = read_features(files)
    steps = max(2, round(recipe.steps * args.steps_factor))
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.rate,
        betas=(0.9, 0.98),
    )
    average = {name: tensor.clone() for name, tensor in learned(network).items()}
    step, seconds = 0, 0.0
    saved = Path(args.work) / f"{recipe.name}-state.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        load_learned(network, state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, seconds = state["average"], state["step"], state["seconds"]
        print(f"{recipe.name}: resumed at step {step}", flush=True)

    def save() -> None:
        state = {"network": learned(network), "optimiser": optimiser.state_dict(), "average": average}
        torch.save({**state, "step": step, "seconds": seconds}, f"{saved}.partial")
        os.replace(f"{saved}.partial", saved)

    begin, running = time.monotonic() - seconds, None
    until = steps if args.stop_after is None else min(steps, args.stop_after)
    while step < until:
        chooser = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        chosen = torch.randint(len(labels), (recipe.batch,), generator=chooser)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, recipe, args.steps_factor)
        decoded, image = network.decode_features([level[chosen].float() for level in features])
        decoded = F.interpolate(decoded, masks.shape[-2:], mode="bilinear", align_corners=False)
        pixel = network.pixel_states(network.pixel_head(decoded))
        parts = torch.stack(losses(pixel, network.image_states(image), masks[chosen].float(), labels[chosen]))
        optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        step, seconds = step + 1, time.monotonic() - begin
        keep = min(recipe.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            for name, value in learned(network).items():
                average[name].lerp_(value, 1 - keep)
        running = parts.detach() if running is None else 0.97 * running + 0.03 * parts.detach()
        if step % 25 == 0:
            ce, focal, dice = running.tolist()
            print(
                f"{recipe.name} step {step} of {steps}, {seconds:.0f}s, ce {ce:.3f} focal {focal:.3f} "
                f"dice {dice:.3f}",
                flush=True,
            )
        if step % args.save_every == 0 and step < steps:
            save()
    save()
    if step == steps:
        record = {
            "steps": step,
            "images_made": chunks * recipe.chunk,
            "images_seen": step * recipe.batch,
            "seconds": round(seconds),
        }
        write_stage(average, network.encoder.digest, args, recipe, record, begun)
    return step == steps


def rate_at(step: int, recipe: ColourRecipe, factor: float) -> float:
    """Return the learning rate of a step of a recipe whose steps are ``factor`` times as many."""
    horizon = max(2, round(recipe.horizon * factor))
    rate = recipe.rate * min(1, (step + 1) / recipe.warm) * 0.5 * (1 + math.cos(math.pi * step / horizon))
    steps = max(2, round(recipe.steps * factor))
    return max(rate, 0.01 * recipe.rate) * min(1.0, (steps - step) / max(1, round(recipe.cooldown * factor)))


@torch.inference_mode()
def make_features(
    network: ColourNetwork,
    args: argparse.Namespace,
    recipe: ColourRecipe,
    number: int,
    sources: Sources | None = None,
) -> Path:
    """Make a chunk of images, and return the file of what the decoder is given of them, mirrored ones too."""
    path = Path(args.work) / f"{recipe.name}-features-{number}.safetensors"
    if path.exists():
        return path
    made = make_images((args.seed + recipe.seed) * 1_000_003 + number, recipe, sources)
    images, masks = (
        torch.cat([made.images, made.images.flip(-1)]),
        torch.cat([made.masks, made.masks.flip(-1)]),
    )
    shown = (recipe.shown, recipe.shown)
    images = F.interpolate(images, shown, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    levels = [network.features(part) for part in images.split(16)]
    kept = {
        f"level_{index}": torch.cat(level).half().contiguous()
        for index, level in enumerate(zip(*levels, strict=True))
    }
    kept["masks"] = F.adaptive_avg_pool2d(masks[:, None], recipe.shown // 2)[:, 0].half()
    kept["labels"] = made.labels.repeat(2)
    save_file(kept, f"{path}.partial")
    os.replace(f"{path}.partial", path)
    print(f"{recipe.name}: features of chunk {number}", flush=True)
    return path


def make_images(seed: int, recipe: ColourRecipe, sources: Sources | None) -> Batch:
    """Make the images of a chunk: looks, and slices of label maps as pictures show them.

    Raises:
        ValueError: if the recipe asks for slices of label maps, and there are none.
    """
    many = round(recipe.chunk * recipe.heads)
    if many and not (sources and sources.heads):
        raise ValueError(f"{recipe.name} needs label maps: give --data")
    slices = sources.slices if sources and recipe.grey else None
    looks = generate(seed, recipe.chunk - many, recipe.size, slices, shares=recipe.shares, grey=recipe.grey)
    if not many or sources is None:
        return looks
    made = synthetic_slices.generate(seed, many, recipe.size, sources, shares=(1, 0, 0), abnormal=0.56)
    # From so many standard deviations below the mean to so many above: windows as pictures have them.
    edges = torch.rand(2, many, 1, 1, generator=torch.Generator().manual_seed(seed))
    low, high = -2.6 + 1.2 * edges[0], 1.5 + 3.0 * edges[1]
    own = made.images[:, 0]
    grey = ((decode(own) - low) / (high - low)).clamp(0, 1) * (own > 0)
    return Batch(
        torch.cat([looks.images, grey[:, None].expand(-1, 3, -1, -1)]),
        torch.cat([looks.masks, (made.lesions > 0).float()]),
        torch.cat([looks.labels, (made.labels == 1).long()]),
    )


def read_features(files: list[Path]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the features of all files, each level (N, C, h, w), their masks (N, H, W) and labels (N,)."""
    parts = [load_file(path) for path in files]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    levels = [whole[name] for name in sorted(whole) if name.startswith("level_")]
    return levels, whole["masks"], whole["labels"]


def write_stage(
    state: dict[str, Tensor],
    encoder: str,
    args: argparse.Namespace,
    recipe: ColourRecipe,
    record: dict,
    begun: Checkpoint | None = None,
) -> None:
    """Write the file of the stage: the averaged weights of the decoder, for combine_mini."""
    training = {
        "data": "synthetic anomalies over procedurally made images; the frozen encoder, which is not in this "
        "file: EfficientNet-Lite0 (Apache-2.0), trained on ImageNet",
        "licence": "Apache-2.0",
        "seed": args.seed,
        "precision": "fp32",
        **record,
        **({"init": begun.training} if begun else {}),
        "version": medzsad.__version__,
    }
    settings = {"image_size": recipe.shown, "colour": "lite0", "encoder": encoder}
    tensors = {name: tensor.half().contiguous() for name, tensor in state.items()}
    path = Path(args.work) / f"{recipe.name}.safetensors"
    save_checkpoint(Checkpoint("mini", tensors, settings, training), path)
