r"""Measures a detector on real data, beside references that need no model.

    D="$MEDZSAD_SHARED/data"
    python tools/bench/mini_quality.py --detector medzsad/weights/medzsad-mini.safetensors \
        --volumes "$D/brats2013" --yes-no "$D/brainmri/brain_tumor_dataset" \
        --masked "$D/kvasir" --masked "$D/ddti"

``--volumes``: a folder of cases with ``Flair*``, ``T1c*``, ``brainmask*`` and ``OTMultiClass*`` NIfTI files;
axial slices are cropped to the foreground and scaled by its 0.5 and 99.5 percentiles; the map is 0 outside
it, and every voxel of the grid counts. ``--yes-no``: a folder with ``yes`` and ``no``. ``--masked``: a folder
with ``images`` and ``masks`` of the same names.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.registry import detector_class


def histogram_metrics(
    values: np.ndarray, truth: np.ndarray, bins: int = 65_536
) -> tuple[float, float, float]:
    """AUROC, AP and best Dice of scores in [0, 1] against booleans, from histograms (exact to about 1e-5)."""
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    positive = np.bincount(index[truth], minlength=bins)[::-1].astype(np.float64)
    negative = np.bincount(index[~truth], minlength=bins)[::-1].astype(np.float64)
    tp, fp = positive.cumsum(), negative.cumsum()
    recall, precision = tp / max(tp[-1], 1), tp / np.maximum(tp + fp, 1)
    auroc = float(np.trapezoid(np.r_[0, tp / max(tp[-1], 1)], np.r_[0, fp / max(fp[-1], 1)]))
    ap = float((np.diff(np.r_[0, recall]) * precision).sum())
    dice = float((2 * tp / np.maximum(tp + fp + tp[-1], 1)).max())
    return auroc, ap, dice


def to_square(images: Tensor) -> Tensor:
    """Pads (B, H, W) to a square with zeros, centred."""
    height, width = images.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(images, (left, side - width - left, top, side - height - top))


def predict_volume(
    detector: AnomalyDetector, volume: np.ndarray, foreground: np.ndarray, batch: int = 16
) -> np.ndarray:
    """The map of ``volume`` (X, Y, Z), axial slice by slice, cropped to the foreground; float32 (X, Y, Z)."""
    low, high = np.percentile(volume[foreground], (0.5, 99.5))
    scaled = np.where(foreground, np.clip((volume - low) / (high - low), 0, 1), 0).astype("float32")
    box = tuple(slice(i.min(), i.max() + 1) for i in foreground.nonzero())
    # Rows of the picture run from front to back, so that left and right lie left and right.
    slices = torch.from_numpy(np.ascontiguousarray(scaled[box].transpose(2, 1, 0)[:, ::-1]))
    height, width = slices.shape[1:]
    square = to_square(slices)
    side = square.shape[-1]
    top, left = (side - height) // 2, (side - width) // 2
    maps = torch.cat(
        [
            detector(square[i : i + batch, None].expand(-1, 3, -1, -1)).anomaly_map
            for i in range(0, len(square), batch)
        ]
    )[:, top : top + height, left : left + width]
    result = np.zeros(volume.shape, "float32")
    result[box] = maps.flip(1).numpy().transpose(2, 1, 0)
    return result * foreground


def bench_volumes(detector: AnomalyDetector, root: Path) -> None:
    """Prints a row per case, contrast and method."""
    import nibabel as nib

    for name in ("Flair", "T1c"):
        for case in sorted(p for p in root.iterdir() if p.is_dir()):
            volume, mask, label = (
                np.asarray(nib.load(next(case.glob(f"{stem}*.nii*"))).dataobj)
                for stem in (name, "brainmask", "OTMultiClass")
            )
            foreground, truth = mask > 0, label > 0
            begin = time.perf_counter()
            found = predict_volume(detector, volume.astype("float32"), foreground)
            seconds = time.perf_counter() - begin
            low, high = np.percentile(volume[foreground], (0.5, 99.5))
            bright = (
                np.clip((gaussian_filter(volume.astype("float32"), 2) - low) / (high - low), 0, 1)
                * foreground
            )
            for who, values in (("detector", found), ("brightness", bright)):
                auroc, ap, dice = histogram_metrics(values, truth)
                taken = f"{seconds:.1f} s" if who == "detector" else ""
                inner = histogram_metrics(values[foreground], truth[foreground])[0]
                print(
                    f"| {case.name} {name} | {who} | voxel AUROC {auroc:.4f} (inside the brain {inner:.4f}) "
                    f"| AP {ap:.3f} | best Dice {dice:.3f} | {taken} |",
                    flush=True,
                )


def load_picture(path: Path, size: int | None = None) -> Tensor:
    """An RGB picture as float32 (3, H, W) in [0, 1]."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
        if size:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(picture, dtype="float32") / 255).permute(2, 0, 1)


