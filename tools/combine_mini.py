"""Puts trained medzsad-mini networks into one detector, and calibrates it.

    python tools/combine_mini.py GREY.safetensors COLOUR.safetensors OUT.safetensors --data "$MEDZSAD_SHARED"
    python tools/combine_mini.py DETECTOR.safetensors --slices SLICE.safetensors OUT.safetensors
    python tools/combine_mini.py DETECTOR.safetensors --colour COLOUR.safetensors OUT.safetensors
    python tools/combine_mini.py DETECTOR.safetensors --ultrasound COLOUR.safetensors OUT.safetensors

One network serves grey images, one images in colour, one slices of volumes. Images are shown at
``--image-size``, slices of volumes at the size of the training. The other commands give a finished detector
another network for slices, colours or ultrasound, and leave all else as it is; all options may be given.
On held-out synthetic images of each kind, half of them with a lesion, Platt scaling is fitted to the map, the
image probability and the joint score, so that the values of all networks mean the same: the share of such
pixels or images that are abnormal.
The default threshold of the map is the one with the best Dice over the held-out images of a kind: grey
images, images in colour, ultrasound and slices each have their own (but with ``--one-threshold``).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import synthetic_slices
import torch
from synthetic.planes import NEIGHBOUR_MM
from synthetic_images import LOOKS, generate, load_slices
from synthetic_slices import Sources, load_sources
from torch import Tensor

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import AS_IT_IS, PREFIXES, MedzsadMini, platt

HELD_OUT = 950_000_000  # seeds from here on are never trained on
KINDS = {  # looks that each network serves, all alike
    "grey": ("brain", "abstract", "body", "real", "ultrasound", "surface"),
    "colour": ("endoscopy", "surface", "objects", "skin", "colon", "ultrasound"),
    "ultrasound": ("ultrasound", "thyroid"),
    "slice": ("brain", "abstract", "body", "real"),
}
# Sources of slices: label maps, real volumes, looks of images.
SLICE_KINDS = {"heads": (1, 0, 0), "volumes": (0, 1, 0), "looks": (0, 0, 1)}
GREY = ("grey", "slice")  # kinds that are shown without colours
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
    """Return the detector of both networks; a second network that ``grey`` has already is replaced.

    Images that are no slices of volumes are shown at ``image_size``; None for the size of the training.

    Raises:
        ValueError: if the two are of different sizes.
    """
    kind = colour.settings.get("colour") or True
    if kind is True:
        for name in ("image_size", "network", "score_mix", "smoothing", "flip"):
            if grey.settings[name] != colour.settings[name]:
                raise ValueError(f"{name} differs: {grey.settings[name]} and {colour.settings[name]}")
    own = {
        name: {k: v for k, v in one.tensors.items() if not k.startswith(tuple(PREFIXES.values()))}
        for name, one in (("grey", grey), ("colour", colour))
    }
    prefix = PREFIXES["colour_network"]
    first, second = own["grey"], {f"{prefix}{name}": tensor for name, tensor in own["colour"].items()}
    calibration = {kind: AS_IT_IS for kind in KINDS}
    return Checkpoint(
        grey.method,
        first | second,
        settings={
            **grey.settings,
            **colour_settings(colour),
            "calibration": calibration,
            "image_size": image_size or grey.settings["image_size"],
            "slice_size": grey.settings["image_size"],
            "neighbour_mm": None,
            "slice_threshold": None,
            "ultrasound": False,
            "ultrasound_threshold": None,
            "normal_scores": None,
        },
        training={**grey.training, "colour": colour.training},
    )


def colour_settings(colour: Checkpoint) -> dict[str, bool | str | None]:
    """Return what a detector's settings say of a network for colours."""
    kind = colour.settings.get("colour") or True
    return {
        "colour": kind,
        "encoder": colour.settings.get("encoder"),
        "photographs": kind == "lite0",
        "colour_threshold": None,
    }


