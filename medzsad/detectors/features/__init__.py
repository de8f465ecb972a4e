"""Frozen image features, which learned nothing of anomalies: what patches are compared by."""

from medzsad.detectors.features.base import PatchFeatures, build_features

__all__ = ["PatchFeatures", "build_features"]
