"""Calibration of medzsad-mini's networks, on held-out synthetic images: scalings and thresholds.

Half of the images show a lesion. Platt scaling is fitted to the map, the image probability and the joint
score of each network, so that the values of all mean the same: the share of such pixels or images that are
abnormal. The default threshold of the map is the one with the best Dice over the held-out images of a kind:
grey images, images in colour, ultrasound and slices each have their own. ``combine_mini.py`` is the command.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import synthetic_slices
import torch
from synthetic_images import LOOKS, generate
from synthetic_slices import Sources
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint
from medzsad.detectors.mini.model import AS_IT_IS, MIXED, MedzsadMini, platt

HELD_OUT = 950_000_000  # seeds from here to 1,000,000,000 are never trained on
KINDS = {  # looks that each network serves, all alike
    "grey": ("brain", "abstract", "body", "real", "ultrasound", "surface"),
    "colour": ("endoscopy", "surface", "objects", "skin", "colon", "ultrasound"),
    "ultrasound": ("ultrasound", "thyroid"),
    "slice": ("brain", "abstract", "body", "real"),
}
# Sources of slices: label maps, real volumes, looks of images.
SLICE_KINDS = {"heads": (1, 0, 0), "volumes": (0, 1, 0), "looks": (0, 0, 1)}
GREY = ("grey", "slice")  # kinds that the network for grey images is for
COLOURS = ("colour", "ultrasound")  # kinds that are shown with colours
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


def calibrate(checkpoint: Checkpoint, slices: Tensor | None, count: int) -> Checkpoint:
    """Fit scalings and thresholds of grey images and of colours; record the calibration error of each look.

    Args:
        checkpoint: of :func:`combine_mini.combine`. Slices of volumes go through its network for grey images,
            and have a scaling of their own.
        slices: uint8 (M, S0, S0) of :func:`synthetic_images.load_slices`; None to do without real ones.
        count: held-out images of each look.
    """
    detector = MedzsadMini.from_checkpoint(checkpoint)
    held_out = {
        kind: {
            look: look_at(detector, kind, look, slices, count)
            for look in looks
            if look != "real" or slices is not None
        }
        for kind, looks in KINDS.items()
        if kind != "ultrasound"
    }
    errors: dict[str, dict[str, float]] = {}
    for kind, looks in held_out.items():
        detector.calibration[kind], own = scale(looks, count)
        errors |= {f"{look}, {kind}": error for look, error in own.items()}
    grey = {f"{look}, {kind}": seen for kind in GREY for look, seen in held_out[kind].items()}
    detector.threshold, grey_dice = best_threshold(grey)
    detector.colour_threshold, colour_dice = best_threshold(held_out["colour"])
    dice = {"grey": grey_dice, "colour": colour_dice}
    training = {**checkpoint.training, "calibration_error": errors, "held_out_dice": dice}
    return replace(detector.to_checkpoint(), training=training)


def calibrate_part(checkpoint: Checkpoint, kind: str, count: int) -> Checkpoint:
    """Fit scalings and threshold of the network for ``"colour"`` or ``"ultrasound"``, of no other."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    looks = {look: look_at(detector, kind, look, None, count) for look in KINDS[kind]}
    return _calibrated(detector, checkpoint, kind, looks, count)


def calibrate_grey_scores(checkpoint: Checkpoint, slices: Tensor | None, count: int) -> Checkpoint:
    """Fit the scaling of the network for radiology, then that of the mixed scores; no other.

    Args:
        checkpoint: of a detector with ``other_scores``.
        slices: see :func:`calibrate`.
        count: held-out images of each look of grey images.
    """
    detector = MedzsadMini.from_checkpoint(checkpoint)
    looks = [look for look in KINDS["grey"] if look != "real" or slices is not None]
    for kind in ("radiology", MIXED):
        detector.calibration[kind] = AS_IT_IS
        seen = {look: look_at(detector, kind, look, slices, count) for look in looks}
        detector.calibration[kind], errors = scale(seen, count)
    training = {**checkpoint.training, MIXED: {"calibration_error": errors}}
    return replace(detector.to_checkpoint(), training=training)


