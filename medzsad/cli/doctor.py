"""``medzsad doctor``."""

from __future__ import annotations

import json
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from medzsad import __version__
from medzsad.cli.options import json_option, tell
from medzsad.errors import MedzsadError

LIBRARIES = {
    "torch": "torch",
    "monai": "monai",
    "open_clip": "open_clip_torch",
    "nibabel": "nibabel",
    "pydicom": "pydicom",
}
"""Name as imported, and as installed."""
_SHAPE, _CENTRE, _RADIUS = (64, 64, 12), (40, 24, 6), 6.0  # voxels: the self-test's scan and its lesion


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation: versions, devices, cache, models that are ready, and a self-test.

    The self-test runs the embedded detector on a small synthetic scan, for some seconds. Exit code: 0 all is
    well, 2 something is not.
    """
    facts: dict[str, Any] = {"versions": versions()}
    problems: list[str] = []
    for name, examine in EXAMINATIONS.items():
        facts[name] = None
        label = name.replace("_", "-")
        try:
            facts[name] = examine()
        except MedzsadError as error:
            problems.append(f"{label}: {error}")
        except Exception as error:  # a broken installation may fail in any way, and that is the question here
            problems.append(f"{label}: {type(error).__name__}: {error}")
    missing = [library for library, version in facts["versions"].items() if version is None]
    if missing:
        problems.append(f"not installed: {', '.join(missing)}")
    if facts["self_test"] and not facts["self_test"]["passed"]:
        problems.append("self-test: the map of the embedded detector does not peak in the lesion")
    facts["problems"] = [" ".join(problem.split()) for problem in problems]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for line in lines(facts):
            click.echo(line)
    for problem in facts["problems"]:
        tell(f"error: {problem}")
    if problems:
        raise click.exceptions.Exit(2)


def versions() -> dict[str, str | None]:
    """Versions by name; None for what is not installed."""
    found: dict[str, str | None] = {"medzsad": __version__, "python": platform.python_version()}
    for name, distribution in LIBRARIES.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def devices() -> list[dict[str, Any]]:
    """What detectors can compute on, the one chosen by default first, with the precision chosen there."""
    import torch

    from medzsad.detectors.devices import resolve_device, resolve_precision

    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    names += ["mps"] if torch.backends.mps.is_available() else []
    found = []
    for name in (*names, "cpu"):
        described = f"{torch.get_num_threads()} threads"
        if name.startswith("cuda"):
            described = torch.cuda.get_device_name(name)
        precision = resolve_precision("auto", resolve_device(name))
        found.append(
            {"device": name, "description": described, "precision": precision, "bf16": precision == "bf16"}
        )
    return found


def cache_state() -> dict[str, Any]:
    """The cache's folder, its size and the free space there, in bytes."""
    from medzsad.storage import cache

    folder = cache.cache_folder()
    return {"folder": str(folder), "bytes": cache.total_size(), "free_bytes": cache.free_space(folder)}


def models_ready() -> dict[str, list[str]]:
    """The names of the models that are ready, and of the others."""
    from medzsad.cli.model_tables import listed

    found = listed()
    return {
        "ready": [model["name"] for model in found if model["ready"]],
        "not_ready": [model["name"] for model in found if not model["ready"]],
    }


def self_test() -> dict[str, Any]:
    """Predicts a small synthetic scan with one bright lesion with the embedded detector.

    Returns:
        ``seconds``; ``peak``, the voxel where the map is highest; ``passed``, whether that is in the lesion.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    from medzsad.predicting import predict
    from medzsad.scans.scan import Modality, Scan

    started = time.perf_counter()
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in _SHAPE), indexing="ij")
    random = np.random.default_rng(0)
    tissue = gaussian_filter(random.normal(0, 1, _SHAPE), 3)
    head = ((x - 31.5) / 27) ** 2 + ((y - 31.5) / 30) ** 2 < 1
    distance = np.sqrt((x - _CENTRE[0]) ** 2 + (y - _CENTRE[1]) ** 2 + (2 * (z - _CENTRE[2])) ** 2)
    grey = 100 + 15 * tissue / tissue.std() + random.normal(0, 3, _SHAPE) + 70 * (distance < _RADIUS)
    voxels = np.where(head, grey, 0).astype(np.float32)
    scan = Scan(voxels, np.diag([3.0, 3.0, 6.0, 1.0]), Modality.MR, "given", "self-test", Path("self-test"))
    result = predict(scan, "medzsad-mini")
    peak = np.unravel_index(int(result.anomaly_map.argmax()), _SHAPE)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak": [int(i) for i in peak],
        "passed": bool(distance[peak] < _RADIUS),
    }


EXAMINATIONS = {"devices": devices, "cache": cache_state, "models": models_ready, "self_test": self_test}


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for the terminal."""
    from medzsad.storage.cache import in_megabytes

    found = [f"{name:<12}{version or 'not installed'}" for name, version in facts["versions"].items()]
    for device in facts["devices"] or ():
        found.append(f"{'device':<12}{device['device']}: {device['description']}, {device['precision']}")
    if facts["cache"]:
        state = facts["cache"]
        size = in_megabytes(state["bytes"]) if state["bytes"] else "empty"
        found.append(f"{'cache':<12}{state['folder']}")
        found.append(f"{'':<12}{size}, {in_megabytes(state['free_bytes'])} free")
    if facts["models"]:
        for i, name in enumerate(facts["models"]["ready"]):
            found.append(f"{'ready' if i == 0 else '':<12}{name}")
        count = len(facts["models"]["not_ready"])
        if count:
            found.append(f"{'':<12}{count} more need weights: medzsad models list")
    if facts["self_test"]:
        test = facts["self_test"]
        verdict = "passed" if test["passed"] else f"FAILED, the map peaks at voxel {test['peak']}"
        found.append(f"{'self-test':<12}{verdict} in {test['seconds']} s")
    return found
