r"""Table (a): images per second and memory of our detectors beside other people's, turn by turn.

    python tools/bench/peers_forward.py --anomalyclip CLONE --adaclip CLONE

Same backbone (ViT-L/14 at 336 px), 518 px, random weights, the same patch layers. CLONE is a copy of the
authors' repository (zqhang/AnomalyCLIP, caoyunkang/AdaCLIP). ``--anomalib PYTHON`` is the Python of an
environment with anomalib; its WinCLIP runs on its own backbone, ViT-B/16+ at 240 px, and so does ours beside
it. Each side is a process of its own; the shortest of its passes counts.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cost import Tower
from machine import describe
from workers import Result, compare

LAYERS = [6, 12, 18, 24]


def sides(args: argparse.Namespace, method: str, batch: int) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the sides that ``method`` is compared on, the peer first."""
    common = {"side": args.image_size, "batch": batch, "method": method}
    if method == "winclip":
        common |= {"backbone": "ViT-B-16-plus-240", "side": 240}
        peer: dict[str, Any] = {"peer": "anomalib"}
    else:
        peer = {"peer": method, "clone": getattr(args, method)}
        if method == "anomalyclip":
            common["patch_layers"] = LAYERS
    python = args.anomalib if method == "winclip" else sys.executable
    found = {"theirs, fp32": ({**common, **peer, "precision": "fp32"}, python)}
    if args.their_bf16:
        found["theirs, bf16 autocast"] = ({**common, **peer, "precision": "bf16"}, python)
    for precision in ("fp32", "bf16"):
        found[f"medzsad, {precision}"] = ({**common, "precision": precision}, sys.executable)
    return found


def rows(method: str, batch: int, results: dict[str, Result]) -> list[str]:
    """Lines of the table; ratios are to the first side."""
    first = next(iter(results.values())).best
    lines = []
    for name, result in results.items():
        if result.note:
            lines.append(f"| {method} | {batch} | {name} | failed: {result.note} | | | |")
            continue
        lines.append(
            f"| {method} | {batch} | {name} | {result.best / batch:.2f} | {batch / result.best:.3f} "
            f"| {first / result.best:.1f} | {result.memory / 1e9:.1f} |"
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--anomalyclip", metavar="CLONE")
    parser.add_argument("--adaclip", metavar="CLONE")
    parser.add_argument("--anomalib", metavar="PYTHON")
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--batch", type=int, action="append", help="repeatable; default: 1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--their-bf16", action="store_true", help="also the peers under bf16 autocast")
    args = parser.parse_args()
    print(describe())
    print(f"plain forward: {Tower(side=args.image_size).plain() / 1e9:.0f} GFLOP")
    print("| method | batch | side | s/image | images/s | times theirs | peak memory, GB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for method, given in (
        ("anomalyclip", args.anomalyclip),
        ("adaclip", args.adaclip),
        ("winclip", args.anomalib),
    ):
        for batch in (args.batch or [1]) if given else ():
            print("\n".join(rows(method, batch, compare(sides(args, method, batch), repeats=args.repeats))))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
