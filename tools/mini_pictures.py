"""Draws where medzsad-mini fails on held-out synthetic images, for its model card.

    python tools/mini_pictures.py docs/images/medzsad-mini-failures.png

Of each look, among ``--count`` images that were never trained on: the normal image with the highest image
score (a false alarm) and the lesion that its map marks least (a miss), each with the map in colour beside it
and the true outline in green. Nothing is chosen by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from PIL import Image
from synthetic_images import generate

from medzsad.detectors.base import AnomalyDetector
from medzsad.scans.scan import Modality
from medzsad.zoo.loading import load_detector

HELD_OUT = 970_000_000  # seeds from here to 1,000,000,000 are never trained on
LOOKS = {  # and what their images are said to be
    "brain": Modality.MR,
    "body": Modality.MR,
    "ultrasound": Modality.US,
    "thyroid": Modality.US,
    "colon": Modality.RGB,
    "skin": Modality.RGB,
    "surface": Modality.RGB,
    "objects": Modality.RGB,
}


@torch.inference_mode()
def worst(detector: AnomalyDetector, look: str, count: int) -> list[tuple]:
    """Return the worst false alarm and the worst miss of a look: image, map, mask, image score each."""
    batch = generate(HELD_OUT, count, detector.image_size, looks=(look,))
    found = detector.for_modality(LOOKS[look])(batch.images)
    sick = batch.labels == 1
    inside = (found.anomaly_map * batch.masks).sum((1, 2)) / batch.masks.sum((1, 2)).clamp_min(1)
    large = batch.masks.mean((1, 2)) > 0.01  # of tiny ones nothing could be seen in print
    alarm = torch.where(sick, -torch.inf, found.image_score).argmax()
    miss = torch.where(sick & large, inside, torch.inf).argmin()
    return [
        (batch.images[i], found.anomaly_map[i], batch.masks[i], float(found.image_score[i]))
        for i in (alarm, miss)
    ]


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="medzsad-mini")
    parser.add_argument("--count", type=int, default=96, help="images of each look")
    args = parser.parse_args()
    detector = load_detector(args.model, device="cpu", precision="fp32")
    figure, axes = plt.subplots(4, 8, figsize=(13, 7.6))
    for index, look in enumerate(LOOKS):
        row, column = index // 2, 4 * (index % 2)
        for place, (image, anomaly_map, mask, score) in enumerate(worst(detector, look, args.count)):
            plain, marked = axes[row, column + 2 * place : column + 2 * place + 2]
            for axis in (plain, marked):
                axis.imshow(image.permute(1, 2, 0).numpy())
                axis.axis("off")
            marked.imshow(anomaly_map.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.6)
            if mask.any():
                marked.contour(mask.numpy(), [0.5], colors="lime", linewidths=1)
            kind = "missed" if place else "false alarm"
            plain.set_title(f"{look}: {kind}", fontsize=9, loc="left")
            marked.set_title(f"score {score:.2f}", fontsize=9, loc="left")
    figure.tight_layout(pad=0.4)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=90)
    # For the repository: a third of the size.
    Image.open(args.out, formats=("PNG",)).quantize(128).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
