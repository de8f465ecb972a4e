"""Graphs kept in the cache folder, made once: converting a ViT-L takes a minute.

``graphs/KEY.onnx`` is a graph, ``graphs/KEY.json`` says how large it is and how far each runtime's numbers
were from PyTorch's. The file is the same for all runtimes, so the key names what it was made of and with; a
runtime of another version has it compared anew. Everything in the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medzsad import __version__
from medzsad.backends.onnx_export import ImageSide, convert, probe_images
from medzsad.backends.runtimes import TEXTS, Runtime, open_graph, version_of
from medzsad.errors import ModelNotReady
from medzsad.storage.cache import cache_folder, in_megabytes, landing, require_space
from medzsad.storage.locking import locked

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

logger = logging.getLogger(__name__)
FORMAT = 2  # raised whenever the same detector would give another graph
TOLERANCES = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest difference from PyTorch's float32 with which a graph is used: more is no rounding, but a fault."""
_EXPORTERS = ("torch", "onnx", "onnxscript")
_ROOM = 1.1  # of a file, over its weights


def digest_of(detector: AnomalyDetector, use: str = "images") -> str:
    """32 hexadecimal digits for a detector's numbers: its method, settings and weights, and our version.

    Texts that a graph gets as an input are left out.

    Args:
        detector: with weights that were not rounded.
        use: what it is used for that settings need not tell, such as slices of a volume.
    """
    given = detector.graph_texts()
    left_out = () if given is None else given.settings
    settings = {**detector.settings, "image_size": detector.image_size, "precision": "fp32"}
    facts = {
        "format": FORMAT,
        "medzsad": __version__,
        "method": detector.method,
        "settings": {k: v for k, v in settings.items() if k not in left_out},
        "use": use,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted([*detector.named_parameters(), *detector.named_buffers()]):
        if given is not None and name == TEXTS:
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def graph_path(digest: str) -> Path:
    """Where the graph of a detector lies, or is to lie; another exporter's is another."""
    exporters = [f"{name} {_version(name)}" for name in _EXPORTERS]
    key = hashlib.sha256(json.dumps([digest, exporters]).encode()).hexdigest()[:32]
    return cache_folder() / "graphs" / f"{key}.onnx"


def stored_graph(detector: AnomalyDetector, digest: str, backend: str, precision: str) -> Runtime:
    """Return the graph of a detector, from the cache; made and compared with PyTorch where it is not there.

    That it is made, which takes long, is logged.

    Args:
        detector: in float32, on the CPU.
        digest: :func:`digest_of` it.
        backend, precision: for :func:`~medzsad.backends.runtimes.open_graph`.

    Raises:
        BadInput: if the detector cannot be a graph.
        ModelNotReady: if the runtime cannot use the graph, or its numbers are not PyTorch's.
        OutputNotWritable: if the graph cannot be stored.
    """
    path, runner = graph_path(digest), f"{backend} {version_of(backend)} {precision}"
    found = _opened(path, runner, backend, precision)
    if found is not None:
        return found
    waiting = f"{detector.name}: another process is making its graph; waiting"
    with locked(path.with_suffix(".lock"), on_wait=lambda: logger.info(waiting)):
        found = _opened(path, runner, backend, precision)  # the other process did it
        if found is not None:
            return found
        compared = _facts(path).get("compared", {})
        if not compared or runner in compared:  # there is none, or it cannot be opened
            logger.info(
                f"{detector.name}: making a graph for images of {detector.image_size} px, which takes a "
                f"while; this is done once, the graph stays in {path.parent}"
            )
            compared = {}
            _make(detector, path)
        runtime = _open(detector, path, backend, precision)
        compared[runner] = _compare(runtime, detector, backend, precision)
        with landing(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({"bytes": path.stat().st_size, "compared": compared}))
    return runtime


def _opened(path: Path, runner: str, backend: str, precision: str) -> Runtime | None:
    """Return the graph, if it is whole and was compared with this runtime.

    None too if it cannot be opened.
    """
    if runner not in _facts(path).get("compared", {}):
        return None
    try:
        return open_graph(path, backend, precision)
    except Exception:  # each library has its own; whatever is wrong, a new file mends it or says more
        return None


def _facts(path: Path) -> dict[str, Any]:
    """Return what was noted of a graph; nothing unless the file is as large as it was."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        return facts if facts["bytes"] == path.stat().st_size and isinstance(facts["compared"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _make(detector: AnomalyDetector, path: Path) -> None:
    weights = sum(p.numel() * p.element_size() for p in detector.parameters())
    require_space(path, int(weights * _ROOM), f"the graph of {detector.name} ({in_megabytes(weights)})")
    with torch.no_grad():
        texts = detector.graph_texts()
        module = ImageSide(detector.for_graph(detector.image_size))
        program = convert(module, texts=None if texts is None else texts.features)
    with landing(path) as temporary:
        program.save(temporary, external_data=False)


def _open(detector: AnomalyDetector, path: Path, backend: str, precision: str) -> Runtime:
    try:
        return open_graph(path, backend, precision)
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelNotReady(
            f"{detector.name}: backend {backend!r} cannot run its graph ({reason})"
        ) from error


def _compare(runtime: Runtime, detector: AnomalyDetector, backend: str, precision: str) -> float:
    images = probe_images(detector.image_size, 2)
    with torch.inference_mode():
        inputs = detector.preprocess(images)
        # One by one, because that is all the memory that a large model's windows need.
        expected = [torch.cat(parts) for parts in zip(*map(detector.detect, inputs.split(1)), strict=True)]
        texts = detector.graph_texts()
        given = [] if texts is None else [texts.features.numpy()]
        values = runtime(inputs.contiguous().numpy(), *given)
    worst = 0.0
    for one, other in zip(expected, values, strict=True):
        difference = (one.float().clamp(0, 1) - torch.from_numpy(other)).abs().max()
        worst = max(worst, float(difference.nan_to_num(nan=torch.inf)))
    if not worst <= TOLERANCES[precision]:
        raise ModelNotReady(
            f"{detector.name}: the numbers of backend {backend!r} are off PyTorch's by up to {worst:.2g}, "
            "which is a fault; please report it"
        )
    return worst


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
