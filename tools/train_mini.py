"""Trains medzsad-mini from synthetic images and writes the embedded checkpoint.

    python tools/train_mini.py --data "$MEDZSAD_SHARED" --work mini-run --seconds 2400

Kill it and start it again with the same ``--work``: it goes on from the last saved state (at most two minutes old).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from synthetic_images import Batch, generate, load_slices
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import medzsad
from medzsad.detectors.checkpoint import Checkpoint, save_checkpoint
from medzsad.detectors.mini import MedzsadMini

HELD_OUT = 900_000_000  # seeds from here on are never trained on


class Synthetic(Dataset):
    """Batch ``i`` is made from seed ``seed + i``, whichever process makes it."""

    def __init__(self, seed: int, first: int, plan: list[tuple[int, int, int]], slices: Tensor | None) -> None:
        self.seed, self.first, self.plan, self.slices = seed, first, plan, slices

    def __len__(self) -> int:
        return self.plan[-1][0] - self.first

    def __getitem__(self, index: int) -> Batch:
        torch.set_num_threads(1)
        step = self.first + index
        count, size = next((c, s) for end, c, s in self.plan if step < end)
        return generate(self.seed + step, count, size, self.slices)


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
    # Dice over the whole batch for half of it, and per sick image for the other half: small lesions count too.
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


def export(state: dict[str, Tensor], args: argparse.Namespace, *, step: int, images: int, seconds: float,
           slices: Tensor | None, batches: int) -> dict[str, float]:
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
        "steps": step,
        "images_seen": images,
        "seconds": round(seconds),
        "held_out_synthetic": figures,
        "version": medzsad.__version__,
    }
    save_checkpoint(Checkpoint(plain.method, plain.tensors, plain.settings, training), args.out)
    return figures


def main() -> None:
    """Trains until the plan of steps is done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--work", default="mini-run", help="folder of the resumable state and the log")
    parser.add_argument("--out", default=str(Path(medzsad.__file__).parent / "weights" / "medzsad-mini.safetensors"))
    parser.add_argument("--image-size", type=int, default=192, help="the detector's input, and the last phase's size")
    parser.add_argument("--plan", default="1500x24x128,600x20x192", help="phases: steps x batch x size, ...")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--ema", type=float, default=0.997)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=100, help="seconds")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    slices = load_slices(args.data)
    plan, end = [], 0
    for phase in args.plan.split(","):
        steps, count, size = (int(v) for v in phase.split("x"))
        end += steps
        plan.append((end, count, size))
    detector = MedzsadMini(image_size=args.image_size)
    network = detector.network.train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.04}, {"params": plain, "weight_decay": 0.0}],
        lr=args.rate, betas=(0.9, 0.98),
    )
    average = {k: v.clone() for k, v in network.state_dict().items()}
    step, images, seconds = 0, 0, 0.0
    saved = work / "state.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average = state["average"]
        step, images, seconds = state["step"], state["images"], state["seconds"]
        print(f"resumed at step {step}", flush=True)

    loader = DataLoader(
        Synthetic(args.seed * 1_000_003, step, plan, slices), batch_size=None, num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,
    ) if step < end else []
    last = last_save = time.monotonic()
    running = torch.zeros(3)
    for batch in loader:
        share = step / end
        rate = args.rate * min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        pixel, image = network(batch.images)
        parts = torch.stack(losses(pixel, image, batch.masks, batch.labels))
        optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step, images = step + 1, images + len(batch.labels)
        keep = min(args.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        running = 0.97 * running + 0.03 * parts.detach() if step > 1 else parts.detach()
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        if step % 25 == 0:
            ce, focal, dice = running.tolist()
            print(f"step {step} images {images} {seconds:.0f}s ce {ce:.3f} focal {focal:.3f} dice {dice:.3f}", flush=True)
        if now - last_save > args.save_every:
            torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
                        "step": step, "images": images, "seconds": seconds}, f"{saved}.partial")
            os.replace(f"{saved}.partial", saved)
            export(average, args, step=step, images=images, seconds=seconds, slices=slices, batches=1)
            last_save = time.monotonic()
    figures = export(average, args, step=step, images=images, seconds=seconds, slices=slices, batches=12)
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average,
                "step": step, "images": images, "seconds": seconds}, saved)
    print(f"done: {figures}", flush=True)


if __name__ == "__main__":
    main()
