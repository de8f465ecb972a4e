"""The folder of a training run: what is in it, and whether a run may go on there."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medzsad.errors import BadInput, OutputNotWritable
from medzsad.results.writing import prepare_folder
from medzsad.storage.atomic import replacing
from medzsad.training.processes import Processes
from medzsad.training.recipe import Recipe, read_recipe
from medzsad.zoo.loading import RUN_ADAPTER, RUN_CLIP


class RunFolder:
    """Names of a run's files, and how they are written: to a temporary name, then renamed.

    Attributes:
        path: the folder.
        recipe: the recipe with every default.
        environment: versions and device; nothing that names a machine or a person.
        log: a line of JSON per step, and per validation.
        metrics: how the run went, so far.
        curves: losses and validation over steps, as a picture.
        card: what the adapter is, what it has seen, and whose licences that touches.
        adapter: the best adapter, a medzsad checkpoint: ``--model RUN``.
        clip: the backbone's weights, if they were random.
        head_weights: HeadCLIP's head weights, as a picture.
        state: what a stopped run goes on from.
        epochs: adapters of the last epochs, if the recipe keeps any.
        data: slices of volumes, and images that were made.
        features: features that are kept, if the recipe says so.
        tensorboard: for TensorBoard, if it is installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.recipe = self.path / "recipe.yaml"
        self.environment = self.path / "environment.json"
        self.log = self.path / "log.jsonl"
        self.metrics = self.path / "metrics.json"
        self.curves = self.path / "curves.png"
        self.card = self.path / "card.md"
        self.adapter = self.path / RUN_ADAPTER
        self.clip = self.path / RUN_CLIP
        self.head_weights = self.path / "head_weights.png"
        self.state = self.path / "last" / "state.safetensors"
        self.epochs = self.path / "epochs"
        self.data = self.path / "data"
        self.features = self.path / "features"
        self.tensorboard = self.path / "tensorboard"

    def check(self, recipe: Recipe, *, fresh: bool = False) -> None:
        """Make the folder, and check that a run which is there is one of the same recipe; change nothing.

        Args:
            recipe: of the run.
            fresh: whether a run that is there is to be deleted, and may be any recipe's.

        Raises:
            BadInput: if the folder holds another recipe's run, or something else.
            OutputNotWritable: if it cannot be made or written.
        """
        prepare_folder(self.path)
        if not self.recipe.is_file() and self._others():
            raise BadInput(
                f"{self.path}: holds other files ({self._others()[0].name}), and no training run; choose a "
                "new folder with -o"
            )
        if not fresh and self.recipe.is_file() and self.state.is_file():
            former = read_recipe(self.recipe)
            changed = former.differences(recipe)
            if changed:
                raise BadInput(
                    f"{self.path}: holds a run of another recipe (different: {', '.join(changed[:6])}"
                    f"{', ...' if len(changed) > 6 else ''}); choose another folder with -o, or start over "
                    "with `fresh`"
                )

    def prepare(self, recipe: Recipe, *, fresh: bool = False) -> bool:
        """As :meth:`check`, then writes the recipe; with ``fresh`` the run that is there is deleted before.

        To be called once nothing else can be wrong: what is deleted may have taken days.

        Returns:
            Whether there is a state to go on from.

        Raises:
            BadInput, OutputNotWritable: as :meth:`check`.
        """
        self.check(recipe, fresh=fresh)
        if fresh:
            self._clear()
        self.write(self.recipe, recipe.as_yaml())
        return self.state.is_file()

    def write(self, path: Path, text: str) -> None:
        """Write a text file.

        Raises:
            OutputNotWritable: if it cannot be written.
        """
        write_bytes(path, text.encode())

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Write a JSON file; see :meth:`write`."""
        self.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_picture(self, path: Path, pixels: np.ndarray) -> None:
        """Write uint8 (H, W, 3) as PNG; see :meth:`write`."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="png")
        write_bytes(path, stream.getvalue())

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of the log, less a last one that was cut short."""
        if not self.log.is_file():
            return []
        lines = []
        for text in self.log.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def append_log(self, line: dict[str, Any]) -> None:
        """Add a line to the log.

        Raises:
            OutputNotWritable: if that is not possible.
        """
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputNotWritable(f"{self.log}: cannot be written ({error.strerror or error})") from error

    def cut_log(self, step: int) -> None:
        """Drop lines of steps after ``step``: a run that goes on from there makes them again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        self.write(self.log, "".join(json.dumps(line) + "\n" for line in kept))

    def _files(self) -> list[Path]:
        return [value for value in vars(self).values() if isinstance(value, Path) and value != self.path]

    def _others(self) -> list[Path]:
        ours = {self.data, self.state.parent}
        return [
            entry for entry in sorted(self.path.iterdir()) if entry not in ours and entry.suffix != ".partial"
        ]

    def _clear(self) -> None:
        for path in self._files():
            if path == self.data:  # slices are made of the data alone, and may have taken long
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file to a temporary name, then rename it.

    Raises:
        OutputNotWritable: if it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputNotWritable(f"{path}: cannot be written ({error.strerror or error})") from error


def environment(recipe: Recipe, device: torch.device, processes: Processes) -> dict[str, Any]:
    """Versions and device, JSON-serialisable; nothing in it names a machine or a person."""
    from importlib.metadata import PackageNotFoundError, version

    from medzsad import __version__

    versions = {
        "medzsad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for name in ("monai", "pytorch-ignite", "open_clip_torch", "numpy", "safetensors"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return {
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": processes.world_size,
        "threads": torch.get_num_threads(),
        "precision": recipe.precision,
        "deterministic": recipe.deterministic,
    }
