"""Trains medzsad-mini from synthetic images and writes the embedded checkpoint.

    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --out medzsad-mini.safetensors

Two stages (:data:`STAGES`): one network learns all looks at a small size; then a copy goes on with the looks
of radiology in grey, at the size of the detector. A third, "colour" (:mod:`colour_stage`), trains a decoder
over frozen features with the looks of cameras and endoscopes; "colour_ultrasound" and "colour_radiology"
go on from it. The next, "slice" (:mod:`slice_stage`), goes on from the grey one with slices of volumes, and
"unet" (:mod:`unet_stage`) trains the small network beside it. Kill it and start it again with the same
``--work``: it goes on from the last saved state. ``--stage`` runs one stage, ``--steps-factor 0.01`` tries
everything in a minute.

In the first two, each core is one process of one thread that makes its own images; gradients are averaged
once a step: a process of several threads mostly waits for the slowest of them. The network computes in
bfloat16, which is a third faster on a CPU with AMX. All randomness comes from the seed, and the schedule
counts steps, so on one kind of machine with one version of torch a repetition gives the same weights, bit for
bit. Each chunk of images is used twice, the second time mirrored and in another order, for making them costs
a third of learning from them.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from calibrate_mini import calibrate, calibrate_grey_scores, calibrate_part, calibrate_slices
from colour_stage import RADIOLOGY, ULTRASOUND, train_colour
from combine_mini import (
    add_radiology,
    add_slices,
    add_ultrasound,
    combine,
    with_one_threshold,
    with_slice_threshold,
)
from map_losses import losses
from slice_stage import train_slices
from synthetic.planes import NEIGHBOUR_MM
from synthetic_images import SHARES, Batch, generate, load_slices
from synthetic_slices import load_sources
from torch import Tensor
from unet_stage import train_unet

import medzsad
from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    Attributes:
        start: the stage whose averaged weights it starts from; empty for random ones.
        shares: of each of :data:`LOOKS`.
        grey: without colours.
        size: of the images, in pixels.
        batch: images per process and step.
        steps: of the optimiser.
        rate: highest learning rate.
        last: the learning rate at the end, as a part of ``rate``.
        ema: share of the averaged weights that each step keeps.
        seed: added to the seed, so that no two stages see the same images.
    """

    start: str
    shares: tuple[float, ...]
    grey: bool
    size: int
    batch: int
    steps: int
    rate: float
    last: float
    ema: float
    seed: int


# brain, abstract, body, real, endoscopy, ultrasound, surface, objects, skin
GREY = (0.38, 0.10, 0.08, 0.14, 0.02, 0.12, 0.12, 0.03, 0.01)
STAGES = {
    "common": Stage("", SHARES, False, 128, 16, 3000, 1.4e-3, 0.15, 0.997, 0),
    "grey": Stage("common", GREY, True, 192, 8, 1300, 3e-4, 0.01, 0.99, 1),
}
OTHER_STAGES = {
    "colour": train_colour,
    "colour_ultrasound": partial(train_colour, recipe=ULTRASOUND),
    "colour_radiology": partial(train_colour, recipe=RADIOLOGY),
    "slice": train_slices,
    "unet": train_unet,
}
HELD_OUT = 900_000_000  # seeds from here to 1,000,000,000 are never trained on
CHUNK = 4  # batches that are generated together: the generator has a cost per call
REUSE = 2  # times that a chunk is used