def add_colour(detector: Checkpoint, colour: Checkpoint) -> Checkpoint:
    """Return detector with this network for images in colour, in place of one that it may have already.

    Args:
        detector: for images, and perhaps for slices, which stay as they are.
        colour: what the stage "colour" of train_mini wrote.
    """
    prefix = PREFIXES["colour_network"]
    kept = {name: tensor for name, tensor in detector.tensors.items() if not name.startswith(prefix)}
    calibration = {**detector.settings["calibration"], "colour": AS_IT_IS}
    settings = {**detector.settings, **colour_settings(colour), "calibration": calibration}
    added = {f"{prefix}{name}": tensor for name, tensor in colour.tensors.items()}
    training = {**detector.training, "colour": colour.training}
    return Checkpoint(detector.method, kept | added, settings, training)


def add_ultrasound(detector: Checkpoint, part: Checkpoint) -> Checkpoint:
    """Return detector with this network for ultrasound, in place of one that it may have already.

    Args:
        detector: one that has a network of the same encoder for colours.
        part: what the stage "colour_ultrasound" of train_mini wrote.

    Raises:
        ValueError: if the encoders differ.
    """
    if detector.settings.get("encoder") != part.settings["encoder"]:
        raise ValueError("the networks for colours and for ultrasound have different encoders")
    prefix = PREFIXES["ultrasound_network"]
    kept = {name: tensor for name, tensor in detector.tensors.items() if not name.startswith(prefix)}
    calibration = {**detector.settings["calibration"], "ultrasound": AS_IT_IS}
    settings = {**detector.settings, "ultrasound": True, "calibration": calibration}
    added = {f"{prefix}{name}": tensor for name, tensor in part.tensors.items()}
    return Checkpoint(
        detector.method, kept | added, settings, {**detector.training, "ultrasound": part.training}
    )


def calibrate_part(checkpoint: Checkpoint, kind: str, count: int) -> Checkpoint:
    """Fits scalings and threshold of the network for ``"colour"`` or ``"ultrasound"``, of no other."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    looks = {look: look_at(detector, kind, look, None, count) for look in KINDS[kind]}
    detector.calibration[kind], errors = scale(looks, count)
    threshold, dice = best_threshold(looks)
    setattr(detector, f"{kind}_threshold", threshold)
    record = {"calibration_error": errors, "held_out_dice": dice}
    training = {**checkpoint.training, kind: {**checkpoint.training[kind], **record}}
    made = detector.to_checkpoint()
    return Checkpoint(made.method, made.tensors, made.settings, training)


@torch.inference_mode()
def look_at(detector: MedzsadMini, kind: str, look: str, slices: Tensor | None, count: int) -> HeldOut:
    """Predictions of ``count`` held-out images of one look, grey or as they are."""
    seed = HELD_OUT + 1000 * LOOKS.index(look)
    parts = []
    for index in range(0, count, 24):
        # Made at the size of the training, whatever they are then shown at.
        batch = generate(
            seed + index, 24, detector.slice_size, slices, looks=(look,), grey=kind in GREY, abnormal=0.5
        )
        network = detector.network if kind in GREY else getattr(detector, f"{kind}_network")
        shown = detector.for_volume() if kind == "slice" else detector
        maps, scores, probabilities = shown._detect(network, shown.preprocess(batch.images), kind)[:3]
        masks = torch.nn.functional.adaptive_avg_pool2d(batch.masks[:, None], maps.shape[-2:])[:, 0]
        parts.append((maps, probabilities, scores, masks, batch.labels))
    return HeldOut(*(torch.cat(part) for part in zip(*parts, strict=True)))


def add_slices(detector: Checkpoint, slices: Checkpoint, neighbour_mm: float) -> Checkpoint:
    """Return detector with this network for slices of grey volumes, in place of one that it may have already.

    Args:
        detector: for images.
        slices: what the stage "slice" of train_mini wrote.
        neighbour_mm: distance of the neighbours that it was trained with.

    Raises:
        ValueError: if the sizes of the networks differ.
    """
    if detector.settings["network"] != slices.settings["network"]:
        raise ValueError("the networks are of different sizes")
    prefix = PREFIXES["slice_network"]
    kept = {name: tensor for name, tensor in detector.tensors.items() if not name.startswith(prefix)}
    settings = {
        **detector.settings,
        "slice_size": slices.settings["image_size"],
        "neighbour_mm": neighbour_mm,
        "calibration": {**detector.settings["calibration"], "slice": AS_IT_IS},
        "normal_scores": slices.settings.get("normal_scores"),  # of the same network, if they were measured
    }
    added = {f"{prefix}{name}": tensor for name, tensor in slices.tensors.items()}
    training = {**detector.training, "slice": slices.training}
    return Checkpoint(detector.method, kept | added, settings, training)


@torch.inference_mode()
def look_at_slices(detector: MedzsadMini, shares: tuple[float, ...], sources: Sources, count: int) -> HeldOut:
    """Predictions of ``count`` held-out slices, half of them with lesions."""
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


def calibrate_slices(checkpoint: Checkpoint, sources: Sources, count: int) -> Checkpoint:
    """Fits scalings and threshold of the network for slices; all others stay as they are."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    there = {"heads": bool(sources.heads), "volumes": bool(sources.volumes), "looks": True}
    found = {
        name: look_at_slices(detector, shares, sources, count)
        for name, shares in SLICE_KINDS.items()
        if there[name]
    }
    detector.calibration["slice"], errors = scale(found, count)
    threshold, dice = best_threshold(found)
    detector.slice_threshold = threshold
    made = detector.to_checkpoint()
    training = {
        **checkpoint.training,
        "slice": {
            **checkpoint.training["slice"],
            "calibration_error": errors,
            "held_out_dice": dice,
        },
    }
    return Checkpoint(made.method, made.tensors, made.settings, training)


