r"""Table (d): time and memory over the number of slices, the images' size and the batch.

    python tools/bench/scaling.py

Slices: ``predict`` of medzsad-mini on made-up volumes of 240 x 240 x N voxels, from the array to the result.
Size and batch: the forward pass of ``--method`` on a ViT-L/14 with random weights. Each row is a process of
its own; memory is its peak, with what Python and PyTorch take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import describe
from workers import Worker


def predict_volume(slices: int, batch: int | None) -> dict[str, float]:
    """Seconds and bytes of one prediction; an earlier one of few slices warms up."""
    import numpy as np

    import medzsad
    from medzsad.scans.scan import Modality, Scan
    from medzsad.zoo.loading import load_detector

    detector = load_detector("medzsad-mini", device="cpu")
    x, y = np.mgrid[-1:1:240j, -1:1:240j]
    inside = (x**2 + y**2 < 0.7).astype(np.float32)

    def volume(count: int) -> Any:
        noise = np.random.default_rng(0).normal(500, 50, (240, 240, count)).astype(np.float32)
        return Scan(noise * inside[..., None], np.eye(4), Modality.MR, "given", "made-up", Path("made-up"))

    medzsad.predict(volume(8), detector=detector)
    scan = volume(slices)
    begin = time.perf_counter()
    medzsad.predict(scan, detector=detector, batch_size=batch)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def forward(method: str, side: int, batch: int, precision: str, repeats: int) -> tuple[float, float]:
    """Seconds (the shortest pass) and bytes of a forward pass."""
    worker = Worker({"method": method, "side": side, "batch": batch, "precision": precision})
    for _ in range(repeats + 1):
        worker.run()
    result = worker.end()
    if result.note:
        raise SystemExit(result.note)
    return result.best, result.memory


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--method", default="anomalyclip", choices=["anomalyclip", "headclip", "adaclip", "clip"]
    )
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--slices", type=int, nargs="*", default=[75, 150, 300, 600])
    parser.add_argument("--size", type=int, nargs="*", default=[224, 336, 518, 700])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(predict_volume(args.worker, None)))
        return
    print(describe())
    print("| slices | s | ms/slice | peak memory, GB |\n|---|---|---|---|", flush=True)
    for slices in args.slices:
        command = [sys.executable, __file__, "--worker", str(slices)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        seconds = facts["seconds"]
        print(
            f"| {slices} | {seconds:.1f} | {1e3 * seconds / slices:.0f} | {facts['memory'] / 1e9:.2f} |",
            flush=True,
        )
    print("\n| px | batch | s | s/image | peak memory, GB |\n|---|---|---|---|---|", flush=True)
    rows = [(size, 1) for size in args.size] + [(336, batch) for batch in args.batch if batch > 1]
    for size, batch in rows:
        seconds, memory = forward(args.method, size, batch, args.precision, args.repeats)
        print(
            f"| {size} | {batch} | {seconds:.2f} | {seconds / batch:.2f} | {memory / 1e9:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
