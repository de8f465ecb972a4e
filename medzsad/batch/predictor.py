"""The settings of a run, what results depend on, and one detector at work on one scan after another."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.batch.manifest import ScanItem
from medzsad.errors import BadInput, ModelNotReady, certain
from medzsad.limits import SMALLEST_SIDE, check_batch
from medzsad.results.prediction import FORMATS
from medzsad.storage.hashing import hash_files, hash_settings

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.results.prediction import ScanPrediction
    from medzsad.scans.scan import Scan

log = logging.getLogger(__name__)

# Where and how fast, not what.
NO_MATTER = ("device", "batch_size")
OF_DETECTORS = (
    "model", "clip_weights", "organ", "class_name", "device", "precision", "backend", "normals",
    "any_modality",
)  # fmt: skip
OF_PREDICTIONS = (
    "window", "threshold", "roi", "max_candidates", "min_volume", "all_candidates", "volume_rules",
    "slice_step", "first_pass", "batch_size",
)  # fmt: skip
PICTURES = {"montage": "overlay", "slices": "slices", "none": None}


@dataclass(frozen=True)
class PredictSettings:
    """How scans are read, predicted and written; plain values, so that any process can have them.

    Attributes:
        model, clip_weights, organ, class_name, device, precision, backend, normals, any_modality: for
            :func:`medzsad.load_detector`.
        series, volume, modality: for :func:`medzsad.read_scan`.
        plane, window, threshold, roi, max_candidates, min_volume, all_candidates, volume_rules, slice_step,
            first_pass, batch_size: for :func:`medzsad.predict`.
        save_scan: also write each scan as it was read.
        save_brain: also write the brain, where the detector marks it.
        dicom: also write DICOM results, for scans read from DICOM: see
            :func:`medzsad.results.dicom.writers.parse_dicom`.
        overlay: pictures: ``"montage"``, ``"slices"`` (one picture each) or ``"none"``.
        report: also write an HTML report of each scan.
        with_identity: the HTML reports also name the patient, where a scan's DICOM source does.
        seg_nrrd: also write the mask for 3D Slicer.
    """

    model: str = "medzsad-mini"
    clip_weights: str | None = None
    organ: str | None = None
    class_name: str | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    normals: str | None = None
    any_modality: bool = False
    series: str | None = None
    volume: int | None = None
    modality: str | None = None
    plane: str = "auto"
    window: str | None = None
    threshold: float | str | None = None
    roi: str | None = None
    max_candidates: int | None = None
    min_volume: float | None = None
    all_candidates: bool = False
    volume_rules: str = "auto"
    slice_step: float | str | None = None
    first_pass: int | None = None
    batch_size: int | None = None
    save_scan: bool = False
    save_brain: bool = False
    dicom: str | None = None
    overlay: str = "montage"
    report: bool = False
    with_identity: bool = False
    seg_nrrd: bool = False

    def formats(self) -> tuple[str, ...]:
        """Return the formats of :meth:`ScanPrediction.save` that the settings ask for.

        Raises:
            BadInput: if one of the settings is none that there is.
        """
        from medzsad.detectors.volume_rules import parse_choice
        from medzsad.inference.first_pass import parse_first_pass
        from medzsad.inference.slice_step import parse_slice_step
        from medzsad.predicting import parse_plane
        from medzsad.results.dicom.writers import parse_dicom
        from medzsad.results.lesions import CandidateChoice, parse_threshold
        from medzsad.scans.modality import parse_modality
        from medzsad.scans.region import parse_roi

        parse_plane(self.plane)
        parse_roi(self.roi)
        parse_choice(self.volume_rules)
        parse_slice_step(self.slice_step)
        if parse_first_pass(self.first_pass):
            for name, without in (("normals", None), ("backend", "torch")):
                if getattr(self, name) != without:
                    raise BadInput(f"`first_pass` does not go with `{name}`: that works at one size alone.")
        CandidateChoice(self.min_volume, self.max_candidates, self.all_candidates)
        check_batch(SMALLEST_SIDE, self.batch_size or 1, f"a batch of {self.batch_size} slices")
        parse_modality(self.modality)
        if self.threshold is not None:
            parse_threshold(self.threshold)
        if self.overlay not in PICTURES:
            raise BadInput(f"unknown overlay {self.overlay!r}; use one of {', '.join(PICTURES)}")
        basic = (PICTURES[self.overlay] if name == "overlay" else name for name in FORMATS)
        more = {
            "scan": self.save_scan,
            "brain": self.save_brain,
            "html": self.report,
            "seg.nrrd": self.seg_nrrd,
        }
        names = (*basic, *(name for name, asked in more.items() if asked))
        return (*(name for name in names if name), *parse_dicom(self.dicom))


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
    for name in ("normals", "any_modality", "first_pass"):  # older results were made without
        if not fields[name]:
            del fields[name]
    if settings.normals is not None:
        fields["normals"] = _hash_of([Path(settings.normals).expanduser()])
    weights = settings.clip_weights
    if weights is not None and Path(weights).expanduser().is_file():
        fields["clip_weights"] = _hash_of([Path(weights).expanduser()])
    return {**fields, "weights": _weights_of(settings.model), "version": __version__}


def digest_of(description: dict[str, Any]) -> str:
    """16 hexadecimal digits for a description of settings."""
    return hash_settings(description)[:16]


def fingerprint(item: ScanItem) -> str:
    """Change when an input does: names, sizes and times of its files, and what is to be read of them.

    What lies on a server is told by its URL alone.
    """
    facts: list[Any] = [item.series, item.modality, item.plane]
    if item.is_remote:
        facts.append(item.source)
    else:
        facts += _files_at(Path(item.source))
    return hash_settings(facts)[:16]


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
    from medzsad.detectors.checkpoint import is_checkpoint_name
    from medzsad.zoo.catalogue import catalogue, find_entry, weight_files

    path = Path(model).expanduser()
    if path.is_dir() and model not in catalogue().models:
        return _hash_of(sorted(path.glob("*.safetensors")))
    if is_checkpoint_name(model):
        return _hash_of([path])
    entry = find_entry(model)
    if entry.path is not None:
        return _hash_of([entry.path])
    known = weight_files() if entry.parts else {}
    return ",".join(known[name].sha256 or known[name].git_blob or name for name in entry.parts)


def _hash_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(hash_files(path, kind=ModelNotReady)))
    return digest.hexdigest()[:16]


class Predictor:
    """Reads, predicts and writes scans; the detector is loaded once, when the first scan has been read.

    Args:
        settings: how.
        detector: instead of the one that the settings name.

    Raises:
        BadInput: if one of the settings is none that there is.
    """

    def __init__(self, settings: PredictSettings, detector: AnomalyDetector | None = None) -> None:
        self.settings = settings
        self.formats = settings.formats()
        self._detector = detector
        self._reading_s: dict[str, float] = {}  # of scans by name: one is read ahead
        self._loading_s: float | None = None  # until the first prediction has it

    def read(
        self, source: Path, name: str, *, series: str | None = None, modality: str | None = None
    ) -> Scan:
        """Return the scan at a place, called ``name``.

        ``series`` and ``modality`` replace those of the settings.

        Raises:
            BadInput: if it cannot be read, is a result of medzsad, or the DICOM results asked for cannot be
                made of it.
        """
        from medzsad.results.dicom.context import check_source
        from medzsad.results.dicom.writers import PREFIX
        from medzsad.scans.own_results import refuse_result
        from medzsad.scans.readers import read_scan

        refuse_result(source)
        settings, began = self.settings, time.perf_counter()
        scan = read_scan(
            source,
            series=series or settings.series,
            volume=settings.volume,
            modality=modality or settings.modality,
        )
        seconds = round(time.perf_counter() - began, 3)
        dicom = [name.removeprefix(PREFIX) for name in self.formats if name.startswith(PREFIX)]
        if dicom:
            check_source(scan, dicom)
        self._reading_s[name] = seconds
        return replace(scan, name=name)

    def load(self) -> AnomalyDetector:
        """Return the detector.

        Raises:
            ModelNotReady: if it cannot be loaded.
        """
        if self._detector is None:
            from medzsad.settings import DetectorSpec
            from medzsad.zoo.loading import load_spec

            began = time.perf_counter()
            spec = DetectorSpec(**{name: getattr(self.settings, name) for name in OF_DETECTORS})
            self._detector = load_spec(spec, say=log.info)
            self._loading_s = round(time.perf_counter() - began, 3)
            self._check_first_pass()
        return self._detector

    def _check_first_pass(self) -> None:
        """Refuse at once what no volume could be predicted with."""
        from medzsad.inference.first_pass import check_first_pass

        if self.settings.first_pass:
            try:
                check_first_pass(certain(self._detector).for_volume(), self.settings.first_pass)
            except BadInput as error:
                raise ModelNotReady(str(error)) from error

    def predict(
        self, scan: Scan, *, plane: str | None = None, progress: Callable[..., Iterable[int]] | None = None
    ) -> ScanPrediction:
        """Return the prediction of a scan; ``plane`` replaces that of the settings.

        Raises:
            BadInput: if a setting does not fit the scan.
            ModelNotReady: if the detector cannot be loaded.
        """
        from medzsad.predicting import predict

        options: dict[str, Any] = {name: getattr(self.settings, name) for name in OF_PREDICTIONS}
        options["plane"] = plane or self.settings.plane
        read_s = self._reading_s.pop(scan.name, None)
        prediction = predict(scan, self.load(), progress=progress, **options)
        # predict() was given a scan and a detector, so these two are not among its own.
        spent = {"read_s": read_s, "load_detector_s": self._loading_s}
        prediction.timings.update({key: value for key, value in spent.items() if value is not None})
        self._loading_s = None
        return prediction

    def save(self, prediction: ScanPrediction, folder: Path) -> dict[str, Path]:
        """Write the files that the settings ask for: see :meth:`ScanPrediction.save`."""
        return prediction.save(folder, formats=self.formats, with_identity=self.settings.with_identity)
