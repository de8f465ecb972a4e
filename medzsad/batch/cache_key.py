"""What the results of a cohort depend on, so that results of other settings are never taken for its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medzsad.batch.manifest import ScanItem
from medzsad.batch.predictor import PredictSettings
from medzsad.errors import ModelNotReady

# Where and how fast, not what.
NO_MATTER = ("device", "batch_size")


def describe(settings: PredictSettings) -> dict[str, Any]:
    """Return what determines the results, JSON-serialisable.

    The settings, the weights, and medzsad's version.

    Raises:
        ModelNotReady: if there is no such model, or its file cannot be read.
    """
    from medzsad import __version__

    fields = {key: value for key, value in asdict(settings).items() if key not in NO_MATTER}
    fields["model"] = Path(settings.model).name  # the file may lie elsewhere on another machine
    if settings.roi is not None and Path(settings.roi).expanduser().is_file():
        fields["roi"] = _hash_of([Path(settings.roi).expanduser()])
    weights = settings.clip_weights
    if weights is not None and Path(weights).expanduser().is_file():
        fields["clip_weights"] = _hash_of([Path(weights).expanduser()])
    return {**fields, "weights": _weights_of(settings.model), "version": __version__}


def digest_of(description: dict[str, Any]) -> str:
    """16 hexadecimal digits for a description of settings."""
    text = json.dumps(description, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(item: ScanItem) -> str:
    """Change when an input does: names, sizes and times of its files, and what is to be read of them.

    What lies on a server is told by its URL alone.
    """
    facts: list[Any] = [item.series, item.modality, item.plane]
    if item.is_remote:
        facts.append(item.source)
    else:
        facts += _files_at(Path(item.source))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _files_at(path: Path) -> list[tuple[str, int, int]]:
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return [
            (str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns)
            for file in files
            for stat in (file.stat(),)
        ]
    except OSError as error:
        return [(type(error).__name__, 0, 0)]


def _weights_of(model: str) -> str:
    """Return a hash of the files that a model is made of.

    Of files of the zoo, those they were checked with.
    """
    from medzsad.zoo.catalogue import catalogue, find_entry, weight_files

    path = Path(model).expanduser()
    if path.is_dir() and model not in catalogue().models:
        return _hash_of(sorted(path.glob("*.safetensors")))
    if model.endswith(".safetensors"):
        return _hash_of([path])
    entry = find_entry(model)
    if entry.path is not None:
        return _hash_of([entry.path])
    known = weight_files() if entry.parts else {}
    return ",".join(known[name].sha256 or known[name].git_blob or name for name in entry.parts)


def _hash_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelNotReady(
                f"{path}: the weights cannot be read ({error.strerror or error}); check the path"
            ) from error
    return digest.hexdigest()[:16]
