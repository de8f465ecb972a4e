"""``medzsad export onnx``: a detector as one ONNX file, compared with PyTorch before it takes its name.

Prompts and texts are fixed: the file holds their finished features and the image side alone, with everything
that :class:`~medzsad.detectors.base.AnomalyDetector` does to images of the detector's size. Needs
``pip install "medzsad[onnx]"``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medzsad import __version__
from medzsad.backends.convert import (
    INPUT,
    OPSET,
    OPSETS,
    OUTPUTS,
    WholeDetector,
    convert,
    probe_images,
    require_packages,
)
from medzsad.backends.runtimes import open_onnx
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

TOLERANCE = 1e-3
"""Largest difference from PyTorch, of maps and scores in [0, 1], with which a file is accepted."""
BATCHES = (1, 3)  # that are compared; the graph is made with another


@dataclass(frozen=True)
class OnnxExport:
    """A written file.

    Attributes:
        path: the file.
        image_size: side of the images it takes.
        opset: version of ONNX's operators.
        difference: largest difference from PyTorch that was seen.
    """

    path: Path
    image_size: int
    opset: int
    difference: float


def export_onnx(
    detector: AnomalyDetector, path: Path, *, size: int | None = None, opset: int = OPSET
) -> OnnxExport:
    """Write a detector's image side: float32 ``images`` (B, 3, S, S) in [0, 1] to ``anomaly_map``
    (B, S, S), ``image_score`` (B,) and ``image_probability`` (B,), for any B.

    Args:
        detector: what :func:`medzsad.load_detector` gave with ``precision="fp32"``.
        path: the file; replaced where there is one, and only by a file that was compared with PyTorch.
        size: side S that the detector is to work at; its own by default.
        opset: of :data:`OPSETS`.

    Raises:
        BadInput: if the method or its weights cannot be exported, or not at that size or opset.
        ModelNotReady: if a package is missing.
        OutputNotWritable: if the file cannot be written.
    """
    if opset not in OPSETS:
        raise BadInput(f"opset {opset} is not supported; use {OPSETS[0]} to {OPSETS[-1]}")
    if path.is_dir():
        raise BadInput(f"{path}: a folder; give the name of the file to write, such as {path / 'model.onnx'}")
    require_packages(("onnx", "onnxruntime", "onnxscript"), what="export onnx", extra="onnx")
    side = detector.image_size if size is None else size
    source = detector.for_graph(side)
    try:
        with torch.no_grad(), replacing(path, suffix=".onnx") as temporary:
            program = convert(WholeDetector(source), opset=opset)
            program.model.metadata_props.update(metadata(source))
            program.save(temporary, external_data=False)
            difference = largest_difference(temporary, source)
            if not difference <= TOLERANCE:
                raise BadInput(
                    f"{detector.name}: not exported, because ONNX Runtime's numbers differ from PyTorch's by "
                    f"up to {difference:.2g}, more than {TOLERANCE:g}; please report it"
                )
    except OSError as error:
        raise OutputNotWritable(f"{path}: cannot write the file ({error.strerror or error})") from error
    return OnnxExport(path, side, opset, difference)


def metadata(detector: AnomalyDetector) -> dict[str, str]:
    """Return what the file says of itself, under ONNX's ``metadata_props``; nothing of where it was made."""
    side = detector.image_size
    outputs = {name: ["batch"] for name in OUTPUTS} | {OUTPUTS[0]: ["batch", side, side]}
    facts: dict[str, Any] = {
        "medzsad_version": __version__,
        "model": detector.name,
        "method": detector.method,
        "threshold": detector.threshold,
        "image_size": side,
        "inputs": {INPUT: ["batch", 3, side, side]},
        "outputs": outputs,
        "settings": {**detector.settings, "image_size": side},
        "seen": detector.seen,
        "intended_use": "Research use only - not for diagnosis.",
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def largest_difference(path: Path, detector: AnomalyDetector) -> float:
    """How far ONNX Runtime's numbers are from the detector's own, on :func:`probe_images`."""
    session = open_onnx(path)
    worst = 0.0
    for count in BATCHES:
        images = probe_images(detector.image_size, count)
        for expected, value in zip(detector(images), session(images.numpy()), strict=True):
            difference = (expected.cpu() - torch.from_numpy(value)).abs().max()
            worst = max(worst, float(difference.nan_to_num(nan=torch.inf)))
    return worst