@torch.inference_mode()
def validate(detector: MedzsadMini, slices: Tensor | None, stage: Stage, *, batches: int) -> dict[str, float]:
    """Best Dice and its threshold, image AUROC and loss-free figures on held-out synthetic images."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    thresholds = torch.arange(0.05, 1.0, 0.025)
    overlap, predicted = torch.zeros(len(thresholds)), torch.zeros(len(thresholds))
    total, scores, labels, values, truth = 0.0, [], [], [], []
    for index in range(batches):
        batch = generate(
            HELD_OUT + index, 24, detector.image_size, slices, shares=stage.shares, grey=stage.grey
        )
        out = detector(batch.images)
        for i, t in enumerate(thresholds):
            chosen = out.anomaly_map >= t
            overlap[i] += (chosen * batch.masks).sum()
            predicted[i] += chosen.sum()
        total += float(batch.masks.sum())
        scores += out.image_score.tolist()
        labels += batch.labels.tolist()
        values.append(out.anomaly_map[:, ::3, ::3].flatten())
        truth.append(batch.masks[:, ::3, ::3].flatten())
    dice = 2 * overlap / (predicted + total)
    best = int(dice.argmax())
    return {
        "dice": float(dice[best]),
        "threshold": round(float(thresholds[best]), 3),
        "pixel_ap": float(average_precision_score(torch.cat(truth) > 0, torch.cat(values))),
        "image_auroc": float(roc_auc_score(labels, scores)),
    }


def export(
    state: dict[str, Tensor], name: str, args: argparse.Namespace, record: dict, slices: Tensor | None
) -> dict[str, float]:
    """Chooses the threshold on held-out synthetic images and writes ``name``.safetensors."""
    detector = MedzsadMini(image_size=args.image_size)
    detector.network.load_state_dict(state)
    stage = STAGES[name]
    figures = validate(detector, slices, stage, batches=args.held_out)
    detector.threshold = figures["threshold"]
    plain = detector.to_checkpoint()
    real = (
        "the redistributable scans (one head CT, BSD-2; one brain MR, MIT; small body CT and MR, Apache-2.0)"
    )
    training = {
        "data": "synthetic anomalies over procedurally made images"
        + ("" if slices is None else f" and {real}"),
        "licence": "Apache-2.0",
        "seed": args.seed,
        **record,
        "init": read_checkpoint(stage_file(args, stage.start)).training if stage.start else None,
        "held_out_synthetic": figures,
        "version": medzsad.__version__,
    }
    checkpoint = Checkpoint(plain.method, plain.tensors, plain.settings, training)
    save_checkpoint(checkpoint, stage_file(args, name))
    return figures


def stage_file(args: argparse.Namespace, name: str) -> Path:
    """Return the file of a stage's weights."""
    return Path(args.work) / f"{name}.safetensors"


def part_of(made: Batch, part: int, count: int) -> Batch:
    """Batch ``part`` of a chunk; from the second use on mirrored, and differently put together."""
    use, part = divmod(part, CHUNK)
    order = torch.randperm(len(made.images), generator=torch.Generator().manual_seed(use))
    chosen = order[part * count : (part + 1) * count]
    batch = Batch(*(t[chosen] for t in made))
    return batch._replace(images=batch.images.flip(-1), masks=batch.masks.flip(-1)) if use else batch


