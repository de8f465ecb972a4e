"""Frozen image features that learned nothing of anomalies: what detectors of deviations compare patches by."""

from medzsad.detectors.features.base import PatchFeatures, build_features

__all__ = ["PatchFeatures", "build_features"]
