"""What a detector says of one scan, in the scan's own grid; and how it travels in the meta of its map."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.detectors.normal_scores import ScoreContext
from medzsad.results.lesions import CandidateRules, Lesion, LesionCandidates, find_lesions
from medzsad.scans.foreground import foreground_mask
from medzsad.scans.intensity import IntensityScaling
from medzsad.scans.prepared import Box, box_around
from medzsad.scans.scan import Scan
from medzsad.scans.slices import CanonicalView, Plane

if TYPE_CHECKING:
    from collections.abc import Mapping

    import nibabel
    from monai.data import MetaTensor


FORMATS = ("nifti", "overlay", "json")
RESULT = "medzsad_result"
"""In the meta of a map: all of its :class:`ScanPrediction` but scan and map, as JSON."""
_APART = ("scan", "anomaly_map", "brain", "prepared_box")


@dataclass(frozen=True)
class SliceScore:
    """The image score of one slice.

    Attributes:
        plane: axial, coronal or sagittal.
        axis: native voxel axis that the slice is perpendicular to.
        index: voxel index along ``axis``, from 0.
        position_mm: world coordinate (RAS+) of the slice centre along the plane's own direction.
        score: image score in [0, 1].
        probability: image-level probability alone, in [0, 1].
    """

    plane: Plane
    axis: int
    index: int
    position_mm: float
    score: float
    probability: float


@dataclass(repr=False)
class ScanPrediction:
    """The result for one scan.

    Attributes:
        scan: the scan as read.
        anomaly_map: float32 (X, Y, Z) in [0, 1], the scan's own grid; 0 outside the foreground and the region
            of interest.
        score: volume score in [0, 1]: see docs/outputs.md.
        slice_scores: the slices that were computed; empty slices are left out.
        threshold: the value that the map is cut at.
        threshold_rule: how it was chosen: ``"0.5"``, ``"p99.5"``, ``"otsu"``.
        planes: what was sliced.
        scaling: how intensities were mapped, for display and for the report.
        settings: detector and inference settings, JSON-serialisable.
        timings: seconds, by stage.
        rules: which candidates are shown.
        brain: bool (X, Y, Z), the brain as the detector sees it; None where it does not.
        score_context: where the score lies among those of normal volumes; empty where that is not known.
        prepared_box: :attr:`foreground_box`, where it was computed for the detector already.
    """

    scan: Scan
    anomaly_map: np.ndarray
    score: float
    slice_scores: list[SliceScore]
    threshold: float
    threshold_rule: str
    planes: tuple[Plane, ...]
    scaling: IntensityScaling
    settings: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    rules: CandidateRules = field(default=CandidateRules(), kw_only=True)
    brain: np.ndarray | None = field(default=None, kw_only=True)
    score_context: tuple[ScoreContext, ...] = field(default=(), kw_only=True)
    prepared_box: Box | None = field(default=None, kw_only=True)

    @property
    def affine(self) -> np.ndarray:
        """float64 (4, 4), voxel to world mm, RAS+."""
        return self.scan.affine

    @property
    def above_threshold(self) -> np.ndarray:
        """Return bool (X, Y, Z): where the map reaches the threshold, whether it is shown or hidden."""
        # At a threshold of 0 the background, which is exactly 0, must not become suspicious.
        return (self.anomaly_map >= self.threshold) & (self.anomaly_map > 0)

    @cached_property
    def mask(self) -> np.ndarray:
        """Return bool (X, Y, Z).

        The suspicious voxels: above the threshold, and in nothing that is hidden.
        """
        return self.candidates.labels > 0

    @cached_property
    def candidates(self) -> LesionCandidates:
        """Lesion candidates and their labels: found once, so that all results number them alike."""
        return find_lesions(
            self.anomaly_map,
            self.above_threshold,
            self.affine,
            rules=self.rules,
            has_geometry=self.scan.has_geometry,
        )

    @cached_property
    def foreground_box(self) -> Box:
        """The box around the scan's foreground, that pictures show; along the canonical axes."""
        if self.prepared_box is not None:
            return self.prepared_box
        view = CanonicalView.of(self.scan)
        return box_around(view.to_canonical(foreground_mask(self.scan)))

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that tell this prediction's files from those of any other."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.anomaly_map).data, digest_size=6)
        digest.update(f"{self.threshold!r} {self.affine.tolist()} {self.scan.name}".encode())
        if self.rules != CandidateRules():
            digest.update(repr(self.rules).encode())
        return digest.hexdigest()

    @property
    def rule_in_brackets(self) -> str:
        """The threshold's rule as `` (otsu)``, to stand behind its value; empty where it is that value."""
        try:
            float(self.threshold_rule)
        except ValueError:
            return f" ({self.threshold_rule})"
        return ""

    @property
    def lesions(self) -> list[Lesion]:
        """Lesion candidates that are shown, most suspicious first."""
        return self.candidates.lesions

    @property
    def hidden_lesions(self) -> list[Lesion]:
        """Lesion candidates that :attr:`rules` hide, most suspicious first; they are not in the mask."""
        return self.candidates.hidden

    def __repr__(self) -> str:
        voxels = " x ".join(map(str, self.scan.shape))
        facts = f"score {self.score:.3f}, threshold {self.threshold:.3g}"
        return f"ScanPrediction({self.scan.name!r}, {self.settings.get('model')}, {voxels} voxels, {facts})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the overlay and the candidates, without patient data."""
        from medzsad.results.html.report import render_notebook

        return render_notebook(self)

    def to_nibabel(self) -> nibabel.Nifti1Image:
        """Return the anomaly map as a nibabel image, float32 (X, Y, Z), as ``save`` writes it.

        It has the scan's affine, orientation codes and units. Of a 2D image its third axis is 1 long.
        """
        from medzsad.results.map_files import nifti_image

        anomaly_map = self.anomaly_map.astype(np.float32, copy=False)
        return nifti_image(anomaly_map, self.scan, fingerprint=self.fingerprint)

    def to_metatensor(self) -> MetaTensor:
        """Return the anomaly map as a MONAI ``MetaTensor``, float32 (1, X, Y, Z), with the scan's affine.

        Its meta holds ``score`` and ``threshold``, the file's name, and all else that
        :class:`medzsad.monai.SavePredictiond` needs, as JSON.
        """
        import torch
        from monai.data import MetaTensor

        return MetaTensor(
            torch.from_numpy(self.anomaly_map[None].copy()),
            affine=torch.from_numpy(self.affine),
            meta={"filename_or_obj": str(self.scan.source), "space": "RAS", **result_meta(self)},
        )

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        formats: tuple[str, ...] = FORMATS,
        with_identity: bool = False,
    ) -> dict[str, Path]:
        """Write the result files; each appears complete or not at all.

        Results of another prediction under the same name are removed, whatever their format: the folder never
        holds two predictions of one name.

        Args:
            folder: created where missing.
            formats: any of ``"nifti"`` (map and mask; 16-bit and 8-bit PNG for 2D images), ``"overlay"``,
                ``"json"``, ``"scan"`` (the scan as read: useful where DICOM was resampled) and ``"brain"``
                (as the detector sees it); for scans read from DICOM,
                ``"dicom-seg"``, ``"dicom-seg-fractional"``, ``"dicom-pm"``, ``"dicom-sr"`` (with
                ``"dicom-seg"``) and ``"dicom-sc"``. Further ``"html"`` (the report to look through),
                ``"slices"`` (a folder of pictures) and, but for 2D images, ``"seg.nrrd"`` (for 3D Slicer).
            with_identity: the HTML report also names the patient, where the scan's DICOM source does.

        Returns:
            What was written, by kind: ``anomaly``, ``mask``, ``overlay``, ``json``, ``scan``, and
            the other formats by their own names; ``dicom-sc`` and ``slices`` are folders.

        Raises:
            ValueError: on an unknown format.
            BadInput: DICOM results of a scan that was not read from DICOM.
            OutputNotWritable: if a file cannot be written, or would replace one that is no result of medzsad;
                what this call had written is removed again.
        """
        from medzsad.results.writing import save_prediction

        return save_prediction(self, Path(folder), formats, with_identity=with_identity)


