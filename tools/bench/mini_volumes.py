r"""Measures checkpoints of medzsad-mini on volumes: voxels, lesions, and candidates where nothing is wrong.

    python tools/bench/mini_volumes.py old.safetensors new.safetensors --data "$MEDZSAD_SHARED" --half even

Sets: FLAIR of ``nichart_demo`` (its labels are a network's: a silver standard), FLAIR and T1c of
``brats2013``, the phantom of ``examples/``, and two scans without known lesions, a tilted head CT and the T1
of a volunteer. Even: every other volume of a set, from the first on; what they choose is reported on the odd
ones. For each volume: average precision of the voxels; the same of smoothed brightness inside the brain, the
trivial reference; best possible Dice and Dice at the threshold; lesions of at least 10 mm3 of which a tenth
is marked; candidates that touch no lesion.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.readers import read_scan

HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2), "whole": slice(None)}
LEAST_MM3 = 10.0
FOUND = 0.1  # share of a lesion that must be marked
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Case(NamedTuple):
    """One volume.

    Attributes:
        name: what it is.
        image: the scan.
        label: lesions on its grid; None where there are none.
        brain: the brain, on any grid; None where it is not known.
    """

    name: str
    image: Path
    label: Path | None
    brain: Path | None


def cases_of(name: str, data: Path) -> list[Case]:
    """The volumes of a set, in order."""
    if name == "nichart":
        folder = data / "nichart_demo"
        names = sorted((path.name for path in (folder / "flair").glob("*.nii.gz")), key=lambda n: (len(n), n))
        return [
            Case(n.split(".")[0], folder / "flair" / n, folder / "wml_auto" / n, folder / "t1_rois" / n)
            for n in names
        ]
    if name in ("flair", "t1c"):
        file = f"{'Flair' if name == 'flair' else 'T1c'}_subtrMeanDivStd.nii.gz"
        return [
            Case(p.name, p / file, p / "OTMultiClass.nii.gz", p / "brainmask.nii.gz")
            for p in sorted((data / "brats2013").glob("pat*"))
        ]
    if name == "phantom":
        lesion = EXAMPLES / "head_phantom_lesion.nii.gz"
        return [Case("phantom", EXAMPLES / "head_phantom.nii.gz", lesion, None)]
    return [Case(n, data / n, None, None) for n in ("dicom_head_ct", "dicom_brain_mr")]


SETS = ("nichart", "flair", "t1c", "phantom", "normal")


def on_grid_of(path: Path, like: ScanPrediction) -> np.ndarray:
    """A mask brought to the grid of a scan by its affine map, nearest neighbour: bool (X, Y, Z)."""
    import nibabel as nib

    image = nib.load(path)
    mask = np.asarray(image.dataobj) > 0
    matrix = np.linalg.inv(image.affine) @ like.affine
    return ndimage.affine_transform(
        mask.astype(np.uint8), matrix, output_shape=like.anomaly_map.shape, order=0
    ).astype(bool)


def average_precision(values: np.ndarray, label: np.ndarray) -> float:
    """Average precision of voxels; where the map is 0 they all come last."""
    from sklearn.metrics import average_precision_score

    chosen = (values > 0) | label
    return float(average_precision_score(label[chosen], values[chosen]))


def best_dice(values: np.ndarray, label: np.ndarray) -> float:
    """The highest Dice of any threshold."""
    order = np.argsort(-values[(values > 0) | label])
    hits = np.cumsum(label[(values > 0) | label][order])
    return float((2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])).max())


def measure(case: Case, detector: MedzsadMini) -> dict[str, float]:
    """All figures of one volume."""
    result = medzsad.predict(case.image, detector)
    figures = {"candidates": float(len(result.lesions)), "seconds": result.timings["inference_s"]}
    if case.label is None:
        return figures | {
            "highest": float(result.anomaly_map.max()),
            "marked_ml": volume_ml(result, result.mask),
        }
    import nibabel as nib

    label = np.asarray(nib.load(case.label).dataobj) > 0
    figures["ap"] = average_precision(result.anomaly_map, label)
    figures["dice"] = 2 * float((result.mask & label).sum()) / float(result.mask.sum() + label.sum())
    figures["dice_best"] = best_dice(result.anomaly_map, label)
    lesions, count = ndimage.label(label, np.ones((3, 3, 3)))
    sizes = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(lesions[result.mask], minlength=count + 1)[1:]
    counted = sizes * voxel_mm3(result) >= LEAST_MM3
    figures["lesions"] = float(counted.sum())
    figures["found"] = float((counted & (hits >= FOUND * sizes)).sum())
    marked, number = ndimage.label(result.mask, np.ones((3, 3, 3)))
    areas = np.bincount(marked.ravel(), minlength=number + 1)[1:]
    true = np.bincount(marked[label], minlength=number + 1)[1:] > 0
    figures["false"] = float((~true & (areas * voxel_mm3(result) >= LEAST_MM3)).sum())
    if case.brain is not None:
        brain = on_grid_of(case.brain, result)
        grey = read_scan(case.image).voxels.astype(np.float32)
        sigma = 2.0 / np.cbrt(voxel_mm3(result))
        smooth = ndimage.gaussian_filter(grey, sigma)
        bright = np.where(brain, smooth - smooth[brain].min() + 1e-3, 0)
        figures["brightness"] = average_precision(bright, label)
        figures["ap_brain"] = average_precision(np.where(brain, result.anomaly_map, 0), label)
    return figures


def voxel_mm3(result: ScanPrediction) -> float:
    """Volume of a voxel."""
    return abs(float(np.linalg.det(result.affine[:3, :3])))


def volume_ml(result: ScanPrediction, mask: np.ndarray) -> float:
    """Volume of a mask."""
    return float(mask.sum()) * voxel_mm3(result) / 1000


def lines(name: str, cases: list[Case], detector: MedzsadMini, every: bool) -> Iterator[str]:
    """The mean figures of a set, after those of each volume if ``every``."""
    found = []
    for case in cases:
        found.append(measure(case, detector))
        if every or len(cases) == 1 or case.label is None:
            yield f"{name:8} {case.name:14} " + shown(found[-1])
    if len(cases) > 1 and cases[0].label is not None:
        mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        above = sum(one["ap"] > one["brightness"] for one in found)
        yield (
            f"{name:8} mean of {len(found):<6} {shown(mean)}; above brightness in {above}; "
            f"{sum(one['found'] for one in found):.0f} of {sum(one['lesions'] for one in found):.0f} lesions"
        )


def shown(figures: dict[str, float]) -> str:
    """Figures as text."""
    return ", ".join(f"{key} {value:.3g}" for key, value in figures.items())


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="checkpoints of medzsad-mini")
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--half", choices=HALVES, default="even")
    parser.add_argument("--most", type=int, help="volumes of each set")
    parser.add_argument("--threshold", type=float, help="of the map; by default the checkpoint's own")
    parser.add_argument("--every", action="store_true", help="print each volume's figures, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in args.models:
        detector = MedzsadMini.from_checkpoint(read_checkpoint(path))
        if args.threshold is not None:
            detector.threshold = args.threshold
        print(f"{path.name}, {args.half}", flush=True)
        for name in args.sets:
            cases = cases_of(name, Path(args.data) / "data")
            half = HALVES[args.half] if name in ("nichart", "flair", "t1c") else slice(None)
            for line in lines(name, cases[half][: args.most], detector, args.every):
                print(line, flush=True)


if __name__ == "__main__":
    main()
