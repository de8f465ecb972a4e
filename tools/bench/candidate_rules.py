"""Measures the rules for volumes: what they do to true and false candidates of a detector.

    python tools/bench/candidate_rules.py --data "$MEDZSAD_SHARED" --half even

The volumes are those of ``mini_volumes.py``. Each is predicted once without rules and once with those of
:data:`medzsad.detectors.volume_rules.MEASURED_RULES`; printed are average precision of the voxels, the
candidates that touch a lesion and those that do not, with and without the faint ones, and whether the first
one is true.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from mini_volumes import HALVES, SETS, Case, average_precision, cases_of

import medzsad
from medzsad.detectors.base import AnomalyDetector
from medzsad.zoo.loading import load_detector

RUNS = {
    "no rules": {"volume_rules": "off"},
    "smoothed, without ends": {"volume_rules": "on", "all_candidates": True},
    "and faint ones hidden": {"volume_rules": "on"},
}


def measure(case: Case, detector: AnomalyDetector) -> dict[str, np.ndarray]:
    """Return true and false candidates, whether the first is true, average precision, for each of RUNS."""
    label = None if case.label is None else np.asarray(nib.load(case.label).dataobj) > 0
    figures = {}
    for name, options in RUNS.items():
        result = medzsad.predict(case.image, detector, roi="whole", **options)
        labels = result.candidates.labels
        true = set() if label is None else set(np.unique(labels[label]).tolist())
        true &= set(range(1, len(result.lesions) + 1))
        precision = np.nan if label is None else average_precision(result.anomaly_map, label)
        figures[name] = np.array([len(true), len(result.lesions) - len(true), 1 in true, precision])
    return figures


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shared = os.environ.get("MEDZSAD_SHARED")
    parser.add_argument("--data", default=shared, required=shared is None, help="folder that holds data/")
    parser.add_argument("--model", default="medzsad-mini")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--half", choices=HALVES, default="even")
    parser.add_argument("--most", type=int, help="volumes of each set")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(args.model, device="cpu", precision="fp32")
    for name in args.sets:
        cases = cases_of(name, Path(args.data) / "data")
        half = HALVES[args.half] if name in ("nichart", "flair", "t1c") else slice(None)
        found = [measure(case, detector) for case in cases[half][: args.most]]
        for run in RUNS:
            true, false, first, _ = np.sum([one[run] for one in found], axis=0)
            precision = np.mean([one[run][3] for one in found])
            print(
                f"{name:8} {len(found):2} volumes, {run:23} {true:.0f} true, {false:.0f} false, first true "
                f"in {first:.0f}, AP {precision:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