def result_meta(prediction: ScanPrediction) -> dict[str, Any]:
    """Return what a map's meta says of its prediction: ``score``, ``threshold`` and :data:`RESULT`.

    All are values that MONAI collates into batches and takes apart again.
    """
    facts = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    document = {name: value for name, value in facts.items() if name not in _APART}
    document["slice_scores"] = [asdict(score) for score in prediction.slice_scores]
    document["scaling"], document["rules"] = asdict(prediction.scaling), asdict(prediction.rules)
    document["score_context"] = [asdict(context) for context in prediction.score_context]
    given = prediction.scan.modality_source == "given"
    document["given_modality"] = str(prediction.scan.modality) if given else None
    text = json.dumps(document, default=lambda value: value.item())
    return {"score": prediction.score, "threshold": prediction.threshold, RESULT: text}


def given_modality(meta: Mapping[str, Any]) -> str | None:
    """Return the modality that the caller of the prediction gave; None if none was given, or is known."""
    return json.loads(meta[RESULT])["given_modality"] if RESULT in meta else None


def prediction_from(scan: Scan, anomaly_map: np.ndarray, meta: Mapping[str, Any]) -> ScanPrediction:
    """Make the prediction that :func:`result_meta` was told of.

    Args:
        scan: that was predicted.
        anomaly_map: float32 (X, Y, Z) on the scan's grid, as predicted or changed since.
        meta: of the map.

    Raises:
        ValueError: if the meta says nothing of a prediction, or the map is not on the scan's grid.
    """
    if RESULT not in meta:
        raise ValueError("the map's meta names no prediction: give a map of AnomalyInferer or AnomalyMapd")
    if anomaly_map.shape != scan.shape:
        raise ValueError(f"the map is {anomaly_map.shape} and the scan {scan.shape}: give both on one grid")
    document = json.loads(meta[RESULT])
    scaling = document["scaling"]
    return ScanPrediction(
        scan=scan,
        anomaly_map=anomaly_map,
        score=document["score"],
        slice_scores=[
            SliceScore(**{**score, "plane": Plane(score["plane"])}) for score in document["slice_scores"]
        ],
        threshold=document["threshold"],
        threshold_rule=document["threshold_rule"],
        planes=tuple(map(Plane, document["planes"])),
        scaling=IntensityScaling(**{**scaling, "low": tuple(scaling["low"]), "high": tuple(scaling["high"])}),
        settings=document["settings"],
        timings=document["timings"],
        rules=CandidateRules(**document.get("rules", {})),  # maps of older versions have none, nor the next
        score_context=tuple(ScoreContext(**context) for context in document.get("score_context", ())),
    )
