"""How fast every backend is for one detector on this machine's CPU, and how far from PyTorch's float32."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medzsad.backends.detector import GraphDetector
from medzsad.backends.onnx_export import probe_images
from medzsad.backends.records import Record, Timing, cpu_name, write_record
from medzsad.backends.runtimes import require_backend
from medzsad.backends.store import digest_of
from medzsad.detectors.devices import resolve_precision
from medzsad.errors import BadInput, ModelNotReady
from medzsad.inference.slicewise import default_batch_size
from medzsad.limits import SMALLEST_SIDE, check_batch
from medzsad.zoo.loading import load_detector

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector, Prediction

Say = Callable[[str], None]
COMPARED = 8  # images, half of them in colour
SECONDS, RUNS = 4.0, 3  # at least, for each figure


def measure_backends(
    name: str | os.PathLike[str],
    *,
    batch: int | None = None,
    clip_weights: str | None = None,
    organ: str | None = None,
    seconds: float = SECONDS,
    say: Say | None = None,
) -> Record:
    """Measures a detector with :func:`time_backends` and keeps the record for ``backend="auto"``.

    Args:
        name, clip_weights, organ: for :func:`medzsad.load_detector`.
        batch: images at once; as many as in ``medzsad predict`` by default.
        seconds, say: for :func:`time_backends`.

    Raises:
        BadInput: if a batch is more than a network may get.
        ModelNotReady: if the detector cannot be loaded.
        OutputNotWritable: if a graph or the record cannot be stored.
    """
    check_batch(SMALLEST_SIDE, batch or 1, f"a batch of {batch} images")
    cpu = torch.device("cpu")
    detector = load_detector(name, device=cpu, precision="fp32", clip_weights=clip_weights, organ=organ)
    digest = digest_of(detector)
    record = time_backends(
        detector,
        batch=batch or default_batch_size(detector.for_volume()),
        bf16=resolve_precision("auto", cpu) == "bf16",
        seconds=seconds,
        say=say,
    )
    write_record(digest, record)
    return record


def time_backends(
    detector: AnomalyDetector,
    *,
    batch: int = 1,
    bf16: bool = False,
    seconds: float = SECONDS,
    say: Say | None = None,
) -> Record:
    """Measures all that there is; graphs that are missing are made and kept.

    Args:
        detector: on the CPU, in float32. PyTorch's bf16 is measured last, and rounds its weights.
        batch: images at once.
        bf16: whether the CPU multiplies matrices in bf16.
        seconds: at least, for each figure.
        say: is told what is being done, and what is left out and why.

    Returns:
        The record, which is not stored.

    Raises:
        BadInput: if the detector is somewhere else, was rounded, or a batch is more than it may get.
        OutputNotWritable: if a graph cannot be stored.
    """
    if detector.device.type != "cpu" or detector.precision != "fp32":
        raise BadInput(f"{detector.name}: backends are compared on the CPU, with a detector in fp32")
    tell = say or (lambda _: None)
    uses = _uses(detector)
    # Twice as many are made, for every other one is in colour.
    check_batch(max(one.image_size for one in uses.values()), 2 * batch, f"a batch of {batch} images")
    tell(f"{detector.name}: torch fp32")
    expected = {use: _predictions(one, batch) for use, one in uses.items()}
    timings = [Timing("torch", "fp32", _rates(uses, batch, seconds), 0.0, 0.0)]

    def add(one: AnomalyDetector, backend: str, precision: str) -> None:
        own = _uses(one)
        found = {use: _predictions(other, batch) for use, other in own.items()}
        differences = [_difference(found[use], expected[use]) for use in uses]
        timings.append(
            Timing(backend, precision, _rates(own, batch, seconds), *map(max, zip(*differences, strict=True)))
        )

    for backend, precision in (("openvino", "fp32"), ("openvino", "bf16"), ("onnx", "fp32")):
        if precision == "bf16" and not bf16:
            continue
        try:
            require_backend(backend)
            tell(f"{detector.name}: {backend} {precision}")
            add(GraphDetector(detector, backend, precision), backend, precision)
        except ModelNotReady as error:
            tell(f"left out: {error}")
    if bf16:
        tell(f"{detector.name}: torch bf16")
        detector.use_precision("bf16")
        add(detector, "torch", "bf16")
    sizes = {use: one.image_size for use, one in uses.items()}
    auto = "auto" if detector.bounded_in_bf16 else "fp32"
    return Record(detector.name, cpu_name(), torch.get_num_threads(), batch, sizes, tuple(timings), auto)


def _uses(detector: AnomalyDetector) -> dict[str, AnomalyDetector]:
    """Slices of volumes first, where the method treats them differently."""
    volume = detector.for_volume()
    return {"images": detector} if volume is detector else {"slices": volume, "images": detector}


def _predictions(detector: AnomalyDetector, batch: int) -> list[Prediction]:
    return [detector(part) for part in probe_images(detector.image_size, COMPARED).split(batch)]


def _difference(found: list[Prediction], expected: list[Prediction]) -> tuple[float, float]:
    """Of maps, and of scores and probabilities."""
    pairs = list(zip(found, expected, strict=True))

    def worst(*names: str) -> float:
        return max(float((getattr(a, n) - getattr(b, n)).abs().max()) for a, b in pairs for n in names)

    return worst("anomaly_map"), worst("image_score", "image_probability")


def _rates(uses: dict[str, AnomalyDetector], batch: int, seconds: float) -> dict[str, float]:
    """Images per second; grey ones, as scans are."""
    rates = {}
    for use, detector in uses.items():
        images = probe_images(detector.image_size, 2 * batch)[1::2]
        rates[use] = batch / _seconds(detector, images, seconds)
    return rates


def _seconds(run: Callable[[Tensor], object], images: Tensor, least: float) -> float:
    """Return the median of several runs after one that does not count."""
    run(images)
    taken: list[float] = []
    while len(taken) < RUNS or sum(taken) < least:
        began = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
