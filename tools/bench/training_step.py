r"""Times a training step, and what gradient checkpointing and cached features change about it.

    python tools/bench/training_step.py --method headclip --method anomalyclip --method adaclip \
        --precision fp32 --precision bf16

A step is the forward pass, the loss, the backward pass and the optimiser's step, on random images, with a
ViT-L/14 at 336 px with random weights (speed does not depend on the weights), as ``medzsad train`` runs it.
Every variant runs in a process of its own, so that none inherits another's memory. The shortest of the steps
counts, as other work on the machine only ever adds. On a machine shared with others the ratios, which are of
processor time, mean more than the seconds; run it with ``OMP_NUM_THREADS=1`` there, as waiting threads count
as well. Memory is the most that the process held during the
steps, beyond what it held before the first: activations, gradients, the optimiser's state. "cached" reads
features from disk, within the step; they were computed before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.devices import float32_products
from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.training.frozen_features import FeatureCache
from medzsad.training.objectives import Objective

METHODS = ("headclip", "anomalyclip", "adaclip")
VARIANTS = ("plain", "checkpointing", "cached", "cached+checkpointing")
DTYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(method: str, backbone: str, image_size: int) -> HeadCLIP | AdaCLIP:
    """Return an untrained detector with its text tower."""
    if method == "adaclip":
        settings = AdaCLIPSettings(backbone=backbone, clip_weights=None, image_size=image_size)
        return AdaCLIP.build(settings)
    settings = HeadCLIPSettings(backbone=backbone, clip_weights=None, image_size=image_size)
    return {"headclip": HeadCLIP, "anomalyclip": AnomalyCLIP}[method].build(settings)


def measure(options: dict[str, Any]) -> dict[str, float]:
    """Run the steps of one variant in this process."""
    device = torch.device(options["device"])
    detector = build(options["method"], options["backbone"], options["image_size"]).to(device).train()
    detector.clip.checkpointing = "checkpointing" in options["variant"]
    objective = Objective(detector)
    optimiser = torch.optim.Adam(detector.trainable_parameters(), lr=1e-3, betas=(0.5, 0.999))
    side, count = options["image_size"], options["batch"]
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(count, side, side)
    mask[::2, side // 4 : side // 2, side // 4 : side // 2] = 1
    batch: dict[str, Any] = {"image": images.to(device), "mask": mask, "label": mask.flatten(1).amax(1)}
    result: dict[str, float] = {}
    scaler = torch.amp.GradScaler(device.type, enabled=options["precision"] == "fp16")
    with tempfile.TemporaryDirectory() as folder:
        cache = None
        if "cached" in options["variant"]:
            cache = FeatureCache(folder, detector, compute=options["precision"])
            begin = time.process_time()
            cache.batch(images)
            result["filling"] = time.process_time() - begin
            result["bytes"] = sum(file.stat().st_size for file in cache.folder.iterdir()) / count
        before = start_of_memory(device)
        seconds, cpu = [], []
        for _ in range(options["steps"]):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            optimiser.zero_grad()
            dtype = DTYPES[options["precision"]]
            frozen = {} if cache is None else {"frozen": cache.batch(images)}
            with float32_products(options["precision"], device):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    loss = objective({**batch, **frozen})["loss"]
                scaler.scale(loss).backward()
                scaler.step(optimiser)
                scaler.update()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - cpu_begin)
    work = min(seconds if device.type == "cuda" else cpu)
    return {**result, "seconds": min(seconds), "work": work, "memory": peak_memory(device) - before}


def start_of_memory(device: torch.device) -> float:
    """Bytes held now; the peak counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is held now
    return _status("VmRSS")


def peak_memory(device: torch.device) -> float:
    """Most bytes held since :func:`start_of_memory`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(name)).split()[1])


def in_own_process(options: dict[str, Any]) -> dict[str, float] | str:
    """Return the measurement of a fresh process; what went wrong, if it did."""
    command = [sys.executable, __file__, "--one", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"ended with {done.returncode} (out of memory?)"
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable; default: all")
    parser.add_argument(
        "--precision", action="append", choices=list(DTYPES), help="repeatable; default: fp32"
    )
    parser.add_argument(
        "--variant", action="append", choices=VARIANTS, help="repeatable; default: first three"
    )
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--backbone", default="ViT-L-14-336")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(json.loads(args.one))))
        return
    print(
        f"{args.backbone}, {args.image_size} px, batch {args.batch}, best of {args.steps} steps, "
        f"{args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    print(
        "| method | precision | variant | s/step | CPU s | vs plain | memory | vs plain | CPU s once | kept "
        "| times the first |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for method in args.method or METHODS:
        first: dict[str, float] | None = None
        for precision in args.precision or ["fp32"]:
            plain: dict[str, float] | None = None
            for variant in args.variant or VARIANTS[:3]:
                if method == "anomalyclip" and "checkpointing" in variant and args.variant is None:
                    continue  # its image tower keeps nothing anyway
                options = {
                    name: getattr(args, name)
                    for name in ("image_size", "batch", "steps", "backbone", "device")
                }
                one = in_own_process(
                    {**options, "method": method, "precision": precision, "variant": variant}
                )
                if isinstance(one, str):
                    print(f"| {method} | {precision} | {variant} | failed: {one} | | | | | | | |", flush=True)
                    continue
                plain = one if variant == "plain" else plain
                first = first or one
                faster = f"{first['work'] / one['work']:.2f}"
                cells = f"{precision} | {variant} | {row(one, plain, args.batch)} | {faster}"
                print(f"| {method} | {cells} |", flush=True)


def row(one: dict[str, float], plain: dict[str, float] | None, batch: int) -> str:
    """Return the measured cells of one variant."""
    ratios = [f"{one[n] / plain[n]:.2f}" if plain else "" for n in ("work", "memory")]
    once = f"{one['filling'] / batch:.1f}" if "filling" in one else ""
    kept = f"{one['bytes'] / 1e6:.2f} MB" if "bytes" in one else ""
    times = f"{one['seconds']:.2f} | {one['work']:.2f} | {ratios[0]}"
    return f"{times} | {one['memory'] / 1e9:.2f} GB | {ratios[1]} | {once} | {kept}"


if __name__ == "__main__":
    main()
