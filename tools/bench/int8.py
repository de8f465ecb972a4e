r"""int8 by OpenVINO and NNCF: how fast it is, and how far from float32. An experiment; no backend of ours.

    pip install "medzsad[openvino]" nncf
    python tools/bench/int8.py --images FOLDER
    python tools/bench/int8.py --images FOLDER --mini

The first is AnomalyCLIP on a ViT-L/14 at 518 px with random weights; the second is medzsad-mini, whose image
AUROC is shown as well, of FOLDER/yes against FOLDER/no.

Weights and activations of matrix products are rounded to 8 bits after training, with ranges from the first
images; the rest runs in bf16. The images after those are compared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forward_worker import random_detector
from machine import best, describe
from PIL import Image
from torch import Tensor

from medzsad.backends.onnx_export import OUTPUTS, ImageSide, convert
from medzsad.detectors.base import AnomalyDetector
from medzsad.scans.images2d import FORMATS

Run = Callable[[Tensor], list[np.ndarray]]


def read_images(folder: Path, side: int, count: int | None) -> tuple[list[Path], Tensor]:
    """Grey images (N, 3, side, side) in [0, 1], the folder's sub-folders in turns."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))[:count]
    chosen = [files[i] for i in order]
    opened = [Image.open(f, formats=FORMATS).convert("L").resize((side, side)) for f in chosen]
    images = [np.asarray(image, np.float32) / 255 for image in opened]
    return chosen, torch.from_numpy(np.stack(images))[:, None].repeat(1, 3, 1, 1)


def compiled(model: Any, hint: str) -> Run:
    """Return a model on the CPU, as a function of a batch."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(batch: Tensor) -> list[np.ndarray]:
        found = request.infer({"images": batch.contiguous().numpy()})
        return [found[name].copy() for name in OUTPUTS]

    return run


def quantised(path: Path, batches: list[Tensor]) -> Any:
    """Return the graph with 8-bit products."""
    import nncf
    import openvino

    data = nncf.Dataset([{"images": batch.contiguous().numpy()} for batch in batches])
    return nncf.quantize(
        openvino.Core().read_model(path),
        data,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(batches),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--mini", action="store_true")
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--calibrate", type=int, default=8, help="images that ranges are taken from")
    parser.add_argument("--compare", type=int, default=8, help="images that are compared; with --mini, all")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(describe(), flush=True)
    if args.mini:
        from medzsad.zoo.loading import load_detector

        detector: AnomalyDetector = load_detector("medzsad-mini", device="cpu", precision="fp32").networks()[
            0
        ]
    else:
        detector = random_detector({"method": "anomalyclip", "side": args.image_size})
    detector = detector.eval().requires_grad_(False)
    count = None if args.mini else args.calibrate + args.compare
    files, images = read_images(args.images, detector.image_size, count)
    inputs = detector.preprocess(images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        with torch.no_grad():
            convert(ImageSide(detector.for_graph(detector.image_size))).save(path, external_data=False)
        batches = list(inputs[: args.calibrate].split(1))
        sides: dict[str, Callable[[], Run]] = {
            "torch fp32": lambda: in_torch(detector, "fp32"),
            "openvino fp32": lambda: compiled(str(path), "f32"),
            "openvino bf16": lambda: compiled(str(path), "bf16"),
            "openvino int8 and bf16": lambda: compiled(quantised(path, batches), "bf16"),
            "openvino int8 and fp32": lambda: compiled(quantised(path, batches), "f32"),
            "torch bf16": lambda: in_torch(detector, "bf16"),  # last: it rounds the weights
        }
        held = inputs[args.calibrate :]
        labels = np.array([f.parent.name == "yes" for f in files[args.calibrate :]])
        exact: list[np.ndarray] = []
        first = 0.0
        print("| side | s/image | times torch fp32 | map off by | score off by | AUROC |")
        print("|---|---|---|---|---|---|")
        for name, make in sides.items():
            run = make()
            seconds = best(lambda run=run: run(inputs[:1]), args.repeats)
            first = first or seconds
            parts = [run(one) for one in held.split(1)]
            found = [np.concatenate(values) for values in zip(*parts, strict=True)]
            exact = exact or found
            off = [float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=True)]
            rank = f"{auroc(labels, found[1]):.4f}" if args.mini else "-"
            print(
                f"| {name} | {seconds:.4g} | {first / seconds:.2f} | {off[0]:.2g} | {off[1]:.2g} | {rank} |",
                flush=True,
            )


def in_torch(detector: AnomalyDetector, precision: str) -> Run:
    """Return the detector itself."""
    detector.use_precision(precision)

    @torch.inference_mode()
    def run(batch: Tensor) -> list[np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return [value.float().clamp(0, 1).numpy() for value in detector.detect(batch)]

    return run


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Image AUROC."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


if __name__ == "__main__":
    main()
