"""The embedded detector's own features: of its decoder, which learned what normal scans look like."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

from torch import Tensor

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.detectors.features.base import PatchFeatures
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.network import MiniNetwork
from medzsad.errors import ModelNotReady
from medzsad.storage.hashing import hash_tensors

EMBEDDED = "medzsad-mini.safetensors"  # in medzsad/weights
LEVELS = 3  # the deepest; the half-resolution level has four times the patches and little but edges


class MiniFeatures(PatchFeatures):
    """Features at strides 16, 8 and 4 with 224, 112 and 48 channels.

    They are of the detector's network for grey images, whatever the image: patches of two networks could not
    be compared, and a set of normals may hold images of both kinds. It sees colours, too.
    """

    def __init__(self, network: MiniNetwork, *, image_size: int, digest: str = "") -> None:
        # Mean 0 and std 1: the network standardises each image by itself.
        flat = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        super().__init__("mini", image_size=image_size, multiple=16, digest=digest, **flat)
        self.network = network

    @classmethod
    def build(cls, name: str, *, image_size: int | None, weights: str | Path | None) -> MiniFeatures:
        """Build it from the embedded detector, or a checkpoint; see :func:`.base.build_features`."""
        path = (
            Path(str(package_files("medzsad"))) / "weights" / EMBEDDED if weights is None else Path(weights)
        )
        checkpoint = read_checkpoint(path)
        try:
            detector = MedzsadMini.from_checkpoint(checkpoint)
        except ModelNotReady as error:
            raise ModelNotReady(f"{path}: {error}") from error
        size = detector.flat_size if image_size is None else image_size
        return cls(
            detector.network, image_size=size, digest=hash_tensors(dict(detector.network.state_dict()))
        )

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the decoder's features, the deepest first."""
        levels, _ = self.network.decoder(images)
        return levels[:LEVELS]
