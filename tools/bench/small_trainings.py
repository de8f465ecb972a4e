r"""Trains HeadCLIP, AnomalyCLIP and AdaCLIP on a small CLIP with random weights; measures them on other sets.

    D="$MEDZSAD_SHARED/data"
    python tools/bench/small_trainings.py --out small-runs \
        --train industrial=magnetic-tile:"$D/magnetic_tile" --train industrial=mvtec:"$D/mvtec_subset" \
        --train endoscopy=kvasir:"$D/kvasir" \
        --test kvasir:"$D/kvasir" --test clinicdb:"$D/clinicdb" --test ddti:"$D/ddti"

Each mix of training sets gives one training per method; a test set that the mix holds is left out for it. The
same detector before its first step stands beside it. The CLIP has never been shown an image or a text: only
training can make a difference, and the figures say that it works, not how good the methods are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from medzsad.datasets.opening import open_dataset
from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.training.building import build_detector
from medzsad.training.objectives import LossWeights
from medzsad.training.recipe import SETTINGS, DataSource, Optimiser, Recipe
from medzsad.training.train import train
from medzsad.zoo.loading import load_detector

CLIP = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 112, "layers": 6, "width": 192, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 6},
}
METHODS = ("headclip", "anomalyclip", "adaclip")


def recipe_of(method: str, mix: str, sources: list[DataSource], epochs: int) -> Recipe:
    """Return the published settings, on the small CLIP."""
    settings = SETTINGS[method](backbone=CLIP, clip_weights=None, image_size=112, smoothing_sigma=1.0)
    if method == "adaclip":
        settings = replace(settings, output_layers=(2, 3, 5, 6), clusters=8)
        optimiser = Optimiser(name="adamw", lr=1e-3)
    else:
        settings = replace(settings, vv_start=2, patch_layers=(6,), deep_depth=5)
        optimiser = Optimiser(name="adam", lr=1e-3)
    return Recipe(
        name=f"{mix}-{method}",
        method=method,
        detector=settings,
        data=tuple(sources),
        loss=replace(LossWeights.of_method(method), dice="image"),  # the same Dice for all methods
        optimiser=optimiser,
        epochs=epochs,
        batch_size=8,
        log_every=1_000_000,
    )


def losses(folder: Path) -> tuple[float, float]:
    """Mean loss over the first and over the last tenth of the steps."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [line["loss"] for line in lines if "loss" in line]
    tenth = max(1, len(steps) // 10)
    return sum(steps[:tenth]) / tenth, sum(steps[-tenth:]) / tenth


def main() -> None:
    """Read the command line, train, and print one row per mix, method and test set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", action="append", required=True, metavar="MIX=DATASET:DIR")
    parser.add_argument("--test", action="append", required=True, metavar="DATASET:DIR")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--limit", type=int, default=150, help="images of each test set")
    args = parser.parse_args()
    mixes: dict[str, list[DataSource]] = {}
    for text in args.train:
        mix, _, rest = text.partition("=")
        dataset, _, root = rest.partition(":")
        mixes.setdefault(mix, []).append(DataSource(dataset, root=root))
    tests = {text.partition(":")[0]: text.partition(":")[2] for text in args.test}
    settings = EvaluationSettings(size=112, framing="whole", resamples=0, masks="half")
    columns = [
        "trained on",
        "method",
        "loss",
        "test set",
        "pixel AUROC before",
        "after",
        "pixel AP before",
        "after",
    ]
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for mix, sources in mixes.items():
        for method in METHODS:
            folder = args.out / f"{mix}-{method}"
            recipe = recipe_of(method, mix, sources, args.epochs)
            device = "cpu"
            untrained = args.out / f"{mix}-{method}-untrained.safetensors"
            train(recipe, folder, device=device)
            first, last = losses(folder)
            before = build_detector(recipe, torch.device(device)).eval()
            save_checkpoint(before.to_checkpoint(), untrained)
            trained = load_detector(folder, device=device, precision="fp32")
            blank = load_detector(
                untrained, device=device, precision="fp32", clip_weights=folder / "clip.safetensors"
            )
            for name, root in tests.items():
                if name in {source.dataset for source in sources}:
                    continue
                samples = open_dataset(name, root, limit=args.limit)
                outcome = evaluate(samples, [blank, trained], settings, references=())
                figures = [detector.mean["pixel"] for detector in outcome.detectors]
                cells = [f"{100 * f[key].value:.1f}" for key in ("auroc", "ap") for f in figures]
                print(
                    f"| {mix} | {method} | {first:.2f} to {last:.2f} | {name} | {' | '.join(cells)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