def calibrate_slices(checkpoint: Checkpoint, sources: Sources, count: int) -> Checkpoint:
    """Fit scalings and threshold of the network for slices; all others stay as they are."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    there = {"heads": bool(sources.heads), "volumes": bool(sources.volumes), "looks": True}
    looks = {
        name: look_at_slices(detector, shares, sources, count)
        for name, shares in SLICE_KINDS.items()
        if there[name]
    }
    return _calibrated(detector, checkpoint, "slice", looks, count)


def _calibrated(
    detector: MedzsadMini, checkpoint: Checkpoint, kind: str, looks: dict[str, HeldOut], count: int
) -> Checkpoint:
    """Return the checkpoint of a detector with one network calibrated on these looks, and a record of it."""
    detector.calibration[kind], errors = scale(looks, count)
    threshold, dice = best_threshold(looks)
    setattr(detector, f"{kind}_threshold", threshold)
    record = {"calibration_error": errors, "held_out_dice": dice}
    training = {**checkpoint.training, kind: {**checkpoint.training[kind], **record}}
    return replace(detector.to_checkpoint(), training=training)


@torch.inference_mode()
def look_at(detector: MedzsadMini, kind: str, look: str, slices: Tensor | None, count: int) -> HeldOut:
    """Return predictions of ``count`` held-out images of one look, grey or as they are."""
    seed = HELD_OUT + 1000 * LOOKS.index(look)
    parts = []
    for index in range(0, count, 24):
        # Made at the size of the training, whatever they are then shown at.
        batch = generate(
            seed + index,
            24,
            detector.slice_size,
            slices,
            looks=(look,),
            grey=kind not in COLOURS,
            abnormal=0.5,
        )
        network = detector.network if kind in (*GREY, MIXED) else getattr(detector, f"{kind}_network")
        shown = detector.for_volume() if kind == "slice" else detector
        way = "grey" if kind == MIXED else kind
        maps, scores, probabilities = shown._detect(network, shown.preprocess(batch.images), way)[:3]
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.masks[:, None], maps.shape[-2:])[:, 0]
        parts.append((maps, probabilities, scores, masks, batch.labels))
    return HeldOut(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.inference_mode()
def look_at_slices(detector: MedzsadMini, shares: tuple[float, ...], sources: Sources, count: int) -> HeldOut:
    """Return predictions of ``count`` held-out slices, half of them with lesions."""
    shown, parts = detector.for_volume(), []
    for index in range(0, count, 24):
        batch = synthetic_slices.generate(
            HELD_OUT + index, 24, detector.slice_size, sources, shares=shares, abnormal=0.5
        )
        maps, scores, probabilities = shown.detect(batch.images)[:3]
        marked = (batch.lesions > 0).float()
        masks = torch.nn.functional.adaptive_avg_pool2d(marked[:, None], maps.shape[-2:])[:, 0]
        parts.append((maps, probabilities, scores, masks, batch.labels))
    return HeldOut(*(torch.cat(part) for part in zip(*parts, strict=True)))


def scale(
    looks: dict[str, HeldOut], count: int
) -> tuple[dict[str, tuple[float, float]], dict[str, dict[str, float]]]:
    """Fit Platt scaling on the first half of each look; apply it to the second half, which stays.

    Returns:
        The scalings, and the calibration error of each look's second half.
    """
    whole = HeldOut(
        *(torch.cat([t[: count // 2] for t in part]) for part in zip(*looks.values(), strict=True))
    )
    pairs = {
        "map": fit(whole.maps[:, ::3, ::3], whole.masks[:, ::3, ::3] > 0.5),
        "probability": fit(whole.probabilities, whole.labels),
        "score": fit(whole.scores, whole.labels),
    }
    errors = {}
    for look, seen in looks.items():
        maps, scores = platt(seen.maps, *pairs["map"]), platt(seen.scores, *pairs["score"])
        looks[look] = HeldOut(*(t[count // 2 :] for t in seen._replace(maps=maps, scores=scores)))
        errors[look] = {
            "score": round(calibration_error(looks[look].scores, looks[look].labels), 3),
            "map": round(calibration_error(looks[look].maps.flatten(), looks[look].masks.flatten() > 0.5), 4),
        }
    return pairs, errors


def best_threshold(looks: dict[str, HeldOut]) -> tuple[float, float]:
    """Return the map's threshold with the best mean Dice over looks, each counting alike, and that Dice."""
    thresholds = torch.arange(0.05, 0.95, 0.025)
    dice = torch.zeros(len(thresholds))
    for seen in looks.values():
        truth = seen.masks > 0.5
        for index, threshold in enumerate(thresholds):
            chosen = seen.maps >= threshold
            dice[index] += 2 * (chosen & truth).sum() / (chosen.sum() + truth.sum())
    return round(float(thresholds[dice.argmax()]), 3), round(float(dice.max()) / len(looks), 3)


def fit(values: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return slope and offset of the Platt scaling of ``values`` in [0, 1] against ``truth`` in {0, 1}."""
    from sklearn.linear_model import LogisticRegression

    logits = torch.logit(values.flatten().double(), LIMIT)[:, None].numpy()
    model = LogisticRegression(C=np.inf).fit(logits, truth.flatten().numpy())
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibration_error(values: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error.

    That is the mean distance between a value and the share of abnormal ones, over equal bins.
    """
    bin_of = (values * bins).long().clamp(0, bins - 1)
    gaps = [
        (values[inside].mean() - truth[inside].float().mean()).abs() * inside.float().mean()
        for inside in (bin_of == index for index in range(bins))
        if inside.any()
    ]
    return float(sum(gaps))
