r"""Table (c): where the time of ``medzsad predict`` on one volume goes, with detectors of every size.

    python tools/bench/end_to_end.py SCAN --model medzsad-mini --model clip:ViT-B-16 --model anomalyclip

A model is a name that ``medzsad models list`` shows as ready, or METHOD[:BACKBONE[:SIDE]] for one with random
weights, whose speed is the same. Each runs in a process of its own and writes what the command writes by
default.
*model* is the detector's forward pass, with its resizing and smoothing; *prepare* is foreground, intensities
and resizing of slices; *the rest* brings maps back to voxels and finds the lesions.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

PARTS = ("read", "prepare", "model", "the rest", "write")


def measure(scan: str, model: str, precision: str, first_pass: int | None) -> dict[str, Any]:
    """Seconds by part, for one prediction in this process."""
    import medzsad
    from medzsad.heap import keep_freed_memory
    from medzsad.inference import slicewise
    from medzsad.scans import prepared

    spent = dict.fromkeys((*PARTS, "load"), 0.0)

    def timed(owner: Any, name: str, part: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - begin

        setattr(owner, name, call)

    keep_freed_memory()  # as the command does
    begin = time.perf_counter()
    detector = _detector(model, precision)
    spent["load"] = time.perf_counter() - begin
    timed(type(detector), "forward", "model")
    for owner, name in (
        (prepared, "foreground_mask"),
        (prepared, "intensity_scaling"),
        (slicewise, "standardised"),
        (slicewise.SliceFrame, "fit"),
    ):
        timed(owner, name, "prepare")
    begin = time.perf_counter()
    result = medzsad.predict(scan, detector=detector, first_pass=first_pass)
    spent["read"] = result.timings["read_s"]
    found = len(result.lesions)
    whole = time.perf_counter() - begin
    spent["the rest"] = whole - spent["read"] - spent["prepare"] - spent["model"]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        result.save(folder)
        spent["write"] = time.perf_counter() - begin
    return {
        "spent": spent,
        "shape": "x".join(map(str, result.scan.shape)),
        "slices": len(result.slice_scores),
        "lesions": found,
        "side": detector.for_volume().image_size,
        "precision": detector.precision,
        "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _detector(model: str, precision: str) -> Any:
    from forward_worker import random_detector

    from medzsad.detectors.devices import resolve_precision, torch
    from medzsad.zoo.catalogue import catalogue
    from medzsad.zoo.loading import load_detector

    if model in catalogue().models:
        return load_detector(model, device="cpu", precision=precision)
    method, backbone, side = [*model.split(":"), "", ""][:3]
    options = {"method": method, "side": int(side or 518), "backbone": backbone or "ViT-L-14-336"}
    detector = random_detector(options).eval().requires_grad_(False)
    chosen = resolve_precision(precision, torch.device("cpu"))
    if precision == "auto" and not detector.bounded_in_bf16:
        chosen = "fp32"
    detector.use_precision(chosen)
    return detector


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scan")
    parser.add_argument("--model", action="append", help="repeatable; default: medzsad-mini")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--first-pass", type=int, help="side in pixels: see medzsad.inference.first_pass")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    models = args.model or ["medzsad-mini"]
    if args.worker:
        print(json.dumps(measure(args.scan, models[0], args.precision, args.first_pass)))
        return
    from machine import describe

    print(describe())
    print(f"| model | px | precision | slices | load, s | predict and write, s | {' | '.join(PARTS)} | GB |")
    print("|" + "---|" * (7 + len(PARTS)), flush=True)
    for model in models:
        command = [
            sys.executable,
            __file__,
            args.scan,
            "--worker",
            "--model",
            model,
            "--precision",
            args.precision,
            *([] if args.first_pass is None else ["--first-pass", str(args.first_pass)]),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {model} | failed: {done.stderr.strip().splitlines()[-1][:200]} |", flush=True)
            continue
        facts = json.loads(done.stdout.splitlines()[-1])
        spent = facts["spent"]
        whole = sum(spent[part] for part in PARTS)
        shares = " | ".join(f"{spent[part] / whole:.1%}" for part in PARTS)
        print(
            f"| {model} | {facts['side']} | {facts['precision']} | {facts['slices']} | {spent['load']:.1f} "
            f"| {whole:.1f} | {shares} | {facts['memory'] / 1e9:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
