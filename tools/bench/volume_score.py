"""Compares rules that make one volume score out of slice scores, or out of the candidates.

    python tools/bench/volume_score.py --data "$MEDZSAD_SHARED" --volumes heads --seeds even
    python tools/bench/volume_score.py --data "$MEDZSAD_SHARED" --volumes scans

``heads`` are made from anatomical label maps (:mod:`synthetic.head_volumes`), with one to three lesions of
0.1 to 20 mL together, and their twins without; even seeds choose, odd ones confirm. ``scans`` are the
redistributable scans (one head CT, one brain MR, small body CT and MR), drawn several times, mirrored,
cropped and with another gamma, as they are and with one to three soft ellipsoids of 3 to 15 % of their
longest side, brighter or darker than their place. Every rule is judged by its AUROC over all volumes, for
heads also with lesions of at least 3 mL alone, and by how often the sick twin scores higher; slice scores are
those of the detector without rules for volumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from synthetic.head_volumes import draw_head_volume
from synthetic.heads import load_heads

from medzsad.detectors.base import AnomalyDetector
from medzsad.errors import MedzsadError
from medzsad.predicting import predict, score_of_candidates
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.zoo.loading import load_detector

LARGE_ML = 3.0


def top(count: int) -> Callable[[np.ndarray], float]:
    """Return the mean of the ``count`` highest."""
    return lambda scores: float(np.sort(scores)[-count:].mean())


def share(part: float) -> Callable[[np.ndarray], float]:
    """Return the mean of the highest ``part`` of the slices, at least one."""
    return lambda scores: float(np.sort(scores)[-max(1, round(part * len(scores))) :].mean())


def window(reach: int) -> Callable[[np.ndarray], float]:
    """Return the highest mean of ``reach`` neighbouring slices."""
    return lambda scores: float(
        np.convolve(scores, np.ones(min(reach, len(scores))) / min(reach, len(scores)), "valid").max()
    )


RULES: dict[str, Callable[[np.ndarray], float]] = {
    "highest": top(1),
    "mean of the 3 highest": top(3),
    "mean of the 5 highest": top(5),
    "mean of the highest 5 %": share(0.05),
    "mean of the highest 10 %": share(0.10),
    "mean of the highest 20 %": share(0.20),
    "mean of all": share(1.0),
    "best 3 neighbours": window(3),
    "best 5 neighbours": window(5),
    "highest less the median": lambda scores: float(scores.max() - np.median(scores)),
    "one is abnormal (1 - product)": lambda scores: float(1 - np.prod(1 - np.clip(scores, 0, 1 - 1e-6))),
}


def normal_scans(data: Path) -> Iterator[Scan]:
    """Return the redistributable scans below ``data``.

    Label maps and files that cannot be read are left out.
    """
    yield read_scan(data / "dicom_head_ct")
    yield read_scan(data / "dicom_brain_mr")
    for path in sorted((data / "body_ct_small").rglob("*.nii.gz")):
        if "seg" in path.name or "label" in path.name:
            continue
        try:
            yield read_scan(path)
        except MedzsadError:
            continue


def drawn(scan: Scan, source: np.random.Generator) -> Scan:
    """Return the scan mirrored, cropped along the slices and with another gamma, at random."""
    voxels = np.asarray(scan.voxels, dtype=np.float32)
    if source.random() < 0.5:
        voxels = voxels[::-1]
    length = voxels.shape[2]
    first, last = source.integers(0, length // 6 + 1), length - source.integers(0, length // 6 + 1)
    voxels = voxels[:, :, first:last]
    low, high = voxels.min(), voxels.max()
    voxels = low + (high - low) * ((voxels - low) / (high - low + 1e-6)) ** np.exp(source.normal(0, 0.15))
    return replace(scan, voxels=np.ascontiguousarray(voxels))


def with_lesions(scan: Scan, source: np.random.Generator) -> Scan:
    """One to three soft ellipsoids in the tissue, 0.2 to 0.6 of its range of values brighter or darker."""
    voxels = scan.voxels.copy()
    spacing = np.array(scan.spacing)
    tissue = np.argwhere(voxels > np.quantile(voxels, 0.6))
    spread = float(np.quantile(voxels, 0.99) - np.quantile(voxels, 0.3))
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in voxels.shape), indexing="ij"), -1) * spacing
    for _ in range(source.integers(1, 4)):
        centre = tissue[source.integers(len(tissue))] * spacing
        radius = max(voxels.shape * spacing) * source.uniform(0.03, 0.15) / 2 * source.uniform(0.7, 1.3, 3)
        distance = np.sqrt((((grid - centre) / np.maximum(radius, spacing)) ** 2).sum(-1))
        opacity = 1 / (1 + np.exp((distance - 1) / 0.15))
        voxels += opacity * spread * source.uniform(0.2, 0.6) * source.choice([-1, 1], p=[0.35, 0.65])
    return replace(scan, voxels=voxels.astype(np.float32))


def head_scans(data: Path, seeds: range) -> Iterator[tuple[Scan, Scan, float]]:
    """Made heads, their twins with lesions, and the volume of these in mL; one pair a seed."""
    heads = load_heads(data)
    for seed in seeds:
        made = draw_head_volume(np.random.default_rng(seed), heads)
        normal, sick = (
            read_scan(voxels, affine=made.affine, modality=made.modality, name=f"head{seed}")
            for voxels in (made.normal, made.sick)
        )
        yield normal, sick, made.lesions_ml


def drawn_scans(data: Path, draws: int, seed: int) -> Iterator[tuple[Scan, Scan, float]]:
    """Return the redistributable scans, drawn, their twins with lesions, and 0: these were not measured."""
    source = np.random.default_rng(seed)
    for scan in normal_scans(data / "data"):
        for _ in range(draws):
            plain = drawn(scan, source)
            yield plain, with_lesions(plain, source), 0.0


def scores_of(scan: Scan, detector: AnomalyDetector) -> dict[str, float]:
    """Return what every rule says of a volume."""
    slices = np.array(
        [s.score for s in predict(scan, detector, volume_rules="off", roi="whole").slice_scores]
    )
    found = predict(scan, detector)
    shown = np.array([lesion.score for lesion in found.lesions])
    return {name: rule(slices) for name, rule in RULES.items()} | {
        "volume score of predict": found.score,
        "first candidate": score_of_candidates(found),
        "candidates: 1 - product": float(1 - np.prod(1 - shown)),
        "candidates: mL": float(sum(lesion.volume_ml for lesion in found.lesions)),
        "candidates: highest value": max((lesion.maximum for lesion in found.lesions), default=0.0),
    }


def main() -> None:
    """Read the command line and print a line of figures per rule."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--model", default="medzsad-mini")
    parser.add_argument("--volumes", choices=["heads", "scans"], default="heads")
    parser.add_argument("--seeds", choices=["even", "odd"], default="even", help="of heads")
    parser.add_argument("--count", type=int, default=30, help="pairs of heads")
    parser.add_argument("--draws", type=int, default=3, help="of each scan")
    parser.add_argument("--seed", type=int, default=0, help="of scans")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(args.model, device="cpu", precision="fp32")
    first = int(args.seeds == "odd")
    if args.volumes == "heads":
        pairs = head_scans(args.data, range(first, first + 2 * args.count, 2))
    else:
        pairs = drawn_scans(args.data, args.draws, args.seed)
    found = [(scores_of(normal, detector), scores_of(sick, detector), ml) for normal, sick, ml in pairs]
    large = np.array([ml >= LARGE_ML for *_, ml in found])
    print(
        f"{len(found)} volumes without lesions and their twins with lesions, {large.sum()} with {LARGE_ML} mL"
    )
    for name in found[0][0]:
        low, high = (np.array([pair[sick][name] for pair in found]) for sick in (0, 1))
        of_large = f"  large {area(low, high[large]):.3f}" if large.any() else ""
        print(f"{name:36} AUROC {area(low, high):.3f}{of_large}  twin higher {np.mean(high > low):.3f}")


def area(normal: np.ndarray, sick: np.ndarray) -> float:
    """Return the AUROC of scores (N,) and (M,)."""
    labels = np.repeat([0, 1], (len(normal), len(sick)))
    return float(roc_auc_score(labels, np.concatenate([normal, sick])))


if __name__ == "__main__":
    main()
