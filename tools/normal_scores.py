"""Measures the volume scores of normal heads, and stores their quantiles in checkpoints of medzsad-mini.

    python tools/normal_scores.py DETECTOR.safetensors SLICE.safetensors --data "$MEDZSAD_SHARED" --made 80

Real ones are the T1 volumes of nichart_demo, of elderly people whose white matter lesions show faintly there,
too, and two DICOM series of heads; all were normal backgrounds of the training. Made ones are drawn from
label maps without lesions (:mod:`synthetic.head_volumes`), with the first seeds. Heads without a brain that
can be trusted do not count: of these a result says nothing. The quantiles are measured with the first
checkpoint and stored in all that are given: another checkpoint of the same network for slices gets them,
too, so that ``combine_mini.py`` finds them there.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from synthetic.head_volumes import draw_head_volume
from synthetic.heads import load_heads

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.normal_scores import KINDS, NormalScores
from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.region import BRAIN
from medzsad.scans.scan import Scan


def real_heads(data: Path) -> Iterator[Scan]:
    """Return the normal scans of heads below ``data``."""
    for path in sorted((data / "nichart_demo" / "t1").glob("*.nii.gz")):
        yield read_scan(path)
    for name in ("dicom_brain_mr", "dicom_head_ct"):
        yield read_scan(data / name)


def made_heads(data: Path, count: int) -> Iterator[Scan]:
    """Draw heads without lesions, one a seed."""
    heads = load_heads(data)
    for seed in range(count):
        made = draw_head_volume(np.random.default_rng(seed), heads)
        yield read_scan(made.normal, affine=made.affine, modality=made.modality, name=f"head{seed}")


def measure(detector: MedzsadMini, data: Path, made: int) -> list[NormalScores]:
    """Return the scores of real and of ``made`` made heads, by kind."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for origin, scans in (("real", real_heads(data / "data")), ("made", made_heads(data, made))):
        for scan in scans:
            result = predict(scan, detector)
            trusted = result.settings["roi"] == BRAIN
            print(f"{origin} {scan.name}: {result.score:.3f}{'' if trusted else ', no brain'}", flush=True)
            if trusted:
                found[KINDS[scan.modality], origin].append(result.score)
    rules = detector.for_volume().volume_rules
    return [NormalScores.of(kind, origin, scores, rules) for (kind, origin), scores in found.items()]


def main() -> None:
    """Read the command line, measure, and write the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path, help="DETECTOR, others of its network")
    shared = os.environ.get("MEDZSAD_SHARED")
    parser.add_argument("--data", default=shared, required=shared is None, help="folder that holds data/")
    parser.add_argument("--made", type=int, default=80, help="seeds of made heads")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector = MedzsadMini.from_checkpoint(read_checkpoint(args.checkpoints[0]))
    scores = measure(detector, Path(args.data), args.made)
    for path in args.checkpoints:
        checkpoint = read_checkpoint(path)
        settings = {**checkpoint.settings, "normal_scores": [asdict(one) for one in scores]}
        save_checkpoint(replace(checkpoint, settings=settings), path)
    for one in scores:
        print(f"{one.kind}, {one.origin}: {one.count}, {one.quantiles}")


if __name__ == "__main__":
    main()
