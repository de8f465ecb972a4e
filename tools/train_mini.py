"""Trains medzsad-mini from synthetic images and writes the embedded checkpoint.

    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --seconds 2400

``--init FILE`` goes on from the weights of an earlier checkpoint, with a new schedule.
Kill it and start it again with the same ``--work``: it goes on from the last saved state (at most two
minutes old).

Each core is one process of one thread that makes its own images; gradients are averaged once a step: a
process of several threads mostly waits for the slowest of them. Float32: bfloat16 is slower on a CPU without
AMX. The schedule follows the clock, so the time is what was asked for; chunk ``i`` of process ``k`` is always
made from the same seed, but how many batches are seen depends on the machine. Each chunk is used twice, the
second time mirrored and in another order, for making images costs a third of learning from them.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from synthetic_images import Batch, generate, load_slices
from torch import Tensor

import medzsad
from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini import COLOUR_PREFIX, MedzsadMini

HELD_OUT = 900_000_000  # seeds from here on are never trained on
CHUNK = 4  # batches that are generated together: the generator has a cost per call
REUSE = 2  # times that a chunk is used


def losses(pixel: Tensor, image: Tensor, masks: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image cross-entropy, pixel focal and dice (abnormal and normal), as in AnomalyCLIP's training.

    Args:
        pixel: logits (B, 2, h, w).
        image: logits (B, 2).
        masks: (B, S, S) in {0, 1}; averaged down to h, w, so that a border pixel is partly lesion.
        labels: (B,).
    """
    target = F.adaptive_avg_pool2d(masks[:, None], pixel.shape[-2:])[:, 0]
    log_p = pixel.log_softmax(1)
    p = log_p.exp()
    # Focal loss (gamma 2) with a little less weight on the many normal pixels.
    focal = -(target * p[:, 0].square() * log_p[:, 1] + 0.5 * (1 - target) * p[:, 1].square() * log_p[:, 0])
    # Dice over the whole batch, and per sick image: small lesions count too.
    sick = labels.bool()

    def dice(probability: Tensor, wanted: Tensor, dims: tuple[int, ...]) -> Tensor:
        overlap = (probability * wanted).sum(dims)
        return (1 - (2 * overlap + 1) / (probability.sum(dims) + wanted.sum(dims) + 1)).mean()

    abnormal = dice(p[:, 1], target, (0, 1, 2)) / 2
    if sick.any():
        abnormal = abnormal + dice(p[sick, 1], target[sick], (1, 2)) / 2
    normal = dice(p[:, 0], 1 - target, (1, 2))
    ce = F.cross_entropy(image, labels, label_smoothing=0.02)
    return ce, 10 * focal.mean(), abnormal + normal


@torch.inference_mode()
def validate(detector: MedzsadMini, slices: Tensor | None, *, batches: int = 8) -> dict[str, float]:
    """Best Dice and its threshold, image AUROC and loss-free figures on held-out synthetic images."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    thresholds = torch.arange(0.05, 1.0, 0.025)
    overlap, predicted = torch.zeros(len(thresholds)), torch.zeros(len(thresholds))
    total, scores, labels, values, truth = 0.0, [], [], [], []
    for index in range(batches):
        batch = generate(HELD_OUT + index, 24, detector.image_size, slices)
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
    state: dict[str, Tensor],
    args: argparse.Namespace,
    *,
    step: int,
    images: int,
    seconds: float,
    slices: Tensor | None,
    batches: int,
) -> dict[str, float]:
    """Chooses the threshold on held-out synthetic images and writes the safetensors file."""
    detector = MedzsadMini(image_size=args.image_size)
    detector.network.load_state_dict(state)
    figures = validate(detector, slices, batches=batches)
    detector.threshold = figures["threshold"]
    plain = detector.to_checkpoint()
    training = {
        "data": "synthetic anomalies over procedurally made images and the redistributable scans "
        "(one head CT, BSD-2; one brain MR, MIT; small body CT and MR, Apache-2.0)"
        if slices is not None
        else "synthetic anomalies over procedurally made images",
        "licence": "Apache-2.0",
        "seed": args.seed,
        "init": read_checkpoint(args.init).training if args.init else None,
        "steps": step,
        "images_seen": images,
        "seconds": round(seconds),
        "held_out_synthetic": figures,
        "version": medzsad.__version__,
    }
    save_checkpoint(Checkpoint(plain.method, plain.tensors, plain.settings, training), args.out)
    return figures


def part_of(made: Batch, part: int, count: int) -> Batch:
    """Batch ``part`` of a chunk; from the second use on mirrored, and differently put together."""
    use, part = divmod(part, CHUNK)
    order = torch.randperm(len(made.images), generator=torch.Generator().manual_seed(use))
    chosen = order[part * count : (part + 1) * count]
    batch = Batch(*(t[chosen] for t in made))
    return batch._replace(images=batch.images.flip(-1), masks=batch.masks.flip(-1)) if use else batch


def average_gradients(network: torch.nn.Module, clock: float) -> float:
    """Averages the gradients over the processes; returns the first one's ``clock``, for all to agree on."""
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([clock if dist.get_rank() == 0 else 0.0])])
    dist.all_reduce(flat)
    parts = flat[:-1].div_(dist.get_world_size()).split([g.numel() for g in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))
    return float(flat[-1])


