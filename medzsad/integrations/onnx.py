"""``medzsad export onnx``: a detector as one ONNX file, compared with PyTorch before it takes its name.

Prompts and texts are fixed: the file holds their finished features and the image side alone, with everything
that :class:`~medzsad.detectors.base.AnomalyDetector` does to images of the detector's size. Needs
``pip install "medzsad[onnx]"``.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medzsad import __version__
from medzsad.atomic import replacing
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable
from medzsad.integrations.onnx_graph import ImageSide, at_size, image_side

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

    from medzsad.detectors.base import AnomalyDetector

INPUT = "images"
OUTPUTS = ("anomaly_map", "image_score", "image_probability")
OPSETS = range(18, 24)
OPSET = 18  # the oldest that the graphs need, which most runtimes know
TOLERANCE = 1e-3
"""Largest difference from PyTorch, of maps and scores in [0, 1], with which a file is accepted."""
BATCHES = (1, 3)  # that are compared; the graph is made with another
LARGEST = 2**31 - 2**20  # bytes of weights that fit into one file, by protobuf's limit
_EXTRA = 'needs onnx, onnxruntime and onnxscript: pip install "medzsad[onnx]"'


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
    """Writes a detector's image side: float32 ``images`` (B, 3, S, S) in [0, 1] to ``anomaly_map``
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
    _require_packages()
    side = detector.image_size if size is None else size
    try:
        with (
            torch.no_grad(),
            at_size(detector, side),
            replacing(path, suffix=".onnx") as temporary,
        ):
            program = _convert(image_side(detector), side, opset)
            program.model.metadata_props.update(metadata(detector))
            program.save(temporary, external_data=False)
            difference = largest_difference(temporary, detector, side)
            if not difference <= TOLERANCE:
                raise BadInput(
                    f"{detector.name}: not exported, because ONNX Runtime's numbers differ from PyTorch's by "
                    f"up to {difference:.2g}, more than {TOLERANCE:g}; please report it"
                )
    except OSError as error:
        raise OutputNotWritable(f"{path}: cannot write the file ({error.strerror or error})") from error
    return OnnxExport(path, side, opset, difference)


def metadata(detector: AnomalyDetector) -> dict[str, str]:
    """What the file says of itself, under ONNX's ``metadata_props``; nothing of where it was made."""
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


def largest_difference(path: Path, detector: AnomalyDetector, side: int) -> float:
    """How far ONNX Runtime's numbers are from the detector's own, on :func:`probe_images`."""
    session = open_session(path)
    worst = 0.0
    for count in BATCHES:
        images = probe_images(side, count)
        found = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        for expected, value in zip(detector(images), found, strict=True):
            difference = (expected.cpu() - torch.from_numpy(value)).abs().max()
            worst = max(worst, float(difference.nan_to_num(nan=torch.inf)))
    return worst


def open_session(path: Path) -> Any:
    """An ``onnxruntime.InferenceSession`` of the file on the CPU, without its warnings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def probe_images(side: int, count: int) -> Tensor:
    """Smooth made-up images, float32 (count, 3, side, side): in colour and, from the second on every other
    one, grey on black, as scans are."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, max(2, side // 8), max(2, side // 8), generator=generator)
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    axis = torch.linspace(-1, 1, side)
    inside = (axis[:, None].square() + axis.square() < 0.7).float()
    images[1::2] = images[1::2].mean(1, keepdim=True) * inside
    return images


def _convert(graph: ImageSide, side: int, opset: int) -> ONNXProgram:
    """The graph in ONNX, without traces of where its code lies, checked for its size."""
    detector = graph.detector
    example = torch.rand(2, 3, side, side, device=detector.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                opset_version=opset,
            )
    except Exception as error:  # of many kinds; each means that some operation has no counterpart
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInput(
            f"{detector.name}: method {detector.method!r} cannot be exported to ONNX ({reason})"
        ) from error
    from onnx_ir.passes import common

    for clean in (common.ClearMetadataAndDocStringPass(), common.RemoveUnusedNodesPass()):
        clean(program.model)
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    if weights > LARGEST:
        raise BadInput(
            f"{detector.name}: its weights take {weights / 2**30:.1f} GB in float32, and one ONNX file "
            "holds 2 GB at most"
        )
    return program


def _require_packages() -> None:
    import importlib.util

    missing = [n for n in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(n) is None]
    if missing:
        raise ModelNotReady(f"export onnx {_EXTRA} (missing: {', '.join(missing)})")
