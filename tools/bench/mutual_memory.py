"""Measure what mutual scoring takes of memory and time: one layer of random features on disk, float16.

    python tools/bench/mutual_memory.py --images 12 --channels 1024 --side 37 --degrees 1

Features of 12 images of 37 x 37 patches with 1024 channels, as a ViT-L has at 518 pixels, are 34 MB on disk.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medzsad.detectors.mutual.scoring import comparable, mutual_scores


def main() -> None:
    """Print the peak of resident memory before and after, and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--side", type=int, default=37)
    parser.add_argument("--degrees", type=int, nargs="+", default=[1, 3, 5])
    options = parser.parse_args()
    shape = (options.channels, options.side, options.side)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(options.images):
            path = Path(folder) / f"{index}.safetensors"
            save_file({"layer0": torch.randn(shape).half()}, path)
        files = [
            safe_open(Path(folder) / f"{index}.safetensors", framework="pt")
            for index in range(options.images)
        ]
        scans = list(range(options.images))
        before, began = _peak(), time.process_time()
        mutual_scores(
            lambda index: files[index].get_tensor("layer0"),
            scans,
            comparable(scans, None),
            scans,
            degrees=options.degrees,
        )
        seconds = time.process_time() - began
    stored = 2 * options.images * options.channels * options.side**2 / 1e6
    print(f"{options.images} images, {stored:.0f} MB of features; peak {before:.0f} MB before, ", end="")
    print(f"{_peak():.0f} MB after; {seconds:.1f} s of CPU")


def _peak() -> float:
    """Return the highest resident memory of this process so far, in MB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
