r"""Measures checkpoints of medzsad-mini on the halves of data sets: one to choose by, one to report.

    D="$MEDZSAD_SHARED/data"
    python tools/bench/mini_halves.py --half even -m old.safetensors -m new.safetensors \
        brainmri="$D/brainmri" kvasir="$D/kvasir" brats2013:flair="$D/brats2013" --cache mini-cache

Even: an even index in the order of the samples of the class and label; odd: the others; whole: all. Of three
volumes the first and the third are the even half. What is chosen by one half is reported on the other.
``--change flip=false``, ``--change image_size=256`` and so on change settings of the checkpoints: ablations.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.settings import EvaluationSettings

HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2), "whole": slice(None)}
SHOWN = (
    ("image", "auroc"),
    ("image", "ap"),
    ("pixel", "auroc"),
    ("pixel", "ap"),
    ("pixel", "dice"),
    ("pixel", "f1_max"),
    ("case", "auroc"),
    ("case", "ap"),
    ("case", "dice"),
    ("case", "dice_best"),
)


def half_of(samples: SampleSet, half: str) -> SampleSet:
    """Every other sample of each class and label in order, so that both halves have all of them."""
    groups: dict[tuple, list] = {}
    for sample in samples.samples:
        key = () if samples.is_volumetric else (sample.class_name, sample.label)
        groups.setdefault(key, []).append(sample)
    chosen = {s.id for group in groups.values() for s in group[HALVES[half]]}
    kept = tuple(sample for sample in samples.samples if sample.id in chosen)
    return dataclasses.replace(samples, samples=kept)


def load(path: str, changes: dict[str, Any]) -> AnomalyDetector:
    """Return the detector of a checkpoint file with settings changed, or a trivial reference by its name."""
    if path.endswith(".safetensors"):
        checkpoint = read_checkpoint(path)
        checkpoint = dataclasses.replace(checkpoint, settings={**checkpoint.settings, **changes})
        detector = MedzsadMini.from_checkpoint(checkpoint)
        detector.name = Path(path).stem
        return detector
    from medzsad.zoo.loading import load_detector

    return load_detector(path, device="cpu")


def main() -> None:
    """Read the command line and print a line of figures per data set and detector."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="+", help="NAME[:CHANNEL]=ROOT")
    parser.add_argument("-m", "--model", action="append", required=True, help="checkpoint, or a reference")
    parser.add_argument("--half", choices=HALVES, default="even")
    parser.add_argument("--cache", type=Path, help="folder of kept predictions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--change", action="append", default=[], metavar="KEY=JSON", help="of the settings")
    args = parser.parse_args()
    changes = {key: json.loads(value) for key, value in (item.split("=", 1) for item in args.change)}
    torch.set_num_threads(args.threads)
    settings = EvaluationSettings(resamples=0, masks="half")
    for item in args.sets:
        name, root = item.split("=", 1)
        name, _, channel = name.partition(":")
        samples = half_of(open_dataset(name, root, channel=channel or None), args.half)
        for path in args.model:
            found = evaluate(samples, [load(path, changes)], settings, references=(), cache_folder=args.cache)
            mean = found.detectors[0].mean
            shown = [
                f"{level} {metric} {mean[level][metric].value:.3f}"
                for level, metric in SHOWN
                if level in mean and metric in mean[level] and mean[level][metric].value is not None
            ]
            label = f"{name} {channel}".strip()
            title = " ".join([Path(path).name, *args.change])
            print(
                f"{args.half:5} {label:16} n {len(samples):3} {title:26} {', '.join(shown)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
