"""What a profile of normals says of itself: what it was made from, without names of files or patients."""

from __future__ import annotations

import os
from typing import Any

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.normals.model import NormalsDetector, stored_layers
from medzsad.errors import ModelNotReady

OF_RECORD = (
    "scans", "images", "modalities", "framing", "augmentation", "plane", "window", "height_weight", "seed",
    "digests", "version",
)  # fmt: skip


def card_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the card of a profile's file, JSON-serialisable.

    The backbone; of each of its layers the channels, the dimensions of the subspace and the patches kept; the
    limits (the distances that become 0.5, of a pixel and of an image); counts of scans and images,
    modalities, settings, hashes of the scans' voxels, and the version of medzsad that made it.

    Raises:
        ModelNotReady: if the file is missing, damaged, or no profile.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.method != NormalsDetector.method:
        raise ModelNotReady(f"{path}: holds a {checkpoint.method!r} detector, not a profile of normals")
    settings = checkpoint.settings
    try:
        layers = stored_layers(checkpoint)
        return {
            "features": settings["features"],
            "image_size": settings["image_size"],
            "channels": [len(layer.mean) for layer in layers],
            "subspace": [layer.basis.shape[1] for layer in layers],
            "patches": [len(layer.coreset) for layer in layers],
            "limits": settings["limits"],
            **{name: checkpoint.training.get(name) for name in OF_RECORD},
        }
    except (KeyError, ValueError) as error:
        raise ModelNotReady(f"{path}: a damaged profile of normals ({error}); make it anew") from error