def bench_yes_no(detector: AnomalyDetector, root: Path) -> None:
    """Prints image-level rows for a folder with ``yes`` and ``no``."""
    scores: dict[str, list[float]] = {
        "joint score": [],
        "probability": [],
        "map maximum": [],
        "asymmetry": [],
    }
    truth = []
    for answer in ("no", "yes"):
        for path in sorted(p for p in (root / answer).iterdir() if p.is_file()):
            picture = load_picture(path)
            grey = picture.mean(0)
            rows, columns = ((grey > 0.06).any(axis).nonzero()[:, 0] for axis in (1, 0))
            cropped = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            out = detector(to_square(cropped)[None])
            scores["joint score"].append(float(out.image_score[0]))
            scores["probability"].append(float(out.image_probability[0]))
            scores["map maximum"].append(float(out.anomaly_map.max()))
            # The whole picture at 32 pixels: finer or cropped, this reference ranks worse.
            grey = F.interpolate(grey[None, None], (32, 32), mode="bilinear", antialias=True)[0, 0]
            grey = (grey - grey.mean()) / (grey.std() + 1e-6)
            scores["asymmetry"].append(float((grey - grey.flip(-1)).abs().mean()))
            truth.append(answer == "yes")
    for who, values in scores.items():
        print(
            f"| {root.name} ({len(truth)} images) | {who} | image AUROC {roc_auc_score(truth, values):.4f} "
            f"| AP {average_precision_score(truth, values):.3f} |",
            flush=True,
        )


def bench_masked(detector: AnomalyDetector, root: Path, limit: int, batch: int = 16) -> None:
    """Prints pixel-level rows for a folder with ``images`` and ``masks``."""
    paths = sorted((root / "images").iterdir())[:limit]
    found, bright, truth = [], [], []
    for i in range(0, len(paths), batch):
        pictures = torch.stack([load_picture(p, 256) for p in paths[i : i + batch]])
        masks = torch.stack(
            [
                load_picture(next((root / "masks").glob(f"{p.stem}.*")), 256).mean(0)
                for p in paths[i : i + batch]
            ]
        )
        found.append(detector(pictures).anomaly_map.numpy())
        grey = pictures.mean(1).numpy()
        grey = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1e-6)
        bright.append(np.stack([gaussian_filter(g, 2.3) for g in grey]))
        truth.append(masks.numpy() > 0.5)
    answer = np.concatenate(truth).ravel()
    rows = [("detector", np.concatenate(found)), ("brightness", (np.concatenate(bright) + 5) / 10)]
    rows.append(("darkness", 1 - rows[1][1]))
    for who, values in rows:
        auroc, ap, dice = histogram_metrics(values.ravel().clip(0, 1), answer)
        print(
            f"| {root.name} ({len(paths)} images) | {who} | pixel AUROC {auroc:.4f} | AP {ap:.3f} "
            f"| best Dice {dice:.3f} |",
            flush=True,
        )


def main() -> None:
    """Reads the command line and prints one table row per set and method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--detector", type=Path, required=True, help="a checkpoint file")
    parser.add_argument("--volumes", type=Path, action="append", default=[])
    parser.add_argument("--yes-no", type=Path, action="append", default=[])
    parser.add_argument("--masked", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=10_000, help="at most so many pictures of a masked set")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = read_checkpoint(args.detector)
    detector = detector_class(checkpoint.method).from_checkpoint(checkpoint)
    detector.precision = args.precision
    for root in args.volumes:
        bench_volumes(detector, root)
    for root in args.yes_no:
        bench_yes_no(detector, root)
    for root in args.masked:
        bench_masked(detector, root, args.limit)


if __name__ == "__main__":
    main()
