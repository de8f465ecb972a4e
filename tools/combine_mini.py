"""Puts two trained medzsad-mini networks into one detector: one for grey images, one for images in colour.

    python tools/combine_mini.py GREY.safetensors COLOUR.safetensors OUT.safetensors

Settings, threshold and the record of the training are those of GREY, with COLOUR's record beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medzsad.detectors.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from medzsad.detectors.mini import COLOUR_PREFIX, MedzsadMini


def combine(grey: Checkpoint, colour: Checkpoint) -> Checkpoint:
    """The detector of both networks; a second network that ``grey`` has already is replaced.

    Raises:
        ValueError: if the two are of different sizes.
    """
    for name in ("image_size", "network", "score_mix", "smoothing", "flip"):
        if grey.settings[name] != colour.settings[name]:
            raise ValueError(f"{name} differs: {grey.settings[name]} and {colour.settings[name]}")
    first = {k: v for k, v in grey.tensors.items() if not k.startswith(COLOUR_PREFIX)}
    second = {f"{COLOUR_PREFIX}{k}": v for k, v in colour.tensors.items() if not k.startswith(COLOUR_PREFIX)}
    return Checkpoint(
        grey.method,
        first | second,
        settings={**grey.settings, "colour": True},
        training={**grey.training, "colour": colour.training},
    )


def main() -> None:
    """Reads the command line and writes the detector."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("grey", "colour", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    checkpoint = combine(read_checkpoint(args.grey), read_checkpoint(args.colour))
    MedzsadMini.from_checkpoint(checkpoint)  # refuses what does not fit
    save_checkpoint(checkpoint, args.out)


if __name__ == "__main__":
    main()
