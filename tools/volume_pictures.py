"""Draws where medzsad-mini finds lesions in volumes and where it fails, for its model card.

    python tools/volume_pictures.py docs/images/medzsad-mini-volumes.png --data "$MEDZSAD_SHARED"
    python tools/volume_pictures.py nichart.png --set nichart --data "$MEDZSAD_SHARED"     # also flair, t1c

Without a set, of ``--count`` heads made from label maps (:mod:`synthetic.head_volumes`, seeds from 0) and
their twins without lesions: the two of which the mask has the best Dice, the two with the largest lesions of
which nothing is marked, and the two normal twins with the highest volume score. Of a set: the three volumes
with the best Dice and the three with the worst. Nothing is chosen by hand. Each is shown in the slice with
most of its lesions (of a normal one in that with the highest value), and beside it with the map in colour,
lesions outlined in green and candidates in cyan.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))
from mini_volumes import cases_of, dice
from synthetic.head_volumes import draw_head_volume
from synthetic.heads import load_heads

import medzsad
from medzsad.detectors.base import AnomalyDetector
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.readers import read_scan
from medzsad.scans.slices import CanonicalView, Plane, slice_image
from medzsad.zoo.loading import load_detector


class Shown(NamedTuple):
    """One volume in a picture.

    Attributes:
        kind: what it stands for.
        result: the prediction.
        lesions: bool (X, Y, Z), on the scan's own grid; all False of a normal one.
    """

    kind: str
    result: ScanPrediction
    lesions: np.ndarray

    @property
    def dice(self) -> float:
        """Of the mask."""
        return dice(self.result.mask > 0, self.lesions)

    @property
    def lesions_ml(self) -> float:
        """Volume of the lesions."""
        return float(self.lesions.sum()) * abs(float(np.linalg.det(self.result.affine[:3, :3]))) / 1000


def made_heads(detector: AnomalyDetector, data: Path, count: int) -> list[Shown]:
    """Return the best, the missed and the false alarms of made heads."""
    heads = load_heads(data)
    sick, normal = [], []
    for seed in range(count):
        made = draw_head_volume(np.random.default_rng(seed), heads)
        for voxels, lesions, those in (
            (made.sick, made.lesions, sick),
            (made.normal, np.zeros_like(made.lesions), normal),
        ):
            scan = read_scan(voxels, affine=made.affine, modality=made.modality, name=f"head {seed}")
            those.append(Shown("", medzsad.predict(scan, detector), lesions))
    found = sorted(sick, key=lambda one: one.dice, reverse=True)[:2]
    unmarked = [one for one in sick if not (one.result.mask.astype(bool) & one.lesions).any()]
    missed = sorted(unmarked, key=lambda one: one.lesions_ml, reverse=True)[:2]
    alarms = sorted(normal, key=lambda one: one.result.score, reverse=True)[:2]
    return [
        one._replace(kind=kind)
        for kind, some in (("found", found), ("missed", missed), ("false alarm", alarms))
        for one in some
    ]


def of_set(detector: AnomalyDetector, data: Path, name: str) -> list[Shown]:
    """Return the best and the worst of a set."""
    shown = []
    for case in cases_of(name, data / "data"):
        lesions = np.asarray(nib.load(case.label).dataobj) > 0
        shown.append(Shown(case.name, medzsad.predict(case.image, detector), lesions))
    shown.sort(key=lambda one: one.dice, reverse=True)
    return shown[:3] + shown[3:][-3:]


def draw(shown: list[Shown], out: Path) -> None:
    """Write the picture."""
    columns = 2
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, 2 * columns, figsize=(11, 3.3 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, (kind, result, lesions) in enumerate(shown):
        view = CanonicalView.of(result.scan)
        voxels, marked, truth, mask = (
            view.to_canonical(volume)
            for volume in (result.scan.voxels, result.anomaly_map, lesions, result.mask > 0)
        )
        areas = truth.sum((0, 1)) if truth.any() else marked.max((0, 1))
        index = int(areas.argmax())
        grey, part, true, found = (
            slice_image(volume, Plane.AXIAL, index) for volume in (voxels, marked, truth, mask)
        )
        low, high = np.percentile(voxels[voxels > voxels.min()], (1, 99.5))
        height = view.spacing[1] / view.spacing[0]
        plain, beside = axes[number // columns, 2 * (number % columns) : 2 * (number % columns) + 2]
        for axis in (plain, beside):
            axis.imshow(grey, cmap="gray", vmin=low, vmax=high, aspect=height)
        beside.imshow(np.ma.masked_less(part, 0.1), cmap="inferno", vmin=0, vmax=1, alpha=0.6, aspect=height)
        for outline, colour in ((true, "lime"), (found, "cyan")):
            if outline.any():
                beside.contour(outline, [0.5], colors=colour, linewidths=0.8)
        one = shown[number]
        ml = f", {one.lesions_ml:.1f} mL" if lesions.any() else ""
        plain.set_title(f"{kind}{ml}", fontsize=9, loc="left")
        said = f"Dice {one.dice:.2f}, " if lesions.any() else ""
        beside.set_title(f"{said}score {result.score:.2f}", fontsize=9, loc="left")
    figure.tight_layout(pad=0.4)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    Image.open(out, formats=("PNG",)).quantize(128).save(out, optimize=True)
    print(out)


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="medzsad-mini")
    shared = os.environ.get("MEDZSAD_SHARED")
    parser.add_argument("--data", default=shared, required=shared is None, help="folder that holds data/")
    parser.add_argument("--set", choices=("nichart", "flair", "t1c"), help="real volumes, not made heads")
    parser.add_argument("--count", type=int, default=40, help="made heads")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(args.model, device="cpu", precision="fp32")
    data = Path(args.data)
    draw(
        of_set(detector, data, args.set) if args.set else made_heads(detector, data, args.count),
        args.out,
    )


if __name__ == "__main__":
    main()
