r"""Table (b): FLOP/s of a forward pass beside the machine's rate of matrix products, and where time goes.

    python tools/bench/matmul_limit.py --precision fp32 --precision bf16

AnomalyCLIP's forward pass, ViT-L/14 at 336 px with random weights. What it computes is counted by formula
(``cost.py``); the rate is that of products alone on this machine in that precision (``linear`` of
:mod:`medzsad.detectors.products`), the best shape. By oneDNN attention is products and a softmax per head, or
in bf16 batches of products and exponentials.
"""

from __future__ import annotations

import argparse

import torch
from cost import Tower
from forward_worker import random_detector
from machine import best, describe, matmul_rate
from torch.profiler import ProfilerActivity, profile

from medzsad.heap import keep_freed_memory

GROUPS = {
    "attention": ("scaled_dot_product", "softmax", "bmm", "aten::exp_"),
    "matrix products": ("addmm", "mm", "convolution", "linear"),
    "copies and casts": ("copy_",),
    "GELU": ("gelu", "sigmoid"),
}
HEAD = 64  # width of a ViT-L's heads


def shares(detector: torch.nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Seconds by kind of operation, of one profiled pass."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        detector(images)
    found = dict.fromkeys([*GROUPS, "the rest"], 0.0)
    for event in record.key_averages(group_by_input_shape=True):
        kind = next((k for k, names in GROUPS.items() if any(n in event.key for n in names)), "the rest")
        if "linear" in event.key and HEAD in event.input_shapes[1]:  # its keys or values are the weight
            kind = "attention"
        found[kind] += event.self_cpu_time_total / 1e6
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--precision", action="append", choices=["fp32", "bf16"], help="repeatable; default: fp32"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--repeats", type=int, default=4)
    args = parser.parse_args()
    print(describe())
    keep_freed_memory()  # as the command does
    flops = args.batch * Tower(side=args.image_size).anomalyclip()
    print(f"{flops / 1e9:.0f} GFLOP a pass, batch {args.batch}")
    detector = random_detector({"method": "anomalyclip", "side": args.image_size})
    detector = detector.eval().requires_grad_(False)
    images = torch.rand(args.batch, 3, args.image_size, args.image_size)
    print(f"| precision | s/pass | GFLOP/s | products alone | share | {' | '.join([*GROUPS, 'the rest'])} |")
    print("|" + "---|" * (6 + len(GROUPS)))
    for precision in args.precision or ["fp32"]:
        detector.use_precision(precision)
        rate = max(matmul_rate(precision).values())
        seconds = best(lambda: detector(images), args.repeats)
        rate = max(rate, *matmul_rate(precision).values())
        parts = shares(detector, images)
        total = sum(parts.values())
        kinds = " | ".join(f"{value / total:.0%}" for value in parts.values())
        reached = flops / seconds
        print(
            f"| {precision} | {seconds:.2f} | {reached / 1e9:.0f} | {rate / 1e9:.0f} | {reached / rate:.0%} "
            f"| {kinds} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
