r"""Measures checkpoints of medzsad-mini on volumes: voxels, lesions, and candidates where nothing is wrong.

    python tools/bench/mini_volumes.py old.safetensors new.safetensors --data "$MEDZSAD_SHARED" --half even

Sets: FLAIR of ``nichart_demo`` (its labels are a network's: a silver standard), FLAIR and T1c of
``brats2013``, the phantom of ``examples/``, and two scans without known lesions, a tilted head CT and the T1
of a volunteer. Even: every other volume of a set, from the first on; what they choose is reported on the odd
ones; with ``--half whole`` all three means are printed. For each volume, as ``medzsad predict`` gives it by
default: CPU seconds; candidates; volume score; average precision
of the voxels, and inside the brain; the same of smoothed brightness, the trivial reference; Dice of the mask
at the default threshold, and the best possible; lesions of at least 10 mm3 that a listed candidate shares an
IoU of 0.1 with (so that one candidate over the whole brain finds nothing); candidates that touch no lesion.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.metrics.bootstrap import Draws
from medzsad.metrics.lesionwise import LesionRule, match_candidates
from medzsad.results.prediction import ScanPrediction
from medzsad.scans.foreground import foreground_mask
from medzsad.scans.readers import read_scan

HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2), "whole": slice(None)}
RULE = LesionRule(threshold=0.5, min_lesion_mm3=10.0, min_overlap=0.1, overlap="iou")
SMOOTH_MM = 2.0  # sigma, of the trivial reference
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
    """Return the volumes of a set, in order."""
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
    """Return a mask brought to the grid of a scan by its affine map, nearest neighbour: bool (X, Y, Z)."""
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
    """Return the highest Dice of any threshold."""
    order = np.argsort(-values[(values > 0) | label])
    hits = np.cumsum(label[(values > 0) | label][order])
    return float((2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])).max())


def dice(mask: np.ndarray, label: np.ndarray) -> float:
    """Dice of a mask."""
    return 2 * float((mask & label).sum()) / float(mask.sum() + label.sum())


def measure(case: Case, detector: MedzsadMini, **options: Any) -> dict[str, float]:
    """All figures of one volume."""
    begin = time.process_time()
    result = medzsad.predict(case.image, detector, **options)
    return {"cpu_s": time.process_time() - begin, **judge(case, result)}


def judge(case: Case, result: ScanPrediction) -> dict[str, float]:
    """All figures of one prediction."""
    figures = {"candidates": float(len(result.lesions)), "score": result.score}
    if case.label is None:
        marked = float(result.mask.sum()) * voxel_mm3(result) / 1000
        return figures | {"highest": float(result.anomaly_map.max()), "marked_ml": marked}
    import nibabel as nib

    label = np.asarray(nib.load(case.label).dataobj) > 0
    figures["ap"] = average_precision(result.anomaly_map, label)
    figures["dice"] = dice(result.mask, label)
    figures["dice_best"] = best_dice(result.anomaly_map, label)
    labels = result.candidates.labels
    listed = np.where(labels <= len(result.lesions), labels, 0)
    spacing = np.linalg.norm(result.affine[:3, :3], axis=0)
    lesions = match_candidates(listed, result.anomaly_map, label, RULE, spacing=spacing.tolist())
    figures["lesions"] = float(len(lesions.lesion_scores))
    figures["found"] = float(np.isfinite(lesions.lesion_scores).sum())
    figures["false"] = float(len(lesions.false_positive_scores))
    # The trivial reference: smoothed brightness, of all that is no air and, where it is known, of the brain.
    grey = read_scan(case.image).voxels.astype(np.float32)
    smooth = ndimage.gaussian_filter(grey, SMOOTH_MM / spacing)
    head = foreground_mask(result.scan)
    figures["brightness"] = average_precision(np.where(head, smooth - smooth[head].min() + 1e-3, 0), label)
    if case.brain is not None:
        brain = on_grid_of(case.brain, result)
        inside = np.where(brain, smooth - smooth[brain].min() + 1e-3, 0)
        figures["brightness_brain"] = average_precision(inside, label)
        figures["ap_brain"] = average_precision(np.where(brain, result.anomaly_map, 0), label)
    return figures


def voxel_mm3(result: ScanPrediction) -> float:
    """Volume of a voxel."""
    return abs(float(np.linalg.det(result.affine[:3, :3])))


def lines(name: str, cases: list[Case], detector: MedzsadMini, every: bool, **options: Any) -> Iterator[str]:
    """Return mean figures of a set and, of a large one, of its halves, after each volume's if ``every``."""
    found = []
    for case in cases:
        found.append(measure(case, detector, **options))
        if every or len(cases) == 1 or case.label is None:
            yield f"{name:8} {case.name:14} " + shown(found[-1])
    if len(cases) > 1 and cases[0].label is not None:
        yield f"{name:8} {summary(found)}"
        if len(cases) > 12:
            yield from (f"{name:8} {half}: {summary(found[HALVES[half]])}" for half in ("even", "odd"))


def summary(found: list[dict[str, float]]) -> str:
    """Return mean figures of volumes, with an interval, and in how many the map is above the references."""
    table = {key: np.array([figures[key] for figures in found]) for key in found[0]}
    mean = {key: float(values.mean()) for key, values in table.items()}
    draws = np.concatenate([counts @ table["ap"] for counts in Draws().counts(len(found), 1)]) / len(found)
    low, high = np.percentile(draws, (2.5, 97.5))
    above = [int((table["ap"] > table[key]).sum()) for key in ("brightness", "brightness_brain")]
    return (
        f"mean of {len(found)}: {shown(mean)}; ap {low:.3f} to {high:.3f} (95 %); above brightness in "
        f"{above[0]}, inside the brain in {above[1]}; ap_brain above it in "
        f"{int((table['ap_brain'] > table['brightness_brain']).sum())}; "
        f"{table['found'].sum():.0f} of {table['lesions'].sum():.0f} lesions"
    )


def shown(figures: dict[str, float]) -> str:
    """Figures as text."""
    return ", ".join(f"{key} {value:.3g}" for key, value in figures.items())


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="checkpoints of medzsad-mini")
    shared = os.environ.get("MEDZSAD_SHARED")
    parser.add_argument("--data", default=shared, required=shared is None, help="folder that holds data/")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--half", choices=HALVES, default="even")
    parser.add_argument("--most", type=int, help="volumes of each set")
    parser.add_argument("--threshold", type=float, help="of the map; by default the checkpoint's own")
    parser.add_argument("--first-pass", type=int, help="side in pixels: see medzsad.inference.first_pass")
    parser.add_argument("--plane", default="auto", help="auto, axial, coronal, sagittal or all")
    parser.add_argument("--slice-step", help="all, auto or mm: see medzsad.inference.slice_step")
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
            options = {"plane": args.plane, "first_pass": args.first_pass, "slice_step": args.slice_step}
            for line in lines(name, cases[half][: args.most], detector, args.every, **options):
                print(line, flush=True)


if __name__ == "__main__":
    main()