def scale(
    looks: dict[str, HeldOut], count: int
) -> tuple[dict[str, tuple[float, float]], dict[str, dict[str, float]]]:
    """Fits Platt scaling on the first half of each look; applies it to the second half, which stays.

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
    """Return threshold of the map with the best mean Dice over looks, each counting alike, and that Dice."""
    thresholds = torch.arange(0.05, 0.95, 0.025)
    dice = torch.zeros(len(thresholds))
    for seen in looks.values():
        truth = seen.masks > 0.5
        for index, threshold in enumerate(thresholds):
            chosen = seen.maps >= threshold
            dice[index] += 2 * (chosen & truth).sum() / (chosen.sum() + truth.sum())
    return round(float(thresholds[dice.argmax()]), 3), round(float(dice.max()) / len(looks), 3)


def fit(values: Tensor, truth: Tensor) -> tuple[float, float]:
    """Slope and offset of the Platt scaling of ``values`` in [0, 1] against ``truth`` in {0, 1}."""
    from sklearn.linear_model import LogisticRegression

    logits = torch.logit(values.flatten().double(), LIMIT)[:, None].numpy()
    model = LogisticRegression(C=np.inf).fit(logits, truth.flatten().numpy())
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibration_error(values: Tensor, truth: Tensor, bins: int = 10) -> float:
    """Return expected calibration error.

    Mean distance between value and share of abnormal ones, over equal bins.
    """
    place = (values * bins).long().clamp(0, bins - 1)
    gaps = [
        (values[place == b].mean() - truth[place == b].float().mean()).abs() * (place == b).float().mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def calibrate(checkpoint: Checkpoint, slices: Tensor | None, count: int) -> Checkpoint:
    """Fits the scalings and thresholds of both networks, and records the calibration error of each look."""
    detector = MedzsadMini.from_checkpoint(checkpoint)
    found = {
        kind: {
            look: look_at(detector, kind, look, slices, count)
            for look in looks
            if look != "real" or slices is not None
        }
        for kind, looks in KINDS.items()
        if kind != "ultrasound"
    }
    errors: dict[str, dict[str, float]] = {}
    for kind, looks in found.items():
        detector.calibration[kind], own = scale(looks, count)
        errors |= {f"{look}, {kind}": error for look, error in own.items()}
    grey = {f"{look}, {kind}": seen for kind in GREY for look, seen in found[kind].items()}
    detector.threshold, grey_dice = best_threshold(grey)
    detector.colour_threshold, colour_dice = best_threshold(found["colour"])
    dice = {"grey": grey_dice, "colour": colour_dice}
    training = {**checkpoint.training, "calibration_error": errors, "held_out_dice": dice}
    made = detector.to_checkpoint()
    return Checkpoint(made.method, made.tensors, made.settings, training)


def with_one_threshold(checkpoint: Checkpoint) -> Checkpoint:
    """Return the detector with the threshold of grey images for colours and ultrasound, too."""
    checkpoint.settings.update(colour_threshold=None, ultrasound_threshold=None)
    return checkpoint


def main() -> None:
    """Read the command line and write the detector."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path, nargs="+", help="GREY and COLOUR, or a detector of both")
    parser.add_argument("out", type=Path)
    parser.add_argument("--slices", type=Path, help="the network for slices of volumes")
    parser.add_argument("--colour", type=Path, help="the network for images in colour")
    parser.add_argument("--ultrasound", type=Path, help="the network for ultrasound")
    parser.add_argument(
        "--one-threshold", action="store_true", help="that of grey images for colours and ultrasound, too"
    )
    parser.add_argument("--data", default=os.environ.get("MEDZSAD_SHARED"), help="folder that holds data/")
    parser.add_argument("--image-size", type=int, default=144, help="that images are shown at")
    parser.add_argument("--count", type=int, default=240, help="held-out images of each look")
    args = parser.parse_args()
    checkpoint = read_checkpoint(args.images[0])
    if len(args.images) > 1:
        both = combine(checkpoint, read_checkpoint(args.images[1]), args.image_size)
        checkpoint = calibrate(both, load_slices(args.data), args.count)
        for look, error in checkpoint.training["calibration_error"].items():
            print(f"{look:20} calibration error: image score {error['score']:.3f}, map {error['map']:.4f}")
    if args.colour:
        checkpoint = add_colour(checkpoint, read_checkpoint(args.colour))
        checkpoint = calibrate_part(checkpoint, "colour", args.count)
    if args.ultrasound:
        checkpoint = add_ultrasound(checkpoint, read_checkpoint(args.ultrasound))
        checkpoint = calibrate_part(checkpoint, "ultrasound", args.count)
    for kind in ("colour", "ultrasound"):
        for look, error in checkpoint.training.get(kind, {}).get("calibration_error", {}).items():
            print(f"{look}, {kind}: calibration error: score {error['score']:.3f}, map {error['map']:.4f}")
    if args.slices:
        whole = add_slices(checkpoint, read_checkpoint(args.slices), NEIGHBOUR_MM)
        checkpoint = calibrate_slices(whole, load_sources(args.data), args.count)
        for look, error in checkpoint.training["slice"]["calibration_error"].items():
            print(f"{look}, slices: calibration error: score {error['score']:.3f}, map {error['map']:.4f}")
    if args.one_threshold:
        checkpoint = with_one_threshold(checkpoint)
    MedzsadMini.from_checkpoint(checkpoint)  # refuses what does not fit
    save_checkpoint(checkpoint, args.out)
    settings = checkpoint.settings
    print(settings["calibration"])
    print(*(settings.get(f"{kind}threshold") for kind in ("", "colour_", "ultrasound_", "slice_")))


if __name__ == "__main__":
    main()
