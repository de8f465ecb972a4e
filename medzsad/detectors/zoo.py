"""The catalogue of named detectors. Reading it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from medzsad.errors import ModelNotReady


@dataclass(frozen=True)
class ZooEntry:
    """A named detector.

    Attributes:
        name: what the user types.
        method: key of :data:`medzsad.detectors.registry.METHODS`.
        title: one line for lists.
        checkpoint: file name in the package's ``weights`` folder.
        card: file name of the model card there.
        licence: SPDX identifier of the weights.
    """

    name: str
    method: str
    title: str
    checkpoint: str
    card: str
    licence: str

    @property
    def path(self) -> Path:
        """The checkpoint file."""
        return weights_folder() / self.checkpoint


def weights_folder() -> Path:
    """The folder of the weights that ship with the package."""
    return Path(str(files("medzsad"))) / "weights"


@cache
def entries() -> dict[str, ZooEntry]:
    """All named detectors, in the catalogue's order."""
    import yaml

    catalogue = yaml.safe_load((Path(__file__).parent / "zoo.yaml").read_text(encoding="utf-8"))
    return {name: ZooEntry(name=name, **fields) for name, fields in catalogue.items()}


def find_entry(name: str) -> ZooEntry:
    """The entry called ``name``.

    Raises:
        ModelNotReady: if there is none; the message lists the names.
    """
    if name not in entries():
        raise ModelNotReady(
            f"unknown model {name!r}; give a checkpoint file (.safetensors) or one of: {', '.join(entries())}"
        )
    return entries()[name]
