"""A prediction's facts in the meta of its map, from which, with the scan, the prediction is made again."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.results.lesions import CandidateRules
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.scans.intensity import IntensityScaling
from medzsad.scans.slices import Plane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medzsad.scans.scan import Scan

RESULT = "medzsad_result"
"""In the meta of a map: all of its :class:`ScanPrediction` but scan and map, as JSON."""

_APART = ("scan", "anomaly_map", "brain", "prepared_box")


def result_meta(prediction: ScanPrediction) -> dict[str, Any]:
    """Return what a map's meta says of its prediction: ``score``, ``threshold`` and :data:`RESULT`.

    All are values that MONAI collates into batches and takes apart again.
    """
    facts = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    document = {name: value for name, value in facts.items() if name not in _APART}
    document["slice_scores"] = [asdict(score) for score in prediction.slice_scores]
    document["scaling"], document["rules"] = asdict(prediction.scaling), asdict(prediction.rules)
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
        rules=CandidateRules(**document.get("rules", {})),  # maps of older versions have none
    )
