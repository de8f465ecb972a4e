"""Puts two trained medzsad-mini networks into one detector, and calibrates it.

    python tools/combine_mini.py GREY.safetensors COLOUR.safetensors OUT.safetensors --data "$MEDZSAD_SHARED"

One network serves grey images, the other images in colour. Images are shown at ``--image-size``, slices of
volumes at the size of the training. On held-out synthetic images of each kind, half of
them with a lesion, Platt scaling is fitted to the map, the image probability and the joint score, so that the
values of both networks mean the same: the share of such pixels or images that are abnormal. The default
threshold of the map is the one with the best Dice over the held-out images of both kinds.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from synthetic_images import LOOKS, generate, load_slices
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini import AS_IT_IS, COLOUR_PREFIX, MedzsadMini, platt

HELD_OUT = 950_000_000  # seeds from here on are never trained on
KINDS = {  # looks that each network serves, all alike
    "grey": ("brain", "abstract", "body", "real", "ultrasound", "surface"),
    "colour": ("endoscopy", "surface", "objects", "skin"),
    "slice": ("brain", "abstract", "body", "real"),
}
LIMIT = 1e-6


class HeldOut(NamedTuple):
    """What the detector says of held-out images of one look.

    Attributes:
        maps: anomaly maps (N, S/2, S/2).
        probabilities: (N,).
        scores: (N,).
        masks: share of lesion of the same places (N, S/2, S/2).
        labels: (N,).
    """

    maps: Tensor
    probabilities: Tensor
    scores: Tensor
    masks: Tensor
    labels: Tensor


def combine(grey: Checkpoint, colour: Checkpoint, image_size: int | None = None) -> Checkpoint:
    """The detector of both networks; a second network that ``grey`` has already is replaced.

    Images that are no slices of volumes are shown at ``image_size``; None for the size of the training.

    Raises:
        ValueError: if the two are of different sizes.
    """
    for name in ("image_size", "network", "score_mix", "smoothing", "flip"):
        if grey.settings[name] != colour.settings[name]:
            raise ValueError(f"{name} differs: {grey.settings[name]} and {colour.settings[name]}")
    first = {k: v for k, v in grey.tensors.items() if not k.startswith(COLOUR_PREFIX)}
    second = {f"{COLOUR_PREFIX}{k}": v for k, v in colour.tensors.items() if not k.startswith(COLOUR_PREFIX)}
    calibration = {kind: AS_IT_IS for kind in KINDS}
    return Checkpoint(
        grey.method,
        first | second,
        settings={
            **grey.settings,
            "colour": True,
            "calibration": calibration,
            "image_size": image_size or grey.settings["image_size"],
            "slice_size": grey.settings["image_size"],
        },
        training={**grey.training, "colour": colour.training},
    )


@torch.inference_mode()
def look_at(detector: MedzsadMini, kind: str, look: str, slices: Tensor | None, count: int) -> HeldOut:
    """Predictions of ``count`` held-out images of one look, grey or as they are."""
    seed = HELD_OUT + 1000 * LOOKS.index(look)
    parts = []
    for index in range(0, count, 24):
        # Made at the size of the training, whatever they are then shown at.
        batch = generate(
            seed + index, 24, detector.slice_size, slices, looks=(look,), grey=kind != "colour", abnormal=0.5
        )
        network = detector.colour_network if kind == "colour" else detector.network
        shown = detector.for_volume() if kind == "slice" else detector
        maps, scores, probabilities = shown._detect(network, shown.preprocess(batch.images), kind)
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.masks[:, None], maps.shape[-2:])[:, 0]
        parts.append((maps, probabilities, scores, masks, batch.labels))
    return HeldOut(*(torch.cat(part) for part in zip(*parts, strict=True)))


def fit(values: Tensor, truth: Tensor) -> tuple[float, float]:
    """Slope and offset of the Platt scaling of ``values`` in [0, 1] against ``truth`` in {0, 1}."""
    from sklearn.linear_model import LogisticRegression

    logits = torch.logit(values.flatten().double(), LIMIT)[:, None].numpy()
    model = LogisticRegression(C=np.inf).fit(logits, truth.flatten().numpy())
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibration_error(values: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Expected calibration error: mean distance between value and share of abnormal ones, over equal bins."""
    place = (values * bins).long().clamp(0, bins - 1)
    gaps = [
        (values[place == b].mean() - truth[place == b].float().mean()).abs() * (place == b).float().mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def calibrate(checkpoint: Checkpoint, slices: Tensor | None, count: int) -> Checkpoint:
    """Fits the scalings and the threshold of the map, and records the calibration error of each look."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    found = {
        kind: {
            look: look_at(detector, kind, look, slices, count)
            for look in looks
            if look != "real" or slices is not None
        }
        for kind, looks in KINDS.items()
    }
    for kind, looks in found.items():
        # Fitted on the first half of each look's images, measured on the second.
        whole = HeldOut(
            *(torch.cat([t[: count // 2] for t in part]) for part in zip(*looks.values(), strict=True))
        )
        pairs = {
            "map": fit(whole.maps[:, ::3, ::3], whole.masks[:, ::3, ::3] > 0.5),
            "probability": fit(whole.probabilities, whole.labels),
            "score": fit(whole.scores, whole.labels),
        }
        detector.calibration[kind] = pairs
        for look, seen in looks.items():
            maps, scores = platt(seen.maps, *pairs["map"]), platt(seen.scores, *pairs["score"])
            looks[look] = HeldOut(*(t[count // 2 :] for t in seen._replace(maps=maps, scores=scores)))
    thresholds = torch.arange(0.05, 0.95, 0.025)
    dice = torch.zeros(len(thresholds))
    errors: dict[str, dict[str, float]] = {}
    for kind, looks in found.items():
        for look, seen in looks.items():
            truth = seen.masks > 0.5
            for index, threshold in enumerate(thresholds):
                chosen = seen.maps >= threshold
                # Each look counts alike.
                dice[index] += 2 * (chosen & truth).sum() / (chosen.sum() + truth.sum())
            errors[f"{look}, {kind}"] = {
                "score": round(calibration_error(seen.scores, seen.labels), 3),
                "map": round(calibration_error(seen.maps.flatten(), truth.flatten()), 4),
            }
    detector.threshold = round(float(thresholds[dice.argmax()]), 3)
    number = sum(len(looks) for looks in found.values())
    training = {
        **checkpoint.training,
        "calibration_error": errors,
        "held_out_dice": round(float(dice.max()) / number, 3),
    }
    made = detector.to_checkpoint()
    return Checkpoint(made.method, made.tensors, made.settings, training)


def main() -> None:
    """Reads the command line and writes the detector."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("grey", "colour", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--image-size", type=int, default=144, help="that images are shown at")
    parser.add_argument("--count", type=int, default=240, help="held-out images of each look")
    args = parser.parse_args()
    both = combine(read_checkpoint(args.grey), read_checkpoint(args.colour), args.image_size)
    checkpoint = calibrate(both, load_slices(args.data), args.count)
    MedzsadMini.from_checkpoint(checkpoint)  # refuses what does not fit
    save_checkpoint(checkpoint, args.out)
    print(checkpoint.settings["calibration"], checkpoint.settings["threshold"])
    for look, error in checkpoint.training["calibration_error"].items():
        print(f"{look:20} calibration error: image score {error['score']:.3f}, map {error['map']:.4f}")


if __name__ == "__main__":
    main()
