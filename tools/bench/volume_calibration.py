"""Of voxels of real volumes to which medzsad-mini's map gives a value, which share lies in lesions.

    python tools/bench/volume_calibration.py medzsad/weights/medzsad-mini.safetensors --data "$MEDZSAD_SHARED"

FLAIR of ``nichart_demo`` (its labels are a network's), FLAIR and T1c of ``brats2013``, as ``medzsad predict``
gives them: for each tenth of the values, how many voxels of the scan's foreground have them, their mean and
the share of them that lies in lesions. Where the map is 0, as outside the brain, it says nothing, and such
voxels are counted apart. The expected calibration error weighs each tenth by its voxels; since nearly all
voxels are normal and low, it is given from 0.1 on, too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from mini_volumes import HALVES, cases_of

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.scans.foreground import foreground_mask

TENTHS = 10
SETS = ("nichart", "flair", "t1c")


def tenths_of(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return, of each tenth of the values, voxels, sum of values and lesion voxels: float64 (10, 3).

    Args:
        values: float (N,) in [0, 1].
        label: bool (N,).
    """
    tenth = np.minimum((values * TENTHS).astype(int), TENTHS - 1)
    return np.stack(
        [np.bincount(tenth, weights, TENTHS) for weights in (np.ones(len(values)), values, label)], axis=1
    )


def calibration_error(table: np.ndarray) -> float:
    """Return the expected calibration error of rows of :func:`tenths_of`."""
    voxels, values, lesions = table.T
    return float(np.abs(values - lesions).sum() / max(voxels.sum(), 1))


def main() -> None:
    """Read the command line and print a table of each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="checkpoint of medzsad-mini")
    shared = os.environ.get("MEDZSAD_SHARED")
    parser.add_argument("--data", default=shared, required=shared is None, help="folder that holds data/")
    parser.add_argument("--half", choices=HALVES, default="whole")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = MedzsadMini.from_checkpoint(read_checkpoint(args.model))
    for name in SETS:
        table, nowhere = np.zeros((TENTHS, 3)), np.zeros(2)
        for case in cases_of(name, Path(args.data) / "data")[HALVES[args.half]]:
            result = medzsad.predict(case.image, detector)
            label = np.asarray(nib.load(case.label).dataobj) > 0
            said = foreground_mask(result.scan) & (result.anomaly_map > 0)
            table += tenths_of(result.anomaly_map[said].astype(np.float64), label[said])
            nowhere += [np.count_nonzero(~said), np.count_nonzero(label & ~said)]
        print(f"{name}, {args.half}: values from, voxels, mean value, share in lesions")
        for tenth, (voxels, values, lesions) in enumerate(table):
            mean, share = (f"{total / voxels:.3f}" if voxels else "-" for total in (values, lesions))
            print(f"{tenth / TENTHS:.1f} {voxels:10.0f} {mean:>6} {share:>6}")
        error, above = calibration_error(table), calibration_error(table[1:])
        print(f"calibration error {error:.4f}, from 0.1 on {above:.3f}")
        print(f"where the map is 0: {nowhere[0]:.0f} voxels, {nowhere[1]:.0f} in lesions", flush=True)


if __name__ == "__main__":
    main()
