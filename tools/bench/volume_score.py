"""Compares rules that make one volume score out of slice scores.

    python tools/bench/volume_score.py --data "$MEDZSAD_SHARED"

The volumes are the redistributable scans (one head CT, one brain MR, small body CT and MR). Each is drawn
several times, mirrored, cropped and with another gamma, once as it is and once with one to three soft
ellipsoids of 3 to 15 % of its longest side pasted in, brighter or darker than their place. Slices are scored
by the detector; then every rule is judged by its AUROC over all volumes, and by how often the sick twin
scores higher.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from medzsad.errors import MedzsadError
from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan
from medzsad.zoo.loading import load_detector


def top(count: int) -> Callable[[np.ndarray], float]:
    """The mean of the ``count`` highest."""
    return lambda scores: float(np.sort(scores)[-count:].mean())


def share(part: float) -> Callable[[np.ndarray], float]:
    """The mean of the highest ``part`` of the slices, at least one."""
    return lambda scores: float(np.sort(scores)[-max(1, round(part * len(scores))) :].mean())


def window(reach: int) -> Callable[[np.ndarray], float]:
    """The highest mean of ``reach`` neighbouring slices."""
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
    """The redistributable scans below ``data``; label maps and files that cannot be read are left out."""
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
    """The scan mirrored, cropped along the slices and with another gamma, at random."""
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


def main() -> None:
    """Reads the command line and prints a line of figures per rule."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--model", default="medzsad-mini")
    parser.add_argument("--draws", type=int, default=3, help="of each volume")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(args.model, device="cpu", precision="fp32")
    source = np.random.default_rng(args.seed)
    normal, sick = [], []
    for scan in normal_scans(args.data / "data"):
        for _ in range(args.draws):
            plain = drawn(scan, source)
            for scans, kept in ((plain, normal), (with_lesions(plain, source), sick)):
                found = predict(scans, detector, plane="auto")
                kept.append(np.array([s.score for s in found.slice_scores]))
    labels = np.array([0] * len(normal) + [1] * len(sick))
    print(f"{len(normal)} normal volumes of {min(map(len, normal))} to {max(map(len, normal))} slices")
    for name, rule in RULES.items():
        low, high = np.array([rule(s) for s in normal]), np.array([rule(s) for s in sick])
        area = roc_auc_score(labels, np.concatenate([low, high]))
        print(f"{name:32} AUROC {area:.3f}  twin higher {np.mean(high > low):.3f}")


if __name__ == "__main__":
    main()