def train(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One process of the training."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes)
    slices = load_slices(args.data)
    network = MedzsadMini(image_size=args.image_size).network.train()
    if args.init:
        tensors = read_checkpoint(args.init).tensors
        grey = {k: v.float() for k, v in tensors.items() if not k.startswith(COLOUR_PREFIX)}
        network.load_state_dict(grey)
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=args.rate,
        betas=(0.9, 0.98),
    )
    average = {k: v.clone() for k, v in network.state_dict().items()}
    step, images, seconds = 0, 0, 0.0
    saved = Path(args.work) / "state.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, images, seconds = (state[k] for k in ("average", "step", "images", "seconds"))
        print(f"process {rank}: resumed at step {step}", flush=True)
    dist.barrier()

    def save() -> None:
        torch.save(
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "step": step,
                "images": images,
                "seconds": seconds,
            },
            f"{saved}.partial",
        )
        os.replace(f"{saved}.partial", saved)

    begin, last_save, running = time.monotonic() - seconds, time.monotonic(), torch.zeros(3)
    key, made = (-1, 0), None
    while seconds < args.seconds:
        share = seconds / args.seconds
        small = share < args.small_share
        count, size = (args.batch, args.small_size) if small else (args.large_batch, args.image_size)
        chunk, part = divmod(step, CHUNK * REUSE)
        if key != (chunk, size):
            key = (chunk, size)
            made = generate(
                args.seed * 1_000_003 + chunk * args.processes + rank, CHUNK * count, size, slices
            )
        batch = part_of(made, part, count)
        rate = args.rate * min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        pixel, image = network(batch.images)
        parts = torch.stack(losses(pixel, image, batch.masks, batch.labels))
        optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        seconds = average_gradients(network, time.monotonic() - begin)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step, images = step + 1, images + count * args.processes
        keep = min(args.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        running = 0.97 * running + 0.03 * parts.detach() if step > 1 else parts.detach()
        if rank == 0 and step % 25 == 0:
            ce, focal, dice = running.tolist()
            print(
                f"step {step} images {images} {seconds:.0f}s size {size} rate {rate:.1e} "
                f"ce {ce:.3f} focal {focal:.3f} dice {dice:.3f}",
                flush=True,
            )
        if rank == 0 and time.monotonic() - last_save > args.save_every:
            save()
            export(average, args, step=step, images=images, seconds=seconds, slices=slices, batches=1)
            last_save = time.monotonic()
    if rank == 0:
        save()
        figures = export(average, args, step=step, images=images, seconds=seconds, slices=slices, batches=12)
        print(f"done: {figures}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Reads the command line and starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--work", default="mini-run", help="folder of the resumable state")
    parser.add_argument(
        "--out", default=str(Path(medzsad.__file__).parent / "weights" / "medzsad-mini.safetensors")
    )
    parser.add_argument("--init", help="checkpoint to start from instead of random weights")
    parser.add_argument("--image-size", type=int, default=192, help="the detector's input, and the late size")
    parser.add_argument("--seconds", type=float, default=2400)
    parser.add_argument("--small-size", type=int, default=128, help="the early size")
    parser.add_argument("--small-share", type=float, default=0.55, help="share of the time at the early size")
    parser.add_argument("--batch", type=int, default=12, help="images per process")
    parser.add_argument("--large-batch", type=int, default=10, help="the same, at the late size")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--ema", type=float, default=0.997)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save-every", type=float, default=100, help="seconds")
    args = parser.parse_args()
    Path(args.work).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (args, f"{folder}/meeting"), nprocs=args.processes)


if __name__ == "__main__":
    main()
