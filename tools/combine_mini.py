"""Puts trained medzsad-mini networks into one detector, and calibrates it (:mod:`calibrate_mini`).

    python tools/combine_mini.py GREY.safetensors COLOUR.safetensors OUT.safetensors --data "$MEDZSAD_SHARED"
    python tools/combine_mini.py DETECTOR.safetensors --slices SLICE.safetensors OUT.safetensors
    python tools/combine_mini.py DETECTOR.safetensors --colour COLOUR.safetensors OUT.safetensors
    python tools/combine_mini.py DETECTOR.safetensors --ultrasound COLOUR.safetensors OUT.safetensors
    python tools/combine_mini.py DETECTOR.safetensors --radiology COLOUR.safetensors OUT.safetensors

One network serves grey images, one images in colour, one slices of volumes. Images are shown at
``--image-size``, slices of volumes at the size of the training. The other commands give a finished detector
another network for slices, colours or ultrasound, or one whose scores count for grey images beside those of
the network for these and of that for colours, and leave all else as it is; all options may be given.
SLICE is what the stage "slice" of train_mini wrote, or "unet" after it. What is new is calibrated on held-out
synthetic images, and gets a threshold of its own (but with ``--one-threshold``); of slices with a U-Net
:data:`SLICE_THRESHOLD` is it. Scores of normal heads do not outlive another network for slices:
``tools/normal_scores.py`` measures them anew.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from calibrate_mini import calibrate, calibrate_grey_scores, calibrate_part, calibrate_slices
from synthetic.planes import NEIGHBOUR_MM
from synthetic_images import load_slices
from synthetic_slices import load_sources

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini.model import AS_IT_IS, KINDS, PREFIXES, MedzsadMini

# Of the U-Net beside the network for slices: chosen on even volumes of shared data and the normal ones, where
# 0.55 gives no better maps of small lesions and has candidates in a normal CT.
UNET_SHARE = 0.4
# Of other networks in the scores of grey images: all three count alike.
OTHER_SCORES = {"colour": 1 / 3, "radiology": 1 / 3}
# Of maps of slices, chosen in the same way.
SLICE_THRESHOLD = 0.55


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
            "radiology": False,
            "other_scores": None,
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
    return _with_network(detector, colour, "colour", colour_settings(colour))


def add_ultrasound(detector: Checkpoint, part: Checkpoint) -> Checkpoint:
    """Return detector with this network for ultrasound, in place of one that it may have already.

    Args:
        detector: one that has a network of the same encoder for colours.
        part: what the stage "colour_ultrasound" of train_mini wrote.

    Raises:
        ValueError: if the encoders differ.
    """
    _check_encoder(detector, part, "ultrasound")
    return _with_network(detector, part, "ultrasound", {"ultrasound": True})


def add_radiology(detector: Checkpoint, part: Checkpoint) -> Checkpoint:
    """Return detector with this network beside the grey one, whose scores count with :data:`OTHER_SCORES`.

    Args:
        detector: one that has a network of the same encoder for colours.
        part: what the stage "colour_radiology" of train_mini wrote.

    Raises:
        ValueError: if the encoders differ.
    """
    _check_encoder(detector, part, "radiology")
    return _with_network(detector, part, "radiology", {"radiology": True, "other_scores": OTHER_SCORES})


def _check_encoder(detector: Checkpoint, part: Checkpoint, kind: str) -> None:
    """Raise ValueError if a network was trained over another encoder than the detector's for colours."""
    if detector.settings.get("encoder") != part.settings["encoder"]:
        raise ValueError(f"the networks for colours and for {kind} have different encoders")


def add_slices(detector: Checkpoint, slices: Checkpoint, neighbour_mm: float) -> Checkpoint:
    """Return detector with this network for slices of grey volumes, in place of one that it may have already.

    Args:
        detector: for images.
        slices: what the stage "slice" of train_mini wrote, or "unet" after it.
        neighbour_mm: distance of the neighbours that it was trained with.

    Raises:
        ValueError: if the sizes of the networks differ.
    """
    if detector.settings["network"] != slices.settings["network"]:
        raise ValueError("the networks are of different sizes")
    settings = {
        "slice_size": slices.settings["image_size"],
        "neighbour_mm": neighbour_mm,
        "slice_unet": UNET_SHARE if slices.settings.get("unet") else 0.0,
        "normal_scores": slices.settings.get("normal_scores"),  # of the same network, if they were measured
    }
    return _with_network(detector, slices, "slice", settings)


def _with_network(detector: Checkpoint, part: Checkpoint, kind: str, settings: dict[str, Any]) -> Checkpoint:
    """Return detector with the network of ``part`` for a kind, not calibrated, and what its settings say."""
    prefix = PREFIXES[f"{kind}_network"]
    kept = {name: tensor for name, tensor in detector.tensors.items() if not name.startswith(prefix)}
    added = {f"{prefix}{name}": tensor for name, tensor in part.tensors.items()}
    calibration = {**detector.settings["calibration"], kind: AS_IT_IS}
    settings = {**detector.settings, **settings, "calibration": calibration}
    return Checkpoint(detector.method, kept | added, settings, {**detector.training, kind: part.training})


def with_slice_threshold(checkpoint: Checkpoint) -> Checkpoint:
    """Return the detector with :data:`SLICE_THRESHOLD`."""
    checkpoint.settings.update(slice_threshold=SLICE_THRESHOLD)
    return checkpoint


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
    parser.add_argument("--radiology", type=Path, help="the network beside that for grey images")
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
    if args.radiology:
        checkpoint = add_radiology(checkpoint, read_checkpoint(args.radiology))
    if checkpoint.settings.get("other_scores") and (args.radiology or args.colour):
        checkpoint = calibrate_grey_scores(checkpoint, load_slices(args.data), args.count)
        for look, error in checkpoint.training["mixed"]["calibration_error"].items():
            print(f"{look}, mixed: calibration error: score {error['score']:.3f}")
    if args.slices:
        whole = add_slices(checkpoint, read_checkpoint(args.slices), NEIGHBOUR_MM)
        checkpoint = calibrate_slices(whole, load_sources(args.data), args.count)
        if checkpoint.settings.get("slice_unet"):
            checkpoint = with_slice_threshold(checkpoint)
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
