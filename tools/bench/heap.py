"""What it is worth to keep freed memory (:mod:`medzsad.heap`): forward passes with and without, in turn.

    python tools/bench/heap.py --precision bf16 --precision fp32

AnomalyCLIP, ViT-L/14 at 518 px, random weights; each side is a process of its own, the shortest pass counts.
"""

from __future__ import annotations

import argparse
import sys

from machine import describe
from workers import compare


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precision", action="append", choices=["fp32", "bf16"], help="default: bf16")
    parser.add_argument("--method", default="anomalyclip", choices=["anomalyclip", "adaclip", "headclip"])
    parser.add_argument("--repeats", type=int, default=4)
    args = parser.parse_args()
    print(describe())
    print("| method | precision | freed memory | s/image | times as fast | pages taken | peak memory, GB |")
    print("|---|---|---|---|---|---|---|")
    for precision in args.precision or ["bf16"]:
        options = {"method": args.method, "precision": precision, "side": 518}
        sides = {
            name: ({**options, "heap": kept}, sys.executable)
            for name, kept in (("given back", False), ("kept", True))
        }
        results = compare(sides, repeats=args.repeats)
        first = next(iter(results.values())).best
        for name, result in results.items():
            print(
                f"| {args.method} | {precision} | {name} | {result.best:.2f} | {first / result.best:.2f} "
                f"| {result.faults} | {result.memory / 1e9:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
