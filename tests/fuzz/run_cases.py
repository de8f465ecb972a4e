"""Runs cases, each in a process forked from this one, and prints how they ended, as JSON.

``python tests/fuzz/run_cases.py SEED FIRST LAST FOLDER``. A process of its own: the threads that other tests
leave behind would not survive the forks.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from forked import Outcome, run_case
from fuzz_cases import originals


def run_all(seed: int, first: int, last: int, folder: Path) -> list[Outcome]:
    """Run cases, each in a process forked from this one, which has imported everything and has no threads."""
    import torch

    # Before the fork, so that no case imports it.
    import medzsad.cli.terminal
    import medzsad.training.train  # noqa: F401
    from medzsad import load_detector, predict

    base = folder / "base"
    base.mkdir()
    originals(base)
    gc.collect()
    gc.freeze()
    torch.set_num_threads(1)  # other threads would not survive a fork
    for name in ("scan.nii", "image.png", "slice.dcm"):
        predict(base / name, detector=load_detector("medzsad-mini", device="cpu", precision="fp32"))
    return [run_case(number, seed, base, folder) for number in range(first, last)]


if __name__ == "__main__":
    numbers, place = map(int, sys.argv[1:4]), Path(sys.argv[4])
    print(json.dumps([asdict(outcome) for outcome in run_all(*numbers, place)]))
