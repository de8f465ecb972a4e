r"""Times forward passes in every precision of a device, and says what each changes about maps and scores.

    python tools/bench/gpu_forward.py --device cuda --batch 1 --batch 8

Random weights (speed does not depend on them) but for medzsad-mini's, random images, the shortest of several
passes. Differences are the largest from the same detector in fp32 on the same images.
"""

from __future__ import annotations

import argparse
import copy

import torch
from forward_worker import random_detector
from machine import best, describe
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.devices import resolve_precision
from medzsad.errors import ModelNotReady
from medzsad.zoo.loading import load_detector

METHODS = ("anomalyclip", "headclip", "adaclip", "clip", "winclip", "mini")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def build(method: str, backbone: str, side: int) -> AnomalyDetector:
    """Return a detector in fp32 on the CPU."""
    if method == "mini":
        return load_detector("medzsad-mini", precision="fp32", device="cpu")
    return random_detector({"method": method, "backbone": backbone, "side": side}).eval()


@torch.inference_mode()
def rows(plain: AnomalyDetector, device: torch.device, batches: list[int], repeats: int) -> list[str]:
    """Return the cells of each precision that the device has, at each batch size."""
    images = torch.rand(max(batches), 3, plain.image_size, plain.image_size, generator=_generator())
    cells: list[str] = []
    exact: tuple[Tensor, ...] = ()
    first: dict[int, float] = {}
    for precision in PRECISIONS:
        try:
            resolve_precision(precision, device)
        except ModelNotReady as error:
            cells.append(f"{precision} | {error} | | | | |")
            continue
        detector = copy.deepcopy(plain)
        detector.use_precision(precision)
        detector = detector.to(device)
        found = detector(images)
        exact = exact or tuple(value.clone() for value in found)
        off = [float((mine - value).abs().max()) for mine, value in zip(found, exact, strict=True)]
        for batch in batches:
            part = images[:batch].to(device)
            seconds = best(lambda run=detector, x=part: run(x), repeats, device.type) / batch
            first.setdefault(batch, seconds)
            cells.append(
                f"{precision} | {batch} | {1000 * seconds:.1f} | {first[batch] / seconds:.2f} | "
                f"{off[0]:.1e} | {max(off[1:]):.1e} |"
            )
    return cells


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable; default: all")
    parser.add_argument("--backbone", default="ViT-L-14-336")
    parser.add_argument("--side", type=int, default=518)
    parser.add_argument("--batch", type=int, action="append", help="repeatable; default: 1 and 8")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.backbone} at {args.side} px; {describe(args.device)}")
    print("| method | precision | batch | ms/image | times fp32 | maps off by | scores off by |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for method in args.method or METHODS:
        detector = build(method, args.backbone, args.side)
        for line in rows(detector, torch.device(args.device), args.batch or [1, 8], args.repeats):
            print(f"| {method} | {line}", flush=True)


if __name__ == "__main__":
    main()
