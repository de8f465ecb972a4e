"""From a detector to an ONNX model, and to a file of it (``medzsad export onnx``).

Graphs have no Python: they are made of what :meth:`~medzsad.detectors.base.AnomalyDetector.for_graph`
gives. Every graph is compared with PyTorch before it is used. Prompts and texts of a file are fixed: it
holds their finished features and the image side alone, with everything that
:class:`~medzsad.detectors.base.AnomalyDetector` does to images of the detector's size. Needs ``pip install
"medzsad[onnx]"``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medzsad import __version__
from medzsad.backends.runtimes import INPUT, TEXTS, open_onnx, require_packages
from medzsad.detectors.prediction import resize_maps
from medzsad.errors import BadInput, OutputNotWritable, certain
from medzsad.storage.atomic import replacing

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

    from medzsad.detectors.base import AnomalyDetector


OUTPUTS = ("anomaly_map", "image_score", "image_probability")
BRAIN = "brain"  # a fourth output, of a detector that marks it
OPSETS = range(18, 24)
OPSET = 18  # the oldest that the graphs need, which most runtimes know
LARGEST = 2**31 - 2**20  # bytes of weights that fit into one file, by protobuf's limit


class ImageSide(nn.Module):
    """What a detector computes of pre-processed images, as a pure function of tensors.

    Args:
        detector: from :meth:`AnomalyDetector.for_graph`.
    """

    def __init__(self, detector: AnomalyDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, inputs: Tensor, texts: Tensor | None = None) -> tuple[Tensor, ...]:
        """Map (B, h, w) of the method's own resolution, score (B,) and probability (B,), float32 in [0, 1].

        Of a detector that marks the brain, also its map (B, h, w).

        Args:
            inputs: float32 (B, 3, S, S), normalised.
            texts: float32 (2, D), of a detector with :meth:`~AnomalyDetector.graph_texts`.
        """
        detect: Callable[..., Any] = self.detector.detect
        raw = detect(inputs) if texts is None else detect(inputs, texts)
        maps, score = (value.float().clamp(0, 1) for value in raw[:2])
        # Where both are one number, the exporter trips over two outputs that are computed alike.
        same = raw.image_probability is raw.image_score
        probability = score.clone() if same else raw.image_probability.float().clamp(0, 1)
        return maps, score, probability, *(extra.float() for extra in raw[3:])


class WholeDetector(ImageSide):
    """All that :class:`AnomalyDetector` does to images of its size, without its checks."""

    def forward(self, images: Tensor, texts: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, H, W), score (B,) and probability (B,) of images (B, 3, H, W); all float32 in [0, 1]."""
        maps, score, probability = super().forward(self.detector.preprocess(images), texts)
        return resize_maps(maps, tuple(images.shape[-2:])), score, probability


def convert(module: ImageSide, *, opset: int = OPSET, texts: Tensor | None = None) -> ONNXProgram:
    """Return an ONNX model for any number of images, without traces of where its code lies.

    Args:
        module: images float32 (B, 3, S, S), and texts if given, to the tensors of :data:`OUTPUTS`
            and, of a detector that marks the brain, :data:`BRAIN`.
        opset: of :data:`OPSETS`.
        texts: float32 (2, D), an example of the graph's second input; None for a graph without one.

    Raises:
        BadInput: if an operation has no counterpart, or the weights are too large for one file.
    """
    detector = module.detector
    example = [torch.rand(2, 3, detector.image_size, detector.image_size, device=detector.device)]
    shapes: list[dict[int, Any] | None] = [{0: torch.export.Dim("batch", min=1)}]
    if texts is not None:
        example.append(texts)
        shapes.append(None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                module.eval(),
                tuple(example),
                dynamo=True,
                verbose=False,
                input_names=[INPUT, TEXTS][: len(example)],
                output_names=[*OUTPUTS, BRAIN] if detector.marks_brain else list(OUTPUTS),
                dynamic_shapes=tuple(shapes),
                opset_version=opset,
            )
    except Exception as error:  # of many kinds; each means that some operation has no counterpart
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInput(
            f"{detector.name}: method {detector.method!r} cannot be exported to ONNX ({reason})"
        ) from error
    from onnx_ir.passes import common

    program = certain(program)
    for clean in (common.ClearMetadataAndDocStringPass(), common.RemoveUnusedNodesPass()):
        clean(program.model)
    weights = sum(certain(value.const_value).nbytes for value in program.model.graph.initializers.values())
    if weights > LARGEST:
        raise BadInput(
            f"{detector.name}: its weights take {weights / 2**30:.1f} GB in float32, and one ONNX file "
            "holds 2 GB at most"
        )
    return program


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
        # That of ultrasound is not for this file: a graph knows no modality.
        **({"colour_threshold": own["colour"]} if "colour" in (own := detector.own_thresholds) else {}),
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