def average_gradients(network: torch.nn.Module) -> None:
    """Averages the gradients over the processes."""
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    parts = flat.div_(dist.get_world_size()).split([g.numel() for g in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


def train(rank: int, name: str, args: argparse.Namespace, meeting: str) -> None:
    """One process of one stage."""
    torch.set_num_threads(1)
    stage = STAGES[name]
    steps = max(2, round(stage.steps * args.steps_factor))
    torch.manual_seed(args.seed)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes)
    slices = load_slices(args.data)
    network = MedzsadMini(image_size=args.image_size).network.train()
    if stage.start:
        tensors = read_checkpoint(stage_file(args, stage.start)).tensors
        network.load_state_dict({k: v.float() for k, v in tensors.items()})
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=stage.rate,
        betas=(0.9, 0.98),
    )
    average = {k: v.clone() for k, v in network.state_dict().items()}
    step, seconds = 0, 0.0
    saved = Path(args.work) / f"{name}-state.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, seconds = state["average"], state["step"], state["seconds"]
        print(f"{name}, process {rank}: resumed at step {step}", flush=True)
    dist.barrier()

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average,
            "step": step,
            "seconds": seconds,
        }
        torch.save(state, f"{saved}.partial")
        os.replace(f"{saved}.partial", saved)

    begin, running, made_of, made = time.monotonic() - seconds, None, -1, None
    until = steps if args.stop_after is None else min(steps, args.stop_after)
    while step < until:
        chunk, part = divmod(step, CHUNK * REUSE)
        if made_of != chunk:
            seed = ((args.seed + stage.seed) * 1_000_003 + chunk) * args.processes + rank
            made, made_of = (
                generate(seed, CHUNK * stage.batch, stage.size, slices, shares=stage.shares, grey=stage.grey),
                chunk,
            )
        batch = part_of(made, part, stage.batch)
        falling = stage.last + (1 - stage.last) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rate = stage.rate * min(1, (step + 1) / 100) * falling
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            pixel, image = network(batch.images)
        parts = torch.stack(losses(pixel.float(), image.float(), batch.masks, batch.labels))
        optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step, seconds = step + 1, time.monotonic() - begin
        keep = min(stage.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            for key, value in network.state_dict().items():
                average[key].lerp_(value, 1 - keep)
        running = parts.detach() if running is None else 0.97 * running + 0.03 * parts.detach()
        if rank == 0 and step % 25 == 0:
            ce, focal, dice = running.tolist()
            print(
                f"{name} step {step} of {steps}, {seconds:.0f}s, rate {rate:.1e}, "
                f"ce {ce:.3f} focal {focal:.3f} dice {dice:.3f}",
                flush=True,
            )
        if rank == 0 and step % args.save_every == 0 and step < steps:
            save()
    if rank == 0:
        save()
    if rank == 0 and step == steps:
        record = {
            "steps": step,
            "images_seen": step * stage.batch * args.processes,
            "processes": args.processes,
            "precision": args.precision,
            "seconds": round(seconds),
        }
        print(f"{name}: {export(average, name, args, record, slices)}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--work", default="mini-run", help="folder of the stages' states and weights")
    parser.add_argument(
        "--out", default=str(Path(medzsad.__file__).parent / "weights" / "medzsad-mini.safetensors")
    )
    parser.add_argument("--stage", choices=(*STAGES, *OTHER_STAGES), help="only this one")
    parser.add_argument(
        "--image-size", type=int, default=192, help="the detector's input, for slices of volumes"
    )
    parser.add_argument("--shown-size", type=int, default=144, help="the same, for images without a volume")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps-factor", type=float, default=1.0, help="of the steps of each stage")
    parser.add_argument("--stop-after", type=int, help="steps of a stage, to go on with in a later run")
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    parser.add_argument(
        "--held-out", type=int, default=16, help="batches of 24 images to choose thresholds on"
    )
    return parser.parse_args(argv)


def main() -> None:
    """Run the stages that are not done yet."""
    args = arguments()
    Path(args.work).mkdir(parents=True, exist_ok=True)
    for name in [args.stage] if args.stage else (*STAGES, *OTHER_STAGES):
        if stage_file(args, name).exists():
            print(f"{name}: done already")
            continue
        if name in OTHER_STAGES:
            if not OTHER_STAGES[name](args):
                return  # stopped early, as asked
            continue
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"{folder}/meeting"
            torch.multiprocessing.spawn(train, (name, args, meeting), nprocs=args.processes)
        if not stage_file(args, name).exists():
            return  # stopped early, as asked
    if not args.stage:
        save_checkpoint(put_together(args), args.out)


def put_together(args: argparse.Namespace) -> Checkpoint:
    """Return the detector of all stages, calibrated, with one threshold for all images.

    Those that held-out images give photographs and ultrasound are worse on real ones (model card).
    """
    names = ("grey", "colour", "colour_ultrasound", "colour_radiology", "unet")
    grey, colour, ultrasound, radiology, slices = (read_checkpoint(stage_file(args, name)) for name in names)
    count = 24 * args.held_out
    whole = calibrate(combine(grey, colour, args.shown_size), load_slices(args.data), count)
    whole = calibrate_part(add_ultrasound(whole, ultrasound), "ultrasound", count)
    whole = calibrate_grey_scores(add_radiology(whole, radiology), load_slices(args.data), count)
    whole = calibrate_slices(add_slices(whole, slices, NEIGHBOUR_MM), load_sources(args.data), count)
    return with_one_threshold(with_slice_threshold(whole))


if __name__ == "__main__":
    main()
