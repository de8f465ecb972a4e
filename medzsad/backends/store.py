"""Graphs kept in the cache folder, made once: converting a ViT-L takes a minute.

``graphs/KEY.onnx`` is a graph, ``graphs/KEY.json`` says how large it is and how far each runtime's numbers
were from PyTorch's. The file is the same for all runtimes, so the key names what it was made of and with; a
runtime of another version has it compared anew. Everything in the folder may be deleted at any time.
"""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medzsad import __version__
from medzsad.backends.onnx_export import ImageSide, convert, probe_images
from medzsad.backends.runtimes import TEXTS, Runtime, open_graph, version_of
from medzsad.errors import ModelNotReady
from medzsad.storage.cache import cache_folder, in_megabytes, require_space
from medzsad.storage.hashing import hash_settings, hash_tensors, settings_text
from medzsad.storage.keyed import KeyedStore

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
    tensors = dict([*detector.named_parameters(), *detector.named_buffers()])
    if given is not None:
        tensors.pop(TEXTS, None)
    return hash_tensors(tensors, settings_text(facts))[:32]


def graph_store() -> KeyedStore:
    """Return the graphs of the cache folder."""
    return KeyedStore(cache_folder() / "graphs", ".onnx")


def graph_key(digest: str) -> str:
    """Return what the graph of a detector is kept under; another exporter's is another."""
    return hash_settings([digest, [f"{name} {_version(name)}" for name in _EXPORTERS]])[:32]


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
    store, key = graph_store(), graph_key(digest)
    runner = f"{backend} {version_of(backend)} {precision}"
    found = _opened(store, key, runner, backend, precision)
    if found is not None:
        return found
    waiting = f"{detector.name}: another process is making its graph; waiting"
    with store.locked(key, on_wait=lambda: logger.info(waiting)):
        found = _opened(store, key, runner, backend, precision)  # the other process did it
        if found is not None:
            return found
        compared = _compared(store, key)
        if not compared or runner in compared:  # there is none, or it cannot be opened
            logger.info(
                f"{detector.name}: making a graph for images of {detector.image_size} px, which takes a "
                f"while; this is done once, the graph stays in {store.folder}"
            )
            compared = {}
            _make(detector, store, key)
        runtime = _open(detector, store.path(key), backend, precision)
        compared[runner] = _compare(runtime, detector, backend, precision)
        store.note(key, {"compared": compared})
    return runtime


def _opened(store: KeyedStore, key: str, runner: str, backend: str, precision: str) -> Runtime | None:
    """Return the graph, if it is whole and was compared with this runtime.

    None too if it cannot be opened: each library has errors of its own, and a new file mends it or says more.
    """
    if runner not in _compared(store, key):
        return None
    return store.read(key, lambda path: open_graph(path, backend, precision), Exception)


def _compared(store: KeyedStore, key: str) -> dict[str, float]:
    """Return how far each runtime's numbers were from PyTorch's; nothing if there is no whole graph."""
    compared = store.record(key).get("compared")
    return compared if isinstance(compared, dict) else {}


def _make(detector: AnomalyDetector, store: KeyedStore, key: str) -> None:
    weights = sum(p.numel() * p.element_size() for p in detector.parameters())
    require_space(
        store.path(key), int(weights * _ROOM), f"the graph of {detector.name} ({in_megabytes(weights)})"
    )
    with torch.no_grad():
        texts = detector.graph_texts()
        module = ImageSide(detector.for_graph(detector.image_size))
        program = convert(module, texts=None if texts is None else texts.features)
    with store.writing(key) as temporary:
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
