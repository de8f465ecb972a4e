"""One side of a comparison of forward passes; see ``workers.py``. Imports only what its side needs."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Tensor], object]


def ours(options: dict[str, Any]) -> Forward:
    """Return a detector of medzsad as ``load_detector`` leaves it, with random weights.

    With ``heap`` false in a process that gives freed memory back, as any is; else in one like the command's.
    """
    from medzsad.heap import keep_freed_memory
    from medzsad.zoo.loading import load_detector

    if options.get("heap", True):
        keep_freed_memory()
    precision, device = options["precision"], options.get("device", "cpu")
    if options["method"] == "mini":
        return load_detector("medzsad-mini", precision=precision, device=device)
    detector = random_detector(options)
    detector.use_precision(precision)  # as load_detector does
    return detector.to(device).eval().requires_grad_(False)


def random_detector(options: dict[str, Any]) -> Any:
    """Return a CLIP-based detector with random weights, in float32."""
    from medzsad.detectors.adaclip.model import AdaCLIP
    from medzsad.detectors.adaclip.settings import AdaCLIPSettings
    from medzsad.detectors.headclip.anomalyclip import AnomalyCLIP
    from medzsad.detectors.headclip.model import HeadCLIP
    from medzsad.detectors.headclip.settings import HeadCLIPSettings
    from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
    from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, WinCLIPSettings
    from medzsad.detectors.zero_shot.winclip import WinCLIP

    method, common = options["method"], {"clip_weights": None, "image_size": options["side"]}
    common["backbone"] = options.get("backbone", "ViT-L-14-336")
    if method == "adaclip":
        return AdaCLIP.build(AdaCLIPSettings(**common), with_text_tower=False)
    if method in ("clip", "winclip"):
        kind, settings = {"clip": (PlainCLIP, PlainCLIPSettings), "winclip": (WinCLIP, WinCLIPSettings)}[
            method
        ]
        return kind.build(settings(**common))
    layers = tuple(options["patch_layers"]) if options.get("patch_layers") else None
    kind = {"headclip": HeadCLIP, "anomalyclip": AnomalyCLIP}[method]
    return kind.build(HeadCLIPSettings(**common, patch_layers=layers), with_text_tower=False)


def theirs(options: dict[str, Any]) -> Forward:
    """Return a peer's detector, under autocast where the precision is not fp32."""
    import peers

    if options["peer"] == "anomalib":
        forward = peers.anomalib_winclip()
    else:
        forward = getattr(peers, options["peer"])(Path(options["clone"]))
    dtype = {"bf16": torch.bfloat16}.get(options["precision"])
    mean = torch.tensor([0.4815, 0.4578, 0.4082]).view(1, 3, 1, 1)

    def run(images: Tensor) -> object:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            return forward((images - mean) / 0.27)

    return run


def main() -> None:
    """Answers line by line, in JSON."""
    options = json.loads(sys.argv[1])
    side, batch = options["side"], options.get("batch", 1)
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with contextlib.redirect_stdout(sys.stderr):
        forward = theirs(options) if "peer" in options else ours(options)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            return
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begin = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            forward(images)
            if options.get("device", "cpu").startswith("cuda"):
                torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        if options.get("device", "cpu").startswith("cuda"):
            memory = torch.cuda.max_memory_allocated()
        else:
            memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "memory": memory, "faults": faults}), flush=True)


if __name__ == "__main__":
    main()
